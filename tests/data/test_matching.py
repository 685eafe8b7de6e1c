import numpy as np
import pytest
from helpers import save_anew, striped_scan, striped_volume, write_stack
from PIL import Image

from octkit.common.errors import OctkitError
from octkit.data.dataset import is_lossy, read_scan, scan_size
from octkit.data.layouts.detect import list_scans
from octkit.data.matching import check_pairs, images_in, scans_in
from octkit.data.volume_files import write_nifti


@pytest.fixture
def mixed(tmp_path):
    """A folder of all that is a scan, and of what is none."""
    folder = tmp_path / "mixed"
    write_stack(folder / "c", striped_volume(1)[0], (0.1, 0.1, 0.1))
    write_nifti(folder / "a.nii.gz", striped_volume(2)[0])
    write_nifti(folder / "d.nii", striped_volume(2)[0])
    Image.fromarray(striped_scan(1)[0]).save(folder / "b.png")
    (folder / "notes.txt").write_text("no scan")
    (folder / ".hidden.png").write_text("no scan")
    (folder / "empty").mkdir()
    return folder


def test_every_kind_of_scan_is_found_in_the_order_of_names(mixed):
    assert {name: path.name for name, path in scans_in(mixed).items()} == {
        "a": "a.nii.gz", "b": "b.png", "c": "c", "d": "d.nii"}
    assert list(scans_in(mixed)) == ["a", "b", "c", "d"]


def test_only_masks_need_no_spacing(mixed):
    (mixed / "c" / "spacing.json").unlink()
    assert "c" in scans_in(mixed, masks=True)
    with pytest.raises(OctkitError, match=r"mixed/c: found no spacing.json"):
        scans_in(mixed)


def test_an_image_in_two_formats_is_refused(mixed):
    Image.fromarray(striped_scan(1)[0]).save(mixed / "b.jpg")
    for listed in (scans_in, images_in):
        with pytest.raises(OctkitError, match=r"b\.png: b\.jpg has the same name"):
            listed(mixed)


@pytest.mark.parametrize("ending", [".tif", ".nii.gz", ".vol"])
def test_a_scan_whose_mask_would_take_a_pictures_place_is_refused(mixed, ending):
    """b.Overlay.tif beside b.png: its mask would be called as the picture of b."""
    scan = mixed / f"b.Overlay{ending}"
    scan.write_bytes(b"")
    for listed in (list_scans, lambda _: list_scans(scan)):
        with pytest.raises(OctkitError, match="expected another name") as refused:
            listed(mixed)
        assert refused.value.file == scan
    scan.rename(mixed / "b.Overlay.PNG")
    assert "b.Overlay" not in scans_in(mixed)


@pytest.mark.parametrize("ending", [".tif", ".bmp", ".jpeg"])
def test_images_of_every_format_are_scans_and_b_scans(mixed, ending):
    for folder in (mixed, mixed / "c"):
        save_anew(folder, ending)
    found = scans_in(mixed)
    assert found["b"] == mixed / f"b{ending}" and found["c"] == mixed / "c"
    assert scan_size(found["c"]) == (3, 40, 48) and is_lossy(found["c"]) == is_lossy(found["b"]) == (ending == ".jpeg")
    if ending != ".jpeg":
        np.testing.assert_array_equal(read_scan(found["c"])[0], striped_volume(1)[0])


def test_folders_without_scans(tmp_path):
    with pytest.raises(OctkitError, match="found no scan in this folder"):
        scans_in(tmp_path)
    with pytest.raises(OctkitError, match="nothing: no such folder"):
        scans_in(tmp_path / "nothing")


def test_a_folder_of_b_scans_and_a_file_can_be_a_pair(tmp_path):
    image, label = striped_volume(1)
    images = {"1": write_stack(tmp_path / "images" / "1", image)}
    write_nifti(tmp_path / "1.nii.gz", label)
    check_pairs(images, {"1": tmp_path / "1.nii.gz"})
    write_nifti(tmp_path / "1.nii.gz", np.zeros((3, 40, 47), np.uint8))
    with pytest.raises(OctkitError, match="1.nii.gz: found 3 x 40 x 47 voxels, expected 3 x 40 x 48 voxels"):
        check_pairs(images, {"1": tmp_path / "1.nii.gz"})
