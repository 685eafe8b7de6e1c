"""One notebook, checked and executed by papermill in a kernel of its own.

Four things that papermill does not see to are seen to here: it marks the cells of a killed kernel "completed",
it merely warns of parameters that a notebook does not have, it takes whichever Python the user's "python3"
kernelspec names, and what a kernel has started may outlive it (`kernel`).
"""

import ast
import logging
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import nbformat
import papermill
import psutil
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient.exceptions import DeadKernelError
from nbformat.v4 import new_output

from octkit.common.errors import OctkitError
from octkit.common.files import DISK_FULL, write_atomic
from octkit.common.processes import short_temporary_folder
from octkit.common.settings import PACKAGE

TRANSPORT = "ipc" if os.name == "posix" else "tcp"
KERNEL_STARTS = 3  # tries: on a busy machine a kernel may not answer in time
SAMPLE_SECONDS = 0.2  # between two looks at a kernel's memory
SCARCE = 0.05  # of a machine's memory: with less than that left free, a kernel that was killed wanted memory


class NotebookFailed(OctkitError):
    """A notebook that stopped: in which cell and why. `exit` is the negative of the signal that killed its kernel."""

    exit_code = 1

    def __init__(self, message: str, exit: int = 1):
        super().__init__(message)
        self.exit = exit


class Notebook(NamedTuple):
    """A notebook's file and its cells as (kind, text): "code", "markdown", or "exercise" for code that one answers.

    `working` is the folder that it is executed in, by default its own.
    """

    path: Path
    cells: tuple[tuple[str, str], ...]
    working: Path | None = None


def read(path: Path, parameters: Collection[str]) -> Notebook:
    """Read a notebook. Raises OctkitError unless its one cell tagged `parameters` sets all of `parameters`."""
    try:
        cells = nbformat.read(path, as_version=4).cells
        tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
        if len(tagged) != 1:
            raise OctkitError(f"{path}: found {len(tagged)} cells tagged 'parameters', expected one")
        assignments = [node for node in ast.parse(tagged[0].source).body if isinstance(node, ast.Assign)]
    except FileNotFoundError:
        raise OctkitError(f"{path}: not found; expected the notebooks beside the package in the project's folder "
                          "(which pip install -e leaves where it is)") from None
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, SyntaxError) as error:
        raise OctkitError(f"{path}: cannot be read as a notebook ({error})") from None
    names = {target.id for node in assignments for target in node.targets if isinstance(target, ast.Name)}
    if unknown := sorted(set(parameters) - names):
        raise OctkitError(f"{path}: the parameters cell sets {', '.join(sorted(names)) or 'nothing'}, expected "
                          f"{', '.join(unknown)} as well")
    return Notebook(path, tuple(("exercise" if "exercise" in cell.metadata.get("tags", []) else cell.cell_type,
                                 cell.source) for cell in cells))


def execute(notebook: Notebook, parameters: dict, copy: Path, on_cell: Callable[[int, int], None]) -> None:
    """Run a notebook; its executed copy lies at `copy` when this returns or raises, unless it is killed.

    `on_cell` is told of each cell that starts: its position and how many there are. Raises NotebookFailed where the
    notebook does not come to its end.
    """
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # NotebookFailed says it, once
    running = copy.with_suffix(".running.ipynb")
    started: list[int] = []
    exits: list[int | None] = []

    def cell_starts(cell, cell_index):  # noqa: ARG001 (nbclient passes both by name)
        started.append(cell_index)
        on_cell(cell_index + 1, len(notebook.cells) + 1)  # papermill adds the cell of injected parameters

    try:
        with _sockets() as sockets:
            _start(notebook, running, parameters, _kernel_class(sockets, exits), cell_starts, started)
        cells = nbformat.read(running, as_version=4).cells
        missed = [i for i, cell in enumerate(cells) if _is_code(cell) and not cell.execution_count]
        if missed:
            raise NotebookFailed(f"{_cell(cells, missed[0])} was not executed; see {copy}")
    except papermill.PapermillExecutionError as error:
        where = f"cell [{error.exec_count}] `{_first_line(error.source)}`"
        kind = "" if error.ename == OctkitError.__name__ else f"{error.ename}: "  # whose sentence says all
        what = " ".join(f"{kind}{error.evalue}".split())
        raise NotebookFailed(f"{where}: {what}; see {copy}") from error
    except KeyboardInterrupt:
        # The cell ends with an error that nobody waits for: asyncio would tell it, pages long, after the last line.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        raise
    except DeadKernelError as error:
        code = next((code for code in reversed(exits) if code), 0)
        where, why = _mark_dead(running, started, code) if started else ("before its first cell", _exit(code))
        raise NotebookFailed(f"{where}: {why}; see {copy}", code or 1) from error
    except (RuntimeError, TimeoutError, OSError) as error:
        if getattr(error, "errno", None) in DISK_FULL:  # no fault of the notebook's
            raise
        raise NotebookFailed(f"{type(error).__name__}: {error}") from error
    finally:
        if running.exists():
            os.replace(running, copy)


def reword(copy: Path, lesson: Path, links: Mapping[str, str]) -> None:
    """Give an executed copy the texts of `lesson` as they read now, cell by cell, in whatever language.

    `links` is a lesson's file name -> its copy's, to which links lead; of a link to any other lesson the words stay.
    """
    def led(link: re.Match[str]) -> str:
        return f"[{link[1]}]({links[link[2]]}{link[3]})" if link[2] in links else link[1]

    texts = {cell.id: re.sub(r"\[([^][]*)\]\((\w+\.ipynb)((?:#[^)]*)?)\)", led, cell.source)
             for cell in nbformat.read(lesson, as_version=4).cells if cell.cell_type == "markdown"}
    try:
        content = nbformat.read(copy, as_version=4)
    except (OSError, ValueError, nbformat.ValidationError):  # not as it was written; it tells nobody of the run
        return
    changed = [cell for cell in content.cells if cell.source != texts.get(cell.get("id"), cell.source)]
    for cell in changed:
        cell.source = texts[cell.id]
    if changed:
        write_atomic(copy, nbformat.writes(content))


def _sockets() -> tempfile.TemporaryDirectory[str]:
    """A folder for what a kernel needs while it runs: its sockets, whose paths have to be short."""
    with short_temporary_folder():
        return tempfile.TemporaryDirectory(prefix="octkit-", ignore_cleanup_errors=True)


def _start(notebook: Notebook, running: Path, parameters: dict, kernel: type, cell_starts: Callable,
           started: list) -> None:
    path = notebook.path
    source, target = (str(name).replace("{", "{{").replace("}", "}}") for name in (path, running))  # are str.format-ed
    for attempt in range(1, KERNEL_STARTS + 1):
        try:
            papermill.execute_notebook(source, target, parameters, kernel_name="python3", language="python",
                                       progress_bar=False, cwd=notebook.working or path.parent,
                                       kernel_manager_class=kernel, on_cell_start=cell_starts)
            return
        except (RuntimeError, TimeoutError, OSError):
            if started or attempt == KERNEL_STARTS:  # only a kernel that ran nothing may be started again
                raise


def _kernel_class(sockets: str, exits: list) -> type[AsyncKernelManager]:
    """A kernel manager for the interpreter and the octkit at work here; kernels' exit codes go to `exits`.

    Kernels talk through files in `sockets`, where the system has such: TCP ports can collide, and other users of the
    machine reach them.
    """

    class Kernel(AsyncKernelManager):
        def __init__(self, **options):
            super().__init__(transport=TRANSPORT, connection_file=f"{sockets}/kernel{len(exits)}.json", **options)

        @property
        def kernel_spec(self) -> KernelSpec:
            paths = [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]
            # Critical lines alone: a kernel asked to end logs the interrupt that comes with it as an error.
            argv = [sys.executable, "-P", "-c", "from octkit.lessons.kernel import main; main()", "-f",
                    "{connection_file}", "--log-level=50", "--HistoryManager.enabled=False"]
            return KernelSpec(argv=argv, display_name="Python 3", language="python", env={
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                # Figures belong into the executed copy, also where MPLBACKEND=Agg is set for scripts.
                "MPLBACKEND": "module://matplotlib_inline.backend_inline",
                # And look the same whatever the user's matplotlibrc says: this one is empty.
                "MATPLOTLIBRC": os.devnull,
                "IPYTHONDIR": sockets, "JUPYTER_CONFIG_DIR": sockets, "JUPYTER_DATA_DIR": sockets,
                "JUPYTER_RUNTIME_DIR": sockets, "JUPYTER_PATH": "", "PYTHONWARNINGS": "",
            })

        async def cleanup_resources(self, restart: bool = False) -> None:  # type: ignore[override]  # async there too
            if self.provisioner is not None:
                exits.append(await self.provisioner.poll())
            await super().cleanup_resources(restart)

    return Kernel


def _is_code(cell: nbformat.NotebookNode) -> bool:
    return cell.cell_type == "code" and bool(cell.source.strip())


def _first_line(source: str) -> str:
    return next((line.strip() for line in source.splitlines() if line.strip()), "")


def _cell(cells: list, index: int) -> str:
    """How a cell is named: by the number that Jupyter shows beside it, and its first line."""
    return f"cell [{sum(map(_is_code, cells[:index + 1]))}] `{_first_line(cells[index].source)}`"


def _exit(code: int) -> str:
    if code >= 0:
        return f"the kernel ended by itself with exit code {code}, as os._exit or a library does"
    try:
        return f"the kernel was killed by {signal.Signals(-code).name} (signal {-code})"
    except ValueError:  # real-time signals have no names
        return f"the kernel was killed by signal {-code}"


def _mark_dead(path: Path, started: list[int], code: int) -> tuple[str, str]:
    """Say in the executed copy itself where its kernel died, and return the same: papermill says "completed"."""
    copy = nbformat.read(path, as_version=4)
    where, why = _cell(copy.cells, started[-1]), _exit(code)
    last = copy.cells[started[-1]]
    last.metadata["papermill"] = {**last.metadata.get("papermill", {}), "status": "failed", "exception": True}
    if _is_code(last):
        last.outputs.append(new_output("stream", name="stderr", text=f"{why[0].upper()}{why[1:]}.\n"))
    nbformat.write(copy, path)
    return where, why


class PeakMemory:
    """Watches the resident memory of this process's children, the kernel and its workers, while in `with`.

    Shared pages count once for each process; a peak shorter than the time between two looks can be missed.
    """

    def __enter__(self) -> "PeakMemory":
        self._peak, self._stop = 0, threading.Event()
        self._least_free, self._killed_before = psutil.virtual_memory().available, _killed_for_memory()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def peak_mb(self) -> int:
        """The highest sum seen so far, in MB (2**20 bytes)."""
        return round(self._peak / 2**20)

    def in_words(self) -> str:
        """What memory had to do with a kernel that was killed: its peak, what was free, and what would help."""
        seen = f"Its memory peaked at {self.peak_mb()} MB, with at least {self._least_free / 2**20:.0f} MB left free"
        if _killed_for_memory() > self._killed_before:
            cause = "and the system says that it killed a process for want of memory"
        elif self._least_free < SCARCE * psutil.virtual_memory().total:
            cause = "which was nearly all there is: most likely the system killed it for want of memory"
        else:
            return f"{seen}, so that want of memory is not the likely cause; a peak of under a second may go unseen."
        return (f"{seen}, {cause}. Close other programs, or lower train.workers, plan.batch_size or plan.memory_gb "
                "(--set); the same command goes on.")

    def _watch(self) -> None:
        while True:
            total = 0
            for child in psutil.Process().children(recursive=True):
                try:
                    total += child.memory_info().rss
                except psutil.Error:  # it ended between the listing and the look
                    continue
            self._peak = max(self._peak, total)
            self._least_free = min(self._least_free, psutil.virtual_memory().available)
            if self._stop.wait(SAMPLE_SECONDS):
                return


def _killed_for_memory() -> int:
    """How many processes the system has killed so far for want of memory; 0 where it does not tell (Linux does)."""
    counters = Path("/proc/vmstat")
    lines = counters.read_text(encoding="utf-8").splitlines() if counters.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
