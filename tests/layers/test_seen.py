"""What of a scan was seen, counted by hand."""

import numpy as np
import pytest

from octkit.layers.seen import bridged, has_signal, layers_seen, located, longest_gap
from octkit.phantoms.circle_scans import draw


def bits(text: str) -> np.ndarray:
    return np.array([letter == "1" for letter in text])


def test_black_grey_and_nearly_black_a_scans_have_no_signal():
    scan = draw(4, (248, 320)).image[None].astype(np.float32)
    assert has_signal(scan).all()
    scan[..., 10:20], scan[..., 30] = 0, 77
    scan[..., 40:44] = np.random.default_rng(0).integers(0, 4, (1, 248, 4))  # what JPEG leaves of black
    assert np.flatnonzero(~has_signal(scan)).tolist() == [*range(10, 20), 30, *range(40, 44)]


@pytest.mark.parametrize("looks", ["spectralis", "varied"])
def test_shadows_of_vessels_have_a_signal(looks):
    assert all(has_signal(draw(seed, (248, 320), looks=looks).image[None]).all() for seed in range(4))


def test_a_scan_of_one_grey_value_has_no_signal_and_one_channel_is_enough():
    blank, striped = np.full((20, 6), 9.0), np.tile(np.arange(20.0)[:, None] % 2, 6)
    assert not has_signal(blank[None]).any()
    assert has_signal(np.stack([blank, striped])).all()


def test_a_layer_is_seen_where_both_its_boundaries_are_located():
    # At 100 rows a deviation of up to 2 px is located.
    doubt = np.array([[0, 3, 0, 0, 0], [2, 2, 2.1, 0, 0], [0, 0, 0, np.nan, 0], [0, 0, 0, 0, 9], [0, 0, 0, 0, 0]])
    assert located(doubt, 100).sum() == 25 - 4
    assert layers_seen(doubt, 100).astype(int).tolist() == [[1, 0, 0, 1, 1], [1, 1, 0, 0, 1], [1, 1, 1, 1, 0]]


@pytest.mark.parametrize(("seen", "circle", "line"), [
    ("1111", 0, 0), ("0000", 4, 4), ("1001", 2, 2), ("0110", 2, 1), ("0100", 3, 2), ("0111001", 2, 2), ("1", 0, 0),
])
def test_the_longest_gap_goes_across_the_seam_of_a_circle_alone(seen, circle, line):
    assert (longest_gap(bits(seen), True), longest_gap(bits(seen), False)) == (circle, line)


def test_gaps_are_bridged_straight():
    nan = np.nan
    np.testing.assert_allclose(bridged(np.array([1, nan, nan, 4, 6])), [1, 2, 3, 4, 6])
    np.testing.assert_allclose(bridged(np.array([nan, 3, 5, 9, nan])), [5, 3, 5, 9, 7])
    np.testing.assert_allclose(bridged(np.array([nan, 3, 5, 9, nan]), circular=False), [3, 3, 5, 9, 9])
    assert np.isnan(bridged(np.full(3, nan))).all()
