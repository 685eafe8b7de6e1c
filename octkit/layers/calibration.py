"""What a boundary's doubt is worth: half widths that hold the truth in 68 and in 95 % of places, by held-out scans.

The raw doubt (`boundaries.deviation`, and how far networks differ) ranks places, and is no length: networks are too
sure of themselves, the more so the less they see. On phantoms errors grow with its square and faster, so that no one
factor makes a length of it. A curve for each boundary and level does: half width against raw doubt, never falling.

**How it is fitted.** A-scans are cut into bins by raw doubt. A bin's half width is the quantile of |error| in it, as in
split conformal prediction: whatever the errors' distribution, the level is met on new scans like those of the fit.
Errors along a scan depend on each other, those of two scans do not: so each scan has the same weight. The same doubt
says less in a difficult scan than in an easy one. So a straight line through the scans corrects the curve: how far it
is off in a scan, against that scan's mean doubt and its rows (`looks`). Last, one factor, found like the quantiles,
brings the whole to the level. Few scans make uncertain quantiles; how often they hold is measured on scans that were
left out (`Calibration.coverage`).

**What it does not say.** 68 % is a share of places in many scans; in one scan a boundary may be off all along. Scans of
other devices and eyes than those of the fit may be farther off. Where networks or mirrored copies are averaged, the
curve is that of a single network, at the raw doubt of the average (which has their differences in it). As an average is
off by less, the half widths are then too wide rather than too narrow. They are never less than the networks differ.

Flags and gaps (`quality`, `seen`) follow the raw doubt: their limits were measured on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from octkit.data.labels import BETWEEN, BOUNDARIES, IGNORE, LAYERS
from octkit.data.measured import Calibration
from octkit.evaluation.metrics import boundaries as layer_edges
from octkit.layers.scan_files import LEVELS
from octkit.layers.seen import layer_widths, layers_seen
from octkit.layers.thickness import SECTORS, mean_widths, sector_means

BINS = 0.1, 0.3, 0.5, 0.7, 0.85, 0.95  # shares of the A-scans, by raw doubt, at which one bin ends and the next begins
FEWEST = 30  # scans; fewer have one bin, so that their curve is a factor, and no correction by scan
RIDGE = 1e-3  # pulls the slopes of a feature that hardly varies to 0, as the rows of scans of one size
FLOOR = 0.1  # px; errors against masks, whose edges are whole rows, already have the rounding in them
NORMAL = ndtri((1 + np.reshape(LEVELS, (2, 1, 1))) / 2)  # standard deviations that hold 68 and 95 % of a normal one

Pooled = tuple[np.ndarray, np.ndarray]  # values of many scans and their weights


@dataclass(frozen=True)
class HeldOut:
    """A scan with a truth that the network was not trained on.

    `boundaries` and their raw `doubt` as predicted, (5, W) px; `truth` (5, W) px, nan where there is none
    (`true_boundaries`); `height` is the scan's rows.
    """

    boundaries: np.ndarray
    doubt: np.ndarray
    truth: np.ndarray
    height: int

    @property
    def errors(self) -> np.ndarray:
        """(5, W) px, nan where the truth is not known."""
        return np.abs(self.boundaries - self.truth)


def true_boundaries(mask: np.ndarray) -> np.ndarray:
    """The five boundaries of a true mask (H, W), (5, W) px in whole rows; nan where a layer is not there.

    Nor is anything known of A-scans that are not labelled throughout.
    """
    found = np.full((len(BOUNDARIES), mask.shape[1]), np.nan)
    for label, edges in BETWEEN.items():
        found[list(edges)] = layer_edges(mask, label)
    found[:, (mask == IGNORE).any(axis=0)] = np.nan
    return found


def fit(scans: Sequence[HeldOut], origin: str, parts: Sequence[object] = ()) -> Calibration | None:
    """The calibration on these scans; None where a layer is in none of their truths.

    `origin` says in words what they are. `parts` has what each belongs to (its fold): then `coverage` is measured, each
    part by what the others alone would have given.
    """
    if not all(any(np.isfinite(scan.truth[i]).any() for scan in scans) for i in range(len(BOUNDARIES))):
        return None
    knots = {name: _curve([scan.doubt[i] for scan in scans], [scan.errors[i] for scan in scans])
             for i, name in enumerate(BOUNDARIES)}
    unit = {layer: dict.fromkeys(SECTORS, (1.0, 1.0)) for layer in LAYERS}
    found = Calibration(scans=len(scans), origin=origin, knots=knots, means=unit)
    if len(scans) >= FEWEST:
        found = _corrected(found, scans)
    ratios = [mean_ratios(scan, found) for scan in scans]
    pooled = {key: _pooled([one[key][0] for one in ratios]) for key in ratios[0]}
    means = {layer: {kind: _quantiles(pooled[layer, kind]) for kind in SECTORS if pooled[layer, kind][0].size}
             for layer in LAYERS}
    found = found.model_copy(update={"means": means})
    own = {part: [scan for scan, its in zip(scans, parts, strict=True) if its == part] for part in dict.fromkeys(parts)}
    others = {part: fit([scan for name in own if name != part for scan in own[name]], origin) for part in own
              if len(own) > 1}
    tests = [(scan, other) for part, other in others.items() if other for scan in own[part]]
    return found.model_copy(update={"coverage": coverage(tests)}) if tests else found


def half_widths(calibration: Calibration, doubt: np.ndarray, height: int) -> np.ndarray:
    """What the raw doubt (5, W) px is worth: half widths that hold the truth in 68 and 95 % of places, (2, 5, W) px.

    Beyond the first and the last point of a curve they are in proportion to the doubt; at most the scan's `height`. A
    scan beyond all of the fit is corrected as the last of them.
    """
    lines = [_along(calibration.knots[name], row) for name, row in zip(BOUNDARIES, doubt, strict=True)]
    found = np.stack(lines, axis=1)
    if calibration.scan:
        mean, least, most = np.transpose(calibration.limits)
        off = np.clip(looks(doubt, height), least, most) - mean
        found = found * np.exp([off @ np.array(calibration.scan[name]) for name in BOUNDARIES]).T[..., None]
    return np.minimum(np.maximum(np.maximum.accumulate(found), FLOOR), height)  # 95 % needs no less than 68 %


def looks(doubt: np.ndarray, height: int) -> np.ndarray:
    """What a whole scan is like, two numbers: logarithms of its raw doubt (5, W), in the mean, and of its rows."""
    return np.array([np.log(np.maximum(doubt, 1e-6)).mean(), np.log(height)])


def at_least(widths: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """Half widths (2, 5, W), at least as wide as networks differ, `apart` (5, W): a standard deviation and 1.96."""
    return np.maximum(widths, NORMAL * apart)


def mean_ratios(scan: HeldOut, calibration: Calibration) -> dict[tuple[str, str], np.ndarray]:
    """How far off sectors' mean thicknesses are in units of their half widths: (layer, kind) -> (levels, sectors).

    nan where there is no mean (`thickness.sector_means`).
    """
    widths = layer_widths(half_widths(calibration, scan.doubt, scan.height)[0], scan.height)
    found = {}
    for layer, (upper, lower), width, seen in zip(LAYERS, BETWEEN.values(), widths,
                                                  layers_seen(scan.doubt, scan.height), strict=True):
        ours, theirs = (edges[lower] - edges[upper] for edges in (scan.boundaries, scan.truth))
        for kind, factors in calibration.means[layer].items():
            sectors = SECTORS[kind]
            means = [sector_means(line, sectors) for line in (np.where(seen, ours, np.nan), theirs)]
            off = np.array([abs(means[0][name] - means[1][name]) for name in sectors])
            half = mean_widths(width, sectors, [max(factor, 1e-6) for factor in factors])
            found[layer, kind] = off / np.array([half[name] for name in sectors]).T
    return found


def coverage(tests: Sequence[tuple[HeldOut, Calibration]]) -> dict[str, dict[str, tuple[float, float]]]:
    """In what share of places the truth lies within the half widths for 68 and 95 %, each scan with the same weight.

    "raw" and "calibrated" by boundary, "means" by layer and kind of mean ("rnfl quadrants"). `tests` are scans that the
    calibration beside them was not fitted on. Raw: within 1 and 1.96 standard deviations, as of a normal distribution.
    """
    ways = {"raw": [scan.errors / (NORMAL * scan.doubt) for scan, _ in tests],
            "calibrated": [scan.errors / half_widths(found, scan.doubt, scan.height) for scan, found in tests]}
    ratios = {way: {name: [one[:, i] for one in scans] for i, name in enumerate(BOUNDARIES)}
              for way, scans in ways.items()}
    means = [mean_ratios(scan, found) for scan, found in tests]
    ratios["means"] = {" ".join(key): [one[key] for one in means if key in one] for key in dict.fromkeys(
        key for one in means for key in one)}
    return {way: {name: _covered(scans) for name, scans in of_all.items() if np.isfinite(np.hstack(scans)).any()}
            for way, of_all in ratios.items()}


def _corrected(found: Calibration, scans: Sequence[HeldOut]) -> Calibration:
    """Adds the correction by scan, by least squares, and brings each curve to its levels again."""
    features = np.array([looks(scan.doubt, scan.height) for scan in scans])
    limits = np.stack([features.mean(0), features.min(0), features.max(0)], axis=1)
    ratios = [scan.errors / half_widths(found, scan.doubt, scan.height) for scan in scans]
    slopes = {}
    for i, name in enumerate(BOUNDARIES):
        seen = [n for n, ratio in enumerate(ratios) if np.isfinite(ratio[0, i]).any()]
        off = [[np.log(max(np.nanquantile(ratios[n][k, i], level), 1e-2)) for k, level in enumerate(LEVELS)]
               for n in seen]
        x = features[seen] - features[seen].mean(0)
        slopes[name] = np.linalg.solve(x.T @ x + RIDGE * len(seen) * np.eye(2), x.T @ np.array(off)).tolist()
    found = Calibration.model_validate(found.model_dump() | {"scan": slopes, "limits": limits.tolist()})
    ratios = [scan.errors / half_widths(found, scan.doubt, scan.height) for scan in scans]
    factors = {name: [_quantiles(_pooled([ratio[k, i] for ratio in ratios]))[k] for k in range(len(LEVELS))]
               for i, name in enumerate(BOUNDARIES)}
    knots = {name: [(x, max(a * factors[name][0], FLOOR), max(b * factors[name][1], FLOOR)) for x, a, b in points]
             for name, points in found.knots.items()}
    return Calibration.model_validate(found.model_dump() | {"knots": knots})


def _covered(ratios: Sequence[np.ndarray]) -> tuple[float, float]:
    """The share of ratios of error and half width, (levels, places) a scan, that are at most 1."""
    pooled = [_pooled([one[level] for one in ratios]) for level in range(len(LEVELS))]
    first, second = (float(np.average(values <= 1, weights=weights)) for values, weights in pooled)
    return first, second


def _pooled(scans: Sequence[np.ndarray]) -> Pooled:
    """The finite values of all scans (places,), each scan with a weight of 1."""
    kept = [values[np.isfinite(values)] for values in scans]
    weights = [np.full(values.size, 1 / max(values.size, 1)) for values in kept]
    return np.concatenate(kept), np.concatenate(weights)


def _quantiles(pooled: Pooled) -> tuple[float, float]:
    """The least values that 68 and 95 % do not exceed."""
    values, weights = pooled
    order = np.argsort(values)
    share = np.cumsum(weights[order]) / weights.sum()
    first, second = values[order][np.searchsorted(share, np.array(LEVELS) - 1e-9)]
    return float(first), float(second)


def _curve(doubts: Sequence[np.ndarray], errors: Sequence[np.ndarray]) -> tuple[tuple[float, float, float], ...]:
    """Points (raw doubt, half width for 68, for 95 %) of one boundary, from its doubt and errors (W,) in each scan."""
    known = [np.isfinite(error) for error in errors]
    error, weight = _pooled(errors)
    doubt = np.concatenate([line[there] for line, there in zip(doubts, known, strict=True)])
    order = np.argsort(doubt)
    error, weight, doubt = error[order], weight[order], np.maximum(doubt[order], 1e-6)
    bins = np.searchsorted(BINS if len(errors) >= FEWEST else (), np.cumsum(weight) / weight.sum())
    own = [bins == number for number in np.unique(bins)]
    raw = [np.exp(np.average(np.log(doubt[there]), weights=weight[there])) for there in own]
    half = np.maximum.accumulate([_quantiles((error[there], weight[there])) for there in own])
    points = np.column_stack([raw, np.maximum(half, FLOOR)])
    whole = [_quantiles((error / line, weight))[level] for level, line in enumerate(_along(points, doubt))]
    points[:, 1:] = np.maximum(points[:, 1:] * whole, FLOOR)
    return tuple((float(x), float(first), float(second)) for x, first, second in points)


def _along(points: ArrayLike, doubt: np.ndarray) -> np.ndarray:
    """A curve's half widths (levels, W) at the raw doubt (W,): straight between its points on logarithmic axes."""
    raw, *halves = np.array(points).T
    doubt = np.maximum(doubt, 1e-6)
    ratios = [np.exp(np.interp(np.log(doubt), np.log(raw), np.log(half / raw))) for half in halves]
    return np.maximum(doubt * np.array(ratios), FLOOR)
