import json

import numpy as np
import onnxruntime
import pytest
import torch

from octkit.common.errors import OctkitError
from octkit.exchange.onnx import NORMALISATIONS, export_onnx
from octkit.inference.sliding_window import Predictor
from octkit.network.model import Member, Model, build_network
from octkit.planning.plan import NORMALISATIONS as KNOWN
from octkit.planning.plan import Configuration, Plan
from octkit.planning.preprocess import preprocess

RECORD = {"mean": 120.0, "std": 45.0, "median": 118.0, "min": 0.0, "max": 255.0, "percentile_00_5": 12.0,
          "percentile_99_5": 240.0}
LABELS = ("rnfl", "gcipl", "choroid")


def model(patch=(32, 48), folds=("0",), previous=None, blocks=(), **changes) -> Model:
    axes = len(patch)
    strides = ((1,) * axes, (2,) * axes, (1,) * (axes - 1) + (2,))
    configuration = Configuration(patch, 2, (1.0,) * axes, patch, (6, 9, 12), strides, ((3,) * axes,) * 3, True,
                                  previous, blocks)
    name = "2d" if axes == 2 else "3d_fullres"
    plan = Plan({name: configuration}, ("OCT",), LABELS, (RECORD,), "px", (0, 1, 2) if axes == 3 else ())
    weights = {}
    for fold in folds:
        torch.manual_seed(ord(fold))
        weights[fold] = build_network(plan, name, True).state_dict()
    return Model(plan, (Member(name, weights),), LABELS, False, (-1,), 0.5, "float32", **changes)


def answer(path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"image": images})[0]


@pytest.mark.parametrize("changes", [{}, {"folds": ("0", "1")}, {"folds": ("0", "1"), "blend": "logits"},
                                     {"patch": (4, 16, 24)}, {"blocks": (1, 2, 1)}])
def test_onnxruntime_gives_the_same_masks(tmp_path, changes):
    whole = model(**changes)
    [member] = whole.members
    scan = np.random.default_rng(0).uniform(1, 255, (1, *whole.plan.configurations[member.config].patch_size))
    scan = scan.astype(np.float32)
    export_onnx(whole, tmp_path / "model.onnx")
    prepared = preprocess(scan, None, whole.plan, member.config)[0]
    found = answer(tmp_path / "model.onnx", prepared[None])[0]
    expected = Predictor(whole)(scan)
    # Scores of nnU-Net's models go through half precision on the way, which leaves few digits in a window's corners.
    np.testing.assert_allclose(found, expected, atol=1e-2 if whole.blend == "logits" else 1e-4)
    second, first = np.sort(expected, axis=0)[-2:]
    clear = first - second > 2e-2
    assert clear.mean() > 0.7
    np.testing.assert_array_equal(found.argmax(0)[clear], expected.argmax(0)[clear])


def test_batches_are_as_large_as_the_user_likes(tmp_path):
    export_onnx(model(), tmp_path / "model.onnx")
    images = np.random.default_rng(0).normal(size=(3, 1, 32, 48)).astype(np.float32)
    together = answer(tmp_path / "model.onnx", images)
    assert together.shape == (3, 4, 32, 48)
    np.testing.assert_allclose(together[2], answer(tmp_path / "model.onnx", images[2:])[0], atol=1e-6)
    np.testing.assert_allclose(together.sum(1), 1, atol=1e-5)


def test_the_metadata_are_enough_to_prepare_a_scan(tmp_path):
    whole = model()
    export_onnx(whole, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    facts = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    assert facts["labels"] == ["background", *LABELS] and facts["window"] == [32, 48] and facts["units"] == "px"
    scan = np.random.default_rng(1).uniform(1, 255, (1, 32, 48)).astype(np.float32)
    [record] = facts["intensity"]
    by_hand = (scan.clip(record["percentile_00_5"], record["percentile_99_5"]) - record["mean"]) / record["std"]
    np.testing.assert_allclose(by_hand, preprocess(scan, None, whole.plan, "2d")[0], atol=1e-6)
    assert "clip to intensity's percentile_00_5" in facts["preprocessing"]


def test_every_normalisation_has_its_words():
    assert set(NORMALISATIONS) == set(KNOWN)


def test_the_same_model_makes_the_same_bytes(tmp_path):
    for name in "ab":
        export_onnx(model(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_pairs_and_cascades_are_refused(tmp_path):
    whole = model()
    [member] = whole.members
    pair = Model(whole.plan, (member, member), LABELS, False, (-1,), 0.5, "float32")
    with pytest.raises(OctkitError, match="a model of 2d and 2d, expected one configuration alone"):
        export_onnx(pair, tmp_path / "model.onnx")
    cascade = Model(whole.plan, (Member("2d", member.weights, member),), LABELS, False, (-1,), 0.5, "float32")
    with pytest.raises(OctkitError, match="expected one configuration alone"):
        export_onnx(cascade, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
