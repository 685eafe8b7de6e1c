"""What is wrong with a data set, all of it and before anything runs: one line a problem, and how to mend it.

The rules are those by which a data set is opened and read (`layouts`, `image_files`, `volume_files`). Here all problems
are collected, and scans are compared with each other. Nothing is written into the data set.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tqdm.auto import tqdm

from octkit import __version__
from octkit.common import hashes
from octkit.common.errors import OctkitError, by, tried
from octkit.common.files import inside, listing, read_json_as, write_json
from octkit.common.messages import say
from octkit.common.processes import cores, in_processes
from octkit.common.settings import Settings
from octkit.data.dataset import Case, Dataset, is_volume
from octkit.data.doctor.one_case import ERROR, WARNING, Finding, Seen, examine, of_error
from octkit.data.grey_range import odd_range, shown
from octkit.data.groups import GROUPS_FILE, read_groups, scan_key
from octkit.data.image_files import IMAGE_KINDS, is_image
from octkit.data.layouts.detect import open_dataset, open_run
from octkit.data.layouts.goals import lacking_diagnoses, true_diagnoses
from octkit.data.volume_files import SPACING_FILE

SHOWN = 20  # lines of findings before a run; `octkit doctor` has all of them
CLEAN_FILE = "doctor.json"
OURS = ".scale.json", ".boundaries.csv"  # what octkit leaves beside masks, in a set of corrected scans too


@dataclass(frozen=True)
class Diagnosis:
    """What a look through a data set has found: errors first, then warnings, each by the names of files.

    `digests` stand for the pixels of the images that could be read.
    """

    root: Path
    layout: str | None
    scans: int
    findings: tuple[Finding, ...]
    digests: Mapping[Path, str]

    @property
    def errors(self) -> int:
        return sum(finding.severity == ERROR for finding in self.findings)

    @property
    def warnings(self) -> int:
        return len(self.findings) - self.errors

    @property
    def summary(self) -> str:
        """Such as "data/GOALS (goals): 200 scans, 1 error, 2 warnings"."""
        layout = f" ({self.layout})" if self.layout else ""
        return (f"{self.root}{layout}: {self.scans} scan{'s' * (self.scans != 1)}, {self.errors or 'no'} error"
                f"{'s' * (self.errors != 1)}, {self.warnings or 'no'} warning{'s' * (self.warnings != 1)}")

    def lines(self, most: int | None = None) -> list[str]:
        """The findings, one a line, at most `most` of them, and the summary."""
        lines = [finding.line() for finding in self.findings[:most]]
        if more := len(self.findings) - len(lines):
            lines.append(f"… and {more} more: octkit doctor {self.root} has all of them")
        return [*lines, self.summary]

    def as_json(self) -> dict:
        """All of it in plain values, for machines."""
        return {"data": str(self.root), "layout": self.layout, "scans": self.scans, "errors": self.errors,
                "warnings": self.warnings,
                "findings": [asdict(finding) | {"file": str(finding.file)} for finding in self.findings]}


def look_through(path: str | Path, workers: int | None = None, progress: bool = True) -> Diagnosis:
    """Look a data set through whole: its folders, tables and headers, then every pixel.

    Scans are read by `workers` processes (None: one for each core; 0: all in this one). Raises OctkitError where
    there is no such folder; all else that is wrong is a finding.
    """
    root = Path(path)
    if not root.is_dir():
        raise OctkitError(f"{root}: no such folder, expected a data set")
    errors: list[OctkitError] = []
    dataset = tried(errors.append, open_dataset, root, errors.append)
    if dataset is not None:
        true_diagnoses(dataset, errors.append)
    findings = [of_error(error, root) for error in errors]
    digests: dict[Path, str] = {}
    if dataset is not None:
        seen = sorted(_examined(dataset, workers, progress), key=lambda one: one.case.image)
        findings += [finding for one in seen for finding in one.findings]
        digests = {one.case.image: one.digest for one in seen if one.digest is not None}
        findings += [*_twins(dataset, digests), *_sizes(seen), *_greys(seen), *_nearly_doubled(dataset),
                     *_people(dataset)]
        findings += [*_strays(dataset, {finding.file for finding in findings})]
        findings += [*_undiagnosed(dataset), *_unscored(dataset)] if not errors else []
    # Opening and reading meet the same fault of a file twice: one line is enough.
    once = sorted(dict.fromkeys(findings), key=lambda finding: (finding.severity, str(finding.file)))
    layout, scans = (dataset.layout, len(dataset.cases)) if dataset else (None, 0)
    return Diagnosis(root, layout, scans, tuple(once), digests)


def tell(path: str | Path, as_json: bool = False) -> None:
    """Look a data set through and print all findings; raises OctkitError afterwards where there are errors."""
    found = look_through(path)
    print(json.dumps(found.as_json(), indent=2) if as_json else "\n".join(found.lines()))
    _refuse_errors(found)


def before_run(chosen: Settings, run_dir: Path, say: Callable[[str], None] = say) -> None:
    """Look through the data of a run that is about to start, and say what is found.

    A data set that does not exist yet (phantoms) is passed over, and so is one whose files have not changed since a
    look that found no error: doctor.json in the run's folder keeps that. Raises OctkitError where there are errors,
    and where extra data does not fit the run's own.
    """
    kept = Path(run_dir) / CLEAN_FILE
    before = tried(_unsaid, read_json_as, kept, dict[str, str], "") or {}
    roots = [root for root in chosen.data_roots if root != chosen.data.root or root.is_dir()]
    stamps = {str(root): hashes.digest([__version__, hashes.data_stamp(root)]) for root in roots}
    extra = bool(chosen.train.extra_data) and chosen.data.root.is_dir()
    # With extra data all are looked at where one has changed: they are held against each other.
    if changed := [root for root in roots if before.get(str(root)) != stamps[str(root)]]:
        digests: dict[Path, str] = {}
        for root in roots if extra else changed:
            diagnosis = look_through(root)
            for line in diagnosis.lines(SHOWN):
                say(line)
            _refuse_errors(diagnosis)
            digests |= diagnosis.digests
        if extra:
            _refuse_known_scans(open_run(chosen), digests)
    write_json(kept, stamps)


def _refuse_known_scans(dataset: Dataset, digests: Mapping[Path, str]) -> None:
    """Extra scans are in every fold's training: one that the run also scores would flatter the score."""
    own = {digests[case.image]: case.image for case in dataset.cases if case.image in digests}
    shared = [case.image for case in dataset.extra if digests.get(case.image) in own]
    if shared:
        more = f", as have {len(shared) - 1} more" if len(shared) > 1 else ""
        raise OctkitError(f"{shared[0]}: has the same pixels as {own[digests[shared[0]]]}{more}, expected extra data "
                          "of other scans, as they are learned from in every fold: take them out of train.extra_data")


def _refuse_errors(found: Diagnosis) -> None:
    if found.errors:
        raise OctkitError(f"{found.root}: found {found.errors} error{'s' * (found.errors != 1)} in this data set, "
                          "expected none before a run; each finding says how to mend it")


def _unsaid(error: OctkitError) -> None:
    """For what has been said before, or does not matter."""


def _files(case: Case) -> list[Path]:
    return [file for file in (case.image, *case.more_channels, case.mask, case.truth) if file is not None]


def _examined(dataset: Dataset, workers: int | None, progress: bool) -> Iterator[Seen]:
    """Every case, looked at. What leads out of the data set is not opened: that it does has been said."""
    reader = replace(dataset, train=(), validation=(), test=())
    jobs = [(reader, case, split == "train") for split, cases in dataset.splits.items() for case in cases
            if all(inside(dataset.root, file) for file in _files(case))]
    workers = cores() if workers is None else workers
    pairs = in_processes(examine, jobs, workers) if workers else ((job, examine(*job)) for job in jobs)
    with tqdm(total=len(jobs), desc="doctor", unit="scan", leave=False, disable=not progress) as bar:
        for (_, case, _), one in pairs:
            bar.update()
            yield one or Seen(case, (Finding(ERROR, case.image, "ended the process that read it (out of memory, or a "
                                             "library's fault)", "expected a scan that can be read: look at it"),))


def _twins(dataset: Dataset, digests: Mapping[Path, str]) -> Iterator[Finding]:
    """Scans with the same pixels under two names: what is learned from and what is scored must not share any."""
    first_of: dict[str, tuple[Path, str]] = {}
    for split, cases in dataset.splits.items():
        for image in (case.image for case in cases if case.image in digests):
            first, its_split = first_of.setdefault(digests[image], (image, split))
            if its_split == "train" != split:
                yield Finding(ERROR, first, f"has the same pixels as {image}",
                              "expected other scans to learn from: take this one out of the training scans")
            elif first != image:
                yield Finding(WARNING, image, f"has the same pixels as {first}",
                              "expected each scan once, or folds share what they are scored on: delete one")


def _sizes(seen: list[Seen]) -> Iterator[Finding]:
    """Images of another size than most: they are resampled or predicted as they are, but are often a mistake."""
    images: dict[tuple[int, ...], list[Path]] = {}
    for one in seen:
        if one.size is not None:
            images.setdefault(one.size, []).append(one.case.image)
    usual = max(images, key=lambda size: len(images[size]), default=())
    for size, (first, *more) in images.items():
        if size != usual:
            yield Finding(WARNING, first, f"has {by(size)} px{_as_more(more)}, where most scans have {by(usual)}",
                          "expected one size: check whether it was cropped or scaled")


def _as_more(more: list[Path]) -> str:
    return f", as have {len(more)} more" if more else ""


def _greys(seen: list[Seen]) -> Iterator[Finding]:
    """Scans whose grey values lie far from most others': one scale is learned for all."""
    ranges = {one.case.image: one.greys for one in seen if one.greys and one.greys[0] < one.greys[2]}  # not blank
    if not ranges:
        return
    # That of the scan in the middle: where two ranges are mixed, a mean of both would be that of no scan.
    usual = sorted(ranges.values(), key=lambda greys: greys[2])[len(ranges) // 2]
    odd: dict[str, list[Path]] = {}
    for image, greys in ranges.items():
        if words := odd_range(greys, usual[0], usual[2]):
            odd.setdefault(words, []).append(image)
    for words, (first, *more) in odd.items():
        yield Finding(WARNING, first, f"has grey values {shown(*ranges[first][::2])}{_as_more(more)}, {words} beside "
                      f"others' {shown(*usual[::2])}",
                      "expected one scale of grey: bring all to one range, with a dark vitreous")


def _nearly_doubled(dataset: Dataset) -> Iterator[Finding]:
    """Names that differ in capitals alone: on macOS and Windows they are one file."""
    seen: dict[str, Case] = {}
    for case in dataset.cases:
        if (other := seen.setdefault(case.name.casefold(), case)).name != case.name:
            yield Finding(WARNING, case.image, f"differs from {other.image.name} in capitals alone",
                          "expected names that differ in more: rename one")


def _people(dataset: Dataset) -> Iterator[Finding]:
    """Where groups.csv and the scans do not match, and people who are learned from and scored."""
    file = dataset.root / GROUPS_FILE
    rows = (tried(_unsaid, read_groups, file, _unsaid) if file.exists() else None) or {}
    if rows and not any(scan_key(case.name) in rows for case in dataset.cases):  # an error by itself
        return
    if absent := sorted(rows[key].name for key in rows.keys() - {scan_key(case.name) for case in dataset.cases}):
        yield Finding(WARNING, file, f"has rows for {len(absent)} scans that are not here, first {absent[0]}",
                      "expected the names of scans: mend the name, or leave it if the scan was taken out")
    unnamed = [case.image.name for case in dataset.cases if case.group is None]
    if rows and unnamed:
        yield Finding(WARNING, file, f"names no person for {len(unnamed)} of {len(dataset.cases)} scans, first "
                      f"{unnamed[0]}", "expected one for each: without, a scan counts as a person of its own")
    learned = {case.group for case in dataset.train if case.group}
    for split in ("validation", "test"):
        if both := sorted(learned & {case.group for case in dataset.splits[split] if case.group}):
            yield Finding(WARNING, file, f"has {len(both)} people with both training and {split} scans, first "
                          f"{both[0]}", "expected others to score on: these scores say how well scans of known people "
                          "are read, and those of new people may be read worse")


def _undiagnosed(dataset: Dataset) -> list[Finding]:
    """What 2-D scans lack for the lesson on glaucoma, which a run then leaves out; volumes have no such lesson."""
    if not dataset.train or is_volume(dataset.train[0].image):
        return []
    lacking = lacking_diagnoses(dataset.train)
    return [replace(of_error(lacking, dataset.root), severity=WARNING)] if lacking else []


def _unscored(dataset: Dataset) -> list[Finding]:
    """A download that was unpacked in part; a data set of corrected scans is whole without."""
    if dataset.layout != "goals" or not dataset.train or dataset.validation:
        return []
    return [Finding(WARNING, dataset.root / "Validation", "has no scans to predict and score", "expected some in "
                    "Validation/Image: octkit run needs them (in train.extra_data none are needed)")]


def _strays(dataset: Dataset, known: set[Path]) -> Iterator[Finding]:
    """What lies among the scans and is passed over: files of other kinds, and macOS's own."""
    used = {file for case in dataset.cases for file in _files(case)}
    for folder in sorted({file.parent for file in used} | {file for file in used if file.is_dir()}):
        for file in tried(_unsaid, listing, folder, "scans") or ():
            if not (file in used | known or file.name == SPACING_FILE or file.name.endswith(OURS)
                    or folder in used and is_image(file)):
                yield Finding(WARNING, file, "belongs to no scan of this data set and is passed over",
                              f"expected {IMAGE_KINDS} or NIfTI files: save it as one, rename it, or move it away")
        hidden = [file for file in tried(_unsaid, listing, folder, "scans", True) or () if file.name.startswith("._")]
        if hidden:
            yield Finding(WARNING, hidden[0], f"is one of {len(hidden)} hidden files of macOS here, which are passed "
                          "over", "expected none: delete them")
