"""report.html: a run's whole story on one page that opens offline, made from the files in its folder.

What a missing file would have shown is replaced by "not run: <file>", and nothing else is put in its place.
The texts and tables of the steps come from `report_sections`, the page's looks from report.html.j2.
"""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import jinja2

from octkit.common.errors import OctkitError
from octkit.common.files import write_atomic
from octkit.common.settings import flat
from octkit.evaluation.records import Answers, Scores
from octkit.evaluation.submission import check_submission
from octkit.figures import diagrams
from octkit.lessons import ledger
from octkit.lessons import report_sections as steps
from octkit.lessons.report_sections import Block, NotRun, figures, needed, number, table
from octkit.planning.run import Run

TEMPLATE = Path(__file__).with_name("report.html.j2")
# What stands to the right in a table: numbers, with their spread, and the dash for none.
FIGURES = re.compile(r"[-+]?\d[\d.]*(e[-+]?\d+)?( ± [\d.]+)?|—")


def write_report(run: Run) -> Path:
    """Write report.html into a run's folder and return its path.

    Every part that has run is shown, every other is named as not run. Raises OctkitError where the folder
    does not exist.
    """
    if not run.folder.is_dir():
        raise OctkitError(f"{run.folder}: no such folder, expected a run's folder")
    run.check_links()
    sections = VOLUME_SECTIONS if run.exists and run.settings.story == "volumes" else SECTIONS
    content = [{"id": key, "title": title, "blocks": [block for part in parts for block in _blocks(part, run)]}
               for key, title, parts in sections]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
                                     lstrip_blocks=True)
    environment.tests["figures"] = lambda value: FIGURES.fullmatch(str(value)) is not None
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        name=run.folder.resolve().name, sections=content, kind_colours=diagrams.KIND_COLOURS,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))
    write_atomic(run.report_file, page)
    return run.report_file


def _blocks(part: Callable[[Run], Iterator[Block]], run: Run) -> Iterator[Block]:
    """A part's blocks; where it ends early, the reason takes the place of the rest."""
    try:
        yield from part(run)
    except NotRun as missing:
        yield Block("missing", f"not run: {missing.path.relative_to(run.folder)}")
    except OctkitError as error:  # a damaged file must not cost the reader the rest
        yield Block("broken", f"cannot be shown: {error}")


def _submission(run: Run) -> Iterator[Block]:
    archive = needed(run.submission_file)
    needed(run.settings_file)
    try:
        found = check_submission(archive, run.settings.data.root / "Validation" / "Image")
    except OctkitError as error:
        yield Block("loud", f"submission.zip is NOT valid. {error}")
        return
    yield Block("text", f"submission.zip is valid: checked against the {found.images} validation images when this "
                        f"page was written. It is {found.bytes / 1e6:.2f} MB and calls {found.called_glaucoma} scans "
                        "glaucoma.")


def _environment(_run: Run) -> Iterator[Block]:
    yield table("Where this page was written", ("what", "found"), list(flat(ledger.made_with()).items()))


def _settings(run: Run) -> Iterator[Block]:
    needed(run.settings_file)
    yield Block("text", f"Profile {run.settings.profile}, seed {run.settings.seed}.")
    yield Block("details", json.dumps(run.settings.model_dump(mode="json"), indent=2), "Every setting")


def _ledger(run: Run) -> Iterator[Block]:
    needed(run.ledger_file)
    lines = [line for line in ledger.read(run) if line.status != "skipped"]
    yield table(f"What ran, {sum(line.seconds for line in lines) / 60:.1f} minutes in all",
                ("step", "ended", "seconds", "peak memory (MB)", "error"),
                [(line.step, line.status, number(line.seconds, 1), line.peak_memory_mb, line.error or "")
                 for line in lines])


SECTIONS = (
    ("summary", "Summary", (steps.warnings, steps.key_layers, steps.unless_left_out(
        steps.CLASSIFIER_STEP, steps.key_classifier), steps.key_postprocessing)),
    ("data", "The data", (steps.data, figures("01_*.png"))),
    ("fingerprint", "Fingerprint", (steps.fingerprint, figures("02_*.png"))),
    ("plan", "The plan", (steps.plan, figures("03_topology*.png"))),
    ("preparation", "Preprocessing, folds, augmentation", (figures("04_*.png"), figures("05_*.png"))),
    ("training", "Training", (figures("06_*.png"), steps.training)),
    ("inference", "Inference", (figures("08_*.png"), steps.mirroring)),
    ("scores", "Dice and boundary distance", (
        steps.validation, figures("09_dice.png", always=False), figures("09_med.png", always=False),
        steps.cross_validation, steps.doubt)),
    ("examples", "Best, median and worst scan", (figures("09_example_*.png", always=False), steps.first_scans)),
    ("thickness", "Thickness", (steps.thickness, figures("10_*.png"))),
    ("patient", "From phantom to patient", (steps.ablation, figures("15_*.png"))),
    ("glaucoma", "Glaucoma", (steps.unless_left_out(
        steps.CLASSIFIER_STEP, steps.classifier, figures("11_*.png", always=False)),)),
    ("submission", "Submission", (steps.unless_left_out(steps.SUBMISSION_STEP, _submission),)),
    ("settings", "Seed and settings", (_settings,)),
    ("environment", "Environment", (_environment,)),
    ("ledger", "Ledger", (_ledger,)),
)

# Volumes have no circle to measure, no diagnosis and no challenge.
VOLUME_SECTIONS = (
    ("summary", "Summary", (steps.warnings, steps.key_layers, steps.key_postprocessing)),
    ("data", "The data", (steps.data, figures("14_data*.png"))),
    ("fingerprint", "Fingerprint", (steps.fingerprint,)),
    ("plan", "The plan", (steps.plan,)),
    ("training", "Training", (steps.training,)),
    ("choice", "The choice", (steps.cross_validation, figures("14_candidates.png", always=False))),
    ("scores", "Dice and boundary distance", (steps.validation,)),
    ("examples", "A validation volume", (figures("14_result*.png"),)),
    ("settings", "Seed and settings", (_settings,)),
    ("environment", "Environment", (_environment,)),
    ("ledger", "Ledger", (_ledger,)),
)


def key_numbers(run: Run) -> list[str]:
    """The run's main results, a line each: Dice, MED and thickness error of the layers, AUC of the glaucoma answers."""
    scores = Scores.load(run.scores_file).summary if run.scores_file.exists() else {}
    lines = [", ".join([f"{layer:8s}", *(f"{metric} {number(found[metric].mean)}"
                                         for metric in ("dice", "med", "thickness_error"))])
             for layer, found in scores.items()]
    if ledger.left_out(run, steps.CLASSIFIER_STEP):
        return lines
    path = run.classifier / "answers.json"
    return lines + [f"glaucoma, {where}: " + ", ".join(f"{name} AUC {found.auc}" for name, found in answers.items())
                    for where, answers in (Answers.load(path).scores.items() if path.exists() else ())]
