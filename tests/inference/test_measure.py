"""What is measured of a run's predictions, and that what belongs to other data does not stay."""

import shutil

import pytest
from helpers import make_run, smoke, write_goals, write_volumes

from octkit.common import settings
from octkit.common.files import read_json
from octkit.inference import measure
from octkit.planning.run import Run
from octkit.training import train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("measure")
    run = Run(make_run(folder / "run", write_goals(folder / "goals"), "train.folds=[0,1]", "train.epochs=1"))
    for fold in (0, 1):
        train.train_fold(run, fold=fold, progress=False)
    return run


def test_every_training_case_was_held_out_by_one_fold(run):
    found = measure.held_out(run)
    assert sorted(found) == [case.name for case in run.dataset.train]
    assert all(name in run.splits[fold]["validation"] for name, fold in found.items())


def test_the_price_of_mirroring_is_that_of_the_same_scans_with_and_without(run):
    prices = measure.mirroring_price(run)
    assert read_json(run.mirroring_file) == prices
    plain, mirrored = prices["plain"], prices["mirrored"]
    assert plain["dice_by_scan"].keys() == mirrored["dice_by_scan"].keys() == measure.held_out(run).keys()
    assert plain["dice"] == pytest.approx(sum(plain["dice_by_scan"].values()) / 6)
    assert plain["seconds"] > 0 and plain["dice_by_scan"] != mirrored["dice_by_scan"]


def test_a_run_that_holds_nothing_out_has_no_price(run, tmp_path):
    everything = Run(tmp_path)
    settings.with_overrides(run.settings, ['train.folds=["all"]']).save(everything.settings_file)
    everything.mirroring_file.write_text("{}")
    assert measure.held_out(everything) == measure.mirroring_price(everything) == {}
    assert not everything.mirroring_file.exists()


@pytest.mark.parametrize(("write", "truth"), [(write_goals, "Truth/Layer_Masks"), (write_volumes, "Truth/Mask")])
def test_validation_masks_are_scored_where_there_is_truth(tmp_path, write, truth):
    run = Run(tmp_path / "run")
    data = write(tmp_path / "data")
    smoke(f"data.dir={data}").save(run.settings_file)
    shutil.copytree(data / truth, run.predictions("validation"))
    scores = measure.score_validation(run)
    assert read_json(run.scores_file) == scores
    assert scores["cases"].keys() == {case.name for case in run.dataset.validation}
    assert scores["mean"]["dice"] == 1
    assert scores["spacing_mm"] == ([0.12, 0.004, 0.015] if write is write_volumes else None)
    shutil.rmtree(data / "Truth")
    assert measure.score_validation(Run(run.folder)) is None and not run.scores_file.exists()
