"""A run's ledger: what each step was made from, how it ended, and the lock that keeps a run folder to one run.

`ledger.jsonl` gets one JSON line for each step that was done, failed, was killed or was skipped. A step is current
when its last line that is no "skipped" says "done" and carries the hash of the inputs it would have today.
"""

import fcntl
import hashlib
import json
import os
import platform
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from octkit import __version__
from octkit.files import OctkitError

PACKAGE = Path(__file__).resolve().parent
# Those whose version can move a number or a picture.
PACKAGES = ("torch", "paddlepaddle", "paddlepaddle-gpu", "numpy", "scipy", "albumentations", "opencv-python-headless",
            "scikit-image", "scikit-learn", "pillow", "pandas", "matplotlib", "papermill")


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


def data_contents(root: Path) -> str | None:
    """A hash over the names and bytes of a data set's files; None where it is absent.

    Unlike `data_stamp` it is the same for a copy of the data set. All of it is read.
    """
    if not Path(root).is_dir():
        return None
    files = {path.relative_to(root).as_posix(): path for path in Path(root).rglob("[!.]*") if path.is_file()}
    total = hashlib.sha256()
    for name in sorted(files):
        with open(files[name], "rb") as file:
            total.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def made_with() -> dict:
    """What decides a result beside its settings and its data: code, packages, processor, threads, GPUs.

    Nothing heavy is imported for it: versions come from the packages' records, GPUs from what NVIDIA's driver lists.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()  # not on macOS
    gpus = [line.partition(":")[2].strip() for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
            for line in path.read_text(errors="replace").splitlines() if line.startswith("Model:")]
    return {"octkit": __version__, "code": code_version(), "python": platform.python_version(),
            "packages": {name: found for name in PACKAGES if (found := package_version(name))},
            "system": f"{platform.system()}, {platform.machine()}", "processor": processor(), "cores": cores,
            "threads": os.environ.get("OMP_NUM_THREADS", "as many as cores"), "gpus": gpus}


def package_version(name: str) -> str | None:
    """The version of an installed package, None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


@contextmanager
def locked(folder: Path, shared: bool = False):
    """Hold a folder for this process; raises OctkitError where another one holds it.

    `shared` is for those who may work in it side by side, such as trainings of two folds: it keeps out only the one
    that wants the folder for itself. The system gives the lock back when the process ends, however it ends, so none
    is ever left behind.
    """
    with open(Path(folder) / ".lock", "a+") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise OctkitError(f"{folder}: process {file.read().strip() or '(unknown)'} is running in this folder; "
                              "expected it free: wait for its end, or take another folder") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def held(run_dir: Path, part: str | None = None, shared: bool = False):
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
