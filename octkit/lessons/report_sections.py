"""What report.html says about each step: parts that read a run's files and yield blocks for the page.

A part is a function of a Run that yields Blocks. It reads files and draws figures; it computes no result.
"""

import base64
import csv
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from octkit.common import settings
from octkit.common.files import read_json
from octkit.data.dataset import Dataset
from octkit.data.image_files import read_mask
from octkit.data.layouts.detect import open_dataset
from octkit.evaluation.metrics import spread, with_spread
from octkit.figures import charts, diagrams, picture, scans, volumes
from octkit.figures.picture import layer_name
from octkit.lessons import ledger
from octkit.planning.selection import Selection

CLASSIFIER_FILES = {"metrics.json": "held-out training scans", "validation_metrics.json": "validation scans"}
CLASSIFIER_SCORES = (("AUC", "auc"), ("F1", "f1"), ("sensitivity", "sensitivity"), ("specificity", "specificity"))


class NotRun(Exception):
    """A file that no step has left; the message is its name in the run folder."""


@dataclass(frozen=True)
class Block:
    """A piece of a section. `kind` is the template's name for it, `content` what that kind shows."""

    kind: str
    content: object
    caption: str = ""


@dataclass(frozen=True)
class Run:
    """A run folder and how its files are asked for; asking for one that is not there raises NotRun."""

    folder: Path

    def has(self, pattern: str) -> bool:
        return any(self.folder.glob(pattern))

    def path(self, name: str) -> Path:
        if not (self.folder / name).exists():
            raise NotRun(name)
        return self.folder / name

    def json(self, name: str):
        return read_json(self.path(name))

    @property
    def chosen(self) -> settings.Settings:
        return settings.load(self.path("settings.json"))

    @property
    def selection(self) -> Selection:
        return Selection.load(self.path("selection.json"))

    @property
    def dataset(self) -> Dataset:
        return open_dataset(self.chosen.data.root)


def warnings(run: Run) -> Iterator[Block]:
    """What a reader has to know before any number."""
    if run.has("classifier/weights_origin.json"):
        origin = run.json("classifier/weights_origin.json")
        if origin["origin"] == "random initialisation":
            yield Block("loud", "The glaucoma classifier started from RANDOM INITIALISATION, not from ImageNet "
                                f"weights ({origin['reason']}). Its numbers are not those of the recipe.")
        else:
            yield Block("note", f"The glaucoma classifier started from ImageNet weights ({origin['origin']}: "
                                f"{origin['reason']}).")
    lines = ledger.read(run.folder)
    dropped = {name for name in (line["step"] for line in lines) if name.startswith("07_train")
               and name.rpartition("_fold_")[2] not in map(str, run.chosen.train.folds)}
    for step in dict.fromkeys(line["step"] for line in lines):
        if step == "13_report" or step in dropped:  # this very page, and folds that the settings no longer name
            continue
        if (line := ledger.last(lines, step)) and line["status"] in ("failed", "killed"):
            verb = "was killed" if line["status"] == "killed" else "failed"
            yield Block("loud", f"Step {step} {verb}: {line['error']}. What it should have left is missing or old.")
    if (run.chosen.data.root / "phantom.json").exists():
        yield Block("note", "The scans of this run are synthetic phantoms: its numbers say nothing about patients.")


def key_layers(run: Run) -> Iterator[Block]:
    """Dice of each layer on the validation scans, or in cross-validation where those have no truth."""
    if run.has("scores.json"):
        scores = run.json("scores.json")
        yield Block("cards", [(f"{layer_name(layer)} Dice", number(found["dice"]["mean"]),
                               f"MED {_distance(found)}; {len(scores['cases'])} validation scans")
                              for layer, found in scores["summary"].items()])
        return
    selection = run.selection
    for candidate in (found for found in selection.candidates if found.name == selection.configuration):
        yield Block("cards", [(f"{layer_name(layer)} Dice", number(dice),
                               "cross-validation; no truth to score the validation scans with")
                              for layer, dice in candidate.dice.items()])


def key_classifier(run: Run) -> Iterator[Block]:
    """The classifier's scores on the validation scans, or on those it held out where they have no truth."""
    where, scores = list(_classifier_results(run).items())[-1]
    yield Block("cards", [(f"Glaucoma {name}", number(scores[key]), where) for name, key in CLASSIFIER_SCORES])


def counts(run: Run) -> Iterator[Block]:
    dataset = run.dataset
    yield Block("text", f"Data set “{dataset.name}” in the {dataset.layout} layout; layers "
                        f"{', '.join(map(layer_name, dataset.labels))}.")
    known = [case.glaucoma for case in dataset.train if case.glaucoma is not None]
    yield table("", ("split", "scans", "glaucoma"),
                [("train", len(dataset.train), sum(known) if known else "not told"),
                 ("validation", len(dataset.validation), "not told"), ("test", len(dataset.test), "not told")])


def data(run: Run) -> Iterator[Block]:
    dataset = run.dataset
    yield from counts(run)
    if not run.has("figures/01_*.png"):
        shown = dataset.train[:6]
        yield figure(picture.png(scans.data_grid([dataset.read_image(case) for case in shown],
                                               [dataset.read_mask(case) for case in shown],
                                               [case.name for case in shown], "Training scans with their layers")))


def fingerprint(run: Run) -> Iterator[Block]:
    found = run.json("fingerprint.json")
    shapes = [" × ".join(map(str, shape)) for shape in found["shapes"]]
    sizes = ", ".join(f"{shape} px ({shapes.count(shape)} scans)" for shape in sorted(set(shapes)))
    yield Block("text", f"Sizes after cropping to where a scan is not zero: {sizes}.")
    keys = list(found["intensity"][0])
    yield table("Grey values over all labelled pixels", ("channel", *(key.replace("_", " ") for key in keys)),
                [(name, *(number(channel[key], 1) for key in keys)) for name, channel
                 in zip(found["channels"], found["intensity"], strict=True)])


def plan(run: Run) -> Iterator[Block]:
    # A zero-width space after each dot lets long names break there and nowhere else.
    rows = [(name.replace(".", ".\u200b"), diagrams.in_words(value), kind, reason)
            for name, value, kind, reason in diagrams.plan_rows(run.json("plan.json"))]
    yield Block("plan", rows, "Blueprint: the same for every data set. Inferred: follows by a rule from the data and "
                              "the memory. Empirical: found by cross-validation.")


def training(run: Run) -> Iterator[Block]:
    """Curves and last epochs of all folds; each configuration has curves of its own."""
    logs: dict[str, dict[str, dict]] = {}
    for path in sorted(run.folder.glob("models/*/fold_*/log.csv")):
        config, fold = path.parts[-3], path.parent.name.removeprefix("fold_")
        if fold in map(str, run.chosen.train.folds):
            logs.setdefault(config, {})[fold] = charts.read_log(path)
    if not logs:
        raise NotRun("models/<config>/fold_<k>/log.csv")
    for config, folds in logs.items():
        yield figure(picture.png(charts.learning_curves(folds, title=f"Training of {config}")))
        yield _last_epochs(config, folds)


def _last_epochs(config: str, logs: dict[str, dict]) -> Block:
    layers = [column[5:] for column in next(iter(logs.values())) if column.startswith("dice_")]
    return table(f"The last epoch of each fold of {config}",
                 ("fold", "epochs", "training loss", "validation loss",
                  *(f"pseudo-Dice {layer_name(layer)}" for layer in layers), "minutes in all"),
                 [(name, len(log["epoch"]), number(log["train_loss"][-1]), number(log["validation_loss"][-1]),
                   *(number(log[f"dice_{layer}"][-1]) for layer in layers), number(log["seconds"].sum() / 60, 1))
                  for name, log in logs.items()])


def validation_table(run: Run) -> Iterator[Block]:
    scores = run.json("scores.json")
    metrics = [metric for metric in scores["units"] if metric != "coverage"]
    yield table(f"Validation: {len(scores['cases'])} scans against their truth, mean ± standard deviation",
                ("", *map(layer_name, scores["summary"])),
                [(f"{_metric_name(metric)} ({scores['units'][metric]})",
                  *(_spread(found[metric]) for found in scores["summary"].values())) for metric in metrics])


def validation(run: Run) -> Iterator[Block]:
    yield from validation_table(run)
    scores = run.json("scores.json")
    if not run.has("figures/09_dice.png"):
        yield figure(picture.png(charts.layer_scores(
            {layer: [case[layer]["dice"] for case in scores["cases"].values()] for layer in scores["summary"]},
            title="Dice on the validation scans")))


def examples(run: Run) -> Iterator[Block]:
    """Best, median and worst validation scan by mean Dice; without scores, the first three."""
    dataset, folder = run.dataset, run.path("predictions/validation")
    cases = {case.name: case for case in dataset.validation if (folder / f"{case.name}.png").exists()}
    if run.has("scores.json"):
        # Without a Dice neither mask has the layer: nothing right or wrong in it.
        dice = {name: mean_of(found["dice"] for found in layers.values()) or 0
                for name, layers in run.json("scores.json")["cases"].items()}
        ranked = sorted((name for name in cases if name in dice), key=dice.get)
        chosen = {f"{word} by mean Dice ({dice[name]:.3f})": name for word, name in
                  (("best", ranked[-1]), ("median", ranked[len(ranked) // 2]), ("worst", ranked[0]))}
    else:
        chosen = {f"no truth to rank it by, number {i}": name for i, name in enumerate(list(cases)[:3], 1)}
    for word, name in chosen.items():
        yield figure(picture.png(scans.overlay(
            dataset.read_image(cases[name]), read_mask(folder / f"{name}.png", dataset.mask_values),
            dataset.read_truth(cases[name]), f"Validation scan {name}: {word}")))


def thickness(run: Run) -> Iterator[Block]:
    with open(run.path("thickness.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    unit = rows[0]["unit"].replace("um", "µm")
    quarters = {"global": "whole circle", **charts.QUADRANT_NAMES}
    yield table(f"Mean thickness of the predicted layers over {len({row['case'] for row in rows})} validation scans "
                f"({unit})", ("layer", *quarters.values()),
                [(layer_name(layer), *(number(mean_of(float(row[key]) for row in rows
                                                    if row["layer"] == layer and row[key]), 1) for key in quarters))
                 for layer in dict.fromkeys(row["layer"] for row in rows)])


def classifier(run: Run) -> Iterator[Block]:
    results = _classifier_results(run)
    yield table("Glaucoma or not; F1, sensitivity and specificity at the threshold 0.5",
                ("scored on", "scans", *(name for name, _ in CLASSIFIER_SCORES)),
                [(where, sum(scores["confusion"].values()), *(number(scores[key]) for _, key in CLASSIFIER_SCORES))
                 for where, scores in results.items()])
    for where, scores in results.items():
        if scores["roc"] and not run.has("figures/11_roc*.png"):
            yield figure(picture.png(charts.roc(scores["roc"]["fpr"], scores["roc"]["tpr"], scores["auc"],
                                              f"ROC on the {where}")))


def figures(pattern: str, needed: bool = True) -> Callable[[Run], Iterator[Block]]:
    """A part that shows the figures which the notebooks left, in the order of their names.

    Where there are none it says so if they are `needed`; otherwise the part before it draws its own.
    """

    def part(run: Run) -> Iterator[Block]:
        paths = sorted((run.folder / "figures").glob(pattern))
        if needed and not paths:
            raise NotRun(f"figures/{pattern}")
        for path in paths:
            yield figure(path.read_bytes())

    part.__name__ = f"figures {pattern}"
    return part


def _classifier_results(run: Run) -> dict[str, dict]:
    """Where it was scored -> the classifier's scores; at least those on its own held-out scans must be there."""
    run.path("classifier/metrics.json")
    return {where: run.json(f"classifier/{name}") for name, where in CLASSIFIER_FILES.items()
            if run.has(f"classifier/{name}")}


def table(caption: str, heads: tuple[str, ...], rows: list[tuple]) -> Block:
    return Block("table", (heads, rows), caption)


def figure(data: bytes) -> Block:
    with Image.open(io.BytesIO(data)) as image:
        title = image.info.get("Title", "figure")
        width = round(image.width * 96 / picture.DPI)
        return Block("figure", (base64.b64encode(data).decode(), width, image.info.get("Description", title)))


def number(value: float | None, digits: int = 3) -> str:
    return "—" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def _spread(found: dict) -> str:
    digits = 4 if (found["mean"] or 0) < 1 else 2
    text = "—" if found["mean"] is None else f"{found['mean']:.{digits}f} ± {found['std']:.{digits}f}"
    return text + (f" ({found['undefined']} undefined)" if found["undefined"] else "")


def _distance(found: dict) -> str:
    micrometres = f" ({found['med_mm']['mean'] * 1000:.1f} µm)" if (found.get("med_mm") or {}).get("mean") else ""
    return f"{number(found['med']['mean'], 2)} px{micrometres}"


def mean_of(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _metric_name(metric: str) -> str:
    name = metric.removesuffix("_mm").removesuffix("_um").replace("_", " ")
    return name.replace("med", "MED") if metric.startswith("med") else name.capitalize()


def key_postprocessing(run: Run) -> Iterator[Block]:
    selection = run.selection
    kept = [test.step for test in selection.postprocessing if test.kept]
    if not selection.postprocessing:
        decision = f"none, since nothing was decided: {selection.why}"
    elif kept:
        decision = f"{', then '.join(kept)}, as cross-validation decided"
    else:
        decision = "none, since no test on the cross-validation masks raised the mean Dice without lowering a layer's"
    yield Block("text", f"Post-processing: {decision}.")


def mirroring(run: Run) -> Iterator[Block]:
    prices = run.json("mirroring.json")
    first = next(iter(prices.values()))["dice_by_scan"]
    gains = {name: spread(price["dice_by_scan"][scan] - first[scan] for scan in first)
             for name, price in prices.items()}
    yield table("The price of mirroring, mean ± standard deviation over held-out scans",
                ("inference", "seconds an image", "mean foreground Dice", "change, scan by scan"),
                [(name, number(price["seconds"]), with_spread(spread(price["dice_by_scan"].values())),
                  with_spread(gains[name], sign="+") if price["dice_by_scan"] is not first else "")
                 for name, price in prices.items()])


def cross_validation(run: Run) -> Iterator[Block]:
    selection = run.selection
    tests = selection.postprocessing
    if not selection.candidates:
        yield Block("text", f"No cross-validation: {selection.why}.")
        return
    raw = next(candidate.dice for candidate in selection.candidates
               if candidate.name == selection.configuration)
    final = next((test.dice_after for test in reversed(tests) if test.kept), raw)
    if len(selection.candidates) > 1:
        ranked = sorted(selection.candidates, key=lambda candidate: -candidate.mean_dice)
        yield table(f"Every configuration and every pair (probabilities averaged); chosen: "
                    f"{selection.configuration}, {selection.why}",
                    ("candidate", "mean Dice", "over the scans", "behind the best, scan by scan",
                     *(layer_name(layer) for layer in raw)),
                    [(found.name, number(found.mean_dice, 4), with_spread(found.over_cases),
                      with_spread(found.behind_best, sign="+"), *(number(d, 4) for d in found.dice.values()))
                     for found in ranked])
        if not run.has("figures/14_candidates.png"):
            yield figure(picture.png(volumes.candidates(selection.candidates, selection.configuration)))
    yield table(f"Cross-validation: {selection.cases} training scans, each predicted by the fold that did not "
                "see it", ("layer", "Dice, raw", "Dice, post-processed"),
                [(layer_name(layer), number(raw[layer], 4), number(final[layer], 4)) for layer in raw])
    yield table("Post-processing, tested on these masks; the change is the mean over the scans ± standard deviation",
                ("step", "mean Dice before", "after", "change, scan by scan", "kept", "why"),
                [(test.step, *(number(mean_of(dice.values()), 5) for dice in (test.dice_before, test.dice_after)),
                  with_spread(test.gain, 5, "+"), "yes" if test.kept else "no", test.why) for test in tests])


def ablation(run: Run) -> Iterator[Block]:
    """What each measure gains on scans that no model has seen."""
    found = run.json("ablation.json")
    layers = [key for key in next(iter(found["over_scans"].values())) if key != "broken"]
    scans = list(dict.fromkeys(row["scan"] for row in found["rows"]))
    heads = ("step", *(f"{layer_name(layer)} Dice" for layer in layers), "broken A-scans")
    for key, caption, sign in (
            ("over_scans", "One measure more a row, mean ± standard deviation", ""),
            ("gains", "What each measure changes, scan by scan", "+")):
        yield table(f"{caption} over {len(scans)} scans ({', '.join(scans)}); each model was trained once", heads,
                    [(step, *(with_spread(values[column], 3, sign) for column in (*layers, "broken")))
                     for step, values in found[key].items()])
