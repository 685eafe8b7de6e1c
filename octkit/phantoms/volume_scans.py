"""A synthetic volume, macular or around the optic disc, with its truth.

An eye of `volume_eye` is put into a frame and painted B-scan by B-scan by `render`: one device a volume, noise of its
own for each B-scan, which also lies a little higher or lower than its neighbours, as the eye moves between them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from octkit.common.errors import OctkitError, by
from octkit.data.volume_files import MAX_VOXELS
from octkit.phantoms.circle_eye import Vessel
from octkit.phantoms.circle_scans import SMALLEST, Seed, scale_of
from octkit.phantoms.frame import Frame, PlacedEye, place, rasterise
from octkit.phantoms.render import check_looks, paint
from octkit.phantoms.volume_eye import WINDOWS, VesselCourse, draw_volume_eye

FIELD = 6.0  # mm along and across B-scans
MOTION = 4.0  # um: how far B-scans are displaced in depth, sd
MARGIN = 0.03  # of the frame's depth that stays free above and below


@dataclass(frozen=True)
class VolumePhantom:
    """A drawn volume with its truth.

    `image` (B, H, W) uint8; `mask` (B, H, W) uint8 labels, 1 RNFL, 2 GCIPL, 3 choroid, none of them inside the opening
    of Bruch's membrane; `boundaries` (10, B, W) float64 rows of `circle_eye.BOUNDARIES`, nan inside the opening, where
    row 0.0 is the upper edge of the first voxel; `spacing` mm between B-scans, rows and A-scans; `eye` "R" or "L".
    """

    image: np.ndarray
    mask: np.ndarray
    boundaries: np.ndarray
    spacing: tuple[float, float, float]
    kind: str
    eye: str
    glaucoma: bool


def spacing_of(size: tuple[int, ...]) -> tuple[float, float, float]:
    """mm between B-scans, rows and A-scans of a volume of `size`: 6 x 6 mm, as deep as a circle scan."""
    return FIELD / size[0], scale_of((size[1], size[2]))[0] / 1000, FIELD / size[2]


def draw_volume(seed: Seed, size: tuple[int, int, int], kind: str = "macular", glaucoma: bool = False,
                looks: str = "spectralis") -> VolumePhantom:
    """Draw one volume of `size` (B, H, W); `seed` is whatever numpy's default_rng takes, None excepted.

    `kind` is "macular" or "peripapillary". As in a fundus photograph the first B-scan is the highest, and left eyes are
    mirrored. `looks` as for circle scans. Raises OctkitError as `check`.
    """
    check(size, kind, looks)
    spacing = spacing_of(size)
    shape_rng, look_rng, noise_rng = np.random.default_rng(seed).spawn(3)
    side = str(shape_rng.choice(("R", "L")))
    down, across = ((np.arange(n) - (n - 1) / 2) * mm for n, mm in ((size[0], spacing[0]), (size[2], spacing[2])))
    eye = draw_volume_eye(shape_rng, kind, down, across, side, glaucoma)
    frame = Frame(size[1:], (1000 * spacing[1], 1000 * spacing[2]), periodic=False)
    motion = MOTION * noise_rng.standard_normal((size[0], 1))
    margin = MARGIN * size[1] * frame.um_per_px[0]
    rows = place(eye.depth, eye.bruch + motion, frame, look_rng.beta(2, 2.6), margin, eye.opening)
    image = _painted(look_rng, noise_rng, rows, eye.vessels, frame, looks)
    mask = np.stack([rasterise(rows[:, number], size[1]) for number in range(size[0])])
    mask = np.where(eye.opening[:, None], np.uint8(0), mask)
    return VolumePhantom(image, mask, np.where(eye.opening, np.nan, rows), spacing, kind, side, bool(glaucoma))


def check(size: tuple[int, ...], kind: str, looks: str) -> None:
    """Raise OctkitError for a kind or looks that do not exist, and for a size that cannot hold an eye."""
    if kind not in WINDOWS:
        raise OctkitError(f"phantom kind: found {kind!r}, expected one of {', '.join(WINDOWS)}")
    check_looks(looks)
    if len(size) != 3 or size[0] < 2 or min(size[1:]) < SMALLEST or np.prod(size, dtype=float) > MAX_VOXELS:
        raise OctkitError(f"phantom size: found {by(size)} voxels, expected at least 2 B-scans of "
                          f"{SMALLEST} x {SMALLEST} px, at most {MAX_VOXELS} voxels in all")


def _painted(look_rng: Generator, noise_rng: Generator, rows: np.ndarray, vessels: tuple[VesselCourse, ...],
             frame: Frame, looks: str) -> np.ndarray:
    """The image (B, H, W) uint8."""
    look = int(look_rng.integers(2**62))
    b_scans = []
    for number, noise in enumerate(noise_rng.spawn(rows.shape[1])):
        met = [crossing for vessel in vessels for crossing in _crossings(vessel, number, frame.um_per_px[1])]
        # The look's random numbers must not depend on how many vessels a B-scan meets: two for each, most of them
        # outside of it.
        met = (met + [Vessel(-360.0, 20.0)] * 2 * len(vessels))[:2 * len(vessels)]
        b_scans.append(paint(np.random.default_rng(look), noise, PlacedEye(rows[:, number], met, frame), looks))
    return np.stack(b_scans)


def _crossings(vessel: VesselCourse, number: int, lateral: float) -> list[Vessel]:
    """Where a vessel crosses a B-scan, as a painter wants it: 360 degrees are the B-scan's length.

    One that is crossed slantwise looks wider, by 2.5 at most.
    """
    distance = vessel.distance[number]
    step = np.diff(distance)
    # The sign also changes on the disc's far side, in a leap.
    columns = np.flatnonzero((distance[:-1] * distance[1:] < 0) & (np.abs(step) < 3 * lateral))
    return [Vessel(float(column - distance[column] / step[column] + 0.5) * 360 / len(distance),
                   float(vessel.diameter[number, column] / max(abs(step[column]) / lateral, 0.4)))
            for column in columns]
