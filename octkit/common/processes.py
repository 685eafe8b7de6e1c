"""Work spread over processes that cannot take the work of others down, hang it, or be left behind."""

import os
import pickle
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any

from octkit.common.messages import warn

LONGEST_TEMPORARY = 65  # bytes of a folder's name: what sockets are called in it takes up to 38 more


def cores() -> int:
    """How many cores this process may use: a container or a batch system may give it fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # not on macOS


def portable(error: Exception) -> Exception:
    """An error as it can go to another process: it, or a RuntimeError with its words where pickle cannot take it."""
    with suppress(Exception):  # of pickle's, and whatever the error's own class raises
        pickle.loads(pickle.dumps(error))
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def in_processes(function: Callable, jobs: Sequence[tuple], workers: int) -> Iterator[tuple]:
    """`function(*job)` for each of the `jobs`, in `workers` processes: (job, result) as they get done.

    The result is None where the process died over a job (killed, out of memory, a library's crash): all jobs not done
    by then are done again one by one, so that only the one to blame is lost. What `function` raises is raised here. It
    and its arguments travel by pickle. Where the system lets no process start, this one does the work, and says so.
    """
    lost: list[tuple] = []
    with _pool(function, min(workers, len(jobs)) or 1) as pool:
        if pool is None:
            yield from ((job, function(*job)) for job in jobs)
            return
        waiting = {}
        for job in jobs:
            try:
                waiting[pool.submit(_call, function, job)] = job
            except BrokenProcessPool:
                lost.append(job)
        for future in as_completed(waiting):
            try:
                result = future.result()
            except BrokenProcessPool:
                lost.append(waiting[future])
            else:
                yield waiting[future], result
    for job in lost:
        result = None
        with _pool(function, 1) as pool, suppress(BrokenProcessPool):
            result = pool.submit(_call, function, job).result() if pool else function(*job)
        yield job, result


def _call(function: Callable, job: tuple) -> Any:
    try:
        return function(*job)
    except Exception as error:
        if (told := portable(error)) is error:
            raise
        raise told from error


@contextmanager
def _pool(function: Callable, workers: int) -> Iterator[ProcessPoolExecutor | None]:
    """A pool in which a process has started; None, after a word on why, where none can."""
    # Not forked from here: a notebook's or torch's threads may hold locks that a forked worker would wait for.
    context = get_context("forkserver" if hasattr(os, "fork") else "spawn")
    if hasattr(os, "fork"):
        context.set_forkserver_preload([function.__module__])
    with ExitStack() as stack:
        try:
            with short_temporary_folder():
                pool = ProcessPoolExecutor(workers, context, _begin)
                # After Ctrl-C nobody waits for the rest of a data set.
                stack.callback(pool.shutdown, cancel_futures=True)
                pool.submit(os.getpid).result()
        except (OSError, ImportError, BrokenProcessPool) as error:  # /dev/shm cannot be written, no more open files
            warn(f"no worker processes, as the system does not let them start ({error}); one process does all, which "
                 "is slower")
            pool = None
        yield pool


@contextmanager
def short_temporary_folder() -> Iterator[None]:
    """Have `tempfile` use /tmp where TMPDIR has a long name: a socket's path has at most 107 bytes (103 on macOS)."""
    before = tempfile.tempdir
    if os.name == "posix" and len(os.fsencode(tempfile.gettempdir())) > LONGEST_TEMPORARY:
        tempfile.tempdir = "/tmp"
    try:
        yield
    finally:
        tempfile.tempdir = before


def _begin() -> None:
    """In a new worker: leave Ctrl-C to the parent, and end with it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow() -> None:
        connection.wait([parent_process().sentinel])  # type: ignore[union-attr]  # a worker has a parent
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def let_mkl_use_avx2(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Have Intel's MKL use AVX2 on AMD's processors, where they have it; whether it was asked to.

    The MKL of 2019 that comes with Paddle takes its slowest way on processors of other makers: on an AMD EPYC the
    gradient step of a ResNet50 took seven to ten times as long (benchmarks/README.md). MKL_DEBUG_CPU_TYPE, which MKL
    reads at its first computation, names the kind of processor to take it for; 5 is one with AVX2. A value that is set
    already stays. MKL of 2020 and later ignores it.
    """
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    able = "AuthenticAMD" in text and " avx2 " in text
    if able:
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
    return able
