import multiprocessing
import os
from contextlib import suppress
from types import SimpleNamespace

import psutil
import pytest
from distributed import KilledWorker, LocalCluster

from octkit.common import cluster
from octkit.common.cluster import Here, WorkersDied, workers_of
from octkit.common.errors import OctkitError, bad_file
from octkit.common.processes import cores


@pytest.fixture
def scheduler():
    """A scheduler with two workers in this process."""
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as found:
        yield found


@pytest.fixture(params=["here", "workers"])
def workers(request):
    """One process, or two workers."""
    if request.param == "here":
        yield Here()
        return
    with workers_of(request.getfixturevalue("scheduler").scheduler_address) as found:
        yield found


def square(number, tell):
    tell(f"is at {number}")
    if number == 3:
        raise bad_file("3.png", "is odd", "expected even")
    return number * number


def test_calls_give_back_what_they_return_or_raise(workers):
    heard = []
    workers.tell = lambda key, text: heard.append((key, text))
    for number in (2, 4):
        workers.submit(f"number {number}", square, number)
    assert sorted(workers.next() for _ in range(2)) == [("number 2", 4), ("number 4", 16)]
    workers.submit("number 3", square, 3)
    with pytest.raises(OctkitError, match=r"^3\.png: is odd, expected even$"):
        workers.next()
    workers.submit("number 5", square, 5)
    assert workers.next() == ("number 5", 25)
    assert {("number 2", "is at 2"), ("number 3", "is at 3")} <= set(heard)


def test_a_call_sees_the_commands_variables_and_not_an_older_ones(scheduler, monkeypatch):
    monkeypatch.setenv("OCTKIT_LANGUAGE", "zh")
    with workers_of(scheduler.scheduler_address) as workers:
        monkeypatch.setenv("OCTKIT_PHANTOMS", "/data")  # set after the command has found its workers
        workers.submit("language", lambda tell: (os.environ["OCTKIT_LANGUAGE"], os.environ["OCTKIT_PHANTOMS"]))  # noqa: ARG005
        assert workers.next() == ("language", ("zh", "/data"))


class Arrived:
    """Becomes, where it is unpickled, what a variable says there."""

    def __reduce__(self):
        return os.environ.get, ("OCTKIT_LANGUAGE",)


def test_workers_of_this_machine_share_its_cores_and_have_the_variables_before_they_import(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    monkeypatch.delenv("OMP_NUM_THREADS")
    with workers_of(count=1) as workers:
        monkeypatch.setenv("OCTKIT_LANGUAGE", "zh")  # when they have started
        workers.submit("threads", lambda arrived, tell: (arrived, os.environ["OMP_NUM_THREADS"]), Arrived())  # noqa: ARG005
        assert workers.next() == ("threads", ("zh", str(cores())))


def worker_processes():
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it has ended meanwhile
            if any("spawn_main" in word for word in child.cmdline()):
                found.append(child)
    return found


def test_a_worker_that_dies_while_it_starts_is_replaced():
    others, before = worker_processes(), multiprocessing.active_children()  # of tests before
    with workers_of(count=1) as workers:
        for _ in range(2):
            while not (found := [child for child in worker_processes() if child not in others]):
                os.sched_yield()
            found[0].kill()
            while found[0].is_running():  # psutil's wait would take its exit code, for which Dask and Python wait
                os.sched_yield()
        workers.submit("two", lambda number, tell: 2 * number, 2)  # noqa: ARG005
        assert workers.next() == ("two", 4)
    assert [child for child in multiprocessing.active_children() if child not in before] == []


def test_a_worker_of_another_octkit_is_refused(scheduler, monkeypatch):
    with workers_of(scheduler.scheduler_address) as workers:
        codes = iter(["the command's", "the worker's"])
        monkeypatch.setattr(cluster, "own_code", lambda: next(codes))
        workers.submit("one", square, 1)
        with pytest.raises(OctkitError, match="has another octkit"):
            workers.next()


def test_a_worker_that_would_share_its_threads_is_refused():
    with (LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as found,
          workers_of(found.scheduler_address) as workers):
        workers.submit("one", square, 1)
        with pytest.raises(OctkitError, match="2 calls at once, expected one: dask worker --nthreads 1"):
            workers.next()


def killed(key, tell):  # noqa: ARG001
    raise KilledWorker(key, SimpleNamespace(address="tcp://node7:1"), 3)


def test_a_call_that_kills_its_workers_is_named(scheduler):
    with workers_of(scheduler.scheduler_address) as workers:
        workers.submit("fold 0", killed, "fold 0")
        with pytest.raises(WorkersDied, match=r"^fold 0: 4 workers died over it, the last at tcp://node7:1") as error:
            workers.next()
    assert error.value.key == "fold 0"


def test_a_scheduler_that_goes_is_said(monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 2)
    found = LocalCluster(n_workers=0, processes=False, dashboard_address=None)
    with workers_of(found.scheduler_address) as workers:
        workers.submit("never", square, 1)
        found.close()
        with pytest.raises(OctkitError, match=r"inproc://.* was lost; what has ended is kept"):
            workers.next()


def test_an_address_where_nobody_answers_is_named(monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.3)
    for address in ("tcp://127.0.0.1:9", "nowhere"):
        with pytest.raises(OctkitError, match=f"^--scheduler: {address} does not answer"), workers_of(address):
            pass
    with pytest.raises(OctkitError, match="expected no --scheduler with it"), workers_of("tcp://127.0.0.1:9", 2):
        pass
