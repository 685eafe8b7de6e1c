"""Predictions held against the truth: masks by layer, glaucoma probabilities by scan."""

import csv
import io
import math
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np

from octkit.cases import LAYERS
from octkit.files import OctkitError
from octkit.images import image_size, read_mask
from octkit.layouts import GOALS_GREYS, list_images, read_labels
from octkit.metrics import classification_scores, dice, med, thickness_error

PREDICTION_COLUMNS = ["ImgName", "GC_Pred"]
# What float() takes besides plain numbers ("1_0", " 1", "infinity") is not what other readers take.
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def score_folder(predicted: Path, truth: Path, spacing: tuple[float, float] | None = None,
                 layers: Sequence[str] = LAYERS, names: Collection[str] | None = None) -> dict:
    """Score a folder of masks against the true ones, paired by file name (PNGs in GOALS greys).

    `spacing` is mm a pixel (row, column), where known; `layers` are those to score (fewer, where the truth
    carries only some); `names` are the cases to score where the truth has more of them ("0101", all by
    default). Returns what scores.json holds, None standing for what is undefined:

        layers, spacing_mm
        units       metric -> unit
        cases       case -> layer -> {dice, med, med_upper, med_lower, coverage, thickness_error}, and with a
                    spacing also {med_mm, med_upper_mm, med_lower_mm, thickness_error_um}
        summary     layer -> metric -> {mean, std, median, counted, undefined}; std over the cases counted
        mean        metric -> mean over the layers of their means

    `octkit.metrics` says what each metric means and when it is undefined: Dice where neither mask has the
    layer, the distances where either lacks it. Such cases are left out of means and counted as undefined.
    Raises OctkitError that names every missing or extra prediction and every size that differs.
    """
    chosen = _labels(layers)
    if spacing is not None and not (len(spacing) == 2 and all(math.isfinite(s) and s > 0 for s in spacing)):
        raise OctkitError(f"spacing: found {spacing}, expected mm a pixel (row, column), both above 0")
    cases = {}
    for ours, theirs in _pairs(Path(predicted), Path(truth), names):
        masks = read_mask(ours, GOALS_GREYS), read_mask(theirs, GOALS_GREYS)
        cases[theirs.stem] = {layer: _score(*masks, label, spacing) for layer, label in chosen.items()}
    metrics = list(next(iter(cases.values()))[layers[0]])
    summary = {layer: {metric: _summary(case[layer][metric] for case in cases.values()) for metric in metrics}
               for layer in layers}
    return {"layers": list(layers), "spacing_mm": spacing and list(spacing),
            "units": {metric: _unit(metric) for metric in metrics}, "cases": cases, "summary": summary,
            "mean": {metric: _summary(summary[layer][metric]["mean"] for layer in layers)["mean"]
                     for metric in metrics}}


def score_classification(predictions: Path, truth: Path, names: Collection[str] | None = None) -> dict:
    """AUC, F1, sensitivity, specificity and ROC of a CSV of predictions against a label table (xlsx).

    `predictions` has the columns ImgName, GC_Pred (0101.png, probability of glaucoma), `truth` ImgName,
    GC_Label (101, 1 = glaucoma). `names` are the cases to score where the truth has more of them ("0101",
    all by default). Returns what `metrics.classification_scores` does, the threshold (0.5) included. Raises
    OctkitError with a line for each missing, extra, doubled or unreadable row.
    """
    labels = read_labels(Path(truth))
    if names is not None:
        wanted = {name: _number(name) for name in names}
        if absent := sorted(name for name, number in wanted.items() if number not in labels):
            raise OctkitError(f"{truth}: found no label for {', '.join(absent)}")
        labels = {number: labels[number] for number in wanted.values()}
    probabilities = read_predictions(Path(predictions))
    numbers = {name: _number(name) for name in probabilities}
    problems = [f"{name} has no row in {truth}" for name, number in numbers.items() if number not in labels]
    problems += [f"ImgName {number} of {truth} has no prediction" for number in labels
                 if number not in numbers.values()]
    problems += [f"{name} and another row are both number {number}" for name, number in numbers.items()
                 if number is not None and list(numbers.values()).count(number) > 1]
    if problems:
        raise OctkitError(in_lines(f"{predictions}: does not match the truth", problems))
    return classification_scores([labels[numbers[name]] for name in probabilities], list(probabilities.values()))


def read_predictions(path: Path) -> dict[str, float]:
    """A table of predictions: image file name -> probability of glaucoma.

    Raises OctkitError with a line for each thing wrong with the file.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise OctkitError(f"{path}: cannot be read ({error.strerror}), expected a CSV with the columns "
                          f"{','.join(PREDICTION_COLUMNS)}") from None
    probabilities, problems = parse_predictions(data)
    if problems:
        raise OctkitError(in_lines(f"{path}: is no valid table of predictions", problems))
    return probabilities


def parse_predictions(data: bytes) -> tuple[dict[str, float], list[str]]:
    """The content of a CSV with the columns ImgName, GC_Pred, and a sentence for each thing wrong with it."""
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
        name, text = row
        if name in probabilities:
            problems.append(f"row {line}: {name} stands twice, expected one row an image")
        probabilities[name] = float(text) if NUMBER.fullmatch(text) else float("nan")
        if not 0 <= probabilities[name] <= 1:
            problems.append(f"row {line}: found GC_Pred {text!r} for {name}, expected a number from 0 to 1")
    return probabilities, problems


def in_lines(heading: str, problems: Sequence[str]) -> str:
    """A heading and the problems below it, one a line."""
    return "\n".join([f"{heading}:", *(f"  {problem}" for problem in problems)])


def _number(name: str) -> int | None:
    stem = Path(name).stem
    return int(stem) if stem.isdecimal() else None


def _labels(layers: Sequence[str]) -> dict[str, int]:
    unknown = [layer for layer in layers if layer not in LAYERS]
    if unknown or not layers:
        raise OctkitError(f"layers: found {list(layers)}, expected some of {', '.join(LAYERS)}")
    return {layer: LAYERS.index(layer) + 1 for layer in layers}


def _pairs(predicted: Path, truth: Path, names: Collection[str] | None) -> list[tuple[Path, Path]]:
    ours = {path.name: path for path in list_images(predicted)}
    theirs = {path.name: path for path in list_images(truth) if names is None or path.stem in names}
    absent = sorted(set(names or ()) - {path.stem for path in theirs.values()})
    if absent or not theirs:
        raise OctkitError(f"{truth}: found no true masks for {', '.join(absent) or 'any case'}")
    problems = [f"{name} is missing, expected a mask for each in {truth}" for name in theirs if name not in ours]
    problems += [f"{name} has no truth in {truth}" for name in ours if name not in theirs]
    for name in sorted(ours.keys() & theirs.keys()):
        found, expected = image_size(ours[name]), image_size(theirs[name])
        if found != expected:
            problems.append(f"{name} is {found[0]} x {found[1]} px, expected {expected[0]} x {expected[1]} px "
                            "like the truth")
    if problems:
        raise OctkitError(in_lines(f"{predicted}: does not match the truth", problems))
    return [(ours[name], theirs[name]) for name in theirs]


def _score(predicted: np.ndarray, truth: np.ndarray, label: int, spacing: tuple[float, float] | None) -> dict:
    distance = med(predicted, truth, label)
    error = thickness_error(predicted, truth, label)
    scores = {"dice": dice(predicted, truth, label), "med": distance["mean"], "med_upper": distance["upper"],
              "med_lower": distance["lower"], "coverage": distance["coverage"], "thickness_error": error}
    if spacing is not None:
        real = med(predicted, truth, label, spacing)
        scores |= {"med_mm": real["mean"], "med_upper_mm": real["upper"], "med_lower_mm": real["lower"],
                   "thickness_error_um": error * spacing[0] * 1000}
    return {metric: None if math.isnan(value) else value for metric, value in scores.items()}


def _unit(metric: str) -> str:
    if metric in ("dice", "coverage"):
        return "0 to 1"
    return metric[-2:] if metric.endswith(("_mm", "_um")) else "px"


def _summary(values: Iterable[float | None]) -> dict[str, float | int | None]:
    values = list(values)
    counted = [value for value in values if value is not None]
    if not counted:
        return {"mean": None, "std": None, "median": None, "counted": 0, "undefined": len(values)}
    return {"mean": float(np.mean(counted)), "std": float(np.std(counted)), "median": float(np.median(counted)),
            "counted": len(counted), "undefined": len(values) - len(counted)}
