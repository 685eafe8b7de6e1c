"""A run's kernel: ipykernel, with a small process beside it that sees to it that nothing outlives either.

    python -c "from octkit.lessons.kernel import main; main()" -f CONNECTION_FILE

A kernel that is killed (a crash, no memory left) cannot end what it has started, such as the workers of a training;
a run that is killed cannot end its kernel. Both would go on computing, and writing, beside the run that is started
next. A thread in the kernel could be held up by a long call into a library; a process of its own cannot. Windows has
no fork: there a kernel ends with its run as ipykernel sees to it, and what it has started may go on.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil

LOOK_SECONDS = 0.25


def main() -> None:
    """Start the watcher, then become a kernel. The kernel leads a process group, which is what ends with it."""
    kernel, run = os.getpid(), int(os.environ["JPY_PARENT_PID"])  # jupyter_client says which process started us
    if hasattr(os, "fork") and os.fork() == 0:  # before anything is imported that starts threads
        _watch(psutil.Process(kernel), run)
    from ipykernel.kernelapp import IPKernelApp

    class Kernel(IPKernelApp):
        """A kernel that no file of the user's changes: IPython's settings, what is to run at its start."""

        def load_config_file(self, *_: Any, **__: Any) -> None: ...

        def init_code(self) -> None: ...

    Kernel.launch_instance()


def _watch(kernel: psutil.Process, run: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # meant for the kernel, sent to the whole group
        signal.signal(number, signal.SIG_IGN)
    while os.getppid() == kernel.pid and _parent_of(kernel) == run:
        time.sleep(LOOK_SECONDS)
    if _is_gone(run):  # and with it who would remove the folder of the kernel's sockets
        shutil.rmtree(Path(sys.argv[sys.argv.index("-f") + 1]).parent, ignore_errors=True)
    os.killpg(kernel.pid, signal.SIGKILL)


def _is_gone(number: int) -> bool:
    try:
        return psutil.Process(number).status() == psutil.STATUS_ZOMBIE  # ended, but not yet asked for its exit code
    except psutil.NoSuchProcess:
        return True


def _parent_of(process: psutil.Process) -> int | None:
    try:
        return process.ppid()
    except psutil.Error:
        return None
