"""Calls that may run side by side: one after the other here, or by workers of Dask's on this machine or on many.

    with workers_of("tcp://node1:8786") as workers:       # (count=2): two of this machine; (): here
        workers.submit("fold 0", train, run_dir, 0)
        key, result = workers.next()

A call whose worker dies is given to another one, and two workers may be at the same call where the network parts them
(`locks.locked` with `wait` makes one of them wait). What a call does must bear both. Nothing of a result depends on
which worker it came from.
"""

import logging
import os
import pickle
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

from octkit.common.errors import OctkitError
from octkit.common.hashes import code_version
from octkit.common.machine import gpus
from octkit.common.messages import say
from octkit.common.processes import cores

CONNECT_SECONDS = 20
LEAST_SENT = 8  # calls at once: a cluster that grows by demand must see one
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # Dask sets them to 1 for its workers
own_code = cache(code_version)  # what this process has imported, not what stands on the disk later


class WorkersDied(OctkitError):
    """A call that was given up, as all workers that it was given to have died; `key` is the call's."""

    def __init__(self, key: str, message: str):
        super().__init__(message)
        self.key = key


class Here:
    """No workers: `next` makes the call. `tell` is called with the key and a text that the call says of itself."""

    def __init__(self) -> None:
        self.tell: Callable[[str, str], object] = lambda *_: None
        self._calls: deque[tuple[str, Callable, tuple]] = deque()

    @property
    def full(self) -> bool:
        """Whether no further call should be submitted before one has ended."""
        return bool(self._calls)

    def submit(self, key: str, function: Callable, *arguments: Any) -> None:
        """Have `function(*arguments, tell=…)` called; both travel by pickle."""
        self._calls.append((key, function, arguments))

    def next(self) -> tuple[str, Any]:
        """Wait for a call's end: its key, and what it returned; raises what it raised."""
        key, function, arguments = self._calls.popleft()
        return key, function(*arguments, tell=partial(self.tell, key))


class Workers(Here):
    """Dask's workers."""

    def __init__(self, client: Any, where: str):
        from distributed import as_completed

        super().__init__()
        self._client, self._where = client, where
        self._keys: dict[str, str] = {}
        self._known: dict[str, dict] = {}
        self._asked = 0.0
        self._ended, self._topic = as_completed(loop=client.loop), f"octkit-{uuid.uuid4().hex}"
        client.subscribe_topic(self._topic, lambda event: self.tell(*event[1]))

    @property
    def full(self) -> bool:
        return len(self._keys) >= max(LEAST_SENT, 2 * len(self.known()))

    def known(self) -> dict[str, dict]:
        """What the scheduler knows of its workers, by their addresses; asked again after a second."""
        if not self._known or time.monotonic() > self._asked + 1:
            # Not client.scheduler_info: its thread replaces what it has asked for by an answer without workers.
            self._known = self._client.sync(self._client.scheduler.identity, n_workers=-1)["workers"]
            self._asked = time.monotonic()
        return self._known

    def submit(self, key: str, function: Callable, *arguments: Any) -> None:
        from distributed.protocol.pickle import dumps

        if not (workers := self.known()):
            say(f"{self._where} has no workers yet: waiting for the first")
        gpu = {"GPU": 1} if any("GPU" in worker["resources"] for worker in workers.values()) else None
        # Pickled here, for a worker has to take the variables over before it imports what the call needs.
        call = dumps((function, arguments))
        # A name of its own: another command's call of the same key must not pass for this one. What stands before the
        # first hyphen is the same for all: else Dask takes them for calls of other lengths, and leaves some to wait
        # behind a long one while other workers have nothing to do.
        future = self._client.submit(_call, own_code(), _variables(), (self._topic, key), call,
                                     key=f"octkit-{key}-{uuid.uuid4().hex}", pure=False, resources=gpu)
        self._keys[future.key] = key
        self._ended.add(future)

    def next(self) -> tuple[str, Any]:
        from distributed import CancelledError, KilledWorker

        future = next(self._ended)
        key = self._keys.pop(future.key)
        try:
            return key, future.result()
        except KilledWorker as error:
            raise WorkersDied(key, f"{key}: {error.allowed_failures + 1} workers died over it, the last at "
                              f"{error.last_worker.address}; expected memory enough, or see what they say") from None
        except CancelledError:
            raise OctkitError(f"{self._where} was lost; what has ended is kept: see that a scheduler runs, and give "
                              "the same command again") from None


def _call(code: str, environment: dict[str, str], told: tuple[str, str], call: bytes) -> Any:
    """On a worker: make the call with the command's environment. Raises OctkitError for a worker that does not fit."""
    from distributed import get_worker

    worker, (topic, key) = get_worker(), told
    if (found := worker.state.nthreads) != 1:
        raise OctkitError(f"worker {worker.address}: works at {found} calls at once, expected one: dask worker "
                          "--nthreads 1")
    if code != own_code():
        raise OctkitError(f"worker {worker.address}: has another octkit than this command, or had when it started; "
                          "expected the same: install it there, and start the worker again")
    for name in _variables():
        del os.environ[name]
    os.environ.update(environment)
    function, arguments = pickle.loads(call)
    return function(*arguments, tell=lambda text: worker.log_event(topic, [key, text]))


def _variables() -> dict[str, str]:
    """What of this process's environment concerns a call."""
    return {name: value for name, value in os.environ.items() if name in THREADS or name.startswith("OCTKIT_")}


@contextmanager
def workers_of(scheduler: str | None = None, count: int | None = None) -> Iterator[Here]:
    """The workers of a scheduler's address, or `count` of this machine for the time of `with`; none of either: here.

    Each worker of this machine gets its share of the cores, and one of the GPUs. Raises OctkitError where no scheduler
    answers.
    """
    if scheduler is None and count is None:
        yield Here()
        return
    if scheduler and count:
        raise OctkitError("--workers: starts workers here, expected no --scheduler with it")
    from distributed import Client

    where = f"--scheduler: {scheduler}" if scheduler else "the scheduler of --workers"
    try:
        cluster = scheduler or _of_this_machine(count or 1)
        client = Client(cluster, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:  # TimeoutError is an OSError
        raise OctkitError(f"{where} does not answer ({error}); expected one's address: dask scheduler prints it"
                          ) from None
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what it says at length, octkit says in a sentence
    with client:
        try:
            workers = Workers(client, where)
            say(f"workers: {len(workers.known())}; dashboard: {client.dashboard_link}")
            yield workers
        finally:
            if not isinstance(cluster, str):
                cluster.close(timeout=10)


def _of_this_machine(count: int) -> Any:
    """A scheduler and workers in processes of their own, whom nobody else of the machine can talk to."""
    import dask.config
    from distributed import Nanny, Scheduler, Security, SpecCluster, Status
    from distributed.gc import disable_gc_diagnosis

    # Workers start processes; what Dask says of one that died, octkit says itself. Dask sets these variables for this
    # process, too, where the user has not: its own would be one thread.
    dask.config.set({
        "distributed.worker.daemon": False, "distributed.deploy.lost-worker-timeout": "1 day",  # to start may take long
        "distributed.nanny.pre-spawn-environ": {"DASK_LOGGING__DISTRIBUTED": "critical",
                                                THREADS[0]: max(1, cores() // count)}})
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = seen.split(",") if seen else list(map(str, range(len(gpus()))))
    security = Security.temporary()
    common = {"security": security, "host": "127.0.0.1"}
    nannies = {i: {"cls": Nanny, "options": common | {
        "nthreads": 1, "memory_limit": 0,  # octkit looks at the memory itself
        "env": {"CUDA_VISIBLE_DEVICES": devices[i % len(devices)]} if devices else {}}} for i in range(count)}
    scheduler = {"cls": Scheduler, "options": common | {"port": 0, "dashboard": True,
                                                        "dashboard_address": "127.0.0.1:0"}}
    cluster: Any = SpecCluster(nannies, scheduler, security=security, silence_logs="CRITICAL")
    disable_gc_diagnosis()  # it measures within the collection of garbage, where Ctrl-C is lost

    def replace_lost() -> None:  # a worker that dies while it starts, which Dask gives up
        for name in [name for name, nanny in cluster.workers.items() if nanny.status in (Status.closed, Status.failed)]:
            del cluster.workers[name]
        if cluster.status == Status.running:
            cluster.scale(count)
        cluster.loop.call_later(1, replace_lost)

    cluster.loop.add_callback(replace_lost)
    return cluster
