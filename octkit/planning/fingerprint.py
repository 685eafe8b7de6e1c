"""The data fingerprint: what a data set is like, in the few numbers that a plan is inferred from.

Taken over the training cases after cropping each to its non-zero region: sizes, spacings, channels, classes,
and the grey values of all labelled pixels (report, section on the data fingerprint).
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from scipy import ndimage

from octkit.common.errors import OctkitError
from octkit.common.files import read_json_as, write_json
from octkit.data.dataset import Case, Dataset, is_volume
from octkit.data.labels import IGNORE
from octkit.data.volume_files import MAX_VOXELS
from octkit.planning.plan import STATISTICS

# Decoding PNGs releases the interpreter's lock, so a few threads can read side by side.
READERS = 4

# A histogram: the values that occur, ascending, and how often each does.
Levels = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Fingerprint:
    """What a data set is like.

    `spacings` and `shapes` have one entry a case with one number an axis (2 or 3; 2-D data two), spacings in
    `units`: "mm", or "px" where the scale is unknown and each pixel counts as 1. `channels` and `classes` are
    names, classes without background. `intensity` has one record a channel: mean, median, min, max, std,
    percentile_00_5, percentile_99_5 over all labelled pixels. `ignore`: masks may leave pixels without a label.

    Raises ValidationError (a ValueError) for numbers that do not fit together.
    """

    spacings: tuple[tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...], ...]
    shapes: Annotated[tuple[tuple[Annotated[int, Field(gt=0)], ...], ...], Field(min_length=1)]
    channels: Annotated[tuple[str, ...], Field(min_length=1)]
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    intensity: tuple[dict[str, Annotated[float, Field(allow_inf_nan=False)]], ...]
    units: str = "mm"
    ignore: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.shapes) != len(self.spacings):
            raise ValueError(f"{len(self.shapes)} shapes and {len(self.spacings)} spacings, expected equally many")
        axes = {len(row) for row in (*self.shapes, *self.spacings)}
        if axes not in ({2}, {3}):
            raise ValueError(f"shapes and spacings of {sorted(axes)} axes, expected 2 or 3 throughout")
        if any(prod(row) > MAX_VOXELS for row in self.shapes):
            raise ValueError(f"a scan of more than the limit of {MAX_VOXELS} voxels")
        if len(self.intensity) != len(self.channels):
            raise ValueError(f"{len(self.intensity)} records of intensity for {len(self.channels)} channels")
        if any(set(STATISTICS) - set(record) for record in self.intensity):
            raise ValueError(f"a record of intensity that lacks one of {', '.join(STATISTICS)}")
        return self

    def save(self, path: Path) -> None:
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> "Fingerprint":
        """Read fingerprint.json. Raises OctkitError where it is missing or no fingerprint."""
        return read_json_as(path, cls, "describe the data set again with `octkit fingerprint`")


def crop_to_nonzero(image: np.ndarray) -> tuple[slice, ...]:
    """The smallest box around all pixels that are not zero in some channel of (channels, *spatial), a slice an axis.

    An image that is zero everywhere keeps its size.
    """
    [box] = ndimage.find_objects((image != 0).any(axis=0).astype(np.int8), max_label=1)
    return box or tuple(slice(0, size) for size in image.shape[1:])


def extract(dataset: Dataset, cases: Sequence[Case] | None = None, units: str = "mm") -> Fingerprint:
    """Take the fingerprint of a data set's training cases (its own and extra ones), or of the `cases` given.

    With `units` "px" every pixel counts as 1 x 1 (x 1), also where the scale is known. Grey-value statistics are of all
    labelled pixels inside the crop (nnU-Net samples 100 million of them). Raises OctkitError where there is no case, no
    labelled pixel, or where the scale of some cases is known and that of others is not.
    """
    cases = dataset.training if cases is None else tuple(cases)
    if not cases:
        raise OctkitError(f"{dataset.root}: has no training cases to take a fingerprint of")
    unknown = [case for case in cases if case.spacing is None]
    in_px = bool(unknown) or units == "px"
    if units == "mm" and unknown and len(unknown) < len(cases):
        raise OctkitError(f"{unknown[0].image}: its scale is unknown while others' is known, expected all or none "
                          '(or plan.units "px")')
    with readers(cases) as pool:
        found = list(pool.map(lambda case: _shape_and_levels(dataset, case), cases))
    intensity: list[dict[str, float]] = []
    for channel, name in enumerate(dataset.channels):
        levels, counts = _merged([levels[channel] for _, levels in found])
        if not len(levels):
            raise OctkitError(f"{dataset.root}: no mask has a labelled pixel in {name}, expected "
                              f"{', '.join(dataset.labels)}")
        intensity.append(intensity_statistics(levels, counts))
    shapes = tuple(shape for shape, _ in found)
    spacings = tuple((1.0,) * len(shape) if in_px or case.spacing is None else case.spacing
                     for case, shape in zip(cases, shapes, strict=True))
    return Fingerprint(spacings, shapes, dataset.channels, dataset.labels, tuple(intensity), "px" if in_px else "mm",
                       IGNORE in dataset.mask_values.values())


def readers(cases: Sequence[Case]) -> ThreadPoolExecutor:
    """Threads that read these cases side by side; volumes one after the other, as one may have 0.8 GB."""
    return ThreadPoolExecutor(1 if any(is_volume(case.image) for case in cases) else READERS)


def intensity_statistics(levels: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """Mean, median, min, max, deviation and the 0.5 and 99.5 percentiles of grey values.

    `levels` (n,) are the values that occur, ascending, `counts` (n,) how often each does. Percentiles are interpolated.
    """
    levels, ends = levels.astype(np.float64), np.cumsum(counts, dtype=np.int64)
    mean = np.dot(levels, counts) / ends[-1]
    places = np.array([0.005, 0.5, 0.995]) * (ends[-1] - 1)
    # The value at place k of the sorted pixels is the first level whose pixels reach beyond k.
    below, above = (levels[np.searchsorted(ends, k, side="right")] for k in (np.floor(places), np.ceil(places)))
    low, median, high = below + (above - below) * (places % 1)
    return {"mean": float(mean), "median": float(median), "min": float(levels[0]), "max": float(levels[-1]),
            "std": float(np.sqrt(np.dot((levels - mean) ** 2, counts) / ends[-1])),
            "percentile_00_5": float(low), "percentile_99_5": float(high)}


def _shape_and_levels(dataset: Dataset, case: Case) -> tuple[tuple[int, ...], list[Levels]]:
    image, mask = dataset.read_image(case), dataset.read_mask(case)
    box = crop_to_nonzero(image)
    # Only what training will see: a mask may reach into a black border, which the crop takes away.
    image, mask = image[:, *box], mask[box]
    layers = (mask > 0) & (mask != IGNORE)
    # B-scan by B-scan, and values with their counts: 256 numbers then stand for a whole volume of 8-bit scans.
    b_scans = list(np.ndindex(mask.shape[:-2]))
    return mask.shape, [_merged([np.unique(channel[b][layers[b]], return_counts=True) for b in b_scans])
                        for channel in image]


def _merged(parts: Sequence[Levels]) -> Levels:
    """Histograms added up: the values that occur in any of them, ascending, and how often each does in all."""
    levels, counts = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    merged, where = np.unique(levels, return_inverse=True)
    return merged, np.bincount(where, counts, len(merged)).astype(np.int64)
