import numpy as np
import pytest

from octkit.common.errors import OctkitError
from octkit.phantoms import circle_eye, circle_scans
from octkit.phantoms.circle_eye import BRUCH, OS_RPE


@pytest.mark.parametrize("looks", ["spectralis", "varied"])
@pytest.mark.parametrize("size", [(64, 72), (65, 131), (96, 128), (256, 160)])
def test_boundaries_are_ordered_and_inside_the_frame(size, looks):
    for seed in range(12):
        scan = circle_scans.draw(seed, size, bool(seed % 2), looks)
        assert scan.image.shape == scan.mask.shape == size
        assert scan.image.dtype == scan.mask.dtype == np.uint8
        assert scan.boundaries.shape == (len(circle_eye.BOUNDARIES), size[1])
        assert (np.diff(scan.boundaries, axis=0) > 0).all()
        assert scan.boundaries.min() >= 0
        assert scan.boundaries.max() <= size[0]
        for label in (1, 2, 3):
            assert (scan.mask == label).any(axis=0).all(), "a layer is missing in some A-scan"


def test_mask_is_the_boundaries_rasterised():
    scan = circle_scans.draw(2, (80, 66))
    for column in range(66):
        for row in range(80):
            edge = scan.boundaries[:, column]
            layer = int(np.searchsorted(edge, row + 0.5, side="right"))  # edges at or above the pixel's centre
            assert scan.mask[row, column] == {1: 1, 2: 2, 9: 3}.get(layer, 0)


def test_boundaries_are_periodic():
    for seed in range(8):
        scan = circle_scans.draw(seed, (96, 160))
        steps = abs(np.diff(scan.boundaries, axis=1, append=scan.boundaries[:, :1]))
        assert (steps[:, -1] <= steps[:, :-1].max(axis=1) + 1e-9).all()


def test_layers_have_their_order_of_brightness():
    greys = []
    for seed in range(10):
        scan = circle_scans.draw(seed, (160, 96), glaucoma=bool(seed % 2))
        rows = np.arange(160)[:, None] + 0.5
        layer = (rows >= scan.boundaries[:, None, :]).sum(axis=0)  # 0 vitreous, 1 RNFL … 8 RPE, 9 choroid, 10 sclera
        greys.append([np.median(scan.image[layer == number]) for number in range(11)])
    vitreous, rnfl, gcipl, inl, opl, onl, _, _, rpe, choroid, sclera = np.median(greys, axis=0)
    assert rnfl > gcipl > opl > inl > onl > vitreous
    assert rpe > gcipl
    assert gcipl > choroid > sclera


def test_large_vessels_cast_shadows():
    darker = []
    for seed in range(6):
        scan = circle_scans.draw(seed, (128, 320))
        eye = circle_eye.draw_eye(np.random.default_rng(seed).spawn(3)[0], 320, False)
        rows = np.arange(128)[:, None] + 0.5
        rpe = np.where((rows > scan.boundaries[OS_RPE]) & (rows < scan.boundaries[BRUCH]), scan.image, np.nan)
        brightness = np.nanmean(rpe, axis=0)
        below = [int(round(vessel.angle / 360 * 320)) % 320 for vessel in eye.vessels if vessel.diameter > 85]
        darker.append(np.mean(brightness[below]) / np.median(brightness))
    assert np.mean(darker) < 0.75


def test_scale():
    assert circle_scans.scale_of((256, 320)) == pytest.approx((3.9, 33.968), abs=1e-3)  # pi * 3460 / 320
    assert circle_scans.scale_of((496, 768))[0] == pytest.approx(1900 / 496)
    assert circle_scans.scale_of((800, 1100)) == pytest.approx((2.375, 9.882), abs=1e-3)
    assert circle_scans.scale_of((96, 128))[0] == pytest.approx(900 / 96)
    scan = circle_scans.draw(0, (128, 64))
    assert np.diff(scan.boundaries[:2], axis=0).mean() * scan.um_per_px[0] == pytest.approx(scan.rnfl_um)


def test_varied_scans_draw_a_scale():
    for size, most in (((256, 320), 2200), ((800, 1100), 2900), ((64, 72), 960)):
        scales = [circle_scans.draw(seed, size, looks="varied").um_per_px for seed in range(4 if size[0] > 300 else 20)]
        depth = np.array([axial * size[0] for axial, _ in scales])
        assert (depth >= 900).all() and (depth <= most).all() and len(set(depth)) == len(depth)
        assert all(axial >= 1.9 for axial, _ in scales)
    scan = circle_scans.draw(1, (128, 96), looks="varied")
    assert np.diff(scan.boundaries[:2], axis=0).mean() * scan.um_per_px[0] == pytest.approx(scan.rnfl_um)


@pytest.mark.parametrize("size", [(63, 200), (200, 40), (20000, 20000)])
def test_draw_refuses_what_cannot_hold_an_eye(size):
    with pytest.raises(OctkitError, match="{} x {}".format(*size)):
        circle_scans.draw(0, size)


@pytest.mark.parametrize("looks", ["spectralis", "varied"])
def test_nothing_but_the_inner_layers_tells_of_glaucoma(looks):
    """The same seeds without and with glaucoma: device, light, tilt, choroid and place differ between seeds alone."""
    found = []
    for seed in range(12):
        for ill in (False, True):
            scan = circle_scans.draw(seed, (96, 128), glaucoma=ill, looks=looks)
            rows, b = np.arange(96)[:, None] + 0.5, scan.boundaries
            outer = scan.image[(rows > b[2] + 2) & (rows < b[BRUCH])]
            choroid = scan.image[(rows > b[BRUCH]) & (rows < b[-1])]
            found.append((outer.mean(), outer.std(), choroid.mean(), choroid.std(), scan.image[rows < b[0] - 3].mean(),
                          np.ptp(b[BRUCH]), np.mean(b[-1] - b[BRUCH])))
    pairs = np.array(found).reshape(12, 2, -1)
    by_disease, by_seed = np.diff(pairs, axis=1).mean(axis=(0, 1)), pairs.mean(axis=1).std(axis=0)
    assert (abs(by_disease) < 0.2 * by_seed).all(), by_disease / by_seed
    np.testing.assert_allclose(*pairs[:, :, -1].T)
