"""Heidelberg's files: .vol (the raw export of HEYEX), .E2E and the XML export, without who was examined and when.

.vol is parsed by eyepy; its EyeVolume is not used, as it refuses circle scans. What says who was examined and when is
blanked in memory before the file is parsed, and fundus photographs are dropped. .E2E and XML are read here: eyepy drops
damaged parts of an .E2E without a word and gives pixels no scale, OCT-Converter a fixed one that is in no file.
"""

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from octkit.common.errors import OctkitError, bad_file
from octkit.data.device_scan import DeviceScan, check_voxels, checked_spacing, whole_file
from octkit.data.image_files import is_image, read_image
from octkit.data.mask_values import check_size

HEADER_BYTES = 2048
# From (and with) one byte of the header to (and without) another: time of the examination; IDs of scan and reference,
# patient, birth date, visit and its date; ID of the progression.
WHO_AND_WHEN = ((88, 96), (104, 208), (224, 258))
# The device marks what it did not measure with the largest float32, 3.4e38.
MOST_LINES = 64  # of layers in a B-scan; Heidelberg's have 17
UNMEASURED = 3e38
EYES = {"OD": "R", "OS": "L"}
LINE_SCAN, CIRCLE_SCAN, RADIAL_SCAN, VOLUMES = 1, 2, 5, (3, 4)
# Kinds of an .E2E's parts, and of its images.
LATERALITY, PREAMBLE, B_SCAN, CONTOUR, IMAGE = 11, 3, 10004, 10019, 1073741824
PIXELS = 35652097
EMPTY = 1.99  # above it an .E2E marks what was not measured
NEAR = 0.03  # how far two lengths may differ that should be one


def open_vol(path: str | Path) -> DeviceScan:
    """Read a .vol file: a circle scan, a single line or a volume of parallel B-scans.

    Raises OctkitError for a file that is missing, none of this format or cut short, a scale that is not above 0, and
    radial scans.
    """
    from eyepy.io.he.vol_reader import SEG_MAPPING, vol_format

    data = _read(Path(path))
    for start, stop in WHO_AND_WHEN:
        data[start:stop] = bytes(stop - start)
    try:
        parsed = vol_format.parse(bytes(data))
        pixels = np.stack([np.asarray(b_scan.data) for b_scan in parsed.bscans])
        lines = _lines([np.asarray(b_scan.layer_segmentations) for b_scan in parsed.bscans],
                       {number: name for name, number in SEG_MAPPING.items()})
    except Exception as error:  # construct raises a dozen kinds for what a damaged header may ask for
        raise OctkitError(f"{path}: is damaged ({str(error).splitlines()[-1]}), expected a whole .vol file") from None
    spacing: tuple[float, ...] = (parsed.distance, parsed.scale_y, parsed.scale_x)
    if parsed.scan_pattern == RADIAL_SCAN:
        raise OctkitError(f"{path}: found a radial scan, expected a circle, a line or a volume")
    if parsed.scan_pattern in (LINE_SCAN, CIRCLE_SCAN) and len(pixels) != 1:
        raise OctkitError(f"{path}: found {len(pixels)} B-scans, expected 1 in a line or a circle scan")
    if len(pixels) == 1:
        pixels, spacing, lines = pixels[0], spacing[1:], {name: line[0] for name, line in lines.items()}
    return DeviceScan(displayed(pixels)[None], checked_spacing(Path(path), spacing),
                      EYES.get(parsed.scan_position.strip("\0 ")), parsed.scan_pattern == CIRCLE_SCAN, lines)


def open_e2e(path: Path) -> list[DeviceScan]:
    """Read an .E2E file: its volumes, and B-scans that are no even, parallel ones (circles, radial lines) one by one.

    Raises OctkitError for a file that is cut short or holds no scan, or what numpy and struct raise for a damaged one.
    """
    from eyepy.io.he.vol_reader import SEG_MAPPING

    data = memoryview(whole_file(path, [b"CMDb", b"E2EMultipleVolumeFile"], "Heidelberg's .E2E format"))
    series: dict[tuple, list] = {}
    for who, *part in _parts(path, data[64:] if data[:1] == b"E" else data):
        series.setdefault(who, []).append(part)
    scans, names = [], {number: name for name, number in SEG_MAPPING.items()}
    for _, parts in sorted(series.items()):  # directories come last first
        kinds: dict[int, dict[int, memoryview]] = {B_SCAN: {}, IMAGE: {}, LATERALITY: {}, PREAMBLE: {}}
        for slice_number, kind, content in parts:
            if kind in kinds and (kind != IMAGE or struct.unpack_from("<I", content, 4) == (PIXELS,)):
                kinds[kind][slice_number] = content
        sides = [*(part[14] for part in kinds[LATERALITY].values()), *(part[4] for part in kinds[PREAMBLE].values())]
        eye = next((chr(side) for side in sides if chr(side) in "RL"), None)
        about = {number: (*struct.unpack_from("<4f8xf28x2I2f", part, 12), number)  # … its place in the scan, pattern
                 for number, part in kinds[B_SCAN].items() if number in kinds[IMAGE]}
        inside = sorted(about.values(), key=lambda facts: facts[5])
        flat = [facts for facts in inside if facts[6] != CIRCLE_SCAN]
        if _step(np.array([(facts[4], 0, 0, *facts[:4]) for facts in flat])) or flat and flat[0][6] in VOLUMES:
            scans.append(_e2e_scan(path, flat, kinds[IMAGE], parts, names, eye))
            inside = [facts for facts in inside if facts[6] == CIRCLE_SCAN]
        scans += [_e2e_scan(path, [facts], kinds[IMAGE], parts, names, eye) for facts in inside]
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
            header, start, size, _, *who, slice_number, _, _, kind, _ = struct.unpack_from("<4I4i2H2I", data, entry)
            if kind in (LATERALITY, PREAMBLE, B_SCAN, CONTOUR, IMAGE) and start > header:
                if start + 60 + size > len(data):
                    raise bad_file(path, f"should have {size} bytes at byte {start}, and has {len(data)}; the file is "
                                   "cut short", "expected a whole .E2E file")
                yield tuple(who), slice_number, kind, data[start + 60:start + 60 + size]
        place = before


def _e2e_scan(path: Path, b_scans: Sequence[tuple], images: Mapping[int, memoryview], parts: Sequence,
              names: Mapping[int, str], eye: str | None) -> DeviceScan:
    """One scan of an .E2E file from its B-scans (start and end x, y, mm a row, place, pattern, centre x, y, slice)."""
    height, width = struct.unpack_from("<2I", images[b_scans[0][-1]], 12)
    check_voxels(path, (len(b_scans), height, width))
    image = np.zeros((len(b_scans), height, width), np.float32)
    index, notes = {facts[-1]: number for number, facts in enumerate(b_scans)}, []
    lines: dict[str, np.ndarray] = {}
    for slice_number, number in index.items():
        if struct.unpack_from("<2I", images[slice_number], 12) != (height, width):
            raise bad_file(path, "holds B-scans of several sizes in one scan", "expected one size")
        # 6 bits of exponent, then 10 of mantissa, no sign; eyepy takes the mantissa's bits in reverse order.
        stored = np.frombuffer(images[slice_number], "<u2", height * width, 20)
        raw = np.ldexp(1 + (stored & 1023) / 1024, (stored >> 10).astype(int) - 63)
        image[number] = displayed(np.where(raw > EMPTY, 0, raw)).reshape(height, width)
    for slice_number, kind, content in parts:
        if kind == CONTOUR and slice_number in index:
            line, _, long = struct.unpack_from("<3I", content, 4)
            if long != width or len(content) < 16 + 4 * width or line >= MOST_LINES:
                notes.append(f"line {line} is left out: it has {long} values, the image {width} A-scans")
                continue
            # They end the part. Before them come 16 bytes or more: read from byte 16, a circle's are turned.
            rows = np.frombuffer(content[-4 * width:], "<f4").astype(float)
            drawn = lines.setdefault(names.get(line, f"line_{line}"), np.full((len(b_scans), width), np.nan))
            drawn[index[slice_number]] = np.where((rows > 0) & (rows < UNMEASURED), rows, np.nan)
    start_x, start_y, end_x, end_y, mm, _, pattern, centre_x, centre_y, _ = b_scans[0]
    long = f"{math.dist((start_x, start_y), (end_x, end_y)):.3g} degrees long"
    if pattern == CIRCLE_SCAN:
        long = f"a circle of {2 * math.dist((start_x, start_y), (centre_x, centre_y)):.3g} degrees"
    (mm,) = checked_spacing(path, (mm,))
    notes.append(f"its rows are {1000 * mm:.4g} um apart, across the file states angles alone ({long}, {width} A-scans)"
                 + ("" if len(b_scans) > 1 else f": --um-per-px {1000 * mm:.4g} X, X as HEYEX shows it"))
    lines = {name: line for name, line in lines.items() if np.isfinite(line).any()}
    if len(b_scans) == 1:
        image, lines = image[0], {name: line[0] for name, line in lines.items()}
    return DeviceScan(image[None], None, eye, pattern == CIRCLE_SCAN, lines, tuple(dict.fromkeys(notes)))


def open_xml(path: Path) -> list[DeviceScan]:
    """Read HEYEX's XML export with the B-scans beside it: parallel ones as a volume, all others one by one.

    Raises OctkitError where it is no such export, lacks a number or a B-scan, or what the XML reader raises.
    """
    from defusedxml.ElementTree import fromstring

    scans = []
    root = fromstring(whole_file(path, [b"<", b"\xef\xbb\xbf<"], "HEYEX's XML export"))
    for series in root.iter("Series"):
        b_scans = series.findall(".//ImageType[Type='OCT']..")
        facts = np.array([[_number(path, b_scan, name) for name in ("ScaleY", "ScaleX", "Width", "Start/Coord/X",
                          "Start/Coord/Y", "End/Coord/X", "End/Coord/Y")] for b_scan in b_scans])
        eye = {"R": "R", "L": "L"}.get((series.findtext("Laterality") or "").strip())
        if step := _step(facts):
            scans.append(_xml_scan(path, b_scans, (step, *facts[0, :2]), eye, False))
            continue
        for b_scan, (mm, lateral, width, *ends) in zip(b_scans, facts, strict=True):
            across, length = math.dist(ends[:2], ends[2:]), lateral * width  # of a circle, from its start to its centre
            circle = (True if abs(2 * math.pi * across - length) < NEAR * length
                      else False if abs(across - length) < NEAR * length else None)
            scans.append(_xml_scan(path, [b_scan], (mm, lateral), eye, circle))
    if not scans:
        raise bad_file(path, "holds no B-scan", "expected HEYEX's XML export")
    return scans


def _number(path: Path, b_scan: Any, name: str) -> float:
    text = b_scan.findtext(f"OphthalmicAcquisitionContext/{name}")
    if text is None:
        raise bad_file(path, f"states no {name} of a B-scan", "expected HEYEX's XML export")
    return float(text)


def _step(facts: np.ndarray) -> float | None:
    """mm from one B-scan to the next where all are parallel, of one scale and evenly apart; else None."""
    if len(facts) < 2 or not (facts[:, :3] == facts[0, :3]).all():
        return None
    along, steps = facts[:, 5:] - facts[:, 3:5], np.diff(facts[:, 3:5], axis=0)
    length = math.hypot(*along[0])
    apart = (steps[:, 0] * along[0, 1] - steps[:, 1] * along[0, 0]) / length if length else np.zeros(1)
    even = np.allclose(along, along[0], atol=NEAR * length) and np.allclose(apart, apart[0], rtol=NEAR, atol=0)
    return float(np.abs(apart).mean()) if even and apart[0] else None


def _xml_scan(path: Path, b_scans: Sequence[Any], spacing: Sequence[float], eye: str | None,
              circle: bool | None) -> DeviceScan:
    size = (len(b_scans), *(int(_number(path, b_scans[0], name)) for name in ("Height", "Width")))
    check_voxels(path, size)
    image, lines = np.zeros(size, np.float32), dict[str, np.ndarray]()
    notes = [] if circle is not None else ["whether it is a circle or a line does not follow from its ends"]
    for number, b_scan in enumerate(b_scans):
        file = path.parent / (b_scan.findtext("ImageData/ExamURL") or "").replace("\\", "/").rpartition("/")[2]
        if not is_image(file):
            raise bad_file(path, "names no image for a B-scan", "expected the XML export with its B-scans")
        check_size(file, (pixels := read_image(file)).shape[1:], size[1:], path)
        image[number] = pixels[0]
        for line in b_scan.iterfind(".//SegLine"):
            name, rows = (line.findtext("Name") or "").strip(), np.array((line.findtext("Array") or "").split(), float)
            if len(rows) != size[2] or len(lines) >= MOST_LINES or not name.isidentifier():
                notes.append(f"a line is left out: it has {len(rows)} values, the image {size[2]} A-scans")
                continue
            drawn = lines.setdefault(name, np.full((size[0], size[2]), np.nan))
            drawn[number] = np.where(rows < UNMEASURED, rows, np.nan)
    lines = {name: line for name, line in lines.items() if np.isfinite(line).any()}
    if len(b_scans) == 1:
        image, lines = image[0], {name: line[0] for name, line in lines.items()}
    return DeviceScan(image[None], checked_spacing(path, spacing), eye, circle, lines, tuple(dict.fromkeys(notes)))


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


def _lines(found: list[np.ndarray], names: dict[int, str]) -> dict[str, np.ndarray]:
    """Segmentation vectors of the B-scans, each (lines, W), as name -> (B-scans, W)."""
    if (most := max(map(len, found))) > MOST_LINES:  # a small file could state any number, and fill the memory
        raise ValueError(f"it states {most} lines of layers")
    stacked = np.full((most, len(found), found[0].shape[1]), np.nan)
    for number, vectors in enumerate(found):
        stacked[:len(vectors), number] = vectors
    stacked[~(stacked < UNMEASURED)] = np.nan
    return {names.get(number, f"line_{number}"): line for number, line in enumerate(stacked)
            if np.isfinite(line).any()}
