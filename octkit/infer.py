"""Predict: sliding window with Gaussian weights, optional mirrored copies, folds averaged.

    scan 10 wide, window 6, half-overlapping: windows start at 0, 2, 4 (the step of 3 shrunk to fit evenly)
    [------]
      [------]
        [------]

Source: report, section on inference; softmax is weighted by a Gaussian that trusts a window's centre more
than its border, where the network sees less context.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from octkit import layouts, settings
from octkit.cases import LAYERS
from octkit.files import OctkitError, read_json, replacing
from octkit.images import read_image, write_mask
from octkit.models import (
    Model,
    autocast,
    build_network,
    choose_device,
    load_model,
    load_weights,
    working_precision,
)
from octkit.postprocess import apply_steps
from octkit.preprocess import preprocess, restore

# Deviation of the Gaussian in window lengths; 1/8 leaves a window's edge 0.03 % of its centre's weight.
GAUSSIAN_SIGMA = 1 / 8


def window_starts(length: int, window: int, step: float) -> list[int]:
    """Where windows start along an axis so that they cover it evenly and overlap by at least 1 - step.

    `step` is a share of the window: length 10, window 6, step 0.5 -> [0, 2, 4]; a length up to the window -> [0].
    """
    if length <= window:
        return [0]
    count = int(np.ceil((length - window) / (window * step))) + 1
    return [round(i * (length - window) / (count - 1)) for i in range(count)]


def gaussian_weights(window: Sequence[int]) -> np.ndarray:
    """Weights of a window's pixels, (*window) float32, 1 at the centre, above 0 everywhere."""
    weights = np.ones((), np.float32)
    for size in window:
        distance = (np.arange(size) - (size - 1) / 2) / (size * GAUSSIAN_SIGMA)
        weights = np.multiply.outer(weights, np.exp(-0.5 * distance**2))
    return (weights / weights.max()).astype(np.float32)


class Predictor:
    """A trained model ready to predict: networks on their device, one a fold.

    `Predictor.load(model)(image, spacing)` gives probabilities (classes, *spatial) float32 on the scan's
    own grid; `model` is the folder of a run.
    """

    def __init__(self, model: Model, device: str = "auto", mirror: bool | None = None):
        self.model = model
        self.configuration = model.plan.configurations[model.config]
        self.device = choose_device(device)
        self.precision = working_precision(model.precision, self.device)
        self.mirror_axes = model.mirror_axes if (model.mirror if mirror is None else mirror) else ()
        self.weights = torch.from_numpy(gaussian_weights(self.configuration.patch_size)).to(self.device)
        self.networks = []
        for state in model.weights.values():
            network = build_network(self.configuration, len(model.plan.channels), len(model.labels), False)
            load_weights(network, state, "the model")
            self.networks.append(network.eval().to(self.device, memory_format=torch.channels_last))

    @classmethod
    def load(cls, model: str | Path, device: str = "auto", mirror: bool | None = None, folds=None) -> "Predictor":
        """Open a run's folder. `mirror` None: as its settings say; `folds`: these instead of all."""
        return cls(load_model(Path(model), folds=folds), device, mirror)

    def __call__(self, image: np.ndarray, spacing: Sequence[float] | None = None) -> np.ndarray:
        """Probabilities of a scan.

        Args:
            image: (channels, *spatial) as stored, of any size.
            spacing: mm per axis; None where unknown, then the scan is taken at its own grid.

        Returns:
            (classes, *spatial) float32, background first, summing to 1.
        """
        plan = self.model.plan
        # A plan in px knows no mm: there is nothing to resample to.
        known = spacing if plan.units == "mm" else None
        prepared, _, geometry = preprocess(image, known, self.configuration.spacing, plan.intensity)
        return restore(self._sliding_window(prepared), geometry)

    @torch.inference_mode()
    def _sliding_window(self, image: np.ndarray) -> np.ndarray:
        window = self.configuration.patch_size
        shape = image.shape[1:]
        missing = [max(w - n, 0) for w, n in zip(window, shape, strict=True)]
        before = [m // 2 for m in missing]
        padded = np.pad(image, [(0, 0), *((b, m - b) for b, m in zip(before, missing, strict=True))])
        scan = torch.from_numpy(padded).to(self.device)
        total = torch.zeros((len(self.model.labels) + 1, *padded.shape[1:]), device=self.device)
        weight = torch.zeros(padded.shape[1:], device=self.device)
        axes = [window_starts(n, w, self.model.step) for n, w in zip(padded.shape[1:], window, strict=True)]
        for corner in itertools.product(*axes):
            place = tuple(slice(c, c + w) for c, w in zip(corner, window, strict=True))
            total[(slice(None), *place)] += self._probabilities(scan[(slice(None), *place)]) * self.weights
            weight[place] += self.weights
        inside = tuple(slice(b, b + n) for b, n in zip(before, shape, strict=True))
        return (total / weight)[(slice(None), *inside)].cpu().numpy()

    def _probabilities(self, patch: torch.Tensor) -> torch.Tensor:
        """Softmax of one window, averaged over folds and mirrored copies: (classes, *window)."""
        flips = [flip for n in range(len(self.mirror_axes) + 1) for flip in itertools.combinations(self.mirror_axes, n)]
        total = 0
        for flip in flips:
            axes = [axis + 2 for axis in flip]  # behind batch and channel
            copy = torch.flip(patch[None], axes).contiguous(memory_format=torch.channels_last)
            for network in self.networks:
                with autocast(self.precision, self.device):
                    scores = network(copy)
                total = total + torch.flip(torch.softmax(scores.float(), 1), axes)[0]
        return total / (len(flips) * len(self.networks))


def mask_of(probabilities: np.ndarray, model: Model) -> np.ndarray:
    """The most probable label of each pixel, after the model's post-processing: (*spatial) uint8."""
    return apply_steps(probabilities.argmax(0).astype(np.uint8), model.postprocessing, model.circle)


def predict_images(predictor: Predictor, images: Iterable[tuple[str, np.ndarray, Sequence[float] | None]], out: Path,
                   probabilities: bool = False, progress: bool = True) -> list[Path]:
    """Predict (name, image, spacing) one by one into out/<name>.png, and <name>.npz where asked for.

    Masks are coded in GOALS greys where the labels are the three layers, otherwise as label numbers.
    """
    model = predictor.model
    values = (layouts.GOALS_GREYS if model.labels == LAYERS
              else {label: label for label in range(len(model.labels) + 1)})
    written = []
    for name, image, spacing in tqdm(images, desc="predict", unit="scan", disable=not progress):
        soft = predictor(image, spacing)
        if probabilities:
            with replacing(out / f"{name}.npz") as temporary, open(temporary, "wb") as file:
                np.savez_compressed(file, probabilities=soft)
        write_mask(out / f"{name}.png", mask_of(soft, model), values)
        written.append(out / f"{name}.png")
    return written


def predict_folder(model: str | Path, images: str | Path, out: str | Path, mirror: bool | None = None,
                   probabilities: bool = False, um_per_px: Sequence[float] | None = None) -> list[Path]:
    """Predict a PNG or a folder of them with a run's model; see `predict_images` for what is written.

    Args:
        um_per_px: (axial, lateral) where the scale is known. A model whose plan is in mm then resamples to
            its own spacing; without it scans are taken at their own grid.
    """
    files = layouts.list_images(images)
    if Path(out).resolve() == files[0].resolve().parent:
        raise OctkitError(f"{out}: is the images' own folder, masks would overwrite them; expected another folder")
    doubled = [file for file, other in itertools.pairwise(files) if file.stem == other.stem]
    if doubled:
        raise OctkitError(f"{doubled[0]}: another image has the same name but for its ending, expected each once")
    spacing = None if um_per_px is None else tuple(value / 1000 for value in um_per_px)
    # All are read first: a bad one stops before any mask is written.
    scans = [(file.stem, read_image(file), spacing) for file in files]
    predictor = Predictor.load(model, mirror=mirror)
    in_mm = predictor.model.plan.units == "mm"
    if in_mm and spacing is None:
        print("no scale given (--um-per-px): scans are taken at their own grid, not at the model's spacing")
    if not in_mm and spacing is not None:
        print("this model was planned in pixels: the scale given makes no difference")
    return predict_images(predictor, scans, Path(out), probabilities=probabilities)


def predict_cross_validation(run_dir: str | Path, progress: bool = True) -> Path:
    """Predict each training case with the fold that did not see it: predictions/cv/<case>.png.

    No post-processing yet: these masks decide whether there will be one. Fold "all" holds nothing out and
    predicts nothing here.
    """
    run_dir = Path(run_dir)
    chosen = settings.load(run_dir / "settings.json")
    dataset = layouts.open_dataset(chosen.data.root)
    cases = {case.name: case for case in dataset.train}
    splits = read_json(run_dir / "splits.json")
    out = _emptied(run_dir / "predictions" / "cv")
    for fold in chosen.train.folds:
        if fold == "all":
            continue
        model = dataclasses.replace(load_model(run_dir, folds=[fold]), postprocessing=())
        predictor = Predictor(model, chosen.device)
        held_out = (cases[name] for name in splits[fold]["validation"])
        predict_images(predictor, ((c.name, dataset.read_image(c), c.spacing) for c in held_out), out,
                       progress=progress)
    return out


def _emptied(folder: Path) -> Path:
    # Masks of scans that are no longer in the data set would be scored and submitted with the others.
    for mask in folder.glob("*.png"):
        mask.unlink()
    return folder


def predict_split(run_dir: str | Path, split: str = "validation", progress: bool = True) -> Path:
    """Predict a run's validation or test scans with all folds: predictions/<split>/<case>.png."""
    run_dir = Path(run_dir)
    chosen = settings.load(run_dir / "settings.json")
    dataset = layouts.open_dataset(chosen.data.root)
    cases = getattr(dataset, split)
    if not cases:
        raise OctkitError(f"{dataset.root}: has no {split} images to predict")
    out = _emptied(run_dir / "predictions" / split)
    predict_images(Predictor.load(run_dir, chosen.device),
                   ((c.name, dataset.read_image(c), c.spacing) for c in cases), out,
                   progress=progress)
    return out
