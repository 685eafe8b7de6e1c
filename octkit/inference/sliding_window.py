"""Predict: sliding window with Gaussian weights, optional mirrored copies, folds and configurations averaged.

    scan 10 wide, window 6, half-overlapping: windows start at 0, 2, 4 (the step of 3 shrunk to fit evenly)
    [------]
      [------]
        [------]

A circle scan has no edges along its A-scans: before it is predicted it is continued round the circle on both sides.
Volumes work the same way with one axis more; the 2-D configuration goes through a volume slice by slice. A cascade
first predicts with its first stage and shows the second one the result beside the scan.

A model that averages scores comes from nnU-Net v2 and does as nnU-Net does, so that its results come back digit for
digit: windows are summed in half precision, fold by fold. Towards a window's corners, where the Gaussian is small,
few digits are left that way; models trained here average probabilities in full precision.
Source: report, section on inference; the Gaussian trusts a window's centre more than its border, where the network
sees less context.
"""

import copy
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from octkit.common.errors import OctkitError
from octkit.network import memory
from octkit.network.model import (
    PRECISIONS,
    Member,
    Model,
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
# By this the weights are raised where sums are in half precision, whose smallest number is 6e-8 (nnU-Net's factor).
HALF_SCALE = 10
# Outside the crop there is nothing: a score this far above the others' 0 is background for certain.
CERTAIN = 1000.0

LEAST_AROUND = 16  # A-scans that a circle is continued by, at the least


def window_starts(length: int, window: int, step: float) -> list[int]:
    """Where windows start along an axis so that they cover it evenly and overlap by at least 1 - step.

    `step` is a share of the window: length 10, window 6, step 0.5 -> [0, 2, 4]; a length up to the window -> [0].
    """
    if length <= window:
        return [0]
    count = int(np.ceil((length - window) / (window * step))) + 1
    return [round(i * (length - window) / (count - 1)) for i in range(count)]


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

    def __init__(self, model: Model, device: str = "auto", mirror: bool | None = None,
                 precision: str | None = None):
        if precision not in (None, *PRECISIONS):
            raise OctkitError(f"precision: found {precision!r}, expected one of {', '.join(PRECISIONS)}")
        self.device = choose_device(device)
        self.precision = working_precision(precision or model.precision, self.device)
        self.mirror = model.mirror if mirror is None else mirror
        self.stages = [Stage(model, member, self.device, self.precision, self.mirror)
                       for member in model.members]
        # The networks have the weights now; a second copy of them all would stay in memory.
        self.model = replace(model, members=tuple(_without_weights(member) for member in model.members))
        if self.device.type == "cpu":
            memory.keep_freed_memory()

    @classmethod
    def load(cls, model: str | Path, device: str = "auto", mirror: bool | None = None, configs=None,
             folds=None, precision: str | None = None) -> "Predictor":
        """Open a run's folder or a model's file.

        `mirror` None: as its settings say; `configs`, `folds`: these instead of the chosen configuration, and of all;
        `precision` "float32" or "bfloat16", None: as in training.
        """
        return cls(open_model(model, configs, folds), device, mirror, precision)

    def describe(self) -> str:
        """How and on what it computes: "float32, cpu, 2 threads"."""
        threads = f", {torch.get_num_threads()} threads" if self.device.type == "cpu" else ""
        return f"{self.precision}, {self.device.type}{threads}"

    def __call__(self, image: np.ndarray, spacing: Sequence[float] | None = None,
                 circle: bool | None = None) -> np.ndarray:
        """Probabilities of a scan.

        Args:
            image: (channels, *spatial) as stored, of any size.
            spacing: mm per axis; None where unknown, then the scan is taken at its own grid.
            circle: whether its last A-scan is the neighbour of the first; None: as in the scans the model is for.

        Returns:
            (classes, *spatial) float32, background first, summing to 1; the mean over the model's configurations.
        """
        circle = self.model.circle if circle is None else circle
        self._check_memory(image, len(self.stages))
        total = self.stages[0](image, spacing, circle)
        for stage in self.stages[1:]:
            total = total + stage(image, spacing, circle)
        return total / np.float32(len(self.stages))

    def opinions(self, image: np.ndarray, spacing: Sequence[float] | None = None,
                 circle: bool | None = None) -> list[np.ndarray]:
        """Probabilities of each network and mirrored copy by itself; arguments as above.

        Where they disagree is where the model is in doubt. Their mean is what a call returns, but for rounding, at the
        same price; a model that averages scores has one opinion.
        """
        circle = self.model.circle if circle is None else circle
        if self.model.blend != "probabilities":
            return [self(image, spacing, circle)]
        voices = [voice for stage in self.stages for voice in stage.voices()]
        self._check_memory(image, len(voices))
        return [voice(image, spacing, circle) for voice in voices]

    def _check_memory(self, image: np.ndarray, opinions: int) -> None:
        memory.check_prediction(self.model, image.shape[1:], opinions, self.device, self.precision,
                                max(len(stage.flips) if stage.together else 1 for stage in self.stages))


class Stage:
    """One configuration's networks, one a fold, and those of the stage before it."""

    def __init__(self, model: Model, member: Member, device: torch.device, precision: str, mirror: bool):
        self.plan, self.config, self.blend, self.step = model.plan, member.config, model.blend, model.step
        self.device, self.precision = device, precision
        self.previous = Stage(model, member.previous, device, precision, mirror) if member.previous else None
        self.window = model.plan.configurations[member.config].patch_size
        axes = len(self.window)
        # A 2-D window has no axis of B-scans to mirror.
        mirrored = sorted(axis + axes for axis in model.mirror_axes if axis >= -axes) if mirror else []
        self.flips = [flip for n in range(len(mirrored) + 1) for flip in itertools.combinations(mirrored, n)]
        self.weights = torch.from_numpy(gaussian_weights(self.window)).float().to(device)
        if self.blend == "logits":
            half = torch.from_numpy(HALF_SCALE * gaussian_weights(self.window)).half()
            half[half == 0] = half[half > 0].min()
            self.weights = half.to(device)
        # With scores averaged as nnU-Net does digits count: training's functions are those that nnU-Net predicts with.
        self.as_trained = self.blend == "logits" and precision == "float32"
        self.memory_format = memory_format(axes, device, precision, self.as_trained)
        # A CPU takes as long for four images at once as for four in turn, and four times the memory.
        self.together = device.type == "cuda"
        self.networks = [self._network(state) for state in member.weights.values()]

    def __call__(self, image: np.ndarray, spacing: Sequence[float] | None, circle: bool) -> np.ndarray:
        """Probabilities (classes, *spatial) float32 on the scan's own grid."""
        return self.off_grid(*self.on_grid(image, spacing, circle))

    def _network(self, state: dict[str, torch.Tensor]):
        """A callable from images (1, inputs, *window) to scores (1, classes, *window)."""
        network = build_network(self.plan, self.config, deep_supervision=False)
        load_weights(network, state, "the model")
        return network.train(self.as_trained).to(self.device, memory_format=self.memory_format)

    def voices(self) -> list["Stage"]:
        """This stage for each of its networks and mirrored copies alone."""
        alone = []
        for network, flip in itertools.product(self.networks, self.flips):
            voice = copy.copy(self)
            voice.networks, voice.flips = [network], [flip]
            alone.append(voice)
        return alone

    def on_grid(self, image: np.ndarray, spacing: Sequence[float] | None,
                circle: bool) -> tuple[np.ndarray, Geometry]:
        """What `blend` names on the network's grid, (classes, *grid) float32, and the Geometry that leads there."""
        prepared, _, geometry = preprocess(image, spacing, self.plan, self.config)
        if self.previous is not None:
            found = first_step_mask(*self.previous.on_grid(image, spacing, circle), geometry)
            prepared = np.concatenate([prepared, one_hot(found, len(self.plan.classes))])
        around = self._around(prepared.shape[-1]) if circle else 0
        columns = np.arange(-around, prepared.shape[-1] + around)
        continued = np.take(prepared, columns, axis=-1, mode="wrap")
        found = self._sliding_window(continued)
        return found[..., around:around + prepared.shape[-1]], geometry

    def _around(self, width: int) -> int:
        """By how many A-scans a circle is continued on either side: a quarter of a window.

        Where it fits into one window with some to spare, that one is filled: more would take a second window, and
        twice the time. 1100 A-scans in a window of 1152: 26 on either side.
        """
        spare = self.window[-1] - width
        return spare // 2 if spare >= 2 * LEAST_AROUND else self.window[-1] // 4

    def off_grid(self, values: np.ndarray, geometry: Geometry) -> np.ndarray:
        """Probabilities on the scan's own grid from what `on_grid` gave."""
        if self.blend == "probabilities":
            return restore(values, geometry)
        # nnU-Net resamples in double and keeps the result in half precision; by way of float32 ties would break.
        restored = restore(values, geometry, outside=CERTAIN, dtype=np.float64)
        return softmax(restored.astype(np.float16).astype(np.float32))

    @torch.inference_mode()
    def _sliding_window(self, image: np.ndarray) -> np.ndarray:
        """What `blend` names for a whole preprocessed scan, averaged over folds: (classes, *spatial) float32."""
        slices = image.ndim - 1 - len(self.window)  # 1 where a 2-D window goes through a volume, else 0
        shape = image.shape[1:]
        window = (1,) * slices + self.window
        missing = [max(w - n, 0) for w, n in zip(window, shape, strict=True)]
        before = [m // 2 for m in missing]
        padded = np.pad(image, [(0, 0), *((b, m - b) for b, m in zip(before, missing, strict=True))])
        scan = torch.from_numpy(padded).to(self.device)
        inside = tuple(slice(b, b + n) for b, n in zip(before, shape, strict=True))
        if self.blend == "probabilities":
            total = self._sum_of_windows(scan, self.networks, slices)
        else:
            total = sum(self._sum_of_windows(scan, [network], slices) for network in self.networks)
            total = total / len(self.networks)
        return total[(slice(None), *inside)].float().cpu().numpy()

    def _sum_of_windows(self, scan: torch.Tensor, networks: list, slices: int) -> torch.Tensor:
        """The weighted mean of all windows, (classes, *spatial), in the precision of the weights."""
        total = torch.zeros((len(self.plan.classes) + 1, *scan.shape[1:]), dtype=self.weights.dtype, device=self.device)
        weight = torch.zeros(scan.shape[1:], dtype=self.weights.dtype, device=self.device)
        axes = [window_starts(n, w, self.step) for n, w in zip(scan.shape[1 + slices:], self.window, strict=True)]
        for corner in itertools.product(*map(range, scan.shape[1:1 + slices]), *axes):
            place = (*corner[:slices], *(slice(c, c + w) for c, w in zip(corner[slices:], self.window, strict=True)))
            total[(slice(None), *place)] += self._window(scan[(slice(None), *place)], networks) * self.weights
            weight[place] += self.weights
        return total / weight

    def _window(self, patch: torch.Tensor, networks: list) -> torch.Tensor:
        """What `blend` names in one window, averaged over networks and mirrored copies: (classes, *window) float32."""
        total = 0
        for flips in [self.flips] if self.together else [[flip] for flip in self.flips]:
            mirrored = torch.stack([torch.flip(patch, [axis + 1 for axis in flip]) for flip in flips])
            mirrored = mirrored.contiguous(memory_format=self.memory_format)
            for network in networks:
                with autocast(self.precision, self.device):
                    scores = network(mirrored)
                values = scores.float()
                if self.blend == "probabilities":
                    values = torch.softmax(values, 1)
                for flip, found in zip(flips, values, strict=True):
                    total = total + torch.flip(found, [axis + 1 for axis in flip])
        return total / (len(self.flips) * len(networks))


def _without_weights(member: Member) -> Member:
    return replace(member, weights={}, previous=_without_weights(member.previous) if member.previous else None)


def first_step_mask(values: np.ndarray, geometry: Geometry, target: Geometry) -> np.ndarray:
    """A first stage's result as labels on the second stage's grid: (*grid) uint8.

    `values` (classes, *first grid) are probabilities or scores, `geometry` leads to the first stage's grid and
    `target` to the second's, both of the same scan.
    """
    coarse = coarse_axis(geometry.target, target.target)
    return resample(values, target.resampled_shape, order=1, coarse=coarse).argmax(0).astype(np.uint8)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Probabilities of scores (classes, …), float32."""
    powers = np.exp(scores - scores.max(0))
    return powers / powers.sum(0)
