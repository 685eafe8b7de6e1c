"""Prediction against nnU-Net 2.8.1: the same weights, the same scans, whole commands, in turn.

    PYTHONPATH=. .venv/bin/python benchmarks/prediction.py --environment DIR     time, cold and warm, and peak memory
                                                  … --mirror                     the same, over mirrored copies
                                                  … --agree default reports/demo     masks of trained models

DIR holds nnU-Net's own environment and is made where there is none. Time is taken with the network that the recipe
plans for GOALS (patch 896 x 1152, 32 to 512 maps, random weights) on phantoms of 800 x 1100 px; its labels have other
names than the layers', so that no boundaries are drawn (surfaces.py times these). Cold is `octkit
predict` and `nnUNetv2_predict_from_modelfolder` with one scan, start-up included; warm is what each further scan adds.
Agreement is between the most probable labels of a trained model's own windows: circles and ordered boundaries, which
nnU-Net does not have, are left out. With --write the table goes into benchmarks/README.md.
"""

import argparse
import os
import statistics
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
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

SIZE = (800, 1100)  # GOALS
RECORD = {"mean": 110.0, "std": 55.0, "median": 105.0, "min": 0.0, "max": 255.0, "percentile_00_5": 8.0,
          "percentile_99_5": 236.0}
LABELS = ("first", "second", "third")
OURS = Path(sys.executable)


def goals_model(size: tuple[int, int] = SIZE):
    """The network that is planned for 100 scans of GOALS's size, with random weights, as profile `goals` has it."""
    import torch

    from octkit.network.model import Member, Model, build_network
    from octkit.planning.fingerprint import Fingerprint
    from octkit.planning.planner import plan_experiment

    cases = 100
    fingerprint = Fingerprint(((1.0, 1.0),) * cases, (size,) * cases, ("OCT",), LABELS, (RECORD,), "px")
    plan = plan_experiment(fingerprint)
    torch.manual_seed(0)
    weights = build_network(plan, "2d", False).state_dict()
    return Model(plan, (Member("2d", {"0": weights}),), LABELS, False, (-2, -1), 0.5, "bfloat16")


def as_nnunet_would(model):
    """A trained model without what nnU-Net has not: circles, ordered boundaries, post-processing; one fold."""
    [member] = model.members
    fold = next(iter(member.weights))
    return replace(model, members=(replace(member, weights={"0": member.weights[fold]}),), circle=False,
                   surfaces=False, postprocessing=(), step=0.5)


def write_model(model, folder: Path) -> tuple[Path, Path]:
    """The model for both: our file, and nnU-Net's folder."""
    from octkit.exchange.nnunet_models import export_model
    from octkit.network.model_file import save_model

    save_model(model, folder / "model.zip", {"name": "benchmark"})
    [exported] = export_model(model, folder / "nnunet")
    return folder / "model.zip", exported


def write_scans(folder: Path, count: int, size: tuple[int, int] = SIZE) -> tuple[Path, Path]:
    """Phantoms as both want them: a folder of PNGs each, nnU-Net's with the channel's number in the name."""
    from octkit.data.image_files import write_png
    from octkit.phantoms.circle_scans import draw

    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        glaucoma = [number % 2 == 1 for number in range(count)]
        drawn = pool.map(draw, range(500, 500 + count), [size] * count, [None] * count, glaucoma)
        for number, phantom in enumerate(drawn):
            pixels = phantom.image.astype(np.uint8)
            write_png(folder / "octkit" / f"scan{number}.png", pixels)
            write_png(folder / "nnunet" / f"scan{number}_0000.png", pixels)
    return folder / "octkit", folder / "nnunet"


def predict_with_octkit(model: Path, scans: Path, out: Path, mirror: bool, threads: int, more: tuple = ()):
    command = [OURS, "-m", "octkit", "predict", model, scans, "-o", out, "--mirror" if mirror else "--no-mirror", *more]
    return finished(command, octkit_environment(threads))


def predict_with_nnunet(python: Path, model: Path, scans: Path, out: Path, mirror: bool, threads: int, scratch: Path,
                        more: tuple = ()):
    command = [python.parent / "nnUNetv2_predict_from_modelfolder", "-i", scans, "-o", out, "-m", model, "-f", "0",
               *(() if mirror else ("--disable_tta",)), *more]
    return finished(command, nnunet_environment(scratch, threads))


def told(name: tuple[str, int], run):
    """What a run gave, printed at once: the whole takes minutes."""
    found = run()
    print(f"{name[0]}, {name[1]} scans: {found.seconds:.1f} s, {found.processor:.1f} s of processor, "
          f"{found.peak_mb:.0f} MB", flush=True)
    return found


def times(options, python: Path, scratch: Path) -> str:
    ours, theirs = write_model(goals_model(options.size), scratch)
    counts = (1, 1 + options.further)
    scans = {count: write_scans(scratch / f"scans{count}", count, options.size) for count in counts}
    runs = {}
    for count, (our_scans, their_scans) in scans.items():
        for precision in options.precisions:
            runs[f"octkit {precision}", count] = partial(
                predict_with_octkit, ours, our_scans, scratch / "out", options.mirror, options.threads,
                ("--precision", precision))
        runs["nnU-Net", count] = partial(predict_with_nnunet, python, theirs, their_scans, scratch / "out.nnunet",
                                         options.mirror, options.threads, scratch, ("-device", options.device))
    found = alternate({name: partial(told, name, run) for name, run in runs.items()}, options.rounds)
    rows, precisions = [], []
    measured = {name: _measured(found[name, 1], found[name, counts[1]], options.further)
                for name in dict.fromkeys(name for name, _ in runs)}
    for name in measured:
        if name == "nnU-Net":
            continue
        precisions.append(next(line for line in found[name, 1][0].output.splitlines() if "prediction runs on" in line))
        for what, digits, unit in (("cold, one scan", 1, "s"), ("each further scan", 2, "s"),
                                   ("peak memory of the largest process", 0, "MB")):
            values = {who: measured[who][what] for who in ("nnU-Net", name)}
            rows.append([f"{name}: {what}", *(f"{statistics.median(v):.{digits}f} {unit}" for v in values.values()),
                         f"**{ratio(*values.values()):.2f}**",
                         ", ".join(f"{a:.{digits}f}/{b:.{digits}f}" for a, b in zip(*values.values(), strict=True))])
    kind = "averaged over four mirrored copies" if options.mirror else "no mirrored copies"
    return (f"{kind}; {options.threads} threads; {options.rounds} rounds; {'; '.join(precisions)}\n\n"
            + table(["", "nnU-Net", "octkit", "times", "each round"], rows))


def _measured(single: list, several: list, further: int) -> dict[str, list[float]]:
    """Seconds of one scan, of each further one, and MB, round by round, of runs with one scan and with several."""
    return {"cold, one scan": [run.seconds for run in single],
            "each further scan": [(more.seconds - one.seconds) / further
                                  for one, more in zip(single, several, strict=True)],
            "peak memory of the largest process": [max(one.peak_mb, more.peak_mb)
                                                   for one, more in zip(single, several, strict=True)]}


def agreement(options, python: Path, scratch: Path) -> str:
    from octkit.evaluation.metrics import dice
    from octkit.network.model_file import open_model

    rows = []
    ways = [(), ("--precision", "float32")]
    for number, name in enumerate(options.agree):
        folder = scratch / f"model{number}"
        model = as_nnunet_would(open_model(name, folds=[0] if Path(name).is_dir() else None))
        ours, theirs = write_model(replace(model, precision="bfloat16"), folder)
        our_scans, their_scans = write_scans(folder / "scans", options.further + 1, options.size)
        predict_with_nnunet(python, theirs, their_scans, folder / "out.nnunet", options.mirror, options.threads,
                            scratch, ("-device", "cpu", "--save_probabilities"))
        for way in ways:
            run = predict_with_octkit(ours, our_scans, folder / "out", options.mirror, options.threads,
                                      ("--probabilities", *way))
            runs_on = next(line for line in run.output.splitlines() if "prediction runs on" in line)
            equal, largest, scores = [], [], []
            for scan in sorted((folder / "out").glob("*.npz")):
                a = np.load(scan)["probabilities"]
                b = np.load(folder / "out.nnunet" / scan.name)["probabilities"].reshape(a.shape)
                largest.append(np.abs(a - b).max())
                a, b = a.argmax(0), b.argmax(0)
                equal.append((a == b).mean())
                scores.append([dice(a, b, label) for label in range(1, 4)])
            rows.append([name, runs_on.removeprefix("prediction runs on "), len(equal), f"{100 * np.mean(equal):.4f} %",
                         f"{100 * np.min(equal):.4f} %", f"{np.max(largest):.1e}", f"{np.nanmin(scores):.5f}"])
    return table(["trained model", "octkit runs on", "scans", "equal pixels", "worst scan",
                  "largest difference of a probability", "smallest Dice between both"], rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--environment", type=Path, required=True, help="nnU-Net's environment, made if missing")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--further", type=int, default=2, help="scans beyond the first")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--mirror", action="store_true")
    parser.add_argument("--agree", nargs="+", metavar="MODEL", help="compare the masks of trained models, "
                        "of runs fold 0, instead")
    parser.add_argument("--precisions", nargs="+", default=["bfloat16", "float32"], help="what octkit computes in")
    parser.add_argument("--size", type=lambda text: tuple(map(int, text.split("x"))), default=SIZE,
                        metavar="ROWSxA_SCANS", help="of the scans")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of nnU-Net; octkit takes a GPU that "
                        "it finds")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    options = parser.parse_args()
    python = nnunet_python(options.environment)
    with tempfile.TemporaryDirectory() as scratch:
        text = (agreement if options.agree else times)(options, python, Path(scratch))
    text = (f"{machine()}; torch {version_there(OURS, 'torch')}; nnU-Net {NNUNET} "
            f"on torch {version_there(python, 'torch')}; {text}")
    print(text)
    if options.write:
        kind = "agreement" if options.agree else "mirrored" if options.mirror else "plain"
        write_section(f"Prediction against nnU-Net: {kind}", text)


if __name__ == "__main__":
    main()
