"""2-D images and masks as PNG files: read with every deviation named, written whole."""

import io
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from octkit.common.errors import OctkitError, bad_file, no_file
from octkit.common.files import listing, replacing
from octkit.data.mask_values import check_size, decode, some

# A decompression bomb is refused before it is decoded: 80 times a GOALS scan, and below the 89 Mpx at which Pillow
# begins to warn.
MAX_PIXELS = 80_000_000
PNG = b"\x89PNG\r\n\x1a\n"
# What else is met under the name of a PNG: the first bytes of other formats.
OTHERS = {b"\xff\xd8\xff": "a JPEG", b"BM": "a BMP", b"II*\0": "a TIFF", b"MM\0*": "a TIFF", b"GIF8": "a GIF",
          b"RIFF": "a WebP", b"PK": "a zip archive", b"%PDF": "a PDF"}


def list_images(path: str | Path) -> tuple[Path, ...]:
    """The PNG files of a folder in the order of their names, or the one file given."""
    path = Path(path)
    if path.is_file():
        return (path,)
    if not path.exists():
        raise bad_file(path, "no such file or folder", "expected PNG images")
    images = tuple(file for file in listing(path, "PNG images") if file.suffix.lower() == ".png")
    if not images:
        raise bad_file(path, "found no PNG images in this folder", "expected some")
    return images


def image_size(path: Path) -> tuple[int, int]:
    """(H, W) of an image file, from its header alone."""
    path = Path(path)
    if not path.is_file():  # a pipe or a device would be waited for without an end
        raise no_file(path, "an image file")
    try:
        with open(path, "rb") as file:
            start = file.read(24)
    except OSError as error:
        raise bad_file(path, f"cannot be read as an image ({error.strerror})", "expected a PNG file") from None
    if start[:8] != PNG or start[12:16] != b"IHDR" or len(start) < 24:
        other = next((f"holds {kind}" for magic, kind in OTHERS.items() if start.startswith(magic)),
                     "is damaged or no PNG" if start else "is empty, 0 bytes")
        mend = "save it as one" if other.startswith("holds") else "copy it again from where it came"
        raise bad_file(path, f"cannot be read as an image ({other})", f"expected a PNG file: {mend}")
    width, height = struct.unpack(">II", start[16:24])
    if width * height > MAX_PIXELS:
        raise bad_file(path, f"{width} x {height} px is more than the limit of {MAX_PIXELS} px",
                       "expected a scan: files of this kind can fill the memory")
    return height, width


def stored_mode(path: Path) -> str:
    """How an image file stores its pixels, as Pillow names it: "L" for 8-bit grey, "RGB", "RGBA", …"""
    with _opened(path) as image:
        return image.mode


def read_image(path: Path) -> np.ndarray:
    """An 8-bit grey image (stored as grey, or as RGB with three equal channels): (1, H, W) float32.

    An alpha channel is passed over where it is opaque. Raises OctkitError for a missing, unreadable, truncated or
    damaged file, another bit depth, or real colour.
    """
    with _opened(path) as image:
        if image.mode not in ("L", "LA", "RGB", "RGBA", "1"):
            kind = {"P": " (palette)", "I;16": " (16 bits a pixel)"}.get(image.mode, "")
            raise bad_file(path, f"found image mode {image.mode}{kind}",
                           "expected 8-bit grey or RGB: save it as 8-bit grey")
        pixels = np.asarray(image.convert("L") if image.mode == "1" else image)
    if pixels.ndim == 3:
        if pixels.shape[2] in (2, 4) and pixels[..., -1].min() < 255:
            raise bad_file(path, "found transparent pixels", "expected a grey or RGB image without alpha")
        if pixels.shape[2] > 2 and (pixels[..., :1] != pixels[..., 1:3]).any():
            raise bad_file(path, "found a colour image", "expected grey values (three equal channels)")
        pixels = pixels[..., 0]
    return pixels[None].astype(np.float32)


def read_mask(path: Path, values: Mapping[int, int], shape: tuple[int, ...] | None = None) -> np.ndarray:
    """A mask file decoded to labels: (H, W) uint8.

    `values` maps file values to labels; `shape` is the (H, W) that the mask must have. Raises OctkitError for an
    unreadable file, another size, and as `mask_values.decode`.
    """
    pixels = read_image(path)[0].astype(np.uint8)
    if shape is not None:
        check_size(path, pixels.shape, shape)
    return decode(path, pixels, values)


def write_mask(path: Path, mask: np.ndarray, values: Mapping[int, int]) -> None:
    """Write labels (H, W) as an 8-bit grey PNG in the file coding `values` (file value -> label), atomically."""
    lookup = np.zeros(256, np.uint8)
    lookup[list(values.values())] = list(values)
    if unknown := sorted(set(np.unique(mask).tolist()) - set(values.values())):
        raise OctkitError(f"{path}: mask holds labels {some(unknown)}, the coding knows {sorted(values.values())}")
    write_png(path, lookup[mask])


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write an 8-bit grey (H, W) or RGB (H, W, 3) array as PNG, atomically."""
    with replacing(path) as temporary:
        Image.fromarray(np.ascontiguousarray(pixels, np.uint8)).save(temporary, format="PNG", compress_level=3)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Pillow's image of a PNG file whose checksums are right; errors of decoding it become an OctkitError."""
    image_size(path)
    try:
        data = Path(path).read_bytes()
        # Pillow decodes pixels without a look at their checksums: a flipped bit would become another scan.
        Image.open(io.BytesIO(data), formats=("PNG",)).verify()
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            yield image
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        reason = str(error).split(" <_io")[0]  # without the address of the buffer that stands for the file
        raise bad_file(path, f"is damaged ({reason})",
                       "expected a whole image: copy it again from where it came") from None
