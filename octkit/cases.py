"""What a data set is made of: cases, their images and masks, and the small files between steps.

Arrays everywhere: images are (channels, *spatial) float32 as stored on disk (0..255), masks are
(*spatial) uint8 labels with 0 for background. How labels are coded in files (GOALS greys, say) is
the layout's business: a Dataset carries that coding as `mask_values`.
"""

import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

LAYERS = ("rnfl", "gcipl", "choroid")

# A decompression bomb is refused before it is decoded: 100 Mpx is 100 times a GOALS scan.
MAX_PIXELS = 100_000_000


class OctkitError(Exception):
    """An error that the user can mend: one sentence with the file, what was found and what was expected."""


@dataclass(frozen=True)
class Case:
    """One scan: where its files lie and what is known of it.

    `spacing` is in mm per axis (row, column) and None where the scale is unknown; `eye` is "R", "L" or
    None; `circle` says that the last A-scan is the neighbour of the first; `glaucoma` is 1, 0 or None.
    """

    name: str
    image: Path
    mask: Path | None = None
    glaucoma: int | None = None
    spacing: tuple[float, ...] | None = None
    eye: str | None = None
    circle: bool = False


@dataclass(frozen=True)
class Dataset:
    """The cases of a data set by split, and how its files are to be read.

    `labels` are the foreground names (label 1 first); `mask_values` maps the values in mask files to labels.
    """

    name: str
    root: Path
    layout: str
    labels: tuple[str, ...]
    channels: tuple[str, ...]
    mask_values: dict[int, int]
    train: tuple[Case, ...]
    validation: tuple[Case, ...] = ()
    test: tuple[Case, ...] = ()

    def read_image(self, case: Case) -> np.ndarray:
        """The case's image, (1, H, W) float32, values as stored (0..255)."""
        return read_image(case.image)

    def read_mask(self, case: Case) -> np.ndarray:
        """The case's mask, (H, W) uint8 labels; it must have the image's size and only known values."""
        if case.mask is None:
            raise OctkitError(f"{case.image}: this case has no mask; expected one for a training case")
        return read_mask(case.mask, self.mask_values, shape=image_size(case.image))


def image_size(path: Path) -> tuple[int, int]:
    """(H, W) of an image file, from its header alone."""
    with _opened(path) as image:
        return image.height, image.width


def read_image(path: Path) -> np.ndarray:
    """An 8-bit grey image (stored as grey, or as RGB with three equal channels): (1, H, W) float32.

    Raises OctkitError for a missing, unreadable or truncated file, another bit depth, or real colour.
    """
    pixels = _decode(path)
    if pixels.ndim == 3:
        if pixels.shape[2] not in (3, 4):
            raise OctkitError(f"{path}: found {pixels.shape[2]} channels, expected grey or RGB")
        if pixels.shape[2] == 4 and pixels[..., 3].min() < 255:
            raise OctkitError(f"{path}: found transparent pixels, expected a grey or RGB image without alpha")
        if (pixels[..., 1] != pixels[..., 0]).any() or (pixels[..., 2] != pixels[..., 0]).any():
            raise OctkitError(f"{path}: found a colour image, expected grey values (three equal channels)")
        pixels = pixels[..., 0]
    return pixels[None].astype(np.float32)


def read_mask(path: Path, values: dict[int, int], shape: tuple[int, int] | None = None) -> np.ndarray:
    """A mask file decoded to labels: (H, W) uint8.

    `values` maps file values to labels; `shape` is the (H, W) that the mask must have. Raises OctkitError
    for an unreadable file, another size, or values that are not in `values` (all of them are named).
    """
    pixels = read_image(path)[0].astype(np.uint8)
    if shape is not None and pixels.shape != tuple(shape):
        raise OctkitError(f"{path}: found a mask of {_size(pixels.shape)} px, expected {_size(shape)} px "
                          "like its image")
    lookup = np.full(256, 255, np.uint8)
    lookup[list(values)] = list(values.values())
    foreign = sorted(set(np.unique(pixels).tolist()) - set(values))
    if foreign:
        raise OctkitError(f"{path}: found mask values {_some(foreign)}, expected only {_some(sorted(values))}")
    return lookup[pixels]


def write_mask(path: Path, mask: np.ndarray, values: dict[int, int]) -> None:
    """Write labels (H, W) as an 8-bit grey PNG in the file coding `values` (file value -> label), atomically."""
    lookup = np.zeros(256, np.uint8)
    for value, label in values.items():
        lookup[label] = value
    unknown = sorted(set(np.unique(mask).tolist()) - set(values.values()))
    if unknown:
        raise OctkitError(f"{path}: mask holds labels {_some(unknown)}, the coding knows {sorted(values.values())}")
    write_png(path, lookup[mask])


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write an 8-bit grey (H, W) or RGB (H, W, 3) array as PNG, atomically."""
    with replacing(path) as temporary:
        Image.fromarray(np.ascontiguousarray(pixels, np.uint8)).save(temporary, format="PNG", compress_level=3)


class replacing:
    """`with replacing(path) as temporary:` write to `temporary`; only a finished file takes `path`'s place."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self.temporary = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex[:8]}.tmp")

    def __enter__(self) -> Path:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.temporary

    def __exit__(self, kind, error, traceback) -> None:
        if kind is None:
            # The data must be on disk before the name is, or a power cut leaves an empty "finished" file.
            with open(self.temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(self.temporary, self.path)
        else:
            self.temporary.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a whole file or nothing."""
    with replacing(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: Path, value) -> None:
    """Write readable JSON, atomically. NaN is refused: a reader of the file could not parse it."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path):
    """Read a JSON file. Raises OctkitError where it is missing or no JSON."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise OctkitError(f"{path}: not found; expected the JSON file that the step before leaves") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise OctkitError(f"{path}: is not valid JSON ({error})") from None


def _opened(path: Path) -> Image.Image:
    try:
        image = Image.open(path)
    except FileNotFoundError:
        raise OctkitError(f"{path}: not found, expected an image file") from None
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise OctkitError(f"{path}: cannot be read as an image ({error})") from None
    if image.width * image.height > MAX_PIXELS:
        raise OctkitError(f"{path}: {image.width} x {image.height} px is more than the limit of {MAX_PIXELS} px")
    return image


def _decode(path: Path) -> np.ndarray:
    with _opened(path) as image:
        if image.mode not in ("L", "RGB", "RGBA", "1"):
            raise OctkitError(f"{path}: found image mode {image.mode}, expected 8-bit grey or RGB")
        try:
            return np.asarray(image.convert("L") if image.mode == "1" else image)
        except (OSError, SyntaxError, ValueError) as error:
            raise OctkitError(f"{path}: is damaged ({error}), expected a whole image") from None


def _size(shape) -> str:
    return " x ".join(str(n) for n in shape)


def _some(values: list) -> str:
    shown = ", ".join(str(value) for value in values[:8])
    return shown + (f", … ({len(values)} in all)" if len(values) > 8 else "")
