"""What report.html says about each step: parts that read a run's files and yield blocks for the page.

A part is a function of a Run that yields Blocks. It reads files and draws a few figures; it computes no result. It
raises NotRun for a file that is not there, OctkitError for one that is damaged. Its texts stand in report_texts.toml.
"""

import base64
import io
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import pandas as pd
from PIL import Image

from octkit.common.errors import OctkitError, bad_file
from octkit.common.files import read_json_as, read_table
from octkit.data.image_files import read_mask
from octkit.data.labels import mask_coding
from octkit.evaluation.intervals import FEW, bootstrap_interval
from octkit.evaluation.metrics import spread, with_spread
from octkit.evaluation.records import Answers, Estimate, Number, Scores, Summary
from octkit.figures import charts, diagrams, picture, scans
from octkit.figures.picture import Picture, unit_name
from octkit.layers.thickness import QUADRANTS
from octkit.lessons import ledger
from octkit.lessons.experiments import Comparison
from octkit.lessons.report_texts import how_to_read, layer, text, word
from octkit.planning.run import Run
from octkit.planning.selection import Selection

LOG_COLUMNS = {"epoch", "train_loss", "validation_loss", "seconds"}
CLASSIFIER_STEP, SUBMISSION_STEP = "11_classify", "12_submission"
MAX_FIGURE, MAX_PIXELS = 20_000_000, 50_000_000  # bytes, pixels; a lesson's have 0.5 and 2 million
AGAIN = "run the step again that writes it"

Spread = dict[str, float | int | None]  # what `metrics.spread` returns


class NotRun(Exception):
    """A file, or a pattern of files, that no step has left."""

    def __init__(self, path: Path):
        self.path = path


class Block(NamedTuple):
    """A piece of a section. `kind` is the template's name for it, `content` what that kind shows."""

    kind: str
    content: Any
    caption: str = ""


class Link(NamedTuple):
    """A file of the run; `to` is its quoted name in the run's folder."""

    shown: str
    to: str


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
            yield Block("missing", text("page.left_out", why=lacking))
        else:
            for one in parts:
                yield from one(run)

    return part


def warnings(run: Run) -> Iterator[Block]:
    """What a reader has to know before any number."""
    if lacking := ledger.left_out(run, CLASSIFIER_STEP):
        yield Block("note", text("summary.left_out", why=lacking))
    elif files := sorted(run.classifier.glob("fold_*/weights_origin.json")):
        origins = [read_json_as(file, Origin, AGAIN) for file in files]
        origin = next((one for one in origins if one.origin == "random initialisation"), origins[0])
        if origin.origin == "random initialisation":
            yield Block("loud", text("summary.random", why=origin.reason))
        else:
            yield Block("note", text("summary.imagenet", origin=origin.origin, why=origin.reason))
    needed(run.settings_file)
    for step, line in (ends := ledger.ends(run)).items():
        fold = step.rpartition("_fold_")[2]
        if step == "13_report" or (step.startswith("07_train") and fold not in map(str, run.settings.train.folds)) or (
                any(step.startswith(f"{lesson}_") and end.started > line.started for lesson, end in ends.items())):
            continue  # this very page, folds that the settings no longer name, trainings of a lesson executed since
        if line.status in ("failed", "killed"):
            yield Block("loud", text(f"summary.{line.status}", step=step, error=line.error))
    if (run.settings.data.root / "phantom.json").exists():
        yield Block("note", text("summary.phantoms"))


def key_layers(run: Run) -> Iterator[Block]:
    """Dice of each layer on the validation scans, or in cross-validation where those have no truth."""
    found: dict[str, tuple[Estimate, str]] = {}
    people = FEW
    if run.scores_file.exists():
        scores = Scores.load(run.scores_file)
        people = scores.people
        for label, metrics in (scores.by_group or scores.summary).items():
            um = metrics["med_mm"].mean if "med_mm" in metrics else None
            med = f"{metrics['med'].shown(2)} px" + (f" ({um * 1000:.1f} µm)" if um else "")
            found[label] = metrics["dice"], text("summary.on_validation", med=med, scans=len(scores.cases),
                                                 people=people)
    elif chosen := _selection(run).chosen:
        known = {case.name: case.person for case in run.dataset.train} if chosen.dice_by_scan else {}
        persons = [known.get(scan, scan) for scan in chosen.dice_by_scan]
        people = len(set(persons)) or FEW
        for label, dice in chosen.dice.items():
            over = bootstrap_interval((scan.get(label) for scan in chosen.dice_by_scan.values()), persons)
            found[label] = (Estimate.model_validate(over.as_json() if over.n > 1 else {"mean": dice}),
                            text("summary.on_cross_validation", scans=_selection(run).cases))
    yield Block("cards", [(text("word.layer_dice", layer=layer(label)), *str(dice).split(" ", 1), note)
                          for label, (dice, note) in found.items()])
    if found:
        yield Block("text", text("summary.how") + (" " + text("summary.few") if people < FEW else ""))


def key_classifier(run: Run) -> Iterator[Block]:
    """The chosen answer's scores on the validation scans, or in cross-validation where they have no truth."""
    answers = Answers.load(needed(run.classifier / "answers.json"))
    where = "validation scans" if "validation scans" in answers.scores else "cross-validation"
    found = answers.scores.get(where, {}).get(answers.chosen)
    if found is not None:
        note = text("summary.answer", chosen=answers.chosen, where=word("split", where), people=found.people)
        yield Block("cards", [(text("summary.glaucoma", name=text(f"word.{name}")),
                               *str(getattr(found, name)).split(" ", 1), note)
                              for name in ("auc", "sensitivity", "specificity")])


def key_postprocessing(run: Run) -> Iterator[Block]:
    selection = _selection(run)
    kept = [test.step for test in selection.postprocessing if test.kept]
    if not selection.postprocessing:
        yield Block("text", text("summary.nothing_decided", why=selection.why))
    else:
        yield Block("text", text("summary.processed", steps=", ".join(kept)) if kept else text("summary.not_processed"))


def compared(found: Comparison) -> Callable[[Run], Iterator[Block]]:
    """A part that shows a run beside another one, the first of the comparison."""

    def part(_run: Run) -> Iterator[Block]:
        first, name = found.names
        yield table(text("compared.settings"), (text("word.setting"), first, name),
                    [(key, *map(str, values)) for key, values in found.differ.items()])
        people = len(set(found.people))
        metrics = [f"{layer(label)} {word('metric', metric)}{'' if metric == 'dice' else ' (px)'}"
                   for label, scored in next(iter(found.scores.values())).items() for metric in scored]
        where = word("compared_on", found.where)
        yield table(text("compared.scores", scans=len(found.scores), where=where, people=people),
                    (text("word.metric"), first, name, text("word.minus", name=name, first=first)),
                    [(metric, *(number(mean, 4) for mean in row.means), *map(str, row.gains))
                     for metric, row in zip(metrics, found.rows, strict=True)])
        for note in (*found.notes, *([text("compared.few")] if people < FEW else [])):
            yield Block("text", note)
        yield drawn(found.figure(), "compared_runs")

    return part


def data(run: Run) -> Iterator[Block]:
    needed(run.settings_file)
    dataset = run.dataset
    yield Block("text", text("data.set", name=dataset.name, layout=dataset.layout,
                             layers=", ".join(map(layer, dataset.labels))))
    known = [case.glaucoma for case in dataset.train if case.glaucoma is not None]
    unknown = text("word.unknown")
    yield table(text("data.splits"), words("split", "scans", "glaucoma"),
                [(text("word.train"), len(dataset.train), sum(known) if known else unknown),
                 *((text(f"word.{split}"), len(getattr(dataset, split)), unknown) for split in ("validation", "test"))])


def fingerprint(run: Run) -> Iterator[Block]:
    needed(run.fingerprint_file)
    found = run.fingerprint
    shapes = Counter(" × ".join(map(str, shape)) for shape in found.shapes)
    sizes = ", ".join(text("fingerprint.size", size=size, count=count) for size, count in sorted(shapes.items()))
    yield Block("text", text("fingerprint.sizes", sizes=sizes))
    keys = list(found.intensity[0])
    yield table(text("fingerprint.grey"), (text("word.channel"), *(word("grey", key) for key in keys)),
                [(name, *(number(channel.get(key), 1) for key in keys))
                 for name, channel in zip(found.channels, found.intensity, strict=True)])
    # Of a single size the text says all.
    yield from figures("02_*.png", always=False, but=() if len(shapes) > 1 else ("02_sizes",))(run)


def plan(run: Run) -> Iterator[Block]:
    content = read_json_as(needed(run.plan_file), dict[str, Any], "plan again")
    try:
        chosen = run.selection if run.selection_file.exists() else None
    except OctkitError:  # another section says so
        chosen = None
    steps = ", ".join(test.step for test in chosen.postprocessing if test.kept) if chosen else ""
    decided = {} if chosen is None else {  # plan.json was written before
        "empirical.configuration": (chosen.configuration, chosen.why),
        "empirical.postprocessing": (steps or text("word.none"), "; ".join(test.why for test in chosen.postprocessing))}
    rows = []
    for name, value, kind, reason in diagrams.plan_rows(content):
        if value is None:
            value = text("word.undecided" if kind == "empirical" else "word.none")
        value, reason = decided.get(name, (value, reason))
        # A zero-width space after each dot lets long names break there and nowhere else.
        rows.append((name.replace(".", ".\u200b"), diagrams.in_words(value), kind, word("kind", kind), reason))
    yield Block("plan", rows, text("plan.how"))


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
        yield drawn(charts.learning_curves(folds, title=f"Training of {config}"), "learning_curves")
        layers = [column[5:] for column in next(iter(folds.values())) if column.startswith("dice_")]
        yield table(text("training.last", config=config),
                    (*words("fold", "epochs", "train_loss", "validation_loss"),
                     *(text("word.pseudo_dice", layer=layer(label)) for label in layers), text("word.minutes")),
                    [(name, len(log["epoch"]), number(log["train_loss"][-1]), number(log["validation_loss"][-1]),
                      *(number(log[f"dice_{label}"][-1]) for label in layers), number(log["seconds"].sum() / 60, 1))
                     for name, log in folds.items()])


def mirroring(run: Run) -> Iterator[Block]:
    if run.exists and run.settings.train.folds == ("all",):
        yield Block("text", text("mirroring.unmeasured"))
        return
    prices = read_json_as(needed(run.mirroring_file), dict[str, Price], AGAIN)
    first = next(iter(prices.values()), Price(0, {})).dice_by_scan
    rows: list[tuple[str, ...]] = []
    for name, price in prices.items():
        change = spread(dice - first[scan] for scan, dice in price.dice_by_scan.items() if scan in first)
        rows.append((name, number(price.seconds), with_spread(spread(price.dice_by_scan.values())),
                     with_spread(change, sign="+") if rows else ""))
    yield table(text("mirroring.price"), words("inference", "seconds_image", "mean_dice", "change"), rows)


def validation(run: Run) -> Iterator[Block]:
    scores = Scores.load(needed(run.scores_file))
    names = {metric: f"{word('metric', metric.removesuffix('_mm').removesuffix('_um'))} "
                     f"({text('unit.share') if unit == '0 to 1' else unit_name(unit)})"
             for metric, unit in scores.units.items() if metric != "coverage"}
    if scores.by_group:
        yield table(text("scores.people", people=scores.people, tolerance=f"{scores.nsd_tolerance_px:g}"),
                    (text("word.metric"), *map(layer, scores.by_group)),
                    [(name, *(found[metric].shown(4 if scores.units[metric] in ("0 to 1", "mm") else 2)
                              for found in scores.by_group.values())) for metric, name in names.items()])
    yield table(text("scores.spread", scans=len(scores.cases)), (text("word.metric"), *map(layer, scores.summary)),
                [(name, *(_in_words(found[metric]) for found in scores.summary.values()))
                 for metric, name in names.items()])


def cross_validation(run: Run) -> Iterator[Block]:
    selection = _selection(run)
    if selection.chosen is None:
        yield Block("text", text("scores.none", why=selection.why))
        return
    raw, tests = selection.chosen.dice, selection.postprocessing
    final = next((test.dice_after for test in reversed(tests) if test.kept), raw)
    if len(selection.candidates) > 1:
        ranked = sorted(selection.candidates, key=lambda candidate: -candidate.mean_dice)
        yield table(text("scores.candidates", name=selection.configuration, why=selection.why),
                    (*words("candidate", "mean_dice", "over_scans", "behind_best"), *map(layer, raw)),
                    [(found.name, number(found.mean_dice, 4), with_spread(found.over_cases),
                      with_spread(found.behind_best, sign="+"), *(number(dice, 4) for dice in found.dice.values()))
                     for found in ranked])
    yield table(text("scores.cross_validation", scans=selection.cases),
                words("layer", "dice_raw", "dice_processed"),
                [(layer(label), number(raw[label], 4), number(final.get(label), 4)) for label in raw])
    yield table(text("scores.processing"), words("step", "before", "after", "change", "kept", "why"),
                [(test.step, *(number(spread(dice.values())["mean"], 5) for dice in (test.dice_before,
                                                                                     test.dice_after)),
                  with_spread(test.gain, 5, "+"), text("word.yes" if test.kept else "word.no"), test.why)
                 for test in tests])


def doubt(run: Run) -> Iterator[Block]:
    """What the boundaries' doubt is worth, by cross-validation."""
    needed(run.selection_file)
    found = run.calibration
    if found is None:
        yield Block("text", text("doubt.none"))
    elif not found.coverage:
        yield Block("text", text("doubt.unmeasured", scans=found.scans, origin=word("origin", found.origin)))
    else:
        yield table(text("doubt.coverage", scans=found.scans, origin=word("origin", found.origin)),
                    words("place", "raw", "calibrated"),
                    [(name, *(" / ".join(f"{100 * share:.0f}" for share in found.coverage[way].get(name, ()))
                              for way in ("raw", kind))) for kind in ("calibrated", "means")
                     for name in found.coverage[kind]])


def first_scans(run: Run) -> Iterator[Block]:
    """Three validation scans with what was predicted, where there is no truth to say which one is best or worst."""
    needed(run.settings_file)
    dataset, folder = run.dataset, needed(run.predictions("validation"))
    for case in dataset.validation[:0 if run.scores_file.exists() else 3]:
        mask = read_mask(needed(folder / f"{case.name}.png"), mask_coding(dataset.labels))
        yield drawn(scans.overlay(dataset.read_image(case), mask, text("examples.first", name=case.name)), "first_scan")


def thickness(run: Run) -> Iterator[Block]:
    path = needed(run.thickness_file)
    parts = ["global", *QUADRANTS]
    rows = read_table(path, parts, ("case", "unit", "layer"), AGAIN)
    rows["coverage"] = pd.to_numeric(rows.get("coverage", np.nan), errors="coerce")  # older runs' tables lack it
    unit = unit_name(rows["unit"][0])
    means = rows.groupby("layer", sort=False)[[*parts, "coverage"]].mean()
    yield table(text("thickness.means", scans=rows["case"].nunique(), unit=unit),
                (text("word.layer"), *(text(f"part.{part}") for part in parts), text("word.seen")),
                [(layer(label), *(number(mean, 1) for mean in row), number(100 * seen, 1))
                 for label, *row, seen in means.itertuples()])


def ablation(run: Run) -> Iterator[Block]:
    """What each measure gains on scans that no model has seen."""
    found = read_json_as(needed(run.ablation_file), Ablation, AGAIN)
    layers = [key for key in next(iter(found.over_scans.values()), {}) if key != "broken"]
    names = list(dict.fromkeys(str(row.get("scan")) for row in found.rows))
    heads = (text("word.step"), *(text("word.layer_dice", layer=layer(label)) for label in layers), text("word.broken"))
    for steps, caption, sign in ((found.over_scans, "patient.steps", ""), (found.gains, "patient.gains", "+")):
        yield table(text(caption, number=len(names), names=", ".join(names)), heads,
                    [(step, *(with_spread(values.get(column, {}), 3, sign) for column in (*layers, "broken")))
                     for step, values in steps.items()])


def classifier(run: Run) -> Iterator[Block]:
    """Every answer to the glaucoma question, how good and how sure, and which one the submission takes."""
    found = Answers.load(needed(run.classifier / "answers.json"))
    scans, people, of = (found.learned_from[key] for key in ("scans", "people", "of"))
    chosen = text("glaucoma.chosen", chosen=found.chosen, why=found.why, scans=scans, of=of, people=people)
    yield Block("text", chosen + (" " + text("glaucoma.lacking", why=found.lacking) if found.lacking else ""))
    for where, answers in found.scores.items():
        one = next(iter(answers.values()))
        yield table(text("glaucoma.scores", where=word("split", where), scans=one.scans, people=one.people,
                         specificity=f"{found.specificity:.0%}"),
                    words("answer", "auc", "sensitivity", "specificity", "f1", "brier_raw", "brier"),
                    [(text("word.chosen", name=name) if name == found.chosen else name, str(scores.auc),
                      str(scores.sensitivity), str(scores.specificity), number(scores.f1), number(scores.brier_raw),
                      number(scores.brier)) for name, scores in answers.items()])
    if found.behind:
        yield table(text("glaucoma.behind"), words("answer", "behind", "interval", "p"),
                    [(name, number(gain["mean"]), f"[{number(gain['low'])}, {number(gain['high'])}]", number(gain["p"]))
                     for name, gain in found.behind.items()])


FILES = {"masks": ("predictions/validation", "predictions/test", "predictions/cv"),
         "tables": ("scores.json", "thickness.csv", "predictions/*/quality.csv", "classifier/answers.json",
                    "classifier/probabilities.csv", "selection.json", "plan.json", "settings.json", "ledger.jsonl"),
         "notebooks": ("notebooks/*.ipynb",), "figures": ("figures",), "models": ("models/*/fold_*",),
         "submission": ("submission.zip", "classifier/predictions.csv")}


def files(run: Run) -> Iterator[Block]:
    """Links to what a reader wants to open."""
    rows = []
    for kind, patterns in FILES.items():
        names = [path.relative_to(run.folder).as_posix() for pattern in patterns
                 for path in sorted(run.folder.glob(pattern)) if not path.is_symlink()]
        if names:
            rows.append((text(f"files.{kind}"), tuple(link(name) for name in names)))
    yield table(text("files.how"), words("what", "where"), rows)


def words(*names: str) -> tuple[str, ...]:
    """The heads of a table."""
    return tuple(text(f"word.{name}") for name in names)


def link(name: str, shown: str = "") -> Link:
    return Link(shown or name, quote(name, errors="surrogateescape"))


def figures(pattern: str, always: bool = True, but: tuple[str, ...] = ()) -> Callable[[Run], Iterator[Block]]:
    """A part that shows the figures which the lessons left, in the order of their names, `but` some.

    Where there are none it says so if each such lesson leaves them `always`.
    """

    def part(run: Run) -> Iterator[Block]:
        paths = picture.saved_figures(run, pattern)
        if always and not paths:
            raise NotRun(run.figures / pattern)
        for path in (path for path in paths if path.stem not in but):
            if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_FIGURE:
                raise bad_file(path, f"is no file of at most {MAX_FIGURE / 1e6:g} MB", AGAIN)
            try:
                yield figure(path.read_bytes(), path.stem, path.relative_to(run.folder).as_posix())
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # as Pillow names damage
                raise bad_file(path, f"is no picture ({error})", AGAIN) from None

    return part


def table(caption: str, heads: tuple[str, ...], rows: list[tuple], kind: str = "table") -> Block:
    """A table; a cell that is a tuple holds links."""
    return Block(kind, (heads, rows), caption)


def drawn(image: Picture, name: str) -> Block:
    return figure(picture.png(image), name)


def figure(content: bytes, name: str, file: str = "") -> Block:
    """A PNG file's content as a block, every pixel as it is in half the bytes; its description stands in the file."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"of {image.width} × {image.height} px")
        image.convert("RGB").save(smaller := io.BytesIO(), "WEBP", lossless=True, method=2)
        size = [round(length * 96 / picture.DPI) for length in image.size]
        alt = image.info.get("Description", image.info.get("Title", "figure"))
    return Block("figure", {"data": base64.b64encode(smaller.getvalue()).decode(), "size": size, "alt": alt,
                            "file": file and link(file)}, how_to_read(name))


def number(value: Number, digits: int = 3, times: float = 1) -> str:
    return "—" if value is None or not np.isfinite(value) else f"{value * times:.{digits}f}"


def _in_words(found: Summary) -> str:
    digits = 4 if found.mean is None or found.mean < 1 else 2
    shown = "—" if found.mean is None else f"{number(found.mean, digits)} ± {number(found.std, digits)}"
    return text("scores.undefined", text=shown, number=found.undefined) if found.undefined else shown


def _selection(run: Run) -> Selection:
    needed(run.selection_file)
    return run.selection
