import struct
import zlib

import cv2
import numpy as np
import pytest
from helpers import write_stack
from PIL import Image, TiffImagePlugin

from octkit.common.errors import OctkitError
from octkit.data.image_files import MAX_PIXELS, list_images, read_header, read_image, read_mask, write_mask
from octkit.data.volume_files import read_volume

CODING = {0: 1, 80: 2, 160: 3, 255: 0}
NUMBERS = {0: 0, 1: 1, 2: 2, 3: 3}
GREY = np.array([[0, 80, 160, 255], [1, 2, 3, 200]], np.uint8)
MASK, LABELS = np.array([[0, 80], [160, 255]], np.uint8), [[1, 2], [3, 0]]


def write_png(path, rows, depth, colour=0, significant=None):
    """A PNG of packed rows by hand, as no library here writes all depths."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    width = len(rows[0]) * 8 // (depth * {0: 1, 2: 3, 4: 2, 6: 4}[colour])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0))
    significant = b"" if significant is None else chunk(b"sBIT", bytes([significant]))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + significant + pixels + chunk(b"IEND", b""))
    return path


def write_tiff(path, data, width, height=1, bits=8, **tags):
    """A TIFF of packed pixels by hand; `tags` ("t262") stand beside or in place of the usual ones."""
    entries = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(data)}
    entries |= {int(name[1:]): value for name, value in tags.items()}
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(entries)) + table
                     + bytes(4))
    return path


def deep_png(path, values, colour=0, **options):
    """A 16-bit PNG of (H, W) values in each channel; alpha is opaque."""
    values = np.asarray(values)
    opaque = [np.full_like(values, 65535)]
    planes = [values] * (3 if colour & 2 else 1) + (opaque if colour & 4 else [])
    return write_png(path, [row.astype(">u2").tobytes() for row in np.stack(planes, -1)], 16, colour, **options)


def palette_image(indices, greys):
    """The indices under a palette; a grey may be a colour of three."""
    image = Image.fromarray(np.array(indices, np.uint8)).convert("P")
    image.putpalette([part for grey in greys for part in (grey if isinstance(grey, tuple) else [grey] * 3)])
    return image


def saved(path, pixels, **options):
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **options)
    return path


WIDE, OPAQUE = GREY.astype(np.uint16) * 257, np.full_like(GREY, 255)
TWINS = {
    "grey.png": lambda path: saved(path, GREY), "rgb.png": lambda path: saved(path, np.dstack([GREY] * 3)),
    "la.png": lambda path: saved(path, np.dstack([GREY, OPAQUE])),
    "rgba.png": lambda path: saved(path, np.dstack([GREY] * 3 + [OPAQUE])),
    "palette.png": lambda path: saved(path, palette_image(255 - GREY, range(255, -1, -1))),
    "grey16.png": lambda path: deep_png(path, WIDE), "rgb16.png": lambda path: deep_png(path, WIDE, 2),
    "la16.png": lambda path: deep_png(path, WIDE, 4), "rgba16.png": lambda path: deep_png(path, WIDE, 6),
    "grey.tif": lambda path: saved(path, GREY), "rgb.tiff": lambda path: saved(path, np.dstack([GREY] * 3)),
    "lzw.tif": lambda path: saved(path, GREY, compression="tiff_lzw"),
    "grey16.tif": lambda path: saved(path, WIDE),
    "rgb16.tif": lambda path: cv2.imwrite(str(path), np.dstack([WIDE] * 3)),
    "palette.tif": lambda path: saved(path, palette_image(255 - GREY, range(255, -1, -1))),
    "grey.bmp": lambda path: saved(path, GREY), "rgb.bmp": lambda path: saved(path, np.dstack([GREY] * 3)),
    "palette.bmp": lambda path: saved(path, palette_image(255 - GREY, range(255, -1, -1))),
}


@pytest.mark.parametrize("name", TWINS)
def test_every_kind_of_file_gives_the_same_image(tmp_path, name):
    TWINS[name](tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.dtype == np.float32 and read_header(tmp_path / name).size == (2, 4)
    assert not read_header(tmp_path / name).lossy
    np.testing.assert_array_equal(image, GREY[None])


def test_sixteen_bits_keep_what_eight_cannot_hold(tmp_path):
    values = np.array([[0, 128, 257, 40000, 65535]], np.uint16)
    for colour in (0, 2, 4, 6):
        image = read_image(deep_png(tmp_path / "deep.png", values, colour))
        np.testing.assert_allclose(image[0], [[0, 128 / 257, 1, 40000 / 257, 255]], rtol=1e-6)


@pytest.mark.parametrize(("depth", "row", "expected"), [
    (1, [0b01010000], [[0, 255, 0, 255, 0, 0, 0, 0]]), (2, [0b00011011], [[0, 85, 170, 255]]),
    (4, [0x01, 0x2F], [[0, 17, 34, 255]])])
def test_shallow_images_scale_by_their_depth(tmp_path, depth, row, expected):
    np.testing.assert_array_equal(read_image(write_png(tmp_path / "s.png", [bytes(row)], depth))[0], expected)


def test_a_tiff_of_twelve_bits_scales_by_them(tmp_path):
    packed = int("".join(f"{value:012b}" for value in (0, 273, 2048, 4095)), 2).to_bytes(6, "big")
    image = read_image(write_tiff(tmp_path / "t.tif", packed, 4, bits=12))
    np.testing.assert_allclose(image[0], [[0, 17, 2048 * 255 / 4095, 255]], rtol=1e-6)


@pytest.mark.parametrize(("values", "significant", "white"), [
    ([0, 1365, 4080], None, 4095),  # 12 bits in 16, as cameras and OCT devices leave them: 16 times too dark otherwise
    ([0, 100, 255], None, 255),  # 8 bits in 16
    ([0, 257, 514], None, 65535),  # 8 bits, dark, spread over 16
    ([0, 100, 1000], 12, 4095), ([0, 100, 900], 10, 1023),  # the low bits are the significant ones: it shows
    ([0, 1600, 8000], 12, 65535), ([0, 1600, 65520], 12, 65535)])  # the high ones, as the format has it
@pytest.mark.parametrize("colour", [0, 2])
def test_sixteen_bits_that_are_not_all_used(tmp_path, values, significant, white, colour):
    image = read_image(deep_png(tmp_path / "dark.png", [values], colour, significant=significant))
    np.testing.assert_allclose(image[0, 0], np.array(values) * 255 / white, rtol=1e-6)


@pytest.mark.parametrize("peak", [256, 1023, 2047, 4096, 16383])
def test_a_dark_scan_of_unknown_white_is_refused_and_its_advice_helps(tmp_path, peak):
    path = deep_png(tmp_path / "dark.png", [[0, peak]])
    with pytest.raises(OctkitError, match=rf"dark\.png: holds 16-bit values of at most {peak}"):
        read_image(path)
    if peak < 4096:  # 12-bit values times 16
        np.testing.assert_allclose(read_image(deep_png(path, [[0, 65535 // 16 * 16, peak * 16]]))[0, 0, 2],
                                   peak / 4095 * 255, rtol=1e-3)


def test_a_black_scan_of_sixteen_bits_is_black(tmp_path):
    np.testing.assert_array_equal(read_image(deep_png(tmp_path / "b.png", [[0, 0]])), [[[0, 0]]])


def test_colour_images_are_three_channels_where_these_are_asked_for(tmp_path):
    colours = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    deep = colours.astype(np.uint16) * 2570
    saved(tmp_path / "a.png", colours)
    cv2.imwrite(str(tmp_path / "b.png"), deep[..., ::-1])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", 3), np.moveaxis(colours, -1, 0))
    np.testing.assert_allclose(read_image(tmp_path / "b.png", 3), np.moveaxis(deep, -1, 0) / 257, rtol=1e-6)
    with pytest.raises(OctkitError, match=r"a\.png: found a colour image"):
        read_image(tmp_path / "a.png")
    with pytest.raises(OctkitError, match=r"c\.png: found 1 channels, expected 3"):
        read_image(saved(tmp_path / "c.png", GREY), 3)


def test_a_jpeg_is_an_image_that_says_its_loss_and_no_mask(tmp_path):
    smooth = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    for name, options in (("j.jpg", {}), ("k.JPEG", {}), ("t.tif", {"compression": "jpeg"})):
        path = saved(tmp_path / name, smooth, **options)
        assert read_header(path).lossy and np.abs(read_image(path)[0] - smooth).max() < 10
        with pytest.raises(OctkitError, match=rf"{path.name}: is compressed with loss"):
            read_mask(path, {value: 0 for value in range(256)})


def pages(path):
    first, *more = (Image.fromarray(page) for page in (GREY, GREY.T.reshape(2, 4)))
    first.save(path, save_all=True, append_images=more)


def cut(path, pixels):
    path.write_bytes(saved(path, pixels).read_bytes()[:-60])


def turned(path):
    exif = Image.Exif()
    exif[274] = 6
    saved(path, GREY, exif=exif)


def test_an_image_that_does_not_fit_into_memory_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    saved(tmp_path / "large.png", np.zeros((3000, 5000), np.uint8))
    monkeypatch.setattr("octkit.common.memory.free_memory", lambda: 3e8)
    monkeypatch.setattr(Image.Image, "load", None)
    with pytest.raises(OctkitError, match=r"large.png: takes about 0.4 GB of memory to read, found 0.3 GB free"):
        read_image(tmp_path / "large.png")


@pytest.mark.parametrize(("name", "make", "reason"), [
    ("pages.tif", pages, "found more than one page"), ("turned.jpg", turned, "turns the picture"),
    ("turned.tif", turned, "turns the picture"), ("turned.png", turned, "turns the picture"),
    ("float.tif", lambda path: saved(path, GREY.astype(np.float32)), "no whole numbers"),
    ("signed.tif", lambda path: write_tiff(path, GREY.tobytes(), 4, 2, t339=2), "no whole numbers"),
    ("long.tif", lambda path: saved(path, GREY.astype(np.int32)), "no whole numbers"),
    ("inverted.tif", lambda path: write_tiff(path, GREY.tobytes() * 2, 4, 2, 16, t262=0), "from white to black"),
    ("cmyk.jpg", lambda path: saved(path, Image.fromarray(np.dstack([GREY] * 4), "CMYK")), "image mode CMYK"),
    ("clear.png", lambda path: saved(path, np.dstack([GREY, 254 * (OPAQUE // 255)])), "transparent pixels"),
    ("clear16.png", lambda path: cv2.imwrite(str(path), np.dstack([WIDE] * 4)), "transparent"),
    ("png.jpg", lambda path: saved(path, GREY, format="PNG"), "holds a PNG.*rename it to .png"),
    ("gif.png", lambda path: saved(path, GREY, format="GIF"), "holds a GIF"),
    ("cut.tif", lambda path: cut(path, np.tile(WIDE, (9, 9))), "is damaged"),
    ("cut.jpg", lambda path: cut(path, np.tile(GREY, (9, 9))), "is damaged"),
    ("cut.bmp", lambda path: cut(path, np.tile(GREY, (9, 9))), "is damaged"),
    ("huge.tif", lambda path: write_tiff(path, b"", 9999, 9999), f"more pixels than the limit of {MAX_PIXELS}"),
    ("huger.tif", lambda path: write_tiff(path, b"", 99999, 9999), f"more pixels than the limit of {MAX_PIXELS}")])
def test_what_is_not_read_is_refused_with_its_reason(tmp_path, name, make, reason):
    make(tmp_path / name)
    with pytest.raises(OctkitError, match=rf"{name}: .*{reason}"):
        read_image(tmp_path / name)
    with pytest.raises(OctkitError, match=rf"{name}: "):
        read_mask(tmp_path / name, CODING)


def test_pages_are_not_counted(tmp_path, monkeypatch):
    """Pillow looks each page up among all before: the time grows with the square of their number."""
    pages(tmp_path / "pages.tif")
    monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "n_frames", property(lambda _: pytest.fail("counted")))
    with pytest.raises(OctkitError, match="more than one page"):
        read_image(tmp_path / "pages.tif")


def test_the_pages_of_a_volume_are_read_as_the_refusal_says(tmp_path):
    pages(tmp_path / "pages.tif")
    with Image.open(tmp_path / "pages.tif") as image:
        single = []
        for number in range(2):
            image.seek(number)
            single.append(np.asarray(image).copy())
    folder = write_stack(tmp_path / "volume", single, (0.1, 0.1, 0.1))
    np.testing.assert_array_equal(read_volume(folder)[0], [GREY, GREY.T.reshape(2, 4)])


def test_images_come_in_the_order_of_their_names(tmp_path):
    for name in ("b.png", "a.PNG", ".c.png", "c.tif", "d.JPG", "e.bmp"):
        Image.fromarray(np.zeros((1, 1), np.uint8)).save(tmp_path / name)
    (tmp_path / "d.txt").write_text("no image")
    assert [path.name for path in list_images(tmp_path)] == ["a.PNG", "b.png", "c.tif", "d.JPG", "e.bmp"]
    assert list_images(tmp_path / "b.png") == (tmp_path / "b.png",)


def test_masks_go_round_in_every_coding(tmp_path):
    mask = np.array([[0, 1], [2, 3]], np.uint8)
    write_mask(tmp_path / "m.png", mask, CODING)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "m.png")), [[255, 0], [80, 160]])
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", CODING), mask)


@pytest.mark.parametrize(("name", "make"), [
    ("m.png", lambda path, mask: saved(path, mask)), ("m.bmp", lambda path, mask: saved(path, mask)),
    ("m.tif", lambda path, mask: saved(path, mask)), ("m.tif", lambda path, mask: saved(path, mask.astype(np.uint16))),
    *(("m.png", lambda path, mask, colour=colour: deep_png(path, mask.astype(int), colour)) for colour in (0, 2, 4, 6)),
    ("m.tif", lambda path, mask: cv2.imwrite(str(path), np.dstack([mask.astype(np.uint16)] * 3)))])
def test_masks_are_read_by_the_values_that_are_stored(tmp_path, name, make):
    """Of 16-bit colours Pillow gives the high byte alone: 0 for each of these."""
    make(tmp_path / name, MASK)
    np.testing.assert_array_equal(read_mask(tmp_path / name, CODING), LABELS)
    make(tmp_path / name, MASK // 80)
    np.testing.assert_array_equal(read_mask(tmp_path / name, NUMBERS), MASK // 80)


@pytest.mark.parametrize("colour", [0, 2])
def test_a_mask_spread_to_sixteen_bits_is_refused_and_its_advice_helps(tmp_path, colour):
    path = deep_png(tmp_path / "m.png", MASK.astype(int) * 257, colour)
    with pytest.raises(OctkitError, match=r"found mask values 20560, 41120, 65535, .*write value / 257"):
        read_mask(path, CODING)
    deep_png(path, MASK.astype(int) * 257 // 257, colour)
    np.testing.assert_array_equal(read_mask(path, CODING), LABELS)
    with pytest.raises(OctkitError, match="found mask values 336"):  # 256 + 80
        read_mask(deep_png(path, [[0, 336]], colour), CODING)


COLOURS = ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255))


@pytest.mark.parametrize(("indices", "palette", "coding", "labels"), [
    (MASK, range(256), CODING, LABELS),  # both the same
    ([[0, 1], [2, 3]], (0, 80, 160, 255), CODING, LABELS),  # the greys
    ([[0, 1], [2, 3]], (0, 80, 160, 255), NUMBERS, [[0, 1], [2, 3]]),  # the indices
    ([[0, 1], [2, 3]], COLOURS, NUMBERS, [[0, 1], [2, 3]]),
    (MASK, [COLOURS[n % 3 + 1] for n in range(256)], CODING, LABELS)])
@pytest.mark.parametrize("ending", ["png", "tif", "bmp"])
def test_a_palette_mask_is_read_where_one_meaning_alone_fits(tmp_path, indices, palette, coding, labels, ending):
    path = saved(tmp_path / f"m.{ending}", palette_image(indices, palette))
    np.testing.assert_array_equal(read_mask(path, coding), labels)


def test_a_palette_mask_of_two_meanings_is_refused_and_its_advice_helps(tmp_path):
    path = saved(tmp_path / "m.png", palette_image([[0, 80, 160, 255]], [255 - n for n in range(256)]))
    coding = {0: 1, 80: 2, 160: 3, 255: 0, 175: 2, 95: 3}
    with pytest.raises(OctkitError, match=r"m\.png: can be read in two ways, by the indices of its palette and by the "
                                          "greys of its palette"):
        read_mask(path, coding)
    indices, greys = np.asarray(Image.open(path)), np.asarray(Image.open(path).convert("L"))
    np.testing.assert_array_equal(read_mask(saved(path, indices), coding), [[1, 2, 3, 0]])
    np.testing.assert_array_equal(read_mask(saved(path, greys), coding), [[0, 2, 3, 1]])


def test_a_palette_mask_of_no_meaning_is_refused_and_its_advice_helps(tmp_path):
    """In colours "save it as grey" would give other values; the indices are what the sentence speaks of."""
    path = saved(tmp_path / "m.png", palette_image([[0, 1, 2, 3]], COLOURS))
    with pytest.raises(OctkitError, match=r"1, 2, 3 \(indices of its palette\), .*write 255 for 0, 0 for 1, 80 for 2"):
        read_mask(path, CODING)
    saved(path, np.array([255, 0, 80, 160], np.uint8)[np.asarray(Image.open(path))])
    np.testing.assert_array_equal(read_mask(path, CODING), [[0, 1, 2, 3]])


def test_shallow_masks_are_values_or_spread_ones_whichever_fits(tmp_path):
    two = write_png(tmp_path / "two.png", [bytes([0b00011011])], 2)
    np.testing.assert_array_equal(read_mask(two, NUMBERS), [[0, 1, 2, 3]])
    np.testing.assert_array_equal(read_mask(two, {0: 0, 85: 1, 170: 2, 255: 3}), [[0, 1, 2, 3]])
    with pytest.raises(OctkitError, match=r"1, 2, 3 \(values as stored\), found mask values 85, 170 \(values spread"):
        read_mask(two, CODING)
    one = write_png(tmp_path / "one.png", [bytes([0b01010000])], 1)
    np.testing.assert_array_equal(read_mask(one, NUMBERS), [[0, 1, 0, 1, 0, 0, 0, 0]])
    np.testing.assert_array_equal(read_mask(one, CODING), [[1, 0, 1, 0, 1, 1, 1, 1]])
    with pytest.raises(OctkitError, match="two ways"):
        read_mask(one, {0: 0, 1: 1, 255: 2})
    np.testing.assert_array_equal(read_mask(write_tiff(tmp_path / "t.tif", bytes([0x01, 0x23]), 4, bits=4), NUMBERS),
                                  [[0, 1, 2, 3]])


def test_a_label_without_a_code_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(OctkitError, match="labels 4"):
        write_mask(tmp_path / "m.png", np.array([[4]], np.uint8), CODING)
    assert list(tmp_path.iterdir()) == []
