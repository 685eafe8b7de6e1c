"""What augmentation does to grey values: noise, blur, brightness, contrast, low resolution and gamma.

Ranges, probabilities and order are nnU-Net v2's defaults (`get_training_transforms` of its trainer), but for two that
follow nnU-Net's paper: the noise's number is a variance (its code calls it so, and uses it as the standard deviation:
at most 0.1 instead of 0.32), and low resolution goes
back up by cubic interpolation (version 2: linear).

Arrays here are z-scores of any range, float32; a channel is (H, W) or (D, H, W), an image has its channels last.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from octkit.training.rotate_scale import in_plane

NOISE_PROBABILITY, NOISE_VARIANCE = 0.1, (0.0, 0.1)  # of z-scores
BLUR_PROBABILITY, BLUR_SIGMA = 0.2, (0.5, 1.0)  # px, each axis its own
BRIGHTNESS_PROBABILITY, BRIGHTNESS = 0.15, (0.75, 1.25)  # factor on the z-scores
CONTRAST_PROBABILITY, CONTRAST = 0.15, (0.75, 1.25)  # factor on the distance from the channel's mean
LOW_RESOLUTION_PROBABILITY, LOW_RESOLUTION = 0.25, (0.5, 1.0)  # zoom
GAMMA_PROBABILITY, GAMMA_INVERTED_PROBABILITY, GAMMA = 0.3, 0.1, (0.7, 1.5)
CHANNEL_PROBABILITY = 0.5  # each channel, where blur or low resolution is on: one channel is blurred with 0.1

Draw = Callable[[np.random.Generator], float]
Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def blur(channel: np.ndarray, *sigmas: float) -> np.ndarray:
    """A channel smoothed by a Gaussian with these standard deviations in px, one an axis; borders are reflected."""
    smooth = functools.partial(cv2.GaussianBlur, ksize=(0, 0), sigmaX=sigmas[-1], sigmaY=sigmas[-2])
    if channel.ndim == 2:
        return smooth(channel)
    slices = np.stack([smooth(plane) for plane in channel])
    # The first axis as the rows of one wide picture: cv2 knows pictures only, and is several times faster than scipy.
    rows = cv2.GaussianBlur(slices.reshape(len(slices), -1), ksize=(1, 0), sigmaX=sigmas[0], sigmaY=sigmas[0])
    return rows.reshape(channel.shape)


def change_brightness(channel: np.ndarray, factor: float) -> np.ndarray:
    """z-scores times a factor: what lies above the data set's mean becomes brighter, what lies below darker."""
    return channel * np.float32(factor)


def change_contrast(channel: np.ndarray, factor: float) -> np.ndarray:
    """Distances from the channel's own mean times a factor, cut off at its former minimum and maximum."""
    mean = channel.mean()
    return np.clip((channel - mean) * np.float32(factor) + mean, channel.min(), channel.max())


def lower_resolution(channel: np.ndarray, zoom: float, slices_apart: bool = False) -> np.ndarray:
    """Sampled down by `zoom` (nearest) and back up (cubic); `slices_apart` leaves a volume's first axis as it is."""
    small = [n if slices_apart and axis == 0 else max(1, round(n * zoom)) for axis, n in enumerate(channel.shape)]
    return _resize(_resize(channel, small, cv2.INTER_NEAREST_EXACT), channel.shape, cv2.INTER_CUBIC)


def change_gamma(channel: np.ndarray, gamma: float, inverted: bool = False) -> np.ndarray:
    """Gamma curve over the channel's own range, with mean and standard deviation restored.

    Above 1 it spreads the bright values and squeezes the dark ones; `inverted` does so to the negative image. A
    constant channel stays as it is.
    """
    low, high = channel.min(), channel.max()
    if low == high:
        return channel
    unit = (high - channel if inverted else channel - low) / (high - low)
    # A unit value may exceed 1 by a rounding error, never fall below 0: powers stay finite.
    curve = np.power(unit, np.float32(gamma))
    if inverted:
        curve = 1 - curve
    return (curve - curve.mean()) * (channel.std() / curve.std()) + channel.mean()


@dataclass(frozen=True)
class Noise:
    """Gaussian noise of one random variance on every pixel of an image (*spatial, channels)."""

    draw: Draw

    def __call__(self, image: np.ndarray, random: np.random.Generator) -> np.ndarray:
        return image + np.float32(self.draw(random) ** 0.5) * random.standard_normal(image.shape, np.float32)


@dataclass(frozen=True)
class PerChannel:
    """`change(channel, *values)`, of `count` drawn values, on each channel, with `probability`, of an image."""

    change: Callable[..., np.ndarray]
    draw: Draw
    count: int = 1
    probability: float = 1.0

    def __call__(self, image: np.ndarray, random: np.random.Generator) -> np.ndarray:
        changed = image.copy()
        for c in range(image.shape[-1]):
            if random.random() < self.probability:
                values = [self.draw(random) for _ in range(self.count)]
                changed[..., c] = self.change(np.ascontiguousarray(image[..., c]), *values)
        return changed


def between(span: tuple[float, float], random: np.random.Generator) -> float:
    """Uniform in the span; a factor is below 1 as often as above, however lopsided its span (as nnU-Net draws)."""
    low, high = span
    if low < 1 < high:
        low, high = (low, 1.0) if random.random() < 0.5 else (1.0, high)
    return random.uniform(low, high)


def intensity_changes(patch_size: Sequence[int]) -> tuple[tuple[float, Change], ...]:
    """The changes in their order, each with the probability that a patch of this size undergoes it."""
    draw = functools.partial
    coarser = functools.partial(lower_resolution, slices_apart=in_plane(patch_size))
    return (
        (NOISE_PROBABILITY, Noise(draw(between, NOISE_VARIANCE))),
        (BLUR_PROBABILITY, PerChannel(blur, draw(between, BLUR_SIGMA), len(patch_size), CHANNEL_PROBABILITY)),
        (BRIGHTNESS_PROBABILITY, PerChannel(change_brightness, draw(between, BRIGHTNESS))),
        (CONTRAST_PROBABILITY, PerChannel(change_contrast, draw(between, CONTRAST))),
        (LOW_RESOLUTION_PROBABILITY, PerChannel(coarser, draw(between, LOW_RESOLUTION), 1, CHANNEL_PROBABILITY)),
        (GAMMA_INVERTED_PROBABILITY, PerChannel(functools.partial(change_gamma, inverted=True), draw(between, GAMMA))),
        (GAMMA_PROBABILITY, PerChannel(change_gamma, draw(between, GAMMA))),
    )


def _resize(channel: np.ndarray, shape: Sequence[int], interpolation: int) -> np.ndarray:
    """(H, W) or (D, H, W) at another size: each slice in its plane, then all of them along the first axis."""
    *depth, height, width = shape
    resize = functools.partial(cv2.resize, interpolation=interpolation)
    if not depth:
        return resize(channel, (width, height))
    slices = np.stack([resize(plane, (width, height)) for plane in channel])
    if len(slices) == depth[0]:
        return slices
    return resize(slices.reshape(len(slices), -1), (height * width, depth[0])).reshape(shape)
