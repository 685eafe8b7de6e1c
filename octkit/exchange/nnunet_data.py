"""Data sets into nnU-Net's raw format and back.

    Dataset001_GOALS/
        dataset.json  imagesTr/  labelsTr/  imagesTs/     what nnU-Net reads; imagesTs are validation and test scans
        groups.csv                                        ours: whose eye each scan is of, where that is known
        octkit.json                                       ours: which file each original is made from again
        octkit/…                                          all other originals (tables, truth, scale), in their places

The only channel is called "CT", as nnU-Net then scales grey values by the data set's own percentiles, mean and
deviation, as octkit does (by any other name it z-scores each scan by itself). Masks become label numbers. Grey PNGs and
NIfTI files are copied, and packed (.nii.gz); other images become grey PNGs, as nnU-Net would take RGB for three
channels; a folder of B-scans becomes a NIfTI file. On the way back all scans and masks have the same pixels, images as
PNGs. Volumes that nnU-Net reads as TIFF (CASE.json beside CASE_0000.tif states their spacing) come in as NIfTI files.
"""

import gzip
import re
import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from octkit.common.errors import OctkitError, bad_file
from octkit.common.files import links_inside, listing, new_folder, read_json_as, write_json
from octkit.common.settings import Inside
from octkit.data import volume_files
from octkit.data.dataset import Case, Dataset, fit, is_volume, read_scan, read_scan_mask, scan_name
from octkit.data.geometry import AS_STORED
from octkit.data.groups import GROUPS_FILE
from octkit.data.image_files import is_image, read_header, read_image, read_pages, write_mask, write_png
from octkit.data.layouts.detect import open_dataset
from octkit.data.volume_files import b_scans, is_nifti, is_packed, is_stack, read_volume, stated_spacing, write_nifti
from octkit.exchange.nnunet_plans import dataset_to

MANIFEST, ORIGINALS = "octkit.json", "octkit"
_Byte = Annotated[int, Field(ge=0, le=255)]


class _Original(BaseModel):
    """A file of the data set and what it is made from: a copy, a B-scan of a volume, or greys for label numbers.

    Without `source` it lies in octkit/ as it was.
    """

    file: Inside
    source: Inside | None = Field(None, alias="from")
    coding: dict[_Byte, _Byte] = {}
    slice: Annotated[int, Field(ge=0)] | None = None


class _Manifest(BaseModel):
    format: Literal["octkit data set"]
    version: Literal[1]
    files: Annotated[list[_Original], Field(min_length=1)]


def export_dataset(path: str | Path, folder: str | Path) -> Path:
    """Write a data set of any layout as a raw data set of nnU-Net's; `folder` is named like Dataset001_GOALS.

    Raises OctkitError where the folder has another name or is there already, and else as `detect.open_dataset`.
    """
    folder, dataset = Path(folder), open_dataset(path)
    if not re.fullmatch(r"Dataset\d{3}_\w+", folder.name, re.ASCII):
        raise OctkitError(f"{folder}: found the name {folder.name!r}, expected three digits and a name such as "
                          "Dataset001_GOALS, by which nnU-Net finds it")
    if dataset.layout == "nnunet":
        raise OctkitError(f"{path}: is a raw data set of nnU-Net's already")
    with new_folder(folder, Path(path)) as target:
        ending = ".nii.gz" if any(is_volume(case.image) for case in dataset.cases) else ".png"  # one for all
        made: dict[Path, dict] = {}  # an original file -> what it can be made from again
        for part, cases in (("Tr", dataset.train), ("Ts", dataset.validation + dataset.test)):
            for case in cases:
                for channel, image in enumerate((case.image, *case.more_channels)):
                    name = f"images{part}/{case.name}_{channel:04d}{ending}"
                    _write_image(image, target / name)
                    made |= _sources(image, {"from": name})
                if part == "Tr" and case.mask is not None:
                    name = f"labelsTr/{case.name}{ending}"
                    _write_labels(dataset, case, target / name)
                    coding = {label: value for value, label in dataset.mask_values.items()}
                    if is_nifti(case.mask):
                        made[case.mask] = {"from": name}
                    elif len(coding) == len(dataset.mask_values):  # else only the original knows its values apart
                        made |= _sources(case.mask, {"from": name, "coding": coding})
        if (groups := dataset.root / GROUPS_FILE).exists():  # beside dataset.json octkit reads it, too
            _copy(groups, target / GROUPS_FILE)
            made[groups] = {"from": GROUPS_FILE}
        write_json(target / "dataset.json", {
            "name": folder.name, "numTraining": len(dataset.train),
            **dataset_to(["CT"] * len(dataset.channels), dataset.labels, ending)})
        files = []
        for file in sorted(dataset.root.rglob("*")):  # also those of no case: tables, truth, scale
            inside = file.relative_to(dataset.root)
            if file.is_file() and not any(part.startswith(".") for part in inside.parts):
                again = inside.with_suffix(".png") if file in made and is_image(file) else inside
                files.append({"file": again.as_posix(), **made.get(file, {})})
                if file not in made:
                    _copy(file, target / ORIGINALS / inside)
        write_json(target / MANIFEST, {"format": "octkit data set", "version": 1, "files": files})
    return folder


def import_dataset(folder: str | Path, out: str | Path) -> Path:
    """Take a raw data set of nnU-Net's in: one that octkit wrote becomes what it was, with the masks as they are now.

    Any other is checked and copied as it is (its cases and dataset.json, nothing else), since octkit reads nnU-Net's
    layout itself. Raises OctkitError where `out` is there already, the data set is damaged, or a file is missing.
    """
    folder, out = Path(folder), Path(out)
    if any((folder / "imagesTr").glob("*.json")):
        with new_folder(out, folder) as target:
            _tiff_to_nifti(folder, target)
        return out
    dataset = open_dataset(folder)
    with new_folder(out, folder) as target:
        if (folder / MANIFEST).exists():
            links_inside(folder)  # the manifest may name hidden files, too
            manifest = read_json_as(folder / MANIFEST, _Manifest, "expected what export-nnunet leaves; without this "
                                    "file the data set is taken in as it is now")
            read = lru_cache(maxsize=1)(_pixels)  # each B-scan asks for its whole volume
            for original in manifest.files:
                _restore(folder, original, target, read)
            open_dataset(target)
        else:
            files = [file for case in dataset.cases for file in (case.image, *case.more_channels, case.mask) if file]
            files += [file for file in (dataset.root / GROUPS_FILE,) if file.exists()]
            for file in [dataset.root / "dataset.json", *files]:
                _copy(file, target / file.relative_to(dataset.root))
    return out


def _tiff_to_nifti(folder: Path, target: Path) -> None:
    links_inside(folder)
    described = read_json_as(folder / "dataset.json", dict[str, Any], "expected a dataset.json of nnU-Net v2")
    for part in ("imagesTr", "labelsTr", *(["imagesTs"] if (folder / "imagesTs").is_dir() else [])):
        for file in listing(folder / part, "TIFF volumes"):
            if file.suffix.lower() in (".tif", ".tiff"):
                case = re.sub(r"_\d{4}$", "", file.stem) if part.startswith("images") else file.stem
                write_nifti(target / part / f"{file.stem}.nii.gz", read_pages(file),
                            stated_spacing(file.with_name(f"{case}.json")))
    write_json(target / "dataset.json", {**described, "file_ending": ".nii.gz"})
    open_dataset(target)


def _write_image(image: Path, target: Path) -> None:
    if is_stack(image):
        write_nifti(target, _bytes(image, read_volume(image)[0]), volume_files.volume_spacing(image))
    elif is_nifti(image) or ((header := read_header(image)).format, header.mode, header.bits) == ("PNG", "L", 8):
        _copy(image, target)
    else:
        write_png(target, _bytes(image, read_image(image)[0]))


def _bytes(image: Path, pixels: np.ndarray) -> np.ndarray:
    """Grey values as uint8. Raises OctkitError where a scan of more bits would lose some."""
    if (pixels != np.floor(pixels)).any():
        raise bad_file(image, "has more than 256 grey values (16 bits)", "expected 8 bits, as octkit writes PNGs for "
                       "nnU-Net: save it as 8-bit grey")
    return pixels.astype(np.uint8)


def _write_labels(dataset: Dataset, case: Case, target: Path) -> None:
    numbers = {label: label for label in range(len(dataset.labels) + 1)}
    labels = dataset.read_mask(case)  # checks the values, also of a mask that is copied
    if (case.mask and is_nifti(case.mask) and is_nifti(case.image) and dataset.mask_values == numbers
            and (fit(case.mask, case.image) == AS_STORED).all()):  # nnU-Net does not turn masks
        _copy(case.mask, target)
    elif is_volume(case.image):
        write_nifti(target, labels, volume_files.volume_spacing(case.image), case.image)
    else:
        write_mask(target, labels, numbers)


def _sources(original: Path, source: dict) -> dict[Path, dict]:
    """The files of a scan or mask, each with what it is made from; a folder of B-scans has one slice a file."""
    if not original.is_dir():
        return {original: source}
    return {file: source | {"slice": number} for number, file in enumerate(b_scans(original))}


def _restore(folder: Path, original: _Original, root: Path, read: Callable[..., np.ndarray]) -> None:
    """Write an original file again below `root`, from nnU-Net's file or from its copy."""
    path, target = folder / (original.source or f"{ORIGINALS}/{original.file}"), root / original.file
    if not path.is_file():
        raise OctkitError(f"{path}: not found, expected it as octkit wrote it")
    if original.source is None or (original.slice is None and not original.coding):
        packed = is_nifti(target) and path.name.lower().endswith(".gz") and not target.name.lower().endswith(".gz")
        _copy(path, target.with_name(f"{target.name}.gz") if packed else target)
        return
    pixels = read(path, tuple(original.coding))
    if original.slice is not None:
        if pixels.ndim != 3 or original.slice >= len(pixels):
            raise OctkitError(f"{path}: found no B-scan {original.slice}, expected it for {original.file}")
        pixels = pixels[original.slice]
    if original.coding:
        write_mask(target, pixels, {value: label for label, value in original.coding.items()})
    else:
        write_png(target, pixels)


def _pixels(path: Path, labels: tuple[int, ...]) -> np.ndarray:
    """A scan (*spatial) uint8; where `labels` are given, a mask of these alone, on the voxels of its image."""
    if not labels:
        return read_scan(path)[0].astype(np.uint8)
    name = scan_name(path)
    image = path.parents[1] / "imagesTr" / f"{name}_0000{path.name.removeprefix(name)}"
    return read_scan_mask(path, {label: label for label in labels}, image)


def _copy(file: Path, target: Path) -> None:
    """Copy a file; a NIfTI file that is not packed is packed where the new name ends in .gz."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if is_nifti(target) and target.name.lower().endswith(".gz") and not is_packed(file):
        target.write_bytes(gzip.compress(file.read_bytes(), compresslevel=4, mtime=0))
    else:
        shutil.copyfile(file, target)
