import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
from helpers import (
    striped_scan,
    striped_volume,
    write_goals,
    write_mgunet,
    write_nnunet_raw,
    write_semseg,
    write_stack,
    write_volumes,
)
from hypothesis import example, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from PIL import Image

from octkit.common import settings
from octkit.common.errors import OctkitError
from octkit.common.files import write_json
from octkit.data.labels import LAYERS
from octkit.data.layouts.detect import list_scans, open_dataset, open_run
from octkit.data.volume_files import write_nifti


def chosen(root, *extra):
    changes = {"data": {"dir": str(root)}, "train": {"extra_data": [str(folder) for folder in extra]}}
    return settings.Settings.model_validate(changes)


@pytest.mark.parametrize(("write", "layout"), [(write_goals, "goals"), (write_volumes, "volumes"),
                                               (write_nnunet_raw, "nnunet"), (write_mgunet, "mgunet"),
                                               (write_semseg, "semseg")])
def test_each_layout_is_found_out(tmp_path, write, layout):
    dataset = open_dataset(write(tmp_path / "set"))
    assert (dataset.layout, dataset.name, dataset.root) == (layout, "set", tmp_path / "set")


@pytest.mark.parametrize("given", ["", "goals/Train"])
def test_a_folder_beside_the_right_one_names_it(goals, tmp_path, given):
    """A download that was unpacked a folder deeper, or a folder within a data set."""
    with pytest.raises(OctkitError) as error:
        open_dataset(tmp_path / given)
    assert str(error.value) == f"{tmp_path / given}: found no data set, expected the folder of one, such as {goals}"


def test_a_run_without_extra_data_is_its_data_set(goals):
    assert open_run(chosen(goals)) == open_dataset(goals)


def test_extra_cases_are_read_as_the_runs_own(goals, tmp_path):
    dataset = open_run(chosen(goals, write_mgunet(tmp_path / "MGU"), write_nnunet_raw(tmp_path / "raw")))
    assert [case.name for case in dataset.extra] == [
        "MGU_train_1", "MGU_train_2", "MGU_train_3", "MGU_eval_1", "MGU_test_1",
        "raw_eye_001", "raw_eye_002", "raw_eye_003", "raw_eye_004"]
    assert len(dataset.train) == 6 and len(dataset.training) == 15
    expected = striped_scan(5)[1]
    expected[-2:] = 0
    np.testing.assert_array_equal(dataset.read_mask(dataset.extra[4]), expected)
    np.testing.assert_array_equal(dataset.read_mask(dataset.extra[5]), striped_scan(1)[1])
    np.testing.assert_array_equal(dataset.read_image(dataset.extra[5])[0], striped_scan(1)[0])


def test_labels_are_matched_by_name(goals, tmp_path):
    raw = write_nnunet_raw(tmp_path / "raw", labels=("choroid", "rnfl", "gcipl"))
    dataset = open_run(chosen(goals, raw))
    assert dataset.labels == LAYERS
    np.testing.assert_array_equal(dataset.read_mask(dataset.extra[0]), np.array([0, 3, 1, 2])[striped_scan(1)[1]])


def test_folders_are_relative_to_the_project(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "PROJECT", tmp_path)
    write_goals(tmp_path / "data" / "own")
    write_goals(tmp_path / "data" / "more", train=2)
    dataset = open_run(chosen("data/own", "data/more"))
    assert [case.name for case in dataset.extra] == ["more_0001", "more_0002"]


@pytest.mark.parametrize(("write", "reason"), [
    (lambda path: write_nnunet_raw(path, labels=("rnfl", "gcipl")), "found the labels rnfl, gcipl, "
                                                                    "expected rnfl, gcipl, choroid like"),
    (lambda path: write_nnunet_raw(path, labels=("rnfl", "gcipl", "choroid", "disc")), "found the labels .*disc"),
    (lambda path: write_nnunet_raw(path, channels=("a", "b")), "found 2 channels, expected 1"),
    (lambda path: write_volumes(path), "0001.nii.gz: found 3 axes, expected 2")])
def test_extra_data_of_another_kind_is_refused(goals, tmp_path, write, reason):
    with pytest.raises(OctkitError, match=reason):
        open_run(chosen(goals, write(tmp_path / "more")))


def test_a_data_set_is_not_its_own_extra_data(goals, tmp_path):
    with pytest.raises(OctkitError, match="goals: stands twice"):
        open_run(chosen(goals, goals / ".." / "goals"))
    more = write_goals(tmp_path / "more")
    with pytest.raises(OctkitError, match="more: stands twice"):
        open_run(chosen(goals, more, more))


def test_names_that_still_collide_are_refused(goals, tmp_path):
    with pytest.raises(OctkitError, match="b/more/Train/Image/0001.png: .*a/more/.*/0001.png has the same"):
        open_run(chosen(goals, write_goals(tmp_path / "a" / "more"), write_goals(tmp_path / "b" / "more")))


@pytest.fixture
def scans(tmp_path):
    folder = tmp_path / "scans"
    write_stack(folder / "b", striped_volume(1)[0], (0.1, 0.1, 0.1))
    write_nifti(folder / "a.nii.gz", striped_volume(2)[0])
    Image.fromarray(striped_scan(1)[0]).save(folder / "c.png")
    return folder


def test_scans_of_all_kinds_can_be_predicted(scans):
    assert list_scans(scans) == (scans / "a.nii.gz", scans / "b", scans / "c.png")
    for name in ("a.nii.gz", "b", "c.png"):
        assert list_scans(scans / name) == (scans / name,)


def test_b_scans_without_spacing_are_single_images_where_they_are_asked_for(scans):
    (scans / "b" / "spacing.json").unlink()
    assert [path.name for path in list_scans(scans / "b")] == ["000.png", "001.png", "002.png"]
    with pytest.raises(OctkitError, match="scans/b: found no spacing.json"):
        list_scans(scans)


def test_what_cannot_be_predicted_is_named(scans):
    write_json(scans / "notes.json", {})
    with pytest.raises(OctkitError, match="notes.json: is no scan"):
        list_scans(scans / "notes.json")


NAMES = st.text(st.sampled_from("a1٣é 漢.-_'\n\\~"), min_size=1, max_size=6)
FILES = st.sets(NAMES.map(lambda name: name + ".png") | st.sampled_from(["words.txt", ".hidden.png", "b.PNG"]),
                max_size=4)


def fill(folder, names, content):
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_bytes(content if name.lower().endswith(".png") else b"words")


@hypothesis(max_examples=60)
@given(images=FILES, masks=st.none() | FILES, broken=st.booleans())
def test_any_names_are_cases_or_an_error(images, masks, broken):
    """MGU-Net's layout takes any name: the cases are exactly the visible PNGs, or there is an OctkitError."""
    png = io.BytesIO()
    Image.new("L", (9, 8)).save(png, "PNG")
    masks = images if masks is None else masks
    with tempfile.TemporaryDirectory() as root:
        root = Path(root)
        fill(root / "train" / "img", images, png.getvalue()[:10 if broken else None])
        fill(root / "train" / "mask", masks, png.getvalue())
        visible, their_masks = ({name for name in names if name.lower().endswith(".png") and name[0] != "."}
                                for names in (images, masks))
        try:
            dataset = open_dataset(root)
        except OctkitError as error:
            assert broken or not visible or {n[:-4] for n in visible} != {n[:-4] for n in their_masks}, error
            return
        assert not broken
        assert sorted(case.image.name for case in dataset.train) == sorted(visible)
        assert all(case.mask.stem == case.image.stem for case in dataset.train)


@hypothesis(max_examples=40)
@example({"train/semseg/1.png"}, b"")
@given(st.sets(st.sampled_from(["Train/Image/0001.png", "Train/Image/1.png", "Train/Image/x.png", "Train/Mask/0001.png",
                                "Train/Layer_Masks/0001.png", "Train/Layer_Masks/x.png", "Train/Train_GC_GT.xlsx",
                                "Validation/Image/0002.png", "Validation/x", "scale.json", "labels.json",
                                "imagesTr/a_0000.png", "labelsTr/a.png", "dataset.json", "Train/Image/0001/0.png",
                                "Train/Image/0001/spacing.json", "train/img/1.png", "train/mask/1.png", "Test",
                                "bscan/1.png", "semseg/1.png", "train/bscan/1.png", "train/semseg/1.png"])),
       st.sampled_from([b"", b"{}", b"[]", b'{"labels": 3}', "png"]))
def test_any_set_of_files_is_a_data_set_or_an_error(files, content):
    png = io.BytesIO()
    Image.new("L", (9, 8)).save(png, "PNG")
    with tempfile.TemporaryDirectory() as root:
        for file in sorted(files, reverse=True):
            path = Path(root, file)
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                path.write_bytes(png.getvalue() if content == "png" or file.endswith(".png") else content)
        try:
            dataset = open_dataset(root)
        except OctkitError:
            return
        assert dataset.train and all(case.image.exists() for case in dataset.training)
