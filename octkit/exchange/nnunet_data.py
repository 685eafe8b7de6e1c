"""Data sets into nnU-Net's raw format and back, file for file.

    Dataset001_GOALS/
        dataset.json  imagesTr/  labelsTr/  imagesTs/     what nnU-Net reads; imagesTs are validation and test scans
        octkit.json                                       ours: what each original file is made from again
        octkit/…                                          originals that cannot be made again, at their own places

The only channel is called "CT", as nnU-Net then scales grey values by the data set's own percentiles, mean and
deviation, which is the recipe's normalisation (by any other name it z-scores each scan by itself). Masks become label
numbers. Grey PNGs and NIfTI files are copied byte for byte; a PNG that stores grey as RGB becomes grey, as nnU-Net
would take it for three channels; a folder of B-scans becomes a NIfTI file.
"""

import gzip
import hashlib
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy as np

from octkit.common.errors import OctkitError
from octkit.common.files import new_folder, read_json, write_atomic, write_json
from octkit.data.dataset import Case, Dataset, is_volume
from octkit.data.image_files import read_image, stored_as_grey, write_mask, write_png
from octkit.data.layouts.detect import open_dataset
from octkit.data.volume_files import MAX_VOXELS, SPACING_FILE, is_nifti, is_stack, read_volume, write_nifti

MANIFEST, ORIGINALS = "octkit.json", "octkit"
FORMAT = "octkit data set"
MAX_UNPACKED = 4 * MAX_VOXELS  # bytes: a small .gz may unpack to any size


def is_raw_folder(folder: str | Path) -> bool:
    """Whether a folder holds a raw data set of nnU-Net's."""
    return (Path(folder) / "imagesTr").is_dir()


def export_dataset(path: str | Path, folder: str | Path) -> Path:
    """Write a data set of any layout as a raw data set of nnU-Net's; `folder` is named like Dataset001_GOALS.

    Raises OctkitError where the folder has another name or is there already, and else as `layouts.open_dataset`.
    """
    folder = Path(folder)
    if not re.fullmatch(r"Dataset\d{3}_\w+", folder.name, re.ASCII):
        raise OctkitError(f"{folder}: found the name {folder.name!r}, expected three digits and a name such as "
                          "Dataset001_GOALS, by which nnU-Net finds it")
    dataset = open_dataset(path)
    if dataset.layout == "nnunet":
        raise OctkitError(f"{path}: is a raw data set of nnU-Net's already")
    with new_folder(folder, path) as target:
        ending = _ending(dataset)
        made: dict[Path, dict] = {}  # an original file -> what it may be made from again
        for part, cases in (("Tr", dataset.train), ("Ts", dataset.validation + dataset.test)):
            for case in cases:
                for channel, image in enumerate((case.image, *case.more_channels)):
                    name = f"images{part}/{case.name}_{channel:04d}{ending}"
                    _write_image(image, target / name, case)
                    made |= _sources(image, name, None)
                if part == "Tr":
                    name = f"labelsTr/{case.name}{ending}"
                    _write_labels(dataset, case, target / name)
                    coding = {label: value for value, label in dataset.mask_values.items()}
                    made |= _sources(case.mask, name, coding)
        write_json(target / "dataset.json", {
            "name": folder.name, "channel_names": {str(i): "CT" for i in range(len(dataset.channels))},
            "labels": {"background": 0, **{label: i for i, label in enumerate(dataset.labels, start=1)}},
            "numTraining": len(dataset.train), "file_ending": ending})
        write_json(target / MANIFEST, {
            "format": FORMAT, "version": 1, "name": dataset.name, "layout": dataset.layout,
            "channels": dataset.channels, "mask_values": {str(v): n for v, n in dataset.mask_values.items()},
            "cases": {case.name: {"split": split, "glaucoma": case.glaucoma, "circle": case.circle,
                                  "spacing": case.spacing}
                      for split in ("train", "validation", "test") for case in getattr(dataset, split)},
            "files": [_kept(target, dataset.root, file, made.get(file)) for file in _files(dataset.root)]})
    return folder


def import_dataset(folder: str | Path, out: str | Path) -> Path:
    """Take a raw data set of nnU-Net's in: one that octkit wrote becomes what it was, file for file.

    Any other is checked and copied as it is (its cases and dataset.json, nothing else), since octkit reads nnU-Net's
    layout itself. Raises OctkitError where `out` is there already or the data set is damaged or has changed.
    """
    folder, out = Path(folder), Path(out)
    if (folder / MANIFEST).exists():
        with new_folder(out, folder) as target:
            for entry in _manifest(folder / MANIFEST):
                write_atomic(target / entry["file"], _original(folder, entry))
            open_dataset(target)
        return out
    dataset = open_dataset(folder)
    with new_folder(out, folder) as target:
        files = [file for case in dataset.train + dataset.test
                 for file in (case.image, *case.more_channels, case.mask) if file]
        for file in [dataset.root / "dataset.json", *files]:
            _copy(file, target / file.relative_to(dataset.root))
    return out


def _ending(dataset: Dataset) -> str:
    """nnU-Net wants one for the whole data set."""
    images = [image for case in dataset.train + dataset.validation + dataset.test
              for image in (case.image, *case.more_channels)]
    if not any(map(is_volume, images)):
        return ".png"
    return ".nii" if all(image.name.lower().endswith(".nii") for image in images) else ".nii.gz"


def _write_image(image: Path, target: Path, case: Case) -> None:
    if is_stack(image):
        write_nifti(target, read_volume(image)[0].astype(np.uint8), case.spacing)
    elif is_nifti(image) or stored_as_grey(image):
        _copy(image, target)
    else:
        write_png(target, read_image(image)[0])


def _write_labels(dataset: Dataset, case: Case, target: Path) -> None:
    numbers = {label: label for label in range(len(dataset.labels) + 1)}
    labels = dataset.read_mask(case)  # checks the values, also of a mask that is copied
    if is_nifti(case.mask) and is_nifti(case.image) and dataset.mask_values == numbers:
        _copy(case.mask, target)
    elif is_volume(case.image):
        write_nifti(target, labels, case.spacing, case.image)
    else:
        write_mask(target, labels, numbers)


def _copy(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    packed, wanted = (name.lower().endswith(".gz") for name in (file.name, target.name))
    if packed == wanted:
        shutil.copyfile(file, target)
    elif packed:
        target.write_bytes(_unpacked(file))
    else:
        target.write_bytes(gzip.compress(file.read_bytes(), compresslevel=4, mtime=0))


def _files(root: Path) -> Iterator[Path]:
    """All files of a data set's folder but hidden ones, also those that belong to no case: tables, truth, scale."""
    for file in sorted(root.rglob("*")):
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(root).parts):
            yield file


def _sources(original: Path, name: str, coding: dict[int, int] | None) -> dict[Path, dict]:
    """How the files of a scan or mask may be made from `name`: coded greys for masks, one slice a B-scan."""
    source = {"from": name} | ({"coding": {str(label): value for label, value in coding.items()}} if coding else {})
    if not original.is_dir():
        return {original: source}
    slices = sorted(file for file in original.iterdir() if file.name != SPACING_FILE and file.name[0] != ".")
    return {file: source | {"slice": number} for number, file in enumerate(slices)}


def _kept(target: Path, root: Path, file: Path, source: dict | None) -> dict:
    """The manifest's entry of an original file; the file itself goes along where it cannot be made again."""
    data = file.read_bytes()
    entry = {"file": file.relative_to(root).as_posix(), "sha256": hashlib.sha256(data).hexdigest()}
    if source is not None:
        copied = {"from": source["from"]}
        for way in (copied, copied | {"unpacked": True}, source):
            if _made(target, way) == data:
                return entry | way
    write_atomic(target / ORIGINALS / entry["file"], data)
    return entry


def _made(folder: Path, entry: dict) -> bytes | None:
    """The bytes of a file made again by its entry: a copy, or a PNG of a slice or of a mask's greys.

    None where this entry cannot make it.
    """
    path = folder / entry["from"]
    if "unpacked" in entry:
        return _unpacked(path) if path.name.endswith(".gz") else None
    if not {"coding", "slice"} & set(entry):
        return path.read_bytes()
    if is_nifti(path) != ("slice" in entry):
        return None
    pixels = _values(path, path.stat().st_mtime_ns)
    if "slice" in entry and entry["slice"] >= len(pixels):
        return None
    pixels = pixels[entry["slice"]] if "slice" in entry else pixels
    lookup = np.arange(256, dtype=np.uint8)
    for label, value in entry.get("coding", {}).items():
        lookup[int(label)] = value
    with tempfile.TemporaryDirectory() as scratch:
        write_png(Path(scratch) / "made.png", lookup[pixels])
        return (Path(scratch) / "made.png").read_bytes()


def _unpacked(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            data = file.read(MAX_UNPACKED + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise OctkitError(f"{path}: is damaged ({error}), expected a whole .gz file") from None
    if len(data) > MAX_UNPACKED:
        raise OctkitError(f"{path}: unpacks to more than the limit of {MAX_UNPACKED} bytes, expected a volume")
    return data


@lru_cache(maxsize=1)
def _values(path: Path, _changed: int) -> np.ndarray:
    # Each B-scan asks for its whole volume.
    return (read_volume if is_nifti(path) else read_image)(path)[0].astype(np.uint8)


def _original(folder: Path, entry: dict) -> bytes:
    path = folder / (entry["from"] if "from" in entry else f"{ORIGINALS}/{entry['file']}")
    if not path.is_file():
        raise OctkitError(f"{path}: not found, expected it as octkit wrote it")
    data = _made(folder, entry) if "from" in entry else path.read_bytes()
    if data is None or hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise OctkitError(f"{path}: has changed since octkit wrote it, so that {entry['file']} cannot be made again; "
                          f"without {MANIFEST} the data set is taken in as it is now")
    return data


def _manifest(path: Path) -> list[dict]:
    content = read_json(path)
    files = content.get("files") if isinstance(content, dict) and content.get("format") == FORMAT else None
    if not isinstance(files, list) or not files or content.get("version") != 1:
        raise OctkitError(f"{path}: is no {MANIFEST} of a data set in version 1, expected what export-nnunet leaves")
    for entry in files:
        names = [entry.get("file"), entry.get("from", "-")] if isinstance(entry, dict) else [None]
        if not all(isinstance(name, str) and _inside(name) for name in names) or not _says_how(entry):
            raise OctkitError(f"{path}: found the entry {str(entry)[:80]}, expected a file within the folder")
    return files


def _says_how(entry: dict) -> bool:
    """Whether an entry's checksum, slice and greys are of the kinds that `_made` takes."""
    coding, number = entry.get("coding", {}), entry.get("slice", 0)
    return (isinstance(entry.get("sha256"), str) and type(number) is int and number >= 0 and isinstance(coding, dict)
            and all(label.isascii() and label.isdecimal() and len(label) < 4 and int(label) < 256
                    and type(value) is int and 0 <= value < 256 for label, value in coding.items()))


def _inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and not PurePosixPath(name).is_absolute() and not set(parts) & {"..", "\0"} and "\\" not in name
