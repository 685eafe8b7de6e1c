"""Our own layout for volumes, which the phantoms of volumes have too.

    Train/Image/0001.nii.gz         one volume a case: a NIfTI file (.nii.gz, .nii), or a folder of B-scan PNGs
    Train/Mask/0001.nii.gz          likewise; label numbers, 0 for background
    Validation/Image/…              Test/Image/…     no labels
    labels.json                     optional: {"labels": ["rnfl", "gcipl", "choroid"]}, names of the labels 1, 2, …
    Truth/Mask/…                    optional: true masks of the validation and test volumes, read for scoring alone

`octkit.data.volume_files` says what is in such files. The spacing stands in a volume's header, or in the spacing.json
of a folder of B-scans; a folder of masks needs none of its own.
"""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, field_validator

from octkit.common.errors import Report, bad_file, by, refuse, tried
from octkit.common.files import read_json_as
from octkit.data.dataset import Case, Dataset, is_volume, scan_size
from octkit.data.labels import LAYERS
from octkit.data.matching import check_pairs, scans_found, true_masks
from octkit.data.volume_files import stated_scale

LABELS_FILE = "labels.json"


class _Labels(BaseModel, strict=True):
    """What labels.json must hold."""

    labels: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1, max_length=254)

    @field_validator("labels")
    @classmethod
    def _once(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names) or {"background", "ignore"} & set(names):  # nnU-Net's own words
            raise ValueError("each name stands once, background and ignore not at all")
        return names


def open_volumes(root: Path, report: Report = refuse) -> Dataset:
    """Open a data set of volumes and check that its parts fit together.

    Reads folders and headers, no voxels. Reports every file that is missing, doubled, no volume, without spacing, of
    another size than its mask, or without its counterpart.
    """
    labels = tried(report, _labels, root / LABELS_FILE) or LAYERS
    listed, masks = (scans_found(root / "Train" / kind, kind == "Mask", report) for kind in ("Image", "Mask"))
    images, truth = _volumes_among(listed, report), true_masks(root / "Truth" / "Mask", report)
    check_pairs(images, {name: mask for name, mask in masks.items() if name in images or name not in listed}, report)

    def unlabelled(split: str) -> tuple[Case, ...]:
        found = scans_found(root / split / "Image", False, report) if (root / split).is_dir() else {}
        return tuple(Case(name, image, spacing=tried(report, stated_scale, image), truth=truth.get(name))
                     for name, image in _volumes_among(found, report).items())

    train = tuple(Case(name, image, masks.get(name), spacing=tried(report, stated_scale, image))
                  for name, image in images.items())
    return Dataset(root.name, root, "volumes", labels, ("OCT",), {n: n for n in range(len(labels) + 1)}, train,
                   unlabelled("Validation"), unlabelled("Test"))


def _volumes_among(scans: dict[str, Path], report: Report) -> dict[str, Path]:
    volumes = {}
    for name, path in scans.items():
        size = tried(report, scan_size, path) if is_volume(path) else None
        if not is_volume(path):
            report(bad_file(path, "found a single image", "expected volumes here: NIfTI files or folders of B-scans"))
        elif size and len(size) != 3:
            report(bad_file(path, f"found a single slice of {by(size)} px", "expected a volume of 3 axes"))
        else:
            volumes[name] = path
    return volumes


def _labels(path: Path) -> tuple[str, ...]:
    if not path.exists():
        return LAYERS
    return tuple(read_json_as(path, _Labels, 'expected {"labels": [names of the labels 1, 2, …]}').labels)
