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
from helpers import save_anew
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
    assert heading.startswith(f"{path}: ") and f"{len(lines)} found" in heading
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


def test_images_of_another_format_are_submitted_by_their_names_as_png(tmp_path, images, masks):
    for folder in (images, masks):
        save_anew(folder, ".tif")
    found = write_submission(masks, PROBABILITIES, images, tmp_path / "s.zip")
    assert found.images == 3 and check_submission(tmp_path / "s.zip", images).images == 3
    with zipfile.ZipFile(tmp_path / "s.zip") as archive:
        assert archive.namelist() == [TABLE, *(f"Layer_Segmentations/{name}" for name in PROBABILITIES)]


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
        with pytest.raises(OctkitError, match="GOALS layout"):
            submit(other, truth, tmp_path / "p.csv", tmp_path / "other.zip")


def test_writing_names_everything_that_is_missing_or_unfit_and_leaves_the_old_zip(tmp_path, images, masks, valid):
    before = valid.read_bytes()
    (masks / "0101.png").unlink()
    write_mask(masks / "0102.png", labels(1, (12, 15)), GOALS_GREYS)
    write_mask(masks / "0109.png", labels(1), GOALS_GREYS)
    with pytest.raises(OctkitError) as error:
        write_submission(masks, {"0101.png": 1.5, "0102.png": 0.5, "x.png": 0.5}, images, valid)
    for fact in ("0101.png: not found", "0102.png: found 12 x 15 px", "0109.png: has no image",
                 "found 1.5 for 0101.png", "x.png is no image", "0103.png is missing"):
        assert fact in str(error.value)
    assert len(str(error.value).splitlines()) == 7
    assert valid.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good", "good.zip", "images", "masks"]


def test_an_earlier_submission_is_replaced_and_a_folder_with_other_things_is_not(tmp_path, images, masks, valid):
    write_mask(masks / "0101.png", labels(9), GOALS_GREYS)
    write_submission(masks, PROBABILITIES, images, valid)
    np.testing.assert_array_equal(
        read_mask(tmp_path / "good" / "Layer_Segmentations" / "0101.png", GOALS_GREYS), labels(9))
    (tmp_path / "good" / "thesis.txt").write_text("all my work")
    with pytest.raises(OctkitError, match="good: holds other things"):
        write_submission(masks, PROBABILITIES, images, valid)
    assert (tmp_path / "good" / "thesis.txt").read_text() == "all my work"


FOREIGN = {  # a member that does not belong, and what is said of it
    "__MACOSX/Layer_Segmentations/._0101.png": "operating system", ".DS_Store": "operating system",
    "/Layer_Segmentations/0101.png": "absolute path", "C:/0101.png": "absolute path", "../0101.png": "climbs out",
    "Layer_Segmentations/../../0101.png": "climbs out", "Layer_Segmentations\\0101.png": "backslashes",
    "submission/Layer_Segmentations/0101.png": "lies in a folder",
    "submission/Classification_Results.csv": "lies in a folder",
    "Layer_Segmentations/0104.png": "no image of this name among the 3", "Layer_Segmentations/0101.PNG": "no image",
    "Layer_Segmentations/deep/0101.png": "not expected", "readme.txt": "not expected", "other/": "not expected"}


def test_members_that_do_not_belong_are_refused(valid, images):
    lines = problems(repacked(valid, lambda members: members.update(dict.fromkeys(FOREIGN, b""))), images)
    for (name, fact), line in zip(FOREIGN.items(), lines, strict=True):
        assert line.startswith(f"{name}: ") and fact in line


def test_an_entry_for_the_masks_folder_itself_is_no_deviation(valid, images):
    path = repacked(valid, lambda members: members.update({"Layer_Segmentations/": b""}))
    assert check_submission(path, images).images == 3


def white(*shape, dtype=np.uint8, mode=None) -> bytes:
    return png(np.full(shape, 255, dtype), mode)


def flipped_png() -> bytes:
    """A PNG whose pixels decode but do not agree with their checksum."""
    data = bytearray(white(12, 16))
    where = data.index(b"IDAT")
    data[where + 4 + struct.unpack(">I", data[where - 4:where])[0]] ^= 1
    return bytes(data)


def header_only(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


@pytest.mark.parametrize(("data", "fact"), [
    (b"", "not a PNG"), (b"GIF89a", "not a PNG"), (white(12, 17), "is 12 x 17 px, expected 12 x 16 px"),
    (white(16, 12), "is 16 x 12 px"), (header_only(100_000, 100_000), "is 100000 x 100000 px"),
    (white(12, 16, 3), "8-bit RGB,"), (white(12, 16, 4), "8-bit RGB with alpha"),
    (white(12, 16, mode="P"), "8-bit palette"), (white(12, 16, mode="1"), "1-bit grey"),
    (white(12, 16, dtype=np.uint16), "16-bit grey"),
    (png(labels(0)), "grey values [1, 2, 3]"), (white(12, 16)[:-20], "damaged PNG"), (flipped_png(), "damaged PNG")])
def test_masks_that_are_not_8_bit_grey_in_the_coding_are_refused(valid, images, data, fact):
    [line] = problems(repacked(valid, lambda members: members.update({MASK: data})), images)
    assert line.startswith(f"{MASK}: ") and fact in line


@pytest.mark.parametrize(("old", "new", "fact"), [
    ("GC_Pred", "p", "found the columns"), ("0102.png,0.000000001\n", "", "0102.png has no row"),
    ("\n0101", "\n0104.png,0.5\n0101", "found a row for '0104.png'"), ("0.25", "1.25", "row 2: found GC_Pred '1.25'"),
    ("\n0102.png,", "\n0101.png,0.5\n0102.png,", "row 3: 0101.png stands twice")])
def test_tables_that_deviate_are_refused(valid, images, old, new, fact):
    def change(members):
        members[TABLE] = members[TABLE].decode().replace(old, new).encode()

    [line] = problems(repacked(valid, change), images)
    assert line.startswith(f"{TABLE}: {fact}")


@pytest.mark.parametrize("name", [TABLE, MASK])
def test_missing_and_doubled_members_are_refused(valid, images, name):
    assert problems(repacked(valid, lambda members: {n: d for n, d in members.items() if n != name}), images) == [
        f"{name}: missing"]
    with pytest.warns(UserWarning, match="Duplicate name"):
        doubled = repacked(valid, lambda members: [*members.items(), (name, members[name])])
    [line] = problems(doubled, images)
    assert line.startswith(f"{name}: stands 2 times")


def test_every_deviation_is_listed_at_once(valid, images):
    def change(members):
        del members["Layer_Segmentations/0101.png"]
        members["Layer_Segmentations/0103.png"] = white(2, 2, 3)
        members["notes.txt"] = b""
        members[TABLE] = b"ImgName,GC_Pred\n0101.png,2\n0102.png,0.5\n0109.png,0.5\n"

    assert sorted(line.split(": ")[0] for line in problems(repacked(valid, change), images)) == sorted([
        "Layer_Segmentations/0101.png", *["Layer_Segmentations/0103.png"] * 2, "notes.txt", *[TABLE] * 3])


def test_what_is_no_zip_is_refused(images, valid):
    with pytest.raises(OctkitError, match="images: is a folder, expected a submission"):
        check_submission(images, images)
    for data in (b"", b"PK nothing", valid.read_bytes()[:-30]):
        valid.write_bytes(data)
        with pytest.raises(OctkitError, match="good.zip: is not a zip file"):
            check_submission(valid, images)


@pytest.mark.parametrize(("kind", "value", "fact"), [
    ("external_attr", (stat.S_IFLNK | 0o777) << 16, "symbolic link"),
    ("compress_type", zipfile.ZIP_BZIP2, "packed by method 12")])
def test_links_and_uncommon_packing_are_refused(valid, images, kind, value, fact):
    other = valid.with_name("bad.zip")
    with zipfile.ZipFile(valid) as source, zipfile.ZipFile(other, "w") as archive:
        for member in source.infolist():
            data = source.read(member)
            if member.filename == MASK:
                setattr(member, kind, value)
            archive.writestr(member, data)
    [line] = problems(other, images)
    assert line.startswith(f"{MASK}: ") and fact in line


def test_zip_bombs_are_not_unpacked(valid, images, monkeypatch):
    path = repacked(valid, lambda members: members.update({MASK: bytes(submission.MAX_FILE_BYTES + 1)}))
    assert path.stat().st_size < 100_000
    [line] = problems(path, images)
    assert line.startswith(f"{MASK}: unpacks to 33554433 bytes")
    monkeypatch.setattr(submission, "MAX_TOTAL_BYTES", 100)
    [line] = problems(valid, images)
    assert line.startswith("unpacks to ")


@pytest.mark.parametrize(("at", "value", "fact"), [(8, b"\x01", "encrypted"), (24, b"\x01\x00", "damaged in the zip")])
def test_a_member_that_is_encrypted_or_lies_about_its_size_is_refused(valid, images, at, value, fact):
    data = bytearray(valid.read_bytes())
    where = data.rindex(MASK.encode()) - 46 + at  # in its record in the central directory
    data[where:where + len(value)] = value
    valid.write_bytes(data)
    [line] = problems(valid, images)
    assert line.startswith(f"{MASK}: ") and fact in line


def content(path: Path) -> dict:
    """What an archive says: the labels of each mask, and the probabilities."""
    with zipfile.ZipFile(path) as archive:
        said = {name: np.asarray(Image.open(io.BytesIO(archive.read(name)))).tolist() for name in archive.namelist()
                if name.endswith(".png")}
        return said | {TABLE: archive.read(TABLE)}


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
