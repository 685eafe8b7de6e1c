"""The drawn ideas say what is true: the numbers in their titles and texts, worked out by hand."""

import inspect

import numpy as np
import pytest

from octkit.figures import ideas
from octkit.figures.picture import png

SCANS = ([90.0, 100.0, 110.0, 120.0], [80.0, 95.0, 100.0], 95.0)
NAMES = [name for name, function in inspect.getmembers(ideas, inspect.isfunction)
         if function.__module__ == ideas.__name__ and not name.startswith("_")]


@pytest.mark.parametrize("name", NAMES)
def test_each_idea_is_a_picture_with_a_text_that_is_the_same_each_time(name):
    arguments = SCANS if name == "roc_threshold" else ()
    picture = getattr(ideas, name)(*arguments)
    assert len(picture.alt) > 30 and picture.alt != picture.get_suptitle()
    assert png(picture) == png(getattr(ideas, name)(*arguments))


@pytest.mark.parametrize(("shift", "thick", "expected"), [(0, 8, 1.0), (4, 8, 0.5), (8, 8, 0.0), (1, 2, 0.5)])
def test_dice_of_a_moved_layer(shift, thick, expected):  # 2 (thick - shift) / (2 thick)
    assert ideas.dice_of_shapes(shift, thick).get_suptitle().endswith(f"= {expected:.3f}")


@pytest.mark.parametrize(("convolutions", "halved", "expected"), [(1, 0, 3), (2, 0, 5), (2, 1, 11), (1, 2, 9)])
def test_the_receptive_field(convolutions, halved, expected):
    # 1 + 2 + 2, then 2 by the one that moves by two, and 4. One a stage: 1 + 2 + 2 + 4.
    assert f"sees {expected} × {expected} px" in ideas.receptive_field(convolutions, halved).get_suptitle()


def test_the_threshold_counts_and_the_auc():
    picture = ideas.roc_threshold(*SCANS)  # at or above 95: 2 of 3 with glaucoma, 3 of 4 without
    assert "2 of 3 found, 3 of 4 false alarms" in picture.get_suptitle()
    assert "AUC 0.208" in picture.alt  # of 12 pairs 2 are right and one is a tie: (2 + 0.5) / 12


def test_halvings_stop_before_a_map_is_too_small():
    assert "800, 400, 200, 100, 50, 25, 13, 7 px" in ideas.halvings(800).alt
    assert "can be halved 2 times" in ideas.halvings(40, 8).get_suptitle()  # 40, 20, 10
    assert "can be halved 2 times" in ideas.halvings(15).get_suptitle()  # 15, 8, 4: as the rules count


@pytest.mark.parametrize(("length", "window", "step", "starts"), [
    (300, 128, 0.5, "0, 57, 115, 172"), (100, 128, 0.5, "0"), (256, 128, 1.0, "0, 128")])
def test_windows_reach_both_ends(length, window, step, starts):
    assert f"start at {starts};" in ideas.window_weights(length, window, step).alt


def test_people_are_kept_together_in_one_way_of_dealing_only():
    left, right = ideas.folds_by_person().axes
    assert right.get_title().startswith("dealt by person: 0 of 5") and " 0 of" not in left.get_title()


def test_half_of_the_epochs_by_the_poly_rule():
    assert f"gives {0.01 * 0.5**0.9:.4g}" in ideas.schedules(100).alt


def test_what_lies_in_the_band_is_what_is_drawn_in_it():
    picture = ideas.coverage(2.0, 50)
    inside, outside = (len(points.get_offsets()) for points in picture.axes[0].collections[1:])
    assert inside + outside == 50 and f"{inside} lie in the band" in picture.alt
    assert np.isclose(inside / 50, float(picture.get_suptitle().split("holds ")[1].split("%")[0]) / 100, atol=0.006)


@pytest.mark.parametrize(("rate", "loss"), [(0.5, "0"), (0.25, "0.0352"), (1.0, "9")])  # 9 (1 - 2 rate)^(2 * 4)
def test_four_steps_of_gradient_descent(rate, loss):
    assert f"loss {loss}." in ideas.descent(rate, 4).alt


def test_more_people_make_a_narrower_interval():
    few, many = (float(ideas.interval_of_mean(people).alt.split("is ")[2].split(" wide")[0]) for people in (10, 160))
    assert many < few / 2


def test_smoothing_makes_greys_that_are_no_label():
    # The means of three over 255|0, 0|80, 80|255, 255|160, 160|255: two strange greys at each of five edges.
    assert "makes 10 of 50 greys" in ideas.smoothed_mask(3).alt
    assert "makes 0 of 50 greys" in ideas.smoothed_mask(1).alt


def test_a_pair_tells_what_the_spread_hides():
    assert "better in 12 of 12 people" in ideas.paired(12, 0.03).alt
