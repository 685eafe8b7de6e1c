import numpy as np
import pytest

from octkit.data.labels import LAYERS
from octkit.inference.scan_result import has_surfaces, mask_of, mean_of, most_probable, read
from octkit.network.model import Model
from octkit.phantoms.circle_scans import draw


def model(labels=LAYERS, **changes) -> Model:
    return Model(None, (), labels, False, (), 0.5, "float32", **changes)


@pytest.fixture(scope="module")
def phantom():
    return draw(3, (256, 320))


def sure(mask, p=0.9) -> np.ndarray:
    """Probabilities of a network that is right about `mask` and quite sure of it."""
    return np.where(mask == np.arange(4)[:, None, None], p, (1 - p) / 3).astype(np.float32)


def test_where_boundaries_can_be_drawn():
    assert has_surfaces(LAYERS, 2)
    assert not has_surfaces(LAYERS, 3) and not has_surfaces(("a", "b", "c"), 2)


def test_islands_do_not_survive_ordered_boundaries(phantom):
    wrong = phantom.mask.copy()
    above = int(phantom.boundaries[0, 100:130].min())
    assert above > 12
    wrong[2:10, 100:130] = 3  # a choroid in the vitreous
    reading = read([sure(wrong)], model(surfaces=True), circle=True)
    assert (most_probable(sure(wrong), model(), True)[2:10, 100:130] == 3).all()
    assert not reading.mask[:above, 100:130].any()
    assert (reading.mask == phantom.mask).mean() > 0.99
    order = np.array([0, 1, 2, 0, 3, 0])
    for column in reading.mask.T:
        runs = column[np.flatnonzero(np.diff(column, prepend=255))]
        np.testing.assert_array_equal(runs, order)


def test_boundaries_are_those_of_the_phantom(phantom):
    reading = read([sure(phantom.mask)], model(surfaces=True), circle=True)
    truth = phantom.boundaries[[0, 1, 2, 8, 9]]
    assert np.abs(reading.boundaries - truth).mean() < 0.6
    assert reading.doubt.shape == (5, 320) and reading.quality.trusted


def test_where_opinions_differ_is_doubt(phantom):
    moved = np.roll(phantom.mask, 6, axis=0)
    both = read([sure(phantom.mask), sure(moved)], model(), circle=True)
    alone = read([mean_of([sure(phantom.mask), sure(moved)])], model(), circle=True)
    # two opinions 6 px apart have a standard deviation of 6 / sqrt(2)
    assert np.median(both.doubt[0]) >= 0.9 * 6 / 2**0.5
    np.testing.assert_array_equal(both.boundaries, alone.boundaries)


def test_other_labels_and_volumes_have_a_mask_alone(phantom):
    reading = read([sure(phantom.mask)], model(("a", "b", "c")), circle=False)
    assert reading.boundaries is None and reading.doubt is None and reading.quality is None
    np.testing.assert_array_equal(reading.mask, phantom.mask)
    volume = np.stack([sure(phantom.mask)] * 2, axis=1)
    np.testing.assert_array_equal(read([volume], model(), False).mask, [phantom.mask] * 2)


def test_components_are_cleaned_where_the_model_says_so():
    probabilities = np.zeros((4, 4, 6), np.float32)
    probabilities[0] = 0.5
    probabilities[1, 0, :3] = probabilities[1, 3, 5] = 1
    assert mask_of(probabilities, model(postprocessing=((1,),)), False).sum() == 3
    assert mask_of(probabilities, model(), False).sum() == 4


def test_the_mean_of_opinions():
    np.testing.assert_array_equal(mean_of([np.zeros((2, 1), np.float32), np.ones((2, 1), np.float32)]), [[0.5], [0.5]])
