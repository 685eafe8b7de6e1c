"""What is measured of a run's predictions, and that what belongs to other data does not stay."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import smoke, write_goals, write_volumes

from octkit.common.files import read_json, write_json
from octkit.inference import measure
from octkit.planning.folds import make_splits
from octkit.planning.run import Run


@pytest.fixture
def run(goals, tmp_path):
    run = Run(tmp_path / "run")
    smoke(f"data.dir={goals}", "train.folds=[0,1]").save(run.settings_file)
    write_json(run.splits_file, make_splits(run.dataset.train, folds=2))
    return run


def test_every_training_case_was_held_out_by_one_fold(run):
    found = run.held_out
    assert sorted(found) == [case.name for case in run.dataset.train]
    assert all(name in run.splits[fold]["validation"] for name, fold in found.items())


def test_the_price_of_mirroring_is_that_of_the_same_held_out_scans(run, monkeypatch):
    truths = {run.dataset.read_image(case).tobytes(): (case.name, run.dataset.read_mask(case))
              for case in run.dataset.train}

    class Predictor:
        """Right about scans that its fold held out where it mirrors; it sees nothing else."""

        @classmethod
        def load(cls, _model, _device, mirror, folds):
            predictor = cls()
            predictor.mirror, predictor.folds = mirror, folds
            return predictor

        def __call__(self, image, _spacing, _circle):
            name, truth = truths[image.tobytes()]
            right = self.mirror and self.folds == [run.held_out[name]]
            return np.stack([(truth if right else 0 * truth) == label for label in range(4)]).astype(np.float32)

    monkeypatch.setattr(measure, "Predictor", Predictor)
    prices = measure.mirroring_price(run)
    assert read_json(run.mirroring_file) == prices
    assert {name: found["dice"] for name, found in prices.items()} == {"plain": 0, "mirrored": 1}
    assert all(found["dice_by_scan"].keys() == run.held_out.keys() for found in prices.values())


@pytest.mark.parametrize("busy_until", [0, 1, 9, 18, 36])
def test_a_machine_that_is_busy_for_a_while_does_not_make_mirroring_faster(run, monkeypatch, busy_until):
    """Mirroring takes twice as long; the first `busy_until` of 36 predictions take twenty times as long."""
    clock, calls = [0.0], []

    class Predictor:
        def __init__(self, mirror):
            self.passes = 1 + mirror

        @classmethod
        def load(cls, *_, mirror, folds):  # noqa: ARG003
            return cls(mirror)

        def __call__(self, image, *_):
            calls.append(self.passes)
            clock[0] += self.passes * (20 if len(calls) <= busy_until else 1)
            return np.ones((4, *image.shape[1:]), np.float32)

    monkeypatch.setattr(measure, "Predictor", Predictor)
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    prices = measure.mirroring_price(run)
    assert len(calls) == 36
    assert prices["mirrored"]["seconds"] == 2 * prices["plain"]["seconds"]


def test_a_run_that_holds_nothing_out_has_no_price(run):
    smoke(f"data.dir={run.settings.data.dir}", 'train.folds=["all"]').save(run.settings_file)
    run.mirroring_file.write_text("{}")
    assert run.held_out == measure.mirroring_price(run) == {}
    assert not run.mirroring_file.exists()


@pytest.mark.parametrize(("write", "truth", "spacing"), [(write_goals, "Truth/Layer_Masks", None),
                                                         (write_volumes, "Truth/Mask", [0.12, 0.004, 0.015])])
def test_validation_masks_are_scored_where_there_is_truth(tmp_path, write, truth, spacing):
    run, data = Run(tmp_path / "run"), write(tmp_path / "data")
    smoke(f"data.dir={data}").save(run.settings_file)
    shutil.copytree(data / truth, run.predictions("validation"))
    scores = measure.score_validation(run)
    assert read_json(run.scores_file) == scores
    assert scores["cases"].keys() == {case.name for case in run.dataset.validation}
    assert scores["people"] == len(scores["cases"]) and scores["by_group"]["rnfl"]["nsd"]["mean"] == 1
    assert scores["mean"]["dice"] == 1 and scores["spacing_mm"] == (spacing and pytest.approx(spacing))
    shutil.rmtree(data / "Truth")
    assert measure.score_validation(Run(run.folder)) is None and not run.scores_file.exists()
