"""Boundaries from probabilities: exact where they should be, near the truth, and never broken anatomy."""

import numpy as np
import pytest
from helpers import blurred_truth
from hypothesis import given, settings
from hypothesis import strategies as st

from octkit.common.errors import OctkitError
from octkit.data.labels import BOUNDARIES
from octkit.evaluation import metrics
from octkit.layers.boundaries import bounds, full_grid, known_scale, mask_from, ordered_boundaries
from octkit.phantoms.circle_scans import draw

TRUE = (0, 1, 2, 8, 9)  # circle_eye.BOUNDARIES that are ours


@pytest.fixture(scope="module", params=[(256, 320), (496, 768)], ids=str)
def phantom(request):
    return draw(5, request.param, glaucoma=True)


def assert_anatomy(boundaries: np.ndarray, size: tuple[int, int], circular: bool) -> None:
    """Order, least thickness, continuity and closure, and inside the image."""
    gaps, step = bounds(size)
    assert boundaries.shape == (5, size[1]) and np.isfinite(boundaries).all()
    assert boundaries.min() >= 0 and boundaries.max() <= size[0]
    assert (np.diff(boundaries, axis=0) >= gaps[:, None] - 1e-9).all()
    turn = np.concatenate([boundaries, boundaries[:, :1]], axis=1) if circular else boundaries
    assert (np.abs(np.diff(turn, axis=1)) <= step + 1e-9).all()


def assert_layers_in_order(mask: np.ndarray) -> None:
    """In every column the regions come as background, 1, 2, background, 3, background, each in one piece."""
    for column in mask.T:
        runs = column[np.insert(np.diff(column.astype(int)) != 0, 0, True)].tolist()
        assert [label for label in runs if label] == [1, 2, 3]
        assert 0 not in runs[runs.index(1):runs.index(2)] and runs[runs.index(2) + 1] == 0


def test_the_truth_blurred_is_found_to_less_than_a_pixel(phantom):
    size = phantom.mask.shape
    boundaries, deviation = ordered_boundaries(blurred_truth(phantom.mask), circular=True)
    error = np.abs(boundaries - phantom.boundaries[list(TRUE)])
    assert (error.mean(axis=1) < 0.5).all() and np.percentile(error, 99) < 1.5
    assert np.median(deviation) < 2
    mask = mask_from(boundaries, size[0])
    assert all(metrics.dice(mask, phantom.mask, label) > 0.97 for label in (1, 2, 3))


def test_rows_are_counted_as_in_metrics():
    mask = np.zeros((60, 20), np.uint8)
    mask[10:20], mask[20:26], mask[40:50] = 1, 2, 3
    one_hot = np.stack([mask == label for label in range(4)]).astype(np.float32)
    boundaries, _ = ordered_boundaries(one_hot, circular=False)
    found = np.array([metrics.boundaries(mask, 1)[0], *metrics.boundaries(mask, 2), *metrics.boundaries(mask, 3)])
    np.testing.assert_allclose(boundaries, found, atol=1e-3)
    np.testing.assert_array_equal(mask_from(boundaries, 60), mask)


def test_a_pixel_belongs_where_its_centre_lies():
    rows = np.array([[0.5, 0.51], [2, 2], [3, 3.4], [4.5, 4.6], [6, 7]])
    # centres 0.5, 1.5, … : an edge at 0.5 still takes the first pixel in, one at 0.51 does not
    assert mask_from(rows, 7).T.tolist() == [[1, 1, 2, 0, 3, 3, 0], [0, 1, 2, 0, 0, 3, 3]]


def test_the_cost_is_that_of_the_labels_that_the_boundaries_give():
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(4), (12, 6)).transpose(2, 0, 1).astype(np.float32)
    grid = full_grid(probabilities, False)
    rows = np.sort(random.integers(0, 13, (2, 5, 6)), axis=1)

    def by_pixel(rows):
        mask = mask_from(rows, 12)
        p = np.take_along_axis(probabilities, mask[None].astype(int), 0) * 0.95 + 0.05 / 4
        return -np.log(p).sum() + grid.weight * (np.diff(rows, axis=1) ** 2).sum() / 2

    assert grid.value(rows[0]) - grid.value(rows[1]) == pytest.approx(
        by_pixel(rows[0]) - by_pixel(rows[1]), rel=1e-4)


def damaged(probabilities: np.ndarray, phantom, damage: str) -> np.ndarray:
    """What networks do to real scans."""
    p = probabilities.copy()
    height, width = p.shape[1:]
    some = slice(width // 4, width // 4 + width // 8)
    if damage == "choroid in the vitreous":
        top = int(phantom.boundaries[0, some].min())
        p[:, max(top - 40, 0):top - 2, some] = np.array([0.02, 0.02, 0.02, 0.94])[:, None, None]
    elif damage == "layers swapped":
        p[[1, 2], :, some] = p[[2, 1], :, some]
    elif damage == "GCIPL lost":
        p[0, :, some] += p[2, :, some]
        p[2, :, some] = 0
    elif damage == "an opaque window":
        p[:, :, some] = 0.25
    return p


@pytest.mark.parametrize(("damage", "most"), [("choroid in the vitreous", 0.5), ("layers swapped", 5.0),
                                              ("GCIPL lost", 6.0), ("an opaque window", 4.0)])
def test_damage_stays_where_it_is_and_the_anatomy_whole(phantom, damage, most):
    good = blurred_truth(phantom.mask)
    broken = damaged(good, phantom, damage)
    assert not np.array_equal(good, broken)
    size = phantom.mask.shape
    boundaries, deviation = ordered_boundaries(broken, circular=True)
    assert_anatomy(boundaries, size, True)
    assert_layers_in_order(mask_from(boundaries, size[0]))
    error = np.abs(boundaries - phantom.boundaries[list(TRUE)]).mean(axis=1)
    assert error.max() < most
    if damage != "choroid in the vitreous":
        some = slice(size[1] // 4 + 5, size[1] // 4 + size[1] // 8 - 5)
        assert (deviation[1, some] > size[0] / 10).mean() > 0.9
        assert (np.delete(deviation[1], np.r_[some.start - 10:some.stop + 10]) > size[0] / 10).mean() < 0.1


def test_what_was_not_seen_is_bridged_straight():
    mask = np.zeros((120, 200), np.uint8)
    rows, ilm = np.arange(120)[:, None], 20 + 0.3 * np.arange(200)
    for label, (upper, lower) in {1: (0, 6), 2: (6, 12), 3: (22, 32)}.items():
        mask[(rows + 0.5 >= ilm + upper) & (rows + 0.5 < ilm + lower)] = label
    probabilities = blurred_truth(mask, 0.7)
    probabilities[:, :, 80:120] = 0.25
    boundaries, _ = ordered_boundaries(probabilities, circular=False)
    assert np.abs(boundaries[0] - ilm)[10:-10].max() < 1
    # A staircase of whole rows would have steps of 0 and 1 there; the slope is 0.3 all along.
    assert np.abs(np.diff(boundaries[0])[85:115] - 0.3).max() < 0.1


def test_a_circle_closes_wherever_it_is_cut(phantom):
    """The seam is no place of its own: a scan turned by half a turn gives the same boundaries, turned."""
    probabilities = blurred_truth(phantom.mask)
    half = phantom.mask.shape[1] // 2
    turned, _ = ordered_boundaries(np.roll(probabilities, half, axis=2), circular=True)
    straight, _ = ordered_boundaries(probabilities, circular=True)
    assert np.abs(np.roll(straight, half, axis=1) - turned).mean() < 0.05
    assert_anatomy(turned, phantom.mask.shape, True)


def test_a_scan_with_two_ends_need_not_close():
    rows = np.arange(96)[:, None]
    ilm = 20 + 0.5 * np.arange(80)
    mask = np.select([rows < ilm + depth for depth in (0, 6, 12, 22, 32)], [0, 1, 2, 0, 3], 0)
    boundaries, _ = ordered_boundaries(blurred_truth(mask, 0.5), circular=False)
    assert np.abs(boundaries[0] - ilm).max() < 1
    closed, _ = ordered_boundaries(blurred_truth(mask, 0.5), circular=True)
    assert_anatomy(closed, mask.shape, True)


@pytest.mark.parametrize("circular", [False, True])
def test_a_scan_of_background_alone_has_boundaries_that_nobody_has_seen(circular):
    empty = np.zeros((4, 128, 90), np.float32)
    empty[0] = 1
    boundaries, deviation = ordered_boundaries(empty, circular)
    assert_anatomy(boundaries, (128, 90), circular)
    assert (deviation > 0.9 * 128 / np.sqrt(12)).all()
    assert len(deviation) == len(BOUNDARIES)


@settings(max_examples=100)
@given(st.integers(0, 10**6), st.integers(8, 70), st.integers(1, 60), st.booleans(),
       st.floats(0.02, 3) | st.sampled_from(["certain", "one label", "all alike", "columns", "upside down", "tiny"]))
def test_whatever_the_network_says_the_anatomy_holds(seed, height, width, circular, kind):
    random = np.random.default_rng(seed)
    if isinstance(kind, float):
        probabilities = random.dirichlet(np.full(4, kind), (height, width)).transpose(2, 0, 1).astype(np.float32)
    else:
        labels = {"one label": np.full((height, width), random.integers(4)),
                  "columns": np.tile(random.integers(0, 4, width), (height, 1)),
                  "upside down": np.tile(np.sort(random.integers(0, 4, height))[::-1, None], width)}.get(
                      kind, random.integers(0, 4, (height, width)))
        probabilities = (labels == np.arange(4)[:, None, None]).astype(np.float32)
        if kind == "all alike":
            probabilities[:] = 0.25
        if kind == "tiny":
            probabilities *= np.float32(1e-45)  # the smallest float above 0
    boundaries, deviation = ordered_boundaries(probabilities, circular)
    assert_anatomy(boundaries, (height, width), circular)
    assert_layers_in_order(mask_from(boundaries, height))
    assert (deviation >= 0).all() and (deviation <= height).all()
    again = ordered_boundaries(probabilities, circular)
    np.testing.assert_array_equal(boundaries, again[0])
    np.testing.assert_array_equal(deviation, again[1])


def test_least_thickness_and_greatest_step_follow_the_size():
    gaps, step = bounds((800, 1100))  # 2.375 um a row: 15, 15, 60, 30 um; 9.88 um an A-scan
    assert gaps.tolist() == [6, 6, 25, 13] and step == 5
    gaps, step = bounds((496, 768))  # 3.83 um a row, 14.2 um an A-scan
    assert gaps.tolist() == [4, 4, 16, 8] and step == 4


def test_least_thickness_and_greatest_step_follow_the_scale_where_it_is_known():
    gaps, step = bounds((800, 1100), (0.00325, 0.013))  # 15, 15, 60, 30 um; 45 degrees are 4 rows an A-scan
    assert gaps.tolist() == [5, 5, 18, 9] and step == 4
    for impossible in ((1.0, 1.0), (2e-6, 1e-5)):  # 800 mm and 1.6 um deep
        assert known_scale((800, 1100), impossible) is None
        assert bounds((800, 1100), impossible)[0].tolist() == bounds((800, 1100))[0].tolist()
    assert known_scale((800, 1100), (0.004, 0.012)) == (4, 12) and known_scale((800, 1100), None) is None


def test_a_thin_choroid_is_not_drawn_thicker_than_it_is():
    """35 um at 3.25 um a row: 11 rows, of which a frame of 1.9 mm would make 13."""
    mask = np.zeros((800, 64), np.uint8)
    mask[200:230], mask[230:250], mask[300:311] = 1, 2, 3
    sure = np.stack([mask == label for label in range(4)]).astype(np.float32)
    drawn = {spacing: np.diff(ordered_boundaries(sure, True, spacing)[0][3:], axis=0).mean()
             for spacing in (None, (0.00325, 0.013))}
    assert drawn == pytest.approx({None: 13, (0.00325, 0.013): 11}, abs=0.1)


@pytest.mark.parametrize(("probabilities", "message"), [
    (np.zeros((3, 20, 20)), r"found shape \(3, 20, 20\)"), (np.zeros((4, 7, 20)), "at least 8 rows"),
    (np.zeros((4, 20)), "expected"), (np.full((4, 20, 20), np.nan), "nan"), (np.full((4, 20, 20), 2.0), "0 to 1"),
])
def test_what_is_no_probability_is_refused(probabilities, message):
    with pytest.raises(OctkitError, match=message):
        ordered_boundaries(probabilities.astype(np.float32), circular=False)
