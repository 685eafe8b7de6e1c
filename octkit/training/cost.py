"""What training and prediction of a plan's configuration cost on this machine, by a short measurement."""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from octkit.common.settings import Settings
from octkit.network import memory
from octkit.network.model import autocast, build_network, choose_device, memory_format, working_precision
from octkit.planning.plan import Plan
from octkit.training.loss import deep_supervision_loss
from octkit.training.train import Optimiser

SECONDS, MOST = 15, 20  # of one measurement, and repetitions


class Cost(NamedTuple):
    """Seconds of a training step, and of a batch that is only predicted; bytes of a training, and its weights."""

    step: float
    forward: float
    memory: float
    weights: int


def measured(plan: Plan, config: str, chosen: Settings) -> Cost:
    """The cost of a configuration: medians over noise of the plan's patch and batch. Loading is left out."""
    configuration, device = plan.configurations[config], choose_device(chosen.device)
    precision = working_precision(chosen.train.precision, device)
    layout = memory_format(len(configuration.patch_size), device, precision, training=True)
    network = build_network(plan, config, chosen.train.deep_supervision)
    weights = sum(parameter.numel() for parameter in network.parameters())
    need = memory.training_bytes(weights, plan, config, chosen.train, precision)
    memory.check_training(network, plan, config, chosen.train, device, precision)
    network.to(device, memory_format=layout)  # type: ignore[call-overload]  # torch's gap
    optimiser = Optimiser(network, chosen.train).inner
    shape = configuration.batch_size, *configuration.patch_size
    images = torch.rand(shape[0], plan.input_channels(config), *shape[1:], device=device).to(memory_format=layout)
    masks = torch.randint(len(plan.classes) + 1, shape, device=device)

    def forward() -> list[torch.Tensor]:
        with autocast(precision, device):
            outputs = network(images)
        return outputs if isinstance(outputs, list) else [outputs]

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        deep_supervision_loss(forward(), masks, configuration.batch_dice, chosen.train.dropped_outputs).backward()
        optimiser.step()

    step_seconds = _median(step, device)
    with torch.no_grad():
        return Cost(step_seconds, _median(forward, device), need, weights)


def _median(call: Callable[[], object], device: torch.device) -> float:
    call()  # the first makes buffers and tries ways
    seconds: list[float] = []
    while len(seconds) < 3 or sum(seconds) < SECONDS and len(seconds) < MOST:
        began = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))
