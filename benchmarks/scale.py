"""The pieces that predicting many scans over many workers is made of, each measured; docs/scale.md adds them up.

    PYTHONPATH=. .venv/bin/python benchmarks/scale.py [--listed 1000] [--calls 500] [--simulated 100] [--write]

Of a phantom of GOALS's size with the model in the box: reading, networks, boundaries, writing, one after the other, and
a scan's share of a whole folder. Of a folder: what is done before its first scan. Of Dask: seconds a call that does
nothing, with two workers in processes of their own and with simulated ones, threads of one process. With --write the
tables go into benchmarks/README.md.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from functools import partial
from math import prod
from pathlib import Path

import torch
from versus import PROJECT, machine, octkit_environment, seconds_of, table, write_section

from octkit.common import cluster
from octkit.figures.overlays import Overlays
from octkit.inference import predict
from octkit.inference.predict_folder import predict_folder
from octkit.inference.scan_result import ask, read_off
from octkit.inference.sliding_window import Predictor, window_starts

SCANS, SIZE, UM = 4, "800x1100", (3.87, 9.9)


def phantoms(folder: Path, count: int, size: str) -> Path:
    subprocess.run([sys.executable, "-m", "octkit", "phantom", folder, "--train", "1", "--val", str(count),
                    "--size", size], check=True, cwd=PROJECT, env=octkit_environment(2), capture_output=True)
    return folder / "Validation" / "Image"


def of_a_scan(work: Path) -> tuple[list, dict]:
    """Rows of seconds a scan, and what a scan leaves: files and bytes, without its picture."""
    images, scans, spent = phantoms(work / "phantoms", SCANS + 1, SIZE), [], {}
    imports = statistics.median(seconds_of(lambda: subprocess.run(
        [sys.executable, "-c", "import octkit.inference.predict, octkit.figures.overlays"], check=True, cwd=PROJECT,
        env=octkit_environment(2))) for _ in range(5))
    loading = seconds_of(lambda: Predictor.load("default"))
    predictor, drawer, out = Predictor.load("default"), Overlays(work / "out"), work / "out"
    predict_folder(predictor, images, out, um_per_px=UM, way=lambda _, found, *__: scans.extend(found))
    out.mkdir()

    def timed(piece, call, *given):
        began = time.perf_counter()
        result = call(*given)
        spent.setdefault(piece, []).append(time.perf_counter() - began)
        return result

    for scan in scans:
        image = timed("reading", scan.read)
        told = timed("networks", ask, predictor, image, scan.spacing, scan.circle)
        result = timed("boundaries, quality", read_off, predictor.model, image, told, scan.spacing, scan.circle)
        timed("boundaries.csv, scale.json", predict._save_lines, out, scan, result, predictor.model.calibration.means)
        timed("mask", predict.save_mask, out, scan.name, result.mask, predictor.model.labels, scan.file, scan.spacing)
        timed("picture", drawer.draw, scan, image, result)
    [config] = predictor.configs
    patch, windows = torch.rand(1, 1, *config.window), prod(
        len(window_starts(n + 2 * config._around(n) * (axis == 1), w, config.step))
        for axis, (n, w) in enumerate(zip(image.shape[1:], config.window, strict=True)))
    with torch.inference_mode():
        bare = [seconds_of(lambda: [config._windows(patch, config.networks, each=False) for _ in range(windows)])
                for _ in range(SCANS + 1)]
    whole = {}
    for name, drawn_by in (("without pictures", None), ("with pictures", Overlays(work / "with pictures"))):
        whole[name] = seconds_of(partial(predict_folder, predictor, images, work / name, um_per_px=UM,
                                         progress=False, way=partial(predict.predict_scans, drawer=drawn_by)))
    # The first scan makes buffers and tries ways.
    first, *others = spent["networks"]
    rows = [["start: imports", f"{imports:.1f} s"], ["start: the model is loaded", f"{loading:.2f} s"],
            ["the first scan takes longer by", f"{first - statistics.median(others):.1f} s"],
            [f"its windows alone ({windows})", f"{1000 * statistics.median(bare[1:]):.0f} ms"],
            *([piece, f"{1000 * statistics.median(seconds[1:]):.0f} ms"] for piece, seconds in spent.items()),
            *([f"a scan among {len(scans)}, {name}", f"{1000 * seconds / len(scans):.0f} ms"]
              for name, seconds in whole.items())]
    left = [path for path in (work / "without pictures").iterdir() if path.name.startswith("0")]
    return rows, {"files": len(left) / len(scans), "bytes": sum(path.stat().st_size for path in left) / len(scans)}


def before_the_first(work: Path, count: int) -> list:
    """Seconds and bytes of memory a scan that a folder of so many takes before the first is predicted."""
    [first, *_], many = sorted((work / "phantoms" / "Validation" / "Image").iterdir()), work / "many"
    many.mkdir()
    for number in range(count):
        os.link(first, many / f"{number:07d}.png")
    predictor = Predictor.load("default")
    began = time.perf_counter()
    predict_folder(predictor, many, work / "nothing", um_per_px=UM, way=lambda *_: [], progress=False)
    seconds = time.perf_counter() - began
    tracemalloc.start()
    predict_folder(predictor, many, work / "nothing", um_per_px=UM, way=lambda *_: [], progress=False)
    memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return [["list, look into it, check", f"{1000 * seconds / count:.2f} ms"],
            ["memory of the command", f"{memory / count / 1000:.1f} kB"]]


def nothing(number: int, tell) -> int:  # noqa: ARG001 (all calls get it)
    return number


def a_call(workers, calls: int) -> float:
    """Seconds a call that does nothing, given out as `Crew` and `octkit run` do."""
    began, sent, back = time.perf_counter(), 0, 0
    while back < calls:
        if sent < calls and not workers.full:
            workers.submit(f"call {sent}", nothing, sent)
            sent += 1
            continue
        workers.next()
        back += 1
    return (time.perf_counter() - began) / calls


# What each worker does for itself would not share a processor with 99 others'.
QUIET = {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
         "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "60s"}
SIMULATED = """import sys, time
from distributed import LocalCluster
if __name__ == "__main__":
    many = LocalCluster(n_workers=int(sys.argv[1]), threads_per_worker=1, processes=False, dashboard_address=None,
                        host="127.0.0.1", protocol="tcp")
    print(many.scheduler_address, flush=True)
    time.sleep(3600)
"""


def of_dask(calls: int, simulated: int) -> list:
    began = time.perf_counter()
    with cluster.workers_of(count=2) as workers:
        a_call(workers, 10)
        start, real = time.perf_counter() - began, a_call(workers, calls)
    # Killed in the end: so many workers of one process take minutes to close.
    with subprocess.Popen([sys.executable, "-c", SIMULATED, str(simulated)], stdout=subprocess.PIPE, encoding="utf-8",
                          cwd=PROJECT, env=octkit_environment(1) | QUIET) as many:
        try:
            with cluster.workers_of(many.stdout.readline().strip()) as workers:
                a_call(workers, simulated)
                threads = a_call(workers, calls)
        finally:
            many.kill()
    return [["two workers: until the first ten calls are back", f"{start:.1f} s"],
            ["two workers: a call", f"{1000 * real:.1f} ms"],
            [f"{simulated} simulated workers: a call", f"{1000 * threads:.1f} ms"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listed", type=int, default=1000)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--simulated", type=int, default=100)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows, left = of_a_scan(Path(folder))
        print(table(["of a scan", ""], rows), left, flush=True)
        listed = before_the_first(Path(folder), options.listed)
    text = "\n\n".join([
        "    PYTHONPATH=. .venv/bin/python benchmarks/scale.py --write",
        f"{machine()}. Phantoms of 800 x 1100 px, the model in the box, mirrored copies as it asks for; medians of "
        f"{SCANS}.", table(["of a scan", ""], rows),
        f"A scan leaves {left['files']:.1f} files of {left['bytes'] / 1000:.0f} kB together, without its picture.",
        table([f"before the first of {options.listed:,} scans, a scan", ""], listed),
        table(["Dask, calls that do nothing", ""], of_dask(options.calls, options.simulated))])
    print(text)
    if options.write:
        write_section("The pieces of a large prediction", text)


if __name__ == "__main__":
    main()
