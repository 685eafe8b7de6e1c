"""A scan as a device's file gives it: pixels, scale, eye and the device's own lines, and no patient.

Lines carry the names that Heidelberg's have. ILM is the retina's upper edge and BM its lower one; a line named after a
layer is that layer's lower edge: RNFL, GCL, IPL …
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from octkit.common.errors import bad_file, by, no_file
from octkit.common.files import only_file
from octkit.common.memory import check_content
from octkit.data.labels import LAYERS
from octkit.data.volume_files import MAX_VOXELS

# The layers of ours that lie between two of the device's lines; the choroid's lower edge it does not draw.
BETWEEN = {"rnfl": ("ILM", "RNFL"), "gcipl": ("RNFL", "IPL")}
UNMEASURED = 3e38


@dataclass(frozen=True)
class DeviceScan:
    """What a device file says of a scan.

    `image` is (1, H, W), of a volume (1, B-scans, H, W), float32 grey values; `spacing` is mm an axis, None where the
    file does not state it of all axes. `eye` is "R", "L" or None; `circle` says whether the last A-scan is the
    neighbour of the first, None where the file does not tell. `lines` are the device's by their names: rows (W,) or
    (B-scans, W) float64, from 0, nan where none was drawn; empty lines are left out. `notes` are what a user must know:
    what is not stated, what was left out.
    """

    image: np.ndarray
    spacing: tuple[float, ...] | None
    eye: str | None = None
    circle: bool | None = None
    lines: dict[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """What is inside, in one line."""
        size, volume = by(self.image.shape[1:]), self.image.ndim == 4
        kind = "volume" if volume else {True: "circle scan", False: "line scan", None: "single B-scan"}[self.circle]
        eye = {"R": "right eye", "L": "left eye"}.get(self.eye or "", "eye not stated")
        scale = f"{by([1000 * mm for mm in self.spacing])} um a px" if self.spacing else "scale not stated"
        return "; ".join([f"{kind}, {size} px, {scale}, {eye}", f"lines: {', '.join(self.lines) or 'none'}",
                          *self.notes])


def device_mask(scan: DeviceScan) -> np.ndarray:
    """The device's own segmentation as labels: (H, W), of a volume (B-scans, H, W), uint8; 1 RNFL, 2 GCIPL.

    A pixel belongs to a layer whose upper line is at or above its row and whose lower line is below it. Where one of
    the two is not drawn, the layer's pixels are 0.
    """
    mask = np.zeros(scan.image.shape[1:], np.uint8)
    rows = np.arange(scan.image.shape[-2])[:, None]
    for layer, (upper, lower) in BETWEEN.items():
        if upper in scan.lines and lower in scan.lines:
            above, below = (np.expand_dims(scan.lines[name], -2) for name in (upper, lower))
            mask[(rows >= above) & (rows < below)] = LAYERS.index(layer) + 1
    return mask


def scan_of(path: Path, image: np.ndarray, spacing: Sequence[float] | None, eye: str | None, circle: bool | None,
            lines: Mapping[str, np.ndarray] | None = None, notes: Iterable[str] = ()) -> DeviceScan:
    """A scan from its B-scans (B-scans, H, W), their `lines` (B-scans, W) and mm along the three axes.

    One B-scan is no volume: the first axis is left out. Raises OctkitError where the spacing is not above 0.
    """
    # Devices mark what they did not measure with the largest float32, 3.4e38.
    drawn = {name: np.where(np.abs(line) < UNMEASURED, line, np.nan) for name, line in (lines or {}).items()}
    drawn = {name: line for name, line in drawn.items() if np.isfinite(line).any()}
    if len(image) == 1:
        image, spacing, drawn = image[0], spacing and spacing[1:], {name: line[0] for name, line in drawn.items()}
    if spacing is not None and not all(math.isfinite(mm) and mm > 0 for mm in spacing):
        raise bad_file(path, f"found the scale {by(spacing)} mm", "expected lengths above 0")
    return DeviceScan(image.astype(np.float32)[None], None if spacing is None else tuple(map(float, spacing)), eye,
                      circle, drawn, tuple(dict.fromkeys(notes)))


def whole_file(path: Path, beginnings: Sequence[bytes], expected: str) -> memoryview:
    """A device file's bytes. Raises OctkitError where it cannot be read, or begins with none of the `beginnings`."""
    try:
        data = only_file(path, expected, 4).read_bytes()
    except FileNotFoundError:
        raise no_file(path, expected) from None
    except OSError as error:
        raise bad_file(path, f"cannot be read ({error.strerror})", f"expected {expected}") from None
    if not data.startswith(tuple(beginnings)):
        raise bad_file(path, f"found no {beginnings[0].decode()} at its beginning", f"expected {expected}")
    return memoryview(data)


def check_voxels(path: Path, size: Sequence[int]) -> None:
    """Raises OctkitError, before memory is taken, for a size that is not above 0 or above the limit of volumes."""
    if min(size) < 1 or math.prod(size) > MAX_VOXELS:
        raise bad_file(path, f"states {by(size)} px", f"expected at least one and at most {MAX_VOXELS}")
    check_content(path, 16 * math.prod(size))
