"""From probabilities to what is read off a scan: its mask, and where they can be drawn its boundaries and their doubt.

Two ways lead to a mask: the most probable label of each pixel, cleaned by connected components, or five ordered
boundaries through the whole scan (`surfaces`), whose layers cannot break. Which one a model uses is decided by
cross-validation (`ensemble`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from octkit.data.labels import LAYERS
from octkit.inference.postprocess import apply_steps
from octkit.layers.boundaries import mask_from, ordered_surfaces
from octkit.layers.quality import Quality, boundary_spread, doubt, quality
from octkit.network.model import Model


@dataclass(frozen=True)
class Reading:
    """What is read off a scan.

    `mask` is (*spatial) uint8. `boundaries` and `doubt` are (5, W) px, the five `surfaces.SURFACES` and how uncertain
    each is, and `quality` says whether they may be used unseen; all three None where the labels are other ones than
    RNFL, GCIPL and choroid, and for volumes.
    """

    mask: np.ndarray
    boundaries: np.ndarray | None = None
    doubt: np.ndarray | None = None
    quality: Quality | None = None


def has_surfaces(labels: Sequence[str], axes: int) -> bool:
    """Whether scans of these labels and so many axes have the five boundaries that `surfaces` knows."""
    return tuple(labels) == LAYERS and axes == 2


def read(opinions: Sequence[np.ndarray], model: Model, circle: bool) -> Reading:
    """The mask by the model's own way, and boundaries with their doubt where there are any.

    Args:
        opinions: probabilities (classes, *spatial) of each network and mirrored copy; their mean is the model's.
        model: its labels, its way to a mask.
        circle: the last A-scan is the neighbour of the first.
    """
    probabilities = mean_of(opinions)
    if not has_surfaces(model.labels, probabilities.ndim - 1):
        return Reading(most_probable(probabilities, model, circle))
    boundaries, width = ordered_surfaces(probabilities, circle)
    spread = boundary_spread(opinions, circle) if len(opinions) > 1 else np.zeros_like(width)
    mask = (mask_from(boundaries, probabilities.shape[1]) if model.surfaces
            else most_probable(probabilities, model, circle))
    return Reading(mask, boundaries, doubt(width, spread), quality(boundaries, width, spread, probabilities))


def mask_of(probabilities: np.ndarray, model: Model, circle: bool) -> np.ndarray:
    """The mask alone, by the model's own way: (*spatial) uint8."""
    if model.surfaces:
        return mask_from(ordered_surfaces(probabilities, circle)[0], probabilities.shape[1])
    return most_probable(probabilities, model, circle)


def most_probable(probabilities: np.ndarray, model: Model, circle: bool) -> np.ndarray:
    """The most probable label of each pixel, after the model's components have been cleaned: (*spatial) uint8."""
    return apply_steps(probabilities.argmax(0).astype(np.uint8), model.postprocessing, circle)


def mean_of(opinions: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of probabilities, (classes, *spatial) float32."""
    total = np.zeros_like(opinions[0])
    for probabilities in opinions:
        total += probabilities
    return total / np.float32(len(opinions))
