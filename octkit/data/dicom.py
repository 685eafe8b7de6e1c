"""DICOM ophthalmic tomography: elements are read that say what is in the picture; the patient's are passed over.

pydicom reads it, which the extra "devices" installs.
"""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from octkit.common.errors import bad_file, by
from octkit.common.files import only_file
from octkit.data.device_scan import DeviceScan, check_voxels, scan_of

TOMOGRAPHY = "1.2.840.10008.5.1.4.1.1.77.1.5.4"
DEFLATED = "1.2.840.10008.1.2.1.99"  # unpacked as a whole, to whatever size
PER_FRAME = "PerFrameFunctionalGroupsSequence"
ELEMENTS = ("SOPClassUID", "Manufacturer", "Rows", "Columns", "NumberOfFrames", "BitsAllocated", "BitsStored",
            "HighBit", "SamplesPerPixel", "PixelRepresentation", "PhotometricInterpretation", "PixelData",
            "ImageLaterality", "Laterality", "PixelSpacing", "SpacingBetweenSlices",
            "SharedFunctionalGroupsSequence", PER_FRAME)
PLAIN = "pixels uncompressed, as JPEG 2000, JPEG or RLE"
NEAR = 0.03  # how far lengths may differ that should be one


def open_dicom(path: Path) -> list[DeviceScan]:
    """Read an Ophthalmic Tomography Image: a circle, a line or a volume. Raises OctkitError, or what pydicom raises."""
    import pydicom

    only_file(path, "a DICOM file", 2)
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")  # they quote what stands in the file
        if getattr(pydicom.filereader.read_file_meta_info(path), "TransferSyntaxUID", "") == DEFLATED:
            raise bad_file(path, "is deflated as a whole", f"expected {PLAIN}")
        found = pydicom.dcmread(path, specific_tags=list(ELEMENTS))
        if (kind := found.get("SOPClassUID")) != TOMOGRAPHY:  # its text where it is known: damage moves texts
            raise bad_file(path, f"is DICOM of {kind.name if kind in pydicom.uid.UID_dictionary else 'no known kind'}",
                           f"expected an Ophthalmic Tomography Image ({TOMOGRAPHY})")
        size = int(found.get("NumberOfFrames") or 1), int(found.Rows), int(found.Columns)
        check_voxels(path, size)
        if found.SamplesPerPixel != 1 or found.PhotometricInterpretation != "MONOCHROME2" or found.PixelRepresentation:
            raise bad_file(path, "holds pixels that are no greys from 0 (black)", "expected these")
        try:
            pixels = found.pixel_array.reshape(size)
        except Exception as error:
            zeiss = str(found.get("Manufacturer", "")).startswith("Carl Zeiss")
            raise bad_file(path, f"has pixels that cannot be decoded ({type(error).__name__})", f"expected {PLAIN}" + (
                "; Zeiss scrambles some exports: take another one" * zeiss)) from None
    shared, frames = _first(found, "SharedFunctionalGroupsSequence"), list(found.get(PER_FRAME) or [])
    if len(frames) != size[0]:
        frames = [pydicom.Dataset()] * size[0]
    spacing, notes = _spacing(found, shared, frames)
    sides = [found.get("ImageLaterality"), found.get("Laterality"),
             *(_first(group, "FrameAnatomySequence").get("FrameLaterality") for group in (shared, *frames[:1]))]
    if (circle := _circle(frames[0]) if len(frames) == 1 else False) is None:
        notes.append("whether it is a circle or a line is not stated")
    return [scan_of(path, pixels * (255 / (2 ** int(found.BitsStored) - 1)), spacing,
                    next((side for side in sides if side in ("R", "L")), None), circle, {}, notes)]


def _first(group: Any, name: str) -> Any:
    """The one item of a sequence, or an empty one."""
    return (group.get(name) or [{}])[0]


def _spacing(found: Any, shared: Any, frames: list[Any]) -> tuple[list[float] | None, list[str]]:
    """mm between frames (0 where there is one), rows and columns; None where one is not stated, and a note."""
    measures = next((one for one in (_first(frames[0], "PixelMeasuresSequence"),
                                     _first(shared, "PixelMeasuresSequence"), found) if one.get("PixelSpacing")), None)
    if measures is None:
        return None, ["its pixels' spacing is not stated"]
    spacing = [float(mm) for mm in measures.get("PixelSpacing")]
    places = [_first(frame, "PlanePositionSequence").get("ImagePositionPatient") for frame in frames]
    steps = np.linalg.norm(np.diff(np.array(places, float), axis=0), axis=1) if None not in places else np.zeros(1)
    if len(frames) == 1 or steps.min() > 0 and np.allclose(steps, steps.mean(), rtol=NEAR):
        return [float(steps.sum()) / max(len(steps), 1), *spacing], []
    if between := measures.get("SpacingBetweenSlices"):
        return [abs(float(between)), *spacing], []
    return None, [f"how far its B-scans are apart is not stated ({by([1000 * mm for mm in spacing])} um in each)"]


def _circle(frame: Any) -> bool | None:
    """Whether a frame lies on a circle of the fundus; None where neither this nor a line is stated."""
    place = _first(frame, "OphthalmicFrameLocationSequence")
    if place.get("OphthalmicImageOrientation") == "LINEAR":
        return False
    points = np.array(place.get("ReferenceCoordinates") or [], float).reshape(-1, 2)
    if len(points) <= 8:
        return None
    radii = np.linalg.norm(points - points[:-1].mean(0), axis=1)
    closed = math.dist(points[0], points[-1]) < 4 * math.pi * radii.mean() / (len(points) - 1)
    return True if closed and np.allclose(radii, radii.mean(), rtol=NEAR) else None
