import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from octkit.data.labels import IGNORE
from octkit.evaluation.metrics import (
    boundaries,
    boundary_scores,
    broken_a_scans,
    dice,
    dice_from_counts,
    dice_of_labels,
    gain_over,
    layer_thickness,
    mean_over_cases,
    spread,
    with_spread,
)

#      columns 0 1 2 3
TRUTH = np.array([[0, 0, 0, 0],
                  [1, 1, 0, 1],
                  [1, 2, 0, 1],
                  [2, 2, 0, 0]], np.uint8)
FOUND = np.array([[1, 0, 0, 0],
                  [1, 1, 0, 0],
                  [0, 2, 1, 1],
                  [2, 0, 0, 0]], np.uint8)

masks = arrays(np.uint8, (7, 5), elements=st.integers(0, 3))


def flat(upper, lower, shape=(30, 12), label=1):
    mask = np.zeros(shape, np.uint8)
    mask[upper:lower] = label
    return mask


@st.composite
def layers(draw, height=24, width=9):
    """A mask with one layer that is somewhere in every A-scan."""
    upper = np.array(draw(st.lists(st.integers(0, height - 2), min_size=width, max_size=width)))
    thick = np.array(draw(st.lists(st.integers(1, height), min_size=width, max_size=width)))
    rows = np.arange(height)[:, None]
    return ((rows >= upper) & (rows < np.minimum(upper + thick, height))).astype(np.uint8)


def test_dice_by_hand():
    # Label 1: 5 pixels in the truth, 5 found, of which (1,0), (1,1) and (2,3) are right.
    assert dice(FOUND, TRUTH, 1) == pytest.approx(2 * 3 / (5 + 5))
    assert dice(FOUND, TRUTH, 2) == 0.8  # 3 true, 2 found, both right
    assert math.isnan(dice(FOUND, TRUTH, 3))
    nothing = np.zeros((4, 4), np.uint8)
    assert dice(nothing, TRUTH, 1) == dice(TRUTH, nothing, 1) == 0


def test_dice_leaves_out_what_nobody_has_labelled():
    truth = TRUTH.copy()
    truth[:, 2:] = IGNORE
    for label in (1, 2):
        np.testing.assert_equal(dice(FOUND, truth, label), dice(FOUND[:, :2], TRUTH[:, :2], label))


@given(masks, masks)
def test_dice_is_1_for_equal_masks_alone_symmetric_and_the_same_in_a_mirror(a, b):
    for label in (1, 2, 3):
        value = dice(a, b, label)
        assert math.isnan(value) or 0 <= value <= 1
        assert (value == 1) == (np.array_equal(a == label, b == label) and (a == label).any())
        np.testing.assert_equal(dice(b, a, label), value)
        for axis in (0, 1):
            np.testing.assert_equal(dice(np.flip(a, axis), np.flip(b, axis), label), value)


def test_dice_from_counts_adds_up_over_patches():
    left, right = (slice(None), slice(0, 2)), (slice(None), slice(2, 4))
    counts = np.array([[((FOUND == 1) & (TRUTH == 1))[part].sum(), (FOUND == 1)[part].sum(), (TRUTH == 1)[part].sum()]
                       for part in (left, right)]).sum(0)
    assert dice_from_counts(*counts) == dice(FOUND, TRUTH, 1)
    assert math.isnan(dice_from_counts(0, 0, 0))


def test_boundaries_by_hand():
    np.testing.assert_array_equal(boundaries(TRUTH, 1), [[1, 1, np.nan, 1], [3, 2, np.nan, 3]])
    # Where RNFL ends, GCIPL begins.
    np.testing.assert_array_equal(boundaries(TRUTH, 2)[0, :2], boundaries(TRUTH, 1)[1, :2])


def test_boundaries_span_islands_where_thickness_counts_pixels():
    mask = np.array([[1, 0], [0, 0], [1, 0], [1, 1]], np.uint8)
    np.testing.assert_array_equal(boundaries(mask, 1), [[0, 3], [4, 4]])
    np.testing.assert_array_equal(layer_thickness(mask, 1), [3, 1])


@given(layers())
def test_a_layer_without_gaps_is_as_thick_as_its_boundaries_are_apart(mask):
    upper, lower = boundaries(mask, 1)
    np.testing.assert_array_equal(layer_thickness(mask, 1), lower - upper)


def scores(found, truth, *keys, mm=None):
    found = boundary_scores(found, truth, 1, mm)
    return found[keys[0]] if len(keys) == 1 else tuple(found[key] for key in keys)


def test_med_tells_upper_from_lower():
    assert scores(flat(8, 15), flat(8, 12), "med_upper", "med_lower", "med", "coverage") == (0, 3, 1.5, 1)


def test_med_in_mm_weighs_rows_and_columns_by_their_spacing():
    # A step of 6 rows between two columns: a point at the step's far side is 6 rows off in its own column but
    # only 1 column from the other curve's step.
    truth, found = np.zeros((10, 4), np.uint8), np.zeros((10, 4), np.uint8)
    for column, (true, predicted) in enumerate([(0, 0), (0, 0), (6, 0), (6, 6)]):
        truth[true:, column], found[predicted:, column] = 1, 1
    # True points (0,0) (0,1) (6,2) (6,3), predicted (0,0) (0,1) (0,2) (6,3): (6,2) -> (6,3) and (0,2) -> (0,1)
    # are 1 column apart, the others 0.
    assert scores(found, truth, "med_upper") == pytest.approx(1 / 4)
    # With columns 100 times the rows the way within the column is nearer: 6 rows. Its own column's error is 6 rows.
    upper, lower, error = scores(found, truth, "med_upper_mm", "med_lower_mm", "boundary_error_um", mm=(0.01, 1.0))
    assert (upper, lower, error) == (pytest.approx(6 * 0.01 / 4), 0, pytest.approx(6 * 10 / 8))


def test_what_is_missing_shows_in_coverage():
    gap, nothing = flat(8, 12), flat(0, 0)
    gap[:, :3] = 0
    # From the truth the columns 0, 1, 2 are 3, 2, 1 px from the gap's edge; the other way all is 0.
    assert scores(gap, flat(8, 12), "med", "coverage") == (pytest.approx((6 / 12 + 0) / 2), 9 / 12)
    assert scores(flat(8, 12), gap, "coverage") == 1
    *distances, covered = scores(nothing, flat(8, 12), "med_upper", "med_lower", "med", "coverage")
    assert all(map(math.isnan, distances)) and covered == 0
    assert math.isnan(scores(flat(8, 12), nothing, "coverage"))


@given(layers(), layers())
def test_med_is_symmetric_the_same_in_a_mirror_and_zero_only_for_the_same_layer(a, b):
    found = scores(a, b, "med")
    assert found == pytest.approx(scores(b, a, "med")) == pytest.approx(scores(a[:, ::-1], b[:, ::-1], "med"))
    assert (found == 0) == np.array_equal(a, b)


def test_med_equals_the_definition_computed_naively():
    random = np.random.default_rng(3)
    a, b = (np.sort(random.integers(0, 40, (2, 15)), axis=0) + [[0], [1]] for _ in range(2))
    rows = np.arange(45)[:, None]
    masks = [((rows >= upper) & (rows < lower)).astype(np.uint8) for upper, lower in (a, b)]
    first, second = ([(r * 0.5, c * 2.0) for c, r in enumerate(upper)] for upper in (a[0], b[0]))
    forth = np.mean([min(math.dist(p, q) for q in second) for p in first])
    back = np.mean([min(math.dist(p, q) for q in first) for p in second])
    assert scores(*masks, "med_upper_mm", mm=(0.5, 2.0)) == pytest.approx((forth + back) / 2)


def test_boundary_error_and_surface_distance_by_hand():
    # Found 3 rows deeper in columns 0 to 5, right in 6 and 7, lost in 8 to 11: the mean of |error| where both have it
    # is 18 / 8 rows. Near (2 px) are, of each boundary: columns 6 and 7 of both masks, and of the truth 4, 5, 8
    # and 9, which are 2 and 1 columns away from the found 6 and 7. That is 8 of 12 + 8 points.
    found = np.where(np.arange(12) < 6, flat(11, 15), flat(8, 12))
    found[:, 8:] = 0
    assert scores(found, flat(8, 12), "boundary_error", "nsd") == pytest.approx((18 / 8, 8 / 20))
    error, near = scores(flat(0, 0), flat(8, 12), "boundary_error", "nsd")
    assert near == 0 and math.isnan(error)
    assert all(map(math.isnan, boundary_scores(flat(0, 0), flat(0, 0), 1, (1, 1)).values()))


def test_thickness_error_by_hand():
    # True thickness 2 1 0 2, found 2 1 1 1.
    assert scores(FOUND, TRUTH, "thickness_error", "thickness_error_um", mm=(0.01, 1)) == pytest.approx((2 / 4, 5))
    assert scores(np.zeros_like(TRUTH), TRUTH, "thickness_error") == pytest.approx(5 / 4)


@pytest.mark.parametrize("metric", [dice, boundary_scores])
def test_masks_of_different_shapes_are_refused(metric):
    with pytest.raises(ValueError, match=r"\(4, 4\) and \(4, 3\)"):
        metric(TRUTH, TRUTH[:, :3], 1)


def columns(*texts: str) -> np.ndarray:
    return np.array([[int(c) for c in text] for text in texts], np.uint8).T


@pytest.mark.parametrize(("text", "whole"), [
    ("0112200330", True), ("1122003300", True), ("0112200333", True), ("1122003333", True),
    ("0112200000", False),  # no choroid
    ("0330112203", False),  # choroid above the retina
    ("0110220330", False),  # a gap between RNFL and GCIPL
    ("0221100330", False),  # swapped
    ("0112203030", False), ("0000000000", False)])
def test_a_broken_a_scan_by_hand(text, whole):
    assert broken_a_scans(columns(text)) == (0 if whole else 1)
    assert broken_a_scans(columns(text, "0112200330")) == (0 if whole else 0.5)
    assert broken_a_scans(columns("0110", "0220"), order=(0, 1, 0)) == 0.5


@given(layers(), st.integers(0, 12))
def test_a_layer_moved_by_k_rows_is_k_px_away(layer, k):
    """Flat boundaries, as a slope comes nearer sideways: then the distance is at most k."""
    deep = np.pad(layer, ((0, 12), (0, 0)))
    moved = np.roll(deep, k, axis=0)
    assert scores(moved, deep, "med") <= k + 1e-9
    level = np.repeat(deep[:, :1], deep.shape[1], axis=1)
    assert scores(np.roll(level, k, axis=0), level, "med") == pytest.approx(k)


def test_spread_by_hand():
    assert spread([1, None, 3, float("nan")]) == {"mean": 2, "sd": pytest.approx(2 ** 0.5), "n": 2}
    assert spread([4]) == {"mean": 4, "sd": None, "n": 1}  # one number alone has no spread
    assert spread([]) == {"mean": None, "sd": None, "n": 0}
    assert with_spread(spread([1, 3]), 2, "+") == "+2.00 ± 1.41 (n = 2)"
    assert with_spread(spread([4]), 1) == "4.0 no spread (n = 1)"
    assert with_spread(spread([])) == "undefined"


def test_means_over_cases_and_gains_by_hand():
    # case 1: label 1 2*1/(1+2), label 2 perfect; case 2: label 1 perfect, label 2 in neither and so not counted
    table = np.array([dice_of_labels(np.array([1, 0, 2]), np.array([1, 1, 2]), 3),
                      dice_of_labels(np.array([1, 1, 0]), np.array([1, 1, 0]), 3)])
    np.testing.assert_allclose(mean_over_cases(table), [(2 / 3 + 1) / 2, 1, np.nan])
    assert gain_over(table, np.nan_to_num(table)) == {  # (5/3 / 3 - 5/3 / 2, 1/3 - 1)
        "mean": pytest.approx((-5 / 18 - 2 / 3) / 2), "sd": pytest.approx((2 / 3 - 5 / 18) / 2**0.5), "n": 2}
