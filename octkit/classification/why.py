"""Why a network says glaucoma: what changes when a piece of the scan is covered."""

from collections.abc import Callable

import numpy as np


def occlusion(image: np.ndarray, read: Callable[[np.ndarray], np.ndarray], pieces: int = 8) -> np.ndarray:
    """How much each pixel of a scan speaks for glaucoma: (H, W) float64, in log odds; below 0 it speaks against.

    Squares of 2 / `pieces` of the scan's sides, half over one another, are covered in turn with its median grey, and
    the network is asked again (Zeiler and Fergus, arXiv 1311.2901). A pixel has the mean fall of the log odds over the
    squares that cover it.

    Args:
        image: (H, W) uint8, as the network takes it.
        read: (n, H, W) uint8 -> log odds (n,).
    """
    height, width = image.shape
    rows, columns = (np.linspace(0, length, pieces + 1).astype(int) for length in (height, width))
    squares = [(slice(rows[i], rows[i + 2]), slice(columns[j], columns[j + 2]))
               for i in range(pieces - 1) for j in range(pieces - 1)]
    covered = np.repeat(image[None], len(squares), axis=0)
    for copy, square in zip(covered, squares, strict=True):
        copy[square] = np.uint8(np.median(image))
    falls = read(image[None])[0] - read(covered)
    total, count = np.zeros((height, width)), np.zeros((height, width))
    for fall, square in zip(falls, squares, strict=True):
        total[square] += fall
        count[square] += 1
    return total / count
