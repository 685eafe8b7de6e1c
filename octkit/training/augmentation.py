"""Augmentation: the recipe's eight transforms and mirroring; on albumentations for 2-D patches.

Probabilities, ranges and order are those of nnU-Net v2's trainer, the same for every data set; only the rotation's
range and whether slices are warped in their plane follow from the patch.

albumentations decides what is applied to a 2-D patch, and mirrors image and labels together. Rotation and scaling are
our own (`rotate_scale`), as a larger patch goes in than comes out, and so are `grey_changes`: albumentations clips
float images to [0, 1] or rounds them to 8 bits, which z-scores do not survive. 3-D patches do without it.
"""

import copy
import functools
import os
import random as python_random
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from octkit.common.errors import OctkitError
from octkit.training import grey_changes, rotate_scale
from octkit.training.grey_changes import Change, Noise, PerChannel
from octkit.training.rotate_scale import SCALING, affine, rotation_limit

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
        # strict: albumentations otherwise drops an unknown argument with a mere warning
        self.pipeline = None if len(patch_size) == 3 else A.Compose([
            *(Intensity(change, probability) for probability, change in grey_changes.intensity_changes(patch_size)),
            *(MIRRORS[axis](p=MIRROR_PROBABILITY, strict=True) for axis in self.mirror_axes)])
        self._copies: dict[int, A.Compose] = {}  # by thread

    def reach(self, seed: int) -> tuple[int, ...]:
        """How large a patch has to be cut about its centre, so that what this seed turns into view is scan, not 0."""
        matrix = rotate_scale.draw_warp(self.patch_size, self.rotation_degrees, np.random.default_rng(seed))
        return self.patch_size if matrix is None else rotate_scale.reach(self.patch_size, matrix)

    def __call__(self, image: np.ndarray, mask: np.ndarray, seed: int, previous: np.ndarray | None = None,
                 ) -> tuple[np.ndarray, ...]:
        """Augment one patch.

        Args:
            image: (C, *spatial) float32, z-scores of any range, with the patch in its middle; left as it is. What a
                warp brings in from beyond it is 0, the mean, and background: `reach` says how much it takes.
            mask: (*spatial) uint8 labels; left as it is.
            seed: a whole number from 0.
            previous: (*spatial) uint8 labels of a cascade's first step, which move like the mask; left as they are.

        Returns:
            New contiguous arrays of the patch's size and the same types: image and mask, and previous where it is
            given.

        Raises OctkitError where image and labels differ in shape, or are smaller than the patch.
        """
        size, found = self.patch_size, image.shape[1:]
        maps = [mask] if previous is None else [mask, previous]
        for labels in maps:
            if labels.shape != found or len(found) != len(size) or any(map(int.__lt__, found, size)):
                raise OctkitError(f"augmentation: found an image {image.shape} and a mask {labels.shape}, "
                                  f"expected (channels, *{size}) and {size}, or both larger")
        random = np.random.default_rng(seed)
        changed, moved = np.moveaxis(image, 0, -1), np.stack(maps, axis=-1)
        if (matrix := rotate_scale.draw_warp(size, self.rotation_degrees, random)) is not None:
            changed, moved = rotate_scale.warp(changed, moved, matrix, size)
        else:
            middle = tuple(slice((n - p) // 2, (n - p) // 2 + p) for n, p in zip(found, size, strict=True))
            changed, moved = np.array(changed[middle], order="C"), moved[middle]
        return self._change_flat(changed, moved, random) if len(size) == 2 else self._change(changed, moved, random)

    def _change_flat(self, image: np.ndarray, labels: np.ndarray, random: np.random.Generator,
                     ) -> tuple[np.ndarray, ...]:
        """Greys and mirrors of a 2-D patch, (H, W, channels) and (H, W, maps)."""
        # A pipeline holds its random state, so threads must not share one; building one takes milliseconds.
        thread = threading.get_ident()
        if thread not in self._copies:
            self._copies[thread] = copy.deepcopy(self.pipeline)
        pipeline = self._copies[thread]
        # Not `set_random_seed`: it gives each transform a generator of its own with the same seed, so all of them
        # draw the same numbers and a patch that is rarely changed is changed by everything at once.
        pipeline.set_random_state(random, python_random.Random(int(random.integers(2**31))))
        done = pipeline(image=image, mask=labels)
        return _channels_first(done["image"], done["mask"])

    def _change(self, image: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, ...]:
        """The same of a 3-D patch, (D, H, W, channels) and (D, H, W, maps)."""
        for probability, change in grey_changes.intensity_changes(self.patch_size):
            if random.random() < probability:
                image = change(image, random)
        for axis in self.mirror_axes:
            if random.random() < MIRROR_PROBABILITY:  # one further from the last: behind it lie the channels
                image, labels = np.flip(image, axis - 1), np.flip(labels, axis - 1)
        return _channels_first(image, labels)


class Intensity(A.ImageOnlyTransform):
    """One of the `grey_changes` for albumentations; labels are not touched."""

    def __init__(self, change: Change, p: float):
        super().__init__(p=p)
        self.change = change

    def apply(self, img: np.ndarray, **_: Any) -> np.ndarray:
        return self.change(img, self.random_generator)


def _channels_first(image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(map(np.ascontiguousarray, (np.moveaxis(image, -1, 0), *np.moveaxis(labels, -1, 0))))


def _warped(matrices: Sequence[np.ndarray], image: np.ndarray, mask: np.ndarray, seed: int) -> tuple[np.ndarray, ...]:
    matrix = matrices[int(np.random.default_rng(seed).integers(len(matrices)))]
    return _channels_first(*rotate_scale.warp(np.moveaxis(image, 0, -1), mask[..., None], matrix, mask.shape))


def _regreyed(change: Change, image: np.ndarray, mask: np.ndarray, seed: int) -> tuple[np.ndarray, ...]:
    changed = change(np.array(np.moveaxis(image, 0, -1), order="C"), np.random.default_rng(seed))
    return _channels_first(changed, mask[..., None].copy())


def _mirrored(image: np.ndarray, mask: np.ndarray, seed: int) -> tuple[np.ndarray, ...]:
    axis = int(np.random.default_rng(seed).integers(-2, 0))
    return np.flip(image, axis).copy(), np.flip(mask, axis).copy()


def _either(values: tuple[float, ...], random: np.random.Generator) -> float:
    return values[random.integers(len(values))]


def _strongest(change: Callable[..., np.ndarray], values: tuple[float, ...], count: int = 1) -> Change:
    return PerChannel(change, functools.partial(_either, values), count)


_TURNS = (-rotate_scale.ROTATION_DEGREES_ELONGATED, rotate_scale.ROTATION_DEGREES_ELONGATED)
# Each transform of a 2-D patch alone and always, (image, mask, seed) -> (image, mask), for looking at it. Strengths
# are the far ends of the ranges, so that one sees them; where a range has two, the seed picks one.
TRANSFORMS: dict[str, Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, ...]]] = {
    "rotation": functools.partial(_warped, [affine((degrees, 0, 0), (1, 1, 1)) for degrees in _TURNS]),
    "scaling": functools.partial(_warped, [affine((0, 0, 0), (1, factor, factor)) for factor in SCALING]),
    **{name: functools.partial(_regreyed, change) for name, change in dict[str, Change]({
        "noise": Noise(functools.partial(_either, grey_changes.NOISE_VARIANCE[1:])),
        "blur": _strongest(grey_changes.blur, grey_changes.BLUR_SIGMA[1:], count=2),
        "brightness": _strongest(grey_changes.change_brightness, grey_changes.BRIGHTNESS),
        "contrast": _strongest(grey_changes.change_contrast, grey_changes.CONTRAST),
        "low_resolution": _strongest(grey_changes.lower_resolution, grey_changes.LOW_RESOLUTION[:1]),
        "gamma": _strongest(grey_changes.change_gamma, grey_changes.GAMMA),
    }).items()},
    "mirror": _mirrored,
}
