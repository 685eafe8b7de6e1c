import errno
import os
import signal
import subprocess
import sys
import tempfile
import time

import psutil
import pytest

from octkit.common import settings
from octkit.common.messages import warn
from octkit.common.processes import cores, in_processes, let_mkl_use_avx2, portable, short_temporary_folder

AMD = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx avx2 bmi1\n"


class Odd(Exception):
    """Pickle calls it with its one argument, and it takes two."""

    def __init__(self, what, where):
        super().__init__(f"{what} in {where}")


def odd(_):
    raise Odd("nothing", "there")


def squared(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 5:
        raise ValueError("five")
    return number * number


def test_a_job_that_kills_its_process_is_lost_alone():
    jobs = [(number,) for number in (0, 1, 2, 3, 4)]
    found = list(in_processes(squared, jobs, 2))
    assert sorted(found, key=str) == [((0,), 0), ((1,), 1), ((2,), 4), ((3,), None), ((4,), 16)]


def test_what_a_job_raises_is_raised_here():
    with pytest.raises(ValueError, match="five"):
        list(in_processes(squared, [(5,), (1,)], 1))


def test_an_error_that_cannot_travel_comes_as_its_words():
    """Python would take the worker for dead, and octkit the scan for one that kills its reader."""
    with pytest.raises(RuntimeError, match=r"^Odd: nothing in there$"):
        list(in_processes(odd, [(1,)], 1))
    assert portable(error := KeyError("x")) is error


@pytest.mark.parametrize("error", [OSError(errno.EROFS, "Read-only file system"), ImportError("no sem_open")])
def test_without_semaphores_one_process_does_the_work_and_says_so(monkeypatch, capsys, error):
    """A /dev/shm that cannot be written."""
    def refused(*_):
        raise error

    monkeypatch.setattr("_multiprocessing.SemLock", refused)
    warn.cache_clear()
    for _ in range(2):
        assert list(in_processes(squared, [(2,), (4,)], 2)) == [((2,), 4), ((4,), 16)]
    with pytest.raises(ValueError, match="five"):
        list(in_processes(squared, [(5,)], 2))
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and str(error) in said.err


def test_sockets_have_room_under_a_long_tmpdir(tmp_path):
    """Workers are reached through a socket, whose path has at most 107 bytes."""
    folder = tmp_path / ("n" * 120)
    folder.mkdir()
    code = ("from octkit.common.processes import in_processes\n"
            "print(list(in_processes(abs, [(-2,)], 1)))")
    done = subprocess.run([sys.executable, "-c", code], cwd=settings.PROJECT, env=os.environ | {"TMPDIR": str(folder)},
                          capture_output=True, encoding="utf-8", check=True)
    assert (done.stdout, done.stderr) == ("[((-2,), 2)]\n", "")


def test_a_short_tmpdir_stays(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/somewhere")
    with short_temporary_folder():
        assert tempfile.gettempdir() == "/somewhere"
    monkeypatch.setattr(tempfile, "tempdir", long := "/" + "n" * 100)
    with short_temporary_folder():
        assert tempfile.gettempdir() == "/tmp"
    assert tempfile.gettempdir() == long


def test_no_jobs_and_the_cores():
    assert list(in_processes(squared, [], 4)) == []
    assert 1 <= cores() <= os.cpu_count()


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    """Python's own pools would wait for it for ever."""
    script = tmp_path / "waits.py"
    script.write_text("import time\nfrom octkit.common.processes import in_processes\n"
                      "if __name__ == '__main__':\n    list(in_processes(time.sleep, [(60,), (60,)], 2))\n")
    parent = subprocess.Popen([sys.executable, str(script)], cwd=settings.PROJECT,
                              env=os.environ | {"PYTHONPATH": str(settings.PROJECT)})
    children = []
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(children) < 4:  # the fork server, Python's tracker and two workers
        children = psutil.Process(parent.pid).children(recursive=True)
        time.sleep(0.1)
    assert len(children) == 4
    parent.kill()
    parent.wait()
    assert psutil.wait_procs(children, timeout=30)[1] == []


@pytest.mark.parametrize(("text", "before", "expected"), [
    (AMD, None, "5"), (AMD, "4", "4"), (AMD.replace(" avx2", ""), None, None),
    (AMD.replace("AuthenticAMD", "GenuineIntel"), None, None), (None, None, None)])
def test_mkl_is_told_on_amds_processors_with_avx2_alone(tmp_path, monkeypatch, text, before, expected):
    monkeypatch.setenv("MKL_DEBUG_CPU_TYPE", "whatever was there comes back after the test")
    monkeypatch.delenv("MKL_DEBUG_CPU_TYPE")
    if before:
        monkeypatch.setenv("MKL_DEBUG_CPU_TYPE", before)
    if text:
        (tmp_path / "cpuinfo").write_text(text)
    assert let_mkl_use_avx2(tmp_path / "cpuinfo") == (expected is not None)
    assert os.environ.get("MKL_DEBUG_CPU_TYPE") == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not confine processes to cores")
def test_cores_are_those_that_the_process_may_use():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, before)
