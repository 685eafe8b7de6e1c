"""Heidelberg's files: .vol (the raw export of HEYEX), .E2E and the XML export, without who was examined and when.

.vol is parsed by eyepy; its EyeVolume is not used, as it refuses circle scans. What says who was examined and when is
blanked in memory before the file is parsed, and fundus photographs are dropped. .E2E and XML are read here: eyepy drops
damaged parts of an .E2E without a word and gives pixels no scale, OCT-Converter a fixed one that is in no file.
"""

import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from octkit.common.errors import OctkitError, bad_file
from octkit.data.device_scan import UNMEASURED, DeviceScan, check_voxels, scan_of, whole_file
from octkit.data.image_files import is_image, read_image
from octkit.data.mask_values import check_size

HEADER_BYTES = 2048
# From (and with) one byte of the header to (and without) another: time of the examination; IDs of scan and reference,
# patient, birth date, visit and its date; ID of the progression.
WHO_AND_WHEN = ((88, 96), (104, 208), (224, 258))
MOST_LINES = 64  # of layers in a B-scan; Heidelberg's have 17
EYES = {"OD": "R", "OS": "L"}
LINE_SCAN, CIRCLE_SCAN, RADIAL_SCAN, VOLUMES = 1, 2, 5, (3, 4)
# Kinds of an .E2E's parts, and of its images.
LATERALITY, PREAMBLE, B_SCAN, CONTOUR, IMAGE = KINDS = 11, 3, 10004, 10019, 1073741824
PIXELS = 35652097
EMPTY = 1.99  # above it an .E2E marks what was not measured
NEAR = 0.03  # how far two lengths may differ that should be one
ACQUIRED = "OphthalmicAcquisitionContext/"  # what an XML export says of a B-scan
FACTS = ("ScaleY", "ScaleX", "Height", "Width", "Start/Coord/X", "Start/Coord/Y", "End/Coord/X", "End/Coord/Y")


def open_vol(path: str | Path) -> DeviceScan:
    """Read a .vol file: a circle scan, a single line or a volume of parallel B-scans.

    Raises OctkitError for a file that is missing, none of this format or cut short, a scale that is not above 0, and
    radial scans.
    """
    from eyepy.io.he.vol_reader import vol_format

    data = _read(Path(path))
    for start, stop in WHO_AND_WHEN:
        data[start:stop] = bytes(stop - start)
    try:
        parsed = vol_format.parse(bytes(data))
        pixels = np.stack([np.asarray(b_scan.data) for b_scan in parsed.bscans])
        lines = _stacked([_named(enumerate(map(np.asarray, b_scan.layer_segmentations))) for b_scan in parsed.bscans])
    except Exception as error:  # construct raises a dozen kinds for what a damaged header may ask for
        raise OctkitError(f"{path}: is damaged ({str(error).splitlines()[-1]}), expected a whole .vol file") from None
    if parsed.scan_pattern == RADIAL_SCAN:
        raise OctkitError(f"{path}: found a radial scan, expected a circle, a line or a volume")
    if parsed.scan_pattern in (LINE_SCAN, CIRCLE_SCAN) and len(pixels) != 1:
        raise OctkitError(f"{path}: found {len(pixels)} B-scans, expected 1 in a line or a circle scan")
    return scan_of(Path(path), displayed(pixels), (parsed.distance, parsed.scale_y, parsed.scale_x),
                   EYES.get(parsed.scan_position.strip("\0 ")), parsed.scan_pattern == CIRCLE_SCAN, lines)


@dataclass(frozen=True)
class _BScan:
    """A B-scan of an .E2E file or an XML export: greys (H, W), rows of its lines (W,), where it lies."""

    image: np.ndarray
    ends: Sequence[float]  # x, y of its start and of its end: mm, or degrees
    scale: tuple[float, float | None]  # mm a row and an A-scan
    circle: bool | None
    lines: dict[str, np.ndarray]
    notes: list[str]


def open_e2e(path: Path) -> list[DeviceScan]:
    """Read an .E2E file: its volumes, and B-scans that are no even, parallel ones (circles, radial lines) one by one.

    Raises OctkitError for a file that is cut short or holds no scan, or what numpy and struct raise for a damaged one.
    """
    data = whole_file(path, [b"CMDb", b"E2EMultipleVolumeFile"], "Heidelberg's .E2E format")
    series: dict[tuple, dict[int, list]] = {}
    for who, number, kind, content in _parts(path, data[64:] if data[:1] == b"E" else data):
        if kind != IMAGE or struct.unpack_from("<I", content, 4) == (PIXELS,):
            series.setdefault(who, {kind: [] for kind in KINDS})[kind].append((number, content))
    scans = []
    for _, parts in sorted(series.items()):  # directories come last first
        sides = [*(part[14] for _, part in parts[LATERALITY]), *(part[4] for _, part in parts[PREAMBLE])]
        eye = next((chr(side) for side in sides if chr(side) in "RL"), None)
        images = dict(parts[IMAGE])
        # Start and end x, y, mm a row, place in the scan, pattern, centre x, y; number of the slice.
        about = [(*struct.unpack_from("<4f8xf28x2I2f", part, 12), number)
                 for number, part in dict(parts[B_SCAN]).items() if number in images]
        b_scans = [_e2e_b_scan(path, facts, images[facts[-1]], [line for number, line in parts[CONTOUR]
                                                                if number == facts[-1]], len(about))
                   for facts in sorted(about, key=lambda facts: facts[5])]
        scans += _together(path, b_scans, eye, any(facts[6] in VOLUMES for facts in about))
    if not scans:
        raise bad_file(path, "holds no scan", "expected a circle, a line or a volume")
    return scans


def _parts(path: Path, data: memoryview) -> Iterator[tuple]:
    """An .E2E file's parts: (person, visit, series), slice, kind, content; of the patient's data and dates none."""
    (place,), entries, seen = struct.unpack_from("<I", data, 76), 0, set()
    while place:
        seen.add(place)
        count, _, before = struct.unpack_from("<3I", data[place:place + 52].tobytes().ljust(52, b"\0"), 36)
        entries += count
        if place + 52 + 44 * count > len(data) or 44 * entries > len(data) or before in seen:
            raise bad_file(path, f"should have a directory at byte {place}, and has {len(data)} bytes; the file is cut "
                           "short", "expected a whole .E2E file")
        for entry in range(place + 52, place + 52 + 44 * count, 44):
            header, start, size, _, *who, number, _, _, kind, _ = struct.unpack_from("<4I4i2H2I", data, entry)
            if kind in KINDS and start > header:
                if start + 60 + size > len(data):
                    raise bad_file(path, f"should have {size} bytes at byte {start}, and has {len(data)}; the file is "
                                   "cut short", "expected a whole .E2E file")
                yield tuple(who), number, kind, data[start + 60:start + 60 + size]
        place = before


def _e2e_b_scan(path: Path, about: tuple, image: memoryview, contours: Iterable[memoryview], count: int) -> _BScan:
    """A B-scan from what its file says `about` it; `count` is how many its series has."""
    *ends, mm, _, pattern, centre_x, centre_y, _ = about
    height, width = struct.unpack_from("<2I", image, 12)
    check_voxels(path, (count, height, width))
    if not (mm > 0 and math.isfinite(mm)):
        raise bad_file(path, f"found the scale {mm:g} mm a row", "expected a length above 0")
    # 6 bits of exponent, then 10 of mantissa, no sign; eyepy takes the mantissa's bits in reverse order.
    stored = np.frombuffer(image, "<u2", height * width, 20)
    raw = np.ldexp(1 + (stored & 1023) / 1024, (stored >> 10).astype(int) - 63)
    rows, notes = [], []
    for contour in contours:
        line, _, values = struct.unpack_from("<3I", contour, 4)
        if values != width or len(contour) < 16 + 4 * width:
            notes.append(f"line {line} is left out: it has {values} values, the image {width} A-scans")
            continue
        # They end the part. Before them come 16 bytes or more: read from byte 16, a circle's are turned.
        drawn = np.frombuffer(contour[-4 * width:], "<f4").astype(float)
        rows.append((line, np.where(drawn > 0, drawn, np.nan)))
    long = (f"a circle of {2 * math.dist(ends[:2], (centre_x, centre_y)):.3g} degrees" if pattern == CIRCLE_SCAN
            else f"{math.dist(ends[:2], ends[2:]):.3g} degrees long")
    notes.append(f"its rows are {1000 * mm:.4g} um apart, across the file states angles alone ({long}, {width} "
                 f"A-scans): of a single B-scan --um-per-px {1000 * mm:.4g} X, X as HEYEX shows it")
    return _BScan(displayed(np.where(raw > EMPTY, 0, raw)).reshape(height, width), ends, (mm, None),
                  pattern == CIRCLE_SCAN, _named(rows), notes)


def open_xml(path: Path) -> list[DeviceScan]:
    """Read HEYEX's XML export with the B-scans beside it: parallel ones as a volume, all others one by one.

    Raises OctkitError where it is no such export, lacks a number or a B-scan, or what the XML reader raises.
    """
    from defusedxml.ElementTree import fromstring

    scans = []
    root = fromstring(bytes(whole_file(path, [b"<", b"\xef\xbb\xbf<"], "HEYEX's XML export")))
    for series in root.iter("Series"):
        b_scans = series.findall(".//ImageType[Type='OCT']..")
        eye = {"R": "R", "L": "L"}.get((series.findtext("Laterality") or "").strip())
        scans += _together(path, [_xml_b_scan(path, b_scan, len(b_scans)) for b_scan in b_scans], eye)
    if not scans:
        raise bad_file(path, "holds no B-scan", "expected HEYEX's XML export")
    return scans


def _xml_b_scan(path: Path, b_scan: Any, count: int) -> _BScan:
    facts = {name: b_scan.findtext(ACQUIRED + name) for name in FACTS}
    if missing := [name for name, text in facts.items() if text is None]:
        raise bad_file(path, f"states no {missing[0]} of a B-scan", "expected HEYEX's XML export")
    mm, lateral, height, width, *ends = map(float, facts.values())
    check_voxels(path, (count, int(height), int(width)))
    file = path.parent / (b_scan.findtext("ImageData/ExamURL") or "").replace("\\", "/").rpartition("/")[2]
    if not is_image(file):
        raise bad_file(path, "names no image for a B-scan", "expected the XML export with its B-scans")
    check_size(file, (image := read_image(file)[0]).shape, (int(height), int(width)), path)
    across, length = math.dist(ends[:2], ends[2:]), lateral * width  # of a circle, from its start to its centre
    circle = (True if abs(2 * math.pi * across - length) < NEAR * length
              else False if abs(across - length) < NEAR * length else None)
    lines, notes = dict[str, np.ndarray](), []
    for line in b_scan.iterfind(".//SegLine"):
        name, rows = (line.findtext("Name") or "").strip(), np.array((line.findtext("Array") or "").split(), float)
        if len(rows) == width and len(lines) < MOST_LINES and name.isidentifier():
            lines[name] = rows
        else:
            notes.append(f"a line is left out: it has {len(rows)} values, the image {width:g} A-scans")
    return _BScan(image, ends, (mm, lateral), circle, lines, notes)


def _together(path: Path, b_scans: Sequence[_BScan], eye: str | None, volume: bool = False) -> list[DeviceScan]:
    """Scans of B-scans: those that are parallel and evenly apart, or said to be a `volume`, as one; others alone."""
    flat = [one for one in b_scans if not one.circle]
    step, scans, groups = _step(flat), [], [[one] for one in b_scans]
    if flat and (step or volume):
        groups = [flat, *([one] for one in b_scans if one.circle)]
    for group in groups:
        first, notes = group[0], [note for one in group for note in one.notes]
        mm, lateral = first.scale
        if any(one.image.shape != first.image.shape for one in group):
            raise bad_file(path, "holds B-scans of several sizes in one scan", "expected one size")
        if (circle := first.circle if len(group) == 1 else False) is None:
            notes.append("whether it is a circle or a line does not follow from its ends")
        scans.append(scan_of(path, np.stack([one.image for one in group]),
                             None if lateral is None else (step or 0, mm, lateral), eye, circle,
                             _stacked([one.lines for one in group]), notes))
    return scans


def _step(b_scans: Sequence[_BScan]) -> float | None:
    """mm (or degrees) from one B-scan to the next where all are parallel, of one scale and evenly apart; else None."""
    if len(b_scans) < 2 or len({(one.scale, one.image.shape[1]) for one in b_scans}) > 1:
        return None
    ends = np.array([one.ends for one in b_scans])
    along, steps = ends[:, 2:] - ends[:, :2], np.diff(ends[:, :2], axis=0)
    length = math.hypot(*along[0])
    apart = (steps[:, 0] * along[0, 1] - steps[:, 1] * along[0, 0]) / length if length else np.zeros(1)
    even = np.allclose(along, along[0], atol=NEAR * length) and np.allclose(apart, apart[0], rtol=NEAR, atol=0)
    return float(np.abs(apart).mean()) if even and apart[0] else None


def _named(lines: Iterable[tuple[int, np.ndarray]]) -> dict[str, np.ndarray]:
    """Lines by Heidelberg's names. Raises ValueError where there are more than a retina has."""
    from eyepy.io.he.vol_reader import SEG_MAPPING

    names = {number: name for name, number in SEG_MAPPING.items()}
    found = {names.get(number, f"line_{number}"): line for number, line in lines}
    if len(found) > MOST_LINES:  # a small file could state any number, and fill the memory
        raise ValueError(f"it states {len(found)} lines of layers")
    return found


def _stacked(b_scans: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Lines (W,) of each B-scan as (B-scans, W) by name, nan where a B-scan has none."""
    one_each = {name: line for lines in b_scans for name, line in lines.items()}
    return {name: np.stack([lines.get(name, np.full(len(line), np.nan)) for lines in b_scans])
            for name, line in one_each.items()}


def displayed(intensity: np.ndarray) -> np.ndarray:
    """The device's raw intensity as grey values: round(clip(I, 0, 1)^0.25 · 255), float32.

    The fourth root is the usual display transform of Spectralis scans. What the device did not measure is 0.
    """
    measured = np.isfinite(intensity) & (intensity < UNMEASURED)
    return np.round(np.clip(np.where(measured, intensity, 0), 0, 1) ** 0.25 * 255).astype(np.float32)


def _read(path: Path) -> bytearray:
    """A .vol file's bytes, as many as its header needs: a cut file is the most frequent damage."""
    data = bytearray(whole_file(path, [b"HSF-OCT"], "Heidelberg's .vol format"))
    if len(data) < HEADER_BYTES:
        raise OctkitError(f"{path}: found {len(data)} bytes, expected a header of {HEADER_BYTES}")
    width, b_scans, height = struct.unpack_from("<3I", data, 12)
    slo_width, slo_height = struct.unpack_from("<2I", data, 48)
    (b_scan_header,) = struct.unpack_from("<I", data, 100)
    if not (width and b_scans and height):
        raise OctkitError(f"{path}: found {b_scans} B-scans of {height} x {width} px, expected at least one pixel")
    needed = HEADER_BYTES + slo_width * slo_height + b_scans * (b_scan_header + 4 * height * width)
    if len(data) < needed:
        raise OctkitError(f"{path}: found {len(data)} bytes, expected {needed} for {b_scans} B-scans of {height} x "
                          f"{width} px; the file is cut short")
    return data
