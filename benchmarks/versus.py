"""What the comparisons with nnU-Net share: its environment, alternating runs, medians, the machine, the written table.

    python = nnunet_python(Path("…/env"))                    made there if it is not yet
    times = alternate({"octkit": ours, "nnU-Net": theirs}, repeats=5)
    ratio(times["nnU-Net"], times["octkit"])                  median of the ratios, round by round
    write_section("Prediction against nnU-Net", text)         in benchmarks/README.md
"""

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
NNUNET = "2.8.1"
PAGE = Path(__file__).with_name("README.md")


@dataclass(frozen=True)
class Finished:
    """A process that has ended: wall seconds, processor seconds of it and its children, the peak memory of the
    largest of these processes in MB, and what it printed."""

    seconds: float
    processor: float
    peak_mb: float
    output: str


def nnunet_python(folder: Path) -> Path:
    """The python of an environment with nnU-Net 2.8.1 in `folder`, which is made there where there is none."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"making an environment with nnunetv2 {NNUNET} in {folder}")
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        torch = next(line.split()[0] for line in (PROJECT / "requirements.txt").read_text(encoding="utf-8").splitlines()
                     if line.startswith("torch=="))
        for package in (torch, f"nnunetv2=={NNUNET}"):  # torch first and alone, as in requirements.txt
            subprocess.run([python, "-m", "pip", "install", "--quiet", package], check=True)
    found = version_there(python, "nnunetv2")
    if found != NNUNET:
        sys.exit(f"{folder}: found nnunetv2 {found}, expected {NNUNET}")
    return python


def version_there(python: Path | str, package: str) -> str:
    """The version of a package in another environment."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run([python, "-c", code], check=True, capture_output=True, encoding="utf-8").stdout.strip()


def nnunet_environment(scratch: Path, threads: int) -> dict[str, str]:
    """Environment variables for nnU-Net: its three folders in `scratch`, nothing of ours on its path."""
    folders = {}
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        folders[name] = str(scratch / name)
        (scratch / name).mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "OMP_NUM_THREADS")}
    return kept | folders | {"OMP_NUM_THREADS": str(threads)}


def octkit_environment(threads: int) -> dict[str, str]:
    """Environment variables for this project's own processes."""
    return os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": str(threads)}


def finished(command: Sequence[str | Path], environment: Mapping[str, str]) -> Finished:
    """Run a command to its end and measure it. Ends this program, with its output, where it fails."""
    start = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], env=dict(environment), stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, encoding="utf-8")
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit code {process.returncode}\n{output[-4000:]}")
    return Finished(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000, output)


def alternate(contestants: Mapping[str, Callable], repeats: int) -> dict[str, list]:
    """Call each contestant `repeats` times in turn, the order turned round every time; name -> what the calls gave.

    Whatever else the machine does meanwhile falls on all of them alike.
    """
    found = {name: [] for name in contestants}
    for number in range(repeats):
        for name in list(contestants)[::1 if number % 2 == 0 else -1]:
            found[name].append(contestants[name]())
    return found


def seconds_of(call: Callable) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """How many times as fast ours is: the median over rounds of theirs / ours."""
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))


def machine() -> str:
    """Processor, cores, instruction sets, memory, GPU and today's date, on one line."""
    information = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    named = [line.split(":")[1].strip() for line in information.splitlines() if line.startswith("model name")]
    sets = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {name} " in information]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    gpus = Path("/proc/driver/nvidia/gpus")
    gpu = f"{len(list(gpus.iterdir()))} NVIDIA GPU" if gpus.exists() else "no GPU"
    return (f"{date.today().isoformat()}, {os.cpu_count()} cores of {named[0] if named else platform.processor()} "
            f"({', '.join(sets) or platform.machine()}), {memory:.0f} GB, {gpu}; Python {platform.python_version()}")


def table(head: Sequence[str], rows: Sequence[Sequence]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def write_section(title: str, text: str) -> None:
    """Put `text` under the heading `title` of benchmarks/README.md, in place of what stood there; new ones last."""
    page = PAGE.read_text(encoding="utf-8")
    heading = f"## {title}\n"
    before, found, rest = page.partition(heading)
    after = rest.partition("\n## ")
    following = "\n## " + after[2] if found and after[1] else ""
    PAGE.write_text(before.rstrip() + "\n\n" + heading + "\n" + text.strip() + "\n" + following, encoding="utf-8")
