"""Masks out to be corrected by hand, and back as a data set to measure and to learn from.

    OUT/export.json             for which program, and the names of the labels 1, 2, …
    OUT/NAME.png, NAME.json     labelme (2-D scans): the scan, and its layers as polygons, later ones over earlier ones
    OUT/image, mask/NAME.nii.gz, labels.txt     ITK-SNAP (a 2-D scan is a volume of one slice)
    OUT/before/                 masks and polygons as they were exported, and what is known of the scans

Polygons have fewer points than a layer's edge has pixels. So a mask is taken from them in those A-scans alone in which
the edited polygons fill other pixels than the exported ones, and there the edges that were moved.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import cv2
import numpy as np
from PIL import Image, ImageDraw
from pydantic import BaseModel, Field

from octkit.common.errors import OctkitError, bad_file, by
from octkit.common.files import new_folder, read_json_as, write_atomic, write_json
from octkit.common.messages import say
from octkit.data.anatomy import HOPELESS, out_of_order
from octkit.data.dataset import is_volume, read_scan, read_scan_mask, scan_name
from octkit.data.image_files import list_images, read_mask, write_mask, write_png
from octkit.data.labels import LAYERS, mask_coding
from octkit.data.mask_values import check_size
from octkit.data.matching import scans_in
from octkit.data.volume_files import write_nifti
from octkit.layers.scan_files import FACTS, facts_beside, write_boundaries, write_facts
from octkit.layers.thickness import thickness_table, write_csv
from octkit.planning.run import Run

RECORD, BEFORE = "export.json", "before"
UPRIGHT = 1.0, -1.0, -1.0  # mm: a 2-D scan's axes in ITK-SNAP, x to the left, rows down
FINER = 8  # times as many pixels: polygons are drawn on these, and looked up in the middle of ours
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
    if program not in get_args(Program):
        raise OctkitError(f"--for: found {program!r}, expected itksnap or labelme")
    masks, scans, labels = sources(source, images)
    axes = {3 if is_volume(path) else 2 for path in masks.values()}
    if len(axes) > 1 or 3 in axes and program == "labelme" or 2 in axes and tuple(labels) != LAYERS:
        raise bad_file(source, f"holds masks of {' and '.join(map(str, sorted(axes)))} axes and the labels "
                       f"{', '.join(labels)}", f"expected volumes (--for itksnap) or 2-D masks of {', '.join(LAYERS)}")
    with new_folder(out, source) as folder:
        for name, path in masks.items():
            if (scan := scans.get(name)) is None:
                raise bad_file(path, "has no scan", f"expected one named {name} among the images (octkit device makes "
                               "one of a device's file)")
            mask, image = read_scan_mask(path, _values(path, labels), scan), read_scan(scan)[0]
            _write(folder / BEFORE, name, mask, scan)
            if program == "labelme":
                write_png(folder / f"{name}.png", image)
                for place in (folder, folder / BEFORE):
                    write_json(place / f"{name}.json", _drawing(mask, labels, name))
            else:
                for kind, values in (("image", image), ("mask", mask)):
                    write_nifti(folder / kind / f"{name}.nii.gz", values.reshape(-1, *mask.shape[-2:]), UPRIGHT,
                                scan if mask.ndim == 3 else None)
            if mask.ndim == 2:
                write_facts(folder / BEFORE / f"{name}{FACTS}", replace(facts_beside(path), means=None))
        write_json(folder / RECORD, {"program": program, "labels": list(labels)})
        if program == "itksnap":
            write_atomic(folder / "labels.txt", '0 0 0 0 0 0 0 "background"\n' + "".join(
                f'{number} {COLOURS[number % len(COLOURS)]} 1 1 1 "{label}"\n'
                for number, label in enumerate(labels, 1)))
    return list(masks)


def sources(source: Path, images: Path | None) -> tuple[dict[str, Path], dict[str, Path], Sequence[str]]:
    """Masks and their scans by name, and the names of labels, of what `export_masks` takes."""
    if not (run := Run(source)).exists:
        if images is None:
            raise OctkitError(f"{source}: is no run, expected images (--images) as well: where these masks' scans lie")
        return scans_in(source, masks=True), scans_in(images), LAYERS
    if any(case.truth for case in run.dataset.validation):
        say(f"{source}: these scans have true masks; a model that learns from them cannot be scored on them")
    scans = {case.name: case.image for case in run.dataset.validation}
    return scans_in(run.predictions("validation"), masks=True), scans, run.dataset.labels


def add(out: Path, image: np.ndarray, mask: np.ndarray, boundaries: np.ndarray, proposal: Path,
        moves: Sequence[dict]) -> str:
    """Put a scan that was corrected in a notebook into `out`, as `import_masks` leaves it; returns what changed.

    `image` is (1, H, W), `mask` (H, W) and `boundaries` (5, W) px are what has become of the mask in the file
    `proposal`. They lie beside the mask, without doubt, as a person has looked; the `moves` in changes/NAME.json.
    """
    name, masks = scan_name(proposal), out / "Train/Layer_Masks"
    changed = int((mask != read_mask(proposal, mask_coding(LAYERS), mask.shape)).sum())
    _write(masks, name, mask)
    write_png(out / f"Train/Image/{name}.png", image[0])
    write_facts(masks / f"{name}{FACTS}", replace(facts_beside(proposal), means=None))
    write_boundaries(masks / f"{name}.boundaries.csv", boundaries, np.zeros_like(boundaries))
    write_json(out / f"changes/{name}.json", {"pixels": changed, "moves": moves})
    _measure(out, out)
    return f"{changed} px changed"


def import_masks(edited: Path, out: Path) -> dict[str, str]:
    """Read what `export_masks` wrote and a person has changed, into the new folder `out`: name -> what changed.

    `out` is a data set to name in train.extra_data: of 2-D scans in the GOALS layout, with thickness.csv, of volumes in
    that for volumes. Scans whose mask or polygons are not there are left out and named; so are masks whose layers lie
    less in order than before. Raises OctkitError for labels and sizes that are not those of the export, layers that are
    exchanged, and where nothing is left.
    """
    if not (edited / RECORD).exists():
        raise bad_file(edited, f"holds no {RECORD}", "expected a folder that octkit export-masks has made")
    record = read_json_as(edited / RECORD, _Record, "have the masks exported again")
    labels, changed, left_out = record.labels, dict[str, str](), []
    with new_folder(out, edited) as folder:
        for name, path in scans_in(edited / BEFORE, masks=True).items():
            file = edited / (f"{name}.json" if record.program == "labelme" else f"mask/{name}.nii.gz")
            if not file.exists():
                left_out.append(name)
                continue
            before = read_scan_mask(path, _values(path, labels))
            picture = edited / (f"{name}.png" if record.program == "labelme" else f"image/{name}.nii.gz")
            check_size(picture, (image := read_scan(picture)[0]).shape, before.shape, path)
            mask = (_edited(file, before, labels) if record.program == "labelme"
                    else read_scan_mask(file, _values(file, labels), picture))
            changed[name] = f"{(mask != before).sum()} px changed"
            if tuple(labels) == LAYERS and (wrong := _disorder(mask)) > (was := _disorder(before)):
                found = f"{wrong:.2%} of the layers' pixels do not lie as {' above '.join(LAYERS)} do"
                if wrong > HOPELESS >= was:
                    raise bad_file(file, found, "expected the labels that were exported: are they exchanged?")
                say(f"{file}: {found}")
            if mask.ndim == 3:
                _write(folder / "Train/Mask", name, mask, picture)
                write_nifti(folder / f"Train/Image/{name}.nii.gz", image, like=picture)
                continue
            _write(folder / "Train/Layer_Masks", name, mask)
            write_png(folder / f"Train/Image/{name}.png", image)
            shutil.copyfile(path.with_name(name + FACTS), folder / "Train/Layer_Masks" / (name + FACTS))
        if left_out:
            say(f"{edited}: left out, as their masks are not there: {', '.join(left_out)}")
        if not changed:
            raise bad_file(edited, "holds no mask of its export", "expected some")
        if (folder / "Train/Mask").exists():
            write_json(folder / "labels.json", {"labels": labels})
            return changed
        old = {(row["case"], row["layer"]): row["global"] for row in thickness_table(edited / BEFORE)}
        for row in _measure(folder, out):
            earlier, now = ("unknown" if mean is None else f"{mean:.2f}"
                        for mean in (old[row["case"], row["layer"]], row["global"]))
            changed[row["case"]] += f", {row['layer']} {earlier} -> {now} {row['unit']}"
    return changed


def _measure(folder: Path, out: Path) -> list[dict]:
    """thickness.csv of the data set in `folder`, to be called `out`, and scale.json where its scans have one scale."""
    write_csv(folder / "thickness.csv", rows := thickness_table(masks := folder / "Train/Layer_Masks"))
    scales = {facts_beside(path).um_per_px for path in list_images(masks)}
    if len(scales) > 1:
        say(f"{out}: its scans have several scales, so as a data set it has none (scale.json)")
    if len(scales) > 1 or None in scales:
        (folder / "scale.json").unlink(missing_ok=True)
    else:
        write_json(folder / "scale.json", {"um_per_px": scales.pop()})
    return rows


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


def _disorder(mask: np.ndarray) -> float:
    return out_of_order(np.moveaxis(mask, -2, 0).reshape(mask.shape[-2], -1))


def _edited(file: Path, before: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """The mask (H, W) after polygons were edited: as drawn in A-scans where something differs, else as before."""
    drawn, exported = (_drawn(one, labels, before.shape) for one in (file, file.parent / BEFORE / file.name))
    untouched = drawn == exported
    mask = np.where(untouched.all(axis=0), before, drawn)
    # A polygon lies up to some pixels beside its layer's edge. Edges that nobody moved are as before.
    for step in (1, -1) * 3:
        mask = np.where(untouched & (np.roll(mask, step, axis=0) == before), before, mask)
    return mask


def _drawn(path: Path, labels: Sequence[str], size: tuple[int, ...]) -> np.ndarray:
    """The labels (H, W) uint8 that labelme's polygons fill, each pixel by its centre."""
    drawing = read_json_as(path, _Drawing, "expected polygons, saved over the exported file")
    known = ["background", *labels]
    if (found := (drawing.imageHeight, drawing.imageWidth)) != size:
        raise bad_file(path, f"is of an image of {by(found)} px", f"expected {by(size)} as exported")
    canvas = Image.new("L", (FINER * size[1], FINER * size[0]))
    for shape in drawing.shapes:
        if shape.label not in known:
            raise bad_file(path, f"found the label {shape.label!r}", f"expected one of {', '.join(known)}")
        ImageDraw.Draw(canvas).polygon([(FINER * x, FINER * y) for x, y in shape.points], known.index(shape.label))
    return np.asarray(canvas)[FINER // 2::FINER, FINER // 2::FINER]
