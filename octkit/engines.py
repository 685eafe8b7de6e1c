"""What runs a trained 2-D network on a CPU: torch, or ncnn, which needs half of the time where a network is wide.

Nearly all of the work is convolutions of 3 x 3 with a step of 1. ncnn computes them by Winograd's minimal filtering:
a tile of 4 x 4 results takes 36 multiplications a pair of maps instead of 144, at the price of a few more roundings
(largest difference of a score about 3e-4 of the scores' spread; benchmarks/README.md says what that does to masks). It
keeps eight maps side by side in memory from the first layer to the last, as the processor's registers want them.
Source: Lavin and Gray, CVPR 2016, arXiv 1509.09308.

ncnn takes a network as a list of layers in text and its weights one behind the other in bytes. Both are made here
from the U-Net's own weights, by their own names; nothing is written to disk.
"""

import tempfile

import numpy as np
import torch

from octkit.files import OctkitError
from octkit.plans import Configuration

ENGINES = ("torch", "ncnn")
WIDE = 32  # maps: the model in the box, of 16, takes as long in either (benchmarks/README.md)
# Layers with fewer px gain nothing from transformed weights, which are four times as large.
FEW_PX = 512
ALL = slice(None)
WITHOUT_WINOGRAD = 64  # bit of a layer's parameter 31
# Off: half precision, and tiles of 6 x 6, whose rounding errors are four times as large and which save no time.
OFF = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage", "use_bf16_packed",
       "use_vulkan_compute", "use_winograd63_convolution")


def choose_engine(wanted: str, axes: int, maps: int, device: torch.device, precision: str) -> str:
    """"auto" takes ncnn for 2-D networks of `maps` >= 32 at full resolution in float32 on a CPU, where it was measured
    to win, and torch for all others.

    Raises OctkitError where ncnn is asked for in vain.
    """
    able = axes == 2 and device.type == "cpu" and precision == "float32"
    if wanted not in ("auto", *ENGINES):
        raise OctkitError(f"engine: found {wanted!r}, expected auto or one of {', '.join(ENGINES)}")
    if wanted == "ncnn" and not able:
        raise OctkitError(f"engine: ncnn was asked for, but the network has {axes} axes and runs in {precision} on "
                          f"{device.type}, expected 2 axes and float32 on the CPU; set engine=auto or engine=torch")
    if wanted == "auto":
        return "ncnn" if able and maps >= WIDE else "torch"
    return wanted


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
        self.blobs = [line.split()[1] for line in text.splitlines()[3:]]
        # Freed maps are kept for the next ones; handed back after each layer (`__call__`), 2.1 GB instead of 3.4.
        self.pools = [ncnn.PoolAllocator(), ncnn.PoolAllocator()]
        self.net.opt.blob_allocator, self.net.opt.workspace_allocator = self.pools
        self.net.opt.num_threads = torch.get_num_threads()
        for name in OFF:
            setattr(self.net.opt, name, False)
        if self.net.load_param_mem(text) != 0:
            raise RuntimeError("ncnn does not understand the network's description")
        # By way of a file: weights that ncnn is given in memory it keeps there, beside those that it has transformed.
        with tempfile.NamedTemporaryFile(prefix="octkit-", suffix=".bin") as file:
            for name, inputs in weights:
                file.write(_weights(state, name, inputs))
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


def described(configuration: Configuration, state: dict[str, torch.Tensor]) -> tuple[str, list[tuple[str, slice]]]:
    """A U-Net in ncnn's words: one line a layer; and its weights in the order in which they are read, each with the
    input maps that it is read for.

    A line is: kind, name, number of inputs and outputs, their names (a layer's output is called as the layer),
    parameters by number: 0 maps, 1 and 11 kernel along x and y, 3 and 13 stride, 4 and 14 padding, 5 with bias,
    6 number of weights.
    """
    lines, names = [], []
    rows, columns = configuration.patch_size

    def layer(kind: str, name: str, inputs: list[str], parameters: str, outputs: list[str] | None = None) -> str:
        outputs = outputs or [name]
        lines.append(" ".join([kind, name, str(len(inputs)), str(len(outputs)), *inputs, *outputs, parameters]).strip())
        return outputs[0]

    def convolution(kind: str, name: str, source: str, kernel, stride, weights: str, px: float, inputs: slice = ALL,
                    bias: bool = True) -> str:
        weight = _of_inputs(state[f"{weights}.weight"], inputs)
        maps = weight.shape[1 if kind == "Deconvolution" else 0]
        padding = (0, 0) if kind == "Deconvolution" else tuple(k // 2 for k in kernel)
        names.extend([(f"{weights}.weight", inputs), (f"{weights}.bias", ALL)][:1 + bias])
        plain = f" 31={WITHOUT_WINOGRAD}" if px < FEW_PX else ""
        return layer(kind, name, [source], f"0={maps} 1={kernel[1]} 11={kernel[0]} 3={stride[1]} 13={stride[0]} "
                     f"4={padding[1]} 14={padding[0]} 5={int(bias)} 6={weight.numel()}{plain}")

    def normalised(prefix: str, number: int, source: str) -> str:
        norm = f"{prefix}.layers.{number + 1}"
        names.extend([(f"{norm}.weight", ALL), (f"{norm}.bias", ALL)])
        layer("InstanceNorm", norm, [source], f"0={len(state[f'{norm}.weight'])} 1=1e-5 2=1")
        return layer("ReLU", f"{prefix}.layers.{number + 2}", [norm], "0=0.01")

    def block(prefix: str, source: str, kernel, stride, px: float) -> str:
        for number, step in ((0, stride), (3, (1, 1))):
            name = f"{prefix}.layers.{number}"
            source = normalised(prefix, number, convolution("Convolution", name, source, kernel, step, name, px))
        return source

    def finest_block(prefix: str, up: str, skip: str, kernel, px: float) -> str:
        # Its first convolution is the sum of two, over either half of the maps: so the largest array, of both, is
        # never made, which saves 0.4 GB for GOALS.
        name, half = f"{prefix}.layers.0", configuration.features[0]
        first = convolution("Convolution", f"{name}.up", up, kernel, (1, 1), name, px, slice(0, half))
        second = convolution("Convolution", f"{name}.skip", skip, kernel, (1, 1), name, px, slice(half, None), False)
        source = normalised(prefix, 0, layer("BinaryOp", name, [first, second], "0=0"))
        name = f"{prefix}.layers.3"
        return normalised(prefix, 3, convolution("Convolution", name, source, kernel, (1, 1), name, px))

    source, skips, px = layer("Input", "image", [], ""), [], [rows * columns]
    for i, (kernel, stride) in enumerate(zip(configuration.kernels, configuration.strides, strict=True)):
        px.append(px[-1] // (stride[0] * stride[1]))
        source = block(f"encoder.{i}", source, kernel, stride, px[-1])
        if i < len(configuration.features) - 1:
            source = layer("Split", f"skip.{i}", [source], "", [f"down.{i}", f"skip.{i}"])
            skips.append(f"skip.{i}")
    for i in reversed(range(len(skips))):
        stride, kernel = configuration.strides[i + 1], configuration.kernels[i]
        up = convolution("Deconvolution", f"up.{i}", source, stride, stride, f"up.{i}", px[i + 1])
        if i == 0:
            source = finest_block("decoder.0", up, skips[0], kernel, px[1])
        else:
            both = layer("Concat", f"both.{i}", [up, skips[i]], "0=0")
            source = block(f"decoder.{i}", both, kernel, (1, 1), px[i + 1])
    convolution("Convolution", "scores", source, (1, 1), (1, 1), "scores.0", px[1])
    outputs = sum(int(line.split()[3]) for line in lines)
    return "\n".join(["7767517", f"{len(lines)} {outputs}", *lines]) + "\n", names


def _of_inputs(weight: torch.Tensor, inputs: slice) -> torch.Tensor:
    """The part of a tensor that belongs to these input maps, the second axis of a convolution's kernel."""
    return weight if inputs == ALL else weight[:, inputs]


def _weights(state: dict[str, torch.Tensor], name: str, inputs: slice) -> bytes:
    """A tensor as ncnn reads it: float32, a convolution's kernel behind four zero bytes that say so."""
    tensor = _of_inputs(state[name].detach().cpu(), inputs)
    kernel = tensor.ndim == 4
    if kernel and name.startswith("up."):
        tensor = tensor.transpose(0, 1)  # ncnn wants the outputs first in transposed convolutions as well
    return bytes(4) * kernel + tensor.contiguous().numpy().tobytes()
