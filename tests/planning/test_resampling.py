import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octkit.planning.resampling import coarse_axis, new_shape, resample, resample_mask


def test_new_shape_covers_the_same_field():
    assert new_shape((100, 30), (2.0, 0.5), (1.0, 1.0)) == (200, 15)


@pytest.mark.parametrize(("spacing", "target", "axis"), [
    ((0.24, 0.004, 0.012), (0.24, 0.004, 0.012), 0), ((1, 1, 3.1), (1, 1, 1), 2), ((1, 1, 1), (1, 3.5, 1), 1),
    ((3, 1, 1), (3, 1, 1), None),  # three times is not yet more than three times
    ((0.24, 1.25, 1.25), (0.24, 1.25, 1.25), None),  # two axes are the coarsest: none is slices
    ((0.004, 0.02), (0.004, 0.02), None)])  # a 2-D scan has no slices
def test_the_coarse_axis(spacing, target, axis):
    assert coarse_axis(spacing, target) == axis


def test_resampling_a_ramp_keeps_its_edges_where_they_are():
    # four 1 mm pixels with values at their centres 0.5, 1.5, …: at 0.5 mm the centres lie at 0.25, 0.75, …
    ramp = np.array([[[0.5, 1.5, 2.5, 3.5]]], np.float32)
    finer = resample(ramp, (1, 8), order=1)
    np.testing.assert_allclose(finer[0, 0, 1:-1], [0.75, 1.25, 1.75, 2.25, 2.75, 3.25], atol=1e-5)


def test_cubic_splines_do_not_leave_the_range_of_the_values():
    step = np.repeat(np.array([[0, 1]], np.float32), 8, axis=1)[None]
    finer = resample(step, (1, 64), order=3)
    assert finer.min() == 0 and finer.max() == 1


def test_slices_are_taken_whole_along_the_coarse_axis():
    slices = np.stack([np.full((2, 3), value, np.float32) for value in (1, 5, 9)])[None]
    np.testing.assert_array_equal(resample(slices, (6, 2, 3), 3, coarse=0)[0, :, 0, 0], [1, 1, 5, 5, 9, 9])
    np.testing.assert_array_equal(resample(slices, (2, 2, 3), 3, coarse=0)[0, :, 0, 0], [1, 9])
    # the same volume lying another way
    turned = np.moveaxis(slices, 1, 3)
    np.testing.assert_array_equal(resample(turned, (2, 3, 6), 3, coarse=2)[0, 0, 0], [1, 1, 5, 5, 9, 9])


def test_within_a_slice_it_is_the_2d_resampling():
    image = np.random.default_rng(0).normal(size=(1, 2, 5, 6)).astype(np.float32)
    assert np.array_equal(resample(image, (2, 5, 6), order=3), image)
    found = resample(image, (4, 10, 9), 3, coarse=0)
    for k, slice_ in enumerate((0, 0, 1, 1)):
        np.testing.assert_array_equal(found[:, k], resample(image[:, slice_], (10, 9), 3))


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.tuples(*[st.integers(2, 7)] * 3), st.tuples(*[st.integers(2, 7)] * 3),
       st.sampled_from([None, 0, 2]))
def test_a_mask_is_the_label_with_the_largest_share(seed, shape, new, coarse):
    mask = np.random.default_rng(seed).integers(0, 4, shape).astype(np.uint8)
    shares = resample(np.stack([mask == label for label in range(4)]), new, 1, coarse)
    np.testing.assert_array_equal(resample_mask(mask, new, coarse), shares.argmax(0))
