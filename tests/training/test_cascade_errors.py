import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_closing, binary_dilation, binary_erosion, binary_opening

from octkit.training import cascade_errors as module
from octkit.training.cascade_errors import closing, dilate, erode, opening, perturb, replace, without_a_piece

SIZES = ((18, 22), (9, 18, 22))


def ball(radius: int, axes: int) -> np.ndarray:
    places = np.mgrid[(slice(-radius, radius + 1),) * axes]
    return (places**2).sum(0) <= radius**2


def blobs(size, seed: int = 0) -> np.ndarray:
    """Labels 0 to 3 in pieces of a few pixels."""
    coarse = np.random.default_rng(seed).integers(0, 4, [-(-n // 4) for n in size], np.uint8)
    return np.kron(coarse, np.ones((4,) * len(size), np.uint8))[tuple(slice(n) for n in size)]


def test_discs_and_balls_by_hand():
    point = np.zeros((5, 5), bool)
    point[2, 2] = True
    cross = dilate(point, 1)
    assert cross.astype(int).tolist() == [[0] * 5, [0, 0, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 0, 0], [0] * 5]
    assert np.array_equal(erode(cross, 1), point)
    centre = np.zeros((5, 5, 5), bool)
    centre[2, 2, 2] = True
    assert dilate(centre, 1).sum() == 7 and dilate(centre, 2).sum() == 33


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("radius", [1, 2, 3, 8])
def test_operations_equal_scipys(size, radius):
    structure = ball(radius, len(size))
    inner = (slice(2 * radius, -2 * radius),) * len(size)
    for region in (blobs(size) == label for label in range(4)):
        assert np.array_equal(dilate(region, radius), binary_dilation(region, structure))
        assert np.array_equal(erode(region, radius), binary_erosion(region, structure, border_value=1))
        # scipy takes what lies beyond the patch for background half-way, and long for large balls
        padded = np.pad(region, 2 * radius)
        for ours, theirs in ((opening, binary_opening), (closing, binary_closing)) if radius < 3 else ():
            assert np.array_equal(ours(padded, radius)[inner], theirs(padded, structure)[inner])


@pytest.mark.parametrize("operation", module.OPERATIONS)
@pytest.mark.parametrize("size", SIZES)
def test_nothing_and_everything_stay(operation, size):
    assert not operation(np.zeros(size, bool), 3).any()
    assert operation(np.ones(size, bool), 3).all()


def test_replacing_a_class_by_hand():
    labels = np.array([[1, 1, 2, 0]], np.uint8)
    replace(labels, 1, np.array([[False, True, True, False]]))
    assert labels.tolist() == [[0, 1, 1, 0]]  # lost: background; gained: taken from class 2


def test_a_piece_is_taken_away():
    region = np.zeros((10, 10), bool)
    region[0, 0] = region[1, 1] = True  # one piece: they touch at a corner
    region[5:9, 5:9] = True  # 16 of 100 pixels: too large to be taken
    without = without_a_piece(region, np.random.default_rng(0))
    assert not without[:3, :3].any() and without[5:9, 5:9].all()
    assert np.array_equal(without_a_piece(without, np.random.default_rng(0)), without)
    assert not without_a_piece(np.zeros((4, 4), bool), np.random.default_rng(0)).any()


def test_any_small_piece_may_be_the_one():
    region = np.zeros((12, 12), bool)
    region[1, 1] = region[1, 9] = region[9, 5] = True
    left = [without_a_piece(region, np.random.default_rng(seed)) for seed in range(30)]
    assert {tuple(np.flatnonzero(region & ~without)) for without in left} == {(13,), (21,), (113,)}


@given(st.sampled_from(SIZES), st.integers(0, 5), st.integers(0, 2**31 - 1))
@settings(max_examples=60)
def test_labels_stay_legal_and_the_seed_decides(size, blob_seed, seed):
    labels = blobs(size, blob_seed)
    before = labels.copy()
    spoilt = perturb(labels, 3, np.random.default_rng(seed))
    assert spoilt.shape == size and spoilt.dtype == np.uint8 and set(np.unique(spoilt)) <= {0, 1, 2, 3}
    assert np.array_equal(labels, before) and not np.shares_memory(labels, spoilt)
    assert np.array_equal(spoilt, perturb(labels, 3, np.random.default_rng(seed)))
    labels[labels != 2] = 0  # no class appears from nowhere
    assert set(np.unique(perturb(labels, 3, np.random.default_rng(seed)))) <= {0, 2}


def test_frequencies_are_the_stated_ones(monkeypatch):
    calls = []
    monkeypatch.setattr(module, "OPERATIONS", (lambda region, radius: calls.append(radius) or region,))
    monkeypatch.setattr(module, "without_a_piece", lambda region, _: calls.append("piece") or region)
    labels = blobs((8, 8))
    untouched = 0
    for seed in range(3000):
        before = len(calls)
        perturb(labels, 3, np.random.default_rng(seed))
        untouched += len(calls) == before
    # Each of the two leaves a patch alone where it is off or leaves out all three classes.
    expected = (1 - 0.4 * (1 - 0.5**3)) * (1 - 0.2 * (1 - 0.5**3))
    assert untouched / 3000 == pytest.approx(expected, abs=0.03)
    radii = [call for call in calls if call != "piece"]
    assert len(radii) / 3000 == pytest.approx(0.4 * 1.5, abs=0.06)
    assert calls.count("piece") / 3000 == pytest.approx(0.2 * 1.5, abs=0.05)
    assert set(radii) == set(range(1, 9))


def test_classes_come_in_any_order():
    """Two classes that touch and both grow: the later one wins the border, and either may be the later."""
    labels = np.zeros((6, 20), np.uint8)
    labels[:, 8:10], labels[:, 10:12] = 1, 2
    owners = set()
    for seed in range(400):
        spoilt = perturb(labels, 2, np.random.default_rng(seed))
        owners |= {(int(spoilt[3, 9]), int(spoilt[3, 10]))}
    assert {(1, 1), (2, 2)} <= owners
