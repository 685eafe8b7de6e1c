"""What several tests make: tiny data sets, models, runs, notebooks."""

import itertools
import os
import shlex
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import nbformat
import numpy as np
import pandas as pd
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from PIL import Image
from scipy.ndimage import gaussian_filter

from octkit.common import settings
from octkit.common.files import read_json, write_json
from octkit.data.layouts import detect
from octkit.data.volume_files import write_nifti
from octkit.planning import fingerprint, steps
from octkit.planning.run import Run

SHARED = Path(__file__).parents[2] / "shared"  # data for tests alone; what needs it is skipped where it is not

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


def save_anew(folder: Path, ending: str, change=lambda pixels: pixels) -> None:
    """Save every PNG of a folder in another format, with changed pixels."""
    for path in folder.glob("[!.]*.png"):
        pixels = change(np.asarray(Image.open(path)))
        path.unlink()
        Image.fromarray(pixels).save(path.with_suffix(ending))


def to_16_bits(grey: np.ndarray) -> np.ndarray:
    """The 16-bit copy of 8-bit grey values: 255 becomes 65535."""
    return grey.astype(np.uint16) * 257


def striped_volume(seed: int, size: tuple[int, int, int] = (3, 40, 48)) -> tuple[np.ndarray, np.ndarray]:
    """A tiny volume of striped scans, (B-scans, rows, A-scans) uint8 grey values and labels."""
    scans, labels = zip(*(striped_scan(100 * seed + b, size[1:]) for b in range(size[0])), strict=True)
    return np.stack(scans), np.stack(labels)


def write_stack(folder: Path, volume: np.ndarray, spacing: tuple[float, ...] | None = None) -> Path:
    """A volume as a folder of B-scan PNGs, with spacing.json where a spacing is given."""
    folder.mkdir(parents=True)
    for number, b_scan in enumerate(volume):
        Image.fromarray(b_scan).save(folder / f"{number:03d}.png")
    if spacing:
        write_json(folder / "spacing.json", {"spacing": list(spacing)})
    return folder


def write_volumes(root: Path, train: int = 4, validation: int = 1, size: tuple[int, int, int] = (3, 40, 48),
                  spacing: tuple[float, float, float] = (0.12, 0.004, 0.015), stacks: bool = False) -> Path:
    """A data set of striped volumes in the "volumes" layout, with Truth/Mask: NIfTI files, or folders of B-scans."""
    for number in range(1, train + validation + 1):
        image, label = striped_volume(number, size)
        folders = ("Train/Image", "Train/Mask") if number <= train else ("Validation/Image", "Truth/Mask")
        if stacks:
            write_stack(root / folders[0] / f"{number:04d}", image, spacing)
            write_stack(root / folders[1] / f"{number:04d}", label)
        else:
            write_nifti(root / folders[0] / f"{number:04d}.nii.gz", image, spacing)
            write_nifti(root / folders[1] / f"{number:04d}.nii.gz", label, spacing)
    return root


def write_nnunet_raw(root: Path, train: int = 4, test: int = 1, ending: str = ".png",
                     channels: tuple[str, ...] = ("OCT",),
                     labels: tuple[str, ...] = ("RNFL", "GCIPL", "Choroid")) -> Path:
    """A raw data set of nnU-Net's: striped scans as PNG, striped volumes as NIfTI; channel n is shifted by n rows."""
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (root / folder).mkdir(parents=True)

    def write(path, values):
        if ending == ".png":
            Image.fromarray(values).save(path)
        else:
            write_nifti(path, values, (0.12, 0.004, 0.015))

    for number in range(1, train + test + 1):
        image, label = striped_scan(number) if ending == ".png" else striped_volume(number)
        folder = "imagesTr" if number <= train else "imagesTs"
        for channel in range(len(channels)):
            write(root / folder / f"eye_{number:03d}_{channel:04d}{ending}", np.roll(image, channel, axis=-2))
        if number <= train:
            write(root / "labelsTr" / f"eye_{number:03d}{ending}", label)
    write_json(root / "dataset.json", {
        "channel_names": {str(n): name for n, name in enumerate(channels)}, "numTraining": train, "file_ending": ending,
        "labels": {"background": 0} | {name: number for number, name in enumerate(labels, start=1)}})
    return root


def write_colours(root: Path, deep: bool = False) -> Path:
    """A raw data set of nnU-Net's of colour images, one file a case: a scan, its inverse, and its pixels in columns."""
    write_nnunet_raw(root)
    for path in root.glob("images*/*.png"):
        grey = np.asarray(Image.open(path))
        colours = np.dstack([grey, 255 - grey, grey.T.reshape(grey.shape)])
        cv2.imwrite(str(path), (to_16_bits(colours) if deep else colours)[..., ::-1])
    write_json(root / "dataset.json", read_json(root / "dataset.json") | {
        "channel_names": {"0": "R", "1": "G", "2": "B"}})
    return root


def write_mgunet(root: Path, train: int = 3, validation: int = 1, test: int = 1) -> Path:
    """A data set like the MGU-Net authors': GCL and IPL apart, the choroid, and an INL and a disc that nobody wants."""
    seed = 0
    for part, count in (("train", train), ("eval", validation), ("test", test)):
        for kind in ("img", "mask"):
            (root / part / kind).mkdir(parents=True)
        for number in range(1, count + 1):
            seed += 1
            image, label = striped_scan(seed)
            grey = np.array([0, 26, 51, 230], np.uint8)[label]
            grey[:, 24:][label[:, 24:] == 2] = 77
            grey[-2] = 102
            grey[-1] = 255
            Image.fromarray(image).save(root / part / "img" / f"{number}.png")
            Image.fromarray(grey).save(root / part / "mask" / f"{number}.png")
    return root


def write_semseg(root: Path, splits: tuple[str, ...] = ("train", "val", "test"), scans: int = 4) -> Path:
    """A copy of GOALS as it is handed on: folders bscan and semseg in each split's folder ("" for the root)."""
    for part, split in enumerate(splits):
        for kind in ("bscan", "semseg"):
            (root / split / kind).mkdir(parents=True)
        for number in range(1, scans + 1):
            image, label = striped_scan(number + scans * part)
            Image.fromarray(image).save(root / split / "bscan" / f"{number:04d}.png")
            Image.fromarray(np.array([0, 80, 160, 255], np.uint8)[label]).save(
                root / split / "semseg" / f"{number:04d}.png")
    return root


def octkit(*arguments: object) -> subprocess.CompletedProcess:
    """The command in a process of its own."""
    return subprocess.run([sys.executable, "-m", "octkit", *map(str, arguments)], capture_output=True, text=True,
                          check=False)


def fill(path: Path, leave: int) -> None:
    """Write a file that leaves so many bytes of its disk free."""
    path.write_bytes(bytes(shutil.disk_usage(path.parent).free - leave))


WRITES = {"os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "ctypes.dlsym"}


def killed_at_each_write(act: Callable[[], object]) -> Iterator[int]:
    """Call `act` in a forked process that dies before its first write, in the next one before its second …

    Yields after each death, and ends when `act` has come to its end.
    """
    code, number = 9, 0
    while code == 9:
        number += 1
        process = os.fork()
        if process == 0:
            left = number

            def before(event: str, arguments: tuple) -> None:
                nonlocal left
                writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
                left -= bool(writes or event in WRITES)
                if left <= 0:
                    os._exit(9)

            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), 1)
            sys.addaudithook(before)
            try:
                act()
                left = 10**9
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        assert code in (0, 9), "failed before it was killed"
        yield number


def scalars_of(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a folder: name -> [(epoch, value)]."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def tiny_model(*configs: str, folds=("0", "1"), seed: int = 0, channels=("OCT",), **traits):
    """A model of random weights: 2-D scans planned in px, or volumes where a configuration is 3-D.

    A cascade ("3d_cascade_fullres") comes with its first stage.
    """
    import torch

    from octkit.network.model import Member, Model, build_network
    from octkit.planning.plan import Configuration, Plan

    volumes = any(config.startswith("3d") for config in configs)
    flat = Configuration((16, 16), 2, (1.0, 1.0), (40.0, 48.0), (4, 8), ((1, 1), (2, 2)), ((3, 3), (3, 3)), True)
    deep = Configuration((4, 16, 16), 2, (1.0, 1.0, 1.0), (12.0, 24.0, 20.0), (4, 8), ((1, 1, 1), (1, 2, 2)),
                         ((1, 3, 3), (3, 3, 3)), False)
    known = {"2d": flat, "3d_fullres": deep, "3d_lowres": replace(deep, spacing=(2.0, 2.0, 2.0)),
             "3d_cascade_fullres": replace(deep, previous_stage="3d_lowres", batch_dice=True)}
    record = {"mean": 90.0, "std": 60.0, "median": 80.0, "min": 1.0, "max": 255.0, "percentile_00_5": 4.0,
              "percentile_99_5": 230.0}
    plan = Plan(known if volumes else {"2d": flat}, channels, ("rnfl", "gcipl", "choroid"), (record,) * len(channels),
                "mm" if volumes else "px", (2, 0, 1) if volumes else (), ("ct",) * len(channels))
    torch.manual_seed(seed)

    def member(config):
        weights = {fold: {name: tensor + 0.2 * torch.randn_like(tensor) for name, tensor
                          in build_network(plan, config, False).state_dict().items()} for fold in folds}
        previous = plan.configurations[config].previous_stage
        return Member(config, weights, previous and member(previous))

    traits = {"mirror": True, "mirror_axes": (-3, -2, -1), "step": 0.5, "precision": "float32"} | traits
    return Model(plan, tuple(map(member, configs)), plan.classes, **traits)


def scope_of(least: float):
    """A model's scope that takes every scan with `least` 0, and none with 1."""
    from octkit.data.measured import KINDS, Scope

    return Scope(features={"pit": (0.2, 0.1)}, weights=dict.fromkeys(KINDS, (1.0, 0.0)), least=least,
                 flagged={"circle scans": (1, 90), "other pictures": (80, 81)})


def same_weights(one, other) -> bool:
    """Whether two members hold the same bits, stages before included."""
    if one is None or other is None:
        return one is other
    return (one.config == other.config and one.weights.keys() == other.weights.keys()
            and all(one.weights[fold].keys() == other.weights[fold].keys() for fold in one.weights)
            and all(tensor.numpy().tobytes() == other.weights[fold][name].numpy().tobytes()
                    for fold, state in one.weights.items() for name, tensor in state.items())
            and same_weights(one.previous, other.previous))


def blurred_truth(mask: np.ndarray, sigma: float = 1.5) -> np.ndarray:
    """Probabilities of a good network: the truth, soft at its edges."""
    one_hot = np.stack([mask == label for label in range(4)]).astype(np.float32)
    return gaussian_filter(one_hot, (0, sigma, sigma), mode=("nearest", "nearest", "wrap"))

SMALL = ["splits.folds=2", "train.folds=[0]", "plan.base_features=4", "plan.max_features=8", "plan.batch_size=2",
         "train.iterations_per_epoch=2", "train.validation_iterations=1", "train.epochs=3"]


def make_run(folder, goals, *changes):
    chosen = settings.with_overrides(settings.from_profile("smoke"), [f"data.dir={goals}", *SMALL, *changes])
    chosen.save(folder / "settings.json")
    fingerprint.extract(detect.open_run(chosen), units="px").save(folder / "fingerprint.json")
    steps.plan_run(Run(folder))
    steps.preprocess_run(Run(folder), progress=False)
    steps.split_run(Run(folder))
    return folder


def train_and_stop_in_the_second_epoch(run):
    """Train fold 0 of a run until Ctrl-C in the second epoch: the first one's checkpoint is there."""
    from unittest.mock import patch

    import pytest

    from octkit.training.train import Training, train_fold

    real = Training.validate

    def validate(training, held_out):
        if len(training.log) == 1:
            raise KeyboardInterrupt
        return real(training, held_out)

    with patch.object(Training, "validate", validate), pytest.raises(KeyboardInterrupt):
        train_fold(Run(run), progress=False)


def log_of(run):
    return pd.read_csv(run / "models/2d/fold_0/log.csv").drop(columns="seconds")


def equal(one, other):
    import torch

    return all(torch.equal(one[name], other[name]) for name in one)


def write_notebook(folder, name, *cells, parameters=("run_dir = 'x'",)):
    folder.mkdir(exist_ok=True)
    tagged = [new_code_cell(text, metadata={"tags": ["parameters"]}) for text in parameters]
    cells = [new_markdown_cell("# A lesson"), *tagged, *map(new_code_cell, cells)]
    nbformat.write(new_notebook(cells=cells), folder / f"{name}.ipynb")


def smoke(*changes):
    return settings.with_overrides(settings.from_profile("smoke"), list(changes))


def advised(error) -> list[str]:
    """The settings that the message of a pytest.raises advises, "key=value" without the quotes of a shell."""
    words = shlex.split(str(error.value).replace(";", " "))
    return [word.rstrip(",") for before, word in itertools.pairwise(words) if before == "--set"]
