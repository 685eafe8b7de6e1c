import errno
import json
import os
import subprocess
import sys
import tempfile
import threading
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import nbformat
import psutil
import pytest
from distributed import LocalCluster
from helpers import advised, fill, smoke, write_notebook
from nbformat.v4 import new_code_cell, new_notebook

from octkit.common import cluster, locks, settings
from octkit.common.errors import OctkitError
from octkit.common.files import read_json
from octkit.data.dataset import Case
from octkit.data.doctor import data_set
from octkit.data.layouts import detect
from octkit.lessons import ledger, notebook, run_all
from octkit.lessons.notebook import NotebookFailed
from octkit.lessons.run_all import STEPS, Step
from octkit.planning.run import Run


def quiet(number, of):
    assert 1 <= number <= of


def execute(folder, name, on_cell=quiet):
    notebook.execute(notebook.read(folder / f"{name}.ipynb", ["run_dir"]), {"run_dir": "."}, folder / "copy.ipynb",
                     on_cell)


def statuses(run_dir):
    return [(line.step, line.status) for line in ledger.read(Run(run_dir))]


@pytest.fixture
def story(tmp_path, monkeypatch):
    """A story of five notebooks whose execution is pretended: `again()` says which ones ran."""
    for name in ("data", "lesson", "infer", "report"):
        write_notebook(tmp_path / "notebooks", name)
    write_notebook(tmp_path / "notebooks", "train", parameters=("run_dir = 'x'\nconfig = '2d'\nfold = 0",))
    steps = (Step("data", settings=("data",), data=True),
             Step("lesson", settings=("augment",), shows=("seed",), needs=("data",)),
             Step("train", settings=("train", "plan.memory_gb"), needs=("data", "lesson"), each_fold=True,
                  leaves=("weights_{config}_{fold}",)),
             Step("infer", settings=("infer",), needs=("train",)),
             Step("report", settings=("*",), needs=("lesson", "infer")))
    ran, story = [], {}

    def pretend(source, parameters, copy, on_cell):  # noqa: ARG001
        ran.append(copy.stem)
        if "then" in story:
            story["then"](copy.stem)
        copy.write_bytes(source.path.read_bytes())
        if "fold" in parameters:
            (tmp_path / "run" / f"weights_{parameters['config']}_{parameters['fold']}").touch()

    def again(*changes, steps=steps, workers=None):
        ran.clear()
        chosen = smoke(f"data.dir={tmp_path / 'scans'}", *changes)
        run_all.run_story(Run(tmp_path / "run"), chosen, tmp_path / "notebooks", steps, workers)
        return list(ran)

    monkeypatch.setattr(notebook, "execute", pretend)
    monkeypatch.setattr(data_set, "before_run", lambda *_: None)  # the scans are none
    train = [Case(str(number), Path(f"{number}.png")) for number in range(5)]
    monkeypatch.setattr(detect, "open_dataset", lambda _: SimpleNamespace(validation=["0001"], train=train))
    (tmp_path / "scans").mkdir()
    story |= {"again": again, "run_dir": tmp_path / "run", "notebooks": tmp_path / "notebooks"}
    return story


EVERYTHING = ["data", "lesson", "train_2d_fold_0", "train_2d_fold_1", "infer", "report"]


def test_what_is_done_is_skipped(story):
    assert story["again"]() == EVERYTHING
    assert story["again"]() == []
    assert statuses(story["run_dir"])[6:] == [(name, "skipped") for name in EVERYTHING]
    assert story["again"]() == []  # a skipped line does not hide the done line before it


@pytest.mark.parametrize("change, expected", [
    ("augment.rotation_degrees=3", EVERYTHING[1:]),
    ("seed=3", ["lesson", "report"]),  # the lesson only shows it
    ("plan.base_features=16", ["report"]),
    ("plan.memory_gb=4", EVERYTHING[2:]),
    ("train.epochs=7", ["train_2d_fold_0", "train_2d_fold_1", "infer", "report"]),
    ("train.folds=[0,1,2]", ["train_2d_fold_2", "infer", "report"]),
    ("infer.step=0.25", ["infer", "report"]),
    ("data.phantom=null", EVERYTHING),
])
def test_changed_settings_run_again_what_depends_on_them(story, change, expected, capsys):
    story["again"]()
    assert story["again"](change) == expected
    assert f"changed {change.split('=')[0]}" in capsys.readouterr().out
    assert story["again"](change) == []


def test_an_edited_notebook_runs_again_with_what_needs_it(story):
    story["again"]()
    write_notebook(story["notebooks"], "infer", "1 + 1")
    assert story["again"]() == ["infer", "report"]
    write_notebook(story["notebooks"], "data", "1 + 1")
    assert story["again"]() == EVERYTHING


def test_an_edited_text_runs_nothing_again(story):
    story["again"]()
    content = nbformat.read(story["notebooks"] / "data.ipynb", as_version=4)
    assert content.cells[0].cell_type == "markdown"
    content.cells[0].source = "# A better text"
    nbformat.write(content, story["notebooks"] / "data.ipynb")
    assert story["again"]() == []


@pytest.fixture
def in_chinese(story, monkeypatch):
    """The same story in Chinese."""
    (story["notebooks"] / "zh").mkdir()
    for path in story["notebooks"].glob("*.ipynb"):
        content = nbformat.read(path, as_version=4)
        content.cells[0].source = ("# 图像\n[一](train.ipynb#x) [二](data.ipynb) [三](17_glossary.ipynb) "
                                   "[四](nowhere.ipynb)")
        nbformat.write(content, story["notebooks"] / "zh" / path.name)
    write_notebook(story["notebooks"] / "zh", "17_glossary")
    monkeypatch.setenv("OCTKIT_LANGUAGE", "zh")


def text_of_copy(story, name):
    return nbformat.read(story["run_dir"] / "notebooks" / f"{name}.ipynb", as_version=4).cells[0].source


@pytest.mark.usefixtures("in_chinese")
def test_a_language_is_no_input_of_a_step(story, monkeypatch):
    """What was done in English is done; its copies get the Chinese text."""
    monkeypatch.setenv("OCTKIT_LANGUAGE", "en")
    assert story["again"]() == EVERYTHING
    assert "图像" not in text_of_copy(story, "infer")
    monkeypatch.setenv("OCTKIT_LANGUAGE", "zh")
    assert story["again"]() == []
    assert all("图像" in text_of_copy(story, name) for name in EVERYTHING)
    monkeypatch.delenv("OCTKIT_LANGUAGE")
    assert story["again"]() == [] and "图像" not in text_of_copy(story, "infer")


@pytest.mark.usefixtures("in_chinese")
def test_links_of_executed_lessons_lead_to_executed_lessons(story):
    assert story["again"]() == EVERYTHING
    assert text_of_copy(story, "infer") == ("# 图像\n[一](train_2d_fold_0.ipynb#x) [二](data.ipynb) "
                                            "[三](17_glossary.ipynb) 四")
    assert (story["run_dir"] / "notebooks/17_glossary.ipynb").is_file()


@pytest.mark.usefixtures("in_chinese")
def test_the_report_is_written_again_in_another_language_and_nothing_else(story, monkeypatch):
    steps = (Step("data", settings=("data",), data=True),
             Step("report", settings=("*",), needs=("data",), leaves=("report.html",)))
    story["then"] = lambda _: (story["run_dir"] / "report.html").write_text(os.environ["OCTKIT_LANGUAGE"])
    monkeypatch.setenv("OCTKIT_LANGUAGE", "en")
    story["again"](steps=steps)
    for chosen in ("zh", "en"):
        monkeypatch.setenv("OCTKIT_LANGUAGE", chosen)
        assert story["again"](steps=steps) == ["report"] and story["again"](steps=steps) == []
        assert (story["run_dir"] / "report.html").read_text() == chosen


def test_an_answered_exercise_runs_nothing_again(story):
    path = story["notebooks"] / "train.ipynb"
    content = nbformat.read(path, as_version=4)
    content.cells.append(new_code_cell("answer = None", metadata={"tags": ["exercise"]}))
    nbformat.write(content, path)
    story["again"]()
    content.cells[-1].source = "answer = 3"
    nbformat.write(content, path)
    assert story["again"]() == []
    del content.cells[-1].metadata["tags"]  # the same cell as any other: its code decides the result
    nbformat.write(content, path)
    assert story["again"]() == EVERYTHING[2:]


def test_a_deleted_or_changed_result_is_made_again(story, capsys):
    story["again"]()
    weights = story["run_dir"] / "weights_2d_1"
    weights.unlink()
    assert story["again"]() == ["train_2d_fold_1"]  # what is made from it holds: it is the same to the last bit
    said = capsys.readouterr().out
    assert f"train_2d_fold_1: done before, but {weights} is missing; it runs again" in said
    assert "train_2d_fold_0: done before, skipped" in said
    story["then"] = lambda name: name == "train_2d_fold_1" and weights.write_text("other weights")
    weights.unlink()
    assert story["again"]() == ["train_2d_fold_1", "infer", "report"]
    weights.write_text("OTHER WEIGHTS")
    story["then"] = lambda name: name == "train_2d_fold_1" and weights.write_text("other weights")
    assert story["again"]() == ["train_2d_fold_1"]
    assert f"{weights} has changed" in capsys.readouterr().out
    os.utime(weights, (0, 0))  # copied, not changed
    assert story["again"]() == []


def test_lines_of_older_versions_count_as_done_where_their_files_are_there(story):
    story["again"]()
    ledger_file = story["run_dir"] / "ledger.jsonl"
    lines = [json.loads(line) for line in ledger_file.read_text().splitlines()]
    assert lines[2]["outputs"].keys() == {"weights_2d_0"}
    ledger_file.write_text("".join(json.dumps({key: value for key, value in line.items() if key != "outputs"}) + "\n"
                                   for line in lines))
    (story["run_dir"] / "weights_2d_0").write_text("changed")
    (story["run_dir"] / "weights_2d_1").unlink()
    assert story["again"]() == ["train_2d_fold_1", "infer", "report"]


def test_changed_code_runs_everything_again(story, monkeypatch):
    story["again"]()
    monkeypatch.setattr(ledger, "code_version", lambda: "edited")
    assert story["again"]() == EVERYTHING


def test_changed_data_run_everything_on_it_again(story, tmp_path):
    (tmp_path / "scans").rmdir()
    story["then"] = lambda name: name == "data" and (tmp_path / "scans").mkdir()
    story["again"]()  # its first step makes the data set
    del story["then"]
    assert story["again"]() == []
    (tmp_path / "scans" / ".hidden").touch()
    assert story["again"]() == []
    (tmp_path / "scans" / "0001.png").touch()
    assert story["again"]() == EVERYTHING


def test_going_on_after_a_failure(story):
    def fail(name):
        if name == "train_2d_fold_1":
            raise NotebookFailed("cell [3] `x`: ValueError: y", 1)

    story["then"] = fail
    with pytest.raises(NotebookFailed, match=r"train_2d_fold_1, cell \[3\] `x`: ValueError: y"):
        story["again"]()
    line = ledger.read(Run(story["run_dir"]))[-1]
    assert (line.step, line.status, line.exit) == ("train_2d_fold_1", "failed", 1)
    assert line.error == "cell [3] `x`: ValueError: y"
    del story["then"]
    assert story["again"]() == ["train_2d_fold_1", "infer", "report"]
    # Done with one setting, failed half-way with another, then the first again: what stands there may be the other's.
    story["then"] = fail
    with pytest.raises(NotebookFailed):
        story["again"]("train.epochs=7", "train.folds=[1]")
    del story["then"]
    assert story["again"]() == ["train_2d_fold_1", "infer", "report"]


def test_a_killed_run_outdates_an_earlier_success(story):
    """A run that is killed leaves no line, so the executed copy must be gone while its step runs."""
    story["again"]()
    copy = story["run_dir"] / "notebooks" / "infer.ipynb"
    story["then"] = lambda name: name == "infer" and existed.append(copy.exists())
    existed = []
    story["again"]("infer.step=0.25")
    assert existed == [False]
    copy.unlink()
    assert story["again"]("infer.step=0.25") == ["infer", "report"]


def test_steps_that_need_diagnoses_are_left_out_without_them(story, monkeypatch, capsys):
    def scans(*diagnoses):
        train = tuple(Case(str(i), Path(f"Train/Image/{i}.png"), glaucoma=found) for i, found in enumerate(diagnoses))
        monkeypatch.setattr(detect, "open_dataset", lambda _: SimpleNamespace(validation=["0001"], train=train))

    def ran():
        return story["again"](steps=steps), dict(statuses(story["run_dir"])[-3:])["lesson"]

    steps = (Step("data", settings=("data",), data=True), Step("lesson", needs=("data",), diagnoses=True),
             Step("report", needs=("lesson",)))
    scans(0, 0, 1, 1)
    assert ran() == (["data", "lesson", "report"], "done")
    scans(0, 0, 0, 1)
    assert ran() == (["report"], "left out")  # the report shows that, once
    assert ledger.left_out(Run(story["run_dir"]), "lesson").startswith("Train/Image: found 4 training scans (1 with")
    assert "lesson: left out; Train/Image: found 4 training scans" in capsys.readouterr().out
    assert ran() == ([], "left out")
    scans(0, 0, 0, None)
    assert ran() == (["report"], "left out")  # for another reason
    scans(0, 0, 1, 1)
    assert ran() == (["report"], "done")  # the lesson's own files stand as it left them, from the same scans
    assert ledger.left_out(Run(story["run_dir"]), "lesson") is None


def test_one_run_a_folder(story):
    story["again"]()
    with locks.locked(story["run_dir"]), pytest.raises(OctkitError, match=r"process \d+ is running in this folder"):
        story["again"]()
    assert story["again"]() == []


@pytest.mark.parametrize("parameters, message", [
    ((), "found 0 cells tagged 'parameters'"),
    (("run_dir = 1", "run_dir = 2"), "found 2 cells tagged 'parameters'"),
    (("rundir = 1",), "sets rundir, expected run_dir as well"),
    (("run_dir =",), "cannot be read as a notebook"),
])
def test_notebooks_are_checked_before_the_run_starts(story, parameters, message):
    write_notebook(story["notebooks"], "report", parameters=parameters)
    with pytest.raises(OctkitError, match=message):
        story["again"]()
    assert not story["run_dir"].exists()


def test_a_missing_notebook_stops_the_run_before_it_starts(story):
    (story["notebooks"] / "infer.ipynb").unlink()
    with pytest.raises(OctkitError, match=r"infer\.ipynb: not found"):
        story["again"]()
    assert not story["run_dir"].exists()


def test_too_few_scans_for_the_folds_stop_a_run_before_it_starts_and_the_advice_helps(story):
    with pytest.raises(OctkitError, match="found 9 folds for 5 cases of 5 people") as error:
        story["again"]("data.phantom=null", "splits.folds=9")
    assert not story["run_dir"].exists()
    assert story["again"]("data.phantom=null", "splits.folds=9", *advised(error)[-1:]) == [
        "data", "lesson", "train_2d_fold_all", "infer", "report"]
    assert "train_2d_fold_4" in story["again"]("data.phantom=null", "splits.folds=9", *advised(error)[:-1])


@pytest.fixture
def two_workers():
    """Two workers in this process."""
    with (LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as found,
          cluster.workers_of(found.scheduler_address) as workers):
        yield workers


def test_workers_do_side_by_side_what_needs_no_other_and_it_is_the_same_run(story, two_workers):
    meeting = threading.Barrier(2)
    story["then"] = lambda name: name.startswith("train") and meeting.wait(60)  # one after the other never meets
    ran = story["again"](workers=two_workers)
    assert sorted(ran) == sorted(EVERYTHING)
    assert [name for name in ran if not name.startswith("train")] == ["data", "lesson", "infer", "report"]
    assert sorted(statuses(story["run_dir"])) == sorted((name, "done") for name in EVERYTHING)
    del story["then"]
    assert story["again"]() == []  # for one process, too
    assert story["again"]("infer.step=0.25", workers=two_workers) == ["infer", "report"]


def test_a_failure_on_a_worker_is_told_as_here(story, two_workers):
    def fail(name):
        if name == "infer":
            raise OctkitError("x.bin: the disk is full")

    story["then"] = fail
    with pytest.raises(OctkitError, match=r"^x\.bin: the disk is full$"):
        story["again"](workers=two_workers)
    line = ledger.read(Run(story["run_dir"]))[-1]
    assert (line.step, line.status, line.error) == ("infer", "failed", "x.bin: the disk is full")
    del story["then"]
    assert story["again"](workers=two_workers) == ["infer", "report"]


class Deaf(cluster.Here):
    """Workers whose command is killed when they have done the step `last`: nobody hears of it."""

    def __init__(self, last):
        super().__init__()
        self.last = last

    def next(self):
        key, result = super().next()
        if key == self.last:
            raise SystemExit("killed")
        return key, result


def test_what_a_worker_ends_for_a_command_that_is_gone_is_not_done_again(story):
    with pytest.raises(SystemExit):
        story["again"](workers=Deaf("train_2d_fold_1"))
    assert ("train_2d_fold_1", "done") not in statuses(story["run_dir"])
    begun = story["run_dir"] / ".steps/train_2d_fold_1/begun"
    begun.write_text("node7, process 12\n")  # killed between its last two files
    assert story["again"]() == ["infer", "report"]
    assert not begun.exists()
    assert [name for name, status in statuses(story["run_dir"]) if status == "done"] == EVERYTHING
    weights = story["run_dir"] / "weights_2d_1"
    with pytest.raises(SystemExit):
        story["again"]("train.epochs=7", "train.folds=[1]", workers=Deaf("train_2d_fold_1"))
    weights.write_text("changed")  # what it has left is not what stands there
    assert story["again"]("train.epochs=7", "train.folds=[1]") == ["train_2d_fold_1", "infer", "report"]


def test_of_steps_that_are_interrupted_the_ledger_names_those_that_had_begun(story):
    class Stopped(cluster.Here):
        full = False

        def next(self):
            if len(self._calls) < 2:
                return super().next()
            self.tell(self._calls[1][0], "")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        story["again"](workers=Stopped())
    failed = [line for line in ledger.read(Run(story["run_dir"])) if line.status == "failed"]
    assert [(line.step, line.error, line.exit) for line in failed] == [("train_2d_fold_1", "interrupted", 130)]


def test_a_step_that_somebody_is_at_is_waited_for_and_taken_over(story):
    """As where the network has parted a worker from its scheduler, who has given the step to another."""
    threads, executed = [], []

    def first(name):
        executed.append(name)
        if name == "lesson":
            threads.append(threading.Thread(target=run_all.execute, args=calls[-1]))
            threads[0].start()

    class Recorded(cluster.Here):
        def submit(self, key, function, *arguments):
            calls.append((*arguments, lambda _: None))
            super().submit(key, function, *arguments)

    calls, story["then"] = [], first
    assert story["again"](workers=Recorded()) == EVERYTHING
    threads[0].join(60)
    assert not threads[0].is_alive() and executed == EVERYTHING


def test_the_ledger_says_who_had_begun_a_step_and_died(story, monkeypatch, capsys):
    monkeypatch.setattr(run_all, "LOOK_SECONDS", 0)
    begun = story["run_dir"] / ".steps/infer/begun"
    begun.parent.mkdir(parents=True)
    begun.write_text("node7, process 12\n")
    assert story["again"]() == EVERYTHING
    lines = {line.step: line.lost for line in ledger.read(Run(story["run_dir"]))}
    assert lines.pop("infer") == ("node7, process 12",) and set(lines.values()) == {()}
    assert not begun.exists() and "after node7, process 12 had begun it and died" in capsys.readouterr().out


def test_a_step_whose_workers_die_is_named(story):
    class Deadly(cluster.Here):
        def next(self):
            key, *_ = self._calls[0]
            if key == "infer":
                raise cluster.WorkersDied(key, "infer: 4 workers died over it")
            return super().next()

    with pytest.raises(cluster.WorkersDied):
        story["again"](workers=Deadly())
    assert statuses(story["run_dir"])[-1] == ("infer", "killed")
    assert story["again"]() == ["infer", "report"]


def test_a_worker_that_is_killed_costs_its_step_alone(tmp_path):
    write_notebook(tmp_path / "notebooks", "first", "open(run_dir + '/first', 'a').write('once')")
    write_notebook(tmp_path / "notebooks", "second", "import os, pathlib, time\nmark = pathlib.Path(run_dir, 'mark')",
                   "if not mark.exists():\n    mark.touch()\n    os.kill(os.getppid(), 9)\n    time.sleep(60)",
                   "pathlib.Path(run_dir, 'second').write_text('whole')")
    steps = (Step("first"), Step("second", needs=("first",), leaves=("second",)))
    with cluster.workers_of(count=1) as workers:
        run_all.run_story(Run(tmp_path / "run"), smoke(), tmp_path / "notebooks", steps, workers)
    assert ((tmp_path / "run/first").read_text(), (tmp_path / "run/second").read_text()) == ("once", "whole")
    first, second = ledger.read(Run(tmp_path / "run"))
    assert (first.status, first.lost, second.status, len(second.lost)) == ("done", (), "done", 1)


def test_real_kernels(tmp_path, monkeypatch, capsys):
    # A kernelspec of the user's that would run another Python (here: none at all).
    spec = tmp_path / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(json.dumps({"argv": ["false", "{connection_file}"], "display_name": "x",
                                                  "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    folder = tmp_path / "notebooks"
    write_notebook(folder, "good", "import json, os, sys\nimport octkit",
                   "with open(run_dir + '/left.json', 'w') as file:\n    json.dump([sys.executable, os.getcwd(), "
                   "octkit.__file__, os.environ['MPLBACKEND']], file)", "")
    write_notebook(folder, "bad", "1 / 1", "\n# why\nraise ValueError('one\\ntwo')", "3")
    steps = (Step("good"), Step("bad", needs=("good",)))
    with pytest.raises(NotebookFailed) as failure:
        run_all.run_story(Run(tmp_path / "run"), smoke(), folder, steps)
    copies = tmp_path / "run" / "notebooks"
    assert str(failure.value) == f"bad, cell [4] `# why`: ValueError: one two; see {copies / 'bad.ipynb'}"
    assert sorted(path.name for path in copies.iterdir()) == ["bad.ipynb", "good.ipynb"]
    assert read_json(tmp_path / "run" / "left.json") == [
        sys.executable, str(folder), str(settings.PROJECT / "octkit" / "__init__.py"),
        "module://matplotlib_inline.backend_inline"]
    good, bad = ledger.read(Run(tmp_path / "run"))
    assert (good.status, good.exit, good.error, bad.status, bad.exit) == ("done", 0, None, "failed", 1)
    assert good.peak_memory_mb > 20
    assert settings.load(tmp_path / "run" / "settings.json") == smoke()
    out = capsys.readouterr().out
    assert "[ 1/2] good: done in" in out and "[ 2/2] bad: failed in" in out


def test_the_sentence_of_a_cell_is_what_the_user_reads(tmp_path):
    write_notebook(tmp_path, "step", "from octkit.common.errors import bad_file",
                   "raise bad_file('x.png', 'is odd', 'expected even')")
    with pytest.raises(NotebookFailed, match=r"^cell \[4\] `raise bad_file\(.*\)`: x.png: is odd, expected even; see"):
        execute(tmp_path, "step")


DRAWN = """from octkit.figures.picture import new_picture, png
picture, axes = new_picture("RNFL $x$")
axes[0, 0].plot([1, 2])
"""


def test_a_step_is_the_same_whatever_the_user_has_set_for_himself(tmp_path, monkeypatch):
    """IPython's, Jupyter's and matplotlib's own files, start-up files, variables; braces in the run's path."""
    home = tmp_path / "home"
    profile = home / ".ipython/profile_default"
    (profile / "startup").mkdir(parents=True)
    (profile / "startup/mine.py").write_text("import numpy\nnumpy.seterr(all='raise')\nprint = None\nraise ValueError")
    for name in ("ipython_config.py", "ipython_kernel_config.py"):
        (profile / name).write_text("c.InteractiveShellApp.exec_lines = ['import sys; sys.exit(7)']\n"
                                    "c.InteractiveShell.ast_node_interactivity = 'none'\n")
    (home / ".config/matplotlib").mkdir(parents=True)
    (home / ".config/matplotlib/matplotlibrc").write_text("text.usetex: True\nfont.size: 30\nfigure.facecolor: red\n")
    (home / "start.py").write_text("raise SystemExit('PYTHONSTARTUP')")
    for name, value in {"HOME": home, "PYTHONSTARTUP": home / "start.py", "PYTHONWARNINGS": "error",
                        "MPLBACKEND": "TkAgg", "JUPYTER_RUNTIME_DIR": "/no/where", "IPYTHONDIR": home / ".ipython",
                        "JUPYTER_CONFIG_DIR": "/no/where", "MATPLOTLIBRC": home / ".config/matplotlib"}.items():
        monkeypatch.setenv(name, str(value))
    run = Run(tmp_path / "{run_dir} {} [a]")
    write_notebook(tmp_path / "note {books}", "step", "import json, warnings, numpy\nwarnings.warn('no error')",
                   "json.dump([numpy.geterr()['divide'], print is not None], open(run_dir + '/left.json', 'w'))",
                   DRAWN + "open(run_dir + '/drawn.png', 'wb').write(png(picture))\n'shown'")
    run_all.run_story(run, smoke(), tmp_path / "note {books}", (Step("step"),))
    assert read_json(run.folder / "left.json") == ["warn", True]
    cells = nbformat.read(run.notebooks / "step.ipynb", as_version=4).cells
    assert cells[-1].outputs[0].data["text/plain"] == "'shown'"
    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        exec(DRAWN, drawn := {})
        assert (run.folder / "drawn.png").read_bytes() == drawn["png"](drawn["picture"])


def test_a_kernel_starts_under_a_long_tmpdir(tmp_path, monkeypatch):
    folder = tmp_path / ("n" * 120)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    write_notebook(tmp_path, "step", "1 + 1")
    execute(tmp_path, "step")
    assert list(folder.iterdir()) == []


def test_a_run_folder_whose_name_is_no_text_is_refused(tmp_path):
    with pytest.raises(OctkitError, match="no UTF-8"):
        run_all.run_story(Run(tmp_path / os.fsdecode(b"\xca\xfd")), smoke(), tmp_path, ())


def test_an_error_of_no_file_is_not_blamed_on_the_run_folder(story, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(run_all.locks, "locked", fail)
    with pytest.raises(OSError, match="^.Errno 24. Too many open files$"):
        story["again"]()


DEATHS = {
    "SIGKILL": ("import os\nos.kill(os.getpid(), 9)", r"cell \[3\] `import os`: the kernel was killed by SIGKILL "
                r"\(signal 9\)", -9),
    "SIGSEGV": ("import os\nos.kill(os.getpid(), 11)", r"cell \[3\] `import os`: the kernel was killed by SIGSEGV "
                r"\(signal 11\)", -11),
    "os._exit": ("import os\nos._exit(0)", r"cell \[3\] `import os`: the kernel ended by itself with exit code 0", 1),
    "os._exit(3)": ("import os\nos._exit(3)", r"cell \[3\] `import os`: the kernel ended by itself with exit code 3",
                    3),
    "sys.exit": ("import sys\nsys.exit(0)", r"cell \[4\] `2 \+ 2` was not executed", 1),
}


@pytest.mark.parametrize("source, message, code", DEATHS.values(), ids=DEATHS)
def test_a_kernel_that_ends_early_is_a_failure(tmp_path, source, message, code):
    """papermill takes all of them for success, or marks the cells as completed."""
    write_notebook(tmp_path, "ends", source, "2 + 2")
    with pytest.raises(NotebookFailed, match=message) as failure:
        execute(tmp_path, "ends")
    assert failure.value.exit == code
    dead = nbformat.read(tmp_path / "copy.ipynb", as_version=4).cells[3]
    if code != 1 or "_exit" in source:  # the copy says so too, at the very cell
        assert dead.metadata.papermill.status == "failed" and "the kernel" in dead.outputs[-1].text.lower()


def test_a_kernel_that_is_killed_between_two_cells(tmp_path):
    write_notebook(tmp_path, "idle", "1 + 1", "2 + 2")

    def kill(number, of):  # noqa: ARG001
        if number == 5:  # parameters are injected as the third of six
            # Other tests may have left processes too, such as the server from which pools fork.
            [kernel] = [child for child in psutil.Process().children()
                        if "octkit.lessons.kernel" in " ".join(child.cmdline())]
            kernel.kill()

    with pytest.raises(NotebookFailed, match=r"cell \[4\] `2 \+ 2`: the kernel was killed by SIGKILL") as failure:
        execute(tmp_path, "idle", kill)
    assert failure.value.exit == -9


def test_a_killed_step_says_where_and_what_memory_had_to_do_with_it(tmp_path, monkeypatch):
    write_notebook(tmp_path / "notebooks", "step", "held = b'x' * 200 * 2**20",
                   "import os, time\ntime.sleep(0.5)\nos.kill(os.getpid(), 9)")
    killed = iter([0, 0])
    monkeypatch.setattr(notebook, "_killed_for_memory", lambda: next(killed))
    with pytest.raises(NotebookFailed, match=r"^step, cell \[4\] `import os, time`: the kernel was killed by SIGKILL "
                       r"\(signal 9\); see .*step.ipynb. Its memory peaked at \d{3,} MB, with at least \d+ MB "
                       "left free, so that want of memory is not the likely cause"):
        run_all.run_story(Run(tmp_path / "run"), smoke(), tmp_path / "notebooks", (Step("step"),))
    [line] = ledger.read(Run(tmp_path / "run"))
    assert (line.status, line.exit) == ("killed", -9) and line.peak_memory_mb > 200
    assert "killed by SIGKILL" in line.error and "memory peaked" in line.error


@pytest.mark.parametrize("counted, free, expected", [
    ((4, 5), 0.5, "the system says that it killed a process for want of memory"),
    ((0, 0), 0.01, "which was nearly all there is"),
    ((4, 4), 0.5, "want of memory is not the likely cause"),
])
def test_the_cause_of_a_kill(monkeypatch, counted, free, expected):
    counter = iter(counted)
    monkeypatch.setattr(notebook, "_killed_for_memory", lambda: next(counter))
    monkeypatch.setattr(notebook.psutil, "virtual_memory",
                        lambda: SimpleNamespace(available=free * 2**30, total=2**30))
    with notebook.PeakMemory() as memory:
        pass
    found = memory.in_words()
    assert expected in found and f"at least {free * 1024:.0f} MB left free" in found
    assert ("lower train.workers" in found) == (expected != "want of memory is not the likely cause")


@pytest.mark.parametrize("failures, cells, tries", [(2, 0, 3), (3, 0, 3), (1, 1, 1)])
def test_only_a_kernel_that_ran_nothing_is_started_again(tmp_path, monkeypatch, failures, cells, tries):
    calls = []

    def start(path, running, *_, on_cell_start, **__):
        calls.append(path)
        if cells:
            on_cell_start(cell=None, cell_index=0)
        if len(calls) <= failures:
            raise RuntimeError("Kernel died before replying to kernel_info")
        nbformat.write(new_notebook(), running)

    monkeypatch.setattr(notebook.papermill, "execute_notebook", start)
    write_notebook(tmp_path, "starts")
    source = notebook.read(tmp_path / "starts.ipynb", [])
    with pytest.raises(NotebookFailed, match="before replying") if failures >= tries else nullcontext():
        notebook.execute(source, {}, tmp_path / "copy.ipynb", quiet)
    assert len(calls) == tries


def test_peak_memory_counts_all_children():
    code = "held = b'x' * 150 * 2**20; print('ready', flush=True); input()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen([sys.executable, "-c", code], **pipes)
                for _ in range(2)]
    assert [child.stdout.readline() for child in children] == ["ready\n"] * 2
    with notebook.PeakMemory() as memory:
        pass
    for child in children:
        child.communicate("\n")
    assert 300 < memory.peak_mb() < 500


@pytest.mark.parametrize("where", ["in a step", "in the executed notebook"])
def test_a_full_disk_stops_a_run_that_goes_on_when_there_is_space(tmp_path, small_disk, where):
    folder, run_dir = tmp_path / "notebooks", small_disk / "run"
    write_notebook(folder, "first", "import pathlib\npathlib.Path(run_dir, 'kept.txt').write_text('whole')")
    write_notebook(folder, "second", "from octkit.common.files import write_atomic\n"
                   + ("write_atomic(run_dir + '/big.bin', b'x' * 2**19)" if where == "in a step"
                      else "print('x' * 2**19)"))
    steps = (Step("first"), Step("second", needs=("first",)))
    rest = small_disk / "of_somebody_else"
    fill(rest, leave=2**18)
    with pytest.raises((NotebookFailed, OctkitError), match="(?i)no space left on device|the disk is full"):
        run_all.run_story(Run(run_dir), smoke(), folder, steps)
    assert (run_dir / "kept.txt").read_text() == "whole" and not (run_dir / "big.bin").exists()
    assert not [path for path in run_dir.rglob("*.tmp")]
    assert statuses(run_dir)[:1] == [("first", "done")] and ("second", "done") not in statuses(run_dir)
    rest.unlink()
    run_all.run_story(Run(run_dir), smoke(), folder, steps)
    assert statuses(run_dir)[-2:] == [("first", "skipped"), ("second", "done")]


def test_what_a_killed_run_has_left_half_written_is_removed(story):
    story["again"]()
    for name in ("figures/.a.png.0f.tmp", ".submission.1f.tmp/x.png", "models/2d/.checkpoint.pt.2f.tmp"):
        (story["run_dir"] / name).parent.mkdir(parents=True, exist_ok=True)
        (story["run_dir"] / name).touch()
    story["again"]()
    assert not list(story["run_dir"].rglob(".*.tmp"))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "run").write_text("a file")
    write_notebook(tmp_path / "notebooks", "step")
    with pytest.raises(OctkitError, match=r"run/x.*: cannot be .* \(Not a directory\)"):
        run_all.run_story(Run(tmp_path / "run" / "x"), smoke(), tmp_path / "notebooks", (Step("step"),))


def test_the_steps_cover_all_settings_and_each_other():
    names = [step.notebook for step in STEPS]
    for position, step in enumerate(STEPS):
        assert set(step.needs) <= set(names[:position])
    sections = {name for step in STEPS for name in step.settings}
    assert all(run_all._sections(smoke(), step.settings + step.shows) for step in STEPS if step.settings != ("*",)
               and step.settings + step.shows)
    assert set(settings.Settings.model_fields) - sections == {"profile", "story"}  # a name, and these very steps
    reached, front = set(), {"13_report"}
    while front:
        reached |= front
        front = {need for step in STEPS if step.notebook in front for need in step.needs}
    assert reached == set(names)
