import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from octkit.training import grey_changes
from octkit.training.grey_changes import Noise, PerChannel

SPECKLE = np.random.default_rng(7).normal(0, 2, (48, 64)).astype(np.float32)


def test_blur_spreads_a_point_by_its_sigmas():
    point = np.zeros((21, 21), np.float32)
    point[10, 10] = 8
    blurred = grey_changes.blur(point, 2.0, 1.0)
    distance = (np.arange(21) - 10) ** 2
    assert blurred.sum() == pytest.approx(8, rel=1e-5)
    assert (blurred.sum(1) * distance).sum() / 8 == pytest.approx(4, rel=0.05)
    assert (blurred.sum(0) * distance).sum() / 8 == pytest.approx(1, rel=0.05)


def test_blur_of_a_volume_equals_scipys():
    volume = np.random.default_rng(0).normal(size=(9, 14, 17)).astype(np.float32)
    ours = grey_changes.blur(volume, 0.6, 1.0, 0.8)
    assert ours.shape == volume.shape and ours.dtype == np.float32
    np.testing.assert_allclose(ours, gaussian_filter(volume, (0.6, 1.0, 0.8), mode="mirror"), atol=2e-3)
    assert np.array_equal(grey_changes.blur(volume[0], 1.0, 0.8), grey_changes.blur(volume[:1], 0.6, 1.0, 0.8)[0])


def test_brightness_and_contrast_by_hand():
    channel = np.array([[-2, 0], [1, 9]], np.float32)  # mean 2
    for shape in ((2, 2), (1, 2, 2), (2, 1, 2)):
        assert grey_changes.change_brightness(channel.reshape(shape), 1.25).ravel().tolist() == [-2.5, 0, 1.25, 11.25]
        assert grey_changes.change_contrast(channel.reshape(shape), 0.75).ravel().tolist() == [-1, 0.5, 1.25, 7.25]
        # 1.25: -3, -0.5, 0.75 and 10.75, cut off at the former -2 and 9
        assert grey_changes.change_contrast(channel.reshape(shape), 1.25).ravel().tolist() == [-2, -0.5, 0.75, 9]


def test_low_resolution_by_hand():
    stripes = np.tile(np.array([-3, 7], np.float32), (8, 6))
    # Halved, the nearest pixel of each pair is its second: the stripes are gone.
    assert np.allclose(grey_changes.lower_resolution(stripes, 0.5), 7)
    assert np.allclose(grey_changes.lower_resolution(stripes, 1.0), stripes)
    ramp = np.tile(np.arange(40, dtype=np.float32), (40, 1))
    assert np.abs(grey_changes.lower_resolution(ramp, 0.5) - ramp).max() <= 1.5  # stays in place, to a pixel


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_low_resolution_of_volumes_by_hand(axis):
    line = np.array([-3, 7] * 4, np.float32)
    stripes = np.broadcast_to(np.expand_dims(line, tuple({0, 1, 2} - {axis})), (8, 8, 8)).copy()
    assert np.allclose(grey_changes.lower_resolution(stripes, 0.5), 7)
    assert np.allclose(grey_changes.lower_resolution(stripes, 1.0), stripes)
    apart = grey_changes.lower_resolution(stripes, 0.5, slices_apart=True)
    assert np.allclose(apart, stripes if axis == 0 else 7)


def test_gamma_by_hand():
    channel, curve = np.array([[1, 3, 5]], np.float32), np.array([0, 0.25, 1])  # the squares of 0, 0.5, 1
    expected = 3 + (curve - curve.mean()) / curve.std() * np.std([1, 3, 5])
    assert np.allclose(grey_changes.change_gamma(channel, 2.0), expected)


@pytest.mark.parametrize("shape", [(48, 64), (4, 16, 48)])
@pytest.mark.parametrize("gamma", [0.7, 1.5])
def test_gamma_keeps_mean_spread_and_order_and_bends_the_named_end(gamma, shape):
    channel = SPECKLE.reshape(shape)
    plain = grey_changes.change_gamma(channel, gamma)
    inverted = grey_changes.change_gamma(channel, gamma, inverted=True)
    for bent in (plain, inverted):
        assert bent.mean() == pytest.approx(channel.mean(), abs=1e-4)
        assert bent.std() == pytest.approx(channel.std(), rel=1e-4)
        assert (np.diff(bent.ravel()[channel.ravel().argsort()]) >= -1e-5).all()
    assert np.allclose(inverted, -grey_changes.change_gamma(-channel, gamma), atol=1e-4)
    assert np.abs(plain - inverted).mean() > 0.05


def test_noise_has_its_variance_and_differs_from_channel_to_channel():
    image = np.zeros((8, 60, 60, 2), np.float32)
    noise = Noise(lambda _: 0.25)(image, np.random.default_rng(0))
    assert noise.dtype == np.float32 and noise.shape == image.shape
    assert noise.var() == pytest.approx(0.25, rel=0.03)
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.03


def test_factors_lie_below_one_as_often_as_above():
    random = np.random.default_rng(0)
    drawn = np.array([grey_changes.between((0.7, 1.5), random) for _ in range(2000)])
    assert (drawn < 1).mean() == pytest.approx(0.5, abs=0.04)
    assert 0.7 <= drawn.min() < 0.71 and 1.49 < drawn.max() <= 1.5


def test_each_channel_has_its_own_values_and_is_taken_by_chance():
    values = iter(range(1, 100))
    change = PerChannel(lambda channel, a, b: channel + a + 100 * b, lambda _: next(values), 2, 0.5)
    image = np.zeros((2, 3, 400), np.float32)[..., :6]
    changed = change(image, np.random.default_rng(0))
    taken = np.random.default_rng(0).random(6) < 0.5
    assert 0 < taken.sum() < 6
    expected, first = np.zeros(6), 1
    for c in np.flatnonzero(taken):
        expected[c], first = first + 100 * (first + 1), first + 2
    assert np.array_equal(changed, np.broadcast_to(expected, (2, 3, 6)))
    assert not image.any()


@pytest.mark.parametrize(("size", "sigmas", "apart"), [((64, 64), 2, False), ((16, 64, 64), 3, True),
                                                      ((64, 64, 64), 3, False)])
def test_what_follows_from_the_patch(size, sigmas, apart):
    probabilities, changes = zip(*grey_changes.intensity_changes(size), strict=True)
    assert probabilities == (0.1, 0.2, 0.15, 0.15, 0.25, 0.1, 0.3)  # nnU-Net's
    assert changes[1].change is grey_changes.blur and changes[1].count == sigmas
    assert changes[4].change.func is grey_changes.lower_resolution
    assert changes[4].change.keywords == {"slices_apart": apart}
