"""Three answers to "is it glaucoma": by thickness, by the ResNet50, by both; fitted, cross-validated, one chosen.

Each is a logistic regression on the log odds of what it listens to: of one alone that is Platt's recalibration, of both
their combination (stacking). It is fitted on outputs for scans that neither the ResNet50 nor the thickness model has
learned from. No weight is negative: from a dozen people a regression may learn to believe the opposite of what a
network says (Breiman 1996, https://doi.org/10.1007/BF00117832, on stacking). The threshold of each is set on the same
scans, for a specificity of 95 %.

Cross-validation deals people. Of each part that is held out nothing decides anything but what it is scored by: neither
the penalty, nor weights, recalibration or threshold. One thing stays, unless `nested`: the ResNet50 that was asked
about a scan to fit on may have learned from scans of the part held out. Nested, that is another ResNet50.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.pipeline import Pipeline

from octkit.classification import thickness_model
from octkit.common.errors import bad_file
from octkit.common.files import read_table
from octkit.evaluation.diagnosis import Z, auc_gain, threshold_for
from octkit.evaluation.metrics import THRESHOLD
from octkit.planning.folds import deal_people, people_of_both

# What each answer listens to, simplest first.
ANSWERS = {"thickness": ("thickness",), "resnet50": ("resnet50",), "both": ("thickness", "resnet50")}
FOLDS = 5
# The least weight of what an answer listens to, for one standard deviation. It is not 0: scans keep the order that the
# answer gave them, even where it told nothing of the scans that it was recalibrated on.
LEAST_WEIGHT = 0.01


@dataclass(frozen=True)
class Evidence:
    """What is known of n scans.

    `logits` (n,) are the ResNet50's, `features` (n, columns) the thickness model's, None where there are none. Of scans
    to learn from `labels` (n,) are 1 glaucoma or 0 not, `folds` (n,) says which fold held a scan out, and `nested` is
    fold -> the logits (n,) of networks that did not learn from that fold either.
    """

    names: tuple[str, ...]
    people: tuple[str, ...]
    logits: np.ndarray
    features: np.ndarray | None = None
    labels: np.ndarray | None = None
    folds: np.ndarray | None = None
    nested: Mapping[int, np.ndarray] | None = None

    def where(self, chosen: np.ndarray) -> "Evidence":
        """The scans for which `chosen` (n,) bool is true."""
        kept = np.flatnonzero(chosen)
        arrays = {name: values[kept] for name in ("logits", "features", "labels", "folds")
                  if (values := getattr(self, name)) is not None}
        return replace(self, names=tuple(self.names[i] for i in kept), people=tuple(self.people[i] for i in kept),
                       nested=self.nested and {fold: logits[kept] for fold, logits in self.nested.items()}, **arrays)


class Told(NamedTuple):
    """What is said of n scans, (n,) each: answer -> probability of glaucoma, and whether it is called (bool).

    `raw` has the log odds of the thickness model and of the ResNet50, as they are.
    """

    probabilities: dict[str, np.ndarray]
    called: dict[str, np.ndarray]
    raw: dict[str, np.ndarray]


class Regression(NamedTuple):
    """A logistic regression on `columns` log odds: their means and deviations, a weight for each, and the intercept."""

    means: np.ndarray
    deviations: np.ndarray
    weights: np.ndarray
    intercept: float

    def ask(self, log_odds: np.ndarray) -> np.ndarray:
        """Probabilities (n,) of glaucoma of log odds (n, columns)."""
        return expit((log_odds - self.means) / self.deviations @ self.weights + self.intercept)


class Fitted(NamedTuple):
    """Answers that can be asked: the thickness model, the regression of each answer, and its threshold.

    Without regressions there were too few people to fit any: the ResNet50 then answers as it is.
    """

    model: Pipeline | None
    regressions: dict[str, Regression]
    thresholds: dict[str, float]

    def ask(self, scans: Evidence) -> Told:
        raw = {"resnet50": scans.logits}
        if self.model is not None and scans.features is not None:
            raw["thickness"] = self.model.decision_function(scans.features)
        if not self.regressions:
            alone = expit(raw["resnet50"])
            return Told({"resnet50": alone}, {"resnet50": alone >= THRESHOLD}, raw)
        told = {name: regression.ask(_stacked(raw, name))
                for name, regression in self.regressions.items()}
        return Told(told, {name: values > self.thresholds[name] for name, values in told.items()}, raw)


def read_outputs(folder: Path) -> dict[str, dict[str, float]]:
    """outputs.csv of a network: split -> scan -> log odds."""
    found: dict[str, dict[str, float]] = {}
    table = read_table(folder / "outputs.csv", ["log_odds"], ("split", "scan"), "run octkit classify RUN")
    if not np.isfinite(table["log_odds"]).all():
        raise bad_file(folder / "outputs.csv", "found log odds that are no number", "run octkit classify RUN")
    for split, scan, log_odds in zip(table["split"], table["scan"], table["log_odds"], strict=True):
        found.setdefault(split, {})[scan] = log_odds
    return found


def fit(known: Evidence, seed: int) -> Fitted:
    """Fit every answer that there is evidence for on scans with labels; none of fewer than two people of a class."""
    labels = known.labels
    if labels is None or min(people_of_both(known.people, labels)) < 2:
        return Fitted(None, {}, {})
    outputs, model = {"resnet50": known.logits}, None
    if known.features is not None:
        model = thickness_model.fit(known.features, labels, known.people, seed)
        outputs["thickness"] = thickness_model.out_of_fold(model, known.features, labels, known.people, seed)
    regressions, thresholds = {}, {}
    for name, parts in ANSWERS.items():
        if outputs.keys() >= set(parts):
            inputs = _stacked(outputs, name)
            regressions[name] = regress(inputs, labels)
            thresholds[name] = threshold_for(regressions[name].ask(inputs[labels == 0]))
    return Fitted(model, regressions, thresholds)


def regress(log_odds: np.ndarray, labels: np.ndarray) -> Regression:
    """The logistic regression of labels (n,), 1 or 0, on standardised log odds (n, columns), no weight below the least.

    The penalty is half the sum of the squared weights, as scikit-learn's LogisticRegression has it by default.
    """
    means, deviations = log_odds.mean(axis=0), log_odds.std(axis=0)
    deviations = np.where(np.ptp(log_odds, axis=0) > 0, deviations, 1)  # of equal numbers it may be 1e-17
    scaled, signs = (log_odds - means) / deviations, np.where(labels == 1, 1, -1)

    def loss(unknown: np.ndarray) -> tuple[float, np.ndarray]:
        weights, intercept = unknown[:-1], unknown[-1]
        margins = signs * (scaled @ weights + intercept)
        slopes = -signs * expit(-margins)
        return (float(np.logaddexp(0, -margins).sum() + weights @ weights / 2),
                np.append(scaled.T @ slopes + weights, slopes.sum()))

    columns = log_odds.shape[1]
    found = minimize(loss, np.zeros(columns + 1), jac=True, bounds=[(LEAST_WEIGHT, None)] * columns + [(None, None)],
                     tol=1e-12).x
    return Regression(means, deviations, found[:-1], float(found[-1]))


def cross_validate(known: Evidence, seed: int) -> Told | None:
    """Ask about each scan what has not learned from its person; None where people are too few for that.

    Dealt into FOLDS parts, or nested into the folds that the networks held out.
    """
    labels = known.labels
    if labels is None or min(people_of_both(known.people, labels)) < 3:  # two are to be left to fit on
        return None
    parts = known.folds if known.nested and known.folds is not None else deal_people(known.people, labels, FOLDS, seed)
    found = Told({}, {}, {})
    for part in np.unique(parts):
        rest = known.where(parts != part)
        if rest.nested:
            rest = replace(rest, logits=rest.nested[int(part)])
        fitted = fit(rest, seed)
        if not fitted.regressions:
            return None
        for table, values in zip(found, fitted.ask(known.where(parts == part)), strict=True):
            for name, column in values.items():
                table.setdefault(name, np.zeros(len(parts), column.dtype))[parts == part] = column
    return found


def choose(labels: np.ndarray, probabilities: Mapping[str, np.ndarray],
           people: Sequence[str]) -> tuple[str, str, dict[str, dict[str, float | None]]]:
    """The answer to take, why, and by how much the AUC of each lies behind the best one (paired, with p-value).

    It is the simplest whose AUC lies within one standard error of the difference behind the best. Where no standard
    error can be told, only an AUC that is no lower counts as equal.
    """
    gains = {name: {other: auc_gain(labels, found, probabilities[other], people) for other in probabilities}
             for name, found in probabilities.items()}
    best = min(probabilities, key=lambda name: max(gain.mean for gain, _ in gains[name].values()))
    behind = {name: gains[name][best] for name in probabilities}
    chosen = next(name for name, (gain, _) in behind.items()
                  if gain.mean <= max(0.0, float(np.nan_to_num((gain.high - gain.mean) / Z))))
    why = (f"the highest AUC in cross-validation of {len(probabilities)}" if chosen == best else
           f"the simplest within one standard error of the highest AUC in cross-validation, that of {best}")
    return chosen, why, {name: gain.as_json() | {"p": float(p) if np.isfinite(p) else None}
                         for name, (gain, p) in behind.items()}


def _stacked(outputs: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    return np.column_stack([outputs[part] for part in ANSWERS[name]])
