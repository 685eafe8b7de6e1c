"""The whole story in one call: execute the notebooks in order, keep the ledger, skip what is done."""

import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.text import Text

from octkit.common import hashes, locks
from octkit.common.cluster import Here, Workers, WorkersDied
from octkit.common.errors import OctkitError, cannot_write
from octkit.common.files import clear_unfinished, read_json, saying_disk_full, write_atomic
from octkit.common.language import language
from octkit.common.machine import check
from octkit.common.messages import clean
from octkit.common.processes import portable
from octkit.common.settings import LESSONS, PROJECT, Settings, changes
from octkit.data.doctor import data_set
from octkit.data.layouts import detect
from octkit.data.layouts.goals import lacking_diagnoses
from octkit.lessons import ahead, ledger, notebook
from octkit.lessons.kernel import LOOK_SECONDS
from octkit.lessons.layout import ORIGINALS, in_language, lay_out
from octkit.lessons.ledger import Line
from octkit.lessons.notebook import Notebook, NotebookFailed
from octkit.phantoms.data_sets import NAMED
from octkit.planning.folds import check_folds
from octkit.planning.run import Run


@dataclass(frozen=True)
class Step:
    """One notebook of the story and what its result depends on.

    `settings` are the sections of Settings that its result depends on ("*": all); `shows` those that it only
    writes down, so that a change makes it run again but no step after it; `needs` the notebooks whose files it
    reads. What is not named does not make it run again: an edited lesson on augmentation costs no training, and
    neither does an edited text beside the code.
    `data` marks the step that checks the data set's files, `each_fold` the one that runs once a fold, `diagnoses` those
    that are left out where the training scans lack what a classifier needs. `leaves` are files and folders that must be
    there for the step to count as done ("{config}" and "{fold}" are filled in), `may_leave` patterns of those that
    depend on the data. The ledger keeps the hashes of all of them: a step whose files are missing or have changed runs
    again.
    """

    notebook: str
    settings: tuple[str, ...] = ()
    shows: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    data: bool = False
    each_fold: bool = False
    diagnoses: bool = False
    leaves: tuple[str, ...] = ()
    may_leave: tuple[str, ...] = ()


STEPS = (
    Step("00_start", settings=("*",)),
    Step("01_data", settings=("data", "train.extra_data"), data=True, may_leave=("figures/01_*",)),
    Step("02_fingerprint", settings=("plan",), needs=("01_data",), leaves=("fingerprint.json",),
         may_leave=("figures/02_*",)),
    Step("03_plan", settings=("plan",), shows=("splits", "augment", "train", "infer"), needs=("02_fingerprint",),
         leaves=("plan.json",), may_leave=("figures/03_*",)),
    Step("04_preprocess", settings=("splits", "seed"), needs=("03_plan",), leaves=("splits.json", "preprocessed"),
         may_leave=("figures/04_*",)),
    Step("05_augment", settings=("augment", "seed"), needs=("04_preprocess",), may_leave=("figures/05_*",)),
    Step("06_network", settings=("train", "seed"), needs=("04_preprocess",), may_leave=("figures/06_*",)),
    Step("07_train", settings=("train", "augment", "seed", "device"), needs=("04_preprocess",), each_fold=True,
         leaves=("models/{config}/fold_{fold}/checkpoint.pt", "models/{config}/fold_{fold}/log.csv"),
         may_leave=("figures/07_fold_{fold}.png",)),
    # Not mirroring.json: it holds times, which are other ones whenever somebody opens the lesson by hand.
    Step("08_infer", settings=("infer", "device"), needs=("07_train",),
         may_leave=("predictions/cv", "figures/08_window.png", "figures/08_comparison.png")),
    Step("09_ensemble", needs=("08_infer",), leaves=("selection.json", "predictions/validation"),
         may_leave=("calibration.json", "predictions/test", "scores.json", "figures/09_*")),
    Step("10_thickness", needs=("09_ensemble",), leaves=("thickness.csv",), may_leave=("figures/10_*",)),
    # After 09, for the thickness model reads predicted layers.
    Step("11_classify", settings=("classify", "seed", "device"), needs=("01_data", "09_ensemble"), diagnoses=True,
         leaves=("classifier/answers.json", "classifier/predictions.csv"), may_leave=("classifier", "figures/11_*")),
    Step("12_submission", needs=("09_ensemble", "11_classify"), diagnoses=True, leaves=("submission.zip",),
         may_leave=("submission",)),
    Step("15_patient", settings=("seed",), needs=("09_ensemble",), leaves=("ablation.json",),
         may_leave=("figures/15_*",)),
    Step("16_claims", settings=("train", "augment", "seed", "device", "classify", "claims"),
         needs=("08_infer", "09_ensemble", "11_classify"), leaves=("claims.json", "claims.csv"),
         may_leave=("figures/16_*",)),
    Step("13_report", settings=("*",),
         needs=("00_start", "05_augment", "06_network", "10_thickness", "12_submission", "15_patient", "16_claims"),
         leaves=("report.html",)),
)


# Volumes have no circle to measure, no diagnosis and no challenge: one lesson tells their story.
VOLUME_STEPS = (
    Step("14_volumes", settings=("data", "plan", "splits", "augment", "train", "infer", "seed", "device"), data=True,
         leaves=("fingerprint.json", "plan.json", "splits.json", "preprocessed", "selection.json",
                 "predictions/validation"),
         may_leave=("models/*/fold_*/checkpoint.pt", "models/*/fold_*/log.csv", "predictions", "scores.json",
                    "figures/14_*")),
    Step("13_report", settings=("*",), needs=("14_volumes",), leaves=("report.html",)),
)
# What lesson 16 reads, and no more: its candidates take long enough.
CLAIM_STEPS = tuple(step for step in STEPS if step.notebook[:2] not in ("05", "06", "10", "12", "13", "15"))
STORIES = {"circle": STEPS, "volumes": VOLUME_STEPS, "claims": CLAIM_STEPS}
NOTEBOOKS = PROJECT / LESSONS
BEGUN, ENDED = "begun", "ended.json"  # in a step's folder of `Run.steps`: who executes it; its line, for the ledger
GLOSSARY = "17_glossary.ipynb"  # nothing to run: the executed lessons lead to it


class Job(NamedTuple):
    """One execution of a notebook; `name` is its executed copy's and the ledger's."""

    step: Step
    name: str
    notebook: Notebook
    parameters: dict[str, Any]
    beside: tuple[Path, ...] = ()  # files that it leaves, beside the step's: also in other runs' folders
    after: tuple[str, ...] = ()  # names of jobs that are to end before

    def copy(self, run: Run) -> Path:
        return run.notebooks / f"{self.name}.ipynb"

    def files(self, run: Run) -> list[str]:
        """The names of the files that the job has left."""
        return ledger.files(run, [name.format(**self.parameters) for name in self.step.leaves + self.step.may_leave])

    def not_whole(self, run: Run, line: Line) -> str | None:
        """What lacks of all that `line`, of a finished execution, has left, in words; None where nothing does."""
        its = (run.folder / name.format(**self.parameters) for name in self.step.leaves)
        for path in (self.copy(run), *self.beside, *its):
            if not path.exists():
                return f"{path} is missing"
        return ledger.not_as_left(run, line)


def run_story(run: Run, settings: Settings, notebooks: Path | None = None,
              steps: tuple[Step, ...] | None = None, workers: Here | None = None) -> None:
    """Execute the steps of the settings' story in order, but for those whose last results still hold.

    `workers` (`cluster.workers_of`) execute side by side what does not need each other; without them all is done here.
    The run's folder is made where it does not exist; progress goes to standard output. Raises OctkitError before
    anything runs (missing data, notebooks or parameters, a folder in use) and where the folder cannot be written,
    NotebookFailed at the first notebook that fails, KeyboardInterrupt when stopped (Ctrl-C, SIGTERM). Called again, it
    goes on where it stopped.
    """
    run = Run(run.folder.resolve())  # the notebooks have another working directory
    run.check_links()
    os.environ[NAMED] = str(settings.data.root)  # for the kernels: who calls this has chosen these settings
    _check_files(run, settings)
    # In a folder of the user's there are copies, of one language.
    if notebooks is None and NOTEBOOKS != ORIGINALS and (language() != "en" or not NOTEBOOKS.is_dir()):
        lay_out(PROJECT)
    in_order = jobs(run, settings, notebooks and notebooks.resolve(), steps)
    if not run.exists and any(job.step.diagnoses for job in in_order) and (
            settings.data.phantom or not lacking_diagnoses(detect.open_dataset(settings.data.root).train)):
        check("paddle")  # here, not after all trainings
    try:
        with saying_disk_full(run.notebooks):
            run.notebooks.mkdir(parents=True, exist_ok=True)
            with locks.locked(run.folder), _stoppable():
                _run_jobs(in_order, run, settings, workers or Here())
    except OSError as error:
        if error.filename is None:
            raise
        raise cannot_write(Path(error.filename), error) from error


def _check_files(run: Run, settings: Settings) -> None:
    """Raise OctkitError for a file or folder that would be missed only hours later, or cannot be written of."""
    try:
        str(run.folder).encode()
    except UnicodeEncodeError:
        raise OctkitError(f"{run.folder}: has a name that is no UTF-8 text, which no notebook can hold; expected "
                          "another --run-dir, or the folder renamed") from None
    if settings.data.phantom is None:
        if not settings.data.root.is_dir():
            raise OctkitError(f"{settings.data.root}: not found, expected the data set's folder (--data DIR)")
        dataset = detect.open_dataset(settings.data.root)
        if settings.train.folds != ("all",):
            check_folds(dataset.train, settings.splits.folds)
        if not dataset.validation:
            raise OctkitError(f"{settings.data.root}: has no validation images, which the lessons predict and score")
    weights = settings.classify.weights
    if weights is not None and not (PROJECT / weights).is_file():
        raise OctkitError(f"{PROJECT / weights}: not found, expected the file named by classify.weights")


def jobs(run: Run, settings: Settings, notebooks: Path | None = None,
         steps: tuple[Step, ...] | None = None) -> list[Job]:
    """The executions of the steps, by default those of the settings' story, in order; their notebooks are checked."""
    folder = notebooks or NOTEBOOKS
    return [job for step in steps or STORIES[settings.story] for job in _executions(step, run, settings, folder)]


def _executions(step: Step, run: Run, settings: Settings, notebooks: Path) -> list[Job]:
    path, parameters = in_language(notebooks, f"{step.notebook}.ipynb"), {"run_dir": str(run.folder)}
    if not step.each_fold:
        return [Job(step, step.notebook, notebook.read(path, parameters), parameters)]
    source = notebook.read(path, ("run_dir", "config", "fold"))
    return [Job(step, f"{step.notebook}_2d_fold_{fold}", source, parameters | {"config": "2d", "fold": fold})
            for fold in settings.train.folds]


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM stops a run as Ctrl-C does: its ledger says so, and its kernel is ended in good order."""
    if threading.current_thread() is not threading.main_thread():  # only there can it be caught
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run_jobs(jobs: list[Job], run: Run, settings: Settings, workers: Here) -> None:
    if not _others_at_work(run):
        clear_unfinished(run.folder)  # the lock says that nobody writes now
    # Its live line controls the terminal: what it prints is cleaned here.
    console = Console(file=getattr(sys.stdout, "stream", None), markup=False, highlight=False, soft_wrap=True)
    progress = _Progress(console, [job.name for job in jobs])
    data_set.before_run(settings, run.folder, progress.say)
    if run.exists and (changed := changes(read_json(run.settings_file), settings.model_dump(mode="json"))):
        progress.say(f"{run.settings_file}: changed {', '.join(changed)}; the steps that depend on it run again")
    settings.save(run.settings_file)
    copies = {f"{job.step.notebook}.ipynb": f"{job.name}.ipynb" for job in reversed(jobs)}  # of several folds the first
    if (glossary := jobs[0].notebook.path.with_name(GLOSSARY)).is_file():
        copies[GLOSSARY] = GLOSSARY
        write_atomic(run.notebooks / GLOSSARY, glossary.read_bytes())
    workers.tell, ends = progress.told, ledger.ends(run)
    lines: dict[str, Line] = {}  # how each job has ended
    sent: dict[str, _Sent] = {}
    rounds: dict[str, Iterator[list[Job]]] = {}  # of what goes ahead of a lesson
    with progress:
        while len(lines) < len(jobs):
            done = _standing(jobs, lines)
            job = None if workers.full else next((job for job in jobs if job.name not in lines.keys() | sent.keys()
                                                  and all(need in done for need in job.step.needs)
                                                  and all(name in lines for name in job.after)), None)
            if job is None:
                line = _next_end(run, settings, workers, sent, progress, done)
                job = sent.pop(line.step).job
            else:
                line, before = _planned(job, run, settings, done, progress, ends.get(job.name))
                if line.status == "done":  # once it is executed
                    if more := next(rounds.setdefault(job.name, _ahead(job, run, workers)), None):
                        at = jobs.index(job)
                        jobs[at:at + 1] = [*more, job._replace(after=tuple(each.name for each in more))]
                        progress.labels |= {each.name: progress.labels[job.name] + each.name.removeprefix(job.name)
                                            for each in more}
                        continue
                    sent[job.name] = _Sent(job, line, before, job.step.data and not settings.data.root.is_dir())
                    workers.submit(job.name, execute, job, run.folder, line, settings.data_roots)
                    continue
                ledger.append(run, line)
            lines[job.name] = line
            notebook.reword(job.copy(run), job.notebook.path, copies)  # also skipped, it may be in another language


def _ahead(job: Job, run: Run, workers: Here) -> Iterator[list[Job]]:
    """What workers do side by side before a lesson, in rounds: its trainings (`ahead`). One process does the lesson."""
    needs, data = job.step.needs, job.step.data
    for found in ahead.rounds(job.name, run) if isinstance(workers, Workers) else ():
        yield [Job(Step(name, job.step.settings, needs=needs, data=data), name, source, job.parameters, (last,))
               for name, source, last in found]
        needs, data = tuple(name for name, *_ in found), False


class _Sent(NamedTuple):
    """A job in the workers' hands: its line so far, that of an execution with the same inputs, if it makes the data."""

    job: Job
    line: Line
    before: Line | None
    data_is_new: bool


def _others_at_work(run: Run) -> bool:
    """Whether a worker still executes a step for a command that was stopped."""
    for begun in run.steps.glob(f"*/{BEGUN}"):
        try:
            with locks.locked(begun.parent):
                pass
        except OctkitError:
            return True
    return False


def _standing(jobs: list[Job], lines: dict[str, Line]) -> dict[str, list[str]]:
    """Notebook -> what stands for each of its executions, in the jobs' order; of those alone that have all ended."""
    # Equal inputs alone would not do: a training repeated on a GPU is not the same to the last bit.
    made = {job.name: f"{line.inputs} {line.made}" for job in jobs if (line := lines.get(job.name))}
    executions: dict[str, list[str]] = {}
    for job in jobs:
        executions.setdefault(job.step.notebook, []).append(job.name)
    return {name: [made[each] for each in those] for name, those in executions.items() if made.keys() >= set(those)}


def _planned(job: Job, run: Run, settings: Settings, done: dict[str, list[str]], progress: "_Progress",
             before: Line | None) -> tuple[Line, Line | None]:
    """A job's new line: "skipped" where its last one, `before`, still holds, "left out", or "done" once it is executed.

    With it `before`, where it is of an execution with the same inputs.
    """
    now = datetime.now().astimezone().isoformat()
    words = {"language": language()} if "report.html" in job.step.leaves and language() != "en" else {}
    line = Line(step=job.name, status="done", started=now, made=now, inputs=inputs_of(job, settings, done),
                shown=hashes.digest(_sections(settings, job.step.shows) | words))
    if job.step.diagnoses and (lacking := lacking_diagnoses(run.dataset.train)):
        line = line.model_copy(update={"status": "left out", "error": str(lacking)})
        if before and (before.status, before.error) == (line.status, line.error):
            line = line.model_copy(update={"made": before.made})  # nothing has changed for the steps after it
        progress.of(job.name, f"left out; {line.error}")
        return line, None
    if before is None or before.status != "done" or before.inputs != line.inputs:
        return line, None
    if lost := job.not_whole(run, before):
        if not job.after:  # said before its trainings
            progress.of(job.name, f"done before, but {lost}; it runs again")
        return line, before
    line = line.model_copy(update={"made": before.made})  # also where it runs again to show something else
    if before.shown == line.shown:
        progress.of(job.name, "done before, skipped")
        line = line.model_copy(update={"status": "skipped"})
    return line, before


def execute(job: Job, folder: Path, line: Line, roots: tuple[Path, ...], tell: Callable[[str], None]
            ) -> tuple[Line, BaseException | None]:
    """Execute a notebook for the run in a folder, wherever that is seen: `line` with how it ended, and what it raised.

    One process at a time does so: another one waits, and takes over what the first has left. So a step that has ended
    is not executed once more where its worker dies, or the command that it worked for, or the network parts them.
    `tell` gets what is to be said of it, `roots` are the data sets' folders.
    """
    run, failure, outputs, data = Run(folder), None, None, None
    if not run.exists:
        raise OctkitError(f"{run.settings_file}: not found by {platform.node()}, expected a folder that workers see")
    state, lost = run.steps / job.name, list[str]()
    begun, ended = state / BEGUN, state / ENDED
    state.mkdir(parents=True, exist_ok=True)
    tell("")
    with locks.locked(state, wait=True), notebook.PeakMemory() as memory:
        began = time.monotonic()
        try:
            if ended.exists():
                left = Line.model_validate_json(ended.read_bytes())
                if (left.inputs, left.shown) == (line.inputs, line.shown) and not job.not_whole(run, left):
                    begun.unlink(missing_ok=True)  # whoever was killed when it had left its line
                    return left, None
                ended.unlink()
            if begun.exists():
                lost = begun.read_text(encoding="utf-8").splitlines()
                time.sleep(4 * LOOK_SECONDS)  # by then the kernel has seen that whoever started it is dead
            write_atomic(begun, "".join(f"{who}\n" for who in (*lost, f"{platform.node()}, process {os.getpid()}")))
            # A killed run leaves no line; with the copy gone, the line of an earlier success does not count either.
            job.copy(run).unlink(missing_ok=True)
            notebook.execute(job.notebook, job.parameters, job.copy(run), lambda at, of: tell(f"cell {at} of {of}"))
            data = [hashes.data_contents(root) for root in roots] if job.step.data else None
            outputs = ledger.outputs(run, job.files(run))
        except (Exception, KeyboardInterrupt) as error:  # the ledger says of every end how it came
            failure = error
        status, message, code = _ending(failure, memory)
        line = line.model_copy(update={
            "status": status, "error": message, "exit": code, "data": data, "outputs": outputs, "lost": tuple(lost),
            "made_with": ledger.made_with(), "seconds": round(time.monotonic() - began, 1),
            "peak_memory_mb": memory.peak_mb()})
        if failure is None:
            write_atomic(ended, line.model_dump_json())
        begun.unlink(missing_ok=True)
    return line, portable(failure) if isinstance(failure, Exception) else failure


def _next_end(run: Run, settings: Settings, workers: Here, sent: dict[str, _Sent], progress: "_Progress",
              done: dict[str, list[str]]) -> Line:
    """Wait for a job's end and enter it into the ledger. Raises what its execution has raised.

    Where it has left the same bytes as an execution before with the same inputs, what was made from them holds.
    """
    try:
        name, (line, failure) = workers.next()
    except WorkersDied as error:
        name, failure = error.key, error
        line = sent[name].line.model_copy(update={"status": "killed", "error": str(error), "exit": 1})
    except KeyboardInterrupt:
        for name in filter(progress.running.__contains__, sent):  # the others had not begun
            ledger.append(run, sent[name].line.model_copy(update={"status": "failed", "error": "interrupted",
                                                                  "exit": 130}))
        raise
    job, _, before, data_is_new = sent[name]
    if data_is_new and failure is None:  # made by this step: what it depends on are the files that stand there now
        line = line.model_copy(update={"inputs": inputs_of(job, settings, done)})
    if before is not None and line.outputs and line.contents == before.contents:
        line = line.model_copy(update={"made": before.made})
    progress.ended(line)
    try:
        ledger.append(run, line)
    except OSError:  # where no line can be written, the failure on its way says more than that
        if failure is None:
            raise
    if isinstance(failure, NotebookFailed):
        raise NotebookFailed(f"{name}, {line.error}", failure.exit) from failure
    if failure:
        raise failure
    return line


def _ending(failure: BaseException | None, memory: notebook.PeakMemory) -> tuple[str, str | None, int]:
    """What the ledger says of an execution's end: status, error, exit code."""
    if failure is None:
        return "done", None, 0
    if isinstance(failure, KeyboardInterrupt):
        return "failed", "interrupted", 130
    code = failure.exit if isinstance(failure, NotebookFailed) else 1
    return ("killed", f"{failure}. {memory.in_words()}", code) if code < 0 else ("failed", str(failure), code)


def inputs_of(job: Job, settings: Settings, done: dict[str, list[str]]) -> str:
    """The hash of all that decides a step's result, the executions that it builds on among them."""
    sections = _sections(settings, job.step.settings)
    if job.step.each_fold:  # a fold's training does not depend on which other folds there are
        sections["train"] = {key: value for key, value in sections["train"].items() if key != "folds"}
    return hashes.digest({
        "code_cells": [text for kind, text in job.notebook.cells if kind == "code"],
        "parameters": {key: value for key, value in job.parameters.items() if key != "run_dir"},
        "settings": sections,
        "code": ledger.code_version(),
        "needs": {name: done[name] for name in job.step.needs},
        "data": [hashes.data_stamp(root) for root in settings.data_roots] if job.step.data else None,
    })


def _sections(settings: Settings, names: tuple[str, ...]) -> dict[str, Any]:
    tree = settings.model_dump(mode="json")
    return tree if names == ("*",) else {name: reduce(dict.__getitem__, name.split("."), tree) for name in names}


class _Progress:
    """What the user sees of the steps: a live line on a terminal, plain lines in a log."""

    def __init__(self, console: Console, names: list[str]):
        self.console, self.began, self.live = console, time.monotonic(), console.status("")
        self.labels = {name: f"[{number:2d}/{len(names)}] {name}" for number, name in enumerate(names, 1)}
        self.running: dict[str, str] = {}  # a step -> what it says of itself

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None:
        self.live.stop()

    def say(self, text: str) -> None:
        self.console.print(clean(text))

    def of(self, name: str, text: str) -> None:
        self.say(f"{self.labels[name]}: {text}")

    def told(self, name: str, text: str) -> None:
        """What a step says of itself; that it begins, where `text` is empty."""
        self.running[name] = text
        if self.console.is_terminal:
            steps = "; ".join(", ".join(filter(None, (self.labels[each], said))) for each, said in self.running.items())
            self.live.update(Text(f"{steps}, {self._in_all()} in all"))
            self.live.start()
        elif not text:
            self.say(f"{self.labels[name]} ...")

    def ended(self, line: Line) -> None:
        self.running.pop(line.step, None)
        if not self.running:
            self.live.stop()
        lost = f", after {'; '.join(line.lost)} had begun it and died" if line.lost else ""
        self.of(line.step, f"{line.status} in {line.seconds} s, peak memory {line.peak_memory_mb} MB, "
                           f"{self._in_all()} in all{lost}")

    def _in_all(self) -> timedelta:
        return timedelta(seconds=round(time.monotonic() - self.began))
