from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

GREYS = np.array([255, 0, 80, 160], np.uint8)  # background, RNFL, GCIPL, choroid


def striped_scan(seed: int, size: tuple[int, int] = (40, 48)) -> tuple[np.ndarray, np.ndarray]:
    """A tiny layered scan, (H, W) uint8 grey values and labels: easy to learn, quick to make."""
    random = np.random.default_rng(seed)
    height, width = size
    rows = np.arange(height)[:, None]
    top = 8 + random.integers(4) + np.round(3 * np.sin(np.linspace(0, 2 * np.pi, width, endpoint=False)))
    label = np.select([rows < top, rows < top + 6, rows < top + 11, rows < top + 15, rows < top + 22],
                      [0, 1, 2, 0, 3], 0).astype(np.uint8)
    brightness = np.array([20, 200, 130, 90])[label]
    return np.clip(brightness + random.normal(0, 12, size), 1, 255).astype(np.uint8), label


def write_goals(root: Path, train: int = 6, validation: int = 2, size: tuple[int, int] = (40, 48)) -> Path:
    """A data set of striped scans in the GOALS layout, with Truth for the validation scans."""
    folders = {"image": "Train/Image", "mask": "Train/Layer_Masks", "held_out": "Validation/Image",
               "truth": "Truth/Layer_Masks"}
    paths = {name: root / folder for name, folder in folders.items()}
    for path in paths.values():
        path.mkdir(parents=True)
    labels = {"train": [], "truth": []}
    for number in range(1, train + validation + 1):
        image, label = striped_scan(number, size)
        training = number <= train
        Image.fromarray(image).save(paths["image" if training else "held_out"] / f"{number:04d}.png")
        Image.fromarray(GREYS[label]).save(paths["mask" if training else "truth"] / f"{number:04d}.png")
        labels["train" if training else "truth"].append({"ImgName": number, "GC_Label": number % 2})
    pd.DataFrame(labels["train"]).to_excel(root / "Train" / "Train_GC_GT.xlsx", index=False)
    pd.DataFrame(labels["truth"]).to_excel(root / "Truth" / "GC_GT.xlsx", index=False)
    return root


@pytest.fixture
def goals(tmp_path) -> Path:
    return write_goals(tmp_path / "goals")
