"""Fingerprint, plan and preprocessing against nnU-Net 2.8.1: whole commands on the same scans, in turn.

    PYTHONPATH=. .venv/bin/python benchmarks/preparation.py --environment DIR [--counts 40] [--size 800x1100] [--write]

DIR holds nnU-Net's own environment and is made where there is none. octkit is its three commands one after the other,
each with its own start; nnU-Net is `nnUNetv2_plan_and_preprocess -c 2d`, with its own default of 8 processes and with
2. The preprocessed scans are compared value by value. With --write the table goes into benchmarks/README.md.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from versus import (
    NNUNET,
    Finished,
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

NAME = "Dataset001_OCT"


def make_scans(folder: Path, count: int, size: str) -> None:
    """Phantoms for both in FOLDER: octkit's data set and run, nnU-Net's raw data set."""
    from octkit.common import settings

    finished([sys.executable, "-m", "octkit", "phantom", folder / "data", "--train", count, "--val", 1, "--size", size],
             octkit_environment(1))
    finished([sys.executable, "-m", "octkit", "export-nnunet", folder / "data", "-o", folder / "nnUNet_raw" / NAME],
             octkit_environment(1))
    settings.with_overrides(settings.from_profile("goals"), [f"data.dir={folder / 'data'}", "plan.units=px"]).save(
        folder / "run" / "settings.json")


def prepare_ours(folder: Path) -> list[Finished]:
    """`octkit fingerprint`, `plan` and `preprocess` of a run without any of these."""
    run = folder / "run"
    shutil.rmtree(run / "preprocessed", ignore_errors=True)
    for name in ("fingerprint", "plan", "splits"):
        (run / f"{name}.json").unlink(missing_ok=True)
    return [finished([sys.executable, "-m", "octkit", command, run], octkit_environment(1))
            for command in ("fingerprint", "plan", "preprocess")]


def prepare_theirs(folder: Path, python: Path, processes: int | None) -> list[Finished]:
    """nnU-Net's one command for the three steps, with its own number of processes where None is given."""
    shutil.rmtree(folder / "nnUNet_preprocessed", ignore_errors=True)
    given = ["-npfp", processes, "-np", processes] if processes else []
    return [finished([python.parent / "nnUNetv2_plan_and_preprocess", "-d", "1", "-c", "2d", *given],
                     nnunet_environment(folder, 1))]


def largest_difference(folder: Path, python: Path) -> tuple[float, float]:
    """Between the two preprocessed images (z-scores), and the share of mask pixels that are equal."""
    theirs = folder / "nnUNet_preprocessed" / NAME / "nnUNetPlans_2d"
    # nnU-Net's files are blosc2's, which its environment opens; only there is that installed.
    code = ("import sys, numpy as np, nnunetv2.training.dataloading.nnunet_dataset as d; data = d.nnUNetDatasetBlosc2("
            "sys.argv[1]); [np.savez(sys.argv[2] + '/' + n, image=c[0][:], mask=c[1][:]) for n in data.identifiers "
            "for c in [data.load_case(n)]]")
    out = folder / "theirs"
    out.mkdir()
    finished([python, "-c", code, theirs, out], nnunet_environment(folder, 1))
    apart, equal = 0.0, []
    for path in sorted(out.glob("*.npz")):
        found, ours = np.load(path), folder / "run" / "preprocessed" / "2d"
        image, mask = (np.load(ours / f"{path.stem}.{kind}.npy") for kind in ("image", "mask"))
        apart = max(apart, float(np.abs(image - found["image"].reshape(image.shape)).max()))
        # nnU-Net marks black pixels outside the tissue by -1, which it trains as background.
        equal.append(float((mask == np.maximum(found["mask"], 0).reshape(mask.shape)).mean()))
    return apart, min(equal)


def compared(count: int, options, python: Path, scratch: Path) -> list[list]:
    """Rows of the table for so many scans."""
    folder = scratch / str(count)
    make_scans(folder, count, options.size)
    runs = {"octkit": partial(prepare_ours, folder)}
    for processes in (None, 2):
        name = f"nnU-Net, {f'{processes} processes' if processes else 'as it comes (8 processes)'}"
        runs[name] = partial(prepare_theirs, folder, python, processes)
    found = alternate(runs, options.rounds)
    apart, equal = largest_difference(folder, python)
    seconds = {name: [sum(step.seconds for step in steps) for steps in rounds] for name, rounds in found.items()}
    return [[count, name, f"{statistics.median(seconds[name]):.1f} s", ", ".join(f"{s:.1f}" for s in seconds[name]),
             f"{statistics.median(sum(step.processor for step in steps) for steps in found[name]):.1f} s",
             f"{max(step.peak_mb for steps in found[name] for step in steps):.0f} MB",
             "" if name == "octkit" else f"**{ratio(seconds[name], seconds['octkit']):.1f}**",
             f"{apart:.1e}, {equal:.4%}" if name == "octkit" else ""] for name in found]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--environment", type=Path, required=True, help="the folder of nnU-Net's environment")
    parser.add_argument("--counts", type=int, nargs="+", default=[40], help="numbers of scans")
    parser.add_argument("--size", default="800x1100", help="of the phantoms; default: GOALS's")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    python = nnunet_python(options.environment)
    with tempfile.TemporaryDirectory() as scratch:
        rows = [row for count in options.counts for row in compared(count, options, python, Path(scratch))]
    text = (f"{machine()}; nnU-Net {NNUNET} on torch {version_there(python, 'torch')}. Scans of {options.size} px; "
            "wall seconds of whole commands.\n\n"
            + table(["scans", "", "wall (median)", "by round", "processor", "peak memory of a process",
                     "nnU-Net / octkit", "z-scores differ by, equal mask pixels"], rows))
    print(text)
    if options.write:
        write_section("Preparation against nnU-Net", text)


if __name__ == "__main__":
    main()
