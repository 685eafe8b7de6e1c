"""Crop, clip and z-score, resample a scan, and the way back for probabilities.

A scan is cropped to its non-zero region, its axes are put into the plan's order, it is clipped to the fingerprint's 0.5
and 99.5 percentiles and z-scored with its mean and deviation (nnU-Net's "CT" scheme: one scale for the whole data
set, as grey values here mean the same in every scan), and resampled to the plan's spacing where it has another one.
Resampling comes last as in nnU-Net v2, so that models can be exchanged.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path

import numpy as np
from scipy import ndimage

from octkit.common.errors import OctkitError, by
from octkit.common.files import read_json_as
from octkit.data.grey_range import grey_range, odd_range, shown
from octkit.data.volume_files import MAX_VOXELS
from octkit.planning.fingerprint import crop_to_nonzero
from octkit.planning.plan import Plan
from octkit.planning.resampling import coarse_axis, new_shape, resample, resample_mask
from octkit.planning.run import Run


@dataclass(frozen=True)
class Geometry:
    """What `restore` needs to undo crop, reordering and resampling.

    `original_shape` and `crop` ((start, stop) an axis) are in the file's order of axes, the others in the plan's:
    `spacing` is the scan's, `target` that of the network's grid.
    """

    original_shape: tuple[int, ...]
    crop: tuple[tuple[int, int], ...]
    axis_order: tuple[int, ...]
    spacing: tuple[float, ...]
    target: tuple[float, ...]
    resampled_shape: tuple[int, ...]

    @property
    def all_a_scans(self) -> bool:
        """Whether none was cropped away: else the first and the last of a circle's that are left are no neighbours."""
        return self.crop[-1] == (0, self.original_shape[-1])


@dataclass(frozen=True)
class CaseGeometry(Geometry):
    """A preprocessed case's geometry, and whether its last A-scan is the neighbour of the first: <name>.json."""

    circle: bool


@dataclass(frozen=True)
class PreprocessedCase:
    """Where a preprocessed training case lies; arrays are opened without reading them into memory."""

    name: str
    folder: Path
    first_step: Path | None = None  # the folder of a cascade's first-step masks

    @property
    def image(self) -> np.ndarray:
        """(channels, *spatial) float32, z-scored."""
        return _stored(self.folder / f"{self.name}.image.npy")

    @property
    def mask(self) -> np.ndarray:
        """(*spatial) uint8 labels."""
        return _stored(self.folder / f"{self.name}.mask.npy")

    @cached_property
    def geometry(self) -> CaseGeometry:
        """How the scan was brought to this grid. Raises OctkitError where its file is damaged."""
        return read_json_as(self.folder / f"{self.name}.json", CaseGeometry, "preprocess again")

    @property
    def circle(self) -> bool:
        """Whether the last A-scan is the neighbour of the first."""
        return self.geometry.circle

    @property
    def previous(self) -> np.ndarray:
        """What the cascade's first step found, (*spatial) uint8 labels on this case's grid."""
        assert self.first_step is not None  # of a cascade's second step alone
        return _stored(self.first_step / f"{self.name}.npy")


def _stored(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise OctkitError(f"{path}: cannot be read ({error}), expected a preprocessed case; preprocess again") from None


def _ct(channel: np.ndarray, record: dict[str, float], _mask: object) -> np.ndarray:
    clipped = np.clip(channel, record["percentile_00_5"], record["percentile_99_5"])
    return (clipped - np.float32(record["mean"])) / np.float32(max(record["std"], 1e-8))


def _zscore(channel: np.ndarray, _record: object, _mask: object) -> np.ndarray:
    return (channel - channel.mean()) / max(channel.std(), np.float32(1e-8))


def _zscore_in_mask(channel: np.ndarray, _record: object, mask: np.ndarray) -> np.ndarray:
    scaled = channel.copy()
    scaled[mask] = _zscore(channel[mask], None, None)
    return scaled


# For each of the plan's NORMALISATIONS a function of a channel, its statistics and the mask of the scan. Our own plans
# use "ct" alone; the others are what nnU-Net's models may have been trained with.
SCHEMES: dict[str, Callable] = {
    "ct": _ct, "zscore": _zscore, "zscore_in_mask": _zscore_in_mask,
    "rescale_0_1": lambda channel, _record, _mask: (channel - channel.min()) / max(np.ptp(channel), np.float32(1e-8)),
    "rgb_0_1": lambda channel, _record, _mask: channel / np.float32(255),
    "none": lambda channel, _record, _mask: channel,
}


# These look at a scan by itself: its range makes no difference, its inversion does.
OF_EACH_SCAN = ("zscore", "zscore_in_mask", "rescale_0_1")


def odd_greys(image: np.ndarray, plan: Plan) -> tuple[str, ...]:
    """Why the network cannot know a scan (channels, *spatial) by its grey values: one sentence a channel, mostly none.

    They are held against the training scans' labelled pixels, to whose percentiles scans are clipped.
    """
    reasons = []
    for name, channel, record, scheme in zip(plan.channels, image, plan.intensity, plan.schemes, strict=False):
        found, low, high = grey_range(channel), record["percentile_00_5"], record["percentile_99_5"]
        if odd := odd_range(found, *(found[::2] if scheme in OF_EACH_SCAN else (low, high))):
            which = f" of {name}" if len(image) > 1 else ""
            reasons.append(f"the grey values{which}, {shown(*found[::2])}, are {odd} for this model, whose training "
                           f"scans have {shown(low, high)} in their layers: bring them to that range, with a dark "
                           "vitreous")
    return tuple(reasons)


def normalise(image: np.ndarray, intensity: Sequence[dict[str, float]], schemes: Sequence[str]) -> np.ndarray:
    """Bring each channel of (channels, *spatial) to the network's grey scale by its scheme; float32.

    `intensity` are the data set's statistics, one record a channel. Raises OctkitError for another number of channels.
    """
    if len(image) != len(schemes):
        raise OctkitError(f"found an image of {len(image)} channels, expected {len(schemes)} as in the plan")
    mask = None
    if "zscore_in_mask" in schemes:  # the scan without its black surround; holes inside belong to it
        mask = ndimage.binary_fill_holes((image != 0).any(axis=0))
    return np.stack([SCHEMES[scheme](channel.astype(np.float32, copy=False), record, mask)
                     for channel, record, scheme in zip(image, intensity, schemes, strict=True)])


def preprocess(image: np.ndarray, spacing: Sequence[float] | None, plan: Plan, config: str,
               mask: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray | None, Geometry]:
    """Bring a scan to the grid and grey scale of a plan's configuration.

    Args:
        image: (channels, *spatial) as stored.
        spacing: mm per axis in the file's order, or None where unknown: then the scan counts as one of the plan's
            own spacing. A plan in px takes every voxel as 1 x 1 x 1.
        mask: (*spatial) uint8 labels, for training cases.

    Returns:
        image (channels, *new spatial) float32, the mask on the same grid, and the Geometry for `restore`. The 2-D
        configuration of volumes resamples each slice by itself and keeps their number.
    """
    scale, target = _spacings(spacing, plan, config, image.ndim - 1)
    box = crop_to_nonzero(image)
    prepared = _reordered(image[:, *box], plan.axis_order)
    shape = new_shape(prepared.shape[1:], scale, target)
    crop = tuple((part.start, part.stop) for part in box)
    geometry = Geometry(tuple(image.shape[1:]), crop, plan.axis_order, scale, target, shape)
    coarse = coarse_axis(scale, target)
    prepared = resample(normalise(prepared, plan.intensity, plan.schemes), shape, order=3, coarse=coarse)
    if mask is not None:
        mask = np.ascontiguousarray(resample_mask(_reordered(mask[box][None], plan.axis_order)[0], shape, coarse))
    return np.ascontiguousarray(prepared), mask, geometry


def check_grid(shape: Sequence[int], spacing: Sequence[float] | None, plan: Plan, config: str, where: Path) -> None:
    """Raise OctkitError where a scan of `shape` would be too large on the plan's grid: its file may state any scale."""
    scale, target = _spacings(spacing, plan, config, len(shape))
    if prod(resampled := new_shape(_ordered(shape, plan.axis_order), scale, target)) > MAX_VOXELS:
        raise OctkitError(f"{where}: found a spacing of {by(scale)} {plan.units}, which makes {by(resampled)} px at "
                          f"the plan's {by(target)} {plan.units}, expected at most {MAX_VOXELS}")


def restore(values: np.ndarray, geometry: Geometry, outside: float = 1.0, dtype: type = np.float32) -> np.ndarray:
    """Probabilities (classes, *network grid) back on the scan's own grid, (classes, *original) of `dtype`.

    Linear resampling keeps the sum of each pixel's probabilities at 1. Outside the crop class 0 gets the value
    `outside`, all others 0.
    """
    coarse = coarse_axis(geometry.target, geometry.spacing)
    shape = _ordered([stop - start for start, stop in geometry.crop], geometry.axis_order)
    cropped = resample(values, shape, order=1, coarse=coarse, dtype=dtype)
    if geometry.axis_order:
        cropped = _reordered(cropped, tuple(np.argsort(geometry.axis_order)))
    if cropped.shape[1:] == geometry.original_shape:
        return np.ascontiguousarray(cropped)
    whole: np.ndarray = np.zeros((len(cropped), *geometry.original_shape), dtype)
    whole[0] = outside
    whole[:, *(slice(start, stop) for start, stop in geometry.crop)] = cropped
    return whole


def _spacings(spacing: Sequence[float] | None, plan: Plan, config: str,
              axes: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The scan's spacing and the target's, both in the plan's order of axes and with one number an axis.

    Raises OctkitError for a scan with another number of axes.
    """
    if axes != plan.axes:
        raise OctkitError(f"found a scan of {axes} axes, expected {plan.axes} as in the plan")
    target = plan.configurations[config].spacing
    scale = (1.0,) * axes
    if plan.units != "px" and spacing is not None:
        scale = _ordered(spacing, plan.axis_order)
    elif plan.units != "px":
        finest = next(name for name in ("3d_fullres", "2d", config) if name in plan.configurations)
        own = plan.configurations[finest].spacing
        scale = (*scale[len(own):], *own)
    return tuple(map(float, scale)), (*scale[:axes - len(target)], *target)


def _reordered(array: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """(channels, *spatial) with its spatial axes in `order`."""
    return array.transpose(0, *(axis + 1 for axis in order)) if order else array


def _ordered(values: Sequence, order: Sequence[int]) -> tuple:
    return tuple(values[axis] for axis in order) if order else tuple(values)


def load_preprocessed(run: Run, config: str, names: Sequence[str],
                      first_step: Path | None = None) -> tuple[PreprocessedCase, ...]:
    """The preprocessed cases of these names. Raises OctkitError where one has not been preprocessed, or is damaged."""
    folder = run.preprocessed(config)
    cases = tuple(PreprocessedCase(name, folder, first_step) for name in names)
    for case in cases:
        if not (folder / f"{case.name}.json").exists():
            raise OctkitError(f"{folder}: case {case.name} is not preprocessed; run `octkit preprocess {run.folder}`")
        _ = case.geometry  # read now, so that a damaged file stops before the work begins
    return cases


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """Labels (*spatial) as a channel for each foreground class 1 to `classes`: (classes, *spatial) float32, 0 or 1."""
    return np.stack([labels == label for label in range(1, classes + 1)]).astype(np.float32)
