"""Five ordered, smooth curves through a grid of costs: how the cheapest are searched. What they mean: `boundaries.py`.

`cheapest` takes three steps. (1) On a coarse grid each column by itself is solved exactly (`columnwise`). (2) A running
median and an envelope make curves of that which obey the constraints (`smoothed`). (3) Curves then move (`descend`): a
group of them by a common shift that varies along the scan, the best such move found by dynamic programming (Viterbi).
On the coarse grid groups of five, three, two and one move, on the full grid single curves. No move raises the cost, and
it ends where none lowers it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.ndimage import median_filter

TOGETHER = (((0, 1, 2, 3, 4),), ((0, 1, 2),), ((3, 4),))  # groups that move as one
ALONE = (((0,), (2,), (4,)), ((1,), (3,)))  # these do not touch each other: one pass for all of a line
STRETCH = 128  # columns: see `divisions`
Group = tuple[int, ...]  # boundaries that move as one, neighbours from the top


@dataclass(frozen=True)
class Grid:
    """The cost on one grid of rows and columns.

    `summed` (5, rows + 1, columns) is what it costs to lay boundary i at the upper edge of a row, but for a constant;
    `gaps` (4,) the least rows between neighbouring boundaries; `weight` that of half a squared step; `step` the
    greatest step between neighbouring columns; `reach` how far a move may go, in rows.
    """

    summed: np.ndarray
    gaps: np.ndarray
    weight: float
    step: int
    reach: int
    circular: bool

    @property
    def rows(self) -> int:
        return self.summed.shape[1] - 1

    def value(self, boundaries: np.ndarray) -> float:
        """The cost of whole-row boundaries (5, columns), but for a constant."""
        rows = np.take_along_axis(self.summed, boundaries[:, None], 1)
        return float(rows.sum(dtype=float) + self.weight * (steps(boundaries, self.circular) ** 2).sum() / 2)


def steps(boundaries: np.ndarray, circular: bool) -> np.ndarray:
    """How far each boundary goes down from an A-scan to the next, (5, W) or (5, W - 1); the last to the first."""
    return np.diff(boundaries, axis=1, append=boundaries[:, :1]) if circular else np.diff(boundaries, axis=1)


def cheapest(fine: Grid) -> np.ndarray:
    """The best boundaries that are found on the full grid, whole rows, (5, W) int."""
    # A coarse grid, with some rows skipped and some columns summed: about 128 of each are left.
    width = fine.summed.shape[2]
    row_step, column_step = (max(1, round(n / 128)) for n in (fine.rows, width))
    starts = np.arange(0, width, column_step)
    summed = np.add.reduceat(fine.summed[:, ::row_step], starts, axis=2)
    step = min(max(1, fine.step * column_step // row_step), summed.shape[1])
    # A step of n coarse rows is n row_step fine ones, in column_step equal parts.
    weight = fine.weight * row_step**2 / column_step
    rough = Grid(summed, -(-fine.gaps // row_step), weight, step, summed.shape[1] // 3, fine.circular)
    found = descend(rough, smoothed(rough, columnwise(rough)), TOGETHER + ALONE)
    # Back on the full one: straight between the middles of the coarse columns.
    middles = (starts + np.minimum(starts + column_step, width) - 1) / 2
    spread = [np.interp(np.arange(width), middles, row_step * row, period=width if fine.circular else None)
              for row in found.astype(float)]
    return descend(fine, feasible(fine, np.rint(spread).astype(int)), ALONE)


def columnwise(grid: Grid) -> np.ndarray:
    """The best boundaries of every column by itself (5, columns): exact, ordered, with the least thicknesses kept.

    From the top: the best cost down to boundary i at row r is its own cost there plus the least cost of the
    boundary above at r - gap or higher, a running minimum.
    """
    _, edges, columns = grid.summed.shape
    rows = np.arange(edges)[:, None]
    total, chosen = grid.summed[0].astype(float), []
    for i, gap in enumerate(grid.gaps, start=1):
        least = np.minimum.accumulate(total, axis=0)
        falls = np.vstack([np.ones((1, columns), bool), total[1:] < least[:-1]])
        chosen.append(np.maximum.accumulate(np.where(falls, rows, 0), axis=0))
        total = np.full((edges, columns), np.inf)
        total[gap:] = grid.summed[i, gap:] + least[:edges - gap]
    boundaries = [total.argmin(axis=0)]
    for gap, best in zip(grid.gaps[::-1], chosen[::-1], strict=True):
        boundaries.append(best[boundaries[-1] - gap, np.arange(columns)])
    return np.array(boundaries[::-1])


def smoothed(grid: Grid, boundaries: np.ndarray) -> np.ndarray:
    """Boundaries that obey the constraints: the running median over an eighth of the scan, its slopes limited.

    Median and envelope keep order and thickness: both are monotone, and move along with what they are given.
    """
    window = boundaries.shape[1] // 8 | 1  # odd
    mode = "wrap" if grid.circular else "nearest"
    return feasible(grid, median_filter(boundaries, (1, window), mode=mode))


def feasible(grid: Grid, boundaries: np.ndarray) -> np.ndarray:
    """The nearest boundaries below or above that obey all constraints (as they are, where they do)."""
    above = np.concatenate([[0], np.cumsum(grid.gaps)])[:, None]  # rows that the boundaries above it need
    inside = np.clip(boundaries, above, grid.rows - above[-1] + above)
    for i in (3, 2, 1, 0):
        inside[i] = np.minimum(inside[i], inside[i + 1] - grid.gaps[i])
    return envelope(inside, grid.step, grid.circular)


def envelope(boundaries: np.ndarray, step: float, circular: bool) -> np.ndarray:
    """The lowest values reached by descending from any A-scan `step` a column: min over y of s(y) + step |x - y|."""
    columns = boundaries.shape[1]
    turns = np.tile(boundaries, 3) if circular else boundaries
    slope = step * np.arange(turns.shape[1])
    forth = np.minimum.accumulate(turns - slope, axis=1) + slope
    back = np.minimum.accumulate((turns + slope)[:, ::-1], axis=1)[:, ::-1] - slope
    both = np.minimum(forth, back)
    return both[:, columns:2 * columns] if circular else both


def descend(grid: Grid, boundaries: np.ndarray, passes: Sequence[Sequence[Group]]) -> np.ndarray:
    """Move boundaries (5, columns) until no move of any group in `passes` lowers the cost.

    A pass is a tuple of groups that do not touch each other and are moved at once. It is left out where all that
    it depends on is as it was when it last found nothing to do.
    """
    boundaries = boundaries.copy()
    cuts = divisions(boundaries.shape[1], grid.circular)
    settled: dict[tuple[Sequence[Group], int], list[bytes]] = {}
    moved = True
    while moved:
        moved = False
        for (number, cut), groups in product(enumerate(cuts), passes):
            seen = [array.tobytes() for group in groups for array in
                    (boundaries[list(group)], *np.minimum(room(grid, boundaries, group), grid.reach))]
            if settled.get((groups, number)) == seen:
                continue
            shifts = best_moves(grid, boundaries, groups, cut)
            if shifts.any():
                moved = True
                for group, shift in zip(groups, shifts, strict=True):
                    boundaries[list(group)] += shift
            else:
                settled[groups, number] = seen
    return boundaries


def divisions(columns: int, circular: bool) -> list[np.ndarray]:
    """The scan cut into stretches that move at the same time, twice: each (stretches, length) int, their columns.

    A stretch has STRETCH columns or some more, or is the whole scan. Where two meet they share a column, which stays
    where it is; the second division's cuts lie in the middle of the first one's stretches. A circle is cut at least
    once; a scan with two ends that is one stretch has no cut and one division. The last column of a stretch that is
    shorter than others is repeated.
    """
    count = max(1, columns // STRETCH)
    if circular:
        cuts = [(np.arange(count + 1) + late) * columns // count for late in (0, 0.5)]
    else:
        inner = [np.arange(1, count), np.arange(count) + 0.5] if count > 1 else [np.array([])]
        cuts = [np.array([0, *(some * columns // count), columns - 1]) for some in inner]
    cuts = [cut.astype(int) for cut in cuts]
    return [np.minimum(cut[:-1, None] + np.arange(np.diff(cut).max() + 1), cut[1:, None]) % columns for cut in cuts]


def best_moves(grid: Grid, boundaries: np.ndarray, groups: Sequence[Group], cut: np.ndarray) -> np.ndarray:
    """For each group the shift (columns,) that lowers the cost most, all others staying: (groups, columns) int.

    Viterbi along the stretches of `cut`; a state is a shift of -reach to reach rows. Where a shift gains nothing in
    a stretch it is 0 there.
    """
    shift = np.arange(-grid.reach, grid.reach + 1)
    unary = np.stack([_unary(grid, boundaries, group, shift) for group in groups])[:, cut]
    kernel = np.stack([_kernel(grid, boundaries, group) for group in groups])[:, cut[:, :-1]]
    # A repeated column costs nothing and moves with the one before it.
    again = cut[:, 1:] == cut[:, :-1]
    unary[:, :, 1:][:, again] = 0
    kernel[:, again] = np.where(np.arange(kernel.shape[-1]) == kernel.shape[-1] // 2, 0, np.inf)
    # Shared columns stay, at both ends of every stretch but for the two ends of a scan that has them.
    ends = 0 if grid.circular else 1
    unary[:, ends:, 0, shift != 0] = np.inf
    unary[:, :len(cut) - ends, -1, shift != 0] = np.inf
    stay = kernel[..., kernel.shape[-1] // 2].sum(-1)
    path, least = _viterbi(_chains(unary), _chains(kernel))
    gains = least.reshape(stay.shape) < stay - 1e-6 * (1 + np.abs(stay))
    moved = np.moveaxis(shift[path].reshape(len(path), *stay.shape), 0, -1)
    shifts = np.zeros((len(groups), boundaries.shape[1]), int)
    shifts[:, cut] = moved * gains[..., None]
    return shifts


def _chains(array: np.ndarray) -> np.ndarray:
    """(groups, stretches, columns, n) as (columns, groups * stretches, n): what moves at once lies side by side."""
    groups, stretches, columns, n = array.shape
    return np.moveaxis(array, 2, 0).reshape(columns, groups * stretches, n)


def room(grid: Grid, boundaries: np.ndarray, group: Group) -> tuple[np.ndarray, np.ndarray]:
    """How many rows a group can go up and down in each column, all others staying: two (columns,)."""
    first, last = group[0], group[-1]
    up = boundaries[first] - (boundaries[first - 1] + grid.gaps[first - 1] if first else 0)
    down = (boundaries[last + 1] - grid.gaps[last] if last < 4 else grid.rows) - boundaries[last]
    return up, down


def _unary(grid: Grid, boundaries: np.ndarray, group: Group, shift: np.ndarray) -> np.ndarray:
    """What a shift of a group costs in each column, (columns, shifts); inf where it breaks order or thickness."""
    columns = np.arange(boundaries.shape[1])[:, None]
    up, down = room(grid, boundaries, group)
    cost = np.where((shift >= -up[:, None]) & (shift <= down[:, None]), 0.0, np.inf)
    for i in group:
        here = boundaries[i][:, None]
        rows = np.clip(here + shift, 0, grid.rows)
        cost += grid.summed[i, rows, columns] - grid.summed[i, here, columns]
    return cost


def _kernel(grid: Grid, boundaries: np.ndarray, group: Group) -> np.ndarray:
    """What a change of the group's shift from a column to the next costs, (columns, 4 step + 1); inf if too steep."""
    change = np.arange(-2 * grid.step, 2 * grid.step + 1)
    step = steps(boundaries[list(group)], True)[..., None] + change
    return np.where(np.abs(step) <= grid.step, grid.weight * step**2 / 2, np.inf).sum(0)


def _viterbi(unary: np.ndarray, kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest path of each chain through the states, (columns, chains) int, and its cost (chains,).

    `unary` (columns, chains, states) is what a state costs, `kernel` (columns - 1, chains, changes) what a change of
    -c … c states does on the way to the next column.
    """
    columns, chains, states = unary.shape
    changes = kernel.shape[2]
    side = changes // 2
    # costs[x, c, side + s]: the least cost up to state s of column x; the margins are out of reach.
    costs = np.full((columns, chains, states + 2 * side), np.inf)
    costs[:, :, side:side + states] = unary
    # windows[x, j, c, s] is the state s + j - side of column x, from where the change is side - j: turn the kernel.
    windows = np.lib.stride_tricks.sliding_window_view(costs, states, axis=2).transpose(0, 2, 1, 3)
    turned = np.ascontiguousarray(kernel[:, :, ::-1].transpose(0, 2, 1))
    ways = np.empty((changes, chains, states))
    for column in range(1, columns):
        np.add(windows[column - 1], turned[column - 1, :, :, None], out=ways)
        costs[column, :, side:side + states] += np.minimum.reduce(ways, axis=0)
    path = np.empty((columns, chains), int)
    path[-1] = costs[-1, :, side:side + states].argmin(1)
    near, chain = np.arange(changes)[:, None], np.arange(chains)
    for column in range(columns - 1, 0, -1):
        came = costs[column - 1, chain, path[column] + near] + turned[column - 1]
        path[column - 1] = path[column] + came.argmin(0) - side
    return path, costs[-1].min(1)
