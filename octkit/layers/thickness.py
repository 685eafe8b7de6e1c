"""Layer thickness around the circle, read off a mask: profiles, means of sectors, two eyes compared, a reference band.

**Unseen is not thin.** Where a layer was not seen its thickness is nan. In a mean over a sector, or over the circle, an
unseen A-scan counts as what lies straight between the nearest seen ones on both sides. A plain mean of the seen ones
would depend on where the gap lies: with 100 of 768 A-scans missing anywhere, the global mean RNFL of 20 phantoms was
off by 4.2 um on average (8.7 in the worst 5 %), that with bridged gaps by 1.6 (4.1). Each mean has its `coverage`, the
share of its A-scans that were seen. Below LEAST_SEEN it is nan.

A circle scan runs once around the optic disc. Here its A-scans are in TSNIT order: the first one lies
temporal, then come superior, nasal, inferior and temporal again, in right and left eyes (the circle of a left
eye runs the other way round the disc). Spectralis scans and our phantoms are stored so; GOALS does not say and
is taken to be. A-scan c of W looks towards the angle (c + 0.5) · 360° / W: T 0°, S 90°, N 180°, I 270°.

Angles and the sectors made of them mean the same place in both eyes. The hours of the clock do not: they are
read off the fundus as the examiner sees it, where the temple is on the left of a right eye's disc, and on the
right of a left eye's.

      right eye: hour = 9 + angle / 30°          left eye: hour = 3 − angle / 30°

                 12 S                                       12 S
             11       1                                 11       1
          10             2                           10             2
        T 9      disc      3 N                     N 9      disc      3 T
           8             4                            8             4
              7       5                                  7       5
                  6 I                                        6 I
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from octkit.common import files
from octkit.common.errors import OctkitError
from octkit.common.messages import say
from octkit.data.dataset import Case
from octkit.data.image_files import read_mask
from octkit.data.labels import BETWEEN, GOALS_GREYS, LAYERS
from octkit.data.matching import images_in
from octkit.evaluation.intervals import bootstrap_interval
from octkit.evaluation.metrics import layer_thickness
from octkit.layers.scan_files import LEVELS, facts_beside, layers_beside
from octkit.layers.seen import bridged

# Sectors, from (and with) one angle to (and without) the other. Quadrants as devices print them.
QUADRANTS = {"T": (315, 45), "S": (45, 135), "N": (135, 225), "I": (225, 315)}
QUADRANT_NAMES = {"T": "temporal", "S": "superior", "N": "nasal", "I": "inferior"}
# The six sectors of Garway-Heath et al. (Ophthalmology 107(10):1809, 2000), who mapped the visual field's points to
# the disc: TS is temporal superior, NI nasal inferior. The limits are those commonly given for reports of Spectralis
# devices; we could not hold them against the paper's map, which is drawn at the disc's edge.
GARWAY_HEATH = {"GH_T": (315, 45), "GH_TS": (45, 85), "GH_NS": (85, 125), "GH_N": (125, 235), "GH_NI": (235, 275),
                "GH_TI": (275, 315)}
# In 95 % of phantoms, bridged means of RNFL over quadrants, sectors and hours are within 4.5 um of the truth where 75
# to 80 % was seen, and within 9.5 um at 60 to 65 %, which is half of what glaucoma takes. The global mean: within 9 um
# at 75 %, 6 at 80 and 3 above 85.
LEAST_SEEN = 0.75
HOURS = tuple(f"hour_{hour}" for hour in range(1, 13))
WHOLE = {"global": (0, 360)}
MEANS = (*WHOLE, *QUADRANTS, *GARWAY_HEATH, *HOURS)
SECTORS = {"global": WHOLE, "quadrants": QUADRANTS, "sectors": GARWAY_HEATH,
           "hours": {name: (30 * hour, 30 * hour + 30) for hour, name in enumerate(HOURS)}}  # of no eye: size alone


@dataclass(frozen=True)
class Thickness:
    """Thickness of each layer in each A-scan of a circle scan, in TSNIT order.

    `values` is (layers, W) float64 in `unit` ("um" or "px"), one row for each name in `layers`; nan where the layer
    was not seen. `eye` is "R", "L" or None where it is not known. `circle` False says that the scan is a line: it has
    no sectors. `width`, of the same shape and unit, says how sure each is (`seen.layer_widths`), and `factors` how sure
    means are (`mean_widths`), by layer and kind of mean (SECTORS); None where nobody has measured it.
    """

    values: np.ndarray
    layers: tuple[str, ...]
    unit: str
    eye: str | None = None
    circle: bool = True
    width: np.ndarray | None = None
    factors: Mapping[str, Mapping[str, Sequence[float]]] | None = None

    def __getitem__(self, layer: str) -> np.ndarray:
        """One layer's profile, (W,)."""
        return self.values[self.layers.index(layer)]


def profile(mask: np.ndarray, um_per_px: float | None = None, eye: str | None = None,
            seen: np.ndarray | None = None) -> Thickness:
    """Thickness of RNFL, GCIPL and choroid along the circle from a mask (H, W) of labels, A-scans in TSNIT order.

    `um_per_px` is the depth of a pixel; without it thickness stays in px. `seen` (3, W) bool says where each layer was
    seen (`seen.layers_seen`), as a mask does not: it may be drawn through a gap. What the mask itself says is this. A
    layer that it has nowhere is unknown all along (some masks carry RNFL alone). An A-scan without a pixel of any layer
    was not seen. One that has other layers and lacks this one is 0 thick there.

    Raises OctkitError for a scale that cannot be, another eye, or `seen` of another shape.
    """
    if um_per_px is not None and not 0.01 < um_per_px < 10_000:  # as in NAME.scale.json; less looks like mm
        raise OctkitError(f"um_per_px: found {um_per_px:g}, expected micrometres a pixel in depth, 0.01 to 10000")
    if eye not in ("R", "L", None):
        raise OctkitError(f"eye: found {eye!r}, expected R or L, or none given where it is not known")
    values = np.stack([layer_thickness(mask, label) for label in BETWEEN])
    if seen is not None and seen.shape != values.shape:
        raise OctkitError(f"seen: found {seen.shape} layers and A-scans, expected {values.shape} as in the mask")
    values[~values.any(axis=1)] = np.nan
    values[:, ~mask.any(axis=0)] = np.nan
    if seen is not None:
        values[~seen] = np.nan
    return Thickness(values * (um_per_px or 1.0), LAYERS, "px" if um_per_px is None else "um", eye)


def of_case(case: Case, mask: np.ndarray, path: Path | None = None) -> Thickness:
    """Thickness of a case's layers along its scan, of a true or predicted mask (H, W); in um if it has a scale.

    `path` is where a predicted mask lies: what lies beside it says where layers were seen, and how sure that is.
    """
    depth = case.spacing[0] * 1000 if case.spacing else None
    found = profile(mask, depth, case.eye) if path is None else _as_predicted(path, mask, depth, case.eye)
    return replace(found, circle=case.circle)


def _as_predicted(path: Path, mask: np.ndarray, um_per_px: float | None, eye: str | None) -> Thickness:
    """The profile of a mask with what lies beside its file (`scan_files`)."""
    seen, width = layers_beside(path, mask.shape)
    return replace(profile(mask, um_per_px, eye, seen=seen), factors=facts_beside(path).means,
                   width=None if width is None else width * (um_per_px or 1.0))


def clock_hours(eye: str) -> dict[str, tuple[float, float]]:
    """The twelve hours as sectors, {"hour_1": (start, stop), …}: each is the 30° around its mark (see the sketch).

    `eye` is "R" or "L"; without it nobody knows which side the hours are on, and another one raises OctkitError.
    """
    if eye not in ("R", "L"):
        raise OctkitError(f"eye: found {eye!r}, expected R or L, as left eyes' hours run the other way round")
    marks = {name: ((hour - 9) if eye == "R" else (3 - hour)) * 30 for hour, name in enumerate(HOURS, 1)}
    return {name: ((mark - 15) % 360, (mark + 15) % 360) for name, mark in marks.items()}


def angles(thickness: np.ndarray) -> np.ndarray:
    """Where the middles of the A-scans of a profile (W,) lie, in degrees from the temporal middle: (W,)."""
    return (np.arange(len(thickness)) + 0.5) * 360 / len(thickness)


def sector_means(thickness: np.ndarray, sectors: Mapping[str, tuple[float, float]],
                 circular: bool = True) -> dict[str, float]:
    """Mean of a layer's profile (W,) in TSNIT order over each sector, name -> (start, stop) in degrees.

    An A-scan belongs where its middle lies, one on a border to the sector that starts there. nan for a sector of which
    less than LEAST_SEEN was seen, and for one without A-scans (in scans of fewer than 12). `circular` False: a line,
    whose ends are no neighbours; WHOLE is all of it.
    """
    filled, share = bridged(thickness, circular), coverage(thickness, sectors)
    return {name: float(filled[there].mean()) if share[name] >= LEAST_SEEN else math.nan
            for name, there in _inside(thickness, sectors).items()}


def coverage(thickness: np.ndarray, sectors: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """The share of each sector's A-scans that were seen, 0 to 1; 0 for one without A-scans. As `sector_means`."""
    seen = np.isfinite(thickness)
    return {name: float(seen[there].mean()) if there.any() else 0.0
            for name, there in _inside(thickness, sectors).items()}


def mean_widths(width: np.ndarray, sectors: Mapping[str, tuple[float, float]],
                factors: Sequence[float]) -> dict[str, tuple[float, ...]]:
    """The half widths of each sector's mean: its A-scans' mean `width` (W,) times each of the `factors`.

    Errors along the circle depend on each other, so the factors are fitted (`calibration.fit`).
    """
    return {name: tuple(float(factor * width[there].mean()) if there.any() else math.nan for factor in factors)
            for name, there in _inside(width, sectors).items()}


def _inside(thickness: np.ndarray, sectors: Mapping[str, tuple[float, float]]) -> dict[str, np.ndarray]:
    middles = angles(thickness)
    return {name: (middles - start) % 360 < ((stop - start) % 360 or 360) for name, (start, stop) in sectors.items()}


def quadrants(thickness: np.ndarray) -> dict[str, float]:
    """Mean of a layer's profile (W,) over each quadrant: {"T", "S", "N", "I"}."""
    return sector_means(thickness, QUADRANTS)


def all_sectors(eye: str | None = None) -> dict[str, tuple[float, float]]:
    """All that there are means of, name -> (start, stop) in degrees: the circle, quadrants, sectors, clock hours.

    Keys "global", "T" … "I", "GH_T" … "GH_TI" and, where the eye is known, "hour_1" … "hour_12".
    """
    return WHOLE | QUADRANTS | GARWAY_HEATH | (clock_hours(eye) if eye else {})


def means(thickness: np.ndarray, eye: str | None = None) -> dict[str, float]:
    """Every mean of a layer's profile (W,) in TSNIT order, by the names of `all_sectors`."""
    return sector_means(thickness, all_sectors(eye))


def resample(thickness: np.ndarray, count: int) -> np.ndarray:
    """A profile (W,) at `count` A-scans around the same circle, linear between the old ones' middles."""
    if len(thickness) == count:
        return thickness
    old, new = ((np.arange(n) + 0.5) * 360 / n for n in (len(thickness), count))
    return np.interp(new, old, thickness, period=360)


def asymmetry(right: Thickness, left: Thickness) -> Thickness:
    """How much thicker one person's right eye is than the left, on the finer of their two grids of A-scans.

    The same anatomy is compared: temporal with temporal, superior with superior. Hours are not compared by their
    number, so the result has no eye: hour 9 of a right eye answers hour 3 of the left. nan all along for a layer that
    is unknown in either eye. Raises OctkitError where the eyes are not R and L, or unit or layers differ.
    """
    if (right.eye, left.eye) != ("R", "L"):
        raise OctkitError(f"asymmetry: found the eyes {right.eye} and {left.eye}, expected R and L in this order")
    for what, ours, theirs in (("unit", right.unit, left.unit), ("layers", right.layers, left.layers)):
        if ours != theirs:
            raise OctkitError(f"asymmetry: the eyes differ in {what}, right {ours}, left {theirs}; expected the same")
    count = max(right.values.shape[1], left.values.shape[1])
    values = np.stack([resample(ours, count) - resample(theirs, count)
                       for ours, theirs in zip(right.values, left.values, strict=True)])
    return Thickness(values, right.layers, right.unit)


def grouped(profiles: Sequence[Thickness], groups: Sequence[str], layer: str) -> dict[str, np.ndarray]:
    """A layer's profiles by the group of each scan: group -> (scans, A-scans), all on the finest grid among them.

    Scans that lack the layer are left out, and so is a group of such scans alone; gaps stay nan.
    """
    lines: dict[str, list[np.ndarray]] = {}
    for found, group in zip(profiles, groups, strict=True):
        if np.isfinite(found[layer]).any():
            lines.setdefault(group, []).append(resample(found[layer], max(one.values.shape[1] for one in profiles)))
    return {group: np.stack(found) for group, found in lines.items()}


def reference_band(profiles: Sequence[np.ndarray], low: float = 5, high: float = 95) -> tuple[np.ndarray, np.ndarray]:
    """The band that a layer's profiles (W,) of the given, healthy cases fill: percentiles `low` and `high`, each (W,).

    On the finest grid among them, percentiles of each A-scan by itself. It describes these cases and no population:
    of fewer than 20 its 5 % limit already lies between the two thinnest. All must be in one unit. Raises OctkitError
    for fewer than 2 cases, one whose profile is unknown (nan all along), or limits that are not 0 ≤ low < high ≤ 100.
    Gaps are left out; where no case was seen the band is nan.
    """
    if len(profiles) < 2:
        raise OctkitError(f"reference_band: found {len(profiles)} profiles, expected those of at least 2 healthy cases")
    if not 0 <= low < high <= 100:
        raise OctkitError(f"reference_band: found the limits {low} and {high}, expected percentiles, the lower first")
    unknown = [number for number, line in enumerate(profiles) if not np.isfinite(line).any()]
    if unknown:
        raise OctkitError(f"reference_band: found no thickness in profile {unknown[0]} (counted from 0), expected the "
                          "layer in every case")
    count = max(map(len, profiles))
    lines = np.array([resample(line, count) for line in profiles])
    somewhere = np.isfinite(lines).any(axis=0)
    band = np.full((2, count), np.nan)
    band[:, somewhere] = np.nanpercentile(lines[:, somewhere], (low, high), axis=0)
    return band[0], band[1]


def errors(predicted: Thickness, truth: Thickness) -> dict[str, dict[str, float]]:
    """How far a profile is from the true one, layer by layer, in their unit.

    `mean_absolute` is over the A-scans seen in both, whose share is `coverage`; the others are predicted minus true
    means (with sign) by the names of `means`, each with its own gaps bridged. nan where one of the two has no mean.
    Raises OctkitError where unit, number of A-scans or layers differ.
    """
    for what, ours, theirs in (("unit", predicted.unit, truth.unit), ("layers", predicted.layers, truth.layers),
                               ("number of A-scans", predicted.values.shape[1], truth.values.shape[1])):
        if ours != theirs:
            raise OctkitError(f"thickness profiles differ in {what}: predicted {ours}, truth {theirs}")
    result = {}
    for layer, ours, theirs in zip(truth.layers, predicted.values, truth.values, strict=True):
        off = np.abs(ours - theirs)[np.isfinite(ours - theirs)]
        true = means(theirs, truth.eye)
        result[layer] = {"mean_absolute": float(off.mean()) if off.size else math.nan, "coverage": off.size / len(ours),
                         **{name: mean - true[name] for name, mean in means(ours, truth.eye).items()}}
    return result


def sector_errors(predicted: Path, truth: Path, um_per_px: float | None = None,
                  groups: Mapping[str, str] | None = None) -> dict[str, Any]:
    """How far means of circle scans' masks in the folder `predicted` are from those in `truth`, by sector.

    Returns `unit` ("um", or "px" where a scale is not known of all) and `layers`: layer -> "global", quadrants and
    Garway-Heath's sectors -> `signed` (predicted minus true) and `absolute`, each {mean, low, high, groups}: the mean
    over `groups` (case -> person; by default each case is its own) and its 95 % `bootstrap_interval`; None where there
    is none. Images in GOALS greys; what lies beside predicted ones says their scale and what was seen (`scan_files`).
    """
    paths, true_paths = images_in(predicted), images_in(truth)
    if lacking := sorted(set(paths) ^ set(true_paths)):
        raise OctkitError(f"{truth if lacking[0] in paths else predicted}: has no mask of {lacking[0]}, expected those "
                          "of the same scans in both folders")
    scales = {name: um_per_px or (facts_beside(path).um_per_px or (None,))[0] for name, path in paths.items()}
    known, found = None not in scales.values(), {}
    for name, path in paths.items():
        mask, depth = read_mask(path, GOALS_GREYS), scales[name] if known else None
        found[name] = errors(_as_predicted(path, mask, depth, None),
                             profile(read_mask(true_paths[name], GOALS_GREYS), depth))
    people = None if groups is None else [groups[name] for name in found]

    def row(values: list[float]) -> dict[str, float | None]:
        interval = zip(("mean", "low", "high", "groups"), bootstrap_interval(values, people), strict=True)
        return {name: None if math.isnan(value) else value for name, value in interval}

    return {"unit": "um" if known else "px", "layers": {layer: {sector: {
        "signed": row([case[layer][sector] for case in found.values()]),
        "absolute": row([abs(case[layer][sector]) for case in found.values()])}
        for sector in (*WHOLE, *QUADRANTS, *GARWAY_HEATH)} for layer in LAYERS}}


def sectors_in_words(found: Mapping[str, Any]) -> str:
    """What `sector_errors` returns as a table: a row for each layer and sector, with 95 % intervals."""
    def told(row: Mapping[str, float | None], sign: str) -> str:
        return " ".join("–" if row[name] is None else f"{row[name]:{sign}.2f}" for name in ("mean", "low", "high"))

    return "\n".join([f"mean thickness by sector, predicted minus true ({found['unit']}): mean and 95 % interval",
                      f"{'':8s} {'':6s} {'signed':24s} absolute",
                      *(f"{layer:8s} {sector:6s} {told(kinds['signed'], '+'):24s} {told(kinds['absolute'], '')}"
                        for layer, sectors in found["layers"].items() for sector, kinds in sectors.items())])


def table_rows(profiles: Mapping[str, Thickness]) -> list[dict]:
    """One row a case and layer: case, eye, unit, layer, the names of MEANS, coverage; None for what is not known.

    `coverage` is the share of the A-scans in which the layer was seen, `coverage_T` and so on that of each sector;
    `half68_global`, `half95_T` and so on are half widths: the true mean lies so near in 68 and in 95 % of scans like
    those that the model was calibrated on, empty of an uncalibrated one. The columns are the same for all: where the
    eye is not known its hours are empty, of a line all but the global mean.
    """
    rows = []
    for case, found in profiles.items():
        sectors = all_sectors(found.eye) if found.circle else WHOLE
        for layer in found.layers:
            mean, share = sector_means(found[layer], sectors, found.circle), coverage(found[layer], sectors)
            known = {name: value for name, value in mean.items() if not math.isnan(value)}
            rows.append({"case": case, "eye": found.eye, "unit": found.unit, "layer": layer,
                         **{name: known.get(name) for name in MEANS}, "coverage": share["global"],
                         **{f"coverage_{name}": share.get(name) for name in MEANS[1:]},
                         **{f"half{100 * level:.0f}_{name}": half[name][i] if name in known and name in half else None
                            for half in [_half_widths(found, layer)] for i, level in enumerate(LEVELS)
                            for name in MEANS}})
    return rows


def _half_widths(found: Thickness, layer: str) -> dict[str, tuple[float, ...]]:
    """The half widths of all means of a layer, by name; empty where nobody has measured them."""
    if found.width is None or found.factors is None:
        return {}
    kinds = SECTORS | {"hours": clock_hours(found.eye) if found.eye else {}}
    width = found.width[found.layers.index(layer)]
    return {name: pair for kind, factors in found.factors.get(layer, {}).items()
            for name, pair in mean_widths(width, kinds[kind], factors).items()}


def thickness_table(masks_dir: Path, um_per_px: float | None = None, eye: str | None = None) -> list[dict]:
    """The rows (`table_rows`) of all masks in a folder, images in GOALS greys and TSNIT order, by file name.

    What lies beside a mask is used (`scan_files`): in which A-scans its layers were seen, from <name>.boundaries.csv;
    scale, eye and whether it is a circle, from <name>.scale.json. Without these files it is what the mask itself says
    (`profile`), in px, of a circle. `um_per_px` and `eye` are all the scans', whatever the files say. Raises
    OctkitError for a folder without images, two of one name, an unreadable mask or file beside it, or a mask with other
    grey values.
    """
    profiles = {}
    files.links_inside(masks_dir, hidden=False)
    for name, path in images_in(masks_dir).items():
        mask, facts = read_mask(path, GOALS_GREYS), facts_beside(path)
        depth = um_per_px if um_per_px is not None or facts.um_per_px is None else facts.um_per_px[0]
        found = _as_predicted(path, mask, depth, eye or facts.eye)
        profiles[name] = replace(found, circle=facts.circle is not False)
        if facts.circle is False:
            say(f"{name}: is no circle scan, so it has no quadrants, sectors or hours")
    return table_rows(profiles)


def write_csv(path: Path, rows: Sequence[Mapping]) -> None:
    """Write the table as CSV, atomically: lengths with three decimals, an empty field for what is not known."""
    if not rows:
        raise OctkitError(f"{path}: found no thickness to write, expected at least one case")
    files.write_csv(path, list(rows[0]), ([f"{value:.3f}" if isinstance(value, float) else value
                                           for value in row.values()] for row in rows))
