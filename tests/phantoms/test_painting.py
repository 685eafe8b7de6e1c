import numpy as np
import pytest

from octkit.phantoms import painting
from octkit.phantoms.frame import Frame, PlacedEye


def test_below_by_hand():
    image = np.zeros((5, 2), np.float32)
    painting.fill_below(image, np.array([1.5, 2.25]), 8, 1.0)
    # Centres at 0.5, 1.5, …: the edge is one row wide, so the pixel that it halves gets half.
    np.testing.assert_allclose(image, [[0, 0], [4, 0], [8, 6], [8, 8], [8, 8]])


@pytest.mark.parametrize("row", [-40.0, 2.5, 90.0])
def test_line_is_a_bell_and_may_lie_outside(row):
    image = np.zeros((12, 3), np.float32)
    painting.add_line(image, np.full(3, row), np.array([1.0, 0, 2]), 0.5)
    inside = np.zeros((12, 3))
    if row == 2.5:
        inside[:5] = np.exp(-2.0 * np.array([4, 1, 0, 1, 4]))[:, None] * [1, 0, 2]
    np.testing.assert_allclose(image, inside, atol=1e-6)


@pytest.mark.parametrize("weave", [painting.texture, painting.woven_texture])
@pytest.mark.parametrize("periodic", [True, False])
def test_texture_has_variance_1_the_grain_asked_for_and_no_seam_where_it_is_periodic(weave, periodic):
    noise = np.random.default_rng(0)
    fields = np.array([weave(noise, Frame((280, 320), (4.0, 10.0), periodic), (28.0, 80.0)) for _ in range(40)])
    np.testing.assert_allclose(fields.std(), 1, atol=0.05)
    # A Gaussian of sd s blurs white noise to a correlation of exp(-d^2 / 4 s^2): here s = 7 rows, 8 A-scans.
    down, across = (fields[:, 20:50] * fields[:, 27:57]).mean(), (fields[:, :, 30:80] * fields[:, :, 38:88]).mean()
    np.testing.assert_allclose((down, across), np.exp(-0.25), atol=0.1)
    seam = (fields[:, :, 0] * fields[:, :, -1]).mean()
    assert seam > 0.8 if periodic else abs(seam) < 0.2


def vessels(seed: int, columns: int, thickness: float = 300, periodic: bool = True) -> np.ndarray:
    """The lumens (300, columns) in a flat choroid on a whole circle, at 4 um a row."""
    rows = np.linspace(0, 10, 10)[:, None] * np.ones(columns)
    rows[-1] = rows[-2] + thickness / 4
    frame = Frame((300, columns), (4.0, 10880 / columns), periodic)
    deep = painting.Deep.of(PlacedEye(rows, (), frame), above=2, below=6, least=0)
    return deep.vessels(*np.random.default_rng(seed).spawn(2), frame)[0]


def test_thick_choroids_have_large_vessels_deep_down():
    tallest = []
    for seed in range(20):
        lumen = vessels(seed, 320)
        assert lumen.min() >= 0 and lumen.max() <= 1 and lumen[-6:].mean() < 0.2
        run = longest = np.zeros(320)
        for row in lumen:
            run = np.where(row > 0.5, run + 1, 0)
            longest = np.maximum(longest, run)
        tallest.append(4 * longest.max())
        assert 0.05 < lumen.mean() < 0.75
    assert min(tallest) > 60 and np.median(tallest) > 100 and max(tallest) < 300


def test_vessels_of_the_choroid_close_round_a_circle_and_do_not_depend_on_the_pixels():
    fine, coarse = (np.array([vessels(seed, columns) for seed in range(8)]) for columns in (640, 320))
    alike = np.corrcoef(fine.reshape(*coarse.shape, 2).mean(axis=-1).ravel(), coarse.ravel())[0, 1]
    assert alike > 0.7  # the grain of Sattler's layer is the pixels' own
    steps = abs(np.diff(fine, axis=2, append=fine[..., :1])).mean(axis=(0, 1))
    assert steps[-1] < 1.5 * steps.mean()
    line = np.array([vessels(seed, 320, periodic=False) for seed in range(8)])
    steps = abs(np.diff(line, axis=2, append=line[..., :1])).mean(axis=(0, 1))
    assert steps[-1] > 1.5 * steps[:-1].mean()
