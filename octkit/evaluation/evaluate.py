"""Predictions compared with the truth: masks by layer, glaucoma probabilities by scan."""

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from octkit.common.errors import OctkitError, tried
from octkit.common.files import cell_text, links_inside, only_file
from octkit.common.messages import say
from octkit.data.anatomy import impossible
from octkit.data.dataset import fit, is_volume, order_in_doubt, read_scan_mask, scan_name, scan_size
from octkit.data.labels import LAYERS, mask_coding
from octkit.data.matching import scans_in
from octkit.data.volume_files import is_nifti, is_stack, stated_scale
from octkit.evaluation.intervals import bootstrap_interval
from octkit.evaluation.metrics import TOLERANCE, boundary_scores, dice, spread

MOST_LINES = 100_000  # of a table of predictions
PREDICTION_COLUMNS = ["ImgName", "GC_Pred"]
# What float() takes besides plain numbers ("1_0", " 1", "infinity") is not what other readers take.
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def score_folder(predicted: Path, truth: Path | Mapping[str, Path], spacing: Sequence[float] | None = None,
                 layers: Sequence[str] | None = None, labels: Sequence[str] = LAYERS,
                 true_values: Mapping[int, int] | None = None) -> dict[str, Any]:
    """Score a folder of masks against the true ones: PNGs, NIfTI files or folders of B-scans, paired by name.

    A volume's Dice is that of all its voxels; its other metrics are means over the B-scans where they are defined. A
    line is printed for each true mask whose layers lie as in no eye.

    Args:
        truth: a folder of true masks, or those to score by case ("0101").
        spacing: mm a pixel (row, column), for volumes (between B-scans, row, column) or these last two; by default
            the one that a true volume states, where it does.
        layers: those to score, all by default.
        labels: the names of the masks' labels 1, 2, …
        true_values: how true masks are coded, value -> label; by default as predictions are: volumes hold label
            numbers, PNGs GOALS greys where the labels are the three layers, else label numbers.

    Returns what scores.json holds, None standing for what is undefined:

        layers
        spacing_mm  given, or shared by all volumes; None where it is unknown or not the same throughout
        units       metric -> unit
        nsd_tolerance_px
        cases       case -> layer -> {dice, med, med_upper, med_lower, coverage, boundary_error, nsd, thickness_error},
                    and where the spacing of all is known also {med_mm, med_upper_mm, med_lower_mm, boundary_error_um,
                    thickness_error_um}
        summary     layer -> metric -> {mean, std, median, counted, undefined}; std over the cases counted
        mean        metric -> mean over the layers of their means

    `metrics.boundary_scores` says what each metric means and when it is undefined; such cases are left out of means.
    Raises OctkitError that names every missing or extra prediction and every one that does not fit its truth.
    """
    labels, layers = tuple(labels), tuple(labels if layers is None else layers)
    if not layers or set(layers) - set(labels):
        raise OctkitError(f"layers: found {list(layers)}, expected some of {', '.join(labels)}")
    pairs = _pairs(predicted, _masks(predicted), truth if isinstance(truth, Mapping) else _masks(truth))
    spacings = _spacings([theirs for _, theirs in pairs.values()], spacing)
    numbers, greys = {number: number for number in range(len(labels) + 1)}, mask_coding(labels)
    cases = {}
    for (name, (file, true_file)), mm in zip(pairs.items(), spacings, strict=True):
        found = read_scan_mask(file, numbers if is_volume(file) else greys, true_file)
        values = true_values or (numbers if is_volume(true_file) else greys)
        true = read_scan_mask(true_file, values)
        if labels == LAYERS and (problem := impossible(true, values)):
            say(f"{true_file}: {', '.join(problem)}")
        cases[name] = {layer: _score(found, true, labels.index(layer) + 1, mm) for layer in layers}
    metrics = list(next(iter(cases.values()))[layers[0]])
    shared = spacings[0] if len(set(spacings)) == 1 else None
    summary = {layer: {metric: _summary(case[layer][metric] for case in cases.values()) for metric in metrics}
               for layer in layers}
    return {"layers": list(layers), "spacing_mm": shared and list(shared),
            "units": {metric: _unit(metric) for metric in metrics}, "nsd_tolerance_px": TOLERANCE,
            "cases": cases, "summary": summary,
            "mean": {metric: _summary(summary[layer][metric]["mean"] for layer in layers)["mean"]
                     for metric in metrics}}


def by_layer(scores: Mapping[str, Any], metric: str) -> dict[str, list[float | None]]:
    """A metric of `score_folder`'s scores: layer -> its value in each case, None where it is undefined."""
    return {layer: [case[layer][metric] for case in scores["cases"].values()] for layer in scores["layers"]}


def by_mean_dice(scores: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Each case's name and its mean Dice, 0 where no layer is in either mask; the worst first."""
    mean = {name: float(spread(layer["dice"] for layer in layers.values())["mean"] or 0)
            for name, layers in scores["cases"].items()}
    return sorted(mean.items(), key=lambda case: case[1])


def examples(scores: Mapping[str, Any]) -> dict[str, tuple[str, float]]:
    """The "worst", the "median" and the "best" case: its name and its mean Dice."""
    ranked = by_mean_dice(scores)
    return {"worst": ranked[0], "median": ranked[len(ranked) // 2], "best": ranked[-1]}


def grouped(scores: Mapping[str, Any], groups: Mapping[str, str]) -> dict[str, Any]:
    """`score_folder`'s scores with means over people: `groups` maps each case to its person (`groups.people_of`).

    Adds `people`, their number, and `by_group`: layer -> metric -> {mean, low, high, groups}, the mean over people of
    the means of their cases, its `bootstrap_interval`, and for how many it is defined; None where it is not.
    """
    people = [groups[name] for name in scores["cases"]]

    def row(layer: str, metric: str) -> dict[str, float | None]:
        found = bootstrap_interval(by_layer(scores, metric)[layer], people).as_json()
        return {"groups" if name == "n" else name: value for name, value in found.items()}

    summary = {layer: {metric: row(layer, metric) for metric in scores["units"]} for layer in scores["layers"]}
    return {**scores, "people": len(set(people)), "by_group": summary}


def in_words(scores: Mapping[str, Any]) -> str:
    """The means of `score_folder`'s scores as a table: a row for each metric, a column for each layer.

    Of `grouped` ones they are the means over groups, with their intervals.
    """
    summary = scores.get("by_group", scores["summary"])
    table = [["metric", *summary, "unit"]]
    for metric, unit in scores["units"].items():
        table.append([metric, *(_in_words(layer[metric]) for layer in summary.values()), unit])
    over = (f"{len(scores['cases'])} cases" if "by_group" not in scores else
            f"{scores['people']} people ({len(scores['cases'])} cases), with 95 % intervals over people")
    return f"means over {over}\n{aligned(table)}"


def aligned(table: Sequence[Sequence[str]]) -> str:
    """Rows of cells as text, a line each, their columns below each other."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                     for row in table)


def _in_words(found: Mapping[str, Any]) -> str:
    if found["mean"] is None:
        return "undefined"
    interval = "" if found.get("low") is None else f" [{found['low']:.4f}, {found['high']:.4f}]"
    return f"{found['mean']:.4f}{interval}"


def read_predictions(path: Path) -> dict[str, float]:
    """A table of predictions: image file name -> probability of glaucoma.

    Raises OctkitError with a line for each thing wrong with the file.
    """
    try:
        data = only_file(path, "a CSV of predictions", 5).read_bytes()
    except OSError as error:
        raise OctkitError(f"{path}: cannot be read ({error.strerror}), expected a CSV with the columns "
                          f"{','.join(PREDICTION_COLUMNS)}") from None
    probabilities, problems = parse_predictions(data)
    if problems:
        raise OctkitError(in_lines(f"{path}: is no valid table of predictions", problems))
    return probabilities


def parse_predictions(data: bytes) -> tuple[dict[str, float], list[str]]:
    """The content of a CSV with the columns ImgName, GC_Pred, and a sentence for each thing wrong with it."""
    if (lines := data.count(b"\n") + data.count(b"\r")) > MOST_LINES:  # each would be a sentence
        return {}, [f"has {lines} ends of lines, expected one an image, and at most {MOST_LINES}"]
    try:
        rows = list(csv.reader(io.StringIO(data.decode("utf-8"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        return {}, [f"is no CSV text in UTF-8 ({error})"]
    if not rows or rows[0] != PREDICTION_COLUMNS:
        return {}, [f"found the columns {rows[0] if rows else []}, expected {PREDICTION_COLUMNS} in this order"]
    probabilities, problems = {}, []
    for line, row in enumerate(rows[1:], start=2):
        if len(row) != 2:
            problems.append(f"row {line}: found {len(row)} fields, expected 2")
            continue
        name, text = cell_text(row[0]), row[1]
        if name in probabilities:
            problems.append(f"row {line}: {name} stands twice, expected one row an image")
        probabilities[name] = float(text) if NUMBER.fullmatch(text) else float("nan")
        if not 0 <= probabilities[name] <= 1:
            problems.append(f"row {line}: found GC_Pred {text!r} for {name}, expected a number from 0 to 1")
    return probabilities, problems


def in_lines(heading: str, problems: Sequence[str]) -> str:
    """A heading and the problems below it, one a line."""
    return "\n".join([f"{heading}:", *(f"  {problem}" for problem in problems)])


def _masks(path: Path) -> dict[str, Path]:
    links_inside(path := Path(path), hidden=False)
    return {scan_name(path): path} if path.is_file() or is_stack(path) else scans_in(path, masks=True)


def _pairs(predicted: Path, ours: Mapping[str, Path], theirs: Mapping[str, Path]) -> dict[str, tuple[Path, Path]]:
    problems = [f"{name} is missing, expected a mask of {path}" for name, path in theirs.items() if name not in ours]
    problems += [f"{path.name} has no true mask" for name, path in ours.items() if name not in theirs]
    for name in sorted(ours.keys() & theirs.keys()):
        tried(lambda error: problems.append(str(error)), fit, ours[name], theirs[name])
    if problems:
        raise OctkitError(in_lines(f"{predicted}: does not match the truth", problems))
    for name, path in theirs.items():
        if doubt := order_in_doubt(ours[name], path):
            say(f"{ours[name]}: {doubt}")
    return {name: (ours[name], theirs[name]) for name in theirs}


def _spacings(truths: Sequence[Path], given: Sequence[float] | None) -> list[tuple[float, ...] | None]:
    """mm for each true mask: the spacing given, or what the files state; None for all where one does not say."""
    if given is None:
        stated = [stated_scale(path) if is_nifti(path) or is_stack(path) else None for path in truths]
        return stated if None not in stated else [None] * len(stated)
    given = tuple(given)
    if len(given) not in (2, 3) or not all(math.isfinite(s) and s > 0 for s in given):
        raise OctkitError(f"spacing: found {given}, expected mm a pixel (row, column), both above 0, and for volumes "
                          "the distance of B-scans before them")
    if flat := [path for path in truths if len(scan_size(path)) < len(given)]:
        raise OctkitError(f"spacing: found {given}, expected two numbers (row, column) for the 2-D mask {flat[0]}")
    return [given] * len(truths)


def _score(predicted: np.ndarray, truth: np.ndarray, label: int,
           spacing: tuple[float, ...] | None) -> dict[str, float | None]:
    b_scans = [boundary_scores(predicted[i], truth[i], label, spacing and spacing[-2:])
               for i in np.ndindex(truth.shape[:-2])]
    overlap = dice(predicted, truth, label)
    return {"dice": None if math.isnan(overlap) else overlap,
            **{metric: spread(scan[metric] for scan in b_scans)["mean"] for metric in b_scans[0]}}


def _unit(metric: str) -> str:
    if metric in ("dice", "coverage", "nsd"):
        return "0 to 1"
    return metric[-2:] if metric.endswith(("_mm", "_um")) else "px"


def _summary(values: Iterable[float | None]) -> dict[str, float | int | None]:
    values = list(values)
    counted, found = [value for value in values if value is not None], spread(values)
    return {"mean": found["mean"], "std": found["sd"], "median": float(np.median(counted)) if counted else None,
            "counted": len(counted), "undefined": len(values) - len(counted)}
