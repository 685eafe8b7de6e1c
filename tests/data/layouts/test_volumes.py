import numpy as np
import pytest
from helpers import striped_volume, write_volumes

from octkit.common.errors import OctkitError
from octkit.common.files import write_json
from octkit.data.labels import LAYERS
from octkit.data.layouts.detect import open_dataset


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


@pytest.mark.parametrize(("content", "reason"), [
    (["rnfl"], "is not valid"), ({"labels": []}, "is not valid"), ({"labels": ["a", "a"]}, "stands once"),
    ({"labels": ["background", "a"]}, "stands once"), ({"labels": ["a", "ignore"]}, "ignore not at all")])
def test_labels_that_are_none_are_refused(volumes, content, reason):
    write_json(volumes / "labels.json", content)
    with pytest.raises(OctkitError, match=rf"labels\.json: .*{reason}"):
        open_dataset(volumes)
