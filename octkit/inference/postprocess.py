"""Connected-component post-processing: layers are one piece each, so small islands are mistakes.

A post-processing is a list of steps, each the labels that are taken together as one object: ((1, 2, 3),)
keeps the largest component of all foreground, ((1, 2, 3), (2,)) then also GCIPL's own largest one.
Which steps are used is decided by cross-validation (`ensemble`).
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage


def keep_largest_component(mask: np.ndarray, labels: Sequence[int], circle: bool = False) -> np.ndarray:
    """Set to background all of `labels`, taken as one object, but their largest connected component: a new mask.

    `mask` is (*spatial) uint8 labels; edges connect, corners do not. On a `circle` a component may run through the seam
    of the last axis. On a tie the component that comes first in reading order stays.
    """
    member = np.isin(mask, labels)
    components, count = ndimage.label(member)
    if count < 2:
        return mask.copy()
    if circle:
        components = _join_seam(components)
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    cleaned = mask.copy()
    cleaned[member & (components != sizes.argmax())] = 0
    return cleaned


def apply_steps(mask: np.ndarray, steps: Sequence[Sequence[int]], circle: bool = False) -> np.ndarray:
    """Apply post-processing steps in order; shapes as in `keep_largest_component`."""
    for labels in steps:
        mask = keep_largest_component(mask, labels, circle)
    return mask


def _join_seam(components: np.ndarray) -> np.ndarray:
    while True:
        left, right = components[..., 0], components[..., -1]
        apart = (left > 0) & (right > 0) & (left != right)
        if not apart.any():
            return components
        low, high = sorted((int(left[apart][0]), int(right[apart][0])))
        components[components == high] = low
