"""What report.html says about each step: parts that read a run's files and yield blocks for the page.

A part is a function of a Run that yields Blocks. It reads files and draws figures; it computes no result. It raises
NotRun for a file that is not there, OctkitError for one that is damaged.
"""

import base64
import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from octkit.common.errors import bad_file
from octkit.common.files import read_json_as
from octkit.data.image_files import read_mask
from octkit.evaluation.metrics import spread, with_spread
from octkit.figures import charts, diagrams, picture, scans, volumes
from octkit.figures.picture import Picture, layer_name
from octkit.layers.thickness import QUADRANT_NAMES
from octkit.lessons import ledger
from octkit.planning.run import Run
from octkit.planning.selection import Selection

CLASSIFIER_FILES = {"metrics.json": "held-out training scans", "validation_metrics.json": "validation scans"}
CLASSIFIER_SCORES = (("AUC", "auc"), ("F1", "f1"), ("sensitivity", "sensitivity"), ("specificity", "specificity"))
LOG_COLUMNS = {"epoch", "train_loss", "validation_loss", "seconds"}
AGAIN = "run the step again that writes it"

Number = float | None
Spread = dict[str, float | int | None]  # what `metrics.spread` returns


class NotRun(Exception):
    """A file or a pattern of files that no step has left."""

    def __init__(self, path: Path):
        super().__init__(str(path))
        self.path = path


@dataclass(frozen=True)
class Block:
    """A piece of a section. `kind` is the template's name for it, `content` what that kind shows."""

    kind: str
    content: object
    caption: str = ""


@dataclass(frozen=True)
class Summary:
    """A metric's mean and standard deviation over the cases where it is defined."""

    mean: Number
    std: Number
    undefined: int


@dataclass(frozen=True)
class Scores:
    """scores.json, as far as the page shows it; `evaluate.score_folder` says what its parts are."""

    cases: dict[str, dict[str, dict[str, Number]]]
    summary: dict[str, dict[str, Summary]]
    units: dict[str, str]


@dataclass(frozen=True)
class ClassifierScores:
    """What `metrics.classification_scores` returns."""

    auc: Number
    f1: Number
    sensitivity: Number
    specificity: Number
    confusion: dict[str, int]
    roc: dict[str, list[Number]] | None


@dataclass(frozen=True)
class Origin:
    """weights_origin.json: where the classifier's first weights came from, and why from there."""

    origin: str
    reason: str


@dataclass(frozen=True)
class Price:
    """mirroring.json: what one way of inference costs and gains."""

    seconds: float
    dice_by_scan: dict[str, Number]


@dataclass(frozen=True)
class Ablation:
    """ablation.json: each scan's scores, their spread after each step, and what each step changes."""

    rows: list[dict[str, Any]]
    over_scans: dict[str, dict[str, Spread]]
    gains: dict[str, dict[str, Spread]]


def needed(path: Path) -> Path:
    """The path itself; raises NotRun where nothing is there."""
    if not path.exists():
        raise NotRun(path)
    return path


def warnings(run: Run) -> Iterator[Block]:
    """What a reader has to know before any number."""
    if (run.classifier / "weights_origin.json").exists():
        origin = read_json_as(run.classifier / "weights_origin.json", Origin, AGAIN)
        if origin.origin == "random initialisation":
            yield Block("loud", "The glaucoma classifier started from RANDOM INITIALISATION, not from ImageNet "
                                f"weights ({origin.reason}). Its numbers are not those of the recipe.")
        else:
            yield Block("note", f"The glaucoma classifier started from ImageNet weights ({origin.origin}: "
                                f"{origin.reason}).")
    needed(run.settings_file)
    lines = ledger.read(run)
    for step in dict.fromkeys(line.step for line in lines):
        number = step.rpartition("_fold_")[2]
        if step == "13_report" or (step.startswith("07_train") and number not in map(str, run.settings.train.folds)):
            continue  # this very page, and folds that the settings no longer name
        if (line := ledger.last(lines, step)) and line.status in ("failed", "killed"):
            verb = "was killed" if line.status == "killed" else "failed"
            yield Block("loud", f"Step {step} {verb}: {line.error}. What it should have left is missing or old.")
    if (run.settings.data.root / "phantom.json").exists():
        yield Block("note", "The scans of this run are synthetic phantoms: its numbers say nothing about patients.")


def key_layers(run: Run) -> Iterator[Block]:
    """Dice of each layer on the validation scans, or in cross-validation where those have no truth."""
    if run.scores_file.exists():
        scores = _scores(run)
        yield Block("cards", [(f"{layer_name(layer)} Dice", number(found["dice"].mean),
                               f"MED {_distance(found)}; {len(scores.cases)} validation scans")
                              for layer, found in scores.summary.items()])
        return
    for candidate in _selection(run).candidates:
        if candidate.name == run.selection.configuration:
            yield Block("cards", [(f"{layer_name(layer)} Dice", number(dice),
                                   "cross-validation; no truth to score the validation scans with")
                                  for layer, dice in candidate.dice.items()])


def key_classifier(run: Run) -> Iterator[Block]:
    """The classifier's scores on the validation scans, or on those it held out where they have no truth."""
    where, scores = list(_classifier_results(run).items())[-1]
    yield Block("cards", [(f"Glaucoma {name}", number(getattr(scores, key)), where) for name, key in CLASSIFIER_SCORES])


def key_postprocessing(run: Run) -> Iterator[Block]:
    selection = _selection(run)
    kept = [test.step for test in selection.postprocessing if test.kept]
    if not selection.postprocessing:
        decision = f"none, since nothing was decided: {selection.why}"
    elif kept:
        decision = f"{', then '.join(kept)}, as cross-validation decided"
    else:
        decision = "none, since no test on the cross-validation masks raised the mean Dice without lowering a layer's"
    yield Block("text", f"Post-processing: {decision}.")


def counts(run: Run) -> Iterator[Block]:
    needed(run.settings_file)
    dataset = run.dataset
    yield Block("text", f"Data set “{dataset.name}” in the {dataset.layout} layout; layers "
                        f"{', '.join(map(layer_name, dataset.labels))}.")
    known = [case.glaucoma for case in dataset.train if case.glaucoma is not None]
    yield table("", ("split", "scans", "glaucoma"),
                [("train", len(dataset.train), sum(known) if known else "not told"),
                 ("validation", len(dataset.validation), "not told"), ("test", len(dataset.test), "not told")])


def data(run: Run) -> Iterator[Block]:
    yield from counts(run)
    if not any(run.figures.glob("01_*.png")):
        dataset, shown = run.dataset, run.dataset.train[:6]
        yield drawn(scans.data_grid([dataset.read_image(case) for case in shown],
                                    [dataset.read_mask(case) for case in shown],
                                    [case.name for case in shown], "Training scans with their layers"))


def fingerprint(run: Run) -> Iterator[Block]:
    needed(run.fingerprint_file)
    found = run.fingerprint
    shapes = [" × ".join(map(str, shape)) for shape in found.shapes]
    sizes = ", ".join(f"{shape} px ({shapes.count(shape)} scans)" for shape in sorted(set(shapes)))
    yield Block("text", f"Sizes after cropping to where a scan is not zero: {sizes}.")
    keys = list(found.intensity[0])
    yield table("Grey values over all labelled pixels", ("channel", *(key.replace("_", " ") for key in keys)),
                [(name, *(number(channel.get(key), 1) for key in keys)) for name, channel
                 in zip(found.channels, found.intensity, strict=True)])


def plan(run: Run) -> Iterator[Block]:
    content = read_json_as(needed(run.plan_file), dict[str, Any], "plan again")
    # A zero-width space after each dot lets long names break there and nowhere else.
    rows = [(name.replace(".", ".\u200b"), diagrams.in_words(value), kind, reason)
            for name, value, kind, reason in diagrams.plan_rows(content)]
    yield Block("plan", rows, "Blueprint: the same for every data set. Inferred: follows by a rule from the data and "
                              "the memory. Empirical: found by cross-validation.")


def training(run: Run) -> Iterator[Block]:
    """Curves and last epochs of all folds; each configuration has curves of its own."""
    logs: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for path in sorted(run.folder.glob("models/*/fold_*/log.csv")):
        config, fold = path.parts[-3], path.parent.name.removeprefix("fold_")
        if fold in map(str, run.settings.train.folds):
            log = charts.read_log(path)
            if not log.keys() >= LOG_COLUMNS:
                raise bad_file(path, f"has no {', '.join(sorted(LOG_COLUMNS - log.keys()))}", "expected a training log")
            logs.setdefault(config, {})[fold] = log
    if not logs:
        raise NotRun(run.fold("<config>", "<k>") / "log.csv")
    for config, folds in logs.items():
        yield drawn(charts.learning_curves(folds, title=f"Training of {config}"))
        layers = [column[5:] for column in next(iter(folds.values())) if column.startswith("dice_")]
        yield table(f"The last epoch of each fold of {config}",
                    ("fold", "epochs", "training loss", "validation loss",
                     *(f"pseudo-Dice {layer_name(layer)}" for layer in layers), "minutes in all"),
                    [(name, len(log["epoch"]), number(log["train_loss"][-1]), number(log["validation_loss"][-1]),
                      *(number(log[f"dice_{layer}"][-1]) for layer in layers), number(log["seconds"].sum() / 60, 1))
                     for name, log in folds.items()])


def mirroring(run: Run) -> Iterator[Block]:
    prices = read_json_as(needed(run.mirroring_file), dict[str, Price], AGAIN)
    first = next(iter(prices.values()), Price(0, {})).dice_by_scan
    rows = []
    for name, price in prices.items():
        change = spread(_difference(price.dice_by_scan.get(scan), dice) for scan, dice in first.items())
        rows.append((name, number(price.seconds), with_spread(spread(price.dice_by_scan.values())),
                     with_spread(change, sign="+") if rows else ""))
    yield table("The price of mirroring, mean ± standard deviation over held-out scans",
                ("inference", "seconds an image", "mean foreground Dice", "change, scan by scan"), rows)


def validation_table(run: Run) -> Iterator[Block]:
    scores = _scores(run)
    yield table(f"Validation: {len(scores.cases)} scans against their truth, mean ± standard deviation",
                ("", *map(layer_name, scores.summary)),
                [(f"{_metric_name(metric)} ({unit})", *(_in_words(found.get(metric))
                                                        for found in scores.summary.values()))
                 for metric, unit in scores.units.items() if metric != "coverage"])


def validation(run: Run) -> Iterator[Block]:
    yield from validation_table(run)
    if not (run.figures / "09_dice.png").exists():
        scores = _scores(run)
        yield drawn(charts.layer_scores({layer: [case[layer]["dice"] for case in scores.cases.values()]
                                         for layer in scores.summary}, title="Dice on the validation scans"))


def cross_validation(run: Run) -> Iterator[Block]:
    selection = _selection(run)
    if not selection.candidates:
        yield Block("text", f"No cross-validation: {selection.why}.")
        return
    tests = selection.postprocessing
    raw = {found.name: found.dice for found in selection.candidates}.get(selection.configuration)
    if raw is None:
        raise bad_file(run.selection_file, f"chooses {selection.configuration}, which is no candidate", "select again")
    final = next((test.dice_after for test in reversed(tests) if test.kept), raw)
    if len(selection.candidates) > 1:
        ranked = sorted(selection.candidates, key=lambda candidate: -candidate.mean_dice)
        yield table(f"Every configuration and every pair (probabilities averaged); chosen: "
                    f"{selection.configuration}, {selection.why}",
                    ("candidate", "mean Dice", "over the scans", "behind the best, scan by scan",
                     *(layer_name(layer) for layer in raw)),
                    [(found.name, number(found.mean_dice, 4), _spread(found.over_cases),
                      _spread(found.behind_best, sign="+"), *(number(d, 4) for d in found.dice.values()))
                     for found in ranked])
        if not (run.figures / "14_candidates.png").exists():
            yield drawn(volumes.candidates(selection.candidates, selection.configuration))
    yield table(f"Cross-validation: {selection.cases} training scans, each predicted by the fold that did not "
                "see it", ("layer", "Dice, raw", "Dice, post-processed"),
                [(layer_name(layer), number(raw[layer], 4), number(final.get(layer), 4)) for layer in raw])
    yield table("Post-processing, tested on these masks; the change is the mean over the scans ± standard deviation",
                ("step", "mean Dice before", "after", "change, scan by scan", "kept", "why"),
                [(test.step, *(number(mean_of(dice.values()), 5) for dice in (test.dice_before, test.dice_after)),
                  _spread(test.gain, 5, "+"), "yes" if test.kept else "no", test.why) for test in tests])


def examples(run: Run) -> Iterator[Block]:
    """Best, median and worst validation scan by mean Dice; without scores, the first three."""
    needed(run.settings_file)
    dataset, folder = run.dataset, needed(run.predictions("validation"))
    cases = {case.name: case for case in dataset.validation if (folder / f"{case.name}.png").exists()}
    if run.scores_file.exists():
        # Without a Dice neither mask has the layer: nothing right or wrong in it.
        dice = {name: mean_of(found["dice"] for found in layers.values()) or 0
                for name, layers in _scores(run).cases.items() if name in cases}
        if not dice:
            raise NotRun(folder / "<scan>.png")
        ranked = sorted(dice, key=lambda name: dice[name])
        chosen = {f"{word} by mean Dice ({dice[name]:.3f})": name for word, name in
                  (("best", ranked[-1]), ("median", ranked[len(ranked) // 2]), ("worst", ranked[0]))}
    else:
        chosen = {f"no truth to rank it by, number {i}": name for i, name in enumerate(list(cases)[:3], 1)}
    for word, name in chosen.items():
        yield drawn(scans.overlay(
            dataset.read_image(cases[name]), read_mask(folder / f"{name}.png", dataset.mask_values),
            dataset.read_truth(cases[name]), f"Validation scan {name}: {word}"))


def thickness(run: Run) -> Iterator[Block]:
    path = needed(run.thickness_file)
    quarters = {"global": "whole circle", **QUADRANT_NAMES}
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        unit = rows[0]["unit"].replace("um", "µm")
        scans_found = {row["case"] for row in rows}
        values = {layer: {key: [float(row[key]) for row in rows if row["layer"] == layer and row[key]]
                          for key in quarters} for layer in dict.fromkeys(row["layer"] for row in rows)}
    except (LookupError, ValueError, csv.Error) as error:
        raise bad_file(path, f"is no table of thickness ({type(error).__name__}: {error})", AGAIN) from None
    yield table(f"Mean thickness of the predicted layers over {len(scans_found)} validation scans ({unit})",
                ("layer", *quarters.values()),
                [(layer_name(layer), *(number(mean_of(found), 1) for found in by_part.values()))
                 for layer, by_part in values.items()])


def ablation(run: Run) -> Iterator[Block]:
    """What each measure gains on scans that no model has seen."""
    found = read_json_as(needed(run.ablation_file), Ablation, AGAIN)
    layers = [key for key in next(iter(found.over_scans.values()), {}) if key != "broken"]
    names = list(dict.fromkeys(str(row.get("scan")) for row in found.rows))
    heads = ("step", *(f"{layer_name(layer)} Dice" for layer in layers), "broken A-scans")
    for steps, caption, sign in ((found.over_scans, "One measure more a row, mean ± standard deviation", ""),
                                 (found.gains, "What each measure changes, scan by scan", "+")):
        yield table(f"{caption} over {len(names)} scans ({', '.join(names)}); each model was trained once", heads,
                    [(step, *(_spread(values.get(column, {}), 3, sign) for column in (*layers, "broken")))
                     for step, values in steps.items()])


def classifier(run: Run) -> Iterator[Block]:
    results = _classifier_results(run)
    yield table("Glaucoma or not; F1, sensitivity and specificity at the threshold 0.5",
                ("scored on", "scans", *(name for name, _ in CLASSIFIER_SCORES)),
                [(where, sum(found.confusion.values()), *(number(getattr(found, key)) for _, key in CLASSIFIER_SCORES))
                 for where, found in results.items()])
    for where, scores in results.items():
        if scores.roc and not any(run.figures.glob("11_roc*.png")):
            yield drawn(charts.roc(scores.roc["fpr"], scores.roc["tpr"], scores.auc, f"ROC on the {where}"))


def figures(pattern: str, needed: bool = True) -> Callable[[Run], Iterator[Block]]:
    """A part that shows the figures which the notebooks left, in the order of their names.

    Where there are none it says so if they are `needed`; otherwise the part before it draws its own.
    """

    def part(run: Run) -> Iterator[Block]:
        paths = sorted(run.figures.glob(pattern))
        if needed and not paths:
            raise NotRun(run.figures / pattern)
        for path in paths:
            try:
                yield figure(path.read_bytes())
            except (OSError, SyntaxError) as error:  # as Pillow names damage
                raise bad_file(path, f"is no picture ({error})", AGAIN) from None

    return part


def table(caption: str, heads: tuple[str, ...], rows: list[tuple]) -> Block:
    return Block("table", (heads, rows), caption)


def drawn(image: Picture) -> Block:
    return figure(picture.png(image))


def figure(content: bytes) -> Block:
    """A PNG file's content as a block; its title and description stand in the file."""
    with Image.open(io.BytesIO(content)) as image:
        title = image.info.get("Title", "figure")
        width = round(image.width * 96 / picture.DPI)
        return Block("figure", (base64.b64encode(content).decode(), width, image.info.get("Description", title)))


def number(value: Number, digits: int = 3) -> str:
    return "—" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def mean_of(values: Iterable[Number]) -> Number:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _difference(one: Number, other: Number) -> Number:
    return None if one is None or other is None else one - other


def _spread(found: Spread, digits: int = 4, sign: str = "") -> str:
    return with_spread({"mean": None, "sd": None, "n": 0} | found, digits, sign)


def _in_words(found: Summary | None) -> str:
    if found is None or found.mean is None or found.std is None:
        text = "—"
    else:
        digits = 4 if found.mean < 1 else 2
        text = f"{found.mean:.{digits}f} ± {found.std:.{digits}f}"
    return text + (f" ({found.undefined} undefined)" if found and found.undefined else "")


def _distance(found: Mapping[str, Summary]) -> str:
    in_mm = found["med_mm"].mean if "med_mm" in found else None
    return f"{number(found['med'].mean, 2)} px" + (f" ({in_mm * 1000:.1f} µm)" if in_mm else "")


def _metric_name(metric: str) -> str:
    name = metric.removesuffix("_mm").removesuffix("_um").replace("_", " ")
    return name.replace("med", "MED") if metric.startswith("med") else name.capitalize()


def _scores(run: Run) -> Scores:
    """scores.json; every layer has a Dice and a boundary distance (`med`) in it, every case all layers."""
    scores = read_json_as(needed(run.scores_file), Scores, "score the masks again")
    whole = all({"dice", "med"} <= metrics.keys() for metrics in scores.summary.values()) and all(
        "dice" in case.get(layer, {}) for case in scores.cases.values() for layer in scores.summary)
    if not whole:
        raise bad_file(run.scores_file, "lacks the dice or med of a layer", "score the masks again")
    return scores


def _selection(run: Run) -> Selection:
    needed(run.selection_file)
    return run.selection


def _classifier_results(run: Run) -> dict[str, ClassifierScores]:
    """Where it was scored -> the classifier's scores; at least those on its own held-out scans must be there."""
    needed(run.classifier / "metrics.json")
    return {where: read_json_as(run.classifier / name, ClassifierScores, AGAIN)
            for name, where in CLASSIFIER_FILES.items() if (run.classifier / name).exists()}
