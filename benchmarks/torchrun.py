"""What two processes of torchrun learn (gloo, on a CPU) beside what one does: the losses of 20 steps.

    PYTHONPATH=. .venv/bin/python benchmarks/torchrun.py FOLDER [--write]

Small phantoms, three patches a batch, so that the shares differ; 2-D and 3-D, Dice of the batch and of each sample,
with and without deep supervision. An epoch is one step. Of losses the largest difference is relative, of the weights at
the end absolute. With --write the table goes into benchmarks/README.md.
"""

import argparse
import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from versus import PROJECT, machine, octkit_environment, table, write_section

from octkit.common import settings
from octkit.common.files import read_json, write_json
from octkit.network.checkpoints import load_checkpoint
from octkit.planning import steps
from octkit.planning.run import Run

STEPS = 20
DATA = {"2d": ["--size", "64x96"], "3d_fullres": ["--kind", "macular", "--size", "8x64x96"]}


def octkit(*command) -> None:
    subprocess.run([sys.executable, *map(str, command)], check=True, cwd=PROJECT, env=octkit_environment(1),
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def prepared(folder: Path, config: str, batch_dice: bool, deep: bool) -> Run:
    data, run = folder / f"data-{config}", Run(folder / f"{config}-{batch_dice}-{deep}" / "one")
    if not data.exists():
        octkit("-m", "octkit", "phantom", data, "--train", 6, "--val", 1, *DATA[config])
    if not run.splits_file.exists():
        settings.with_overrides(settings.from_profile("smoke"), [
            f"data.dir={data}", "data.phantom=null", "plan.batch_size=3", f"train.epochs={STEPS}",
            "train.iterations_per_epoch=1", "train.workers=0", "train.initial_rate=0.0001",
            f"train.deep_supervision={str(deep).lower()}", "splits.folds=2", "train.folds=[0]"]).save(run.settings_file)
        steps.fingerprint_run(run)
        steps.plan_run(run)
        plan = read_json(run.plan_file)
        plan["configurations"][config]["batch_dice"]["value"] = batch_dice
        write_json(run.plan_file, plan)
        steps.preprocess_run(run, progress=False)
        steps.split_run(run)
    return run


def difference(one: Run, two: Run, config: str) -> list[str]:
    logs = [pd.read_csv(run.fold(config, 0) / "log.csv") for run in (one, two)]
    losses = [float(np.max(np.abs(logs[1][name] / logs[0][name] - 1))) for name in ("train_loss", "validation_loss")]
    weights = [load_checkpoint(run.fold(config, 0) / "checkpoint.pt")["network"] for run in (one, two)]
    apart = max(float((weights[1][name] - value).abs().max()) for name, value in weights[0].items())
    return [f"{value:.1e}" for value in (*losses, apart)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    rows = []
    for config, batch_dice, deep in itertools.product(DATA, (True, False), (True, False)):
        one = prepared(asked.folder.resolve(), config, batch_dice, deep)
        two = Run(one.folder.with_name("two"))
        if not two.folder.exists():
            shutil.copytree(one.folder, two.folder, ignore=shutil.ignore_patterns("models"))
        train = ["-m", "octkit", "train", "--config", config, "--fold", 0]
        octkit(*train, one.folder)
        octkit("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, *train, two.folder)
        rows.append([config, "batch" if batch_dice else "sample", "yes" if deep else "no",
                     *difference(one, two, config)])
        print(rows[-1], flush=True)
    text = (f"{machine()}; {STEPS} steps, rate 1e-4; the largest differences: of losses relative, of weights "
            "absolute.\n\n" + table(["configuration", "Dice of the", "deep supervision", "training loss",
                                     "validation loss", "weights"], rows))
    print(text)
    if asked.write:
        write_section("Two processes of torchrun beside one", text)


if __name__ == "__main__":
    main()
