from pathlib import Path

import pytest
from helpers import advised, make_run, write_goals, write_volumes

from octkit.common.errors import OctkitError
from octkit.common.files import read_json, write_json
from octkit.common.settings import DataSettings, SplitSettings, from_profile, with_overrides
from octkit.data.labels import LAYERS
from octkit.inference.predict import predict_split
from octkit.inference.select import select
from octkit.planning import fingerprint
from octkit.planning.fingerprint import Fingerprint
from octkit.planning.plan import Plan
from octkit.planning.preprocess import load_preprocessed
from octkit.planning.run import Run
from octkit.planning.steps import fingerprint_run, plan_run, preprocess_run, split_run
from octkit.training.train import train_fold

RECORD = {"mean": 1.0, "median": 1.0, "min": 0.0, "max": 2.0, "std": 1.0, "percentile_00_5": 0.0,
          "percentile_99_5": 2.0}


def test_a_run_is_planned_with_its_own_settings(tmp_path):
    chosen = with_overrides(from_profile("demo"), ["plan.batch_size=7"])
    chosen.save(tmp_path / "settings.json")
    cube = (0.047, 0.00195, 0.0117)  # mm of a macular cube
    Fingerprint([cube] * 40, [(128, 1024, 512)] * 40, ["OCT"], LAYERS, [RECORD]).save(tmp_path / "fingerprint.json")
    plan = plan_run(Run(tmp_path))
    assert list(plan.configurations) == ["2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres"]
    for name, one in plan.configurations.items():
        assert one.batch_size == 7 and one.features[:2] == (16, 32)
        assert "the rule gives" in plan.reasons[name]["batch_size"]
    assert Plan.load(tmp_path / "plan.json") == plan
    assert read_json(tmp_path / "plan.json")["blueprint"]["epochs"]["value"] == chosen.train.epochs


def preprocessed_run(folder: Path, data: Path) -> Path:
    """A run with the preprocessed cases of a data set in the GOALS layout."""
    chosen = from_profile("smoke").model_copy(update={"data": DataSettings(dir=str(data))})
    chosen.save(folder / "settings.json")
    fingerprint_run(Run(folder))
    plan_run(Run(folder))
    preprocess_run(Run(folder), progress=False)
    return folder / "preprocessed" / "2d"


def test_cases_read_side_by_side_are_those_read_one_by_one(tmp_path, goals, monkeypatch):
    side_by_side = preprocessed_run(tmp_path / "a", goals)
    monkeypatch.setattr(fingerprint, "READERS", 1)
    one_by_one = preprocessed_run(tmp_path / "b", goals)
    files = sorted(path.name for path in side_by_side.iterdir())
    assert len(files) == 6 * 3 and files == sorted(path.name for path in one_by_one.iterdir())
    assert all((side_by_side / name).read_bytes() == (one_by_one / name).read_bytes() for name in files)
    prints = [(tmp_path / run / "fingerprint.json").read_text() for run in "ab"]
    assert prints[0] == prints[1]


def test_a_case_that_cannot_be_read_stops_the_preprocessing_and_is_named(tmp_path, goals):
    folder = preprocessed_run(tmp_path / "run", goals)
    broken = goals / "Train" / "Image" / "0003.png"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(OctkitError, match=r"0003\.png"):
        preprocess_run(Run(tmp_path / "run"), progress=False)
    assert not (folder / "0003.json").exists()


def test_a_cases_facts_are_kept_and_a_damaged_file_is_refused(tmp_path, goals):
    folder = preprocessed_run(tmp_path / "run", goals)
    [case] = load_preprocessed(Run(tmp_path / "run"), "2d", ["0001"])
    assert case.geometry.original_shape == case.mask.shape == (40, 48) and case.circle is case.geometry.circle
    for content in ("[]", "{}", (folder / "0001.json").read_text().replace("crop", "cut")):
        (folder / "0001.json").write_text(content)
        with pytest.raises(OctkitError, match=r"0001\.json: .*preprocess again"):
            load_preprocessed(Run(tmp_path / "run"), "2d", ["0001"])
    with pytest.raises(OctkitError, match="0099 is not preprocessed"):
        load_preprocessed(Run(tmp_path / "run"), "2d", ["0099"])


def test_folds_are_dealt_as_the_settings_say(tmp_path, goals):
    from_profile("smoke").model_copy(update={"data": DataSettings(dir=str(goals))}).save(tmp_path / "settings.json")
    run = Run(tmp_path)
    splits = split_run(run)
    assert splits == run.splits and len(splits) == run.settings.splits.folds
    assert sorted(name for split in splits for name in split["validation"]) == [f"{n:04d}" for n in range(1, 7)]


@pytest.mark.parametrize("scans", [1, 2, 3])
def test_fold_all_needs_no_number_of_scans(tmp_path, scans):
    data = write_goals(tmp_path / "goals", train=scans)
    run = Run(make_run(tmp_path / "run", data, "splits.folds=5", 'train.folds=["all"]', "train.epochs=1"))
    assert run.splits == []
    train_fold(run, fold="all", progress=False)
    with pytest.raises(OctkitError, match='found 0, expected "all"'):
        train_fold(run, fold=0, progress=False)
    run.calibration_file.write_text("of another selection")
    assert select(run).folds == ("all",)
    assert run.calibration is None and not run.calibration_file.exists()
    predict_split(run, progress=False)
    assert sorted(path.name for path in run.predictions("validation").glob("*.png")) == [
        f"{scans + 1:04d}.png", f"{scans + 2:04d}.png"]
    run.splits_file.unlink()  # as where the folds that the settings name could not be dealt
    train_fold(run, fold="all", resume=False, progress=False)


def test_fold_all_alone_cannot_decide_between_configurations_and_the_advice_helps(tmp_path):
    data = write_volumes(tmp_path / "volumes", train=1)
    changes = [f"data.dir={data}", 'train.folds=["all"]', "plan.memory_gb=0.001"]
    chosen = with_overrides(from_profile("volumes"), changes)
    chosen.save(tmp_path / "settings.json")
    run = Run(tmp_path)
    fingerprint_run(run)
    assert len(plan_run(run).configurations) > 1
    with pytest.raises(OctkitError, match='fold "all" holds nothing out') as error:
        split_run(run)
    with_overrides(chosen, advised(error)).save(run.settings_file)
    assert split_run(run) == []


def test_folds_that_were_trained_by_stay_unless_they_mix_people(tmp_path, goals):
    from_profile("smoke").model_copy(update={"data": DataSettings(dir=str(goals)), "splits": SplitSettings(folds=2)},
                                     ).save(tmp_path / "settings.json")
    names = [f"{n:04d}" for n in range(1, 7)]
    old = [{"train": names[3:], "validation": names[:3]}, {"train": names[:3], "validation": names[3:]}]
    write_json(tmp_path / "splits.json", old)
    (tmp_path / "models/2d/fold_0").mkdir(parents=True)
    assert split_run(Run(tmp_path)) == old == read_json(tmp_path / "splits.json")
    (goals / "groups.csv").write_text("ImgName,person,eye\n0003,a,\n0004,a,\n")
    assert split_run(Run(tmp_path)) != old
