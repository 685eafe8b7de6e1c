"""Augmentation: the recipe's eight transforms and mirroring, on albumentations.

Ranges, probabilities and order are nnU-Net v2's defaults (`get_training_transforms` of its trainer), all of
them blueprint parameters: the same for every data set. Only the rotation's range follows from the patch. Three
readings are ours. The noise's number is a variance, as nnU-Net's paper says (its code takes it for the standard
deviation). Low resolution goes back up by cubic interpolation, as in the paper (version 2: linear). Scaling is
drawn as the size of things (version 2 draws the step of the sampling grid: sizes 0.71 to 1.43).

albumentations moves image and mask together (affine, flips) and decides what is applied. What changes
intensities is our own: albumentations clips float images to [0, 1] when it blurs, adds noise or changes
contrast or gamma, and squeezes them through 8 bits when it lowers the resolution; z-scores survive neither.
"""

import copy
import functools
import os
import random as python_random
import sys
import threading
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from octkit.files import OctkitError

# albumentations asks the network for a newer version when imported, unless told not to.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
# It also imports torch, if installed, for a conversion not used here. None makes that one import fail, which
# albumentations allows for: two seconds less, and a process that holds paddle stays free of torch.
sys.modules.setdefault("albumentations.pytorch", None)  # type: ignore[arg-type]
import albumentations as A  # noqa: E402

if sys.modules["albumentations.pytorch"] is None:
    del sys.modules["albumentations.pytorch"]  # whoever wants it later can still import it

ROTATION_PROBABILITY = 0.2
ROTATION_DEGREES = 180.0
# Beyond a side ratio of 1.5 a turned patch would be mostly padding, so it is only tilted.
ELONGATED = 1.5
ROTATION_DEGREES_ELONGATED = 15.0
SCALING_PROBABILITY = 0.2
SCALING = (0.7, 1.4)  # size of things, as a factor
NOISE_PROBABILITY = 0.1
NOISE_VARIANCE = (0.0, 0.1)  # of z-scores
BLUR_PROBABILITY = 0.2
BLUR_SIGMA = (0.5, 1.0)  # px, each axis its own
BRIGHTNESS_PROBABILITY = 0.15
BRIGHTNESS = (0.75, 1.25)  # factor on the z-scores
CONTRAST_PROBABILITY = 0.15
CONTRAST = (0.75, 1.25)  # factor on the distance from the channel's mean
LOW_RESOLUTION_PROBABILITY = 0.25
LOW_RESOLUTION = (0.5, 1.0)  # zoom
GAMMA_PROBABILITY = 0.3
GAMMA_INVERTED_PROBABILITY = 0.1
GAMMA = (0.7, 1.5)
MIRROR_PROBABILITY = 0.5  # each axis
# Where blur or low resolution is on, nnU-Net takes each channel with this probability: an image of one channel
# is blurred with probability 0.1 and lowered in resolution with 0.125.
CHANNEL_PROBABILITY = 0.5

# Beyond the patch: the padding of patches and of the sliding window, image 0 (the mean) and background.
OUTSIDE = {"border_mode": cv2.BORDER_CONSTANT, "fill": 0, "fill_mask": 0}
MIRRORS = {0: A.VerticalFlip, 1: A.HorizontalFlip}

Draw = Callable[[np.random.Generator], float]


class Augmenter:
    """Random augmentation of a training patch, decided by `seed` alone.

    The same seed gives the same result in any order of calls, process and thread.

    Args:
        patch_size: (H, W) of the patches.
        rotation_degrees: rotate by up to this much either way; None: 180, or 15 for an elongated patch.
        mirror_axes: spatial axes that may be mirrored, 0 rows and 1 columns; () for none.
        enabled: False passes patches through unchanged.

    Raises OctkitError for an axis that does not exist.
    """

    def __init__(self, patch_size: Sequence[int], rotation_degrees: float | None = None,
                 mirror_axes: Sequence[int] = (0, 1), enabled: bool = True):
        if not set(mirror_axes) <= set(MIRRORS):
            raise OctkitError(f"mirror_axes: found {tuple(mirror_axes)}, expected axes among {tuple(MIRRORS)}")
        self.patch_size = tuple(patch_size)
        self.rotation_degrees = rotation_limit(patch_size) if rotation_degrees is None else rotation_degrees
        self.pipeline = A.Compose(_all_transforms(self.rotation_degrees, mirror_axes) if enabled else [])
        self._copies: dict[int, A.Compose] = {}

    def __call__(self, image: np.ndarray, mask: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Augment one patch.

        Args:
            image: (C, H, W) float32, z-scores of any range; left as it is.
            mask: (H, W) uint8 labels; left as it is.
            seed: a whole number from 0.

        Returns:
            New contiguous arrays of the same shapes and types. Raises OctkitError where a shape is not the
            patch's.
        """
        if image.shape[1:] != self.patch_size or mask.shape != self.patch_size:
            raise OctkitError(f"augmentation: found an image {image.shape} and a mask {mask.shape}, "
                              f"expected (channels, *{self.patch_size}) and {self.patch_size}")
        # A pipeline holds its random state, so threads must not share one; building one takes milliseconds.
        thread = threading.get_ident()
        if thread not in self._copies:
            self._copies[thread] = copy.deepcopy(self.pipeline)
        return _run(self._copies[thread], image, mask, seed)


def rotation_limit(patch_size: Sequence[int]) -> float:
    """The largest rotation in degrees: 180, or 15 where one side is more than 1.5 times the other (inferred)."""
    return ROTATION_DEGREES_ELONGATED if max(patch_size) > ELONGATED * min(patch_size) else ROTATION_DEGREES


def add_noise(image: np.ndarray, variance: float, random: np.random.Generator) -> np.ndarray:
    """Gaussian noise of this variance on every pixel."""
    return image + np.float32(variance**0.5) * random.standard_normal(image.shape, np.float32)


def blur(channel: np.ndarray, sigma_rows: float, sigma_columns: float) -> np.ndarray:
    """(H, W) smoothed by a Gaussian with these standard deviations in px; borders are reflected."""
    return cv2.GaussianBlur(channel, (0, 0), sigmaX=sigma_columns, sigmaY=sigma_rows)


def change_brightness(channel: np.ndarray, factor: float) -> np.ndarray:
    """z-scores times a factor: what lies above the data set's mean becomes brighter, what lies below darker."""
    return channel * np.float32(factor)


def change_contrast(channel: np.ndarray, factor: float) -> np.ndarray:
    """Distances from the channel's own mean times a factor, cut off at its former minimum and maximum."""
    mean = channel.mean()
    return np.clip((channel - mean) * np.float32(factor) + mean, channel.min(), channel.max())


def lower_resolution(channel: np.ndarray, zoom: float) -> np.ndarray:
    """(H, W) sampled down by `zoom` (nearest pixel) and back up (cubic): what a coarser scan would show."""
    height, width = channel.shape
    small = (max(1, round(width * zoom)), max(1, round(height * zoom)))
    coarse = cv2.resize(channel, small, interpolation=cv2.INTER_NEAREST_EXACT)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def change_gamma(channel: np.ndarray, gamma: float, inverted: bool = False) -> np.ndarray:
    """Gamma curve over the channel's own range, with mean and standard deviation restored.

    Above 1 it spreads the bright values and squeezes the dark ones. `inverted` bends the negative image, so
    the other end of the scale is spread. A constant channel stays as it is.
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


class PerChannel(A.ImageOnlyTransform):
    """An intensity change with values drawn for each channel on its own; the mask is not touched.

    `change(channel, *values)` takes and returns (H, W) float32. `draws` give the values, one each.
    """

    def __init__(self, change: Callable[..., np.ndarray], draws: Sequence[Draw], p: float,
                 channel_probability: float = 1.0):
        super().__init__(p=p)
        self.change = change
        self.draws = draws
        self.channel_probability = channel_probability

    def get_params_dependent_on_data(self, params: dict, data: dict) -> dict:  # noqa: ARG002
        random = self.random_generator
        values = [[draw(random) for draw in self.draws] if random.random() < self.channel_probability else None
                  for _ in range(data["image"].shape[-1])]
        return {"values": values}

    def apply(self, img: np.ndarray, values: list[list[float] | None], **_) -> np.ndarray:
        changed = img.copy()
        for c, drawn in enumerate(values):
            if drawn is not None:
                changed[..., c] = self.change(np.ascontiguousarray(img[..., c]), *drawn)
        return changed


class Noise(A.ImageOnlyTransform):
    """Gaussian noise of one variance on all channels; the mask is not touched."""

    def __init__(self, draw: Draw, p: float):
        super().__init__(p=p)
        self.draw = draw

    def apply(self, img: np.ndarray, **_) -> np.ndarray:
        return add_noise(img, self.draw(self.random_generator), self.random_generator)


def _between(span: tuple[float, float], random: np.random.Generator) -> float:
    """Uniform in the span; a factor is below 1 as often as above, however lopsided its span (as nnU-Net draws)."""
    low, high = span
    if low < 1 < high:
        low, high = (low, 1.0) if random.random() < 0.5 else (1.0, high)
    return random.uniform(low, high)


def _either(values: tuple[float, ...], random: np.random.Generator) -> float:
    return values[random.integers(len(values))]


def _affine(p: float, **how) -> A.Affine:
    # strict: albumentations otherwise drops an unknown argument with a mere warning.
    return A.Affine(interpolation=cv2.INTER_LINEAR, mask_interpolation=cv2.INTER_NEAREST, keep_ratio=True,
                    **OUTSIDE, **how, p=p, strict=True)


def _rotate_and_scale(degrees: float) -> A.OneOf:
    # Rotation and scaling are independent of each other; where both happen, the image is resampled only once.
    rotate, scale = (-degrees, degrees), SCALING
    only_rotation = ROTATION_PROBABILITY * (1 - SCALING_PROBABILITY)
    only_scaling = SCALING_PROBABILITY * (1 - ROTATION_PROBABILITY)
    both = ROTATION_PROBABILITY * SCALING_PROBABILITY
    return A.OneOf([_affine(only_rotation, rotate=rotate), _affine(only_scaling, scale=scale),
                    _affine(both, rotate=rotate, scale=scale)], p=only_rotation + only_scaling + both)


def _all_transforms(degrees: float, mirror_axes: Sequence[int]) -> list:
    draw = functools.partial
    inverted_gamma = functools.partial(change_gamma, inverted=True)
    return [
        _rotate_and_scale(degrees),
        Noise(draw(_between, NOISE_VARIANCE), NOISE_PROBABILITY),
        PerChannel(blur, [draw(_between, BLUR_SIGMA)] * 2, BLUR_PROBABILITY, CHANNEL_PROBABILITY),
        PerChannel(change_brightness, [draw(_between, BRIGHTNESS)], BRIGHTNESS_PROBABILITY),
        PerChannel(change_contrast, [draw(_between, CONTRAST)], CONTRAST_PROBABILITY),
        PerChannel(lower_resolution, [draw(_between, LOW_RESOLUTION)], LOW_RESOLUTION_PROBABILITY,
                   CHANNEL_PROBABILITY),
        PerChannel(inverted_gamma, [draw(_between, GAMMA)], GAMMA_INVERTED_PROBABILITY),
        PerChannel(change_gamma, [draw(_between, GAMMA)], GAMMA_PROBABILITY),
        *(MIRRORS[axis](p=MIRROR_PROBABILITY, strict=True) for axis in sorted(set(mirror_axes))),
    ]


def _run(pipeline: A.Compose, image: np.ndarray, mask: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    # Not `set_random_seed`: it gives each transform a generator of its own with the same seed, so all of them
    # draw the same numbers and a patch that is rarely changed is changed by everything at once.
    pipeline.set_random_state(np.random.default_rng(seed), python_random.Random(int(seed)))
    # albumentations wants channels last; the copies keep the caller's arrays as they are.
    done = pipeline(image=np.array(np.moveaxis(image, 0, -1), order="C"), mask=mask.copy())
    return np.ascontiguousarray(np.moveaxis(done["image"], -1, 0)), np.ascontiguousarray(done["mask"])


def _alone(make: Callable[[], list], image: np.ndarray, mask: np.ndarray,
           seed: int) -> tuple[np.ndarray, np.ndarray]:
    return _run(A.Compose(make()), image, mask, seed)


def _strongest(change: Callable[..., np.ndarray], values: tuple[float, ...], count: int = 1) -> list:
    return [PerChannel(change, [functools.partial(_either, values)] * count, p=1.0)]


# Each transform alone and always, (image, mask, seed) -> (image, mask), for looking at it. Strengths are the
# far ends of the ranges above, so that one sees them; where a range has two, the seed picks one.
TRANSFORMS: dict[str, Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]] = {
    name: functools.partial(_alone, make) for name, make in {
        "rotation": lambda: [A.OneOf([_affine(1.0, rotate=(degrees, degrees)) for degrees in (
            -ROTATION_DEGREES_ELONGATED, ROTATION_DEGREES_ELONGATED)], p=1.0)],
        "scaling": lambda: [A.OneOf([_affine(1.0, scale=(factor, factor)) for factor in SCALING], p=1.0)],
        "noise": lambda: [Noise(functools.partial(_either, NOISE_VARIANCE[1:]), p=1.0)],
        "blur": lambda: _strongest(blur, BLUR_SIGMA[1:], count=2),
        "brightness": lambda: _strongest(change_brightness, BRIGHTNESS),
        "contrast": lambda: _strongest(change_contrast, CONTRAST),
        "low_resolution": lambda: _strongest(lower_resolution, LOW_RESOLUTION[:1]),
        "gamma": lambda: _strongest(change_gamma, GAMMA),
        "mirror": lambda: [A.OneOf([flip(p=1.0, strict=True) for flip in MIRRORS.values()], p=1.0)],
    }.items()
}
