"""What a leak does to the networks' scores: the same training, its folds dealt by scan and by person.

    PYTHONPATH=. .venv/bin/python benchmarks/leak.py FOLDER [--epochs 50] [--seeds 2] [--write]

Phantoms, plan and trainings are those of profile claims; two folds, so that every scan is held out once, each way. Per
scan there is the mean Dice of its layers, and the ResNet50's log odds of glaucoma. The differences are scan by scan,
their intervals over people. Runs are kept in FOLDER: a stopped one goes on. With --write the table goes into
benchmarks/README.md.
"""

import argparse
import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from versus import PROJECT, machine, octkit_environment, table, write_section

from octkit.common import settings
from octkit.common.files import write_json
from octkit.evaluation.diagnosis import auc_gain, auc_interval
from octkit.evaluation.intervals import bootstrap_interval
from octkit.evaluation.metrics import dice_of_labels
from octkit.planning import steps
from octkit.planning.folds import make_splits
from octkit.planning.run import Run

FOLDS = 2


def prepared(folder: Path, how: str, seed: int, epochs: int) -> Run:
    """A run whose folds are dealt `how`: "by scan" takes each scan for a person of its own."""
    run = Run(folder / f"{how.replace(' ', '-')}-{seed}")
    if run.splits_file.exists():
        return run
    settings.with_overrides(settings.from_profile("claims"), [
        f"seed={seed}", f"data.dir={folder / 'data'}", f"splits.folds={FOLDS}", f"train.folds={list(range(FOLDS))}",
        f"train.epochs={epochs}"]).save(run.settings_file)
    steps.fingerprint_run(run)
    steps.plan_run(run)
    steps.preprocess_run(run, progress=False)
    alone = {"by scan": True, "by person": False}[how]
    cases = [replace(case, group=None) if alone else case for case in run.dataset.train]
    write_json(run.splits_file, make_splits(cases, FOLDS, seed))
    return run


def train(run: Run) -> None:
    """Both folds of U-Net and ResNet50, each in a process of its own as torch and paddle do not share one."""
    commands = [["train", run.folder, "--config", "2d", "--fold", fold] for fold in range(FOLDS)]
    for command in [*commands, ["classify", run.folder]]:
        subprocess.run([sys.executable, "-m", "octkit", *map(str, command)], check=True, cwd=PROJECT,
                       env=octkit_environment(2))


def held_out(run: Run) -> tuple[dict[str, float], dict[str, float]]:
    """Of each scan, by the networks that held it out: mean Dice of its layers, and log odds of glaucoma."""
    dice, odds = {}, {}
    for case in run.dataset.train:
        with np.load(run.cross_validation("2d", run.held_out[case.name]) / f"{case.name}.npz") as file:
            predicted = file["probabilities"].argmax(axis=0)
        dice[case.name] = float(np.nanmean(dice_of_labels(predicted, run.dataset.read_mask(case), 3)))
    for fold in range(FOLDS):
        with open(run.classifier / f"fold_{fold}" / "outputs.csv", newline="", encoding="utf-8") as file:
            odds |= {row["scan"]: float(row["log_odds"]) for row in csv.DictReader(file) if row["split"] == "held out"}
    return dice, odds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    folder = asked.folder.resolve()
    if not (folder / "data").exists():
        phantom = settings.from_profile("claims").data.phantom
        subprocess.run([sys.executable, "-m", "octkit", "phantom", folder / "data", "--train", str(phantom.train),
                        "--val", "1", "--size", "x".join(map(str, phantom.size)), "--seed", str(phantom.seed)],
                       check=True, cwd=PROJECT, env=octkit_environment(2))
    dice: dict[str, list] = {"by scan": [], "by person": []}
    odds: dict[str, list] = {"by scan": [], "by person": []}
    for seed in range(asked.seeds):
        for how in dice:
            run = prepared(folder, how, seed, asked.epochs)
            train(run)
            found = held_out(run)
            dice[how].append([found[0][case.name] for case in run.dataset.train])
            odds[how].append([found[1][case.name] for case in run.dataset.train])
    people, labels = [case.person for case in run.dataset.train], [case.glaucoma for case in run.dataset.train]
    mean = {how: np.mean(each, axis=0) for how, each in dice.items()}
    rows = [["Dice, mean of the layers", *(_shown(bootstrap_interval(mean[how], people)) for how in dice),
             _shown(bootstrap_interval(mean["by scan"] - mean["by person"], people), "+.4f")],
            # Log odds of a seed's two networks are on two scales, and are ranked together as they are.
            ["AUC of the ResNet50", *(_shown(auc_interval(labels, odds[how], people)) for how in odds),
             _shown(auc_gain(labels, odds["by person"], odds["by scan"], people)[0], "+.4f")]]
    text = (f"{machine()}. {len(labels)} phantoms of {len(set(people))} people, {FOLDS} folds, {asked.epochs} epochs, "
            f"{asked.seeds} seeds, whose Dice of a scan and whose AUCs are averaged; 95 % intervals over people.\n\n"
            + table(["held-out scans", "dealt by scan", "dealt by person", "what the leak adds"], rows))
    print(text)
    if asked.write:
        write_section("What a leak adds to networks' scores", text)


def _shown(interval, digits: str = ".4f") -> str:
    return f"{interval.mean:{digits}} [{interval.low:{digits}}, {interval.high:{digits}}]"


if __name__ == "__main__":
    main()
