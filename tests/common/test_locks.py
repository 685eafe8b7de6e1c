import errno
import fcntl
import subprocess
import sys
import threading
from contextlib import nullcontext

import filelock
import pytest

from octkit.common import locks
from octkit.common.errors import OctkitError
from octkit.common.messages import warn
from octkit.common.settings import PROJECT

HOLD = """
import sys, time
from octkit.common.locks import locked
with locked(sys.argv[1], shared=sys.argv[2] == "True"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("shared", [True, False])
def test_a_lock_keeps_others_out_and_ends_with_a_process_that_is_killed(tmp_path, shared):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path), str(shared)], cwd=PROJECT,
                              stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(OctkitError, match=f"process {holder.pid} is running"), locks.locked(tmp_path):
        pass
    with nullcontext() if shared else pytest.raises(OctkitError), locks.locked(tmp_path, shared=True):
        pass
    holder.kill()
    holder.wait()
    with locks.locked(tmp_path):
        pass


def test_a_process_refuses_itself_and_its_parts_go_side_by_side(tmp_path):
    with locks.held(tmp_path, "one"), locks.held(tmp_path, "two"):
        for part in ("one", None):
            with pytest.raises(OctkitError), locks.held(tmp_path, part):
                pass
    with locks.locked(tmp_path), pytest.raises(OctkitError), locks.held(tmp_path, "one"):
        pass
    with locks.held(tmp_path / "nowhere"):
        assert not (tmp_path / "nowhere").exists()


def raising(error):
    def function(*_, **__):
        raise error

    return function


@pytest.mark.parametrize(("lock", "file"), [
    (filelock.Timeout("busy"), OSError(errno.ENOLCK, "No locks available")),  # what SQLite makes of a disk without
    (OSError("hard links are not supported"), None),
])
@pytest.mark.parametrize("shared", [True, False])
def test_where_there_are_no_locks_a_process_goes_on_and_says_so(tmp_path, monkeypatch, capsys, lock, file, shared):
    monkeypatch.setattr(filelock.ReadWriteLock, "acquire_read" if shared else "acquire_write", raising(lock))
    if file:
        monkeypatch.setattr(fcntl, "lockf", raising(file))
    warn.cache_clear()
    for _ in range(2):
        with locks.locked(tmp_path, shared):
            (tmp_path / "result").touch()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(tmp_path) in said and str(file or lock) in said


def test_a_lock_that_is_taken_is_no_missing_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "lockf", raising(BlockingIOError(errno.EAGAIN, "busy")))
    monkeypatch.setattr(filelock.ReadWriteLock, "acquire_write", raising(filelock.Timeout("busy")))
    with pytest.raises(OctkitError, match="is running in this folder"), locks.locked(tmp_path):
        pass


def test_who_waits_gets_the_folder_when_it_is_free(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path), "False"], cwd=PROJECT,
                              stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    order = []

    def end():
        order.append("ended")
        holder.kill()

    threading.Timer(0.2, end).start()
    with locks.locked(tmp_path, wait=True):
        order.append("held")
    holder.wait()
    assert order == ["ended", "held"]
