"""What both looks of phantoms are painted with: filled layers, lines, textures, and the choroid's place in an image.

Images are (H, W) float32 and change in place. Random textures come from a `noise` generator of their own.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.random import Generator
from scipy.ndimage import gaussian_filter

from octkit.phantoms.circle_eye import BRUCH, SCLERA
from octkit.phantoms.draws import bell
from octkit.phantoms.frame import Frame, PlacedEye, centres

COARSE = 6  # px: wider grain than this is woven from few nodes, which is faster than filtering


def fill_below(image: np.ndarray, boundary: np.ndarray, level: float | np.ndarray, soft: float) -> None:
    """Paint all below the boundary (W,) with `level` (a number or (W,)); the edge is `soft` rows wide."""
    low, high = max(int(boundary.min() - soft) - 1, 0), int(boundary.max() + soft) + 2
    centre = centres(low, min(high, len(image)))
    image[low:high] += np.clip((centre - boundary) / soft + 0.5, 0, 1) * (level - image[low:high])
    image[high:] = level


def add_line(image: np.ndarray, course_rows: np.ndarray, gain: float | np.ndarray, sigma: float) -> None:
    """Add a bright line of standard deviation `sigma` rows along `course_rows` (W,)."""
    low = max(int(course_rows.min() - 4 * sigma), 0)
    high = max(min(int(course_rows.max() + 4 * sigma) + 2, len(image)), low)
    image[low:high] += gain * bell(centres(low, high) - course_rows, sigma)


def texture(noise: Generator, frame: Frame, grain: tuple[float, float],
            size: tuple[int, ...] | None = None) -> np.ndarray:
    """Gaussian noise (H, W) float32 of variance 1, of the frame's size or another one.

    `grain` (axial, lateral) in um is the sd of what it is blurred with.
    """
    sigma = [g / u for g, u in zip(grain, frame.um_per_px, strict=True)]
    noisy = noise.standard_normal(size or frame.size, dtype=np.float32)
    noisy = gaussian_filter(noisy, sigma, mode=frame.edges, truncate=3)
    return noisy / noisy.std()


def woven_texture(noise: Generator, frame: Frame, grain: tuple[float, float],
                  size: tuple[int, ...] | None = None) -> np.ndarray:
    """What `texture` gives, woven from random nodes one sd apart where the grain is coarse along both axes."""
    height, width = size or frame.size
    axial, lateral = (g / u for g, u in zip(grain, frame.um_per_px, strict=True))
    if min(axial, lateral) < COARSE:
        return texture(noise, frame, grain, size)
    down, across = _weights(height, axial, False), _weights(width, lateral, frame.periodic)
    return down @ noise.standard_normal((down.shape[1], across.shape[1]), dtype=np.float32) @ across.T


def _weights(length: int, sigma: float, periodic: bool) -> np.ndarray:
    """What each node gives to each pixel, (length, nodes); the squares of a pixel's weights sum to 1."""
    pixels = centres(0, length)
    if periodic:
        distance = pixels - np.linspace(0, length, max(round(length / sigma), 2), endpoint=False)
        distance = (distance + length / 2) % length - length / 2
    else:
        distance = pixels - np.arange(-3 * sigma, length + 3 * sigma, sigma)
    weights = bell(distance, sigma)
    return (weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float32)


def mixed(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Two textures of variance 1 as one of variance 1, with the `share` of the second."""
    return ((1 - share) * first + share * second) / np.hypot(1 - share, share)


@dataclass(frozen=True)
class Deep:
    """The rows of an image from just above Bruch's membrane on: the choroid, above row `bottom`, and what lies below.

    `depth` (H - top, W) float32 um below Bruch's membrane; `thickness` (W,) float32 um of the choroid.
    """

    top: int
    bottom: int
    depth: np.ndarray
    thickness: np.ndarray

    @staticmethod
    def of(eye: PlacedEye, above: int, below: int, least: float) -> "Deep":
        """`above` and `below`: rows beyond the choroid's own; `least` thickness in um."""
        bruch, sclera, axial = eye.boundaries[BRUCH], eye.boundaries[SCLERA], eye.frame.um_per_px[0]
        height = eye.frame.size[0]
        top, bottom = max(int(bruch.min()) - above, 0), min(int(sclera.max()) + below, height)
        depth = ((centres(top, height) - bruch) * axial).astype(np.float32)
        return Deep(top, bottom, depth, np.maximum((sclera - bruch) * axial, least).astype(np.float32))

    @cached_property
    def inside(self) -> np.ndarray:
        """The choroid's `depth`, (bottom - top, W), not below 0."""
        return np.maximum(self.depth[:self.bottom - self.top], 0)

    @cached_property
    def relative(self) -> np.ndarray:
        """`inside` as a share of the choroid's thickness, at most 1."""
        return np.minimum(self.inside / np.maximum(self.thickness, 1), 1)

    def paint(self, image: np.ndarray, choroid: np.ndarray, sclera: np.ndarray, soft_um: float, axial: float) -> None:
        """Paint the choroid (bottom - top, W), and the sclera (H - top, W) below an edge that is `soft_um` wide."""
        rows = self.bottom - self.top
        edge = np.clip((self.depth[:rows] - self.thickness) / soft_um + 0.5, 0, 1)
        sclera[:rows] = choroid + edge * (sclera[:rows] - choroid)
        image[self.top:] += np.clip(self.depth / max(axial, 6) + 0.5, 0, 1) * (sclera - image[self.top:])
