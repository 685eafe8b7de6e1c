"""Many workers: bits after kills, two network namespaces as two machines, a lost scheduler, a full disk, many scans.

    PYTHONPATH=. .venv/bin/python benchmarks/cluster.py kills --work NEW      smoke runs; 50 kills (-9) of their workers
                                                      … machines --work NEW   as root: two namespaces, one of which is
                                                                              cut off the network while both train
                                                      … scheduler --work NEW  killed (-9) while both workers train, and
                                                                              started again
                                                      … disk --work NEW       as root: a disk that is full, then larger
                                                      … twice --work NEW      one training given to two workers at once
                                                      … scans --work NEW      2000 scans: throughput, memory, resumption
                                                      … speed --work NEW      smoke runs: seconds of one process with
                                                                              all cores, and of two workers

Runs are of profile smoke, with one thread each (but for speed), and compared with one of a single process (the results
that `lessons.repeat.compare` names, to the last byte). Several modes may share a folder and with it that one. What was
found is printed as JSON.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import matplotlib.pyplot as plt
import psutil

from octkit.common import cluster
from octkit.common.settings import PACKAGE
from octkit.lessons import ledger, run_all
from octkit.lessons.repeat import compare
from octkit.planning.run import Run

OCTKIT = [sys.executable, "-m", "octkit"]
SIZE = "96x128"
SPACES = ("octkit-a", "octkit-b")  # network namespaces; the host end of a bridge is 10.91.0.1
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PACKAGE.parent),
                            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1000"}


def smoke(work, folder, *options):
    """A started smoke run; its data set is shared by all runs of `work`. What it says goes to a file there."""
    with open(work / f"{folder.name}.log", "a", encoding="utf-8") as log:
        return subprocess.Popen([*OCTKIT, "run", "--profile", "smoke", "--run-dir", str(folder), "--set",
                                 f"data.dir={work / 'data'}", *options], env=ENVIRONMENT, stdout=log,
                                stderr=subprocess.STDOUT)


def finished(process):
    if process.wait():
        sys.exit(f"{' '.join(process.args)} ended with {process.returncode}, see its log")


def undisturbed(work):
    """The run of one process that the others are compared with, and its seconds (0 where it was there before)."""
    began, run = time.monotonic(), Run(work / "alone")
    if not run.report_file.exists():
        finished(smoke(work, run.folder))
    return run, round(time.monotonic() - began)


def told(run, alone):
    """Whether a run has the same bits, and what its ledger says of lost executions and of steps done twice."""
    same, differ = compare(alone, run)
    lines = ledger.read(run)
    done = [line.step for line in lines if line.status == "done"]
    return {"same": same, "differ": differ, "steps done": len(done), "of them twice": len(done) - len(set(done)),
            "executions lost": sum(len(line.lost) for line in lines),
            "failed": [f"{line.step}: {line.error}" for line in lines if line.status in ("failed", "killed")]}


def before_training(alone, folder):
    """A copy of the undisturbed run as it was before its trainings."""
    left = ("models", "predictions", "classifier", ".steps", "ledger.jsonl")
    run = Run(shutil.copytree(alone.folder, folder, ignore=lambda _, names: {*names} & {*left}))
    for line in ledger.read(alone):
        if line.step < "07":
            ledger.append(run, line)
    return run


def workers_of(process):
    """The processes of Dask's workers of a command."""
    found = []
    for child in psutil.Process(process.pid).children():
        try:
            found += [child] * any("spawn_main" in part for part in child.cmdline())
        except psutil.Error:  # killed, and not yet missed
            continue
    return found


def kills(options):
    alone, seconds = undisturbed(options.work)
    chance, left, rounds = random.Random(options.seed), options.kills, []
    while left:
        run = Run(options.work / f"killed-{len(rounds)}")
        process, killed, began = smoke(options.work, run.folder, "--workers", "2"), 0, time.monotonic()
        while process.poll() is None:
            time.sleep(chance.uniform(0.5, options.every))
            if left and process.poll() is None and (found := workers_of(process)):
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


class Cluster:
    """Programs of Dask's, what they say in files; the scheduler takes a worker that is silent for 20 s for dead."""

    def __init__(self, work, host):
        self.work, self.host, self.address, self.parts = work, host, f"tcp://{host}:8796", []

    def start(self, module, *arguments, space=None, **environment):
        command = ["ip", "netns", "exec", space] if space else []
        command += [sys.executable, "-m", f"distributed.cli.{module}", *arguments, "--no-dashboard"]
        with open(self.work / f"{len(self.parts)}-{module}.log", "a", encoding="utf-8") as log:
            self.parts.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=ENVIRONMENT | {
                "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "20s"} | environment))
        return self.parts[-1]

    def scheduler(self, space=None):
        return self.start("dask_scheduler", "--host", self.host, "--port", "8796", space=space)

    def worker(self, host=None, space=None, **environment):
        return self.start("dask_worker", self.address, "--nthreads", "1", "--host", host or self.host,
                          "--local-directory", str(self.work), space=space, **environment)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for part in self.parts:
            part.terminate()
            part.wait()


def speed(options):
    """The wall time of a run: one process that has all cores, and two workers that share them."""
    del ENVIRONMENT["OMP_NUM_THREADS"]
    found = {}
    for name, extra in (("one process", []), ("two workers", ["--workers", "2"])):
        began = time.monotonic()
        finished(smoke(options.work, options.work / name, *extra))
        found[name] = {"seconds": round(time.monotonic() - began), "steps": {
            line.step: round(line.seconds) for line in ledger.ends(Run(options.work / name)).values()}}
        print(json.dumps(found[name]), flush=True)
    return found | {"differ": compare(*(Run(options.work / name) for name in found))[1]}


def both_train(run, process):
    """Wait until both folds have learned for an epoch, or the command has ended."""
    while process.poll() is None and not all((run.fold("2d", fold) / "log.csv").exists() for fold in (0, 1)):
        time.sleep(0.2)


def machines(options):
    """A scheduler and a worker on one machine, a worker on another, which is cut off while both train."""
    alone, _ = undisturbed(options.work)
    with namespaces(), Cluster(options.work, "10.91.0.2") as dask:
        dask.scheduler(SPACES[0])
        for number, space in enumerate(SPACES, 2):
            dask.worker(f"10.91.0.{number}", space)
        run = before_training(alone, options.work / "two-machines")
        process = smoke(options.work, run.folder, "--scheduler", dask.address)
        both_train(run, process)
        ip("-n", SPACES[1], "link", "set", "eth0", "down")
        finished(process)
        return told(run, alone)


def scheduler(options):
    """A scheduler that is killed while both workers train, and started again; then the same command."""
    alone, _ = undisturbed(options.work)
    with Cluster(options.work, "127.0.0.1") as dask:
        first, run = dask.scheduler(), before_training(alone, options.work / "scheduler")
        workers = [dask.worker(), dask.worker()]
        process = smoke(options.work, run.folder, "--scheduler", dask.address)
        both_train(run, process)
        first.kill()
        gone = time.monotonic()
        code = process.wait()
        noticed = round(time.monotonic() - gone)
        first.wait()
        dask.scheduler()
        time.sleep(60)  # more than a worker waits before it looks for its scheduler again
        back = [worker.poll() is None for worker in workers]
        workers += [dask.worker() for found in back if not found]
        finished(smoke(options.work, run.folder, "--scheduler", dask.address))
        return {"exit": code, "seconds until the command ended": noticed, "workers came back": back,
                **told(run, alone)}


def disk(options):
    """A run on a disk of 64 MB, then of 192, then of 1024; a worker whose temporary files have no room."""
    alone, _ = undisturbed(options.work)
    place, full, ends = options.work / "disk", options.work / "full", []
    for folder, size in ((place, 64), (full, 1)):
        folder.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m", "none", str(folder)], check=True)
    try:
        run = before_training(alone, place / "run")
        for size in (64, 192, 1024):
            subprocess.run(["mount", "-o", f"remount,size={size}m", str(place)], check=True)
            code = smoke(options.work, run.folder, "--workers", "2").wait()
            ends.append({"MB": size, "exit": code})
        found = {"ends": ends, **told(run, alone)}
        (full / "full").write_bytes(bytes(2**20 - 2**14))  # no room for a kernel's files, some for Dask's
        with Cluster(options.work, "127.0.0.1") as dask:
            dask.scheduler()
            dask.worker(TMPDIR=str(full))
            run = before_training(alone, options.work / "no-room")
            code = smoke(options.work, run.folder, "--scheduler", dask.address).wait()
            dask.worker()
            dask.parts[1].terminate()
            finished(smoke(options.work, run.folder, "--scheduler", dask.address))
        return found | {"temporary files": {"exit": code, **told(run, alone)}}
    finally:
        for folder in (place, full):
            subprocess.run(["umount", str(folder)], check=True)


def twice(options):
    """One training given to two workers at once: in how many executions it ends, with the same bits or not."""
    alone, _ = undisturbed(options.work)
    run = Run(shutil.copytree(alone.folder, options.work / "twice"))
    job = next(job for job in run_all.jobs(run, run.settings) if job.name == "07_train_2d_fold_0")
    shutil.rmtree(run.steps / job.name)
    shutil.rmtree(run.fold("2d", 0))
    line = ledger.ends(run)[job.name].model_copy(update={"outputs": None})
    os.environ |= ENVIRONMENT
    with cluster.workers_of(count=2) as workers:
        for name in ("first", "second"):
            workers.submit(name, run_all.execute, job, run.folder, line, run.settings.data_roots)
        ends = [workers.next()[1] for _ in range(2)]
    return {"failed": [str(failure) for _, failure in ends if failure],
            "executions": len({found.model_dump_json() for found, _ in ends}), "differ": compare(alone, run)[1]}


class Memory(threading.Thread):
    """The resident memory of a command and all that it has started, once a second; GB."""

    def __init__(self, process):
        super().__init__(daemon=True)
        self.process, self.seen = psutil.Process(process.pid), []
        self.start()

    def run(self):
        while True:
            total = 0
            try:
                for each in (self.process, *self.process.children(recursive=True)):
                    try:
                        total += each.memory_info().rss
                    except psutil.Error:
                        continue
            except psutil.Error:
                return
            self.seen.append(total / 1e9)
            time.sleep(1)


def scans(options):
    """Some scans by one process and by two workers; all by two whose command is killed half-way and given again."""
    images, some = options.work / "scans", options.work / "some"
    if not images.exists():
        subprocess.run([*OCTKIT, "phantom", str(options.work / "phantoms"), "--train", "1", "--val", str(options.scans),
                        "--size", SIZE], check=True, env=ENVIRONMENT)
        os.rename(next((options.work / "phantoms").glob("Val*/Image")), images)
        some.mkdir()
        for path in sorted(images.glob("*.png"))[:options.timed]:
            os.link(path, some / path.name)
    found, memories = {}, {}
    for name, source, extra in (("one process", some, []), ("two workers", some, ["--workers", "2"]),
                                ("killed", images, ["--workers", "2"])):
        out, began = options.work / name, time.monotonic()

        def start(out=out, source=source, extra=extra):
            return subprocess.Popen([*OCTKIT, "predict", options.model, str(source), "-o", str(out), "--no-pictures",
                                     *extra], env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        process = start()
        memory = memories[name] = Memory(process)
        while name == "killed" and process.poll() is None:
            if len(done := list(out.glob(".predicted/*.json"))) >= options.scans // 2:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                before = {path: path.stat().st_mtime_ns for path in done}
                process = start()
                memory = memories["given again"] = Memory(process)
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
        if name != "one process":
            found[name]["files that differ"] = sum(path.read_bytes() != (out / path.name).read_bytes() for path in
                                                   (options.work / "one process").glob("[0-9]*"))
        print(json.dumps(found[name]), flush=True)
    figure, axes = plt.subplots(figsize=(6, 2.5), layout="constrained")
    for name in ("killed", "given again"):
        axes.plot([second / 60 for second in range(len(memories[name].seen))], memories[name].seen, label=name)
    axes.set(xlabel="minutes", ylabel="memory (GB)", ylim=(0, None))
    axes.legend()
    figure.savefig(options.work / "memory.png", dpi=80)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = {each.__name__: each for each in (kills, machines, scheduler, disk, twice, scans, speed)}
    parser.add_argument("what", choices=modes)
    parser.add_argument("--work", type=Path, required=True, help="a new folder")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--every", type=float, default=20, help="most seconds between two kills")
    parser.add_argument("--scans", type=int, default=2000)
    parser.add_argument("--timed", type=int, default=300, help="of these, how many one process predicts, too")
    parser.add_argument("--model", default="default", help="what predicts the scans, such as NEW/alone")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    options.work = options.work.resolve()
    print(json.dumps(modes[options.what](options), indent=2))


if __name__ == "__main__":
    main()
