"""How good a mask or a probability is: Dice, boundary distance (MED), thickness error, AUC.

Pure arrays: masks are (H, W) labels, rows are depth, columns are A-scans. Nothing here reads a file. Every standard
deviation that octkit states is the sample's (divided by n − 1); grey values alone are normalised by the population's,
as nnU-Net does.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.spatial import KDTree

from octkit.data.labels import IGNORE

THRESHOLD = 0.5  # at and above this probability a scan is called glaucoma
TOLERANCE = 2.0  # px, of the normalised surface distance: about what two people who draw one boundary differ by


def dice(predicted: np.ndarray, truth: np.ndarray, label: int) -> float:
    """Overlap of one label in two masks of the same shape: 2 |A and B| / (|A| + |B|), 0 to 1.

    nan where the label is in neither mask, 0 where it is in one of them only. Pixels of `IGNORE` in the truth are left
    out.
    """
    _same_shape(predicted, truth)
    ours, theirs = (predicted == label) & (truth != IGNORE), truth == label
    return dice_from_counts(*(int(np.count_nonzero(found)) for found in (ours & theirs, ours, theirs)))


def dice_from_counts(both: float, predicted: float, truth: float) -> float:
    """Dice from pixel counts: in both masks, in the predicted one, in the true one; nan where both are empty.

    Counts summed over many patches give the pseudo-Dice that is watched while training.
    """
    return float(2 * both / (predicted + truth)) if predicted + truth else float("nan")


def dice_of_labels(predicted: np.ndarray, truth: np.ndarray, labels: int) -> list[float]:
    """`dice` of each of the labels 1 to `labels`."""
    return [dice(predicted, truth, label) for label in range(1, labels + 1)]


def mean_over_cases(table: np.ndarray) -> np.ndarray:
    """Mean of each column of (cases, labels), nan entries left out; nan where a column has no other."""
    counted = ~np.isnan(table)
    return np.divide(np.where(counted, table, 0).sum(0), counted.sum(0), where=counted.any(0),
                     out=np.full(table.shape[1], np.nan))


def gain_over(before: np.ndarray, after: np.ndarray) -> dict[str, float | int | None]:
    """The `spread` over cases of what each one's mean over the labels gains, of two tables (cases, labels)."""
    return spread(mean_over_cases(after.T) - mean_over_cases(before.T))


def boundaries(mask: np.ndarray, label: int) -> np.ndarray:
    """Upper and lower edge of a layer in each A-scan: (2, W) float, in rows from the image's top edge.

    An edge lies between two pixels: a layer in rows 3, 4, 5 has its upper edge at 3.0 and its lower one at
    6.0, so that lower minus upper is its thickness, and where one layer ends the next begins. Islands and
    holes are spanned: the edges are those of the layer's first and last pixel. nan in A-scans without it.

        row 2  ....      columns 0 to 3:  upper  3  3  nan  4
        row 3  ##..                       lower  5  4  nan  5
        row 4  #..#
    """
    layer = mask == label
    present = layer.any(axis=0)
    upper = layer.argmax(axis=0)
    lower = len(mask) - layer[::-1].argmax(axis=0)
    return np.where(present, np.stack([upper, lower]).astype(float), np.nan)


def layer_thickness(mask: np.ndarray, label: int) -> np.ndarray:
    """The layer's pixels in each A-scan, (W,) float in px; of a volume's mask (B, H, W) the en-face map (B, W).

    Pixels are counted, not edges subtracted: an island far off adds only its own pixels.
    """
    return np.count_nonzero(mask == label, axis=-2).astype(float)


def thickness_error(predicted: np.ndarray, truth: np.ndarray, label: int) -> float:
    """Mean over A-scans of |predicted - true thickness| of a layer, in px.

    An A-scan without the layer has thickness 0; nan only where the layer is in neither mask.
    """
    _same_shape(predicted, truth)
    ours, theirs = layer_thickness(predicted, label), layer_thickness(truth, label)
    return float(np.abs(ours - theirs).mean()) if ours.any() or theirs.any() else float("nan")


def broken_a_scans(mask: np.ndarray, order: Sequence[int] = (0, 1, 2, 0, 3, 0)) -> float:
    """Share of A-scans of a mask (H, W) whose labels do not come once each and in `order` from top to bottom.

    The default is RNFL, GCIPL, outer retina (background), choroid between background: an island, a gap or a swap
    breaks it, and so does a layer that is missing. The first and the last background may be absent (crops).
    """
    allowed = {tuple(order), tuple(order[1:]), tuple(order[:-1]), tuple(order[1:-1])}
    changes = np.vstack([np.ones((1, mask.shape[1]), bool), mask[1:] != mask[:-1]])
    runs = [tuple(column[change].tolist()) for column, change in zip(mask.T, changes.T, strict=True)]
    return sum(run not in allowed for run in runs) / len(runs)


def med(predicted: np.ndarray, truth: np.ndarray, label: int,
        spacing: Sequence[float] = (1.0, 1.0)) -> dict[str, float]:
    """Mean Euclidean distance between predicted and true boundaries of a layer (the MED of GOALS).

    Each boundary is one point an A-scan (`boundaries`). From every true point the distance to the nearest
    predicted point is taken, and the other way round; both ways are averaged with equal weight. Distances
    are in px, or in mm with `spacing` (row, column) in mm. The challenge does not state how it pairs the points.
    A gap in one mask costs little distance, as the other's points there are nearest to its edge; `coverage` shows it.

    Returns `upper`, `lower` and `mean` distance (nan where the layer is missing from one mask altogether) and
    `coverage`, the share of the truth's A-scans with the layer in which the prediction has it too (nan where the truth
    has none). Raises ValueError for masks of different shapes.
    """
    _same_shape(predicted, truth)
    ours, theirs = boundaries(predicted, label), boundaries(truth, label)
    have, want = np.isfinite(ours[0]), np.isfinite(theirs[0])
    upper, lower = (_curve_distance(a, b, spacing) for a, b in zip(ours, theirs, strict=True))
    return {"upper": upper, "lower": lower, "mean": (upper + lower) / 2,
            "coverage": float(have[want].mean()) if want.any() else float("nan")}


def boundary_agreement(predicted: np.ndarray, truth: np.ndarray, label: int,
                       tolerance: float = TOLERANCE) -> dict[str, float]:
    """How far a layer's two boundaries lie from the true ones in depth, and how much of them is right.

    Returns `boundary_error`, the mean over both boundaries and over the A-scans in which both masks have the layer of
    |predicted − true row|, in px (nan where there are none), and `nsd`, the normalised surface distance (Nikolov et
    al., arXiv 1809.04430): of the points of both masks' boundaries, one an A-scan, the share with a point of the
    other's boundary within `tolerance` px; 0 for a layer in one mask alone, nan where it is in neither.
    """
    _same_shape(predicted, truth)
    ours, theirs = boundaries(predicted, label), boundaries(truth, label)
    off = np.abs(ours - theirs)[:, np.isfinite(ours[0] + theirs[0])]
    distances = [way for pair in zip(ours, theirs, strict=True) for way in _distances(*pair)]
    near = np.concatenate(distances) <= tolerance
    return {"boundary_error": float(off.mean()) if off.size else float("nan"),
            "nsd": float(near.mean()) if near.size else float("nan")}


def classification_scores(labels: Sequence[int], probabilities: Sequence[float],
                          called: Sequence[bool] | None = None) -> dict[str, Any]:
    """AUC, F1, sensitivity, specificity and ROC curve of glaucoma probabilities, ready for JSON.

    `labels` are 1 glaucoma or 0 not, `probabilities` of glaucoma 0 to 1, one of each a scan. F1, sensitivity
    and specificity are those of the scans `called` glaucoma, by default at p >= 0.5. What is undefined is None:
    AUC and `roc` with one class only, sensitivity without glaucoma, specificity without healthy scans.
    `roc` holds fpr, tpr and thresholds; its first point (0, 0) lies above every threshold, written as None.
    Raises ValueError for lengths that differ, other labels, and probabilities outside 0 to 1 or nan.
    """
    known, found = np.asarray(labels), np.asarray(probabilities, float)
    if known.shape != found.shape or known.ndim != 1:
        raise ValueError(f"found {known.shape} labels and {found.shape} probabilities, expected as many")
    if not np.isin(known, (0, 1)).all():
        raise ValueError(f"found labels {np.unique(known).tolist()}, expected 0 and 1")
    if not ((found >= 0) & (found <= 1)).all():
        raise ValueError("found probabilities that are nan or outside 0 to 1")
    truth, yes = known == 1, found >= THRESHOLD if called is None else np.asarray(called, bool)
    true_positive, false_negative = int((truth & yes).sum()), int((truth & ~yes).sum())
    false_positive, true_negative = int((~truth & yes).sum()), int((~truth & ~yes).sum())
    auc, roc = _roc(known, found) if 0 < truth.sum() < len(truth) else (None, None)
    return {"auc": auc, "f1": _ratio(2 * true_positive, 2 * true_positive + false_positive + false_negative),
            "sensitivity": _ratio(true_positive, true_positive + false_negative),
            "specificity": _ratio(true_negative, true_negative + false_positive),
            "confusion": {"true_positive": true_positive, "false_negative": false_negative,
                          "false_positive": false_positive, "true_negative": true_negative}, "roc": roc}


def _roc(labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, dict[str, list[float | None]]]:
    from sklearn.metrics import roc_auc_score, roc_curve  # here, for it takes a second to import

    fpr, tpr, thresholds = roc_curve(labels, probabilities)
    return float(roc_auc_score(labels, probabilities)), {
        "fpr": fpr.tolist(), "tpr": tpr.tolist(), "thresholds": [None, *thresholds[1:].tolist()]}


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _curve_distance(first: np.ndarray, second: np.ndarray, spacing: Sequence[float]) -> float:
    ways = _distances(first, second, spacing)
    return float(np.mean([way.mean() for way in ways])) if all(map(len, ways)) else float("nan")


def _distances(first: np.ndarray, second: np.ndarray, spacing: Sequence[float] = (1.0, 1.0)) -> list[np.ndarray]:
    """From each point of one curve (W,) to the nearest of the other, and back; inf where the other has none."""
    points = [np.column_stack([rows, np.arange(len(rows))])[np.isfinite(rows)] * spacing for rows in (first, second)]
    return [KDTree(to).query(start)[0] if len(to) else np.full(len(start), np.inf)
            for start, to in (points, points[::-1])]


def _same_shape(predicted: np.ndarray, truth: np.ndarray) -> None:
    if predicted.shape != truth.shape:
        raise ValueError(f"found masks of shapes {predicted.shape} and {truth.shape}, expected one shape")


def spread(values: Iterable[float | None]) -> dict[str, float | int | None]:
    """{"mean", "sd", "n"} of the values that are defined; None where there are too few of them."""
    known = np.array([value for value in values if value is not None and np.isfinite(value)], float)
    return {"mean": float(known.mean()) if known.size else None,
            "sd": float(known.std(ddof=1)) if known.size > 1 else None, "n": known.size}


def with_spread(found: Mapping, digits: int = 4, sign: str = "") -> str:
    """A `spread` in words: "0.9123 ± 0.0040 (n = 6)"; `sign` "+" for differences."""
    if found.get("mean") is None:
        return "undefined"
    deviation = "no spread" if found["sd"] is None else f"± {found['sd']:.{digits}f}"
    return f"{found['mean']:{sign}.{digits}f} {deviation} (n = {found['n']})"
