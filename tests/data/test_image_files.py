import numpy as np
import pytest
from PIL import Image

from octkit.common.errors import OctkitError
from octkit.data.image_files import list_images, read_image, read_mask, write_mask

CODING = {0: 1, 80: 2, 160: 3, 255: 0}


def test_grey_and_rgb_files_read_the_same(tmp_path):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.dstack([grey] * 3)).save(tmp_path / "rgb.png")
    expected = grey[None].astype(np.float32)
    for name in ("grey.png", "rgb.png"):
        image = read_image(tmp_path / name)
        assert image.dtype == np.float32
        np.testing.assert_array_equal(image, expected)


def test_images_come_in_the_order_of_their_names(tmp_path):
    for name in ("b.png", "a.PNG", ".c.png"):
        Image.fromarray(np.zeros((1, 1), np.uint8)).save(tmp_path / name)
    (tmp_path / "d.txt").write_text("no image")
    assert [path.name for path in list_images(tmp_path)] == ["a.PNG", "b.png"]
    assert list_images(tmp_path / "b.png") == (tmp_path / "b.png",)


def test_folders_without_images_are_named(tmp_path):
    with pytest.raises(OctkitError, match="found no PNG images in this folder"):
        list_images(tmp_path)
    with pytest.raises(OctkitError, match="nothing: no such file or folder"):
        list_images(tmp_path / "nothing")


def test_masks_go_round_in_every_coding(tmp_path):
    mask = np.array([[0, 1], [2, 3]], np.uint8)
    write_mask(tmp_path / "m.png", mask, CODING)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "m.png")), [[255, 0], [80, 160]])
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", CODING), mask)


def test_foreign_mask_values_are_all_named(tmp_path):
    Image.fromarray(np.array([[0, 7, 255, 81]], np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(OctkitError, match=r"m\.png: found mask values 7, 81, expected only 0, 80, 160, 255"):
        read_mask(tmp_path / "m.png", CODING)


def test_a_label_without_a_code_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(OctkitError, match="labels 4"):
        write_mask(tmp_path / "m.png", np.array([[4]], np.uint8), CODING)
    assert list(tmp_path.iterdir()) == []
