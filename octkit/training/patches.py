"""Training patches by number: which case, where in it, and how augmented.

Patch n depends on (seed, n) alone: not on the worker that makes it, nor on the patches made before.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from octkit.planning.preprocess import one_hot
from octkit.training.augmentation import Augmenter
from octkit.training.cascade_errors import perturb

# Voxels a class that are remembered of a case, as many as nnU-Net stores: to look through a volume for each patch
# would take longer than all the rest.
FOREGROUND_VOXELS = 10_000


class Patches(Dataset):
    """Training patches by number: item n is the (n mod batch)-th patch of batch n // batch.

    The last patches of each batch are centred on a voxel of a foreground class, chosen at random among the
    classes of the case; the others lie anywhere. Where the patch reaches beyond the scan, image and mask are 0, but a
    circle scan goes on at its other side: its patches start at any A-scan, so that no seam is learned.
    A 2-D patch of a volume lies in one of its slices, across the first axis.

    `cases` have `.image` (channels, *spatial), `.mask` (*spatial) and `.circle`, as preprocessed cases do. For a
    cascade's second step they also have `.previous`, the labels (*spatial) that the first step found, and
    `previous_classes` is how many foreground classes those are: each becomes a channel (0 or 1) behind the image's
    own. Its patch moves with image and mask and is then perturbed; without an augmenter it stays as it is.

    Items: image (channels + previous_classes, *patch) float32 and mask (*patch) int64, as tensors.
    """

    def __init__(self, cases: Sequence, patch_size: Sequence[int], batch_size: int, oversample: float,
                 seed: Sequence[int], augmenter: Augmenter | None, previous_classes: int = 0):
        self.cases = cases
        self.patch_size = tuple(patch_size)
        self.batch_size = batch_size
        self.foreground_patches = foreground_patches(batch_size, oversample)
        self.seed = tuple(seed)
        self.augmenter = augmenter
        self.previous_classes = previous_classes
        self.foreground: dict[int, dict[int, np.ndarray]] = {}

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        random = np.random.default_rng((*self.seed, number))
        index = int(random.integers(len(self.cases)))
        case = self.cases[index]
        mask = case.mask  # a memory map, and so are the others: only the patch is read
        on_foreground = number % self.batch_size >= self.batch_size - self.foreground_patches
        corner = patch_corner(mask.shape, self.patch_size, random, self._foreground(index) if on_foreground else {},
                              case.circle)
        image = cut(case.image, corner, self.patch_size, case.circle)
        maps = [cut(labels[None], corner, self.patch_size, case.circle)[0]
                for labels in ((mask, case.previous) if self.previous_classes else (mask,))]
        if self.augmenter is not None:
            image, *maps = self.augmenter(image, maps[0], int(random.integers(2**31)), *maps[1:])
        if self.previous_classes:
            previous = maps[1] if self.augmenter is None else perturb(maps[1], self.previous_classes, random)
            image = np.concatenate([image, one_hot(previous, self.previous_classes)])
        return torch.from_numpy(image), torch.from_numpy(maps[0].astype(np.int64))

    def _foreground(self, index: int) -> Mapping[int, np.ndarray]:
        if index not in self.foreground:  # looked for once a worker
            self.foreground[index] = foreground_voxels(self.cases[index].mask)
        return self.foreground[index]


def foreground_patches(batch_size: int, oversample: float) -> int:
    """How many patches of a batch are centred on foreground: 12 -> 4, 2 -> 1, none where oversampling is off."""
    return max(1, round(batch_size * oversample)) if oversample > 0 else 0


def foreground_voxels(mask: np.ndarray) -> dict[int, np.ndarray]:
    """Where each foreground class lies in a mask (*spatial): label -> flat positions, in order.

    Of a class with more than 10,000 voxels that many are drawn, by the mask alone: always the same ones.
    """
    positions = np.flatnonzero(mask)
    labels = np.ravel(mask)[positions]
    found = {}
    for label in np.unique(labels):
        voxels = positions[labels == label]
        if len(voxels) > FOREGROUND_VOXELS:
            random = np.random.default_rng(int(label))
            voxels = np.sort(random.choice(voxels, FOREGROUND_VOXELS, replace=False, shuffle=False))
        found[int(label)] = voxels
    return found


def patch_corner(shape: Sequence[int], patch_size: Sequence[int], random: np.random.Generator,
                 foreground: Mapping[int, np.ndarray], circle: bool = False) -> tuple[int, ...]:
    """First voxel of a random patch on a grid of this shape; negative where the patch is larger than the scan.

    Without `foreground` the patch lies anywhere inside the scan; an axis shorter than the patch is centred. With
    `foreground_voxels` it is centred on a random voxel of a random class, then moved inside. Where the patch has an
    axis less than the grid it is one slice: the corner's first number says which. Along a circle it may start at any
    A-scan, and before the first one.
    """
    size = _as_window(patch_size, len(shape))
    room = [n - p for n, p in zip(shape, size, strict=True)]
    corner = [int(random.integers(r + 1)) if r > 0 else r // 2 for r in room]
    if foreground:
        voxels = foreground[int(random.choice(list(foreground)))]
        centre = np.unravel_index(int(voxels[random.integers(len(voxels))]), shape)
        corner = [min(max(int(c) - p // 2, 0), r) if r > 0 else k
                  for c, p, r, k in zip(centre, size, room, corner, strict=True)]
    if circle:
        corner[-1] = int(centre[-1]) - size[-1] // 2 if foreground else int(random.integers(shape[-1]))
    return tuple(corner)


def cut(array: np.ndarray, corner: Sequence[int], size: Sequence[int], circle: bool = False) -> np.ndarray:
    """The patch at `corner` of (channels, *spatial), zero where it lies outside: (channels, *size), a new array.

    A size of two axes cuts one slice out of a volume. On a circle the last axis goes round, as often as it takes.
    """
    if circle:
        whole_rows = cut(array, (*corner[:-1], 0), (*size[:-1], array.shape[-1]))
        return np.take(whole_rows, corner[-1] + np.arange(size[-1]), axis=-1, mode="wrap")
    window = _as_window(size, array.ndim - 1)
    patch = np.zeros((len(array), *window), array.dtype)
    source = [slice(max(c, 0), min(c + s, n)) for c, s, n in zip(corner, window, array.shape[1:], strict=True)]
    target = [slice(part.start - c, part.stop - c) for part, c in zip(source, corner, strict=True)]
    patch[(slice(None), *target)] = array[(slice(None), *source)]
    return patch.reshape(len(array), *size)


def _as_window(size: Sequence[int], axes: int) -> tuple[int, ...]:
    """A patch's size on a grid of so many axes: (8, 8) in a volume is (1, 8, 8)."""
    return (1,) * (axes - len(size)) + tuple(size)
