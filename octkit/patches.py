"""Training patches by number: which case, where in it, and how augmented.

Patch n depends on (seed, n) alone: not on the worker that makes it, nor on the patches made before.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from octkit.augment import Augmenter


class Patches(Dataset):
    """Training patches by number: item n is the (n mod batch)-th patch of batch n // batch.

    The last patches of each batch are centred on a pixel of a foreground class, chosen at random among the
    classes of the case; the others lie anywhere. Where the patch reaches beyond the scan, image and mask are 0.

    `cases` have `.image` (channels, *spatial) and `.mask` (*spatial), as preprocessed cases do.
    Items: image (channels, *patch) float32 and mask (*patch) int64, as tensors.
    """

    def __init__(self, cases: Sequence, patch_size: Sequence[int], batch_size: int,
                 oversample: float, seed: Sequence[int], augmenter: Augmenter | None):
        self.cases = cases
        self.patch_size = tuple(patch_size)
        self.batch_size = batch_size
        self.foreground_patches = foreground_patches(batch_size, oversample)
        self.seed = tuple(seed)
        self.augmenter = augmenter
        self.opened: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        random = np.random.default_rng((*self.seed, number))
        index = int(random.integers(len(self.cases)))
        if index not in self.opened:  # opened once a worker: memory maps, so nothing is copied
            self.opened[index] = (self.cases[index].image, self.cases[index].mask)
        image, mask = self.opened[index]
        on_foreground = number % self.batch_size >= self.batch_size - self.foreground_patches
        corner = patch_corner(mask, self.patch_size, random, on_foreground)
        image, mask = cut(image, corner, self.patch_size), cut(mask[None], corner, self.patch_size)[0]
        if self.augmenter is not None:
            image, mask = self.augmenter(image, mask, seed=int(random.integers(2**31)))
        return torch.from_numpy(image), torch.from_numpy(mask.astype(np.int64))


def foreground_patches(batch_size: int, oversample: float) -> int:
    """How many patches of a batch are centred on foreground: 12 -> 4, 2 -> 1, none where oversampling is off."""
    return max(1, round(batch_size * oversample)) if oversample > 0 else 0


def patch_corner(mask: np.ndarray, patch_size: Sequence[int], random: np.random.Generator,
                 on_foreground: bool) -> tuple[int, ...]:
    """First pixel of a random patch on the mask's grid; negative where the patch is larger than the scan.

    A patch anywhere stays inside the scan; an axis shorter than the patch is centred. One on foreground is
    centred on a random pixel of a random class, then moved inside.
    """
    room = [n - p for n, p in zip(mask.shape, patch_size, strict=True)]
    corner = [int(random.integers(r + 1)) if r > 0 else r // 2 for r in room]
    classes = np.unique(mask)[1:] if mask.min() == 0 else np.unique(mask)
    if on_foreground and len(classes):
        pixels = np.flatnonzero(mask == random.choice(classes))
        centre = np.unravel_index(int(pixels[random.integers(len(pixels))]), mask.shape)
        corner = [min(max(int(c) - p // 2, 0), r) if r > 0 else k
                  for c, p, r, k in zip(centre, patch_size, room, corner, strict=True)]
    return tuple(corner)


def cut(array: np.ndarray, corner: Sequence[int], size: Sequence[int]) -> np.ndarray:
    """The patch at `corner` of (channels, *spatial), zero where it lies outside; a new array of `size`."""
    patch = np.zeros((len(array), *size), array.dtype)
    source = [slice(max(c, 0), min(c + s, n)) for c, s, n in zip(corner, size, array.shape[1:], strict=True)]
    target = [slice(part.start - c, part.stop - c) for part, c in zip(source, corner, strict=True)]
    patch[(slice(None), *target)] = array[(slice(None), *source)]
    return patch
