import json

import nibabel
import numpy as np
import pytest
from helpers import write_stack

from octkit.common.errors import OctkitError
from octkit.common.files import write_csv
from octkit.data.image_files import write_mask
from octkit.data.labels import GOALS_GREYS, SEMSEG_GREYS
from octkit.data.volume_files import write_nifti
from octkit.evaluation.evaluate import (
    PREDICTION_COLUMNS,
    grouped,
    in_words,
    parse_predictions,
    read_predictions,
    score_folder,
)


def mask(rnfl=(2, 6), gcipl=(6, 9), choroid=(14, 18), width=8):
    layers = np.zeros((20, width), np.uint8)
    for label, (upper, lower) in enumerate((rnfl, gcipl, choroid), start=1):
        layers[upper:lower] = label
    return layers


def write(folder, **masks):
    for name, layers in masks.items():
        write_mask(folder / f"{name}.png", layers, GOALS_GREYS)
    return folder


def test_means_over_people_by_hand(tmp_path):
    truth = write(tmp_path / "truth", a=mask(), b=mask(), c=mask())
    # RNFL: a is right, b 2 rows too deep, c 4 rows: MED of upper and lower edge 0, 1 and 2. c has no choroid.
    predicted = write(tmp_path / "predicted", a=mask(), b=mask(rnfl=(2, 8), gcipl=(8, 9)),
                      c=mask(rnfl=(2, 10), gcipl=(10, 11), choroid=(0, 0)))
    scores = score_folder(predicted, truth)
    found = grouped(scores, {"a": "p", "b": "q", "c": "q"})
    assert scores["summary"]["rnfl"]["med"]["mean"] == 1
    assert found["people"] == 2
    # Means of 0 and 1.5; two people are drawn as 0, 0.75 or 1.5.
    assert found["by_group"]["rnfl"]["med"] == {"mean": 0.75, "low": 0, "high": 1.5, "groups": 2}
    assert found["by_group"]["choroid"]["med"] == {"mean": 0, "low": 0, "high": 0, "groups": 2}
    one = grouped(scores, dict.fromkeys("abc", "p"))["by_group"]["rnfl"]["med"]
    assert one == {"mean": 1, "low": None, "high": None, "groups": 1}
    assert "0.7500 [0.0000, 1.5000]" in in_words(found) and "2 people (3 cases)" in in_words(found)
    assert found.items() >= scores.items()


def test_score_folder_by_hand(tmp_path):
    truth = write(tmp_path / "truth", a=mask(), b=mask())
    # Case a: RNFL's lower edge 2 rows too low (over GCIPL), choroid lost. Case b is right.
    predicted = write(tmp_path / "predicted", a=mask(rnfl=(2, 8), gcipl=(8, 9), choroid=(0, 0)), b=mask())
    scores = score_folder(predicted, truth)
    assert scores["cases"]["a"]["rnfl"] == {"dice": pytest.approx(8 / 10), "med": 1, "med_upper": 0, "med_lower": 2,
                                            "coverage": 1, "nsd": 1, "boundary_error": 1, "thickness_error": 2}
    assert scores["cases"]["a"]["choroid"] == {"dice": 0, "med": None, "med_upper": None, "med_lower": None,
                                               "coverage": 0, "nsd": 0, "boundary_error": None, "thickness_error": 4}
    assert scores["cases"]["b"]["gcipl"]["dice"] == 1
    assert scores["summary"]["rnfl"]["dice"] == {"mean": pytest.approx(0.9), "std": pytest.approx(np.sqrt(0.02)),
                                                 "median": pytest.approx(0.9), "counted": 2, "undefined": 0}
    # A lost layer has no distance: it is left out of the mean and counted.
    assert scores["summary"]["choroid"]["med"] == {"mean": 0, "std": None, "median": 0, "counted": 1, "undefined": 1}
    gcipl = (2 * 1 / (1 + 3) + 1) / 2
    assert scores["mean"]["dice"] == pytest.approx((0.9 + gcipl + 0.5) / 3)
    assert (scores["layers"], scores["spacing_mm"]) == (["rnfl", "gcipl", "choroid"], None)
    assert scores["units"]["med"] == "px"


def test_with_a_spacing_lengths_come_in_mm_and_um_too(tmp_path):
    truth = write(tmp_path / "truth", a=mask())
    predicted = write(tmp_path / "predicted", a=mask(rnfl=(2, 8), gcipl=(8, 9)))
    scores = score_folder(predicted, truth, spacing=(0.004, 0.0147))
    rnfl = scores["cases"]["a"]["rnfl"]
    assert rnfl["med_lower_mm"] == pytest.approx(2 * 0.004) and rnfl["med_lower"] == 2
    assert rnfl["thickness_error_um"] == pytest.approx(8) and rnfl["thickness_error"] == 2
    assert rnfl["boundary_error_um"] == pytest.approx(4) and scores["units"]["boundary_error_um"] == "um"
    assert (scores["units"]["med_lower_mm"], scores["units"]["thickness_error_um"]) == ("mm", "um")
    assert scores["spacing_mm"] == [0.004, 0.0147]


def test_scores_are_json_where_nothing_is_defined(tmp_path):
    nothing = write(tmp_path / "truth", a=np.zeros((6, 4), np.uint8))
    scores = json.loads(json.dumps(score_folder(nothing, nothing, (0.1, 0.1)), allow_nan=False))
    assert scores["cases"]["a"]["rnfl"]["dice"] is None
    assert scores["summary"]["rnfl"]["dice"] == {"mean": None, "std": None, "median": None, "counted": 0,
                                                 "undefined": 1}
    assert scores["mean"]["dice"] is None


def test_only_the_layers_and_cases_asked_for_are_scored(tmp_path):
    truth = write(tmp_path / "truth", a=mask(), b=mask())
    predicted = write(tmp_path / "predicted", a=mask())
    scores = score_folder(predicted, {"a": truth / "a.png"}, layers=("rnfl",))
    assert list(scores["cases"]) == ["a"]
    assert list(scores["cases"]["a"]) == list(scores["summary"]) == ["rnfl"]


def test_every_missing_extra_and_unequal_prediction_is_named(tmp_path):
    truth = write(tmp_path / "truth", a=mask(), b=mask(), c=mask())
    predicted = write(tmp_path / "predicted", a=mask(), c=mask(width=9), d=mask())
    with pytest.raises(OctkitError) as error:
        score_folder(predicted, truth)
    lines = str(error.value).splitlines()[1:]
    facts = ("b is missing", "d.png has no true mask", f"{predicted / 'c.png'}: found 20 x 9 px, expected 20 x 8 px")
    for line, fact in zip(lines, facts, strict=True):
        assert line.strip().startswith(fact)


@pytest.mark.parametrize("spacing", [(0.0, 1.0), (1.0,), (float("nan"), 1.0), (0.1, 0.1, 0.1)])
def test_a_spacing_that_cannot_be_a_pngs_is_refused(tmp_path, spacing):
    truth = write(tmp_path / "truth", a=mask())
    with pytest.raises(OctkitError, match="spacing: found"):
        score_folder(truth, truth, spacing=spacing)


def as_volume(path, *b_scans, spacing=(0.1, 0.004, 0.01)):
    write_nifti(path, np.stack(b_scans), spacing)


def test_volumes_by_hand(tmp_path):
    nothing = np.zeros((20, 8), np.uint8)
    # RNFL: right in the first B-scan, 2 rows too deep below in the second, lost in the third, nowhere in the fourth.
    as_volume(tmp_path / "truth/a.nii.gz", mask(), mask(), mask(), nothing)
    as_volume(tmp_path / "predicted/a.nii.gz", mask(), mask(rnfl=(2, 8), gcipl=(8, 9)), mask(rnfl=(0, 0)), nothing)
    scores = score_folder(tmp_path / "predicted", tmp_path / "truth")
    rnfl = scores["cases"]["a"]["rnfl"]
    assert rnfl["dice"] == pytest.approx(2 * (4 + 4) / (4 + 6 + 0 + 4 + 4 + 4))
    assert (rnfl["med_upper"], rnfl["med_lower"], rnfl["med"]) == (0, 1, 0.5)  # over the two B-scans that have both
    assert rnfl["thickness_error"] == pytest.approx((0 + 2 + 4) / 3)
    assert rnfl["coverage"] == pytest.approx(2 / 3)
    # The spacing is the true volume's own: 4 um a row.
    assert rnfl["med_lower_mm"] == pytest.approx(0.004) and rnfl["thickness_error_um"] == pytest.approx(8)
    assert scores["spacing_mm"] == pytest.approx([0.1, 0.004, 0.01])
    json.dumps(scores, allow_nan=False)


@pytest.mark.parametrize("spacing", [(9.0, 0.002, 0.01), (0.002, 0.01)])
def test_a_spacing_given_goes_before_the_files_own(tmp_path, spacing):
    as_volume(tmp_path / "truth/a.nii.gz", mask(), mask())
    as_volume(tmp_path / "predicted/a.nii.gz", *[mask(rnfl=(2, 8), gcipl=(8, 9))] * 2)
    scores = score_folder(tmp_path / "predicted", tmp_path / "truth", spacing)
    assert scores["cases"]["a"]["rnfl"]["med_lower_mm"] == pytest.approx(2 * 0.002)
    assert scores["spacing_mm"] == list(spacing)


def test_folders_of_b_scans_and_files_are_paired_by_name(tmp_path):
    write_stack(tmp_path / "truth" / "a", np.stack([mask(), mask()]))
    as_volume(tmp_path / "predicted/a.nii.gz", mask(), mask())
    scores = score_folder(tmp_path / "predicted", tmp_path / "truth")
    assert scores["cases"]["a"]["choroid"]["dice"] == 1 and scores["spacing_mm"] is None
    assert "med_mm" not in scores["units"]  # a folder of masks does not say how large its pixels are
    as_volume(tmp_path / "predicted/a.nii.gz", mask())
    with pytest.raises(OctkitError, match="a.nii.gz: found 20 x 8 px, expected 2 x 20 x 8 px like .*truth/a"):
        score_folder(tmp_path / "predicted", tmp_path / "truth")


def test_a_prediction_is_turned_as_its_header_says(tmp_path):
    as_volume(tmp_path / "truth/a.nii.gz", mask(), mask(rnfl=(2, 8), gcipl=(8, 9)))
    true = nibabel.load(tmp_path / "truth/a.nii.gz")
    predicted = true.as_reoriented(np.array([[2, -1], [1, -1], [0, 1]]))
    (tmp_path / "predicted").mkdir()
    nibabel.save(predicted, tmp_path / "predicted/a.nii.gz")
    rnfl = score_folder(tmp_path / "predicted", tmp_path / "truth")["cases"]["a"]["rnfl"]
    assert (rnfl["dice"], rnfl["med"], rnfl["thickness_error"]) == (1, 0, 0)
    shifted = true.affine.copy()
    shifted[1, 3] += 0.004  # a row
    nibabel.save(nibabel.Nifti1Image(np.asarray(true.dataobj), shifted), tmp_path / "predicted/a.nii.gz")
    with pytest.raises(OctkitError, match=r"predicted/a.nii.gz: lies elsewhere than .*truth/a.nii.gz.* 0 x 1 x 0 "):
        score_folder(tmp_path / "predicted", tmp_path / "truth")


def test_b_scans_are_scored_against_those_of_the_same_number(tmp_path):
    b_scans = [mask(rnfl=(2, 3 + n), gcipl=(0, 0)) for n in range(12)]
    as_volume(tmp_path / "truth/a.nii.gz", *b_scans)
    for name in ("a", "elsewhere"):
        (tmp_path / name / "a").mkdir(parents=True)
        for number, b_scan in enumerate(b_scans):
            write_mask(tmp_path / name / "a" / f"{number + (name == 'a')}.png", b_scan, {n: n for n in range(4)})
    assert score_folder(tmp_path / "a", tmp_path / "truth")["cases"]["a"]["rnfl"]["dice"] == 1
    with pytest.raises(OctkitError, match=r"elsewhere/a/0.png: cannot be paired with .*/a/a/1.png"):
        score_folder(tmp_path / "elsewhere", tmp_path / "a")


def test_volumes_of_unequal_spacing_have_no_common_one(tmp_path):
    as_volume(tmp_path / "truth/a.nii.gz", mask(), mask())
    as_volume(tmp_path / "truth/b.nii.gz", mask(), mask(), spacing=(0.1, 0.002, 0.01))
    scores = score_folder(tmp_path / "truth", tmp_path / "truth")
    assert scores["spacing_mm"] is None and scores["cases"]["b"]["rnfl"]["med_mm"] == 0


def test_other_labels_and_other_codings(tmp_path):
    layers = mask()
    numbers, ours = {0: 0, 1: 1, 2: 2, 3: 3}, ("nfl", "gcl", "ch")
    write_mask(tmp_path / "numbers/a.png", layers, numbers)
    write_mask(tmp_path / "grey/a.png", layers, {0: 0, 26: 1, 51: 2, 230: 3})
    scores = score_folder(tmp_path / "numbers", tmp_path / "numbers", labels=ours)
    assert scores["layers"] == ["nfl", "gcl", "ch"] and scores["cases"]["a"]["ch"]["dice"] == 1
    assert score_folder(tmp_path / "numbers", tmp_path / "numbers", labels=ours, layers=["ch"])["layers"] == ["ch"]
    with pytest.raises(OctkitError, match="a.png: found mask values 26, 51, 230"):
        score_folder(tmp_path / "grey", tmp_path / "grey")
    predicted = write(tmp_path / "predicted", a=layers)
    scores = score_folder(predicted, tmp_path / "grey", true_values={0: 0, 26: 1, 51: 2, 77: 2, 230: 3})
    assert scores["mean"]["dice"] == 1


def test_true_masks_of_another_coding_are_said(tmp_path, octkit):
    """Scored against greys that mean something else every layer is wrong, without an error."""
    predicted, truth = (tmp_path / name for name in ("predicted", "truth"))
    write_mask(predicted / "a.png", mask(), GOALS_GREYS)
    write_mask(truth / "a.png", mask(), SEMSEG_GREYS)
    _, out, _ = octkit("evaluate", predicted, truth)
    assert f"{truth / 'a.png'}: shows what no eye has" in out and "look like 0 elsewhere, 80 RNFL, 160 GCIPL" in out
    assert score_folder(predicted, truth, true_values=SEMSEG_GREYS)["mean"]["dice"] == 1
    assert "no eye" not in octkit("evaluate", predicted, predicted)[1]


def test_two_files_can_be_held_against_each_other(tmp_path):
    truth = write(tmp_path / "truth", a=mask(), b=mask())
    assert list(score_folder(truth / "b.png", truth / "b.png")["cases"]) == ["b"]


HEAD = "ImgName,GC_Pred\n"


@pytest.mark.parametrize(("text", "fact"), [
    ("", "columns []"), ("GC_Pred,ImgName\n0.5,a.png\n", "columns ['GC_Pred', 'ImgName']"),
    ("ImgName,GC_Pred,x\n", "columns"), (f"\ufeff{HEAD}", "columns ['\\ufeffImgName"),
    (f"{HEAD}a.png\n", "row 2: found 1 fields"), (f"{HEAD}\na.png,0.5\n", "row 2: found 0 fields"),
    (f"{HEAD}a.png,0.5\na.png,0.5\n", "row 3: a.png stands twice"), (f'{HEAD}"a.png,0.5\n', "no CSV text"),
    *((f"{HEAD}a.png,{number}\n", f"row 2: found GC_Pred {number!r}")
      for number in ("nan", "inf", "", "high", "1_0e-2", "-0.1", "1.001"))])
def test_what_is_wrong_with_a_table_of_predictions_is_said(text, fact):
    [problem] = parse_predictions(text.encode())[1]
    assert fact in problem


def test_all_rows_with_a_fault_are_named():
    _, problems = parse_predictions(b"ImgName,GC_Pred\na.png,2\nb.png,0.5\nc.png,x\n")
    assert [problem.split(":")[0] for problem in problems] == ["row 2", "row 4"]


@pytest.mark.parametrize("number", ["0", "1", "1.", ".5", "0.25", "1e-7", "2.5E-3", "+0.5"])
def test_plain_numbers_are_read(number):
    assert parse_predictions(f"ImgName,GC_Pred\r\na.png,{number}\r\n".encode()) == ({"a.png": float(number)}, [])


def test_a_file_of_predictions_that_is_broken_is_named(tmp_path):
    (tmp_path / "p.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(OctkitError, match="p.csv: .*\n.*is no CSV text"):
        read_predictions(tmp_path / "p.csv")


def test_a_scan_with_the_name_of_a_formula_is_found_again(tmp_path):
    write_csv(tmp_path / "p.csv", PREDICTION_COLUMNS, [("=1+1.png", "0.25"), ("0102.png", "0.5")])
    assert "'=1+1.png" in (tmp_path / "p.csv").read_text()
    assert read_predictions(tmp_path / "p.csv") == {"=1+1.png": 0.25, "0102.png": 0.5}


def test_a_table_of_more_rows_than_any_set_of_images_is_one_problem():
    [problem] = parse_predictions(b"ImgName,GC_Pred\n" + b"\n" * 200_000)[1]
    assert "200001" in problem and len(problem) < 200
