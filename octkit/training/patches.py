"""Training patches by number: which case, where in it, and how augmented.

Patch n depends on (seed, n) alone: not on the worker that makes it, nor on the patches made before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.utils.data import Dataset

from octkit.data.labels import IGNORE
from octkit.planning.preprocess import one_hot
from octkit.training.augmentation import Augmenter
from octkit.training.cascade_errors import perturb

# Voxels a class that are kept of a case, as in nnU-Net: to search a volume for each patch would take longest of all.
FOREGROUND_VOXELS = 10_000


@dataclass(eq=False)
class Patches(Dataset):
    """Training patches by number: item n is the (n mod batch)-th patch of batch n // batch.

    The last patches of each batch, a share of `oversample`, are centred on a voxel of a foreground class, chosen at
    random among the classes of the case; the others lie anywhere, or, where a mask is labelled in part, are centred on
    any labelled voxel. Where a patch reaches beyond the scan, image and mask are 0, but a circle scan goes on at its
    other side: its patches start at any A-scan, so that no seam is learned. A 2-D patch of a volume lies in one of its
    slices, across the first axis.

    `cases` have what `PreprocessedCase` has. For a cascade's second step, `previous_classes` is how many foreground
    classes their `.previous` has: each becomes a channel (0 or 1) behind the image's own. Its patch moves with image
    and mask and is then perturbed; without an augmenter it stays as it is.

    Items: image (channels + previous_classes, *patch) float32 and mask (*patch) uint8, as tensors.
    """

    cases: Sequence
    patch_size: Sequence[int]
    batch_size: int
    oversample: float
    seed: Sequence[int]
    augmenter: Augmenter | None
    previous_classes: int = 0
    foreground: dict[int, dict[int, np.ndarray]] = field(default_factory=dict, init=False)

    @property
    def foreground_patches(self) -> int:
        """How many patches of a batch are centred on foreground: by a third 12 -> 4, 2 -> 1; none where it is 0."""
        return max(1, round(self.batch_size * self.oversample)) if self.oversample > 0 else 0

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        random = np.random.default_rng((*self.seed, number))
        index = int(random.integers(len(self.cases)))
        case = self.cases[index]
        mask = case.mask  # a memory map, and so are the others: only the patch is read
        if index not in self.foreground:  # looked for once a worker
            self.foreground[index] = foreground_voxels(mask)
        found = self.foreground[index]
        centred = number % self.batch_size >= self.batch_size - self.foreground_patches
        voxels = {label: places for label, places in found.items() if label and centred} or (
            {0: found[0]} if 0 in found else {})
        corner = patch_corner(mask.shape, self.patch_size, random, voxels, case.circle)
        seed, arrays = int(random.integers(2**31)), [case.image, mask[None]]
        if self.previous_classes:
            arrays.append(case.previous[None])
        image, *maps = cut_augmented(arrays, corner, self.patch_size, case.circle, self.augmenter, seed)
        if self.previous_classes:
            previous = maps[1] if self.augmenter is None else perturb(maps[1], self.previous_classes, random)
            image = np.concatenate([image, one_hot(previous, self.previous_classes)])
        return torch.from_numpy(image), torch.from_numpy(maps[0])


def foreground_voxels(mask: np.ndarray) -> dict[int, np.ndarray]:
    """Label -> flat positions in a mask (*spatial), in order; of more than 10,000, always the same 10,000 drawn.

    Where the mask is labelled in part, label 0 stands for all voxels that are labelled.
    """
    positions = np.flatnonzero(mask)
    labels = np.ravel(mask)[positions]
    found = {label: positions[labels == label] for label in np.unique(labels) if label != IGNORE}
    if (labels == IGNORE).any():
        found = {0: np.flatnonzero(np.ravel(mask) != IGNORE)} | found
    for label, voxels in found.items():
        if len(voxels) > FOREGROUND_VOXELS:
            random = np.random.default_rng(int(label))
            found[label] = np.sort(random.choice(voxels, FOREGROUND_VOXELS, replace=False, shuffle=False))
    return {int(label): voxels for label, voxels in found.items() if len(voxels)}


def patch_corner(shape: Sequence[int], patch_size: Sequence[int], random: np.random.Generator,
                 foreground: Mapping[int, np.ndarray], circle: bool = False) -> tuple[int, ...]:
    """First voxel of a random patch on a grid of this shape; negative where the patch is larger than the scan.

    Without `foreground` the patch lies anywhere inside the scan; an axis shorter than the patch is centred. With
    `foreground_voxels` it is centred on a random voxel of a random class, then moved inside at both ends of each axis
    (nnU-Net: at the first end alone; at the other its patches reach into the padding). A 2-D patch of a volume
    is one slice: the corner's first number says which. On a circle it may start at any A-scan, and before the first.
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


def cut_augmented(arrays: Sequence[np.ndarray], corner: Sequence[int], size: Sequence[int], circle: bool,
                  augmenter: Augmenter | None, seed: int) -> Sequence[np.ndarray]:
    """The patch at `corner` of an image (channels, *spatial) and of labels (1, *spatial), augmented: (*size) each.

    Where it is turned or scaled it is cut larger first, so that nothing is missing at its edges but beyond the scan.
    """
    wide = size if augmenter is None else augmenter.reach(seed)
    more = [(w - s) // 2 for w, s in zip(wide, size, strict=True)]
    corner = [c - m for c, m in zip(corner, (*[0] * (len(corner) - len(more)), *more), strict=True)]
    image, *maps = (cut(array, corner, wide, circle) for array in arrays)
    maps = [labels[0] for labels in maps]
    return (image, *maps) if augmenter is None else augmenter(image, maps[0], seed, *maps[1:])


def _as_window(size: Sequence[int], axes: int) -> tuple[int, ...]:
    """A patch's size on a grid of so many axes: (8, 8) in a volume is (1, 8, 8)."""
    return (1,) * (axes - len(size)) + tuple(size)
