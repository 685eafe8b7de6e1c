"""What the painters of phantoms share: filled layers, lines, textures, and where an image's columns lie.

Images are (H, W) float32 and change in place. Row 0.0 is the upper edge of the first pixel. A circle scan is
periodic along its A-scans, a B-scan of a volume is not: `periodic` says which, and where it is False nothing wraps.
"""

import numpy as np
from scipy.ndimage import gaussian_filter

from octkit.phantoms.circle_eye import UM_PER_DEGREE

COARSE = 6  # px: wider grain than this is woven from few nodes, which is faster than filtering


def below(image: np.ndarray, boundary: np.ndarray, level, soft: float) -> None:
    """Paint all below the boundary (W,) with `level` (a number or (W,)); the edge is `soft` rows wide."""
    low, high = max(int(boundary.min() - soft) - 1, 0), int(boundary.max() + soft) + 2
    centre = np.arange(low, min(high, len(image)))[:, None] + 0.5
    image[low:high] += np.clip((centre - boundary) / soft + 0.5, 0, 1) * (level - image[low:high])
    image[high:] = level


def line(image: np.ndarray, course_rows: np.ndarray, gain, sigma: float) -> None:
    """Add a bright line of standard deviation `sigma` rows along `course_rows` (W,)."""
    low = max(int(course_rows.min() - 4 * sigma), 0)
    high = max(min(int(course_rows.max() + 4 * sigma) + 2, len(image)), low)
    centre = np.arange(low, high)[:, None] + 0.5
    image[low:high] += gain * np.exp(-0.5 * ((centre - course_rows) / sigma) ** 2)


def field(noise, size, um_per_px, grain, periodic: bool = True) -> np.ndarray:
    """Gaussian noise (H, W) float32 of variance 1, grain (axial, lateral) in um: the sd of what it is blurred with."""
    sigma = [g / u for g, u in zip(grain, um_per_px, strict=True)]
    noisy = noise.standard_normal(size, dtype=np.float32)
    noisy = gaussian_filter(noisy, sigma, mode=edges(periodic), truncate=3)
    return noisy / noisy.std()


def woven_field(noise, size, um_per_px, grain, periodic: bool = True) -> np.ndarray:
    """What `field` gives, woven from random nodes one sd apart where the grain is coarse along both axes."""
    sigma = [g / u for g, u in zip(grain, um_per_px, strict=True)]
    if min(sigma) < COARSE:
        return field(noise, size, um_per_px, grain, periodic)
    down, across = _weights(size[0], sigma[0], False), _weights(size[1], sigma[1], periodic)
    return down @ noise.standard_normal((down.shape[1], across.shape[1]), dtype=np.float32) @ across.T


def _weights(length: int, sigma: float, periodic: bool) -> np.ndarray:
    """What each node gives to each pixel, (length, nodes); the squares of a pixel's weights sum to 1."""
    pixels = np.arange(length)[:, None] + 0.5
    if periodic:
        distance = pixels - np.linspace(0, length, max(round(length / sigma), 2), endpoint=False)
        distance = (distance + length / 2) % length - length / 2
    else:
        distance = pixels - np.arange(-3 * sigma, length + 3 * sigma, sigma)
    weights = np.exp(-0.5 * (distance / sigma) ** 2)
    return (weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float32)


def edges(periodic: bool) -> tuple[str, str]:
    """scipy's names for what lies beyond the image, along rows and along A-scans."""
    return ("reflect", "wrap") if periodic else ("reflect", "reflect")


def degrees(width: int, lateral: float, periodic: bool) -> np.ndarray:
    """Where the A-scans lie, (W,) in degrees: a whole circle, or as many degrees as the B-scan is long on one."""
    return np.arange(width) * (360 / width if periodic else lateral / UM_PER_DEGREE)


def around(column: float, reach: int, width: int, periodic: bool) -> tuple[np.ndarray, np.ndarray]:
    """Columns at most `reach` from `column`: as they are counted from it, and in the image; none beyond its edges."""
    columns = np.arange(int(column) - reach, int(column) + reach + 1)
    if not periodic:
        columns = columns[(columns >= 0) & (columns < width)]
    return columns, columns % width
