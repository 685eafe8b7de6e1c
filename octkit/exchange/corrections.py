"""Masks out to be corrected by hand, and back as a data set to measure and to learn from.

    OUT/export.json             for which program, and the names of the labels 1, 2, …
    OUT/NAME.png, NAME.json     labelme (2-D scans): the scan, and its layers as polygons, later ones over earlier ones
    OUT/image, mask/NAME.nii.gz, labels.txt     ITK-SNAP (a 2-D scan is a volume of one slice)
    OUT/before/                 masks and polygons as they were exported, and what is known of the scans

Polygons have fewer points than a layer's edge has pixels. So a layer is taken from them in those A-scans alone in which
the edited polygons fill other pixels than the exported ones.
"""

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from pydantic import BaseModel, Field

from octkit.common.errors import OctkitError, bad_file, by
from octkit.common.files import new_folder, read_json, read_json_as, write_atomic, write_json
from octkit.data.dataset import is_volume, read_scan, read_scan_mask, scan_name
from octkit.data.image_files import read_image, write_mask, write_png
from octkit.data.labels import LAYERS, mask_coding
from octkit.data.matching import scans_in
from octkit.data.volume_files import read_volume, write_nifti
from octkit.planning.run import Run

RECORD, BEFORE, FACTS = "export.json", "before", ".scale.json"
SIMPLER = 0.5  # px: how far a polygon may lie from the edge of its layer's pixels
COLOURS = "230 159 0", "86 180 233", "0 158 115", "240 228 66", "0 114 178", "213 94 0"
Program = Literal["itksnap", "labelme"]
_Place = Annotated[float, Field(ge=-1e6, le=1e6)]


class _Record(BaseModel):
    program: Program
    labels: Annotated[list[str], Field(min_length=1, max_length=254)]


class _Shape(BaseModel):
    label: str
    points: Annotated[list[tuple[_Place, _Place]], Field(min_length=3)]
    shape_type: Literal["polygon"]


class _Drawing(BaseModel):
    """What is read of labelme's JSON."""

    shapes: list[_Shape]
    imageHeight: int  # noqa: N815
    imageWidth: int  # noqa: N815


def export_masks(source: Path, out: Path, program: str, images: Path | None = None) -> list[str]:
    """Write masks with their scans into the new folder `out`; returns the scans' names.

    `source` is a run (its final masks of validation scans), or a folder of masks of the three layers, as `octkit
    predict` leaves it; then `images` is where their scans lie. Raises OctkitError where a mask has no scan or another
    size, for labelme with volumes, and for 2-D masks of other labels, which no layout of ours can take back.
    """
    if program not in ("itksnap", "labelme"):
        raise OctkitError(f"--for: found {program!r}, expected itksnap or labelme")
    if (run := Run(source)).exists:
        masks = scans_in(run.predictions("validation"), masks=True)
        scans, labels = {case.name: case.image for case in run.dataset.validation}, run.dataset.labels
    elif images is None:
        raise OctkitError(f"{source}: is no run, expected --images as well: where the scans of these masks lie")
    else:
        masks, scans, labels = scans_in(source, masks=True), scans_in(images), LAYERS
    with new_folder(out, source) as folder:
        for name, path in masks.items():
            if name not in scans:
                raise bad_file(path, "has no scan", f"expected one named {name} among the images")
            mask, like = read_scan_mask(path, _values(path, labels), scans[name]), scans[name]
            image = read_scan(like)[0]
            if mask.ndim == 3 and program == "labelme" or mask.ndim == 2 and tuple(labels) != LAYERS:
                raise bad_file(path, f"is a mask of {mask.ndim} axes and the labels {', '.join(labels)}",
                               f"expected volumes (--for itksnap) or 2-D masks of {', '.join(LAYERS)}")
            _write(folder / BEFORE, name, mask, like)
            if program == "labelme":
                write_png(folder / f"{name}.png", image)
                for place in (folder, folder / BEFORE):
                    write_json(place / f"{name}.json", _drawing(mask, labels, name))
            else:
                for kind, values in (("image", image), ("mask", mask)):
                    write_nifti(folder / kind / f"{name}.nii.gz", values.reshape(-1, *mask.shape[-2:]),
                                like=like if mask.ndim == 3 else None)
            if (facts := path.with_name(scan_name(path) + FACTS)).exists():
                shutil.copyfile(facts, folder / BEFORE / f"{name}{FACTS}")
        write_json(folder / RECORD, {"program": program, "labels": list(labels)})
        if program == "itksnap":
            write_atomic(folder / "labels.txt", '0 0 0 0 0 0 0 "background"\n' + "".join(
                f'{number} {COLOURS[number % len(COLOURS)]} 1 1 1 "{label}"\n'
                for number, label in enumerate(labels, 1)))
    return list(masks)


def import_masks(edited: Path, out: Path) -> dict[str, int]:
    """Read what `export_masks` wrote and a person has changed, into the new folder `out`: name -> pixels changed.

    `out` is a data set to name in train.extra_data: of 2-D scans in the GOALS layout, of volumes in that for volumes.
    Scans whose mask or polygons were deleted are left out. Raises OctkitError for labels and sizes that are not those
    of the export, and where nothing is left.
    """
    record = read_json_as(edited / RECORD, _Record, "expected a folder of octkit export-masks")
    labels, changed, scales = record.labels, {}, []
    with new_folder(out, edited) as folder:
        for name, path in scans_in(edited / BEFORE, masks=True).items():
            file = edited / (f"{name}.json" if record.program == "labelme" else f"mask/{name}.nii.gz")
            if not file.exists():
                continue
            before = read_scan_mask(path, _values(path, labels))
            if record.program == "itksnap":
                picture = edited / f"image/{name}.nii.gz"
                image, mask = read_volume(picture)[0], read_scan_mask(file, _values(file, labels), picture)
            else:
                image, mask = read_image(edited / f"{name}.png")[0], _edited(file, before, labels)
            mask = mask.reshape(before.shape)
            changed[name] = int((mask != before).sum())
            if mask.ndim == 3:
                _write(folder / "Train/Mask", name, mask, picture)
                (folder / "Train/Image").mkdir(exist_ok=True)
                shutil.copyfile(picture, folder / f"Train/Image/{name}.nii.gz")
                continue
            _write(folder / "Train/Layer_Masks", name, mask)
            write_png(folder / f"Train/Image/{name}.png", image.reshape(mask.shape))
            facts = path.with_name(name + FACTS)
            scales.append(read_json(facts).get("um_per_px") if facts.exists() else None)
            if facts.exists():
                shutil.copyfile(facts, folder / "Train/Layer_Masks" / facts.name)
        if not changed:
            raise bad_file(edited, "holds no mask of its export", "expected some")
        if not scales:
            write_json(folder / "labels.json", {"labels": labels})
        elif scales[0] and all(scale == scales[0] for scale in scales):
            write_json(folder / "scale.json", {"um_per_px": scales[0]})
    return changed


def _values(path: Path, labels: Sequence[str]) -> dict[int, int]:
    return {label: label for label in range(len(labels) + 1)} if is_volume(path) else mask_coding(labels)


def _write(folder: Path, name: str, mask: np.ndarray, like: Path | None = None) -> None:
    if mask.ndim == 2:
        write_mask(folder / f"{name}.png", mask, mask_coding(LAYERS))
    else:
        write_nifti(folder / f"{name}.nii.gz", mask, like=like)


def _drawing(mask: np.ndarray, labels: Sequence[str], name: str) -> dict[str, Any]:
    """labelme's JSON for a mask (H, W): the outlines of each label's pixels in x, y from the image's corner."""
    shapes = []
    for number, label in enumerate(labels, 1):
        twice = np.kron(mask == number, np.ones((2, 2), np.uint8)).astype(np.uint8)  # border pixels lie near edges
        for points in cv2.findContours(twice, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]:
            fewer = cv2.approxPolyDP(points, 2 * SIMPLER, True)
            shapes.append({"label": label, "shape_type": "polygon", "flags": {}, "group_id": None,
                           "points": ((fewer if len(fewer) > 2 else points)[:, 0] / 2 + 0.25).tolist()})
    return {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": f"{name}.png", "imageData": None,
            "imageHeight": mask.shape[0], "imageWidth": mask.shape[1]}


def _edited(file: Path, before: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """The mask (H, W) after polygons were edited: layers as drawn in A-scans where that differs, else as before."""
    drawn, exported = (_drawn(one, labels, before.shape) for one in (file, file.parent / BEFORE / file.name))
    mask, numbers = before.copy(), range(1, len(labels) + 1)
    differs = {number: ((drawn == number) != (exported == number)).any(axis=0) for number in numbers}
    for number in numbers:
        mask[(before == number) & differs[number]] = 0
    for number in numbers:
        mask[(drawn == number) & differs[number]] = number
    return mask


def _drawn(path: Path, labels: Sequence[str], size: tuple[int, ...]) -> np.ndarray:
    """The labels (H, W) uint8 that labelme's polygons fill, each pixel by its centre."""
    drawing = read_json_as(path, _Drawing, "expected polygons, saved over the exported file")
    known = ["background", *labels]
    if (found := (drawing.imageHeight, drawing.imageWidth)) != size:
        raise bad_file(path, f"is of an image of {by(found)} px", f"expected {by(size)} as exported")
    mask = np.zeros(size, np.uint8)
    for shape in drawing.shapes:
        if shape.label not in known:
            raise bad_file(path, f"found the label {shape.label!r}", f"expected one of {', '.join(known)}")
        crossed = np.zeros((size[0] + 1, size[1]), np.int32)  # by the outline, between one pixel's centre and the next
        for ends in zip(shape.points, [*shape.points[1:], shape.points[0]], strict=True):
            (x0, y0), (x1, y1) = sorted(ends)
            columns = np.arange(max(math.ceil(x0 - 0.5), 0), min(math.ceil(x1 - 0.5), size[1]))
            if len(columns):
                rows = np.ceil(y0 + (columns + 0.5 - x0) * (y1 - y0) / (x1 - x0) - 0.5)
                crossed[rows.clip(0, size[0]).astype(int), columns] += 1
        mask[crossed[:-1].cumsum(axis=0) % 2 == 1] = known.index(shape.label)
    return mask


def measured_again(edited: Path, out: Path, measure: Callable[[Path], list[dict]],
                   write: Callable[[Path, list[dict]], object]) -> str:
    """`import_masks`, and what changed: a line a scan, of 2-D ones with mean thickness before and after.

    `measure` gives the rows of a folder's masks (`thickness_table`), `write` leaves them as thickness.csv.
    """
    lines = {name: [f"{name}: {count} px changed"] for name, count in import_masks(edited, out).items()}
    if (masks := out / "Train/Layer_Masks").exists():
        old = {(row["case"], row["layer"]): row for row in measure(edited / BEFORE)}
        write(out / "thickness.csv", rows := measure(masks))
        for row in rows:
            was, now = (f"{one['global']:.2f}" if one["global"] is not None else "unknown"
                        for one in (old[row["case"], row["layer"]], row))
            lines[row["case"]].append(f"{row['layer']} {was} -> {now} {row['unit']}")
    return "\n".join(map(", ".join, lines.values()))
