"""The corruption suite: each kind of damage of tests/damages.py, and all that the doctor says of it."""

import json
import os
import shutil
from pathlib import Path

import damages
import numpy as np
import pytest
from helpers import write_goals, write_mgunet, write_nnunet_raw
from PIL import Image

from octkit.common import settings
from octkit.common.errors import OctkitError
from octkit.common.files import read_json
from octkit.data.doctor import data_set
from octkit.data.doctor.data_set import look_through
from octkit.data.layouts.detect import open_dataset
from octkit.phantoms.data_sets import make_data_set

KINDS = {"GOALS": damages.GOALS, "VOLUMES": damages.VOLUMES, "RAW": damages.RAW, "MGUNET": damages.MGUNET}

UNDIAGNOSED = "warning Train/Image: found 6 training scans"
WITHOUT_DIAGNOSES = ("RAW", "MGUNET")  # layouts that have no place for them, which is one warning more

# Each kind of damage -> how each line about it begins, without the data set's folder; " … " stands for anything.
EXPECTED = {
    "zero bytes": ["error   Train/Image/0003.png: cannot be read as an image (is empty, 0 bytes)"],
    "truncated": ["error   Train/Image/0003.png: is damaged (Truncated File Read)"],
    "header alone": ["error   Train/Image/0003.png: cannot be read as an image (is damaged, or no PNG that octkit"],
    "a flipped bit": ["error   Train/Image/0003.png: is damaged (broken PNG file"],
    "text": ["error   Train/Image/0003.png: cannot be read as an image (is damaged, or no PNG that octkit reads)"],
    "a JPEG": ["error   Train/Image/0003.png: cannot be read as an image (holds a JPEG)"],
    "16-bit": [],
    "dark 16-bit": ["error   Train/Image/0003.png: holds 16-bit values of at most 5100"],
    "dark": ["warning Train/Image/0003.png: has grey values … far too dark beside others' "],
    "inverted scans": ["warning Train/Image/0002.png: has grey values … , as have 1 more, inverted, or too bright in "
        "most pixels beside others' "],
    "0 to 1": ["warning Train/Image/0002.nii.gz: has grey values 0.098 to 0.79, far too dark beside others' "],
    "two ranges": ["warning Train/Image/0003.nii.gz: has grey values … , as have 1 more, far too dark beside others' "],
    "palette": ["error   Train/Image/0003.png: found a colour image"],
    "transparent": ["error   Train/Image/0003.png: found transparent pixels"],
    "opaque alpha": ["warning Train/Image/0003.png: has an alpha channel, opaque and passed over"],
    "grey with opaque alpha": ["warning Train/Image/0003.png: has an alpha channel, opaque and passed over"],
    "colour": ["error   Train/Image/0003.png: found a colour image"],
    "decompression bomb": ["error   Train/Image/0003.png: has more pixels than the limit"],
    "a folder named as an image": ["error   Train/Image/0003.png: is a folder"],
    "a pipe named as an image": ["error   Train/Image/0003.png: is a pipe or a device"],
    "constant": ["error   Train/Image/0003.png: holds the one value 7 throughout"],
    "constant validation image": ["warning Validation/Image/0007.png: holds the one value 0 throughout"],
    "image without mask": ["error   Train/Image/0003.png: has no mask"],
    "mask without image": ["error   Train/Layer_Masks/0003.png: has no image"],
    "mask of another size": ["error   Train/Layer_Masks/0003.png: found 95 x 96 px"],
    "mask of label numbers": ["error   Train/Layer_Masks/0003.png: found mask values 1, 2, 3 … they look like"],
    "inverted mask": ["error   Train/Layer_Masks/0003.png: found mask values 95, 175 … it looks inverted"],
    "smoothed mask": ["error   Train/Layer_Masks/0003.png: found mask values 2, 3, 4, 8, 9, 10, 17, 18 … pixels"],
    "spread mask": ["error   Train/Layer_Masks/0003.png: found mask values 85, 170 … they look like"],
    "foreign value": ["error   Train/Layer_Masks/0003.png: found mask values 200"],
    "16-bit mask": [],
    "mask spread to 16 bits": ["error   Train/Layer_Masks/0003.png: found mask values 20560, 41120, 65535 … / 257"],
    "palette mask": ["error   Train/Layer_Masks/0003.png: found mask values 1, 2, 3 (indices … label numbers"],
    "JPEG mask": ["error   Train/Layer_Masks/0003.jpg: is compressed with loss (JPEG), which changes values"],
    "coloured mask": ["error   Train/Layer_Masks/0003.png: found a colour image"],
    "truncated mask": ["error   Train/Layer_Masks/0003.png: is damaged (Truncated File Read)"],
    "zero-byte mask": ["error   Train/Layer_Masks/0003.png: cannot be read as an image (is empty, 0 bytes)"],
    "class missing": ["warning Train/Layer_Masks/0003.png: holds no gcipl"],
    "two classes missing": ["warning Train/Layer_Masks/0003.png: holds no gcipl and no choroid"],
    "background alone": ["warning Train/Layer_Masks/0003.png: holds background alone"],
    "layers out of order": ["warning Train/Layer_Masks/0003.png: has its layers out of order in 4 … first at 10"],
    "upside down": ["error   Train/Layer_Masks/0003.png: has its layers upside down … flip it, and its image where"],
    "greys of another copy": ["error   Train/Layer_Masks/0003.png: shows what no eye has (RNFL on … its values look "
        "like 0 elsewhere, 80 RNFL, 160 GCIPL, 255 choroid: write 255 for 0, 0 for 80, 80 for 160, 160 for 255"],
    "choroid and RNFL exchanged": ["error   Train/Layer_Masks/0003.png: shows what no eye has (RNFL on … its values "
        "look like 0 choroid, 80 GCIPL, 160 RNFL, 255 elsewhere: write 160 for 0, 80 for 80, 0 for 160, 255 for 255"],
    "twins in training": ["warning Train/Image/0005.png: has the same pixels as Train/Image/0003.png"],
    "twins in validation": ["warning Validation/Image/0008.png: has the same pixels as Validation/Image/0007.png"],
    "trained on validation": ["error   Train/Image/0003.png: has the same pixels as Validation/Image/0007.png"],
    "trained on test": ["error   Train/Image/0003.png: has the same pixels as Test/Image/0009.png"],
    "another size": ["warning Train/Image/0003.png: has 99 x 96 px, where most scans have 96 x 96"],
    "no table": [f"{UNDIAGNOSED} (0 with glaucoma, 0 without, 6 not told)"],
    "no workbook": ["error   Train/Train_GC_GT.xlsx: cannot be read as an Excel workbook (File is not a zip file)"],
    "row missing": ["error   Train/Train_GC_GT.xlsx: has no row for Train/Image/0003.png"],
    "row doubled": ["error   Train/Train_GC_GT.xlsx: ImgName 3 stands twice, again in row 8"],
    "label 2": ["error   Train/Train_GC_GT.xlsx: found GC_Label 2 in row 4"],
    "label empty": ["error   Train/Train_GC_GT.xlsx: found GC_Label None in row 4"],
    "label a word": ["error   Train/Train_GC_GT.xlsx: found GC_Label 'glaucoma' in row 4"],
    "name unknown": ["error   Train/Train_GC_GT.xlsx: ImgName 99 has no image"],
    "name no number": ["error   Train/Train_GC_GT.xlsx: found ImgName 'three.png' in row 4",
        "error   Train/Train_GC_GT.xlsx: has no row for Train/Image/0003.png"],
    "name not whole": ["error   Train/Train_GC_GT.xlsx: found ImgName 3.5 in row 4",
        "error   Train/Train_GC_GT.xlsx: has no row for Train/Image/0003.png"],
    "other columns": ["error   Train/Train_GC_GT.xlsx: found columns ['Image', 'Label']"],
    "empty workbook": [f"{UNDIAGNOSED} (0 with glaucoma, 0 without, 6 not told)"],
    "no rows": [f"{UNDIAGNOSED} (0 with glaucoma, 0 without, 6 not told)"],
    "no labels": [f"{UNDIAGNOSED} (0 with glaucoma, 0 without, 6 not told)"],
    "healthy alone": [f"{UNDIAGNOSED} (0 with glaucoma, 6 without)"],
    "one scan with glaucoma": [f"{UNDIAGNOSED} (1 with glaucoma, 5 without)"],
    "two tables": ["error   Train/Train_GC_GT.csv: Train_GC_GT.xlsx lies beside it"],
    "a column twice": ["error   Train/Train_GC_GT.xlsx: found columns ['ImgName', 'GC_Label', 'GC Label']"],
    "entities": ["error   Train/Train_GC_GT.xlsx: holds XML that declares entities"],
    "entities in UTF-16": ["error   Train/Train_GC_GT.xlsx: holds XML that declares entities"],
    "zip bomb": ["error   Train/Train_GC_GT.xlsx: would unpack to 6 parts of 60003600 bytes, more than the limit"],
    "a cell in the last corner": ["error   Train/Train_GC_GT.xlsx: has more than 100000 rows"],
    "image name no number": ["error   Train/Image/three.png: found the name 'three'",
        "error   Train/Train_GC_GT.xlsx: ImgName 3 has no image"],
    "two names for one number": ["error   Train/Image/3.png: 0003.png has the same number"],
    "a name in two splits": ["error   Validation/Image/0001.png: Train/Image/0001.png has the same name",
        "warning Truth/Layer_Masks/0007.png: belongs to no scan"],
    "one name, two endings": ["error   Train/Image/0003.png: 0003.PNG has the same name"],
    "link out of the set": ["error   Train/Image/0003.png: is a symbolic link to ../../../outside.png, outside"],
    "folder linked out of the set": ["error   Train/Layer_Masks: is a symbolic link to ../../outside, outside"],
    "link to nothing": ["error   Train/Image/0003.png: is a symbolic link to nowhere.png, which is not there"],
    "another ending": ["error   Validation/Image/0008.jpg: cannot be read as an image (holds a PNG)"],
    "an unknown ending": ["warning Truth/Layer_Masks/0008.png: belongs to no scan",
        "warning Validation/Image/0008.npy: belongs to no scan"],
    "a JPEG by its name": ["warning Train/Image/0003.jpg: is compressed with loss (JPEG), which has changed its grey"],
    "a file of no use": ["warning Train/Image/notes.xlsx: belongs to no scan of this data set and is passed over"],
    "macOS's files": ["warning Train/Image/._0001.png: is one of 2 hidden files of macOS here, which are passed over"],
    "scale 0": ["error   scale.json: is not valid; um_per_px.0: Input should be greater than 0.01 (found 0)"],
    "scale negative": ["error   scale.json: is not valid; um_per_px.1: Input should be greater than 0.01 (found"],
    "scale in mm": ["error   scale.json: is not valid; um_per_px.0: Input should be greater than 0.01 (found 0.00387)"],
    "scale no JSON": ["error   scale.json: is not valid JSON (Extra data: line 1 column 2 (char 1))"],
    "no images": ["error   Train/Image: no such file or folder"],
    "an empty split": ["error   Test/Image: found no images in this folder",
        "warning Truth/Layer_Masks/0009.png: belongs to no scan"],
    "no data set": ["error   DATA: found no data set"],
    "what octkit leaves beside masks": [],
    "not all unpacked": ["warning Validation: has no scans to predict and score, expected some in Validation/Image"],
    "two layouts": ["error   DATA: found Train/Layer_Masks and imagesTr"],
    "true mask of label numbers": ["error   Truth/Layer_Masks/0007.png: found mask values 1, 2, 3 … they look like"],
    "true labels damaged": ["error   Truth/GC_GT.xlsx: cannot be read as an Excel workbook (File is not a zip file)"],
    "nan": ["error   Train/Image/0002.nii.gz: found 7 voxels that are nan or infinite"],
    "infinite": ["error   Train/Image/0002.nii.gz: found 7 voxels that are nan or infinite"],
    "spacing 0": ["error   Train/Image/0002.nii.gz: found the spacing 2, 0.0140625, 0"],
    "spacing negative": ["error   Train/Image/0002.nii.gz: found the spacing 2, -0.004, 0.09375"],
    "spacing nan": ["error   Train/Image/0002.nii.gz: found the spacing nan, 0.0140625, 0.09375"],
    "truncated volume": ["error   Train/Image/0002.nii.gz: is damaged (Compressed file ended before the"],
    "no gzip": ["error   Train/Image/0002.nii.gz: cannot be read as a NIfTI volume ("],
    "zero-byte volume": ["error   Train/Image/0002.nii.gz: cannot be read as a NIfTI volume (is empty, 0 bytes)"],
    "too many voxels": ["error   Train/Image/0002.nii.gz: 30000 x 30000 x 3 voxels are more than the limit"],
    "four axes": ["error   Train/Image/0002.nii.gz: found 4 x 5 x 6 x 2 voxels"],
    "a single slice": ["error   Train/Image/0002.nii.gz: found a single slice of 64 x 64 px",
        "warning Train/Mask/0002.nii.gz: belongs to no scan"],
    "mask volume of another size": ["error   Train/Mask/0002.nii.gz: found 3 x 62 x 64 voxels"],
    "foreign label": ["error   Train/Mask/0002.nii.gz: found mask values 4, 6 … they look like"],
    "half labels": ["error   Train/Mask/0002.nii.gz: found mask values 1.5"],
    "constant volume": ["error   Train/Image/0002.nii.gz: holds the one value 0 throughout"],
    "volume without mask": ["error   Train/Image/0002.nii.gz: has no mask"],
    "volume twice": ["error   Train/Image/0002.nii.gz: has the same pixels as Validation/Image/0009.nii.gz"],
    "two files of one name": ["error   Train/Image/0001.nii.gz: 0001.nii has the same name"],
    "labels.json": ["error   labels.json: is not valid"],
    "a PNG among volumes": ["error   Train/Image/9.png: found a single image"],
    "stack's spacing 0": ["error   Train/Image/0002/spacing.json: found the spacing 0.1, 0, 0.1"],
    "stack's spacing of two": ["error   Train/Image/0002/spacing.json: is not valid; spacing: List"],
    "stack without spacing": ["error   Train/Image/0002: found no spacing.json"],
    "B-scans of two sizes": ["error   Train/Image/0002/001.png: found 64 x 63 px"],
    "B-scan damaged": ["error   Train/Image/0002/001.png: is damaged (broken PNG file"],
    "B-scan missing": ["error   Train/Mask/0002/001.png: cannot be paired with Train/Image/0002/002.png",
        "warning Train/Image/0002: has 2 x 64 x 64 px, where most scans have 3 x 64 x 64"],
    "a gap in the B-scans": ["warning Train/Image/0002/004.png: is the next B-scan after 001.png, with a larger step"],
    "true volume of another size": ["error   Truth/Mask/0004.nii.gz: found 2 x 64 x 64 voxels"],
    "no dataset.json": ["error   dataset.json: not found"],
    "dataset.json no JSON": ["error   dataset.json: is not valid JSON ( … line 1"],  # 3.13 finds it a line before
    "dataset.json a list": ["error   dataset.json: is not valid; Input should be a valid dictionary"],
    "numTraining": ["error   dataset.json: found numTraining 7"],
    "file_ending": ["error   dataset.json: is not valid; file_ending: Input should be '.png', '.bmp', '.tif'"],
    "regions": ["error   dataset.json: the label 'retina' is a region of several values, which octkit does not"],
    "a channel missing": ["error   imagesTr/eye_002_0000.png: found 1 channels",
        "error   imagesTr/eye_002_0001.png: not found"],
    "a channel of another size": ["error   imagesTr/eye_002_0001.png: found 39 x 48 px"],
    "a channel blank": ["error   imagesTr/eye_002_0001.png: holds the one value 0 throughout"],
    "a name without channel": ["error   imagesTs/eye.png: has another name",
        "error   imagesTs/eye_005_0000.png: found 1 channels",
        "error   imagesTs/eye_005_0001.png: not found"],
    "names that differ in capitals": ["warning imagesTs/EYE_001_0000.png: differs from eye_001_0000.png in capitals"],
    "a label in nobody's list": ["error   labelsTr/eye_002.png: found mask values 4"],
    "MGU-Net: foreign grey": ["error   train/mask/2.png: found mask values 27"],
    "MGU-Net: label numbers": ["error   train/mask/2.png: found mask values 1, 2, 3 … they look like"],
    "MGU-Net: no mask": ["error   eval/mask: found no images in this folder"],
    "MGU-Net: no images": ["error   test/img: no such file or folder"],
}


def fits(lines: list[str], expected: list[str]) -> bool:
    """Whether there are these lines and no others, in this order."""
    parts = [beginning.partition(" … ") for beginning in expected]
    return len(lines) == len(parts) and all(line.startswith(begin) and rest in line
                                            for line, (begin, _, rest) in zip(lines, parts, strict=True))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A whole data set of each layout: phantoms, but for those layouts that phantoms do not have."""
    folder = tmp_path_factory.mktemp("whole")
    make_data_set(folder / "GOALS", (6, 2, 1), (96, 96), repeated=False)
    make_data_set(folder / "VOLUMES", (3, 1, 0), (3, 64, 64), 0, "macular")
    write_nnunet_raw(folder / "RAW", channels=("OCT", "shifted"))
    write_mgunet(folder / "MGUNET")
    return folder


@pytest.fixture
def harmed(whole, tmp_path):
    """`harmed("GOALS", damage)` -> a copy of a whole data set with the damage done."""
    def make(kind, damage):
        root = Path(shutil.copytree(whole / kind, tmp_path / "set" / "data"))
        damage(root)
        return root
    return make


def told(root: Path, **options) -> list[str]:
    """The doctor's lines but the summary, without the folder in which the data set lies."""
    lines = look_through(root, **{"workers": 0, "progress": False} | options).lines()[:-1]
    return [line.replace(f"{root}/", "").replace(str(root), "DATA") for line in lines]


def state(root: Path) -> dict:
    """What would show that somebody wrote into a folder."""
    return {path: (path.lstat().st_mtime_ns, path.lstat().st_size, path.lstat().st_ino)
            for path in [root, *root.rglob("*")]}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in KINDS.items() for name in names])
def test_each_damage_is_told_and_refused(harmed, kind, name):
    """One set of rules: a data set can be opened and read exactly where the doctor sees no error in its files."""
    root = harmed(kind, KINDS[kind][name])
    before = state(root)
    lines = told(root)
    if kind in WITHOUT_DIAGNOSES:
        lines = [line for line in lines if "to classify glaucoma" not in line]
    assert fits(lines, EXPECTED[name]), lines
    assert state(root) == before
    errors = [line for line in lines if line.startswith("error")]
    try:
        dataset = open_dataset(root)
        for case in dataset.cases:
            dataset.read_image(case)
            if case.mask:
                dataset.read_mask(case)
    except OctkitError as error:
        assert "error   " + str(error).replace(f"{root}/", "").replace(str(root), "DATA") in errors
    else:  # what shows when scans are compared, in what a mask's layers are like, and in files for scoring alone
        facts = ("same pixels", "throughout", "Truth/", "no eye has", "upside down")
        assert all(any(fact in line for fact in facts) for line in errors)


def test_whole_sets_are_whole(whole):
    for kind, layout, scans in (("GOALS", "goals", 9), ("VOLUMES", "volumes", 4), ("RAW", "nnunet", 5),
                                ("MGUNET", "mgunet", 5)):
        *warnings, summary = look_through(whole / kind, workers=0, progress=False).lines()
        number = {True: "1 warning", False: "no warnings"}[kind in WITHOUT_DIAGNOSES]
        assert summary == f"{whole / kind} ({layout}): {scans} scans, no errors, {number}"
        assert all("(0 with glaucoma, 0 without" in line for line in warnings)


def test_all_is_found_at_once_and_errors_come_first(harmed):
    names = ["opaque alpha", "inverted mask", "truncated mask", "row doubled", "true labels damaged"]

    def damage(root):
        for name in names[1:]:
            damages.GOALS[name](root)
        shutil.copyfile(root / "Train/Image/0003.png", root / "Train/Image/0004.png")
        damages.image("Train/Image/0006.png", damages.with_alpha(255))(root)

    expected = [*EXPECTED["truncated mask"], *EXPECTED["row doubled"], *EXPECTED["true labels damaged"],
                EXPECTED["twins in training"][0].replace("0005", "0004"),
                EXPECTED["opaque alpha"][0].replace("0003", "0006")]
    assert fits(told(harmed("GOALS", damage)), expected)


def test_processes_find_what_one_finds(harmed):
    root = harmed("GOALS", damages.GOALS["mask of label numbers"])
    assert told(root, workers=2) == told(root, workers=0)
    assert fits(told(root), EXPECTED["mask of label numbers"])


def test_a_data_set_may_be_a_link_and_hold_links_within(harmed, tmp_path):
    def damage(root):
        (root / "Train/Image/0003.png").rename(root / "spare.png")
        (root / "Train/Image/0003.png").symlink_to("../../spare.png")
        (root / "Train/around").symlink_to("..")

    (tmp_path / "link").symlink_to(harmed("GOALS", damage))
    assert told(tmp_path / "link") == []


def test_what_lies_outside_is_not_opened(harmed, tmp_path):
    """A link leads to a file that nobody may learn of: neither its kind nor its size is told."""
    def damage(root):
        (tmp_path / "set" / "secret").write_bytes(b"%PDF")
        (root / "Validation/Image/0007.png").unlink()
        (root / "Validation/Image/0007.png").symlink_to("../../../secret")

    lines = told(harmed("GOALS", damage))
    assert lines == ["error   Validation/Image/0007.png: is a symbolic link to ../../../secret, outside of "
                     "DATA, expected the file itself: copy it here"]


def test_folders_that_may_not_be_read(harmed, monkeypatch):
    """Pretended, as the right to read everything cannot be given up where tests run as root."""
    root = harmed("GOALS", lambda _: None)
    real = os.scandir, os.listdir

    def denied(list_folder):
        def look(path="."):
            if Path(path) == root / "Train" / "Layer_Masks":
                raise PermissionError(13, "Permission denied", str(path))
            return list_folder(path)
        return look

    monkeypatch.setattr(os, "scandir", denied(real[0]))
    monkeypatch.setattr(os, "listdir", denied(real[1]))
    assert told(root) == [
        "error   Train/Layer_Masks: cannot be read (Permission denied), expected a folder that you may read"]


def test_a_name_cannot_break_a_line_or_colour_a_terminal(harmed):
    def damage(root):
        shutil.copyfile(root / "scale.json", root / "Train/Image/a\n\x1b[31mb.txt")

    [line] = told(harmed("GOALS", damage))
    assert line.startswith("warning Train/Image/a \\x1b[31mb.txt: belongs to no scan")


def test_a_file_too_large_is_a_finding_and_a_fault_of_the_program_is_none(harmed, monkeypatch):
    root = harmed("GOALS", lambda _: None)

    def broken(error):
        def read(*_):
            raise error
        return read

    monkeypatch.setattr("octkit.data.dataset.read_image", broken(MemoryError()))
    lines = told(root)
    assert len(lines) == 9 and all("cannot be read (MemoryError" in line for line in lines)
    monkeypatch.setattr("octkit.data.dataset.read_image", broken(TypeError("a fault")))
    with pytest.raises(TypeError, match="a fault"):
        told(root)


def test_a_scan_that_ends_its_process_is_named(harmed, monkeypatch):
    """With one process that dies over one scan, the others are looked at all the same."""
    root = harmed("GOALS", lambda _: None)
    monkeypatch.setattr(data_set, "examine", damages.dies_over_0004)
    assert told(root, workers=2) == [
        "error   Train/Image/0004.png: ended the process that read it (out of memory, or a library's fault), "
        "expected a scan that can be read: look at it"]


def said(err: str) -> str:
    """Standard error without the progress bar, which draws over itself."""
    return err.rpartition("\r")[2]


@pytest.mark.parametrize(("kind", "name", "code"), [("GOALS", "truncated", 2), ("GOALS", "class missing", 0),
                                                    ("VOLUMES", "nan", 2), ("RAW", "regions", 2)])
def test_the_command_says_it_and_ends_with_the_right_code(octkit, harmed, kind, name, code):
    root = harmed(kind, KINDS[kind][name])
    found, out, err = octkit("doctor", root)
    assert found == code and "Traceback" not in out + err
    assert fits([line.replace(f"{root}/", "") for line in out.splitlines()[:-1]], EXPECTED[name])
    assert out.splitlines()[-1].startswith(f"{root}")
    assert said(err).startswith(f"octkit: {root}: found 1 error") if code else not said(err)


def test_the_command_speaks_json_to_machines(octkit, harmed):
    root = harmed("GOALS", damages.GOALS["inverted mask"])
    code, out, _ = octkit("doctor", root, "--json")
    assert code == 2
    assert json.loads(out) == {
        "data": str(root), "layout": "goals", "scans": 9, "errors": 1, "warnings": 0, "findings": [
            {"severity": "error", "file": f"{root}/Train/Layer_Masks/0003.png", "found": "found mask values 95, 175",
             "mend": "expected only 0, 80, 160, 255; it looks inverted: write 255 - value"}]}


def test_a_folder_that_is_not_there_is_one_line(octkit, tmp_path):
    code, out, err = octkit("doctor", tmp_path / "nothing")
    assert (code, out, err) == (2, "", f"octkit: {tmp_path}/nothing: no such folder, expected a data set\n")


def chosen(root, *changes):
    return settings.with_overrides(settings.from_profile("smoke"), [f"data.dir={root}", *changes])


@pytest.fixture
def looks(monkeypatch):
    """The folders that the doctor has looked through."""
    calls = []
    real = data_set.look_through
    monkeypatch.setattr(data_set, "look_through", lambda root: calls.append(root) or real(root, 0, False))
    return calls


def test_a_clean_look_is_not_repeated_until_files_change(harmed, tmp_path, looks):
    root, said = harmed("GOALS", damages.GOALS["class missing"]), []
    for _ in range(2):
        data_set.before_run(chosen(root), tmp_path / "run", said.append)
    assert looks == [root]
    assert fits([line.replace(f"{root}/", "") for line in said[:-1]], EXPECTED["class missing"])
    assert list(read_json(tmp_path / "run" / "doctor.json")) == [str(root)]
    Image.fromarray(np.eye(9, dtype=np.uint8)).save(root / "Train/Layer_Masks/0003.png")
    with pytest.raises(OctkitError, match="found 1 error in this data set, expected none before a run"):
        data_set.before_run(chosen(root), tmp_path / "run", said.append)
    assert looks == [root, root]


def test_errors_are_looked_for_again(harmed, tmp_path, looks):
    root = harmed("GOALS", damages.GOALS["truncated"])
    for _ in range(2):
        with pytest.raises(OctkitError, match="found 1 error"):
            data_set.before_run(chosen(root), tmp_path / "run", lambda _: None)
    assert looks == [root, root] and not (tmp_path / "run").exists()


def test_phantoms_that_are_still_to_be_made_are_not_looked_for(tmp_path, looks):
    data_set.before_run(chosen(tmp_path / "later"), tmp_path / "run")
    assert looks == []


@pytest.fixture
def extra(tmp_path):
    """Labelled scans of another size than the suite's own: none is one of those."""
    return write_goals(tmp_path / "extra", size=(40, 56))


def test_extra_data_are_looked_through_and_must_fit(harmed, tmp_path, looks, extra):
    root = harmed("GOALS", lambda _: None)
    for _ in range(2):
        data_set.before_run(chosen(root, f'train.extra_data=["{extra}"]'), tmp_path / "run", lambda _: None)
    assert looks == [root, extra]
    other = write_nnunet_raw(tmp_path / "other", labels=("a", "b", "c"))
    with pytest.raises(OctkitError, match="other: found the labels a, b, c, expected rnfl, gcipl, choroid"):
        data_set.before_run(chosen(root, f'train.extra_data=["{other}"]'), tmp_path / "run", lambda _: None)


@pytest.mark.parametrize("scored", ["Train/Image/0002.png", "Validation/Image/0007.png"])
def test_extra_data_must_not_hold_what_the_run_scores(harmed, tmp_path, looks, extra, scored):
    root, wanted = harmed("GOALS", lambda _: None), tmp_path / "run"
    data_set.before_run(chosen(root, f'train.extra_data=["{extra}"]'), wanted, lambda _: None)
    copied = extra / "Train/Image/0004.png"
    with Image.open(root / scored) as image:  # saved anew: other bytes, the same pixels
        image.save(copied, compress_level=0)
    Image.fromarray(np.full(image.size[::-1], 255, np.uint8)).save(extra / "Train/Layer_Masks/0004.png")
    for _ in range(2):
        with pytest.raises(OctkitError, match=f"{copied}: has the same pixels as {root / scored}, expected extra data"):
            data_set.before_run(chosen(root, f'train.extra_data=["{extra}"]'), wanted, lambda _: None)
    assert looks == [root, extra] * 3


def test_many_findings_are_cut_short_before_a_run(harmed, tmp_path):
    def damage(root):
        for number in range(30):
            (root / "Train" / "Image" / f"{number}.txt").touch()

    said = []
    data_set.before_run(chosen(harmed("GOALS", damage)), tmp_path / "run", said.append)
    assert len(said) == 22 and said[20].startswith("… and 10 more: octkit doctor")


def test_errors_stop_a_run_before_its_first_notebook(octkit, harmed, tmp_path):
    root = harmed("GOALS", damages.GOALS["inverted mask"])
    code, out, err = octkit("run", "--profile", "smoke", "--data", root, "--run-dir", tmp_path / "run")
    assert code == 2 and EXPECTED["inverted mask"][0].partition(" … ")[0] in out.replace(f"{root}/", "")
    assert said(err).startswith(f"octkit: {root}: found 1 error") and "[ 1/" not in out
    assert not list((tmp_path / "run" / "notebooks").iterdir())


@pytest.mark.parametrize("seed", range(40))
def test_no_damaged_image_brings_a_traceback(whole, tmp_path, seed):
    """Bytes changed, cut out or put in at random: read as it was, or refused in one sentence."""
    from octkit.data.image_files import read_image

    rng, path = np.random.default_rng(seed), tmp_path / "0001.png"
    original = (whole / "GOALS/Train/Image/0001.png").read_bytes()
    data = bytearray(original)
    for at in rng.integers(0, len(data), rng.integers(1, 4)):
        at, kind = min(at, len(data) - 1), rng.integers(3)
        data[at:at + 1 + kind] = rng.bytes([1, 0, 9][kind])
    path.write_bytes(bytes(data))
    try:
        pixels = read_image(path)
    except OctkitError as error:
        assert error.file == path and str(error).startswith(f"{path}: ")
    else:
        path.write_bytes(original)
        np.testing.assert_array_equal(pixels, read_image(path))


@pytest.mark.parametrize(("text", "expected"), [
    ("0001,a,R\n0002,a,R\n0003,b,\n0004,b,L\n0005,c,\n0006,d,R\n7,e,\n8,e,", []),  # the same eye twice is fine
    ("0001,a,R\n0002,a,R\n0003,b,\n0004,b,L\n0005,c,\n0006,d,R\n7,b,\n8,c,",
     ["warning groups.csv: has 2 people with both training and validation scans, first b"]),
    ("a_1,a,R\na_2,a,R\n", ["error   groups.csv: names no scan of this data set, first a_1"]),
    ("0001,a,R\n0002,a,R\n0003,,\n", ["warning groups.csv: names no person for 6 of 8 scans, first 0003.png"]),
    ("0001,a,X\n0002,a,R\n0002.png,a,R\n77,a,\n" + "".join(f"{n},p{n},\n" for n in range(3, 9)),
     ["error   groups.csv: found ImgName '0002.png' again in line 4", "error   groups.csv: found the eye 'X' in line 2",
      "warning groups.csv: has rows for 1 scans that are not here, first 77"])])
def test_a_table_of_people_is_looked_through(tmp_path, text, expected):
    root = write_goals(tmp_path / "set")
    (root / "groups.csv").write_text("ImgName,person,eye\n" + text)
    found = look_through(root, workers=0, progress=False).findings
    lines = [finding.line().replace(f"{root}/", "") for finding in found]
    assert len(lines) == len(expected)
    assert all(line.startswith(start) for line, start in zip(sorted(lines), expected, strict=True))
