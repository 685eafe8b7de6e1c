"""How good probabilities of glaucoma are, and how sure that is: AUC, sensitivity, specificity, Brier score.

Scans of one person are alike, so every interval counts people: `people` names the person of each scan. All are 95 %
intervals, too narrow below some twenty people.
"""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from octkit.evaluation.intervals import Interval

Z = NormalDist().inv_cdf(0.975)
SPECIFICITY = 0.95  # of the thresholds that are set in training folds
BINS = 5  # of the reliability curve, each with as many scans


def auc_interval(labels: ArrayLike, probabilities: ArrayLike, people: Sequence) -> Interval:
    """The AUC with DeLong's interval, for people with several scans by Obuchowski (Biometrics 53:567, 1997).

    It is taken on the logit's scale, so that it stays within 0 and 1. nan without scans of both classes; without an
    interval where a class has fewer than two people, and for an AUC of 0 or 1, which resampling says nothing about. Of
    `probabilities` (seeds, n) it is the mean of the rows' AUCs.
    """
    auc, moves, have = _moves(labels, probabilities, people)
    deviation = _deviation(moves, have)
    if not deviation > 0 or not 0 < auc < 1:
        return Interval(auc, np.nan, np.nan, moves.shape[1])
    logit, half = np.log(auc / (1 - auc)), Z * deviation / (auc * (1 - auc))
    low, high = (float(1 / (1 + np.exp(-end))) for end in (logit - half, logit + half))
    return Interval(auc, low, high, moves.shape[1])


def auc_gain(labels: ArrayLike, first: ArrayLike, second: ArrayLike,
             people: Sequence[str]) -> tuple[Interval, float]:
    """By how much the AUC of `second` is higher than that of `first` on the same scans, and the p-value of that test.

    Paired, as `auc_interval`. nan where the interval cannot be told. Either may be (seeds, n).
    """
    (before, one, have), (after, other, _) = (_moves(labels, found, people) for found in (first, second))
    deviation, gain = _deviation(other - one, have), after - before
    if deviation == 0 and gain != 0:  # as of no order and of a perfect one: nobody moves either
        return Interval(gain, np.nan, np.nan, one.shape[1]), np.nan
    if deviation == 0:  # the same order of scans
        return Interval(gain, gain, gain, one.shape[1]), 1.0
    p = 2 * NormalDist().cdf(-abs(gain) / deviation) if deviation > 0 else np.nan
    return Interval(gain, gain - Z * deviation, gain + Z * deviation, one.shape[1]), p


def _moves(labels: ArrayLike, probabilities: ArrayLike,
           people: Sequence) -> tuple[float, np.ndarray, list[int]]:
    """The AUC, how each person's scans of either class move it (2, people), and how many people have each class."""
    ill, found = np.asarray(labels) == 1, np.atleast_2d(np.asarray(probabilities, float))
    who, count = np.unique(people, return_inverse=True)[1], len(set(people))
    moves, have = np.zeros((2, count)), [len(set(who[ill])), len(set(who[~ill]))]
    if not all(have):
        return float("nan"), moves, have
    pairs = found[:, ill, None], found[:, None, ~ill]
    order = (np.greater(*pairs) + 0.5 * np.equal(*pairs)).mean(axis=0)
    auc = float(order.mean())
    for row, (where, axis) in enumerate(((ill, 1), (~ill, 0))):
        np.add.at(moves[row], who[where], (order.mean(axis=axis) - auc) / where.sum())
    return auc, moves, have


def _deviation(moves: np.ndarray, have: Sequence[int]) -> float:
    """The standard deviation of an AUC, or of the difference of two, from what each person moves it by."""
    if min(have) < 2:
        return float("nan")
    alone = sum(n / (n - 1) * np.square(row).sum() for n, row in zip(have, moves, strict=True))
    people = moves.shape[1]
    return float(np.sqrt(max(alone + 2 * people / (people - 1) * (moves[0] * moves[1]).sum(), 0)))


def wilson(hits: ArrayLike, people: Sequence[str]) -> Interval:
    """A share with Wilson's interval (JASA 22:209, 1927).

    Scans of one person count for less than as many of different people, by how alike they are (the design effect);
    where all scans are hits, or none is, each person counts once. nan without scans.
    """
    found, who = np.asarray(hits, float), np.unique(people, return_inverse=True)[1]
    if not found.size:
        return Interval(np.nan, np.nan, np.nan, 0)
    share, n = float(found.mean()), found.size
    count = int(who.max()) + 1
    if 0 < share < 1 and count > 1:
        sums = np.bincount(who, found - share)
        n = n / max(1.0, np.square(sums).sum() / n / (share * (1 - share)))
    else:
        n = count
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    return Interval(share, float(middle - half), float(middle + half), count)


def threshold_for(healthy: ArrayLike, specificity: float = SPECIFICITY) -> float:
    """The lowest of these probabilities of healthy scans above which at most 1 − specificity of them lie.

    A scan is called glaucoma where its probability is above it.
    """
    ranked = np.sort(np.asarray(healthy, float))
    return float(ranked[len(ranked) - 1 - int((1 - specificity) * len(ranked) + 1e-9)])


def diagnosis_scores(labels: ArrayLike, probabilities: ArrayLike, called: ArrayLike,
                     people: Sequence[str]) -> dict[str, Any]:
    """All that is known of an answer on n scans, ready for JSON (None: undefined).

    `called` says which scans it calls glaucoma. Returns scans, people, `auc`, `sensitivity` and `specificity` (each
    {mean, low, high, n}), `brier` (mean squared error of the probabilities), `f1`, `confusion`, and of scans of both
    classes `roc`: fpr, tpr and thresholds; its first point (0, 0) lies above every threshold, written as None. Last,
    `reliability`: {predicted, observed}, the mean probability and the share of glaucoma in each of at most BINS bins
    of as many scans.
    """
    from sklearn.metrics import confusion_matrix, roc_curve  # here, for it takes a second to import

    known, found, yes = np.asarray(labels), np.asarray(probabilities, float), np.asarray(called, bool)
    who, ill = np.asarray(people), np.asarray(labels) == 1
    bins = [part for part in np.array_split(np.argsort(found, kind="stable"), BINS) if part.size]
    true_negative, false_positive, false_negative, true_positive = confusion_matrix(
        ill, yes, labels=[False, True]).ravel().tolist()
    wrong = false_positive + false_negative
    roc: dict[str, list] | None = None
    if 0 < ill.sum() < len(ill):
        fpr, tpr, thresholds = (column.tolist() for column in roc_curve(known, found))
        roc = {"fpr": fpr, "tpr": tpr, "thresholds": [None, *thresholds[1:]]}
    return {"scans": len(known), "people": len(set(people)), "auc": auc_interval(known, found, people).as_json(),
            "sensitivity": wilson(yes[ill], who[ill]).as_json(), "specificity": wilson(~yes[~ill], who[~ill]).as_json(),
            "brier": float(np.square(found - known).mean()),
            "f1": 2 * true_positive / (2 * true_positive + wrong) if true_positive + wrong else None,
            "confusion": {"true_positive": true_positive, "false_negative": false_negative,
                          "false_positive": false_positive, "true_negative": true_negative}, "roc": roc,
            "reliability": {"predicted": [float(found[part].mean()) for part in bins],
                            "observed": [float(known[part].mean()) for part in bins]}}
