from pathlib import Path

import numpy as np
import pytest
from helpers import striped_volume, write_volumes
from PIL import Image

from octkit.common.errors import OctkitError
from octkit.data.doctor.data_set import look_through
from octkit.data.layouts.detect import open_dataset
from octkit.data.numbering import by_number, check_paired, gap
from octkit.data.volume_files import read_volume


def files(*names, folder="v"):
    return [Path(folder, f"{name}.png") for name in names]


@pytest.mark.parametrize("names", [
    [f"{n}" for n in range(1, 13)], [f"{n:03d}" for n in range(1, 13)], [f"scan-{n}" for n in range(1, 13)],
    ["9", "010", "11"], ["OD_2024-05-03_2", "OD_2024-05-03_11"], ["b2_of_12", "b10_of_12"], ["Scan-2", "scan-10"],
    ["101459_2", "101500_10"], ["99_7", "100_8"], ["a", "b", "c"], ["7"]])
def test_b_scans_come_by_number(names):
    assert [path.stem for path in by_number(reversed(files(*names))).values()] == names


@pytest.mark.parametrize(("names", "blamed", "other"), [
    (["1", "01", "2"], "1.png", "01.png"), (["v1_1", "v1_2", "v2_1"], "v2_1.png", "v1_1.png"),
    (["scan-1", "scan-2", "slo-3"], "slo-3.png", "scan-1.png"), (["1", "2", "fundus"], "fundus.png", "1.png"),
    (["a2_1", "a1_2"], "a1_2.png", "a2_1.png"), (["z0.5", "z0.12"], "z0.12.png", "z0.5.png"),
    (["-1", "0", "1"], "0.png", "-1.png"), (["A", "a"], "a.png", "A.png")])
def test_an_order_that_nobody_can_tell_is_refused(names, blamed, other):
    with pytest.raises(OctkitError) as error:
        by_number(files(*names))
    assert error.value.file.name == blamed and other in error.value.found


@pytest.mark.parametrize(("ours", "theirs"), [
    (["1", "2", "10"], ["001", "002", "010"]),
    (["m_1", "m_2"], ["2024_scan_1", "2024_scan_2"]), (["a", "b"], ["A", "b"])])
def test_the_same_numbers_are_pairs(ours, theirs):
    check_paired(files(*ours), files(*theirs, folder="w"))


@pytest.mark.parametrize(("ours", "theirs", "blamed", "other"), [
    (["0", "1", "2"], ["1", "2", "3"], "m/0.png", "w/1.png"), (["1", "3"], ["1", "2", "3"], "m/3.png", "w/2.png"),
    (["1", "2", "3"], ["1", "2"], "m/3.png", "w"), (["1", "2"], ["1", "2", "3"], "m", "w/3.png"),
    (["a", "b"], ["1", "2"], "m/a.png", "w/1.png")])
def test_other_numbers_are_refused_with_both_files(ours, theirs, blamed, other):
    with pytest.raises(OctkitError) as error:
        check_paired(files(*ours, folder="m"), files(*theirs, folder="w"))
    assert error.value.file == Path(blamed) and other in error.value.found.split()


@pytest.mark.parametrize(("names", "found"), [
    (["1", "2", "4"], ("2", "4")), (["1", "2", "3"], None), (["10", "20", "30"], None), (["0", "4"], None),
    (["a", "b", "d"], None)])
def test_a_larger_step_is_a_gap(names, found):
    assert (hole := gap(files(*names))) is found or tuple(path.stem for path in hole) == found


def test_a_data_set_reads_images_and_masks_in_the_same_order(tmp_path):
    root = write_volumes(tmp_path / "set", train=1, size=(12, 20, 24), stacks=True)
    image, label = striped_volume(1, (12, 20, 24))
    for kind, name in (("Image", "{}"), ("Mask", "scan-{:05d}")):
        for number in reversed(range(12)):
            folder = root / "Train" / kind / "0001"
            (folder / f"{number:03d}.png").rename(folder / f"{name.format(number + 1)}.png")
    dataset = open_dataset(root)
    np.testing.assert_array_equal(dataset.read_image(dataset.train[0])[0], image)
    np.testing.assert_array_equal(dataset.read_mask(dataset.train[0]), label)
    (folder / "scan-00012.png").rename(folder / "scan-00013.png")
    with pytest.raises(OctkitError, match=r"Mask/0001/scan-00013.png: cannot be paired with .*Image/0001/12.png"):
        open_dataset(root)
    assert look_through(root, workers=0, progress=False).errors == 1


def test_one_number_twice_is_no_volume(tmp_path):
    for name in ("1", "01", "2"):
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / f"{name}.png")
    with pytest.raises(OctkitError, match=r"/1\.png: 01\.png has the same number"):
        read_volume(tmp_path)
