"""DICOM ophthalmic tomography: pixels, scale, eye and geometry as written, and a sentence for what is not read."""

import sys

import numpy as np
import pytest
from device_makers import NAME, e2e_b_scan, e2e_bytes, write_dicom

from octkit.common.errors import OctkitError
from octkit.data.device_files import open_device

GREY = np.arange(24).reshape(2, 3, 4) * 10
ROUND = np.linspace(0, 2 * np.pi, 17)
CIRCLE = np.stack([200 + 90 * np.sin(ROUND), 250 + 90 * np.cos(ROUND)], 1).ravel()


def test_a_volume_by_hand(tmp_path):
    [scan] = open_device(write_dicom(tmp_path / "v.dcm", GREY)).values()
    np.testing.assert_array_equal(scan.image[0], GREY)
    assert scan.spacing == pytest.approx((0.12, 0.004, 0.011)) and (scan.eye, scan.circle, scan.notes) == (
        "L", False, ())


@pytest.mark.parametrize(("points", "circle"), [
    ((10, 20, 30, 40), False), (CIRCLE, True), (CIRCLE[:20], None), (CIRCLE + np.arange(34) % 3 * 9, None), ((), None)])
def test_a_circle_is_where_its_points_lie_around_one_centre_and_close(tmp_path, points, circle):
    [scan] = open_device(write_dicom(tmp_path / "c.dcm", GREY[:1], points=points, eye="R")).values()
    assert scan.circle is circle and scan.image.shape == (1, 3, 4) and scan.spacing == (0.004, 0.011)
    assert scan.eye == "R" and bool(scan.notes) == (circle is None)


def test_greys_of_more_bits_are_brought_to_255_and_an_unstated_step_is_said(tmp_path):
    [scan] = open_device(write_dicom(tmp_path / "v.dcm", GREY * 17, bits=12, step=None)).values()
    np.testing.assert_allclose(scan.image[0], GREY * 17 * 255 / 4095, rtol=1e-6)
    assert scan.spacing is None and "4 x 11 um in each" in str(scan) and " px, scale not stated, left eye;" in str(scan)


@pytest.mark.parametrize(("changed", "message"), [
    ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "expected an Ophthalmic Tomography Image"),
    ({"Rows": 60000, "Columns": 60000}, "at most"), ({"Rows": 5}, "cannot be decoded"),
    ({"Rows": 5, "Manufacturer": "Carl Zeiss Meditec"}, "Zeiss scrambles"),
    ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "no greys")])
def test_what_is_not_read_is_one_sentence(tmp_path, changed, message):
    path = write_dicom(tmp_path / "x.dcm", GREY, **changed)
    with pytest.raises(OctkitError, match=message) as error:
        open_device(path)
    assert str(error.value).startswith(f"{path}: ") and NAME not in str(error.value)


def test_a_scale_below_0_and_a_file_that_is_none(tmp_path):
    with pytest.raises(OctkitError, match="found the scale"):
        open_device(write_dicom(tmp_path / "x.dcm", GREY, spacing=(-1, 0.01)))
    (tmp_path / "y.dcm").write_bytes(b"no DICOM")
    with pytest.raises(OctkitError, match="damaged"):
        open_device(tmp_path / "y.dcm")


@pytest.mark.parametrize(("name", "library"), [("x.dcm", "pydicom"), ("x.vol", "eyepy"), ("x.e2e", "eyepy")])
def test_without_its_library_the_extra_is_named(tmp_path, monkeypatch, name, library):
    for module in [module for module in sys.modules if module.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    (tmp_path / name).write_bytes(e2e_bytes(e2e_b_scan(1, 2, np.ones((2, 3)), {})))
    with pytest.raises(OctkitError, match=rf"{library}.* extra devices brings: .*pip install .*\[devices\]"):
        open_device(tmp_path / name)
