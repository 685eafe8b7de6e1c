from dataclasses import replace

import numpy as np
import pytest
import torch

from octkit.common.errors import OctkitError
from octkit.network.model import autocast, build_network, choose_device, load_weights, memory_format, working_precision
from octkit.planning.plan import Configuration, Plan

CPU = torch.device("cpu")
SMALL = Configuration((16, 16), 2, (1.0, 1.0), (16.0, 16.0), (4, 8), ((1, 1), (2, 2)), ((3, 3), (3, 3)), True)
SECOND = replace(SMALL, previous_stage="2d")


def network(channels=1, deep_supervision=True, config="2d"):
    names = tuple(f"channel {i}" for i in range(channels))
    plan = Plan({"2d": SMALL, "second": SECOND}, names, ("a", "b", "c"), ({},) * channels, "px")
    return build_network(plan, config, deep_supervision)


def test_the_network_is_the_plans_and_a_second_step_sees_the_classes_of_the_first_beside_the_image():
    built = network(2, False)
    assert built(torch.zeros(1, 2, 16, 16)).shape == (1, 4, 16, 16)
    assert built.encoder[0].layers[0].weight.shape == (4, 2, 3, 3)
    assert network(1, config="second").encoder[0].layers[0].weight.shape == (4, 1 + 3, 3, 3)


@pytest.mark.parametrize(("axes", "expected"), [(2, torch.channels_last), (3, torch.channels_last_3d)])
def test_maps_lie_channels_last_but_in_float32_training_on_a_cpu(axes, expected):
    for device, precision, training in ((CPU, "bfloat16", True), (CPU, "float32", False),
                                        (torch.device("cuda"), "float32", True)):
        assert memory_format(axes, device, precision, training) == expected
    assert memory_format(axes, CPU, "float32", True) == torch.contiguous_format


def test_weights_of_another_network_are_refused():
    with pytest.raises(OctkitError, match="m.pt: its weights do not fit"):
        load_weights(network(), network(2).state_dict(), "m.pt")


@pytest.mark.parametrize(("able", "expected"), [
    ({"avx512_bf16": True}, "bfloat16"), ({"amx_bf16": True}, "bfloat16"), ({"avx2": True}, "float32")])
def test_bfloat16_only_where_the_processor_has_it(monkeypatch, capsys, able, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert working_precision("bfloat16", CPU) == expected
    assert ("no bfloat16" in capsys.readouterr().out) == (expected == "float32")
    assert working_precision("float32", CPU) == "float32"


def test_autocast_is_what_the_precision_says():
    layer, image = torch.nn.Conv2d(1, 1, 1), torch.from_numpy(np.ones((1, 1, 2, 2), np.float32))
    for precision, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        with autocast(precision, CPU):
            assert layer(image).dtype == dtype


def test_cuda_in_vain_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == CPU
    with pytest.raises(OctkitError, match="finds no CUDA device"):
        choose_device("cuda")
