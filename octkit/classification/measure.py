"""What a run's classifier is worth: its scores, and how they change with the share of scans that it learns from."""

from octkit.classification import resnet50
from octkit.common.files import read_json, write_json
from octkit.data.layouts.goals import true_diagnoses
from octkit.evaluation.evaluate import score_classification
from octkit.planning.run import Run


def score_classifier(run: Run) -> dict[str, dict]:
    """`metrics.classification_scores` of the held-out training scans and, where their truth is known, validation scans.

    Leaves validation_metrics.json; without truth the file, which then stems from other data, is removed.
    """
    results = {"held-out training scans": read_json(run.classifier / "metrics.json")}
    file = run.classifier / "validation_metrics.json"
    if truth := _truth(run):
        results["validation scans"] = score_classification(run.classifier / "predictions.csv", truth)
        write_json(file, results["validation scans"])
    else:
        file.unlink(missing_ok=True)
    return results


def compare_fractions(run: Run) -> dict[str, list[float | None]]:
    """Train a classifier for each of `classify.compare_fractions` and seed; AUC by share; leaves comparison.json.

    Judged on the validation scans, which no trial saw; without their truth on those that each trial held out. Empty
    where there is nothing to compare; an older comparison.json is removed.
    """
    chosen, file, truth = run.settings, run.classifier / "comparison.json", _truth(run)
    compared: dict[str, list[float | None]] = {}
    for fraction in chosen.classify.compare_fractions:
        options = chosen.classify.model_copy(update={"train_fraction": fraction})
        for seed in range(options.compare_seeds):
            place = run.classifier / "comparison" / f"{fraction}_{seed}"
            trial = chosen.model_copy(update={"seed": chosen.seed + seed, "classify": options})
            resnet50.train(run.dataset, trial, place)
            scores = (score_classification(place / "predictions.csv", truth) if truth
                      else read_json(place / "metrics.json"))
            compared.setdefault(f"{fraction:.0%} to train on", []).append(scores["auc"])
    if compared:
        write_json(file, compared)
    else:
        file.unlink(missing_ok=True)
    return compared


def _truth(run: Run) -> dict[str, int]:
    """Name of a validation scan -> its true diagnosis; empty where they are not known."""
    known = true_diagnoses(run.dataset)
    return {case.name: known[case.name] for case in run.dataset.validation if case.name in known}
