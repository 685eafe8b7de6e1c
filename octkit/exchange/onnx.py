"""A trained model as an ONNX file, for programs that know nothing of octkit.

    input   image          (batch, inputs, *window) float32: preprocessed scans
    output  probabilities  (batch, classes, *window) float32: background first, then the labels; they sum to 1

The file holds the network on one window, folds averaged. What is around it is the user's to do: crop to what is not
black, clip and z-score each channel, resample to the spacing, put windows on the scan and average them. All numbers
for that stand in the file's metadata, each as JSON: labels, window, spacing, units, axis_order, normalisation,
intensity, step, mirror_axes; `preprocessing` says it in words.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import NodeProto, TensorProto, checker, helper, numpy_helper

from octkit import __version__
from octkit.common.errors import OctkitError
from octkit.common.files import write_atomic
from octkit.network.model import Model
from octkit.network.model_check import steps_of
from octkit.planning.plan import Configuration
from octkit.planning.rules import Ints

OPSET, IR_VERSION = 17, 8  # of 2022: what any runtime of the last years reads
# How a channel becomes the network's grey values, by the scheme's name in `normalisation`.
NORMALISATIONS = {
    "ct": "clip to intensity's percentile_00_5 and percentile_99_5, subtract its mean, divide by its std",
    "zscore": "subtract the scan's own mean, divide by its deviation",
    "zscore_in_mask": "the same over the pixels that are not black, which alone are changed",
    "rescale_0_1": "bring the scan's own range to 0 to 1", "rgb_0_1": "divide by 255", "none": "leave as it is",
}


def export_onnx(model: Model, path: str | Path) -> None:
    """Write a model's network as one ONNX file, whole or not at all.

    Raises OctkitError for a model of several configurations: each wants other windows, which no single graph has.
    """
    configs = [step.config for member in model.members for step in steps_of(member)]
    if len(configs) > 1:
        raise OctkitError(f"{path}: found a model of {' and '.join(configs)}, expected one configuration alone in an "
                          "ONNX file")
    [member] = model.members
    configuration = model.plan.configurations[member.config]
    graph = _Graph()
    outputs = [graph.network(f"fold_{fold}", configuration, state) for fold, state in member.weights.items()]
    if model.blend == "logits":
        graph.add("Softmax", [graph.add("Mean", outputs)], "probabilities", axis=1)
    else:
        graph.add("Mean", [graph.add("Softmax", [logits], axis=1) for logits in outputs], "probabilities")
    channels = {"image": len(model.plan.channels), "probabilities": len(model.labels) + 1}
    image, probabilities = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", count, *configuration.patch_size])
        for name, count in channels.items())
    whole = helper.make_model(
        helper.make_graph(graph.nodes, "octkit", [image], [probabilities], graph.weights, doc_string=__doc__),
        opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="octkit",
        producer_version=__version__)
    helper.set_model_props(whole, metadata(model, configuration))
    checker.check_model(whole)
    write_atomic(Path(path), whole.SerializeToString(deterministic=True))


def metadata(model: Model, configuration: Configuration) -> dict[str, str]:
    """What a user needs to bring scans to the network, name -> JSON."""
    plan = model.plan
    words = ["crop the scan to the box of pixels above 0"]
    if plan.axis_order:
        words.append("put its axes in axis_order")
    words += [f"channel {channel}: {NORMALISATIONS[scheme]}"
              for channel, scheme in zip(plan.channels, plan.schemes, strict=True)]
    words += ["resample to spacing, in mm" if plan.units == "mm" else "keep its own grid", "pad to window with 0 where "
              "it is smaller; windows at most step x window apart, averaged with Gaussian weights"]
    if model.circle:
        words.append("scans are full circles: continue them beyond both ends before windows are put on them")
    facts = {"labels": ["background", *model.labels], "window": configuration.patch_size,
             "spacing": configuration.spacing, "units": plan.units, "axis_order": plan.axis_order,
             "normalisation": plan.schemes, "intensity": plan.intensity, "step": model.step,
             "mirror_axes": model.mirror_axes, "preprocessing": "; ".join(words)}
    return {name: json.dumps(value) for name, value in facts.items()}


class _Graph:
    """Nodes and weights of a graph that grows from the image towards the logits.

    They are made by hand. torch 2.13's exporter needs two more packages (onnxscript, onnx_ir), took some 20 s for three
    stages on one thread, and writes opset 20 with several nodes for each norm. The exporter before it is deprecated and
    cannot write the group norm of `unet.InstanceNorm`.
    """

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []

    def add(self, kind: str, inputs: list[str], name: str | None = None, **attributes: Any) -> str:
        name = name or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def network(self, fold: str, configuration: Configuration, state: dict[str, torch.Tensor]) -> str:
        """A fold's U-Net; returns the name of its logits."""

        ones = (1,) * len(configuration.kernels[0])

        def weighted(kind: str, source: str, weights: str, **attributes: Any) -> str:
            names = [name for part in ("weight", "bias") if (name := f"{weights}.{part}") in state]
            self.weights += [numpy_helper.from_array(np.ascontiguousarray(state[name]), f"{fold}.{name}")
                             for name in names]
            return self.add(kind, [source, *(f"{fold}.{name}" for name in names)], **attributes)

        def normed(layers: str, number: int, source: str, kernel: Ints, stride: Ints) -> str:
            padding = [size // 2 for size in kernel]
            source = weighted("Conv", source, f"{layers}.{number}", kernel_shape=kernel, strides=stride,
                              pads=padding + padding)
            return weighted("InstanceNormalization", source, f"{layers}.{number + 1}", epsilon=1e-5)

        def activated(source: str) -> str:
            return self.add("LeakyRelu", [source], alpha=0.01)

        def block(prefix: str, source: str, kernel: Ints, stride: Ints, count: int = 2) -> str:
            for number in range(count):
                source = activated(normed(f"{prefix}.layers", 3 * number, source, kernel, ones if number else stride))
            return source

        def residual(prefix: str, source: str, kernel: Ints, stride: Ints) -> str:
            found = normed(f"{prefix}.layers", 3, block(prefix, source, kernel, stride, 1), kernel, ones)
            if max(stride) > 1:
                source = self.add("AveragePool", [source], kernel_shape=stride, strides=stride)
            if f"{prefix}.skip.1.weight" in state:
                source = normed(f"{prefix}.skip", 1, source, ones, ones)
            return activated(self.add("Add", [found, source]))

        source, skips, blocks = "image", [], configuration.blocks
        if blocks:
            source = block("stem", source, configuration.kernels[0], ones, 1)
        for i, (kernel, stride) in enumerate(zip(configuration.kernels, configuration.strides, strict=True)):
            if not blocks:
                source = block(f"encoder.{i}", source, kernel, stride)
            for number in range(blocks[i] if blocks else 0):
                source = residual(f"encoder.{i}.{number}", source, kernel, ones if number else stride)
            skips.append(source)
        for i in reversed(range(len(skips) - 1)):
            stride = configuration.strides[i + 1]
            up = weighted("ConvTranspose", source, f"up.{i}", kernel_shape=stride, strides=stride)
            both = self.add("Concat", [up, skips[i]], axis=1)
            source = block(f"decoder.{i}", both, configuration.kernels[i], ones, 1 if blocks else 2)
        return weighted("Conv", source, "scores.0", kernel_shape=ones)
