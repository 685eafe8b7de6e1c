import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from octkit.common import settings
from octkit.common.processes import cores, in_processes


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
