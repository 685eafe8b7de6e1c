"""What a run's predictions are worth: final masks against their truth, and what mirroring costs and gains."""

import time

import numpy as np

from octkit.common.files import write_json
from octkit.data.dataset import Case, is_volume
from octkit.evaluation.evaluate import score_folder
from octkit.evaluation.metrics import dice_of_labels
from octkit.inference.sliding_window import Predictor
from octkit.planning.run import Run

MIRRORING_SCANS = 6  # so many are enough to see the price; each is predicted twice


def score_validation(run: Run) -> dict | None:
    """Score a run's final validation masks as `score_folder` does; leaves scores.json.

    None where the validation scans have no truth; scores.json, which then stems from other data, is removed.
    """
    dataset = run.dataset
    truth = {case.name: case.truth for case in dataset.validation if case.truth is not None}
    if not truth:
        run.scores_file.unlink(missing_ok=True)
        return None
    first = dataset.validation[0]
    spacing = None if is_volume(first.image) else first.spacing  # volumes' files state their own
    scores = score_folder(run.predictions("validation"), next(iter(truth.values())).parent, spacing, names=truth,
                          labels=dataset.labels)
    write_json(run.scores_file, scores)
    return scores


def held_out(run: Run) -> dict[str, int]:
    """Name of a training case -> the fold that held it out; empty where fold "all" alone is trained."""
    return {name: fold for fold in run.settings.train.folds if fold != "all"
            for name in run.splits[fold]["validation"]}


def mirroring_price(run: Run) -> dict[str, dict]:
    """Predict some held-out scans as they are and averaged over mirrored copies; leaves mirroring.json.

    "plain" and "mirrored" -> {"seconds": median time of a scan, "dice": mean Dice, "dice_by_scan": name -> Dice},
    Dice being the mean over the layers. Empty where no fold held scans out; an older mirroring.json is removed.
    """
    fold_of = held_out(run)
    if not fold_of:
        run.mirroring_file.unlink(missing_ok=True)
        return {}
    folds = list(dict.fromkeys(fold_of.values()))
    each = max(MIRRORING_SCANS // len(folds), 1)
    sample = [name for fold in folds for name in [name for name in fold_of if fold_of[name] == fold][:each]]
    cases = {case.name: case for case in run.dataset.train}
    prices = {name: _price(run, [cases[name] for name in sample], fold_of, mirror)
              for name, mirror in (("plain", False), ("mirrored", True))}
    write_json(run.mirroring_file, prices)
    return prices


def _price(run: Run, cases: list[Case], fold_of: dict[str, int], mirror: bool) -> dict:
    seconds, scores = [], {}
    for case in cases:
        predictor = Predictor.load(run.folder, run.settings.device, mirror=mirror, folds=[fold_of[case.name]])
        image, truth = run.dataset.read_image(case), run.dataset.read_mask(case)
        began = time.perf_counter()
        mask = predictor(image, case.spacing, case.circle).argmax(0)
        seconds.append(time.perf_counter() - began)
        scores[case.name] = float(np.nanmean(dice_of_labels(mask, truth, len(run.dataset.labels))))
    return {"seconds": float(np.median(seconds)), "dice": float(np.mean(list(scores.values()))),
            "dice_by_scan": scores}
