import numpy as np
import pytest
from scipy import stats

from octkit.phantoms import varied_device
from octkit.phantoms.frame import Frame, PlacedEye
from octkit.phantoms.varied_device import Device, draw_device, expose, speckle


def but(device: Device, **others) -> Device:
    return Device(**vars(device) | others)


@pytest.fixture(scope="module")
def plain():
    """A device without noise, blur, frame or gamma: what it is given, it shows, 200 greys for the RNFL."""
    return but(draw_device(np.random.default_rng(0)), frames=1e9, pooling=0, blur=(0, 0), snr=90, subtracted=0,
               roll_off=0, display=4.0, white=200, gamma=1, lift=0, unevenness=0, bands=(0, 0),
               corners=np.zeros((4, 2)), stripes=np.zeros((0, 2)))



def exposed(device, grey, um_per_px=(4, 12)) -> np.ndarray:
    """What a device shows of an eye whose ILM lies at 30 % and whose sclera lies at 70 % of the rows."""
    boundaries = np.repeat(np.linspace(0.3, 0.7, 10)[:, None] * len(grey), grey.shape[1], axis=1)
    return expose(np.random.default_rng(0), device, grey, PlacedEye(boundaries, (), Frame(grey.shape, um_per_px)))


@pytest.mark.parametrize("frames", [1, 2, 4.5, 20])
def test_speckle_follows_the_gamma_distribution(frames):
    share = np.linspace(0.05, 0.99, 95)
    expected = stats.gamma.ppf(share, frames, scale=1 / frames)  # exponential for 1
    np.testing.assert_allclose(speckle(stats.norm.ppf(share), frames), expected, atol=1e-9 if frames == 1 else 0.035)


@pytest.mark.parametrize("frames", [1, 1.5, 3, 30])
def test_speckle_has_mean_1_and_variance_one_over_the_frames(frames):
    drawn = speckle(np.random.default_rng(1).standard_normal(400_000), frames)
    assert drawn.min() >= 0
    assert drawn.mean() == pytest.approx(1, abs=0.02)
    assert drawn.var() == pytest.approx(1 / frames, rel=0.12)


def test_a_plain_device_shows_what_it_is_given(plain):
    grey = np.tile(np.linspace(0.1, 1.2, 100, dtype=np.float32)[:, None], (1, 50))
    image = exposed(plain, grey.copy())
    np.testing.assert_allclose(image, 200 * grey, atol=2)


def test_logarithmic_display_by_hand(plain):
    log = but(plain, display=0.0, black=-40.0)
    for decibel, expected in ((0, 200), (-10, 150), (-30, 50), (-45, 0), (8, 240)):
        grey = np.full((100, 50), 10 ** (decibel / 40), np.float32)
        image = exposed(log, grey)
        np.testing.assert_allclose(image, expected, atol=1)


def test_an_averaged_noise_floor_lies_where_the_snr_says(plain):
    noisy = but(plain, snr=24.0, display=4.0)
    image = exposed(noisy, np.zeros((100, 50), np.float32))
    np.testing.assert_allclose(image, 200 * 10 ** (-24 / 40), atol=1)


def test_single_frame_shows_the_exponential_law(plain):
    """Raw intensity, no pooling: the share of pixels above t times their mean is exp(-t)."""
    one = but(plain, frames=1.0, display=1.0, white=20.0)
    image = exposed(one, np.ones((300, 400), np.float32))
    for times in (0.5, 1, 2, 4):
        assert (image > 20 * times + 0.5).mean() == pytest.approx(np.exp(-times - 0.025), abs=0.01)


def test_large_pixels_average_where_the_device_pools(plain):
    sd = []
    for pooling in (0.0, 1.0):
        device = but(plain, frames=8.0, pooling=pooling, display=1.0, white=60.0)
        image = exposed(device, np.ones((300, 50), np.float32), (8, 21.5))
        sd.append(image.std())
    assert sd[0] / sd[1] == pytest.approx(2, rel=0.03)  # 172 um^2 are four pixels of 43


def test_frame_is_black_but_never_over_retina_and_choroid(plain):
    grey = np.ones((100, 50), np.float32)
    framed = but(plain, bands=(0.9, 0.9), corners=np.full((4, 2), 0.8))
    image = exposed(framed, grey.copy())
    assert (image[28:72] > 0).all()
    assert (image[:28] == 0).all() and (image[72:] == 0).all()
    corner = but(plain, corners=np.array([[0.2, 0.4], [0, 0], [0, 0], [0, 0]]))
    image = exposed(corner, grey.copy())
    # 20 rows high and 20 A-scans wide: below the diagonal the light comes back.
    assert (image[:20, :20][np.add.outer(np.arange(20), np.arange(20)) < 20] == 0).all()
    assert (image == 0).sum() == 210


def test_devices_differ_and_repeat_themselves():
    drawn = [draw_device(np.random.default_rng(seed)) for seed in range(80)]
    assert {device.kind for device in drawn} == set(varied_device.KINDS)
    single = [device.frames for device in drawn if device.kind == "single"]
    assert min(single) == 1 and max(single) < 3
    swept, averaged = ([device.penetration for device in drawn if device.kind == kind]
                       for kind in ("swept", "averaged"))
    assert np.mean(swept) > np.mean(averaged) + 0.3
    assert 9 <= min(device.snr for device in drawn) < 16 and max(device.snr for device in drawn) > 30
    again = draw_device(np.random.default_rng(3))
    assert (again.snr, again.white, again.grain) == (drawn[3].snr, drawn[3].white, drawn[3].grain)
