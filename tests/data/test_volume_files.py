import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
from helpers import striped_volume, write_stack, write_volumes
from hypothesis import given, settings
from hypothesis import strategies as st

from octkit.common.errors import OctkitError
from octkit.data.doctor.data_set import look_through
from octkit.data.layouts.detect import open_dataset
from octkit.data.volume_files import (
    by_number,
    check_paired,
    gap,
    read_volume,
    read_volume_mask,
    volume_size,
    volume_spacing,
    write_nifti,
)

SPACING = (0.24, 0.004, 0.0115)


def volume(shape=(2, 3, 4), dtype=np.uint8) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


def test_a_nifti_file_and_a_folder_of_b_scans_read_the_same(tmp_path):
    write_nifti(tmp_path / "v.nii.gz", volume(), SPACING)
    for path in (tmp_path / "v.nii.gz", write_stack(tmp_path / "v", volume(), SPACING)):
        np.testing.assert_array_equal(read_volume(path), volume()[None])
        assert read_volume(path).dtype == np.float32
        assert volume_size(path) == (2, 3, 4)
        assert volume_spacing(path) == pytest.approx(SPACING)


def test_axes_come_slowest_first(tmp_path):
    # NIfTI's first axis is the fastest: voxel (x, y, z) of the file is [z, y, x] here
    stored = np.arange(24, dtype=np.int16).reshape(4, 3, 2)
    nibabel.save(nibabel.Nifti1Image(stored, np.diag((0.01, 0.004, 0.2, 1))), tmp_path / "v.nii")
    assert read_volume(tmp_path / "v.nii")[0, 1, 2, 3] == stored[3, 2, 1]
    assert volume_spacing(tmp_path / "v.nii") == pytest.approx((0.2, 0.004, 0.01))


def test_micrometres_in_the_header_become_millimetres(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((4, 3, 2), np.uint8), np.diag((10.0, 4.0, 200.0, 1)))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, tmp_path / "v.nii")
    assert volume_spacing(tmp_path / "v.nii") == pytest.approx((0.2, 0.004, 0.01))


def test_one_slice_is_a_2d_scan(tmp_path):
    write_nifti(tmp_path / "flat.nii.gz", volume((3, 4), np.float32) / 7, (0.004, 0.01))
    image = read_volume(tmp_path / "flat.nii.gz")
    np.testing.assert_array_equal(image, (volume((3, 4), np.float32) / 7)[None])
    assert volume_size(tmp_path / "flat.nii.gz") == (3, 4)
    assert volume_spacing(tmp_path / "flat.nii.gz") == pytest.approx((0.004, 0.01))


def test_a_mask_lies_where_its_scan_lies(tmp_path):
    affine = np.array([[0, 0, 0.2, 5], [0.01, 0, 0, -3], [0, -0.004, 0, 2], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 3, 2), np.int16), affine), tmp_path / "v.nii.gz")
    write_nifti(tmp_path / "m.nii.gz", volume() % 3, like=tmp_path / "v.nii.gz")
    written = nibabel.load(tmp_path / "m.nii.gz")
    np.testing.assert_allclose(written.affine, affine, atol=1e-6)
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(read_volume_mask(tmp_path / "m.nii.gz", {0: 0, 1: 1, 2: 2}), volume() % 3)


def test_the_same_volume_is_the_same_bytes(tmp_path):
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti(tmp_path / name, volume(), SPACING)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@settings(max_examples=20)
@given(st.tuples(*[st.integers(1, 5)] * 3), st.tuples(*[st.floats(1e-3, 9)] * 3))
def test_any_volume_goes_round(tmp_path_factory, shape, spacing):
    path = tmp_path_factory.mktemp("v") / "v.nii.gz"
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    write_nifti(path, values, spacing)
    back = read_volume(path)[0]
    np.testing.assert_array_equal(back.reshape(shape), values)
    assert volume_spacing(path) == pytest.approx(spacing[-back.ndim:])


def noted(path, count, size):
    """A packed volume with so many notes of other programs' before its voxels, of so many bytes each."""
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4))
    for _ in range(count):
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", bytes(size)))
    path.write_bytes(gzip.compress(image.to_bytes()))


@pytest.mark.parametrize("read", [read_volume, volume_size, volume_spacing])
def test_notes_before_the_voxels_are_read_up_to_a_limit(tmp_path, monkeypatch, read):
    """A few kilobytes of a packed file may hold a gigabyte of them, which nibabel reads one by one."""
    noted(tmp_path / "a.nii.gz", 2, 1000)
    read(tmp_path / "a.nii.gz")
    noted(tmp_path / "b.nii.gz", 2, 600_000)
    for name in ("b.nii.gz", "b.nii"):
        noted(tmp_path / name, 2, 600_000)
        with monkeypatch.context() as patched, pytest.raises(OctkitError, match=rf"{name}: .*begin after 1200\d\d\d "):
            patched.setattr(nibabel.nifti1.Nifti1Extensions, "from_fileobj", None)  # not even one
            read(tmp_path / name)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_header_that_states_more_than_the_file_can_hold_takes_no_memory(tmp_path, monkeypatch, name):
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.float64), np.eye(4)).to_bytes()
    header = nibabel.Nifti1Header(image[:348])
    header["dim"][1:4] = 900
    data = header.binaryblock + image[348:]
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("z") else data)
    monkeypatch.setattr(np, "asarray", None)
    with pytest.raises(OctkitError, match=rf"{name}: is damaged .states 5832000000 bytes of voxels"):
        read_volume(tmp_path / name)


def test_a_volume_that_does_not_fit_into_memory_is_refused_with_the_number(tmp_path, monkeypatch):
    monkeypatch.setattr("octkit.common.memory.free_memory", lambda: 3e8)
    (tmp_path / "v.nii").write_bytes(nibabel.Nifti1Image(np.zeros((50, 1000, 1000), np.uint8), np.eye(4)).to_bytes())
    with pytest.raises(OctkitError, match=r"v.nii: takes about 0.5 GB of memory to read, found 0.3 GB free"):
        read_volume(tmp_path / "v.nii")  # 50 million times 1 + 2 x 4 bytes


@pytest.mark.parametrize("content", ['{"spacing": [0.2, 0.004]}', '{"um": 3}', '[1, 2, 3]',
                                     '{"spacing": [0.2, 0.004, "x"]}'])
def test_a_spacing_that_is_none(tmp_path, content):
    folder = write_stack(tmp_path / "v", volume(), SPACING)
    (folder / "spacing.json").write_text(content)
    with pytest.raises(OctkitError, match=r"spacing\.json: is not valid.*expected \{\"spacing\""):
        volume_spacing(folder)


def test_an_empty_folder_is_no_volume(tmp_path):
    with pytest.raises(OctkitError, match="found no images, expected the B-scans"):
        read_volume(tmp_path)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("named", ["v.nii.gz", "v.nii"])
def test_a_name_that_says_wrongly_whether_a_file_is_packed(tmp_path, kind, named):
    plain = kind(volume().T, np.diag((0.0115, 0.004, 0.24, 1))).to_bytes()
    (tmp_path / named).write_bytes(plain if named.endswith(".gz") else gzip.compress(plain))
    np.testing.assert_array_equal(read_volume(tmp_path / named), volume()[None])
    assert volume_size(tmp_path / named) == (2, 3, 4)
    assert volume_spacing(tmp_path / named) == pytest.approx(SPACING)
    np.testing.assert_array_equal(read_volume_mask(tmp_path / named, {n: n for n in range(24)}), volume())


def scaled(path, stored, slope, inter=0.0):
    image = nibabel.Nifti1Image(stored.T, np.eye(4))
    image.header.set_slope_inter(slope, inter)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize(("stored", "slope", "inter"), [
    (volume() % 3, 0.9999999, 0), (volume() % 3, 1.0000001, 0), (volume() % 3 + np.uint8(7), 1.00001, -7.00007),
    ((volume() % 3).astype(np.int16) * 255, 1 / 255, 0), ((volume() % 3 + 1e-5).astype(np.float32), 1, 0)])
def test_labels_that_a_slope_has_rounded(tmp_path, stored, slope, inter):
    mask = read_volume_mask(scaled(tmp_path / "m.nii", stored, slope, inter), {0: 0, 1: 1, 2: 2})
    np.testing.assert_array_equal(mask, volume() % 3)


@pytest.mark.parametrize(("slope", "shown"), [(1.002, "1.002"), (0.5, "0.5"), (0.998, "0.998")])
def test_values_between_labels_are_shown_as_they_are(tmp_path, slope, shown):
    with pytest.raises(OctkitError, match=rf"m.nii: found mask values {shown},? "):
        read_volume_mask(scaled(tmp_path / "m.nii", (volume() % 2), slope), {0: 0, 1: 1, 2: 2})


def test_greys_that_are_nearly_whole(tmp_path):
    path = scaled(tmp_path / "m.nii", np.full((2, 3, 4), 80.00001, np.float64), 1)
    assert (read_volume_mask(path, {80: 2}) == 2).all()


def test_a_folder_of_masks_is_decoded(tmp_path):
    folder = write_stack(tmp_path / "m", np.where(volume() % 2, 80, 255).astype(np.uint8))
    np.testing.assert_array_equal(read_volume_mask(folder, {255: 0, 80: 2}), volume() % 2 * 2)


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
