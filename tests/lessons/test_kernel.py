"""Kernels and what they start must not outlive a run, however it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from helpers import smoke, write_notebook

from octkit.lessons import ledger, run_all
from octkit.lessons.run_all import Step
from octkit.planning.run import Run

# A kernel with a worker of the kind that a training has, a program that it has called, and that one's own child.
CELL = """
import multiprocessing, os, subprocess, sys, time
multiprocessing.get_context("fork").Process(target=time.sleep, args=(120,), daemon=True).start()
nested = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(120)'])"
subprocess.Popen([sys.executable, "-c", nested])
time.sleep(0.5)
open(run_dir + "/ready", "w").write(str(os.getpid()))
"""
RUN = """
import sys
from pathlib import Path
from octkit.common import settings
from octkit.lessons.run_all import Step, run_story
from octkit.planning.run import Run
folder = Path(sys.argv[1])
try:
    run_story(Run(folder / "run"), settings.from_profile("smoke"), folder / "notebooks", (Step("step"),))
except KeyboardInterrupt:
    sys.exit(130)
"""


def start(folder, *cells) -> tuple[subprocess.Popen, list[psutil.Process]]:
    """A run in a process of its own whose kernel has started others, and all of these processes."""
    write_notebook(folder / "notebooks", "step", *cells)
    # A shell's background jobs ignore Ctrl-C, and what they start does too.
    run = subprocess.Popen([sys.executable, "-c", RUN, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    for _ in range(600):
        if (folder / "run" / "ready").exists() or run.poll() is not None:
            break
        time.sleep(0.1)
    started = psutil.Process(run.pid).children(recursive=True)
    assert len(started) >= 5, run.communicate()  # the kernel, its watcher, its worker, a program and that one's child
    return run, started


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_nothing_outlives_a_run_that_is_stopped(tmp_path, number, code):
    run, started = start(tmp_path, CELL, "time.sleep(120)")
    [kernel] = [process for process in started if "-f" in process.cmdline() and process.ppid() == run.pid]
    sockets = Path(kernel.cmdline()[kernel.cmdline().index("-f") + 1]).parent
    assert sockets.is_dir()
    os.kill(run.pid, number)
    assert run.wait(20) == code
    _, alive = psutil.wait_procs(started, timeout=20)
    assert not alive and not sockets.exists()
    lines = ledger.read(Run(tmp_path / "run"))
    assert [(line.status, line.error) for line in lines] == [("failed", "interrupted")] * (code == 130)


def test_nothing_outlives_a_kernel_that_is_killed(tmp_path):
    run, started = start(tmp_path, CELL, "time.sleep(120)")
    os.kill(int((tmp_path / "run" / "ready").read_text()), signal.SIGKILL)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 1 and b"killed by SIGKILL" in output
    _, alive = psutil.wait_procs(started, timeout=20)
    assert not alive


def test_nothing_outlives_a_kernel_that_has_ended(tmp_path):
    write_notebook(tmp_path / "notebooks", "step", "import subprocess, sys, json\n"
                   "left = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(120)'])\n"
                   "json.dump(left.pid, open(run_dir + '/left.json', 'w'))")
    run_all.run_story(Run(tmp_path / "run"), smoke(), tmp_path / "notebooks", (Step("step"),))
    left = json.loads((tmp_path / "run" / "left.json").read_text())
    if psutil.pid_exists(left):
        _, alive = psutil.wait_procs([psutil.Process(left)], timeout=20)
        assert not alive
