import numpy as np

from octkit.phantoms.draws import course, relief, uniform


def test_numbers_come_from_their_ranges_in_the_order_of_their_names():
    drawn = uniform(np.random.default_rng(0), wide=(2.0, 4.0), fixed=(7.0, 7.0), low=(-1.0, 0.0))
    first, _, third = np.random.default_rng(0).random(3)
    assert (drawn.wide, drawn.fixed, drawn.low) == (2 + 2 * first, 7, -1 + third)


def test_course_has_mean_0_variance_1_and_closes():
    angle = np.arange(120) * 3.0
    drawn = np.array([course(np.random.default_rng(seed), angle, (1, 0.5, 0.3)) for seed in range(2000)])
    np.testing.assert_allclose(drawn.mean(axis=0), 0, atol=0.1)
    np.testing.assert_allclose(drawn.var(axis=0), 1, atol=0.15)
    np.testing.assert_allclose(course(np.random.default_rng(1), angle + 360, (1, 0.5)),
                               course(np.random.default_rng(1), angle, (1, 0.5)), atol=1e-9)


def test_relief_has_mean_0_variance_1_and_its_length():
    x = np.array([0.0, 0.5, 1.0, 4.0])
    drawn = np.array([relief(np.random.default_rng(seed), x, 0 * x, 0.5) for seed in range(3000)])
    np.testing.assert_allclose(drawn.mean(axis=0), 0, atol=0.07)
    # exp(-(r / length)^2 / 2) at 0, 1, 2 and 8 lengths.
    np.testing.assert_allclose((drawn[:, :1] * drawn).mean(axis=0), [1, 0.607, 0.135, 0], atol=0.08)
