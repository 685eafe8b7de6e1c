"""Glaucoma in a run, without any training: networks' outputs and predicted layers are written by hand."""

import csv

import numpy as np
import pytest
from helpers import smoke

from octkit.classification import measure, resnet50, thickness_model
from octkit.common import settings
from octkit.common.errors import OctkitError
from octkit.common.files import read_json, write_csv, write_json
from octkit.data.layouts.goals import true_diagnoses
from octkit.evaluation.evaluate import read_predictions
from octkit.evaluation.records import Answers
from octkit.layers.scan_files import write_boundaries
from octkit.phantoms.data_sets import make_data_set
from octkit.planning.folds import keeps_together, make_splits
from octkit.planning.run import Run
from octkit.planning.selection import Selection

SIZE = 64, 64


def drawn(random, ill):
    """Five boundaries (5, W) of a scan; glaucoma takes 5 of 13 rows of the RNFL."""
    thick = 13 - 5 * ill + random.normal(0, 1)
    return np.repeat(np.cumsum([6, thick, 6, 6, 8])[:, None], SIZE[1], axis=1) + random.normal(0, 0.1, (5, SIZE[1]))


def leave_network(folder, odds):
    """What a training leaves of outputs: split -> scan -> log odds."""
    write_csv(folder / "outputs.csv", resnet50.OUTPUTS,
              [(split, name, value) for split, its in odds.items() for name, value in its.items()])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "phantom"
    make_data_set(folder, (54, 27, 0), SIZE, seed=2)
    return folder


@pytest.fixture
def run(data, tmp_path):
    """A run of two of three folds, whose networks say nothing and whose layers tell all."""
    run = Run(tmp_path / "run")
    smoke(f"data.dir={data}", "splits.folds=3", "train.folds=[0,1]").save(run.settings_file)
    write_json(run.splits_file, make_splits(run.dataset.train, 3))
    Selection(configuration="2d", configurations=("2d",), why="", steps=(), circle=True, surfaces=True).save(
        run.selection_file)
    random, truth = np.random.default_rng(0), true_diagnoses(run.dataset)
    for case in run.dataset.validation:
        boundaries = drawn(random, truth[case.name])
        write_boundaries(run.predictions("validation") / f"{case.name}.boundaries.csv", boundaries, 0 * boundaries)
    cases = {case.name: case for case in run.dataset.train}
    rows = np.arange(SIZE[0])[:, None] + 0.5
    for name, fold in run.held_out.items():
        region = (rows > drawn(random, cases[name].glaucoma)[:, None]).sum(axis=0)
        label = np.array([0, 1, 2, 0, 3, 0])[region]
        place = run.cross_validation("2d", fold)
        place.mkdir(parents=True, exist_ok=True)
        np.savez(place / f"{name}.npz", probabilities=np.stack([label == n for n in range(4)]).astype(np.float16))
    for fold in (0, 1):
        leave_network(run.classifier / f"fold_{fold}", {
            "held out": {name: random.normal() for name, its in run.held_out.items() if its == fold},
            "validation": {case.name: random.normal() for case in run.dataset.validation}})
    return run


def test_three_answers_are_scored_and_the_chosen_one_is_what_is_submitted(run):
    found = measure.answer(run)
    kept = Answers.load(run.classifier / "answers.json")
    assert kept.chosen == found["chosen"] == "thickness" and kept.lacking is None
    assert kept.scores.keys() == {"cross-validation", "validation scans"}
    for answers in kept.scores.values():
        assert answers["thickness"].auc.mean > 0.9 > 0.75 > answers["resnet50"].auc.mean
        assert answers["both"].auc.mean > 0.9
    assert kept.learned_from["scans"] == len(run.held_out) < kept.learned_from["of"] == 54
    assert kept.behind["resnet50"]["mean"] > 0.2 and kept.behind["thickness"]["mean"] == 0
    with open(run.classifier / "probabilities.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["scan"] for row in rows if row["split"] == "held out"} == run.held_out.keys()
    submitted = read_predictions(run.classifier / "predictions.csv")
    assert submitted == {f"{row['scan']}.png": float(row["thickness"]) for row in rows if row["split"] == "validation"}
    # The same answers can be asked about other scans.
    scans = measure.split_evidence(run, "validation", run.dataset.validation)
    told = measure.fitted_answers(Run(run.folder)).ask(scans).probabilities["thickness"]
    assert told == pytest.approx([submitted[f"{name}.png"] for name in scans.names], abs=1e-6)


def test_without_predicted_layers_the_network_alone_answers_and_says_why(run):
    run.selection_file.unlink()
    found = measure.answer(run)
    assert found["chosen"] == "resnet50" and "selection.json" in found["lacking"]
    assert [list(answers) for answers in found["scores"].values()] == [["resnet50"]] * 2


def test_a_lost_prediction_is_named(run):
    name, fold = next(iter(run.held_out.items()))
    path = run.cross_validation("2d", fold) / f"{name}.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(OctkitError, match=f"{name}.npz.*--fold {fold}"):
        measure.answer(run)


def test_a_part_of_a_scan_that_shows_nothing_is_not_measured(run, monkeypatch):
    case = next(case for case in run.dataset.train if case.name in run.held_out)
    signal = np.arange(SIZE[1]) >= 8
    monkeypatch.setattr(thickness_model, "has_signal", lambda _: signal)
    [found] = thickness_model.held_out_profiles(run, [case])
    assert np.isnan(found["rnfl"][:4]).all() and np.isfinite(found["rnfl"][16:-8]).all()


@pytest.mark.parametrize("nested", [False, True])
def test_a_network_a_fold_is_trained_without_what_the_fold_held_out(run, monkeypatch, nested):
    settings.with_overrides(run.settings, [f"classify.nested={str(nested).lower()}"]).save(run.settings_file)
    trained = {}
    monkeypatch.setattr(resnet50, "train", lambda _data, _chosen, place, split: trained.update({place.name: split}))
    measure.train_networks(run)
    assert list(trained) == ["fold_0", "fold_1"] + ["without_0_1"] * nested
    for place, split in trained.items():
        without = [int(fold) for fold in place.split("_")[1:]]
        assert set(split["validation"]) == {name for fold in without for name in run.splits[fold]["validation"]}
    assert keeps_together(list(trained.values()), run.dataset.train)


def test_nested_networks_answer_for_the_scans_that_answers_are_fitted_on(run):
    settings.with_overrides(run.settings, ["classify.nested=true"]).save(run.settings_file)
    leave_network(run.classifier / "without_0_1", {"held out": dict.fromkeys(run.held_out, 7.0)})
    known = measure.held_out_evidence(run)
    for fold in (0, 1):
        assert (known.nested[fold][known.folds != fold] == 7).all()
        assert np.array_equal(known.nested[fold][known.folds == fold], known.logits[known.folds == fold])


def test_each_share_is_tried_with_each_seed(run, monkeypatch):
    settings.with_overrides(run.settings, ["classify.compare_fractions=[0.8,0.5]", "classify.compare_seeds=2"]).save(
        run.settings_file)
    tried, truth = [], true_diagnoses(run.dataset)

    def train(_dataset, chosen, place, split):
        assert split is None  # drawn by the share
        tried.append((chosen.classify.train_fraction, chosen.seed - run.settings.seed))
        sign = 1 if tried[-1][1] else -1
        leave_network(place, {"held out": {}, "validation": {case.name: sign * truth[case.name]
                                                             for case in run.dataset.validation}})

    monkeypatch.setattr(resnet50, "train", train)
    compared = measure.compare_fractions(run)
    assert tried == [(0.8, 0), (0.8, 1), (0.5, 0), (0.5, 1)]
    assert compared == {"80% to train on": [0, 1], "50% to train on": [0, 1]}
    assert read_json(run.classifier / "comparison.json") == compared
    settings.with_overrides(run.settings, ["classify.compare_fractions=[]"]).save(run.settings_file)
    assert measure.compare_fractions(run) == {} and not (run.classifier / "comparison.json").exists()
