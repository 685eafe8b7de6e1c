"""How many corrected scans a model needs to learn another look: 0, 5, 10, 20 and 40, with intervals.

    PYTHONPATH=. .venv/bin/python benchmarks/fine_tuning.py reports/demo FOLDER [--seeds 2] [--write]

The run's model has learned from phantoms of one kind of device. It is trained on from there (`train.start_from`) with
so many phantoms of varied devices, their masks as a careful hand would have corrected them, and judged on 60 others,
once with each seed. Without any it is the model as it is. Dice is by scan, the mean of its layers, averaged over seeds;
the phantoms of a larger number include those of a smaller. FOLDER keeps what has ended, and gets the figure. With
--write the table goes into benchmarks/README.md.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from versus import PROJECT, machine, octkit_environment, table, write_section

COUNTS = (0, 5, 10, 20, 40)
JUDGED, SEED = 60, 500  # scans; of the phantoms to learn from, those to judge by have the next one


def phantoms(folder: Path, train: int, judged: int, size: str, seed: int) -> Path:
    if not folder.exists():
        subprocess.run([sys.executable, "-m", "octkit", "phantom", folder, "--train", str(train), "--val", str(judged),
                        "--size", size, "--seed", str(seed), "--looks", "varied"], check=True, cwd=PROJECT,
                       env=octkit_environment(2))
    return folder


def fine_tuned(source: Path, folder: Path, data: Path, count: int, seed: int, options) -> Path:
    """The run that goes on from `source` with `count` scans; `source` itself for none."""
    from octkit.common import settings
    from octkit.planning import steps
    from octkit.planning.run import Run
    from octkit.training.train import train_fold

    if not count:
        return source
    run = Run(folder / f"run-{count}-{seed}")
    if not run.splits_file.exists():
        settings.with_overrides(Run(source).settings, [
            f"data.dir={data}", "data.phantom=null", f"seed={seed}", f"train.start_from={source}",
            'train.folds=["all"]', f"train.epochs={options.epochs}", f"train.initial_rate={options.rate}",
        ]).save(run.settings_file)
        steps.fingerprint_run(run)
        steps.plan_run(run)
        steps.preprocess_run(run, progress=False)
        steps.split_run(run)
    train_fold(run, "2d", "all", progress=False)
    return run.folder


def dice(model: Path, judged: Path, kept: Path) -> list[float]:
    """The mean Dice of each scan's layers, of the most probable labels."""
    from octkit.data.layouts.detect import open_dataset
    from octkit.evaluation.metrics import dice_of_labels
    from octkit.inference.sliding_window import Predictor

    if not kept.exists():
        dataset, predictor = open_dataset(judged), Predictor.load(model)
        found = [float(np.nanmean(dice_of_labels(
            predictor(dataset.read_image(case), case.spacing, circle=True).argmax(0), dataset.read_truth(case), 3)))
            for case in dataset.validation]
        kept.write_text(json.dumps(found), encoding="utf-8")
    return json.loads(kept.read_text(encoding="utf-8"))


def draw(rows: list, path: Path) -> None:
    """Dice against the number of corrected scans, with its interval."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    means = np.array([one.mean for one in rows])
    bars = np.abs(np.array([[one.low for one in rows], [one.high for one in rows]]) - means)
    axes.errorbar(range(len(COUNTS)), means, bars, fmt="o-", color="#0072b2", capsize=4)
    axes.set(xticks=range(len(COUNTS)), xticklabels=COUNTS, xlabel="corrected scans of the other look",
             ylabel="mean Dice of the layers")
    figure.savefig(path, dpi=120)


def main() -> None:
    from octkit.data.layouts.detect import open_dataset
    from octkit.evaluation.intervals import bootstrap_interval
    from octkit.planning.run import Run

    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    source, folder = asked.run.resolve(), asked.folder.resolve()
    size = "x".join(map(str, Run(source).settings.data.phantom.size))
    judged = phantoms(folder / "judged", 1, JUDGED, size, SEED + 1)
    people = [case.person for case in open_dataset(judged).validation]
    tables = []
    for count in COUNTS:
        each = []
        for seed in range(asked.seeds if count else 1):
            data = phantoms(folder / f"corrected-{count}", count, 1, size, SEED) if count else judged
            model = fine_tuned(source, folder, data, count, seed, asked)
            each.append(dice(model, judged, folder / f"dice-{count}-{seed}.json"))
            print(count, seed, np.mean(each[-1]), flush=True)
        tables.append(each)
    found = [bootstrap_interval(np.mean(each, axis=0), people) for each in tables]
    gains = [bootstrap_interval(np.mean(each, axis=0) - tables[0][0], people) for each in tables]
    draw(found, folder / "fine_tuning.png")
    rows = [[count, f"{one.mean:.4f} [{one.low:.4f}, {one.high:.4f}]",
             "" if not count else f"{gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]",
             ", ".join(f"{np.mean(seed):.4f}" for seed in each)]
            for count, one, gain, each in zip(COUNTS, found, gains, tables, strict=True)]
    steps_of = asked.epochs * Run(source).settings.train.iterations_per_epoch
    text = (f"{machine()}. From {source.name}, {steps_of} steps each, {asked.seeds} seeds; {len(people)} phantoms of "
            f"{len(set(people))} people with varied looks of {size} px; 95 % intervals over people.\n\n"
            + table(["corrected scans", "mean Dice", "more than without", "by seed"], rows))
    print(text)
    if asked.write:
        write_section("How many corrected scans fine-tuning needs", text)


if __name__ == "__main__":
    main()
