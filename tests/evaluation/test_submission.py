import io
import os
import shutil
import stat
import struct
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from octkit.common.errors import OctkitError
from octkit.data.image_files import read_mask, write_mask, write_png
from octkit.data.labels import GOALS_GREYS
from octkit.data.layouts.detect import open_dataset
from octkit.evaluation import submission
from octkit.evaluation.evaluate import read_predictions
from octkit.evaluation.submission import Submission, check_submission, submit, write_submission

PROBABILITIES = {"0101.png": 0.25, "0102.png": 1e-9, "0103.png": 1.0}
TABLE = "Classification_Results.csv"
MASK = "Layer_Segmentations/0102.png"


def labels(seed, size=(12, 16)):
    return np.random.default_rng(seed).integers(0, 4, size).astype(np.uint8)


@pytest.fixture
def images(tmp_path) -> Path:
    for name in PROBABILITIES:
        write_png(tmp_path / "images" / name, np.full((12, 16), 90))
    return tmp_path / "images"


@pytest.fixture
def masks(tmp_path) -> Path:
    for seed, name in enumerate(PROBABILITIES):
        write_mask(tmp_path / "masks" / name, labels(seed), GOALS_GREYS)
    return tmp_path / "masks"


@pytest.fixture
def valid(tmp_path, images, masks) -> Path:
    write_submission(masks, PROBABILITIES, images, tmp_path / "good.zip")
    return tmp_path / "good.zip"


def repacked(path: Path, change) -> Path:
    """A zip with the members that `change` leaves in {name: bytes}; a list of pairs allows doubles."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members = change(members) or members
    other = path.with_name("bad.zip")
    with zipfile.ZipFile(other, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members if isinstance(members, list) else members.items():
            archive.writestr(name, data)
    return other


def png(pixels, mode=None) -> bytes:
    data = io.BytesIO()
    image = Image.fromarray(np.asarray(pixels))
    (image.convert(mode) if mode else image).save(data, format="PNG")
    return data.getvalue()


def problems(path: Path, images: Path) -> list[str]:
    with pytest.raises(OctkitError) as error:
        check_submission(path, images)
    heading, *lines = str(error.value).splitlines()
    assert heading == f"{path}: is no valid submission, {len(lines)} found:"
    return [line.strip() for line in lines]


def test_what_is_written_can_be_read_back(tmp_path, images, masks):
    out = tmp_path / "run" / "submission.zip"
    found = write_submission(masks, PROBABILITIES, images, out)
    assert found == Submission(out, out.stat().st_size, images=3, called_glaucoma=1) == check_submission(out, images)
    with zipfile.ZipFile(out) as archive:
        assert archive.namelist() == [TABLE, *(f"Layer_Segmentations/{name}" for name in PROBABILITIES)]
        archive.extractall(tmp_path / "unpacked")
    for folder in (tmp_path / "unpacked", tmp_path / "run" / "submission"):
        assert read_predictions(folder / TABLE) == PROBABILITIES
        for seed, name in enumerate(PROBABILITIES):
            np.testing.assert_array_equal(read_mask(folder / "Layer_Segmentations" / name, GOALS_GREYS), labels(seed))
    assert (tmp_path / "unpacked" / TABLE).read_text() == (
        "ImgName,GC_Pred\n0101.png,0.25\n0102.png,0.000000001\n0103.png,1.0\n")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["submission", "submission.zip"]


def test_the_same_input_gives_the_same_bytes(tmp_path, images, masks):
    one, two = tmp_path / "one.zip", tmp_path / "two.zip"
    write_submission(masks, PROBABILITIES, images, one)
    for path in masks.iterdir():
        os.utime(path, (1e9, 1e9))
    write_submission(masks, dict(reversed(PROBABILITIES.items())), images, two)
    assert one.read_bytes() == two.read_bytes()
    with zipfile.ZipFile(one) as archive:  # nothing of today is in it
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_data_set_is_submitted_with_a_table_of_predictions(tmp_path, goals):
    (tmp_path / "p.csv").write_text("ImgName,GC_Pred\n0008.png,1\n0007.png,0.25\n")
    dataset, truth = open_dataset(goals), goals / "Truth" / "Layer_Masks"
    written = submit(dataset, truth, tmp_path / "p.csv", tmp_path / "table.zip")
    assert (written.images, written.called_glaucoma) == (2, 1)
    assert read_predictions(tmp_path / "table" / TABLE) == {"0007.png": 0.25, "0008.png": 1}
    for other in (replace(dataset, layout="volumes"), replace(dataset, validation=())):
        with pytest.raises(OctkitError, match="expected a data set in the GOALS layout"):
            submit(other, truth, tmp_path / "p.csv", tmp_path / "other.zip")


def test_rgb_masks_are_written_as_grey(tmp_path, images, masks, valid):
    grey = np.asarray(Image.open(masks / "0101.png"))
    write_png(masks / "0101.png", np.repeat(grey[..., None], 3, axis=2))
    write_submission(masks, PROBABILITIES, images, tmp_path / "rgb.zip")
    assert (tmp_path / "rgb.zip").read_bytes() == valid.read_bytes()


def test_writing_names_everything_that_is_missing_or_unfit_and_leaves_the_old_zip(tmp_path, images, masks, valid):
    before = valid.read_bytes()
    (masks / "0101.png").unlink()
    write_mask(masks / "0102.png", labels(1, (12, 15)), GOALS_GREYS)
    write_mask(masks / "0109.png", labels(1), GOALS_GREYS)
    with pytest.raises(OctkitError) as error:
        write_submission(masks, {"0101.png": 1.5, "0102.png": 0.5, "x.png": 0.5}, images, valid)
    for part in ("0101.png: not found", "0102.png: found a mask of 12 x 15 px", "0109.png: has no image",
                 "found 1.5 for 0101.png", "x.png is no image", "probabilities: 0103.png is missing"):
        assert part in str(error.value)
    assert len(str(error.value).splitlines()) == 7
    assert valid.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good", "good.zip", "images", "masks"]


def test_an_earlier_submission_is_replaced_and_a_folder_with_other_things_is_not(tmp_path, images, masks, valid):
    write_mask(masks / "0101.png", labels(9), GOALS_GREYS)
    write_submission(masks, PROBABILITIES, images, valid)
    np.testing.assert_array_equal(
        read_mask(tmp_path / "good" / "Layer_Segmentations" / "0101.png", GOALS_GREYS), labels(9))
    (tmp_path / "good" / "thesis.txt").write_text("all my work")
    with pytest.raises(OctkitError, match="good: holds other things than a submission"):
        write_submission(masks, PROBABILITIES, images, valid)
    assert (tmp_path / "good" / "thesis.txt").read_text() == "all my work"
    with pytest.raises(OctkitError, match="ending in .zip"):
        write_submission(masks, PROBABILITIES, images, tmp_path / "submission")


@pytest.mark.parametrize(("name", "message"), [
    ("__MACOSX/Layer_Segmentations/._0101.png", "is a left-over of the operating system"),
    (".DS_Store", "is a left-over of the operating system"),
    ("/Layer_Segmentations/0101.png", "is an absolute path"),
    ("C:/0101.png", "is an absolute path"),
    ("../0101.png", "climbs out of the folder with .."),
    ("Layer_Segmentations/../../0101.png", "climbs out of the folder with .."),
    ("Layer_Segmentations\\0101.png", "has backslashes in its path"),
    ("submission/Layer_Segmentations/0101.png", "lies in a folder"),
    ("submission/Classification_Results.csv", "lies in a folder"),
    ("Layer_Segmentations/0104.png", "has no image of this name among the 3 images"),
    ("Layer_Segmentations/0101.PNG", "has no image of this name among the 3 images"),
    ("Layer_Segmentations/deep/0101.png", "is not expected"),
    ("readme.txt", "is not expected"),
    ("other/", "is not expected"),
])
def test_members_that_do_not_belong_are_refused(valid, images, name, message):
    (line,) = problems(repacked(valid, lambda members: members.update({name: b""})), images)
    assert line.startswith(f"{name}: {message}")


def test_an_entry_for_the_masks_folder_itself_is_no_deviation(valid, images):
    path = repacked(valid, lambda members: members.update({"Layer_Segmentations/": b""}))
    assert check_submission(path, images).images == 3


def broken_png() -> bytes:
    return png(np.full((12, 16), 255, np.uint8))[:-20]


def flipped_png() -> bytes:
    """A PNG whose pixels decode but do not agree with their checksum."""
    data = bytearray(png(np.full((12, 16), 255, np.uint8)))
    where = data.index(b"IDAT")
    data[where + 4 + struct.unpack(">I", data[where - 4:where])[0]] ^= 1
    return bytes(data)


def header_only(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


@pytest.mark.parametrize(("data", "message"), [
    (b"", "is not a PNG file"),
    (b"GIF89a", "is not a PNG file"),
    (png(np.full((12, 17), 255, np.uint8)), "is 12 x 17 px, expected 12 x 16 px like its image"),
    (png(np.full((16, 12), 255, np.uint8)), "is 16 x 12 px, expected 12 x 16 px like its image"),
    (header_only(100_000, 100_000), "is 100000 x 100000 px, expected 12 x 16 px like its image"),
    (png(np.full((12, 16, 3), 255, np.uint8)), "is 8-bit RGB, expected 8-bit grey"),
    (png(np.full((12, 16, 4), 255, np.uint8)), "is 8-bit RGB with alpha, expected 8-bit grey"),
    (png(np.full((12, 16), 255, np.uint8), "P"), "is 8-bit palette, expected 8-bit grey"),
    (png(np.full((12, 16), 255, np.uint8), "1"), "is 1-bit grey, expected 8-bit grey"),
    (png(np.full((12, 16), 255, np.uint16)), "is 16-bit grey, expected 8-bit grey"),
    (png(np.tile(np.arange(16, dtype=np.uint8), (12, 1)) // 8),
     "found the grey values [1], expected only [0, 80, 160, 255]"),
    (png(labels(0)), "found the grey values [1, 2, 3], expected only [0, 80, 160, 255]"),
    (broken_png(), "is a damaged PNG"),
    (flipped_png(), "is a damaged PNG"),
])
def test_masks_that_are_not_8_bit_grey_in_the_coding_are_refused(valid, images, data, message):
    (line,) = problems(repacked(valid, lambda members: members.update({MASK: data})), images)
    assert line.startswith(f"{MASK}: {message}")


@pytest.mark.parametrize(("change", "message"), [
    (lambda text: text.replace("GC_Pred", "p"), "found the columns ['ImgName', 'p']"),
    (lambda text: text.replace("ImgName,GC_Pred", "GC_Pred,ImgName"), "found the columns ['GC_Pred', 'ImgName']"),
    (lambda text: text.replace("0102.png,0.000000001\n", ""), "0102.png has no row"),
    (lambda text: text + "0104.png,0.5\n", "found a row for '0104.png', expected names of images only"),
    (lambda text: text + "0101.png,0.5\n", "row 5: 0101.png stands twice"),
    (lambda text: text.replace("0.25", "nan"), "row 2: found GC_Pred 'nan'"),
    (lambda text: text.replace("0.25", "1.25"), "row 2: found GC_Pred '1.25'"),
    (lambda text: text.replace("0.25", "a lot"), "row 2: found GC_Pred 'a lot'"),
    (lambda text: text.replace("0.25", ""), "row 2: found GC_Pred ''"),
    (lambda text: text.replace("0.25", "0,25"), "row 2: found 3 fields"),
    (lambda text: text.replace(",", ";"), "found the columns ['ImgName;GC_Pred']"),
])
def test_tables_that_deviate_are_refused(valid, images, change, message):
    def changed(members):
        members[TABLE] = change(members[TABLE].decode()).encode()

    lines = problems(repacked(valid, changed), images)
    assert lines[0].startswith(f"{TABLE}: {message}")
    # A row that cannot be read is also a row that its image lacks.
    assert len(lines) == (2 if "fields" in message else 1)


@pytest.mark.parametrize("name", [TABLE, MASK])
def test_missing_and_doubled_members_are_refused(valid, images, name):
    assert problems(repacked(valid, lambda members: {n: d for n, d in members.items() if n != name}), images) == [
        f"{name}: missing"]
    with pytest.warns(UserWarning, match="Duplicate name"):
        doubled = repacked(valid, lambda members: [*members.items(), (name, members[name])])
    assert problems(doubled, images) == [f"{name}: stands 2 times in the zip, expected once"]


def test_every_deviation_is_listed_at_once(valid, images):
    def change(members):
        del members["Layer_Segmentations/0101.png"]
        members[MASK] = png(np.full((12, 16), 7, np.uint8))
        members["Layer_Segmentations/0103.png"] = png(np.full((2, 2, 3), 7, np.uint8))
        members["notes.txt"] = b""
        members[TABLE] = b"ImgName,GC_Pred\n0101.png,2\n0102.png,0.5\n0109.png,0.5\n"

    assert sorted(line.rsplit(", expected", 1)[0] for line in problems(repacked(valid, change), images)) == sorted([
        "Layer_Segmentations/0101.png: missing",
        f"{MASK}: found the grey values [7]",
        "Layer_Segmentations/0103.png: is 8-bit RGB",
        "Layer_Segmentations/0103.png: is 2 x 2 px",
        "notes.txt: is not expected; a submission holds Layer_Segmentations/<image name> and "
        "Classification_Results.csv only",
        f"{TABLE}: row 2: found GC_Pred '2' for 0101.png",
        f"{TABLE}: 0103.png has no row",
        f"{TABLE}: found a row for '0109.png'"])


def test_what_is_no_zip_is_refused(tmp_path, images, valid):
    with pytest.raises(OctkitError, match="none.zip: not found"):
        check_submission(tmp_path / "none.zip", images)
    with pytest.raises(OctkitError, match="images: is not a zip file"):
        check_submission(images, images)
    for data in (b"", b"PK nothing", valid.read_bytes()[:-30]):
        (tmp_path / "broken.zip").write_bytes(data)
        with pytest.raises(OctkitError, match="broken.zip: is not a zip file that can be opened"):
            check_submission(tmp_path / "broken.zip", images)


def test_a_member_with_a_wrong_checksum_is_refused(valid, images):
    data = bytearray(valid.read_bytes())
    data[data.index(b"0101.png,0.25")] = ord("1")
    valid.write_bytes(data)
    (line,) = problems(valid, images)
    assert line.startswith(f"{TABLE}: is damaged in the zip (Bad CRC-32")


def rewritten(valid: Path, mark) -> Path:
    """The zip with the mask 0102 replaced by what `mark` makes of its ZipInfo."""
    other = valid.with_name("bad.zip")
    with zipfile.ZipFile(valid) as source, zipfile.ZipFile(other, "w") as archive:
        for member in source.infolist():
            data = source.read(member)
            if member.filename == MASK:
                mark(member)
            archive.writestr(member, data)
    return other


def test_any_damaged_byte_is_refused_or_does_not_matter(valid, images):
    whole = valid.read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for where in random.choice(len(whole), 200, replace=False):
        data = bytearray(whole)
        data[where] ^= int(random.integers(1, 256))
        valid.write_bytes(data)
        try:
            check_submission(valid, images)
        except OctkitError:
            refused += 1
    assert refused > 100  # dates and attributes may be anything


def test_links_and_uncommon_packing_are_refused(valid, images):
    def link(member):
        member.external_attr = (stat.S_IFLNK | 0o777) << 16

    def bzip2(member):
        member.compress_type = zipfile.ZIP_BZIP2

    assert problems(rewritten(valid, link), images) == [f"{MASK}: is a symbolic link, expected a plain file"]
    assert problems(rewritten(valid, bzip2), images) == [f"{MASK}: is packed by method 12, expected deflated (8) or "
                                                         "stored (0)"]


def test_an_encrypted_member_is_refused(valid, images):
    data = bytearray(valid.read_bytes())
    where = data.rindex(MASK.encode()) - 46  # its record in the central directory
    data[where + 8] |= 1
    valid.write_bytes(data)
    assert problems(valid, images) == [f"{MASK}: is encrypted, expected a plain file"]


def test_zip_bombs_are_not_unpacked(valid, images, monkeypatch):
    path = repacked(valid, lambda members: members.update({MASK: bytes(submission.MAX_FILE_BYTES + 1)}))
    assert path.stat().st_size < 100_000
    assert problems(path, images) == [f"{MASK}: unpacks to 33554433 bytes, expected at most 33554432"]
    monkeypatch.setattr(submission, "MAX_TOTAL_BYTES", 100)
    (line,) = problems(valid, images)
    assert line.startswith("unpacks to ") and line.endswith("bytes, expected at most 100")


def test_a_member_that_lies_about_its_size_is_refused(valid, images):
    path = repacked(valid, lambda members: members.update({MASK: bytes(5_000_000)}))
    data = bytearray(path.read_bytes())
    where = data.rindex(MASK.encode()) - 46
    data[where + 24:where + 28] = struct.pack("<I", 1000)
    path.write_bytes(data)
    (line,) = problems(path, images)
    assert line.startswith(f"{MASK}: is damaged in the zip")


def content(path: Path) -> dict:
    """What an archive says: the labels of each mask, and the probabilities."""
    with zipfile.ZipFile(path) as archive:
        said = {name: np.asarray(Image.open(io.BytesIO(archive.read(name)))).tolist() for name in archive.namelist()
                if name.endswith(".png")}
        return said | {TABLE: archive.read(TABLE)}


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), kind=st.sampled_from(["flip", "cut", "double"]))
def test_an_archive_that_is_changed_is_refused_or_says_the_same(valid, images, place, bit, kind):
    """A flipped bit in a date says nothing; whatever changes a mask or a probability must be found."""
    data = bytearray(valid.read_bytes())
    at = int(place * len(data))
    if kind == "flip":
        data[at] ^= 1 << bit
    elif kind == "cut":
        del data[at:]
    else:
        data[at:at] = data[at:at + 1]
    other = valid.with_name("changed.zip")
    other.write_bytes(data)
    try:
        check_submission(other, images)
    except OctkitError:
        return
    assert content(other) == content(valid)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.integers(0, 9999).map("{:04d}.png".format), st.floats(0, 1), min_size=1, max_size=3),
       st.tuples(st.integers(1, 9), st.integers(1, 9)), st.integers(0, 10**6))
def test_whatever_is_written_is_valid_and_says_what_was_meant(tmp_path, probabilities, size, seed):
    for folder in ("i", "m", "out"):
        shutil.rmtree(tmp_path / folder, ignore_errors=True)
    for n, name in enumerate(probabilities):
        write_png(tmp_path / "i" / name, np.full(size, 90))
        write_mask(tmp_path / "m" / name, labels(seed + n, size), GOALS_GREYS)
    written = write_submission(tmp_path / "m", probabilities, tmp_path / "i", tmp_path / "out" / "s.zip")
    assert check_submission(tmp_path / "out" / "s.zip", tmp_path / "i") == written
    assert read_predictions(tmp_path / "out" / "s" / TABLE) == probabilities
    for n, name in enumerate(probabilities):
        stored = read_mask(tmp_path / "out" / "s" / "Layer_Segmentations" / name, GOALS_GREYS)
        np.testing.assert_array_equal(stored, labels(seed + n, size))
