import gzip
import shutil

import nibabel
import numpy as np
import pytest
from helpers import GREYS, save_anew, striped_volume, to_16_bits, write_mgunet, write_nnunet_raw, write_volumes
from PIL import Image

from octkit.common.errors import OctkitError
from octkit.common.files import read_json, write_json
from octkit.data.dataset import read_scan
from octkit.data.image_files import read_header, write_png
from octkit.data.layouts.detect import open_dataset
from octkit.data.volume_files import read_volume, volume_spacing
from octkit.exchange.nnunet_data import export_dataset, import_dataset


def files_of(root):
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def goes_round(tmp_path, root):
    """The raw data set that a data set becomes; on the way back all is as it was, but for how files are packed."""
    raw = export_dataset(root, tmp_path / "Dataset007_Tiny")
    back = import_dataset(raw, tmp_path / "back")
    theirs, ours, again = open_dataset(raw), open_dataset(root), open_dataset(back)
    assert (again.labels, again.channels, again.mask_values) == (ours.labels, ours.channels, ours.mask_values)
    for split in ("train", "validation", "test"):
        for case, other in zip(getattr(again, split), getattr(ours, split), strict=True):
            assert (case.name, case.glaucoma, case.circle, case.spacing) == (
                other.name, other.glaucoma, other.circle, other.spacing)
            assert np.array_equal(again.read_image(case), ours.read_image(other))
            if other.mask:  # as stored in the file, whatever label it stands for
                assert np.array_equal(read_scan(case.mask), read_scan(other.mask))
    unpacked = {name.removesuffix(".gz") for name in files_of(back)}
    assert unpacked == {name.removesuffix(".gz") for name in files_of(root)}
    assert all(files_of(back)[name] == data for name, data in files_of(root).items()
               if not name.endswith((".png", ".nii", ".gz")))
    # nnU-Net's training cases hold the same images and labels as ours.
    assert theirs.labels == ours.labels
    assert {case.name for case in theirs.test} == {case.name for case in ours.validation + ours.test}
    for case, other in zip(theirs.train, ours.train, strict=True):
        assert case.name == other.name
        assert np.array_equal(theirs.read_image(case), ours.read_image(other))
        assert np.array_equal(theirs.read_mask(case), ours.read_mask(other))
    return raw


def as_rgb(path):
    Image.fromarray(np.asarray(Image.open(path))).convert("RGB").save(path, optimize=True)


def test_goals_goes_round(tmp_path, goals):
    for folder in ("Train/Image", "Validation/Image"):  # grey stored as RGB, as some of the challenge's files may be
        as_rgb(next((goals / folder).iterdir()))
    raw = goes_round(tmp_path, goals)
    assert {Image.open(file).mode for file in raw.glob("images*/*.png")} == {"L"}
    # Masks are made again, not carried along.
    assert not (raw / "octkit" / "Train" / "Layer_Masks").exists() and (raw / "octkit" / "Truth").exists()


@pytest.mark.parametrize(("ending", "change"), [(".tif", to_16_bits), (".bmp", np.asarray), (".png", to_16_bits)])
def test_images_of_other_formats_become_8_bit_pngs(tmp_path, goals, ending, change):
    original = open_dataset(goals)
    pixels = {case.name: original.read_image(case) for case in original.cases}
    for folder, changed in (("Train/Image", change), ("Train/Layer_Masks", np.asarray), ("Validation/Image", change)):
        save_anew(goals / folder, ending, changed)
    raw = export_dataset(goals, tmp_path / "Dataset007_Tiny")
    back = open_dataset(import_dataset(raw, tmp_path / "back"))
    for dataset in (open_dataset(raw), back):
        for case in dataset.cases:
            assert read_header(case.image).bits == 8 and case.image.suffix == ".png"
            np.testing.assert_array_equal(dataset.read_image(case), pixels[case.name])
    assert [case.glaucoma for case in back.train] == [case.glaucoma for case in original.train]


def test_a_scan_that_8_bits_cannot_hold_is_refused_and_nothing_is_left(tmp_path, goals):
    save_anew(goals / "Train/Image", ".tif", lambda grey: to_16_bits(grey) - grey)
    with pytest.raises(OctkitError, match="0001.tif: has more than 256 grey values"):
        export_dataset(goals, tmp_path / "Dataset007_Tiny")
    assert not (tmp_path / "Dataset007_Tiny").exists()


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


def test_whose_scans_they_are_is_known_there_and_back(tmp_path, goals):
    (goals / "groups.csv").write_text("ImgName,person,eye\n0001.png,a,R\n2,a,L\n0008,b,\n")
    raw = goes_round(tmp_path, goals)
    copied = import_dataset(shutil.copytree(raw, tmp_path / "Dataset008_Other", ignore=shutil.ignore_patterns(
        "octkit*")), tmp_path / "copied")
    for root in (raw, tmp_path / "back", copied):
        assert [case.group for case in open_dataset(root).cases] == ["a", "a", None, None, None, None, None, "b"]


@pytest.mark.parametrize("stacks", [False, True])
@pytest.mark.parametrize("spacing", [(0.12, 0.004, 0.015), (120.0, 4.0, 15.0)])  # the second is no scale in mm
def test_volumes_go_round(tmp_path, stacks, spacing):
    root = write_volumes(tmp_path / "volumes", train=2, validation=1, stacks=stacks, spacing=spacing)
    raw = goes_round(tmp_path, root)
    for file in (raw / "imagesTr/0001_0000.nii.gz", raw / "labelsTr/0001.nii.gz"):
        assert volume_spacing(file) == pytest.approx(spacing)


def test_volumes_of_several_kinds_go_round(tmp_path):
    """An unpacked volume with a packed mask, and B-scans with a NIfTI mask."""
    root = write_volumes(tmp_path / "volumes", train=2, validation=1, stacks=False)
    packed = root / "Train" / "Image" / "0001.nii.gz"
    packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    lying = root / "Train" / "Mask" / "0001.nii.gz"  # not packed, as its name says
    lying.write_bytes(gzip.decompress(lying.read_bytes()))
    stacks = write_volumes(tmp_path / "stacks", train=2, validation=1, stacks=True)
    (root / "Train" / "Image" / "0002.nii.gz").unlink()
    shutil.copytree(stacks / "Train" / "Image" / "0002", root / "Train" / "Image" / "0002")
    raw = goes_round(tmp_path, root)
    assert read_json(raw / "dataset.json")["file_ending"] == ".nii.gz"
    assert all(file.read_bytes()[:2] == b"\x1f\x8b" for file in raw.rglob("*.nii.gz") if file.parent.name != "octkit")


@pytest.fixture
def tiffs(tmp_path):
    """A raw data set of two volumes as TIFF files of 3 pages, 16 bits and 8, with their spacing beside them."""
    raw = write_nnunet_raw(tmp_path / "Dataset001_Tiff", train=2, test=0, ending=".nii.gz")
    for path in raw.rglob("*.nii.gz"):
        pages = read_volume(path)[0].astype(np.uint16 if path.parent.name == "imagesTr" else np.uint8)
        pages = [Image.fromarray(page * 3 if path.parent.name == "imagesTr" else page) for page in pages]
        name = path.name.removesuffix(".nii.gz")
        pages[0].save(path.with_name(f"{name}.tif"), save_all=True, append_images=pages[1:])
        write_json(path.with_name(f"{name.removesuffix('_0000')}.json"), {"spacing": [0.12, 0.004, 0.015]})
        path.unlink()
    write_json(raw / "dataset.json", read_json(raw / "dataset.json") | {"file_ending": ".tif"})
    return raw


def test_volumes_as_tiff_come_in_as_nifti(tmp_path, tiffs):
    with pytest.raises(OctkitError, match=r"\.tif: found more than one page"):
        open_dataset(tiffs)
    dataset = open_dataset(import_dataset(tiffs, tmp_path / "out"))
    for number, case in enumerate(dataset.train, start=1):
        image, label = striped_volume(number)
        assert case.spacing == pytest.approx((0.12, 0.004, 0.015))
        np.testing.assert_array_equal(dataset.read_image(case)[0], image * 3.0)
        np.testing.assert_array_equal(dataset.read_mask(case), label)


@pytest.mark.parametrize(("change", "found"), [
    (lambda raw: (raw / "labelsTr/eye_001.json").unlink(), "labelsTr/eye_001.json: not found"),
    (lambda raw: write_json(raw / "imagesTr/eye_001.json", {"spacing": [1, 2]}), "eye_001.json: is not valid"),
    (lambda raw: (raw / "imagesTr/eye_002_0000.tif").write_bytes(b"II*\0"), "eye_002_0000.tif: cannot be read"),
    (lambda raw: Image.new("RGB", (8, 8)).save(raw / "labelsTr/eye_001.tif"), "eye_001.tif: cannot .* mode RGB"),
    (lambda raw: Image.new("L", (8, 8)).save(raw / "labelsTr/eye_001.tif"), "eye_001.*found")])
def test_tiff_volumes_that_do_not_fit_are_refused(tmp_path, tiffs, change, found):
    change(tiffs)
    with pytest.raises(OctkitError, match=found):
        import_dataset(tiffs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_masks_stored_in_another_order_are_written_like_their_images(tmp_path):
    """nnU-Net compares no geometry: it would take a mask in the order of its file."""
    root = write_volumes(tmp_path / "volumes", train=2, validation=0)
    path = root / "Train" / "Mask" / "0001.nii.gz"
    nibabel.save(nibabel.load(path).as_reoriented(np.array([[2, -1], [1, 1], [0, 1]])), path)
    raw = export_dataset(root, tmp_path / "Dataset007_Tiny")
    np.testing.assert_array_equal(read_scan(raw / "labelsTr" / "0001.nii.gz")[0], striped_volume(1)[1])


def test_a_mask_that_came_back_from_nnunet_in_another_order(tmp_path):
    root = write_volumes(tmp_path / "volumes", train=2, validation=0, stacks=True)
    raw = export_dataset(root, tmp_path / "Dataset007_Tiny")
    path = raw / "labelsTr" / "0001.nii.gz"
    nibabel.save(nibabel.load(path).as_reoriented(np.array([[0, -1], [1, 1], [2, -1]])), path)
    back = open_dataset(import_dataset(raw, tmp_path / "back"))
    np.testing.assert_array_equal(back.read_mask(back.train[0]), striped_volume(1)[1])


def test_b_scans_without_zeros_in_their_names_go_round(tmp_path):
    root = write_volumes(tmp_path / "volumes", train=2, validation=0, size=(11, 40, 48), stacks=True)
    for file in sorted((root / "Train").rglob("*.png")):
        file.rename(file.with_stem(str(int(file.stem))))
    goes_round(tmp_path, root)


def test_a_coding_of_many_values_goes_round(tmp_path):
    goes_round(tmp_path, write_mgunet(tmp_path / "mgunet"))


@pytest.mark.parametrize(("ending", "channels"), [(".png", ("OCT",)), (".nii.gz", ("OCT", "angio"))])
def test_a_foreign_raw_data_set_is_checked_and_copied(tmp_path, ending, channels):
    raw = write_nnunet_raw(tmp_path / "Dataset002_Other", ending=ending, channels=channels)
    (raw / "notes.txt").write_text("no case's")
    back = import_dataset(raw, tmp_path / "back")
    assert files_of(back) == {name: data for name, data in files_of(raw).items() if name != "notes.txt"}
    assert open_dataset(back).layout == "nnunet"


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


def test_a_mask_that_has_changed_comes_back_changed_and_a_missing_file_is_named(tmp_path, goals):
    raw = export_dataset(goals, tmp_path / "Dataset007_Tiny")
    mask = raw / "labelsTr" / "0002.png"
    write_png(mask, np.full(read_header(mask).size, 2))
    back = open_dataset(import_dataset(raw, tmp_path / "back"))
    assert (back.read_mask(back.train[1]) == 2).all()
    write_png(mask, np.full(read_header(mask).size, 9))
    with pytest.raises(OctkitError, match=r"labelsTr/0002\.png: found mask values 9"):
        import_dataset(raw, tmp_path / "again")
    (raw / "octkit" / "Train" / "Train_GC_GT.xlsx").unlink()
    write_png(mask, np.full(read_header(mask).size, 2))
    with pytest.raises(OctkitError, match=r"Train_GC_GT\.xlsx: not found"):
        import_dataset(raw, tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("entry", [
    {"file": "../evil"}, {"file": "/evil"}, {"file": "a", "from": "../../b"}, {"file": "a\\..\\b"}, {"file": 1}, "a",
    {"file": "a", "from": "labelsTr/0001.png", "coding": {"1": 256}}, {"file": "a", "from": "b", "slice": -1}])
def test_a_manifest_that_leads_out_of_its_folder_is_refused(tmp_path, goals, entry):
    raw = export_dataset(goals, tmp_path / "Dataset007_Tiny")
    kept = read_json(raw / "octkit.json")
    for content in (kept | {"files": [*kept["files"], entry]}, [], {}, kept | {"version": 2}, kept | {"files": []}):
        write_json(raw / "octkit.json", content)
        with pytest.raises(OctkitError, match=r"octkit\.json: is not valid"):
            import_dataset(raw, tmp_path / "back")


def test_a_manifest_does_not_bring_in_what_a_hidden_link_leads_to(tmp_path, goals):
    raw = export_dataset(goals, tmp_path / "Dataset001_Set")
    (tmp_path / "private").write_text("mine")
    (raw / ".x").mkdir()
    (raw / ".x" / "y").symlink_to(tmp_path / "private")
    manifest = read_json(raw / "octkit.json")
    write_json(raw / "octkit.json", manifest | {"files": [*manifest["files"], {"file": "notes", "from": ".x/y"}]})
    with pytest.raises(OctkitError, match=r"\.x/y: is a symbolic link to .*private"):
        import_dataset(raw, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_manifest_that_asks_for_what_is_not_there_is_refused(tmp_path, goals):
    raw = export_dataset(goals, tmp_path / "Dataset007_Tiny")
    kept = read_json(raw / "octkit.json")
    for entry, found in (({"file": "a", "from": "imagesTr"}, "imagesTr: not found"),
                         ({"file": "a", "from": "imagesTr/0001_0000.png", "slice": 3}, "no B-scan 3")):
        write_json(raw / "octkit.json", kept | {"files": [*kept["files"], entry]})
        with pytest.raises(OctkitError, match=found):
            import_dataset(raw, tmp_path / "back")
