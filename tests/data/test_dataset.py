import numpy as np
import pytest
from PIL import Image

from octkit.common.errors import OctkitError
from octkit.data.dataset import Case, Dataset, scan_name, scan_size
from octkit.data.volume_files import write_nifti


def dataset(root, channels=("OCT",)) -> Dataset:
    return Dataset("d", root, "test", ("a", "b"), channels, {0: 0, 1: 1, 2: 2}, ())


def grey(path, size, value=7):
    Image.fromarray(np.full(size, value, np.uint8)).save(path)
    return path


def test_channels_are_stacked_in_order(tmp_path):
    case = Case("x", grey(tmp_path / "x_0.png", (3, 4), 7), more_channels=(grey(tmp_path / "x_1.png", (3, 4), 9),))
    image = dataset(tmp_path, ("first", "second")).read_image(case)
    assert image.shape == (2, 3, 4) and (image[0] == 7).all() and (image[1] == 9).all()


def test_channels_that_do_not_fit_are_refused(tmp_path):
    case = Case("x", grey(tmp_path / "x_0.png", (3, 4)), more_channels=(grey(tmp_path / "x_1.png", (3, 5)),))
    with pytest.raises(OctkitError, match=r"x_1\.png: found 3 x 5 px, expected 3 x 4 px like .*x_0"):
        dataset(tmp_path, ("first", "second")).read_image(case)
    with pytest.raises(OctkitError, match=r"x_0\.png: found 2 channels, expected 1 \(OCT\)"):
        dataset(tmp_path).read_image(case)


def test_a_case_may_have_a_coding_of_its_own(tmp_path):
    image = grey(tmp_path / "i.png", (2, 2))
    Image.fromarray(np.array([[0, 26], [51, 77]], np.uint8)).save(tmp_path / "m.png")
    case = Case("x", image, tmp_path / "m.png", mask_values={0: 0, 26: 1, 51: 2, 77: 2})
    np.testing.assert_array_equal(dataset(tmp_path).read_mask(case), [[0, 1], [2, 2]])
    with pytest.raises(OctkitError, match="found mask values 26, 51, 77"):
        dataset(tmp_path).read_mask(Case("x", image, tmp_path / "m.png"))


def test_a_case_without_a_mask_is_no_training_case(tmp_path):
    with pytest.raises(OctkitError, match=r"i\.png: this case has no mask"):
        dataset(tmp_path).read_mask(Case("x", grey(tmp_path / "i.png", (2, 2))))


def test_a_volume_is_a_case_like_any_other(tmp_path):
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    write_nifti(tmp_path / "v.nii.gz", values, (0.2, 0.004, 0.01))
    write_nifti(tmp_path / "m.nii.gz", values % 3, (0.2, 0.004, 0.01))
    case = Case("v", tmp_path / "v.nii.gz", tmp_path / "m.nii.gz")
    np.testing.assert_array_equal(dataset(tmp_path).read_image(case), values[None])
    np.testing.assert_array_equal(dataset(tmp_path).read_mask(case), values % 3)
    assert scan_size(tmp_path / "v.nii.gz") == (2, 3, 4)


@pytest.mark.parametrize(("file", "name"), [
    ("0001.png", "0001"), ("a.b.nii.gz", "a.b"), ("v.nii", "v"), ("folder", "folder"), ("X.PNG", "X")])
def test_a_scans_name_is_its_files_without_the_ending(file, name):
    assert scan_name(file) == name
