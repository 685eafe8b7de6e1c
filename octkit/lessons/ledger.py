"""A run's ledger: what each step was made from, how it ended, and the lock that keeps a run folder to one run.

`ledger.jsonl` gets one JSON line for each step that was done, failed, was killed or was skipped. A step is current
when its last line that is no "skipped" says "done" and carries the hash of the inputs it would have today.
"""

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import octkit
from octkit import __version__
from octkit.common.hashes import digest
from octkit.common.processes import cores

PACKAGE = Path(octkit.__file__).resolve().parent
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


def code_version(package: Path = PACKAGE) -> str:
    """A hash over the files of the package: any edit in them makes every step's result stale."""
    files = [path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc" and path.name[0] != "."]
    return digest({path.relative_to(package).as_posix(): path.read_bytes().hex() for path in files})


def made_with() -> dict:
    """What decides a result beside its settings and its data: code, packages, processor, threads, GPUs.

    Nothing heavy is imported for it: versions come from the packages' records, GPUs from what NVIDIA's driver lists.
    """
    gpus = [line.partition(":")[2].strip() for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
            for line in path.read_text(errors="replace").splitlines() if line.startswith("Model:")]
    return {"octkit": __version__, "code": code_version(), "python": platform.python_version(),
            "packages": {name: found for name in PACKAGES if (found := package_version(name))},
            "system": f"{platform.system()}, {platform.machine()}", "processor": processor(), "cores": cores(),
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


