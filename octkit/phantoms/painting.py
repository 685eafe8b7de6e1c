"""What both looks of phantoms are painted with: filled layers, lines, textures, and the choroid's place in an image.

Images are (H, W) float32 and change in place. Random textures come from a `noise` generator of their own.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.random import Generator
from scipy.ndimage import gaussian_filter
from scipy.special import expit

from octkit.phantoms.circle_eye import BRUCH, CIRCUMFERENCE, SCLERA
from octkit.phantoms.draws import bell, uniform
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

    def vessels(self, look: Generator, noise: Generator, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        """How much of each pixel of the choroid is the lumen of a vessel, and how much its wall, (bottom - top, W).

        Below Bruch's membrane Sattler's layer, a texture of lumens 20 to 60 um wide, gives way to Haller's, ovals up to
        some 250 um high, wider where they are cut slantwise, with septa of stroma between. It takes four fifths of the
        thickness in healthy eyes (Branchini et al., Ophthalmology 120(9):1901, 2013); the other numbers are ours.
        """
        drawn = uniform(look, small_um=(4, 10), flat=(2, 5), threshold=(-0.6, 0.4), until=(0.2, 0.7), large=(0.3, 0.75),
                        count=(120, 400), soft_um=(2, 14), septa_um=(4, 22), uneven_um=(2, 8), free_um=(8, 35),
                        wall=(0, 0.35))
        lateral, grain = frame.um_per_px[1], (drawn.small_um, drawn.small_um * drawn.flat)
        small = expit(3 * (woven_texture(noise, frame, grain, self.inside.shape) - drawn.threshold))
        small *= np.clip(2 - 2 * self.relative / drawn.until, 0.15, 1)
        nearest, next_one = np.full((2, *self.inside.shape), 999, np.float32)  # um to the edges of vessels, inside < 0
        count = round(drawn.count * frame.size[1] * lateral / CIRCUMFERENCE)
        # A generator of their own: the grain above takes as many numbers as there are pixels.
        for place, size, below, slant in noise.spawn(1)[0].random((count, 4)):
            column = place * frame.size[1]
            thickness = max(float(self.thickness[int(column)]), 1)
            # As shares of the thickness. Few are large, and those lie deep.
            tall = min(drawn.large * (0.25 + 0.75 * size**3), 250 / thickness)
            centre = 0.1 + tall / 2 + below * (0.88 - tall)
            half_um, half_px = tall * thickness / 2, tall * thickness / 2 * drawn.flat * (0.4 + slant**3) / lateral
            counted, columns = frame.around(column, int(half_px + 40 / lateral) + 1)
            across = ((counted + 0.5 - column) / half_px).astype(np.float32)
            away = (np.hypot(across, (self.relative[:, columns] - centre) / (tall / 2)) - 1) * np.float32(half_um)
            next_one[:, columns] = np.minimum(next_one[:, columns], np.maximum(nearest[:, columns], away))
            nearest[:, columns] = np.minimum(nearest[:, columns], away)
        septa = bell(next_one - nearest, drawn.septa_um)
        nearest += drawn.uneven_um * woven_texture(noise, frame, (14, 40), nearest.shape)
        lumen = np.maximum(small, expit(-nearest / drawn.soft_um) * (1 - septa))
        return lumen * np.minimum(self.inside / drawn.free_um, 1), drawn.wall * bell(nearest - 10, 8)

    def at_edge(self, inside: np.ndarray) -> float:
        """The mean of `inside`, (bottom - top, W), over the lowest third of the choroid; 0 where there is none."""
        lowest = (self.relative > 0.67) & (self.relative < 1)
        return float(inside[lowest].mean()) if lowest.any() else 0.0

    def paint(self, image: np.ndarray, choroid: np.ndarray, sclera: np.ndarray, soft_um: float, axial: float) -> None:
        """Paint the choroid (bottom - top, W), and the sclera (H - top, W) below an edge that is `soft_um` wide."""
        rows = self.bottom - self.top
        edge = np.clip((self.depth[:rows] - self.thickness) / soft_um + 0.5, 0, 1)
        sclera[:rows] = choroid + edge * (sclera[:rows] - choroid)
        image[self.top:] += np.clip(self.depth / max(axial, 6) + 0.5, 0, 1) * (sclera - image[self.top:])
