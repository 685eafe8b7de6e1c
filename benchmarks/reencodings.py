"""Write one scan and its mask in many valid ways and read them through octkit: the same numbers, or a refusal.

    python benchmarks/reencodings.py --runs 500 --seed 1

Half of the ways are of a circle scan (PNG, TIFF, BMP and JPEG of all modes and depths, names with and without zeros in
front), half of a volume (NIfTI of all types, byte orders, slopes, orientations and packings; folders of B-scans). The
circle scan is predicted by the model in the box; Dice, MED and thickness must be those of the plain files. Of the
volume the grey value of each layer, and the scores of a fixed mask against the one that was written, must be. Exit code
1 where a way gives other numbers without a word. The same seed writes the same files.
"""

import argparse
import gzip
import io
import locale
import os
import struct
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import nibabel
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff
from PIL import Image

from octkit.common.errors import OctkitError
from octkit.common.files import write_json
from octkit.data.dataset import is_lossy
from octkit.data.doctor.data_set import look_through
from octkit.data.image_files import write_mask
from octkit.data.labels import GOALS_GREYS, LAYERS
from octkit.data.layouts.detect import open_dataset
from octkit.data.volume_files import write_nifti
from octkit.evaluation.evaluate import score_folder
from octkit.inference.scan_result import predict_scan
from octkit.inference.sliding_window import Predictor
from octkit.layers.thickness import means, profile
from octkit.phantoms.data_sets import make_data_set

COLOUR_TYPES = {"L": 0, "RGB": 2, "P": 3, "LA": 4, "RGBA": 6}
SPACING = (0.12, 0.004, 0.012)
CHINESE = os.fsdecode("片 ".encode())  # as a locale of ASCII alone spells the name of such a file
ROUNDING = {True: 0.002, False: 0.05}  # what 12 bits may move of Dice, and of lengths in px and grey values
LOSSY = 0.02  # how far Dice may move where JPEG has changed the grey values


def png(pixels: np.ndarray, mode: str, depth: int, palette: np.ndarray | None = None, significant: int = 0) -> bytes:
    """A PNG of (H, W, samples) of 8 or 16 bits, made by hand: no library writes all modes at 16 bits."""
    rows = pixels.astype(">u2" if depth == 16 else "u1").reshape(len(pixels), -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", pixels.shape[1], len(pixels), depth, COLOUR_TYPES[mode], 0, 0, 0))]
    if significant:
        chunks.append((b"sBIT", bytes([significant])))
    if palette is not None:
        chunks.append((b"PLTE", palette.astype(np.uint8).tobytes()))
    chunks += [(b"IDAT", zlib.compress(data, 1)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
             for kind, body in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def samples(pixels: np.ndarray, mode: str, opaque: int) -> np.ndarray:
    """Grey (H, W) as the samples of a mode, (H, W, C): equal colours, full alpha."""
    colours = [pixels] * (3 if mode.startswith("RGB") else 1)
    return np.dstack(colours + [np.full_like(pixels, opaque)] * mode.endswith("A"))


@dataclass
class Writer:
    """Draws ways of writing; `how` tells of the last one."""

    random: np.random.Generator
    how: list[str] = field(default_factory=list)

    def one_of(self, *choices):
        chosen = choices[int(self.random.integers(len(choices)))]
        if chosen is not False:
            self.how.append(str(chosen))
        return chosen

    def flat(self, folder: Path, name: str, pixels: np.ndarray, jpeg: bool = False) -> Path:
        """A 2-D picture of 8-bit grey values (H, W)."""
        kinds: dict[str, Callable[[np.ndarray], bytes]] = {
            "png": self._png, "palette.png": self._palette, "tif": self._tiff, "bmp": self._bmp, "jpg": self._jpeg}
        kind = self.one_of(*(kind for kind in kinds if jpeg or kind != "jpg"))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.{kind.split('.')[-1]}"
        path.write_bytes(kinds[kind](pixels))
        return path

    def _png(self, pixels: np.ndarray) -> bytes:
        mode, depth = self.one_of("L", "RGB", "RGBA", "LA"), self.one_of("8", "16", "12 in 16", "8 in 16")
        if depth == "8":
            return png(samples(pixels, mode, 255), mode, 8)
        factor = {"16": 257, "12 in 16": 4095 / 255, "8 in 16": 1}[depth]
        values = np.rint(pixels.astype(float) * factor).astype(np.uint16)
        significant = 12 if depth == "12 in 16" and mode == "L" and self.one_of(True, False) else 0
        if significant:  # by PNG's rule the high bits, the low ones repeating them
            values = values << 4 | values >> 8
        return png(samples(values, mode, 65535), mode, 16, significant=significant)

    def _palette(self, pixels: np.ndarray) -> bytes:
        greys = self.random.permutation(256) if self.one_of("shuffled", "in order") == "shuffled" else np.arange(256)
        return png(np.argsort(greys)[pixels][..., None], "P", 8, np.repeat(greys[:, None], 3, axis=1))

    def _tiff(self, pixels: np.ndarray) -> bytes:
        file, mode = io.BytesIO(), self.one_of("L", "RGB", "RGBA", "I;16", "I;16B", "RGB16")
        if mode == "RGB16":
            return cv2.imencode(".tif", samples(pixels.astype(np.uint16) * 257, "RGB", 0))[1].tobytes()
        if mode.startswith("I"):
            image = Image.frombytes(mode, pixels.shape[::-1], (pixels.astype("<u2" if mode == "I;16" else ">u2") * 257
                                                               ).astype("<u2" if mode == "I;16" else ">u2").tobytes())
            image.save(file, format="TIFF")
        else:
            compression = self.one_of(None, "tiff_lzw", "tiff_adobe_deflate", "packbits")
            Image.fromarray(pixels).convert(mode).save(file, format="TIFF", compression=compression)
        return file.getvalue()

    def _bmp(self, pixels: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(pixels).convert(self.one_of("L", "RGB")).save(file, format="BMP")
        return file.getvalue()

    def _jpeg(self, pixels: np.ndarray) -> bytes:
        return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, self.one_of(95, 100)])[1].tobytes()

    def volume(self, folder: Path, name: str, values: np.ndarray) -> Path:
        """A volume (B-scans, rows, A-scans) of 8-bit values, as one NIfTI file or a folder of B-scans."""
        if self.one_of("NIfTI", "NIfTI", "B-scans") == "B-scans":
            return self._stack(folder / name, values)
        axes = np.column_stack([self.one_of((0, 1, 2), (0, 1, 2), tuple(self.random.permutation(3).tolist())),
                                self.one_of((1, 1, 1), tuple(self.random.choice([1, -1], 3).tolist()))])
        stored = apply_orientation(values.T, axes)
        affine = np.diag([*SPACING[::-1], 1.0]) @ inv_ornt_aff(axes, values.T.shape)
        kind = np.dtype(self.one_of("u1", "<i2", ">i2", "<u2", ">u2", "<i4", ">f4", "<f8"))
        slope = self.one_of(1.0, 0.5, 0.1) if kind.kind in "iu" and kind.itemsize > 1 else 1.0
        header = nibabel.Nifti1Header(endianness=kind.byteorder if kind.byteorder in "<>" else "<")
        header.set_data_dtype(kind)
        header.set_xyzt_units(self.one_of("mm", "unknown"))
        data = bytearray(nibabel.Nifti1Image(np.rint(stored / slope).astype(kind), affine, header).to_bytes())
        data[112:120] = struct.pack(header.endianness + "ff", slope, 0.0)  # scl_slope and scl_inter
        packed, ending = self.one_of("gzip", "plain"), self.one_of(".nii.gz", ".nii")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}{ending}"
        path.write_bytes(gzip.compress(bytes(data), 1) if packed == "gzip" else bytes(data))
        return path

    def _stack(self, folder: Path, values: np.ndarray) -> Path:
        prefix, digits, first = self.one_of("", "scan-", CHINESE), self.one_of(1, 3), self.one_of(0, 1)
        for number, b_scan in enumerate(values, first):
            self.flat(folder, f"{prefix}{number:0{digits}d}", b_scan)
        write_json(folder / "spacing.json", {"spacing": list(SPACING)})
        return folder


class Circle:
    """A circle scan, its numbers, and whether a data set of it gives the same."""

    def __init__(self, folder: Path):
        make_data_set(folder / "plain", (1, 0, 0), (192, 256), seed=3)
        self.table = (folder / "plain/Train/Train_GC_GT.xlsx").read_bytes()
        plain = open_dataset(folder / "plain")
        self.image, self.mask = plain.read_image(plain.train[0])[0], plain.read_mask(plain.train[0])
        self.predictor, self.masks = Predictor.load("default"), {}
        self.expected = self.numbers(folder / "plain", folder / "plain-predicted")

    def write(self, root: Path, writer: Writer) -> None:
        name, common = writer.one_of("0001", "1"), (False,) * 6
        values = {label: value for value, label in GOALS_GREYS.items()}
        greys = np.array([values[label] for label in range(4)], np.uint8)[self.mask]
        writer.flat(root / "Train/Image", name, self.image.astype(np.uint8), jpeg=True)
        its_name = "01" if writer.one_of(*common, True) else name
        writer.flat(root / "Train/Layer_Masks", its_name, greys, jpeg=writer.one_of(*common, True))
        (root / "Train/Train_GC_GT.xlsx").write_bytes(self.table)

    def numbers(self, root: Path, out: Path) -> dict[str, float]:
        """Dice and MED of the model's mask against the one that was written, and the mean thickness of both, in px."""
        dataset = open_dataset(root)
        [case] = dataset.train
        image, mask = dataset.read_image(case), dataset.read_mask(case)
        key = image.tobytes()
        if key not in self.masks:
            self.masks[key] = predict_scan(self.predictor, image, circle=True).mask
        write_mask(out / f"{case.name}.png", self.masks[key], GOALS_GREYS)
        scores = score_folder(out, root / "Train/Layer_Masks")["cases"][case.name]
        found = {f"{metric} of {layer}": scores[layer][metric] for layer in LAYERS for metric in ("dice", "med")}
        for what, labels in (("predicted", self.masks[key]), ("true", mask)):
            found |= {f"{what} {layer}": means(profile(labels)[layer])["global"] for layer in LAYERS}
        return found

    def warned(self, root: Path, found: dict[str, float]) -> bool:
        """Whether other numbers are said to come: a compressed picture's, which must be about the plain one's."""
        near = all(abs(found[name] - self.expected[name]) < (LOSSY if "dice" in name else 1.0) for name in found)
        return near and any(is_lossy(path) for path in (root / "Train/Image").iterdir())


class Volume:
    """A volume of B-scans, its numbers, and whether a data set of it gives the same."""

    def __init__(self, folder: Path):
        make_data_set(folder / "plain", (1, 0, 0), (5, 96, 64), seed=3, kind="macular")
        plain = open_dataset(folder / "plain")
        self.image, self.mask = plain.read_image(plain.train[0])[0], plain.read_mask(plain.train[0])
        self.guess = np.roll(self.mask, 1, axis=1)  # what is scored: the truth, a row too deep
        write_nifti(folder / "set/Train/Image/0001.nii.gz", self.image.astype(np.uint8), SPACING)
        write_nifti(folder / "set/Train/Mask/0001.nii.gz", self.mask, SPACING)
        self.expected = self.numbers(folder / "set", folder / "guess")

    def write(self, root: Path, writer: Writer) -> None:
        writer.volume(root / "Train/Image", "0001", self.image.astype(np.uint8))
        writer.volume(root / "Train/Mask", "0001", self.mask)

    def numbers(self, root: Path, out: Path) -> dict[str, float]:
        """Mean grey value of each layer, and the scores of the guess against the mask that was written."""
        dataset = open_dataset(root)
        [case] = dataset.train
        image, mask = dataset.read_image(case)[0], dataset.read_mask(case)
        write_nifti(out / "0001.nii.gz", self.guess, SPACING)
        scores = score_folder(out, root / "Train/Mask")["cases"]["0001"]
        found = {f"{metric} of {layer}": scores[layer][metric] for layer in LAYERS
                 for metric in ("dice", "med", "thickness_error")}
        return found | {f"grey of {layer}": float(image[mask == label].mean(dtype=np.float64))
                        for label, layer in enumerate(LAYERS, 1)}

    def warned(self, root: Path, found: dict[str, float]) -> bool:
        """Whether other numbers are said to come: the doctor's warning of an order that nobody can know."""
        findings = look_through(root, workers=0).findings
        return found.keys() == self.expected.keys() and any("order" in finding.line() for finding in findings)


def try_one(scan: Circle | Volume, seed: tuple[int, int], folder: Path) -> tuple[str, str]:
    """Write a scan in one way and read it: ("same", "warned", "refused" or "WRONG"; how it was written and why)."""
    writer = Writer(np.random.default_rng(seed))
    scan.write(folder / "set", writer)
    how = ", ".join(writer.how)
    try:
        found = scan.numbers(folder / "set", folder / "predicted")
    except OctkitError as error:
        return "refused", f"{how}: {error}"
    other = {name: (round(found[name], 3), round(scan.expected[name], 3)) for name in found
             if abs(found[name] - scan.expected[name]) > ROUNDING["dice" in name]}
    if not other:
        return "same", how
    return ("warned" if scan.warned(folder / "set", found) else "WRONG"), f"{how}: {other}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", action="store_true", help="print every way that was not read the same")
    asked = parser.parse_args()
    counted: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as name:
        scans = {"circle": Circle(Path(name, "circle")), "volume": Volume(Path(name, "volume"))}
        for run in range(asked.runs):
            kind = ("circle", "volume")[run % 2]
            with tempfile.TemporaryDirectory(dir=name) as folder:
                ended, how = try_one(scans[kind], (asked.seed, run), Path(folder))
            counted[kind, ended] += 1
            if ended == "WRONG" or asked.show and ended != "same":
                print(f"{ended} {kind}: {how.encode('ascii', 'backslashreplace').decode()}")
    print(f"text encoding {locale.getencoding()}, {asked.runs} ways")
    for kind in scans:
        print(kind, *(f"{counted[kind, ended]} {ended}" for ended in ("same", "warned", "refused", "WRONG")), sep=" | ")
    return int(any(ended == "WRONG" for _, ended in counted))


if __name__ == "__main__":
    sys.exit(main())
