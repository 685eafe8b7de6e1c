"""Training against nnU-Net 2.8.1: steps a second with augmentation, and what is learned.

    PYTHONPATH=. .venv/bin/python benchmarks/training.py --environment DIR              seconds a step, in turn
                                               … --curves FIGURE.png                    pseudo-Dice by epoch, seeds
                                               … --curves FIGURE.png --before CHECKOUT  also by another octkit

DIR holds nnU-Net's own environment and is made where there is none. Both learn from the same phantoms with the same
plan (checked: patch, batch, maps, strides), their own augmentation and loading, and run as their commands do: octkit
as `octkit train`, nnU-Net as `nnUNetv2_train -device DEVICE`, whose trainer is given fewer epochs and steps and no
checkpoint. A step's time is that between the ends of two steps, the wait for data included; the first steps are left
out, which use what the workers have made before and in which octkit's network is compiled. With --write the table goes
into benchmarks/README.md.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from functools import partial
from itertools import pairwise
from pathlib import Path

from versus import (
    NNUNET,
    alternate,
    finished,
    machine,
    nnunet_environment,
    nnunet_python,
    octkit_environment,
    ratio,
    table,
    version_there,
    write_section,
)

WARM_UP = 6  # steps: nnU-Net's workers keep up to six batches
ANSWER = "answer: "  # begins the line of a child's output that is for its parent


def prepare(folder: Path, options, python: Path) -> None:
    """All that both need to train, in FOLDER, from the same phantoms."""
    finished([sys.executable, "-m", "octkit", "phantom", folder / "data", "--train", options.scans, "--val",
              options.judged, "--size", options.size], octkit_environment(1))
    for run, environment in ours(options).items():  # each by its own code: an older one reads no newer run
        finished([sys.executable, Path(__file__).resolve(), "--child", "prepare", "--folder", folder, "--run", run,
                  f"--batch={options.batch}", f"--maps={options.maps}", f"--device={options.device}"], environment)
    prepare_theirs(folder, options, python)


def ours(options) -> dict[str, dict[str, str]]:
    """The folder of each octkit's run, and the environment variables that lead to its code."""
    environment = octkit_environment(options.cores)
    before = {"run-before": environment | {"PYTHONPATH": str(options.before.resolve())}} if options.before else {}
    return {"run": environment} | before


def prepare_ours(folder: Path, options) -> None:
    """The run's folder with all that training needs, from the data set in FOLDER/data."""
    from octkit.common import settings
    from octkit.data.layouts import detect
    from octkit.planning import fingerprint, steps
    from octkit.planning.run import Run

    run = folder / options.run
    chosen = settings.with_overrides(settings.from_profile("goals"), [
        f"data.dir={folder / 'data'}", f"device={options.device}", "plan.units=px", f"plan.batch_size={options.batch}",
        f"plan.base_features={options.maps}", f"plan.max_features={16 * options.maps}"])
    chosen.save(run / "settings.json")
    fingerprint.extract(detect.open_run(chosen), units="px").save(run / "fingerprint.json")
    steps.plan_run(Run(run))
    steps.preprocess_run(Run(run), progress=False)
    steps.split_run(Run(run))


def train_ours(folder: Path, options) -> dict:
    """Fold 0 by `train_fold`, in the process that calls this: seconds of each step, losses, pseudo-Dice by epoch."""
    import pandas as pd

    from octkit.common import settings
    from octkit.planning.run import Run
    from octkit.training import train

    run = folder / options.run
    base = settings.load(run / "settings.json")
    settings.with_overrides(base, [
        f"seed={options.seed}", f"train.epochs={options.epochs}", f"train.iterations_per_epoch={options.steps}",
        f"train.validation_iterations={options.validation}", f"train.workers={options.workers}",
        # As in the profile: where the processor has bfloat16, and compiled as its many steps would be.
        "train.precision=bfloat16", *(f"train.{name}={value}" for name, value in (
            ("compile", "always"), ("dropped_outputs", options.dropped)) if name in base.train.model_dump()),
    ]).save(run / "settings.json")
    clock, step = Clock(options.device), train.Training.step

    def timed(*arguments):
        loss = step(*arguments)
        clock.mark()
        return loss

    train.Training.step = timed
    where = train.train_fold(Run(run), "2d", 0, resume=False, progress=False)
    log = pd.read_csv(where / "log.csv")
    dice = log.filter(regex="^dice_").mean(axis=1)
    return clock.found() | {"loss": log["train_loss"].tolist(), "dice": dice.tolist()}


def prepare_theirs(folder: Path, options, python: Path) -> None:
    """nnU-Net's folders in FOLDER, from the same data set; its plan gets the batch and maps asked for, nothing else."""
    import numpy as np

    from octkit.planning.plan import Plan

    environment = nnunet_environment(folder, options.cores)
    finished([sys.executable, "-m", "octkit", "export-nnunet", folder / "data", "-o",
              folder / "nnUNet_raw" / "Dataset001_OCT"], octkit_environment(1))
    finished([python.parent / "nnUNetv2_plan_and_preprocess", "-d", "1", "-c", "2d", "-np", "2", "-npfp", "2"],
             environment)
    path = folder / "nnUNet_preprocessed" / "Dataset001_OCT" / "nnUNetPlans.json"
    plans = json.loads(path.read_text(encoding="utf-8"))
    asked = plans["configurations"]["2d"]
    asked["batch_size"], network = options.batch, asked["architecture"]["arch_kwargs"]
    network["features_per_stage"] = [maps * options.maps // 32 for maps in network["features_per_stage"]]
    path.write_text(json.dumps(plans), encoding="utf-8")
    ours = Plan.load(folder / "run" / "plan.json").configurations["2d"]
    for name, found, expected in (("patch_size", asked["patch_size"], ours.patch_size),
                                  ("batch_size", asked["batch_size"], ours.batch_size),
                                  ("features", network["features_per_stage"], ours.features),
                                  ("strides", network["strides"], ours.strides)):
        if np.any(np.array(found) != np.array(expected)):
            sys.exit(f"the plans differ in {name}: nnU-Net's {found}, octkit's {expected}")


def train_theirs(folder: Path, options) -> dict:
    """The same by nnU-Net's trainer, in its own environment."""
    import multiprocessing

    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    # As its command line does:
    torch.set_num_threads(min(multiprocessing.cpu_count(), options.cores) if options.device == "cpu" else 1)
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(options.seed)
    preprocessed = folder / "nnUNet_preprocessed" / "Dataset001_OCT"
    plans, dataset = (json.loads((preprocessed / name).read_text(encoding="utf-8"))
                      for name in ("nnUNetPlans.json", "dataset.json"))
    trainer = nnUNetTrainer(plans | {"continue_training": False}, "2d", 0, dataset, torch.device(options.device))
    trainer.num_epochs, trainer.num_iterations_per_epoch = options.epochs, options.steps
    trainer.num_val_iterations_per_epoch, trainer.disable_checkpointing = options.validation, True
    clock, step = Clock(options.device), trainer.train_step

    def timed(batch):
        found = step(batch)
        clock.mark()
        return found

    trainer.train_step = timed
    trainer.on_train_start()
    try:
        for _ in range(options.epochs):  # run_training without its end, which writes and reads checkpoints
            trainer.on_epoch_start()
            trainer.on_train_epoch_start()
            trainer.on_train_epoch_end([trainer.train_step(next(trainer.dataloader_train))
                                        for _ in range(options.steps)])
            with torch.no_grad():
                trainer.on_validation_epoch_start()
                trainer.on_validation_epoch_end([trainer.validation_step(next(trainer.dataloader_val))
                                                 for _ in range(options.validation)])
            trainer.on_epoch_end()
    finally:
        for loader in (trainer.dataloader_train, trainer.dataloader_val):
            loader._finish()
    if options.keep:
        trainer.disable_checkpointing = False
        trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    logged = [[float(trainer.logger.get_value(key, step=epoch)) for epoch in range(options.epochs)]
              for key in ("train_losses", "mean_fg_dice")]
    return clock.found() | {"loss": logged[0], "dice": logged[1]}


class Clock:
    """Seconds between marks; on a GPU by its own events, which are put among its work and do not stop it."""

    def __init__(self, device: str):
        self.gpu, self.marks, self.walls = device == "cuda", [], []

    def mark(self) -> None:
        self.walls.append(time.time())
        if not self.gpu:
            self.marks.append(time.perf_counter())
            return
        import torch

        self.marks.append(torch.cuda.Event(enable_timing=True))
        self.marks[-1].record()

    def found(self) -> dict[str, list[float]]:
        """The seconds, the time of day of each mark, and in MB the most that torch took of a GPU's memory."""
        if not self.gpu:
            return {"seconds": [b - a for a, b in pairwise(self.marks)], "walls": self.walls, "gpu_mb": None}
        import torch

        torch.cuda.synchronize()
        return {"seconds": [a.elapsed_time(b) / 1000 for a, b in pairwise(self.marks)], "walls": self.walls,
                "gpu_mb": torch.cuda.max_memory_reserved() / 1e6}


def ask(command: list, environment: dict, options, seed: int, cores: int) -> dict:
    """Run a contestant in a process of its own, on so many cores; its answer, its peak memory added."""
    given = [f"--{name}={getattr(options, name)}" for name in ("epochs", "steps", "validation", "workers", "device",
                                                          "dropped")]
    given += ["--keep"] * options.keep
    available = sorted(os.sched_getaffinity(0))[:cores]
    if len(available) < cores:
        sys.exit(f"found {len(available)} cores, expected at least {cores} (--cores)")
    run = finished(["taskset", "-c", ",".join(map(str, available)), *command, *given, f"--seed={seed}",
                    f"--cores={cores}"], environment)
    line = next(line for line in run.output.splitlines() if line.startswith(ANSWER))
    return json.loads(line.removeprefix(ANSWER)) | {"peak_mb": run.peak_mb}


def contestants(folder: Path, options, python: Path, seed: int = 0) -> dict:
    script = Path(__file__).resolve()
    found = {"nnU-Net": partial(ask, [python, script, "--child", "theirs", "--folder", folder],
                                nnunet_environment(folder, options.cores), options, seed, options.cores)}
    for name, (run, environment) in zip(("octkit", "octkit before"), ours(options).items(), strict=False):
        command = [sys.executable, script, "--child", "ours", "--folder", folder, "--run", run]
        found[name] = partial(ask, command, environment, options, seed, options.cores)
    return found


def speed(folder: Path, options, python: Path) -> str:
    found = alternate(contestants(folder, options, python), options.rounds)
    medians = {name: [statistics.median(run["seconds"][WARM_UP:]) for run in runs] for name, runs in found.items()}
    rows = [[name, f"{statistics.median(medians[name]):.2f} s", ", ".join(f"{value:.2f}" for value in medians[name]),
             f"{max(run['peak_mb'] for run in found[name]):.0f} MB",
             f"{statistics.median(run['loss'][-1] for run in found[name]):.2f}"] for name in found]
    return (f"{patch(folder)}, {options.steps - WARM_UP} steps after {WARM_UP}, {options.workers} workers of octkit's "
            f"and nnU-Net's own number, {options.cores} cores.\n\n"
            + table(["", "a step (median)", "by round", "peak memory, without workers", "mean loss"], rows)
            + f"\n\nnnU-Net / octkit: **{ratio(medians['nnU-Net'], medians['octkit']):.2f}**.")


def curves(folder: Path, options, python: Path) -> str:
    found = {}
    for seed in range(options.seeds):
        for name, runs in alternate(contestants(folder, options, python, seed), 1).items():
            found.setdefault(name, []).extend(runs)
    draw_curves(found, options)
    last = {name: [run["dice"][-1] for run in runs] for name, runs in found.items()}
    rows = [[name, ", ".join(f"{dice:.3f}" for dice in last[name]), f"{statistics.mean(last[name]):.3f}",
             f"{statistics.median(second for run in runs for second in run['seconds']):.2f} s"]
            for name, runs in found.items()]
    return (f"{patch(folder)}, {options.epochs} epochs of {options.steps} steps, seeds 0 to {options.seeds - 1}; mean "
            "pseudo-Dice of the layers on held-out patches after the last epoch.\n\n"
            + table(["", "by seed", "mean", "a step"], rows))


def draw_curves(found: dict, options) -> None:
    """Pseudo-Dice by epoch: the mean over seeds, and the seeds' range."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    import numpy as np

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    epochs = np.arange(1, options.epochs + 1)
    styles = (("#d55e00", "-"), ("#0072b2", "-"), ("#009e73", "--"))  # what equals another shows through its dashes
    for (name, runs), (colour, line) in zip(found.items(), styles, strict=False):
        dice = np.array([run["dice"] for run in runs])
        axes.plot(epochs, dice.mean(0), line, color=colour, label=name)
        axes.fill_between(epochs, dice.min(0), dice.max(0), color=colour, alpha=0.2, linewidth=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel=f"epoch of {options.steps} steps", ylabel="pseudo-Dice, mean of the layers",
             title=f"The same plan and scans: mean and range of {options.seeds} seeds")
    axes.legend()
    figure.savefig(options.curves, dpi=120)


def patch(folder: Path) -> str:
    from octkit.planning.plan import Plan

    configuration = Plan.load(folder / "run" / "plan.json").configurations["2d"]
    height, width = configuration.patch_size
    maps = configuration.features
    return f"{height} x {width} px, batch {configuration.batch_size}, {maps[0]} to {maps[-1]} maps"


def arguments() -> argparse.ArgumentParser:
    """The options that parity.py has as well."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--environment", type=Path, help="the folder of nnU-Net's environment")
    parser.add_argument("--size", default="200x275", help="of the phantoms; default: a quarter of GOALS's")
    parser.add_argument("--scans", type=int, default=20)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--maps", type=int, default=32, help="of the first stage")
    parser.add_argument("--steps", type=int, default=WARM_UP + 20)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--validation", type=int, default=1, help="validation steps an epoch")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--workers", type=int, default=1, help="octkit's train.workers")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="another octkit to compare with")
    parser.add_argument("--write", metavar="HEADING", help="the section of benchmarks/README.md to put the table in")
    for hidden, kind in (("--child", str), ("--folder", Path), ("--run", str), ("--seed", int)):
        parser.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    parser.add_argument("--judged", type=int, default=1, help=argparse.SUPPRESS)  # validation scans
    parser.add_argument("--dropped", type=int, default=2, help=argparse.SUPPRESS)  # octkit's train.dropped_outputs
    parser.add_argument("--keep", action="store_true", help=argparse.SUPPRESS)  # nnU-Net's last checkpoint
    return parser


def main() -> None:
    parser = arguments()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--curves", type=Path, metavar="FIGURE", help="compare what is learned instead")
    options = parser.parse_args()
    if options.child:
        run = {"prepare": prepare_ours, "ours": train_ours, "theirs": train_theirs}[options.child]
        print("\n" + ANSWER + json.dumps(run(options.folder, options)), flush=True)
        return
    if not options.environment:
        parser.error("--environment: expected the folder of nnU-Net's environment")
    python = nnunet_python(options.environment)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepare(folder, options, python)
        text = curves(folder, options, python) if options.curves else speed(folder, options, python)
    versions = f"nnU-Net {NNUNET} on torch {version_there(python, 'torch')}, octkit on torch " \
               f"{version_there(sys.executable, 'torch')}"
    text = f"{machine()}; {versions}. {text}"
    print(text)
    if options.write:
        write_section(options.write, text)


if __name__ == "__main__":
    main()
