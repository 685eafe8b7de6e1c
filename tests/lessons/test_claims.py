"""Verdicts by hand, and every kind of claim on the smallest trainings."""

import csv
import math
import re

import numpy as np
import pytest
from helpers import make_run

from octkit.common.errors import OctkitError
from octkit.common.files import read_json, write_csv, write_json
from octkit.evaluation.intervals import Interval
from octkit.inference import measure
from octkit.lessons import claims
from octkit.lessons.claims import Trials, Way, decide
from octkit.network import model
from octkit.phantoms.data_sets import make_data_set
from octkit.planning import steps
from octkit.planning.run import Run
from octkit.training.train import train_fold

TINY = ("plan.base_features=2", "plan.max_features=4", "train.epochs=1", "train.iterations_per_epoch=1",
        "train.folds=[0,1]", "splits.folds=2")


@pytest.mark.parametrize(("low", "high", "seeds", "verdict"), [
    (0.001, 0.004, (), "supported"), (0.001, 0.004, (0.001, 0.003), "supported"),
    (0.001, 0.004, (0.006, -0.001), "undecided"),  # another seed turns it round
    (-0.001, 0.004, (0.001, 0.002), "undecided"), (0.0, 0.004, (), "undecided"),
    (-0.004, -0.001, (-0.002,), "not supported"), (-0.004, -0.001, (-0.009, 0.001), "undecided"),
    (math.nan, math.nan, (0.1,), "undecided"), (0.001, 0.004, (math.nan,), "undecided")])
def test_verdicts_by_hand(low, high, seeds, verdict):
    assert decide(Interval(0.0025, low, high, 20), seeds) == verdict
    assert decide(Interval(0.0025, low, high, 5), seeds) == "undecided"  # people


@pytest.fixture
def run(goals, tmp_path):
    return Run(make_run(tmp_path / "run", goals, *TINY, "claims.seeds=2"))


def test_a_gain_is_paired_scan_by_scan_and_has_each_seeds_mean(run, monkeypatch):
    """B gains 0.01 and 0.03 on two scans of seed 0, 0.02 and 0.04 of seed 1: 0.025, though scans differ by 0.5."""
    first, second = (case.name for case in run.dataset.validation)
    table = {("a", 0): (0.4, 0.9), ("b", 0): (0.41, 0.93), ("a", 1): (0.3, 0.8), ("b", 1): (0.32, 0.84)}

    def judged(way, seed):
        return {first: {"dice": table[way.candidate, seed][0]}, second: {"dice": table[way.candidate, seed][1]}}

    trials = Trials(run, None, None)
    monkeypatch.setattr(trials, "judged", judged)
    gain, by_seed = trials.gain([Way("b")], [Way("a")])
    assert gain.mean == pytest.approx(0.025) and gain.n == 2 and by_seed == pytest.approx((0.02, 0.03))
    assert 0.015 - 1e-9 <= gain.low < gain.high <= 0.035 + 1e-9
    halved, _ = trials.gain([Way("b")], [Way("a"), Way("b")])  # against the mean of both: half of it
    assert halved.mean == pytest.approx(0.0125)


def test_lengths_are_halves_and_twice_and_stand_once():
    assert claims.lengths(50) == [12, 25, 50, 100] and claims.lengths(1) == [1, 2]


def test_candidates_differ_in_one_thing(run):
    assert Trials(run, None, None).candidates == {
        "base": {}, "adam": {"train": claims.ADAM}, "epochs-2": {"train": {"epochs": 2}}}


def test_8_to_2_against_7_to_3_on_common_scans(run, tmp_path):
    """At 7:3 one seed ranks rightly and one, the surer, wrongly: 0.5 in the mean. 8:2 ranks all scans rightly."""
    names = [case.name for case in run.dataset.validation]
    for share, seed, log_odds in ((0.8, 0, (1, -1)), (0.8, 1, (3, -2)), (0.7, 0, (1, -1)), (0.7, 1, (-3, 3))):
        write_csv(run.classifier / f"comparison/{share}_{seed}/outputs.csv", ("split", "scan", "log_odds"),
                  [("held out", "0001", 5.0), *(("validation", *row) for row in zip(names, log_odds, strict=True))])
    found = claims._fractions(run)  # of the two validation scans the first has glaucoma
    assert found.gain.mean == pytest.approx(0.5) and found.by_seed == pytest.approx((0, 1))
    assert claims._fractions(Run(make_run(tmp_path / "other", run.settings.data.root, *TINY))).verdict == "not tested"


@pytest.mark.parametrize(("auc", "verdict"), [
    ((0.93, 0.88, 0.97), "not supported"), ((0.985, 0.96, 0.998), "undecided"), ((0.997, 0.992, 0.999), "supported")])
def test_the_baseline_against_full_marks(run, auc, verdict):
    estimate = dict(zip(("mean", "low", "high"), auc, strict=True))
    write_json(run.classifier / "answers.json", {
        "chosen": "resnet50", "why": "", "lacking": None, "specificity": 0.95, "learned_from": {}, "behind": {},
        "scores": {"validation scans": {"resnet50": {
            "scans": 40, "people": 9, "auc": estimate, "sensitivity": estimate, "specificity": estimate, "f1": None,
            "brier": 0.1, "brier_raw": None}}}})
    found = claims._baseline(run)
    assert found.verdict == verdict and found.gain.n == 9 and found.gain.mean == pytest.approx(auc[0] - 0.99)


def test_a_run_without_candidates_names_the_command(run, tmp_path):
    cheap = Run(make_run(tmp_path / "cheap", run.settings.data.root, *TINY))
    write_json(cheap.mirroring_file, {
        "plain": {"seconds": 1.0, "dice": 0.9, "dice_by_scan": {"0001": 0.90, "0002": 0.80, "0003": 0.7}},
        "mirrored": {"seconds": 4.0, "dice": 0.92, "dice_by_scan": {"0001": 0.93, "0002": 0.82, "0003": 0.71}}})
    mirroring, *others = Trials(cheap, None, None).findings()
    assert mirroring.verdict == "undecided" and mirroring.gain.mean == pytest.approx(0.02) and "4.0" in mirroring.note
    assert {one.verdict for one in others} == {"not tested"}
    assert all(claims.COMMAND in one.note for one in others)
    assert not list(tmp_path.glob("cheap-*")) and not (cheap.folder / "models").exists()
    assert [one["verdict"] for one in read_json(cheap.claims_file)["findings"]] == [
        "undecided", *["not tested"] * len(others)]


def test_a_damaged_log_is_named(run, monkeypatch):
    trials = claims.Trials(run, None, None)
    monkeypatch.setattr(trials, "candidate", lambda *_: run)
    log = run.fold(claims.CONFIG, 0) / "log.csv"
    log.parent.mkdir(parents=True)
    log.write_text("epoch,seconds\n1,60\n2,60\n")
    assert trials.minutes() == {"run": 2}
    log.write_bytes(b"")
    with pytest.raises(OctkitError) as error:
        trials.minutes()
    assert error.value.file == log and error.value.mend


def test_all_claims_on_the_smallest_trainings_and_again_without_training(tmp_path):
    make_data_set(tmp_path / "data", (4, 2, 0), (64, 96), repeated=False)
    run = Run(make_run(tmp_path / "run", tmp_path / "data", *TINY, "claims.seeds=1", "claims.extra_scans=2",
                       'data.phantom={"train": 4, "validation": 2, "size": [64, 96]}'))
    found = Trials(run, train_fold, measure.scan_scores).findings()
    assert [one.claim for one in found if one.tested] == [
        "mirroring gains accuracy", "mirroring costs time", "`all` beats the mean of its folds",
        "`all` beats its folds averaged together", "Adam with the plateau rule beats SGD",
        "twice as many epochs beat this run's", "extra data helps"]
    assert {path.name for path in tmp_path.glob("run-*")} == {"run-adam-0", "run-epochs-2-0", "run-extra-0"}
    extra = Run(tmp_path / "run-extra-0")
    assert len(extra.training_data.extra) == 2 and extra.plan.configurations == run.plan.configurations
    written = read_json(run.claims_file)
    assert (written["people"], list(written["curve"]), written["seeds"]) == (2, ["1", "2"], 1)
    assert written["minutes"].keys() == {"run", "run-adam-0", "run-epochs-2-0", "run-extra-0"}
    with open(run.claims_file.with_suffix(".csv"), newline="", encoding="utf-8") as file:
        assert [row["verdict"] for row in csv.DictReader(file)] == [one.verdict for one in found]

    again = Trials(run, train_fold, None)  # nothing is predicted again: the networks are the same
    assert [one.gain for one in again.findings()] == [one.gain for one in found]
    extra.plan_file.write_text(re.sub(r'("batch_size": {\s*"value": )\d+', r"\g<1>7", extra.plan_file.read_text()))
    with pytest.raises(OctkitError, match="another network"):
        again.judged(Way("extra"))


def test_fold_all_beside_others_makes_the_final_masks_alone(goals, tmp_path, monkeypatch):
    """As in profile report: fold 0 holds scans out to decide by, and takes no part in what is submitted."""
    run = Run(make_run(tmp_path / "run", goals, *TINY[:4], 'train.folds=[0,"all"]', "splits.folds=2"))
    steps.split_run(run)
    monkeypatch.setattr(model, "finished_weights", lambda _run, _config, fold: {"fold": np.array(fold == "all")})
    assert run.held_out.keys() == set(run.splits[0]["validation"])
    assert list(model.load_model(run, ["2d"]).members[0].weights) == ["all"]
    assert list(model.load_model(run, ["2d"], [0]).members[0].weights) == ["0"]
