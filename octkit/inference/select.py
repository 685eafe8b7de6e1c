"""Decide by cross-validation: which configuration or pair, and which post-processing. Leaves selection.json.

On the same predictions the boundaries' doubt is calibrated (`layers.calibration`): calibration.json.

Every single configuration and every pair (probabilities averaged) is scored by mean foreground Dice; the best is used,
the simpler one on a tie: one configuration before two, 2-D before 3-D, one step before a cascade.

Rule for post-processing (report, section on empirical parameters): keep only the largest component of all foreground
together if that raises the mean foreground Dice and lowers no layer's; then the same test layer by layer on top of it.
Then masks drawn from ordered boundaries are tried: they are used where the mean Dice does not fall, as at the same
score a mask whose layers cannot break is the better one.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from octkit.common.errors import OctkitError
from octkit.common.files import write_json
from octkit.data.dataset import Case, scan_name
from octkit.data.measured import Calibration
from octkit.evaluation.metrics import dice_of_labels, gain_over, mean_over_cases, spread
from octkit.inference.postprocess import apply_steps
from octkit.inference.predict import read_prediction
from octkit.inference.scan_result import has_boundaries
from octkit.layers.boundaries import mask_from, ordered_boundaries
from octkit.layers.calibration import HeldOut, fit, true_boundaries
from octkit.layers.scan_files import read_probabilities
from octkit.planning.run import Run
from octkit.planning.selection import Candidate, PostprocessingTest, Selection
from octkit.planning.steps import check_decidable

Steps = tuple[tuple[int, ...], ...]


def decide_postprocessing(predicted: Sequence[np.ndarray], truth: Sequence[np.ndarray], names: Sequence[str],
                          circle: bool = False) -> tuple[Steps, list[PostprocessingTest]]:
    """Test the steps of post-processing on cross-validation masks.

    `predicted` and `truth` are one (*spatial) uint8 mask a case, `names` the foreground labels' (label 1 first); on a
    `circle` components may run through the seam. Returns the steps to apply and one record a test.
    """
    everything = tuple(range(1, len(names) + 1))
    steps: Steps = ()
    before, records = _table(predicted, truth, names), []
    for labels in (everything, *((label,) for label in everything)):
        trial = (*steps, labels)
        after = _table((apply_steps(mask, trial, circle) for mask in predicted), truth, names)
        keep, why = _is_better(mean_over_cases(before), mean_over_cases(after), names)
        what = "all foreground together" if labels == everything else names[labels[0] - 1]
        records.append(_record(f"keep only the largest component of {what}", labels, keep, why, before, after, names))
        if keep:
            steps, before = trial, after
    return steps, records


def decide_boundaries(drawn: Iterable[np.ndarray], cleaned: Sequence[np.ndarray], truth: Sequence[np.ndarray],
                      names: Sequence[str], wanted: str) -> tuple[bool, PostprocessingTest]:
    """Whether masks are to be drawn from ordered boundaries, and the record of that test.

    They are where the mean Dice of the `drawn` does not fall below that of the `cleaned` most probable labels. `wanted`
    "always" or "never" decides without a test.
    """
    before = _table(cleaned, truth, names)
    after = _table(drawn, truth, names)
    gain = _mean(after) - _mean(before)
    keep = gain >= 0 if wanted == "choose" else wanted == "always"
    why = (f"mean Dice changes by {gain:+.2e}" + (", and no layer can break" if keep else "")
           if wanted == "choose" else f"infer.surfaces says {wanted}")
    return keep, _record("draw the layers from ordered boundaries", tuple(range(1, len(names) + 1)), keep, why,
                         before, after, names)


def _table(predicted: Iterable[np.ndarray], truth: Sequence[np.ndarray], names: Sequence[str]) -> np.ndarray:
    """Dice of each case and label: (cases, labels), nan where a label is in neither mask."""
    return np.array([dice_of_labels(mask, true, len(names)) for mask, true in zip(predicted, truth, strict=True)])


def _mean(table: np.ndarray) -> float:
    """The mean foreground Dice."""
    return float(np.nanmean(mean_over_cases(table)))


def _is_better(before: np.ndarray, after: np.ndarray, names: Sequence[str]) -> tuple[bool, str]:
    lowered = [f"{name} {b:.5f} -> {a:.5f}" for name, b, a in zip(names, before, after, strict=True) if a < b]
    gain = float(np.nanmean(after) - np.nanmean(before))
    if gain > 0 and not lowered:
        return True, f"mean Dice rises by {gain:.2e}, no layer falls"
    return False, "a layer falls: " + ", ".join(lowered) if lowered else "mean Dice does not rise"


def _record(step: str, labels: tuple[int, ...], kept: bool, why: str, before: np.ndarray, after: np.ndarray,
            names: Sequence[str]) -> PostprocessingTest:
    return PostprocessingTest(step=step, labels=labels, kept=kept, why=why, gain=gain_over(before, after),
                              dice_before=_named(before, names), dice_after=_named(after, names))


def _named(table: np.ndarray, names: Sequence[str]) -> dict[str, float | None]:
    means = mean_over_cases(table)
    return {name: None if np.isnan(value) else float(value) for name, value in zip(names, means, strict=True)}


def candidates(configs: Sequence[str]) -> list[tuple[str, ...]]:
    """Every single configuration and every pair, simpler ones first: ("2d",), ("3d_fullres",), ("2d", "3d_fullres")."""
    return [(config,) for config in configs] + list(itertools.combinations(configs, 2))


def score_candidates(run: Run, cases: Sequence[tuple[Case, int]]) -> list[Candidate]:
    """The cross-validated Dice of each of a run's candidates over these training cases, each with its fold."""
    names = run.dataset.labels
    rows: dict[tuple[str, ...], list[list[float]]] = {candidate: [] for candidate in candidates(run.configs)}
    for case, fold in cases:
        truth = run.dataset.read_mask(case)
        found = {config: _found(run, config, fold, case) for config in run.configs}
        for candidate, table in rows.items():
            mask = _labels(_mean_of([found[config] for config in candidate]))
            table.append(dice_of_labels(mask, truth, len(names)))
    tables = {candidate: np.array(table) for candidate, table in rows.items()}
    highest = max(tables.values(), key=_mean)
    return [Candidate(name=" + ".join(candidate), configurations=candidate, dice=_named(table, names),
                      dice_by_scan={case.name: _named(row[None], names) for (case, _), row
                                    in zip(cases, table, strict=True)},
                      mean_dice=_mean(table), over_cases=spread(mean_over_cases(table.T)),
                      behind_best=gain_over(table, highest))
            for candidate, table in tables.items()]


def best(scored: Sequence[Candidate]) -> tuple[Candidate, str]:
    """The candidate with the highest mean Dice, the first of equals, and why. Candidates come simplest first."""
    winner = max(scored, key=lambda candidate: candidate.mean_dice)
    if len(scored) == 1:
        return winner, "the plan's only configuration"
    equal = sum(other.mean_dice == winner.mean_dice for other in scored)
    why = f"the highest mean Dice of {len(scored)} candidates"
    return winner, why + (f"; the simplest of {equal} with the same" if equal > 1 else "")


def select(run: Run) -> Selection:
    """Score a run's cross-validation, choose configuration and post-processing; write selection.json and return it.

    calibration.json is written as well, for 2-D scans of RNFL, GCIPL and choroid. With fold "all" alone nothing was
    held out: then nothing can be decided. One configuration is taken as it is, and selection.json says so; several are
    an error. Raises OctkitError where a fold's predictions are missing, and says how to get them.
    """
    selection, calibration = _by_cross_validation(run) if run.held_out else (_without_cross_validation(run), None)
    run.calibration_file.unlink(missing_ok=True)  # an older one must not stand beside another selection
    selection.save(run.selection_file)
    if calibration:
        write_json(run.calibration_file, calibration.model_dump(mode="json"))
    return selection


def _without_cross_validation(run: Run) -> Selection:
    check_decidable(run)
    return Selection(configuration=run.configs[0], configurations=run.configs, folds=("all",), steps=(),
                     why="the only one; fold all holds nothing out to decide with", circle=run.dataset.circle,
                     surfaces=run.settings.infer.surfaces == "always")


def _by_cross_validation(run: Run) -> tuple[Selection, Calibration | None]:
    dataset, own = run.dataset, {case.name: case for case in run.dataset.train}
    _refuse_missing(run)
    cases = [(own[name], fold) for name, fold in run.held_out.items()]
    scored = score_candidates(run, cases)
    winner, why = best(scored)
    truth = [dataset.read_mask(case) for case, _ in cases]

    def found() -> Iterator[np.ndarray]:  # read anew each time: the probabilities of all cases would fill the memory
        for case, fold in cases:
            yield _mean_of([_found(run, config, fold, case) for config in winner.configurations])

    masks = [_labels(one) for one in found()]
    steps, records = decide_postprocessing(masks, truth, dataset.labels, dataset.circle)
    drawn, calibration = False, None
    if has_boundaries(dataset.labels, truth[0].ndim):
        cleaned = [apply_steps(mask, steps, dataset.circle) for mask in masks]
        held_out = [HeldOut(*ordered_boundaries(one, dataset.circle, case.spacing), true_boundaries(mask), len(mask))
                    for one, (case, _), mask in zip(found(), cases, truth, strict=True)]
        ordered = (mask_from(scan.boundaries, scan.height) for scan in held_out)
        drawn, record = decide_boundaries(ordered, cleaned, truth, dataset.labels, run.settings.infer.surfaces)
        records.append(record)
        calibration = fit(held_out, "training scans, each predicted by the fold that did not see it",
                          [fold for _, fold in cases])
    chosen = Selection(configuration=winner.name, configurations=winner.configurations, why=why,
                       folds=tuple(dict.fromkeys(run.held_out.values())), cases=len(cases), candidates=tuple(scored),
                       postprocessing=tuple(records), steps=steps, circle=dataset.circle, surfaces=drawn)
    return chosen, calibration


def _found(run: Run, config: str, fold: int, case: Case) -> np.ndarray:
    """What cross-validation found: probabilities (classes, *spatial) where they are kept, else labels (*spatial)."""
    path = run.cross_validation(config, fold) / f"{case.name}.npz"
    if not path.exists():
        return read_prediction(path.parent, case, run.dataset.labels)
    return read_probabilities(path, fold)


def _mean_of(found: Sequence[np.ndarray]) -> np.ndarray:
    return found[0] if len(found) == 1 else sum(found, np.zeros_like(found[0])) / np.float32(len(found))


def _labels(found: np.ndarray) -> np.ndarray:
    return found if found.dtype == np.uint8 else found.argmax(0).astype(np.uint8)


def _refuse_missing(run: Run) -> None:
    held_out = run.held_out
    for config in run.configs:
        folders = {fold: run.cross_validation(config, fold) for fold in held_out.values()}
        there = {(scan_name(path), fold) for fold, folder in folders.items() for path in folder.glob("*")}
        missing = {name: fold for name, fold in held_out.items() if (name, fold) not in there}
        if missing:
            commands = "; ".join(f"octkit train {run.folder} --config {config} --fold {fold}"
                                 for fold in sorted(set(missing.values())))
            raise OctkitError(f"{folders[next(iter(missing.values()))].parent}: has no prediction for {len(missing)} "
                              f"of {len(held_out)} held-out cases ({next(iter(missing))} is the first); get them with: "
                              f"{commands}")
