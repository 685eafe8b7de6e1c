import numpy as np
import pytest
from helpers import save_anew, striped_scan, to_16_bits

from octkit.common.errors import OctkitError
from octkit.common.files import write_json
from octkit.data.doctor.data_set import look_through
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


@pytest.mark.parametrize("scale", [[1], [0, 1], [1, -1], [1, "x"], "x"])
def test_a_scale_that_is_none_is_refused(goals, scale):
    write_json(goals / "scale.json", {"um_per_px": scale})
    with pytest.raises(OctkitError, match=r"scale\.json: .*um_per_px"):
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
