import shutil

import numpy as np
import pytest
from helpers import striped_volume, write_volumes
from PIL import Image

from octkit.common.errors import OctkitError
from octkit.common.files import write_json
from octkit.data.labels import LAYERS
from octkit.data.layouts.detect import open_dataset
from octkit.data.volume_files import write_nifti


@pytest.fixture
def volumes(tmp_path):
    return write_volumes(tmp_path / "volumes")


@pytest.mark.parametrize("stacks", [False, True])
def test_files_and_folders_of_b_scans_are_read_alike(tmp_path, stacks):
    dataset = open_dataset(write_volumes(tmp_path / "set", stacks=stacks))
    assert (dataset.layout, dataset.labels, dataset.channels) == ("volumes", LAYERS, ("OCT",))
    assert [case.name for case in dataset.train] == ["0001", "0002", "0003", "0004"]
    assert [case.name for case in dataset.validation] == ["0005"] and dataset.test == ()
    case = dataset.train[1]
    assert case.spacing == pytest.approx((0.12, 0.004, 0.015)) and not case.circle
    assert dataset.validation[0].mask is None and dataset.validation[0].spacing == case.spacing
    np.testing.assert_array_equal(dataset.read_truth(dataset.validation[0]), striped_volume(5)[1])
    image, label = striped_volume(2)
    np.testing.assert_array_equal(dataset.read_image(case), image[None])
    np.testing.assert_array_equal(dataset.read_mask(case), label)


def test_labels_have_the_names_that_the_data_set_gives_them(volumes):
    write_json(volumes / "labels.json", {"labels": ["NFL", "GCL", "CH", "fluid"]})
    dataset = open_dataset(volumes)
    assert dataset.labels == ("NFL", "GCL", "CH", "fluid")
    assert dataset.mask_values == {0: 0, 1: 1, 2: 2, 3: 3, 4: 4}


def slice_for(volumes):
    for folder in ("Image", "Mask"):
        write_nifti(volumes / "Train" / folder / "0002.nii.gz", np.ones((40, 48), np.uint8))


def stack_without_spacing(volumes):
    (volumes / "Test/Image/0009").mkdir(parents=True)
    Image.fromarray(np.ones((4, 5), np.uint8)).save(volumes / "Test/Image/0009/000.png")


@pytest.mark.parametrize(("damage", "names", "reason"), [
    (lambda v: (v / "Train/Mask/0003.nii.gz").unlink(), "Image/0003.nii.gz", "has no mask"),
    (lambda v: (v / "Train/Image/0003.nii.gz").unlink(), "Mask/0003.nii.gz", "has no image"),
    (lambda v: write_nifti(v / "Train/Mask/0002.nii.gz", np.zeros((3, 40, 9), np.uint8)), "Mask/0002.nii.gz",
     "3 x 40 x 9 voxels, expected 3 x 40 x 48"),
    (lambda v: shutil.copy(v / "Train/Image/0001.nii.gz", v / "Validation/Image"), "0001.nii.gz", "same name"),
    (lambda v: write_nifti(v / "Train/Image/0003.nii", np.ones((3, 40, 48), np.uint8)), "0003.nii", "same name"),
    (lambda v: (v / "Train/Image/0004.nii.gz").write_bytes(b"x"), "0004.nii.gz", "cannot be read as a NIfTI"),
    (lambda v: Image.fromarray(np.ones((4, 5), np.uint8)).save(v / "Train/Image/0009.png"), "0009.png",
     "found a single image"),
    (slice_for, "Image/0002.nii.gz", "single slice of 40 x 48 px"),
    (stack_without_spacing, "Image/0009", "no spacing.json"),
    (lambda v: shutil.rmtree(v / "Train/Image"), "Train/Image", "no such folder"),
    (lambda v: write_json(v / "labels.json", ["rnfl"]), "labels.json", "is not valid"),
    (lambda v: write_json(v / "labels.json", {"labels": []}), "labels.json", "is not valid"),
    (lambda v: write_json(v / "labels.json", {"labels": ["a", "a"]}), "labels.json", "stands once"),
    (lambda v: write_json(v / "labels.json", {"labels": ["background", "a"]}), "labels.json", "stands once")])
def test_each_fault_gets_an_error_that_names_it(volumes, damage, names, reason):
    damage(volumes)
    with pytest.raises(OctkitError, match=reason) as error:
        open_dataset(volumes)
    assert names in str(error.value)
