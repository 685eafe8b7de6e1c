"""The lock that keeps a run folder to one run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from octkit.common.errors import OctkitError


@contextmanager
def locked(folder: Path, shared: bool = False) -> Iterator[None]:
    """Hold a folder for this process; raises OctkitError where another one holds it.

    `shared` is for those who may work in it side by side, such as trainings of two folds: it keeps out only the one
    that wants the folder for itself. The system gives the lock back when the process ends, however it ends, so none
    is ever left behind. `.lock` names the process that took it last; the lock itself is one on the file `.lock.db`.
    """
    from filelock import ReadWriteLock, Timeout  # here, as not every command needs it

    with open(Path(folder) / ".lock", "a+") as file:
        # No singleton: a process that holds the folder already is refused like any other.
        lock = ReadWriteLock(Path(folder) / ".lock.db", is_singleton=False)
        try:
            (lock.acquire_read if shared else lock.acquire_write)(blocking=False)
        except Timeout:
            lock.close()
            file.seek(0)
            raise OctkitError(f"{folder}: process {file.read().strip() or '(unknown)'} is running in this folder; "
                              "expected it free: wait for its end, or take another folder") from None
        try:
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield
        finally:
            lock.release()
            lock.close()


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
