"""Layers from probabilities whose anatomy cannot break: five ordered, smooth, closed boundaries through a B-scan.

A network labels pixel by pixel: it draws islands in the vitreous, swaps layers, loses a thin one. Here the whole scan
is one question: which five curves, in order from top to bottom, make the labels that they imply most likely?

    rows 0 .. s0    background   above the ILM                  s0  ILM
         s0 .. s1   RNFL                                        s1  RNFL / GCIPL
         s1 .. s2   GCIPL                                       s2  GCIPL / INL
         s2 .. s3   background   the outer retina               s3  choroid's top
         s3 .. s4   choroid                                     s4  choroid's bottom
         s4 .. H    background   sclera

**The cost** of five curves is the sum over all pixels of -log p(label that they give the pixel), and for each curve
and each pair of neighbouring A-scans (step / usual step)^2 / 2, the -log of a Gaussian for the step between them. Since
each layer lies between two curves, sums down the columns turn the first part into one number a curve and row: the
curves meet in the constraints alone (order, least thickness; steps have a greatest size).

**What is exact.** On the full grid, in whole rows: no single curve can be moved to lower the cost, the others staying,
by a move of at most `reach` rows (8, or a hundredth of the rows) that leaves about every 128th A-scan where it is
(`curve_search.divisions`). It is no proof against a better set of curves far away, which the search on a coarse grid,
where whole groups move, is there to find. From whole rows to fractions of a row: `refined`.

The shape of the cost is that of optimal surface detection (Li, Wu, Chen and Sonka, IEEE PAMI 28(1):119, 2006), whose
graph cut would solve it jointly; this takes a tenth of a second instead.
"""

from collections.abc import Sequence

import numpy as np
from scipy.linalg import solveh_banded
from scipy.special import expit

from octkit.common.errors import OctkitError
from octkit.data.geometry import DEEPEST
from octkit.data.labels import LABELS
from octkit.layers.curve_search import Grid, cheapest, feasible, room

SMALLEST = 8  # rows
# Lengths are in um so that scans of any number of rows are treated alike. Where a scan's scale is unknown, it is taken
# to show a whole frame along the usual circle (3.46 mm diameter), which makes the least thicknesses too small where it
# shows less (crops), and too large where its frame is deeper.
FRAME = 1900, 10870  # um: depth, length
POSSIBLE_DEPTHS = 240, 1000 * DEEPEST  # um of a scan: at the least twice LEAST_UM's sum
# Share of pixels in which the network may be wrong whatever it says: p becomes (1 - DOUBT) p + DOUBT / 4, so that no
# pixel outweighs a whole neighbourhood (at most 4.3 nats a pixel for 0.05).
DOUBT = 0.05
# Least thickness of RNFL, GCIPL, outer retina (GCIPL to choroid) and choroid: about half to two thirds of what
# end-stage glaucoma leaves (24 and 20 um), of an outer retina (140) and of a choroid (45; thinner in high myopia).
LEAST_UM = 15.0, 15.0, 60.0, 30.0
# Standard deviation of a boundary's slope (um down for each um along). In phantoms, whose courses are those of 80
# labelled scans, 0.09 to 0.12; the device's lines on two real scans have 0.04 to 0.09.
USUAL_SLOPE = 0.1
STEEPEST = 1.0  # no boundary climbs more (45 degrees). Phantoms reach 0.62 beside vessels; strongly tilted scans more.


def ordered_boundaries(probabilities: np.ndarray, circular: bool,
                       spacing: Sequence[float] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The five boundaries of a B-scan, and the `deviation` of their places: two arrays (5, W) float64, in px.

    `probabilities` are (4, H, W) float32 of background, RNFL, GCIPL, choroid, at least 8 rows. `circular`: the last
    A-scan is the neighbour of the first, and no boundary jumps there. Least thicknesses and smoothness follow the
    `spacing`, mm a row and an A-scan (`known_scale`). Row 0.0 is the upper edge of the first row, as in
    `metrics.boundaries`. Whatever the probabilities, boundaries are ordered, as far apart as `bounds` says at least,
    and step from A-scan to A-scan as far as it says at most.
    Raises OctkitError for another shape, fewer rows, and what is no probability (nan, outside 0 to 1).
    """
    shape = np.shape(probabilities)
    if len(shape) != 3 or shape[0] != 4 or shape[1] < SMALLEST or shape[2] < 1:
        raise OctkitError(f"probabilities: found shape {shape}, expected (4, rows, A-scans) with at least {SMALLEST} "
                          "rows: background, RNFL, GCIPL, choroid")
    low, high = np.min(probabilities), np.max(probabilities)
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise OctkitError(f"probabilities: found values from {low} to {high}, expected 0 to 1")
    fine = full_grid(probabilities, circular, spacing)
    rows = cheapest(fine)
    mean, variance, flat = seen(fine, rows)
    return feasible(fine, refined(fine, rows, mean, variance, flat)), deviation(fine, rows, variance)


def known_scale(size: Sequence[int], spacing: Sequence[float] | None) -> tuple[float, float] | None:
    """Depth of a row and distance of A-scans in um for a scan of `size` (H, W) with `spacing` (mm an axis).

    None where it is unknown, or cannot be one: where it would make the scan less than 0.24 or more than 20 mm deep, as
    files do that state 1 mm a pixel for want of better.
    """
    if spacing is None:
        return None
    row, column = (1000 * mm for mm in spacing)
    return (row, column) if POSSIBLE_DEPTHS[0] <= size[0] * row <= POSSIBLE_DEPTHS[1] else None


def bounds(size: tuple[int, int], spacing: Sequence[float] | None = None) -> tuple[np.ndarray, int]:
    """For a scan of `size` (H, W): least px between neighbouring boundaries (4,), and the greatest step in px.

    A layer keeps at least one row, however few rows there are. `spacing` as in `ordered_boundaries`.
    """
    scale = known_scale(size, spacing)
    gaps = np.array(LEAST_UM) / scale[0] if scale else np.array(LEAST_UM) * size[0] / FRAME[0]
    slope = _slope_in_rows(size, spacing)
    return np.maximum(np.rint(gaps), 1).astype(int), max(1, min(int(np.ceil(STEEPEST * slope)), size[0]))


def mask_from(boundaries: np.ndarray, height: int) -> np.ndarray:
    """Boundaries (5, W) to a mask (height, W) uint8: a pixel belongs to the layer in which its centre lies."""
    # An edge at 2.4 has one row centre less above it than one at 2.6: count the edges above each centre.
    first = np.ceil(np.asarray(boundaries) - 0.5)
    rows = np.arange(height)[:, None]
    region = sum((rows >= edge).astype(np.uint8) for edge in first)
    return np.array(LABELS, np.uint8)[region]


def full_grid(probabilities: np.ndarray, circular: bool, spacing: Sequence[float] | None = None) -> Grid:
    """The cost at every row and A-scan."""
    _, height, width = probabilities.shape
    gaps, step = bounds((height, width), spacing)
    logs = probabilities * np.float32(1 - DOUBT)
    logs += np.float32(DOUBT / 4)
    np.log(logs, out=logs)
    summed = np.zeros((5, height + 1, width), np.float32)
    # A pixel above boundary i has the label of the region above it instead of the one below it.
    for i, (above, below) in enumerate(zip(LABELS[:4], LABELS[1:5], strict=True)):
        np.subtract(logs[below], logs[above], out=summed[i, 1:])
    for row in range(1, height):  # a third of the time that cumsum takes along this axis
        summed[:4, row + 1] += summed[:4, row]
    summed[4] = -summed[3]
    weight = 1 / (USUAL_SLOPE * _slope_in_rows((height, width), spacing)) ** 2
    return Grid(summed, gaps, weight, step, max(SMALLEST, height // 100), circular and width > 1)


def _slope_in_rows(size: tuple[int, int], spacing: Sequence[float] | None) -> float:
    """Rows an A-scan of a slope of 1. Without a scale a row is 3.9 um, and never more than the whole frame's share."""
    if scale := known_scale(size, spacing):
        return scale[1] / scale[0]
    return FRAME[1] / size[1] / min(3.9, FRAME[0] / size[0])


def seen(grid: Grid, boundaries: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each A-scan by itself has a boundary: mean and variance of its place around the found row, (5, W) each,
    and what the variance would be were all rows as likely.

    The place has the probability exp(-cost), without the smoothness (what lies between good A-scans but was not seen
    is to show), between the found boundaries above and below and up to `reach` rows away.
    """
    shift = np.arange(-grid.reach, grid.reach + 1)[:, None]
    mean, variance, flat = np.empty((3, *boundaries.shape))
    for i, row in enumerate(boundaries):
        up, down = room(grid, boundaries, (i,))
        costs = np.take_along_axis(grid.summed[i], np.clip(row + shift, 0, grid.rows), 0)
        free = (shift >= -up) & (shift <= down)
        costs = np.where(free, costs, np.inf)
        weights = np.exp(costs.min(0) - costs)
        weights /= weights.sum(0)
        mean[i] = (weights * shift).sum(0)
        variance[i] = (weights * shift**2).sum(0) - mean[i] ** 2
        flat[i] = (free.sum(0) ** 2 - 1) / 12
    return mean, variance, flat


def refined(grid: Grid, boundaries: np.ndarray, mean: np.ndarray, variance: np.ndarray, flat: np.ndarray) -> np.ndarray:
    """Whole-row boundaries to fractions of a row: what each A-scan has `seen`, and the same smoothness, as Gaussians.

    The sum of (s - place)^2 / (2 variance) and of the steps' cost is least where a tridiagonal system of equations
    holds. On whole rows a slope below 1 is a staircase whose steps may lie anywhere at the same cost; this evens it
    out. An A-scan in which all rows are as likely says nothing and is bridged.
    """
    columns = boundaries.shape[1]
    if columns == 1:
        return boundaries + mean
    told = np.maximum(1 / (variance + 1e-3) - 1 / (flat + 1e-3), 1e-6)
    turns = 3 if grid.circular else 1  # the middle one of three turns: what is a turn away has no say
    size = turns * columns
    bands = np.zeros((2, size))
    bands[0, 1:] = -grid.weight
    result = np.empty(boundaries.shape)
    for i, (weight, place) in enumerate(zip(told, boundaries + mean, strict=True)):
        neighbours = np.full(size, 2.0)
        neighbours[[0, -1]] = 1
        bands[1] = np.tile(weight, turns) + grid.weight * neighbours
        result[i] = solveh_banded(bands, np.tile(weight * place, turns))[columns * (turns // 2):][:columns]
    return result


def deviation(grid: Grid, boundaries: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """How uncertain each boundary is in each A-scan, (5, W) float64 in px: the standard deviation of its place.

    Either the layers that it bounds are there: then its place has the variance that was `seen`. Or one of them is
    not there, its pixels being background: then nothing is known, and every row is as likely. The odds of the first are
    the likelihoods' ratio, so a boundary that was not seen at all has the spread of the whole column, H / sqrt(12),
    and a tie half that variance.
    """
    def drawn(boundary: int, edge: int) -> np.ndarray:
        return np.take_along_axis(grid.summed[boundary], boundaries[edge:edge + 1], 0)[0]

    # log likelihood of a layer's pixels as background, less that of the layer (GCIPL's lower edge counts the other way)
    rnfl, gcipl, choroid = (expit(drawn(0, 0) - drawn(0, 1)), expit(drawn(2, 2) - drawn(2, 1)),
                            expit(drawn(3, 3) - drawn(3, 4)))
    absent = np.stack([rnfl, np.maximum(rnfl, gcipl), gcipl, choroid, choroid])
    return np.sqrt((1 - absent) * variance + absent * grid.rows**2 / 12)