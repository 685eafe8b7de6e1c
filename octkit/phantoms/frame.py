"""Where an eye lies in the frame of a scan: boundaries from um to rows, and from rows to a mask."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from octkit.phantoms.circle_eye import BRUCH, GCIPL_INL, ILM, RNFL_GCIPL, SCLERA, UM_PER_DEGREE, Vessel


@dataclass(frozen=True)
class Frame:
    """The pixels of a scan: `size` (H, W) and `um_per_px` (axial, lateral).

    A circle scan is `periodic` along its A-scans. A B-scan of a volume is not: there nothing wraps.
    """

    size: tuple[int, int]
    um_per_px: tuple[float, float]
    periodic: bool = True

    @property
    def degrees(self) -> np.ndarray:
        """Where the A-scans lie, (W,): on a whole circle, or on as many degrees of it as the B-scan is long."""
        width = self.size[1]
        return np.arange(width) * (360 / width if self.periodic else self.um_per_px[1] / UM_PER_DEGREE)

    @property
    def edges(self) -> tuple[str, str]:
        """scipy's names for what lies beyond the image, along rows and along A-scans."""
        return ("reflect", "wrap") if self.periodic else ("reflect", "reflect")

    def around(self, column: float, reach: int) -> tuple[np.ndarray, np.ndarray]:
        """Columns at most `reach` from `column`: as counted from it, and in the image; none beyond its edges."""
        columns, width = np.arange(int(column) - reach, int(column) + reach + 1), self.size[1]
        if not self.periodic:
            columns = columns[(columns >= 0) & (columns < width)]
        return columns, columns % width


@dataclass(frozen=True)
class PlacedEye:
    """An eye in the frame of a scan: `boundaries` (10, W) float64 in rows, named in `circle_eye.BOUNDARIES`.

    Row 0.0 is the upper edge of the first pixel. Layers may have thickness 0. A vessel's angle places it: 360 degrees
    are the image's width, of a B-scan too.
    """

    boundaries: np.ndarray
    vessels: Sequence[Vessel]
    frame: Frame


def centres(low: int, high: int) -> np.ndarray:
    """The rows at which the centres of the pixels `low` to `high - 1` lie, as a column."""
    return np.arange(low, high)[:, None] + 0.5


def place(depth: np.ndarray, bruch: np.ndarray, frame: Frame, position: float, margin: float,
          opening: np.ndarray | bool = False) -> np.ndarray:
    """Boundaries in rows, (10, …) float64, of an eye with boundaries `depth` (10, …) um below Bruch's membrane.

    The membrane itself lies `bruch` um deep. `position` 0 lays the eye at the frame's top, 1 at its bottom, but for a
    `margin` in um. A frame that is a crop cannot hold every tilt: there the eye is flattened until all layers are
    inside, in the `opening` of Bruch's membrane the ILM. A choroid that is too thick even so ends at the frame's edge.
    """
    room = frame.size[0] * frame.um_per_px[0] - 2 * margin
    for share in np.linspace(1, 0, 41):
        placed = depth + share * bruch
        top, bottom = placed[ILM].min(), np.where(opening, placed[ILM], placed[SCLERA]).max()
        spare = room - (bottom - top)
        if spare >= 0:
            break
    rows = (placed - top + margin + max(spare, 0) * position) / frame.um_per_px[0]
    return np.minimum(rows, np.where(opening, np.inf, frame.size[0]))


def rasterise(boundaries: np.ndarray, height: int) -> np.ndarray:
    """Boundaries (10, W) to a mask (H, W) uint8: a pixel belongs to the layer in which its centre lies."""
    centre = centres(0, height)
    mask = np.zeros((height, boundaries.shape[1]), np.uint8)
    for label, upper, lower in ((1, ILM, RNFL_GCIPL), (2, RNFL_GCIPL, GCIPL_INL), (3, BRUCH, SCLERA)):
        mask[(centre >= boundaries[upper]) & (centre < boundaries[lower])] = label
    return mask
