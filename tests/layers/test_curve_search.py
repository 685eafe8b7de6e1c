"""How the cheapest curves are searched, held against trying all of them."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octkit.layers.curve_search import (
    ALONE,
    TOGETHER,
    Grid,
    columnwise,
    descend,
    divisions,
    envelope,
    feasible,
    smoothed,
    steps,
)


def random_grid(seed: int, rows: int, columns: int, circular: bool, gaps=(1, 1, 2, 1), weight=0.7, step=2,
                reach=None) -> Grid:
    """Costs as probabilities give them: sums down the columns, the last two boundaries' opposite."""
    costs = np.random.default_rng(seed).normal(0, 1.5, (4, rows, columns))
    summed = np.zeros((5, rows + 1, columns), np.float32)
    summed[:4, 1:] = np.cumsum(costs, axis=1)
    summed[4] = -summed[3]
    return Grid(summed, np.array(gaps), weight, step, rows if reach is None else reach, circular)


def ordered_rows(grid: Grid) -> list[tuple[int, ...]]:
    """All ways to lay five boundaries into one column."""
    return [rows for rows in product(range(grid.rows + 1), repeat=5)
            if all(low - up >= gap for up, low, gap in zip(rows, rows[1:], grid.gaps, strict=False))]


def obeys(grid: Grid, boundaries: np.ndarray) -> bool:
    return ((np.diff(boundaries, axis=0) >= grid.gaps[:, None] - 1e-9).all() and boundaries.min() >= 0
            and boundaries.max() <= grid.rows
            and (np.abs(steps(boundaries, grid.circular)) <= grid.step + 1e-9).all())


@pytest.mark.parametrize("seed", range(5))
def test_a_column_by_itself_is_solved_exactly(seed):
    grid = random_grid(seed, 9, 3, False)
    found = columnwise(grid)
    for column in range(3):
        def cost(rows, column=column):
            return sum(float(grid.summed[i, row, column]) for i, row in enumerate(rows))
        assert tuple(found[:, column]) in ordered_rows(grid)
        assert cost(found[:, column]) == pytest.approx(min(map(cost, ordered_rows(grid))))


def test_a_column_by_hand():
    # One row each of background, RNFL, GCIPL, then two of outer retina, two of choroid, one of sclera; a wrong row
    # costs 1.
    label = [0, 1, 2, 0, 0, 3, 3, 0]
    costs = np.array([[0 if given == true else 1 for true in label] for given in range(4)])
    summed = np.zeros((5, 9, 1), np.float32)
    for i, (above, below) in enumerate([(0, 1), (1, 2), (2, 0), (0, 3), (3, 0)]):
        summed[i, 1:, 0] = np.cumsum(costs[above] - costs[below])
    assert columnwise(Grid(summed, np.array([1, 1, 1, 1]), 1.0, 1, 8, False)).ravel().tolist() == [1, 2, 3, 5, 7]


@pytest.mark.parametrize("circular", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_no_single_curve_can_be_moved_to_lower_the_cost(seed, circular):
    grid = random_grid(seed, 9, 4, circular)
    found = descend(grid, smoothed(grid, columnwise(grid)), ALONE)
    assert obeys(grid, found)
    for i, path in product(range(5), product(range(10), repeat=4)):
        other = found.copy()
        other[i] = path
        # On a circle one A-scan is held: 0 or, in the second division, 2.
        held = not circular or path[0] == found[i, 0] or path[2] == found[i, 2]
        if held and obeys(grid, other):
            assert grid.value(found) <= grid.value(other) + 1e-4


@pytest.mark.parametrize("circular", [False, True])
def test_groups_move_as_one_where_single_curves_are_stuck(circular):
    """All lie six rows too high, as close as they may be. Four pull down by 1 a row, the lowest up by 3."""
    rows = np.arange(21)[:, None]
    summed = np.stack([np.abs(rows - place) + np.zeros(6) for place in (10, 11, 12, 14)] + [3 * rows + np.zeros(6)])
    grid = Grid(summed.astype(np.float32), np.array([1, 1, 2, 1]), 0.01, 1, 20, circular)
    high = np.repeat([[4], [5], [6], [8], [9]], 6, axis=1)
    np.testing.assert_array_equal(descend(grid, high, ALONE), high)
    low = np.repeat([[10], [11], [12], [14], [15]], 6, axis=1)
    np.testing.assert_array_equal(descend(grid, high, TOGETHER + ALONE), low)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(8, 24), st.integers(1, 12), st.booleans(), st.integers(1, 4))
def test_moves_never_raise_the_cost_nor_break_the_constraints(seed, rows, columns, circular, step):
    grid = random_grid(seed, rows, columns, circular and columns > 1, step=step, reach=3)
    boundaries = smoothed(grid, columnwise(grid))
    assert obeys(grid, boundaries)
    value = grid.value(boundaries)
    for passes in (TOGETHER, ALONE[:1], ALONE[1:], TOGETHER + ALONE):
        boundaries = descend(grid, boundaries, passes)
        assert obeys(grid, boundaries)
        assert grid.value(boundaries) <= value + 1e-4
        value = grid.value(boundaries)


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(9, 30), st.integers(1, 20), st.booleans())
def test_whatever_is_given_becomes_feasible_and_stays_if_it_is(seed, rows, columns, circular):
    grid = random_grid(0, rows, columns, circular)
    anything = np.random.default_rng(seed).uniform(-10, rows + 10, (5, columns))
    made = feasible(grid, anything)
    assert obeys(grid, made)
    np.testing.assert_allclose(feasible(grid, made), made)


def test_the_envelope_by_hand():
    assert envelope(np.array([[9, 9, 0, 9, 9, 9]]), 2, False).tolist() == [[4, 2, 0, 2, 4, 6]]
    assert envelope(np.array([[9, 9, 0, 9, 9, 9]]), 2, True).tolist() == [[4, 2, 0, 2, 4, 6]]
    assert envelope(np.array([[0, 9, 9, 9, 9, 9]]), 2, True).tolist() == [[0, 2, 4, 6, 4, 2]]


@pytest.mark.parametrize("circular", [False, True])
@pytest.mark.parametrize("columns", [1, 2, 3, 127, 128, 255, 256, 300, 1100])
def test_stretches_cover_the_scan_and_meet_in_columns_of_two_sets(columns, circular):
    if circular and columns == 1:
        return
    cuts = divisions(columns, circular)
    for cut in cuts:
        assert set(cut.ravel()) == set(range(columns))
        step = np.diff(cut, axis=1) % columns
        assert set(step.ravel()) <= {0, 1 % columns}
        np.testing.assert_array_equal(cut[:-1, -1], cut[1:, 0])
        assert not circular or cut[-1, -1] == cut[0, 0]
    shared = [set(cut[0 if circular else 1:, 0]) for cut in cuts]
    assert len(cuts) == 1 or not set.intersection(*shared)


@pytest.mark.parametrize("circular", [False, True])
def test_stretches_that_move_at_once_lower_the_cost_as_much_as_told(circular):
    """Three stretches: no move of a whole stretch is left, and none broke the steps at the shared columns."""
    grid = random_grid(1, 12, 390, circular, reach=4)
    start = smoothed(grid, columnwise(grid))
    found = descend(grid, start, ALONE)
    assert obeys(grid, found) and grid.value(found) < grid.value(start)
    np.testing.assert_array_equal(descend(grid, found, ALONE), found)
