"""What is drawn at random for phantoms: numbers from named ranges, courses around a circle, height maps.

One seed is one phantom: which numbers are drawn, and in which order, does not depend on the size of an image.
"""

from types import SimpleNamespace

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike


def uniform(rng: Generator, **ranges: tuple[float, float]) -> SimpleNamespace:
    """A number for each name, drawn evenly from its (low, high), in the order of the names."""
    return SimpleNamespace(**{name: rng.uniform(low, high) for name, (low, high) in ranges.items()})


def log_uniform(rng: Generator, low: float, high: float) -> float:
    """A number whose logarithm is drawn evenly."""
    return np.exp(rng.uniform(np.log(low), np.log(high)))


def course(rng: Generator, angle: np.ndarray, weights: ArrayLike) -> np.ndarray:
    """A random periodic course with mean 0 and variance 1 at every angle (degrees), (W,) float64.

    `weights` are the amplitudes of harmonics 1, 2, …; those that W samples cannot carry are left out.
    """
    amplitude = np.asarray(weights, float) / np.linalg.norm(weights)
    cosine, sine = rng.standard_normal((2, len(amplitude)))
    order = np.arange(1, len(amplitude) + 1)
    kept = order <= len(angle) // 3
    phase = np.radians(angle)[:, None] * order[kept]
    return np.cos(phase) @ (amplitude * cosine)[kept] + np.sin(phase) @ (amplitude * sine)[kept]


def relief(rng: Generator, x: np.ndarray, y: np.ndarray, length: float) -> np.ndarray:
    """A random height map with mean 0 and variance 1, smooth over `length` mm, at places `x`, `y` in mm.

    A sum of 40 plane waves, their wave numbers drawn from a Gaussian: its covariance falls as exp(-(r / length)^2 / 2).
    """
    along, upwards = rng.normal(0, 1 / length, (2, 40))
    phase = rng.uniform(0, 2 * np.pi, 40)
    height = sum(np.cos(a * x + u * y + p) for a, u, p in zip(along, upwards, phase, strict=True))
    return height * np.sqrt(2 / 40)


def bell(distance: np.ndarray, sd: float) -> np.ndarray:
    """A Gaussian of height 1."""
    return np.exp(-0.5 * (distance / sd) ** 2)


def near(angle: np.ndarray, centre: float, sd: float) -> np.ndarray:
    """A Gaussian of height 1 around the angle `centre` (all in degrees), periodic."""
    return bell((angle - centre + 180) % 360 - 180, sd)
