"""Masks whose values are legal and whose layers lie as in no eye; and odd masks that an eye may have."""

from itertools import permutations

import numpy as np
import pytest
from helpers import striped_scan

from octkit.data.anatomy import impossible, out_of_order
from octkit.data.labels import GOALS_GREYS, SEMSEG_GREYS
from octkit.phantoms.circle_scans import draw
from octkit.phantoms.volume_scans import draw_volume

NUMBERS = {label: label for label in range(4)}


@pytest.fixture(scope="module")
def circle():
    return draw(3, (128, 160)).mask


@pytest.fixture(scope="module")
def macula():
    return draw_volume(4, (3, 128, 96)).mask


def as_advised(stored, mend):
    """The file's values after "write 160 for 0, 80 for 80" and, where it is said, "flip it"."""
    changed = stored.copy()
    for change in mend.partition(": write ")[2].partition(";")[0].split(", "):
        new, _, old = change.partition(" for ")
        changed[stored == int(old)] = int(new)
    return changed[..., ::-1, :] if "flip it" in mend else changed


def labels_of(stored, values):
    return np.select([stored == value for value in values], list(values.values())).astype(np.uint8)


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("kind", ["circle", "macula"])
def test_every_exchange_of_the_four_meanings_is_found_and_its_advice_mends_it(request, kind, flipped):
    true = request.getfixturevalue(kind)
    greys = np.array([255, 0, 80, 160])
    for order in permutations(range(4)):
        stored = greys[np.array(order)[true[..., ::-1, :] if flipped else true]]
        problem = impossible(labels_of(stored, GOALS_GREYS), GOALS_GREYS)
        if order == (0, 1, 2, 3) and flipped:
            assert problem[0] == "has its layers upside down"
        elif order != (0, 1, 2, 3):
            np.testing.assert_array_equal(labels_of(as_advised(stored, problem[1]), GOALS_GREYS), true)
    assert impossible(true, GOALS_GREYS) is None


def test_a_known_coding_is_believed_where_a_layer_is_missing(circle):
    """Without the choroid the two layers above it could be any two: the copies of GOALS decide."""
    without = np.where(circle == 3, 0, circle)
    stored = np.array([0, 80, 160])[without]
    _, mend = impossible(labels_of(stored, GOALS_GREYS), GOALS_GREYS)
    assert "look like 0 elsewhere, 80 RNFL, 160 GCIPL: write 255 for 0, 0 for 80, 80 for 160" in mend
    stored = np.array([255, 0, 80])[without]
    _, mend = impossible(labels_of(stored, SEMSEG_GREYS), SEMSEG_GREYS)
    np.testing.assert_array_equal(labels_of(as_advised(stored, mend), SEMSEG_GREYS), without)


def test_a_layer_everywhere_is_impossible_whatever_it_means(circle):
    _, mend = impossible(np.where(circle == 1, 0, 1).astype(np.uint8), GOALS_GREYS)
    assert "look up what its values mean" in mend
    noise = np.random.default_rng(0).integers(0, 4, (64, 64)).astype(np.uint8)
    assert "look up what its values mean" in impossible(noise, NUMBERS)[1]


def swapped(mask):
    part = mask[..., :mask.shape[-1] // 5]
    part[:] = np.array([0, 2, 1, 3])[part]


def noisy(mask):
    random = np.random.default_rng(1)
    where = random.random(mask.shape) < 0.01
    mask[where] = random.integers(0, 4, where.sum())


ODD = {
    "no RNFL": lambda mask: np.copyto(mask, 0, where=mask == 1),
    "no GCIPL": lambda mask: np.copyto(mask, 0, where=mask == 2),
    "no choroid": lambda mask: np.copyto(mask, 0, where=mask == 3),
    "RNFL alone": lambda mask: np.copyto(mask, 0, where=mask > 1),
    "choroid alone": lambda mask: np.copyto(mask, 0, where=mask < 3),
    "nothing": lambda mask: mask.fill(0),
    "labelled in part": lambda mask: mask[..., mask.shape[-1] // 3:].fill(0),
    "a hole": lambda mask: mask[..., 40:70, 20:40].fill(0),
    "two layers exchanged in a fifth": swapped,
    "a hundredth of the pixels at random": noisy,
    "cut off above": lambda mask: np.copyto(mask, np.roll(mask, -np.argmax((mask == 1).any(-1)) - 5, axis=-2)),
}


@pytest.mark.parametrize("kind", ["circle", "macula"])
@pytest.mark.parametrize("odd", ODD)
def test_what_a_diseased_eye_or_an_unfinished_mask_shows_is_possible(request, kind, odd):
    mask = request.getfixturevalue(kind).copy()
    for b_scan in mask.reshape(-1, *mask.shape[-2:]):
        ODD[odd](b_scan)
    assert impossible(mask, GOALS_GREYS) is None


def test_pixels_out_of_order_by_hand():
    columns = np.array([[0, 1, 1, 2, 0, 3, 0],  # as it should be
                        [1, 2, 1, 1, 3, 3, 0],  # the GCIPL is wrong: one pixel
                        [0, 3, 3, 1, 1, 1, 0],  # the choroid above: two, as the RNFL has more
                        [0, 1, 0, 1, 0, 0, 0]], np.uint8).T  # the hole counts, not the layer's second piece
    assert out_of_order(columns) == pytest.approx((0 + 1 + 2 + 1) / (4 + 6 + 5 + 2))
    assert out_of_order(np.zeros((5, 2), np.uint8)) == 0 and out_of_order(striped_scan(1)[1]) == 0
