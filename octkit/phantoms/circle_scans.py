"""A synthetic circle scan around the optic disc, healthy or with glaucoma, with its truth.

An eye of `circle_eye` is put into a frame and painted by `render`. All of it is periodic along the A-scans. With the
looks "spectralis" all scans come from one kind of device and share one scale. With "varied" eyes go beyond the norm,
and each scan has a device and a scale of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from octkit.common.errors import OctkitError
from octkit.data.image_files import MAX_PIXELS
from octkit.phantoms.circle_eye import CIRCUMFERENCE, draw_eye, seen_again
from octkit.phantoms.frame import Frame, PlacedEye, place, rasterise
from octkit.phantoms.render import check_looks, paint

Seed = int | Sequence[int] | np.random.SeedSequence

SMALLEST = 64  # px along each axis
LEAST_FIELD, FULL_FIELD = 900, 1900  # um in depth: what an eye needs, and what a device's frame shows


@dataclass(frozen=True)
class CirclePhantom:
    """A drawn scan with its truth.

    `image` (H, W) uint8; `mask` (H, W) uint8 labels, 1 RNFL, 2 GCIPL, 3 choroid; `boundaries` (10, W) float64 rows of
    `circle_eye.BOUNDARIES`, where row 0.0 is the upper edge of the first pixel; `um_per_px` (axial, lateral);
    `eye` "R" or "L", of no effect on the image (both come in TSNIT order); `rnfl_um` the mean RNFL thickness.
    """

    image: np.ndarray
    mask: np.ndarray
    boundaries: np.ndarray
    glaucoma: bool
    eye: str
    um_per_px: tuple[float, float]
    rnfl_um: float


def scale_of(size: tuple[int, int]) -> tuple[float, float]:
    """(axial, lateral) um per px for an image of `size` (H, W).

    Up to 487 rows the frame is a crop of a device's, at 3.9 um a row but at least 0.9 mm deep; above, it is the
    whole frame of 1.9 mm. The A-scans share a circle of 3.46 mm diameter.
    """
    return min(max(3.9 * size[0], LEAST_FIELD), FULL_FIELD) / size[0], CIRCUMFERENCE / size[1]


def draw(seed: Seed, size: tuple[int, int], glaucoma: bool = False, looks: str = "spectralis",
         person: Seed | None = None, fellow: bool = False) -> CirclePhantom:
    """Draw one scan of `size` (H, W) px; `seed` is whatever numpy's default_rng takes, None excepted.

    `looks` "spectralis", at the scale `scale_of(size)`, or "varied", at one drawn around it. With `person`, another
    seed, the eye is that person's, or the `fellow` of it: scans of one eye differ as two looks at it do. Raises
    OctkitError as `check`.
    """
    check(size, looks)
    # Separate streams: the pixels' noise depends on the size, the eye and its look must not.
    shape_rng, look_rng, noise_rng, scale_rng = np.random.default_rng(seed).spawn(4)
    varied = looks == "varied"
    scale = _drawn_scale(scale_rng, size) if varied else scale_of(size)
    um_per_px = float(scale[0]), float(scale[1])  # numpy's numbers would make float64 of float32 images
    eye_rng = shape_rng if person is None else np.random.default_rng(person)
    eye = draw_eye(eye_rng, size[1], glaucoma, varied, fellow)
    side = "RL"[eye_rng.integers(2) ^ fellow]
    if person is not None:
        eye = seen_again(shape_rng, eye)
    position, margin = (look_rng.beta(1.1, 1.4), 0.012) if varied else (look_rng.beta(2, 2.6), 0.03)
    frame = Frame(size, um_per_px)
    boundaries = place(eye.depth, eye.bruch, frame, position, margin * (size[0] * um_per_px[0]))
    image = paint(look_rng, noise_rng, PlacedEye(boundaries, eye.vessels, frame), looks)
    mask = rasterise(boundaries, size[0])
    return CirclePhantom(image, mask, boundaries, bool(glaucoma), side, um_per_px, float(eye.thickness[0].mean()))


def _drawn_scale(rng: Generator, size: tuple[int, int]) -> tuple[float, float]:
    """Frames 0.9 to 2.9 mm deep, at 1.9 um a row and more: crops of a device's frame, and scans that were shrunk."""
    shallow = max(LEAST_FIELD, 1.9 * size[0])
    deep = max(shallow, min(2.2 * scale_of(size)[0] * size[0], 2900, 15 * size[0]))
    depth = shallow * (deep / shallow) ** rng.beta(1.2, 1.6)
    return float(depth / size[0]), float(CIRCUMFERENCE * rng.uniform(0.95, 1.05) / size[1])


def check(size: tuple[int, int], looks: str) -> None:
    """Raise OctkitError for looks that do not exist and for a size that cannot hold an eye."""
    check_looks(looks)
    height, width = size
    if min(height, width) < SMALLEST or height * width > MAX_PIXELS:
        raise OctkitError(f"phantom size: found {height} x {width} px, expected at least {SMALLEST} x {SMALLEST} "
                          f"and at most {MAX_PIXELS} px in all")
