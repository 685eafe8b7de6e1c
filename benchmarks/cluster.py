"""Many workers: bits after kills, two network namespaces as two machines, many scans over workers.

    PYTHONPATH=. .venv/bin/python benchmarks/cluster.py kills --work NEW     smoke runs; 50 kills (-9) of their workers
                                                      … machines --work NEW  as root: two namespaces, one of which is
                                                                             cut off the network while both train
                                                      … scans --work NEW     2000 scans: throughput, memory, resumption

Runs are of profile smoke, with one thread each, and compared with one of a single process by all files that a run's
ledger names (`outputs`), but for the columns of seconds in logs. What was found is printed as JSON.
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import psutil

from octkit.lessons import ledger
from octkit.lessons.repeat import compare
from octkit.planning.run import Run

OCTKIT = [sys.executable, "-m", "octkit"]
SCHEDULER = "tcp://10.91.0.2:8786"
SPACES = ("octkit-a", "octkit-b")  # network namespaces; the host end of a bridge is 10.91.0.1


def environment():
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                         "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1000"}


def smoke(folder, *options):
    """A started smoke run; its data set is shared by all runs beside it."""
    data = ("--set", f"data.dir={folder.parent / 'data'}")
    return subprocess.Popen([*OCTKIT, "run", "--profile", "smoke", "--run-dir", str(folder), *data, *options],
                            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            encoding="utf-8")


def finished(process):
    said = process.communicate()[0]
    if process.returncode:
        sys.exit(f"{' '.join(process.args)} ended with {process.returncode}:\n{said[-3000:]}")


def undisturbed(work):
    """The run of one process that the others are compared with, and its seconds."""
    began = time.monotonic()
    finished(smoke(work / "alone"))
    return Run(work / "alone"), round(time.monotonic() - began)


def told(run, alone):
    """Whether a run has the same bits, and what its ledger says of lost executions and of steps done twice."""
    same, differ = compare(alone, run)
    done = [line.step for line in ledger.read(run) if line.status == "done"]
    return {"same": same, "differ": differ, "steps done": len(done), "of them twice": len(done) - len(set(done)),
            "executions lost": sum(len(line.lost) for line in ledger.read(run))}


def workers_of(process):
    """The processes of Dask's workers of a command."""
    return [child for child in psutil.Process(process.pid).children()
            if any("spawn_main" in part for part in child.cmdline())]


def kills(options):
    alone, seconds = undisturbed(options.work)
    chance, left, rounds = random.Random(options.seed), options.kills, []
    while left:
        run = Run(options.work / f"killed-{len(rounds)}")
        process, killed, began = smoke(run.folder, "--workers", "2"), 0, time.monotonic()
        reader = threading.Thread(target=process.stdout.read, daemon=True)
        reader.start()
        while process.poll() is None:
            time.sleep(chance.uniform(0.5, options.every))
            if left and (found := workers_of(process)):
                chance.choice(found).kill()
                left, killed = left - 1, killed + 1
        rounds.append({"kills": killed, "exit": process.returncode, "seconds": round(time.monotonic() - began),
                       **told(run, alone)})
        print(json.dumps(rounds[-1]), flush=True)
        if process.returncode or not killed:
            break
    return {"seed": options.seed, "seconds of one process": seconds, "runs": rounds}


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


@contextmanager
def namespaces():
    """Two network namespaces on one bridge, as two machines that see one disk."""
    ip("link", "add", "octkit0", "type", "bridge")
    try:
        ip("addr", "add", "10.91.0.1/24", "dev", "octkit0")
        ip("link", "set", "octkit0", "up")
        for number, space in enumerate(SPACES, 2):
            ip("netns", "add", space)
            ip("link", "add", f"oct{number}", "type", "veth", "peer", "name", "eth0", "netns", space)
            ip("link", "set", f"oct{number}", "master", "octkit0", "up")
            ip("-n", space, "addr", "add", f"10.91.0.{number}/24", "dev", "eth0")
            ip("-n", space, "link", "set", "eth0", "up")
            ip("-n", space, "link", "set", "lo", "up")
        yield
    finally:
        for space in SPACES:
            subprocess.run(["ip", "netns", "delete", space], check=False)
        subprocess.run(["ip", "link", "delete", "octkit0"], check=False)


def inside(space, module, *arguments):
    """A program of Dask's in a namespace; its scheduler takes a worker that is silent for 20 s for dead."""
    command = ["ip", "netns", "exec", space, sys.executable, "-m", f"distributed.cli.{module}", *arguments]
    return subprocess.Popen(command, env=environment() | {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "20s"},
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def machines(options):
    """A scheduler and a worker on one machine, a worker on another, which is cut off while both train."""
    alone, seconds = undisturbed(options.work)
    with namespaces():
        parts = [inside(SPACES[0], "dask_scheduler", "--host", "10.91.0.2", "--port", "8786")]
        parts += [inside(space, "dask_worker", SCHEDULER, "--nthreads", "1", "--host", f"10.91.0.{number}")
                  for number, space in enumerate(SPACES, 2)]
        try:
            run = Run(options.work / "two-machines")
            process, began = smoke(run.folder, "--scheduler", SCHEDULER), time.monotonic()
            logs = [run.fold("2d", fold) / "log.csv" for fold in (0, 1)]
            while process.poll() is None and not all(log.exists() for log in logs):
                time.sleep(0.5)
            ip("-n", SPACES[1], "link", "set", "eth0", "down")
            finished(process)
            return {"seconds of one process": seconds, "seconds": round(time.monotonic() - began), **told(run, alone)}
        finally:
            for part in parts:
                part.terminate()
                part.wait()


class Memory(threading.Thread):
    """The resident memory of a command and all that it has started, once a second; GB."""

    def __init__(self, process):
        super().__init__(daemon=True)
        self.process, self.seen = psutil.Process(process.pid), []

    def run(self):
        while self.process.is_running():
            total = 0
            for each in (self.process, *self.process.children(recursive=True)):
                try:
                    total += each.memory_info().rss
                except psutil.Error:
                    continue
            self.seen.append(total / 1e9)
            time.sleep(1)


def scans(options):
    """One process, two workers, and two workers whose command is killed half-way and given again."""
    images = options.work / "scans"
    if not images.exists():
        subprocess.run([*OCTKIT, "phantom", str(options.work / "phantoms"), "--train", "1", "--val", str(options.scans),
                        "--size", "256x320"], check=True, env=environment())
        os.rename(next((options.work / "phantoms").glob("Val*/Image")), images)
    found = {}
    for name, extra in (("alone", []), ("two workers", ["--workers", "2"]), ("killed", ["--workers", "2"])):
        out = options.work / name
        command = [*OCTKIT, "predict", "default", str(images), "-o", str(out), "--no-pictures", *extra]
        began = time.monotonic()
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        memory = Memory(process)
        memory.start()
        half = options.scans // 2
        while name == "killed" and process.poll() is None:
            if len(done := list(out.glob(".predicted/*.json"))) >= half:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                before = {path: path.stat().st_mtime_ns for path in done}
                process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL,
                                           stderr=subprocess.DEVNULL)
                break
            time.sleep(0.2)
        code = process.wait()
        third = max(1, len(memory.seen) // 3)
        found[name] = {"exit": code, "seconds": round(time.monotonic() - began),
                       "scans": len([path for path in out.glob("*.png") if re.fullmatch(r"\d+\.png", path.name)]),
                       "GB, first and last third": [round(max(memory.seen[:third]), 2),
                                                    round(max(memory.seen[-third:]), 2)]}
        if name == "killed":
            found[name]["done twice"] = sum(path.stat().st_mtime_ns != when for path, when in before.items())
        if name != "alone":
            found[name]["files that differ"] = sum(path.read_bytes() != (out / path.name).read_bytes() for path in
                                                   (options.work / "alone").iterdir() if path.is_file())
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("kills", "machines", "scans"))
    parser.add_argument("--work", type=Path, required=True, help="a new folder")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--every", type=float, default=20, help="most seconds between two kills")
    parser.add_argument("--scans", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    options.work = options.work.resolve()
    print(json.dumps({"kills": kills, "machines": machines, "scans": scans}[options.what](options), indent=2))


if __name__ == "__main__":
    main()
