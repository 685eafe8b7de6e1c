import numpy as np
import pytest

from octkit.common.errors import OctkitError
from octkit.phantoms.circle_eye import BRUCH, GCIPL_INL, OS_RPE, RNFL_GCIPL
from octkit.phantoms.frame import rasterise
from octkit.phantoms.volume_scans import draw_volume

SMALL = (5, 64, 72)
KINDS = ("macular", "peripapillary")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [SMALL, (7, 97, 64), (2, 200, 80)])
def test_boundaries_are_ordered_and_inside_the_frame(kind, size):
    for seed in range(6):
        volume = draw_volume(seed, size, kind, glaucoma=bool(seed % 2))
        assert volume.image.shape == volume.mask.shape == size
        assert volume.image.dtype == volume.mask.dtype == np.uint8
        assert volume.boundaries.shape == (10, size[0], size[2])
        opening = np.isnan(volume.boundaries)
        assert (opening.all(axis=0) == opening.any(axis=0)).all()
        assert opening.any() == (kind == "peripapillary") or size[0] == 2  # two B-scans pass the disc by
        assert (np.diff(volume.boundaries, axis=0)[~opening[1:]] >= -1e-9).all()
        assert np.nanmin(volume.boundaries) >= 0 and np.nanmax(volume.boundaries) <= size[1]
        assert volume.image.std() > 20


@pytest.mark.parametrize("kind", KINDS)
def test_mask_is_the_boundaries_rasterised(kind):
    volume = draw_volume(1, (6, 80, 66), kind)
    expected = np.stack([rasterise(volume.boundaries[:, number], 80) for number in range(6)])
    np.testing.assert_array_equal(volume.mask, expected)  # nan is in no layer
    outside = np.isfinite(volume.boundaries[0])
    assert ((volume.mask == 3).any(axis=1) == outside).all()


def test_a_layer_is_one_run_of_voxels_in_every_a_scan():
    for seed, kind in enumerate(KINDS):
        mask = draw_volume(seed, (9, 200, 128), kind).mask
        for label in (1, 2, 3):
            layer = np.pad(mask == label, ((0, 0), (1, 1), (0, 0)))
            assert np.count_nonzero(np.diff(layer.astype(int), axis=1), axis=1).max() == 2


@pytest.mark.parametrize("kind", KINDS)
def test_boundaries_are_smooth_along_and_across_b_scans(kind):
    """Steps between neighbours in um; across B-scans, 0.12 mm apart, there is motion too (4 um sd)."""
    for seed in range(3):
        volume = draw_volume(seed, (49, 128, 128), kind)
        bruch = volume.boundaries[BRUCH] * volume.spacing[1] * 1000
        along, across = abs(np.diff(bruch, axis=1)), abs(np.diff(bruch, axis=0))
        assert np.nanmax(along) < 8  # 47 um apart
        assert np.nanmax(across) < 45
        assert 1 < np.nanstd(np.diff(np.nanmean(bruch, axis=1), n=2)) < 25  # there is motion
        gcipl = (volume.boundaries[GCIPL_INL] - volume.boundaries[RNFL_GCIPL]) * volume.spacing[1] * 1000
        assert np.nanmax(abs(np.diff(gcipl, axis=1))) < 18  # thickness has no motion in it
        assert np.nanmax(abs(np.diff(gcipl, axis=0))) < 35


def test_a_volume_repeats_itself_and_seeds_differ():
    first, again, other = (draw_volume(seed, SMALL) for seed in ((3, 0, 1), (3, 0, 1), (3, 0, 2)))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.boundaries, again.boundaries)
    assert (first.image != other.image).any()
    assert {draw_volume(seed, SMALL).eye for seed in range(12)} == {"R", "L"}


def test_one_look_a_volume_and_noise_of_its_own_for_each_b_scan():
    volume = draw_volume(4, (6, 128, 96), "peripapillary")
    levels = [[np.median(b_scan[mask == label]) for label in (1, 3)]
              for b_scan, mask in zip(volume.image, volume.mask, strict=True)]
    assert (np.ptp(levels, axis=0) < 30).all()
    others = [np.median(other.image[other.mask == 1]) for other in (draw_volume(seed, SMALL) for seed in range(10))]
    assert np.ptp(others) > 50
    assert (volume.image[0] != volume.image[1]).mean() > 0.5


def test_vessels_cast_shadows_where_they_cross():
    darker = []
    for seed in range(4):
        volume = draw_volume(seed, (8, 128, 256), "peripapillary")
        rows = np.arange(128)[:, None] + 0.5
        rpe = (rows > volume.boundaries[OS_RPE][:, None]) & (rows < volume.boundaries[BRUCH][:, None])
        total = rpe.sum(axis=1)
        mean = np.where(rpe, volume.image, 0).sum(axis=1)[total > 0] / total[total > 0]
        darker.append(np.percentile(mean, 1) / np.median(mean))
    assert np.mean(darker) < 0.8


def test_nothing_runs_over_the_edge():
    """The left and right edge of a B-scan are no neighbours: their choroids' grain is not alike."""
    alike, apart = [], []
    for seed in range(6):
        image = draw_volume(seed, (5, 96, 128)).image.astype(float)
        detail = image - image.mean(axis=(0, 2), keepdims=True)
        alike.append(abs(detail[..., 0] - detail[..., -1]).mean())
        apart.append(abs(detail[..., 0] - detail[..., 1]).mean())
    assert np.mean(alike) > 1.5 * np.mean(apart)


def test_spacing_follows_the_size():
    assert draw_volume(0, (25, 200, 64)).spacing == pytest.approx((0.24, 0.0045, 6 / 64))
    volume = draw_volume(0, (6, 80, 70))
    # GCIPL at its ring is what it is in um, whatever the voxels.
    gcipl = (volume.boundaries[GCIPL_INL] - volume.boundaries[RNFL_GCIPL]) * volume.spacing[1] * 1000
    assert 70 < gcipl.max() < 110


@pytest.mark.parametrize(("changes", "words"), [
    ({"size": (1, 100, 100)}, "size.*1 x 100"), ({"size": (5, 63, 100)}, "size.*5 x 63"),
    ({"size": (200, 300)}, "size.*200 x 300"), ({"size": (2000, 1000, 1000)}, "size.*2000 x"),
    ({"kind": "circle"}, "kind.*circle"), ({"looks": "new"}, "looks.*new")])
def test_what_cannot_hold_an_eye_is_refused(changes, words):
    with pytest.raises(OctkitError, match=words):
        draw_volume(0, **{"size": (5, 128, 100), **changes})
