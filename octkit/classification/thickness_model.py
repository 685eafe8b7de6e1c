"""Glaucoma or not, by thickness alone: a penalised logistic regression on RNFL and GCIPL around the circle.

What it knows of a scan, for each of the two layers (`features`): means over 36 pieces of 10 degrees, over the circle,
quadrants and sectors; how much was seen; and by how much the circle and the quadrants are thicker than in the person's
other eye. What was not seen, or an eye that nobody scanned, is nan: the mean of the training scans stands for it.

The layers are always predicted ones, of a scan that the network did not learn from: those of a training scan by the
fold that held it out. A training scan that no fold held out teaches this model nothing. It needs neither torch nor
paddle.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, PredefinedSplit, cross_val_predict
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from octkit.data.dataset import Case
from octkit.data.labels import BETWEEN, LAYERS
from octkit.layers.boundaries import ordered_boundaries
from octkit.layers.scan_files import read_boundaries, read_probabilities
from octkit.layers.seen import has_signal, layers_seen
from octkit.layers.thickness import GARWAY_HEATH, QUADRANTS, WHOLE, Thickness, coverage, sector_means
from octkit.planning.folds import deal_people
from octkit.planning.run import Run

USED = ("rnfl", "gcipl")
PIECES = {f"at {start}": (start, start + 10) for start in range(0, 360, 10)}
SECTORS = PIECES | WHOLE | QUADRANTS | GARWAY_HEATH
COMPARED = WHOLE | QUADRANTS  # with the other eye
# A column for each: what is measured, the layer, the sector.
COLUMNS = tuple((kind, layer, sector) for layer in USED for kind, sectors in (
    ("mean", SECTORS), ("seen", WHOLE), ("against the other eye", COMPARED)) for sector in sectors)
STRENGTHS = np.logspace(-4, 1, 6)  # scikit-learn's C: the smaller, the stronger the penalty
INNER_FOLDS = 5


def features(profiles: Sequence[Thickness], people: Sequence[str]) -> np.ndarray:
    """What the model knows of n scans: (n, columns) float64 as in COLUMNS, nan where it is not known.

    `people` names the person of each scan. The other eye is the mean of that person's scans of it among these.
    """
    blocks = []
    for layer in USED:
        means = np.array([list(sector_means(scan[layer], SECTORS).values()) for scan in profiles])
        seen = np.array([list(coverage(scan[layer], WHOLE).values()) for scan in profiles])
        compared = means[:, [list(SECTORS).index(name) for name in COMPARED]]
        other = np.full_like(compared, np.nan)
        for row, (scan, person) in enumerate(zip(profiles, people, strict=True)):
            fellow = [one for one, (its, whose) in enumerate(zip(profiles, people, strict=True))
                      if whose == person and {its.eye, scan.eye} == {"R", "L"}]
            known = np.ma.masked_invalid(compared[fellow].reshape(len(fellow), len(COMPARED)))
            other[row] = known.mean(axis=0).filled(np.nan) if fellow else np.nan
        blocks += [means, seen, compared - other]
    return np.hstack(blocks)


def fit(known: np.ndarray, labels: np.ndarray, people: Sequence[str], seed: int) -> Pipeline:
    """The model of n scans' `features` (n, columns), 1 glaucoma or 0 not; its penalty is chosen within them.

    It is the one with the least log loss where each person in turn is held out of a share of them, the strongest of
    equals. Its `decision_function` gives log odds.
    """
    model = Pipeline([("impute", SimpleImputer(keep_empty_features=True)), ("scale", StandardScaler()),
                      ("weigh", LogisticRegression(max_iter=2000))])
    inner = PredefinedSplit(deal_people(people, labels, INNER_FOLDS, seed))
    search = GridSearchCV(model, {"weigh__C": STRENGTHS}, scoring="neg_log_loss", cv=inner)
    return search.fit(known, labels).best_estimator_


def out_of_fold(model: Pipeline, known: np.ndarray, labels: np.ndarray, people: Sequence[str],
                seed: int) -> np.ndarray:
    """Log odds (n,) of each scan by a model like this one, with its penalty, that no scan of its person has taught."""
    inner = PredefinedSplit(deal_people(people, labels, INNER_FOLDS, seed + 1))
    return cross_val_predict(model, known, labels, cv=inner, method="decision_function")


def around(model: Pipeline, columns: int = 72) -> dict[str, np.ndarray]:
    """What each piece of the circle weighs: layer -> (columns,), the change of the log odds for one unit more there.

    A mean over a sector weighs on all of its pieces alike; the other eye stays as it is.
    """
    weights = model["weigh"].coef_[0] / model["scale"].scale_
    middles, found = (np.arange(columns) + 0.5) * 360 / columns, {layer: np.zeros(columns) for layer in USED}
    for (kind, layer, sector), weight in zip(COLUMNS, weights, strict=True):
        start, stop = SECTORS[sector]
        inside = (middles - start) % 360 < ((stop - start) % 360 or 360)
        found[layer] += weight * inside / inside.sum() * (kind != "seen")
    return found


def usual(model: Pipeline) -> dict[str, np.ndarray]:
    """The mean profile of the scans that the model has learned from: layer -> (36,)."""
    means = dict(zip(COLUMNS, model["impute"].statistics_, strict=True))
    return {layer: np.array([means["mean", layer, sector] for sector in PIECES]) for layer in USED}


def lacking(run: Run) -> str | None:
    """Why a run's thickness cannot tell glaucoma; None where it can."""
    if tuple(run.dataset.labels) != LAYERS or not run.dataset.circle:
        return "the scans are no circles with RNFL, GCIPL and choroid"
    if run.settings.train.folds == ("all",):
        return "fold all holds no scan out: there are no layers of training scans by a network that has not seen them"
    missing = [path for path in (run.selection_file, run.predictions("validation")) if not path.exists()]
    return f"there is no {missing[0].name}: lessons 07 to 09 come first" if missing else None


def held_out_profiles(run: Run, cases: Iterable[Case]) -> list[Thickness]:
    """The thickness of training scans by the folds that held them out, with the chosen configurations."""
    found, scale = [], _in_um(run)
    for case in cases:
        fold = run.held_out[case.name]
        mean = np.mean([read_probabilities(run.cross_validation(config, fold) / f"{case.name}.npz", fold)
                        for config in run.selection.configurations], axis=0)
        signal = has_signal(run.dataset.read_image(case))
        mean[:, :, ~signal] = 1 / len(mean)  # as in the scans that are predicted: nothing was seen there
        boundaries, doubt = ordered_boundaries(mean, case.circle, case.spacing)
        found.append(_profile(boundaries, layers_seen(doubt, mean.shape[1]), case, scale))
    return found


def predicted_profiles(run: Run, folder: Path, cases: Iterable[Case]) -> list[Thickness]:
    """The thickness of scans by the run's final predictions in a folder, such as `run.predictions("validation")`."""
    found, scale = [], _in_um(run)
    for case in cases:
        boundaries, doubt, _ = read_boundaries(folder / f"{case.name}.boundaries.csv")
        height = run.dataset.read_image(case).shape[1]
        found.append(_profile(boundaries, layers_seen(doubt, height), case, scale))
    return found


def _in_um(run: Run) -> bool:
    """Whether the scale of all scans is known; where one's is not, all are measured in px."""
    return all(case.spacing for case in run.dataset.cases)


def _profile(boundaries: np.ndarray, seen: np.ndarray, case: Case, in_um: bool) -> Thickness:
    values = np.stack([boundaries[lower] - boundaries[upper] for upper, lower in BETWEEN.values()])
    scale = case.spacing[0] * 1000 if in_um and case.spacing else 1.0
    return Thickness(np.where(seen, values * scale, np.nan), LAYERS, "um" if in_um else "px", case.eye, case.circle)
