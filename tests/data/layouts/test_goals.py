import json

import numpy as np
import pandas as pd
import pytest
from helpers import striped_scan
from PIL import Image

from octkit.common.errors import OctkitError
from octkit.data.labels import GOALS_GREYS, LAYERS, mask_coding
from octkit.data.layouts.detect import open_dataset
from octkit.data.layouts.goals import read_labels, true_diagnoses


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


def test_scale_file_gives_the_spacing_in_mm(goals):
    (goals / "scale.json").write_text(json.dumps({"um_per_px": [3.87, 14.7]}))
    assert open_dataset(goals).train[0].spacing == pytest.approx((0.00387, 0.0147))


def save_table(goals, rows):
    pd.DataFrame(rows).to_excel(goals / "Train" / "Train_GC_GT.xlsx", index=False)


def rows_with(**change):
    rows = [{"ImgName": n, "GC_Label": n % 2} for n in range(1, 7)]
    rows[2] |= change
    return rows


def damage_mask_size(goals):
    Image.fromarray(np.zeros((3, 5), np.uint8)).save(goals / "Train/Layer_Masks/0002.png")


def unlink(name):
    return lambda goals: (goals / name).unlink()


@pytest.mark.parametrize(("damage", "names", "reason"), [
    (unlink("Train/Layer_Masks/0003.png"), "0003.png", "has no mask"),
    (unlink("Train/Image/0003.png"), "0003.png", "has no image"),
    (damage_mask_size, "Layer_Masks/0002.png", "3 x 5 px, expected 40 x 48 px"),
    (lambda g: (g / "Train/Image/0004.png").write_bytes(b""), "Image/0004.png", "cannot be read as an image"),
    (unlink("Train/Train_GC_GT.xlsx"), "Train_GC_GT.xlsx", "not found"),
    (lambda g: (g / "Train/Train_GC_GT.xlsx").write_text("x"), "Train_GC_GT.xlsx", "Excel workbook"),
    (lambda g: save_table(g, rows_with(ImgName=99)), "Train_GC_GT.xlsx", "ImgName 99 has no image"),
    (lambda g: save_table(g, rows_with()[:5]), "Train_GC_GT.xlsx", "no row for .*0006.png"),
    (lambda g: save_table(g, rows_with(ImgName=1)), "row 4", "stands twice"),
    (lambda g: save_table(g, rows_with(ImgName="x")), "row 4", "whole number"),
    (lambda g: save_table(g, rows_with(ImgName=2.5)), "row 4", "whole number"),
    (lambda g: save_table(g, rows_with(GC_Label=2)), "row 4", "expected 0 or 1"),
    (lambda g: save_table(g, rows_with(GC_Label=None)), "row 4", "expected 0 or 1"),
    (lambda g: save_table(g, [{"a": 1}]), "Train_GC_GT.xlsx", "expected ImgName and GC_Label"),
    (lambda g: (g / "scale.json").write_text('{"um_per_px": [1]}'), "scale.json", "um_per_px"),
    (lambda g: (g / "scale.json").write_text('{"um_per_px": [0, 1]}'), "scale.json", "um_per_px"),
    (lambda g: (g / "Validation/Image/0007.png").rename(g / "Validation/Image/0001.png"), "0001.png", "same name")])
def test_each_fault_gets_an_error_that_names_it(goals, damage, names, reason):
    damage(goals)
    with pytest.raises(OctkitError, match=reason) as error:
        open_dataset(goals)
    assert names in str(error.value)


def test_names_must_be_numbers(goals):
    for folder in ("Image", "Layer_Masks"):
        (goals / "Train" / folder / "0001.png").rename(goals / "Train" / folder / "one.png")
    with pytest.raises(OctkitError, match="expected a number such as 0001.png"):
        open_dataset(goals)


def test_two_names_for_one_number_are_refused(goals):
    for folder in ("Image", "Layer_Masks"):
        (goals / "Train" / folder / "0002.png").rename(goals / "Train" / folder / "1.png")
    with pytest.raises(OctkitError, match="same number"):
        open_dataset(goals)


def test_a_folder_without_images_is_named(goals):
    for image in (goals / "Test" / "Image", goals / "Train" / "Image"):
        image.mkdir(parents=True, exist_ok=True)
    with pytest.raises(OctkitError, match="Test/Image: found no PNG images"):
        open_dataset(goals)


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


def test_labels_are_read_by_number(goals):
    assert read_labels(goals / "Train" / "Train_GC_GT.xlsx") == {1: 1, 2: 0, 3: 1, 4: 0, 5: 1, 6: 0}
