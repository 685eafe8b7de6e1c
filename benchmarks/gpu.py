"""octkit and nnU-Net 2.8.1 on one GPU: one command of at most 9 minutes, with nothing to download.

    PYTHONPATH=. .venv/bin/python benchmarks/gpu.py --collect DIR        where there is a network: wheels, some 30 MB
    PYTHONPATH=. python3 benchmarks/gpu.py OUT --wheels DIR              a machine with a GPU and no network
    PYTHONPATH=. .venv/bin/python benchmarks/gpu.py OUT --environment DIR [--write]             one with a network
                                                  … --device cpu --tiny  all on a CPU, to see that it runs

The machine without a network needs Python 3.12 with torch and what is common beside it (`ELSEWHERE`); `--wheels`
puts the wheels on top of these in an environment of their own, for both contestants. nnU-Net goes without SimpleITK,
whose reader is not needed for PNG. In 64 MiB all of this fits twice.

Each part is a process with so many seconds (`PARTS`), of which the last ones get what is left: a part that takes longer
is ended, and what it has found until then stays. OUT/gpu.md grows with every finding; OUT/gpu.log has what was printed.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import venv
from pathlib import Path

from gpu_parts import ANSWER
from versus import NNUNET, machine, nnunet_environment, nnunet_python, octkit_environment, table, write_section

# By wheel; what they need beyond these is expected to be there: `ELSEWHERE`.
WHEELS = ("albumentations==2.0.8", "albucore==0.0.24", "stringzilla==5.3.2", "simsimd==6.5.16", "pydantic==2.14.4",
          "pydantic-core==2.50.5", "annotated-types==0.8.0", "typing-inspection==0.4.5", "typing-extensions==4.16.0",
          "openpyxl==3.1.5", "et-xmlfile==2.0.0", "defusedxml==0.7.1", "nibabel==5.4.2", "typer==0.29.2",
          "blosc2==4.14.1", "ndindex==1.10.1", "numexpr==2.14.2", "yacs==0.1.8", "graphviz==0.21",
          "connected-components-3d==4.1.1", "dynamic-network-architectures==0.4.4", "batchgenerators==0.25.5",
          "batchgeneratorsv2==0.3.6", "fft-conv-pytorch==1.2.0", "unittest2==1.1.0", "future==1.0.0",
          f"nnunetv2=={NNUNET}")
SOURCES = ("acvl-utils==0.2.6",)  # Python alone, and not on PyPI as a wheel
ELSEWHERE = ("torch", "numpy", "scipy", "sklearn", "skimage", "pandas", "matplotlib", "cv2", "PIL", "filelock",
             "safetensors", "onnx", "tqdm", "tensorboard", "psutil", "yaml", "rich", "seaborn", "tifffile", "requests",
             "einops", "msgpack", "httpx", "threadpoolctl")
STUB = '"""Stands in for a reader that is not needed."""\n\n\ndef __getattr__(name):\n    ' \
       'if name.startswith("__"):\n        raise AttributeError(name)\n    return type(name, (), {})\n'
PASSED = ("device", "workers", "cores", "batch", "size", "scans", "steps", "rounds", "further", "feeders",
          "seconds_a_feed", "before")  # of the options, to the parts
# Name, most seconds, title. The first is made ready beside the second.
PARTS = (("prepare", 100, "Preparation"), ("windows", 60, "Ways to compute a window"),
         ("ours", 90, "Training, loading included"), ("theirs", 110, "Training, loading included"),
         ("steps", 130, "Training steps without loading"), ("faults", 40, "A batch too large"),
         ("scans", 60, "A scan's way, and the CPU's masks"), ("predict", 70, "Prediction of whole folders"),
         ("feed", 60, "Batches by worker"), ("resume", 75, "Killed and resumed"),
         ("mirrored", 90, "Prediction of whole folders, mirrored"))


def collect(folder: Path, python: str) -> None:
    """Download or build the wheels that `--wheels` takes."""
    platforms = [f"--platform=manylinux_2_{n}_x86_64" for n in (17, 24, 27, 28)] + ["--platform=manylinux2014_x86_64"]
    pip, quiet = [sys.executable, "-m", "pip"], ["--quiet", "--no-deps"]
    subprocess.run([*pip, "download", *quiet, "--only-binary=:all:", f"--python-version={python}",
                    "--implementation=cp", *platforms, "--dest", folder, *WHEELS], check=True)
    subprocess.run([*pip, "wheel", *quiet, "--wheel-dir", folder, *SOURCES], check=True)
    print(f"{folder}: {sum(path.stat().st_size for path in folder.glob('*.whl')) / 2**20:.0f} MiB")


def carried(wheels: Path, folder: Path) -> Path:
    """The python of a new environment in `folder`: the wheels on top of what this python has."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    [packages] = folder.glob("lib/python3*/site-packages")
    around = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (packages / "around.pth").write_text("\n".join(around) + "\n", encoding="utf-8")
    (packages / "SimpleITK.py").write_text(STUB, encoding="utf-8")
    subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps",
                    "--no-compile", "--ignore-installed", *sorted(wheels.glob("*.whl"))], check=True)
    check = f"import importlib.util as u; print(*[n for n in {ELSEWHERE} if u.find_spec(n) is None])"
    missing = subprocess.run([python, "-c", check], check=True, capture_output=True, encoding="utf-8").stdout.strip()
    if missing:
        print(f"not there, and not among the wheels: {missing}", flush=True)
    return python


class Page:
    """What has been found until now, in OUT/gpu.md."""

    def __init__(self, out: Path):
        self.out, self.parts, self.busy = out, {}, []
        threading.Thread(target=self.look, daemon=True).start()

    def look(self) -> None:
        """How busy the GPU is in per cent, ten times a second: by NVML, else by nvidia-smi."""
        ask = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        try:
            import pynvml

            pynvml.nvmlInit()
            gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
            read = lambda: pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu  # noqa: E731
        except Exception:  # of many kinds: no module, no library, no driver
            read = lambda: float(subprocess.run(ask, capture_output=True, check=True).stdout.split()[0])  # noqa: E731
        try:
            while True:
                self.busy.append((time.time(), read()))
                time.sleep(0.1)
        except (OSError, ValueError, IndexError, subprocess.CalledProcessError):
            return  # no GPU

    def add(self, title: str, answer: dict) -> None:
        row, during = answer["row"], answer["during"]
        values = [value for when, value in self.busy if during and during[0] <= when <= during[1]]
        if during and values:
            share = f"{statistics.mean(values):.0f} %"
            if row:
                row["GPU busy"] = share
            else:
                answer["text"] += f"\n\nThe GPU was busy for {share} of the time."
        self.parts.setdefault(title, []).append(answer)
        self.save()

    def text(self) -> str:
        sections = [f"{machine()}."]
        for title, answers in self.parts.items():
            lines = [answer["text"] for answer in answers if answer["text"]]
            rows = [answer["row"] for answer in answers if answer["row"]]
            head = list(dict.fromkeys(name for row in rows for name in row))
            cells = [[row.get(name, "") for name in head] for row in rows]
            sections += [f"### {title}", *lines[:1], *([table(head, cells)] if rows else []), *lines[1:]]
        return "\n\n".join(sections)

    def save(self) -> None:
        (self.out / "gpu.md").write_text(self.text() + "\n", encoding="utf-8")


def start(name: str, options, folder: Path) -> subprocess.Popen:
    environment = octkit_environment(options.cores)
    python = options.python
    if name == "theirs":
        environment, python = nnunet_environment(folder, options.cores), nnunet_python(options.environment)
        environment["nnUNet_n_proc_DA"] = str(options.workers)
    kept = {key: getattr(options, key) for key in PASSED} | {"environment": str(options.environment)}
    command = [python, Path(__file__).with_name("gpu_parts.py"), name, folder, json.dumps(kept)]
    return subprocess.Popen([str(part) for part in command], env=environment, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, encoding="utf-8", errors="replace", start_new_session=True,
                            cwd=folder)


def follow(process: subprocess.Popen, title: str, seconds: float, page: Page, log) -> None:
    """Add what a part tells to the page as it comes; end it, with all that it has started, after so many seconds."""
    ended = []

    def end() -> None:
        ended.append(True)
        os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(max(seconds, 1), end)
    timer.start()
    last = []
    for line in process.stdout:
        log.write(line)
        log.flush()
        if line.startswith(ANSWER):
            page.add(title, json.loads(line.removeprefix(ANSWER)))
            print(f"{title}: {line.removeprefix(ANSWER).strip()[:300]}", flush=True)
        else:
            last = [*last[-7:], line.rstrip()]
    process.wait()
    timer.cancel()
    if ended or process.returncode:
        why = f"Cut after {seconds:.0f} s." if ended else f"Ended with exit code {process.returncode}."
        page.add(title, {"row": None, "during": None, "text": f"**{why}** Last: `{' / '.join(last)[-600:]}`"})
        print(f"{title}: {why}", *last, sep="\n", flush=True)


def measure(options, out: Path, folder: Path) -> None:
    deadline = time.monotonic() + options.seconds
    out.mkdir(parents=True, exist_ok=True)
    page, most = Page(out), {name: seconds * options.patience for name, seconds, _ in PARTS}
    if options.wheels:
        options.python = carried(options.wheels.resolve(), folder / "environment")
        options.environment = folder / "environment"
    wanted = [part for part in PARTS if part[0] in ("prepare", *options.parts)]
    with open(out / "gpu.log", "w", encoding="utf-8") as log:
        began = time.monotonic()
        preparing = start("prepare", options, folder)  # on the CPU, beside what needs the GPU alone
        for name, _, title in wanted[1:]:
            if name != "windows" and preparing:
                follow(preparing, PARTS[0][2], most["prepare"] - (time.monotonic() - began), page, log)
                preparing = None
            left = deadline - time.monotonic()
            if left < 5:
                page.add(title, {"row": None, "during": None, "text": "**Not begun**: no time was left."})
                continue
            log.write(f"\n==== {name}\n")
            follow(start(name, options, folder), title, min(most[name], left), page, log)
        if preparing:
            follow(preparing, PARTS[0][2], most["prepare"], page, log)
    print(page.text())
    if options.write:
        write_section("On a GPU", page.text())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path, nargs="?", help="gets gpu.md and gpu.log")
    parser.add_argument("--collect", type=Path, metavar="DIR", help="download the wheels instead")
    parser.add_argument("--python-version", default="3.12", help="of --collect")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="what --collect has left")
    parser.add_argument("--environment", type=Path, help="the folder of nnU-Net's environment, made if missing")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small scans and few of them")
    parser.add_argument("--parts", nargs="+", choices=[name for name, _, _ in PARTS],
                        default=[name for name, _, _ in PARTS])
    parser.add_argument("--seconds", type=float, default=520, help="for all of it")
    parser.add_argument("--patience", type=float, default=1, help="times a part's own seconds")
    parser.add_argument("--workers", type=int, help="of both contestants; default: 12, nnU-Net's number")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--batch", type=int, help="default: as planned for 100 scans of GOALS's")
    parser.add_argument("--write", action="store_true", help="put it into benchmarks/README.md")
    options = parser.parse_args()
    if options.collect:
        collect(options.collect, options.python_version)
        return
    options.workers = options.workers or min(12, options.cores)
    options.size, options.scans, options.steps, options.rounds, options.further = (800, 1100), 12, 30, 5, 19
    options.feeders, options.seconds_a_feed, options.before = (1, 2, 4, 8, 16), 5, None
    if options.tiny:
        options.size, options.scans, options.steps, options.rounds, options.further = (64, 96), 10, 4, 1, 1
        options.feeders, options.seconds_a_feed, options.batch = (1, 2), 0.5, 2
    if not options.out or not (options.wheels or options.environment):
        parser.error("expected OUT, and --wheels or --environment")
    options.python = sys.executable
    if options.environment:
        options.environment = options.environment.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        measure(options, options.out.resolve(), Path(scratch))


if __name__ == "__main__":
    main()
