import json
from dataclasses import replace

import numpy as np
import pytest
from helpers import write_goals, write_nnunet_raw, write_volumes
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from octkit.common.errors import OctkitError
from octkit.data.layouts.detect import open_dataset
from octkit.data.volume_files import write_nifti
from octkit.planning.fingerprint import Fingerprint, crop_to_nonzero, extract, intensity_statistics

RECORD = {"mean": 1.0, "median": 1.0, "min": 0.0, "max": 2.0, "std": 1.0, "percentile_00_5": 0.0,
          "percentile_99_5": 2.0}


def statistics(values):
    """What a record of intensity says of these values."""
    low, median, high = np.percentile(values, (0.5, 50, 99.5))
    return pytest.approx({"mean": values.mean(), "median": median, "min": values.min(), "max": values.max(),
                          "std": values.std(), "percentile_00_5": low, "percentile_99_5": high}, abs=1e-6)


def labelled(dataset, channel=0):
    """The grey values of all labelled pixels."""
    return np.concatenate([dataset.read_image(case)[channel][dataset.read_mask(case) > 0]
                           for case in dataset.training]).astype(np.float64)


def test_crop_by_hand():
    image = np.zeros((2, 4, 5))
    assert crop_to_nonzero(image) == (slice(0, 4), slice(0, 5))  # an empty scan keeps its size
    image[0, 1, 2] = image[1, 2, 4] = 1
    assert crop_to_nonzero(image) == (slice(1, 3), slice(2, 5))


def test_statistics_are_those_of_all_labelled_pixels(goals):
    dataset = open_dataset(goals)
    found = extract(dataset)
    assert found.intensity[0] == statistics(labelled(dataset))
    assert found.shapes == ((40, 48),) * 6 and found.spacings == ((1.0, 1.0),) * 6 and found.units == "px"
    assert found.classes == ("rnfl", "gcipl", "choroid") and found.channels == ("OCT",)


def test_statistics_by_hand():
    assert intensity_statistics(np.array([1, 2, 3, 6], np.float32), np.array([1, 1, 1, 1])) == pytest.approx({
        "mean": 3, "median": 2.5, "min": 1, "max": 6, "std": np.sqrt(3.5), "percentile_00_5": 1.015,
        "percentile_99_5": 5.955})


@given(st.lists(st.floats(-1000, 60000, width=16) | st.integers(0, 255), min_size=1))
def test_a_histogram_has_the_statistics_of_its_values(values):
    values = np.array(values, np.float32)
    found = intensity_statistics(*np.unique(values, return_counts=True))
    assert found == statistics(values.astype(np.float64))


@pytest.mark.parametrize("stacks", [False, True])
def test_volumes_have_three_axes(tmp_path, stacks):
    dataset = open_dataset(write_volumes(tmp_path / "volumes", stacks=stacks))
    found = extract(dataset)
    assert found.shapes == ((3, 40, 48),) * 4 and found.units == "mm"
    assert found.spacings[0] == pytest.approx((0.12, 0.004, 0.015))
    assert found.intensity[0] == statistics(labelled(dataset))
    assert extract(dataset, units="px").spacings[0] == (1, 1, 1)


def test_each_channel_has_its_record(tmp_path):
    dataset = open_dataset(write_nnunet_raw(tmp_path / "raw", channels=("OCT", "shifted")))
    found = extract(dataset)
    for channel, record in enumerate(found.intensity):
        assert record == statistics(labelled(dataset, channel))
    assert found.intensity[0]["mean"] != found.intensity[1]["mean"]


def test_values_that_are_no_whole_numbers_stay_exact(tmp_path):
    root = write_volumes(tmp_path / "volumes", train=2)
    noise = np.random.default_rng(0).normal(size=(3, 40, 48)).astype(np.float32)
    write_nifti(root / "Train/Image/0001.nii.gz", noise, (0.12, 0.004, 0.015))
    dataset = open_dataset(root)
    assert extract(dataset).intensity[0] == statistics(labelled(dataset))


def test_extra_cases_count(goals, tmp_path):
    own = open_dataset(goals)
    more = open_dataset(write_goals(tmp_path / "more", train=2, size=(30, 48)))
    both = replace(own, extra=more.train)
    found = extract(both)
    assert found.shapes == ((40, 48),) * 6 + ((30, 48),) * 2
    assert found.intensity[0] == statistics(labelled(both))
    assert extract(both, own.train) == extract(own)


def test_a_scale_that_only_some_have_is_an_error(goals, tmp_path):
    (goals / "scale.json").write_text(json.dumps({"um_per_px": [4, 16]}))
    both = replace(open_dataset(goals), extra=open_dataset(write_goals(tmp_path / "more")).train)
    with pytest.raises(OctkitError, match="more/Train/Image/0001.png: its scale is unknown while others' is known"):
        extract(both)
    assert extract(both, units="px").units == "px"
    found = extract(open_dataset(goals))
    assert found.units == "mm" and found.spacings[0] == (0.004, 0.016)


def test_black_borders_are_cropped_away_and_labels_there_do_not_count(goals):
    for path in (goals / "Train/Image").iterdir():
        pixels = np.array(Image.open(path))
        pixels[:3] = 0
        pixels[:, -5:] = 0
        Image.fromarray(pixels).save(path)
    found = extract(open_dataset(goals))
    assert found.shapes == ((37, 43),) * 6 and found.intensity[0]["min"] > 0


def test_no_labelled_pixel_is_an_error(goals):
    for mask in (goals / "Train/Layer_Masks").iterdir():
        Image.fromarray(np.full((40, 48), 255, np.uint8)).save(mask)
    with pytest.raises(OctkitError, match="no mask has a labelled pixel"):
        extract(open_dataset(goals))


def test_goes_round_through_the_file(tmp_path):
    found = Fingerprint([(1, 1)], [(3, 4)], ["OCT"], ["a", "b"], [RECORD])
    found.save(tmp_path / "fingerprint.json")
    assert Fingerprint.load(tmp_path / "fingerprint.json") == found


@pytest.mark.parametrize(("change", "reason"), [
    ({"shapes": []}, "shapes"), ({"spacings": [(1, 1), (1, 1)]}, "1 shapes and 2 spacings"),
    ({"spacings": [(1, 1, 1)]}, "2 or 3 throughout"), ({"spacings": [(1, 0)]}, "greater than 0"),
    ({"spacings": [(1, float("nan"))]}, "spacings.0.1"), ({"spacings": [1.0]}, "spacings.0"),
    ({"shapes": [("a", 4)]}, "shapes.0.0"), ({"shapes": [(float("inf"), 4)]}, "shapes.0.0"),
    ({"shapes": [(10**6, 10**6)]}, "limit"), ({"intensity": []}, "0 records of intensity"),
    ({"intensity": [{"mean": 1}]}, "std"), ({"intensity": [RECORD | {"std": float("inf")}]}, "intensity.0.std"),
    ({"classes": []}, "classes"), ({"channels": 10**12}, "channels"), ({"more": 1}, "more")])
def test_numbers_that_do_not_fit_are_refused(tmp_path, change, reason):
    good = {"spacings": [(1, 1)], "shapes": [(3, 4)], "channels": ["OCT"], "classes": ["a", "b"],
            "intensity": [RECORD]}
    (tmp_path / "fingerprint.json").write_text(json.dumps(good | change))
    with pytest.raises(OctkitError, match=f"fingerprint.json: .*{reason}"):
        Fingerprint.load(tmp_path / "fingerprint.json")
