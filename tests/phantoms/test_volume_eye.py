import numpy as np
import pytest

from octkit.phantoms import circle_eye
from octkit.phantoms.circle_eye import CHOROID, GCIPL, RNFL
from octkit.phantoms.volume_eye import CIRCLE, draw_volume_eye

ACROSS, DOWN = np.linspace(-3, 3, 121), np.linspace(-3, 3, 61)


def drawn_eye(seed: int, kind: str, eye: str = "R", glaucoma: bool = False, down=DOWN, across=ACROSS):
    return draw_volume_eye(np.random.default_rng(seed), kind, down, across, eye, glaucoma)


def thickness(kind: str, glaucoma: bool = False, count: int = 12) -> np.ndarray:
    """(count, 9, B, W) um of right eyes, nan inside the disc's opening."""
    drawn = [drawn_eye(seed, kind, "R", glaucoma) for seed in range(count)]
    return np.array([np.where(one.opening, np.nan, np.diff(one.depth, axis=0)) for one in drawn])


@pytest.fixture(scope="module")
def macula() -> np.ndarray:
    return thickness("macular")


@pytest.fixture(scope="module")
def disc() -> np.ndarray:
    return thickness("peripapillary")


def at(maps: np.ndarray, x: float, y: float) -> np.ndarray:
    """What lies `x` mm to the right of the middle and `y` above it."""
    return maps[..., int(np.argmin(abs(DOWN + y))), int(np.argmin(abs(ACROSS - x)))]


def ring(maps: np.ndarray, radius: float, width: float = 0.06) -> np.ndarray:
    away = np.hypot(*np.meshgrid(ACROSS, DOWN))
    return maps[..., abs(away - radius) < width]


@pytest.mark.parametrize("kind", ["macular", "peripapillary"])
def test_no_layer_is_crossed_and_all_is_finite(kind):
    for seed in range(10):
        drawn = drawn_eye(seed, kind, "RL"[seed % 2], bool(seed % 3))
        assert np.isfinite(drawn.depth).all() and np.isfinite(drawn.bruch).all()
        assert (np.diff(drawn.depth, axis=0) >= -1e-9).all()
        assert drawn.opening.any() == (kind == "peripapillary")


def test_the_pit_and_the_ring_around_it(macula):
    mean = macula.mean(axis=0)
    middle = np.hypot(*np.meshgrid(ACROSS, DOWN)) < 0.4  # the fovea lies within
    assert macula[:, RNFL, middle].min() < 0.5
    assert macula[:, GCIPL, middle].min() < 2
    assert np.nanargmax([ring(mean[GCIPL], r).mean() for r in (0.2, 0.5, 1.0, 1.5, 2.0, 2.6)]) == 2
    assert 78 < ring(mean[GCIPL], 1.0).mean() < 95
    assert 45 < at(mean[GCIPL], -2.8, 0) < 60
    retina = macula[:, :8].sum(axis=1)
    assert 190 < retina[:, middle].min(axis=1).mean() < 240
    assert 300 < ring(retina, 1.0).mean() < 350


def test_the_nerve_fibre_layer_thickens_towards_the_disc(macula):
    mean = macula.mean(axis=0)[RNFL]
    temporal, above, raphe, bundle = at(mean, -2.5, 0), at(mean, 0, 2.5), at(mean, 2.8, 0.3), at(mean, 2.8, 2)
    assert 8 < temporal < 20
    assert temporal < above < bundle
    assert raphe < bundle
    assert 65 < bundle < 120


def test_choroid(macula, disc):
    under_fovea = at(macula[:, CHOROID], 0, 0)
    assert 150 < under_fovea.min() < under_fovea.max() < 430
    assert 240 < under_fovea.mean() < 330  # 287 +- 76 um in 54 healthy eyes, Margolis and Spaide 2009
    assert np.nanmean(disc[:, CHOROID]) < 0.8 * macula[:, CHOROID].mean()


def test_on_the_circle_around_the_disc_the_tables_hold():
    angle = np.arange(0, 360, 15.0)
    met = []
    for seed in range(40):  # a right eye: temporal is on the left
        x, y = -CIRCLE * np.cos(np.radians(angle)), CIRCLE * np.sin(np.radians(angle))
        layers = np.diff(drawn_eye(seed, "peripapillary", down=-y[::2], across=x[::2]).depth, axis=0)
        met.append([layers[[RNFL, GCIPL], point, point] for point in range(12)])
    rnfl, gcipl = np.mean(met, axis=0).T
    # The window is off the disc's centre by some 0.1 mm: means are a little wider than the table's humps.
    np.testing.assert_allclose(rnfl, circle_eye.RNFL_MEAN[::2], rtol=0.2)
    np.testing.assert_allclose(gcipl, circle_eye.GCIPL_MEAN[::2], rtol=0.12)
    assert rnfl.mean() == pytest.approx(95, abs=6)


def test_the_nerve_fibre_layer_falls_off_with_distance(disc):
    means = [np.nanmean(ring(disc[:, RNFL], radius)) for radius in (1.2, 1.8, 2.7)]
    assert means[0] / means[1] == pytest.approx(1.8 / 1.2, rel=0.1)
    assert means[1] / means[2] == pytest.approx(2.7 / 1.8, rel=0.1)


def test_layers_end_at_the_opening():
    for seed in range(8):
        drawn = drawn_eye(seed, "peripapillary")
        area = drawn.opening.mean() * 36.0
        assert 1.5 < 2 * np.sqrt(area / np.pi) < 1.9
        layers = np.diff(drawn.depth, axis=0)
        rim = drawn.opening.copy()
        rim[1:], rim[:-1] = rim[1:] | drawn.opening[:-1], rim[:-1] | drawn.opening[1:]
        rim[:, 1:], rim[:, :-1] = rim[:, 1:] | drawn.opening[:, :-1], rim[:, :-1] | drawn.opening[:, 1:]
        rim &= ~drawn.opening
        assert layers[GCIPL][rim].max() < 6
        assert drawn.depth[0][drawn.opening].max() > 15  # the cup's floor, below Bruch's membrane


def test_glaucoma_thins_along_the_bundles_and_widens_the_cup(macula, disc):
    ill_macula, ill_disc = thickness("macular", True), thickness("peripapillary", True)
    assert np.nanmean(ill_disc[:, RNFL]) < 0.8 * np.nanmean(disc[:, RNFL])
    assert 0.7 < ring(ill_macula[:, GCIPL], 1.0).mean() / ring(macula[:, GCIPL], 1.0).mean() < 0.93
    np.testing.assert_allclose(ill_macula[:, 2:8].mean(), macula[:, 2:8].mean(), rtol=0.02)
    for seed in range(5):
        cups = [np.count_nonzero(drawn_eye(seed, "peripapillary", "R", ill).depth[0] > 0) for ill in (False, True)]
        assert cups[1] > cups[0]


def test_left_eyes_are_mirrored():
    right, left = (drawn_eye(3, "macular", eye) for eye in "RL")
    np.testing.assert_allclose(right.depth, left.depth[..., ::-1], atol=1e-9)
    np.testing.assert_allclose(right.bruch, left.bruch[..., ::-1], atol=1e-9)


def test_one_seed_is_one_eye_at_any_resolution():
    fine = drawn_eye(5, "peripapillary", glaucoma=True)
    coarse = drawn_eye(5, "peripapillary", "R", True, DOWN[::3], ACROSS[::4])
    np.testing.assert_allclose(fine.depth[:, ::3, ::4], coarse.depth, atol=1e-6)
    np.testing.assert_allclose(np.ptp(fine.bruch[::3, ::4] - coarse.bruch), 0, atol=1e-6)  # but for the mean


def test_vessels_are_one_line_that_leaves_the_disc_and_spares_the_fovea():
    drawn = drawn_eye(2, "peripapillary")
    assert len(drawn.vessels) >= 10
    for vessel in drawn.vessels:
        assert np.isnan(vessel.distance[np.hypot(*np.meshgrid(ACROSS, DOWN)) < 0.1]).all()
        assert (abs(vessel.distance[np.isfinite(vessel.distance)]) < 60).any()
        assert (vessel.diameter > 5).all()
    fovea = drawn_eye(2, "macular")
    middle = np.hypot(*np.meshgrid(ACROSS, DOWN)) < 0.15
    assert all(np.isnan(vessel.distance[middle]).all() for vessel in fovea.vessels)
