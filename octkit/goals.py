"""The GOALS layout (MICCAI 2022 GOALS, arXiv 2207.14447), which the phantoms of circle scans have too.

    Train/Image/0001.png            grey, stored as grey or RGB
    Train/Layer_Masks/0001.png      0 RNFL, 80 GCIPL, 160 choroid, 255 everything else
    Train/Train_GC_GT.xlsx          ImgName (1 = 0001.png), GC_Label (1 = glaucoma)
    Validation/Image/0101.png …     Test/Image/0201.png …     no labels
    scale.json                      optional, ours: {"um_per_px": [axial, lateral]}

GOALS does not state its scale; without scale.json lengths stay in pixels.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from octkit.cases import LAYERS, Case, Dataset
from octkit.files import OctkitError, read_json
from octkit.images import list_images
from octkit.pairs import check_pairs, refuse_doubled_names

# The grey coding: value in the file -> label.
GOALS_GREYS = {0: 1, 80: 2, 160: 3, 255: 0}


def mask_coding(labels: Sequence[str]) -> dict[int, int]:
    """How octkit codes PNG masks of its own, value -> label: GOALS greys for the three layers, else label numbers."""
    return dict(GOALS_GREYS) if tuple(labels) == LAYERS else {label: label for label in range(len(labels) + 1)}


def open_goals(root: Path) -> Dataset:
    """Open a data set in the GOALS layout and check that its parts fit together.

    Reads folders, image headers and the label table, no pixels. Raises OctkitError that names the first
    file that is missing, doubled, of another size, or without its counterpart.
    """
    spacing = _scale(root / "scale.json")
    train = _training_cases(root / "Train", spacing)
    unlabelled = {split: _cases(root / split / "Image", spacing) for split in ("Validation", "Test")
                  if (root / split).is_dir()}
    dataset = Dataset(root.name, root, "goals", LAYERS, ("OCT",), dict(GOALS_GREYS), train,
                      unlabelled.get("Validation", ()), unlabelled.get("Test", ()))
    refuse_doubled_names(dataset)
    return dataset


def read_labels(path: Path) -> dict[int, int]:
    """A GOALS label table (xlsx with ImgName and GC_Label): number of the image -> 1 glaucoma or 0 not."""
    import pandas as pd

    try:
        table = pd.read_excel(path)
    except FileNotFoundError:
        raise OctkitError(f"{path}: not found, expected the table of glaucoma labels") from None
    except Exception as error:  # openpyxl and zipfile raise a dozen kinds for a damaged workbook
        raise OctkitError(f"{path}: cannot be read as an Excel workbook ({error})") from None
    if not {"ImgName", "GC_Label"} <= set(table.columns):
        raise OctkitError(f"{path}: found columns {list(map(str, table.columns))}, expected ImgName and GC_Label")
    labels = {}
    for row, (name, label) in enumerate(zip(table["ImgName"], table["GC_Label"], strict=True), start=2):
        number = _whole(name)
        if number is None:
            raise OctkitError(f"{path}, row {row}: found ImgName {name!r}, expected a whole number (1 = 0001.png)")
        if _whole(label) not in (0, 1):
            raise OctkitError(f"{path}, row {row}: found GC_Label {label!r}, expected 0 or 1")
        if number in labels:
            raise OctkitError(f"{path}, row {row}: ImgName {number} stands twice, expected one row an image")
        labels[number] = _whole(label)
    return labels


def _whole(value) -> int | None:
    try:
        return int(value) if math.isfinite(float(value)) and float(value) == int(float(value)) else None
    except (TypeError, ValueError):
        return None


def _scale(path: Path) -> tuple[float, float] | None:
    if not path.exists():
        return None
    content = read_json(path)
    scale = content.get("um_per_px") if isinstance(content, dict) else None
    good = isinstance(scale, list) and len(scale) == 2 and all(
        isinstance(s, int | float) and math.isfinite(s) and s > 0 for s in scale)
    if not good:
        raise OctkitError(f'{path}: found {content!r}, expected {{"um_per_px": [axial, lateral]}}, both above 0')
    return scale[0] / 1000, scale[1] / 1000


def _cases(folder: Path, spacing: tuple[float, float] | None) -> tuple[Case, ...]:
    return tuple(Case(image.stem, image, spacing=spacing, circle=True) for image in list_images(folder))


def _training_cases(folder: Path, spacing: tuple[float, float] | None) -> tuple[Case, ...]:
    images = {image.stem: image for image in list_images(folder / "Image")}
    masks = {mask.stem: mask for mask in list_images(folder / "Layer_Masks")}
    check_pairs(images, masks, folder / "Image", folder / "Layer_Masks")
    table = folder / "Train_GC_GT.xlsx"
    labels = read_labels(table)
    numbers = {}
    for name, image in images.items():
        if not name.isdecimal():
            raise OctkitError(f"{image}: found the name {name!r}, expected a number such as 0001.png")
        if int(name) in numbers:
            raise OctkitError(f"{image}: {numbers[int(name)]}.png has the same number, expected one image a number")
        numbers[int(name)] = name
    for number in labels:
        if number not in numbers:
            raise OctkitError(f"{table}: ImgName {number} has no image, expected {folder / 'Image'}/{number:04d}.png")
    for number, name in numbers.items():
        if number not in labels:
            raise OctkitError(f"{table}: has no row for {images[name]}, expected ImgName {number}")
    return tuple(Case(name, images[name], masks[name], labels[int(name)], spacing, circle=True) for name in images)
