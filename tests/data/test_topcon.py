"""Topcon's files: pixels, scale and eye as written; lines in the order in which they follow the image."""

import struct

import numpy as np
import pytest
from device_makers import (
    TOPCON_LEFT,
    TOPCON_RIGHT,
    topcon_bytes,
    topcon_jpeg,
    topcon_line,
    topcon_raw,
    topcon_scale,
)
from helpers import SHARED

from octkit.common.errors import OctkitError
from octkit.data.device_files import open_device

COUNT, HEIGHT, WIDTH = 3, 40, 32
FILES = SHARED / "device-files"


def steps() -> tuple[np.ndarray, np.ndarray]:
    """B-scans that are bright from a row on, another one in each, and that row (B-scans, W)."""
    edge = np.array([[8], [15], [25]]) + np.arange(WIDTH)[None] // 8
    return np.where(np.arange(HEIGHT)[:, None] >= edge[:, None], 200, 20), edge


def write(path, chunks, kind=b"FDA"):
    path.write_bytes(topcon_bytes(chunks, kind))
    return path


@pytest.mark.parametrize("turned", [False, True])
def test_a_volume_with_its_lines_in_either_order(tmp_path, turned):
    image, edge = steps()
    stored = HEIGHT - 1 - edge
    rnfl = stored - 4
    rnfl[0, 0] = 60000  # none was drawn
    lines = [("@CONTOUR_INFO", topcon_line(name, line[::-1] if turned else line))
             for name, line in (("MULTILAYERS_1", stored), ("MULTILAYERS_2", rnfl))]
    [scan] = open_device(write(tmp_path / "v.fda", [
        ("@IMG_JPEG", topcon_jpeg(image)), ("@PARAM_SCAN_04", topcon_scale()), ("@CAPTURE_INFO_02", TOPCON_LEFT),
        *lines])).values()
    np.testing.assert_array_equal(scan.image[0], image)
    assert scan.spacing == pytest.approx((4 / 3, 0.0035, 6 / 32)) and (scan.eye, scan.circle) == ("L", False)
    np.testing.assert_array_equal(scan.lines["ILM"], edge)
    assert np.isnan(scan.lines["RNFL"]).sum() == 1 and scan.lines["RNFL"][2, 3] == edge[2, 3] + 4 and not scan.notes


def test_lines_whose_order_the_image_does_not_show_are_left_out(tmp_path):
    line = topcon_line("MULTILAYERS_1", np.full((COUNT, WIDTH), 20))
    [scan] = open_device(write(tmp_path / "v.fda", {"@IMG_JPEG": topcon_jpeg(steps()[0]),
                                                    "@CONTOUR_INFO": line})).values()
    assert not scan.lines and "order of their B-scans" in str(scan) and "states the scale" in str(scan)


def test_a_line_scan_has_its_lines(tmp_path):
    image, edge = steps()
    [scan] = open_device(write(tmp_path / "l.fda", {
        "@IMG_JPEG": topcon_jpeg(image[:1], 0), "@PARAM_SCAN_04": topcon_scale(), "@CAPTURE_INFO_02": TOPCON_RIGHT,
        "@CONTOUR_INFO": topcon_line("RETINA_1", HEIGHT - 1 - edge[:1])})).values()
    assert scan.image.shape == (1, HEIGHT, WIDTH) and scan.spacing == (0.0035, 6 / 32) and scan.eye == "R"
    np.testing.assert_array_equal(scan.lines["ILM"], edge[0])


def test_an_fds_volume_as_stored(tmp_path):
    image = np.random.default_rng(0).integers(0, 5000, (3, 4, 5))
    [scan] = open_device(write(tmp_path / "v.fds", {"@IMG_SCAN_03": topcon_raw(image), "@PARAM_SCAN_04":
                                                    topcon_scale()}, b"FDS")).values()
    np.testing.assert_array_equal(scan.image[0], image)
    assert scan.spacing == pytest.approx((4 / 3, 0.0035, 6 / 5)) and "nothing says which is white" in str(scan)


@pytest.mark.parametrize(("chunks", "message"), [
    ({}, "no B-scans"), ({"@IMG_JPEG": topcon_jpeg(np.zeros((1, 8, 8)), 3)}, "pattern 3"),
    ({"@IMG_JPEG": topcon_jpeg(np.zeros((4, 8, 8)), 0), "@PARAM_SCAN_04": topcon_scale()}, "4 B-scans of .* pattern 0"),
    ({"@IMG_JPEG": struct.pack("<B2I4I", 2, 0, 0, 50000, 50000, 50000, 0)}, "at most"),
    ({"@IMG_JPEG": struct.pack("<B2I4I", 2, 0, 0, 8, 8, 0, 0)}, "at least one"),
    ({"@IMG_JPEG": topcon_jpeg(np.zeros((2, 8, 8)))[:-9]}, "damaged"),
    ({"@IMG_JPEG": struct.pack("<B2I4I", 2, 0, 0, 9, 8, 1, 0) + topcon_jpeg(np.zeros((1, 8, 8)))[25:]}, "9 x 8 px"),
    ({"@IMG_SCAN_03": topcon_raw(np.zeros((2, 4, 4)))[:-1]}, "holds 85 bytes"),
    ({"@IMG_SCAN_03": topcon_raw(np.zeros((2, 4, 4)), bits=8)}, "8 bits"),
    ({"@IMG_JPEG": topcon_jpeg(np.zeros((1, 8, 8))), "@PARAM_SCAN_04": topcon_scale(um=-1)}, "found the scale"),
])
def test_what_cannot_be_read_is_one_sentence(tmp_path, chunks, message):
    path = write(tmp_path / "x.fda", chunks)
    with pytest.raises(OctkitError, match=message) as error:
        open_device(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_a_file_that_ends_within_a_chunk_is_named(tmp_path):
    path = write(tmp_path / "x.fda", {"@IMG_JPEG": topcon_jpeg(np.zeros((1, 8, 8)))})
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(OctkitError, match="ends within @IMG_JPEG"):
        open_device(path)


@pytest.mark.skipif(not FILES.exists(), reason="../shared/device-files is not here")
def test_public_files_are_read_or_refused_with_their_reason():
    [scan] = open_device(FILES / "fda_minimized.fda").values()
    assert scan.image.shape == (1, 650, 512) and scan.spacing == (0.0035, 6 / 512) and scan.eye == "L"
    assert "lines of other B-scans are left out" in str(scan)  # one image of 128, with the lines of all
    with pytest.raises(OctkitError, match="directory at byte 414829212, and has 508332 bytes"):
        open_device(FILES / "e2e_minimized.E2E")
