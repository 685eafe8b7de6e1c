import functools
import hashlib
import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import center_of_mass, maximum_filter, minimum_filter

from octkit.common.errors import OctkitError
from octkit.training import augmentation, grey_changes, rotate_scale
from octkit.training.augmentation import TRANSFORMS, Augmenter

SPATIAL = ("rotation", "scaling", "mirror")
INTENSITY = ("noise", "blur", "brightness", "contrast", "low_resolution", "gamma")
SIZE = (48, 64)
FLAT, CUBE = (6, 24, 32), (20, 24, 28)  # few slices, and as good as isotropic


def layers(size=SIZE) -> np.ndarray:
    """Tilted, slightly curved layers with labels 0, 1, 2, 0, 3, 0 from above: no symmetry at all."""
    row, column = np.mgrid[: size[0], : size[1]]
    depth = row / size[0] - 0.2 * column / size[1] - 0.1 * (column / size[1]) ** 2
    return np.array([0, 1, 2, 0, 3, 0], np.uint8)[np.digitize(depth, [0.1, 0.25, 0.35, 0.45, 0.6])]


def scan(channels: int = 1, size=SIZE) -> np.ndarray:
    """z-scores from about -4 to 8, with speckle."""
    random = np.random.default_rng(7)
    image = 2.0 * layers(size) - 1 + random.normal(0, 1, (channels, *size))
    return image.astype(np.float32)


def volume(size) -> tuple[np.ndarray, np.ndarray]:
    """Layers that rise from slice to slice, and their z-scores: image (1, D, H, W) and mask (D, H, W)."""
    mask = np.stack([np.roll(layers(size[1:]), -d % 3, axis=0) for d in range(size[0])])
    noise = np.random.default_rng(7).normal(0, 1, (1, *size))
    return (2.0 * mask - 1 + noise).astype(np.float32), mask


def away_from_edges(mask: np.ndarray) -> np.ndarray:
    """Pixels whose 3 x 3 neighbourhood holds one label only."""
    return maximum_filter(mask, 3) == minimum_filter(mask, 3)


def digest(augmenter: Augmenter, seed: int) -> str:
    size = augmenter.patch_size
    image, mask = augmenter(*((scan(), layers()) if size == SIZE else volume(size)), seed)
    return hashlib.sha256(image.tobytes() + mask.tobytes()).hexdigest()


@pytest.mark.parametrize("name", [*SPATIAL, *INTENSITY])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_each_transform_changes_the_image_and_keeps_labels_legal(name, channels):
    image, mask = scan(channels), layers()
    before = image.copy(), mask.copy()
    for seed in range(4):
        changed, moved = TRANSFORMS[name](image, mask, seed)
        assert (np.abs(changed - image).mean(axis=(1, 2)) > 0.05).all()
        assert changed.min() < -1 and changed.max() > 4 and len(np.unique(changed)) > 700  # not clipped, not 8 bits
        assert np.array_equal(moved, mask) if name in INTENSITY else set(np.unique(moved)) <= {0, 1, 2, 3}
        assert (changed.dtype, changed.shape, moved.dtype, moved.shape) == (
            np.float32, image.shape, np.uint8, mask.shape)
        assert changed.flags.c_contiguous and moved.flags.c_contiguous
    assert np.array_equal(image, before[0]) and np.array_equal(mask, before[1])


def test_labels_are_never_mixed():
    augmenter, mask = Augmenter(SIZE), np.array([0, 5, 200, 90], np.uint8)[layers()]
    for seed in range(100):
        assert set(np.unique(augmenter(scan(), mask, seed)[1])) <= {0, 5, 90, 200}  # a mean would be a new label


@pytest.mark.parametrize("name", SPATIAL)
def test_spatial_transforms_move_mask_and_image_together(name):
    mask = layers()
    # One channel a label, 4 where the label is: after the move, above 2 is the label but for interpolated edges.
    image = np.stack([4 * (mask == label) for label in (1, 2, 3)]).astype(np.float32)
    for seed in range(8):
        changed, moved = TRANSFORMS[name](image, mask, seed)
        assert (moved != mask).mean() > 0.05
        sure = away_from_edges(moved)
        assert sure.mean() > 0.5
        for channel, label in enumerate((1, 2, 3)):
            assert np.array_equal(changed[channel][sure] > 2, moved[sure] == label)
            assert ((changed[channel] > 2) == (moved == label)).mean() > 0.96


def test_rotation_turns_by_fifteen_degrees_about_the_centre():
    image, mask = np.zeros((1, 81, 81), np.float32), np.zeros((81, 81), np.uint8)
    image[0, 39:42, 69:72], mask[39:42, 69:72] = 5, 1  # 30 px right of the centre (40, 40)
    angles = set()
    for seed in range(8):
        changed, moved = TRANSFORMS["rotation"](image, mask, seed)
        for row, column in (center_of_mass(changed[0]), center_of_mass(moved)):
            assert np.hypot(row - 40, column - 40) == pytest.approx(30, abs=0.5)
            angles.add(round(np.degrees(np.arctan2(row - 40, column - 40)) / 5) * 5)
    assert angles == {-15, 15}


def test_scaling_keeps_proportions_and_changes_areas_by_the_square_of_the_factor():
    mask = np.zeros((80, 80), np.uint8)
    mask[20:60, 20:60] = 1
    factors = set()
    for seed in range(8):
        moved = TRANSFORMS["scaling"](mask[None].astype(np.float32), mask, seed)[1]
        assert abs(int(moved.any(0).sum()) - int(moved.any(1).sum())) <= 1
        factors.add(round(float(np.sqrt(moved.sum() / 1600)), 1))
    assert factors == {0.7, 1.4}


def test_outside_of_the_patch_is_zero_and_background():
    image, mask = np.full((1, *SIZE), 6, np.float32), np.full(SIZE, 3, np.uint8)
    changed, moved = TRANSFORMS["rotation"](image, mask, 0)
    assert changed[0, 0, 0] == 0 and moved[0, 0] == 0
    assert changed[0, 24, 32] == 6 and moved[24, 32] == 3


@pytest.mark.parametrize("size", [(16, 24), (4, 12, 16), (12, 12, 12)])
def test_a_patch_cut_as_large_as_it_reaches_has_no_zeros_and_one_of_its_own_size_has(size):
    augmenter, wide, gaps = Augmenter(size, 180 if len(size) == 2 else None), 0, 0
    ones = np.ones((1, *size), np.float32)
    for seed in range(60):
        reach = augmenter.reach(seed)
        assert all(r >= p and (r - p) % 2 == 0 for r, p in zip(reach, size, strict=True))
        full = np.ones((1, *reach), np.float32)
        changed, moved = augmenter(full, full[0].astype(np.uint8), seed)
        assert changed.shape == ones.shape and moved.shape == size and (moved == 1).all()
        gaps += not augmenter(ones, ones[0].astype(np.uint8), seed)[1].all()
        wide += reach != size
    # 20 % are turned, half of the 20 % that are scaled become smaller: a patch of these leaves gaps in what it shows.
    assert gaps == wide > 8


def test_a_reach_by_hand():
    """A square of 9 ends 4 px from its centre: by 45 degrees its corners lie 5.66 px along an axis, at half size 8."""
    assert rotate_scale.reach((9, 9), rotate_scale.affine((45, 0, 0), (1, 1, 1))) == (13, 13)
    assert rotate_scale.reach((9, 9), rotate_scale.affine((0, 0, 0), (1, 0.5, 0.5))) == (17, 17)
    assert rotate_scale.reach((9, 9), rotate_scale.affine((0, 0, 0), (1, 2, 2))) == (9, 9)
    assert rotate_scale.reach((3, 9, 9), rotate_scale.affine((45, 0, 0), (1, 1, 1))) == (3, 13, 13)


def test_mirror_axes_by_hand():
    image, mask = np.arange(4, dtype=np.float32).reshape(1, 2, 2), np.array([[0, 1], [2, 3]], np.uint8)
    seen = set()
    for seed in range(20):
        changed, moved = TRANSFORMS["mirror"](image, mask, seed)
        assert changed[0].tolist() == moved.tolist()
        seen.add(str(moved.tolist()))
    assert seen == {"[[2, 3], [0, 1]]", "[[1, 0], [3, 2]]"}  # rows, columns


def test_noise_has_its_variance_in_z_scores():
    residual = TRANSFORMS["noise"](scan(size=(200, 200)), layers((200, 200)), 1)[0] - scan(size=(200, 200))
    assert residual.var() == pytest.approx(0.1, rel=0.03)
    assert residual.mean() == pytest.approx(0, abs=0.01)


@given(st.floats(-50, 50), st.floats(0, 20), st.integers(1, 3), st.integers(0, 2**31 - 1))
@settings(max_examples=60)
def test_any_range_gives_finite_values(mean, spread, channels, seed):
    random = np.random.default_rng(0)
    image = (mean + spread * random.normal(size=(channels, 16, 24))).astype(np.float32)
    changed, moved = Augmenter((16, 24))(image, layers((16, 24)), seed)
    assert np.isfinite(changed).all() and changed.dtype == np.float32
    assert changed.shape == image.shape and moved.dtype == np.uint8


@pytest.mark.parametrize("size", [SIZE, FLAT, CUBE])
def test_the_seed_alone_decides_also_in_threads(size):
    augmenter = Augmenter(size)
    expected = [digest(augmenter, seed) for seed in range(40)]
    assert [digest(Augmenter(size), np.int64(seed)) for seed in range(40)] == expected
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(functools.partial(digest, augmenter), reversed(range(40)))) == expected[::-1]
    assert len(set(expected)) > 25  # some only mirror, or do nothing


def test_a_spawned_process_gives_the_same():
    augmenter = Augmenter(SIZE)
    # The augmenter itself is sent: a spawned process cannot import this file.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        for seed in range(10):
            image, mask = pool.submit(augmenter, scan(), layers(), seed).result()
            assert hashlib.sha256(image.tobytes() + mask.tobytes()).hexdigest() == digest(augmenter, seed)


@pytest.mark.parametrize("size", [(16, 24), (4, 8, 16), (8, 8, 8)])
def test_frequencies_are_the_stated_ones_and_independent(size):
    augmenter = Augmenter(size, mirror_axes=())
    image, mask = (scan(size=size), layers(size)) if len(size) == 2 else volume(size)
    moved = unchanged = 0
    for seed in range(2000):
        changed, changed_mask = augmenter(image, mask, seed)
        moved += not np.array_equal(changed_mask, mask)
        unchanged += np.array_equal(changed, image)
    # Rotated or scaled: 1 - 0.8 x 0.8, less 0.01 of scalings that move no label. Deviation of a share of 2000: 0.01.
    assert len(size) == 3 or moved / 2000 == pytest.approx(0.35, abs=0.03)
    # Transforms that all drew the same numbers would leave 0.64 of the patches as they are.
    expected = 0.8 * 0.8 * 0.9 * (1 - 0.2 / 2) * 0.85 * 0.85 * (1 - 0.25 / 2) * 0.9 * 0.7
    assert unchanged / 2000 == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("axes", [(), (-2,), (-1,), (-2, -1), (-3, -1)])
def test_each_mirror_axis_comes_half_of_the_time(axes):
    mask = np.repeat(np.repeat(np.array([[0, 1], [2, 3]], np.uint8), 8, 0), 8, 1)
    augmenter = Augmenter((16, 16), rotation_degrees=0, mirror_axes=axes)
    counts = np.zeros(2)
    for seed in range(1000):
        moved = augmenter(mask[None].astype(np.float32), mask, seed)[1]
        counts += [moved[6, 6] // 2, moved[6, 6] % 2]  # the upper left quadrant: who has come there?
    for axis in (-2, -1):
        assert counts[axis] / 1000 == (pytest.approx(0.5, abs=0.06) if axis in axes else 0)


@pytest.mark.parametrize(("degrees", "low", "high"), [(None, 120, 180), (15.0, 8, 15.5), (0.0, 0, 0.5)])
def test_rotation_stays_within_its_range(degrees, low, high):
    image, mask = np.zeros((1, 61, 61), np.float32), np.zeros((61, 61), np.uint8)
    mask[29:32, 48:51] = 1  # 19 px right of the centre
    augmenter = Augmenter((61, 61), degrees, mirror_axes=())
    angles = []
    for seed in range(200):
        row, column = center_of_mass(augmenter(image, mask, seed)[1])
        angles.append(abs(np.degrees(np.arctan2(row - 30, column - 30))))
    assert low <= max(angles) <= high + 2  # nearest-pixel labels: up to 2 degrees at this radius


def test_albumentations_accepts_every_argument():
    with pytest.raises(TypeError, match="strength"):
        augmentation.Intensity(None, p=1.0, strength=3)
    transforms = Augmenter(SIZE).pipeline.transforms
    assert len(transforms) == 7 + 2 and not any(transform.invalid_args for transform in transforms)


def test_errors_name_what_was_found_and_expected():
    with pytest.raises(OctkitError, match=r"found \(-1, 0\).*expected axes among \(-3, -2, -1\)"):
        Augmenter(SIZE, mirror_axes=(-1, 0))
    with pytest.raises(OctkitError, match=r"\(1, 32, 32\).*\(48, 64\)"):
        Augmenter(SIZE)(scan(size=(32, 32)), layers((32, 32)), 0)
    with pytest.raises(OctkitError, match=r"mask \(32, 32\).*\(48, 64\)"):
        Augmenter(SIZE)(scan(), layers(), 0, layers((32, 32)))


@pytest.mark.parametrize("size", [FLAT, CUBE])
def test_volumes_keep_shapes_types_and_labels(size):
    image, mask = volume(size)
    two = np.concatenate([image, -image])
    before, previous = (two.copy(), mask.copy()), 3 - mask
    augmenter = Augmenter(size)
    changed_images = changed_masks = 0
    for seed in range(60):
        changed, moved, earlier = augmenter(two, mask, seed, previous)
        assert (changed.dtype, changed.shape, moved.dtype, moved.shape, earlier.dtype, earlier.shape) == (
            np.float32, two.shape, np.uint8, size, np.uint8, size)
        assert changed.flags.c_contiguous and moved.flags.c_contiguous and earlier.flags.c_contiguous
        assert np.isfinite(changed).all() and changed.max() > 2 and changed.min() < -2
        assert set(np.unique(moved)) <= {0, 1, 2, 3}
        changed_images += not np.array_equal(changed, two)
        changed_masks += not np.array_equal(moved, mask)
    assert changed_images > 45 and changed_masks > 40
    assert np.array_equal(two, before[0]) and np.array_equal(mask, before[1])


@pytest.mark.parametrize("size", [SIZE, FLAT, CUBE])
def test_image_mask_and_previous_move_together(size):
    mask = layers(size) if len(size) == 2 else volume(size)[1]
    previous = np.array([0, 2, 3, 1], np.uint8)[mask]
    image = (40 * (mask == 3) - 20).astype(np.float32)[None]
    augmenter = Augmenter(size)
    for seed in range(60):
        changed, moved, earlier = augmenter(image, mask, seed, previous)
        assert np.array_equal(earlier, np.array([0, 2, 3, 1])[moved])
        sure = maximum_filter(moved, 5) == minimum_filter(moved, 5)
        assert ((changed[0] > 8) == (moved == 3))[sure].mean() > 0.99
        without = augmenter(image, mask, seed)  # what moves along changes nothing for the others
        assert len(without) == 2 and np.array_equal(without[0], changed) and np.array_equal(without[1], moved)


@pytest.mark.parametrize("axes", [(), (-3,), (-3, -1), (-2,)])
def test_each_axis_of_a_volume_is_mirrored_half_of_the_time(axes, monkeypatch):
    monkeypatch.setattr(rotate_scale, "draw_warp", lambda *_: None)
    monkeypatch.setattr(grey_changes, "intensity_changes", lambda _: ())
    mask = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)  # the corner voxel says in bits who has come there
    augmenter = Augmenter((2, 2, 2), mirror_axes=axes)
    counts = np.zeros(3)
    for seed in range(1000):
        changed, moved = augmenter(mask[None].astype(np.float32), mask, seed)
        assert np.array_equal(changed[0], moved)
        counts += [moved[0, 0, 0] >> 2 & 1, moved[0, 0, 0] >> 1 & 1, moved[0, 0, 0] & 1]
    for axis in (-3, -2, -1):
        assert counts[axis] / 1000 == (pytest.approx(0.5, abs=0.06) if axis in axes else 0)


def test_few_slices_stay_apart_in_space():
    """A patch of few slices, each of one label, keeps them whatever turns and scales it; a cube mixes them."""
    def labels_seen(size) -> bool:
        mask = np.broadcast_to(np.arange(1, size[0] + 1, dtype=np.uint8)[:, None, None], size)
        apart = True
        for seed in range(40):
            moved = Augmenter(size, mirror_axes=())(mask[None].astype(np.float32), mask.copy(), seed)[1]
            apart &= all(set(np.unique(plane)) <= {0, d + 1} for d, plane in enumerate(moved))
        return apart

    assert labels_seen(FLAT) and not labels_seen(CUBE)


def test_axes_that_a_patch_lacks_are_left_out():
    assert Augmenter(SIZE).mirror_axes == (-2, -1)
    assert Augmenter(CUBE, mirror_axes=[-1, -3]).mirror_axes == (-3, -1)


def test_importing_it_loads_neither_torch_nor_paddle_and_asks_no_server():
    code = ("import sys, os, octkit.training.augmentation; "
            "print(sorted({'torch', 'paddle'} & set(sys.modules)), os.environ['NO_ALBUMENTATIONS_UPDATE']); "
            "import albumentations.pytorch; print(albumentations.pytorch.__name__)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[] 1", "albumentations.pytorch"]
