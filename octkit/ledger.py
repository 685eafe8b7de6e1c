"""A run's ledger: what each step was made from, how it ended, and the lock that keeps a run folder to one run.

`ledger.jsonl` gets one JSON line for each step that finished, failed or was skipped. A step is current when
its last line that is no "skipped" says "done" and carries the hash of the inputs it would have today.
"""

import fcntl
import hashlib
import json
import os
from contextlib import contextmanager
from pathlib import Path

from octkit.files import OctkitError

PACKAGE = Path(__file__).resolve().parent


def read(run_dir: Path) -> list[dict]:
    """The ledger's lines, oldest first; none where nothing has run yet.

    A line that a power cut has torn is left out: its step counts as not done, and runs again.
    """
    path = Path(run_dir) / "ledger.jsonl"
    lines = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return lines


def append(run_dir: Path, line: dict) -> None:
    """Add one line; it is on the disk when this returns."""
    with open(Path(run_dir) / "ledger.jsonl", "ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a torn last line must not swallow this one
                file.write(b"\n")
        file.write(json.dumps(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def last(lines: list[dict], step: str) -> dict | None:
    """The line that tells how `step` last ended."""
    return next((x for x in reversed(lines) if x.get("step") == step and x.get("status") != "skipped"), None)


def digest(value) -> str:
    """A hash of anything that JSON can write; equal values have equal hashes, whatever their keys' order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def code_version(package: Path = PACKAGE) -> str:
    """A hash over the files of the package: any edit in them makes every step's result stale."""
    return digest({path.name: path.read_bytes().hex() for path in package.glob("[!.]*.*")})


def data_stamp(root: Path) -> str | None:
    """A hash over the names, sizes and modification times of a data set's files; None where it is absent.

    Contents are not read: hashing a data set of volumes would take longer than most steps.
    """
    if not Path(root).is_dir():
        return None
    visible = [path for path in Path(root).rglob("[!.]*") if path.is_file()]
    return digest(sorted([str(path.relative_to(root)), path.stat().st_size, path.stat().st_mtime_ns]
                         for path in visible))


@contextmanager
def locked(run_dir: Path):
    """Hold the run folder for this process; raises OctkitError where another run holds it.

    The system gives the lock back when the process ends, however it ends, so none is ever left behind.
    """
    path = Path(run_dir) / ".lock"
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise OctkitError(f"{run_dir}: process {file.read().strip() or '(unknown)'} is running in this folder; "
                              "wait for it, or choose another --run-dir") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
