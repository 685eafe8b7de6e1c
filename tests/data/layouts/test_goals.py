import re
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from helpers import save_anew, striped_scan, to_16_bits
from openpyxl import Workbook

from octkit.common.errors import OctkitError
from octkit.common.files import write_json
from octkit.data.doctor.data_set import look_through
from octkit.data.labels import GOALS_GREYS, LAYERS, mask_coding
from octkit.data.layouts.detect import open_dataset
from octkit.data.layouts.goals import lacking_diagnoses, read_labels, true_diagnoses


def test_goals_is_read_whole(goals):
    dataset = open_dataset(goals)
    assert [case.name for case in dataset.train] == ["0001", "0002", "0003", "0004", "0005", "0006"]
    assert [case.glaucoma for case in dataset.train] == [1, 0, 1, 0, 1, 0]
    assert [case.name for case in dataset.validation] == ["0007", "0008"]
    assert dataset.test == ()
    assert dataset.validation[0].mask is None and dataset.validation[0].glaucoma is None
    assert dataset.train[0].spacing is None and dataset.train[0].circle
    image, label = striped_scan(1)
    np.testing.assert_array_equal(dataset.read_image(dataset.train[0])[0], image)
    np.testing.assert_array_equal(dataset.read_mask(dataset.train[0]), label)


@pytest.mark.parametrize(("ending", "change"), [(".tif", to_16_bits), (".TIFF", np.asarray), (".bmp", np.asarray),
                                                (".png", to_16_bits)])
def test_goals_in_another_format_is_the_same_data_set(goals, ending, change):
    write_json(goals / "phantom.json", {"scans": {"0001.png": {"eye": "L"}}})
    before = open_dataset(goals)
    pixels = {case.name: before.read_image(case) for case in before.cases}
    for folder in ("Train/Image", "Validation/Image"):
        save_anew(goals / folder, ending, change)
    for folder in ("Train/Layer_Masks", "Truth/Layer_Masks"):
        save_anew(goals / folder, ending)
    after = open_dataset(goals)
    assert {case.image.suffix for case in after.cases} == {ending} and after.train[0].eye == "L"
    assert [(case.name, case.glaucoma) for case in after.cases] == [(case.name, case.glaucoma) for case in before.cases]
    for case in after.cases:
        np.testing.assert_array_equal(after.read_image(case), pixels[case.name])
    np.testing.assert_array_equal(after.read_mask(after.train[0]), striped_scan(1)[1])
    np.testing.assert_array_equal(after.read_truth(after.validation[0]), striped_scan(7)[1])
    assert look_through(goals, workers=0, progress=False).lines() == [
        f"{goals} (goals): 8 scans, no errors, no warnings"]


def test_scale_file_gives_the_spacing_in_mm(goals):
    write_json(goals / "scale.json", {"um_per_px": [3.87, 14.7]})
    assert open_dataset(goals).train[0].spacing == pytest.approx((0.00387, 0.0147))


def test_masks_of_our_own_are_greys_for_the_three_layers_alone():
    assert mask_coding(LAYERS) == GOALS_GREYS
    assert mask_coding(["ilm", "rpe"]) == {0: 0, 1: 1, 2: 2}


def test_the_truth_is_known_where_it_is_there(goals):
    dataset = open_dataset(goals)
    assert true_diagnoses(dataset) == {"0007": 1, "0008": 0}
    assert dataset.train[0].truth is None and dataset.read_truth(dataset.train[0]) is None
    np.testing.assert_array_equal(dataset.read_truth(dataset.validation[0]), striped_scan(7)[1])
    (goals / "Truth/Layer_Masks/0007.png").unlink()
    (goals / "Truth/GC_GT.xlsx").unlink()
    dataset = open_dataset(goals)
    assert [case.truth for case in dataset.validation] == [None, goals / "Truth/Layer_Masks/0008.png"]
    assert true_diagnoses(dataset) == {}


def saved(path, *rows):
    book = Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)
    return path


@pytest.mark.parametrize("name", [1, 1.0, "1", " 1 ", "0001", '"0001"', "'0001", "0001.png", "0001.JPG", "1.tif"])
def test_an_image_is_named_by_its_number_or_its_file(tmp_path, name):
    table = saved(tmp_path / "a.xlsx", ("ImgName", "GC_Label"), (name, "1 "), (2, 0))
    assert read_labels(table) == {1: 1, 2: 0}


@pytest.mark.parametrize("header", [
    ("\ufeffImgName", "GC_Label"), (" imgname", "GC_LABEL "), ("Img Name", "GC Label"), ("IMG_NAME", "gc-label")])
def test_columns_are_known_without_case_and_signs(tmp_path, header):
    assert read_labels(saved(tmp_path / "a.xlsx", header, (7, 1))) == {7: 1}


@pytest.mark.parametrize(("start", "separator", "end", "encoding"), [
    ("", ",", "\n", "utf-8"), ("\ufeff", ";", "\r\n", "utf-8"), ("", "\t", "\r\n", "utf-8"), ("", ",", "\n", "gbk")])
def test_a_csv_table_is_read_in_place_of_the_workbook(goals, start, separator, end, encoding):
    """With a byte order mark and semicolons as Excel writes it in Europe, and with a remark in Chinese."""
    (goals / "Train" / "Train_GC_GT.xlsx").unlink()
    rows = [("ImgName", "GC_Label", "remark"), *((f"{n:04d}.png", n % 2, "青光眼") for n in range(1, 7)), ("", "", "")]
    text = start + end.join(separator.join(map(str, row)) for row in rows)
    (goals / "Train" / "Train_GC_GT.csv").write_bytes(text.encode(encoding))
    assert [case.glaucoma for case in open_dataset(goals).train] == [1, 0, 1, 0, 1, 0]
    (goals / "Truth" / "GC_GT.xlsx").unlink()
    (goals / "Truth" / "GC_GT.csv").write_bytes(text.replace("0001", "0007").encode(encoding))
    assert true_diagnoses(open_dataset(goals)) == {"0007": 1}


def test_a_strict_workbook_is_read(tmp_path):
    """As Excel saves a "Strict Open XML Spreadsheet": other namespaces, and a word in the workbook's first line."""
    table = saved(tmp_path / "a.xlsx", ("ImgName", "GC_Label"), (1, 1), ("0002.png", 0))
    with zipfile.ZipFile(table) as archive:
        parts = {name: archive.read(name).decode() for name in archive.namelist()}
    with zipfile.ZipFile(table, "w") as archive:
        for name, text in parts.items():
            strict = re.sub(r"http://schemas.openxmlformats.org/(officeDocument|spreadsheetml|drawingml)/2006/",
                            r"http://purl.oclc.org/ooxml/\1/", text)
            archive.writestr(name, strict.replace("<workbook ", '<workbook conformance="strict" '))
    assert b"purl.oclc.org/ooxml/spreadsheetml/main" in zipfile.ZipFile(table).read("xl/workbook.xml")
    assert read_labels(table) == {1: 1, 2: 0}


def test_what_a_classifier_lacks(goals):
    train = open_dataset(goals).train  # three scans of each class
    assert lacking_diagnoses(train) is None and lacking_diagnoses(train[:4]) is None
    for cases, told in ((train[:3], "2 with glaucoma, 1 without"), (train[::2], "3 with glaucoma, 0 without"),
                        ((*train[:4], replace(train[4], glaucoma=None)), "2 with glaucoma, 2 without, 1 not told")):
        assert f"found {len(cases)} training scans ({told})" in str(lacking_diagnoses(cases))


def test_a_short_row_of_a_csv_table_has_no_label(tmp_path):
    (tmp_path / "a.csv").write_text("ImgName,GC_Label\n1,1\n2\n")
    with pytest.raises(OctkitError, match="found GC_Label None in row 3"):
        read_labels(tmp_path / "a.csv")
