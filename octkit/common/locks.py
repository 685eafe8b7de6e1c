"""The lock that keeps a run folder to one run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from octkit.common.errors import OctkitError
from octkit.common.files import open_own, saying_disk_full
from octkit.common.messages import warn
from octkit.common.system import why_no_locks

if TYPE_CHECKING:
    from filelock import ReadWriteLock


@contextmanager
def locked(folder: Path, shared: bool = False, wait: bool = False) -> Iterator[None]:
    """Hold a folder for this process; raises OctkitError where another one holds it, unless told to `wait` for its end.

    `shared` is for those who may work in it side by side, such as trainings of two folds: it keeps out only the one
    that wants the folder for itself. The system gives the lock back when the process ends, however it ends, so none
    is ever left behind. `.lock` names the process that took it last; the lock itself is one on the file `.lock.db`.
    Where the folder's disk has no locks, as on some networks, this process goes on without one, and says so.
    """
    with open_own(Path(folder) / ".lock", buffering=0) as file:
        lock = _taken(Path(folder), shared, wait, file)
        try:
            with saying_disk_full(Path(folder) / ".lock"):
                file.truncate(0)
                file.write(str(os.getpid()).encode())
            yield
        finally:
            if lock is not None:
                lock.release()
                lock.close()


def _taken(folder: Path, shared: bool, wait: bool, file: BinaryIO) -> "ReadWriteLock | None":
    """The folder's lock, taken; None, after a word, where there are no locks. `file` tells whether there are any."""
    import sqlite3  # here, as not every command needs it

    from filelock import ReadWriteLock, Timeout

    open_own(folder / ".lock.db").close()  # SQLite would follow a link
    lock = None
    try:
        # No singleton: a process that holds the folder already is refused like any other.
        lock = ReadWriteLock(folder / ".lock.db", is_singleton=False)
        (lock.acquire_read if shared else lock.acquire_write)(blocking=False)
        return lock
    except Timeout:
        reason = why_no_locks(file)  # which SQLite cannot tell from a lock that is taken
        if reason is None and wait and lock is not None:
            while True:
                with suppress(Timeout):  # after each second Ctrl-C is heard
                    (lock.acquire_read if shared else lock.acquire_write)(timeout=1)
                    return lock
        if reason is None:
            file.seek(0)
            raise OctkitError(f"{folder}: process {file.read().decode().strip() or '(unknown)'} is running in this "
                              "folder; expected it free: wait for its end, or take another folder") from None
    except (OSError, sqlite3.Error) as error:
        reason = str(error)
    if lock is not None:
        lock.close()
    warn(f"{folder}: this disk gives no file locks ({reason}), so nothing keeps a second command out of the folder: "
         "start none in it")
    return None


@contextmanager
def held(run_dir: Path, part: str | None = None, shared: bool = False) -> Iterator[None]:
    """Hold a run's folder for one step of it, or only the folder `part` in it and let others work in other parts.

    `shared` is for a step that holds its own part itself. A folder that is not there is not made for that: the step
    itself says what is missing.
    """
    if not Path(run_dir).is_dir():
        yield
    elif part is None:
        with locked(run_dir, shared):
            yield
    else:
        with locked(run_dir, shared=True):
            (Path(run_dir) / part).mkdir(parents=True, exist_ok=True)
            with locked(Path(run_dir) / part):
                yield
