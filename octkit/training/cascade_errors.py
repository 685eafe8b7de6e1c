"""A cascade's first result with random errors, as the second step is shown it in training.

A second step that had seen only good first results would copy them. Probabilities, operations, the ball's radii and
the limit on pieces are those of nnU-Net's trainer (`get_training_transforms`, `is_cascaded`).
"""

from collections.abc import Callable

import cv2
import numpy as np
from scipy import ndimage

OPERATION_PROBABILITY, REMOVAL_PROBABILITY = 0.4, 0.2
CLASS_PROBABILITY = 0.5  # each class, where one of the above is on
RADII = (1, 8)  # px, whole numbers here (nnU-Net draws any number between)
LARGEST_REMOVED = 0.15  # of the patch: pieces smaller than this may be taken away


def perturb(labels: np.ndarray, classes: int, random: np.random.Generator) -> np.ndarray:
    """Labels 0 to `classes`, (*spatial) uint8 of a 2-D or 3-D patch, with random errors, as a new array.

    With probability 0.4 classes are grown, shrunk, opened or closed, each with probability 0.5 and in random order;
    with probability 0.2 one piece of each of them, again with 0.5, becomes background.
    """
    labels = labels.copy()
    if random.random() < OPERATION_PROBABILITY:
        for label in _some(classes, random):
            operation = OPERATIONS[random.integers(len(OPERATIONS))]
            replace(labels, label, operation(labels == label, int(random.integers(*RADII, endpoint=True))))
    if random.random() < REMOVAL_PROBABILITY:
        for label in _some(classes, random):
            replace(labels, label, without_a_piece(labels == label, random))
    return labels


def replace(labels: np.ndarray, label: int, region: np.ndarray) -> None:
    """Make `label` cover `region`, in place: what it gains other classes lose, what it loses becomes background."""
    labels[(labels == label) & ~region] = 0
    labels[region] = label


def dilate(region: np.ndarray, radius: int) -> np.ndarray:
    """All within `radius` px of a region (*spatial) bool, 2-D or 3-D: dilation by a disc or ball."""
    # The distance to the region's nearest pixel in the same slice; where a slice has none, cv2's number is huge.
    planes = region if region.ndim == 3 else region[None]
    apart = np.stack([cv2.distanceTransform((~plane).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
                      for plane in planes])
    dilated = np.zeros_like(planes)
    # A ball is a disc in each slice, the smaller the further away: seven times faster than distances in 3-D.
    for step in range(min(radius, len(planes) - 1) + 1):
        near = apart <= np.sqrt(radius**2 - step**2) + 1e-3
        dilated[step:] |= near[:len(planes) - step]
        dilated[:len(planes) - step] |= near[step:]
    return dilated.reshape(region.shape)


def erode(region: np.ndarray, radius: int) -> np.ndarray:
    """What of a region is further than `radius` px from all outside it; beyond the patch nothing is outside."""
    return ~dilate(~region, radius)


def opening(region: np.ndarray, radius: int) -> np.ndarray:
    """Eroded, then dilated: what is thinner than the ball is lost."""
    return dilate(erode(region, radius), radius)


def closing(region: np.ndarray, radius: int) -> np.ndarray:
    """Dilated, then eroded: gaps narrower than the ball are filled."""
    return erode(dilate(region, radius), radius)


def without_a_piece(region: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A region less one of its pieces, any of those smaller than 15 % of the patch; diagonal neighbours are one."""
    pieces, count = ndimage.label(region, np.ones((3,) * region.ndim))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    small = 1 + np.flatnonzero(sizes < LARGEST_REMOVED * region.size)
    return region & (pieces != random.choice(small)) if len(small) else region


OPERATIONS: tuple[Callable[[np.ndarray, int], np.ndarray], ...] = (dilate, erode, closing, opening)


def _some(classes: int, random: np.random.Generator) -> list[int]:
    """Foreground labels in random order, each with probability 0.5."""
    return [int(label) for label in random.permutation(classes) + 1 if random.random() < CLASS_PROBABILITY]
