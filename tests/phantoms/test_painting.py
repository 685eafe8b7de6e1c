import numpy as np
import pytest

from octkit.phantoms import painting
from octkit.phantoms.frame import Frame


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
