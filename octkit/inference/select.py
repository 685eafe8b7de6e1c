"""Decide by cross-validation: which configuration or pair, and which post-processing. Leaves selection.json.

Every single configuration and every pair (probabilities averaged) is scored by mean foreground Dice; the best is used,
the simpler one on a tie: one configuration before two, 2-D before 3-D, one stage before a cascade.

Rule for post-processing (report, section on empirical parameters): keep only the largest component of all
foreground together if that raises the mean foreground Dice and lowers no layer's; then the same test layer
by layer on top of it.
"""

import itertools
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from octkit.common.errors import OctkitError
from octkit.data.dataset import Case, Dataset, scan_name
from octkit.evaluation.metrics import dice, spread
from octkit.inference.postprocess import apply_steps
from octkit.inference.predict import read_prediction
from octkit.inference.scan_result import has_boundaries
from octkit.layers.boundaries import mask_from, ordered_boundaries
from octkit.planning.folds import held_out_cases
from octkit.planning.run import Run
from octkit.planning.selection import Candidate, PostprocessingTest, Selection

SURFACES_STEP = "draw the layers from ordered boundaries"

Steps = tuple[tuple[int, ...], ...]


def mean_dice(predicted: Sequence[np.ndarray], truth: Sequence[np.ndarray], labels: int) -> np.ndarray:
    """Mean Dice over cases of each foreground label: (labels,) float.

    Cases in which a label is in neither mask do not count for it; nan where that is so in all of them.
    """
    return mean_over_cases(case_dice(predicted, truth, labels))


def case_dice(predicted: Iterable[np.ndarray], truth: Iterable[np.ndarray], labels: int) -> np.ndarray:
    """Dice of each case and foreground label: (cases, labels) float, nan where a label is in neither mask."""
    return np.array([[dice(p, t, label) for label in range(1, labels + 1)]
                     for p, t in zip(predicted, truth, strict=True)])


def gain_over(before: np.ndarray, after: np.ndarray) -> dict:
    """How much the mean foreground Dice changes case by case, of two (cases, labels): {"mean", "sd", "n"}.

    That the same cases are compared takes out how hard each of them is; what spreads is how well the change works.
    """
    return spread(_foreground(after) - _foreground(before))


def _foreground(table: np.ndarray) -> np.ndarray:
    """Mean over the labels of (cases, labels), nan entries left out: (cases,)."""
    return mean_over_cases(table.T)


def mean_over_cases(table: np.ndarray) -> np.ndarray:
    """Mean of each column of (cases, labels), nan entries left out; nan where a column has no other."""
    counted = ~np.isnan(table)
    return np.divide(np.where(counted, table, 0).sum(0), counted.sum(0), where=counted.any(0),
                     out=np.full(table.shape[1], np.nan))


def decide_postprocessing(predicted: Sequence[np.ndarray], truth: Sequence[np.ndarray], names: Sequence[str],
                          circle: bool = False) -> tuple[Steps, list[PostprocessingTest]]:
    """Test the recipe's post-processing steps on cross-validation masks.

    Args:
        predicted, truth: one (*spatial) uint8 mask a case.
        names: the foreground labels' names, label 1 first.
        circle: scans close to a circle, so components may run through the seam.

    Returns:
        The steps to apply, and one record a test: what was tried, Dice by layer before and after, kept or
        not and why.
    """
    everything = tuple(range(1, len(names) + 1))
    steps: Steps = ()
    by_case = case_dice(predicted, truth, len(names))
    before = mean_over_cases(by_case)
    records = []
    for labels in (everything, *((label,) for label in everything)):
        trial = (*steps, labels)
        cleaned = case_dice([apply_steps(mask, trial, circle) for mask in predicted], truth, len(names))
        after = mean_over_cases(cleaned)
        keep, why = _is_better(before, after, names)
        what = "all foreground together" if labels == everything else names[labels[0] - 1]
        records.append(PostprocessingTest(
            step=f"keep only the largest component of {what}", labels=labels, kept=keep, why=why,
            dice_before=_named(before, names), dice_after=_named(after, names), gain=gain_over(by_case, cleaned)))
        if keep:
            steps, before, by_case = trial, after, cleaned
    return steps, records


def _is_better(before: np.ndarray, after: np.ndarray, names: Sequence[str]) -> tuple[bool, str]:
    lowered = [f"{name} {b:.5f} -> {a:.5f}" for name, b, a in zip(names, before, after, strict=True) if a < b]
    gain = float(np.nanmean(after) - np.nanmean(before))
    if gain > 0 and not lowered:
        return True, f"mean Dice rises by {gain:.2e}, no layer falls"
    if lowered:
        return False, "a layer falls: " + ", ".join(lowered)
    return False, "mean Dice does not rise"


def candidates(configs: Sequence[str]) -> list[tuple[str, ...]]:
    """Every single configuration and every pair, simpler ones first: ("2d",), ("3d_fullres",), ("2d", "3d_fullres")."""
    return [(config,) for config in configs] + list(itertools.combinations(configs, 2))


def score_candidates(run: Run, dataset: Dataset, configs: Sequence[str], names: Sequence[str]) -> list[Candidate]:
    """Dice over the cases `names` for each candidate.

    """
    tables = {candidate: [] for candidate in candidates(configs)}
    cases = {case.name: case for case in dataset.train}
    for name in names:
        truth = dataset.read_mask(cases[name])
        found = {config: _found(run, config, cases[name], dataset) for config in configs}
        for candidate, table in tables.items():
            table.append([dice(_labels(_mean_of([found[config] for config in candidate])), truth, label)
                          for label in range(1, len(dataset.labels) + 1)])
    tables = {candidate: np.array(table) for candidate, table in tables.items()}
    highest = max(tables.values(), key=lambda table: float(np.nanmean(mean_over_cases(table))))
    scored = []
    for candidate, table in tables.items():
        per_layer = mean_over_cases(table)
        scored.append(Candidate(
            name=" + ".join(candidate), configurations=candidate, dice=_named(per_layer, dataset.labels),
            mean_dice=float(np.nanmean(per_layer)), over_cases=spread(_foreground(table)),
            behind_best=gain_over(table, highest)))
    return scored


def best(scored: Sequence[Candidate]) -> tuple[Candidate, str]:
    """The candidate with the highest mean Dice, the first of equals, and why. Candidates come simplest first."""
    winner = max(scored, key=lambda candidate: candidate.mean_dice)
    if len(scored) == 1:
        return winner, "the plan's only configuration"
    equal = [other.name for other in scored if other.mean_dice == winner.mean_dice]
    why = f"the highest mean Dice of {len(scored)} candidates"
    return winner, why + (f"; the simplest of {len(equal)} with the same" if len(equal) > 1 else "")


def decide_surfaces(probabilities: Iterable[np.ndarray], cleaned: Sequence[np.ndarray], truth: Sequence[np.ndarray],
                    names: Sequence[str], circle: bool, wanted: str) -> tuple[bool, PostprocessingTest]:
    """Whether masks are to be drawn from ordered boundaries (`surfaces`), and the record of that test.

    They are where the mean Dice does not fall below that of the `cleaned` most probable labels: at the same score a
    mask whose layers cannot break is the better one. `wanted` "always" or "never" decides without a test.
    """
    before = case_dice(cleaned, truth, len(names))
    drawn = (mask_from(ordered_boundaries(found, circle)[0], found.shape[1]) for found in probabilities)
    after = case_dice(drawn, truth, len(names))
    means = mean_over_cases(before), mean_over_cases(after)
    gain = float(np.nanmean(means[1]) - np.nanmean(means[0]))
    keep = gain >= 0 if wanted == "choose" else wanted == "always"
    why = (f"mean Dice changes by {gain:+.2e}" + (", and no layer can break" if keep else "")
           if wanted == "choose" else f"infer.surfaces says {wanted}")
    return keep, PostprocessingTest(
        step=SURFACES_STEP, labels=tuple(range(1, len(names) + 1)), kept=keep, why=why,
        dice_before=_named(means[0], names), dice_after=_named(means[1], names), gain=gain_over(before, after))


def select(run: Run) -> Selection:
    """Score a run's cross-validation, choose configuration and post-processing; write selection.json and return it.

    With fold "all" alone nothing was held out: then nothing can be decided. One configuration is taken as it is, and
    selection.json says so; several are an error. Raises OctkitError where a fold's predictions are missing, and says
    how to get them.
    """
    chosen, dataset, splits, configs = run.settings, run.dataset, run.splits, run.configs
    folds = [fold for fold in chosen.train.folds if fold != "all"]
    if not folds:
        if len(configs) > 1:
            raise OctkitError(f"{run.folder}: fold \"all\" holds nothing out, so nothing decides between "
                              f"{', '.join(configs)}; train numbered folds too (train.folds), or one "
                              "configuration (train.configs)")
        selection = Selection(
            configuration=configs[0], configurations=configs, folds=("all",), steps=(),
            why="the only one; fold all holds nothing out to decide with",
            circle=all(case.circle for case in dataset.train),
            surfaces=chosen.infer.surfaces == "always")
        selection.save(run.selection_file)
        return selection
    own = {case.name for case in dataset.train}
    held_out = {name: fold for fold in folds for name in held_out_cases(splits, fold, own)}
    _refuse_missing(run, configs, held_out)
    scored = score_candidates(run, dataset, configs, list(held_out))
    winner, why = best(scored)
    cases = {case.name: case for case in dataset.train}
    truth = [dataset.read_mask(cases[name]) for name in held_out]
    circle = all(case.circle for case in dataset.train)

    def found() -> Iterator[np.ndarray]:  # read anew each time: the probabilities of all cases would fill the memory
        for name in held_out:
            yield _mean_of([_found(run, config, cases[name], dataset) for config in winner.configurations])

    masks = [_labels(one) for one in found()]
    steps, records = decide_postprocessing(masks, truth, dataset.labels, circle)
    surfaces = False
    if has_boundaries(dataset.labels, truth[0].ndim):
        cleaned = [apply_steps(mask, steps, circle) for mask in masks]
        surfaces, record = decide_surfaces(found(), cleaned, truth, dataset.labels, circle,
                                           chosen.infer.surfaces)
        records.append(record)
    selection = Selection(configuration=winner.name, configurations=winner.configurations, why=why, folds=folds,
                          cases=len(held_out), candidates=scored, postprocessing=records, steps=steps, circle=circle,
                          surfaces=surfaces)
    selection.save(run.selection_file)
    return selection


def _found(run: Run, config: str, case: Case, dataset: Dataset) -> np.ndarray:
    """What cross-validation found: probabilities (classes, *spatial) where they are kept, else labels (*spatial)."""
    path = run.cross_validation(config) / f"{case.name}.npz"
    if not path.exists():
        return read_prediction(run.cross_validation(config), case, dataset.labels)
    try:
        with np.load(path) as stored:
            return stored["probabilities"].astype(np.float32)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise OctkitError(f"{path}: cannot be read as probabilities ({error}), expected what prediction leaves; "
                          "predict this case again") from None


def _mean_of(found: Sequence[np.ndarray]) -> np.ndarray:
    if len(found) == 1:
        return found[0]
    total = np.zeros_like(found[0])
    for probabilities in found:
        total += probabilities
    return total / np.float32(len(found))


def _labels(found: np.ndarray) -> np.ndarray:
    return found if found.dtype == np.uint8 else found.argmax(0).astype(np.uint8)


def _refuse_missing(run: Run, configs: Sequence[str], held_out: Mapping[str, int]) -> None:
    for config in configs:
        folder = run.cross_validation(config)
        there = {scan_name(path) for path in folder.glob("*")}
        missing = [name for name in held_out if name not in there]
        if missing:
            folds = sorted({held_out[name] for name in missing})
            commands = "; ".join(f"octkit train {run.folder} --config {config} --fold {fold}" for fold in folds)
            raise OctkitError(f"{folder}: has no prediction for {len(missing)} of {len(held_out)} held-out cases "
                              f"({missing[0]} is the first); get them with: {commands}")


def _named(values: np.ndarray, names: Sequence[str]) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else float(value) for name, value in zip(names, values, strict=True)}
