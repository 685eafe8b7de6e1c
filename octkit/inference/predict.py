"""Predict whole sets of scans into files: folders of the user's, a run's held-out cases, its final masks.

    predictions/cv/<config>/<case>.png        each training case by the fold that did not see it; volumes as .nii.gz
    predictions/cv/<config>/<case>.npz        its probabilities, where several configurations are to be compared
    predictions/validation/, test/            the final masks
    preprocessed/3d_cascade_fullres/          a first stage's masks on the second stage's grid
"""

import itertools
import shutil
from collections.abc import Sequence
from math import isfinite
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from octkit.common.errors import OctkitError, by
from octkit.common.files import read_json, replacing, write_csv, write_json
from octkit.data.dataset import Case, is_volume, read_scan, read_scan_mask, scan_name, scan_size
from octkit.data.heidelberg import open_vol
from octkit.data.image_files import write_mask
from octkit.data.labels import SURFACES, mask_coding
from octkit.data.layouts import detect
from octkit.data.volume_files import volume_spacing, write_nifti
from octkit.inference.scan_result import Reading, has_surfaces, mask_of, mean_of, read
from octkit.inference.sliding_window import Predictor, first_step_mask
from octkit.network.model import load_model
from octkit.planning.folds import held_out_cases
from octkit.planning.preprocess import check_grid, load_geometry, load_preprocessed
from octkit.planning.run import Run


def save_mask(folder: Path, name: str, mask: np.ndarray, labels: Sequence[str], like: Path,
              spacing: Sequence[float] | None = None) -> Path:
    """Write a predicted mask (*spatial) uint8 into a folder, in the kind of file that its scan came in.

    A PNG gets a PNG, in GOALS greys where the labels are the three layers, otherwise as label numbers, and so does a
    device's 2-D scan; NIfTI files and folders of B-scans get a NIfTI file of label numbers that lies where the scan
    `like` lies, a device's volume one with its `spacing`.
    """
    if is_volume(like) or mask.ndim == 3:
        write_nifti(path := folder / f"{name}.nii.gz", mask, spacing, like)
    else:
        write_mask(path := folder / f"{name}.png", mask, mask_coding(labels))
    return path


def read_prediction(folder: Path, case: Case, labels: Sequence[str]) -> np.ndarray:
    """The mask of a case in a folder of predictions, or of a phantom's truth: (*spatial) uint8 labels."""
    for path in sorted(Path(folder).iterdir()):
        if scan_name(path) == case.name and (is_volume(path) or path.suffix == ".png"):
            numbers = {label: label for label in range(len(labels) + 1)}
            return read_scan_mask(path, numbers if is_volume(path) else mask_coding(labels), scan_size(case.image))
    raise OctkitError(f"{folder}: has no mask of case {case.name}; predict it first")


def save_probabilities(folder: Path, name: str, probabilities: np.ndarray) -> None:
    """Write <name>.npz with one array `probabilities` (classes, *spatial), whole or not at all."""
    with replacing(folder / f"{name}.npz") as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, probabilities=probabilities)


def predict_folder(model: str | Path, images: str | Path, out: str | Path, mirror: bool | None = None,
                   probabilities: bool = False, um_per_px: Sequence[float] | None = None, circle: bool | None = None,
                   progress: bool = True, precision: str | None = None) -> list[Path]:
    """Predict a scan or a folder of them: <name>.png or <name>.nii.gz, and <name>.npz with the `probabilities`.

    Each file is written whole; stopped half-way, finished masks stay, and the same call starts over and replaces them.

    Where the labels are RNFL, GCIPL and choroid of 2-D scans, <name>.boundaries.csv holds the five boundaries with
    their doubt, and quality.csv says which scans are not to be trusted and why; that is printed as well.

    Args:
        model: a run's folder, or a one-file model.
        images: PNGs, NIfTI files, folders of B-scans, or a device's .vol files.
        um_per_px: (axial, lateral) of PNGs where it is known; volumes say it themselves. A model whose plan is in mm
            then resamples to its own spacing; without it scans are taken at their own grid.
        circle: whether the scans are full circles; None: as a device file says, or those that the model was made from.
        precision: "float32" or "bfloat16"; None: as in training. On a processor that has bfloat16 it is twice as fast.
    """
    files, out = detect.list_scans(images), Path(out)
    _check_place(out, Path(images), files)
    if um_per_px is not None and not all(isfinite(value) and value > 0 for value in um_per_px):
        raise OctkitError(f"um_per_px: found {by(um_per_px)}, expected micrometres a pixel, axial and lateral, above 0")
    predictor = Predictor.load(model, mirror=mirror, precision=precision)
    print(f"prediction runs on {predictor.describe()}")
    axes = predictor.model.plan.axes
    given = None if um_per_px is None else tuple(value / 1000 for value in um_per_px)
    for file in files:  # all are read first: a bad one stops before any mask is written
        image, spacing, _ = _read(file, given)
        if image.ndim - 1 != axes:
            raise OctkitError(f"{file}: found a scan of {image.ndim - 1} axes, expected {axes} like those of the model")
        for config in predictor.model.plan.configurations:
            check_grid(image.shape[1:], spacing, predictor.model.plan, config, file)
    in_mm = predictor.model.plan.units == "mm"
    if in_mm and given is None and any(file.suffix.lower() == ".png" for file in files):
        print("no scale given (--um-per-px): scans are taken at their own grid, not at the model's spacing")
    if not in_mm and given is not None:
        print("this model was planned in pixels: the scale given makes no difference")
    written, rows = [], []
    for file in tqdm(files, desc="predict", unit="scan", disable=not progress):
        image, spacing, known = _read(file, given)
        round_the_disc = next(fact for fact in (circle, known, predictor.model.circle) if fact is not None)
        opinions = predictor.opinions(image, spacing, round_the_disc)
        if probabilities:
            save_probabilities(out, scan_name(file), mean_of(opinions))
        reading = read(opinions, predictor.model, round_the_disc)
        written.append(save_mask(out, scan_name(file), reading.mask, predictor.model.labels, file, spacing))
        if reading.quality is not None:
            save_boundaries(out / f"{scan_name(file)}.boundaries.csv", reading)
            trusted = "yes" if reading.quality.trusted else "NO"
            rows.append((scan_name(file), trusted, "; ".join(reading.quality.reasons)))
    if rows:
        _save_quality(out / "quality.csv", rows)
    return written


def _check_place(out: Path, images: Path, files: Sequence[Path]) -> None:
    """Masks must not come to lie where the next prediction, or another program, would take them for scans."""
    if out.resolve() == files[0].resolve().parent:
        raise OctkitError(f"{out}: is the images' own folder, masks would overwrite them; expected another folder")
    if images.is_dir() and out.resolve().is_relative_to(images.resolve()):
        raise OctkitError(f"{out}: lies among the images, where masks would be taken for scans, expected it elsewhere")
    if out.exists() and not out.is_dir():
        raise OctkitError(f"{out}: is a file, expected a folder for the masks")


def _read(file: Path, given: Sequence[float] | None) -> tuple[np.ndarray, Sequence[float] | None, bool | None]:
    """A scan's image, its spacing and whether it is a circle, as far as its file or the user says."""
    if file.suffix.lower() == ".vol":
        scan = open_vol(file)
        return scan.image, scan.spacing, scan.circle
    return read_scan(file), volume_spacing(file) if is_volume(file) else given, None


def save_boundaries(path: Path, reading: Reading) -> None:
    """Write the five boundaries and their doubt in px as CSV, one row an A-scan; row 0.0 is the image's upper edge."""
    numbers = np.vstack([reading.boundaries, reading.doubt]).T
    write_csv(path, ["a_scan", *SURFACES, *(f"doubt of {name}" for name in SURFACES)],
              ([column, *(f"{number:.3f}" for number in row)] for column, row in enumerate(numbers)))


def _save_quality(path: Path, rows: Sequence[tuple[str, str, str]]) -> None:
    write_csv(path, ("scan", "trusted", "reasons"), rows)
    for name, trusted, reasons in rows:
        if trusted == "NO":
            print(f"{name}: do not trust this scan's boundaries: {reasons}")


def predict_splits(run: Run, progress: bool = True) -> list[Path]:
    """Predict all scans without masks, those for validation and those for the test, as far as the data set has them."""
    return [predict_split(run, split, progress) for split in ("validation", "test") if getattr(run.dataset, split)]


def predict_split(run: Run, split: str = "validation", progress: bool = True) -> Path:
    """Predict a run's validation or test scans with the chosen model: predictions/<split>/."""
    chosen, dataset = run.settings, run.dataset
    cases = getattr(dataset, split)
    if not cases:
        raise OctkitError(f"{dataset.root}: has no {split} images to predict")
    predictor = Predictor.load(run.folder, chosen.device)
    print(f"prediction runs on {predictor.describe()}")
    out = _emptied(run.predictions(split))
    for case in tqdm(cases, desc="predict", unit="scan", disable=not progress):
        found = predictor(dataset.read_image(case), case.spacing, case.circle)
        mask = mask_of(found, predictor.model, case.circle)
        save_mask(out, case.name, mask, dataset.labels, case.image, case.spacing)
    return out


def predict_cross_validation(run: Run, progress: bool = True) -> Path:
    """Predict each training case with the fold that did not see it, for every configuration: predictions/cv/.

    Fold "all" holds nothing out and predicts nothing here.
    """
    folder = run.predictions("cv")
    shutil.rmtree(folder, ignore_errors=True)  # masks of an earlier plan's configurations must not be scored
    for config in run.configs:
        for fold in run.settings.train.folds:
            if fold != "all":
                predict_held_out(run, config, fold, progress)
    return folder


def predict_held_out(run: Run, config: str, fold: int, progress: bool = True) -> Path:
    """Predict the cases that a fold held out: predictions/cv/<config>/<case>, without post-processing.

    These masks decide which configuration and which post-processing to use. Probabilities are kept, in half
    precision, where there are other configurations to average them with, or boundaries to draw from them. Where the
    configuration is a cascade's first stage, its masks on the second stage's grid are left in preprocessed/ for
    training that one.
    """
    chosen, plan, dataset = run.settings, run.plan, run.dataset
    cases = {case.name: case for case in dataset.train}
    configs = run.configs
    seconds = [name for name in configs if plan.configurations[name].previous_stage == config]
    stage = Predictor(load_model(run, [config], [fold]), chosen.device).stages[0]
    out = run.cross_validation(config)
    held_out = held_out_cases(run.splits, fold, cases)
    checkpoint = run.checkpoint(config, fold).stat()
    decided_by = {"checkpoint": [checkpoint.st_size, checkpoint.st_mtime_ns], "cases": held_out,
                  "configs": list(configs), "infer": chosen.infer.model_dump(mode="json"),
                  "mirror_axes": list(chosen.augment.mirror_axes)}
    stamp = out / f"fold_{fold}.json"
    if stamp.exists() and read_json(stamp) == decided_by:
        print(f"{config} fold {fold}: its held-out cases have been predicted before")
        return out
    stamp.unlink(missing_ok=True)
    for name, second in itertools.product(held_out, seconds):  # stopped half-way, no old mask may pass for a new one
        (run.first_step(second) / f"{name}.npy").unlink(missing_ok=True)
    for name in tqdm(held_out, desc=f"predict {config} fold {fold}", unit="scan", disable=not progress):
        case = cases[name]
        values, geometry = stage.on_grid(dataset.read_image(case), case.spacing, case.circle)
        for second in seconds:
            target = load_geometry(load_preprocessed(run, second, [name])[0])
            path = run.first_step(second) / f"{name}.npy"
            with replacing(path) as temporary, open(temporary, "wb") as file:
                np.save(file, first_step_mask(values, geometry, target))
        found = stage.off_grid(values, geometry)
        if len(configs) > 1 or has_surfaces(dataset.labels, found.ndim - 1):
            save_probabilities(out, name, found.astype(np.float16))
        save_mask(out, name, found.argmax(0).astype(np.uint8), dataset.labels, case.image, case.spacing)
    write_json(stamp, decided_by)  # last: its presence says that all is there
    return out


def _emptied(folder: Path) -> Path:
    # Masks of scans that are no longer in the data set would be scored and submitted with the others.
    for pattern in ("*.png", "*.nii.gz"):
        for mask in folder.glob(pattern):
            mask.unlink()
    return folder
