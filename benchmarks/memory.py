"""Memory that training and prediction are estimated to need, against what they really take.

    python benchmarks/memory.py

One process for each plan: its peak, less what it held before the first step. Prints a table; on the CPU, in float32.
"""

import subprocess
import sys

import numpy as np
import torch

from octkit.common.settings import TrainSettings
from octkit.inference.sliding_window import Predictor
from octkit.network import memory
from octkit.network.model import Member, Model, build_network, memory_format
from octkit.planning.plan import Configuration, Plan
from octkit.training.loss import deep_supervision_loss
from octkit.training.train import Optimiser

# Patch, batch size, maps of the finest stage, stages; a scan for the prediction.
PLANS = (
    ((448, 576), 2, 32, 6, (800, 1100)),
    ((224, 288), 4, 32, 6, (400, 550)),
    ((320, 576), 2, 16, 6, (496, 768)),
    ((256, 320), 4, 16, 6, (256, 320)),
    ((16, 96, 96), 2, 32, 4, (20, 128, 128)),
    ((16, 128, 160), 2, 8, 5, (25, 200, 256)),
)
CPU = torch.device("cpu")


def model_of(patch, batch, maps, stages) -> Model:
    axes = len(patch)
    features = tuple(min(maps * 2**stage, 512 if axes == 2 else 320) for stage in range(stages))
    one, two, three = ((n,) * axes for n in (1, 2, 3))
    if axes == 3:
        two = (1, 2, 2)
    name = "2d" if axes == 2 else "3d_fullres"
    configuration = Configuration(patch, batch, one, patch, features, (one, *(two,) * (stages - 1)), (three,) * stages,
                                  True)
    record = {"mean": 90.0, "std": 60.0, "percentile_00_5": 4.0, "percentile_99_5": 230.0}
    plan = Plan({name: configuration}, ("OCT",), ("rnfl", "gcipl", "choroid"), (record,), "px",
                tuple(range(axes)) if axes == 3 else ())
    weights = {"0": build_network(plan, name, False).state_dict()}
    return Model(plan, (Member(name, weights),), plan.classes, True, (-1,), 0.5, "float32")


def held(what: str) -> float:
    """Bytes of this process now ("VmRSS") or at its peak ("VmHWM")."""
    with open("/proc/self/status", encoding="utf-8") as lines:
        return next(float(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def measure(what: str, number: int) -> None:
    """Print the estimate and the peak of one plan, in MB."""
    *shape, scan = PLANS[number]
    model = model_of(*shape)
    [name] = model.plan.configurations
    patch, batch = shape[:2]
    if what == "training":
        chosen = TrainSettings(workers=0)
        network = build_network(model.plan, name, True).to(memory_format=memory_format(len(patch), CPU, "float32",
                                                                                      training=True))
        parameters = sum(parameter.numel() for parameter in network.parameters())
        images, masks = torch.randn(batch, 1, *patch), torch.randint(0, 4, (batch, *patch))
        optimiser = Optimiser(network, chosen)
        before = held("VmRSS") - parameters * 4  # the weights are there already
        for _ in range(2):
            optimiser.inner.zero_grad(set_to_none=True)
            deep_supervision_loss(network(images), masks, True).backward()
            optimiser.inner.step()
        estimate = memory.training_bytes(parameters, model.plan, name, chosen, "float32")
    else:
        image = np.random.default_rng(0).uniform(1, 255, (1, *scan)).astype(np.float32)
        # What is loaded once is loaded by a tiny network: the real one would leave its window's memory behind.
        small = image[(slice(None), *(slice(16),) * len(scan))]
        Predictor(model_of(small.shape[1:], 1, 4, 2), "cpu")(small, None, False)
        predictor = Predictor(model, "cpu")
        before = held("VmRSS")
        predictor(image, None, False)
        one = memory.probability_bytes(model, scan)
        estimate = memory.window_bytes(model, unfolds=True) + (memory.AT_WORK + 1) * one
    print(f"{estimate / 1e6:.0f} {(held('VmHWM') - before) / 1e6:.0f}")


def main() -> None:
    if len(sys.argv) == 3:
        measure(sys.argv[1], int(sys.argv[2]))
        return
    print("| what | patch | batch | maps | scan | estimate, MB | peak, MB | estimate / peak |")
    print("|---|---|---|---|---|---|---|---|")
    for what in ("training", "prediction"):
        for number, (patch, batch, maps, _, scan) in enumerate(PLANS):
            output = subprocess.run([sys.executable, __file__, what, str(number)], encoding="utf-8",
                                    stdout=subprocess.PIPE, check=True).stdout
            estimate, peak = map(float, output.split()[-2:])
            size, wide = (" x ".join(map(str, n)) for n in (patch, scan))
            print(f"| {what} | {size} | {batch} | {maps} | {wide if what == 'prediction' else ''} | {estimate:.0f} | "
                  f"{peak:.0f} | {estimate / peak:.2f} |", flush=True)


if __name__ == "__main__":
    main()
