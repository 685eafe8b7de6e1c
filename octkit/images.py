"""2-D images and masks as PNG files: read with every deviation named, written whole."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from octkit.files import OctkitError, replacing

# A decompression bomb is refused before it is decoded: 100 Mpx is 100 times a GOALS scan.
MAX_PIXELS = 100_000_000


def list_images(path: str | Path) -> tuple[Path, ...]:
    """The PNG files of a folder in the order of their names, or the one file given."""
    path = Path(path)
    if path.is_file():
        return (path,)
    if not path.is_dir():
        raise OctkitError(f"{path}: no such file or folder, expected PNG images")
    images = tuple(sorted(p for p in path.iterdir() if p.suffix.lower() == ".png" and not p.name.startswith(".")))
    if not images:
        raise OctkitError(f"{path}: found no PNG images in this folder")
    return images


def image_size(path: Path) -> tuple[int, int]:
    """(H, W) of an image file, from its header alone."""
    with _opened(path) as image:
        return image.height, image.width


def stored_as_grey(path: Path) -> bool:
    """Whether an image file has one channel of 8 bits; grey values may also be stored as RGB."""
    with _opened(path) as image:
        return image.mode == "L"


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
