"""Experiments share what is the same and compare what is not; trainings and kernels are pretended."""

import numpy as np
import pytest
from helpers import make_run, smoke, write_goals, write_notebook

from octkit.common import settings
from octkit.common.errors import OctkitError
from octkit.common.files import write_csv, write_json
from octkit.data.doctor import data_set
from octkit.figures import widgets
from octkit.lessons import experiments, ledger, notebook, run_all
from octkit.lessons.experiments import compare, experiment
from octkit.lessons.run_all import Step
from octkit.planning.folds import make_splits
from octkit.planning.run import Run

STEPS = (Step("data", settings=("data",), data=True, may_leave=("figures/01_*",)),
         Step("prepare", settings=("splits",), shows=("train",), needs=("data",), leaves=("plan.json", "preprocessed"),
              may_leave=("classifier",)),
         Step("train", settings=("train",), needs=("prepare",), each_fold=True,
              leaves=("models/{config}/fold_{fold}",)),
         Step("score", settings=("infer",), needs=("train",), leaves=("scores.json",)))
EVERYTHING = ["data", "prepare", "train_2d_fold_0", "train_2d_fold_1", "score"]
TRAINED = ["train_2d_fold_0", "train_2d_fold_1", "score"]


@pytest.fixture
def story(tmp_path, monkeypatch):
    """A run of four notebooks whose execution is pretended: `run(folder, settings)` -> the names of those that ran."""
    for step in STEPS:
        write_notebook(tmp_path / "notebooks", step.notebook, parameters=(
            "run_dir = 'x'\nconfig = '2d'\nfold = 0" if step.each_fold else "run_dir = 'x'",))
    ran = []

    def pretend(source, parameters, copy, on_cell):  # noqa: ARG001
        ran.append(copy.stem)
        folder = Run(parameters["run_dir"]).folder
        for name in {"prepare": ["plan.json", "preprocessed/2d/0001.npy"], "score": ["scores.json"]}.get(
                copy.stem, [f"models/2d/fold_{parameters['fold']}/checkpoint.pt"] if "fold" in parameters else []):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).unlink(missing_ok=True)  # as `replacing` does
            (folder / name).write_text(f"{name} of {folder.name}")
        copy.write_text("executed")

    def run(folder, chosen):
        ran.clear()
        run_all.run_story(Run(folder), chosen, tmp_path / "notebooks")
        return list(ran)

    monkeypatch.setattr(notebook, "execute", pretend)
    monkeypatch.setattr(data_set, "before_run", lambda *_: None)
    monkeypatch.setattr(run_all, "STORIES", {"circle": STEPS})
    monkeypatch.setattr(run_all, "NOTEBOOKS", tmp_path / "notebooks")
    return run


@pytest.fixture
def base(goals, tmp_path, story):
    chosen = smoke(f"data.dir={goals}")
    assert story(tmp_path / "base", chosen) == EVERYTHING
    return Run(tmp_path / "base")


@pytest.mark.parametrize(("changes", "again"), [
    ({"train": {"optimiser": "adam"}}, ["prepare", *TRAINED]),  # prepare shows the training's settings
    ({"infer": {"step": 0.25}}, ["score"]),
    ({"splits": {"folds": 3}}, EVERYTHING[1:]),
    ({"train": {"folds": [0, 1, 2]}}, ["prepare", "train_2d_fold_2", "score"]),
    ({"seed": 5}, []),
    ({"data": {"phantom": None}}, EVERYTHING),
])
def test_an_experiment_runs_only_what_its_settings_change(story, base, changes, again):
    new = experiment(base, "new", **changes)
    assert new.folder == base.folder.with_name("base-new")
    assert new.settings == settings.with_changes(base.settings, changes)
    assert story(new.folder, new.settings) == again
    assert story(base.folder, base.settings) == []  # nothing in the run it is like has changed
    assert (base.folder / "plan.json").read_text() == "plan.json of base"


def test_what_is_shared_takes_no_space_and_what_one_edits_is_apart(base, capsys):
    new = experiment(base, "adam", train={"optimiser": "adam"})
    said = capsys.readouterr().out
    assert "train.optimiser sgd -> adam; shares data, prepare with" in said
    name = "preprocessed/2d/0001.npy"
    assert (new.folder / name).samefile(base.folder / name)
    assert not (new.folder / "plan.json").samefile(base.folder / "plan.json")
    assert not (new.folder / "models").exists() and not (new.folder / "scores.json").exists()


def test_files_that_are_not_as_they_were_left_are_not_shared(base):
    (base.folder / "preprocessed/2d/0001.npy").write_text("damaged")
    new = experiment(base, "adam", train={"optimiser": "adam"})
    assert [line.step for line in ledger.read(new)] == ["data"] and not (new.folder / "preprocessed").exists()


def test_a_ledger_cannot_name_files_that_its_step_does_not_leave(base):
    """A stranger's could have the new run's settings, or another step's files, overwritten."""
    (base.folder / "figures").mkdir()
    (base.folder / "figures" / "x.png").write_text("theirs")
    for line in ledger.read(base):
        more = ledger.outputs(base, ["settings.json", "figures/x.png"]) if line.step == "prepare" else {}
        ledger.append(base, line.model_copy(update={"outputs": (line.outputs or {}) | more}))
    new = experiment(base, "adam", train={"optimiser": "adam"})
    assert new.settings.train.optimiser == "adam" and not (new.folder / "figures").exists()
    assert (new.folder / "preprocessed/2d/0001.npy").exists()


def test_lessons_that_were_run_by_hand_are_shared_too(base):
    base.ledger_file.unlink()
    new = experiment(base, "adam", train={"optimiser": "adam"})
    assert (new.folder / "preprocessed/2d/0001.npy").exists() and not (new.folder / "models").exists()
    assert not new.ledger_file.exists()
    few = experiment(base, "few", train={"folds": [0]})  # what two folds have found together is not one's
    assert (few.folder / "models/2d/fold_0").exists() and not (few.folder / "scores.json").exists()


def test_the_same_experiment_is_opened_again_and_another_one_refused(base):
    new = experiment(base, "adam", train={"optimiser": "adam"})
    (new.folder / "mine.txt").write_text("kept")
    assert experiment(base, "adam", train={"optimiser": "adam"}).folder == new.folder
    assert (new.folder / "mine.txt").read_text() == "kept"
    with pytest.raises(OctkitError, match=r"base-adam: .*train.epochs 3 -> 2"):
        experiment(base, "adam", train={"optimiser": "adam", "epochs": 3})


@pytest.mark.parametrize(("name", "changes", "message"), [
    ("x", {"train": {"optimizer": "adam"}}, "train.optimizer.*the nearest is train.optimiser"),
    ("x", {"epochs": 3}, "epochs.*the nearest is train.epochs"),
    ("x", {"trian": {"epochs": 3}}, "trian.*the nearest is train"),
    ("x", {"train": {"epochs": 0}}, "train.epochs: .*greater than"),
    ("x", {}, "expected a setting that differs"), ("x", {"seed": 0}, "expected a setting that differs"),
    ("a/b", {"seed": 5}, "found the name 'a/b'"), ("", {"seed": 5}, "found the name ''"),
])
def test_what_is_no_experiment_is_refused_and_leaves_nothing(base, name, changes, message):
    before = sorted(base.folder.parent.iterdir())
    with pytest.raises(OctkitError, match=message):
        experiment(base, name, **changes)
    assert sorted(base.folder.parent.iterdir()) == before


def scored(folder, goals, dice, *changes):
    """A run that says it has scored scans: `dice` is name -> Dice of RNFL and choroid."""
    run = Run(folder)
    smoke(f"data.dir={goals}", *changes).save(run.settings_file)
    names = ("dice", "med", "thickness_error")
    cases = {scan: {layer: dict.fromkeys(names, value) for layer, value in zip(("rnfl", "choroid"), found, strict=True)}
             for scan, found in dice.items()}
    summary = {layer: dict.fromkeys(names, {"mean": 0, "std": 0, "undefined": 0}) for layer in ("rnfl", "choroid")}
    write_json(run.scores_file, {"cases": cases, "summary": summary, "units": dict.fromkeys(names, "")})
    write_csv(run.fold("2d", 0) / "log.csv", ("epoch", "train_loss", "dice_rnfl"), [(1, 0.5, 0.1), (2, 0.25, 0.3)])
    write_json(run.plan_file, {})
    return run


@pytest.fixture
def two(goals, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "configs", ("2d",))
    one = scored(tmp_path / "one", goals, {"0007": (0.5, 0.9), "0008": (0.7, None), "0009": (0.6, 0.8)})
    return one, scored(tmp_path / "two", goals, {"0007": (0.6, 0.9), "0008": (0.9, 0.8), "0009": (0.9, 0.7)}, "seed=4",
                       "train.optimiser=adam")


def test_runs_are_compared_scan_by_scan(two, tmp_path):
    found = compare(two)
    assert found.differ == {"seed": (0, 4), "train.optimiser": ("sgd", "adam")}
    rows = {row.name: row for row in found.rows}
    assert rows["RNFL Dice"].means == pytest.approx((0.6, 0.8))
    [gain] = rows["RNFL Dice"].gains  # 0.1, 0.2, 0.3: one of 27 samples is thrice the first, which is more than 2.5 %
    assert gain == pytest.approx((0.2, 0.1, 0.3, 3))
    assert rows["choroid Dice"].gains[0][:4:3] == (pytest.approx(-0.05), 2)  # undefined in one scan
    text = str(found)
    assert "train.optimiser" in text and "+0.2000 [+0.1000, +0.3000] (n = 3)" in text
    assert "bootstrap over 3 people" in text and "too narrow" in text
    found.save(tmp_path / "out")
    lines = (tmp_path / "out/scores.csv").read_text().splitlines()
    assert lines[:2] == ["scan,layer,metric,one,two", "0007,rnfl,dice,0.5,0.6"] and len(lines) == 1 + 3 * 2 * 3
    assert (tmp_path / "out/curves.png").stat().st_size > 10_000
    assert "one against" not in found.figure().alt and "RNFL Dice two +0.2000" in found.figure().alt


def test_two_scans_of_one_person_count_once(two, monkeypatch):
    monkeypatch.setattr(experiments, "_people", lambda *_: ("a", "a", "b"))
    [gain] = compare(two).rows[0].gains  # 0.1 and 0.2 of one, 0.3 of the other
    assert gain == pytest.approx((0.225, 0.15, 0.3, 2))


def test_only_shared_scans_are_compared_and_that_is_said(two, goals):
    one, _ = two
    other = scored(one.folder.with_name("other"), goals, {"0008": (0.9, 0.9), "0011": (0.1, 0.1)})
    found = compare([one, other])
    assert list(found.scores) == ["0008"] and "1 scans that all have, of 3, 2" in str(found)
    with pytest.raises(OctkitError, match="no validation scan in common"):
        compare([one, scored(one.folder.with_name("third"), goals, {"0012": (0.1, 0.1)})])
    with pytest.raises(OctkitError, match="expected two"):
        compare([one])


def test_scans_of_other_data_are_the_same_only_where_their_content_is(two, tmp_path):
    one, _ = two
    copy = write_goals(tmp_path / "copy")  # the same scans, but for one
    (copy / "Validation/Image/0008.png").write_bytes((copy / "Validation/Image/0007.png").read_bytes())
    other = scored(tmp_path / "other", copy, {"0007": (0.9, 0.9), "0008": (0.9, 0.9)})
    found = compare([one, other])
    assert list(found.scores) == ["0007"] and "different data sets" in str(found)


def test_a_data_set_that_changed_between_the_runs_is_refused(two, goals):
    for run, contents in zip(two, ("a", "b"), strict=True):
        ledger.append(run, ledger.Line(step="01_data", status="done", data=[contents]))
    with pytest.raises(OctkitError, match=f"{goals}: has changed between the runs"):
        compare(two)


def test_without_scores_it_is_said_what_gets_them(two):
    two[1].scores_file.unlink()
    with pytest.raises(OctkitError, match=f"{two[1].folder}: has no scores to compare"):
        compare(two)


def test_held_out_scans_are_compared_where_no_validation_scan_has_a_truth(goals, tmp_path):
    from octkit.inference.predict import save_mask, save_probabilities
    from octkit.inference.select import select

    runs = []
    for name, shift in (("one", 0), ("two", 2)):
        run = Run(make_run(tmp_path / name, goals, "train.folds=[0,1]", "infer.surfaces=never"))
        for case in run.dataset.train:
            mask = np.roll(run.dataset.read_mask(case), shift, axis=0)
            folder = run.cross_validation("2d", run.held_out[case.name])
            folder.mkdir(parents=True, exist_ok=True)
            save_mask(folder, case.name, mask, run.dataset.labels, case.image)
            save_probabilities(folder, case.name, (mask == np.arange(4)[:, None, None]).astype(np.float16))
        select(run)
        runs.append(run)
    found = compare(runs)
    assert found.where == "cross-validation" and list(found.scores) == list(runs[0].held_out)
    rows = {row.name: row for row in found.rows}
    # RNFL is six rows thick: shifted by two it overlaps in four
    assert rows["RNFL Dice"].means == (1, pytest.approx(4 / 6))
    assert rows["RNFL Dice"].gains[0].mean == pytest.approx(-1 / 3)
    write_json(runs[1].splits_file, make_splits(runs[1].dataset.train, 2, seed=9))
    assert "folds differ" in str(compare(runs))


def test_the_chooser_shows_the_two_that_are_chosen(two):
    third = scored(two[0].folder.with_name("third"), two[0].settings.data.dir, {"0012": (0.1, 0.1)})
    box = experiments.chooser([*two, third])
    controls, shown = box.children
    one, other = controls.children
    assert (one.value, other.value) == ("one", "two") and "two minus one" in shown.value
    assert shown.value.startswith(widgets.image(compare(two).figure()))  # its twin on paper
    one.value = "two"
    other.value = "one"
    assert "one minus two" in shown.value and "-0.2000" in shown.value
    other.value = "third"
    assert "no validation scan in common" in shown.value and "<img" not in shown.value


def test_networks_are_taken_along_where_their_settings_are_the_same_to_be_looked_at(base):
    """The ResNet50s know what they were made from: an experiment on the layers needs no new ones."""
    network = base.classifier / "fold_0" / "model.pdparams"
    network.parent.mkdir(parents=True)
    network.write_text("weights")
    (base.classifier / "answers.json").write_text("{}")
    dealt = {"folds": 3}
    other = experiment(base, "dealt", splits=dealt)
    assert (other.classifier / "fold_0/model.pdparams").samefile(network)
    assert not (other.classifier / "answers.json").exists()
    assert not experiment(base, "longer", splits=dealt, classify={"epochs": 3}).classifier.exists()
    base.ledger_file.unlink()  # as of lessons by hand: then `prepare` is shared with all that lies in classifier/
    assert (experiment(base, "adam", train={"optimiser": "adam"}).classifier / "answers.json").exists()
