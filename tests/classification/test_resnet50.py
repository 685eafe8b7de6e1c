import hashlib
import io
import shutil
from dataclasses import replace

import numpy as np
import paddle
import pytest
from helpers import save_anew, to_16_bits, write_goals

from octkit.classification import resnet50
from octkit.classification.paddle_weights import read_weights
from octkit.common import hashes
from octkit.common.errors import OctkitError
from octkit.common.files import read_json
from octkit.common.settings import from_profile
from octkit.data.layouts import detect

TINY = {"image_size": 32, "epochs": 2, "batch_size": 4, "initial_rate": 1e-4, "pretrained": "none"}


def tiny(**changes):
    settings = from_profile("smoke")
    return settings.model_copy(update={"device": "cpu", "classify": type(settings.classify)(**TINY | changes)})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classify")
    data = detect.open_dataset(write_goals(folder / "goals"))
    resnet50.train(data, tiny(), folder / "classifier")
    return data, folder / "classifier"


def spotted(size=64):
    image = np.full((size, size), 60, np.uint8)
    image[10:14, 40:50] = 250
    return image


def test_augment_depends_on_its_seed_alone():
    image = spotted()
    first, again, *others = (resnet50.augment(image, seed) for seed in ((0, 3, 5), (0, 3, 5), (0, 3, 6), (0, 4, 5)))
    assert first.shape == image.shape and first.dtype == np.uint8 and np.array_equal(first, again)
    assert not any(np.array_equal(first, other) for other in others)
    assert np.array_equal(image, spotted())


def test_augment_without_rotation_and_vertical_flip_keeps_rows_level():
    image = np.repeat(np.arange(64, dtype=np.uint8)[:, None] * 3, 64, axis=1)  # rows of one grey, darker above
    for seed in range(20):
        moved = resnet50.augment(image, (seed,), rotation_degrees=0, vertical_flip=False)[8:-8, 8:-8].astype(int)
        assert (moved.max(axis=1) - moved.min(axis=1)).max() <= 1
        assert (np.diff(moved[:, 20]) >= 0).all() and moved[-1, 20] - moved[0, 20] > 100


def test_augment_flips_and_turns_either_way_and_crops_within_its_range():
    """The direction of a ramp tells the flip and the angle, its steepness the crop's size."""
    ramp = np.repeat(np.arange(100, 164, dtype=np.uint8)[:, None], 64, axis=1)
    angles, flips, scales = [], set(), []
    for seed in range(200):
        down = np.gradient(resnet50.augment(ramp, (seed,)).astype(float))
        slope = np.array([d[20:44, 20:44].mean() for d in down])
        flips.add(bool(slope[0] < 0))
        angles.append(np.degrees(np.arctan(slope[1] / slope[0])))
        scales.append(np.hypot(*slope))
    assert flips == {True, False}
    assert 25 < max(angles) < 34 and -34 < min(angles) < -25
    assert np.sqrt(0.9 / 1.1) - 0.02 < min(scales) < 0.96 and 1.04 < max(scales) < np.sqrt(1.1 / 0.9) + 0.02


def of_file(path, checksum=None):
    """Settings that name a file of weights."""
    checksum = checksum or hashlib.sha256(path.read_bytes()).hexdigest()
    return tiny(weights=str(path), weights_sha256=checksum).classify


def test_a_weights_file_needs_its_checksum(tmp_path):
    path = tmp_path / "weights.pdparams"
    path.write_bytes(b"something")
    with pytest.raises(OctkitError, match="weights.pdparams: found SHA-256"):
        resnet50.start_weights(None, of_file(path, "0" * 64))
    with pytest.raises(OctkitError, match="missing.pdparams"):
        resnet50.start_weights(None, of_file(tmp_path / "missing.pdparams", "0" * 64))


def test_imagenet_weights_from_a_file_replace_all_but_the_last_layer(tmp_path):
    given = resnet50.resnet50(num_classes=1000)
    path = tmp_path / "imagenet.pdparams"
    paddle.save(given.state_dict(), str(path))
    assert read_weights(path).keys() == given.state_dict().keys()
    network = resnet50._network(tiny())
    head = network.fc.weight.numpy()
    origin = resnet50.start_weights(network, of_file(path))
    assert (origin["origin"], origin["sha256"]) == ("imagenet file", of_file(path).weights_sha256)
    assert np.array_equal(network.layer3[1].conv2.weight.numpy(), given.layer3[1].conv2.weight.numpy())
    assert np.array_equal(network.bn1._mean.numpy(), given.bn1._mean.numpy())
    assert np.array_equal(network.fc.weight.numpy(), head)


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "other.pdparams"
    paddle.save({"conv1.weight": paddle.zeros([64, 3, 3, 3])}, str(path))
    with pytest.raises(OctkitError, match=r"other.pdparams: found \(64, 3, 3, 3\) for conv1.weight"):
        resnet50.start_weights(resnet50._network(tiny()), of_file(path))


@pytest.mark.parametrize("failing", ["urlopen", "get_weights_path_from_url"])
def test_without_a_network_the_start_is_random_and_says_so(tmp_path, monkeypatch, capsys, failing):
    def urlopen(url, timeout):
        assert "resnet50" in url and timeout <= 10
        if failing == "urlopen":
            raise OSError("nobody answers")
        return io.BytesIO()

    def download(*_):
        assert failing == "get_weights_path_from_url"
        raise RuntimeError("Retry limit reached")

    monkeypatch.setattr(resnet50, "WEIGHTS_HOME", str(tmp_path))
    monkeypatch.setattr(resnet50.urllib.request, "urlopen", urlopen)
    monkeypatch.setattr(resnet50, "get_weights_path_from_url", download)
    origin = resnet50.start_weights(resnet50._network(tiny()), tiny(pretrained="imagenet").classify)
    assert origin["origin"] == "random initialisation"
    assert ("nobody answers" if failing == "urlopen" else "Retry limit reached") in origin["reason"]
    assert "RANDOM WEIGHTS" in (printed := capsys.readouterr().out) and origin["reason"] in printed


def test_training_leaves_its_files(trained):
    data, folder = trained
    assert {path.name for path in folder.iterdir()} == {
        "model.pdparams", "log.csv", "splits.json", "outputs.csv", "weights_origin.json", "trained.json"}
    log = (folder / "log.csv").read_text().splitlines()
    assert log[0] == "epoch,train_loss,validation_loss,validation_auc,learning_rate,seconds"
    assert [line.split(",")[0] for line in log[1:]] == ["1", "2"]
    assert read_json(folder / "weights_origin.json")["origin"] == "random initialisation"
    split = read_json(folder / "splits.json")
    assert sorted(split["train"] + split["validation"]) == [case.name for case in data.train]


def test_outputs_are_those_of_every_scan_that_it_did_not_learn_from(trained):
    data, folder = trained
    rows = [line.split(",") for line in (folder / "outputs.csv").read_text().splitlines()]
    held_out = read_json(folder / "splits.json")["validation"]
    assert [row[:2] for row in rows] == [["split", "scan"], *(["held out", name] for name in held_out),
                                         *(["validation", case.name] for case in data.validation)]
    images = {case.name: case.image for case in data.train + data.validation}
    odds = resnet50.reader([folder], tiny())(resnet50.load_images([images[row[1]] for row in rows[1:]], 32))
    np.testing.assert_allclose([float(row[2]) for row in rows[1:]], odds, atol=1e-3)


def test_a_split_that_is_given_is_the_one_that_is_trained_on(trained, tmp_path):
    data, _ = trained
    names = [case.name for case in data.train]
    split = {"train": names[2:], "validation": names[:2]}
    resnet50.train(data, tiny(epochs=1), tmp_path, split)
    assert read_json(tmp_path / "splits.json") == split


def test_several_networks_are_averaged(trained, tmp_path):
    data, folder = trained
    resnet50.train(data, tiny(epochs=1), tmp_path)
    images = resnet50.load_images([case.image for case in data.validation], 32)
    one, other = (resnet50.reader([place], tiny())(images) for place in (folder, tmp_path))
    np.testing.assert_allclose(resnet50.reader([folder, tmp_path], tiny())(images), (one + other) / 2, atol=1e-6)


def test_images_of_another_format_and_depth_have_the_same_predictions(trained, tmp_path):
    data, folder = trained
    images = [case.image for case in data.validation]
    for image in images:
        shutil.copy(image, tmp_path)
    save_anew(tmp_path, ".tif", to_16_bits)
    deep = [tmp_path / f"{image.stem}.tif" for image in images]
    np.testing.assert_array_equal(resnet50.load_images(deep, 64), resnet50.load_images(images, 64))
    read = resnet50.reader([folder], tiny())
    assert np.array_equal(*(read(resnet50.load_images(paths, 32)) for paths in (deep, images)))


def test_a_stopped_training_goes_on_to_the_same_bits(trained, tmp_path, monkeypatch, capsys):
    data, whole = trained
    done = resnet50._train_epoch

    def stop_in_the_second(*arguments):
        if arguments[5] == 1:
            raise KeyboardInterrupt
        return done(*arguments)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(resnet50, "_train_epoch", stop_in_the_second)
        resnet50.train(data, tiny(), tmp_path)
    assert (tmp_path / "checkpoint.npz").exists() and not (tmp_path / "model.pdparams").exists()
    capsys.readouterr()
    resnet50.train(data, tiny(), tmp_path)
    assert "goes on after epoch 1" in capsys.readouterr().out
    first, second = (read_weights(folder / "model.pdparams") for folder in (whole, tmp_path))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert (tmp_path / "outputs.csv").read_text() == (whole / "outputs.csv").read_text()


def test_an_ended_training_is_not_repeated(trained, tmp_path, monkeypatch, capsys):
    data, whole = trained
    shutil.copytree(whole, tmp_path / "again")
    with monkeypatch.context() as patched:
        patched.setattr(resnet50, "_train", None)
        (tmp_path / "again" / "outputs.csv").unlink()
        resnet50.train(data, tiny(), tmp_path / "again")
    assert "has been trained before" in capsys.readouterr().out
    assert (tmp_path / "again/outputs.csv").read_text() == (whole / "outputs.csv").read_text()
    key = read_json(whole / "trained.json")["made_from"]
    assert resnet50._is_trained(whole, key, tiny().classify)
    assert not resnet50._is_trained(whole, "other", tiny().classify)
    for found in (None, tmp_path):  # the download is tried again: only where it succeeds is there more to learn
        monkeypatch.setattr(resnet50, "_paddles_weights", lambda found=found: (found, {}))
        assert resnet50._is_trained(whole, key, tiny(pretrained="imagenet").classify) == (found is None)
    (tmp_path / "again/model.pdparams").unlink()
    assert not resnet50._is_trained(tmp_path / "again", key, tiny().classify)


def test_an_ended_training_with_other_settings_is_kept(trained, tmp_path, monkeypatch, capsys):
    data, whole = trained
    shutil.copytree(whole, tmp_path / "classifier")
    monkeypatch.setattr(resnet50, "_train", lambda *_: None)
    monkeypatch.setattr(resnet50, "reader", lambda *_: lambda images: np.zeros(len(images)))
    resnet50.train(data, tiny(epochs=3), tmp_path / "classifier")
    kept = tmp_path / "before-1.classifier"
    assert str(kept) in capsys.readouterr().out
    assert all((kept / name).read_bytes() == (whole / name).read_bytes() for name in resnet50.TRAINED)
    assert not (tmp_path / "classifier/model.pdparams").exists()


@pytest.mark.parametrize("damage", [lambda data: data[:len(data) // 2], lambda _: b"", lambda _: b"no checkpoint",
                                    lambda data: data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]],
                         ids=["cut", "empty", "text", "one bit"])
def test_a_damaged_or_strange_checkpoint_is_noticed(tmp_path, capsys, damage):
    network = paddle.nn.Linear(60, 60)
    optimiser = paddle.optimizer.Adam(1e-4, parameters=network.parameters())
    path = tmp_path / "checkpoint.npz"
    resnet50._save_checkpoint(path, "key", network, optimiser, [{"epoch": 1}])
    assert resnet50._load_checkpoint(path, "key", network, optimiser) == [{"epoch": 1}]
    assert resnet50._load_checkpoint(path, "other settings", network, optimiser) == []
    path.write_bytes(damage(path.read_bytes()))
    assert resnet50._load_checkpoint(path, "key", network, optimiser) == []
    assert f"{path}: cannot be read" in capsys.readouterr().out


def test_the_code_that_decides_is_that_of_the_weights_reader_too(tmp_path, monkeypatch):
    before = resnet50._key(tiny(), {}, {})
    package = shutil.copytree(hashes.PACKAGE, tmp_path / "octkit", ignore=shutil.ignore_patterns("*.zip", "*.pyc"))
    monkeypatch.setattr(hashes, "PACKAGE", package)
    (package / "lessons/notebook.py").write_text("EDITED = True\n")
    assert resnet50._key(tiny(), {}, {}) == before
    (package / "classification/paddle_weights.py").write_text("EDITED = True\n")
    assert resnet50._key(tiny(), {}, {}) != before


@pytest.mark.skipif(paddle.is_compiled_with_cuda(), reason="this paddlepaddle may have a GPU")
def test_without_a_gpu_cuda_is_refused():
    with pytest.raises(OctkitError, match='device: found "cuda"'):
        resnet50._network(tiny().model_copy(update={"device": "cuda"}))


def test_an_unlabelled_training_case_stops_the_training(trained, tmp_path):
    dataset, _ = trained
    cases = (replace(dataset.train[0], glaucoma=None), *dataset.train[1:])
    with pytest.raises(OctkitError, match="3 without, 1 not told"):
        resnet50.train(replace(dataset, train=cases), tiny(), tmp_path / "classifier")
    assert not (tmp_path / "classifier").exists()


def test_the_loss_agrees_with_its_definition():
    odds = np.array([np.log(3), 0.0, -2000.0])  # of probabilities 3/4, 1/2 and 0
    assert resnet50._cross_entropy(odds[:2], np.array([1, 0])) == pytest.approx((np.log(4 / 3) + np.log(2)) / 2)
    assert resnet50._cross_entropy(odds[2:], np.array([1])) == 2000


def test_a_rate_that_diverges_is_named(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(resnet50, "_train_epoch", lambda *_: float("nan"))
    with pytest.raises(OctkitError, match="classify.initial_rate: found 0.0001.*diverge in epoch 1"):
        resnet50.train(trained[0], tiny(), tmp_path / "classifier")
