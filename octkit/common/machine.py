"""What a machine has, and what will therefore be used: `octkit doctor --machine`, which the set-up ends with.

Each heavy library is imported in a process of its own: torch and paddle never share one, and a library that crashes at
its import, as on a processor that it was not built for, takes nothing along.
"""

import ctypes
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from octkit.common.errors import OctkitError
from octkit.common.memory import GB, free_memory
from octkit.common.processes import cores
from octkit.common.settings import PROJECT
from octkit.common.system import SHARED

# module -> the part of requirements.txt that brings it
LIBRARIES = {**dict.fromkeys(("numpy", "cv2", "sklearn", "pandas", "matplotlib.pyplot", "albumentations", "onnx",
                              "torch"), "core"),
             "paddle": "classify", "eyepy": "devices", "distributed": "cluster",
             **dict.fromkeys(("jupyterlab", "ipywidgets", "papermill", "nbformat"), "lessons")}
OF_LESSONS = ("nbclient", "jupyter_client", "ipykernel", "jinja2")  # light ones: missing, they are named, too
PACKAGES = {"libgomp.so.1": "libgomp1", "libstdc++.so.6": "libstdc++6", "libGL.so.1": "libgl1"}  # of Debian
PROBE = """
import importlib, json, sys
from octkit.common.machine import find_openmp
find_openmp()
module, facts = importlib.import_module(sys.argv[1]), {}
if sys.argv[1] == "torch":
    import torch
    from octkit.network.model import choose_device, working_precision
    device = choose_device("auto")
    facts = {"CUDA": torch.version.cuda or "none", "GPUs": [
        f"{gpu.name} ({gpu.total_memory / 1e9:.0f} GB, compute capability {gpu.major}.{gpu.minor})"
        for gpu in map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))]}
    facts["use"] = f"{device.type}, {working_precision('bfloat16', device)}"
elif sys.argv[1] == "paddle":
    built = module.is_compiled_with_cuda()
    facts = {"CUDA": module.version.cuda() if built else "none"}
    facts["GPUs"] = module.device.cuda.device_count() if built else 0
    facts["use"] = "gpu" if facts["GPUs"] else "cpu"
print(json.dumps(facts | {"version": getattr(module, "__version__", "there")}))
"""


def find_openmp() -> None:
    """Before paddle is imported: load the OpenMP library that its wheel expects of Linux, the system's or torch's.

    A minimal system has none; torch's wheel carries one. With neither, the import says what is missing.
    """
    if sys.platform != "linux":
        return
    with suppress(OSError):
        ctypes.CDLL("libgomp.so.1")
        return
    torch = importlib.util.find_spec("torch")  # found, not imported
    carried = Path(torch.origin).parent / "lib" / "libgomp.so.1" if torch and torch.origin else None
    if carried and carried.exists():
        ctypes.CDLL(str(carried), ctypes.RTLD_GLOBAL)


def probe(library: str) -> dict[str, Any]:
    """Import a library in a new process: its "version" and what it says of this machine, or its "error"."""
    if importlib.util.find_spec(library.partition(".")[0]) is None:
        return {"missing": how_to_get(library)}
    done = subprocess.run([sys.executable, "-P", "-c", PROBE, library], capture_output=True, encoding="utf-8",
                          errors="replace", env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return {"error": f"ended with exit code {done.returncode}: {last}" if done.returncode < 0 else told(last) or last}


def how_to_get(library: str) -> str:
    """How to get a library that is not installed."""
    part = LIBRARIES.get(library, "lessons" if library in OF_LESSONS else "core")
    return f"{library} is not installed, expected it for this: {install_command(part)}"


def install_command(part: str) -> str:
    """How to install octkit again with a part of requirements.txt: for this Python, from where octkit came."""
    from urllib.parse import urlparse
    from urllib.request import url2pathname  # brings http and ssl, which no other command needs

    extra = "" if part == "core" else f"[{part}]"
    try:
        note = metadata.distribution("octkit").read_text  # of PEP 610, in UTF-8
        came = json.loads(note("direct_url.json") or "{}")
    except metadata.PackageNotFoundError:
        came = {}
    source = Path(url2pathname(urlparse(came.get("url", "")).path))
    if source == Path() or not source.exists():
        return f'pip install ".{extra}" in octkit\'s folder'
    editable = "--editable " if came.get("dir_info", {}).get("editable") else ""
    return f'"{sys.executable}" -m pip install {editable}"{source}{extra}"'


def told(message: str) -> str | None:
    """What the message of an ImportError means and what helps; None where octkit does not know."""
    if found := re.search(r"No module named '([\w.]+)'", message):
        name = found[1].partition(".")[0]
        return how_to_get(name) if name in OF_LESSONS or any(name == key.split(".")[0] for key in LIBRARIES) else None
    if found := re.search(r"(lib\S+\.so[\d.]*): cannot open shared object", message):
        package = PACKAGES.get(found[1], f"the package with {found[1]}")
        return f"the system library {found[1]} is missing; Debian, Ubuntu: apt install {package}"
    return None


def in_a_sentence(error: Exception, command: list[str]) -> tuple[str, int]:
    """A sentence on an error that octkit has none of its own for, and the exit code."""
    where = "octkit --debug COMMAND … shows where"
    if isinstance(error, ImportError) and (what_helps := told(str(error))):
        return what_helps, 2
    if "Too many open files" in str(error):  # also torch's and zmq's errors
        return "too many open files: raise the limit (ulimit -n 4096), or lower train.workers", 2
    if not isinstance(error, OSError):
        return f"{type(error).__name__}: {error} ({where})", 1
    if error.filename is None:  # often of no file at all
        return f"{' '.join(command)}: the system refused something ({error}); {where}", 2
    return f"{error.filename}: cannot be read or written ({error.strerror or error})", 2


def check(library: str) -> None:
    """Raise OctkitError for a library that is not there, or cannot be imported."""
    found = probe(library)
    if "missing" in found:
        raise OctkitError(found["missing"])
    if "error" in found:
        raise OctkitError(f"{library}: {found['error']}")


def processor() -> str:
    return next(iter(values(Path("/proc/cpuinfo"), "model name")), platform.processor() or "unknown")


def gpus() -> list[str]:
    """The GPUs that NVIDIA's driver lists; without importing anything."""
    return [name for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
            for name in values(path, "Model")]


def values(path: Path, key: str) -> list[str]:
    """The values of all lines "key: value" in a file of Linux's; none where it is not there."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    return [line.partition(":")[2].strip() for line in lines if line.startswith(key)]


def tell() -> None:
    """Print the page of `octkit doctor --machine`; raises OctkitError where a library cannot be imported."""
    with ThreadPoolExecutor(cores()) as pool:
        found = dict(zip(LIBRARIES, pool.map(probe, LIBRARIES), strict=True))
    torch, paddle = found["torch"], found["paddle"]
    flags = " ".join(values(Path("/proc/cpuinfo"), "flags")[:1]).split()
    features = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    disk, shared = shutil.disk_usage(PROJECT), shutil.disk_usage(SHARED) if SHARED.is_dir() else None
    lines = [
        ("system", f"{platform.platform()}, Python {platform.python_version()}"),
        ("processor", "; ".join((processor(), f"{cores()} cores for this process", *features))),
        ("memory", f"{free_memory() / GB:.1f} GB free of {psutil.virtual_memory().total / GB:.1f} GB"),
        (str(SHARED), f"{shared.free / GB:.2f} GB free: data workers send batches through it, or pipes where it is too "
                      "small" if shared else "none: data workers send batches another way"),
        ("disk", f"{disk.free / GB:.1f} GB free at {PROJECT}"),
        ("NVIDIA driver", next(iter(values(Path("/proc/driver/nvidia/version"), "NVRM version")), "none found")),
        ("GPUs, by torch", ", ".join(torch.get("GPUs", [])) or "none"), ("GPUs, by paddle", paddle.get("GPUs", 0)),
        ("CUDA", f"torch {torch.get('CUDA', 'unknown')}, paddle {paddle.get('CUDA', 'unknown')}"),
        *((name, result.get("version") or result.get("missing") or f"FAILS: {result['error']}")
          for name, result in found.items()),
        ("will be used", f"for segmentation {torch.get('use', 'nothing')} (bfloat16 where asked for and available), "
                         f"for the ResNet50 {paddle.get('use', 'nothing')}"),
    ]
    print(*(f"{name:17s}  {value}" for name, value in lines), sep="\n")
    if faults := [f"{name}: {result['error']}" for name, result in found.items() if "error" in result]:
        raise OctkitError("\n  ".join(["what cannot be imported:", *faults]))
