"""Files of OCT devices, of whatever format: what is inside, and how they become files that the other commands take."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from octkit.common.errors import OctkitError, bad_file, no_file
from octkit.common.files import new_folder, write_csv, write_json
from octkit.common.messages import say
from octkit.data import heidelberg
from octkit.data.device_scan import DeviceScan, device_mask
from octkit.data.dicom import open_dicom
from octkit.data.image_files import write_mask, write_png
from octkit.data.labels import GOALS_GREYS
from octkit.data.topcon import open_topcon
from octkit.data.volume_files import write_nifti

READERS: dict[str, Callable[[Path], list[DeviceScan]]] = {
    ".vol": lambda path: [heidelberg.open_vol(path)], ".e2e": heidelberg.open_e2e, ".xml": heidelberg.open_xml,
    ".fda": open_topcon, ".fds": open_topcon, ".dcm": open_dicom, ".dicom": open_dicom}
NOT_READ = {
    ".img": "Zeiss's .img holds values alone, neither their size and order nor their scale: export DICOM",
    ".oct": "Optovue's and Bioptigen's .oct state no scale of their B-scans: export images",
    ".sdb": "Heidelberg's .sdb is a part of its data base: export .vol, .E2E or XML"}
KINDS = f"a device's file ({', '.join(READERS)})"
# What a folder of scans may hold: an XML export lies among images, and is named by itself.
IN_FOLDERS = tuple(ending for ending in READERS if ending != ".xml")


def is_device_file(path: Path) -> bool:
    """Whether a path has the name of a device's file."""
    return Path(path).suffix.lower() in READERS


def open_device(path: str | Path) -> dict[str, DeviceScan]:
    """The scans of a device's file by name: its own name, NAME_1, NAME_2 … where there are several.

    Raises OctkitError for a file that is missing, of another kind, damaged, or without a scan that is read.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if path.is_dir() or ending in READERS and not path.is_file():
        raise no_file(path, KINDS)
    if ending not in READERS:
        raise bad_file(path, NOT_READ.get(ending, f"found the ending {ending or '(none)'}"), f"expected {KINDS}")
    try:
        scans = READERS[ending](path)
    except OctkitError:
        raise
    except ImportError as error:
        from octkit.common.machine import install_command

        raise OctkitError(f"{path}: needs {error.name}, which the extra devices brings: {install_command('devices')}"
                          ) from None
    except Exception as error:  # a damaged file makes libraries raise anything; their words may quote the patient
        what = "it ends too early" if isinstance(error, struct.error) else type(error).__name__
        raise bad_file(path, f"is damaged ({what})", f"expected a whole {ending} file") from None
    return {path.stem if len(scans) == 1 else f"{path.stem}_{number}": scan for number, scan in enumerate(scans, 1)}


def convert(path: str | Path, out: str | Path) -> tuple[Path, ...]:
    """Write a device's file as files that the other commands take; returns their paths, and says what is not stated.

        out/image/NAME.png     or NAME.nii.gz of a volume, and of greys above 255: for octkit predict
        out/mask/NAME.png      the device's own layers (`device_mask`), in GOALS greys (a volume's by number): for
                               octkit evaluate and octkit thickness; only where it drew any
        out/lines.csv          the row of each line in each A-scan, empty where there is none
        out/scale.json         um_per_px by axis, eye, circle; beside PNGs as NAME.scale.json, which octkit predict
                               and octkit thickness read

    Several scans of one file get a folder out/NAME_1, … each. NAME is the file's own: rename a file that is called
    after its patient. Raises OctkitError as `open_device`, and for a folder that holds another scan, whose scale would
    be lost.
    """
    scans, out = open_device(path), Path(out)
    for name, scan in scans.items():
        if scan.notes:
            say(f"{name}: {scan}")
    return tuple(file for name, scan in scans.items()
                 for file in _convert(scan, name, out / name if len(scans) > 1 else out))


def _convert(scan: DeviceScan, stem: str, out: Path) -> tuple[Path, ...]:
    pixels, mask = scan.image[0], device_mask(scan)
    nifti = mask.ndim == 3 or pixels.max() > 255
    if pixels.max() <= 255:
        pixels = np.rint(pixels).astype(np.uint8)
    name = stem + (".nii.gz" if nifti else ".png")
    if others := sorted(file.name for file in (out / "image").glob("*")
                        if file.name not in (name, f"{stem}.scale.json")):
        raise OctkitError(f"{out}: holds the scan {others[0]}, expected a new folder for each scan")
    pictures = {f"image/{name}": pixels} | ({f"mask/{name}": mask} if mask.any() else {})
    facts = {"um_per_px": scan.spacing and [mm * 1000 for mm in scan.spacing], "eye": scan.eye, "circle": scan.circle}
    scales = ["scale.json", *(file.removesuffix(".png") + ".scale.json" for file in pictures if not nifti)]

    def write(folder: Path) -> None:
        for file, values in pictures.items():
            if nifti:
                write_nifti(folder / file, values, scan.spacing)
            elif values is mask:
                write_mask(folder / file, mask, GOALS_GREYS)
            else:
                write_png(folder / file, values)
        for file in scales:
            write_json(folder / file, facts)
        shape = (*mask.shape[:-2], mask.shape[-1])  # (W,), of a volume (B-scans, W)
        write_csv(folder / "lines.csv", [*("b_scan", "a_scan")[-len(shape):], *scan.lines],
                  ((*place, *("" if np.isnan(line[place]) else f"{line[place]:.3f}" for line in scan.lines.values()))
                   for place in np.ndindex(shape)))

    if out.exists():  # the same scan again: each file is replaced as a whole
        write(out)
    else:
        with new_folder(out) as unfinished:
            write(unfinished)
    return tuple(out / file for file in (*pictures, "lines.csv", *scales))
