"""Whose eye each scan shows: groups.csv in a data set's root, of any layout.

    ImgName,person,eye        0001, 0001.png or 1; who it is, in any words; R, L or empty
    0001.png,p01,R

Scans of one person look alike: a fold that holds one out must not learn from another. A scan without a person, and all
where there is no such file, counts as a person of its own.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from octkit.common.errors import OctkitError, Report, bad_file, refuse, tried
from octkit.common.files import cell_text
from octkit.common.messages import clean
from octkit.data.dataset import Case, Dataset, scan_name
from octkit.data.tables import read_rows

GROUPS_FILE = "groups.csv"
COLUMNS = ("ImgName", "person", "eye")


class Row(NamedTuple):
    """What groups.csv tells of a scan: its name as written there, its person and eye, None where it is not known."""

    name: str
    person: str | None
    eye: str | None


def scan_key(name: str) -> str:
    """What the names of one scan have in common: "1" for 0001, 0001.png and 1; in a table it may stand `clean`."""
    name = clean(scan_name(Path(name)), keep="")
    return name.lstrip("0") or "0" if name.isascii() and name.isdecimal() else name


def read_groups(path: Path, report: Report = refuse) -> dict[str, Row]:
    """The table: `scan_key` of a scan's name -> its row.

    Raises OctkitError for a file that is no such table; reports a scan that stands twice and an eye that is neither.
    """
    (_, columns), *lines = read_rows(path) or [(1, ())]
    if not set(COLUMNS[:2]) <= set(columns):
        raise bad_file(path, f"found columns {list(columns)}", f"expected {', '.join(COLUMNS)}")
    rows: dict[str, Row] = {}
    for number, cells in lines:
        line = dict(zip(columns, cells, strict=False))
        name, person, eye = (cell_text(str(line.get(column) or "")) for column in COLUMNS)
        if "\ufffd" in name + person:  # two people whose names differ in such a letter alone would be one
            raise bad_file(path, f"is no text in UTF-8 (line {number}: {name}, {person})", "save it as CSV UTF-8")
        if eye not in ("R", "L", ""):
            report(bad_file(path, f"found the eye {eye!r} in line {number}", "expected R, L or nothing"))
            eye = ""
        if not name or scan_key(name) in rows:
            report(bad_file(path, f"found ImgName {name!r} {'again ' * bool(name)}in line {number}",
                            "expected each scan once"))
        else:
            rows[scan_key(name)] = Row(name, person or None, eye or None)
    return rows


def people_of(path: Path, names: Iterable[str]) -> dict[str, str]:
    """Name -> `Case.person` for the scans `names`, from a table that may hold others too.

    Raises OctkitError as `read_groups`, and for a scan without a row.
    """
    rows, keys = read_groups(path), {name: scan_key(name) for name in names}
    if absent := sorted(name for name, key in keys.items() if key not in rows):
        raise bad_file(path, f"has no row for {absent[0]}{f' and {len(absent) - 1} more' * (len(absent) > 1)}",
                       "expected one for each scan")
    return {name: Case(name, path, group=rows[key].person).person for name, key in keys.items()}


def with_groups(dataset: Dataset, report: Report = refuse) -> Dataset:
    """The data set with the `group` and `eye` of its cases as its groups.csv tells them, if it has one.

    Reports what `read_groups` does, and a table that names none of the scans. Rows of scans that are not there are
    passed over.
    """
    path = dataset.root / GROUPS_FILE
    rows = tried(report, read_groups, path, report) if path.exists() else None
    if not rows:
        return dataset
    if dataset.cases and not any(scan_key(case.name) in rows for case in dataset.cases):
        report(bad_file(path, f"names no scan of this data set, first {next(iter(rows.values())).name}",
                        f"expected names such as {dataset.cases[0].name}: mend them, or move the table away (octkit "
                        "doctor DATA --groups then proposes one for circle scans)"))

    def known(case: Case) -> Case:
        row = rows.get(scan_key(case.name), Row(case.name, None, None))
        return replace(case, group=row.person, eye=row.eye or case.eye)

    train, validation, test = (tuple(map(known, cases)) for cases in dataset.splits.values())
    return replace(dataset, train=train, validation=validation, test=test)


def refuse_known_people(own: Dataset, extra: Iterable[Case], root: Path) -> None:
    """Raises OctkitError where a person of the extra data set `root` has scans in a run's own, too.

    Extra scans are in every fold's training: whoever is scored must not be among them.
    """
    people = {case.group for case in own.cases if case.group}
    if shared := sorted({case.group for case in extra if case.group in people}):
        raise OctkitError(
            f"{root / GROUPS_FILE}: person {shared[0]} {f'and {len(shared) - 1} more ' * (len(shared) > 1)}stands in "
            f"{own.root / GROUPS_FILE}, too; expected extra data of other people, as they are learned from in every "
            "fold: take their scans out, or give them other names if they are others")
