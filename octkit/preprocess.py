"""Crop, resample, clip and z-score a scan, and the way back for probabilities.

Order and numbers as in the recipe: crop to the non-zero region; resample to the plan's spacing where it
differs; clip to the fingerprint's 0.5 and 99.5 percentiles; subtract its mean, divide by its deviation
(nnU-Net's "CT" scheme: one scale for the whole data set, as grey values here mean the same in every scan).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage
from tqdm.auto import tqdm

from octkit import layouts, settings
from octkit.cases import Case
from octkit.files import OctkitError, read_json, replacing, write_json
from octkit.fingerprint import crop_to_nonzero
from octkit.planner import Plan
from octkit.splits import Split, make_splits

# Two spacings closer than this count as equal: resampling would only blur.
SAME_SPACING = 1e-3


@dataclass(frozen=True)
class Geometry:
    """What `restore` needs to undo the crop and the resampling: sizes in px, crop as (start, stop) an axis."""

    original_shape: tuple[int, ...]
    crop: tuple[tuple[int, int], ...]
    resampled_shape: tuple[int, ...]

    @property
    def cropped_shape(self) -> tuple[int, ...]:
        return tuple(stop - start for start, stop in self.crop)


@dataclass(frozen=True)
class PreprocessedCase:
    """Where a preprocessed training case lies; arrays are opened without reading them into memory."""

    name: str
    folder: Path

    @property
    def image(self) -> np.ndarray:
        """(channels, *spatial) float32, z-scored."""
        return np.load(self.folder / f"{self.name}.image.npy", mmap_mode="r")

    @property
    def mask(self) -> np.ndarray:
        """(*spatial) uint8 labels."""
        return np.load(self.folder / f"{self.name}.mask.npy", mmap_mode="r")


def new_shape(shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]) -> tuple[int, ...]:
    """Size in px that covers the same field at the target spacing: 100 px of 2 mm at 1 mm are 200 px."""
    return tuple(max(1, round(n * old / new)) for n, old, new in zip(shape, spacing, target, strict=True))


def resample(array: np.ndarray, shape: Sequence[int], order: int) -> np.ndarray:
    """Resample each channel of (channels, *spatial) to `shape` with splines of `order`; float32, same corners.

    Pixels are areas, not points: the outer edges of the grid stay where they are.
    """
    shape = tuple(shape)
    if array.shape[1:] == shape:
        return array.astype(np.float32, copy=False)
    zoom = [new / old for old, new in zip(array.shape[1:], shape, strict=True)]
    resampled = np.stack([ndimage.zoom(channel.astype(np.float32), zoom, order=order, mode="nearest", grid_mode=True)
                          for channel in array])
    if resampled.shape[1:] != shape:
        raise ValueError(f"resampling {array.shape[1:]} gave {resampled.shape[1:]}, expected {shape}")
    return resampled


def resample_mask(mask: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Resample labels (*spatial): each label's indicator linearly, then the label with the largest share.

    Splines on label numbers would invent label 1 between labels 0 and 2.
    """
    if mask.shape == tuple(shape):
        return mask
    labels = np.unique(mask)
    shares = resample(np.stack([mask == label for label in labels]), shape, order=1)
    return labels[shares.argmax(0)].astype(np.uint8)


def normalise(image: np.ndarray, intensity: Sequence[dict[str, float]]) -> np.ndarray:
    """Clip and z-score each channel with the data set's own statistics; (channels, *spatial) float32."""
    if len(intensity) != len(image):
        raise OctkitError(f"found an image of {len(image)} channels, expected {len(intensity)} as in the plan")
    normalised = np.empty_like(image, dtype=np.float32)
    for channel, values in enumerate(intensity):
        np.clip(image[channel], values["percentile_00_5"], values["percentile_99_5"], out=normalised[channel])
        normalised[channel] -= values["mean"]
        normalised[channel] /= max(values["std"], 1e-8)
    return normalised


def preprocess(image: np.ndarray, spacing: Sequence[float] | None, target_spacing: Sequence[float],
               intensity: Sequence[dict[str, float]], mask: np.ndarray | None = None,
               ) -> tuple[np.ndarray, np.ndarray | None, Geometry]:
    """Bring a scan to the network's grid and grey scale.

    Args:
        image: (channels, *spatial) as stored.
        spacing: mm per axis, or None where unknown: then the scan's own grid is kept.
        target_spacing: the plan's.
        intensity: the plan's statistics, one record a channel.
        mask: (*spatial) uint8 labels, for training cases.

    Returns:
        image (channels, *new spatial) float32, the mask on the same grid, and the Geometry for `restore`.
    """
    original_shape = image.shape[1:]
    box = crop_to_nonzero(image)
    image = image[(slice(None), *box)]
    shape = image.shape[1:]
    if spacing is not None and not np.allclose(spacing, target_spacing, rtol=SAME_SPACING):
        shape = new_shape(shape, spacing, target_spacing)
    crop = tuple((part.start, part.stop) for part in box)
    normalised = normalise(resample(image, shape, order=3), intensity)
    if mask is not None:
        mask = resample_mask(mask[box], shape)
    return normalised, mask, Geometry(tuple(original_shape), crop, tuple(shape))


def restore(probabilities: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Probabilities (classes, *network grid) back on the scan's own grid, (classes, *original) float32.

    Linear resampling keeps each pixel's probabilities a partition of 1; outside the crop all is background.
    """
    cropped = resample(probabilities, geometry.cropped_shape, order=1)
    if geometry.cropped_shape == geometry.original_shape:
        return cropped
    whole = np.zeros((len(cropped), *geometry.original_shape), np.float32)
    whole[0] = 1
    whole[(slice(None), *(slice(start, stop) for start, stop in geometry.crop))] = cropped
    return whole


def preprocess_run(run_dir: Path, progress: bool = True) -> tuple[PreprocessedCase, ...]:
    """Preprocess a run's training cases into preprocessed/<config>/: <case>.image.npy, .mask.npy, .json."""
    run_dir = Path(run_dir)
    chosen = settings.load(run_dir / "settings.json")
    plan = Plan.load(run_dir / "plan.json")
    dataset = layouts.open_dataset(chosen.data.root)
    folder = run_dir / "preprocessed" / chosen.train.config
    for marker in folder.glob("*.json"):  # stopped half-way, no case of another plan may pass for a new one
        marker.unlink()
    for case in tqdm(dataset.train, desc="preprocess", unit="scan", disable=not progress):
        _preprocess_case(dataset, case, plan, chosen.train.config, folder)
    return load_preprocessed(run_dir, chosen.train.config, [case.name for case in dataset.train])


def split_run(run_dir: Path) -> list[Split]:
    """Deal a run's training cases into folds, glaucoma spread evenly; leaves splits.json."""
    run_dir = Path(run_dir)
    chosen = settings.load(run_dir / "settings.json")
    cases = layouts.open_dataset(chosen.data.root).train
    splits = make_splits([case.name for case in cases], chosen.splits.folds, chosen.seed,
                         {case.name: case.glaucoma for case in cases})
    write_json(run_dir / "splits.json", splits)
    return splits


def load_preprocessed(run_dir: Path, config: str, names: Sequence[str]) -> tuple[PreprocessedCase, ...]:
    """The preprocessed cases of these names. Raises OctkitError where one has not been preprocessed."""
    folder = Path(run_dir) / "preprocessed" / config
    for name in names:
        if not (folder / f"{name}.json").exists():
            raise OctkitError(f"{folder}: case {name} is not preprocessed; run `octkit preprocess {run_dir}` first")
    return tuple(PreprocessedCase(name, folder) for name in names)


def load_geometry(case: PreprocessedCase) -> Geometry:
    """The geometry that `preprocess_run` left beside a case."""
    content = read_json(case.folder / f"{case.name}.json")
    return Geometry(tuple(content["original_shape"]), tuple(tuple(side) for side in content["crop"]),
                    tuple(content["resampled_shape"]))


def _preprocess_case(dataset, case: Case, plan: Plan, config: str, folder: Path) -> None:
    spacing = case.spacing if plan.units == "mm" else None
    image, mask, geometry = preprocess(dataset.read_image(case), spacing, plan.configurations[config].spacing,
                                       plan.intensity, dataset.read_mask(case))
    for kind, array in (("image", image), ("mask", mask)):
        with replacing(folder / f"{case.name}.{kind}.npy") as temporary, open(temporary, "wb") as file:
            np.save(file, array)
    write_json(folder / f"{case.name}.json", asdict(geometry))  # last: its presence says that all is there
