from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from octkit.phantoms import varied_device
from octkit.phantoms.varied_device import draw_machine, expose, speckle


@pytest.fixture(scope="module")
def plain():
    """A machine without noise, blur, frame or gamma: what it is given, it shows, 200 greys for the RNFL."""
    return replace(draw_machine(np.random.default_rng(0)), looks=1e9, pooling=0, blur=(0, 0), snr=90, subtracted=0,
                   roll_off=0, display=4.0, white=200, gamma=1, lift=0, unevenness=0, bands=(0, 0),
                   corners=np.zeros((4, 2)), stripes=np.zeros((0, 2)))


BOUNDARIES = np.repeat(np.linspace(30, 70, 10)[:, None], 50, axis=1)


@pytest.mark.parametrize("looks", [1, 2, 4.5, 20])
def test_speckle_follows_the_gamma_distribution(looks):
    share = np.linspace(0.05, 0.99, 95)
    expected = stats.gamma.ppf(share, looks, scale=1 / looks)  # exponential for 1
    np.testing.assert_allclose(speckle(stats.norm.ppf(share), looks), expected, atol=1e-9 if looks == 1 else 0.035)


@pytest.mark.parametrize("looks", [1, 1.5, 3, 30])
def test_speckle_has_mean_1_and_variance_one_over_the_frames(looks):
    drawn = speckle(np.random.default_rng(1).standard_normal(400_000), looks)
    assert drawn.min() >= 0
    assert drawn.mean() == pytest.approx(1, abs=0.02)
    assert drawn.var() == pytest.approx(1 / looks, rel=0.12)


def test_a_plain_machine_shows_what_it_is_given(plain):
    grey = np.tile(np.linspace(0.1, 1.2, 100, dtype=np.float32)[:, None], (1, 50))
    image = expose(np.random.default_rng(0), plain, grey.copy(), BOUNDARIES, (4, 12))
    np.testing.assert_allclose(image, 200 * grey, atol=2)


def test_logarithmic_display_by_hand(plain):
    log = replace(plain, display=0.0, black=-40.0)
    for decibel, expected in ((0, 200), (-10, 150), (-30, 50), (-45, 0), (8, 240)):
        grey = np.full((100, 50), 10 ** (decibel / 40), np.float32)
        image = expose(np.random.default_rng(0), log, grey, BOUNDARIES, (4, 12))
        np.testing.assert_allclose(image, expected, atol=1)


def test_an_averaged_noise_floor_lies_where_the_snr_says(plain):
    noisy = replace(plain, snr=24.0, display=4.0)
    image = expose(np.random.default_rng(0), noisy, np.zeros((100, 50), np.float32), BOUNDARIES, (4, 12))
    np.testing.assert_allclose(image, 200 * 10 ** (-24 / 40), atol=1)


def test_single_frame_shows_the_exponential_law(plain):
    """Raw intensity, no pooling: the share of pixels above t times their mean is exp(-t)."""
    one = replace(plain, looks=1.0, display=1.0, white=20.0)
    image = expose(np.random.default_rng(0), one, np.ones((300, 400), np.float32), np.repeat(BOUNDARIES, 8, 1), (4, 12))
    for times in (0.5, 1, 2, 4):
        assert (image > 20 * times + 0.5).mean() == pytest.approx(np.exp(-times - 0.025), abs=0.01)


def test_large_pixels_average_where_the_machine_pools(plain):
    sd = []
    for pooling in (0.0, 1.0):
        machine = replace(plain, looks=8.0, pooling=pooling, display=1.0, white=60.0)
        image = expose(np.random.default_rng(0), machine, np.ones((300, 50), np.float32), BOUNDARIES, (8, 21.5))
        sd.append(image.std())
    assert sd[0] / sd[1] == pytest.approx(2, rel=0.03)  # 172 um^2 are four pixels of 43


def test_frame_is_black_but_never_over_retina_and_choroid(plain):
    grey = np.ones((100, 50), np.float32)
    framed = replace(plain, bands=(0.9, 0.9), corners=np.full((4, 2), 0.8))
    image = expose(np.random.default_rng(0), framed, grey.copy(), BOUNDARIES, (4, 12))
    assert (image[28:72] > 0).all()
    assert (image[:28] == 0).all() and (image[72:] == 0).all()
    corner = replace(plain, corners=np.array([[0.2, 0.4], [0, 0], [0, 0], [0, 0]]))
    image = expose(np.random.default_rng(0), corner, grey.copy(), BOUNDARIES, (4, 12))
    # 20 rows high and 20 A-scans wide: below the diagonal the light comes back.
    assert (image[:20, :20][np.add.outer(np.arange(20), np.arange(20)) < 20] == 0).all()
    assert (image == 0).sum() == 210


def test_machines_differ_and_repeat_themselves():
    drawn = [draw_machine(np.random.default_rng(seed)) for seed in range(80)]
    assert {machine.kind for machine in drawn} == set(varied_device.KINDS)
    single = [machine.looks for machine in drawn if machine.kind == "single"]
    assert min(single) == 1 and max(single) < 3
    swept, averaged = ([m.penetration for m in drawn if m.kind == kind] for kind in ("swept", "averaged"))
    assert np.mean(swept) > np.mean(averaged) + 0.3
    assert 9 <= min(machine.snr for machine in drawn) < 16 and max(machine.snr for machine in drawn) > 30
    again = draw_machine(np.random.default_rng(3))
    assert (again.snr, again.white, again.grain) == (drawn[3].snr, drawn[3].white, drawn[3].grain)
