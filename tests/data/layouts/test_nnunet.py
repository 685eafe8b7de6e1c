from dataclasses import replace

import numpy as np
import pytest
from helpers import save_anew, striped_scan, striped_volume, write_colours, write_nnunet_raw
from PIL import Image

from octkit.common.errors import OctkitError
from octkit.common.files import read_json, write_json
from octkit.data.doctor.data_set import look_through
from octkit.data.labels import IGNORE, LAYERS
from octkit.data.layouts import detect
from octkit.data.layouts.detect import open_dataset
from octkit.data.volume_files import write_nifti
from octkit.evaluation.evaluate import score_folder
from octkit.layers.thickness import of_case
from octkit.planning.fingerprint import extract


@pytest.fixture
def raw(tmp_path):
    return write_nnunet_raw(tmp_path / "Dataset001_OCT")


def test_png_files_are_read_with_both_channels(tmp_path):
    dataset = open_dataset(write_nnunet_raw(tmp_path / "raw", channels=("OCT", "shifted")))
    assert (dataset.layout, dataset.channels, dataset.labels) == ("nnunet", ("OCT", "shifted"), LAYERS)
    assert [case.name for case in dataset.train] == ["eye_001", "eye_002", "eye_003", "eye_004"]
    assert [case.name for case in dataset.test] == ["eye_005"] and dataset.validation == ()
    case = dataset.train[0]
    assert case.spacing is None and not case.circle and dataset.test[0].mask is None
    image, label = striped_scan(1)
    np.testing.assert_array_equal(dataset.read_image(case), [image, np.roll(image, 1, axis=0)])
    np.testing.assert_array_equal(dataset.read_mask(case), label)


@pytest.mark.parametrize("deep", [False, True])
def test_a_colour_file_is_three_channels(tmp_path, deep):
    dataset = open_dataset(write_colours(tmp_path / "raw", deep))
    case, (image, label) = dataset.train[0], striped_scan(1)
    assert dataset.channels == ("R", "G", "B") and case.more_channels == ()
    np.testing.assert_array_equal(dataset.read_image(case), [image, 255 - image, image.T.reshape(image.shape)])
    np.testing.assert_array_equal(dataset.read_mask(case), label)
    [only] = look_through(dataset.root, workers=0, progress=False).findings  # this format has no diagnoses
    assert only.severity == "warning" and "0 with glaucoma, 0 without, 4 not told" in only.found


def test_colours_for_another_number_of_channels_are_refused(tmp_path):
    root = write_colours(tmp_path / "raw")
    for names, reason in ((["R", "G"], "0001.png: not found"), (["OCT"], "found a colour image")):
        write_json(root / "dataset.json", read_json(root / "dataset.json") | {
            "channel_names": {str(n): name for n, name in enumerate(names)}})
        with pytest.raises(OctkitError, match=f"eye_001_.*{reason}"):
            dataset = open_dataset(root)
            dataset.read_image(dataset.train[0])


@pytest.mark.parametrize("ending", [".tif", ".bmp"])
def test_images_of_other_formats_are_read(tmp_path, ending):
    root = write_nnunet_raw(tmp_path / "raw")
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        save_anew(root / folder, ending)
    write_json(root / "dataset.json", read_json(root / "dataset.json") | {"file_ending": ending})
    dataset, (image, label) = open_dataset(root), striped_scan(1)
    np.testing.assert_array_equal(dataset.read_image(dataset.train[0]), image[None])
    np.testing.assert_array_equal(dataset.read_mask(dataset.train[0]), label)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_nifti_files_bring_their_spacing(tmp_path, ending):
    dataset = open_dataset(write_nnunet_raw(tmp_path / "raw", ending=ending))
    case = dataset.train[2]
    assert case.name == "eye_003" and case.spacing == pytest.approx((0.12, 0.004, 0.015))
    image, label = striped_volume(3)
    np.testing.assert_array_equal(dataset.read_image(case), image[None])
    np.testing.assert_array_equal(dataset.read_mask(case), label)


@pytest.mark.parametrize(("size", "spacing", "known"), [
    ((3, 40, 48), (1.0, 1.0, 1.0), False), ((40, 48), (1.0, 1.0), False), ((3, 40, 48), (120.0, 3.87, 11.0), False),
    ((3, 40, 48), (0.24, 0.5, 0.5), True), ((40, 48), (0.004, 0.015), True)])
def test_a_header_that_nobody_has_filled_in_gives_no_lengths(tmp_path, size, spacing, known):
    """40 rows of 1 mm would be a scan 40 mm deep: its scale is unknown, and the doctor says so."""
    root = tmp_path / "raw"
    image, label = striped_scan(1) if len(size) == 2 else striped_volume(1)
    for folder, name, values in (("imagesTr", "a_0000", image), ("labelsTr", "a", label)):
        write_nifti(root / folder / f"{name}.nii.gz", values, spacing)
    write_json(root / "dataset.json", {"channel_names": {"0": "OCT"}, "numTraining": 1, "file_ending": ".nii.gz",
                                       "labels": {"background": 0, "RNFL": 1, "GCIPL": 2, "Choroid": 3}})
    dataset = open_dataset(root)
    [case] = dataset.train
    assert case.spacing == (pytest.approx(spacing) if known else None)
    assert extract(dataset).units == ("mm" if known else "px")
    if len(size) == 2:
        assert of_case(case, label).unit == ("um" if known else "px")
    said = [found for found in look_through(root, workers=0, progress=False).findings if "mm deep" in found.found]
    assert [found.file for found in said] == [case.image] * (not known)
    summary = score_folder(root / "labelsTr", root / "labelsTr")
    assert ("thickness_error_um" in summary["units"], summary["spacing_mm"] is not None) == (known, known)


@pytest.mark.parametrize(("names", "expected"), [
    (("rNFL", "gcipl", "CHOROID"), LAYERS), (("GCIPL", "RNFL", "Choroid"), ("GCIPL", "RNFL", "Choroid")),
    (("RNFL", "GCIPL", "Choroid", "disc"), ("RNFL", "GCIPL", "Choroid", "disc"))])
def test_only_the_three_layers_in_order_take_our_names(tmp_path, names, expected):
    assert open_dataset(write_nnunet_raw(tmp_path / "raw", labels=names)).labels == expected


def test_without_test_images(raw):
    for file in (raw / "imagesTs").iterdir():
        file.unlink()
    (raw / "imagesTs").rmdir()
    assert open_dataset(raw).test == ()


def changed(**change):
    def damage(raw):
        write_json(raw / "dataset.json", read_json(raw / "dataset.json") | change)
    return damage


def test_what_nobody_has_labelled_is_told_from_background(raw, tmp_path):
    changed(labels={"background": 0, "RNFL": 1, "GCIPL": 2, "Choroid": 3, "ignore": 4})(raw)
    path = raw / "labelsTr" / "eye_001.png"
    label = np.array(Image.open(path))
    label[:, :20] = 4
    Image.fromarray(label).save(path)
    dataset = open_dataset(raw)
    mask = dataset.read_mask(dataset.train[0])
    assert dataset.labels == LAYERS and (mask[:, :20] == IGNORE).all() and (mask[:, 20:] == label[:, 20:]).all()
    assert not [found for found in look_through(raw, workers=0, progress=False).findings if found.file == path]
    grey, known = dataset.read_image(dataset.train[0])[0], (label > 0) & (label < 4)
    found = extract(replace(dataset, train=dataset.train[:1]))
    [record] = found.intensity  # of the layers, without what is unknown
    assert found.ignore and not extract(open_dataset(write_nnunet_raw(tmp_path / "all"))).ignore
    assert (record["mean"], record["max"]) == (pytest.approx(grey[known].mean()), grey[known].max())
    # of another data set such pixels stay what they are
    extra = detect._extra_cases(open_dataset(write_nnunet_raw(tmp_path / "own", labels=("choroid", "rnfl", "gcipl"))),
                                dataset)[0]
    assert np.array_equal(dataset.read_mask(extra), np.array([0, 2, 3, 1, IGNORE])[label])


def without(key):
    def damage(raw):
        content = read_json(raw / "dataset.json")
        del content[key]
        write_json(raw / "dataset.json", content)
    return damage


def image_of(name, size=(40, 48)):
    return lambda raw: Image.fromarray(np.ones(size, np.uint8)).save(raw / name)


@pytest.mark.parametrize(("damage", "names", "reason"), [
    (without("file_ending"), "dataset.json", "file_ending: Field required"),
    (changed(file_ending=".nii"), "imagesTr", r"found no files \*.nii"),
    (changed(channel_names={"1": "OCT"}), "dataset.json", "names stand by number"),
    (changed(channel_names={"0": "OCT", "1": "more"}), "eye_001_0001.png", "not found, expected a file for each of 2"),
    (changed(labels={"background": 0, "ignore": 1, "a": 2}), "dataset.json", "expected ignore as the last"),
    (changed(labels={"background": 0, "ignore": 1}), "dataset.json", "found 1 labels"),
    (changed(labels={"background": 0, "whole": [1, 2], "core": 2}), "'whole'", "is a region"),
    (changed(labels={"background": 0, "a": 1, "b": 3}), "dataset.json", "background 0, others 1, 2, … without a gap"),
    (changed(labels={"a": 0, "b": 1}), "dataset.json", "expected background 0"),
    (changed(labels={"background": 0, "a": True}), "dataset.json", "labels.a"),
    (changed(labels={"background": 0, "a": "1"}), "dataset.json", "labels.a"),
    (changed(labels={"background": 0}), "dataset.json", "found 1 labels"),
    (changed(labels={}), "dataset.json", "found the labels {}"),
    (changed(labels=["background", "a"]), "dataset.json", "labels: Input"),
    (image_of("imagesTr/eye_001_0001.png"), "eye_001_0001.png", "from 0000 to 0000"),
    (image_of("imagesTs/eye_001_0000.png"), "imagesTs/eye_001_0000.png", "same name")])
def test_each_fault_gets_an_error_that_names_it(raw, damage, names, reason):
    damage(raw)
    with pytest.raises(OctkitError, match=reason) as error:
        open_dataset(raw)
    assert names in str(error.value)
