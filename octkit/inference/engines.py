"""What runs a trained 2-D network on a CPU: torch, or ncnn, which on some processors needs half of the time.

Nearly all of the work is convolutions of 3 x 3 with a step of 1. ncnn computes them by Winograd's minimal filtering:
a tile of 4 x 4 results takes 36 multiplications a pair of maps instead of 144, at the price of a few more roundings
(largest difference of a score about 3e-4 of the scores' spread; benchmarks/README.md says what that does to masks). It
keeps eight maps side by side in memory from the first layer to the last, as the processor's registers want them.
Source: Lavin and Gray, CVPR 2016, arXiv 1509.09308.

ncnn takes a network as a list of layers in text and its weights one behind the other in bytes. Both are made here
from the U-Net's own weights, by their own names; the bytes pass through a temporary file.
"""

import tempfile
from dataclasses import replace
from itertools import pairwise
from math import inf, prod
from time import perf_counter

import numpy as np
import torch

from octkit.common.errors import OctkitError
from octkit.network.unet import UNet
from octkit.planning.plan import Configuration

ENGINES = ("torch", "ncnn")
# Values of the finest stage's maps in a window from which on it is worth while to time both. The model in the box has 3
# million and takes as long in either (benchmarks/README.md); the network planned for GOALS has 33 million.
LONG_AT_WORK = 8_000_000
PIECE_STAGES, TIMED = 4, 3
WORTH_IT = 0.85  # of torch's time: ncnn takes 0.4 s to load a wide network's weights
# Layers with fewer px gain nothing from transformed weights, which are four times as large.
FEW_PX = 512
LONGEST_TILE = 64  # px along each axis
STRIP_PX = 150_000  # from twice as many px on, layers are convolved strip by strip
WITHOUT_WINOGRAD = 64  # bit of a layer's parameter 31
# Off: half precision, and tiles of 6 x 6, whose rounding errors are four times as large and which save no time.
OFF = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage", "use_bf16_packed",
       "use_vulkan_compute", "use_winograd63_convolution")


def choose_engine(wanted: str, configuration: Configuration, inputs: int, classes: int, device: torch.device,
                  precision: str, as_trained: bool) -> str:
    """What is to compute a network of so many `inputs` and `classes`; `as_trained`: torch takes training's functions.

    "auto" takes torch, but for 2-D networks in float32 on a CPU of which a window is long at work: there a piece of the
    network is timed in both. Raises OctkitError where ncnn is asked for in vain.
    """
    axes = len(configuration.patch_size)
    able = axes == 2 and device.type == "cpu" and precision == "float32"
    if wanted not in ("auto", *ENGINES):
        raise OctkitError(f"engine: found {wanted!r}, expected auto or one of {', '.join(ENGINES)}")
    if wanted == "ncnn" and not able:
        raise OctkitError(f"engine: ncnn was asked for, but the network has {axes} axes and runs in {precision} on "
                          f"{device.type}, expected 2 axes and float32 on the CPU; set engine=auto or engine=torch")
    if wanted != "auto":
        return wanted
    if not able or prod(configuration.patch_size) * configuration.features[0] < LONG_AT_WORK:
        return "torch"
    seconds = time_engines(piece_of(configuration), inputs, classes, as_trained)
    chosen = "ncnn" if seconds["ncnn"] < WORTH_IT * seconds["torch"] else "torch"
    print(f"engine: a piece of the network took ncnn {seconds['ncnn']:.3f} s and torch {seconds['torch']:.3f} s, so "
          f"{chosen} predicts")
    return chosen


def piece_of(configuration: Configuration) -> Configuration:
    """The finest stages on a sixteenth of a window: a few hundredths of the work, of the kind that is most of it."""
    stages = min(PIECE_STAGES, len(configuration.features))
    parts = {name: getattr(configuration, name)[:stages] for name in ("features", "strides", "kernels")}
    steps = [prod(stride[axis] for stride in parts["strides"]) for axis in range(2)]
    patch = tuple(-(-size // (4 * step)) * step for size, step in zip(configuration.patch_size, steps, strict=True))
    return replace(configuration, patch_size=patch, **parts)


@torch.inference_mode()
def time_engines(configuration: Configuration, inputs: int, classes: int, as_trained: bool = False) -> dict[str, float]:
    """Seconds of one window of a 2-D network of random weights in float32, by engine: the best of a few, in turn."""
    network = UNet(inputs, classes, configuration.features, configuration.strides, configuration.kernels, False)
    network.train(as_trained)
    layout = torch.contiguous_format if as_trained else torch.channels_last
    calls = {"ncnn": NcnnNetwork(configuration, network.state_dict()), "torch": network.to(memory_format=layout)}
    images = torch.zeros(1, inputs, *configuration.patch_size).contiguous(memory_format=layout)
    seconds = dict.fromkeys(calls, inf)
    for _ in range(1 + TIMED):  # the first time memory is asked for, and is never the best
        for name, call in calls.items():
            started = perf_counter()
            call(images)
            seconds[name] = min(seconds[name], perf_counter() - started)
    return seconds


class NcnnNetwork:
    """A U-Net in ncnn, called as the torch one: images (1, inputs, H, W) float32 -> scores (1, classes, H, W).

    Args:
        configuration: strides, kernels and features of the network; 2-D.
        state: its weights by `unet.UNet`'s names.
    """

    def __init__(self, configuration: Configuration, state: dict[str, torch.Tensor]):
        import ncnn  # a library of 26 MB that nothing but prediction needs

        text, weights = described(configuration, state)
        self.library, self.net = ncnn, ncnn.Net()
        self.blobs = [name for line in text.splitlines()[3:] if "/" not in (name := line.split()[1])]
        # Freed maps are kept for the next ones within a layer, and handed back after it (`__call__`): other layers'
        # have other sizes, and a GB less is taken. `memory.keep_freed_memory` makes that cheap.
        self.pools = [ncnn.PoolAllocator(), ncnn.PoolAllocator()]
        self.net.opt.blob_allocator, self.net.opt.workspace_allocator = self.pools
        self.net.opt.num_threads = torch.get_num_threads()
        for name in OFF:
            setattr(self.net.opt, name, False)
        if self.net.load_param_mem(text) != 0:
            raise RuntimeError("ncnn does not understand the network's description")
        # By way of a file: weights that ncnn is given in memory it keeps there, beside those that it has transformed.
        with tempfile.NamedTemporaryFile(prefix="octkit-", suffix=".bin") as file:
            for name in weights:
                file.write(_weights(state, name))
            file.flush()
            if self.net.load_model(file.name) != 0:
                raise RuntimeError("ncnn does not read the network's weights as they were written")

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        image = np.ascontiguousarray(images[0].numpy())
        extractor = self.net.create_extractor()
        extractor.input("image", self.library.Mat(image))
        for blob in self.blobs:
            if extractor.extract(blob, 1)[0] != 0:  # 1: maps stay as they lie
                raise MemoryError(f"ncnn could not compute {blob} of an image of {tuple(images.shape)}")
            for pool in self.pools:
                pool.clear()
        scores = np.array(extractor.extract("scores")[1])  # a copy, as the memory is ncnn's
        return torch.from_numpy(scores[None])


def described(configuration: Configuration, state: dict[str, torch.Tensor]) -> tuple[str, list[str]]:
    """A U-Net in ncnn's words: one line a layer; and the names of its weights in the order in which they are read.

    A line is: kind, name, number of inputs and outputs, their names (a layer's output is called as the layer),
    parameters by number: 0 maps, 1 and 11 kernel along x and y, 3 and 13 stride, 4 padding along x, 14 and 16 above and
    below, 5 with bias, 6 number of weights.
    """
    lines, names = [], []

    def layer(kind: str, name: str, inputs: list[str], parameters: str, outputs: list[str] | None = None) -> str:
        outputs = outputs or [name]
        lines.append(" ".join([kind, name, str(len(inputs)), str(len(outputs)), *inputs, *outputs, parameters]).strip())
        return outputs[0]

    def convolution(kind: str, name: str, source: str, kernel, stride, weights: str, size, padding=None) -> str:
        weight = state[f"{weights}.weight"]
        maps = weight.shape[1 if kind == "Deconvolution" else 0]
        sides, above, below = padding or (kernel[1] // 2, kernel[0] // 2, kernel[0] // 2)
        names.extend([f"{weights}.weight", f"{weights}.bias"])
        plain = f" 31={WITHOUT_WINOGRAD}" if prod(size) < FEW_PX else ""
        return layer(kind, name, [source], f"0={maps} 1={kernel[1]} 11={kernel[0]} 3={stride[1]} 13={stride[0]} "
                     f"4={sides} 14={above} 16={below} 5=1 6={weight.numel()}{plain}")

    def in_strips(name: str, source: str, kernel, weights: str, size) -> str:
        # Winograd's tiles take 2.25 times the memory of the maps they come from, for as long as a layer is at work.
        count = -(-prod(size) // STRIP_PX)
        edges = [size[0] * i // count for i in range(count + 1)]
        inputs, reach, strips = state[f"{weights}.weight"].shape[1], kernel[0] // 2, []
        layer("Split", f"{name}/split", [source], "", [f"{name}/{i}/source" for i in range(count)])
        for i, (first, last) in enumerate(pairwise(edges)):
            top, bottom = max(first - reach, 0), min(last + reach, size[0])
            strip = layer("Crop", f"{name}/{i}/crop", [f"{name}/{i}/source"],
                          f"0=0 1={top} 2=0 3={size[1]} 4={bottom - top} 5={inputs}")
            strips.append(convolution("Convolution", f"{name}/{i}", strip, kernel, (1, 1), weights, size,
                                      (kernel[1] // 2, top - first + reach, last + reach - bottom)))
        return layer("Concat", name, strips, "0=1")

    def centred(name: str, size) -> str:
        # ncnn adds up a map's values one after the other in float32, and so misses the mean of a nearly constant map
        # (a window without retina) by more than its deviation: probabilities were 0.14 off. Means of tiles are exact.
        rows, columns = (max(n for n in range(1, LONGEST_TILE + 1) if length % n == 0) for length in size)
        layer("Split", f"{name}/copies", [name], "", [f"{name}/map", f"{name}/averaged"])
        layer("Pooling", f"{name}/tiles", [f"{name}/averaged"],
              f"0=1 1={columns} 11={rows} 2={columns} 12={rows}")
        layer("Pooling", f"{name}/mean", [f"{name}/tiles"], "0=1 4=1")
        return layer("BinaryOp", f"{name}/centred", [f"{name}/map", f"{name}/mean"], "0=1")

    def block(prefix: str, source: str, kernel, stride, size) -> str:
        for number, step in ((0, stride), (3, (1, 1))):
            name = f"{prefix}.layers.{number}"
            norm = f"{prefix}.layers.{number + 1}"
            if prod(size) >= 2 * STRIP_PX and step == (1, 1) and source != "image":
                in_strips(name, source, kernel, name, size)
            else:
                convolution("Convolution", name, source, kernel, step, name, size)
            names.extend([f"{norm}.weight", f"{norm}.bias"])
            layer("InstanceNorm", norm, [centred(name, size)], f"0={len(state[f'{norm}.weight'])} 1=1e-5 2=1")
            source = layer("ReLU", f"{prefix}.layers.{number + 2}", [norm], "0=0.01")
        return source

    source, skips, sizes = layer("Input", "image", [], ""), [], []
    for i, (kernel, stride) in enumerate(zip(configuration.kernels, configuration.strides, strict=True)):
        before = sizes[-1] if sizes else configuration.patch_size
        sizes.append(tuple(n // step for n, step in zip(before, stride, strict=True)))
        source = block(f"encoder.{i}", source, kernel, stride, sizes[i])
        if i < len(configuration.features) - 1:
            source = layer("Split", f"skip.{i}", [source], "", [f"down.{i}", f"skip.{i}"])
            skips.append(f"skip.{i}")
    for i in reversed(range(len(skips))):
        stride = configuration.strides[i + 1]
        up = convolution("Deconvolution", f"up.{i}", source, stride, stride, f"up.{i}", sizes[i], (0, 0, 0))
        both = layer("Concat", f"both.{i}", [up, skips[i]], "0=0")
        source = block(f"decoder.{i}", both, configuration.kernels[i], (1, 1), sizes[i])
    convolution("Convolution", "scores", source, (1, 1), (1, 1), "scores.0", sizes[0])
    outputs = sum(int(line.split()[3]) for line in lines)
    return "\n".join(["7767517", f"{len(lines)} {outputs}", *lines]) + "\n", names


def _weights(state: dict[str, torch.Tensor], name: str) -> bytes:
    """A tensor as ncnn reads it: float32, a convolution's kernel behind four zero bytes that say so."""
    tensor = state[name].detach().cpu()
    kernel = tensor.ndim == 4
    if kernel and name.startswith("up."):
        tensor = tensor.transpose(0, 1)  # ncnn wants the outputs first in transposed convolutions as well
    return bytes(4) * kernel + tensor.contiguous().numpy().tobytes()
