"""The GOALS layout (MICCAI 2022 GOALS, arXiv 2207.14447), which the phantoms of circle scans have too.

data/README.md shows its folders and tables; beside them phantoms have phantom.json, which tells each one's eye. GOALS
does not state its scale: without scale.json lengths stay in pixels.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from octkit.common.errors import OctkitError, Report, bad_file, refuse, tried
from octkit.common.files import read_json_as
from octkit.data.dataset import Case, Dataset, scan_name
from octkit.data.labels import GOALS_GREYS, LAYERS
from octkit.data.matching import check_pairs, images_in, true_masks
from octkit.data.tables import read_rows

COLUMNS = {"ImgName": "imgname", "GC_Label": "gclabel"}  # as they are called, and without case and signs


class _Scale(BaseModel, strict=True):
    """What scale.json must hold; other keys are passed over."""

    um_per_px: list[Annotated[float, Field(gt=0.01, allow_inf_nan=False)]] = Field(min_length=2, max_length=2)


def open_goals(root: Path, report: Report = refuse) -> Dataset:
    """Open a data set in the GOALS layout and check that its parts fit together.

    Reads folders, image headers and the label table, no pixels. Reports every file that is missing, doubled, of
    another size, or without its counterpart.
    """
    spacing = tried(report, _scale, root / "scale.json")
    eyes = tried(report, _eyes, root / "phantom.json") or {}
    truth = true_masks(root / "Truth" / "Layer_Masks", report)
    images, masks = (images_in(root / "Train" / kind, report) for kind in ("Image", "Layer_Masks"))
    check_pairs(images, masks, report)
    glaucoma = training_labels(images, root / "Train" / "Train_GC_GT.xlsx", report)

    def unlabelled(split: str) -> tuple[Case, ...]:
        found = images_in(root / split / "Image", report) if (root / split).is_dir() else {}
        return tuple(Case(name, image, None, None, spacing, eyes.get(name), circle=True, truth=truth.get(name))
                     for name, image in found.items())

    train = tuple(Case(name, image, masks.get(name), glaucoma.get(name), spacing, eyes.get(name), circle=True)
                  for name, image in images.items())
    return Dataset(root.name, root, "goals", LAYERS, ("OCT",), dict(GOALS_GREYS), train,
                   unlabelled("Validation"), unlabelled("Test"))


def true_diagnoses(dataset: Dataset, report: Report = refuse) -> dict[str, int]:
    """The diagnoses in Truth/GC_GT.xlsx or .csv: name of a validation or test case -> 1 glaucoma or 0 not.

    Empty for other layouts and where there is no such table. Raises and reports as `read_labels`.
    """
    if dataset.layout != "goals":
        return {}
    labels = _table(dataset.root / "Truth" / "GC_GT.xlsx", report)[1]
    return {case.name: label for case in dataset.validation + dataset.test
            if (number := _number(case.name)) is not None and (label := labels.get(number)) is not None}


def lacking_diagnoses(cases: Sequence[Case]) -> OctkitError | None:
    """What these training cases lack for a classifier, which learns from people of each class and holds others out.

    None where they lack nothing. Layers are learned without any diagnosis.
    """
    people = {label: [case.person for case in cases if case.glaucoma == label] for label in (1, 0, None)}
    if len({*people[1]}) >= 2 <= len({*people[0]}) and not people[None]:
        return None
    counts = [f"{len(found)} {what}" + f" of {len({*found})} people" * (len({*found}) < len(found))
              for found, what in zip(people.values(), ("with glaucoma", "without", "not told"), strict=True)]
    told = ", ".join(counts[:3 if people[None] else 2])
    return bad_file(cases[0].image.parent, f"found {len(cases)} training scans ({told})",
                    "expected the diagnosis of each and scans of two people or more in both classes, to classify "
                    "glaucoma (in the GOALS layout: Train/Train_GC_GT.xlsx); layers need none")


def read_labels(path: Path, report: Report = refuse) -> dict[int, int | None]:
    """A GOALS label table (workbook or CSV with ImgName and GC_Label): number of the image -> 1 glaucoma or 0 not.

    Names of columns are read without regard to case, spaces and signs. An image may be named by its number or its file
    (1, "0001", 0001.png). Empty where no row has a label. Raises OctkitError for a file that is no such table; reports
    rows that say nothing or say it twice. Where that returns, a label that is neither is None, and other such rows are
    left out.
    """
    rows = read_rows(path)
    if not rows:
        return {}
    (_, header), *rows = rows
    names = [re.sub(r"[\W_]", "", str(name)).casefold() for name in header]
    if [names.count(column) for column in COLUMNS.values()] != [1, 1]:
        raise bad_file(path, f"found columns {[str(name) for name in header if name is not None]}",
                       f"expected {' and '.join(COLUMNS)}, each once")
    places = [names.index(column) for column in COLUMNS.values()]
    found = [(row, *(dict(enumerate(values)).get(place) for place in places)) for row, values in rows]
    labels: dict[int, int | None] = {}
    if all(label is None for _, _, label in found):
        return labels
    for row, name, label in found:
        number = _whole(scan_name(Path(name.strip(" \"'"))) if isinstance(name, str) else name)
        if number is None:
            report(bad_file(path, f"found ImgName {name!r} in row {row}", "expected a whole number (1 = 0001.png)"))
        elif number in labels:
            report(bad_file(path, f"ImgName {number} stands twice, again in row {row}", "expected one row an image"))
        else:
            labels[number] = _whole(label) if _whole(label) in (0, 1) else None
            if labels[number] is None:
                report(bad_file(path, f"found GC_Label {label!r} in row {row}", "expected 0 or 1"))
    return labels


def _table(workbook: Path, report: Report) -> tuple[Path, dict[int, int | None]]:
    """The table that is there, the workbook or a CSV file of its name, and its labels; none where there is neither.

    Reports where both are there, and as `read_labels`.
    """
    there = [path for path in (workbook, workbook.with_suffix(".csv")) if path.exists() or path.is_symlink()]
    if len(there) > 1:
        report(bad_file(there[1], f"{there[0].name} lies beside it", "expected one table: delete the other"))
    labels = tried(report, read_labels, there[0], report) if there else None
    return (there or [workbook])[0], labels or {}


def _whole(value: object) -> int | None:
    """A cell's value as a whole number, also where it is text such as "3"; None where it is none."""
    try:
        number = float(value)  # type: ignore[arg-type]  # TypeError is what is asked for
        return int(number) if number.is_integer() else None
    except (TypeError, ValueError, OverflowError):
        return None


def _scale(path: Path) -> tuple[float, float] | None:
    if not path.exists():
        return None
    axial, lateral = read_json_as(path, _Scale, 'expected {"um_per_px": [axial, lateral]}, in um').um_per_px
    return axial / 1000, lateral / 1000


def _eyes(path: Path) -> dict[str, str | None]:
    """Name of a scan -> "R" or "L", which phantoms alone tell."""
    if not path.exists():
        return {}
    scans = read_json_as(path, dict[str, Any], "make the phantoms anew").get("scans", {})
    return {scan_name(Path(name)): fact.get("eye") for name, fact in scans.items()}


def training_labels(images: dict[str, Path], table: Path, report: Report) -> dict[str, int | None]:
    """Name of a training image -> its label; reports images without a row of the table and rows without an image.

    Without a table, or in one without labels, no image has one, and names may be any: the layers need none.
    """
    table, labels = _table(table, report)
    if not labels:
        return {}
    numbers: dict[int, str] = {}
    for name, image in images.items():
        if (number := _number(name)) is None:
            report(bad_file(image, f"found the name {name!r}", "expected a number such as 0001.png"))
        elif number in numbers:
            first = images[numbers[number]].name
            report(bad_file(image, f"{first} has the same number", "expected one image a number"))
        else:
            numbers[number] = name
    if images:
        for number in sorted(set(labels) - set(numbers)):
            where = next(iter(images.values())).parent
            report(bad_file(table, f"ImgName {number} has no image", f"expected {where}/{number:04d}.png"))
        for number in sorted(set(numbers) - set(labels)):
            report(bad_file(table, f"has no row for {images[numbers[number]]}", f"expected ImgName {number}"))
    return {name: labels.get(number) for number, name in numbers.items()}


def _number(name: str) -> int | None:
    return int(name) if name.isascii() and name.isdecimal() else None
