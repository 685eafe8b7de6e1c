"""Topcon's .fda and .fds files: named chunks, of which those with the patient, dates and fundus are passed over.

What is known of the format was found out by others (uocte, OCT-Converter, RETIMAT). Libraries are not used: those that
there are stop at numpy 2.3, which no longer has what they call.
"""

import io
import re
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from octkit.common.errors import bad_file
from octkit.data.device_scan import DeviceScan, check_voxels, scan_of, whole_file

CHUNKS = ("@IMG_JPEG", "@IMG_SCAN_03", "@IMG_MOT_COMP_03", "@PARAM_SCAN_04", "@PARAM_SCAN_02", "@CAPTURE_INFO_02",
          "@CAPTURE_INFO", "@CONTOUR_INFO")
LINE, VOLUME = 0, 2  # patterns of scanning; of the others (radial, sets of lines) nobody has written down the geometry
LINES = {"RETINA_1": "ILM", "RETINA_4": "BM", "MULTILAYERS_1": "ILM", "MULTILAYERS_2": "RNFL", "MULTILAYERS_3": "GCL",
         "MULTILAYERS_4": "IPL", "MULTILAYERS_7": "BM", "MULTILAYERS_8": "INL"}
CLEARLY = 1.25  # times as much contrast along the ILM: then the order of its B-scans is settled


def open_topcon(path: Path) -> list[DeviceScan]:
    """Read a .fda or .fds file: a line scan or a volume. Raises OctkitError, or what numpy and Pillow raise."""
    data = whole_file(path, [b"FOCT"], "Topcon's .fda or .fds format")
    chunks: dict[str, list[memoryview]] = {name: [] for name in CHUNKS}
    place = 15
    while place < len(data) and (length := data[place]):
        start = place + 5 + length
        name = bytes(data[place + 1:start - 4]).decode("ascii", "replace")
        place = start + struct.unpack_from("<I", data, start - 4)[0]
        if place > len(data):
            raise bad_file(path, f"ends within {name if name in CHUNKS else 'a chunk'}; the file is cut short",
                           "expected a whole file")  # another name may be anything that damage moved here
        chunks.get(name, []).append(data[start:place])
    pattern, image, notes = _image(path, chunks)
    if pattern not in (LINE, VOLUME) or pattern == LINE and len(image) > 1:
        raise bad_file(path, f"found {len(image)} B-scans of Topcon's pattern {pattern}",
                       "expected a line (0, one B-scan) or a volume (2)")
    lines, more = _lines(image, chunks["@CONTOUR_INFO"])
    sides = chunks["@CAPTURE_INFO_02"] or chunks["@CAPTURE_INFO"]
    eye = {b"\0": "R", b"\1": "L"}.get(bytes(sides[0][:1])) if sides else None
    spacing = None
    for scale in (*(chunk[21:] for chunk in chunks["@PARAM_SCAN_02"]), *(one[12:] for one in chunks["@PARAM_SCAN_04"])):
        long, broad, um = struct.unpack_from("<3d", scale)  # mm of the whole scan, um a row
        spacing = broad / len(image), um / 1000, long / image.shape[2]
    if spacing is None:
        notes.append("it has no chunk PARAM_SCAN, which states the scale")
    return [scan_of(path, image, spacing, eye, False, lines, notes + more)]


def _image(path: Path, chunks: Mapping[str, list[memoryview]]) -> tuple[int, np.ndarray, list[str]]:
    """Pattern of scanning, pixels (B-scans, H, W) float32, notes."""
    for chunk in chunks["@IMG_JPEG"]:
        pattern, width, height, count = struct.unpack_from("<B8x3I", chunk)
        check_voxels(path, (count, height, width))
        place, image = 25, np.zeros((count, height, width), np.float32)
        for b_scan in image:
            (size,) = struct.unpack_from("<I", chunk, place)
            with Image.open(io.BytesIO(chunk[place + 4:place + 4 + size]), formats=["JPEG2000", "JPEG"]) as picture:
                if picture.size != (width, height) or picture.mode != "L":  # before it is decoded
                    raise bad_file(path, f"holds a B-scan of {picture.size} px in mode {picture.mode}",
                                   f"expected grey ones of {width} x {height} px as it states")
                b_scan[:] = np.asarray(picture)
            place += 4 + size
        return pattern, image, []
    raw = "@IMG_SCAN_03" if chunks["@IMG_SCAN_03"] else "@IMG_MOT_COMP_03"
    for chunk in chunks[raw]:
        pattern, width, height, bits, count = struct.unpack_from("<B4I", chunk)
        check_voxels(path, (count, height, width))
        if bits != 16 or len(chunk) < 22 + 2 * count * height * width:
            raise bad_file(path, f"holds {len(chunk)} bytes of pixels of {bits} bits",
                           f"expected {count} B-scans of {height} x {width} px of 16 bits")
        pixels = np.frombuffer(chunk, "<u2", count * height * width, 22).reshape(count, height, width)
        notes = [f"grey values as stored, up to {pixels.max()}: nothing says which is white"]
        return pattern if raw == "@IMG_SCAN_03" else VOLUME, pixels.astype(np.float32), notes
    raise bad_file(path, "holds no B-scans (chunk IMG_JPEG, IMG_SCAN_03 or IMG_MOT_COMP_03)", "expected some")


def _lines(image: np.ndarray, contours: list[memoryview]) -> tuple[dict[str, np.ndarray], list[str]]:
    """The device's lines, (B-scans, W) rows from the top, and what was left out.

    They are stored as rows from the bottom. Readers of others turn the order of their B-scans round, the one public
    file shows them unturned: the order is taken in which the ILM follows the image, or the lines are left out.
    """
    lines, others = {}, []
    for contour in contours:
        name = bytes(contour[:20]).split(b"\0")[0].decode("ascii", "replace")
        name = name if re.fullmatch(r"(RETINA|MULTILAYERS|FLA)_\d+", name) else "of another name"  # damage moves texts
        kind, width, count = struct.unpack_from("<H2I", contour, 20)
        if kind != 0 or (count, width) != image.shape[::2]:
            others.append(name)
            continue
        stored = np.frombuffer(contour, "<u2", count * width, 34).reshape(count, width).astype(float)
        drawn = (stored > 0) & (stored < image.shape[1])  # else a value says that there is none
        lines[LINES.get(name, name)] = np.where(drawn, image.shape[1] - 1 - stored, np.nan)
    notes = [f"lines of other B-scans are left out: {', '.join(others)}"] if others else []
    if lines and len(image) > 1:
        as_stored, turned = (_contrast(image, lines[name][::way]) if (name := "ILM") in lines else 0 for way in (1, -1))
        if max(as_stored, turned) <= CLEARLY * max(min(as_stored, turned), 0):
            return {}, [*notes, "lines are left out: the order of their B-scans is not clear"]
        if turned > as_stored:
            lines = {name: line[::-1] for name, line in lines.items()}
    return lines, notes


def _contrast(image: np.ndarray, line: np.ndarray) -> float:
    """How much brighter it is, on average, two rows below a line than two rows above it."""
    rows = np.clip(np.nan_to_num(line).astype(int), 2, image.shape[1] - 3)[:, None]
    below, above = (np.take_along_axis(image, rows + step, 1)[:, 0] for step in (2, -2))
    return float(np.mean((below - above)[np.isfinite(line)])) if np.isfinite(line).any() else 0
