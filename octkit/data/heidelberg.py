"""Heidelberg's .vol files (the raw export of HEYEX): pixels, scale, eye and the device's own lines, and no patient.

eyepy parses the file; its EyeVolume is not used, as it refuses circle scans. What says who was examined and when is
blanked in memory before the file is parsed, and the fundus photograph is dropped.

Lines carry the device's names. ILM is the retina's upper edge and BM its lower one; a line named after a layer is
that layer's lower edge: RNFL, GCL, IPL …
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from octkit.common.errors import OctkitError, by
from octkit.common.files import new_folder, only_file, write_csv, write_json
from octkit.data.image_files import write_mask, write_png
from octkit.data.labels import GOALS_GREYS, LAYERS
from octkit.data.volume_files import write_nifti

HEADER_BYTES = 2048
# From (and with) one byte of the header to (and without) another: time of the examination; IDs of scan and reference,
# patient, birth date, visit and its date; ID of the progression.
WHO_AND_WHEN = ((88, 96), (104, 208), (224, 258))
# The device marks what it did not measure with the largest float32, 3.4e38.
MOST_LINES = 64  # of layers in a B-scan; Heidelberg's have 17
UNMEASURED = 3e38
EYES = {"OD": "R", "OS": "L"}
LINE_SCAN, CIRCLE_SCAN, RADIAL_SCAN = 1, 2, 5
# The layers of ours that lie between two of the device's lines; the choroid's lower edge it does not draw.
BETWEEN = {"rnfl": ("ILM", "RNFL"), "gcipl": ("RNFL", "IPL")}


@dataclass(frozen=True)
class DeviceScan:
    """What a device file says of a scan.

    `image` is (1, H, W), of a volume (1, B-scans, H, W), float32 grey values of `displayed`; `spacing` is mm an axis.
    `eye` is "R", "L" or None; `circle` says that the last A-scan is the neighbour of the first. `lines` are the
    device's by its names: rows (W,) or (B-scans, W) float64, from 0, nan where none was drawn; empty lines are left
    out.
    """

    image: np.ndarray
    spacing: tuple[float, ...]
    eye: str | None
    circle: bool
    lines: dict[str, np.ndarray]


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
    if not all(math.isfinite(mm) and mm > 0 for mm in spacing):
        raise OctkitError(f"{path}: found the scale {by(spacing)} mm, expected lengths above 0")
    return DeviceScan(displayed(pixels)[None], spacing, EYES.get(parsed.scan_position.strip("\0 ")),
                      parsed.scan_pattern == CIRCLE_SCAN, lines)


def displayed(intensity: np.ndarray) -> np.ndarray:
    """The device's raw intensity as grey values: round(clip(I, 0, 1)^0.25 · 255), float32.

    The fourth root is the usual display transform of Spectralis scans. What the device did not measure is 0.
    """
    measured = np.isfinite(intensity) & (intensity < UNMEASURED)
    return np.round(np.clip(np.where(measured, intensity, 0), 0, 1) ** 0.25 * 255).astype(np.float32)


def device_mask(scan: DeviceScan) -> np.ndarray:
    """The device's own segmentation as labels: (H, W), of a volume (B-scans, H, W), uint8; 1 RNFL, 2 GCIPL.

    A pixel belongs to a layer whose upper line is at or above its row and whose lower line is below it. Where one of
    the two is not drawn, the layer's pixels are 0.
    """
    mask = np.zeros(scan.image.shape[1:], np.uint8)
    rows = np.arange(scan.image.shape[-2])[:, None]
    for layer, (upper, lower) in BETWEEN.items():
        if upper in scan.lines and lower in scan.lines:
            above, below = (np.expand_dims(scan.lines[name], -2) for name in (upper, lower))
            mask[(rows >= above) & (rows < below)] = LAYERS.index(layer) + 1
    return mask


def convert(path: str | Path, out: str | Path) -> tuple[Path, ...]:
    """Write a .vol file as files that the other commands take; returns their paths.

        out/image/NAME.png     or NAME.nii.gz of a volume: for octkit predict
        out/mask/NAME.png      the device's own layers (`device_mask`), in GOALS greys (a volume's by number): for
                               octkit evaluate and octkit thickness; only where it drew any
        out/lines.csv          the row of each line in each A-scan, empty where there is none
        out/scale.json         um_per_px by axis, eye, circle; beside PNGs as NAME.scale.json, which octkit predict
                               and octkit thickness read

    NAME is the .vol file's own: rename a file that is called after its patient. Raises OctkitError as `open_vol`,
    and for a folder that holds another scan, whose scale would be lost.
    """
    path, out = Path(path), Path(out)
    scan = open_vol(path)
    pixels, mask = scan.image[0].astype(np.uint8), device_mask(scan)
    volume = mask.ndim == 3
    name = path.stem + (".nii.gz" if volume else ".png")
    if others := sorted(file.name for file in (out / "image").glob("*")
                        if file.name not in (name, f"{path.stem}.scale.json")):
        raise OctkitError(f"{out}: holds the scan {others[0]}, expected a new folder for each scan")
    facts = {"um_per_px": [mm * 1000 for mm in scan.spacing], "eye": scan.eye, "circle": scan.circle}
    beside = [] if volume else [f"{kind}/{path.stem}.scale.json" for kind in ("image", "mask")[:1 + mask.any()]]
    files = [f"image/{name}", "lines.csv", "scale.json", *([f"mask/{name}"] if mask.any() else []), *beside]

    def write(folder: Path) -> None:
        if volume:
            write_nifti(folder / "image" / name, pixels, scan.spacing)
        else:
            write_png(folder / "image" / name, pixels)
        if mask.any() and volume:
            write_nifti(folder / "mask" / name, mask, scan.spacing)
        elif mask.any():
            write_mask(folder / "mask" / name, mask, GOALS_GREYS)
        _write_lines(folder / "lines.csv", scan)
        for file in ("scale.json", *beside):
            write_json(folder / file, facts)

    if out.exists():  # the same scan again: each file is replaced as a whole
        write(out)
    else:
        with new_folder(out) as unfinished:
            write(unfinished)
    return tuple(out / file for file in files)


def _read(path: Path) -> bytearray:
    """A .vol file's bytes, as many as its header needs: a cut file is the most frequent damage."""
    try:
        data = bytearray(only_file(path, "a .vol file", 3).read_bytes())
    except OSError as error:
        raise OctkitError(f"{path}: cannot be read ({error.strerror}), expected a .vol file") from None
    if not data.startswith(b"HSF-OCT"):
        raise OctkitError(f"{path}: found no HSF-OCT at its beginning, expected Heidelberg's .vol format")
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


def _write_lines(path: Path, scan: DeviceScan) -> None:
    shape = (*scan.image.shape[1:-2], scan.image.shape[-1])  # (W,), of a volume (B-scans, W)
    rows = ((*place, *("" if math.isnan(line[place]) else f"{line[place]:.3f}" for line in scan.lines.values()))
            for place in np.ndindex(shape))
    write_csv(path, [*("b_scan", "a_scan")[-len(shape):], *scan.lines], rows)
