"""Predict: sliding window with Gaussian weights, optional mirrored copies, folds and configurations averaged.

    scan 10 wide, window 6, half-overlapping: windows start at 0, 2, 4 (the step of 3 shrunk to fit evenly)
    [------]
      [------]
        [------]

A circle scan has no edges along its A-scans: before it is predicted it is continued round the circle on both sides.
Volumes work the same way with one axis more; the 2-D configuration goes through a volume slice by slice. A cascade's
first step predicts the scan, and its second step gets the result beside the scan. The Gaussian gives a window's centre
more weight than its border, where the network sees less of the surroundings (report, section on inference).

A model that averages logits (`blend` is "logits") comes from nnU-Net v2 and does as nnU-Net does, so that its results
come back digit for digit: windows are summed in half precision, fold by fold. Few digits are left towards a window's
corners, where the Gaussian is small. Models trained here average probabilities in full precision.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from math import prod
from operator import add
from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax

from octkit.common.errors import OctkitError, by
from octkit.network import memory
from octkit.network.model import (
    PRECISIONS,
    Member,
    Model,
    as_trained,
    autocast,
    build_network,
    choose_device,
    load_weights,
    memory_format,
    working_precision,
)
from octkit.network.model_file import open_model
from octkit.planning.preprocess import Geometry, one_hot, preprocess, restore
from octkit.planning.resampling import coarse_axis, resample

# Deviation of the Gaussian in window lengths; 1/8 leaves a window's edge 0.03 % of its centre's weight.
GAUSSIAN_SIGMA = 1 / 8
HALF_SCALE = 10  # times the weights in half precision, whose smallest number is 6e-8 (nnU-Net's factor)
CERTAIN = 1000.0  # outside the crop there is nothing: a logit this far above the others' 0 is background for certain
LEAST_AROUND = 16  # A-scans that a circle is continued by, at the least
GPU_PIXELS = 2**20  # of windows and mirrored copies that a GPU gets at once: about one window of the plan for GOALS


def window_starts(length: int, window: int, step: float) -> list[int]:
    """Where windows start along an axis so that they cover it evenly and overlap by at least 1 - step.

    `step` is a share of the window: length 10, window 6, step 0.5 -> [0, 2, 4]; a length up to the window -> [0].
    """
    last = max(length - window, 0)
    gaps = int(np.ceil(last / (window * step)))
    # In nnU-Net's order: the last digit decides where a window in the middle between two pixels starts.
    return [round(last / gaps * i) for i in range(gaps + 1)] if gaps else [0]


def gaussian_weights(window: Sequence[int]) -> np.ndarray:
    """Weights of a window's pixels, (*window) float64, 1 at its middle pixel n // 2, above 0 everywhere."""
    weights = np.ones(())
    for size in window:
        distance = (np.arange(size) - size // 2) / (size * GAUSSIAN_SIGMA)
        weights = np.multiply.outer(weights, np.exp(-0.5 * distance**2))
    return weights


class Predictor:
    """A trained model ready to predict: its networks on their device.

    `Predictor.load(model)(image, spacing)` gives probabilities (classes, *spatial) float32 on the scan's own grid;
    `model` is the folder of a run, a one-file model or "default", the model in the box.
    """

    def __init__(self, model: Model, device: str = "auto", mirror: bool | None = None, precision: str | None = None):
        if precision not in (None, *PRECISIONS):
            raise OctkitError(f"precision: found {precision!r}, expected one of {', '.join(PRECISIONS)}")
        self.device = choose_device(device)
        self.precision = working_precision(precision or model.precision, self.device)
        self.mirror = model.mirror if mirror is None else mirror
        self.configs = [ConfigPredictor(model, member, self.device, self.precision, self.mirror)
                        for member in model.members]
        # The networks have the weights now; a second copy of them all would stay in memory.
        self.model = replace(model, members=tuple(replace(member, weights={}, previous=None)
                                                  for member in model.members))
        if self.device.type == "cpu":
            memory.keep_freed_memory()

    @classmethod
    def load(cls, model: str | Path, device: str = "auto", mirror: bool | None = None,
             configs: Sequence[str] | None = None, folds: Sequence[int | str] | None = None,
             precision: str | None = None) -> "Predictor":
        """Open a run's folder or a model's file.

        `mirror` None: as its settings say; `configs`, `folds`: these instead of the chosen configuration, and of all;
        `precision` "float32" or "bfloat16", None: as in training.
        """
        return cls(open_model(model, configs, folds), device, mirror, precision)

    def describe(self) -> str:
        """How and on what it computes, and the network's unit: "float32, cpu, 2 threads; network planned in px"."""
        threads = f", {torch.get_num_threads()} threads" if self.device.type == "cpu" else ""
        return f"{self.precision}, {self.device.type}{threads}; network planned in {self.model.plan.units}"

    def __call__(self, image: np.ndarray, spacing: Sequence[float] | None = None,
                 circle: bool | None = None) -> np.ndarray:
        """Probabilities of a scan (channels, *spatial), as stored and of any size: (classes, *spatial) float32.

        `spacing` is mm per axis; without it the scan is taken at its own grid. `circle` says whether its last A-scan is
        the neighbour of the first; None: as in the scans the model is for. Background comes first; it is the mean over
        the model's configurations. Raises OctkitError where the memory is too small for the scan.
        """
        return self._predict(image, spacing, circle, each=False)[0]

    def predict_each(self, image: np.ndarray, spacing: Sequence[float] | None = None,
                     circle: bool | None = None) -> tuple[np.ndarray, list[np.ndarray]]:
        """What a call returns, and the probabilities of each network and mirrored copy by itself, at the same price.

        Of a configuration that averages logits there is only their average.
        """
        mean, *single = self._predict(image, spacing, circle, each=True)
        return mean, single

    def check_memory(self, size: Sequence[int], each: bool = False) -> None:
        """Raise OctkitError where a scan of this size (*spatial) takes more memory than is free."""
        singles = [config.singles if each else 0 for config in self.configs]
        memory.check_prediction(self.model, size, len(self.configs) + sum(singles), self.device, self.precision,
                                max(config.at_once for config in self.configs), max(singles))

    def _predict(self, image: np.ndarray, spacing: Sequence[float] | None, circle: bool | None,
                 each: bool) -> list[np.ndarray]:
        circle = self.model.circle if circle is None else circle
        self.check_memory(image.shape[1:], each)
        means, single = [], []
        for config in self.configs:
            try:
                found, geometry = config.on_grid(image, spacing, circle, each)
            except torch.OutOfMemoryError:  # others may use the GPU meanwhile
                raise OctkitError(f"predicting a scan of {by(image.shape[1:])} px does not fit into the GPU's memory; "
                                  "average fewer predictions (infer.mirror=false, or fewer folds), or set "
                                  "CUDA_VISIBLE_DEVICES= to use the CPU") from None
            mean, *alone = (config.off_grid(values, geometry) for values in found)
            means.append(mean)
            if each:
                single += alone or [mean]
        return [sum(means[1:], means[0]) / np.float32(len(means)), *single]


class ConfigPredictor:
    """One configuration's networks, one a fold, and in a cascade those of its first step."""

    def __init__(self, model: Model, member: Member, device: torch.device, precision: str, mirror: bool):
        self.plan, self.config, self.blend, self.step = model.plan, member.config, model.blend, model.step
        self.device, self.precision = device, precision
        self.first_step = (ConfigPredictor(model, member.previous, device, precision, mirror) if member.previous
                           else None)
        self.window = model.plan.configurations[member.config].patch_size
        axes = len(self.window)
        # A 2-D window has no axis of B-scans to mirror.
        mirrored = sorted(axis + axes for axis in model.mirror_axes if axis >= -axes) if mirror else []
        self.flips = [flip for n in range(len(mirrored) + 1) for flip in itertools.combinations(mirrored, n)]
        weights = torch.from_numpy(gaussian_weights(self.window))
        if self.blend == "logits":
            weights = (HALF_SCALE * weights).half()
            weights[weights == 0] = weights[weights > 0].min()
        else:
            weights = weights.float()
        self.weights = weights.to(device)
        # With logits averaged as nnU-Net does digits count: training's functions are those that nnU-Net predicts with.
        training = as_trained(device) or (self.blend == "logits" and precision == "float32")
        self.memory_format = memory_format(axes, device, precision, training)
        self.together = device.type == "cuda"
        self.networks = []
        for state in member.weights.values():
            network = build_network(self.plan, self.config, deep_supervision=False)
            load_weights(network, state, "the model")
            network.train(training).to(device, memory_format=self.memory_format)  # type: ignore[call-overload]
            self.networks.append(network)

    @property
    def singles(self) -> int:
        """How many networks and mirrored copies there are to look at one by one."""
        return len(self.networks) * len(self.flips) if self.blend == "probabilities" else 1

    @property
    def windows(self) -> int:
        """How many windows a network gets at once, each with all its mirrored copies where it is a GPU."""
        return max(1, GPU_PIXELS // (len(self.flips) * prod(self.window))) if self.together else 1

    @property
    def at_once(self) -> int:
        """How many windows and mirrored copies that is: a CPU takes as long for four as for four in turn, and four
        times the memory."""
        return len(self.flips) * self.windows if self.together else 1

    def on_grid(self, image: np.ndarray, spacing: Sequence[float] | None, circle: bool,
                each: bool = False) -> tuple[list[np.ndarray], Geometry]:
        """What `blend` names on the network's grid, arrays (classes, *grid) float32, and the Geometry that leads there.

        First the average over networks and mirrored copies; with `each` single ones follow where there are several.
        """
        prepared, _, geometry = preprocess(image, spacing, self.plan, self.config)
        if self.first_step is not None:
            [values], first_geometry = self.first_step.on_grid(image, spacing, circle)
            labels = first_step_mask(values, first_geometry, geometry)
            prepared = np.concatenate([prepared, one_hot(labels, len(self.plan.classes))])
        width = prepared.shape[-1]
        around = self._around(width) if circle and geometry.all_a_scans else 0
        continued = np.take(prepared, np.arange(-around, width + around), axis=-1, mode="wrap")
        found = self._sliding_window(continued, each and self.singles > 1)
        return [values[..., around:around + width] for values in found], geometry

    def off_grid(self, values: np.ndarray, geometry: Geometry) -> np.ndarray:
        """Probabilities (classes, *spatial) float32 on the scan's own grid from an array that `on_grid` gave."""
        if self.blend == "probabilities":
            return restore(values, geometry)
        # nnU-Net resamples in double and keeps the result in half precision; by way of float32 ties would break.
        restored = restore(values, geometry, outside=CERTAIN, dtype=np.float64)
        return softmax(restored.astype(np.float16).astype(np.float32), axis=0)

    def _around(self, width: int) -> int:
        """By how many A-scans a circle is continued on either side: a quarter of a window.

        Where it fits into one window with some to spare, that one is filled: more would take a second window, and
        twice the time. 1100 A-scans in a window of 1152: 26 on either side.
        """
        spare = self.window[-1] - width
        return spare // 2 if spare >= 2 * LEAST_AROUND else self.window[-1] // 4

    @torch.inference_mode()
    def _sliding_window(self, image: np.ndarray, each: bool) -> list[np.ndarray]:
        """The same for a whole preprocessed scan."""
        slices = image.ndim - 1 - len(self.window)  # 1 where a 2-D window goes through a volume, else 0
        shape = image.shape[1:]
        window = (1,) * slices + self.window
        missing = [max(w - n, 0) for w, n in zip(window, shape, strict=True)]
        scan = torch.from_numpy(np.pad(image, [(0, 0), *((m // 2, m - m // 2) for m in missing)])).to(self.device)
        inside = tuple(slice(m // 2, m // 2 + n) for m, n in zip(missing, shape, strict=True))
        if self.blend == "probabilities":
            found = self._sum_of_windows(scan, self.networks, slices, each)
        else:
            total = reduce(add, (self._sum_of_windows(scan, [network], slices, False)[0] for network in self.networks))
            found = [total / len(self.networks)]
        return [values[(slice(None), *inside)].float().cpu().numpy() for values in found]

    def _sum_of_windows(self, scan: torch.Tensor, networks: Sequence[torch.nn.Module], slices: int,
                        each: bool) -> list[torch.Tensor]:
        """The weighted means of all windows, (classes, *spatial) in the precision of the weights."""
        count = 1 + len(networks) * len(self.flips) * each
        totals = [torch.zeros((len(self.plan.classes) + 1, *scan.shape[1:]), dtype=self.weights.dtype,
                              device=self.device) for _ in range(count)]
        weight = torch.zeros(scan.shape[1:], dtype=self.weights.dtype, device=self.device)
        axes = [window_starts(n, w, self.step) for n, w in zip(scan.shape[1 + slices:], self.window, strict=True)]
        places: list[tuple[int | slice, ...]] = [
            (slice(None), *at[:slices], *(slice(c, c + w) for c, w in zip(at[slices:], self.window, strict=True)))
            for at in itertools.product(*map(range, scan.shape[1:1 + slices]), *axes)]
        for first in range(0, len(places), self.windows):
            some = places[first:first + self.windows]
            values = self._windows(torch.stack([scan[place] for place in some]), networks, each)
            for number, place in enumerate(some):
                for total, found in zip(totals, values, strict=True):
                    total[place] += found[number] * self.weights
                weight[place[1:]] += self.weights
        return [total.div_(weight) for total in totals]

    def _windows(self, patches: torch.Tensor, networks: Sequence[torch.nn.Module], each: bool) -> list[torch.Tensor]:
        """The averages in some windows, (windows, classes, *window) float32, and with `each` every single one."""
        total, single = torch.zeros((), device=self.device), []
        for flips in [self.flips] if self.together else [[flip] for flip in self.flips]:
            mirrored = torch.cat([torch.flip(patches, [axis + 2 for axis in flip]) for flip in flips])
            mirrored = mirrored.contiguous(memory_format=self.memory_format)
            for network in networks:
                with autocast(self.precision, self.device):
                    logits = network(mirrored)
                values = logits.float()
                if self.blend == "probabilities":
                    values = torch.softmax(values, 1)
                for flip, found in zip(flips, values.split(len(patches)), strict=True):
                    turned_back = torch.flip(found, [axis + 2 for axis in flip])
                    total = total + turned_back
                    if each:
                        single.append(turned_back)
        return [total / (len(self.flips) * len(networks)), *single]


def first_step_mask(values: np.ndarray, geometry: Geometry, target: Geometry) -> np.ndarray:
    """What a cascade's first step found as labels on the second step's grid: (*grid) uint8.

    `values` (classes, *first grid) are probabilities or logits; the geometries lead to the first and the second grid.
    """
    coarse = coarse_axis(geometry.target, target.target)
    return resample(values, target.resampled_shape, order=1, coarse=coarse).argmax(0).astype(np.uint8)
