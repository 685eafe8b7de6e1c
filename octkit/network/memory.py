"""How much memory a training and a prediction need, and whether so much is free.

The estimates count the arrays that have to be there at the same time. The buffers of the libraries are in constants
measured on a CPU (benchmarks/memory.py compares).
"""

import ctypes
import platform
from collections.abc import Sequence
from math import prod

import torch

from octkit.common.errors import OctkitError
from octkit.common.memory import GB, free_memory
from octkit.common.settings import TrainSettings
from octkit.network.model import Model
from octkit.planning.plan import Configuration, Plan
from octkit.planning.rules import feature_map_values

FLOAT = 4  # bytes
MOMENTARY_IN_TRAINING = 7  # sets of the finest stage's feature maps: gradients, the convolutions' buffers
FORWARD = 12  # the same of prediction, with what is freed and kept
LIBRARIES = 150e6  # bytes that the libraries take for themselves in the first step
# On a CPU torch copies each voxel's surroundings for every map of volumes of few maps in float32 (slow_conv3d). The
# decoder reads twice as many maps; as much again is freed and kept. At 16 x 64 x 64 voxels 14 maps are few.
NARROW = 16
UNFOLDED = 2 * 2
AT_WORK = 4  # sets of a scan's probabilities beside those that are kept: sums, weighted, resampled
PREFETCHED = 2  # batches that wait in each worker (torch's default)
WORKER = 150e6  # bytes of a worker process that it does not share with its parent

# glibc's mallopt: from how many bytes at its end on the heap is given back, and how many blocks may lie outside it.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, for the next arrays of that size.

    glibc gives large blocks back to the system, which clears every page before it hands it out again: in a training
    step of 2 patches of 224 x 288 px that are 46,000 page faults.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, -1)  # never


def training_bytes(parameters: int, plan: Plan, config: str, chosen: TrainSettings, precision: str) -> float:
    """What training a configuration needs on its device: weights with gradients and moments, maps kept for backward.

    Each convolution's output is kept, and its activation: twice the planner's count of feature map values.
    """
    configuration = plan.configurations[config]
    values = feature_map_values(configuration.patch_size, configuration.features, configuration.strides,
                                len(plan.classes), configuration.blocks)
    finest = prod(configuration.patch_size) * configuration.features[0]
    size = FLOAT / 2 if precision == "bfloat16" else FLOAT
    copies = 3 if chosen.optimiser == "sgd" else 4  # weights, gradients, one moment or two
    return (LIBRARIES + copies * parameters * FLOAT
            + configuration.batch_size * (2 * values + MOMENTARY_IN_TRAINING * finest) * size)


def loading_bytes(plan: Plan, config: str, workers: int) -> float:
    """What the worker processes and their waiting batches need: image and labels, float32 and uint8."""
    configuration = plan.configurations[config]
    batch = configuration.batch_size * prod(configuration.patch_size) * (plan.input_channels(config) * FLOAT + 1)
    return workers * (PREFETCHED * batch + WORKER)


def window_bytes(model: Model, at_once: int = 1, unfolds: bool = False) -> float:
    """What `at_once` windows take in the network, of the configuration that takes most. Weights are there before.

    `unfolds` says whether volumes of few maps are unfolded to be convolved (`NARROW`).
    """
    def one(configuration: Configuration) -> float:
        narrow = unfolds and len(configuration.patch_size) == 3 and configuration.features[0] < NARROW
        sets = FORWARD + (UNFOLDED * prod(configuration.kernels[0]) if narrow else 0)
        return sets * prod(configuration.patch_size) * configuration.features[0] * FLOAT

    return at_once * max(one(model.plan.configurations[member.config]) for member in model.members)


def probability_bytes(model: Model, shape: Sequence[int]) -> float:
    """One set of probabilities of a scan of this shape (*spatial)."""
    return (len(model.labels) + 1) * prod(shape) * FLOAT


def free_bytes(device: torch.device) -> float:
    """The memory that is free on a device."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()


def check_training(network: torch.nn.Module, plan: Plan, config: str, chosen: TrainSettings, device: torch.device,
                   precision: str) -> None:
    """Raise OctkitError where training would need more memory than is free, and say which setting helps."""
    parameters = sum(parameter.numel() for parameter in network.parameters())
    need, helps = training_bytes(parameters, plan, config, chosen, precision), ""
    if device.type == "cpu" and chosen.workers:
        need += loading_bytes(plan, config, chosen.workers)
        helps = f"train.workers ({chosen.workers} now), "
    batch = plan.configurations[config].batch_size
    _compare(f"training {config}", need, device, f"lower {helps}plan.batch_size ({batch} now), or plan.memory_gb and "
                                                 "let the planner choose")


def check_prediction(model: Model, shape: Sequence[int], kept: int, device: torch.device, precision: str,
                     at_once: int = 1, single: int = 0) -> None:
    """Raise OctkitError where predicting a scan of this shape (*spatial) would need more memory than is free.

    `at_once` is that of `window_bytes`, `precision` is the networks'. `kept` sets of its probabilities are kept beside
    each other in the computer's memory, and `single` of one configuration where it is predicted.
    """
    one, cpu = probability_bytes(model, shape), torch.device("cpu")
    unfolds = device == cpu and precision == "float32"
    needs = {device: window_bytes(model, at_once, unfolds) + (AT_WORK + single) * one}
    needs[cpu] = needs.get(cpu, 0) + (kept + AT_WORK * (device != cpu)) * one
    for where, need in needs.items():
        _compare(f"predicting a scan of {' x '.join(map(str, shape))}", need, where,
                 "average fewer predictions (infer.mirror=false, or fewer folds), or cut the scan into parts")


def _compare(what: str, need: float, device: torch.device, helps: str) -> None:
    if need > (free := free_bytes(device)):
        memory = "memory" if device.type == "cpu" else "the GPU's memory"
        raise OctkitError(f"{what} needs about {need / GB:.1f} GB of {memory}, found {free / GB:.1f} GB free; {helps}")
