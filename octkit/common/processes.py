"""Work spread over processes that cannot take the work of others down, hang it, or be left behind."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import connection, get_context, parent_process
from pathlib import Path


def cores() -> int:
    """How many cores this process may use: a container or a batch system may give it fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # not on macOS


def in_processes(function: Callable, jobs: Sequence[tuple], workers: int) -> Iterator[tuple]:
    """`function(*job)` for each of the `jobs`, in `workers` processes: (job, result) as they get done.

    The result is None where the process died over a job (killed, out of memory, a library's crash): all jobs not done
    by then are done again one by one, so that only the one to blame is lost. What `function` raises is raised here. It
    and its arguments travel by pickle.
    """
    lost: list[tuple] = []
    with _pool(function, min(workers, len(jobs)) or 1) as pool:
        waiting = {}
        for job in jobs:
            try:
                waiting[pool.submit(function, *job)] = job
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
            result = pool.submit(function, *job).result()
        yield job, result


@contextmanager
def _pool(function: Callable, workers: int) -> Iterator[ProcessPoolExecutor]:
    # Not forked from here: a notebook's or torch's threads may hold locks that a forked worker would wait for.
    context = get_context("forkserver" if hasattr(os, "fork") else "spawn")
    if hasattr(os, "fork"):
        context.set_forkserver_preload([function.__module__])
    pool = ProcessPoolExecutor(workers, context, _begin)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C nobody waits for the rest of a data set


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
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    able = "AuthenticAMD" in text and " avx2 " in text
    if able:
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
    return able
