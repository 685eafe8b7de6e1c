"""Volumes on disk: NIfTI files, and folders of B-scan images with their spacing in a small JSON.

    0001.nii.gz                 one volume; the header says how far apart its voxels are
    0001/1.png, 2.png, …        the B-scans in the order of their numbers, all of one size
    0001/spacing.json           {"spacing": [between B-scans, between rows, between A-scans]}, in mm

Arrays are (B-scans, rows, A-scans): a NIfTI file's first axis is its fastest, so its axes are reversed here. A NIfTI
file of a single slice is a 2-D scan. A B-scan's number is the last run of digits that differs between the files' names
("10" sorts before "2" as text): 7 of scan-7.png, of 0007.png, of 7_of_12.png.
"""

import gzip
import io
import re
from collections.abc import Iterable, Mapping
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from octkit.common.errors import OctkitError, bad_file, by, no_file
from octkit.common.files import listing, read_json_as, replacing
from octkit.common.memory import check_content
from octkit.data import geometry
from octkit.data.geometry import AS_STORED
from octkit.data.image_files import is_image, read_header, read_image, read_mask
from octkit.data.mask_values import check_size, decode

NIFTI_ENDINGS = (".nii.gz", ".nii")
SPACING_FILE = "spacing.json"
MAX_VOXELS = 1_000_000_000  # a volume of 200 x 1000 x 1000 voxels is a fifth of it
MAX_OFFSET = 1_000_000  # bytes of a NIfTI file before its voxels: others' notes, which nibabel reads one by one
MOST_PACKED = 1100  # times: no gzip archive unpacks to more
NEARLY_WHOLE = 1e-3  # a label times a slope, both of 32 bits, is off by 1e-5; no interpolated value comes so close
COPIES = 2  # of the values in float32: as read, and turned
WHOLE = "expected a whole volume: copy it again from where it came"
# How far two spacings may differ where they alone tell whether two volumes belong together: people round them.
ROUNDED = 0.05
ALIKE = "expected B-scans whose names differ in one number alone, such as scan-1.png and scan-12.png: rename them"


class _Spacing(BaseModel, strict=True):
    """What spacing.json must hold, and what nnU-Net wants beside a TIFF volume."""

    spacing: list[float] = Field(min_length=3, max_length=3)


def is_nifti(path: Path) -> bool:
    return Path(path).name.lower().endswith(NIFTI_ENDINGS)


def is_stack(path: Path) -> bool:
    """Whether a folder is one volume: B-scans with their spacing."""
    return (Path(path) / SPACING_FILE).is_file()


def volume_size(path: Path) -> tuple[int, ...]:
    """Voxels an axis, (B-scans, rows, A-scans), from headers alone; (rows, A-scans) for a NIfTI of one slice."""
    if is_nifti(path):
        return _nifti_shape(_load_nifti(path), path)
    files = b_scans(path)
    return (len(files), *read_header(files[0]).size)


def volume_spacing(path: Path) -> tuple[float, ...]:
    """mm between voxels, one number an axis of `volume_size`. Raises OctkitError where one is not above 0."""
    where = path if is_nifti(path) else Path(path) / SPACING_FILE
    if is_nifti(path):
        volume = _load_nifti(path)
        axes = len(_nifti_shape(volume, path))
        with (gzip.open if is_packed(path) else open)(path, "rb") as file:  # as stated: nibabel changes negatives and 0
            stored = type(volume.header).from_fileobj(file, check=False)["pixdim"][1:axes + 1]
        scale = geometry.MM_PER_UNIT.get(int(volume.header["xyzt_units"]) % 8, 1.0)  # where it is not stated, mm
        spacing = tuple(float(size) * scale for size in stored[::-1])
    else:
        if not where.exists():
            raise no_spacing(path)
        spacing = stated_spacing(where)
    if not all(np.isfinite(s) and s > 0 for s in spacing):
        raise bad_file(where, f"found the spacing {', '.join(f'{s:g}' for s in spacing)}", "expected mm above 0")
    return spacing


def stated_scale(path: Path) -> tuple[float, ...] | None:
    """`volume_spacing`; None, for unknown, where it would make the scan deeper than any (`geometry.DEEPEST`)."""
    spacing = volume_spacing(path)
    return spacing if volume_size(path)[-2] * spacing[-2] <= geometry.DEEPEST else None


def stated_spacing(path: Path) -> tuple[float, ...]:
    """The spacing in mm that a JSON file states. Raises OctkitError where it does not."""
    expected = 'expected {"spacing": [between B-scans, between rows, between A-scans]}, in mm'
    return tuple(read_json_as(path, _Spacing, expected).spacing)


def no_spacing(folder: Path) -> OctkitError:
    """The error for B-scans of which nobody knows how far apart they are."""
    return bad_file(folder, f"found no {SPACING_FILE}", "expected it beside a volume's B-scans")


def fit(path: Path, like: Path) -> np.ndarray:
    """How a volume is turned onto the voxels of the volume `like`, from headers alone: for `read_volume`.

    NIfTI files come together by their affines. Where one of the two states no place (a folder of B-scans, a header that
    leaves it open) both are taken in the order of their files; spacings must agree as far as they are stated.
    Raises OctkitError, which names both, where the two do not have the same voxels: another size, place or spacing,
    B-scans of other numbers.
    """
    size, expected = volume_size(path), volume_size(like)
    if is_nifti(path) and is_nifti(like):
        way = geometry.way_like(path, _load_nifti(path), like, _load_nifti(like))
        if way is not None:
            return way
    elif not is_nifti(path) and not is_nifti(like):
        check_paired(b_scans(path), b_scans(like))
    check_size(path, size, expected, like)
    apart, there = (volume_spacing(one) if is_nifti(one) or is_stack(one) else (1.0,) for one in (path, like))
    if set(apart) != {1.0} != set(there) and not np.allclose(apart, there, rtol=ROUNDED, atol=0):  # 1: left open
        raise bad_file(path, f"found voxels {by(apart)} mm apart", f"expected {by(there)} mm like {like}")
    return AS_STORED


def stated_way(path: Path) -> np.ndarray:
    """The way from a NIfTI file's axes to those of space, as its header states it; as stored where it does not."""
    return geometry.way_in_space(_load_nifti(path))


def read_volume(path: Path, way: np.ndarray = AS_STORED) -> np.ndarray:
    """The values as stored, (1, *spatial) float32, or turned the `way` that `fit` gives.

    Raises OctkitError for a file that is missing, damaged, no volume, too large, or that holds values that are no
    numbers; for a folder whose B-scans differ in size.
    """
    if not is_nifti(path):
        return np.concatenate([read_image(file) for file in b_scans(path)])[None]
    volume = _load_nifti(path)
    _nifti_shape(volume, path)  # no volume or too large: before its values are read
    if volume.get_data_dtype().kind not in "iufb":  # complex numbers would lose a part, colours are no grey
        raise bad_file(path, f"found values of type {volume.get_data_dtype()}", "expected numbers")
    stated = volume.get_data_dtype().itemsize * np.prod(volume.shape, dtype=np.int64)
    if stated > (held := path.stat().st_size * (MOST_PACKED if is_packed(path) else 1)):
        raise bad_file(path, f"is damaged (states {stated} bytes of voxels and holds at most {held})", WHOLE)
    check_content(path, stated + COPIES * 4 * stated / volume.get_data_dtype().itemsize)
    try:
        values = np.asarray(volume.dataobj, dtype=np.float32)
    except Exception as error:  # gzip, zlib and nibabel raise a dozen kinds for a damaged file
        raise bad_file(path, f"is damaged ({error})", WHOLE) from None
    if count := np.count_nonzero(~np.isfinite(values)):
        raise bad_file(path, f"found {count} voxels that are nan or infinite", "expected numbers")
    return geometry.turned(values, way)[None]


def read_volume_mask(path: Path, values: Mapping[int, int], way: np.ndarray = AS_STORED) -> np.ndarray:
    """A volume of labels decoded by `values` (value in the file -> label), turned the `way`: (*spatial) uint8.

    Values of NIfTI files that are a whole number but for the rounding of a slope (0.9999999) are that number.
    Raises OctkitError as `read_volume` and `mask_values.decode`.
    """
    if is_nifti(path):
        stored = read_volume(path, way)[0]
        whole = np.rint(stored)
        return decode(path, np.where(np.abs(stored - whole) <= NEARLY_WHOLE, whole, stored), values)
    return np.stack([read_mask(file, values) for file in b_scans(path)])


def write_nifti(path: Path, array: np.ndarray, spacing: tuple[float, ...] | None = None,
                like: Path | None = None) -> None:
    """Write (*spatial) as NIfTI, whole or not at all, with the place in space of the file `like` or a `spacing`.

    The array's dtype is kept: uint8 for masks and 8-bit scans, float32 else. The same input gives the same bytes.
    """
    import nibabel

    if like is not None and is_nifti(like):
        source = _load_nifti(like)
        header, affine, stored = source.header.copy(), source.affine, array.T.reshape(source.shape)
    else:
        header, stored = nibabel.Nifti1Header(), array.T
        header.set_xyzt_units("mm")
        affine = np.diag([*(spacing or (1.0,) * array.ndim)[::-1], *(1.0,) * (4 - array.ndim)]).astype(float)
    header.set_data_dtype(array.dtype)
    header.set_slope_inter(1, 0)
    image = nibabel.Nifti1Image(np.asfortranarray(stored), affine, header)
    image.header.set_data_dtype(array.dtype)
    with replacing(path) as temporary:
        data = image.to_bytes()
        if Path(path).name.lower().endswith(".gz"):
            data = gzip.compress(data, compresslevel=4, mtime=0)
        temporary.write_bytes(data)


def _load_nifti(path: Path) -> Any:
    import nibabel

    if not Path(path).is_file():
        raise no_file(path, "a NIfTI volume")
    nibabel.imageglobals.logger.setLevel("CRITICAL")  # what is wrong with a header is ours to say
    try:
        with (gzip.open if is_packed(path) else open)(path, "rb") as file:
            start = file.read(nibabel.Nifti2Header.sizeof_hdr)
        second = nibabel.Nifti2Header.may_contain_header(start)
        kind = nibabel.Nifti2Image if second else nibabel.Nifti1Image
        header = kind.header_class(start[:kind.header_class.sizeof_hdr], check=False)
        if not header["vox_offset"] <= MAX_OFFSET:
            raise ValueError(f"its voxels begin after {header['vox_offset']:.0f} bytes, expected at most {MAX_OFFSET}")
        if is_packed(path) == Path(path).name.lower().endswith(".gz"):
            return kind.from_filename(path)
        # nibabel goes by the name, which is wrong here.
        check_content(path, 2 * Path(path).stat().st_size)
        stored = io.BytesIO(Path(path).read_bytes())
        return kind.from_stream(gzip.GzipFile(fileobj=stored) if is_packed(path) else stored)
    except OctkitError:
        raise
    except Exception as error:
        reason = error if Path(path).stat().st_size else "is empty, 0 bytes"
        raise bad_file(path, f"cannot be read as a NIfTI volume ({reason})",
                       "expected one: copy it again from where it came") from None


def is_packed(path: Path) -> bool:
    """Whether a file is a gzip archive, whatever its name ends in."""
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _nifti_shape(volume: Any, path: Path) -> tuple[int, ...]:
    shape = tuple(int(n) for n in volume.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise bad_file(path, f"found {by(shape)} voxels", "expected a volume of 3 axes (or a slice of 2)")
    if np.prod(shape, dtype=np.int64) > MAX_VOXELS:
        raise bad_file(path, f"{by(shape)} voxels are more than the limit of {MAX_VOXELS}",
                       "expected a volume that fits into memory")
    return geometry.spatial(shape)


def b_scans(folder: Path) -> list[Path]:
    """The image files of a folder in the order of their numbers, all of one size. Raises OctkitError as `by_number`."""
    files = [path for path in listing(folder, "the B-scans of a volume") if is_image(path)]
    if not files:
        raise bad_file(folder, "found no images", "expected the B-scans of a volume")
    expected = read_header(files[0]).size
    for file in files:
        if (found := read_header(file).size) != expected:
            raise bad_file(file, f"found {by(found)} px", f"expected {by(expected)} px like the volume's first B-scan")
    return list(by_number(files).values())


def by_number(files: Iterable[Path]) -> dict[int | str, Path]:
    """The B-scans of one folder by number, in ascending order; by name where no name holds a digit.

    Raises OctkitError that names two files where they have the same number, where their names differ in more than
    numbers, and where two numbers in them give different orders.
    """
    files = sorted(files)
    parts = {file: re.split(r"([0-9]+)", file.stem.casefold()) for file in files}  # text, digits, text, …, digits, text
    first = parts[files[0]]
    if all(len(part) == 1 for part in parts.values()):
        return _each_once((file.stem.casefold(), file) for file in files)
    for file in files:
        if parts[file][::2] != first[::2]:
            raise bad_file(file, f"has another kind of name than {files[0].name}", ALIKE)
    differing = [at for at in range(1, len(first), 2) if len({int(parts[file][at]) for file in files}) > 1]
    last = differing[-1] if differing else -2
    found = _each_once(sorted((int(parts[file][last]), file) for file in files))
    for one, other in pairwise(found.values()):
        # Of 0.5 and 0.12, nobody knows whether these are decimals.
        decimals = first[last - 1] == "." and len(parts[one][last]) != len(parts[other][last])
        if decimals or any(int(parts[one][at]) > int(parts[other][at]) for at in differing):
            raise bad_file(other, f"comes before or after {one.name} by one number in their names or another", ALIKE)
    return found


def check_paired(files: Iterable[Path], like: Iterable[Path]) -> None:
    """Raises OctkitError that names two files where the B-scans of two folders do not have the same numbers."""
    ours, theirs = by_number(files), by_number(like)
    for (number, file), (expected, other) in zip_longest(ours.items(), theirs.items(), fillvalue=(None, None)):
        if number != expected:
            file, other = file or list(ours.values())[-1].parent, other or list(theirs.values())[-1].parent
            raise bad_file(file, f"cannot be paired with {other}", "expected B-scans of the same numbers in both "
                           "folders: rename them, or add what is missing")


def gap(files: Iterable[Path]) -> tuple[Path, Path] | None:
    """Two neighbours between which B-scans are missing, as numbers go up by more there than elsewhere; else None."""
    numbers = [(number, file) for number, file in by_number(files).items() if isinstance(number, int)]
    steps = [(later - number, file, after) for (number, file), (later, after) in pairwise(numbers)]
    usual = min((step for step, *_ in steps), default=0)
    return next(((file, after) for step, file, after in steps if step > usual), None)


def _each_once(numbered: Iterable[tuple[int | str, Path]]) -> dict[int | str, Path]:
    found: dict[int | str, Path] = {}
    for number, file in numbered:
        if (first := found.setdefault(number, file)) != file:
            raise bad_file(file, f"{first.name} has the same number", "expected each B-scan once: rename or delete one")
    return found
