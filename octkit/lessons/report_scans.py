"""The report's table of all predicted scans: scores, doubt, flag, and a picture of each in the run's folder."""

from collections.abc import Iterator
from pathlib import Path

from octkit.common.errors import OctkitError
from octkit.common.files import read_table, write_atomic
from octkit.data.dataset import Case, Dataset
from octkit.data.image_files import OVERLAY
from octkit.evaluation.metrics import spread
from octkit.evaluation.records import Scores
from octkit.figures import overlays
from octkit.figures.picture import png, unit_name
from octkit.layers.scan_files import read_boundaries
from octkit.lessons.report_sections import AGAIN, Block, Link, link, needed, number, table, words
from octkit.lessons.report_texts import layer, text
from octkit.planning.run import Run

SPLITS = ("validation", "test")


def key_flags(run: Run) -> Iterator[Block]:
    """How many scans are not to be trusted."""
    flags = [reasons for split in SPLITS for reasons in _flags(run.predictions(split)).values()]
    if flags:
        yield Block("note", text("summary.flags", flagged=len([reasons for reasons in flags if reasons]),
                                 scans=len(flags)))


def all_scans(run: Run) -> Iterator[Block]:
    """A row a predicted scan. The picture of one that has none yet is drawn beside its mask."""
    needed(run.settings_file), needed(run.predictions("validation"))
    dataset, scores = run.dataset, Scores.load(run.scores_file) if run.scores_file.exists() else None
    cases = [(split, case, run.predictions(split)) for split in SPLITS if run.predictions(split).is_dir()
             for case in getattr(dataset, split)]
    reasons = [_flags(folder).get(case.name, "") for _, case, folder in cases]
    scored = [scores.cases.get(case.name, {}) if scores and split == "validation" else {} for split, case, _ in cases]
    metric, scale, unit = ("med_mm", 1000, "µm") if scores and "med_mm" in scores.units else ("med", 1, "px")

    def of(metric: str) -> list[list[float | None]]:
        return [[scan.get(label, {}).get(metric) for label in dataset.labels] for scan in scored]

    columns = dict(zip(words("scan", "split", "mean_dice"), (
        [_picture(run, dataset, case, folder, why) for (_, case, folder), why in zip(cases, reasons, strict=True)],
        [text(f"word.{split}") for split, *_ in cases],
        [number(spread(dice)["mean"]) for dice in of("dice")]), strict=True))
    for label, dice in zip(dataset.labels, zip(*of("dice"), strict=True), strict=True):
        columns[text("word.layer_dice", layer=layer(label))] = [*map(number, dice)]
    columns[text("word.mean_med", unit=unit)] = [number(spread(med)["mean"], 2, scale) for med in of(metric)]
    said = [text("scans.how", unit=unit)]
    if run.thickness_file.exists():
        rows = read_table(run.thickness_file, ["global"], ("case", "layer", "unit"), AGAIN)
        rows = rows[rows["layer"] == rows["layer"][0]].set_index("case")
        head = text("word.layer_thickness", layer=layer(rows["layer"].iloc[0]), unit=unit_name(rows["unit"].iloc[0]))
        columns[head] = [number(rows["global"].get(case.name) if split == "validation" else None, 1)
                         for split, case, _ in cases]
        said.append(text("scans.thickness", head=head))
    doubts = [read_boundaries(path)[1:] if (path := folder / f"{case.name}.boundaries.csv").exists() else None
              for _, case, folder in cases]
    if any(doubts):
        calibrated = all(found is None or found[1] is not None for found in doubts)
        in_um = all(case.spacing for _, case, _ in cases)
        shown = [found and float((found[0] if found[1] is None or not calibrated else found[1][0]).mean())
                 for found in doubts]
        columns[text("word.doubt", unit="µm" if in_um else "px")] = [
            number(px, 1, case.spacing[0] * 1000 if in_um and case.spacing else 1)
            for px, (_, case, _) in zip(shown, cases, strict=True)]
        said.append(text("scans.doubt" if calibrated else "scans.doubt_raw"))
    columns[text("word.flag")] = [text("word.flagged" if why else "word.trusted") for why in reasons]
    columns[text("word.reasons")] = reasons
    yield table(" ".join(said), tuple(columns), [*zip(*columns.values(), strict=True)], kind="sortable")


def _flags(folder: Path) -> dict[str, str]:
    """Name of a scan -> why it is not to be trusted, "" where it is; nothing where nobody has said it."""
    if not (path := folder / "quality.csv").is_file():
        return {}
    found = read_table(path, (), ("scan", "trusted", "reasons"), AGAIN)
    return {scan: "" if trusted == "yes" else reasons or "?" for scan, trusted, reasons in
            zip(found["scan"], found["trusted"], found["reasons"], strict=True)}


def _picture(run: Run, dataset: Dataset, case: Case, folder: Path, reasons: str) -> tuple[Link, ...] | str:
    """A link to a scan's picture, which is drawn where there is none; the name alone where its files are damaged."""
    path = folder / f"{case.name}{OVERLAY}"
    try:
        if not path.is_file():
            write_atomic(path, png(overlays.of_files(dataset, case, folder, tuple(filter(None, reasons.split("; "))))))
    except OctkitError:  # the doctor, and the command that reads it, say what is wrong with it
        return case.name
    return (link(path.relative_to(run.folder).as_posix(), case.name),)
