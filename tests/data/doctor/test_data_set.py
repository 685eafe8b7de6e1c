"""The corruption suite: each kind of damage of tests/damages.py, and all that the doctor says of it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import damages
import numpy as np
import pytest
from helpers import write_goals, write_mgunet, write_nnunet_raw
from PIL import Image

from octkit import cli
from octkit.common import errors as errors_
from octkit.common import settings
from octkit.common.errors import OctkitError
from octkit.common.files import read_json
from octkit.data.doctor import data_set
from octkit.data.doctor.data_set import look_through
from octkit.data.layouts.detect import open_dataset
from octkit.phantoms.data_sets import make_data_set

KINDS = {"GOALS": damages.GOALS, "VOLUMES": damages.VOLUMES, "RAW": damages.RAW, "MGUNET": damages.MGUNET}

# Each kind of damage -> every line that it is told in, but for where the data set lies.
EXPECTED = {
    "zero bytes": [
        "error   Train/Image/0003.png: cannot be read as an image (is empty, 0 bytes), expected a PNG file: copy "
        "it again from where it came"],
    "truncated": [
        "error   Train/Image/0003.png: is damaged (Truncated File Read), expected a whole image: copy it again "
        "from where it came"],
    "header alone": [
        "error   Train/Image/0003.png: cannot be read as an image (is damaged or no PNG), expected a PNG file: "
        "copy it again from where it came"],
    "a flipped bit": [
        "error   Train/Image/0003.png: is damaged (broken PNG file (bad header checksum in b'IDAT')), expected a "
        "whole image: copy it again from where it came"],
    "text": [
        "error   Train/Image/0003.png: cannot be read as an image (is damaged or no PNG), expected a PNG file: "
        "copy it again from where it came"],
    "a JPEG": [
        "error   Train/Image/0003.png: cannot be read as an image (holds a JPEG), expected a PNG file: save it as "
        "one"],
    "16-bit": [
        "error   Train/Image/0003.png: found image mode I;16 (16 bits a pixel), expected 8-bit grey or RGB: save "
        "it as 8-bit grey"],
    "palette": [
        "error   Train/Image/0003.png: found image mode P (palette), expected 8-bit grey or RGB: save it as 8-bit "
        "grey"],
    "transparent": [
        "error   Train/Image/0003.png: found transparent pixels, expected a grey or RGB image without alpha"],
    "opaque alpha": [
        "warning Train/Image/0003.png: has an alpha channel, opaque and passed over, expected none: save it as "
        "8-bit grey"],
    "grey with opaque alpha": [
        "warning Train/Image/0003.png: has an alpha channel, opaque and passed over, expected none: save it as "
        "8-bit grey"],
    "colour": [
        "error   Train/Image/0003.png: found a colour image, expected grey values (three equal channels)"],
    "decompression bomb": [
        "error   Train/Image/0003.png: 50000 x 50000 px is more than the limit of 80000000 px, expected a scan: "
        "files of this kind can fill the memory"],
    "a folder named as an image": [
        "error   Train/Image/0003.png: is a folder, expected an image file"],
    "a pipe named as an image": [
        "error   Train/Image/0003.png: is a pipe or a device, expected an image file"],
    "constant": [
        "error   Train/Image/0003.png: holds the one value 7 throughout, expected a scan: replace it, or take its "
        "case out"],
    "constant validation image": [
        "warning Validation/Image/0007.png: holds the one value 0 throughout, expected a scan: replace it, or take "
        "its case out"],
    "image without mask": [
        "error   Train/Image/0003.png: has no mask, expected one named 0003 in Train/Layer_Masks"],
    "mask without image": [
        "error   Train/Layer_Masks/0003.png: has no image, expected one named 0003 in Train/Image"],
    "mask of another size": [
        "error   Train/Layer_Masks/0003.png: found a mask of 95 x 96 px, expected 96 x 96 px like its image"],
    "mask of label numbers": [
        "error   Train/Layer_Masks/0003.png: found mask values 1, 2, 3, expected only 0, 80, 160, 255; they look "
        "like label numbers: write 255 for 0, 0 for 1, 80 for 2, 160 for 3"],
    "inverted mask": [
        "error   Train/Layer_Masks/0003.png: found mask values 95, 175, expected only 0, 80, 160, 255; it looks "
        "inverted: write 255 - value"],
    "smoothed mask": [
        "error   Train/Layer_Masks/0003.png: found mask values 2, 3, 4, 8, 9, 10, 17, 18, … (57 in all), expected "
        "only 0, 80, 160, 255; 17.0% of the pixels lie between, as on smoothed edges: make it again without "
        "interpolation (the nearest values would draw rims of other layers)"],
    "spread mask": [
        "error   Train/Layer_Masks/0003.png: found mask values 85, 170, expected only 0, 80, 160, 255; they look "
        "like label numbers times 85: write 255 for 0, 0 for 85, 80 for 170, 160 for 255"],
    "foreign value": [
        "error   Train/Layer_Masks/0003.png: found mask values 200, expected only 0, 80, 160, 255"],
    "16-bit mask": [
        "error   Train/Layer_Masks/0003.png: found image mode I;16 (16 bits a pixel), expected 8-bit grey or RGB: "
        "save it as 8-bit grey"],
    "palette mask": [
        "error   Train/Layer_Masks/0003.png: found image mode P (palette), expected 8-bit grey or RGB: save it as "
        "8-bit grey"],
    "coloured mask": [
        "error   Train/Layer_Masks/0003.png: found a colour image, expected grey values (three equal channels)"],
    "truncated mask": [
        "error   Train/Layer_Masks/0003.png: is damaged (Truncated File Read), expected a whole image: copy it "
        "again from where it came"],
    "zero-byte mask": [
        "error   Train/Layer_Masks/0003.png: cannot be read as an image (is empty, 0 bytes), expected a PNG file: "
        "copy it again from where it came"],
    "class missing": [
        "warning Train/Layer_Masks/0003.png: holds no gcipl, expected rnfl, gcipl, choroid: complete it, if the "
        "scan shows them"],
    "two classes missing": [
        "warning Train/Layer_Masks/0003.png: holds no gcipl and no choroid, expected rnfl, gcipl, choroid: "
        "complete it, if the scan shows them"],
    "background alone": [
        "warning Train/Layer_Masks/0003.png: holds background alone, expected rnfl, gcipl, choroid: complete it, "
        "if the scan shows them"],
    "layers out of order": [
        "warning Train/Layer_Masks/0003.png: has its layers out of order in 4 of 96 A-scans, first at 10, expected "
        "rnfl above gcipl above choroid: draw it anew there"],
    "upside down": [
        "warning Train/Layer_Masks/0003.png: has its layers upside down, expected rnfl above gcipl above choroid: "
        "flip it"],
    "twins in training": [
        "warning Train/Image/0005.png: has the same pixels as Train/Image/0003.png, expected each scan once, or "
        "folds share what they are scored on: delete one"],
    "twins in validation": [
        "warning Validation/Image/0008.png: has the same pixels as Validation/Image/0007.png, expected each scan "
        "once, or folds share what they are scored on: delete one"],
    "trained on validation": [
        "error   Train/Image/0003.png: has the same pixels as Validation/Image/0007.png, expected other scans to "
        "learn from: take this one out of the training scans"],
    "trained on test": [
        "error   Train/Image/0003.png: has the same pixels as Test/Image/0009.png, expected other scans to learn "
        "from: take this one out of the training scans"],
    "another size": [
        "warning Train/Image/0003.png: has 99 x 96 px, where most scans have 96 x 96, expected one size: check "
        "whether it was cropped or scaled"],
    "no table": [
        "error   Train/Train_GC_GT.xlsx: not found, expected an Excel workbook"],
    "no workbook": [
        "error   Train/Train_GC_GT.xlsx: cannot be read as an Excel workbook (File is not a zip file), expected an "
        ".xlsx file: save the table as one"],
    "row missing": [
        "error   Train/Train_GC_GT.xlsx: has no row for Train/Image/0003.png, expected ImgName 3"],
    "row doubled": [
        "error   Train/Train_GC_GT.xlsx: ImgName 3 stands twice, again in row 8, expected one row an image"],
    "label 2": [
        "error   Train/Train_GC_GT.xlsx: found GC_Label 2 in row 4, expected 0 or 1"],
    "label empty": [
        "error   Train/Train_GC_GT.xlsx: found GC_Label None in row 4, expected 0 or 1"],
    "label a word": [
        "error   Train/Train_GC_GT.xlsx: found GC_Label 'glaucoma' in row 4, expected 0 or 1"],
    "name unknown": [
        "error   Train/Train_GC_GT.xlsx: ImgName 99 has no image, expected Train/Image/0099.png"],
    "name no number": [
        "error   Train/Train_GC_GT.xlsx: found ImgName '0003.png' in row 4, expected a whole number (1 = 0001.png)",
        "error   Train/Train_GC_GT.xlsx: has no row for Train/Image/0003.png, expected ImgName 3"],
    "name not whole": [
        "error   Train/Train_GC_GT.xlsx: found ImgName 3.5 in row 4, expected a whole number (1 = 0001.png)",
        "error   Train/Train_GC_GT.xlsx: has no row for Train/Image/0003.png, expected ImgName 3"],
    "other columns": [
        "error   Train/Train_GC_GT.xlsx: found columns ['Image', 'Label'], expected ImgName and GC_Label"],
    "empty workbook": [
        "error   Train/Train_GC_GT.xlsx: found columns [], expected ImgName and GC_Label"],
    "entities": [
        "error   Train/Train_GC_GT.xlsx: holds XML with a document type, which may declare entities, expected a "
        "plain workbook: save the table anew from Excel"],
    "entities in UTF-16": [
        "error   Train/Train_GC_GT.xlsx: holds XML with a document type, which may declare entities, expected a "
        "plain workbook: save the table anew from Excel"],
    "zip bomb": [
        "error   Train/Train_GC_GT.xlsx: would unpack to 10 parts of 60017035 bytes, more than the limit of 1000 "
        "parts and 50000000 bytes, expected a plain workbook: save the table anew from Excel"],
    "a cell in the last corner": [
        "error   Train/Train_GC_GT.xlsx: has more than 100000 rows, expected one an image"],
    "image name no number": [
        "error   Train/Image/three.png: found the name 'three', expected a number such as 0001.png",
        "error   Train/Train_GC_GT.xlsx: ImgName 3 has no image, expected Train/Image/0003.png"],
    "two names for one number": [
        "error   Train/Image/3.png: 0003.png has the same number, expected one image a number"],
    "a name in two splits": [
        "error   Validation/Image/0001.png: Train/Image/0001.png has the same name, expected each name once: "
        "rename one",
        "warning Truth/Layer_Masks/0007.png: belongs to no scan of this data set and is passed over, expected PNG "
        "or NIfTI files: save it as one, rename it, or move it away"],
    "one name, two endings": [
        "error   Train/Image/0003.png: 0003.PNG has the same name, expected each name once: rename one"],
    "link out of the set": [
        "error   Train/Image/0003.png: is a symbolic link to ../../../outside.png, outside of the data set, "
        "expected the file itself: copy it here"],
    "folder linked out of the set": [
        "error   Train/Layer_Masks: is a symbolic link to ../../outside, outside of the data set, expected the "
        "file itself: copy it here"],
    "link to nothing": [
        "error   Train/Image/0003.png: is a symbolic link to nowhere.png, which is not there, expected the file "
        "itself: copy it here"],
    "another ending": [
        "warning Truth/Layer_Masks/0008.png: belongs to no scan of this data set and is passed over, expected PNG "
        "or NIfTI files: save it as one, rename it, or move it away",
        "warning Validation/Image/0008.jpg: belongs to no scan of this data set and is passed over, expected PNG "
        "or NIfTI files: save it as one, rename it, or move it away"],
    "a file of no use": [
        "warning Train/Image/notes.xlsx: belongs to no scan of this data set and is passed over, expected PNG or "
        "NIfTI files: save it as one, rename it, or move it away"],
    "macOS's files": [
        "warning Train/Image/._0001.png: is one of 2 hidden files of macOS here, which are passed over, expected "
        "none: delete them"],
    "scale 0": [
        'error   scale.json: found {\'um_per_px\': [0, 14.7]}, expected {"um_per_px": [axial, lateral]}, both above '
        "0"],
    "scale negative": [
        'error   scale.json: found {\'um_per_px\': [3.87, -14.7]}, expected {"um_per_px": [axial, lateral]}, both '
        "above 0"],
    "scale no JSON": [
        "error   scale.json: is not valid JSON (Extra data: line 1 column 2 (char 1)), expected JSON: write it anew"],
    "no images": [
        "error   Train/Image: no such file or folder, expected PNG images"],
    "an empty split": [
        "error   Test/Image: found no PNG images in this folder, expected some",
        "warning Truth/Layer_Masks/0009.png: belongs to no scan of this data set and is passed over, expected PNG "
        "or NIfTI files: save it as one, rename it, or move it away"],
    "no data set": [
        "error   DATA: found no data set, expected one of the folders Train/Layer_Masks (GOALS), Train/Mask "
        "(volumes), imagesTr (nnU-Net raw data), train/img (MGU-Net)"],
    "two layouts": [
        "error   DATA: found Train/Layer_Masks and imagesTr, expected those of one layout: Train/Layer_Masks "
        "(GOALS), Train/Mask (volumes), imagesTr (nnU-Net raw data), train/img (MGU-Net)"],
    "true mask of label numbers": [
        "error   Truth/Layer_Masks/0007.png: found mask values 1, 2, 3, expected only 0, 80, 160, 255; they look "
        "like label numbers: write 255 for 0, 0 for 1, 80 for 2, 160 for 3"],
    "true labels damaged": [
        "error   Truth/GC_GT.xlsx: cannot be read as an Excel workbook (File is not a zip file), expected an .xlsx "
        "file: save the table as one"],
    "nan": [
        "error   Train/Image/0002.nii.gz: found 7 voxels that are nan or infinite, expected numbers"],
    "infinite": [
        "error   Train/Image/0002.nii.gz: found 7 voxels that are nan or infinite, expected numbers"],
    "spacing 0": [
        "error   Train/Image/0002.nii.gz: found the spacing 2, 0.0140625, 0, expected mm above 0"],
    "spacing negative": [
        "error   Train/Image/0002.nii.gz: found the spacing 2, -0.004, 0.09375, expected mm above 0"],
    "spacing nan": [
        "error   Train/Image/0002.nii.gz: found the spacing nan, 0.0140625, 0.09375, expected mm above 0"],
    "truncated volume": [
        "error   Train/Image/0002.nii.gz: is damaged (Compressed file ended before the end-of-stream marker was "
        "reached), expected a whole volume: copy it again from where it came"],
    "no gzip": [
        "error   Train/Image/0002.nii.gz: cannot be read as a NIfTI volume (File Train/Image/0002.nii.gz is not a "
        "gzip file), expected one: copy it again from where it came"],
    "zero-byte volume": [
        "error   Train/Image/0002.nii.gz: cannot be read as a NIfTI volume (is empty, 0 bytes), expected one: copy "
        "it again from where it came"],
    "too many voxels": [
        "error   Train/Image/0002.nii.gz: 30000 x 30000 x 3 voxels are more than the limit of 1000000000, expected "
        "a volume that fits into memory"],
    "four axes": [
        "error   Train/Image/0002.nii.gz: found 4 x 5 x 6 x 2 voxels, expected a volume of 3 axes (or a slice of 2)"],
    "a single slice": [
        "error   Train/Image/0002.nii.gz: found a single slice of 64 x 64 px, expected a volume of 3 axes",
        "warning Train/Mask/0002.nii.gz: belongs to no scan of this data set and is passed over, expected PNG or "
        "NIfTI files: save it as one, rename it, or move it away"],
    "mask volume of another size": [
        "error   Train/Mask/0002.nii.gz: found a mask of 3 x 62 x 64 voxels, expected 3 x 64 x 64 voxels like its "
        "image"],
    "foreign label": [
        "error   Train/Mask/0002.nii.gz: found mask values 4, 6, expected only [0, 1, 2, 3]; they look like label "
        "numbers times 2: write 0 for 0, 1 for 2, 2 for 4, 3 for 6"],
    "half labels": [
        "error   Train/Mask/0002.nii.gz: found mask values 1.5, expected only [0, 1, 2, 3]"],
    "constant volume": [
        "error   Train/Image/0002.nii.gz: holds the one value 0 throughout, expected a scan: replace it, or take "
        "its case out"],
    "volume without mask": [
        "error   Train/Image/0002.nii.gz: has no mask, expected one named 0002 in Train/Mask"],
    "volume twice": [
        "error   Train/Image/0002.nii.gz: has the same pixels as Validation/Image/0009.nii.gz, expected other "
        "scans to learn from: take this one out of the training scans"],
    "two files of one name": [
        "error   Train/Image/0001.nii: cannot be read as a NIfTI volume (Cannot work out file type of "
        '"Train/Image/0001.nii"), expected one: copy it again from where it came',
        "error   Train/Image/0001.nii.gz: 0001.nii has the same name, expected each name once: rename one"],
    "labels.json": [
        'error   labels.json: found {\'labels\': [\'rnfl\', \'rnfl\']}, expected {"labels": [names of the labels 1, '
        "2, …]}, each once and without background"],
    "a PNG among volumes": [
        "error   Train/Image/9.png: found a single image, expected volumes here: NIfTI files or folders of B-scans"],
    "stack's spacing 0": [
        "error   Train/Image/0002/spacing.json: found the spacing 0.1, 0, 0.1, expected mm above 0"],
    "stack's spacing of two": [
        'error   Train/Image/0002/spacing.json: found {\'spacing\': [0.1, 0.1]}, expected {"spacing": [between '
        "B-scans, between rows, between A-scans]}, in mm"],
    "stack without spacing": [
        "error   Train/Image/0002: found no spacing.json, expected it beside a volume's B-scans"],
    "B-scans of two sizes": [
        "error   Train/Image/0002/001.png: found 64 x 63 px, expected 64 x 64 px like the volume's first B-scan"],
    "B-scan damaged": [
        "error   Train/Image/0002/001.png: is damaged (broken PNG file (bad header checksum in b'IDAT')), expected "
        "a whole image: copy it again from where it came"],
    "B-scan missing": [
        "error   Train/Mask/0002: found a mask of 3 x 64 x 64 voxels, expected 2 x 64 x 64 voxels like its image",
        "warning Train/Image/0002: has 2 x 64 x 64 px, where most scans have 3 x 64 x 64, expected one size: check "
        "whether it was cropped or scaled"],
    "true volume of another size": [
        "error   Truth/Mask/0004.nii.gz: found a mask of 2 x 64 x 64 voxels, expected 3 x 64 x 64 voxels like its "
        "image"],
    "no dataset.json": [
        "error   dataset.json: not found, expected it beside imagesTr in a raw data set of nnU-Net's"],
    "dataset.json no JSON": [
        "error   dataset.json: is not valid JSON (Expecting value: line 12 column 15 (char 188)), expected JSON: "
        "write it anew"],
    "dataset.json a list": [
        "error   dataset.json: found no channel_names, labels, numTraining, file_ending, expected a dataset.json "
        "of nnU-Net v2"],
    "numTraining": [
        "error   dataset.json: found numTraining 7, expected 4, the cases in imagesTr"],
    "file_ending": [
        "error   dataset.json: found the file_ending '.tif', expected one of .png, .nii.gz, .nii"],
    "regions": [
        "error   dataset.json: the label 'retina' is a region of several values, which octkit does not learn, "
        "expected one number a label"],
    "a channel missing": [
        "error   imagesTr/eye_002_0000.png: found 1 channels, expected 2 (OCT, shifted)",
        "error   imagesTr/eye_002_0001.png: not found, expected a file for each of 2 channels (OCT, shifted)"],
    "a channel of another size": [
        "error   imagesTr/eye_002_0001.png: found 39 x 48 px, expected 40 x 48 px like the case's first channel"],
    "a channel blank": [
        "error   imagesTr/eye_002_0001.png: holds the one value 0 throughout, expected a scan: replace it, or take "
        "its case out"],
    "a name without channel": [
        "error   imagesTs/eye.png: has another name, expected a name such as CASE_0000.png, with the channel's "
        "number from 0000 to 0001",
        "error   imagesTs/eye_005_0000.png: found 1 channels, expected 2 (OCT, shifted)",
        "error   imagesTs/eye_005_0001.png: not found, expected a file for each of 2 channels (OCT, shifted)"],
    "names that differ in capitals": [
        "warning imagesTs/EYE_001_0000.png: differs from eye_001_0000.png in capitals alone, expected names that "
        "differ in more: rename one"],
    "a label in nobody's list": [
        "error   labelsTr/eye_002.png: found mask values 4, expected only 0, 1, 2, 3"],
    "MGU-Net: foreign grey": [
        "error   train/mask/2.png: found mask values 27, expected only 0, 26, 51, 77, 102, 128, 153, 179, … (11 in "
        "all)"],
    "MGU-Net: label numbers": [
        "error   train/mask/2.png: found mask values 1, 2, 3, expected only 0, 26, 51, 77, 102, 128, 153, 179, … "
        "(11 in all); they look like label numbers: write 0 for 0, 26 for 1, 51 for 2, 230 for 3"],
    "MGU-Net: no mask": [
        "error   eval/mask: found no PNG images in this folder, expected some"],
    "MGU-Net: no images": [
        "error   test/img: no such file or folder, expected PNG images"],
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A whole data set of each layout: phantoms, but for those layouts that phantoms do not have."""
    folder = tmp_path_factory.mktemp("whole")
    make_data_set(folder / "GOALS", (6, 2, 1), (96, 96))
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
def test_each_damage_is_told_in_its_own_words(harmed, kind, name):
    root = harmed(kind, KINDS[kind][name])
    before = state(root)
    assert told(root) == EXPECTED[name]
    assert state(root) == before


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in KINDS.items() for name in names])
def test_what_opening_and_reading_refuse_is_an_error_of_the_doctors(harmed, kind, name):
    """One set of rules: a data set can be opened and read exactly where the doctor sees no error in its files."""
    root = harmed(kind, KINDS[kind][name])
    errors = [line for line in EXPECTED[name] if line.startswith("error")]
    compared = [line for line in errors if "same pixels" in line or "throughout" in line or "Truth/" in line]
    try:
        dataset = open_dataset(root)
        for case in dataset.train + dataset.validation + dataset.test:
            dataset.read_image(case)
            if case.mask:
                dataset.read_mask(case)
    except OctkitError as error:
        message = str(error).replace(f"{root}/", "").replace(str(root), "DATA")
        assert f"error   {message}" in errors
    else:
        assert errors == compared


def test_whole_sets_are_whole(whole):
    for kind, layout, scans in (("GOALS", "goals", 9), ("VOLUMES", "volumes", 4), ("RAW", "nnunet", 5),
                                ("MGUNET", "mgunet", 5)):
        found = look_through(whole / kind, workers=0, progress=False)
        assert found.lines() == [f"{whole / kind} ({layout}): {scans} scans, no errors, no warnings"]


def test_there_are_enough_kinds_of_damage():
    assert sum(map(len, KINDS.values())) == len(EXPECTED) > 100
    assert set(EXPECTED) == {name for names in KINDS.values() for name in names}


def test_all_is_found_at_once_and_errors_come_first(harmed):
    names = ["opaque alpha", "inverted mask", "truncated mask", "row doubled", "true labels damaged"]

    def damage(root):
        for name in names[1:]:
            damages.GOALS[name](root)
        shutil.copyfile(root / "Train/Image/0003.png", root / "Train/Image/0004.png")
        damages.image("Train/Image/0006.png", damages.with_alpha(255))(root)

    lines = told(harmed("GOALS", damage))
    assert lines == [*EXPECTED["truncated mask"], *EXPECTED["row doubled"], *EXPECTED["true labels damaged"],
                     EXPECTED["twins in training"][0].replace("0005", "0004"),
                     EXPECTED["opaque alpha"][0].replace("0003", "0006")]


def test_processes_find_what_one_finds(harmed):
    root = harmed("GOALS", damages.GOALS["mask of label numbers"])
    assert told(root, workers=2) == told(root, workers=0) == EXPECTED["mask of label numbers"]


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
    assert lines == ["error   Validation/Image/0007.png: is a symbolic link to ../../../secret, outside of the data "
                     "set, expected the file itself: copy it here"]


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
    assert line.startswith("warning Train/Image/a ?[31mb.txt: belongs to no scan")


def test_a_scan_that_ends_its_process_is_named(harmed, monkeypatch):
    """With one process that dies over one scan, the others are looked at all the same."""
    root = harmed("GOALS", lambda _: None)
    monkeypatch.setattr(data_set, "examine", damages.dies_over_0004)
    assert told(root, workers=2) == [
        "error   Train/Image/0004.png: ended the process that read it (out of memory, or a library's fault), "
        "expected a scan that can be read: look at it"]


@pytest.fixture
def octkit(capsys, monkeypatch):
    """`octkit("doctor", …)` -> exit code, standard output, standard error."""
    monkeypatch.setenv("OCTKIT_DEBUG", "")

    def call(*arguments):
        with pytest.raises(SystemExit) as end:
            cli.main([str(argument) for argument in arguments])
        return end.value.code or 0, *capsys.readouterr()

    return call


def said(err: str) -> str:
    """Standard error without the progress bar, which draws over itself."""
    return err.rpartition("\r")[2]


@pytest.mark.parametrize(("kind", "name", "code"), [("GOALS", "truncated", 2), ("GOALS", "class missing", 0),
                                                    ("VOLUMES", "nan", 2), ("RAW", "regions", 2)])
def test_the_command_says_it_and_ends_with_the_right_code(octkit, harmed, kind, name, code):
    root = harmed(kind, KINDS[kind][name])
    found, out, err = octkit("doctor", root)
    assert found == code and "Traceback" not in out + err
    assert [line.replace(f"{root}/", "") for line in out.splitlines()[:-1]] == EXPECTED[name]
    assert out.splitlines()[-1].startswith(f"{root}")
    expected = (f"octkit: {root}: found 1 error in this data set, expected none before a run; each finding says how to "
                "mend it\n")
    assert said(err) == (expected if code else "")


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


def test_as_a_process_of_its_own(harmed):
    root = harmed("GOALS", damages.GOALS["a flipped bit"])
    run = subprocess.run([sys.executable, "-m", "octkit", "doctor", str(root)], cwd=settings.PROJECT,
                         capture_output=True, text=True)
    assert run.returncode == 2 and "Traceback" not in run.stderr
    assert run.stdout.splitlines()[0].replace(f"{root}/", "") == EXPECTED["a flipped bit"][0]


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
    assert [line.replace(f"{root}/", "") for line in said[:-1]] == EXPECTED["class missing"]
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
    assert code == 2 and EXPECTED["inverted mask"][0] in out.replace(f"{root}/", "")
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


def test_problems_are_raised_where_nobody_collects_them():
    with pytest.raises(OctkitError, match="x: found a, expected b") as raised:
        errors_.refuse(errors_.bad_file("x", "found a", "expected b"))
    assert (raised.value.file, raised.value.found, raised.value.mend) == (Path("x"), "found a", "expected b")
