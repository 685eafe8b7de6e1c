from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest

from octkit.data.labels import BOUNDARIES, LAYERS
from octkit.data.measured import Calibration
from octkit.inference.scan_result import has_boundaries, most_probable, predict_scan, with_boundaries
from octkit.layers.seen import layers_seen
from octkit.network.model import Model
from octkit.phantoms.circle_scans import draw

PLAN = SimpleNamespace(channels=("OCT",), schemes=("ct",), intensity=({"percentile_00_5": 0, "percentile_99_5": 230},))


def model(labels=LAYERS, **changes) -> Model:
    return Model(PLAN, (), labels, False, (), 0.5, "float32", **changes)


@pytest.fixture(scope="module")
def phantom():
    return draw(5, (256, 320))


def sure(mask, p=0.9) -> np.ndarray:
    """Probabilities of a network that is right about `mask` and quite sure of it."""
    return np.where(mask == np.arange(4)[:, None, None], p, (1 - p) / 3).astype(np.float32)


def test_where_boundaries_can_be_drawn():
    assert has_boundaries(LAYERS, 2)
    assert not has_boundaries(LAYERS, 3) and not has_boundaries(("a", "b", "c"), 2)


def test_islands_do_not_survive_ordered_boundaries(phantom):
    wrong = phantom.mask.copy()
    above = int(phantom.boundaries[0, 100:130].min())
    assert above > 12
    wrong[2:10, 100:130] = 3  # a choroid in the vitreous
    found = with_boundaries(sure(wrong), [], model(surfaces=True), circle=True)
    assert (most_probable(sure(wrong), model(), True)[2:10, 100:130] == 3).all()
    assert not found.mask[:above, 100:130].any()
    assert (found.mask == phantom.mask).mean() > 0.99
    order = np.array([0, 1, 2, 0, 3, 0])
    for column in found.mask.T:
        runs = column[np.flatnonzero(np.diff(column, prepend=255))]
        np.testing.assert_array_equal(runs, order)


def test_boundaries_are_those_of_the_phantom(phantom):
    found = with_boundaries(sure(phantom.mask), [], model(surfaces=True), circle=True)
    truth = phantom.boundaries[[0, 1, 2, 8, 9]]
    assert np.abs(found.boundaries - truth).mean() < 0.6
    assert found.doubt.shape == (5, 320) and found.quality.trusted


def test_where_networks_differ_is_doubt(phantom):
    single = [sure(phantom.mask), sure(np.roll(phantom.mask, 6, axis=0))]
    mean = (single[0] + single[1]) / 2
    both, alone = (with_boundaries(mean, some, model(), circle=True) for some in (single, []))
    # two that lie 6 px apart have a standard deviation of 6 / sqrt(2)
    assert np.median(both.doubt[0]) >= 0.9 * 6 / 2**0.5
    np.testing.assert_array_equal(both.boundaries, alone.boundaries)


def test_doubt_is_worth_what_was_measured_and_never_less_than_networks_differ(phantom):
    known = Calibration(scans=9, origin="nine", knots={name: ((0.5, 1.0, 2.0),) for name in BOUNDARIES},
                        means={layer: {} for layer in LAYERS})
    single = [sure(phantom.mask), sure(np.roll(phantom.mask, 6, axis=0))]
    alone = with_boundaries(single[0], [], model(calibration=known), circle=True)
    np.testing.assert_allclose(alone.half_widths, [np.minimum(factor * alone.doubt, 256) for factor in (2, 4)])
    both = with_boundaries((single[0] + single[1]) / 2, single, model(calibration=known), circle=True)
    assert np.median(both.half_widths[1, 0]) >= 0.9 * 1.96 * 6 / 2**0.5
    assert with_boundaries(single[0], [], model(), circle=True).half_widths is None


def test_an_a_scan_without_a_signal_is_not_seen_whatever_the_network_says(phantom):
    hallucinated, signal = phantom.mask.copy(), np.ones(320, bool)
    signal[np.arange(-20, 20)] = False  # across the seam
    hallucinated[:, ~signal] = 0
    hallucinated[100:110, ~signal], hallucinated[110:118, ~signal], hallucinated[150:170, ~signal] = 1, 2, 3
    found = with_boundaries(sure(hallucinated), [], model(surfaces=True), circle=True, signal=signal)
    seen = layers_seen(found.doubt, 256)
    assert not seen[:, ~signal].any() and seen[:, signal].all()
    assert not found.quality.trusted and "45° of the circle" in found.quality.reasons[0]
    # The mask is whole, and drawn from edge to edge.
    thick = (found.mask == 1).sum(axis=0)
    edges = thick[[20, 299]]
    assert (edges.min() - 2 <= thick[~signal]).all() and (thick[~signal] <= edges.max() + 2).all()
    np.testing.assert_array_equal(found.probabilities, sure(hallucinated))


def test_a_predicted_scan_is_looked_at_for_its_signal(phantom):
    image = phantom.image[None].astype(np.float32)
    image[..., 100:140] = 0
    predictor = Mock(predict_each=Mock(return_value=(sure(phantom.mask), [])), model=model(surfaces=True))
    found = predict_scan(predictor, image, circle=True)
    assert (~layers_seen(found.doubt, 256)).any(axis=0).nonzero()[0].tolist() == [*range(100, 140)]


def test_other_labels_and_volumes_have_a_mask_alone(phantom):
    volume = np.stack([sure(phantom.mask)] * 2, axis=1)
    for labels, probabilities in ((("a", "b", "c"), sure(phantom.mask)), (LAYERS, volume)):
        predictor = Mock(return_value=probabilities, model=model(labels))
        image = np.broadcast_to(phantom.image, probabilities.shape[1:])[None].astype(np.float32)
        found = predict_scan(predictor, image)
        assert found.boundaries is None and found.doubt is None
        assert found.quality.trusted and found.quality.reasons == ()
        np.testing.assert_array_equal(found.mask, probabilities.argmax(0))


def test_a_scan_in_another_range_of_grey_is_flagged_whatever_was_found(phantom):
    volume, image = np.stack([sure(phantom.mask)] * 2, axis=1), phantom.image[None].astype(np.float32)
    ways = {LAYERS: (Mock(predict_each=Mock(return_value=(sure(phantom.mask), [])), model=model()), image),
            "volume": (Mock(return_value=volume, model=model()), np.stack([image] * 2, axis=1)),
            "abc": (Mock(return_value=sure(phantom.mask), model=model(tuple("abc"))), image)}
    for predictor, scan in ways.values():
        assert predict_scan(predictor, scan).quality.trusted
        quality = predict_scan(predictor, scan / 255).quality
        assert not quality.trusted and "far too dark for this model" in quality.reasons[0]


def test_components_are_cleaned_where_the_model_says_so():
    probabilities = np.zeros((4, 4, 6), np.float32)
    probabilities[0] = 0.5
    probabilities[1, 0, :3] = probabilities[1, 3, 5] = 1
    assert most_probable(probabilities, model(postprocessing=((1,),)), False).sum() == 3
    assert most_probable(probabilities, model(), False).sum() == 4
