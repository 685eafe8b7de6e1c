import dataclasses
from itertools import product

import numpy as np
import pytest
import torch
from scipy.special import softmax

from octkit.common.errors import OctkitError
from octkit.inference import sliding_window
from octkit.inference.sliding_window import Predictor, first_step_mask, gaussian_weights, window_starts
from octkit.network import memory
from octkit.network.model import Member, Model, build_network
from octkit.planning.plan import Configuration, Plan
from octkit.planning.preprocess import Geometry, preprocess

RECORD = {"mean": 120.0, "std": 45.0, "median": 118.0, "min": 0.0, "max": 255.0, "percentile_00_5": 12.0,
          "percentile_99_5": 240.0}
LABELS = ("rnfl", "gcipl", "choroid")


def configuration(patch, stride, spacing=None, previous=None) -> Configuration:
    axes = len(patch)
    spacing = spacing or (1.0,) * axes
    return Configuration(patch, 2, spacing, patch, (4, 6), ((1,) * axes, stride), ((3,) * axes,) * 2, True, previous)


SCAN = {"2d": configuration((16, 24), (2, 2))}
VOLUME = {"2d": configuration((16, 24), (2, 2)), "3d_lowres": configuration((4, 8, 12), (1, 2, 2), (1.0, 2.0, 2.0)),
          "3d_fullres": configuration((4, 16, 24), (1, 2, 2)),
          "3d_cascade_fullres": configuration((4, 16, 24), (1, 2, 2), None, "3d_lowres")}


def plan(configurations=SCAN) -> Plan:
    order = (0, 1, 2) if "3d_fullres" in configurations else ()
    return Plan(configurations, ("OCT",), LABELS, (RECORD,), "px", axis_order=order)


def member(found: Plan, config: str, folds=1, seed=0, previous=None) -> Member:
    torch.manual_seed(seed)
    weights = {str(fold): build_network(found, config, True).state_dict() for fold in range(folds)}
    return Member(config, weights, previous)


def model(found: Plan, *members: Member, **changes) -> Model:
    whole = Model(found, members, LABELS, False, (-3, -2, -1), 0.5, "float32")
    return dataclasses.replace(whole, **changes)


def image(*shape) -> np.ndarray:
    return np.random.default_rng(0).uniform(1, 255, (1, *shape)).astype(np.float32)


def network_on(found: Model, member: Member, prepared: np.ndarray, fold="0") -> np.ndarray:
    """Softmax of the bare network on a preprocessed patch of the window's size."""
    network = build_network(found.plan, member.config, False)
    network.load_state_dict(member.weights[fold])
    with torch.no_grad():
        return torch.softmax(network.eval()(torch.from_numpy(prepared)[None]), 1)[0].numpy()


@pytest.mark.parametrize(("length", "window", "step", "expected"), [
    (10, 6, 0.5, [0, 2, 4]), (6, 6, 0.5, [0]), (5, 6, 0.5, [0]), (12, 6, 0.5, [0, 3, 6]), (7, 6, 0.5, [0, 1]),
    (12, 6, 1, [0, 6]),
    # 251 / 14 * 7 is a little below 125.5: nnU-Net's seventh window starts at 125
    (287, 36, 0.5, [0, 18, 36, 54, 72, 90, 108, 125, 143, 161, 179, 197, 215, 233, 251])])
def test_window_starts(length, window, step, expected):
    assert window_starts(length, window, step) == expected


def test_gaussian_weights_by_hand():
    weights = gaussian_weights((8,))
    # middle pixel 4, deviation 1: pixel 0 is 4 off, its neighbour 3
    np.testing.assert_allclose(weights[[4, 3, 0]], np.exp([0, -0.5, -8]), rtol=1e-6)
    assert gaussian_weights((8, 6, 4)).shape == (8, 6, 4) and gaussian_weights((8, 6)).max() == 1


@pytest.mark.parametrize(("config", "shape"), [
    *product(["2d"], [(16, 24), (40, 48), (17, 21), (9, 70), (5, 5)]),
    *product(VOLUME, [(4, 16, 24), (7, 20, 31), (2, 9, 11)])])
def test_probabilities_on_any_size(config, shape):
    found = plan(VOLUME if len(shape) == 3 else SCAN)
    first = member(found, "3d_lowres", seed=1) if config == "3d_cascade_fullres" else None
    probabilities = Predictor(model(found, member(found, config, previous=first)))(image(*shape))
    assert probabilities.shape == (4, *shape) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)


@pytest.mark.parametrize(("configurations", "config", "shape"), [(SCAN, "2d", (16, 24)),
                                                                 (VOLUME, "3d_fullres", (4, 16, 24))])
def test_one_window_is_the_network_itself(configurations, config, shape):
    found = plan(configurations)
    whole = model(found, member(found, config))
    prepared = preprocess(image(*shape), None, found, config)[0]
    np.testing.assert_allclose(Predictor(whole)(image(*shape)), network_on(whole, whole.members[0], prepared),
                               atol=1e-5)


def test_the_2d_configuration_goes_through_a_volume_slice_by_slice():
    found = plan(VOLUME)
    volume = image(3, 20, 31)
    whole = Predictor(model(found, member(found, "2d")))(volume)
    flat = plan()
    for k in range(3):
        single = Predictor(model(flat, member(flat, "2d")))(volume[:, k])
        np.testing.assert_allclose(whole[:, k], single, atol=1e-5)


def test_a_cascade_shows_its_second_step_what_the_first_one_found():
    found = plan(VOLUME)
    first = member(found, "3d_lowres", seed=1)
    second = member(found, "3d_cascade_fullres", seed=2, previous=first)
    assert second.weights["0"]["encoder.0.layers.0.weight"].shape[1] == 1 + len(LABELS)
    scan = image(4, 16, 24)
    low = preprocess(scan, None, found, "3d_lowres")[0]
    assert low.shape == (1, 4, 8, 12)
    first_found = network_on(model(found, first), first, low)
    # linear interpolation to twice the size, then the most probable label
    to = preprocess(scan, None, found, "3d_fullres")[2]
    labels = first_step_mask(first_found, preprocess(scan, None, found, "3d_lowres")[2], to)
    one_hot = np.stack([labels == label for label in (1, 2, 3)]).astype(np.float32)
    seen = np.concatenate([preprocess(scan, None, found, "3d_cascade_fullres")[0], one_hot])
    whole = model(found, second)
    np.testing.assert_allclose(Predictor(whole)(scan), network_on(whole, second, seen), atol=1e-5)


def test_first_step_masks_by_hand():
    probabilities = np.zeros((2, 1, 2, 2), np.float32)
    probabilities[1, 0, 1] = 1  # the lower row is label 1
    probabilities[0] = 1 - probabilities[1]
    low = Geometry((1, 4, 4), ((0, 1), (0, 4), (0, 4)), (0, 1, 2), (1, 1, 1), (1, 2, 2), (1, 2, 2))
    full = dataclasses.replace(low, target=(1.0, 1.0, 1.0), resampled_shape=(1, 4, 4))
    np.testing.assert_array_equal(first_step_mask(probabilities, low, full)[0, :, 0], [0, 0, 1, 1])


def test_mirroring_makes_the_prediction_of_a_mirrored_scan_the_mirrored_prediction():
    found = plan()
    whole = model(found, member(found, "2d"), mirror=True, mirror_axes=(-2, -1))
    scan = image(16, 24)  # one window: with several, their grid would have to be mirrored too
    predictor = Predictor(whole)
    np.testing.assert_allclose(predictor(scan[..., ::-1].copy()), predictor(scan)[..., ::-1], atol=1e-5)
    plain = Predictor(whole, mirror=False)
    assert not np.allclose(plain(scan[..., ::-1].copy()), plain(scan)[..., ::-1], atol=1e-3)


@pytest.mark.parametrize("blend", ["probabilities", "logits"])
@pytest.mark.parametrize(("configurations", "shape"), [(SCAN, (30, 40)), (VOLUME, (3, 20, 30))])  # 9 windows, 12
def test_windows_and_mirrored_copies_at_once_are_those_in_turn(blend, configurations, shape, monkeypatch):
    found = plan(configurations)
    whole = model(found, member(found, "2d", folds=2), mirror=True, blend=blend)
    predictor, scan = Predictor(whole, "cpu"), image(*shape)
    in_turn = predictor.predict_each(scan)
    monkeypatch.setattr(sliding_window, "GPU_PIXELS", 5 * 4 * 16 * 24)
    predictor.configs[0].together = True
    assert (predictor.configs[0].windows, predictor.configs[0].at_once) == (5, 20)
    at_once = predictor.predict_each(scan)
    for one, other in zip(in_turn, at_once, strict=True):  # the single ones come in another order
        np.testing.assert_allclose(np.sort(other, 0), np.sort(one, 0), atol=2e-3 if blend == "logits" else 1e-5)


def test_a_scan_that_does_not_fit_into_a_gpu_is_said(monkeypatch):
    found = plan()
    predictor = Predictor(model(found, member(found, "2d")), "cpu")

    def full(_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(predictor.configs[0], "networks", [full])
    with pytest.raises(OctkitError, match="16 x 24 px"):
        predictor(image(16, 24))


def test_the_precision_may_be_another_than_in_training(monkeypatch):
    found = plan()
    whole, scan = model(found, member(found, "2d"), precision="bfloat16"), image(16, 24)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert Predictor(whole, "cpu").precision == "bfloat16"
    exact = Predictor(whole, "cpu", precision="float32")
    assert exact.precision == "float32"
    np.testing.assert_array_equal(exact(scan), Predictor(dataclasses.replace(whole, precision="float32"), "cpu")(scan))
    with pytest.raises(OctkitError, match="precision: found 'half', expected one of float32, bfloat16"):
        Predictor(whole, precision="half")


@pytest.mark.parametrize(("configurations", "config", "axes", "copies"), [
    (SCAN, "2d", (-3, -2, -1), 4), (VOLUME, "3d_fullres", (-3, -2, -1), 8), (SCAN, "2d", (-1,), 2),
    (SCAN, "2d", (), 1)])
def test_axes_that_a_window_lacks_are_not_mirrored(configurations, config, axes, copies):
    found = plan(configurations)
    whole = model(found, member(found, config), mirror=True, mirror_axes=axes)
    assert len(Predictor(whole).configs[0].flips) == copies


def test_folds_and_configurations_are_averaged():
    found = plan(VOLUME)
    scan = image(5, 18, 30)
    two = member(found, "3d_fullres", folds=2)
    singles = [Predictor(model(found, dataclasses.replace(two, weights={fold: two.weights[fold]})))(scan)
               for fold in ("0", "1")]
    assert not np.allclose(singles[0], singles[1], atol=1e-3)
    np.testing.assert_allclose(Predictor(model(found, two))(scan), (singles[0] + singles[1]) / 2, atol=1e-5)
    flat = member(found, "2d", seed=3)
    pair = Predictor(model(found, two, flat))(scan)
    expected = (Predictor(model(found, two))(scan) + Predictor(model(found, flat))(scan)) / 2
    np.testing.assert_allclose(pair, expected, atol=1e-6)


def test_logits_are_averaged_before_softmax_where_the_model_says_so():
    found = plan()
    two = member(found, "2d", folds=2)
    scan = image(16, 24)
    prepared = preprocess(scan, None, found, "2d")[0]
    logs = [np.log(network_on(model(found, two), two, prepared, fold)) for fold in ("0", "1")]
    expected = softmax((logs[0] + logs[1]) / 2, axis=0)  # softmax does not see that each log is off by a constant
    by_logits = Predictor(model(found, two, blend="logits"))(scan)
    np.testing.assert_allclose(by_logits, expected, atol=5e-3)  # in half precision, as nnU-Net has it
    assert not np.allclose(expected, Predictor(model(found, two))(scan), atol=1e-2)


def test_logits_are_summed_in_half_precision():
    found = plan()
    network = Predictor(model(found, member(found, "2d"), blend="logits")).configs[0]
    assert network.weights.dtype == torch.float16 and network.weights.max() == 10 and network.weights.min() > 0
    [values], _ = network.on_grid(image(40, 60), None, False)
    np.testing.assert_array_equal(values, values.astype(np.float16))
    full = Predictor(model(found, member(found, "2d"))).configs[0]
    assert full.weights.dtype == torch.float32


def test_outside_the_crop_all_is_background_whatever_is_averaged():
    found = plan()
    scan = image(20, 30)
    scan[:, :4] = 0
    for blend in ("probabilities", "logits"):
        probabilities = Predictor(model(found, member(found, "2d"), blend=blend))(scan)
        np.testing.assert_array_equal(probabilities[:, :4].argmax(0), 0)
        np.testing.assert_allclose(probabilities[0, :4], 1)


@pytest.mark.parametrize("width", [24, 40, 13])
def test_a_circle_turned_is_the_same_circle(width):
    # Turned, the scan has its seam elsewhere. What is found there must not depend on it as it does on a plain edge.
    found = plan({"2d": configuration((16, 16), (1, 1))})
    predictor = Predictor(model(found, member(found, "2d")))
    scan = image(16, width)
    for turn in (1, width // 2):
        inside = predictor(np.roll(scan, turn, -1), circle=True)
        seam = np.roll(predictor(scan, circle=True), turn, -1)
        edges = np.roll(predictor(scan, circle=False), turn, -1)
        here = (..., slice(turn - 1, turn + 1))
        assert np.abs(inside - seam)[here].max() < np.abs(inside - edges)[here].max()


def test_on_a_circle_a_periodic_scan_has_a_periodic_prediction():
    found = plan()
    predictor = Predictor(model(found, member(found, "2d")))
    scan = np.tile(image(16, 1), 48)  # each A-scan the same: so must be what is found, at the edges too
    off = {}
    for circle in (True, False):
        probabilities = predictor(scan, circle=circle)
        off[circle] = np.abs(probabilities[..., 0] - probabilities[..., 24]).max()
    assert off[True] < 0.5 * off[False]


def test_a_circle_that_lost_a_scans_at_its_ends_does_not_close():
    """Black A-scans at the seam are cropped away; what is left at the ends are no neighbours."""
    predictor = Predictor(model(plan(), member(plan(), "2d")), "cpu")
    scan = image(16, 48)
    scan[..., :3] = scan[..., -2:] = 0
    np.testing.assert_array_equal(predictor(scan, circle=True), predictor(scan, circle=False))
    scan[..., [0, -1]] = 5
    assert not np.array_equal(predictor(scan, circle=True), predictor(scan, circle=False))


def test_how_far_a_circle_is_continued():
    found = plan()
    network = Predictor(model(found, member(found, "2d"))).configs[0]
    network.window = (896, 1152)
    assert [network._around(width) for width in (1100, 1120, 1152, 2000)] == [26, 16, 288, 288]


@pytest.mark.parametrize(("configurations", "config", "shape"), [(SCAN, "2d", (20, 30)),
                                                                 (VOLUME, "3d_fullres", (5, 20, 30))])
def test_each_network_and_mirrored_copy_is_what_it_gives_alone(configurations, config, shape):
    found, scan = plan(configurations), image(*shape)
    both = member(found, config, folds=2)
    predictor = Predictor(model(found, both, mirror=True, mirror_axes=(-1,)))
    mean, single = predictor.predict_each(scan)
    np.testing.assert_array_equal(mean, predictor(scan))  # to the last bit: a run's masks are made of either
    assert len(single) == 4
    np.testing.assert_allclose(np.mean(single, 0), mean, atol=1e-6)
    assert not np.allclose(single[0], single[1], atol=1e-3)
    alone = Predictor(model(found, dataclasses.replace(both, weights={"1": both.weights["1"]})))
    assert sum(np.array_equal(alone(scan), one) for one in single) == 1


def test_a_model_that_averages_logits_has_their_average_alone():
    found = plan()
    predictor = Predictor(model(found, member(found, "2d", folds=2), blend="logits"))
    mean, [single] = predictor.predict_each(image(20, 30))
    np.testing.assert_array_equal(single, mean)
    np.testing.assert_array_equal(single, predictor(image(20, 30)))


def test_the_memory_check_counts_what_is_kept_of_single_predictions(monkeypatch):
    found, counted = plan(), []
    monkeypatch.setattr(memory, "check_prediction", lambda *numbers: counted.append((numbers[2], *numbers[5:])))
    two = (member(found, "2d", folds=2), member(found, "2d"))  # 2 networks and 1, each with two mirrored copies
    predictor = Predictor(model(found, *two, mirror=True, mirror_axes=(-1,)), "cpu")
    predictor(image(16, 24))
    predictor.predict_each(image(16, 24))
    assert counted == [(2, 1, 0), (2 + 4 + 2, 1, 4)]  # kept, at once in a network, of one configuration
