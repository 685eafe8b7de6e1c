"""How good a mask is: Dice, boundary distance (MED), thickness error.

Pure arrays: masks are (H, W) labels, rows are depth, columns are A-scans. Nothing here reads a file. Every standard
deviation that octkit states is the sample's (divided by n − 1); grey values alone are normalised by the population's,
as nnU-Net does.
"""

from collections.abc import Iterable, Mapping, Sequence

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
    return np.ma.masked_invalid(table).mean(axis=0).filled(np.nan)


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


def broken_a_scans(mask: np.ndarray, order: Sequence[int] = (0, 1, 2, 0, 3, 0)) -> float:
    """Share of A-scans of a mask (H, W) whose labels do not come once each and in `order` from top to bottom.

    The default is RNFL, GCIPL, outer retina (background), choroid between background: an island, a gap or a swap
    breaks it, and so does a layer that is missing. The first and the last background may be absent (crops).
    """
    allowed = {tuple(order), tuple(order[1:]), tuple(order[:-1]), tuple(order[1:-1])}
    changes = np.vstack([np.ones((1, mask.shape[1]), bool), mask[1:] != mask[:-1]])
    runs = [tuple(column[change].tolist()) for column, change in zip(mask.T, changes.T, strict=True)]
    return sum(run not in allowed for run in runs) / len(runs)


def boundary_scores(predicted: np.ndarray, truth: np.ndarray, label: int,
                    mm: Sequence[float] | None = None) -> dict[str, float]:
    """How far a layer's two boundaries, one point an A-scan (`boundaries`), lie from the true ones, and its thickness.

        med              the MED of GOALS, px: from every true point the distance to the nearest predicted one, and the
                         other way round, both ways averaged with equal weight; the mean over both boundaries, each of
                         which is `med_upper` and `med_lower`. nan where one mask lacks the layer altogether. The
                         challenge does not state how it pairs the points.
        coverage         the share of the truth's A-scans with the layer in which the prediction has it too: a gap
                         costs little distance, as the points of the other mask there are nearest to its edge
        nsd              the normalised surface distance (Nikolov et al., arXiv 1809.04430): the share of both masks'
                         points with a point of the other's boundary within TOLERANCE px; 0 for one in one mask alone
        boundary_error   px, the mean of |predicted − true row| over the A-scans in which both masks have the layer
        thickness_error  px, the mean over all A-scans of |predicted − true thickness|, 0 where the layer is not

    What is undefined is nan. With `mm` a pixel (row, column) also the distances as *_mm and the errors as *_um. Raises
    ValueError for masks of different shapes.
    """
    _same_shape(predicted, truth)
    ours, theirs = boundaries(predicted, label), boundaries(truth, label)
    have, want = np.isfinite(ours[0]), np.isfinite(theirs[0])
    thicker = layer_thickness(predicted, label) - layer_thickness(truth, label)
    near = np.concatenate([way for pair in zip(ours, theirs, strict=True) for way in _distances(*pair)]) <= TOLERANCE
    errors = {"boundary_error": _mean(np.abs(ours - theirs)[:, have & want]),
              "thickness_error": _mean(np.abs(thicker) if have.any() or want.any() else np.array([]))}
    scores = {**_med(ours, theirs), "coverage": _mean(have[want]), "nsd": _mean(near), **errors}
    if mm is not None:
        scores |= {f"{name}_mm": distance for name, distance in _med(ours, theirs, mm).items()}
        scores |= {f"{name}_um": error * mm[0] * 1000 for name, error in errors.items()}
    return scores


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


def _med(ours: np.ndarray, theirs: np.ndarray, spacing: Sequence[float] = (1.0, 1.0)) -> dict[str, float]:
    """The mean distance of two layers' upper and lower boundaries (2, W); nan where one of them has no point."""
    upper, lower = (float(np.mean([_mean(way) for way in _distances(*pair, spacing)]))
                    for pair in zip(ours, theirs, strict=True))
    return {"med": (upper + lower) / 2, "med_upper": upper, "med_lower": lower}


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
