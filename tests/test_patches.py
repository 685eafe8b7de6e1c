from dataclasses import dataclass

import numpy as np
import pytest
import torch

from octkit.augment import Augmenter
from octkit.patches import Patches, cut, foreground_patches, patch_corner


@dataclass
class FakeCase:
    image: np.ndarray
    mask: np.ndarray


def one_pixel_of_foreground() -> FakeCase:
    mask = np.zeros((32, 40), np.uint8)
    mask[30, 1] = 2
    return FakeCase(mask[None].astype(np.float32), mask)


@pytest.mark.parametrize(("batch", "share", "expected"), [
    (12, 1 / 3, 4), (2, 1 / 3, 1), (4, 1 / 3, 1), (32, 1 / 3, 11), (2, 0, 0), (3, 1, 3)])
def test_number_of_foreground_patches(batch, share, expected):
    assert foreground_patches(batch, share) == expected


def test_foreground_patches_hold_the_foreground_and_the_others_lie_anywhere():
    patches = Patches([one_pixel_of_foreground()], (8, 8), 3, 1 / 3, (0,), None)
    found = np.array([[bool(patches[3 * batch + place][1].any()) for place in range(3)] for batch in range(40)])
    assert found[:, 2].all()
    assert found[:, :2].mean() < 0.3


def test_a_patch_depends_on_seed_and_number_alone():
    cases = [one_pixel_of_foreground(), FakeCase(np.random.default_rng(0).normal(size=(1, 32, 40)).astype(np.float32),
                                                 np.ones((32, 40), np.uint8))]
    augmenter = Augmenter((16, 16))
    one, other = (Patches(cases, (16, 16), 2, 1 / 3, (5,), augmenter) for _ in range(2))
    forwards = [one[n] for n in range(6)]
    backwards = [other[n] for n in reversed(range(6))][::-1]
    for (image, mask), (image_again, mask_again) in zip(forwards, backwards, strict=True):
        assert torch.equal(image, image_again) and torch.equal(mask, mask_again)
    different = Patches(cases, (16, 16), 2, 1 / 3, (6,), augmenter)
    assert not all(torch.equal(different[n][0], forwards[n][0]) for n in range(6))


def test_cut_by_hand():
    array = np.arange(1, 7).reshape(1, 2, 3)
    np.testing.assert_array_equal(cut(array, (0, 1), (2, 2)), [[[2, 3], [5, 6]]])
    np.testing.assert_array_equal(cut(array, (-1, 0), (4, 3)), [[[0, 0, 0], [1, 2, 3], [4, 5, 6], [0, 0, 0]]])


def test_small_scans_are_centred_in_the_patch():
    corner = patch_corner(np.ones((4, 6), np.uint8), (8, 8), np.random.default_rng(0), True)
    assert corner == (-2, -1)


def test_corners_stay_inside_the_scan():
    mask = one_pixel_of_foreground().mask
    random = np.random.default_rng(0)
    for on_foreground in (False, True):
        corners = np.array([patch_corner(mask, (8, 8), random, on_foreground) for _ in range(200)])
        assert (corners >= 0).all() and (corners <= (24, 32)).all()
    assert patch_corner(mask, (8, 8), random, True) == (24, 0)
