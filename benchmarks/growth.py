"""How octkit and nnU-Net 2.8.1 grow with the number of scans, their pixels, and the cores: preparation, training steps,
prediction.

    PYTHONPATH=. .venv/bin/python benchmarks/growth.py --environment DIR [--only preparation training prediction]

DIR holds nnU-Net's own environment and is made where there is none. Each line changes one thing against the first of
its kind; both run once a round, in turn, on the same scans and confined to the same cores. Preparation and prediction
are whole commands, as in preparation.py and prediction.py, whose scans and network these are; training is seconds a
step, as in training.py, with augmentation. nnU-Net prepares with two processes. With --write the table goes into
benchmarks/README.md.
"""

import argparse
import os
import statistics
import sys
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import prediction
import preparation
import training
from versus import NNUNET, alternate, machine, nnunet_python, ratio, table, version_there, write_section

KINDS = ("preparation", "training", "prediction")


@contextmanager
def confined(cores: int):
    """This process, and all that it starts meanwhile, on so many cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def on_cores(cores: int, seconds):
    with confined(cores):
        return seconds()


def preparations(python: Path, scratch: Path):
    """(what, octkit, nnU-Net), each a call that gives seconds."""
    def seconds(run):
        return sum(step.seconds for step in run())

    for count, size, cores in ((10, "800x1100", 2), (40, "800x1100", 2), (10, "1600x1100", 2), (10, "800x1100", 1)):
        folder = scratch / f"preparation-{count}-{size}"
        if not folder.exists():
            preparation.make_scans(folder, count, size)
        yield (f"preparation of {count} scans, {size} px, {cores} cores",
               partial(on_cores, cores, partial(seconds, partial(preparation.prepare_ours, folder))),
               partial(on_cores, cores, partial(seconds, partial(preparation.prepare_theirs, folder, python, 2))))


def trainings(python: Path, scratch: Path, steps: int):
    """The same for seconds a step."""
    def seconds(run):
        return statistics.median(run()["seconds"][training.WARM_UP:])

    for size, batch, cores in (("200x275", 2, 2), ("200x275", 4, 2), ("400x275", 2, 2), ("200x275", 2, 1)):
        chosen = SimpleNamespace(size=size, batch=batch, cores=cores, steps=training.WARM_UP + steps, epochs=1,
                                 validation=1, workers=1, scans=20, before=None, device="cpu")
        folder = scratch / f"training-{size}-{batch}"
        if not folder.exists():
            training.prepare(folder, chosen, python)
        runs = training.contestants(folder, chosen, python)
        yield (f"training step, {training.patch(folder)}, {cores} cores", partial(seconds, runs["octkit"]),
               partial(seconds, runs["nnU-Net"]))


def predictions(python: Path, scratch: Path):
    """The same for whole commands with the network of GOALS, without mirrored copies."""
    ours, theirs = prediction.write_model(prediction.goals_model(), scratch)

    for count, size, cores in ((1, (800, 1100), 2), (3, (800, 1100), 2), (1, (1600, 1100), 2), (1, (800, 1100), 1)):
        our_scans, their_scans = prediction.write_scans(scratch / f"scans-{count}-{size[0]}", count, size)

        def our_seconds(scans=our_scans, cores=cores):
            return prediction.predict_with_octkit(ours, scans, scratch / "out", False, cores).seconds

        def their_seconds(scans=their_scans, cores=cores):
            return prediction.predict_with_nnunet(python, theirs, scans, scratch / "out.nnunet", False, cores,
                                                  scratch, ("-device", "cpu")).seconds

        yield (f"prediction of {count} scans, {size[0]}x{size[1]} px, {cores} cores",
               partial(on_cores, cores, our_seconds), partial(on_cores, cores, their_seconds))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--environment", type=Path, required=True, help="the folder of nnU-Net's environment")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10, help="training steps, after those that use what was ready")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    options = parser.parse_args()
    if (cores := len(os.sched_getaffinity(0))) < 2:
        sys.exit(f"found {cores} core, expected at least 2: with one nothing can be said about cores")
    python, rows = nnunet_python(options.environment), []
    with tempfile.TemporaryDirectory() as scratch:
        kinds = dict(zip(KINDS, (preparations, partial(trainings, steps=options.steps), predictions), strict=True))
        for kind in options.only:
            first = None
            for what, ours, theirs in kinds[kind](python, Path(scratch)):
                found = alternate({"octkit": ours, "nnU-Net": theirs}, options.rounds)
                medians = {name: statistics.median(found[name]) for name in found}
                first = first or medians
                cells = [f"{medians[name]:.2f} s (x {medians[name] / first[name]:.2f})" for name in medians]
                rows.append([what, *cells, f"{ratio(found['nnU-Net'], found['octkit']):.2f}"])
                print(*rows[-1], sep=" | ", flush=True)
    text = (f"{machine()}; nnU-Net {NNUNET} on torch {version_there(python, 'torch')}, octkit on torch "
            f"{version_there(sys.executable, 'torch')}; {options.rounds} rounds. In brackets: times the first line of "
            "its kind.\n\n" + table(["", "octkit", "nnU-Net", "nnU-Net / octkit"], rows))
    print(text)
    if options.write:
        write_section("How it grows", text)


if __name__ == "__main__":
    main()
