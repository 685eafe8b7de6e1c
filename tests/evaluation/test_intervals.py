import numpy as np
import pytest

from octkit.evaluation.intervals import bootstrap_interval


def test_two_groups_by_hand():
    # Means 0.2 (of two) and 0.8: samples of two groups are 0.2, 0.5, 0.5, 0.8 with equal chances.
    # Student's t with one degree of freedom is -tan(0.05 pi) = -0.158 at 45 %. Times sqrt(2) it is -0.224, the 41st
    # percentile.
    found = bootstrap_interval([0.1, 0.8, 0.3, None, float("nan")], ["a", "b", "a", "b", "c"], level=0.1)
    assert found == (pytest.approx(0.5), pytest.approx(0.5), pytest.approx(0.5), 2)
    assert bootstrap_interval([0.1, 0.8, 0.3], ["a", "b", "a"])[1:3] == (pytest.approx(0.2), pytest.approx(0.8))


def test_it_holds_the_mean_as_often_as_it_says():
    random, held = np.random.default_rng(3), []
    for _ in range(300):
        found = bootstrap_interval(random.normal(size=8))
        held.append(found.low <= 0 <= found.high)
    assert 0.91 < np.mean(held) < 0.98  # plain percentiles: 0.89


def test_without_groups_each_value_is_its_own_and_the_order_of_values_does_not_matter():
    values = np.random.default_rng(1).normal(size=40)
    found = bootstrap_interval(values)
    assert found.n == 40 and found.mean == pytest.approx(values.mean())
    half = 2.02 * values.std(ddof=1) / np.sqrt(40)
    assert [found.low, found.high] == pytest.approx([values.mean() - half, values.mean() + half], abs=0.02)
    groups = [f"{n % 7}" for n in range(40)]
    assert bootstrap_interval(values, groups) == pytest.approx(bootstrap_interval(values[::-1], groups[::-1]))


def test_scans_of_one_person_do_not_narrow_it():
    values = np.random.default_rng(2).normal(size=12)
    once = bootstrap_interval(values, [f"{n:02d}" for n in range(12)])
    assert bootstrap_interval(np.repeat(values, 5), [f"{n // 5:02d}" for n in range(60)]) == pytest.approx(once)


@pytest.mark.parametrize(("values", "n"), [([0.5, 0.7], 1), ([None], 0)])
def test_one_group_has_no_interval(values, n):
    found = bootstrap_interval(values, ["a"] * len(values))
    assert found.n == n and np.isnan([found.low, found.high]).all()
