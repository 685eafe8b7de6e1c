import numpy as np
import pytest
import torch

from octkit.common.errors import OctkitError
from octkit.inference import engines
from octkit.inference.engines import NcnnNetwork, choose_engine, described
from octkit.network.model import build_network
from octkit.planning.plan import Configuration, Plan

CPU = torch.device("cpu")


def network(features=(8, 16, 24), strides=((1, 1), (2, 2), (2, 2)), kernels=((3, 3),) * 3, patch=(48, 64), channels=1):
    """A configuration, its torch network with weights that are not the initial ones, and an image for it."""
    configuration = Configuration(patch, 2, (1.0, 1.0), patch, features, strides, kernels, True)
    plan = Plan({"2d": configuration}, ("OCT",) * channels, ("rnfl", "gcipl", "choroid"), (), "px")
    torch.manual_seed(3)
    found = build_network(plan, "2d", False).eval()
    with torch.no_grad():
        for tensor in found.parameters():
            tensor += 0.1 * torch.randn_like(tensor)
    return configuration, found, torch.randn(1, channels, *patch)


@pytest.mark.parametrize("changes", [
    {}, {"features": (5, 7, 9)}, {"features": (4, 6), "strides": ((1, 1), (2, 2)), "kernels": ((3, 3),) * 2},
    {"strides": ((1, 1), (1, 2), (2, 2)), "kernels": ((1, 3), (3, 3), (3, 3))},
    {"strides": ((1, 1), (2, 1), (2, 4)), "kernels": ((3, 1), (5, 3), (3, 3))}, {"channels": 4},
    {"features": (4, 6), "strides": ((1, 1), (2, 2)), "kernels": ((5, 3), (3, 3)), "patch": (502, 640)}])  # in strips
def test_ncnn_gives_the_scores_of_torch(changes):
    configuration, found, image = network(**changes)
    with torch.inference_mode():
        expected = found(image)
        scores = NcnnNetwork(configuration, found.state_dict())(image)
    assert scores.shape == expected.shape and scores.dtype == torch.float32
    assert (scores - expected).abs().max() < 1e-3 * expected.std()


def test_a_nearly_constant_window_gives_the_scores_of_torch():
    """As one above the retina: its deviation is below what rounding leaves of a plain sum over its values."""
    configuration, found, _ = network((8, 16, 24, 24, 24), ((1, 1), *((2, 2),) * 4), ((3, 3),) * 5, (512, 576))
    image = 0.003 * torch.randn(1, 1, 512, 576) - 1.66
    with torch.inference_mode():
        expected = found(image)
        scores = NcnnNetwork(configuration, found.state_dict())(image)
    assert (scores - expected).abs().max() < 5e-3 * expected.std()  # 4e-2 with plain sums


def test_ncnn_repeats_itself_to_the_bit_and_keeps_nothing_of_the_scan_before():
    configuration, found, image = network()
    lean = NcnnNetwork(configuration, found.state_dict())
    first = lean(image)
    lean(torch.flip(image, [-1]))
    assert torch.equal(lean(image), first)


def test_weights_with_deep_supervision_are_taken_without_it():
    configuration, found, image = network()
    state = found.state_dict()
    assert "scores.1.weight" in state
    assert "scores.1.weight" not in described(configuration, state)[1]


def test_small_maps_keep_plain_weights():
    configuration, found, _ = network(patch=(48, 64))  # 3072, 768 and 192 px
    lines = described(configuration, found.state_dict())[0].splitlines()
    plain = {line.split()[1] for line in lines if line.endswith("31=64")}
    assert plain == {"encoder.2.layers.0", "encoder.2.layers.3"}


def asked(wanted, axes=2, maps=32, device=CPU, precision="float32", patch=512):
    configuration = Configuration((patch,) * axes, 2, (1.0,) * axes, (patch,) * axes, (maps, 8), ((1,) * axes,
                                  (2,) * axes), ((3,) * axes,) * 2, True)
    return choose_engine(wanted, configuration, 1, 4, device, precision, False)


@pytest.mark.parametrize(("seconds", "expected"), [((0.10, 0.20), "ncnn"), ((0.19, 0.20), "torch"),
                                                   ((0.30, 0.20), "torch")])
def test_the_faster_engine_is_taken_and_said_and_a_draw_is_torchs(monkeypatch, capsys, seconds, expected):
    monkeypatch.setattr(engines, "time_engines", lambda *_: dict(zip(("ncnn", "torch"), seconds, strict=True)))
    assert asked("auto") == expected
    said = capsys.readouterr().out
    assert f"ncnn {seconds[0]:.3f} s and torch 0.200 s, so {expected} predicts" in said


@pytest.mark.parametrize("changes", [
    {"axes": 3}, {"precision": "bfloat16"}, {"device": torch.device("cuda")}, {"patch": 64}, {"wanted": "torch"},
    {"wanted": "ncnn", "expected": "ncnn"}])
def test_where_there_is_nothing_to_gain_nothing_is_timed(monkeypatch, changes):
    monkeypatch.setattr(engines, "time_engines", lambda *_: pytest.fail("timed"))
    changes = {"wanted": "auto", "expected": "torch"} | changes
    expected = changes.pop("expected")
    assert asked(**changes) == expected


def test_the_piece_that_is_timed_is_a_network():
    """Of a plan with uneven strides and a window that its finest stages do not divide into four."""
    configuration = Configuration((96, 80), 2, (1.0, 1.0), (96, 80), (4, 6, 8, 8, 8),
                                  ((1, 1), (2, 1), (2, 2), (2, 2), (2, 2)), ((3, 3),) * 5, True)
    piece = engines.piece_of(configuration)
    assert piece.patch_size == (24, 20) and piece.features == (4, 6, 8, 8)
    for as_trained in (False, True):
        seconds = engines.time_engines(piece, 2, 4, as_trained)
        assert set(seconds) == {"ncnn", "torch"} and all(0 < value < 60 for value in seconds.values())


@pytest.mark.parametrize("changes", [{"axes": 3}, {"device": torch.device("cuda")}, {"precision": "bfloat16"}])
def test_ncnn_in_vain(changes):
    with pytest.raises(OctkitError, match="ncnn was asked for"):
        asked("ncnn", **changes)


def test_the_image_may_be_a_view():
    configuration, found, image = network()
    lean = NcnnNetwork(configuration, found.state_dict())
    wide = torch.cat([image, image], dim=-1)
    np.testing.assert_array_equal(lean(wide[..., :image.shape[-1]]), lean(image))


def test_an_unknown_engine():
    with pytest.raises(OctkitError, match="found 'tpu', expected auto or one of torch, ncnn"):
        asked("tpu")
