"""A lesson's trainings as jobs of their own: which there are, in which order, and that the lesson finds them done."""

from types import SimpleNamespace

import pytest
from helpers import equal, make_run, smoke, write_notebook

from octkit.common import cluster
from octkit.common.files import read_json, write_json
from octkit.common.settings import PROJECT
from octkit.data.doctor import data_set
from octkit.inference import predict
from octkit.lessons import ahead, ledger, notebook, run_all
from octkit.lessons.notebook import NotebookFailed
from octkit.lessons.run_all import Step
from octkit.network.checkpoints import load_checkpoint
from octkit.phantoms import data_sets
from octkit.planning import steps
from octkit.planning.run import Run
from octkit.training import train

# A lesson that trains a, b, then c, and says what it did not find trained.
TRAIN = """from pathlib import Path

folder = Path(run_dir)
def train(name, number):
    if name == "b" and (folder / "stop").exists():
        raise ValueError("stopped")
    (folder / f"{name}.txt").write_text(f"{name} {number}")
"""
LISTED = """rounds = [{f"part/{name}": ([name, number], str(run.folder / f"{name}.txt")) for name, number in found}
          for found in ((("a", 1), ("b", 2)), (), (("c", 3),))]
"""
LESSON = TRAIN + """
missing = [each for each in (("a", 1), ("b", 2), ("c", 3)) if not (folder / f"{each[0]}.txt").exists()]
for each in missing:
    train(*each)
(folder / "missing.txt").write_text(str(len(missing)))
"""
AHEAD = ["lesson_prepared", "lesson_part_a", "lesson_part_b", "lesson_part_c"]


class OneByOne(cluster.Workers):
    """Workers who do their work in this process, one call after the other."""

    __init__, full, submit = cluster.Here.__init__, cluster.Here.full, cluster.Here.submit

    def next(self):
        return cluster.Here.next(self)


@pytest.fixture
def executed(monkeypatch):
    """Notebooks are executed in this process; the names of the executions, in their order."""
    names = []

    def execute(source, parameters, copy, on_cell):  # noqa: ARG001
        names.append(copy.stem)
        copy.write_bytes(source.path.read_bytes())
        space = {}
        for kind, text in source.cells:
            space |= parameters
            try:
                exec(text if kind == "code" else "", space)
            except Exception as error:
                raise NotebookFailed(f"cell `{text}`: {error}") from error

    monkeypatch.setattr(notebook, "execute", execute)
    return names


@pytest.fixture
def again(tmp_path, monkeypatch, executed):
    """Run a story of two lessons, of which the second trains; what was executed for it."""
    monkeypatch.setattr(run_all, "_check_files", lambda *_: None)
    monkeypatch.setattr(data_set, "before_run", lambda *_: None)
    monkeypatch.setattr(ahead, "LESSONS", {"lesson": (TRAIN, LISTED)})
    write_notebook(tmp_path / "notebooks", "first", "")
    write_notebook(tmp_path / "notebooks", "lesson", LESSON)
    steps = Step("first"), Step("lesson", settings=("train",), needs=("first",), leaves=("missing.txt",))

    def run(*changes, workers=None):
        executed.clear()
        chosen = smoke(f"data.dir={tmp_path}", *changes)
        run_all.run_story(Run(tmp_path / "run"), chosen, tmp_path / "notebooks", steps, workers or OneByOne())
        return list(executed)

    return run


def left(folder):
    return {path.stem: path.read_text() for path in (folder / "run").glob("*.txt")}


def test_trainings_go_to_workers_before_their_lesson_and_once(again, tmp_path, capsys):
    assert again() == ["first", *AHEAD, "lesson"]
    assert left(tmp_path) == {"a": "a 1", "b": "b 2", "c": "c 3", "missing": "0"}
    lines = ledger.read(Run(tmp_path / "run"))
    assert [(line.step, line.status) for line in lines] == [(name, "done") for name in ["first", *AHEAD, "lesson"]]
    assert "[ 2/2] lesson_part_a: done in" in capsys.readouterr().out
    assert again() == [] and again(workers=cluster.Here()) == []  # the lesson is the same step
    assert again("train.epochs=7") == [*AHEAD, "lesson"]


def test_one_process_does_the_lesson_alone(again, tmp_path):
    assert again(workers=cluster.Here()) == ["first", "lesson"]
    assert left(tmp_path) == {"a": "a 1", "b": "b 2", "c": "c 3", "missing": "3"}
    assert again() == []


def test_a_training_that_fails_is_told_by_its_name_and_the_others_are_not_done_again(again, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/stop").touch()
    with pytest.raises(NotebookFailed, match=r"^lesson_part_b, cell `train\(\*\['b', 2\]\)`: stopped$"):
        again()
    line = ledger.read(Run(tmp_path / "run"))[-1]
    assert (line.step, line.status, line.exit) == ("lesson_part_b", "failed", 1)
    (tmp_path / "run/stop").unlink()
    assert again() == ["lesson_part_b", "lesson_part_c", "lesson"]


def test_a_training_whose_workers_die_is_named(again, tmp_path):
    class Deadly(OneByOne):
        def next(self):
            if (key := self._calls[0][0]) == "lesson_part_a":
                raise cluster.WorkersDied(key, f"{key}: 4 workers died over it")
            return super().next()

    with pytest.raises(cluster.WorkersDied, match="^lesson_part_a"):
        again(workers=Deadly())
    line = ledger.read(Run(tmp_path / "run"))[-1]
    assert (line.step, line.status) == ("lesson_part_a", "killed")
    assert again() == [*AHEAD[1:], "lesson"]


def test_a_training_that_was_deleted_is_done_again(again, tmp_path, capsys):
    again()
    for name in ("b", "missing"):
        (tmp_path / f"run/{name}.txt").unlink()
    assert again() == ["lesson_part_b", "lesson_part_c", "lesson"]  # c needs those before it
    assert capsys.readouterr().out.count("lesson: done before, but") == 1


def test_names_of_trainings_stay_within_the_run(tmp_path):
    run = Run(tmp_path / "run")
    write_json(run.steps / "11_classify.json", [{"../../x": ([], "x")}, {"a b": ([], "x")}])
    found = [one for each in ahead.rounds("11_classify", run) for one in each]
    assert [name for name, *_ in found] == ["11_classify_prepared", "11_classify_.._.._x", "11_classify_a_b"]
    # Their files lie in the run, but they find data/ where the command does.
    assert all(run.folder in notebook.path.parents and notebook.working == PROJECT for _, notebook, _ in found)


def test_volumes_are_trained_in_two_rounds_and_predict_what_they_held_out(monkeypatch):
    """A cascade's second step learns from what all folds of the first have predicted."""
    calls = []
    for module, name in ((data_sets, "make_unless_there"), (train, "train_fold"), (predict, "predict_held_out"),
                         *((steps, f"{step}_run") for step in ("fingerprint", "plan", "preprocess", "split"))):
        monkeypatch.setattr(module, name, lambda *of, name=name, **_: calls.append((name, *of[1:])))
    before = {"2d": None, "3d_lowres": None, "3d_cascade_fullres": "3d_lowres"}
    space = {"run": SimpleNamespace(
        configs=tuple(before), checkpoint=lambda *of: "/".join(map(str, of)),
        plan=SimpleNamespace(configurations={name: SimpleNamespace(previous_stage=of) for name, of in before.items()}),
        settings=SimpleNamespace(data=SimpleNamespace(root="data", phantom=None),
                                 train=SimpleNamespace(folds=(0, "all"))))}
    for code in ahead.LESSONS["14_volumes"]:
        exec(code, space)
    assert [name for name, *_ in calls] == ["make_unless_there", "fingerprint_run", "plan_run", "preprocess_run",
                                            "split_run"]
    first, second = space["rounds"]
    assert list(first) == ["2d_fold_0", "2d_fold_all", "3d_lowres_fold_0", "3d_lowres_fold_all"]
    assert second["3d_cascade_fullres_fold_all"] == (["3d_cascade_fullres", "all"], "3d_cascade_fullres/all")
    calls.clear()
    for name in ("3d_lowres_fold_0", "3d_lowres_fold_all"):
        space["train"](*first[name][0])
    assert calls == [("train_fold", "3d_lowres", 0), ("predict_held_out", "3d_lowres", 0),
                     ("train_fold", "3d_lowres", "all")]


def test_claims_end_with_the_same_bits(tmp_path, executed):
    data_sets.make_data_set(tmp_path / "data", (4, 2, 0), (64, 96), repeated=False)
    write_notebook(tmp_path / "notebooks", "16_claims", """from octkit.common.files import write_json
from octkit.inference import measure
from octkit.lessons.claims import Trials
from octkit.planning.run import Run
from octkit.training.train import train_fold

run, found = Run(run_dir), []
def train(other, config, fold, **options):
    found.append(other.checkpoint(config, fold).exists())
    return train_fold(other, config, fold, **options)
Trials(run, train, measure.scan_scores).findings()
write_json(run.folder / "found.json", found)
""")
    runs = [Run(make_run(tmp_path / name, tmp_path / "data", "plan.base_features=2", "plan.max_features=4",
                         "train.epochs=1", "train.iterations_per_epoch=1", "claims.seeds=1",
                         'data.phantom={"train": 4, "validation": 2, "size": [64, 96]}', "claims.extra_scans=2"))
            for name in ("alone", "workers")]
    for run, workers in zip(runs, (cluster.Here(), OneByOne()), strict=True):
        run_all.run_story(run, run.settings, tmp_path / "notebooks", (Step("16_claims", leaves=("claims.json",)),),
                          workers)
    trainings = ["base-0_fold_all", "base-0_fold_0", "adam-0_fold_all", "epochs-2-0_fold_all", "extra-0_fold_all"]
    assert executed == ["16_claims", "16_claims_prepared", *(f"16_claims_{name}" for name in trainings), "16_claims"]
    alone, beside = (read_json(run.folder / "found.json") for run in runs)
    assert not alone[0] and len(alone) == len(beside) and all(beside)
    claims = [[one for one in read_json(run.claims_file)["findings"] if one["unit"] == "Dice"] for run in runs]
    assert claims[0] == claims[1] and len(claims[0]) == 6
    for name in ("", "-adam-0", "-epochs-2-0", "-extra-0"):
        weights = [load_checkpoint(Run(f"{run.folder}{name}").checkpoint("2d", "all"))["network"] for run in runs]
        assert equal(*weights)
