"""The scores of a run's classifier; the training itself is tested beside `resnet50`."""

import shutil

import pytest
from helpers import smoke

from octkit.classification import measure, resnet50
from octkit.common import settings
from octkit.common.files import read_json, write_json
from octkit.evaluation.metrics import classification_scores
from octkit.planning.run import Run


def leave(folder, probabilities=(0.9, 0.2)):
    """What a training leaves: scores of two held-out scans, predictions for 0007 (glaucoma) and 0008 (healthy)."""
    write_json(folder / "metrics.json", classification_scores([0, 1], [0.4, 0.3]))
    rows = [f"{name}.png,{p}" for name, p in zip(("0007", "0008"), probabilities, strict=True)]
    (folder / "predictions.csv").write_text("\n".join(["ImgName,GC_Pred", *rows]) + "\n")


@pytest.fixture
def run(goals, tmp_path):
    run = Run(tmp_path / "run")
    chosen = smoke(f"data.dir={goals}", "classify.compare_fractions=[0.8,0.5]", "classify.compare_seeds=2")
    chosen.save(run.settings_file)
    leave(run.classifier)
    return run


def test_validation_scans_are_scored_where_there_is_truth(run, goals):
    found = measure.score_classifier(run)
    assert {where: scores["auc"] for where, scores in found.items()} == {"held-out training scans": 0,
                                                                          "validation scans": 1}
    file = run.classifier / "validation_metrics.json"
    assert read_json(file) == found["validation scans"]
    shutil.rmtree(goals / "Truth")
    assert measure.score_classifier(Run(run.folder)).keys() == {"held-out training scans"} and not file.exists()


def test_each_share_is_tried_with_each_seed(run, goals, monkeypatch):
    tried = []

    def train(_dataset, chosen, place):
        tried.append((chosen.classify.train_fraction, chosen.seed - run.settings.seed))
        leave(place, (0.9, 0.2) if tried[-1][1] else (0.2, 0.9))

    monkeypatch.setattr(resnet50, "train", train)
    compared = measure.compare_fractions(run)
    assert tried == [(0.8, 0), (0.8, 1), (0.5, 0), (0.5, 1)]
    assert compared == {"80% to train on": [0, 1], "50% to train on": [0, 1]}
    assert read_json(run.classifier / "comparison.json") == compared
    shutil.rmtree(goals / "Truth")
    assert measure.compare_fractions(Run(run.folder))["80% to train on"] == [0, 0]  # each trial's held-out scans


def test_without_anything_to_compare_no_old_comparison_stays(run):
    settings.with_overrides(run.settings, ["classify.compare_fractions=[]"]).save(run.settings_file)
    write_json(run.classifier / "comparison.json", {})
    assert measure.compare_fractions(run) == {} and not (run.classifier / "comparison.json").exists()
