"""Layer thickness around the circle, read off a mask: profiles, means of sectors, two eyes compared, a reference band.

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
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from octkit.common import files
from octkit.common.errors import OctkitError
from octkit.data.dataset import Case
from octkit.data.image_files import read_mask
from octkit.data.labels import GOALS_GREYS, LAYERS
from octkit.data.matching import images_in
from octkit.evaluation.metrics import layer_thickness

# Sectors, from (and with) one angle to (and without) the other. Quadrants as devices print them.
QUADRANTS = {"T": (315, 45), "S": (45, 135), "N": (135, 225), "I": (225, 315)}
QUADRANT_NAMES = {"T": "temporal", "S": "superior", "N": "nasal", "I": "inferior"}
# The six sectors of Garway-Heath et al. (Ophthalmology 107(10):1809, 2000), who mapped the visual field's points to
# the disc: TS is temporal superior, NI nasal inferior. The limits are those commonly given for reports of Spectralis
# devices; we could not hold them against the paper's map, which is drawn at the disc's edge.
GARWAY_HEATH = {"GH_T": (315, 45), "GH_TS": (45, 85), "GH_NS": (85, 125), "GH_N": (125, 235), "GH_NI": (235, 275),
                "GH_TI": (275, 315)}
HOURS = tuple(f"hour_{hour}" for hour in range(1, 13))
MEANS = ("global", *QUADRANTS, *GARWAY_HEATH, *HOURS)


@dataclass(frozen=True)
class Thickness:
    """Thickness of each layer in each A-scan of a circle scan, in TSNIT order.

    `values` is (layers, W) float64 in `unit` ("um" or "px"), one row for each name in `layers`. 0 where an
    A-scan has no pixel of the layer; nan all along where the mask has none of it (then nothing is known of
    that layer: some masks carry RNFL alone). `eye` is "R", "L" or None where it is not known.
    """

    values: np.ndarray
    layers: tuple[str, ...]
    unit: str
    eye: str | None = None

    def __getitem__(self, layer: str) -> np.ndarray:
        """One layer's profile, (W,)."""
        return self.values[self.layers.index(layer)]


def profile(mask: np.ndarray, um_per_px: float | None = None, eye: str | None = None, order: str = "TSNIT",
            layers: Sequence[str] = LAYERS) -> Thickness:
    """Thickness of every layer along the circle from a mask (H, W) of labels.

    `um_per_px` is the depth of a pixel; without it thickness stays in px. `order` says how the mask's A-scans
    run: "TSNIT", or "TINST" for scans stored the other way round (such as left eyes of a device that turns
    the same way in both), which are mirrored here. `layers` are the names of labels 1, 2, …
    Raises OctkitError for a scale that is not above 0, or another order or eye.
    """
    if um_per_px is not None and not (math.isfinite(um_per_px) and um_per_px > 0):
        raise OctkitError(f"um_per_px: found {um_per_px}, expected micrometres a pixel in depth, above 0")
    if order not in ("TSNIT", "TINST"):
        raise OctkitError(f"order: found {order!r}, expected TSNIT or TINST")
    if eye not in ("R", "L", None):
        raise OctkitError(f"eye: found {eye!r}, expected R or L, or None where it is not known")
    values = np.stack([layer_thickness(mask, label) for label in range(1, len(layers) + 1)])
    values[~values.any(axis=1)] = np.nan
    if order == "TINST":
        values = values[:, ::-1].copy()
    return Thickness(values * (um_per_px or 1.0), tuple(layers), "px" if um_per_px is None else "um", eye)


def of_case(case: Case, mask: np.ndarray) -> Thickness:
    """Thickness of a case's layers along its circle, of a true or predicted mask (H, W); in um if it has a scale."""
    return profile(mask, case.spacing[0] * 1000 if case.spacing else None, case.eye)


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


def sector_means(thickness: np.ndarray, sectors: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Mean of a layer's profile (W,) in TSNIT order over each sector, name -> (start, stop) in degrees.

    An A-scan belongs where its middle lies, one on a border to the sector that starts there. nan for a profile that
    is nan, and for a sector without A-scans (in scans of fewer than 12).
    """
    middles = angles(thickness)
    inside = {name: (middles - start) % 360 < (stop - start) % 360 for name, (start, stop) in sectors.items()}
    return {name: float(thickness[there].mean()) if there.any() else float("nan") for name, there in inside.items()}


def quadrants(thickness: np.ndarray) -> dict[str, float]:
    """Mean of a layer's profile (W,) over each quadrant: {"T", "S", "N", "I"}."""
    return sector_means(thickness, QUADRANTS)


def means(thickness: np.ndarray, eye: str | None = None) -> dict[str, float]:
    """Every mean of a layer's profile (W,) in TSNIT order: global, quadrants, Garway-Heath's sectors, clock hours.

    Keys "global", "T" … "I", "GH_T" … "GH_TI" and, where the eye is known, "hour_1" … "hour_12".
    """
    hours = clock_hours(eye) if eye else {}
    return {"global": float(thickness.mean()), **sector_means(thickness, QUADRANTS | GARWAY_HEATH | hours)}


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

    Scans that lack the layer are left out, and so is a group of such scans alone.
    """
    lines: dict[str, list[np.ndarray]] = {}
    for found, group in zip(profiles, groups, strict=True):
        if np.isfinite(found[layer]).all():
            lines.setdefault(group, []).append(resample(found[layer], max(one.values.shape[1] for one in profiles)))
    return {group: np.stack(found) for group, found in lines.items()}


def reference_band(profiles: Sequence[np.ndarray], low: float = 5, high: float = 95) -> tuple[np.ndarray, np.ndarray]:
    """The band that a layer's profiles (W,) of the given, healthy cases fill: percentiles `low` and `high`, each (W,).

    On the finest grid among them, percentiles of each A-scan by itself. It describes these cases and no population:
    of fewer than 20 its 5 % limit already lies between the two thinnest. All must be in one unit. Raises OctkitError
    for fewer than 2 cases, one whose profile is unknown (nan), or limits that are not 0 ≤ low < high ≤ 100.
    """
    if len(profiles) < 2:
        raise OctkitError(f"reference_band: found {len(profiles)} profiles, expected those of at least 2 healthy cases")
    if not 0 <= low < high <= 100:
        raise OctkitError(f"reference_band: found the limits {low} and {high}, expected percentiles, the lower first")
    unknown = [number for number, line in enumerate(profiles) if not np.isfinite(line).all()]
    if unknown:
        raise OctkitError(f"reference_band: found no thickness in profile {unknown[0]} (counted from 0), expected the "
                          "layer in every case")
    count = max(map(len, profiles))
    lower, upper = np.percentile([resample(line, count) for line in profiles], (low, high), axis=0)
    return lower, upper


def errors(predicted: Thickness, truth: Thickness) -> dict[str, dict[str, float]]:
    """How far a profile is from the true one, layer by layer, in their unit.

    `mean_absolute` is over A-scans; the others are predicted minus true means (with sign) by the names of `means`.
    A layer that the prediction lost altogether counts as 0 thick; one that the truth lacks gives nan.
    Raises OctkitError where unit, number of A-scans or layers differ.
    """
    for what, ours, theirs in (("unit", predicted.unit, truth.unit), ("layers", predicted.layers, truth.layers),
                               ("number of A-scans", predicted.values.shape[1], truth.values.shape[1])):
        if ours != theirs:
            raise OctkitError(f"thickness profiles differ in {what}: predicted {ours}, truth {theirs}")
    difference = np.nan_to_num(predicted.values) - truth.values
    return {layer: {"mean_absolute": float(np.abs(row).mean()), **means(row, truth.eye)}
            for layer, row in zip(truth.layers, difference, strict=True)}


def table_rows(profiles: Mapping[str, Thickness]) -> list[dict]:
    """One row a case and layer: case, eye, unit, layer, and the names of `means`; None for what is not known.

    The columns are the same for all: where the eye is not known its hours are empty.
    """
    rows = []
    for case, found in profiles.items():
        for layer in found.layers:
            known = {name: mean for name, mean in means(found[layer], found.eye).items() if not math.isnan(mean)}
            rows.append({"case": case, "eye": found.eye, "unit": found.unit, "layer": layer,
                         **{name: known.get(name) for name in MEANS}})
    return rows


def thickness_table(masks_dir: Path, um_per_px: float | None = None, eye: str | None = None) -> list[dict]:
    """The rows (`table_rows`) of all masks in a folder, images in GOALS greys and TSNIT order, by file name.

    `eye` is all the scans'. Raises OctkitError for a folder without images, two of one name, an unreadable
    mask, or one with other grey values.
    """
    return table_rows({name: profile(read_mask(path, GOALS_GREYS), um_per_px, eye)
                       for name, path in images_in(masks_dir).items()})


def write_csv(path: Path, rows: Sequence[Mapping]) -> None:
    """Write the table as CSV, atomically: lengths with three decimals, an empty field for what is not known."""
    if not rows:
        raise OctkitError(f"{path}: found no thickness to write, expected at least one case")
    files.write_csv(path, list(rows[0]), ([f"{value:.3f}" if isinstance(value, float) else value
                                           for value in row.values()] for row in rows))
