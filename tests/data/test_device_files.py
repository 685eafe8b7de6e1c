"""All device files alike: patients appear nowhere, damage ends in a sentence, other commands take what is written."""

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from device_makers import (
    TOPCON_RIGHT,
    WHO,
    e2e_b_scan,
    e2e_bytes,
    topcon_bytes,
    topcon_jpeg,
    topcon_line,
    topcon_raw,
    topcon_scale,
    write_dicom,
    write_xml,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vol_files import write_vol

from octkit import cli
from octkit.common.errors import OctkitError
from octkit.common.files import read_json
from octkit.data.device_files import convert, open_device
from octkit.data.image_files import read_image, read_mask
from octkit.data.labels import GOALS_GREYS
from octkit.data.volume_files import read_volume, volume_spacing
from octkit.layers import thickness

HEIGHT, WIDTH = 24, 16
GREY = np.broadcast_to(np.arange(HEIGHT)[:, None] * 10, (1, HEIGHT, WIDTH))
ILM, RNFL = np.full((1, WIDTH), 4.0), np.full((1, WIDTH), 9.0)


def e2e(folder: Path) -> Path:
    path = folder / "scan.E2E"
    path.write_bytes(e2e_bytes(e2e_b_scan(1, 2, GREY[0] / 256, {0: ILM[0], 2: RNFL[0]})))
    return path


def fda(folder: Path) -> Path:
    path = folder / "scan.fda"
    path.write_bytes(topcon_bytes([
        ("@IMG_JPEG", topcon_jpeg(GREY, 0)), ("@PARAM_SCAN_04", topcon_scale()), ("@CAPTURE_INFO_02", TOPCON_RIGHT),
        ("@CONTOUR_INFO", topcon_line("MULTILAYERS_1", HEIGHT - 1 - ILM)),
        ("@CONTOUR_INFO", topcon_line("MULTILAYERS_2", HEIGHT - 1 - RNFL))]))
    return path


def fds(folder: Path) -> Path:
    path = folder / "scan.fds"
    path.write_bytes(topcon_bytes({"@IMG_SCAN_03": topcon_raw(np.repeat(GREY, 2, 0) * 9), "@PARAM_SCAN_02":
                                   bytes(21) + struct.pack("<3d", 6, 4, 3.5)}, b"FDS"))
    return path


def xml(folder: Path) -> Path:
    return write_xml(folder, GREY, [(0, 0, 0.011 * WIDTH, 0)], {"ILM": ILM, "RNFL": RNFL})


def dicom(folder: Path) -> Path:
    return write_dicom(folder / "scan.dcm", GREY, points=(1, 2, 3, 4))


def vol(folder: Path) -> Path:
    return write_vol(folder / "scan.vol", GREY / 256, [ILM, ILM, RNFL])


MAKERS = [e2e, fda, fds, xml, dicom]


@pytest.mark.parametrize("make", MAKERS)
def test_the_patient_stands_in_nothing_that_is_kept_said_or_written(tmp_path, make, capsys):
    path = make(tmp_path)
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert sum(text.encode() in stored for text in WHO) >= 3
    with pytest.raises(SystemExit) as end:
        cli.main(["device", "--list", str(path)])
    assert not end.value.code
    convert(path, tmp_path / "out")
    kept = [pickle.dumps(open_device(path)), "".join(capsys.readouterr()).encode(),
            *(file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file())]
    forms = [form for text in WHO for form in (text.encode(), text.lower().encode(), text.encode("utf-16le"))]
    assert [form for content in kept for form in forms if form in content] == []


@pytest.mark.parametrize(("make", "um"), [(fda, [3.5, 375]), (xml, [4, 11]), (e2e, None)])
def test_what_is_written_goes_on_to_thickness(tmp_path, make, um):
    path = make(tmp_path)
    convert(path, out := tmp_path / "out")
    assert read_json(out / "scale.json") == {"um_per_px": um and pytest.approx(um), "eye": "R", "circle": make is e2e}
    mask = read_mask(out / "mask" / f"{path.stem}.png", GOALS_GREYS)
    np.testing.assert_array_equal(mask, np.where((np.arange(HEIGHT) >= 4) & (np.arange(HEIGHT) < 9), 1, 0)[:, None]
                                  * np.ones(WIDTH))
    rnfl = thickness.thickness_table(out / "mask")[0]
    assert (rnfl["unit"], rnfl["global"]) == (("um", 5 * um[0]) if um else ("px", 5))
    if make is not e2e:
        np.testing.assert_array_equal(read_image(out / "image" / f"{path.stem}.png"), GREY)


def test_greys_above_255_are_written_as_stored_and_this_is_said(tmp_path, capsys):
    convert(fds(tmp_path), tmp_path / "out")
    assert "scan: volume, " in (said := "".join(capsys.readouterr())) and "nothing says which is white" in said
    np.testing.assert_array_equal(read_volume(tmp_path / "out/image/scan.nii.gz")[0], np.repeat(GREY, 2, 0) * 9)
    assert volume_spacing(tmp_path / "out/image/scan.nii.gz") == pytest.approx((2, 0.0035, 0.375))


def test_scans_of_one_file_get_a_folder_each(tmp_path):
    path = tmp_path / "two.e2e"
    path.write_bytes(e2e_bytes(e2e_b_scan(1, 2, GREY[0] / 256, {}) + e2e_b_scan(2, 2, GREY[0] / 256, {}, 1)))
    convert(path, tmp_path / "out")
    assert [(tmp_path / f"out/two_{number}/image/two_{number}.png").is_file() for number in (1, 2)] == [True, True]
    assert [read_json(tmp_path / f"out/two_{number}/scale.json")["circle"] for number in (1, 2)] == [True, False]


@pytest.mark.parametrize(("name", "reason"), [("a.img", "values alone"), ("a.OCT", "no scale"), ("a.sdb", "data base"),
                                              ("a.xyz", "ending .xyz"), ("a.fda", "not found"),
                                              ("a", r"ending \(none\)"), ("", "is a folder")])
def test_what_is_not_read_says_why(tmp_path, name, reason):
    with pytest.raises(OctkitError, match=reason) as error:
        open_device(tmp_path / name)
    assert error.value.file == tmp_path / name


@pytest.mark.parametrize("make", [*MAKERS, vol])
@given(data=st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_damage_is_survived(tmp_path, make, data):
    """Changed bytes or a cut give scans or an OctkitError that names a file, nothing else."""
    content = bytearray((path := make(tmp_path)).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[:data.draw(st.integers(len(content) // 2, len(content)))])
    try:
        assert all(scan.image.ndim in (3, 4) for scan in open_device(path).values())
    except OctkitError as error:
        assert str(error).startswith(str(tmp_path)) and "\n" not in str(error)
        assert not [text for text in WHO if text in str(error)]  # damage may move them to where a name is expected
