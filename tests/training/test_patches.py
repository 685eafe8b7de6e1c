from dataclasses import dataclass

import numpy as np
import pytest
import torch

from octkit.data.labels import IGNORE
from octkit.training import patches as module
from octkit.training.augmentation import Augmenter
from octkit.training.patches import Patches, cut, foreground_voxels, patch_corner


@dataclass
class FakeCase:
    image: np.ndarray
    mask: np.ndarray
    previous: np.ndarray | None = None
    circle: bool = False


def numbered_volume() -> FakeCase:
    """9 slices whose voxels hold their own number, plus 10,000 where label 2 is: in slices 2 and 7."""
    mask = np.zeros((9, 16, 20), np.uint8)
    mask[2, 3:5, 4:9] = mask[7, 15, 0] = 2
    return FakeCase((np.arange(mask.size).reshape(1, *mask.shape) + 1e4 * (mask == 2)).astype(np.float32), mask)


def with_previous(size) -> FakeCase:
    """Random blocks of labels 0 to 2; the first step called 1 what is 2, and 2 what is 1."""
    mask = np.kron(np.random.default_rng(0).integers(0, 3, [-(-n // 4) for n in size], np.uint8),
                   np.ones((4,) * len(size), np.uint8))[tuple(slice(n) for n in size)]
    image = np.random.default_rng(1).normal(size=(1, *size)).astype(np.float32)
    return FakeCase(image, mask, np.array([0, 2, 1], np.uint8)[mask])


def of_mask(mask: np.ndarray, circle: bool = False) -> FakeCase:
    return FakeCase(mask[None].astype(np.float32), mask, circle=circle)


def one_pixel_of_foreground() -> FakeCase:
    mask = np.zeros((32, 40), np.uint8)
    mask[30, 1] = 2
    return of_mask(mask)


@pytest.mark.parametrize(("batch", "share", "expected"), [
    (12, 1 / 3, 4), (2, 1 / 3, 1), (4, 1 / 3, 1), (32, 1 / 3, 11), (2, 0, 0), (3, 1, 3)])
def test_number_of_foreground_patches(batch, share, expected):
    assert Patches([], (8, 8), batch, share, (0,), None).foreground_patches == expected


def test_foreground_patches_hold_the_foreground_and_the_others_lie_anywhere():
    patches = Patches([one_pixel_of_foreground()], (8, 8), 3, 1 / 3, (0,), None)
    found = np.array([[bool(patches[3 * batch + place][1].any()) for place in range(3)] for batch in range(40)])
    assert found[:, 2].all()
    assert found[:, :2].mean() < 0.3


def test_a_patch_depends_on_seed_and_number_alone():
    cases = [one_pixel_of_foreground(), FakeCase(np.random.default_rng(0).normal(size=(1, 32, 40)).astype(np.float32),
                                                 np.ones((32, 40), np.uint8))]
    augmenter = Augmenter((16, 16))
    one, other, different = (Patches(cases, (16, 16), 2, 1 / 3, (seed,), augmenter) for seed in (5, 5, 6))
    forwards = [one[n] for n in range(6)]
    for n in reversed(range(6)):
        assert all(map(torch.equal, forwards[n], other[n]))
    assert not all(torch.equal(different[n][0], forwards[n][0]) for n in range(6))


def test_cut_by_hand():
    array = np.arange(1, 7).reshape(1, 2, 3)
    assert cut(array, (0, 1), (2, 2)).tolist() == [[[2, 3], [5, 6]]]
    assert cut(array, (-1, 0), (4, 3)).tolist() == [[[0, 0, 0], [1, 2, 3], [4, 5, 6], [0, 0, 0]]]
    volume = np.arange(8).reshape(1, 2, 2, 2)  # two axes are one of its slices
    assert cut(volume, (1, 0, 0), (2, 2)).tolist() == [[[4, 5], [6, 7]]]
    assert cut(volume, (0, 1, -1), (1, 3)).tolist() == [[[0, 2, 3]]]
    assert cut(volume, (1, 0, 1), (2, 2, 1)).tolist() == [[[[5], [7]], [[0], [0]]]]


def test_corners_stay_inside_the_scan_and_small_scans_are_centred_in_the_patch():
    foreground, random = foreground_voxels(one_pixel_of_foreground().mask), np.random.default_rng(0)
    assert patch_corner((4, 6), (8, 8), random, foreground_voxels(np.ones((4, 6), np.uint8))) == (-2, -1)
    for voxels in ({}, foreground):
        corners = np.array([patch_corner((32, 40), (8, 8), random, voxels) for _ in range(200)])
        assert (corners >= 0).all() and (corners <= (24, 32)).all()
    assert patch_corner((32, 40), (8, 8), random, foreground) == (24, 0)


def test_foreground_voxels_by_hand():
    found = foreground_voxels(np.array([[[0, 3], [1, 1]], [[3, 0], [0, 1]]], np.uint8))
    assert {label: voxels.tolist() for label, voxels in found.items()} == {1: [2, 3, 7], 3: [1, 4]}
    assert foreground_voxels(np.zeros((3, 3), np.uint8)) == {}


def test_patches_of_a_scan_labelled_in_part_are_centred_on_what_is_labelled():
    mask = np.full((32, 40), IGNORE, np.uint8)
    mask[10:12, 30:33] = [[0, 0, 2], [0, 0, 0]]
    found = foreground_voxels(mask)
    assert found.keys() == {0, 2} and found[2].tolist() == [432] and found[0].tolist() == [430, 431, 432, 470, 471, 472]
    patches = Patches([of_mask(mask)], (5, 5), 3, 1 / 3, (0,), None)
    centres = np.array([[int(patches[3 * batch + place][1][2, 2]) for place in range(3)] for batch in range(20)])
    assert (centres[:, 2] == 2).all() and not (centres == IGNORE).any() and (centres[:, :2] == 0).any()
    assert foreground_voxels(np.full((3, 3), IGNORE, np.uint8)) == {}  # nothing to choose from: anywhere


def test_of_a_large_class_ten_thousand_voxels_are_drawn_from_all_of_it():
    mask = np.zeros((30, 40, 50), np.uint8)
    mask[3:] = 2
    mask[0, 0, :7] = 1
    found = foreground_voxels(mask)
    assert found[1].tolist() == list(range(7))
    assert len(np.unique(found[2])) == len(found[2]) == 10_000 and (mask.ravel()[found[2]] == 2).all()
    slices = np.bincount(found[2] // 2000, minlength=30)
    assert not slices[:3].any() and slices[3:].min() > 300  # 370 on average
    assert all(np.array_equal(found[label], again) for label, again in foreground_voxels(mask).items())


@pytest.mark.parametrize("size", [(6, 7, 5), (3, 20, 24)])
def test_patches_of_volumes(size):
    patches = Patches([numbered_volume()], size, 2, 1 / 3, (0,), None)
    for number in range(20):
        image, mask = patches[number]
        assert image.shape == (1, *size) and image.dtype == torch.float32
        assert mask.shape == size and mask.dtype == torch.uint8
        assert bool((mask == 2).any()) or number % 2 == 0
        assert torch.equal(image[0] >= 1e4, mask == 2)


def test_two_axes_of_a_volume_are_one_of_its_slices():
    case = numbered_volume()
    patches = Patches([case], (8, 12), 2, 1 / 3, (0,), None)
    slices = {0: set(), 1: set()}
    for number in range(80):
        image, mask = patches[number]
        assert image.shape == (1, 8, 12) and mask.shape == (8, 12)
        first = int(image[0, 0, 0] % 1e4)
        d, row, column = np.unravel_index(first, case.mask.shape)
        assert torch.equal(image[0], torch.from_numpy(case.image[0, d, row:row + 8, column:column + 12]))
        slices[number % 2].add(int(d))
    assert slices[0] == set(range(9)) and slices[1] == {2, 7}  # anywhere, or where the foreground lies


def test_a_slice_that_is_smaller_than_the_patch_is_padded():
    image, mask = Patches([numbered_volume()], (8, 32), 1, 0, (0,), None)[0]
    assert image.shape == (1, 8, 32) and not image[0, :, :6].any() and not image[0, :, -6:].any()
    assert image[0, -1, 6:-6].all()


@pytest.mark.parametrize("size", [(16, 20), (5, 16, 20)])
def test_the_first_step_is_shown_as_channels(size):
    case = with_previous(size)
    image, mask = Patches([case], size, 2, 1 / 3, (3,), None, previous_classes=3)[0]
    assert image.dtype == torch.float32
    np.testing.assert_array_equal(image, [*case.image, *(case.previous == label for label in (1, 2, 3))])
    np.testing.assert_array_equal(mask, case.mask)


@pytest.mark.parametrize("size", [(16, 20), (5, 16, 20)])
def test_the_first_step_moves_along_and_is_perturbed_in_training(size, monkeypatch):
    case = with_previous(size)
    arguments = [case], size, 2, 1 / 3, (3,), Augmenter(size)
    patches, plain = Patches(*arguments, previous_classes=3), Patches(*arguments)
    with monkeypatch.context() as faithful:
        faithful.setattr(module, "perturb", lambda labels, *_: labels)
        unspoilt = [patches[number] for number in range(40)]
    changed = 0
    for number, (image, mask) in enumerate(unspoilt):
        found = (image[1:] * torch.arange(1, 4).view(-1, *(1,) * len(size))).sum(0).long()
        assert torch.equal(found, (3 - mask) * (mask > 0))
        spoilt, same_mask = patches[number]
        without, plain_mask = plain[number]
        assert torch.equal(spoilt[:1], image[:1]) and torch.equal(same_mask, mask)  # only its own channels suffer
        assert torch.equal(without, image[:1]) and torch.equal(plain_mask, mask)
        assert set(spoilt[1:].unique().tolist()) <= {0, 1} and spoilt[1:].sum(0).max() <= 1
        changed += not torch.equal(spoilt, image)
        assert torch.equal(spoilt, patches[number][0])
    assert 5 < changed < 30


def test_a_circle_goes_on_at_its_other_side():
    rows = np.arange(12).reshape(1, 2, 6)  # two rows of six A-scans
    assert cut(rows, (0, 4), (2, 4), circle=True).tolist() == [[[4, 5, 0, 1], [10, 11, 6, 7]]]
    assert cut(rows, (0, -1), (2, 2), circle=True).tolist() == [[[5, 0], [11, 6]]]
    # a patch wider than the circle sees it more than once; above and below it there is still nothing
    assert cut(rows, (-1, 5), (3, 8), circle=True).tolist() == [[
        [0] * 8, [5, 0, 1, 2, 3, 4, 5, 0], [11, 6, 7, 8, 9, 10, 11, 6]]]


def test_patches_of_a_circle_start_at_any_a_scan():
    random = np.random.default_rng(0)
    starts = {patch_corner((32, 40), (8, 8), random, {}, circle=True)[1] for _ in range(600)}
    assert starts == set(range(40))
    assert max(patch_corner((32, 40), (8, 8), random, {})[1] for _ in range(200)) == 32
    # one centred on the first A-scan begins before it
    assert patch_corner((32, 40), (8, 8), random, {1: np.array([16 * 40])}, circle=True) == (12, -4)


def test_image_and_mask_of_a_circle_stay_together():
    mask = np.tile(np.arange(40, dtype=np.uint8) % 4, (32, 1))
    patches = Patches([of_mask(mask, circle=True)], (8, 16), 2, 1 / 3, (0,), None)
    for image, labels in map(patches.__getitem__, range(20)):
        np.testing.assert_array_equal(image[0], labels)
        assert ((labels[0, 1:] - labels[0, :-1]) % 4 == 1).all()  # 40 is a multiple of 4: no seam
