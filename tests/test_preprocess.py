import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octkit.files import OctkitError
from octkit.preprocess import new_shape, normalise, preprocess, resample, resample_mask, restore

INTENSITY = ({"mean": 10.0, "std": 2.0, "percentile_00_5": 6.0, "percentile_99_5": 16.0},)


def test_normalise_clips_then_scales():
    # 0 -> clipped to 6 -> (6 - 10) / 2 = -2; 100 -> 16 -> 3; 12 -> 1
    np.testing.assert_allclose(normalise(np.array([[[0, 100, 12]]], np.float32), INTENSITY), [[[-2, 3, 1]]])


def test_channels_must_match_the_plan():
    with pytest.raises(OctkitError, match="2 channels, expected 1"):
        normalise(np.zeros((2, 2, 2), np.float32), INTENSITY)


def test_new_shape_covers_the_same_field():
    assert new_shape((100, 30), (2.0, 0.5), (1.0, 1.0)) == (200, 15)


def test_resampling_a_ramp_keeps_its_edges_where_they_are():
    # four 1 mm pixels with values at their centres 0.5, 1.5, …: at 0.5 mm the centres lie at 0.25, 0.75, …
    ramp = np.array([[[0.5, 1.5, 2.5, 3.5]]], np.float32)
    finer = resample(ramp, (1, 8), order=1)
    np.testing.assert_allclose(finer[0, 0, 1:-1], [0.75, 1.25, 1.75, 2.25, 2.75, 3.25], atol=1e-5)


def test_resampling_to_the_same_shape_changes_nothing():
    image = np.random.default_rng(0).normal(size=(1, 5, 6)).astype(np.float32)
    assert np.array_equal(resample(image, (5, 6), order=3), image)


def test_masks_never_get_a_label_between_two_others():
    mask = np.repeat([[0, 3]], 4, axis=0).repeat(4, axis=1).astype(np.uint8)
    assert set(np.unique(resample_mask(mask, (7, 13)))) == {0, 3}


@settings(max_examples=30, deadline=None)
@given(st.integers(4, 20), st.integers(4, 20), st.integers(0, 3), st.integers(0, 3))
def test_restore_undoes_crop_and_puts_background_outside(height, width, top, left):
    image = np.zeros((1, height + top, width + left), np.float32)
    image[:, top:, left:] = 12
    prepared, mask, geometry = preprocess(image, None, (1.0, 1.0), INTENSITY, np.ones(image.shape[1:], np.uint8))
    assert prepared.shape[1:] == mask.shape == (height, width)
    back = restore(np.stack([np.zeros((height, width)), np.ones((height, width))]), geometry)
    assert back.shape == (2, *image.shape[1:])
    np.testing.assert_array_equal(back[1] == 1, image[0] > 0)
    np.testing.assert_allclose(back.sum(0), 1)


def test_a_known_spacing_is_brought_to_the_target_and_back():
    image = np.full((1, 20, 30), 12, np.float32)
    prepared, mask, geometry = preprocess(image, (0.004, 0.02), (0.008, 0.01), INTENSITY, np.ones((20, 30), np.uint8))
    assert prepared.shape == (1, 10, 60) and mask.shape == (10, 60)
    np.testing.assert_allclose(prepared, 1, atol=1e-5)
    assert restore(np.ones((4, 10, 60), np.float32) / 4, geometry).shape == (4, 20, 30)


def test_an_unknown_spacing_keeps_the_scans_own_grid():
    prepared, _, _ = preprocess(np.full((1, 20, 30), 12, np.float32), None, (0.008, 0.01), INTENSITY)
    assert prepared.shape == (1, 20, 30)
