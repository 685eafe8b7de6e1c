import dataclasses
import json

import numpy as np
import pytest
import torch
from conftest import write_goals
from PIL import Image
from test_train import make_run

from octkit import ensemble, infer, layouts, train
from octkit.files import OctkitError, read_json
from octkit.images import read_mask
from octkit.infer import Predictor, gaussian_weights, predict_folder, window_starts
from octkit.models import load_model


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("infer")
    run = make_run(folder / "run", write_goals(folder / "goals"), "train.folds=[0,1]", "train.epochs=3",
                   "train.iterations_per_epoch=20", "train.initial_rate=0.05", "plan.base_features=8",
                   "plan.max_features=16")
    for fold in (0, 1):
        train.train_fold(run, fold=fold, progress=False)
    return run


@pytest.fixture
def image():
    return np.random.default_rng(0).uniform(1, 255, (1, 70, 90)).astype(np.float32)


@pytest.mark.parametrize(("length", "window", "step", "expected"), [
    (10, 6, 0.5, [0, 2, 4]), (6, 6, 0.5, [0]), (5, 6, 0.5, [0]), (12, 6, 0.5, [0, 3, 6]), (7, 6, 0.5, [0, 1]),
    (12, 6, 1, [0, 6])])
def test_window_starts(length, window, step, expected):
    assert window_starts(length, window, step) == expected


def test_gaussian_weights_by_hand():
    weights = gaussian_weights((8,))
    # centre at 3.5, deviation 1: pixel 0 is 3.5 off, the innermost 0.5
    np.testing.assert_allclose(weights[0] / weights[3], np.exp(-(3.5**2 - 0.5**2) / 2), rtol=1e-5)
    np.testing.assert_allclose(weights, weights[::-1])
    assert gaussian_weights((8, 6)).shape == (8, 6) and weights.max() == 1


@pytest.mark.parametrize("shape", [(40, 48), (70, 90), (17, 21), (33, 200)])
def test_probabilities_on_any_size(run, shape):
    image = np.random.default_rng(1).uniform(1, 255, (1, *shape)).astype(np.float32)
    probabilities = Predictor.load(run)(image)
    assert probabilities.shape == (4, *shape) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)


def test_mirroring_makes_the_prediction_of_a_mirrored_scan_the_mirrored_prediction(run, image):
    predictor = Predictor.load(run, mirror=True)
    # the window's grid is mirrored too only where its steps are even: one window wide
    image = image[:, :40, :48]
    np.testing.assert_allclose(predictor(image[..., ::-1].copy()), predictor(image)[..., ::-1], atol=1e-5)
    plain = Predictor.load(run, mirror=False)
    assert not np.allclose(plain(image[..., ::-1].copy()), plain(image)[..., ::-1], atol=1e-3)


def test_folds_are_averaged(run, image):
    both = Predictor.load(run)(image)
    single = [Predictor.load(run, folds=[fold])(image) for fold in (0, 1)]
    np.testing.assert_allclose(both, (single[0] + single[1]) / 2, atol=1e-5)
    assert not np.allclose(single[0], single[1], atol=1e-3)


def test_one_window_is_the_network_itself(run, image):
    predictor = Predictor.load(run, folds=[0], mirror=False)
    patch = predictor.configuration.patch_size
    scan = image[:, :patch[0], :patch[1]]
    normalised = predictor.model.plan.intensity[0]
    clipped = np.clip(scan, normalised["percentile_00_5"], normalised["percentile_99_5"])
    prepared = (clipped - normalised["mean"]) / normalised["std"]
    with torch.no_grad():
        expected = torch.softmax(predictor.networks[0](torch.from_numpy(prepared.astype(np.float32))[None]), 1)[0]
    np.testing.assert_allclose(predictor(scan), expected.numpy(), atol=1e-5)


def test_a_folder_becomes_masks_in_goals_greys_with_probabilities(run, tmp_path, image):
    (tmp_path / "in").mkdir()
    for name, size in (("a", (50, 60)), ("b", (40, 48))):
        Image.fromarray(image[0, :size[0], :size[1]].astype(np.uint8)).save(tmp_path / "in" / f"{name}.png")
    predict_folder(run, tmp_path / "in", tmp_path / "out", probabilities=True)
    for name, size in (("a", (50, 60)), ("b", (40, 48))):
        mask = read_mask(tmp_path / "out" / f"{name}.png", layouts.GOALS_GREYS, size)
        with np.load(tmp_path / "out" / f"{name}.npz") as file:
            assert list(file) == ["probabilities"] and file["probabilities"].dtype == np.float32
            np.testing.assert_array_equal(file["probabilities"].argmax(0), mask)


def test_a_bad_image_stops_before_anything_is_written(run, tmp_path, image):
    Image.fromarray(image[0].astype(np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no image")
    with pytest.raises(OctkitError, match=r"b\.png"):
        predict_folder(run, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_post_processing_is_applied(run):
    model = dataclasses.replace(load_model(run), postprocessing=((1,),))
    probabilities = np.zeros((4, 4, 6), np.float32)
    probabilities[0] = 0.5
    probabilities[1, 0, :3] = probabilities[1, 3, 5] = 1
    assert infer.mask_of(probabilities, model).sum() == 3


def test_unfinished_or_missing_folds_are_errors(run, tmp_path):
    with pytest.raises(OctkitError, match="no settings.json"):
        load_model(tmp_path)
    path = run / "models/2d/fold_1/checkpoint.pt"
    checkpoint = path.read_bytes()
    try:
        path.write_bytes(checkpoint[:1000])
        with pytest.raises(OctkitError, match="cannot be read as a checkpoint"):
            load_model(run)
        path.unlink()
        with pytest.raises(OctkitError, match="train this fold first"):
            load_model(run)
    finally:
        path.write_bytes(checkpoint)


def test_cross_validation_selects_and_validation_is_predicted(run):
    infer.predict_cross_validation(run, progress=False)
    assert len(list((run / "predictions/cv").glob("*.png"))) == 6
    selection = ensemble.select(run)
    assert selection == read_json(run / "selection.json")
    assert selection["cases"] == 6 and selection["candidates"][0]["dice"]["rnfl"] > 0.3
    infer.predict_split(run, progress=False)
    assert sorted(p.name for p in (run / "predictions/validation").iterdir()) == ["0007.png", "0008.png"]
    with pytest.raises(OctkitError, match="no test images"):
        infer.predict_split(run, "test")


def test_selection_needs_its_predictions(run):
    (run / "predictions/cv/0001.png").unlink()
    with pytest.raises(OctkitError, match="no prediction for 1 cases"):
        ensemble.select(run)
    infer.predict_cross_validation(run, progress=False)


def test_masks_never_overwrite_the_images(run, tmp_path, image):
    Image.fromarray(image[0].astype(np.uint8)).save(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(OctkitError, match="the images' own folder"):
        predict_folder(run, tmp_path, tmp_path)
    assert (tmp_path / "a.png").read_bytes() == before


def test_a_plan_that_changed_after_training_is_noticed(run):
    path = run / "plan.json"
    before = path.read_text()
    try:
        content = json.loads(before)
        content["configurations"]["2d"]["features"]["value"][0] += 1
        path.write_text(json.dumps(content))
        with pytest.raises(OctkitError, match="the plan has changed since, train again"):
            Predictor.load(run)
    finally:
        path.write_text(before)


def test_a_scale_that_makes_no_difference_is_said(run, tmp_path, image, capsys):
    Image.fromarray(image[0].astype(np.uint8)).save(tmp_path / "a.png")
    predict_folder(run, tmp_path / "a.png", tmp_path / "out", um_per_px=(4, 10))
    assert "planned in pixels" in capsys.readouterr().out


def test_two_images_of_one_name_are_refused(run, tmp_path, image):
    for name in ("a.PNG", "a.png"):
        Image.fromarray(image[0].astype(np.uint8)).save(tmp_path / name, format="PNG")
    with pytest.raises(OctkitError, match="same name but for its ending"):
        predict_folder(run, tmp_path, tmp_path / "out")
