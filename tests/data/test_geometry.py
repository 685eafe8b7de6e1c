"""One labelled volume in all orders in which a file can hold it, and files that lie elsewhere."""

import struct
from itertools import permutations, product

import nibabel
import numpy as np
import pytest
from helpers import striped_volume, write_nnunet_raw, write_stack, write_volumes
from nibabel.orientations import apply_orientation, inv_ornt_aff

from octkit.common.errors import OctkitError
from octkit.data.dataset import fit, order_in_doubt, read_scan, read_scan_mask
from octkit.data.doctor.data_set import look_through
from octkit.data.geometry import AS_STORED
from octkit.data.layouts.detect import open_dataset
from octkit.data.volume_files import volume_spacing, write_nifti
from octkit.evaluation.evaluate import score_folder

VALUES = {n: n for n in range(256)}
# All sides are equal: a size alone tells nothing.
LABELS = np.random.default_rng(0).integers(0, 4, (5, 5, 5), np.uint8)
SPACING = (0.12, 0.004, 0.012)
ORDERS = [np.stack([axes, flips], axis=1) for axes in permutations(range(3)) for flips in product((1, -1), repeat=3)]


def oblique(degrees=20.0):
    """An affine for `SPACING` that looks askew into space, far from its origin."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    return nibabel.affines.from_matvec(turn @ np.diag(SPACING[::-1]), (80, -35.5, 12))


STRAIGHT = np.diag([*SPACING[::-1], 1])


def save(path, array, affine, sform=2, qform=0, unit=2, header=None):
    """Write (*spatial) with an affine for NIfTI's axes, and the codes and the unit that its header states."""
    image = nibabel.Nifti1Image(array.T, affine, header)
    image.set_sform(affine, sform)
    image.set_qform(affine, qform)
    image.header["xyzt_units"] = unit
    nibabel.save(image, path)
    return path


def in_order(order, affine, labels=LABELS):
    """The same labels at the same places, stored in another order: (*spatial) of the file, its affine."""
    return apply_orientation(labels.T, order).T, affine @ inv_ornt_aff(order, labels.T.shape)


@pytest.fixture
def scan(tmp_path):
    return save(tmp_path / "scan.nii.gz", LABELS, STRAIGHT)


@pytest.mark.parametrize("affine", [STRAIGHT, oblique()], ids=["straight", "oblique"])
@pytest.mark.parametrize("codes", [(2, 0), (0, 1), (1, 1)], ids=["sform", "qform", "both"])
def test_a_mask_in_each_of_48_orders_is_the_same(tmp_path, affine, codes):
    scan = save(tmp_path / "scan.nii", LABELS, affine)
    found = 0
    for number, order in enumerate(ORDERS):
        path = save(tmp_path / f"{number}.nii", *in_order(order, affine), *codes)
        found += np.array_equal(read_scan_mask(path, VALUES, scan), LABELS)
    assert found == 48


def test_a_volume_of_unequal_sides_and_other_channels(tmp_path):
    labels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    scan = save(tmp_path / "scan.nii.gz", labels, STRAIGHT)
    for order in ORDERS:
        path = save(tmp_path / "m.nii.gz", *in_order(order, STRAIGHT, labels))
        np.testing.assert_array_equal(read_scan_mask(path, VALUES, scan), labels)
        np.testing.assert_array_equal(read_scan(path, scan), labels[None].astype(np.float32))


def test_by_hand(tmp_path):
    labels = np.zeros((1, 2, 3), np.uint8)
    labels[0, 0] = 1, 2, 3
    scan = save(tmp_path / "scan.nii", labels, np.diag((0.01, 0.004, 1, 1)))
    # From the last A-scan to the first: voxel 0 lies at x = 0.02.
    mirrored = np.array([[-0.01, 0, 0, 0.02], [0, 0.004, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    mask = save(tmp_path / "mask.nii", labels[..., ::-1], mirrored)
    assert read_scan_mask(mask, VALUES).tolist() == [[3, 2, 1], [0, 0, 0]]
    assert read_scan_mask(mask, VALUES, scan).tolist() == [[1, 2, 3], [0, 0, 0]]


def moved(by):
    return nibabel.affines.from_matvec(np.eye(3), np.multiply(by, SPACING[::-1])) @ STRAIGHT


@pytest.mark.parametrize(("affine", "fact"), [
    (moved((0, 1, 0)), "shifted by 0 x 1 x 0 voxels"), (moved((0, 0, -2.5)), "shifted by 2.5 x 0 x 0 voxels"),
    (moved((0.5, 0, 0)), "shifted by 0 x 0 x 0.5"), (STRAIGHT @ np.diag((1, 1.02, 1, 1)), "0.12 x 0.00408 x 0.012 mm"),
    (np.eye(4), "1 x 1 x 1 mm"), (STRAIGHT[[1, 0, 2, 3]] @ np.diag((0.5, 1, 1, 1)), "mm apart"),
    (STRAIGHT @ nibabel.affines.from_matvec(nibabel.eulerangles.euler2mat(0.02)), "mm apart"),
    (nibabel.affines.from_matvec(nibabel.eulerangles.euler2mat(0.02)) @ STRAIGHT, "turned by 1.1 degrees")])
def test_what_lies_elsewhere_is_refused_with_both_files(scan, tmp_path, affine, fact):
    path = save(tmp_path / "mask.nii.gz", LABELS, affine)
    with pytest.raises(OctkitError) as error:
        read_scan_mask(path, VALUES, scan)
    assert error.value.file == path and str(scan) in str(error.value) and fact in error.value.found


@pytest.mark.parametrize("affine", [
    STRAIGHT.astype(np.float32), moved((0.02, -0.02, 0.02)), STRAIGHT * (1 + 5e-5),
    nibabel.affines.from_matvec(nibabel.eulerangles.euler2mat(4e-4)) @ STRAIGHT])
def test_the_rounding_of_writers_is_passed_over(scan, tmp_path, affine):
    affine = np.vstack([affine[:3], [0, 0, 0, 1]])
    path = save(tmp_path / "mask.nii.gz", LABELS, affine)
    np.testing.assert_array_equal(read_scan_mask(path, VALUES, scan), LABELS)


def test_a_header_without_a_place_is_its_partners(scan, tmp_path):
    turned, affine = in_order(ORDERS[-1], STRAIGHT)
    silent = save(tmp_path / "mask.nii.gz", LABELS, np.eye(4), sform=0, qform=0)
    np.testing.assert_array_equal(read_scan_mask(silent, VALUES, scan), LABELS)
    # Where its spacing speaks of another order of axes, it is no partner.
    spoken = save(tmp_path / "spoken.nii.gz", turned, affine, sform=0, qform=0)
    with pytest.raises(OctkitError, match=r"spoken.*found voxels .* expected 0.12 x 0.004 x 0.012 mm like .*scan.nii"):
        read_scan_mask(spoken, VALUES, scan)


def test_units_and_other_headers_of_the_same_place(tmp_path):
    scan = save(tmp_path / "scan.nii", LABELS, np.diag([*np.multiply(SPACING[::-1], 1000), 1]), unit=3)  # micrometres
    for name, affine, unit in (("mm", STRAIGHT, 2), ("open", np.diag([*np.multiply(SPACING[::-1], 1000), 1]), 0)):
        mask = save(tmp_path / f"{name}.nii", LABELS, affine, unit=unit)
        np.testing.assert_array_equal(read_scan_mask(mask, VALUES, scan), LABELS)


def test_a_contradiction_between_sform_and_qform_is_refused(tmp_path):
    scan, mask = (save(tmp_path / name, LABELS, STRAIGHT, 1, 1) for name in ("scan.nii", "mask.nii"))
    image = nibabel.load(mask)
    flipped, affine = in_order(np.array([[0, -1], [1, 1], [2, 1]]), STRAIGHT)
    other = nibabel.Nifti1Image(flipped.T, affine, image.header)
    other.set_sform(affine, 1)
    other.set_qform(STRAIGHT, 1)
    nibabel.save(other, mask)
    with pytest.raises(OctkitError, match=r"mask.nii: lies in one order by its sform .*scan.nii.*qform"):
        fit(mask, scan)


@pytest.mark.parametrize(("codes", "offset", "value"), [
    ((2, 0), 296, (0, 0, 0, 0)), ((2, 0), 280, (np.nan, 0, 0, 0)), ((0, 1), 256, (3, 3, 3))])
def test_a_place_that_is_none(scan, tmp_path, codes, offset, value):
    path = save(tmp_path / "mask.nii", LABELS, STRAIGHT, *codes)
    data = bytearray(path.read_bytes())
    struct.pack_into(f"<{len(value)}f", data, offset, *value)
    path.write_bytes(data)
    with pytest.raises(OctkitError, match=r"mask.nii: (states in its sform|cannot be read as a NIfTI volume)"):
        fit(path, scan)


def test_b_scans_and_a_file_of_other_axes(tmp_path):
    folder = write_stack(tmp_path / "scan", LABELS, SPACING)
    np.testing.assert_array_equal(read_scan_mask(save(tmp_path / "m.nii", LABELS, STRAIGHT), VALUES, folder), LABELS)
    np.testing.assert_array_equal(read_scan_mask(save(tmp_path / "m.nii", LABELS, np.eye(4)), VALUES, folder), LABELS)
    save(tmp_path / "m.nii", *in_order(ORDERS[8], STRAIGHT))
    with pytest.raises(OctkitError, match=r"m.nii: found voxels .* mm apart, expected .* mm like .*scan$"):
        read_scan_mask(tmp_path / "m.nii", VALUES, folder)


def test_an_order_that_nobody_can_know_is_said(tmp_path, capsys):
    stack = write_stack(tmp_path / "truth/0001", LABELS, SPACING)
    for name in ("plain", "backwards"):
        (tmp_path / name).mkdir()
    plain, backwards = (save(tmp_path / name / "0001.nii.gz", *in_order(order, STRAIGHT))
                        for name, order in (("plain", ORDERS[0]), ("backwards", AS_STORED * [1, -1])))
    assert order_in_doubt(plain, stack) == order_in_doubt(stack, plain) == ""
    assert str(stack) in order_in_doubt(backwards, stack) and str(backwards) in order_in_doubt(stack, backwards)
    assert str(plain) in order_in_doubt(backwards, plain)  # known, and turned: which way lengths are measured is said
    for folder in (plain.parent, backwards.parent):
        score_folder(folder, tmp_path / "truth")
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith((str(plain), str(backwards)))] == [
        f"{backwards}: {order_in_doubt(backwards, stack)}"]


def test_a_written_mask_has_its_scans_place(tmp_path):
    for number, codes in enumerate([(2, 0), (0, 1), (1, 1), (0, 0)]):
        scan = save(tmp_path / f"{number}.nii.gz", LABELS, oblique(), *codes)
        write_nifti(tmp_path / "mask.nii.gz", LABELS, like=scan)
        assert (fit(tmp_path / "mask.nii.gz", scan) == [[0, 1], [1, 1], [2, 1]]).all()
        assert volume_spacing(tmp_path / "mask.nii.gz") == volume_spacing(scan)


def test_a_data_set_with_a_turned_and_a_shifted_mask(tmp_path):
    root = write_volumes(tmp_path / "set", train=2)
    mask, image = root / "Train/Mask/0001.nii.gz", root / "Train/Image/0001.nii.gz"
    affine = nibabel.load(image).affine
    save(mask, *in_order(np.array([[1, -1], [2, 1], [0, -1]]), affine, striped_volume(1)[1]))
    dataset = open_dataset(root)
    np.testing.assert_array_equal(dataset.read_mask(dataset.train[0]), striped_volume(1)[1])
    [finding] = look_through(root, workers=0, progress=False).findings
    assert (finding.severity, finding.file) == ("warning", mask) and str(image) in finding.found
    affine[0, 3] += 0.015
    save(mask, striped_volume(1)[1], affine)
    with pytest.raises(OctkitError, match=r"Mask/0001.nii.gz: lies elsewhere than .*Image/0001.nii.gz"):
        open_dataset(root)
    [finding] = look_through(root, workers=0, progress=False).findings
    assert (finding.severity, finding.file) == ("error", mask) and str(image) in finding.found


def test_the_second_channel_is_turned_onto_the_first(tmp_path):
    root = write_nnunet_raw(tmp_path / "raw", ending=".nii.gz", channels=("OCT", "shifted"))
    path, image = root / "imagesTr/eye_001_0001.nii.gz", striped_volume(1)[0]
    affine = nibabel.load(path).affine
    save(path, *in_order(np.array([[0, 1], [1, -1], [2, -1]]), affine, np.roll(image, 1, axis=-2)))
    dataset = open_dataset(root)
    np.testing.assert_array_equal(dataset.read_image(dataset.train[0]), [image, np.roll(image, 1, axis=-2)])
    save(path, image, affine @ np.diag((1, 2, 1, 1)))
    with pytest.raises(OctkitError, match=r"eye_001_0001.nii.gz: lies elsewhere than .*eye_001_0000.nii.gz"):
        open_dataset(root)


@pytest.mark.parametrize(("size", "spacing", "facts"), [
    ((4, 40, 48), (0.12, 0.004, 0.015), []), ((48, 40, 48), (0.006, 0.004, 0.006), ["48 x 40 x 48"]),
    ((40, 39, 48), (0.006, 0.004, 0.006), []), ((40, 4, 48), (0.004, 0.12, 0.015), ["0.004 x 0.12 x 0.015 mm"]),
    ((4, 40, 48), (0.12, 0.015, 0.004), ["0.12 x 0.015"]), ((4, 40, 48), (1.0, 1.0, 1.0), ["1 x 1 x 1 mm"])])
def test_axes_in_another_order_are_a_warning(tmp_path, size, spacing, facts):
    root = write_volumes(tmp_path / "set", train=1, validation=0, size=size, spacing=spacing)
    found = [finding for finding in look_through(root, workers=0, progress=False).findings
             if finding.file == root / "Train/Image/0001.nii.gz"]
    assert len(found) == len(facts) and all(finding.severity == "warning" for finding in found)
    assert all(fact in finding.found for fact, finding in zip(facts, found, strict=True))
