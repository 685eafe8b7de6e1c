import gzip
import shutil

import numpy as np
import pandas as pd
import pytest
from helpers import GREYS, striped_volume, write_goals, write_mgunet, write_nnunet_raw, write_volumes
from PIL import Image

from octkit.common.errors import OctkitError
from octkit.common.files import read_json, write_json
from octkit.data.image_files import image_size, read_image
from octkit.data.layouts.detect import open_dataset
from octkit.data.volume_files import volume_spacing, write_nifti
from octkit.exchange import nnunet_data
from octkit.exchange.nnunet_data import export_dataset, import_dataset, is_raw_folder
from octkit.phantoms.data_sets import make_data_set


def files_of(root):
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def there_and_back(tmp_path, root):
    """A data set exported and imported again, and the raw data set between."""
    raw = export_dataset(root, tmp_path / "Dataset007_Tiny")
    return raw, import_dataset(raw, tmp_path / "back")


def as_rgb(path):
    Image.fromarray(np.asarray(Image.open(path))).convert("RGB").save(path, optimize=True)


def same_scans(raw, root):
    """nnU-Net's training cases hold the same images and labels as ours."""
    theirs, ours = open_dataset(raw), open_dataset(root)
    assert [case.name for case in theirs.train] == [case.name for case in ours.train]
    assert {case.name for case in theirs.test} == {case.name for case in ours.validation + ours.test}
    assert theirs.labels == ours.labels
    for one, other in zip(theirs.train, ours.train, strict=True):
        assert np.array_equal(theirs.read_image(one), ours.read_image(other))
        assert np.array_equal(theirs.read_mask(one), ours.read_mask(other))


def test_phantoms_go_round_file_for_file(tmp_path):
    make_data_set(tmp_path / "phantom", (2, 1, 1), (64, 96))
    raw, back = there_and_back(tmp_path, tmp_path / "phantom")
    assert files_of(back) == files_of(tmp_path / "phantom")
    same_scans(raw, back)
    # Masks of our own make are made again, not carried along.
    assert not (raw / "octkit" / "Train" / "Layer_Masks").exists() and (raw / "octkit" / "Truth").exists()


def test_goals_as_others_write_it_goes_round_file_for_file(tmp_path):
    root = write_goals(tmp_path / "goals")
    for folder in ("Train/Image", "Validation/Image"):  # grey stored as RGB, as some of the challenge's files may be
        as_rgb(next((root / folder).iterdir()))
    for mask in (root / "Train" / "Layer_Masks").iterdir():  # another PNG writer: the same pixels, other bytes
        Image.open(mask).save(mask, optimize=True)
    raw, back = there_and_back(tmp_path, root)
    assert files_of(back) == files_of(root)
    same_scans(raw, root)
    assert len(list((raw / "octkit" / "Train" / "Layer_Masks").iterdir())) == 6


def test_what_nnunet_reads(tmp_path, goals):
    raw = export_dataset(goals, tmp_path / "Dataset007_Tiny")
    assert read_json(raw / "dataset.json") == {
        "name": "Dataset007_Tiny", "channel_names": {"0": "CT"}, "numTraining": 6, "file_ending": ".png",
        "labels": {"background": 0, "rnfl": 1, "gcipl": 2, "choroid": 3}}
    assert (raw / "imagesTr" / "0001_0000.png").read_bytes() == (goals / "Train" / "Image" / "0001.png").read_bytes()
    assert sorted(file.name for file in (raw / "imagesTs").iterdir()) == ["0007_0000.png", "0008_0000.png"]
    mask, original = (np.asarray(Image.open(path)) for path in (raw / "labelsTr" / "0001.png",
                                                                goals / "Train" / "Layer_Masks" / "0001.png"))
    assert np.array_equal(GREYS[mask], original)


def test_glaucoma_labels_and_the_coding_are_kept(tmp_path, goals):
    kept = read_json(export_dataset(goals, tmp_path / "Dataset007_Tiny") / "octkit.json")
    assert kept["mask_values"] == {"0": 1, "80": 2, "160": 3, "255": 0}
    table = pd.read_excel(goals / "Train" / "Train_GC_GT.xlsx")
    assert [kept["cases"][f"{number:04d}"]["glaucoma"] for number in table["ImgName"]] == list(table["GC_Label"])
    assert kept["cases"]["0007"]["split"] == "validation" and kept["cases"]["0007"]["glaucoma"] is None


def test_a_scan_that_stores_grey_as_rgb_has_one_channel_there(tmp_path, goals):
    original = goals / "Train" / "Image" / "0001.png"
    as_rgb(original)
    raw = export_dataset(goals, tmp_path / "Dataset007_Tiny")
    assert Image.open(raw / "imagesTr" / "0001_0000.png").mode == "L"
    assert np.array_equal(read_image(raw / "imagesTr" / "0001_0000.png"), read_image(original))


@pytest.mark.parametrize("stacks", [False, True])
def test_volumes_go_round_file_for_file(tmp_path, stacks):
    root = write_volumes(tmp_path / "volumes", train=2, validation=1, stacks=stacks)
    raw, back = there_and_back(tmp_path, root)
    assert files_of(back) == files_of(root)
    same_scans(raw, root)
    first = next(iter(open_dataset(root).train))
    assert volume_spacing(raw / "imagesTr" / f"{first.name}_0000.nii.gz") == pytest.approx(first.spacing)


def test_volumes_of_several_kinds_go_round(tmp_path):
    """An unpacked volume with a packed mask, and B-scans with a NIfTI mask."""
    root = write_volumes(tmp_path / "volumes", train=2, validation=1, stacks=False)
    packed = root / "Train" / "Image" / "0001.nii.gz"
    (packed.parent / "0001.nii").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    stacks = write_volumes(tmp_path / "stacks", train=2, validation=1, stacks=True)
    (root / "Train" / "Image" / "0002.nii.gz").unlink()
    shutil.copytree(stacks / "Train" / "Image" / "0002", root / "Train" / "Image" / "0002")
    raw, back = there_and_back(tmp_path, root)
    assert files_of(back) == files_of(root)
    same_scans(raw, root)
    assert not (raw / "octkit" / "Train" / "Image" / "0001.nii").exists()


def test_unpacked_volumes_stay_unpacked(tmp_path):
    root = tmp_path / "volumes"
    for number in (1, 2):
        image, label = striped_volume(number)
        write_nifti(root / "Train" / "Image" / f"{number:04d}.nii", image, (0.1, 0.01, 0.01))
        write_nifti(root / "Train" / "Mask" / f"{number:04d}.nii.gz", label, (0.1, 0.01, 0.01))
    raw, back = there_and_back(tmp_path, root)
    assert files_of(back) == files_of(root) and read_json(raw / "dataset.json")["file_ending"] == ".nii"
    same_scans(raw, root)


def test_a_coding_of_many_values_goes_round(tmp_path):
    root = write_mgunet(tmp_path / "mgunet")
    raw, back = there_and_back(tmp_path, root)
    assert files_of(back) == files_of(root)
    same_scans(raw, root)


@pytest.mark.parametrize(("ending", "channels"), [(".png", ("OCT",)), (".nii.gz", ("OCT", "angio"))])
def test_a_foreign_raw_data_set_is_checked_and_copied(tmp_path, ending, channels):
    raw = write_nnunet_raw(tmp_path / "Dataset002_Other", ending=ending, channels=channels)
    (raw / "notes.txt").write_text("no case's")
    back = import_dataset(raw, tmp_path / "back")
    assert files_of(back) == {name: data for name, data in files_of(raw).items() if name != "notes.txt"}
    assert open_dataset(back).layout == "nnunet" and is_raw_folder(back)


def test_a_raw_data_set_that_does_not_fit_together_is_refused_and_nothing_is_left(tmp_path):
    raw = write_nnunet_raw(tmp_path / "Dataset002_Other")
    next((raw / "labelsTr").iterdir()).unlink()
    with pytest.raises(OctkitError, match="has no mask"):
        import_dataset(raw, tmp_path / "back")
    assert [path.name for path in tmp_path.iterdir()] == [raw.name]


@pytest.mark.parametrize("name", ["GOALS", "Dataset1_GOALS", "Dataset001", "Dataset001_"])
def test_names_that_nnunet_would_not_find_are_refused(tmp_path, goals, name):
    with pytest.raises(OctkitError, match="such as Dataset001_GOALS"):
        export_dataset(goals, tmp_path / name)


def test_folders_that_are_there_and_raw_data_are_refused(tmp_path, goals):
    raw = export_dataset(goals, tmp_path / "Dataset007_Tiny")
    with pytest.raises(OctkitError, match="is there already, expected a new folder"):
        export_dataset(goals, raw)
    with pytest.raises(OctkitError, match="is there already, expected a new folder"):
        import_dataset(raw, goals)
    with pytest.raises(OctkitError, match="is a raw data set of nnU-Net's already"):
        export_dataset(raw, tmp_path / "Dataset008_Again")


def test_a_mask_with_foreign_values_stops_the_export_and_nothing_is_left(tmp_path, goals):
    Image.fromarray(np.full((40, 48), 7, np.uint8)).save(goals / "Train" / "Layer_Masks" / "0003.png")
    with pytest.raises(OctkitError, match=r"0003\.png: found mask values 7"):
        export_dataset(goals, tmp_path / "Dataset007_Tiny")
    assert [path.name for path in tmp_path.iterdir()] == ["goals"]


def test_what_has_changed_in_between_is_named(tmp_path, goals):
    raw = export_dataset(goals, tmp_path / "Dataset007_Tiny")
    scan = raw / "imagesTr" / "0002_0000.png"
    Image.fromarray(np.zeros(image_size(scan), np.uint8)).save(scan)
    with pytest.raises(OctkitError, match=r"imagesTr/0002_0000\.png: has changed since octkit wrote it"):
        import_dataset(raw, tmp_path / "back")
    scan.unlink()
    with pytest.raises(OctkitError, match=r"imagesTr/0002_0000\.png: not found"):
        import_dataset(raw, tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("entry", [
    {"file": "../evil", "sha256": ""}, {"file": "/evil", "sha256": ""}, {"file": "a", "from": "../../b", "sha256": ""},
    {"file": "a\\..\\b", "sha256": ""}, {"file": 1, "sha256": ""}, {"file": "a"}, "a"])
def test_a_manifest_that_leads_out_of_its_folder_is_refused(tmp_path, goals, entry):
    raw = export_dataset(goals, tmp_path / "Dataset007_Tiny")
    kept = read_json(raw / "octkit.json")
    write_json(raw / "octkit.json", kept | {"files": [*kept["files"], entry]})
    with pytest.raises(OctkitError, match="expected a file within the folder"):
        import_dataset(raw, tmp_path / "back")
    for content in ([], {}, kept | {"version": 2}, kept | {"files": []}):
        write_json(raw / "octkit.json", content)
        with pytest.raises(OctkitError, match="in version 1"):
            import_dataset(raw, tmp_path / "back")


def test_a_gz_that_unpacks_to_too_much_is_refused_and_nothing_is_left(tmp_path, monkeypatch):
    """Where all images are .nii, nnU-Net wants the masks so as well: they are unpacked."""
    root = write_volumes(tmp_path / "set", train=2)
    for packed in [*root.glob("*/Image/*.nii.gz")]:
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    monkeypatch.setattr(nnunet_data, "MAX_UNPACKED", 1000)
    with pytest.raises(OctkitError, match=r"Mask/0001.nii.gz: unpacks to more than the limit of 1000 bytes"):
        export_dataset(root, tmp_path / "Dataset001_X")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
