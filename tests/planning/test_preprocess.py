from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octkit.common.errors import OctkitError
from octkit.planning.plan import Configuration, Plan
from octkit.planning.preprocess import normalise, odd_greys, one_hot, preprocess, restore

INTENSITY = ({"mean": 10.0, "std": 2.0, "percentile_00_5": 6.0, "percentile_99_5": 16.0},)


def plan(units="px", **spacings) -> Plan:
    """A plan whose configurations differ in their spacing alone."""
    configurations = {name: Configuration(spacing, 2, spacing, spacing, (), (), (), True)
                      for name, spacing in spacings.items()}
    axes = max(map(len, spacings.values()))
    return Plan(configurations, ("OCT",), ("a",), INTENSITY, units, axis_order=() if axes == 2 else (0, 1, 2))


FLAT = {"2d": (1.0, 1.0)}


def test_ct_clips_then_scales():
    # 0 -> clipped to 6 -> (6 - 10) / 2 = -2; 100 -> 16 -> 3; 12 -> 1
    np.testing.assert_allclose(normalise(np.array([[[0, 100, 12]]], np.float32), INTENSITY, ("ct",)), [[[-2, 3, 1]]])


@pytest.mark.parametrize(("scheme", "expected"), [
    ("zscore", [-3 / 3**0.5, *[1 / 3**0.5] * 3]),  # of 0 4 4 4: mean 3, deviation sqrt(3)
    ("rescale_0_1", [0, 1, 1, 1]), ("rgb_0_1", [0, 4 / 255, 4 / 255, 4 / 255]), ("none", [0, 4, 4, 4])])
def test_the_schemes_of_foreign_plans(scheme, expected):
    found = normalise(np.array([[[0, 4, 4, 4]]], np.float32), INTENSITY, (scheme,))[0, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_zscore_in_the_mask_leaves_the_surround_and_takes_the_holes():
    image = np.zeros((1, 5, 5), np.float32)
    image[0, 1:4, 1:4] = 9
    image[0, 2, 2] = 0  # a hole belongs to the scan
    found = normalise(image, INTENSITY, ("zscore_in_mask",))
    inside = np.array([9] * 8 + [0], np.float32)
    assert found[0, 2, 2] == pytest.approx((0 - inside.mean()) / inside.std())
    assert found[0, 0, 0] == 0 and found[0, 1, 1] == pytest.approx((9 - inside.mean()) / inside.std())


@pytest.mark.parametrize("scheme", ["ct", "rgb_0_1", "none", "zscore", "zscore_in_mask", "rescale_0_1"])
def test_the_range_of_grey_matters_where_the_scheme_keeps_it(scheme):
    """Training values from 6 to 16. A scan's bright layers are a fifth of it, the rest is dark."""
    its_plan = replace(plan(**FLAT), normalisation=(scheme,))
    image = np.full((1, 10, 10), 7, np.float32)
    image[:, :2] = 15
    assert odd_greys(image, its_plan) == ()
    own = scheme.startswith(("zscore", "rescale"))
    for other, odd in ((image / 255, "too dark"), (image * 257, "too bright")):
        found = odd_greys(other, its_plan)
        assert found == () if own else [odd in reason and "6 to 16" in reason for reason in found] == [True]
    [reason] = odd_greys(22 - image, its_plan)  # seen by itself it is inverted, too
    assert "inverted" in reason
    as_advised = (image * 257 - 7 * 257) / (8 * 257) * 10 + 6  # to the range that the message names
    assert odd_greys(as_advised, its_plan) == ()


def test_each_channel_has_its_own_range():
    image = np.stack([np.tile([7, 7, 15], (4, 1)), np.tile([7, 7, 15], (4, 1)) / 255])
    [reason] = odd_greys(image, replace(plan(**FLAT), channels=("OCT", "OCTA"), intensity=INTENSITY * 2))
    assert reason.startswith("the grey values of OCTA, 0.0275 to 0.0588, are far too dark")


def test_channels_must_match_the_plan():
    with pytest.raises(OctkitError, match="2 channels, expected 1"):
        normalise(np.zeros((2, 2, 2), np.float32), INTENSITY, ("ct",))


@settings(max_examples=30)
@given(st.integers(4, 20), st.integers(4, 20), st.integers(0, 3), st.integers(0, 3))
def test_restore_undoes_crop_and_puts_background_outside(height, width, top, left):
    image = np.zeros((1, height + top, width + left), np.float32)
    image[:, top:, left:] = 12
    prepared, mask, geometry = preprocess(image, None, plan(**FLAT), "2d", np.ones(image.shape[1:], np.uint8))
    assert prepared.shape[1:] == mask.shape == (height, width)
    back = restore(np.stack([np.zeros((height, width)), np.ones((height, width))]), geometry)
    assert back.shape == (2, *image.shape[1:])
    np.testing.assert_array_equal(back[1] == 1, image[0] > 0)
    np.testing.assert_allclose(back.sum(0), 1)


def test_a_known_spacing_is_brought_to_the_target_and_back():
    image = np.full((1, 20, 30), 12, np.float32)
    prepared, mask, geometry = preprocess(image, (0.004, 0.02), plan("mm", **{"2d": (0.008, 0.01)}), "2d",
                                          np.ones((20, 30), np.uint8))
    assert prepared.shape == (1, 10, 60) and mask.shape == (10, 60)
    np.testing.assert_allclose(prepared, 1, atol=1e-5)
    assert restore(np.ones((4, 10, 60), np.float32) / 4, geometry).shape == (4, 20, 30)
    unknown, _, _ = preprocess(image, None, plan("mm", **{"2d": (0.008, 0.01)}), "2d")
    assert unknown.shape == (1, 20, 30)  # the scan's own grid


def test_a_low_resolution_is_relative_to_the_full_one_where_no_scale_is_known():
    both = {"3d_lowres": (2.0, 4.0, 2.0), "3d_fullres": (2.0, 1.0, 1.0)}
    image = np.full((1, 4, 20, 30), 12, np.float32)
    for units in ("mm", "px"):
        ratio = 1 if units == "mm" else 2  # in px every voxel counts as 1, whatever the plan's spacing
        prepared, _, _ = preprocess(image, None, plan(units, **both), "3d_lowres")
        assert prepared.shape == (1, 4 // ratio, 5, 15)


def test_axes_go_into_the_plans_order_and_back():
    order = Plan(plan(**{"3d_fullres": (1.0, 1.0, 1.0)}).configurations, ("OCT",), ("a",), INTENSITY, "px",
                 axis_order=(2, 0, 1))
    image = np.random.default_rng(0).uniform(6, 16, (1, 3, 4, 5)).astype(np.float32)
    prepared, mask, geometry = preprocess(image, None, order, "3d_fullres", (image[0] > 10).astype(np.uint8))
    np.testing.assert_allclose(prepared[0], (image[0].transpose(2, 0, 1) - 10) / 2, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(mask, (image[0] > 10).transpose(2, 0, 1))
    np.testing.assert_array_equal(restore(prepared, geometry), (image - np.float32(10)) / np.float32(2))


def test_slices_for_the_2d_configuration_of_a_volume_are_all_kept():
    volumes = plan("mm", **{"2d": (0.008, 0.02), "3d_fullres": (0.3, 0.008, 0.02)})
    prepared, _, geometry = preprocess(np.full((1, 7, 20, 30), 12, np.float32), (0.1, 0.004, 0.02), volumes, "2d")
    assert prepared.shape == (1, 7, 10, 30)
    assert restore(np.ones((2, 7, 10, 30), np.float32), geometry).shape == (2, 7, 20, 30)


def test_one_hot_by_hand():
    channels = one_hot(np.array([[0, 2], [1, 2]], np.uint8), 3)
    assert channels.tolist() == [[[0, 0], [1, 0]], [[0, 1], [0, 1]], [[0, 0], [0, 0]]]
    assert channels.dtype == np.float32
