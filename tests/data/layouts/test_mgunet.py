import shutil

import numpy as np
import pytest
from helpers import striped_scan, write_mgunet
from PIL import Image

from octkit.common.errors import OctkitError
from octkit.data.labels import LAYERS
from octkit.data.layouts.detect import open_dataset


@pytest.fixture
def mgunet(tmp_path):
    return write_mgunet(tmp_path / "mgunet")


def test_all_three_parts_have_masks_and_names_of_their_own(mgunet):
    dataset = open_dataset(mgunet)
    assert (dataset.layout, dataset.labels) == ("mgunet", LAYERS)
    assert [case.name for case in dataset.train] == ["train_1", "train_2", "train_3"]
    assert [case.name for case in dataset.validation] == ["eval_1"] and [c.name for c in dataset.test] == ["test_1"]
    assert all(case.spacing is None and not case.circle for case in dataset.train)
    np.testing.assert_array_equal(dataset.read_image(dataset.test[0])[0], striped_scan(5)[0])


def test_gcl_and_ipl_are_gcipl_and_what_is_not_wanted_is_background(mgunet):
    dataset = open_dataset(mgunet)
    expected = striped_scan(4)[1]
    expected[-2:] = 0  # INL and optic disc there
    np.testing.assert_array_equal(dataset.read_mask(dataset.validation[0]), expected)


def test_every_grey_by_hand(mgunet):
    greys = np.array([[0, 26, 51, 77, 102, 128, 153, 179, 204, 230, 255]], np.uint8)
    for kind in ("img", "mask"):
        Image.fromarray(greys).save(mgunet / "train" / kind / "2.png")
    dataset = open_dataset(mgunet)
    assert dataset.read_mask(dataset.train[1]).tolist() == [[0, 1, 2, 2, 0, 0, 0, 0, 0, 3, 0]]


def test_training_images_alone_are_enough(mgunet):
    shutil.rmtree(mgunet / "eval")
    shutil.rmtree(mgunet / "test")
    dataset = open_dataset(mgunet)
    assert len(dataset.train) == 3 and dataset.validation == dataset.test == ()


def test_an_image_without_mask_is_named(mgunet):
    (mgunet / "test/mask/1.png").unlink()
    Image.fromarray(striped_scan(1)[1]).save(mgunet / "test/mask/2.png")
    with pytest.raises(OctkitError, match="test/img/1.png: has no mask, expected one named 1 in .*test/mask"):
        open_dataset(mgunet)
