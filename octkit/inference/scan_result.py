"""From a scan to its mask and, where they can be drawn, its boundaries and their doubt: the one way for all scans.

Two ways lead to a mask: the most probable label of each pixel, cleaned by connected components, or five ordered
boundaries through the whole scan (`boundaries`), whose layers cannot break. Cross-validation decides which one a
model uses (`select`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from octkit.data.labels import LAYERS
from octkit.inference.postprocess import apply_steps
from octkit.inference.sliding_window import Predictor
from octkit.layers.boundaries import mask_from, ordered_boundaries
from octkit.layers.calibration import at_least, half_widths
from octkit.layers.quality import Quality, mask_quality, quality
from octkit.layers.scope import BY_ITS_FILE, describe, outside
from octkit.layers.seen import has_signal
from octkit.network.model import Model
from octkit.planning.preprocess import odd_greys

Told = tuple[np.ndarray, Sequence[np.ndarray]]  # probabilities (classes, *spatial) float32, and those they are mean of


@dataclass(frozen=True)
class ScanResult:
    """What is found in a scan.

    `mask` is (*spatial) uint8, `probabilities` (classes, *spatial) float32; `quality` says whether what was found may
    be used without a look at it. `boundaries` and `doubt` are (5, W) px, the five `labels.BOUNDARIES` and the standard
    deviation of their places, by the model's own uncertainty and by how far its networks and mirrored copies differ;
    both are None for volumes, and where the labels are other ones than RNFL, GCIPL and choroid. `half_widths`
    (2, 5, W) px are what that raw doubt is worth (`layers.calibration`); None where the model is uncalibrated.
    """

    mask: np.ndarray
    probabilities: np.ndarray
    quality: Quality
    boundaries: np.ndarray | None = None
    doubt: np.ndarray | None = None
    half_widths: np.ndarray | None = None


def has_boundaries(labels: Sequence[str], axes: int) -> bool:
    """Whether scans of these labels and so many axes have the five boundaries."""
    return tuple(labels) == LAYERS and axes == 2


def predict_scan(predictor: Predictor, image: np.ndarray, spacing: Sequence[float] | None = None,
                 circle: bool | None = None, line: bool = False) -> ScanResult:
    """Predict a scan, and find in its probabilities what there is; arguments as those of `Predictor`'s call.

    `line`: its file says that it is a line, which is out of scope for a model of circle scans.
    """
    return read_off(predictor.model, image, ask(predictor, image, spacing, circle), spacing, circle, line)


def ask(predictor: Predictor, image: np.ndarray, spacing: Sequence[float] | None = None,
        circle: bool | None = None) -> Told:
    """What the networks say of a scan: the first half of `predict_scan`."""
    if has_boundaries(predictor.model.labels, image.ndim - 1):
        return predictor.predict_each(image, spacing, circle)
    return predictor(image, spacing, circle), []


def read_off(model: Model, image: np.ndarray, told: Told, spacing: Sequence[float] | None = None,
             circle: bool | None = None, line: bool = False) -> ScanResult:
    """What there is in a scan by what the model's networks said: the second half of `predict_scan`, without torch."""
    circle, probabilities = model.circle if circle is None else circle, told[0]
    if has_boundaries(model.labels, image.ndim - 1):
        found = with_boundaries(*told, model, circle, spacing, has_signal(image))
    else:
        mask = most_probable(probabilities, model, circle)
        found = ScanResult(mask, probabilities, mask_quality(mask, model.labels))
    reasons = odd_greys(image, model.plan) + _out_of_scope(found, model, circle, line) + found.quality.reasons
    return replace(found, quality=Quality(not reasons, reasons))


def _out_of_scope(found: ScanResult, model: Model, circle: bool, line: bool) -> tuple[str, ...]:
    """Why a scan is not what the model reads; nothing where it is, or where the model's scope is not known."""
    if model.scope is None or found.boundaries is None or found.doubt is None:
        return ()
    if line:
        return (BY_ITS_FILE,)
    reason = outside(describe(found.boundaries, found.doubt, found.probabilities.argmax(axis=0), circle), model.scope)
    return (reason,) if reason else ()


def with_boundaries(probabilities: np.ndarray, single: Sequence[np.ndarray], model: Model, circle: bool,
                    spacing: Sequence[float] | None = None, signal: np.ndarray | None = None) -> ScanResult:
    """The mask by the model's own way, the boundaries and their doubt, of a 2-D scan of RNFL, GCIPL and choroid.

    In A-scans without a signal the boundaries do not follow what the network says, which has seen nothing there: they
    bridge them, and their doubt is that of a boundary whose place is not known.

    `probabilities` (4, H, W) float32 are the average of the `single` ones, of each network and mirrored copy. `circle`:
    the last A-scan is the neighbour of the first. `spacing` is mm a row and an A-scan, where known. `signal` (W,) bool
    says whether an A-scan shows anything (`seen.has_signal`); None: all do.
    """
    told, height = _told(probabilities, signal), probabilities.shape[1]
    boundaries, doubt = ordered_boundaries(told, circle, spacing)
    widths = half_widths(model.calibration, doubt, height) if model.calibration else None
    if len(single) > 1:
        each = [ordered_boundaries(_told(one, signal), circle, spacing)[0] for one in single]
        apart = np.std(each, axis=0, ddof=1)
        doubt = np.hypot(doubt, apart)  # variances add up
        widths = None if widths is None else at_least(widths, apart)
    mask = mask_from(boundaries, height) if model.surfaces else most_probable(probabilities, model, circle)
    return ScanResult(mask, probabilities, quality(boundaries, doubt, told, circle), boundaries, doubt, widths)


def _told(probabilities: np.ndarray, signal: np.ndarray | None) -> np.ndarray:
    """What the network says of a scan: in A-scans without a signal, that all labels are as likely."""
    if signal is None or signal.all():
        return probabilities
    return np.where(signal, probabilities, np.float32(1 / len(probabilities)))


def most_probable(probabilities: np.ndarray, model: Model, circle: bool) -> np.ndarray:
    """The most probable label of each pixel, after the model's components have been cleaned: (*spatial) uint8."""
    return apply_steps(probabilities.argmax(0).astype(np.uint8), model.postprocessing, circle)
