"""What a run's predictions are worth: final masks against their truth, and what mirroring costs and gains."""

import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from octkit.common.files import write_json
from octkit.data.dataset import Case, is_volume
from octkit.evaluation.evaluate import grouped, score_folder
from octkit.evaluation.metrics import dice_of_labels
from octkit.inference.sliding_window import Predictor
from octkit.planning.run import Run

MIRRORING_SCANS = 6  # so many are enough to see the price
ROUNDS = 3  # how often each is predicted both ways; the first time warms up


def score_validation(run: Run) -> dict | None:
    """Score a run's final validation masks as `evaluate.grouped` does, by person; leaves scores.json.

    None where the validation scans have no truth; scores.json, which then stems from other data, is removed.
    """
    dataset = run.dataset
    truth = {case.name: case.truth for case in dataset.validation if case.truth is not None}
    if not truth:
        run.scores_file.unlink(missing_ok=True)
        return None
    first = dataset.validation[0]
    spacing = None if is_volume(first.image) else first.spacing  # volumes' files state their own
    scores = score_folder(run.predictions("validation"), truth, spacing, labels=dataset.labels,
                          true_values=dataset.mask_values)
    scores = grouped(scores, {case.name: case.person for case in dataset.validation})
    write_json(run.scores_file, scores)
    return scores


def mirroring_price(run: Run) -> dict[str, dict]:
    """Predict some held-out scans as they are and averaged over mirrored copies; leaves mirroring.json.

    "plain" and "mirrored" -> {"seconds": median time of a scan, "dice": mean Dice, "dice_by_scan": name -> Dice},
    Dice being the mean over the layers. Both ways take turns on each scan, so that whatever else the machine does slows
    both alike. Empty where no fold held scans out; an older mirroring.json is removed.
    """
    fold_of = run.held_out
    if not fold_of:
        run.mirroring_file.unlink(missing_ok=True)
        return {}
    folds = list(dict.fromkeys(fold_of.values()))
    each = max(MIRRORING_SCANS // len(folds), 1)
    cases = {case.name: case for case in run.dataset.train}
    seconds: dict[str, list[float]] = {"plain": [], "mirrored": []}
    dice: dict[str, dict[str, float]] = {name: {} for name in seconds}
    for fold in folds:
        ways = {name: Predictor.load(run.folder, run.settings.device, mirror=name == "mirrored", folds=[fold])
                for name in seconds}
        for case in [cases[scan] for scan in fold_of if fold_of[scan] == fold][:each]:
            truth = run.dataset.read_mask(case)
            for number, (name, predictor) in itertools.product(range(ROUNDS), ways.items()):
                dice[name][case.name], took = _dice_and_seconds(predictor, run, case, truth)
                if number:
                    seconds[name].append(took)
    prices = {name: {"seconds": float(np.median(times)), "dice": float(np.mean(list(dice[name].values()))),
                     "dice_by_scan": dice[name]} for name, times in seconds.items()}
    write_json(run.mirroring_file, prices)
    return prices


def scan_scores(run: Run, model: Path, config: str, folds: Sequence[int | str],
                mirror: bool) -> dict[str, dict[str, float]]:
    """Predict a run's validation scans by folds of the run in `model`: scan -> {"dice", "seconds"}."""
    predictor = Predictor.load(model, run.settings.device, mirror, [config], folds)
    cases = run.dataset.validation
    # The first one twice: it warms up.
    found = {case.name: _dice_and_seconds(predictor, run, case, run.dataset.read_truth(case))
             for case in (cases[0], *cases)}
    return {name: {"dice": dice, "seconds": seconds} for name, (dice, seconds) in found.items()}


def _dice_and_seconds(predictor: Predictor, run: Run, case: Case, truth: np.ndarray | None) -> tuple[float, float]:
    """The mean Dice of a scan's most probable labels, and how long they took."""
    assert truth is not None
    image = run.dataset.read_image(case)
    began = time.perf_counter()
    mask = predictor(image, case.spacing, case.circle).argmax(0)
    seconds = time.perf_counter() - began
    return float(np.nanmean(dice_of_labels(mask, truth, len(run.dataset.labels)))), seconds
