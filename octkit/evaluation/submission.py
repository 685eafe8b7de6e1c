"""A submission to GOALS: written from masks and probabilities, and checked part by part.

    submission.zip
      Layer_Segmentations/0101.png …   8-bit grey, the image's size: 0 RNFL, 80 GCIPL, 160 choroid, 255 the rest
      Classification_Results.csv       ImgName,GC_Pred (0101.png, probability of glaucoma)
"""

import io
import os
import shutil
import stat
import struct
import uuid
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from octkit.common.errors import OctkitError, cannot_write
from octkit.common.files import only_file, replacing, write_csv
from octkit.data.dataset import Dataset
from octkit.data.image_files import read_header, read_mask, write_mask
from octkit.data.labels import GOALS_GREYS
from octkit.data.matching import images_in
from octkit.evaluation.evaluate import PREDICTION_COLUMNS, in_lines, parse_predictions, read_predictions
from octkit.evaluation.metrics import THRESHOLD

MASKS = "Layer_Segmentations"
TABLE = "Classification_Results.csv"
# A GOALS mask unpacks to under 1 MB; these stop a zip bomb long before it fills the memory.
MAX_FILE_BYTES = 32 * 2**20
MAX_TOTAL_BYTES = 2 * 2**30
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_COLOURS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}


class Submission(NamedTuple):
    """What a valid submission holds: its file, its size, how many images, and how many at p >= 0.5."""

    path: Path
    bytes: int
    images: int
    called_glaucoma: int


def submit(dataset: Dataset, masks: Path, predictions: Path, out: Path) -> Submission:
    """`write_submission` for a data set's validation scans; `predictions` is a CSV with ImgName and GC_Pred.

    Raises OctkitError as that does, and for a data set that is not in the GOALS layout.
    """
    if dataset.layout != "goals" or not dataset.validation:
        raise OctkitError(f"{dataset.root}: found the layout {dataset.layout} with {len(dataset.validation)} "
                          "validation scans, expected a data set in the GOALS layout with some to submit")
    return write_submission(masks, read_predictions(predictions), dataset.root / "Validation" / "Image", out)


def write_submission(masks: Path, probabilities: Mapping[str, float], images: Path, out: Path) -> Submission:
    """Write the submission for all images of a folder: the zip `out`, and its content in a folder beside it.

    `masks` is a folder with a mask in GOALS greys for each image, of the same name; `probabilities` maps names as in
    the submission (0101.png, whatever format the image has) to the probability of glaucoma. The folder has the zip's
    name without ".zip". The same input gives the same bytes. An earlier submission is replaced when the new zip has
    passed `check_submission`.
    Raises OctkitError that lists every missing, extra or unfit mask and probability.
    """
    out = Path(out)
    if out.suffix.lower() != ".zip":
        raise OctkitError(f"{out}: found no name ending in .zip, expected the submission's zip file")
    folder = out.with_suffix("")
    if folder.exists() and not (folder.is_dir() and all(  # JupyterLab leaves hidden files
            path.name in (MASKS, TABLE) or path.name.startswith(".") for path in folder.iterdir())):
        raise OctkitError(f"{folder}: holds other things than a submission; expected it free for the zip's content")
    paths = _by_png(images)
    labels = _gather(Path(masks), probabilities, paths)
    building = out.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        for name, mask in labels.items():
            write_mask(building / MASKS / name, mask, GOALS_GREYS)
        rows = [(name, np.format_float_positional(probabilities[name], trim="0")) for name in sorted(paths)]
        write_csv(building / TABLE, PREDICTION_COLUMNS, rows)
        with replacing(out) as temporary:
            _zip(building, temporary)
            checked = check_submission(temporary, images)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(building, folder)
    except OSError as error:
        raise cannot_write(out, error) from None
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return checked._replace(path=out)


def check_submission(path: Path, images: Path) -> Submission:
    """Check a submission's zip against the folder of images that it is for.

    Raises OctkitError with a line for every deviation, each with its reason: the zip and its members, names
    and places, missing and extra files, PNG format, sizes, grey values, columns, rows and probabilities.
    """
    path = Path(path)
    sizes = {name: read_header(image).size for name, image in _by_png(images).items()}
    try:
        with zipfile.ZipFile(only_file(path, "a submission's zip file")) as archive:
            problems, table = _check_members(archive, sizes)
    except FileNotFoundError:
        raise OctkitError(f"{path}: not found, expected a submission's zip file") from None
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError, struct.error) as error:
        raise OctkitError(f"{path}: is not a zip file that can be opened ({error})") from None
    if problems:
        raise OctkitError(in_lines(f"{path}: is no valid submission, {len(problems)} found", problems))
    return Submission(path, path.stat().st_size, len(sizes), sum(p >= THRESHOLD for p in table.values()))


def _by_png(folder: Path) -> dict[str, Path]:
    """A folder's images or masks by the names of their masks in a submission."""
    return {f"{name}.png": path for name, path in images_in(folder).items()}


def _gather(masks: Path, probabilities: Mapping[str, float], images: dict[str, Path]) -> dict[str, np.ndarray]:
    """The masks by image name; all that is wrong with masks and probabilities ends in one error."""
    found = _by_png(masks)
    problems = [f"{masks / name}: has no image of this name" for name in found if name not in images]
    problems += [f"probabilities: {name} is no image of the set" for name in probabilities if name not in images]
    problems += [f"probabilities: {name} is missing" for name in images if name not in probabilities]
    problems += [f"probabilities: found {p} for {name}, expected 0 to 1" for name, p in probabilities.items()
                 if not 0 <= p <= 1]
    problems += [f"{masks / name}: not found, expected a mask for each image" for name in images if name not in found]
    labels = {}
    for name in [name for name in images if name in found]:
        try:
            labels[name] = read_mask(found[name], GOALS_GREYS, shape=read_header(images[name]).size)
        except OctkitError as error:
            problems.append(str(error))
    if problems:
        raise OctkitError(in_lines("the submission cannot be written", problems))
    return labels


def _zip(folder: Path, path: Path) -> None:
    """Zip a folder the same way on any day and machine: sorted, stored (PNGs are packed already), one date."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            member = zipfile.ZipInfo(file.relative_to(folder).as_posix(), (1980, 1, 1, 0, 0, 0))
            member.create_system, member.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            archive.writestr(member, file.read_bytes())


def _check_members(archive: zipfile.ZipFile, sizes: dict[str, tuple[int, int]]) -> tuple[list[str], dict[str, float]]:
    members = [member for member in archive.infolist() if member.filename != f"{MASKS}/"]
    counts = Counter(member.filename for member in members)
    masks = {f"{MASKS}/{name}": size for name, size in sizes.items()}
    problems = [f"{name}: stands {n} times in the zip, expected once" for name, n in counts.items() if n > 1]
    problems += [f"{name}: missing" for name in (TABLE, *masks) if name not in counts]
    table: dict[str, float] = {}
    # The sizes that the members state. No more than that is read, so the sum bounds the work.
    if (total := sum(member.file_size for member in members)) > MAX_TOTAL_BYTES:
        return [*problems, f"unpacks to {total} bytes, expected at most {MAX_TOTAL_BYTES}"], table
    for member in members:
        name = member.filename
        wrong: list[str] = []
        if name not in masks and name != TABLE:
            wrong = [_misplaced(name, len(sizes))]
        elif isinstance(data := _read(archive, member), str):
            wrong = [data]
        elif name != TABLE:
            wrong = _check_mask(data, masks[name])
        else:
            table, wrong = parse_predictions(data)
            if table or not wrong:
                wrong += [f"{image} has no row" for image in sizes if image not in table]
                wrong += [f"found a row for {row!r}, expected names of images only (such as {min(sizes)})"
                          for row in table if row not in sizes]
        problems += [f"{name}: {why}" for why in wrong]
    return problems, table


def _misplaced(name: str, images: int) -> str:
    """Why a member that is neither a mask nor the table must not be in the zip."""
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or name[1:2] == ":":
        return "is an absolute path, expected paths relative to the zip's top"
    if ".." in parts:
        return "climbs out of the folder with .., expected plain paths"
    if "\\" in name:
        return "has backslashes in its path, expected /"
    if parts[0] == "__MACOSX" or parts[-1].startswith("."):
        return "is a left-over of the operating system, expected the submission's files only"
    if TABLE in parts or (MASKS in parts and parts[0] != MASKS):
        return f"lies in a folder, expected {MASKS}/ and {TABLE} at the zip's top"
    if parts[0] == MASKS and len(parts) == 2:
        return f"has no image of this name among the {images} images"
    return f"is not expected; a submission holds {MASKS}/<image name> and {TABLE} only"


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes | str:
    """The member's bytes, or why they cannot be had."""
    if stat.S_ISLNK(member.external_attr >> 16):
        return "is a symbolic link, expected a plain file"
    if member.flag_bits & 1:
        return "is encrypted, expected a plain file"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"is packed by method {member.compress_type}, expected deflated (8) or stored (0)"
    if member.file_size > MAX_FILE_BYTES:
        return f"unpacks to {member.file_size} bytes, expected at most {MAX_FILE_BYTES}"
    try:
        # Reading up to a number, not to the end: a member that lies about its size is unpacked no further.
        with archive.open(member) as file:
            return file.read(MAX_FILE_BYTES + 1)
    except Exception as error:  # zipfile and zlib each raise their own kinds for damaged data
        return f"is damaged in the zip ({error})"


def _check_mask(data: bytes, size: tuple[int, int]) -> list[str]:
    """What is wrong with a mask's PNG. Its header is read first, so that a huge picture is never decoded."""
    if data[:8] != PNG_SIGNATURE or data[12:16] != b"IHDR" or len(data) < 33:
        return ["is not a PNG file"]
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    problems = []
    if (depth, colour) != (8, 0):
        problems.append(f"is {depth}-bit {PNG_COLOURS.get(colour, 'of unknown colour type')}, expected 8-bit grey")
    if (height, width) != size:
        problems.append(f"is {height} x {width} px, expected {size[0]} x {size[1]} px like its image")
    if problems:
        return problems
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.verify()  # the chunks' checksums, which decoding does not look at
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            values = np.unique(np.asarray(image)).tolist()
    except Exception as error:  # Pillow raises a dozen kinds for damaged data
        return [f"is a damaged PNG ({error})"]
    foreign = [value for value in values if value not in GOALS_GREYS]
    some = f"{foreign[:5]}{f' and {len(foreign) - 5} more' * (len(foreign) > 5)}"
    return [f"found the grey values {some}, expected only {sorted(GOALS_GREYS)}"] if foreign else []
