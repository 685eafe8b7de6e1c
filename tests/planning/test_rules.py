import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octkit.planning import rules

sizes = st.integers(8, 700)
spacings = st.floats(0.1, 10)
volumes = st.tuples(st.tuples(sizes, sizes, sizes), st.tuples(spacings, spacings, spacings))
scans = st.tuples(st.tuples(sizes, sizes), st.tuples(spacings, spacings))


def test_start_patch_by_hand():
    assert rules.start_patch((1, 1), (800, 1100)) == (800, 1100)
    assert rules.start_patch((0.004, 0.016), (9000, 9000)) == (4096, 1024)
    assert rules.start_patch((1, 1), (128.5, 300)) == (128.5, 300)
    assert rules.start_patch((1, 1, 1), (900, 300, 100)) == (256, 256, 100)
    # 256 x 256 x 256 px become 64 x 512 x 512 of eight times as coarse slices: 64 x 8 = 512 x 1
    assert rules.start_patch((0.8, 0.1, 0.1), (900, 900, 900)) == (64, 512, 512)


def test_topology_by_hand():
    # 24 x 8: both halve to 12 x 4, then 24's axis alone could become 6, but 12 px are just enough for that
    patch, strides, kernels = rules.topology((1, 1), (24, 8))
    assert strides == ((1, 1), (2, 2), (2, 1)) and patch == (24, 8) and kernels == ((3, 3),) * 3
    # the fine axis catches up first, and the kernel is flat until it has
    _, strides, kernels = rules.topology((1, 4), (64, 64))
    assert strides[:3] == ((1, 1), (2, 1), (2, 1)) and kernels[:3] == ((3, 1), (3, 1), (3, 3))
    assert rules.topology((1, 1), (7, 7)) == ((7, 7), ((1, 1),), ((3, 3),))


def test_topology_of_a_volume_by_hand():
    # 10 slices 4 times as coarse: two halvings within the slices, to 8 x 16 px of the same size, then one of all axes.
    # What is left, 5 x 4 x 8, could be halved along the last alone, but 8 px are too few for one axis by itself.
    patch, strides, kernels = rules.topology((4, 1, 1), (9, 30, 64))
    assert strides == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2))
    assert kernels == ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3))
    assert patch == (10, 32, 64) and rules.divisors(strides) == (2, 8, 8)


def test_an_axis_too_short_to_halve_does_not_hold_the_others_up():
    # 6 slices are never halved; compared with one another the rest are equally fine all the way down
    _, strides, kernels = rules.topology((1, 1, 1), (6, 64, 64))
    assert strides == ((1, 1, 1),) + ((1, 2, 2),) * 4 and kernels == ((3, 3, 3),) * 5


@settings(max_examples=100)
@given(volumes | scans)
def test_a_patch_is_rounded_up_by_less_than_it_must_be_divisible_by(data_set):
    shape, spacing = data_set
    patch, strides, kernels = rules.topology(spacing, shape)
    for size, wanted, divisor in zip(patch, shape, rules.divisors(strides), strict=True):
        assert size % divisor == 0 and 0 <= size - wanted < divisor
        assert size // divisor >= 4
    assert len(strides) == len(kernels) and kernels[-1] == (3,) * len(shape)
    # a rounded patch is halved like the one that was asked for, so that shrinking may start from either
    assert rules.topology(spacing, patch) == (patch, strides, kernels)


@settings(max_examples=100)
@given(volumes | scans)
def test_a_shrunk_patch_is_smaller_along_one_axis_and_covers_most_there_no_more(data_set):
    shape, spacing = data_set
    patch, strides, _ = rules.topology(spacing, shape)
    smaller = rules.shrunk(patch, strides, shape, spacing)
    changed = [axis for axis in range(len(shape)) if smaller[axis] != patch[axis]]
    assert len(changed) == 1 and smaller[changed[0]] < patch[changed[0]]
    shares = [p / n for p, n in zip(patch, shape, strict=True)]
    assert shares[changed[0]] == max(shares)


def test_shrinking_by_hand():
    # 256 px halve six times, but 192 only five (192 / 32 = 6 px): the next size is 224, not 192
    patch, strides, _ = rules.topology((1, 1), (256, 256))
    assert rules.divisors(strides) == (64, 64)
    assert rules.shrunk(patch, strides, (256, 300), (1, 1)) == (224, 256)
    # equal shares: the last axis gives way
    patch, strides, _ = rules.topology((1, 1, 1), (64, 64, 64))
    assert rules.shrunk(patch, strides, (64, 64, 64), (1, 1, 1)) == (64, 64, 56)


def test_feature_map_values_by_hand():
    # stage 0: 16 px x 2 maps x (2 down + 1 up + 2 up) = 160; stage 1: 4 px x 4 maps x 2 = 32; scores 16 px x 3 = 48
    assert rules.feature_map_values((4, 4), (2, 4), ((1, 1), (2, 2)), classes=2) == 240
    # the same in a volume of 64 px, the deep stage an eighth: 64 x 2 x 5 + 8 x 4 x 2 + 64 x 3
    assert rules.feature_map_values((4, 4, 4), (2, 4), ((1, 1, 1), (2, 2, 2)), classes=2) == 896


def test_residual_feature_map_values_by_hand():
    # stage 0: 16 px x 2 maps x (1 to begin with + 1 block x 2 down + 1 up + 1 up) = 160; stage 1: 4 px x 4 maps x (2
    # blocks x 2 + 1 beside the first) = 80; logits 16 px x 3 = 48
    assert rules.feature_map_values((4, 4), (2, 4), ((1, 1), (2, 2)), 2, (1, 2)) == 288
    # beside the first block is nothing where neither size nor number of maps changes: 16 x 4 maps x 4
    assert rules.feature_map_values((4, 4), (4, 4), ((1, 1), (1, 1)), 2, (1, 2)) == 16 * 4 * (5 + 4) + 48


def test_residual_yardsticks_are_the_presets_and_between_them_the_smaller_one_scaled():
    assert [rules.budget(gb, 2, "residual") for gb in (4, 8, 24, 40)] == [67.5e6, 135e6, 380e6, 560e6]
    assert rules.budget(16, 3, "residual") == 2 * 680e6 and rules.budget(48, 3, "residual") == 1.2 * 3600e6
    # a 2-D patch shrinks until 12 fit; a batch may hold all pixels of the data set
    assert rules.fits(135_000_000, 8, 2, "residual") and not rules.fits(135_000_001, 8, 2, "residual")
    assert rules.batch_size(10, 8, 7 * 64 * 64, (64, 64), "residual") == 7
    assert rules.residual_blocks(2) == (1, 3) and rules.residual_blocks(7) == (1, 3, 4, 6, 6, 6, 6)


def test_feature_maps_double_up_to_the_cap():
    assert rules.feature_maps(6, 32, 320) == (32, 64, 128, 256, 320, 320)
    assert rules.feature_maps(3, 8, 4) == (4, 4, 4)


def test_the_yardsticks_fill_their_memory():
    # 2-D: 12 patches of 85 million values in 8 GB; 3-D: 2 of 560 million. A batch of two just fits in either.
    assert rules.budget(8, 2) == 85e6 and rules.budget(24, 2) == 255e6 and rules.budget(8, 3) == 560e6
    assert rules.fits(510_000_000, 8, axes=2) and not rules.fits(510_000_006, 8, axes=2)
    assert rules.fits(560_000_000, 8, axes=3) and not rules.fits(560_000_001, 8, axes=3)
    assert rules.batch_size(85_000_000, 8, 1e12, (64, 64)) == 12
    assert rules.batch_size(560_000_000, 8, 1e12, (64, 64, 64)) == 2


def test_a_batch_holds_at_most_5_percent_of_all_pixels_and_at_least_two_patches():
    assert rules.batch_size(10, 8, 1000 * 64 * 64, (64, 64)) == 50
    assert rules.batch_size(10, 8, 10 * 64**3, (64, 64, 64)) == 2


@pytest.mark.parametrize(("steps", "slices", "expected"), [
    ((0.1, 0.2, 0.3, 0.3, 0.3), 25, 0.14), ((0.1, 0.2, 0.3, 0.3, 0.3), 200, 0.3),  # 200 are not few
    ((0.001, 0.001, 0.3, 0.3, 0.3), 25, 0.01201)])  # it stays coarser than the others
def test_target_spacing_of_few_coarse_slices_is_their_10th_percentile(steps, slices, expected):
    spacings = [(step, 0.004, 0.012) for step in steps]
    assert rules.target_spacing(spacings, [(slices, 496, 512)] * 5) == pytest.approx((expected, 0.004, 0.012))


def test_target_spacing_of_a_2d_scan_is_the_median_however_coarse_its_a_scans():
    spacings = [(0.004, wide) for wide in (0.01, 0.015, 0.02, 0.02, 0.02)]
    assert rules.target_spacing(spacings, [(1000, 90)] * 5) == (0.004, 0.02)


def test_median_shape_is_taken_after_resampling():
    # 10 px of 2 mm are 20 px of 1 mm; 15 px of 1 mm stay: half-way lies 17.5
    assert rules.median_shape([(10, 8), (15, 8)], [(2, 1), (1, 1)], (1, 1)) == (17.5, 8)


def test_the_coarsest_axis_comes_first_and_the_rest_as_they_are():
    assert rules.axis_order((0.1, 0.5, 0.2)) == (1, 0, 2)
    assert rules.axis_order((0.1, 0.2, 0.5)) == (2, 0, 1)
    assert rules.axis_order((1, 1, 1)) == (0, 1, 2)
    assert rules.axis_order((1, 3)) == ()


def test_fine_axes_are_made_coarser_first():
    assert rules.coarser((4, 1, 2)) == (4, 1.03, 2)  # 2 is half of 4: comparable
    assert rules.coarser((4, 2, 3)) == pytest.approx((4.12, 2.06, 3.09))


@settings(max_examples=50)
@given(st.tuples(spacings, spacings, spacings))
def test_growing_coarser_ends_with_comparable_axes(spacing):
    for _ in range(200):
        before, spacing = math.prod(spacing), rules.coarser(spacing)
        assert math.prod(spacing) > before
    assert max(spacing) / min(spacing) <= 2 * 1.0001
