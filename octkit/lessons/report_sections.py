"""What report.html says about each step: parts that read a run's files and yield blocks for the page.

A part is a function of a Run that yields Blocks. It reads files and draws a few figures; it computes no result. It
raises NotRun for a file that is not there, OctkitError for one that is damaged.
"""

import base64
import io
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from octkit.common.errors import bad_file
from octkit.common.files import read_json_as
from octkit.data.image_files import read_mask
from octkit.data.labels import mask_coding
from octkit.evaluation.metrics import spread, with_spread
from octkit.evaluation.records import Answers, Number, Scores, Summary
from octkit.figures import charts, diagrams, picture, scans
from octkit.figures.picture import Picture, layer_name
from octkit.layers.thickness import QUADRANT_NAMES
from octkit.lessons import ledger
from octkit.planning.run import Run
from octkit.planning.selection import Selection

LOG_COLUMNS = {"epoch", "train_loss", "validation_loss", "seconds"}
CLASSIFIER_STEP, SUBMISSION_STEP = "11_classify", "12_submission"
MAX_FIGURE = 20_000_000  # bytes; a lesson's have 0.5 MB
AGAIN = "run the step again that writes it"

Spread = dict[str, float | int | None]  # what `metrics.spread` returns


class NotRun(Exception):
    """A file, or a pattern of files, that no step has left."""

    def __init__(self, path: Path):
        self.path = path


class Block(NamedTuple):
    """A piece of a section. `kind` is the template's name for it, `content` what that kind shows."""

    kind: str
    content: object
    caption: str = ""


@dataclass(frozen=True)
class Origin:
    """weights_origin.json: where the classifier's first weights came from, and why from there."""

    origin: str
    reason: str


@dataclass(frozen=True)
class Price:
    """mirroring.json: what one way of inference costs and gains."""

    seconds: float
    dice_by_scan: dict[str, float]


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


def unless_left_out(step: str, *parts: Callable[[Run], Iterator[Block]]) -> Callable[[Run], Iterator[Block]]:
    """These parts as one; where the run has left their step out it says why: its files are then of other data."""

    def part(run: Run) -> Iterator[Block]:
        if lacking := ledger.left_out(run, step):
            yield Block("missing", f"left out: {lacking}")
        else:
            for one in parts:
                yield from one(run)

    return part


def warnings(run: Run) -> Iterator[Block]:
    """What a reader has to know before any number."""
    if lacking := ledger.left_out(run, CLASSIFIER_STEP):
        yield Block("note", f"The lessons on glaucoma and the submission were left out: {lacking}.")
    elif files := sorted(run.classifier.glob("fold_*/weights_origin.json")):
        origins = [read_json_as(file, Origin, AGAIN) for file in files]
        origin = next((one for one in origins if one.origin == "random initialisation"), origins[0])
        if origin.origin == "random initialisation":
            yield Block("loud", "The glaucoma classifier started from RANDOM INITIALISATION, not from ImageNet "
                                f"weights ({origin.reason}). Its numbers are not those of the recipe.")
        else:
            yield Block("note", f"The glaucoma classifier started from ImageNet weights ({origin.origin}: "
                                f"{origin.reason}).")
    needed(run.settings_file)
    for step, line in ledger.ends(run).items():
        fold = step.rpartition("_fold_")[2]
        if step == "13_report" or (step.startswith("07_train") and fold not in map(str, run.settings.train.folds)):
            continue  # this very page, and folds that the settings no longer name
        if line.status in ("failed", "killed"):
            verb = "was killed" if line.status == "killed" else "failed"
            yield Block("loud", f"Step {step} {verb}: {line.error}. What it should have left is missing or old.")
    if (run.settings.data.root / "phantom.json").exists():
        yield Block("note", "The scans of this run are synthetic phantoms: its numbers say nothing about patients.")


def key_layers(run: Run) -> Iterator[Block]:
    """Dice of each layer on the validation scans, or in cross-validation where those have no truth."""
    cards = []
    if run.scores_file.exists():
        scores = Scores.load(run.scores_file)
        for layer, found in scores.summary.items():
            distance = f"MED {number(found['med'].mean, 2)} px"
            if "med_mm" in found and found["med_mm"].mean:
                distance += f" ({found['med_mm'].mean * 1000:.1f} µm)"
            cards.append((f"{layer_name(layer)} Dice", number(found["dice"].mean),
                          f"{distance}; {len(scores.cases)} validation scans"))
    elif chosen := _selection(run).chosen:
        cards = [(f"{layer_name(layer)} Dice", number(dice),
                  "cross-validation; no truth to score the validation scans with")
                 for layer, dice in chosen.dice.items()]
    yield Block("cards", cards)


def key_classifier(run: Run) -> Iterator[Block]:
    """The chosen answer's scores on the validation scans, or in cross-validation where they have no truth."""
    answers = Answers.load(needed(run.classifier / "answers.json"))
    where = "validation scans" if "validation scans" in answers.scores else "cross-validation"
    found = answers.scores.get(where, {}).get(answers.chosen)
    if found is not None:
        yield Block("cards", [(f"Glaucoma {name}", str(getattr(found, name.lower())), f"{answers.chosen}; {where}, "
                               f"{found.people} people") for name in ("AUC", "Sensitivity", "Specificity")])


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


def data(run: Run) -> Iterator[Block]:
    needed(run.settings_file)
    dataset = run.dataset
    yield Block("text", f"Data set “{dataset.name}” in the {dataset.layout} layout; layers "
                        f"{', '.join(map(layer_name, dataset.labels))}.")
    known = [case.glaucoma for case in dataset.train if case.glaucoma is not None]
    yield table("", ("split", "scans", "glaucoma"),
                [("train", len(dataset.train), sum(known) if known else "not told"),
                 ("validation", len(dataset.validation), "not told"), ("test", len(dataset.test), "not told")])


def fingerprint(run: Run) -> Iterator[Block]:
    needed(run.fingerprint_file)
    found = run.fingerprint
    shapes = Counter(" × ".join(map(str, shape)) for shape in found.shapes)
    sizes = ", ".join(f"{shape} px ({count} scans)" for shape, count in sorted(shapes.items()))
    yield Block("text", f"Sizes after cropping to where a scan is not zero: {sizes}.")
    keys = list(found.intensity[0])
    yield table("Grey values over all labelled pixels", ("channel", *(key.replace("_", " ") for key in keys)),
                [(name, *(number(channel.get(key), 1) for key in keys))
                 for name, channel in zip(found.channels, found.intensity, strict=True)])


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
            logs.setdefault(config, {})[fold] = log = charts.read_log(path)
            if lost := LOG_COLUMNS - log.keys():
                raise bad_file(path, f"has no {', '.join(sorted(lost))}", "expected a training log")
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
    if run.exists and run.settings.train.folds == ("all",):
        yield Block("text", "The price of mirroring was not measured: fold all holds no scan out.")
        return
    prices = read_json_as(needed(run.mirroring_file), dict[str, Price], AGAIN)
    first = next(iter(prices.values()), Price(0, {})).dice_by_scan
    rows: list[tuple[str, ...]] = []
    for name, price in prices.items():
        change = spread(dice - first[scan] for scan, dice in price.dice_by_scan.items() if scan in first)
        rows.append((name, number(price.seconds), with_spread(spread(price.dice_by_scan.values())),
                     with_spread(change, sign="+") if rows else ""))
    yield table("The price of mirroring, mean ± standard deviation over held-out scans",
                ("inference", "seconds an image", "mean foreground Dice", "change, scan by scan"), rows)


def validation(run: Run) -> Iterator[Block]:
    scores = Scores.load(needed(run.scores_file))
    names = {metric: metric.removesuffix("_mm").removesuffix("_um").replace("_", " ").capitalize()
             .replace("Med", "MED") for metric in scores.units if metric != "coverage"}
    yield table(f"Validation: {len(scores.cases)} scans against their truth, mean ± standard deviation",
                ("", *map(layer_name, scores.summary)),
                [(f"{name} ({scores.units[metric]})", *(_in_words(found[metric]) for found in scores.summary.values()))
                 for metric, name in names.items()])
    if scores.by_group:
        yield table(f"The same as means over {scores.people} people, with 95 % intervals (bootstrap over people). MED: "
                    "mean distance to the nearest point of the other boundary; boundary error: mean |difference in "
                    "depth|, A-scan by A-scan; Nsd (normalised surface distance): share of boundary points within "
                    f"{scores.nsd_tolerance_px:g} px of the other boundary", ("", *map(layer_name, scores.by_group)),
                    [(f"{name} ({scores.units[metric]})", *(_with_interval(found[metric], 4 if scores.units[metric] in (
                        "0 to 1", "mm") else 2) for found in scores.by_group.values()))
                     for metric, name in names.items()])


def cross_validation(run: Run) -> Iterator[Block]:
    selection = _selection(run)
    if selection.chosen is None:
        yield Block("text", f"No cross-validation: {selection.why}.")
        return
    raw, tests = selection.chosen.dice, selection.postprocessing
    final = next((test.dice_after for test in reversed(tests) if test.kept), raw)
    if len(selection.candidates) > 1:
        ranked = sorted(selection.candidates, key=lambda candidate: -candidate.mean_dice)
        yield table(f"Every configuration and every pair (probabilities averaged); chosen: "
                    f"{selection.configuration}, {selection.why}",
                    ("candidate", "mean Dice", "over the scans", "behind the best, scan by scan",
                     *(layer_name(layer) for layer in raw)),
                    [(found.name, number(found.mean_dice, 4), with_spread(found.over_cases),
                      with_spread(found.behind_best, sign="+"), *(number(dice, 4) for dice in found.dice.values()))
                     for found in ranked])
    yield table(f"Cross-validation: {selection.cases} training scans, each predicted by the fold that did not "
                "see it", ("layer", "Dice, raw", "Dice, post-processed"),
                [(layer_name(layer), number(raw[layer], 4), number(final.get(layer), 4)) for layer in raw])
    yield table("Post-processing, tested on these masks; the change is the mean over the scans ± standard deviation",
                ("step", "mean Dice before", "after", "change, scan by scan", "kept", "why"),
                [(test.step, *(number(spread(dice.values())["mean"], 5) for dice in (test.dice_before,
                                                                                     test.dice_after)),
                  with_spread(test.gain, 5, "+"), "yes" if test.kept else "no", test.why) for test in tests])


def doubt(run: Run) -> Iterator[Block]:
    """What the boundaries' doubt is worth, by cross-validation."""
    needed(run.selection_file)
    found = run.calibration
    if found is None:
        yield Block("text", "The doubt of boundaries is uncalibrated: nothing was held out to measure it with.")
    elif not found.coverage:
        yield Block("text", f"The doubt of boundaries is calibrated on {found.scans} {found.origin}. How often it then "
                            "holds was not measured: that takes two folds.")
    else:
        yield table("In what share of places (%) the truth lies within the doubt, where it should in 68 and in 95: "
                    f"{found.scans} {found.origin}, each calibrated by the other folds", ("", "raw", "calibrated"),
                    [(name, *(" / ".join(f"{100 * share:.0f}" for share in found.coverage[way].get(name, ()))
                              for way in ("raw", kind))) for kind in ("calibrated", "means")
                     for name in found.coverage[kind]])


def first_scans(run: Run) -> Iterator[Block]:
    """Three validation scans with what was predicted, where there is no truth to say which one is best or worst."""
    needed(run.settings_file)
    dataset, folder = run.dataset, needed(run.predictions("validation"))
    for case in dataset.validation[:0 if run.scores_file.exists() else 3]:
        mask = read_mask(needed(folder / f"{case.name}.png"), mask_coding(dataset.labels))
        yield drawn(scans.overlay(dataset.read_image(case), mask,
                                  f"Validation scan {case.name}, without a truth to rank it by"))


def thickness(run: Run) -> Iterator[Block]:
    path = needed(run.thickness_file)
    parts = {"global": "whole circle", **QUADRANT_NAMES}
    try:
        rows = pd.read_csv(path, dtype={"case": str})
        unit = str(rows["unit"][0]).replace("um", "µm")
        rows["coverage"] = rows.get("coverage", np.nan)  # tables of older runs do not say it
        means = rows.groupby("layer", sort=False)[[*parts, "coverage"]].mean()
    except (LookupError, TypeError, ValueError) as error:
        raise bad_file(path, f"is no table of thickness ({error})", AGAIN) from None
    yield table(f"Mean thickness of the predicted layers over {rows['case'].nunique()} validation scans ({unit}); "
                "a mean of which too little was seen is left out",
                ("layer", *parts.values(), "A-scans seen (%)"),
                [(layer_name(layer), *(number(mean, 1) for mean in row), number(100 * seen, 1))
                 for layer, *row, seen in means.itertuples()])


def ablation(run: Run) -> Iterator[Block]:
    """What each measure gains on scans that no model has seen."""
    found = read_json_as(needed(run.ablation_file), Ablation, AGAIN)
    layers = [key for key in next(iter(found.over_scans.values()), {}) if key != "broken"]
    names = list(dict.fromkeys(str(row.get("scan")) for row in found.rows))
    heads = ("step", *(f"{layer_name(layer)} Dice" for layer in layers), "broken A-scans")
    for steps, caption, sign in ((found.over_scans, "One measure more a row, mean ± standard deviation", ""),
                                 (found.gains, "What each measure changes, scan by scan", "+")):
        yield table(f"{caption} over {len(names)} scans ({', '.join(names)}); each model was trained once", heads,
                    [(step, *(with_spread(values.get(column, {}), 3, sign) for column in (*layers, "broken")))
                     for step, values in steps.items()])


def classifier(run: Run) -> Iterator[Block]:
    """Every answer to the glaucoma question, how good and how sure, and which one the submission takes."""
    found = Answers.load(needed(run.classifier / "answers.json"))
    scans, people, of = (found.learned_from[key] for key in ("scans", "people", "of"))
    lacking = f" No thickness model: {found.lacking}." if found.lacking else ""
    yield Block("text", f"The submission takes the answer “{found.chosen}”: {found.why}. Answers are fitted on the "
                        f"{scans} of {of} training scans, of {people} people, that no network behind them had learned "
                        f"from.{lacking}")
    for where, answers in found.scores.items():
        one = next(iter(answers.values()))
        yield table(f"Glaucoma or not, {where}: {one.scans} scans of {one.people} people, with 95 % intervals over "
                    "people; each answer's threshold was set on training scans for a specificity of "
                    f"{found.specificity:.0%}",
                    ("answer", "AUC", "sensitivity", "specificity", "F1", "Brier score as it is", "recalibrated"),
                    [(f"{name} (chosen)" if name == found.chosen else name, str(scores.auc), str(scores.sensitivity),
                      str(scores.specificity), number(scores.f1), number(scores.brier_raw), number(scores.brier))
                     for name, scores in answers.items()])
    if found.behind:
        yield table("By how much the AUC in cross-validation lies behind the best: paired, by person",
                    ("answer", "behind", "95 % interval", "p"),
                    [(name, number(gain["mean"]), f"[{number(gain['low'])}, {number(gain['high'])}]", number(gain["p"]))
                     for name, gain in found.behind.items()])


def figures(pattern: str, always: bool = True) -> Callable[[Run], Iterator[Block]]:
    """A part that shows the figures which the lessons left, in the order of their names.

    Where there are none it says so if each such lesson leaves them `always`.
    """

    def part(run: Run) -> Iterator[Block]:
        paths = sorted(run.figures.glob(pattern))
        if always and not paths:
            raise NotRun(run.figures / pattern)
        for path in paths:
            if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_FIGURE:
                raise bad_file(path, f"is no file of at most {MAX_FIGURE / 1e6:g} MB", AGAIN)
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
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        title = image.info.get("Title", "figure")
        width = round(image.width * 96 / picture.DPI)
        return Block("figure", (base64.b64encode(content).decode(), width, image.info.get("Description", title)))


def number(value: Number, digits: int = 3) -> str:
    return "—" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def _in_words(found: Summary) -> str:
    digits = 4 if found.mean is None or found.mean < 1 else 2
    text = "—" if found.mean is None else f"{number(found.mean, digits)} ± {number(found.std, digits)}"
    return text + (f" ({found.undefined} undefined)" if found.undefined else "")


def _with_interval(found: Summary, digits: int = 3) -> str:
    """A mean and its interval: "0.912 [0.850, 0.956]"."""
    return f"{number(found.mean, digits)} [{number(found.low, digits)}, {number(found.high, digits)}]"


def _selection(run: Run) -> Selection:
    needed(run.selection_file)
    return run.selection
