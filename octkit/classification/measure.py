"""Glaucoma in a run: networks trained, three answers fitted and scored, one chosen; shares of training scans compared.

What `answer` leaves in classifier/:

    fold_<k>/           a ResNet50 for each fold, trained without the scans that it held out
    answers.json        what was chosen and why, and the scores of every answer
    probabilities.csv   every answer for each scan: log odds as they are, and recalibrated probabilities
    predictions.csv     ImgName, GC_Pred: the chosen answer for the validation scans, as the challenge wants it
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from octkit.classification import resnet50, thickness_model
from octkit.classification.answers import Evidence, Fitted, Told, choose, cross_validate, fit, read_outputs
from octkit.common.files import write_csv, write_json
from octkit.common.messages import say
from octkit.common.settings import Settings
from octkit.data.dataset import Case
from octkit.data.layouts.goals import lacking_diagnoses, true_diagnoses
from octkit.evaluation.diagnosis import SPECIFICITY, auc_interval, diagnosis_scores
from octkit.evaluation.evaluate import PREDICTION_COLUMNS
from octkit.layers.thickness import Thickness
from octkit.planning.folds import Split
from octkit.planning.run import Run


def network_folders(run: Run) -> list[Path]:
    """The folders of the run's networks; those of `nested` networks, which answer no new scan, are not among them."""
    return [run.classifier / f"fold_{fold}" for fold in _folds(run)]


def train_networks(run: Run) -> None:
    """Train the ResNet50 of each fold that has not been trained: classifier/fold_<k>/.

    Raises OctkitError as `resnet50.train`.
    """
    if lacking := lacking_diagnoses(run.dataset.train):
        raise lacking
    for name in trainings(run):
        if not name.startswith("comparison/"):
            train(run, name)


def trainings(run: Run) -> dict[str, tuple[Settings, Split | None]]:
    """Every network that lesson 11 trains: its folder in classifier/ -> its settings, and what it learns from."""
    chosen, folds = run.settings, _folds(run)
    found = {f"fold_{fold}": (chosen, _split(run, (fold,))) for fold in folds}
    for one, other in itertools.combinations(folds, 2) if chosen.classify.nested else ():
        found[f"without_{one}_{other}"] = chosen, _split(run, (one, other))
    for share, seed in itertools.product(chosen.classify.compare_fractions, range(chosen.classify.compare_seeds)):
        options = chosen.classify.model_copy(update={"train_fraction": share})
        trial = chosen.model_copy(update={"seed": chosen.seed + seed, "classify": options})
        found[f"comparison/{share}_{seed}"] = trial, None
    return found


def train(run: Run, name: str) -> Path:
    """Train one of the `trainings`, where it has not been trained; returns its folder."""
    settings, split = trainings(run)[name]
    resnet50.train(run.dataset, settings, run.classifier / name, split)
    return run.classifier / name


def answer(run: Run) -> dict[str, Any]:
    """Fit, cross-validate and choose the answers; leaves the files named above and returns what answers.json holds.

        chosen, why   the answer that the submission takes
        lacking       why there is no thickness model; None where there is one
        learned_from  {scans, people, of}: on how many of all training scans answers were fitted and cross-validated
        behind        answer -> {mean, low, high, n, p}: by how much its cross-validated AUC lies behind the best
        scores        "cross-validation", "validation scans", "test scans" (where there is truth) -> answer ->
                      `diagnosis_scores`, the Brier score before recalibration and the threshold
    """
    seed, dataset = run.settings.seed, run.dataset
    known = held_out_evidence(run)
    fitted, validated = fit(known, seed), cross_validate(known, seed)
    lacking = thickness_model.lacking(run)
    found: dict[str, Any] = {
        "chosen": "resnet50", "why": "the only one", "lacking": lacking, "behind": {}, "scores": {},
        "specificity": SPECIFICITY,
        "learned_from": {"scans": len(known.names), "people": len(set(known.people)), "of": len(dataset.train)}}
    rows = []
    if validated is not None and known.labels is not None:
        found["chosen"], found["why"], found["behind"] = choose(known.labels, validated.probabilities, known.people)
        found["scores"]["cross-validation"] = _scores(known, known.labels, validated, {})
        rows += _rows("held out", known, known.labels, validated)
    else:
        found["why"] = "too few people were held out to compare answers, or to recalibrate one"
    truth = true_diagnoses(dataset)
    for split, cases in (("validation", dataset.validation), ("test", dataset.test)):
        if not cases:
            continue
        scans = split_evidence(run, split, cases)
        told = fitted.ask(scans)
        labels = np.array([truth.get(name, -1) for name in scans.names])
        if (labels >= 0).all():
            found["scores"][f"{split} scans"] = _scores(scans, labels, told, fitted.thresholds)
        rows += _rows(split, scans, labels, told)
        if split == "validation":
            chosen = told.probabilities.get(found["chosen"], told.probabilities["resnet50"])
            submitted = sorted(zip(scans.names, chosen, strict=True))
    write_json(run.classifier / "answers.json", found)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    write_csv(run.classifier / "probabilities.csv", columns, [[row.get(name) for name in columns] for row in rows])
    if dataset.validation:
        write_csv(run.classifier / "predictions.csv", PREDICTION_COLUMNS,
                  [(f"{name}.png", f"{p:.6f}") for name, p in submitted])
    say(f"Glaucoma is answered by {found['chosen']}: {found['why']}")
    return found


def fitted_answers(run: Run) -> Fitted:
    """The run's answers, to ask about other scans: the same as `answer` fits."""
    return fit(held_out_evidence(run), run.settings.seed)


def held_out_evidence(run: Run) -> Evidence:
    """What is known of the training scans that a fold held out, with their diagnoses: all that answers learn from."""
    outputs = {fold: read_outputs(run.classifier / f"fold_{fold}")["held out"] for fold in _folds(run)}
    fold_of = {name: fold for fold, logits in outputs.items() for name in logits}
    cases = [case for case in run.dataset.train if case.name in fold_of]
    folds, nested = np.array([fold_of[case.name] for case in cases]), None
    if run.settings.classify.nested:
        pairs = {frozenset(pair): read_outputs(run.classifier / "without_{}_{}".format(*pair))["held out"]
                 for pair in itertools.combinations(_folds(run), 2)}
        nested = {int(part): np.array([(pairs[frozenset((part, fold_of[case.name]))] if fold_of[case.name] != part
                                   else outputs[part])[case.name] for case in cases]) for part in outputs}
    return _evidence(run, cases, [outputs[fold_of[case.name]][case.name] for case in cases],
                     lambda: thickness_model.held_out_profiles(run, cases),
                     labels=np.array([case.glaucoma for case in cases]), folds=folds, nested=nested)


def split_evidence(run: Run, split: str, cases: Sequence[Case]) -> Evidence:
    """What is known of validation or test scans: the mean of the networks' log odds, and the predicted thickness."""
    logits = [read_outputs(folder)[split] for folder in network_folders(run)]
    return _evidence(run, cases, [float(np.mean([found[case.name] for found in logits])) for case in cases],
                     lambda: thickness_model.predicted_profiles(run, run.predictions(split), cases))


def _evidence(run: Run, cases: Sequence[Case], logits: Sequence[float], profiles: Callable[[], list[Thickness]],
              **learned: Any) -> Evidence:
    people = tuple(case.person for case in cases)
    features = None if thickness_model.lacking(run) else thickness_model.features(profiles(), people)
    return Evidence(tuple(case.name for case in cases), people, np.array(logits), features, **learned)


def _folds(run: Run) -> tuple[int | str, ...]:
    """The folds with a network of their own: those that hold scans out, or "all"."""
    return tuple(fold for fold in run.settings.train.folds if fold != "all") or ("all",)


def _split(run: Run, without: Sequence[int | str]) -> Split | None:
    """The run's own training scans without those that these folds hold out; None where there are no such folds."""
    if "all" in without:
        return None
    held_out = {name for fold in without for name in run.splits[int(fold)]["validation"]}
    names = [case.name for case in run.dataset.train]
    return {"train": [name for name in names if name not in held_out],
            "validation": [name for name in names if name in held_out]}


def _scores(scans: Evidence, labels: np.ndarray, told: Told,
            thresholds: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    return {name: diagnosis_scores(labels, values, told.called[name], scans.people) | {
        "brier_raw": float(np.square(expit(told.raw[name]) - labels).mean()) if name in told.raw else None,
        "threshold": thresholds.get(name)} for name, values in told.probabilities.items()}


def _rows(split: str, scans: Evidence, labels: np.ndarray, told: Told) -> list[dict[str, Any]]:
    return [{"split": split, "scan": name, "person": scans.people[n], "glaucoma": labels[n] if labels[n] >= 0 else "",
             **{f"{key} log odds": f"{values[n]:.6f}" for key, values in told.raw.items()},
             **{key: f"{values[n]:.6f}" for key, values in told.probabilities.items()}}
            for n, name in enumerate(scans.names)]


def compare_fractions(run: Run) -> dict[str, list[float | None]]:
    """Train a classifier for each of `classify.compare_fractions` and seed; AUC by share; leaves comparison.json.

    Judged on the validation scans, which no trial saw; without their truth on those that each trial held out. Empty
    where there is nothing to compare; an older comparison.json is removed.
    """
    file, truth = run.classifier / "comparison.json", true_diagnoses(run.dataset)
    cases = {case.name: case for case in run.dataset.train + run.dataset.validation}
    compared: dict[str, list[float | None]] = {}
    for place, (settings, _) in trainings(run).items():
        if place.startswith("comparison/"):
            told = read_outputs(train(run, place))
            logits = told["validation"] if truth and "validation" in told else told["held out"]
            labels = np.array([truth.get(name, cases[name].glaucoma) for name in logits])
            auc = auc_interval(labels, list(logits.values()), [cases[name].person for name in logits]).mean
            share = f"{settings.classify.train_fraction:.0%} to train on"
            compared.setdefault(share, []).append(float(auc) if np.isfinite(auc) else None)
    if compared:
        write_json(file, compared)
    else:
        file.unlink(missing_ok=True)
    return compared
