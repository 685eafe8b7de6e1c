"""Work spread over processes that cannot take the work of others down, hang it, or be left behind."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # not on macOS


def in_processes(function: Callable, jobs: Sequence[tuple], workers: int) -> Iterator[tuple]:
    """`function(*job)` for each of the `jobs`, in `workers` processes: (job, result) as they get done.

    The result is None where the process died over a job (killed, out of memory, a library's crash): the jobs that were
    under way then are done again, each in a process of its own, so that only the one to blame is lost. What `function`
    raises is raised here. It and its arguments travel by pickle.
    """
    again = []
    with _pool(function, min(workers, len(jobs)) or 1) as pool:
        waiting = {pool.submit(function, *job): job for job in jobs}
        for future in as_completed(waiting):
            try:
                yield waiting[future], future.result()
            except BrokenProcessPool:
                again.append(waiting[future])
    while again:
        with _pool(function, 1) as pool:
            try:
                for job in tuple(again):
                    yield again.pop(0), pool.submit(function, *job).result()
            except BrokenProcessPool:
                yield job, None


def _pool(function: Callable, workers: int) -> ProcessPoolExecutor:
    # Not forked from here: a notebook's or torch's threads may hold locks that a forked worker would wait for.
    context = get_context("forkserver")
    context.set_forkserver_preload([function.__module__])
    return ProcessPoolExecutor(workers, context, _begin)


def _begin() -> None:
    """In a new worker: leave Ctrl-C to the parent, and end with it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow() -> None:
        connection.wait([parent_process().sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
