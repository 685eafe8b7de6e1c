"""report.html: a run's whole story on one page that opens offline, made from the files in its folder.

What a missing file would have shown is replaced by "not run: <file>", and nothing else is put in its place. The parts
come from `report_sections` and `report_scans`, their texts from report_texts.toml, the page's looks from
report.html.j2. The one script is report.js; the page's policy allows no other, and nothing to be fetched.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2

from octkit.common.errors import OctkitError
from octkit.common.files import write_atomic
from octkit.common.settings import flat
from octkit.evaluation.records import Answers, Estimate, Scores
from octkit.evaluation.submission import check_submission
from octkit.figures import diagrams
from octkit.lessons import ledger
from octkit.lessons import report_sections as steps
from octkit.lessons.experiments import compare
from octkit.lessons.report_scans import all_scans, key_flags
from octkit.lessons.report_sections import Block, NotRun, figures, needed, number, table, words
from octkit.lessons.report_texts import Glossary, text, word
from octkit.planning.run import Run

TEMPLATE = Path(__file__).with_name("report.html.j2")
LIMIT_MB = 6  # of the page
ROOM = 5_000_000  # bytes of it for figures, as text
# Columns of these stand to the right in a table: numbers, with their spread or interval, the dash for none, no value.
FIGURES = re.compile(r"|[-+]?\d[\d.]*(e[-+]?\d+)?( ± [\d.]+| \[.*\])?( \(n = \d+\))?|—")
Part = Callable[[Run], Iterator[Block]]


def write_report(run: Run, against: Run | None = None) -> Path:
    """Write report.html into a run's folder and return its path; `against` is a run to compare it with.

    Every part that has run is shown, every other is named as not run. A predicted scan that has no picture gets one
    beside its mask. Raises OctkitError where the folder does not exist, and for runs that cannot be compared.
    """
    if not run.folder.is_dir():
        raise OctkitError(f"{run.folder}: no such folder, expected a run's folder")
    run.check_links()
    groups = VOLUME_SECTIONS if run.exists and run.settings.story == "volumes" else SECTIONS
    if against is not None:
        results = {"summary": groups["results"]["summary"], "compared": (steps.compared(compare([against, run])),)}
        groups = groups | {"results": results | groups["results"]}
    room = ROOM
    content: dict[str, list[dict[str, Any]]] = {
        group: [{"id": key, "blocks": [block for part in parts for block in _blocks(part, run)]}
                for key, parts in sections.items()] for group, sections in groups.items()}
    for block in (block for sections in content.values() for section in sections for block in section["blocks"]):
        if block.kind == "figure":
            room -= len(block.content["data"])
            if room < 0 and block.content["file"]:
                block.content["data"] = ""
    glossary, script = Glossary(), TEMPLATE.with_name("report.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
                                     lstrip_blocks=True)
    environment.filters["numeric"] = lambda rows: [all(FIGURES.fullmatch(str(value)) for value in column)
                                                   for column in zip(*rows, strict=True)]
    environment.tests["links"] = lambda value: isinstance(value, tuple)
    environment.filters["linked"] = glossary.linked
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        name=run.folder.resolve().name, groups=content, kind_colours=diagrams.KIND_COLOURS, text=text,
        glossary=glossary, limit=LIMIT_MB, script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))
    write_atomic(run.report_file, page)
    return run.report_file


def _blocks(part: Part, run: Run) -> Iterator[Block]:
    """A part's blocks; where it ends early, the reason takes the place of the rest."""
    try:
        yield from part(run)
    except NotRun as missing:
        yield Block("missing", text("page.not_run", file=missing.path.relative_to(run.folder)))
    except OctkitError as error:  # a damaged file must not cost the reader the rest
        yield Block("broken", text("page.broken", error=error))


def _submission(run: Run) -> Iterator[Block]:
    archive = needed(run.submission_file)
    needed(run.settings_file)
    try:
        found = check_submission(archive, run.settings.data.root / "Validation" / "Image")
    except OctkitError as error:
        yield Block("loud", text("submission.invalid", error=error))
        return
    yield Block("text", text("submission.valid", images=found.images, size=f"{found.bytes / 1e6:.2f}",
                             glaucoma=found.called_glaucoma))


def _environment(_run: Run) -> Iterator[Block]:
    yield table(text("environment.how"), words("what", "found"), list(flat(ledger.made_with()).items()))


def _settings(run: Run) -> Iterator[Block]:
    needed(run.settings_file)
    yield Block("text", text("settings.seed", profile=run.settings.profile, seed=run.settings.seed))
    yield Block("details", json.dumps(run.settings.model_dump(mode="json"), indent=2), text("settings.all"))


def _ledger(run: Run) -> Iterator[Block]:
    needed(run.ledger_file)
    lines = [line for line in ledger.read(run) if line.status != "skipped"]
    yield table(text("ledger.how", minutes=f"{sum(line.seconds for line in lines) / 60:.1f}"),
                words("step", "ended", "seconds", "memory", "error"),
                [(line.step, word("status", line.status.replace(" ", "_")), number(line.seconds, 1),
                  line.peak_memory_mb, line.error or "") for line in lines])


Sections = dict[str, dict[str, tuple[Part, ...]]]
RECORD: dict[str, tuple[Part, ...]] = {"settings": (_settings,), "environment": (_environment,), "ledger": (_ledger,)}
SECTIONS: Sections = {
    "results": {
        "summary": (steps.warnings, steps.key_layers,
                    steps.unless_left_out(steps.CLASSIFIER_STEP, steps.key_classifier), key_flags,
                    steps.key_postprocessing),
        "examples": (figures("09_example_*.png", always=False), steps.first_scans),
        "scans": (all_scans,),
        "scores": (steps.validation, figures("09_dice.png", always=False), figures("09_med.png", always=False),
                   steps.cross_validation, steps.doubt),
        "thickness": (steps.thickness, figures("10_*.png")),
        "glaucoma": (steps.unless_left_out(steps.CLASSIFIER_STEP, steps.classifier,
                                           figures("11_*.png", always=False)),),
        "patient": (steps.ablation, figures("15_*.png")),
        "claims": (figures("16_claims.png", always=False),)},
    "method": {
        "data": (steps.data, figures("01_*.png")),
        "fingerprint": (steps.fingerprint,),
        "plan": (steps.plan, figures("03_topology*.png")),
        "preparation": (figures("04_*.png"), figures("05_*.png")),
        "training": (figures("06_*.png"), steps.training),
        "inference": (figures("08_*.png"), steps.mirroring)},
    "record": {
        "files": (steps.files,),
        "submission": (steps.unless_left_out(steps.SUBMISSION_STEP, _submission),), **RECORD}}
# Volumes have no circle to measure, no diagnosis and no challenge.
VOLUME_SECTIONS: Sections = {
    "results": {
        "summary": (steps.warnings, steps.key_layers, key_flags, steps.key_postprocessing),
        "examples": (figures("14_result*.png"),),
        "scans": (all_scans,),
        "scores": (steps.validation,),
        "choice": (steps.cross_validation, figures("14_candidates.png", always=False))},
    "method": {
        "data": (steps.data, figures("14_data*.png")),
        "fingerprint": (steps.fingerprint,),
        "plan": (steps.plan,),
        "training": (steps.training,)},
    "record": {"files": (steps.files,), **RECORD}}


def key_numbers(run: Run) -> list[str]:
    """The run's main results, a line each: Dice, MED and thickness error of the layers, AUC of the glaucoma answers.

    As in the report they are means over people with 95 % intervals; over scans in files that count no people.
    """
    scores = Scores.load(run.scores_file) if run.scores_file.exists() else None
    lines = [f"{layer:8s} " + ", ".join(
        f"{metric} {Estimate(mean=found[metric].mean, low=found[metric].low, high=found[metric].high)}{unit}"
        for metric, unit in (("dice", ""), ("med", " px"), ("thickness_error", " px")))
        for layer, found in (scores.by_group or scores.summary if scores else {}).items()]
    if ledger.left_out(run, steps.CLASSIFIER_STEP):
        return lines
    path = run.classifier / "answers.json"
    return lines + [f"glaucoma, {where}: " + ", ".join(f"{name} AUC {found.auc}" for name, found in answers.items())
                    for where, answers in (Answers.load(path).scores.items() if path.exists() else ())]
