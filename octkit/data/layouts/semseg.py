"""Copies of GOALS as they are handed on, with other folders (data/README.md), and other meanings for the same greys.

bscan/ and semseg/ lie in the data set's own folder, whose scans are then the training scans, or in one for each split:
train, val or validation, test, in capitals or not. There the training scans need their masks; those of the other
splits, where there are any, are read for scoring alone.
"""

from pathlib import Path

from octkit.common.errors import Report, refuse
from octkit.common.files import listing
from octkit.data.dataset import Case, Dataset
from octkit.data.labels import LAYERS, SEMSEG_GREYS
from octkit.data.layouts.goals import training_labels
from octkit.data.matching import check_pairs, images_in

SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


def open_semseg(root: Path, report: Report = refuse) -> Dataset:
    """Open such a copy and check that its images and masks belong together; reports what the GOALS layout does.

    A case of a split's folder is named after both ("train_0001"), as the same file name may stand in several. Without
    a table no case has a diagnosis.
    """
    cases: dict[str, tuple[Case, ...]] = {"train": (), "validation": (), "test": ()}
    if (root / "semseg").is_dir():
        cases["train"] = _cases(root, root, "train", report)
    for folder in listing(root, "bscan and semseg"):
        split = SPLITS.get(folder.name.lower())
        if split and any((folder / name).is_dir() for name in ("bscan", "semseg")):
            cases[split] += _cases(root, folder, split, report)
    return Dataset(root.name, root, "semseg", LAYERS, ("OCT",), dict(SEMSEG_GREYS), **cases)


def _cases(root: Path, folder: Path, split: str, report: Report) -> tuple[Case, ...]:
    learned, prefix = split == "train", "" if folder == root else f"{split}_"
    images = images_in(folder / "bscan", report)
    masks = images_in(folder / "semseg", report) if learned or (folder / "semseg").is_dir() else {}
    check_pairs(images, masks, report)
    places = [place for place in (root, folder) if any(place.glob("Train_GC_GT.*"))] if learned else []
    glaucoma = training_labels(images, places[0] / "Train_GC_GT.xlsx", report) if places else {}
    return tuple(Case(prefix + name, image, masks.get(name) if learned else None, glaucoma.get(name), circle=True,
                      truth=None if learned else masks.get(name)) for name, image in images.items())
