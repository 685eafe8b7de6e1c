"""Device files: pixels, scale and lines come out as they were written, the patient does not."""

import csv
import dataclasses
import pickle
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
from device_makers import LARGEST as UNMEASURED
from device_makers import e2e_b_scan, e2e_bytes, write_xml
from eyepy.io.he import vol_reader
from helpers import SHARED
from vol_files import BM, BORN, GREYS, ILM, INTENSITY, LARGEST, NAME, NUMBER, RNFL, SEEN, WHO, vol_bytes, write_vol

from octkit.common.errors import OctkitError
from octkit.common.files import read_json
from octkit.data.device_files import convert, open_device
from octkit.data.device_scan import device_mask
from octkit.data.heidelberg import displayed, open_e2e, open_vol, open_xml
from octkit.data.image_files import read_image, read_mask
from octkit.data.labels import GOALS_GREYS
from octkit.data.volume_files import read_volume, volume_spacing
from octkit.evaluation import evaluate
from octkit.layers import thickness

REAL_SCANS = SHARED / "real-scans"
real_scans = pytest.mark.skipif(not REAL_SCANS.exists(), reason="../shared/real-scans is not here")

@pytest.fixture
def circle_file(tmp_path) -> Path:
    return write_vol(tmp_path / "scan.vol", INTENSITY, [ILM, BM, RNFL])


def test_a_circle_scan_by_hand(circle_file):
    scan = open_vol(circle_file)
    assert scan.image.dtype == np.float32 and scan.image.shape == (1, 4, 3)
    np.testing.assert_array_equal(scan.image[0], GREYS)
    assert (scan.spacing, scan.eye, scan.circle) == ((0.004, 0.011), "R", True)
    assert list(scan.lines) == ["ILM", "BM", "RNFL"]
    np.testing.assert_array_equal(scan.lines["ILM"], [0.25, 1, np.nan])
    np.testing.assert_array_equal(scan.lines["RNFL"], RNFL[0])


def test_the_display_transform_rounds_and_clips():
    assert displayed(np.array([-1, 0, 1e-8, 0.1, 2, LARGEST, np.nan])).tolist() == [0, 0, 3, 143, 255, 0, 0]


def test_a_volume_by_hand(tmp_path):
    one, other = INTENSITY, INTENSITY[:, ::-1]
    nothing = np.full((2, 3), LARGEST)
    path = write_vol(tmp_path / "v.vol", np.concatenate([one, other]),
                     [np.concatenate([ILM, ILM + 1]), nothing, np.concatenate([RNFL, RNFL + 1])], pattern=3, eye=b"OS")
    scan = open_vol(path)
    assert scan.image.shape == (1, 2, 4, 3) and (scan.eye, scan.circle) == ("L", False)
    np.testing.assert_array_equal(scan.image[0, 1], GREYS[::-1])
    assert scan.spacing == (0.12, 0.004, 0.011)
    assert list(scan.lines) == ["ILM", "RNFL"]  # BM is drawn nowhere
    np.testing.assert_array_equal(scan.lines["RNFL"], [[2, 2.5, 2.5], [3, 3.5, 3.5]])


def test_a_line_scan_is_no_circle_and_another_side_is_not_known(tmp_path):
    scan = open_vol(write_vol(tmp_path / "l.vol", INTENSITY, [], pattern=1, eye=b""))
    assert (scan.eye, scan.circle, scan.lines, scan.spacing) == (None, False, {}, (0.004, 0.011))


def test_the_device_mask_by_hand(circle_file, tmp_path):
    # RNFL from 0.25 to 2 holds row 1; from 1 to 2.5 rows 1 and 2; without an ILM nothing is known.
    expected = [[0, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]]
    np.testing.assert_array_equal(device_mask(open_vol(circle_file)), expected)
    assert device_mask(open_vol(circle_file)).dtype == np.uint8
    ipl = np.array([[4, 4, 3]])
    with_gcipl = write_vol(tmp_path / "g.vol", INTENSITY, [ILM, BM, RNFL, RNFL, ipl])
    np.testing.assert_array_equal(device_mask(open_vol(with_gcipl)),
                                  [[0, 0, 0], [1, 1, 0], [2, 1, 0], [2, 2, 0]])
    without = write_vol(tmp_path / "n.vol", INTENSITY, [ILM])
    assert not device_mask(open_vol(without)).any()


def test_patient_and_times_are_never_parsed(circle_file, monkeypatch):
    seen = []
    parse = vol_reader.vol_format.parse
    monkeypatch.setattr(vol_reader.vol_format, "parse", lambda data: seen.append(data) or parse(data))
    scan = open_vol(circle_file)
    [data] = seen
    for name, (offset, kind, value) in WHO.items():
        size = struct.calcsize(kind)
        assert circle_file.read_bytes()[offset:offset + size] == struct.pack(kind, value), name
        assert data[offset:offset + size] == bytes(size), name
    assert {field.name for field in dataclasses.fields(scan)} == {"image", "spacing", "eye", "circle", "lines", "notes"}


def test_patient_and_times_stand_in_nothing_that_is_kept_or_written(circle_file, tmp_path):
    kept = {"scan": pickle.dumps(open_vol(circle_file))}
    kept |= {str(path): path.read_bytes() for path in convert(circle_file, tmp_path / "out")}
    kept |= {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    needles = [NAME, *(text.encode() for text in (str(NUMBER), str(BORN), str(SEEN), "1950", "2020"))]
    needles += [struct.pack(kind, value) for _, kind, value in WHO.values() if kind != "<I"]
    for where, content in kept.items():
        for needle in needles:
            assert needle.strip(b"\0") not in content, (where, needle)


def test_convert_a_circle_scan(circle_file, tmp_path):
    out = tmp_path / "out"
    written = convert(circle_file, out)
    assert {path.relative_to(out).as_posix() for path in written} == {
        "image/scan.png", "image/scan.scale.json", "mask/scan.png", "mask/scan.scale.json", "lines.csv", "scale.json"}
    assert all(path.is_file() for path in written)
    np.testing.assert_array_equal(read_image(out / "image" / "scan.png")[0], GREYS)
    np.testing.assert_array_equal(read_mask(out / "mask" / "scan.png", GOALS_GREYS),
                                  device_mask(open_vol(circle_file)))
    assert read_json(out / "scale.json") == {"um_per_px": [4, 11], "eye": "R", "circle": True}
    with open(out / "lines.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["a_scan", "ILM", "BM", "RNFL"], ["0", "0.250", "3.500", "2.000"], ["1", "1.000", "3.500", "2.500"],
                    ["2", "", "3.500", "2.500"]]
    assert convert(circle_file, out) == written  # once more changes nothing
    [row, *_] = thickness.thickness_table(out / "mask", 4, "R")
    # The third A-scan has no ILM: two of three were seen, too few for a mean.
    assert (row["case"], row["coverage"], row["global"]) == ("scan", 2 / 3, None)
    assert evaluate.score_folder(out / "mask", out / "mask", layers=("rnfl",))["mean"]["dice"] == 1


def test_convert_a_volume(tmp_path):
    path = write_vol(tmp_path / "v.vol", np.concatenate([INTENSITY] * 2), [np.concatenate([ILM] * 2)] * 2
                     + [np.concatenate([RNFL] * 2)], pattern=3)
    out = tmp_path / "out"
    convert(path, out)
    np.testing.assert_array_equal(read_volume(out / "image" / "v.nii.gz")[0], [GREYS] * 2)
    assert volume_spacing(out / "image" / "v.nii.gz") == pytest.approx((0.12, 0.004, 0.011))
    assert nibabel.load(out / "image" / "v.nii.gz").get_data_dtype() == np.uint8
    np.testing.assert_array_equal(read_volume(out / "mask" / "v.nii.gz")[0], device_mask(open_vol(path)))
    assert (out / "lines.csv").read_text().splitlines()[:2] == ["b_scan,a_scan,ILM,BM,RNFL", "0,0,0.250,0.250,2.000"]
    assert read_json(out / "scale.json")["um_per_px"] == [120, 4, 11]


def test_without_lines_there_is_no_mask(tmp_path):
    convert(write_vol(tmp_path / "n.vol", INTENSITY, [BM]), tmp_path / "out")
    assert not (tmp_path / "out" / "mask").exists()


@pytest.mark.parametrize(("change", "message"), [
    (lambda data: data[:0], "found no HSF-OCT"),
    (lambda data: b"\x89PNG" + data, "found no HSF-OCT"),
    (lambda data: data[:1000], "found 1000 bytes, expected a header of 2048"),
    (lambda data: data[:-1], "the file is cut short"),
    (lambda data: data[:16] + struct.pack("<I", 2**32 - 1) + data[20:], "the file is cut short"),
    (lambda data: data[:12] + bytes(4) + data[16:], "found 1 B-scans of 4 x 0 px"),
    (lambda data: data[:2048 + 6 + 48] + struct.pack("<I", 2**31) + data[2048 + 6 + 52:], "is damaged"),
    (lambda data: data[:96] + struct.pack("<i", 5) + data[100:], "found a radial scan"),
    (lambda data: data[:40] + struct.pack("<d", -1) + data[48:], "found the scale -1 x 0.011 mm"),
    (lambda data: data[:24] + struct.pack("<d", float("nan")) + data[32:], "found the scale 0.004 x nan mm"),
])
def test_what_cannot_be_read_is_one_sentence(tmp_path, change, message):
    path = tmp_path / "bad.vol"
    path.write_bytes(change(vol_bytes(INTENSITY, [ILM, BM, RNFL])))
    with pytest.raises(OctkitError, match=message) as error:
        open_vol(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_several_circles_and_a_volume_without_distance_are_refused(tmp_path):
    twice = np.concatenate([INTENSITY] * 2)
    with pytest.raises(OctkitError, match="found 2 B-scans, expected 1 in a line or a circle scan"):
        open_vol(write_vol(tmp_path / "c.vol", twice, [], pattern=2))
    with pytest.raises(OctkitError, match="found the scale 0 x 0.004 x 0.011 mm"):
        open_vol(write_vol(tmp_path / "v.vol", twice, [], pattern=3, scale=(0, 0.004, 0.011)))


@real_scans
def test_a_real_circle_scan_equals_its_picture_and_its_lines():
    scan = open_vol(REAL_SCANS / "willis_716_4.vol")
    np.testing.assert_array_equal(scan.image, read_image(REAL_SCANS / "images" / "willis_716_4.png"))
    lines = np.genfromtxt(REAL_SCANS / "boundaries" / "willis_716_4.csv", delimiter=",", names=True)
    for ours, theirs in (("ILM", "ILM"), ("RNFL", "NFL_GCL"), ("BM", "BM")):
        np.testing.assert_allclose(scan.lines[ours], lines[theirs], atol=0.00051)  # the table has three decimals
    assert (scan.eye, scan.circle) == ("R", True)
    assert scan.spacing == pytest.approx((0.00387, 0.0147), rel=2e-3)
    np.testing.assert_array_equal(device_mask(scan), read_mask(REAL_SCANS / "masks_goals" / "willis_716_4.png",
                                                               GOALS_GREYS))


@real_scans
def test_the_layers_of_a_real_scan_go_on_to_thickness(tmp_path):
    convert(REAL_SCANS / "willis_716_4.vol", tmp_path)
    scale = read_json(tmp_path / "scale.json")
    rnfl = thickness.thickness_table(tmp_path / "mask", scale["um_per_px"][0], scale["eye"])[0]
    assert (rnfl["layer"], rnfl["unit"], rnfl["eye"]) == ("rnfl", "um", "R")
    lines = open_vol(REAL_SCANS / "willis_716_4.vol").lines
    assert rnfl["global"] == pytest.approx(np.mean(lines["RNFL"] - lines["ILM"]) * scale["um_per_px"][0], abs=0.5)


def test_a_scan_of_more_lines_than_a_retina_has_is_refused(tmp_path):
    with pytest.raises(OctkitError, match="states 65 lines"):
        open_vol(write_vol(tmp_path / "many.vol", INTENSITY, [ILM] * 65))


INTENSITIES = np.array([[0, 1 / 16, 1], [0.5, 1.999, 0.25]])  # the last but one: not measured
CIRCLE_GREYS = np.round(np.array([[0, 1 / 16, 1], [0.5, 0, 0.25]]) ** 0.25 * 255)


def write_e2e(path: Path, parts: list, **more) -> Path:
    path.write_bytes(e2e_bytes(parts, **more))
    return path


@pytest.mark.parametrize("more", [0, 1, 5, 40])
def test_a_circle_of_an_e2e_file_by_hand_is_not_turned_by_what_lies_before_its_lines(tmp_path, more):
    ilm, rnfl = np.array([0.5, UNMEASURED, 1.5]), np.array([1.0, 1, 0])
    path = write_e2e(tmp_path / "c.E2E", e2e_b_scan(1, 2, INTENSITIES, {0: ilm, 2: rnfl}, more=more, centre=(0, 0)))
    [scan] = open_e2e(path)
    np.testing.assert_array_equal(scan.image, CIRCLE_GREYS[None])
    assert (scan.eye, scan.circle, scan.spacing, list(scan.lines)) == ("R", True, None, ["ILM", "RNFL"])
    np.testing.assert_array_equal(scan.lines["ILM"], [0.5, np.nan, 1.5])
    np.testing.assert_array_equal(scan.lines["RNFL"], [1, 1, np.nan])
    assert "4 um apart" in str(scan) and "circle of 12 degrees, 3 A-scans" in str(scan)  # and no lateral scale


@pytest.mark.parametrize(("pattern", "step"), [(3, 0), (4, 1), (1, 0.5)])
def test_an_e2e_file_of_several_series_and_directories(tmp_path, pattern, step):
    """Lines that are parallel and evenly apart are a volume, whatever they are called."""
    parts = [part for place in (2, 0, 1) for part in e2e_b_scan(
        1, 2 * place, INTENSITIES * (place + 1) / 4, {0: np.full(3, place + 0.5)}, pattern, place,
        ends=(-5, place * step, 5, place * step))]
    parts += e2e_b_scan(2, 2, INTENSITIES, {}, 1, ends=(-5, 0, 5, 0))
    parts += e2e_b_scan(3, 0, INTENSITIES, {}, 5, 0, ends=(-5, 0, 5, 0))
    parts += e2e_b_scan(3, 2, INTENSITIES, {}, 5, 1, ends=(0, -5, 0, 5)) + e2e_b_scan(3, 4, INTENSITIES, {}, 2, 2)
    scans = open_device(write_e2e(tmp_path / "s.e2e", parts, eye="L", chunk=3))
    assert [(name, scan.image.shape, scan.circle) for name, scan in scans.items()] == [
        ("s_1", (1, 3, 2, 3), False), *((f"s_{number}", (1, 2, 3), number == 5) for number in (2, 3, 4, 5))]
    np.testing.assert_array_equal(scans["s_1"].image[0, :, 0, 2], np.round((np.array([1, 2, 3]) / 4) ** 0.25 * 255))
    np.testing.assert_array_equal(scans["s_1"].lines["ILM"][:, 1], [0.5, 1.5, 2.5])
    assert (scans["s_1"].eye, scans["s_2"].eye) == ("L", None)  # the second series does not say it


def test_an_e2e_file_is_read_as_eyepy_reads_its_parts(tmp_path):
    from eyepy.io.he.e2e_reader import HeE2eReader

    # Powers of two: eyepy and OCT-Converter read the bits of a mantissa in reverse order.
    intensity = 2.0 ** -np.random.default_rng(0).integers(0, 12, (6, 20))
    path = write_e2e(tmp_path / "c.e2e", e2e_b_scan(1, 2, intensity, {0: np.arange(1, 21), 1: np.full(20, 5.5)}))
    [scan] = open_e2e(path)
    with HeE2eReader(path) as reader:
        part = reader.series[0].slices[2]
        np.testing.assert_array_equal(scan.image[0], displayed(part.get_bscan()))
        layers = part.get_layers()
        np.testing.assert_array_equal(scan.lines["ILM"], layers[0])
        np.testing.assert_array_equal(scan.lines["BM"], layers[1])


@pytest.mark.parametrize(("change", "message"), [
    (lambda data: data[:-1], "the file is cut short"),
    (lambda data: data[:76] + struct.pack("<I", 10**9) + data[80:], "should have a directory at byte 1000000000"),
    (lambda data: data[:76] + bytes(4) + data[80:], "holds no scan"),
    (lambda data: b"PK" + data, "found no CMDb"),
])
def test_a_damaged_e2e_file_is_one_sentence(tmp_path, change, message):
    path = write_e2e(tmp_path / "c.e2e", e2e_b_scan(1, 2, INTENSITIES, {}))
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(OctkitError, match=message) as error:
        open_device(path)
    assert error.value.file == path


def test_directories_that_lead_in_a_circle_end(tmp_path):
    path = write_e2e(tmp_path / "c.e2e", e2e_b_scan(1, 2, INTENSITIES, {}))
    data = bytearray(path.read_bytes())
    (place,) = struct.unpack_from("<I", data, 76)
    struct.pack_into("<I", data, place + 44, place)
    path.write_bytes(data)
    with pytest.raises(OctkitError, match="directory"):
        open_device(path)


GREY = np.arange(24).reshape(2, 3, 4) * 10


def test_an_xml_volume_by_hand(tmp_path):
    lines = {"ILM": np.array([[0, 1, 2, UNMEASURED], [1, 1, 1, 1]])}
    [scan] = open_xml(write_xml(tmp_path, GREY, [(1, 2, 1.044, 2), (1, 2.12, 1.044, 2.12)], lines, "L"))
    np.testing.assert_array_equal(scan.image[0], GREY)
    assert scan.spacing == pytest.approx((0.12, 0.004, 0.011)) and (scan.eye, scan.circle) == ("L", False)
    np.testing.assert_array_equal(scan.lines["ILM"], [[0, 1, 2, np.nan], [1, 1, 1, 1]])


@pytest.mark.parametrize(("ends", "circle"), [
    ((0, 0, 0.044, 0), False), ((0.044 / (2 * np.pi), 0, 0, 0), True), ((0, 0, 0.02, 0), None)])
def test_an_xml_scan_is_a_circle_where_its_length_is_that_around_its_centre(tmp_path, ends, circle):
    [scan] = open_xml(write_xml(tmp_path, GREY[:1], [ends], {}))
    assert scan.circle is circle and scan.image.shape == (1, 3, 4) and scan.spacing == (0.004, 0.011)
    assert bool(scan.notes) == (circle is None)


def test_xml_b_scans_that_are_no_volume_are_read_one_by_one(tmp_path):
    scans = open_xml(write_xml(tmp_path, GREY, [(0, 0, 0.044, 0), (0, 0, 0, 0.044)], {}))  # a cross
    assert [scan.image.shape for scan in scans] == [(1, 3, 4)] * 2
    np.testing.assert_array_equal(scans[1].image, GREY[1:])


@pytest.mark.parametrize(("old", "new", "message"), [
    ("<ScaleX>0.011</ScaleX>", "", "states no ScaleX"), ("1.png</ExamURL>", "1.txt</ExamURL>", "names no image"),
    ("1.png</ExamURL>", "9.png</ExamURL>", "9.png: not found"), ("<Width>4</Width>", "<Width>5</Width>", "3 x 5 px"),
    ("<ScaleY>0.004", "<ScaleY>-1", "found the scale"), ("</HEDX>", "", "damaged"), ("Series>", "Other>", "no B-scan"),
    ("<HEDX>", '<!DOCTYPE a [<!ENTITY b "c">]><HEDX>', "damaged"), ("<Height>3", "<Height>1e9", "at most"),
    ("<Height>3", "<Height>99999999999", "at most")])
def test_an_xml_export_that_lacks_something_is_one_sentence(tmp_path, old, new, message):
    path = write_xml(tmp_path, GREY, [(1, 2, 1.044, 2), (1, 2.12, 1.044, 2.12)], {})
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(OctkitError, match=message):
        open_device(path)
