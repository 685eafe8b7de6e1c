"""Layer thickness around the circle, read off a mask: profiles, quadrant means, and a table of them.

A circle scan runs once around the optic disc. Here its A-scans are in TSNIT order: the first one lies
temporal, then come superior, nasal, inferior and temporal again, in right and left eyes (the circle of a left
eye runs the other way round the disc). Spectralis scans and our phantoms are stored so; GOALS does not say and
is taken to be.

            S 45°–135°
    T 315°–45°      N 135°–225°        A-scan c of W looks towards (c + 0.5) · 360° / W
            I 225°–315°
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from octkit.cases import LAYERS
from octkit.files import OctkitError, write_atomic
from octkit.images import read_mask
from octkit.layouts import GOALS_GREYS, list_images
from octkit.metrics import layer_thickness

QUADRANTS = ("T", "S", "N", "I")


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
        raise OctkitError(f"eye: found {eye!r}, expected R, L or None")
    values = np.stack([layer_thickness(mask, label) for label in range(1, len(layers) + 1)])
    values[~values.any(axis=1)] = np.nan
    if order == "TINST":
        values = values[:, ::-1].copy()
    return Thickness(values * (um_per_px or 1.0), tuple(layers), "px" if um_per_px is None else "um", eye)


def quadrants(thickness: np.ndarray) -> dict[str, float]:
    """Mean of a layer's profile (W,) in TSNIT order over each quadrant: {"T", "S", "N", "I"}.

    T is 315° to 45°, S 45° to 135°, N 135° to 225°, I 225° to 315°; an A-scan belongs where its middle lies.
    nan for a profile that is nan, and for a quadrant without A-scans (fewer than 4 in all).
    """
    angles = (np.arange(len(thickness)) + 0.5) * 360 / len(thickness)
    quadrant = ((angles + 45) // 90 % 4).astype(int)
    return {name: float(thickness[quadrant == i].mean()) if (quadrant == i).any() else float("nan")
            for i, name in enumerate(QUADRANTS)}


def means(thickness: np.ndarray) -> dict[str, float]:
    """Global mean and quadrant means of a layer's profile (W,): {"global", "T", "S", "N", "I"}."""
    return {"global": float(thickness.mean()), **quadrants(thickness)}


def errors(predicted: Thickness, truth: Thickness) -> dict[str, dict[str, float]]:
    """How far a profile is from the true one, layer by layer, in their unit.

    `mean_absolute` is over A-scans; "global", "T", "S", "N", "I" are predicted minus true means (with sign).
    A layer that the prediction lost altogether counts as 0 thick; one that the truth lacks gives nan.
    Raises OctkitError where unit, number of A-scans or layers differ.
    """
    for what, ours, theirs in (("unit", predicted.unit, truth.unit), ("layers", predicted.layers, truth.layers),
                               ("number of A-scans", predicted.values.shape[1], truth.values.shape[1])):
        if ours != theirs:
            raise OctkitError(f"thickness profiles differ in {what}: predicted {ours}, truth {theirs}")
    difference = np.nan_to_num(predicted.values) - truth.values
    return {layer: {"mean_absolute": float(np.abs(row).mean()), **means(row)}
            for layer, row in zip(truth.layers, difference, strict=True)}


def table_rows(profiles: Mapping[str, Thickness]) -> list[dict]:
    """One row a case and layer: case, eye, unit, layer, global, T, S, N, I; None for what is not known."""
    return [{"case": case, "eye": found.eye, "unit": found.unit, "layer": layer,
             **{name: None if math.isnan(mean) else mean for name, mean in means(found[layer]).items()}}
            for case, found in profiles.items() for layer in found.layers]


def thickness_table(masks_dir: Path, um_per_px: float | None = None) -> list[dict]:
    """The rows (`table_rows`) of all masks in a folder, PNGs in GOALS greys and TSNIT order, by file name.

    Raises OctkitError for a folder without PNGs, an unreadable mask, or one with other grey values.
    """
    return table_rows({path.stem: profile(read_mask(path, GOALS_GREYS), um_per_px)
                       for path in list_images(masks_dir)})


def write_csv(path: Path, rows: Sequence[Mapping]) -> None:
    """Write the table as CSV, atomically: lengths with three decimals, an empty field for what is not known."""
    if not rows:
        raise OctkitError(f"{path}: found no thickness to write, expected at least one case")
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.3f}" if isinstance(value, float) else value for key, value in row.items()})
    write_atomic(path, text.getvalue())
