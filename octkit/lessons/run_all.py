"""The whole story in one call: execute the notebooks in order, keep the ledger, skip what is done."""

import shutil
import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial, reduce
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from octkit.common import hashes, locks
from octkit.common.errors import OctkitError
from octkit.common.files import DISK_FULL, read_json
from octkit.common.settings import PROJECT, Settings, flat
from octkit.data.doctor import data_set
from octkit.data.layouts import detect
from octkit.lessons import ledger, notebook
from octkit.lessons.notebook import NotebookFailed


@dataclass(frozen=True)
class Step:
    """One notebook of the story and what its result depends on.

    `settings` are the sections of Settings that its result depends on ("*": all); `shows` those that it only
    writes down, so that a change makes it run again but no step after it; `needs` the notebooks whose files it
    reads. What is not named does not make it run again: an edited lesson on augmentation costs no training.
    `data` marks the step that checks the data set's files, `each_fold` the one that runs once a fold. `leaves` are
    files that must be there for the step to count as done ("{config}" and "{fold}" are filled in).
    """

    notebook: str
    settings: tuple[str, ...] = ()
    shows: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    data: bool = False
    each_fold: bool = False
    leaves: tuple[str, ...] = ()


STEPS = (
    Step("00_start", settings=("*",)),
    Step("01_data", settings=("data", "train.extra_data"), data=True),
    Step("02_fingerprint", settings=("plan",), needs=("01_data",), leaves=("fingerprint.json",)),
    Step("03_plan", settings=("plan",), shows=("splits", "augment", "train", "infer"), needs=("02_fingerprint",),
         leaves=("plan.json",)),
    Step("04_preprocess", settings=("splits", "seed"), needs=("03_plan",),
         leaves=("splits.json", "preprocessed")),
    Step("05_augment", settings=("augment", "seed"), needs=("04_preprocess",)),
    Step("06_network", settings=("train", "seed"), needs=("04_preprocess",)),
    Step("07_train", settings=("train", "augment", "seed", "device"), needs=("04_preprocess",), each_fold=True,
         leaves=("models/{config}/fold_{fold}/checkpoint.pt",)),
    Step("08_infer", settings=("infer", "device"), needs=("07_train",)),
    Step("09_ensemble", needs=("08_infer",), leaves=("selection.json", "predictions/validation")),
    Step("10_thickness", needs=("09_ensemble",), leaves=("thickness.csv",)),
    Step("11_classify", settings=("classify", "seed", "device"), needs=("01_data",),
         leaves=("classifier/model.pdparams", "classifier/predictions.csv")),
    Step("12_submission", needs=("09_ensemble", "11_classify"), leaves=("submission.zip",)),
    Step("15_patient", settings=("seed",), needs=("09_ensemble",), leaves=("ablation.json",)),
    Step("13_report", settings=("*",),
         needs=("00_start", "05_augment", "06_network", "10_thickness", "12_submission", "15_patient"),
         leaves=("report.html",)),
)


# Volumes have no circle to measure, no diagnosis and no challenge: one lesson tells their story.
VOLUME_STEPS = (
    Step("14_volumes", settings=("data", "plan", "splits", "augment", "train", "infer", "seed", "device"), data=True,
         leaves=("selection.json", "predictions/validation")),
    Step("13_report", settings=("*",), needs=("14_volumes",), leaves=("report.html",)),
)
STORIES = {"circle": STEPS, "volumes": VOLUME_STEPS}


@dataclass(frozen=True)
class _Job:
    """One execution of a notebook; `name` is its executed copy's and the ledger's."""

    step: Step
    name: str
    notebook: notebook.Notebook
    parameters: dict


def run(run_dir: Path, settings: Settings, notebooks: Path = PROJECT / "notebooks",
        steps: tuple[Step, ...] | None = None, console: Console | None = None) -> None:
    """Execute the steps of the settings' story in order, but for those whose last results still hold.

    `run_dir` is made where it does not exist; progress goes to `console` (standard output). Raises
    OctkitError before anything runs (missing data, notebooks or parameters, a folder in use) and where `run_dir`
    cannot be written, NotebookFailed at the first notebook that fails, KeyboardInterrupt when stopped (Ctrl-C,
    SIGTERM). Called again, it goes on where it stopped.
    """
    console = console or Console()
    run_dir = Path(run_dir).resolve()  # the notebooks have another working directory
    if settings.data.phantom is None and not settings.data.root.is_dir():
        raise OctkitError(f"{settings.data.root}: not found, expected the data set's folder (--data DIR)")
    if settings.data.phantom is None:
        detect.open_dataset(settings.data.root)  # or an empty folder would be missed until the first lesson
    if run_dir.exists() and not run_dir.is_dir():
        raise OctkitError(f"{run_dir}: is a file, expected a run's folder, new or old")
    weights = settings.classify.weights
    if weights is not None and not (PROJECT / weights).is_file():  # or it would be missed after the whole training
        raise OctkitError(f"{PROJECT / weights}: not found, expected the file named by classify.weights")
    jobs = _jobs(run_dir, settings, Path(notebooks).resolve(), steps or STORIES[settings.story])
    with _writable(run_dir):
        (run_dir / "notebooks").mkdir(parents=True, exist_ok=True)
        with locks.locked(run_dir), _stoppable():
            _run_jobs(jobs, run_dir, settings, console)


def _run_jobs(jobs: list[_Job], run_dir: Path, settings: Settings, console: Console) -> None:
    _sweep(run_dir)
    data_set.before_run(settings, run_dir, partial(console.print, markup=False, highlight=False, soft_wrap=True))
    _keep_settings(run_dir, settings, console)
    began = time.monotonic()
    done: dict[str, list[str]] = {}  # notebook -> what stands for each of its executions
    for number, job in enumerate(jobs, 1):
        progress = _Progress(console, f"[{number:2d}/{len(jobs)}] {job.name}", began)
        done.setdefault(job.step.notebook, []).append(_run_job(job, run_dir, settings, done, progress))


@contextmanager
def _writable(run_dir: Path):
    """Turns an error of writing into a sentence; a full disk gets its own."""
    try:
        yield
    except OSError as error:
        what = f"{error.filename or run_dir}: cannot be written ({error.strerror or error})"
        if error.errno in DISK_FULL:
            raise OctkitError(f"{what}; all finished steps are kept: free some space, and the same command goes on"
                              ) from error
        raise OctkitError(f"{what}, expected a folder to write a run to") from error


@contextmanager
def _stoppable():
    """SIGTERM stops a run as Ctrl-C does: its ledger says so, and its kernel is ended in good order."""
    if threading.current_thread() is not threading.main_thread():  # only there can it be caught
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _sweep(run_dir: Path) -> None:
    """Remove what a killed process has left half-written (`files.replacing`). The lock says that nobody writes now."""
    for path in list(run_dir.rglob(".*.tmp")):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _jobs(run_dir: Path, settings: Settings, notebooks: Path, steps: tuple[Step, ...]) -> list[_Job]:
    """Every execution of the run, all notebooks checked before the first one starts."""
    jobs = []
    for step in steps:
        source = notebook.read(notebooks / f"{step.notebook}.ipynb")
        if step.each_fold:
            jobs += [_Job(step, f"{step.notebook}_2d_fold_{fold}", source,
                          {"run_dir": str(run_dir), "config": "2d", "fold": fold})
                     for fold in settings.train.folds]
        else:
            jobs.append(_Job(step, step.notebook, source, {"run_dir": str(run_dir)}))
    for job in jobs:
        notebook.check_parameters(job.notebook, job.parameters)
    return jobs


def _run_job(job: _Job, run_dir: Path, settings: Settings, done: dict, progress: "_Progress") -> str:
    """Execute one notebook, or skip it. What comes back stands for this very execution in later steps' inputs.

    Equal inputs alone would not do: a training repeated on a GPU is not the same to the last bit.
    """
    data_is_new = job.step.data and not settings.data.root.is_dir()
    now = datetime.now().astimezone().isoformat()
    line = {"step": job.name, "status": "skipped", "started": now, "seconds": 0.0, "peak_memory_mb": 0,
            "inputs": _inputs(job, settings, done), "shown": hashes.digest(_sections(settings, job.step.shows)),
            "made": now, "error": None, "exit": 0}
    copy = run_dir / "notebooks" / f"{job.name}.ipynb"
    before = ledger.last(ledger.read(run_dir), job.name)
    if before and before["status"] == "done" and before["inputs"] == line["inputs"] and copy.exists() and all(
            (run_dir / name.format(**job.parameters)).exists() for name in job.step.leaves):
        line["made"] = before["made"]  # also where it runs again to show something else
        if before["shown"] == line["shown"]:
            progress.skipped()
            ledger.append(run_dir, line)
            return f"{line['inputs']} {line['made']}"
    # A killed run leaves no line; with the copy gone, the line of an earlier success does not count either.
    copy.unlink(missing_ok=True)
    began = time.monotonic()
    line["status"] = "failed"
    with notebook.PeakMemory() as memory:
        try:
            progress.started()
            notebook.execute(job.notebook, job.parameters, copy, progress.cell)
            line["status"] = "done"
            if data_is_new:  # made by this step: what it depends on are the files that stand there now
                line["inputs"] = _inputs(job, settings, done)
            if job.step.data:
                line["data"] = [hashes.data_contents(root) for root in _roots(settings)]
        except KeyboardInterrupt:
            line |= {"error": "interrupted", "exit": 130}
            raise
        except Exception as failure:
            line |= {"error": str(failure), "exit": getattr(failure, "exit", 1)}
            if isinstance(failure, NotebookFailed):
                if failure.exit < 0:
                    line |= {"status": "killed", "error": f"{failure}. {memory.in_words()}"}
                raise NotebookFailed(f"{job.name}, {line['error']}", failure.exit) from failure
            raise
        finally:
            line |= {"seconds": round(time.monotonic() - began, 1), "peak_memory_mb": memory.peak_mb(),
                     "made_with": ledger.made_with()}
            _put_down(run_dir, line)
            progress.ended(line)
    return f"{line['inputs']} {line['made']}"


def _put_down(run_dir: Path, line: dict) -> None:
    """Add the line of a step that has run. Where no line can be written, an error on its way says more than that."""
    try:
        ledger.append(run_dir, line)
    except OSError:
        if line["status"] == "done":
            raise


def _roots(settings: Settings) -> tuple[Path, ...]:
    return settings.data.root, *settings.train.extra_roots


def _inputs(job: _Job, settings: Settings, done: dict[str, list[str]]) -> str:
    """The hash of all that decides a step's result, the executions that it builds on among them."""
    sections = _sections(settings, job.step.settings)
    if job.step.each_fold:  # a fold's training does not depend on which other folds there are
        sections["train"] = {key: value for key, value in sections["train"].items() if key != "folds"}
    return hashes.digest({
        "cells": job.notebook.cells,
        "parameters": {key: value for key, value in job.parameters.items() if key != "run_dir"},
        "settings": sections,
        "code": ledger.code_version(),
        "needs": {name: done[name] for name in job.step.needs},
        "data": [hashes.data_stamp(root) for root in _roots(settings)] if job.step.data else None,
    })


def _sections(settings: Settings, names: tuple[str, ...]) -> dict:
    tree = settings.model_dump(mode="json")
    return tree if names == ("*",) else {name: reduce(dict.__getitem__, name.split("."), tree) for name in names}


def _keep_settings(run_dir: Path, settings: Settings, console: Console) -> None:
    """Write settings.json; what that changes in an earlier run's settings is said."""
    path = run_dir / "settings.json"
    if path.exists():
        old, new = flat(read_json(path)), flat(settings.model_dump(mode="json"))
        changed = [f"{key} {old.get(key)} -> {new.get(key)}" for key in sorted(old | new)
                   if old.get(key) != new.get(key)]
        if changed:
            console.print(f"{path}: changed {', '.join(changed)}; the steps that depend on it run again",
                          markup=False, highlight=False, soft_wrap=True)
    settings.save(path)


class _Progress:
    """What the user sees of one step: a live line on a terminal, plain lines in a log."""

    def __init__(self, console: Console, label: str, began: float):
        self.console, self.label, self.began, self.bar = console, label, began, None

    def started(self) -> None:
        if self.console.is_terminal:
            self.bar = Progress(SpinnerColumn(), TextColumn("{task.description}", markup=False),
                                TimeElapsedColumn(), console=self.console, transient=True)
            self.bar.add_task(self.label, total=None)
            self.bar.tasks[0].start_time = self.began  # the clock shows the whole run's time
            self.bar.start()
        else:
            self._say(f"{self.label} ...")

    def cell(self, number: int, of: int) -> None:
        if self.bar:
            self.bar.update(self.bar.tasks[0].id, description=f"{self.label}, cell {number} of {of}")

    def skipped(self) -> None:
        self._say(f"{self.label}: done before, skipped")

    def ended(self, line: dict) -> None:
        if self.bar:
            self.bar.stop()
        self._say(f"{self.label}: {line['status']} in {line['seconds']} s, "
                  f"peak memory {line['peak_memory_mb']} MB, "
                  f"{timedelta(seconds=round(time.monotonic() - self.began))} in all")

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
