import csv
import dataclasses
from functools import partial
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace

import cv2
import nibabel
import numpy as np
import pytest
import torch
from device_makers import e2e_b_scan, e2e_bytes
from helpers import (
    killed_at_each_write,
    make_run,
    scope_of,
    striped_volume,
    tiny_model,
    to_16_bits,
    write_colours,
    write_goals,
)
from PIL import Image
from vol_files import write_vol

from octkit.common import cluster
from octkit.common.errors import OctkitError
from octkit.common.files import read_json
from octkit.data.dataset import Case
from octkit.data.device_files import convert
from octkit.data.grey_range import shown
from octkit.data.heidelberg import open_vol
from octkit.data.image_files import read_mask, write_png
from octkit.data.labels import BOUNDARIES, GOALS_GREYS
from octkit.data.volume_files import write_nifti
from octkit.figures.overlays import Overlays
from octkit.inference import predict, select
from octkit.inference.predict import predict_held_out, read_prediction, save_mask
from octkit.inference.predict_folder import predict_folder
from octkit.inference.scan_result import ScanResult, most_probable, predict_scan
from octkit.inference.sliding_window import Predictor
from octkit.layers.boundaries import mask_from, ordered_boundaries
from octkit.layers.quality import Quality
from octkit.layers.scan_files import facts_beside, read_boundaries
from octkit.layers.thickness import thickness_table
from octkit.network.model import load_model
from octkit.planning.run import Run
from octkit.training import train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict")
    run = make_run(folder / "run", write_goals(folder / "goals"), "train.folds=[0,1]", "train.epochs=3",
                   "train.iterations_per_epoch=20", "train.initial_rate=0.05", "plan.base_features=8",
                   "plan.max_features=16")
    for fold in (0, 1):
        train.train_fold(Run(run), fold=fold, progress=False)
    return run


@pytest.fixture
def predictor(run):
    return Predictor.load(run)


@pytest.fixture
def image():
    return np.random.default_rng(0).uniform(1, 255, (70, 90)).astype(np.uint8)


def test_a_folder_becomes_masks_in_goals_greys_with_probabilities(predictor, tmp_path, image):
    (tmp_path / "in").mkdir()
    for name, size in (("a", (50, 60)), ("b", (40, 48))):
        Image.fromarray(image[:size[0], :size[1]]).save(tmp_path / "in" / f"{name}.png")
    predict_folder(predictor, tmp_path / "in", tmp_path / "out", probabilities=True)
    for name, size in (("a", (50, 60)), ("b", (40, 48))):
        mask = read_mask(tmp_path / "out" / f"{name}.png", GOALS_GREYS, size)
        with np.load(tmp_path / "out" / f"{name}.npz") as file:
            assert list(file) == ["probabilities"] and file["probabilities"].dtype == np.float32
            np.testing.assert_array_equal(file["probabilities"].argmax(0), mask)


def test_every_format_gives_the_same_prediction_and_what_is_left_out_is_named(predictor, tmp_path, image, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    grey, deep = image[:40, :48], to_16_bits(image[:40, :48])
    for name, pixels in (("a.png", grey), ("b.tif", grey), ("c.bmp", grey), ("d.tif", deep), ("e.png", deep)):
        Image.fromarray(pixels).save(folder / name)
    cv2.imwrite(str(folder / "f.png"), np.dstack([deep] * 3))
    Image.fromarray(grey).save(folder / "g.jpg")
    np.save(folder / "h.npy", grey)
    for name in ("notes.txt", ".hidden"):
        (folder / name).touch()
    predict_folder(predictor, folder, tmp_path / "out", progress=False)
    lines = capsys.readouterr().out.splitlines()
    [left_out] = [line for line in lines if "left out" in line]
    assert "2 of 9" in left_out and "h.npy, notes.txt" in left_out and ".hidden" not in left_out
    [lossy] = [line for line in lines if "with loss" in line]
    assert "1 of 7" in lossy and "g.jpg" in lossy
    masks = {path.stem: np.asarray(Image.open(path)) for path in (tmp_path / "out").glob("*.png")}
    assert sorted(masks) == list("abcdefg")
    assert all(np.array_equal(masks[name], masks["a"]) for name in "bcdef")


def test_a_folder_of_scans_alone_has_nothing_to_say(predictor, tmp_path, image, capsys):
    (tmp_path / "in").mkdir()
    Image.fromarray(image[:40, :48]).save(tmp_path / "in/a.png")
    (tmp_path / "in/a.scale.json").write_text('{"circle": true}')
    predict_folder(predictor, tmp_path / "in", tmp_path / "out", progress=False)
    assert not {"left out", "loss"} & set(capsys.readouterr().out.split())


def test_colour_images_are_planned_trained_and_predicted_with_three_channels(tmp_path):
    raw = write_colours(tmp_path / "raw")
    run = make_run(tmp_path / "run", raw, "train.epochs=1")
    assert Run(run).fingerprint.channels == ("R", "G", "B")
    means = [record["mean"] for record in Run(run).fingerprint.intensity]
    assert means[0] + means[1] == pytest.approx(255, abs=0.01)  # the second channel is the first one's inverse
    train.train_fold(Run(run), fold=0, progress=False)
    predictor = Predictor(load_model(Run(run), ["2d"], [0]))
    [written] = predict_folder(predictor, raw / "imagesTs", tmp_path / "out", progress=False)
    case = Run(run).dataset.test[0]
    expected = predict_scan(predictor, Run(run).dataset.read_image(case), None, None).mask
    np.testing.assert_array_equal(read_mask(written, GOALS_GREYS), expected)
    Image.fromarray(np.zeros((40, 48), np.uint8)).save(tmp_path / "grey.png")
    with pytest.raises(OctkitError, match="grey.png: found 1 channels, expected 3"):
        predict_folder(predictor, tmp_path / "grey.png", tmp_path / "grey", progress=False)


def test_a_nifti_scan_becomes_a_nifti_mask_in_its_place(predictor, tmp_path, image):
    affine = np.diag((0.012, 0.004, 1, 1)) + np.eye(4, k=3)
    nibabel.save(nibabel.Nifti1Image(image.T[:48, :40, None].astype(np.float32), affine), tmp_path / "s.nii.gz")
    [written] = predict_folder(predictor, tmp_path / "s.nii.gz", tmp_path / "out")
    mask = nibabel.load(written)
    assert written.name == "s.nii.gz" and mask.shape == (48, 40, 1)
    np.testing.assert_allclose(mask.affine, affine, atol=1e-6)
    expected = predictor(image[None, :40, :48].astype(np.float32)).argmax(0)
    np.testing.assert_array_equal(np.asarray(mask.dataobj)[..., 0].T, expected)


def test_a_scan_that_cannot_be_decoded_does_not_cost_the_others(predictor, tmp_path, image):
    (tmp_path / "in").mkdir()
    for name in ("a", "b", "c"):
        Image.fromarray(image).save(tmp_path / "in" / f"{name}.png")
    whole = (tmp_path / "in/b.png").read_bytes()
    (tmp_path / "in/b.png").write_bytes(whole[:len(whole) // 2])  # its header is whole
    with pytest.raises(OctkitError, match=r"1 of 3 scans(?s:.*)\n  .*b\.png"):
        predict_folder(predictor, tmp_path / "in", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *(f"{name}{ending}" for name in "ac" for ending in (".png", ".boundaries.csv", ".scale.json")), "quality.csv"}


def test_what_a_scale_is_for_and_that_there_is_none_is_said(predictor, tmp_path, image, capsys):
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        Image.fromarray(image).save(tmp_path / "in" / f"{name}.png")
    predict_folder(predictor, tmp_path / "in", tmp_path / "out")
    assert capsys.readouterr().out.count("no scale known") == 1
    predict_folder(predictor, tmp_path / "in", tmp_path / "out", um_per_px=(4, 10))
    said = capsys.readouterr().out
    assert "planned in px" in said and "serves the boundaries alone" in said and "no scale known" not in said
    assert said.count("uncalibrated") == 1
    facts = {"um_per_px": [4, 10], "eye": None, "circle": None, "means": None}
    assert read_json(tmp_path / "out/a.scale.json") == facts
    with pytest.raises(OctkitError, match="a.png: by the scale given it is .* mm deep, expected 0.24 to 20"):
        predict_folder(predictor, tmp_path / "in", tmp_path / "out", um_per_px=(0.004, 0.01))


@pytest.mark.parametrize("stated", [(1.0, 1.0), (0.004, 0.011)])
def test_a_nifti_scan_without_a_scale_takes_the_one_given(predictor, tmp_path, capsys, image, stated):
    write_nifti(tmp_path / "a.nii.gz", image, stated)
    known = stated != (1.0, 1.0)
    predict_folder(predictor, tmp_path / "a.nii.gz", tmp_path / "out")
    assert read_json(tmp_path / "out/a.scale.json")["um_per_px"] == (pytest.approx([4, 11]) if known else None)
    assert ("mm deep" in capsys.readouterr().out) != known
    predict_folder(predictor, tmp_path / "a.nii.gz", tmp_path / "out", um_per_px=(6, 10))
    assert read_json(tmp_path / "out/a.scale.json")["um_per_px"] == pytest.approx([4, 11] if known else [6, 10])
    assert "no scale known" not in capsys.readouterr().out


@pytest.mark.parametrize(("axes", "said"), [((0, 1, 2), False), ((2, 1, 0), True), ((1, 0, 2), True)])
def test_a_volume_whose_axes_are_in_an_odd_order_is_said(tmp_path, capsys, axes, said):
    spacing = (0.24, 0.004, 0.012)
    write_nifti(tmp_path / "v.nii.gz", striped_volume(1)[0].transpose(axes), tuple(spacing[axis] for axis in axes))
    predict_folder(Predictor(tiny_model("3d_fullres"), "cpu"), tmp_path / "v.nii.gz", tmp_path / "out", progress=False)
    assert ("v.nii.gz: has" in capsys.readouterr().out) == said


def test_cross_validation_selects_and_validation_is_predicted(run):
    predict.predict_cross_validation(Run(run), progress=False)
    assert len(list((run / "predictions/cv/2d").glob("*/*.png"))) == 6
    selection = select.select(Run(run))
    assert selection == Run(run).selection
    assert selection.cases == 6 and selection.candidates[0].dice["rnfl"] > 0.3
    known = Run(run).calibration
    assert known.scans == 6 and set(known.coverage["calibrated"]) == set(BOUNDARIES)
    out = run / "predictions/validation"
    out.mkdir()
    for stale in ("0001.png", "0001.boundaries.csv"):  # of a scan that has left the data set
        (out / stale).touch()
    predict.predict_split(Run(run), progress=False)
    assert sorted(path.name for path in out.glob("[!.]*")) == [
        *(f"{name}{ending}" for name in ("0007", "0008") for ending in (".boundaries.csv", ".png", ".scale.json")),
        "quality.csv"]
    assert read_boundaries(out / "0007.boundaries.csv")[2].min() > 0
    assert facts_beside(out / "0007.png").means == known.means
    dataset, predictor = Run(run).dataset, Predictor.load(run)
    for case in dataset.validation:
        probabilities = predictor(dataset.read_image(case), case.spacing, case.circle)
        expected = (mask_from(ordered_boundaries(probabilities, case.circle)[0], probabilities.shape[1])
                    if selection.surfaces else most_probable(probabilities, predictor.model, case.circle))
        np.testing.assert_array_equal(read_prediction(out, case, dataset.labels), expected)
    with pytest.raises(OctkitError, match="no test images"):
        predict.predict_split(Run(run), "test")


def test_what_was_predicted_is_not_predicted_again_but_after_a_change(run, capsys):
    predict_held_out(Run(run), "2d", 0, progress=False)
    path = next((run / "predictions/cv/2d").glob("*/*.png"))
    capsys.readouterr()
    path.write_bytes(b"kept")
    predict_held_out(Run(run), "2d", 0, progress=False)
    assert "predicted before" in capsys.readouterr().out and path.read_bytes() == b"kept"
    checkpoint = run / "models/2d/fold_0/checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes())  # trained again
    for fold in (0, 1):
        predict_held_out(Run(run), "2d", fold, progress=False)
    assert path.read_bytes() != b"kept"


def test_selection_needs_its_predictions_and_says_how_to_get_them(run):
    predict.predict_cross_validation(Run(run), progress=False)
    held_out = read_json(run / "splits.json")[1]["validation"][0]
    (run / f"predictions/cv/2d/fold_1/{held_out}.png").unlink()
    expected = f"no prediction for 1 of 6 held-out cases .{held_out} is the first.; get them with: octkit .* --fold 1"
    with pytest.raises(OctkitError, match=expected):
        select.select(Run(run))


@pytest.mark.parametrize(("labels", "values"), [(("rnfl", "gcipl", "choroid"), [255, 0, 80, 160]),
                                                (("a", "b", "c"), [0, 1, 2, 3])])
def test_masks_are_coded_by_their_labels_and_read_back(tmp_path, labels, values):
    mask = np.array([[0, 1], [2, 3]], np.uint8)
    case = Case("x", tmp_path / "x.png")
    Image.fromarray(mask).save(case.image)
    (tmp_path / "out").mkdir()
    path = save_mask(tmp_path / "out", "x", mask, labels, case.image)
    assert np.asarray(Image.open(path)).ravel().tolist() == values
    np.testing.assert_array_equal(read_prediction(tmp_path / "out", case, labels), mask)
    with pytest.raises(OctkitError, match="has no mask of case y"):
        read_prediction(tmp_path / "out", dataclasses.replace(case, name="y"), labels)


def test_a_devices_file_is_predicted_like_its_picture(predictor, tmp_path, image):
    write_vol(tmp_path / "scan.vol", (image[:48, :60] / 255.0)[None] ** 4, [])  # 0.19 mm deep: no scale for boundaries
    Image.fromarray(open_vol(tmp_path / "scan.vol").image[0].astype(np.uint8)).save(tmp_path / "picture.png")
    for name in ("scan.vol", "picture.png"):
        predict_folder(predictor, tmp_path / name, tmp_path / "out", circle=None if name == "scan.vol" else True)
    assert (tmp_path / "out/scan.png").read_bytes() == (tmp_path / "out/picture.png").read_bytes()


def flags(folder):
    with open(folder / "quality.csv", newline="") as file:
        return {row["scan"]: row for row in csv.DictReader(file)}


def test_a_line_scan_is_out_of_scope_by_its_file_and_by_the_picture_that_was_made_of_it(tmp_path, image):
    """With a model that knows its scope, and would take every picture for a circle scan."""
    circles = Predictor(tiny_model("2d", folds=("0",), mirror=False, circle=True, scope=scope_of(0)), "cpu")
    for pattern, line in ((1, True), (2, False)):
        vol = write_vol(tmp_path / f"{pattern}.vol", (image / 255.0)[None] ** 4, [], pattern=pattern)
        convert(vol, tmp_path / f"device{pattern}")
        for number, source in enumerate((vol, tmp_path / f"device{pattern}/image")):
            out = tmp_path / f"out{pattern}{number}"
            predict_folder(circles, source, out)
            [flag] = flags(out).values()
            assert ("line scan" in flag["reasons"]) == line
            facts = read_json(out / f"{pattern}.scale.json")
            assert (facts["eye"], facts["circle"]) == ("R", not line) and facts["um_per_px"] == pytest.approx([4, 11])
            [row, *_] = thickness_table(out)
            assert row["unit"] == "um" and (row["T"] is None or not line)
        assert (tmp_path / f"out{pattern}0/{pattern}.png").read_bytes() == (out / f"{pattern}.png").read_bytes()
    predict_folder(circles, tmp_path / "1.vol", tmp_path / "said", circle=True)
    assert "line scan" not in flags(tmp_path / "said")["1"]["reasons"]


def test_a_model_without_a_scope_has_nothing_to_say_of_it(tmp_path, image):
    write_vol(tmp_path / "line.vol", (image / 255.0)[None] ** 4, [], pattern=1)
    for name, scope, said in (("of lines", None, False), ("of nothing", scope_of(1), True)):
        model = Predictor(tiny_model("2d", folds=("0",), mirror=False, scope=scope), "cpu")
        predict_folder(model, tmp_path / "line.vol", tmp_path / name)
        assert ("not a circle scan" in flags(tmp_path / name)["line"]["reasons"]) == said
        found = predict_scan(model, image[None].astype(np.float32), circle=True)
        assert ("not a circle scan" in " ".join(found.quality.reasons)) == said


def test_boundaries_and_flags_stand_beside_the_masks(predictor, tmp_path, image):
    Image.fromarray(image).save(tmp_path / "noise.png")
    predict_folder(predictor, tmp_path / "noise.png", tmp_path / "out")
    with open(tmp_path / "out/noise.boundaries.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0][:2] == ["a_scan", "ILM"] and len(rows) == 1 + 90
    assert len(rows[0]) == (21 if predictor.model.calibration else 11)  # the half widths as well
    with open(tmp_path / "out/quality.csv", newline="") as file:
        [flag] = csv.DictReader(file)
    assert flag["scan"] == "noise" and flag["trusted"] == "NO" and "not" in flag["reasons"]


def test_volumes_in_another_range_of_grey_are_named_with_both_ranges(tmp_path, capsys):
    """The training's labelled pixels lie from 4 to 230. Times 1/255 and 257 the mask was empty or wrong, unsaid."""
    voxels = striped_volume(1)[0].astype(np.float32)
    copies = {"same": voxels, "unit": voxels / 255, "sixteen_bits": (voxels * 257).astype(np.uint16),
              "twelve_bits": (voxels * 16).astype(np.uint16), "inverted": 255 - voxels}
    for name, values in copies.items():
        write_nifti(tmp_path / "in" / f"{name}.nii.gz", values, (0.12, 0.004, 0.015))
    model = tiny_model("3d_fullres", folds=("0",), mirror=False)
    predict_folder(Predictor(model, "cpu"), tmp_path / "in", tmp_path / "out")
    with open(tmp_path / "out/quality.csv", newline="") as file:
        reasons = {row["scan"]: row["reasons"] for row in csv.DictReader(file)}
    assert list(reasons) == sorted(copies) and "this model" not in reasons["same"]
    said = capsys.readouterr().out
    for name, odd in (("unit", "far too dark"), ("sixteen_bits", "far too bright"), ("twelve_bits", "far too bright"),
                      ("inverted", "inverted")):
        low, high = np.percentile(copies[name], (0.5, 99.5))
        words = f"the grey values, {shown(low, high)}, are {odd}"
        assert words in reasons[name] and "4 to 230" in reasons[name]
        [line] = [line for line in said.splitlines() if line.startswith(f"{name}: ")]
        assert words in line


@pytest.fixture
def pretended(goals, tmp_path, monkeypatch):
    """A run whose networks are pretended: they find the label that stands in their checkpoint, everywhere."""
    run = Run(make_run(tmp_path / "run", goals, "train.folds=[0,1]", "infer.surfaces=never"))

    class Network:
        device = torch.device("cpu")
        config, model = "2d", SimpleNamespace(labels=("rnfl", "gcipl", "choroid"), postprocessing=(),
                                              calibration=None, scope=None)

        def __init__(self, label, _device=None):
            self.label, self.configs = int(label), [self]

        @classmethod
        def load(cls, *_):
            return cls(run.checkpoint("2d", 0).read_text())

        def describe(self):
            return "paper"

        def check_memory(self, _):
            pass

        def on_grid(self, image, *_):
            return [np.stack([np.full(image.shape[1:], label == self.label, np.float32) for label in range(4)])], None

        def off_grid(self, values, _):
            return values

    def result(_, image, network, *__):
        mask = np.full(image.shape[1:], network.label, np.uint8)
        return ScanResult(mask, network.on_grid(image)[0][0], Quality(True, ()))

    def train_all(label):
        for fold in (0, 1):
            run.fold("2d", fold).mkdir(parents=True, exist_ok=True)
            run.checkpoint("2d", fold).write_text(label)

    monkeypatch.setattr(predict, "Predictor", Network)
    monkeypatch.setattr(predict, "load_model", lambda run, _, folds: run.checkpoint("2d", folds[0]).read_text())
    monkeypatch.setattr(predict, "ask", lambda network, *_: network)
    monkeypatch.setattr(predict, "read_off", result)
    return run, train_all


@pytest.mark.parametrize(("what", "folder", "count"), [
    (lambda run: predict.predict_split(run, progress=False), "validation", 2),
    (lambda run: predict.predict_cross_validation(run, progress=False), "cv", 6)], ids=["validation", "cv"])
def test_killed_at_any_write_predictions_are_all_old_or_all_new(pretended, what, folder, count):
    run, train_all = pretended

    def labels():
        masks = list(run.predictions(folder).rglob("[!.]*.png"))
        return len(masks), {int(GOALS_GREYS[np.asarray(Image.open(path))[0, 0]]) for path in masks}

    train_all("1")
    what(run)
    train_all("2")
    met = []
    for _ in killed_at_each_write(lambda: what(run)):
        found, [label] = labels()
        assert found == count
        met.append(label)
    assert len(met) > 3 * count and met == sorted(met) and set(met) == {1, 2}


def test_a_stopped_cross_validation_goes_on_with_what_is_done(pretended, monkeypatch):
    run, train_all = pretended
    train_all("1")
    stopped, real, seen = iter([False] * 4 + [True]), predict._predict_held_out_case, []

    def predict_case(run, predictor, case, *rest):
        if next(stopped, False):
            raise KeyboardInterrupt
        seen.append(case.name)
        real(run, predictor, case, *rest)

    monkeypatch.setattr(predict, "_predict_held_out_case", predict_case)
    with pytest.raises(KeyboardInterrupt):
        predict.predict_cross_validation(run, progress=False)
    assert not run.predictions("cv").exists()
    predict.predict_cross_validation(run, progress=False)
    assert sorted(seen) == [case.name for case in run.dataset.train]  # each once
    assert [path.name for path in run.predictions("").iterdir()] == ["cv"]


def test_a_scan_that_is_too_large_to_predict_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("octkit.network.memory.free_bytes", lambda _: 1e9)
    predictor = Predictor(tiny_model("2d", folds=("0",)), "cpu")
    scan = predict.ScanToPredict("large", tmp_path / "large.png", (8000, 9800), None, None,
                                 lambda: pytest.fail("it was read"))
    with pytest.raises(OctkitError, match=r"a scan of 8000 x 9800 needs about 6\.\d GB of memory, found 1.0 GB free"):
        predict.predict_scans(predictor, [scan], tmp_path / "out", progress=False)


def test_channels_in_files_of_their_own_are_one_scan(tmp_path, image):
    """Named as nnU-Net names them; another order of names, a channel that lacks and one of another size are told."""
    network = tiny_model("2d", folds=("0",), mirror=False, channels=("R", "G", "B"))
    model, folder, channels = Predictor(network, "cpu"), tmp_path / "in", [image, 255 - image, image // 2]
    for number, channel in enumerate(channels):
        write_png(folder / f"a_{number:04d}.png", channel)
    Image.fromarray(np.stack(channels, -1)).save(folder / "b_0000.png")  # a colour image holds three by itself
    written = predict_folder(model, folder, tmp_path / "out", progress=False)
    assert [path.name for path in written] == ["a.png", "b_0000.png"]
    assert np.array_equal(*(np.asarray(Image.open(path)) for path in written))
    expected = predict_scan(model, np.stack(channels).astype(np.float32), None, None).mask
    np.testing.assert_array_equal(read_mask(written[0], GOALS_GREYS), expected)
    with pytest.raises(OctkitError, match=r"found the channels \[1\] of a, expected 3 files, a_0000 to a_0002"):
        predict_folder(model, folder / "a_0001.png", tmp_path / "one", progress=False)
    for number in (7, 8):  # colour images of these names are no channels
        Image.fromarray(np.stack(channels, -1)).save(folder / f"c_{number:04d}.png")
    written = predict_folder(model, folder, tmp_path / "more", progress=False)
    assert [path.name for path in written] == ["a.png", "b_0000.png", "c_0007.png", "c_0008.png"]
    write_png(folder / "a_0002.png", image[:-1])
    with pytest.raises(OctkitError, match="a_0002.png"):
        predict_folder(model, folder, tmp_path / "again", progress=False)
    for number in range(3):
        Image.fromarray(np.stack(channels, -1)).save(folder / f"a_{number:04d}.png")
    with pytest.raises(OctkitError, match="a_0000.png: is a colour image, and named as one of the 3 channels of a"):
        predict_folder(model, folder, tmp_path / "again", progress=False)


def test_the_scans_of_a_devices_file_are_predicted_one_by_one(tmp_path, image, capsys):
    """Circles and lines; a volume among them is left out, and a scale that the file lacks is the one given."""
    greys = (image / 255.0) ** 4
    parts = [part for place in (0, 1)
             for part in e2e_b_scan(3, 2 * place, greys, {}, 3, place, ends=(-5, place, 5, place))]
    (tmp_path / "scan.E2E").write_bytes(e2e_bytes(
        e2e_b_scan(1, 2, greys, {}) + e2e_b_scan(2, 2, greys, {}, 1) + parts))
    model = Predictor(tiny_model("2d", folds=("0",), mirror=False, circle=True), "cpu")
    written = predict_folder(model, tmp_path / "scan.E2E", tmp_path / "out", um_per_px=(4, 11))
    assert [path.name for path in written] == ["scan_1.png", "scan_2.png"]
    facts = [read_json(tmp_path / f"out/scan_{number}.scale.json") for number in (1, 2)]
    assert [(found["eye"], found["circle"]) for found in facts] == [("R", True), (None, False)]
    assert [found["um_per_px"] for found in facts] == [pytest.approx([4, 11])] * 2
    said = capsys.readouterr()
    assert "scan_3: left out: volume" in said.out + said.err
    write_png(tmp_path / "both/scan_2.png", image)
    (tmp_path / "scan.E2E").rename(tmp_path / "both/scan.E2E")
    with pytest.raises(OctkitError, match=r"scan_2.png: a scan is called scan_2, as .*scan.E2E"):
        predict_folder(model, tmp_path / "both", tmp_path / "again", um_per_px=(4, 11))


@pytest.fixture
def five(tmp_path, image):
    """A folder of five scans, of which "c" cannot be read."""
    (tmp_path / "in").mkdir()
    for name in "abcde":
        Image.fromarray(np.roll(image[:40, :48], ord(name), 1)).save(tmp_path / "in" / f"{name}.png")
    (tmp_path / "in/c.png").write_bytes((tmp_path / "in/c.png").read_bytes()[:200])
    return tmp_path / "in"


def in_chunks(run, **crew):
    return partial(predict.predict_scans, drawer=Overlays(crew.pop("out")),
                   crew=predict.Crew(crew.pop("workers", None) or cluster.Here(), Path(run), (False, "float32")))


def left_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_workers_leave_what_one_process_does_and_go_on_where_they_were_stopped(run, tmp_path, five, monkeypatch):
    monkeypatch.setattr(predict, "CHUNK", 2)
    predictor, one, many = Predictor.load(run, mirror=False, precision="float32"), tmp_path / "one", tmp_path / "many"
    told = []
    for out, way in ((one, partial(predict.predict_scans, drawer=Overlays(one))), (many, in_chunks(run, out=many))):
        with pytest.raises(OctkitError, match="1 of 5 scans could not be predicted") as error:
            predict_folder(predictor, five, out, way=way)
        told.append(str(error.value).replace(str(out), ""))
    assert told[0] == told[1] and "c.png" in told[0]
    assert left_in(one) == left_in(many)
    assert {"a.png", "e.overlay.png", "quality.csv", "index.html"} <= left_in(one).keys()

    asked = []

    def recorded(predictor, image, *facts):
        asked.append(image.shape)
        return ask(predictor, image, *facts)

    ask = predict.ask
    monkeypatch.setattr(predict, "ask", recorded)
    (five / "c.png").unlink()
    (many / "b.png").write_bytes(b"changed")
    (many / ".predicted/d.json").write_text("{}")
    Image.fromarray(np.zeros((40, 50), np.uint8)).save(five / "e.png")  # another scan of the same name
    assert [path.stem for path in predict_folder(predictor, five, many, way=in_chunks(run, out=many))] == list("abde")
    assert sorted(asked) == [(1, 40, 48), (1, 40, 48), (1, 40, 50)]  # b, d and e
    assert left_in(many)["b.png"] == left_in(one)["b.png"]
    asked.clear()
    predict_folder(predictor, five, many, probabilities=True, way=in_chunks(run, out=many))
    assert len(asked) == 4 and (many / "a.npz").exists()  # asked for more: all again


def test_a_scan_that_kills_its_workers_costs_itself_alone(run, tmp_path, five):
    class Deadly(cluster.Here):
        def next(self):
            key, _, (_, scans, *_) = self._calls[0]
            if any(scan.name == "b" for scan in scans):
                self._calls.popleft()
                raise cluster.WorkersDied(key, "4 workers died over it")
            return super().next()

    with pytest.raises(OctkitError, match=r"2 of 5 scans could not be predicted.*\n  .*b\.png: 4 workers died"):
        predict_folder(Predictor.load(run, mirror=False), five, tmp_path / "out", progress=False,
                       way=in_chunks(run, out=tmp_path / "out", workers=Deadly()))
    assert {"a.png", "d.png", "e.png"} <= left_in(tmp_path / "out").keys()


@pytest.fixture
def stages(monkeypatch):
    """Predicts scans a and b of a size by pretended stages, each handed in by name: what began, in order."""
    def predicted(out, size, device="cuda", **slow):
        began = []

        def stage(name, gives):
            def call(scan):
                began.append(f"{name} {scan}")
                slow.get(name, lambda *_: None)(scan, began)
                return gives(scan)
            return call

        read, asked, finished = (stage(name, gives) for name, gives in (
            ("read", lambda name: np.full((1, *size), ord(name), np.float32)), ("ask", lambda _: (np.zeros(size), [])),
            ("finish", lambda _: ScanResult(np.zeros(size, np.uint8), np.zeros((2, *size)), Quality(True, ())))))
        monkeypatch.setattr(predict, "ask", lambda _, image, *__: asked(chr(int(image.flat[0]))))
        monkeypatch.setattr(predict, "read_off", lambda _, image, *__: finished(chr(int(image.flat[0]))))
        predictor = SimpleNamespace(describe=str, check_memory=lambda _: None, device=torch.device(device),
                                    model=SimpleNamespace(labels=("fluid",), calibration=None))
        scans = [predict.ScanToPredict(name, Path(name), size, None, None, partial(read, name)) for name in "ab"]
        predict.predict_scans(predictor, scans, out, progress=False)
        return began
    return predicted


def test_while_a_gpu_is_at_a_scan_the_next_is_read_and_the_one_before_is_finished(stages, tmp_path):
    meets = Barrier(2)

    stages(tmp_path, (4, 6), ask=lambda *_: meets.wait(20),  # a: the reading of b, b: the finishing of a
           read=lambda scan, _: scan == "b" and meets.wait(20),
           finish=lambda scan, _: scan == "a" and meets.wait(20))
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["a.png", "b.png"]


@pytest.mark.parametrize(("size", "device"), [((2, 4, 6), "cuda"), ((4, 6), "cpu")], ids=["volumes", "on a CPU"])
def test_a_scan_is_done_with_before_the_next_is_read(stages, tmp_path, size, device):
    assert stages(tmp_path, size, device) == ["read a", "ask a", "finish a", "read b", "ask b", "finish b"]
