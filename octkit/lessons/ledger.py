"""A run's ledger: what each step was made from and how it ended.

`ledger.jsonl` gets one JSON line for each step that was done, failed, was killed, was skipped, or was left out as the
data lack what it needs (`error` says what). A step is current
when its last line that is no "skipped" says "done" and carries the hash of the inputs it would have today.
"""

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from pydantic import BaseModel, ValidationError

from octkit import __version__
from octkit.common.files import TEXT, only_file, open_own
from octkit.common.hashes import code_version, file_hash
from octkit.common.machine import gpus, processor
from octkit.common.processes import cores
from octkit.common.settings import Inside
from octkit.planning.run import Run

# Those whose version can move a number or a picture.
PACKAGES = ("torch", "paddlepaddle", "paddlepaddle-gpu", "numpy", "scipy", "albumentations", "opencv-python-headless",
            "scikit-image", "scikit-learn", "pillow", "pandas", "matplotlib", "papermill")


class Line(BaseModel, frozen=True):
    """One line: a step's execution, or that it was skipped.

    `inputs` is the hash of all that decides the result, `shown` that of the settings that the step only writes down.
    `started` and `made` are times: of this line, and of the execution whose files stand in the folder. `exit` is 0,
    130 after Ctrl-C, the kernel's exit code (the negative of the signal that killed it), or 1. `lost` are the processes
    that had begun the step since its line before, and died. `data` are the hashes of the data sets' files. `outputs`
    are the files that the step has left: name in the run's folder -> bytes, time of the last change in ns,
    `hashes.file_hash`; None in lines of older versions.
    """

    step: str
    status: Literal["done", "failed", "killed", "skipped", "left out"]
    started: str = ""
    seconds: float = 0.0
    peak_memory_mb: int = 0
    inputs: str = ""
    shown: str = ""
    made: str = ""
    error: str | None = None
    exit: int = 0
    data: list[str | None] | None = None
    made_with: dict | None = None
    lost: tuple[str, ...] = ()
    outputs: dict[Inside, tuple[int, int, str]] | None = None

    @property
    def contents(self) -> dict[str, str]:
        """Name of each file that the step has left -> the hash of its bytes."""
        return {name: found for name, (_, _, found) in (self.outputs or {}).items()}


def read(run: Run) -> list[Line]:
    """The ledger's lines, oldest first; none where nothing has run yet.

    A line that a power cut has torn is left out: its step counts as not done, and runs again.
    """
    run.check_links()
    lines = []
    path = only_file(run.ledger_file, "a ledger", TEXT)
    for text in path.read_bytes().splitlines() if path.exists() else []:
        try:
            lines.append(Line.model_validate_json(text))
        except ValidationError:
            continue
    return lines


def append(run: Run, line: Line) -> None:
    """Add one line; it is on the disk when this returns."""
    with open_own(run.ledger_file) as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a torn last line must not swallow this one
                file.write(b"\n")
        file.write(line.model_dump_json().encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def ends(run: Run) -> dict[str, Line]:
    """Each step that has run and the line that tells how it last ended."""
    return {line.step: line for line in read(run) if line.status != "skipped"}


def files(run: Run, patterns: Iterable[str]) -> list[str]:
    """The names of a run's files that match, and of all files in folders that do; hidden ones are left out."""
    found = {path.relative_to(run.folder) for pattern in patterns for top in run.folder.glob(pattern)
             for path in ((top, *top.rglob("*")) if top.is_dir() else (top,)) if path.is_file()}
    return sorted(path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts))


def outputs(run: Run, names: Iterable[str]) -> dict[str, tuple[int, int, str]]:
    """`Line.outputs` of these files."""
    found = {name: run.folder / name for name in names}
    return {name: ((state := path.stat()).st_size, state.st_mtime_ns, file_hash(path)) for name, path in found.items()}


def not_as_left(run: Run, line: Line) -> str | None:
    """The first file of a step that is missing or has changed since, in words; None where all are whole.

    A file's bytes are read only where its size is the same and its time is not, as in a copied folder.
    """
    for name, (size, changed, contents) in (line.outputs or {}).items():
        path = run.folder / name
        if not path.is_file():
            return f"{path} is missing"
        state = path.stat()
        if state.st_size != size or (state.st_mtime_ns != changed and file_hash(path) != contents):
            return f"{path} has changed"
    return None


def left_out(run: Run, step: str) -> str | None:
    """What the data lack for a step that was left out for it; None for a step that was not."""
    line = ends(run).get(step)
    return line.error if line and line.status == "left out" else None


def made_with() -> dict:
    """What decides a result beside its settings and its data: code, packages, processor, threads, GPUs.

    Nothing heavy is imported for it: versions come from the packages' records, GPUs from what NVIDIA's driver lists.
    """
    return {"octkit": __version__, "code": code_version(), "python": platform.python_version(),
            "packages": {name: found for name in PACKAGES if (found := _version(name))},
            "system": f"{platform.system()}, {platform.machine()}", "cores": cores(),
            "processor": processor(),
            "threads": os.environ.get("OMP_NUM_THREADS", "as many as cores"),
            "gpus": gpus()}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
