"""The U-Net of the recipe: every stage is two times conv -> instance norm -> leaky ReLU; or with a residual encoder.

    image --[s0]-----------------------------skip-----------------> [d0]-> logits at full resolution
             \\--[s1]----------------skip------------------> [d1]/  \\-> logits at 1/2 (deep supervision)
                  \\--[s2]-----skip------> [d2]------------/  \\-> logits at 1/4
                       \\--[bottleneck]---/

Down by strided convolution (the first of a stage), up by transposed convolution. Dimension (2 or 3)
follows from the kernels. Source: report, section on the network; Isensee et al., Nat. Methods 18:203, 2021.
With residual blocks one convolution comes before [s0], and each stage on the way up has but one (nnU-Net's ResEnc
networks: Isensee et al., MICCAI 2024, "nnU-Net Revisited").
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from octkit.planning.rules import Ints, divisors

CONV: dict[int, Callable[..., nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, Callable[..., nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
CONVOLVE: dict[int, Callable[..., torch.Tensor]] = {2: nn.functional.conv2d, 3: nn.functional.conv3d}
AVERAGED: dict[int, Callable[..., nn.Module]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
SPARSE = 4  # every so many pixels are looked at where a rough mean will do
EPSILON = 1e-5  # of the norm: added to a map's variance


class InstanceNorm(nn.Module):
    """Each map of each image brought to mean 0 and variance 1, then to a weight and a bias that are learned.

    Group norm with one map a group computes the same. It is faster on maps that lie channels last, but its gradient is
    slow, so it is for `eval` alone (benchmarks/README.md).
    """

    def __init__(self, maps: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(maps))
        self.bias = nn.Parameter(torch.zeros(maps))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            return nn.functional.instance_norm(x, weight=self.weight, bias=self.bias, eps=EPSILON)
        return nn.functional.group_norm(x, x.shape[1], self.weight, self.bias, EPSILON)


class Block(nn.Module):
    """conv -> instance norm -> leaky ReLU, `count` times; the first convolution may stride."""

    def __init__(self, inputs: int, outputs: int, kernel: Ints, stride: Ints, count: int = 2):
        super().__init__()
        convolution, padding = CONV[len(kernel)], tuple(k // 2 for k in kernel)
        self.layers = nn.Sequential(*(layer for i in range(count) for layer in (
            convolution(outputs if i else inputs, outputs, kernel, 1 if i else stride, padding), InstanceNorm(outputs),
            nn.LeakyReLU(0.01, True))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _computed(self.layers, x)


class ResidualBlock(nn.Module):
    """What two convolutions make of the input is added to the input, before the second leaky ReLU.

    Where the block strides, the input is averaged first; where it has other maps than the output, a convolution of
    1 px and a norm bring it to these. The last norm begins with weights of 0: an untrained block adds nothing.
    Source: He et al., CVPR 2016 and, for the way beside ("ResNet-D"), CVPR 2019.
    """

    def __init__(self, inputs: int, outputs: int, kernel: Ints, stride: Ints):
        super().__init__()
        self.layers = nn.Sequential(*list(Block(inputs, outputs, kernel, stride).layers)[:-1])
        nn.init.zeros_(self.layers[-1].get_parameter("weight"))
        self.skip = nn.Sequential(AVERAGED[len(kernel)](stride) if max(stride) > 1 else nn.Identity())
        if inputs != outputs:
            self.skip.extend([CONV[len(kernel)](inputs, outputs, 1, bias=False), InstanceNorm(outputs)])
        self.activation = nn.LeakyReLU(0.01, True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(_computed(self.layers, x) + _computed(self.skip, x))


def _computed(layers: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    if layers.training:
        return layers(x)
    for layer in layers:
        x = _centred(layer, x) if isinstance(layer, nn.Conv2d | nn.Conv3d) else layer(x)
    return x


def _centred(convolution: Any, x: torch.Tensor) -> torch.Tensor:
    """The convolution (Conv2d or Conv3d) with another bias: one with which the maps' means are near 0.

    The norm that follows removes any constant, and is more exact where the means are near 0: in a window without retina
    a map's deviation can be a thousandth of its mean. Every fourth pixel along each axis is enough for that.
    """
    axes = tuple(range(2, x.ndim))
    some = x[:, :, *(slice(None, None, SPARSE),) * len(axes)]
    means = some.mean((0, *axes), dtype=convolution.weight.dtype)  # that is float32 where x is bfloat16
    bias = -(convolution.weight.sum(axes) @ means)
    return CONVOLVE[len(axes)](x, convolution.weight, bias, convolution.stride, convolution.padding)


class UNet(nn.Module):
    """U-Net with an auxiliary output on every decoder stage.

    Args:
        inputs: channels of the image.
        classes: outputs, background included.
        features: feature maps of each stage, full resolution first.
        strides: of each stage's first convolution; the first stage's is all ones.
        kernels: of each stage.
        blocks: residual blocks of each stage on the way down; none make the plain network.

    Shape:
        in (batch, inputs, *spatial), spatial divisible by the product of the strides.
        out: logits (batch, classes, *spatial); with `deep_supervision` the list of logits of all decoder
        stages, full resolution first. Their layers are called `scores` for the sake of model files.
    """

    def __init__(self, inputs: int, classes: int, features: Ints, strides: Sequence[Ints], kernels: Sequence[Ints],
                 blocks: Ints = (), deep_supervision: bool = True):
        super().__init__()
        if not len(features) == len(strides) == len(kernels) == len(blocks or features) >= 2:
            raise ValueError(f"features, strides, kernels (and blocks) must be of one length of at least 2, got "
                             f"{len(features)}, {len(strides)} and {len(kernels)} (and {len(blocks)})")
        dimension = len(kernels[0])
        self.deep_supervision = deep_supervision
        self.divisor = divisors(strides)
        ones = (1,) * dimension
        if blocks:
            self.stem: nn.Module = Block(inputs, features[0], kernels[0], ones, 1)
            self.encoder = nn.ModuleList(
                nn.Sequential(*(ResidualBlock(maps if i else before, maps, kernel, ones if i else stride)
                                for i in range(count)))
                for before, maps, kernel, stride, count in zip((features[0], *features), features, kernels, strides,
                                                               blocks, strict=False))
        else:
            self.stem = nn.Identity()
            self.encoder = nn.ModuleList(map(Block, (inputs, *features), features, kernels, strides))
        # Decoder stage i works at encoder stage i's resolution; ModuleLists run from the finest to the coarsest.
        levels = range(len(features) - 1)
        self.up = nn.ModuleList(
            TRANSPOSED[dimension](features[i + 1], features[i], strides[i + 1], strides[i + 1]) for i in levels)
        self.decoder = nn.ModuleList(
            Block(2 * features[i], features[i], kernels[i], ones, 1 if blocks else 2) for i in levels)
        self.scores = nn.ModuleList(CONV[dimension](features[i], classes, 1) for i in levels)
        self.apply(_initialise)

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        if any(size % divisor for size, divisor in zip(x.shape[2:], self.divisor, strict=True)):
            wanted = tuple(-(-size // d) * d for size, d in zip(x.shape[2:], self.divisor, strict=True))
            raise ValueError(f"input of {tuple(x.shape[2:])} px is not divisible by {self.divisor}, pad it to {wanted}")
        x, skips = self.stem(x), []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        outputs = []
        for i in reversed(range(len(self.decoder))):
            x = self.decoder[i](torch.cat([self.up[i](x), skips[i]], dim=1))
            if i == 0 or self.deep_supervision:
                outputs.append(self.scores[i](x))
        return outputs[::-1] if self.deep_supervision else outputs[0]


def weight_shapes(inputs: int, classes: int, features: Ints, strides: Sequence[Ints], kernels: Sequence[Ints],
                  blocks: Ints = ()) -> dict[str, Ints]:
    """Names and shapes of a UNet's weights, in the order of its `state_dict`; arguments as there.

    Making the network to look at it, even without memory, takes two seconds of imports inside torch.
    """
    shapes: dict[str, Ints] = {}

    def convolution(name: str, first: int, second: int, kernel: Ints, bias: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (first, second, *kernel), (bias,)

    def norm(name: str, maps: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (maps,)

    def block(name: str, found: int, maps: int, kernel: Ints, count: int = 2) -> None:
        for number, channels in enumerate((found, maps)[:count]):
            convolution(f"{name}.layers.{3 * number}", maps, channels, kernel, maps)
            norm(f"{name}.layers.{3 * number + 1}", maps)

    before = inputs
    if blocks:
        before = features[0]
        block("stem", inputs, before, kernels[0], 1)
    for i, maps in enumerate(features):
        for name in [f"encoder.{i}.{number}" for number in range(blocks[i])] if blocks else [f"encoder.{i}"]:
            block(name, before, maps, kernels[i])
            if blocks and before != maps:
                shapes[f"{name}.skip.1.weight"] = (maps, before, *(1,) * len(kernels[0]))
                norm(f"{name}.skip.2", maps)
            before = maps
    levels = range(len(features) - 1)
    for i in levels:
        convolution(f"up.{i}", features[i + 1], features[i], strides[i + 1], features[i])
    for i in levels:
        block(f"decoder.{i}", 2 * features[i], features[i], kernels[i], 1 if blocks else 2)
    for i in levels:
        convolution(f"scores.{i}", classes, features[i], (1,) * len(kernels[0]), classes)
    return shapes


def _initialise(module: nn.Module) -> None:
    # He et al. 2015 for leaky ReLU of slope 0.01, as instance norm expects no particular scale but Adam does.
    if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
