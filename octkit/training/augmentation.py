"""Augmentation: the recipe's eight transforms and mirroring; on albumentations for 2-D patches.

Probabilities, ranges and order are those of nnU-Net v2's trainer, the same for every data set; only the rotation's
range and whether slices are warped in their plane follow from the patch.

albumentations moves a 2-D image and its labels together and decides what is applied. `grey_changes` are our own:
albumentations clips float images to [0, 1] or rounds them to 8 bits, which z-scores do not survive. For 3-D patches it
has neither rotation nor scaling: `rotate_scale`.
"""

import copy
import functools
import os
import random as python_random
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from octkit.common.errors import OctkitError
from octkit.training import grey_changes, rotate_scale
from octkit.training.grey_changes import Change, Noise, PerChannel
from octkit.training.rotate_scale import ROTATION_PROBABILITY, SCALING, SCALING_PROBABILITY, rotation_limit

# albumentations asks the network for a newer version when imported, unless told not to.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
# It also imports torch, if installed, for a conversion not used here. None makes that one import fail, which
# albumentations allows for: two seconds less, and a process that holds paddle stays free of torch.
sys.modules.setdefault("albumentations.pytorch", None)  # type: ignore[arg-type]
import albumentations as A  # noqa: E402

if sys.modules["albumentations.pytorch"] is None:
    del sys.modules["albumentations.pytorch"]  # whoever wants it later can still import it

MIRROR_PROBABILITY = 0.5  # each axis
MIRROR_AXES = (-3, -2, -1)  # B-scans, rows, A-scans
# Beyond the patch: the padding of patches and of the sliding window, image 0 (the mean) and background.
OUTSIDE = {"border_mode": cv2.BORDER_CONSTANT, "fill": 0, "fill_mask": 0}
MIRRORS = {-2: A.VerticalFlip, -1: A.HorizontalFlip}


class Augmenter:
    """Random augmentation of a training patch, decided by `seed` alone.

    The same seed gives the same result in any order of calls, process and thread.

    Args:
        patch_size: (H, W) or (D, H, W) of the patches.
        rotation_degrees: rotate by up to this much either way (3-D: about each axis, or in the slices' plane where
            they are few); None: nnU-Net's rule, `rotate_scale.rotation_limit`.
        mirror_axes: axes that may be mirrored, counted from the last: -1 A-scans, -2 rows, -3 B-scans (3-D alone).

    Raises OctkitError for an axis that does not exist.
    """

    def __init__(self, patch_size: Sequence[int], rotation_degrees: float | None = None,
                 mirror_axes: Sequence[int] = MIRROR_AXES):
        if not set(mirror_axes) <= set(MIRROR_AXES):
            raise OctkitError(f"mirror_axes: found {tuple(mirror_axes)}, expected axes among {MIRROR_AXES}")
        self.patch_size = tuple(patch_size)
        self.rotation_degrees = rotation_degrees if rotation_degrees is not None else rotation_limit(patch_size)
        self.mirror_axes = tuple(axis for axis in MIRROR_AXES if axis in mirror_axes and -axis <= len(patch_size))
        self.pipeline = _pipeline(patch_size, self.rotation_degrees, self.mirror_axes) if len(patch_size) == 2 else None
        self._copies: dict[int, A.Compose] = {}  # by thread

    def __call__(self, image: np.ndarray, mask: np.ndarray, seed: int, previous: np.ndarray | None = None,
                 ) -> tuple[np.ndarray, ...]:
        """Augment one patch.

        Args:
            image: (C, *patch) float32, z-scores of any range; left as it is.
            mask: (*patch) uint8 labels; left as it is.
            seed: a whole number from 0.
            previous: (*patch) uint8 labels of a cascade's first step, which move like the mask; left as they are.

        Returns:
            New contiguous arrays of the same shapes and types: image and mask, and previous where it is given.

        Raises OctkitError where a shape is not the patch's.
        """
        maps = [mask] if previous is None else [mask, previous]
        for labels in maps:
            if image.shape[1:] != self.patch_size or labels.shape != self.patch_size:
                raise OctkitError(f"augmentation: found an image {image.shape} and a mask {labels.shape}, "
                                  f"expected (channels, *{self.patch_size}) and {self.patch_size}")
        if self.pipeline is None:
            return self._augment_volume(image, maps, seed)
        # A pipeline holds its random state, so threads must not share one; building one takes milliseconds.
        thread = threading.get_ident()
        if thread not in self._copies:
            self._copies[thread] = copy.deepcopy(self.pipeline)
        return _run(self._copies[thread], image, maps, seed)

    def _augment_volume(self, image: np.ndarray, maps: Sequence[np.ndarray], seed: int) -> tuple[np.ndarray, ...]:
        random = np.random.default_rng(seed)
        changed, labels = np.array(np.moveaxis(image, 0, -1), order="C"), np.stack(maps, axis=-1)
        changed, labels = rotate_scale.random_warp(changed, labels, self.rotation_degrees, random)
        for probability, change in grey_changes.intensity_changes(self.patch_size):
            if random.random() < probability:
                changed = change(changed, random)
        for axis in self.mirror_axes:
            if random.random() < MIRROR_PROBABILITY:  # axis -3 is the first of (D, H, W, channels)
                changed, labels = np.flip(changed, axis + 3), np.flip(labels, axis + 3)
        return tuple(map(np.ascontiguousarray, (np.moveaxis(changed, -1, 0), *np.moveaxis(labels, -1, 0))))


class Intensity(A.ImageOnlyTransform):
    """One of the `grey_changes` for albumentations; labels are not touched."""

    def __init__(self, change: Change, p: float):
        super().__init__(p=p)
        self.change = change

    def apply(self, img: np.ndarray, **_: Any) -> np.ndarray:
        return self.change(img, self.random_generator)


def _affine(p: float, **how: Any) -> A.Affine:
    # strict: albumentations otherwise drops an unknown argument with a mere warning.
    return A.Affine(interpolation=cv2.INTER_LINEAR, mask_interpolation=cv2.INTER_NEAREST, keep_ratio=True,
                    **OUTSIDE, **how, p=p, strict=True)


def _pipeline(patch_size: Sequence[int], degrees: float, mirror_axes: Sequence[int]) -> A.Compose:
    # Rotation and scaling are independent of each other; where both happen, the image is resampled only once.
    rotate, scale = (-degrees, degrees), SCALING
    only_rotation = ROTATION_PROBABILITY * (1 - SCALING_PROBABILITY)
    only_scaling = SCALING_PROBABILITY * (1 - ROTATION_PROBABILITY)
    both = ROTATION_PROBABILITY * SCALING_PROBABILITY
    return _compose([
        A.OneOf([_affine(only_rotation, rotate=rotate), _affine(only_scaling, scale=scale),
                 _affine(both, rotate=rotate, scale=scale)], p=only_rotation + only_scaling + both),
        *(Intensity(change, probability) for probability, change in grey_changes.intensity_changes(patch_size)),
        *(MIRRORS[axis](p=MIRROR_PROBABILITY, strict=True) for axis in mirror_axes)])


def _compose(transforms: list) -> A.Compose:
    return A.Compose(transforms, additional_targets={"previous": "mask"})


def _run(pipeline: A.Compose, image: np.ndarray, maps: Sequence[np.ndarray], seed: int) -> tuple[np.ndarray, ...]:
    # Not `set_random_seed`: it gives each transform a generator of its own with the same seed, so all of them
    # draw the same numbers and a patch that is rarely changed is changed by everything at once.
    pipeline.set_random_state(np.random.default_rng(seed), python_random.Random(int(seed)))
    labels = dict(zip(("mask", "previous"), (labels.copy() for labels in maps), strict=False))
    # albumentations wants channels last; the copies keep the caller's arrays as they are.
    done = pipeline(image=np.array(np.moveaxis(image, 0, -1), order="C"), **labels)
    return tuple(map(np.ascontiguousarray, (np.moveaxis(done["image"], -1, 0), *(done[name] for name in labels))))


def _alone(make: Callable[[], list], image: np.ndarray, mask: np.ndarray, seed: int) -> tuple[np.ndarray, ...]:
    return _run(_compose(make()), image, [mask], seed)


def _either(values: tuple[float, ...], random: np.random.Generator) -> float:
    return values[random.integers(len(values))]


def _strongest(change: Callable[..., np.ndarray], values: tuple[float, ...], count: int = 1) -> list:
    return [Intensity(PerChannel(change, functools.partial(_either, values), count), p=1.0)]


# Each transform of a 2-D patch alone and always, (image, mask, seed) -> (image, mask), for looking at it. Strengths
# are the far ends of the ranges, so that one sees them; where a range has two, the seed picks one.
TRANSFORMS: dict[str, Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, ...]]] = {
    name: functools.partial(_alone, make) for name, make in {
        "rotation": lambda: [A.OneOf([_affine(1.0, rotate=(degrees, degrees)) for degrees in (
            -rotate_scale.ROTATION_DEGREES_ELONGATED, rotate_scale.ROTATION_DEGREES_ELONGATED)], p=1.0)],
        "scaling": lambda: [A.OneOf([_affine(1.0, scale=(factor, factor)) for factor in SCALING], p=1.0)],
        "noise": lambda: [Intensity(Noise(functools.partial(_either, grey_changes.NOISE_VARIANCE[1:])), p=1.0)],
        "blur": lambda: _strongest(grey_changes.blur, grey_changes.BLUR_SIGMA[1:], count=2),
        "brightness": lambda: _strongest(grey_changes.change_brightness, grey_changes.BRIGHTNESS),
        "contrast": lambda: _strongest(grey_changes.change_contrast, grey_changes.CONTRAST),
        "low_resolution": lambda: _strongest(grey_changes.lower_resolution, grey_changes.LOW_RESOLUTION[:1]),
        "gamma": lambda: _strongest(grey_changes.change_gamma, grey_changes.GAMMA),
        "mirror": lambda: [A.OneOf([flip(p=1.0, strict=True) for flip in MIRRORS.values()], p=1.0)],
    }.items()
}
