"""Set up .venv, on any system: `python3 setup_env.py`. `make` calls it.

It first looks for what would stop it later, then installs the packages of requirements/ by their hashes and octkit
itself, and imports every heavy library once. The environment may say:

    TORCH_INDEX    where builds of torch for the CPU lie (default: PyTorch's own index); empty: PyPI's build is taken
    TORCH          "torch==2.13.0 --index-url URL": any other build, without a hash
"""

import ctypes
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent
BIN = ROOT / ".venv" / ("Scripts" if os.name == "nt" else "bin")
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
PYTHONS = ((3, 11), (3, 14))  # from, up to but not
LIBRARIES = {"libstdc++.so.6": "libstdc++6", "libgcc_s.so.1": "libgcc-s1"}  # which wheels need: Debian's packages
GB = 1e9
ROOM, ROOM_CUDA = 3 * GB, 12 * GB  # of disk, for the packages and pip's own copies while it installs


def main() -> None:
    for problem in (problems := list(find_problems())):
        print(f"set-up: {problem}", file=sys.stderr)
    if problems:
        sys.exit(1)
    try:
        subprocess.run([sys.executable, "-m", "venv", str(ROOT / ".venv")], check=True)
        pip("--require-hashes", "-r", "requirements/pip.txt")
        install_torch()
        print("set-up: all other packages (about 350 MB to fetch)", flush=True)
        pip("--require-hashes", "-r", "requirements/lock.txt")
        pip("--no-build-isolation", "--editable", ".")
        print("set-up: each library is imported once", flush=True)
        subprocess.run([str(BIN / "octkit"), "doctor", "--machine"], check=True)
    except subprocess.CalledProcessError as error:
        sys.exit(f"set-up: this command failed (see above): {shlex.join(error.cmd)}")
    (BIN.parent / "ready").touch()


def find_problems():
    """What would stop the set-up later, a sentence each."""
    if not PYTHONS[0] <= sys.version_info[:2] < PYTHONS[1]:
        yield (f"found Python {sys.version.split()[0]} ({sys.executable}), expected 3.11, 3.12 or 3.13: "
               "name one (make PYTHON=python3.12 …, or python3.12 setup_env.py)")
    if importlib.util.find_spec("ensurepip") is None:
        yield "this Python makes no environments (module ensurepip); Debian, Ubuntu: apt install python3-venv"
    for library, package in LIBRARIES.items() if sys.platform == "linux" else ():
        try:
            ctypes.CDLL(library)
        except OSError:
            yield f"the system library {library} is missing; Debian, Ubuntu: apt install {package}"
    if (free := shutil.disk_usage(ROOT).free) < ROOM:
        yield f"{ROOT}: has {free / GB:.1f} GB of disk free, expected at least {ROOM / GB:.0f} GB"


def install_torch() -> int | None:
    """The build that TORCH names; for the CPU where no NVIDIA driver is found; otherwise PyPI's."""
    if chosen := os.environ.get("TORCH"):
        return pip(*shlex.split(chosen), alone=False)  # with the libraries of CUDA that it names
    if sys.platform == "linux" and not has_gpu():
        index = os.environ.get("TORCH_INDEX", TORCH_INDEX)
        extra = ["--extra-index-url", index] if index and answers(index) else []
        print("set-up: torch for the CPU (190 MB); no NVIDIA driver was found", flush=True)
        # Also without that index: the user's own settings of pip may name another that has it.
        if pip("--require-hashes", "-r", "requirements/torch-cpu.txt", *extra, check=False) == 0:
            return None
        print(f"set-up: no build of torch for the CPU was found at {index or 'the indexes of pip'}; PyPI's build takes "
              "6 GB with CUDA's libraries. TORCH_INDEX=URL names another index", flush=True)
        if (free := shutil.disk_usage(ROOT).free) < ROOM_CUDA:
            sys.exit(f"set-up: {free / GB:.1f} GB of disk are free, expected {ROOM_CUDA / GB:.0f} GB for that build")
    pip("--require-hashes", "-r", "requirements/torch.txt")
    if sys.platform == "linux":
        pip("--require-hashes", "-r", "requirements/cuda.txt")
    return None


def has_gpu() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def answers(index: str) -> bool:
    """Whether an index can be reached: pip itself would try for minutes."""
    try:
        urllib.request.urlopen(f"{index.rstrip('/')}/torch/", timeout=10).close()
    except OSError as error:
        print(f"set-up: {index} cannot be reached ({error})", flush=True)
        return False
    return True


def pip(*arguments: str, check: bool = True, alone: bool = True) -> int:
    """Install packages, `alone` without what they need; returns pip's exit code, or raises where it `check`s."""
    command = [str(BIN / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    told = None if check else subprocess.DEVNULL
    return subprocess.run([*command, *["--no-deps"] * alone, *arguments], cwd=ROOT, check=check, stderr=told).returncode


if __name__ == "__main__":
    main()
