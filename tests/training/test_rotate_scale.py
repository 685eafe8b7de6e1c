import numpy as np
import pytest
from scipy.ndimage import affine_transform, center_of_mass

from octkit.training import rotate_scale
from octkit.training.rotate_scale import affine, draw_warp, in_plane, rotation_limit, warp, warp_slices, warp_volume


def dot(place, size=(21, 25, 29)) -> tuple[np.ndarray, np.ndarray]:
    """A cube of 3 x 3 x 3 about a place: image (D, H, W, 1), labels (D, H, W, 1)."""
    labels = np.zeros((*size, 1), np.uint8)
    labels[tuple(slice(c - 1, c + 2) for c in place)] = 1
    return 5 * labels.astype(np.float32), labels


@pytest.mark.parametrize(("size", "flat", "degrees"), [
    ((256, 320), False, 180), ((100, 150), False, 180), ((100, 151), False, 15), ((512, 128), False, 15),
    ((64, 64, 64), False, 30), ((64, 16, 128), False, 30), ((20, 60, 30), False, 30), ((20, 61, 30), True, 180),
    ((14, 128, 160), True, 180), ((14, 64, 512), True, 180)])
def test_the_plane_and_the_range_of_rotations_follow_from_the_patch(size, flat, degrees):
    assert (in_plane(size), rotation_limit(size)) == (flat, degrees)


@pytest.mark.parametrize(("angles", "start", "end"), [
    ((90, 0, 0), (10, 16, 14), (10, 12, 18)), ((0, 90, 0), (14, 12, 14), (10, 12, 18)),
    ((0, 0, 90), (14, 12, 14), (10, 16, 14)), ((90, 90, 0), (10, 12, 18), (10, 8, 14)),
    ((0, 0, 0), (3, 4, 5), (3, 4, 5))])
def test_quarter_turns_by_hand(angles, start, end):
    """The centre is (10, 12, 14); things four voxels from it along one axis come to lie along another."""
    image, labels = dot(start)
    moved, moved_labels = warp_volume(image, labels, affine(angles, (1, 1, 1)))
    expected, expected_labels = dot(end)
    np.testing.assert_allclose(moved, expected, atol=1e-4)
    assert np.array_equal(moved_labels, expected_labels)


def test_scaling_by_hand():
    image, labels = np.zeros((24, 24, 24, 1), np.float32), np.zeros((24, 24, 24, 1), np.uint8)
    image[8:16, 8:16, 8:16], labels[8:16, 8:16, 8:16] = 5, 3
    twice = warp_volume(image, labels, affine((0, 0, 0), (2, 2, 2)))[1][..., 0]
    assert (twice == 3).sum() == 16**3 and twice[4, 4, 4] == 3 and twice[3, 4, 4] == 0
    along_one = warp_volume(image, labels, affine((0, 0, 0), (1, 1, 0.5)))[1][..., 0]
    assert (along_one == 3).sum() == 8 * 8 * 4


@pytest.mark.parametrize("matrix", [affine((20, -10, 25), (0.8, 0.8, 0.8)), affine((-7, 30, 3), (1.4, 1.4, 1.4))])
def test_volumes_are_sampled_as_scipy_does(matrix):
    random = np.random.default_rng(0)
    size = np.array([17, 20, 23])
    image, labels = random.normal(size=(*size, 2)).astype(np.float32), random.integers(0, 4, (*size, 1), np.uint8)
    moved, moved_labels = warp_volume(image, labels, matrix)
    centre = (size - 1) / 2
    for c in range(2):
        expected = affine_transform(image[..., c], matrix, centre - matrix @ centre, order=1, mode="grid-constant")
        np.testing.assert_allclose(moved[..., c], expected, atol=1e-4)
    expected = affine_transform(labels[..., 0], matrix, centre - matrix @ centre, order=0)
    outermost = (moved_labels[..., 0] == 0) | (expected == 0)  # scipy ends at the last voxel's centre, not at its edge
    assert (moved_labels[..., 0] == expected)[~outermost].mean() > 0.999


@pytest.mark.parametrize("angle", [0, 33, -120, 180])
def test_slices_move_as_the_whole_volume_would(angle):
    random = np.random.default_rng(1)
    size = (5, 40, 52, 2)
    image, labels = random.normal(size=size).astype(np.float32), random.integers(0, 4, size, np.uint8)
    matrix = affine((angle, 0, 0), (1, 1.3, 1.3))
    by_slice, by_volume = warp_slices(image, labels, matrix), warp_volume(image, labels, matrix)
    np.testing.assert_allclose(by_slice[0], by_volume[0], atol=2e-3)
    assert (by_slice[1] == by_volume[1]).mean() > 0.99


def test_beyond_the_patch_is_zero_and_background():
    image, labels = np.full((12, 12, 12, 1), 6, np.float32), np.full((12, 12, 12, 1), 3, np.uint8)
    moved, moved_labels = warp_volume(image, labels, affine((30, 30, 30), (0.7, 0.7, 0.7)))
    assert moved[0, 0, 0] == 0 and moved_labels[0, 0, 0] == 0
    assert moved[6, 6, 6] == pytest.approx(6, abs=1e-4) and moved_labels[6, 6, 6] == 3
    flat, flat_labels = warp_slices(image, labels, affine((45, 0, 0), (1, 0.7, 0.7)))
    assert not flat[:, 0, 0].any() and not flat_labels[:, 0, 0].any() and (flat_labels[:, 6, 6] == 3).all()


def test_random_warps_turn_and_scale_as_often_and_as_far_as_stated():
    random = np.random.default_rng(0)
    drawn = [matrix for _ in range(3000) if (matrix := draw_warp((8, 8, 8), 30.0, random)) is not None]
    assert len(drawn) / 3000 == pytest.approx(1 - 0.8 * 0.8, abs=0.03)
    factors = np.array([np.linalg.det(matrix) ** (-1 / 3) for matrix in drawn])
    scaled = ~np.isclose(factors, 1)
    assert scaled.mean() * len(drawn) / 3000 == pytest.approx(0.2, abs=0.025)
    assert 0.7 <= factors.min() < 0.72 and 1.38 < factors.max() <= 1.4
    turns = np.array([matrix * factor for matrix, factor in zip(drawn, factors, strict=True)])
    turned = ~np.isclose(turns, np.eye(3)).all(axis=(1, 2))
    assert (scaled & turned).sum() / 3000 == pytest.approx(0.04, abs=0.015)
    # Three turns of at most 30 degrees about the three axes are together at most one of 90.
    degrees = np.degrees(np.arccos(np.clip((np.trace(turns, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    assert 40 < degrees.max() < 90


def test_a_random_warp_in_the_plane_turns_all_slices_alike():
    angles = []
    for seed in range(100):
        image, labels = dot((2, 30, 48), (5, 61, 61))
        labels[:] = labels[2]
        matrix = draw_warp(labels.shape[:3], 180.0, np.random.default_rng(seed))
        moved = (labels if matrix is None else warp(image, labels, matrix, labels.shape[:3])[1])[..., 0]
        assert (moved == moved[0]).all()
        row, column = center_of_mass(moved[0])
        angles.append(abs(np.degrees(np.arctan2(row - 30, column - 30))))
    assert max(angles) > 120 and 0.1 < np.mean(np.array(angles) > 2) < 0.35


@pytest.mark.parametrize("size", [(12, 17), (4, 13, 16), (8, 9, 11)])
def test_a_patch_cut_as_large_as_it_reaches_is_the_middle_of_the_whole_scan_warped(size):
    """So cut, a patch shows what it would show of a scan that is warped as a whole."""
    random, around = np.random.default_rng(2), 30
    whole = tuple(n + 2 * around for n in size)
    image, labels = random.normal(size=(*whole, 1)).astype(np.float32), random.integers(0, 4, (*whole, 1), np.uint8)
    middle = tuple(slice(around, around + n) for n in size)
    flat = len(size) == 2 or in_plane(size)
    matrix = affine((25, 0, 0), (1, 0.75, 0.75)) if flat else affine((25, -10, 20), (0.75,) * 3)
    wide = tuple(slice(around - (r - n) // 2, around + n + (r - n) // 2)
                 for r, n in zip(rotate_scale.reach(size, matrix), size, strict=True))
    cut, cut_labels = warp(image[wide], labels[wide], matrix, size)
    expected, expected_labels = warp(image, labels, matrix, whole)
    np.testing.assert_allclose(cut, expected[middle], atol=0.1)  # cv2 counts in 1/32 px
    assert (cut_labels == expected_labels[middle]).mean() > 0.95
