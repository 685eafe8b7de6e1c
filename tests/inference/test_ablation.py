import numpy as np
import pytest
import torch
from helpers import to_16_bits
from PIL import Image

from octkit.data.image_files import write_mask
from octkit.data.labels import LAYERS
from octkit.inference import ablation
from octkit.network.model import Member, Model, build_network
from octkit.planning.plan import Configuration, Plan

SMALL = Configuration((32, 32), 2, (1.0, 1.0), (32.0, 32.0), (4, 6), ((1, 1), (2, 2)), ((3, 3), (3, 3)), True)
RECORD = {"mean": 120.0, "std": 45.0, "percentile_00_5": 12.0, "percentile_99_5": 240.0}


def model(seed: int) -> Model:
    plan = Plan({"2d": SMALL}, ("OCT",), LAYERS, (RECORD,), "px")
    torch.manual_seed(seed)
    weights = build_network(plan, "2d", False).state_dict()
    return Model(plan, (Member("2d", {"all": weights}),), LAYERS, True, (-1,), 0.5, "float32", ((1,),), True, True)


@pytest.fixture
def scan():
    truth = np.zeros((32, 40), np.uint8)
    truth[8:12] = 1
    return ablation.Scan("x", np.random.default_rng(0).uniform(1, 255, (1, 32, 40)).astype(np.float32), truth)


def test_each_step_has_one_measure_more(scan):
    predictors = ablation.steps(model(0), model(1))
    assert tuple(predictors) == ablation.MEASURES
    assert [predictor.model.surfaces for predictor in predictors.values()] == [False, False, True, True]
    assert [predictor.mirror for predictor in predictors.values()] == [False, False, False, True]
    first, second = (predictors[name].configs[0].networks[0].state_dict() for name in ablation.MEASURES[:2])
    assert not torch.equal(first["scores.0.weight"], second["scores.0.weight"])
    found = {step: result.mask for step, result in ablation.results(predictors, scan).items()}
    assert all(mask.shape == (32, 40) for mask in found.values())
    rows = ablation.scores(found, scan, LAYERS)
    broken = {row["step"]: row["broken"] for row in rows}
    assert broken["+ surfaces"] == broken["+ mirroring"] == 0 and broken["plain"] > 0.5


def test_annotated_scans_are_paired_by_name_in_any_format(scan, tmp_path):
    pixels = np.rint(scan.image[0]).astype(np.uint8)
    for folder in ("images", "masks_goals"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        Image.fromarray(to_16_bits(pixels)).save(tmp_path / "images" / f"{name}.tif")
    write_mask(tmp_path / "masks_goals/b.png", scan.truth, {255: 0, 0: 1})
    first, second = ablation.annotated_scans(tmp_path)
    assert (first.name, second.name) == ("a", "b") and first.truth is None
    np.testing.assert_array_equal(second.image, pixels[None])
    np.testing.assert_array_equal(second.truth, scan.truth)


def test_layers_that_are_not_annotated_are_not_scored(scan):
    rows = ablation.scores({"plain": scan.truth}, scan, LAYERS)
    assert rows == [{"scan": "x", "step": "plain", "broken": 1.0, "rnfl": 1.0, "gcipl": None, "choroid": None}]


def test_spread_and_gains_by_hand():
    rows = [{"scan": "a", "step": "s", "broken": 0.5, "rnfl": 0.8, "gcipl": None},
            {"scan": "b", "step": "s", "broken": 0.0, "rnfl": 0.6, "gcipl": None},
            {"scan": "a", "step": "t", "broken": 0.0, "rnfl": 0.9, "gcipl": None},
            {"scan": "b", "step": "t", "broken": 0.0, "rnfl": 0.9, "gcipl": 0.5}]
    nothing = {"mean": None, "sd": None, "n": 0}
    found = ablation.table(rows, ("rnfl", "gcipl"))
    assert found["s"] == {"rnfl": {"mean": pytest.approx(0.7), "sd": pytest.approx(0.02 ** 0.5), "n": 2},
                          "gcipl": nothing, "broken": {"mean": 0.25, "sd": pytest.approx(0.125 ** 0.5), "n": 2}}
    assert found["t"]["gcipl"] == {"mean": 0.5, "sd": None, "n": 1}
    assert ablation.gains(rows, ("rnfl", "gcipl")) == {
        "t": {"rnfl": {"mean": pytest.approx(0.2), "sd": pytest.approx(0.02 ** 0.5), "n": 2}, "gcipl": nothing,
              "broken": {"mean": -0.25, "sd": pytest.approx(0.125 ** 0.5), "n": 2}}}
