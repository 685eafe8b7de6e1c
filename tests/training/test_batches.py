import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import torch
from torch.utils.data import Dataset

from octkit.common.errors import OctkitError
from octkit.common.messages import warn
from octkit.training import batches as module
from octkit.training.batches import batches

CPU = torch.device("cpu")


class Numbers(Dataset):
    """Items that are their own number, but for what happens at some of them."""

    batch_size = 2

    def __init__(self, **happens):
        self.happens = {int(name[1:]): what for name, what in happens.items()}

    def __getitem__(self, number):
        if number in self.happens:
            self.happens[number]()
        return torch.tensor([float(number)]), torch.tensor(number)


def drawn(dataset, count, processes):
    with batches(dataset, 1, 1 + count, processes, CPU) as source:
        return [images.flatten().tolist() for images, _ in source]


def no_octkit_sentence():
    raise ZeroDivisionError("no octkit sentence")


def octkit_sentence():
    raise OctkitError("case 7: is gone")


def no_shared_memory():
    raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)")


def bus_error():
    os.kill(os.getpid(), signal.SIGBUS)


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def stopped():
    os.kill(os.getpid(), signal.SIGSTOP)


def left_early():
    os._exit(3)


def hanging_on_a_lock():
    lock = multiprocessing.Lock()
    lock.acquire()
    lock.acquire()


def slow_but_working():
    end = time.process_time() + 1.5
    while time.process_time() < end:
        np.ones(1000).sum()


@pytest.mark.parametrize("processes", [0, 1, 2])
def test_batches_come_in_order_whoever_makes_them(processes):
    assert drawn(Numbers(), 4, processes) == [[2, 3], [4, 5], [6, 7], [8, 9]]
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("processes", [0, 2])
def test_a_worker_that_raises_brings_its_traceback(processes):
    with pytest.raises(ZeroDivisionError, match="no octkit sentence") as caught:
        drawn(Numbers(n5=no_octkit_sentence), 4, processes)
    assert str(caught.value) == "no octkit sentence"
    assert processes == 0 or 'in no_octkit_sentence' in str(caught.value.__cause__)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("processes", [0, 2])
def test_what_the_user_can_mend_stays_one_sentence(processes):
    with pytest.raises(OctkitError, match="^case 7: is gone$"):
        drawn(Numbers(n5=octkit_sentence), 4, processes)


def test_the_worker_of_a_full_shared_memory_says_what_helps():
    with pytest.raises(OctkitError, match="/dev/shm .*--shm-size.*train.workers=0"):
        drawn(Numbers(n5=no_shared_memory), 4, 1)
    with pytest.raises(OctkitError, match="SIGBUS.*/dev/shm .*--shm-size.*train.workers=0"):
        drawn(Numbers(n5=bus_error), 4, 1)


def test_batches_that_shared_memory_cannot_hold_come_through_pipes(monkeypatch, capsys):
    def refused(*_):
        raise RuntimeError("no shared memory is to be had")

    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(64, 0, 64))
    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", refused)
    monkeypatch.setattr(torch.UntypedStorage, "_new_using_fd_cpu", refused)
    warn.cache_clear()
    assert drawn(Numbers(), 4, 2) == [[2, 3], [4, 5], [6, 7], [8, 9]]
    assert "/dev/shm has 0.0 MiB free" in capsys.readouterr().err


def test_where_no_worker_can_start_one_process_makes_the_batches(monkeypatch, capsys):
    def refused(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("_multiprocessing.SemLock", refused)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(64, 0, 64))
    warn.cache_clear()
    assert drawn(Numbers(), 2, 2) == [[2, 3], [4, 5]]
    assert "Read-only file system" in capsys.readouterr().err


def test_batches_come_under_a_long_tmpdir(tmp_path):
    """Batches in shared memory are handed over through a socket, whose path has at most 107 bytes."""
    folder = tmp_path / ("n" * 120)
    folder.mkdir()
    code = "from test_batches import Numbers, drawn\nprint(drawn(Numbers(), 2, 2))"
    done = subprocess.run([sys.executable, "-c", code], cwd=os.path.dirname(__file__), capture_output=True,
                          encoding="utf-8", env=os.environ | {"TMPDIR": str(folder)}, check=True)
    assert done.stdout == "[[2.0, 3.0], [4.0, 5.0]]\n"


def test_a_worker_that_is_killed_is_reported():
    with pytest.raises(OctkitError, match=r"a data worker \(process \d+\) was killed by SIGKILL, as .* runs out; give"):
        drawn(Numbers(n5=killed), 4, 2)
    assert multiprocessing.active_children() == []


def test_a_worker_that_ends_is_reported():
    with pytest.raises(OctkitError, match=r"a data worker \(process \d+\) ended with exit code 3"):
        drawn(Numbers(n5=left_early), 4, 1)


@pytest.mark.long
@pytest.mark.parametrize(("happens", "state", "stack"), [(stopped, "stopped", None),
                                                         (hanging_on_a_lock, "sleeping", "in hanging_on_a_lock")])
def test_a_worker_that_hangs_says_where(monkeypatch, capfd, happens, state, stack):
    monkeypatch.setattr(module, "LOOK_EVERY", 0.2)
    with pytest.raises(OctkitError, match=rf"none of them did anything for 1 s \(.*process \d+: {state}"):
        drawn(Numbers(n5=happens), 4, 2)
    assert stack is None or stack in capfd.readouterr().err
    assert multiprocessing.active_children() == []


def test_hanging_is_told_within_a_minute():
    assert module.LOOKS * module.LOOK_EVERY + 10 < 60


def test_a_worker_that_is_slow_is_waited_for(monkeypatch):
    monkeypatch.setattr(module, "LOOK_EVERY", 0.2)
    monkeypatch.setattr(module, "PROGRESS", 0.001)  # a machine at its limit gives a worker little of each 0.2 s
    assert drawn(Numbers(n2=slow_but_working), 2, 1) == [[2, 3], [4, 5]]


def test_an_error_in_the_training_ends_the_workers():
    with pytest.raises(ZeroDivisionError), batches(Numbers(), 0, 100, 2, CPU) as source:
        next(source)
        raise ZeroDivisionError
    assert multiprocessing.active_children() == []


ORPHANS = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # which the tests' own parent may have switched off
sys.path.insert(0, sys.argv[1])
from test_batches import CPU, Numbers
from octkit.training.batches import batches
with batches(Numbers(), 0, 1000, 2, CPU) as source:
    next(source)
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_its_training(end):
    parent = subprocess.Popen([sys.executable, "-c", ORPHANS, os.path.dirname(__file__)], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True)
    assert parent.stdout.readline() == "ready\n"
    crew = psutil.Process(parent.pid).children()
    assert len(crew) == 2
    parent.send_signal(end)
    parent.communicate()
    _, alive = psutil.wait_procs(crew, timeout=10)
    assert alive == []
