"""2-D images and masks in files: PNG, TIFF, BMP and JPEG are read by the depth that they state, PNG is written whole.

Images come out on the scale 0..255 whatever their depth, so that a 16-bit scan gives what its 8-bit copy gives. Masks
keep the values that are stored. What could be read in two ways is refused; data/README.md has the table.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageSequence

from octkit.common.errors import OctkitError, bad_file, no_file, tried
from octkit.common.files import listing, replacing
from octkit.common.memory import check_content
from octkit.data.mask_values import check_size, decode, some

# A decompression bomb is refused before it is decoded: 80 times a GOALS scan, and below the 89 Mpx at which Pillow
# begins to warn.
MAX_PIXELS = 80_000_000
BYTES_A_PIXEL = 24  # while it is read: of 16 bits as stored and in double precision, of RGB its channels
# The ending of a file's name -> its format, as Pillow calls it.
FORMATS = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP", ".jpg": "JPEG", ".jpeg": "JPEG"}
IMAGE_KINDS = "PNG, TIFF, BMP or JPEG images"
# The first bytes of these and of other formats that are met under their names.
BEGINNINGS = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF",
              b"GIF8": "GIF", b"RIFF": "WebP", b"PK": "zip archive", b"%PDF": "PDF"}
# Pillow's names: of the modes of pixels that are read, up to 8 bits a value and above; of lossy compression in a TIFF.
MODES, DEEP_MODES = ("1", "L", "LA", "P", "RGB", "RGBA"), ("I;16", "I;16B", "RGB", "RGBA")
GREY_MODES = ("L", "I;16", "I;16B", "I", "F")  # of a volume's pages
LOSSY = ("jpeg", "tiff_jpeg", "webp")
BITS, PHOTOMETRIC, ORIENTATION, PLANES, SAMPLE_KIND = 258, 262, 274, 284, 339  # tags of TIFF; EXIF shares the third
TURNED = ("found an orientation that turns the picture when it is shown", "expected none: save it upright, without one")


@dataclass(frozen=True)
class Header:
    """What an image file says of itself before its pixels are decoded.

    `size` is (H, W), `mode` how pixels are stored, as Pillow names it ("L" grey, "P" palette, "RGB", "RGBA", …), `bits`
    the depth of a stored value, of which a PNG may say that fewer are `significant`. `lossy` compression has changed
    the grey values.
    """

    size: tuple[int, int]
    format: str
    mode: str
    bits: int
    significant: int
    lossy: bool

    @property
    def colours(self) -> int:
        """How many channels the pixels have, without alpha."""
        return 3 if self.mode in ("P", "RGB", "RGBA") else 1


OVERLAY = ".overlay.png"  # how a picture ends that `octkit predict` leaves beside a mask, for a person to look at


def is_image(path: Path) -> bool:
    """Whether a path has the name of a 2-D image, a scan or a mask."""
    return Path(path).suffix.lower() in FORMATS and not Path(path).name.lower().endswith(OVERLAY)


def list_images(path: str | Path) -> tuple[Path, ...]:
    """The image files of a folder in the order of their names, or the one file given."""
    path = Path(path)
    if path.is_file():
        return (path,)
    if not path.exists():
        raise bad_file(path, "no such file or folder", f"expected {IMAGE_KINDS}")
    images = tuple(file for file in listing(path, IMAGE_KINDS) if is_image(file))
    if not images:
        raise bad_file(path, "found no images in this folder", f"expected {IMAGE_KINDS}")
    return images


def read_header(path: Path) -> Header:
    """An image's `Header`. Raises OctkitError for a file that is none, or of a kind that has no one meaning."""
    with _opened(Path(path)) as image:
        return _header(Path(path), image)


def read_image(path: Path, channels: int = 1) -> np.ndarray:
    """An image of any depth on the scale 0..255: (channels, H, W) float32.

    One channel is grey values, stored as grey or as three equal channels; three are a colour image's. An alpha channel
    is passed over where it is opaque. Raises OctkitError for a missing, truncated or damaged file, for colours where
    one channel is asked for, and for 16 bits of which nobody knows how many are used.
    """
    header, pixels, _ = _decoded(Path(path))
    pixels = _opaque(path, pixels, header)
    if channels == 1:
        pixels = _grey(path, pixels)
    elif pixels.shape[2] != channels:
        raise bad_file(path, f"found {pixels.shape[2]} channels", f"expected {channels}")
    planes = np.moveaxis(pixels, -1, 0)
    return (planes * 255.0 / _white(path, planes, header) if header.bits > 8 else planes).astype(np.float32)


def read_mask(path: Path, values: Mapping[int, int], shape: tuple[int, ...] | None = None) -> np.ndarray:
    """A mask file decoded to labels: (H, W) uint8.

    `values` maps file values to labels; `shape` is the (H, W) that the mask must have. A palette's mask may mean its
    indices or its greys, one of less than 8 bits its values or these spread to 0..255: it is read where one of the two
    fits `values` alone, or both give the same. Raises OctkitError for an unreadable file, another size, lossy
    compression, two meanings, and as `mask_values.decode`.
    """
    header, pixels, indices = _decoded(Path(path))
    if header.lossy:
        raise bad_file(path, "is compressed with loss (JPEG), which changes values along edges",
                       "expected a mask as PNG, TIFF or BMP: make it again from its original, not from this file")
    if shape is not None:
        check_size(path, header.size, shape)
    if indices is None:
        shown = _grey(path, _opaque(path, pixels, header))[..., 0]
        if header.bits >= 8:
            return decode(path, shown, values)
        step = 255 // (2**header.bits - 1)
        readings = {"values as stored": shown // step, "values spread to 0 … 255": shown}
    else:
        readings = {"indices of its palette": indices}
        if (pixels[..., :3] == pixels[..., :1]).all():
            readings["greys of its palette"] = pixels[..., 0]
    return _only_meaning(path, readings, values)


def read_pages(path: Path) -> np.ndarray:
    """The pages of a TIFF file as a volume (pages, H, W), values as stored.

    Raises OctkitError where it is damaged, or its pages are no grey values of one size and depth.
    """
    pages: list[np.ndarray] = []
    with _opened(path) as image:
        try:
            for page in ImageSequence.Iterator(image):
                check_content(path, BYTES_A_PIXEL * (len(pages) + 1) * page.width * page.height)
                if page.mode not in GREY_MODES:
                    raise ValueError(f"found image mode {page.mode}, expected grey")
                pages.append(np.asarray(page))
                if (pages[-1].shape, pages[-1].dtype) != (pages[0].shape, pages[0].dtype):
                    raise ValueError("its pages are of several sizes or depths")
        except OctkitError:
            raise
        except Exception as error:  # Pillow raises a dozen kinds for damaged data
            raise bad_file(path, f"cannot be read as a volume ({error})", "expected pages of grey values, all of one "
                           "size and depth") from None
    return np.stack(pages)


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


def _opened(path: Path) -> Image.Image:
    """Pillow's image of a file, its header read. Raises OctkitError where it is none, or too large."""
    if not path.is_file():  # a pipe or a device would be waited for without an end
        raise no_file(path, "an image file")
    own = FORMATS.get(path.suffix.lower())
    too_large = bad_file(path, f"has more pixels than the limit of {MAX_PIXELS}",
                         "expected a scan: files of this kind can fill the memory")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path, formats=[own] if own else sorted(set(FORMATS.values())))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise too_large from None
    except Exception:  # Pillow raises a dozen kinds for damaged headers
        raise _no_image(path, own) from None
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise too_large
    return image


def _no_image(path: Path, own: str | None) -> OctkitError:
    """The error for a file that cannot be opened as the format `own` that its name says."""
    try:
        with open(path, "rb") as file:
            start = file.read(8)
    except OSError as unread:
        return bad_file(path, f"cannot be read as an image ({unread.strerror})", "expected a file that you may read")
    kind = next((kind for beginning, kind in BEGINNINGS.items() if start.startswith(beginning)), None)
    ending = next((ending for ending, name in FORMATS.items() if name == kind), None)
    if not start:
        return bad_file(path, "cannot be read as an image (is empty, 0 bytes)",
                        f"expected {IMAGE_KINDS}: copy it again from where it came")
    if kind is None or kind == own:
        return bad_file(path, f"cannot be read as an image (is damaged, or no {own or 'image'} that octkit reads)",
                        f"expected {IMAGE_KINDS} of 8- or 16-bit grey: save it so, or copy it again from where it came")
    return bad_file(path, f"cannot be read as an image (holds a {kind})",
                    f"expected a {own or 'PNG'} file: {f'rename it to {ending}' if ending else 'save it as one'}")


def _header(path: Path, image: Image.Image) -> Header:
    """The `Header` of an opened image. Raises OctkitError for what has no one meaning."""
    bits = significant = 1 if image.mode == "1" else 8
    if image.format == "PNG":
        with open(path, "rb") as file:
            bits, significant = _png_bits(file)
    elif image.format == "TIFF":
        bits = significant = max(image.tag_v2.get(BITS, (1,)))  # type: ignore[attr-defined]
    if problem := _not_read(image, bits):
        raise bad_file(path, *problem)
    lossy = image.format in ("JPEG", "MPO") or image.info.get("compression") in LOSSY
    return Header((image.height, image.width), image.format or "", image.mode, bits, significant, lossy)


def _not_read(image: Image.Image, bits: int) -> tuple[str, str] | None:
    """Why such an image is not read, and what helps. Pillow would decode some of these wrong in silence."""
    tags = getattr(image, "tag_v2", {})
    if set(tags.get(SAMPLE_KIND, (1,))) != {1} or len(set(tags.get(BITS, (1,)))) > 1:
        return "found values that are no whole numbers from 0 upwards", "expected 8- or 16-bit grey: save it as that"
    if image.mode not in (MODES if bits <= 8 else DEEP_MODES):
        return f"found image mode {image.mode} with {bits} bits a value", "expected 8- or 16-bit grey: save it as that"
    if tags.get(PHOTOMETRIC) == 0:
        return "found values that count from white to black (WhiteIsZero)", "expected 0 for black: save it so"
    if bits > 8 and tags.get(PLANES) == 2:
        return "found 16-bit channels that lie apart (planar)", "expected grey, or channels pixel by pixel: save it so"
    if getattr(image, "is_animated", False):  # Pillow counts pages one by one, of any number
        return "found more than one page", ("expected one: save each as a file of its own, all pages of a volume in "
                                            "one folder with spacing.json")
    # Pillow would decode a PNG whole to look for it.
    return TURNED if image.format != "PNG" and image.getexif().get(ORIENTATION, 1) != 1 else None


def _png_bits(file: BinaryIO) -> tuple[int, int]:
    """A PNG's depth (IHDR) and how many of the bits are significant (sBIT, where it has one)."""
    depth = file.read(25)[24]
    file.seek(33)
    while len(head := file.read(8)) == 8 and head[4:] not in (b"IDAT", b"IEND"):
        if head[4:] == b"sBIT":
            return depth, file.read(1)[0]
        file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return depth, depth


def _decoded(path: Path) -> tuple[Header, np.ndarray, np.ndarray | None]:
    """A file's header, its pixels as shown, (H, W) or (H, W, C), and the palette's indices (H, W) if it has one."""
    with _opened(path) as image, _opened(path) as again:
        header, indices = _header(path, image), None
        check_content(path, BYTES_A_PIXEL * image.width * image.height)
        try:
            # Pillow decodes a PNG's pixels without a look at their checksums: a flipped bit would become another scan.
            again.verify()
            pixels = np.asarray(image)
            if image.mode == "P":
                pixels, indices = np.asarray(image.convert("RGBA")), pixels
            elif image.mode == "1":
                pixels = np.asarray(image.convert("L"))
            elif header.bits > 8 and image.mode in ("RGB", "RGBA"):  # Pillow drops the low byte of such
                pixels = _deep_colours(path)
        except Exception as error:  # Pillow raises a dozen kinds for damaged data
            raise bad_file(path, f"is damaged ({error})", "expected a whole image: copy it again from where it came"
                           ) from None
        if image.format == "PNG" and image.getexif().get(ORIENTATION, 1) != 1:
            raise bad_file(path, *TURNED)
    return header, pixels, indices


def _deep_colours(path: Path) -> np.ndarray:
    """The RGB or RGBA values of a 16-bit image: (H, W, 3 or 4) uint16."""
    import cv2  # its import takes a fifth of a second, which few files need

    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3:
        raise ValueError("or of a kind that is not read")
    return pixels[..., [2, 1, 0, 3][:pixels.shape[2]]]


def _opaque(path: Path, pixels: np.ndarray, header: Header) -> np.ndarray:
    """Pixels without their alpha channel: (H, W, 1 or 3)."""
    if pixels.ndim == 2:
        return pixels[..., None]
    if pixels.shape[2] == 3:
        return pixels
    if pixels[..., -1].min() < 2**max(header.bits, 8) - 1:
        raise bad_file(path, "found transparent pixels", "expected a grey or RGB image without alpha")
    return pixels[..., :-1]


def _grey(path: Path, pixels: np.ndarray) -> np.ndarray:
    """The one channel (H, W, 1) of pixels (H, W, 1 or 3) that are grey."""
    if (pixels[..., :1] != pixels).any():
        raise bad_file(path, "found a colour image", "expected grey values (three equal channels)")
    return pixels[..., :1]


def _white(path: Path, pixels: np.ndarray, header: Header) -> int:
    """The stored value of white in an image of more than 8 bits.

    Values of 8 or 12 bits are often put into 16 as they are; the file is then dark and does not say so. Where the
    highest is in the upper half of 8 or 12 bits, a scan that really uses 16 would be all but black. Values times 257
    are those of 8 bits spread to 16.
    """
    peak = int(pixels.max())
    if header.significant < header.bits:  # these are the high bits by PNG's rule; where they are the low ones, it shows
        return 2**header.significant - 1 if peak < 2**header.significant else 2**header.bits - 1
    if header.bits < 16 or peak >= 2**14 or not (pixels % 257).any():
        return 2**header.bits - 1
    for bits in (8, 12):
        if 2**(bits - 1) <= peak < 2**bits:
            return 2**bits - 1
    raise bad_file(path, f"holds 16-bit values of at most {peak}, so that the value of white is not known",
                   "expected values up to 65535: multiply them (12-bit values by 16), or save it as 8-bit grey")


def _only_meaning(path: Path, readings: dict[str, np.ndarray], values: Mapping[int, int]) -> np.ndarray:
    """The labels (H, W) of a mask whose stored values can be read in several ways (what they are -> values)."""
    errors: list[OctkitError] = []
    masks = [mask for stored in readings.values()
             if (mask := tried(errors.append, decode, path, stored, values)) is not None]
    if not masks:
        found = ", ".join(f"{error.found} ({what})" for what, error in zip(readings, errors, strict=True))
        raise bad_file(path, found, " or ".join(dict.fromkeys(error.mend for error in errors)))
    if any((mask != masks[0]).any() for mask in masks):
        raise bad_file(path, f"can be read in two ways, by the {' and by the '.join(readings)}",
                       f"expected 8-bit grey without a palette, of the values {some(sorted(values))}: save it so")
    return masks[0]
