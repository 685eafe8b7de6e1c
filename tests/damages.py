"""What can happen to a data set, one function a kind of damage: each takes the folder of a whole set and harms it.

`GOALS`, `VOLUMES`, `RAW` and `MGUNET` hold them by the layout that they harm. tests/data/doctor/test_data_set.py says
what each is to be told.
"""

import gzip
import os
import shutil
import signal
import struct
import zipfile
import zlib
from pathlib import Path

import nibabel
import numpy as np
from openpyxl import Workbook
from PIL import Image

from octkit.common.files import read_json, write_json
from octkit.data.doctor.one_case import examine
from octkit.data.volume_files import volume_spacing, write_nifti

BOX = Image.Resampling.BOX
THIRD, MASK = "Train/Image/0003.png", "Train/Layer_Masks/0003.png"
TABLE = "Train/Train_GC_GT.xlsx"
VOLUME, VOLUME_MASK = "Train/Image/0002.nii.gz", "Train/Mask/0002.nii.gz"


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).copy()


def image(name: str, change):
    """Rewrite a PNG: `change` makes other pixels (or a Pillow image) of those that it has."""
    def damage(root):
        changed = change(pixels(root / name))
        (changed if isinstance(changed, Image.Image) else Image.fromarray(changed)).save(root / name, "PNG")
    return damage


def as_bytes(name: str, change):
    """Rewrite a file's bytes."""
    return lambda root: (root / name).write_bytes(change((root / name).read_bytes()))


def gone(name: str):
    return lambda root: shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink()


def moved(old: str, new: str):
    return lambda root: (root / old).rename(root / new)


def copied(old: str, new: str):
    def damage(root):
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / old, root / new)
    return damage


def both(*damages):
    def damage(root):
        for one in damages:
            one(root)
    return damage


def flipped_bit(data: bytes) -> bytes:
    at = data.index(b"IDAT") + 40
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1:]


def bomb(data: bytes) -> bytes:
    """The same PNG with a header that claims 50,000 x 50,000 px."""
    header = b"IHDR" + struct.pack(">II", 50_000, 50_000) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def replaced(path: str, make):
    def damage(root):
        (root / path).unlink()
        make(root / path)
    return damage


def linked(name: str, to: str):
    """Put a symbolic link in place of a file or folder, after `to` was filled with what it was."""
    def damage(root):
        target = (root / name).parent / to
        if "nowhere" in to:
            (root / name).unlink()
        else:
            shutil.move(root / name, target)
        (root / name).symlink_to(to)
    return damage


def greys(change: dict[int, int]):
    def recoded(mask):
        return np.vectorize(lambda value: change.get(value, value), otypes=[np.uint8])(mask)
    return recoded


def smoothed(mask):
    size = mask.shape[1], mask.shape[0]
    return Image.fromarray(mask).resize([2 * n for n in size], Image.Resampling.BILINEAR).resize(size, BOX)


def stray_block(mask):
    mask[5:15, 5:15] = 200
    return mask


def swapped_columns(mask):
    mask[:, 10:14] = greys({0: 80, 80: 0})(mask[:, 10:14])
    return mask


def with_alpha(value: int):
    return lambda grey: np.dstack([grey] * 3 + [np.full_like(grey, value)])


def in_colours(indices):
    """The indices under a palette of colours."""
    shown = Image.fromarray(indices).convert("P")
    shown.putpalette([channel for n in range(256) for channel in (255 - n, n, 128)])
    return shown


def as_jpeg(name: str):
    """Save an image anew as a JPEG of the same name."""
    def damage(root):
        Image.open(root / name).save((root / name).with_suffix(".jpg"), quality=95)
        (root / name).unlink()
    return damage


def coloured(grey):
    return np.dstack([grey, grey, 255 - grey])


def table(*rows, header=("ImgName", "GC_Label")):
    """Rewrite the labels: the rows given, of which numbers alone are those of the phantoms."""
    def damage(root):
        book = Workbook()
        if header:
            book.active.append(header)
        for row in rows:
            book.active.append(row if isinstance(row, tuple) else (row, row % 2))
        book.save(root / TABLE)
    return damage


def far_cell(root):
    book = Workbook()
    book.active.append(("ImgName", "GC_Label"))
    book.active.cell(1_048_576, 16_384, 1)
    book.save(root / TABLE)


def sheet(content: bytes, encoding: str = "utf-8"):
    """Put something before the XML of the labels' sheet."""
    def damage(root):
        with zipfile.ZipFile(root / TABLE) as archive:
            parts = {part: archive.read(part) for part in archive.namelist()}
        text = parts["xl/worksheets/sheet1.xml"]
        parts["xl/worksheets/sheet1.xml"] = (content + text).decode().encode(encoding)
        with zipfile.ZipFile(root / TABLE, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in parts.items():
                archive.writestr(name, data)
    return damage


LAUGHS = b'<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'


def swollen(root):
    with zipfile.ZipFile(root / TABLE, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/more.xml", bytes(60_000_000))


def nifti(name: str, change):
    """Rewrite a volume: `change` makes other voxels (B-scans, rows, A-scans) of those that it has."""
    def damage(root):
        voxels, spacing = np.asarray(nibabel.load(root / name).dataobj).T, volume_spacing(root / name)
        changed = change(voxels)
        write_nifti(root / name, np.ascontiguousarray(changed), spacing[-changed.ndim:])
    return damage


def with_value(value: float):
    def change(voxels):
        voxels = voxels.astype(np.float32)
        voxels[1, 5, :7] = value
        return voxels
    return change


def header(name: str, offset: int, kind: str, *values):
    """Write numbers straight into a NIfTI header, past what nibabel would let through."""
    def damage(root):
        data = bytearray(gzip.decompress((root / name).read_bytes()))
        struct.pack_into(kind, data, offset, *values)
        (root / name).write_bytes(gzip.compress(bytes(data), mtime=0))
    return damage


def as_stack(change):
    """Make the second volume a folder of B-scans, which `change` then harms."""
    def damage(root):
        for name, kind in ((VOLUME, "Image"), (VOLUME_MASK, "Mask")):
            voxels = np.asarray(nibabel.load(root / name).dataobj).T
            (root / name).unlink()
            folder = root / "Train" / kind / "0002"
            folder.mkdir()
            for number, b_scan in enumerate(voxels):
                Image.fromarray(np.ascontiguousarray(b_scan)).save(folder / f"{number:03d}.png")
        write_json(root / "Train/Image/0002/spacing.json", {"spacing": [0.12, 0.004, 0.015]})
        change(root)
    return damage


def json_with(name: str, **changes):
    return lambda root: write_json(root / name, read_json(root / name) | changes)


def json_file(name: str, value):
    return lambda root: write_json(root / name, value)


def dies_over_0004(dataset, case, learned):
    """The doctor's look at a case, but that one of them kills the process."""
    if case.name == "0004":
        os.kill(os.getpid(), signal.SIGKILL)
    return examine(dataset, case, learned)


STACK = "Train/Image/0002"

GOALS = {
    "zero bytes": as_bytes(THIRD, lambda _: b""),
    "truncated": as_bytes(THIRD, lambda data: data[:len(data) // 2]),
    "header alone": as_bytes(THIRD, lambda data: data[:20]),
    "a flipped bit": as_bytes(THIRD, flipped_bit),
    "text": as_bytes(THIRD, lambda _: b"no image at all, but long enough for one"),
    "a JPEG": lambda root: Image.fromarray(pixels(root / THIRD)).save(root / THIRD, "JPEG"),
    "16-bit": image(THIRD, lambda grey: grey.astype(np.uint16) * 257),
    "dark 16-bit": image(THIRD, lambda grey: grey.astype(np.uint16) * 20),
    "dark": image(THIRD, lambda grey: grey // 4),
    "inverted scans": both(*(image(f"Train/Image/000{number}.png", lambda grey: 255 - grey) for number in (2, 3))),
    "palette": image(THIRD, in_colours),
    "transparent": image(THIRD, with_alpha(200)),
    "opaque alpha": image(THIRD, with_alpha(255)),
    "grey with opaque alpha": image(THIRD, lambda grey: Image.fromarray(grey).convert("LA")),
    "colour": image(THIRD, coloured),
    "decompression bomb": as_bytes(THIRD, bomb),
    "a folder named as an image": replaced(THIRD, Path.mkdir),
    "a pipe named as an image": replaced(THIRD, os.mkfifo),
    "constant": image(THIRD, lambda grey: np.full_like(grey, 7)),
    "constant validation image": image("Validation/Image/0007.png", np.zeros_like),
    "image without mask": gone(MASK),
    "mask without image": both(gone(THIRD), table(1, 2, 4, 5, 6)),
    "mask of another size": image(MASK, lambda mask: mask[:-1]),
    "mask of label numbers": image(MASK, greys({255: 0, 0: 1, 80: 2, 160: 3})),
    "inverted mask": image(MASK, lambda mask: 255 - mask),
    "smoothed mask": image(MASK, smoothed),
    "spread mask": image(MASK, greys({255: 0, 0: 85, 80: 170, 160: 255})),
    "foreign value": image(MASK, stray_block),
    "16-bit mask": image(MASK, lambda mask: mask.astype(np.uint16)),
    "mask spread to 16 bits": image(MASK, lambda mask: mask.astype(np.uint16) * 257),
    "palette mask": image(MASK, lambda mask: in_colours(greys({255: 0, 0: 1, 80: 2, 160: 3})(mask))),
    "JPEG mask": as_jpeg(MASK),
    "coloured mask": image(MASK, coloured),
    "truncated mask": as_bytes(MASK, lambda data: data[:len(data) // 2]),
    "zero-byte mask": as_bytes(MASK, lambda _: b""),
    "class missing": image(MASK, greys({80: 255})),
    "two classes missing": image(MASK, greys({80: 255, 160: 255})),
    "background alone": image(MASK, lambda mask: np.full_like(mask, 255)),
    "layers out of order": image(MASK, swapped_columns),
    "upside down": image(MASK, lambda mask: mask[::-1]),
    "greys of another copy": image(MASK, greys({0: 80, 80: 160, 160: 255, 255: 0})),
    "choroid and RNFL exchanged": image(MASK, greys({0: 160, 160: 0})),
    "twins in training": copied(THIRD, "Train/Image/0005.png"),
    "twins in validation": copied("Validation/Image/0007.png", "Validation/Image/0008.png"),
    "trained on validation": copied("Validation/Image/0007.png", THIRD),
    "trained on test": copied("Test/Image/0009.png", THIRD),
    "another size": both(*(image(name, lambda grey: np.pad(grey, ((0, 3), (0, 0)), mode="edge"))
                           for name in (THIRD, MASK))),
    "no table": gone(TABLE),
    "no workbook": as_bytes(TABLE, lambda _: b"ImgName,GC_Label\n1,1\n"),
    "row missing": table(1, 2, 4, 5, 6),
    "row doubled": table(1, 2, 3, 4, 5, 6, 3),
    "label 2": table(1, 2, (3, 2), 4, 5, 6),
    "label empty": table(1, 2, (3, None), 4, 5, 6),
    "label a word": table(1, 2, (3, "glaucoma"), 4, 5, 6),
    "name unknown": table(1, 2, 3, 4, 5, 6, 99),
    "name no number": table(1, 2, ("three.png", 1), 4, 5, 6),
    "name not whole": table(1, 2, (3.5, 1), 4, 5, 6),
    "other columns": table(1, 2, 3, 4, 5, 6, header=("Image", "Label")),
    "empty workbook": table(header=None),
    "no rows": table(),
    "no labels": table(*((number, None) for number in range(1, 7))),
    "healthy alone": table(*((number, 0) for number in range(1, 7))),
    "one scan with glaucoma": table((1, 1), *((number, 0) for number in range(2, 7))),
    "two tables": copied(TABLE, "Train/Train_GC_GT.csv"),
    "a column twice": table(*((number, 0, 1) for number in range(1, 7)), header=("ImgName", "GC_Label", "GC Label")),
    "entities": sheet(LAUGHS),
    "entities in UTF-16": sheet(b'<?xml version="1.0" encoding="UTF-16"?>' + LAUGHS, "utf-16"),
    "zip bomb": swollen,
    "a cell in the last corner": far_cell,
    "image name no number": both(moved(THIRD, "Train/Image/three.png"), moved(MASK, "Train/Layer_Masks/three.png")),
    "two names for one number": both(copied("Train/Image/0004.png", "Train/Image/3.png"),
                                     copied("Train/Layer_Masks/0004.png", "Train/Layer_Masks/3.png"),
                                     image("Train/Image/3.png", lambda grey: grey[:, ::-1])),
    "a name in two splits": moved("Validation/Image/0007.png", "Validation/Image/0001.png"),
    "one name, two endings": copied(THIRD, "Train/Image/0003.PNG"),
    "link out of the set": linked(THIRD, "../../../outside.png"),
    "folder linked out of the set": linked("Train/Layer_Masks", "../../outside"),
    "link to nothing": linked(THIRD, "nowhere.png"),
    "another ending": moved("Validation/Image/0008.png", "Validation/Image/0008.jpg"),
    "an unknown ending": moved("Validation/Image/0008.png", "Validation/Image/0008.npy"),
    "a JPEG by its name": as_jpeg(THIRD),
    "a file of no use": copied(TABLE, "Train/Image/notes.xlsx"),
    "macOS's files": both(copied(TABLE, "Train/Image/._0001.png"), copied(TABLE, "Train/Image/._0002.png")),
    "scale 0": json_file("scale.json", {"um_per_px": [0, 14.7]}),
    "scale negative": json_file("scale.json", {"um_per_px": [3.87, -14.7]}),
    "scale in mm": json_file("scale.json", {"um_per_px": [0.00387, 0.0147]}),
    "scale no JSON": as_bytes("scale.json", lambda _: b"3.87"[:2] + b"x"),
    "no images": gone("Train/Image"),
    "an empty split": both(gone("Test/Image"), lambda root: (root / "Test/Image").mkdir()),
    "no data set": gone("Train"),
    "what octkit leaves beside masks": both(json_file("Train/Layer_Masks/0003.scale.json", {}),
                                            json_file("Train/Layer_Masks/0003.boundaries.csv", {})),
    "not all unpacked": both(gone("Validation"), gone("Truth")),
    "two layouts": lambda root: (root / "imagesTr").mkdir(),
    "true mask of label numbers": image("Truth/Layer_Masks/0007.png", greys({255: 0, 0: 1, 80: 2, 160: 3})),
    "true labels damaged": as_bytes("Truth/GC_GT.xlsx", lambda _: b"x"),
}

VOLUMES = {
    "nan": nifti(VOLUME, with_value(np.nan)),
    "infinite": nifti(VOLUME, with_value(-np.inf)),
    "0 to 1": nifti(VOLUME, lambda voxels: (voxels / 255).astype(np.float32)),
    "two ranges": both(*(nifti(f"Train/Image/000{number}.nii.gz", lambda voxels: voxels.astype(np.uint16) * 257)
                         for number in (1, 2))),
    "spacing 0": header(VOLUME, 80, "<f", 0.0),
    "spacing negative": header(VOLUME, 84, "<f", -0.004),
    "spacing nan": header(VOLUME, 88, "<f", float("nan")),
    "truncated volume": as_bytes(VOLUME, lambda data: data[:len(data) // 2]),
    "no gzip": as_bytes(VOLUME, lambda _: b"no volume"),
    "zero-byte volume": as_bytes(VOLUME, lambda _: b""),
    "too many voxels": header(VOLUME, 40, "<4h", 3, 30_000, 30_000, 3),
    "four axes": lambda root: nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6, 2), np.uint8), np.eye(4)),
                                           root / VOLUME),
    "a single slice": nifti(VOLUME, lambda voxels: voxels[0]),
    "mask volume of another size": nifti(VOLUME_MASK, lambda voxels: voxels[:, :-2]),
    "foreign label": nifti(VOLUME_MASK, lambda voxels: voxels * 2),
    "half labels": nifti(VOLUME_MASK, with_value(1.5)),
    "constant volume": nifti(VOLUME, np.zeros_like),
    "volume without mask": gone(VOLUME_MASK),
    "volume twice": copied(VOLUME, "Validation/Image/0009.nii.gz"),
    "two files of one name": copied("Train/Image/0001.nii.gz", "Train/Image/0001.nii"),
    "labels.json": json_file("labels.json", {"labels": ["rnfl", "rnfl"]}),
    "a PNG among volumes": lambda root: Image.fromarray(np.eye(40, dtype=np.uint8)).save(root / "Train/Image/9.png"),
    "stack's spacing 0": as_stack(json_file(f"{STACK}/spacing.json", {"spacing": [0.1, 0, 0.1]})),
    "stack's spacing of two": as_stack(json_file(f"{STACK}/spacing.json", {"spacing": [0.1, 0.1]})),
    "stack without spacing": as_stack(gone(f"{STACK}/spacing.json")),
    "B-scans of two sizes": as_stack(image(f"{STACK}/001.png", lambda grey: grey[:, :-1])),
    "B-scan damaged": as_stack(as_bytes(f"{STACK}/001.png", flipped_bit)),
    "B-scan missing": as_stack(gone(f"{STACK}/001.png")),
    "a gap in the B-scans": as_stack(both(*(moved(f"Train/{kind}/0002/002.png", f"Train/{kind}/0002/004.png")
                                            for kind in ("Image", "Mask")))),
    "true volume of another size": nifti("Truth/Mask/0004.nii.gz", lambda voxels: voxels[1:]),
}

RAW = {
    "no dataset.json": gone("dataset.json"),
    "dataset.json no JSON": as_bytes("dataset.json", lambda data: data[:-9]),
    "dataset.json a list": json_file("dataset.json", []),
    "numTraining": json_with("dataset.json", numTraining=7),
    "file_ending": json_with("dataset.json", file_ending=".mha"),
    "regions": json_with("dataset.json", labels={"background": 0, "retina": [1, 2, 3]}),
    "a channel missing": gone("imagesTr/eye_002_0001.png"),
    "a channel of another size": image("imagesTr/eye_002_0001.png", lambda grey: grey[1:]),
    "a channel blank": image("imagesTr/eye_002_0001.png", np.zeros_like),
    "a name without channel": moved("imagesTs/eye_005_0001.png", "imagesTs/eye.png"),
    "names that differ in capitals": both(*(moved(f"imagesTs/eye_005_000{n}.png", f"imagesTs/EYE_001_000{n}.png")
                                            for n in (0, 1))),
    "a label in nobody's list": image("labelsTr/eye_002.png", lambda mask: np.where(mask == 3, 4, mask).astype("u1")),
}

MGUNET = {
    "MGU-Net: foreign grey": image("train/mask/2.png", greys({26: 27})),
    "MGU-Net: label numbers": image("train/mask/2.png", greys({26: 1, 51: 2, 77: 2, 230: 3, 102: 0, 255: 0})),
    "MGU-Net: no mask": gone("eval/mask/1.png"),
    "MGU-Net: no images": gone("test/img"),
}
