import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from octkit.common import settings
from octkit.common.processes import cores, in_processes, let_mkl_use_avx2

AMD = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx avx2 bmi1\n"


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
