"""Predict whole sets of scans into files: scans of any kind, a run's held-out cases, its final masks.

    predictions/cv/<config>/fold_<k>/<case>.png   each training case by the fold that did not see it; volumes .nii.gz
    predictions/cv/<config>/fold_<k>/<case>.npz   its probabilities, where several configurations are to be compared
    predictions/validation/, test/                the final masks, boundaries, quality, as `octkit predict` leaves them
    preprocessed/3d_cascade_fullres/              a first step's masks on the second step's grid

Each of these folders of predictions is written aside (.fold_0.unfinished) and takes its place when it is whole.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from tqdm.auto import tqdm

from octkit.common import cluster, hashes, locks
from octkit.common.errors import OctkitError
from octkit.common.files import is_made_from, read_json, renewed_folder, replacing, write_csv, write_json
from octkit.common.messages import say
from octkit.data.dataset import Case, is_volume, read_scan_mask, scan_name, scan_size
from octkit.data.image_files import OVERLAY, is_image, write_mask
from octkit.data.labels import mask_coding
from octkit.data.volume_files import write_nifti
from octkit.inference.scan_result import ScanResult, Told, ask, has_boundaries, read_off
from octkit.inference.sliding_window import ConfigPredictor, Predictor, first_step_mask
from octkit.layers import scan_files
from octkit.layers.boundaries import FRAME, known_scale
from octkit.layers.scan_files import ScanFacts
from octkit.network.model import Model, load_model
from octkit.network.model_file import DEFAULT
from octkit.planning.folds import held_out_cases
from octkit.planning.preprocess import load_preprocessed
from octkit.planning.run import Run

CHUNK = 16  # scans that a worker gets at once: some seconds of a GPU's work
RECORDS, BESIDE = ".predicted", (".boundaries.csv", scan_files.FACTS, ".npz", OVERLAY)  # beside a mask


def save_mask(folder: Path, name: str, mask: np.ndarray, labels: Sequence[str], like: Path,
              spacing: Sequence[float] | None = None) -> Path:
    """Write a predicted mask (*spatial) uint8 into a folder, in the kind of file that its scan `like` came in.

    2-D scans get a PNG, in GOALS greys where the labels are the three layers, otherwise as label numbers; NIfTI files,
    folders of B-scans and volumes get a NIfTI file of label numbers that lies where the scan lies.
    """
    if is_volume(like) or mask.ndim == 3:
        write_nifti(path := folder / f"{name}.nii.gz", mask, None if spacing is None else tuple(spacing), like)
    else:
        write_mask(path := folder / f"{name}.png", mask, mask_coding(labels))
    return path


def read_prediction(folder: Path, case: Case, labels: Sequence[str]) -> np.ndarray:
    """The mask of a case in a folder of predictions, or of a phantom's truth: (*spatial) uint8 labels."""
    for path in sorted(Path(folder).iterdir()):
        if scan_name(path) == case.name and (is_volume(path) or is_image(path)):
            numbers = {label: label for label in range(len(labels) + 1)}
            return read_scan_mask(path, numbers if is_volume(path) else mask_coding(labels), case.image)
    raise OctkitError(f"{folder}: has no mask of case {case.name}; predict it first")


def save_probabilities(folder: Path, name: str, probabilities: np.ndarray) -> None:
    """Write <name>.npz with one array `probabilities` (classes, *spatial), whole or not at all."""
    with replacing(folder / f"{name}.npz") as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, probabilities=probabilities)


@dataclass(frozen=True)
class ScanToPredict:
    """A scan before it is predicted: what is known of it without its pixels, which `read` gives.

    `spacing` is mm an axis; `circle` None says that it is one where the model's own scans are. `eye` is "R", "L" or
    None. `line`: its file says that it is no circle. `more_channels` are the files of further channels.
    """

    name: str
    file: Path
    size: tuple[int, ...]
    spacing: Sequence[float] | None
    circle: bool | None
    read: Callable[[], np.ndarray]
    eye: str | None = None
    line: bool = False
    more_channels: tuple[Path, ...] = ()


class Predicted(NamedTuple):
    """What is kept of a scan: its mask's file, its flag, its mean doubt (px) where it has one; or why there is none."""

    name: str
    mask: str = ""
    trusted: bool = False
    reasons: Sequence[str] = ()
    doubt: float | None = None
    error: str | None = None


class Drawer(Protocol):
    """Who draws scans, `figures.overlays.Overlays`: each with its pixels and its result, and a page of all."""

    def draw(self, scan: ScanToPredict, image: np.ndarray, result: ScanResult) -> None: ...
    def write_index(self, scans: Sequence[Predicted]) -> Path: ...


def predict_scans(predictor: Predictor, scans: Sequence[ScanToPredict], out: Path, probabilities: bool = False,
                  progress: bool = True, drawer: Drawer | None = None, crew: "Crew | None" = None) -> list[Path]:
    """Predict scans into a folder: <name>.png or <name>.nii.gz, and <name>.npz with the `probabilities`.

    quality.csv says which scans are not to be trusted and why; that is printed as well. Where the labels are RNFL,
    GCIPL and choroid of 2-D scans, <name>.boundaries.csv holds the five boundaries with their doubt, and
    <name>.scale.json what is known of the scan. A `crew` does the work side by side.

    Each file is written whole. A scan that cannot be read does not cost the others: they are predicted, then an
    OctkitError names those that failed, a line each. Returns the masks' paths.
    """
    model = predictor.model
    lined = [scan for scan in scans if has_boundaries(model.labels, len(scan.size))]
    if crew is None:
        say(f"prediction runs on {predictor.describe()}")
    if any(known_scale(scan.size, scan.spacing) is None for scan in lined):
        say(f"no scale known: boundaries are drawn as if the scan were {FRAME[0] / 1000} mm deep and {FRAME[1] / 1000} "
            "mm long (--um-per-px says it)")
    if model.calibration is None and lined:
        say("this model is uncalibrated: its boundaries' doubt ranks places, and does not say how far off they are")
    with tqdm(total=len(scans), desc="predict", unit="scan", disable=not progress) as bar:
        each = (crew.predict(scans, out, probabilities, drawer) if crew else
                _predict_in_turn(predictor, scans, out, probabilities, drawer))
        found = {}
        for one in each:
            found[one.name] = one
            bar.update()
    in_order = [found[scan.name] for scan in scans]
    there = [one for one in in_order if one.error is None]
    if there:
        write_csv(out / "quality.csv", ("scan", "trusted", "reasons"),
                  ((one.name, "yes" if one.trusted else "NO", "; ".join(one.reasons)) for one in there))
    for one in there:
        if not one.trusted:
            say(f"{one.name}: do not trust what is found in this scan: {'; '.join(one.reasons)}")
    if drawer and there:
        drawer.write_index(there)
    if failed := [one.error for one in in_order if one.error]:
        raise OctkitError("\n  ".join([f"{out}: {len(failed)} of {len(scans)} scans could not be predicted, the masks "
                                       "of the others are there:", *failed]))
    return [out / one.mask for one in there]


def _predict_in_turn(predictor: Predictor, scans: Sequence[ScanToPredict], out: Path, probabilities: bool,
                     drawer: Drawer | None) -> Iterator[Predicted]:
    """Predict scans and write their files, as they end; one that cannot be read or predicted says why.

    While a GPU is at a scan the next is read, and boundaries and files of the one before are made. Networks on a CPU
    need all of it, and of volumes memory may hold only one: there scans take turns.
    """
    ahead = predictor.device.type != "cpu" and all(len(scan.size) == 2 for scan in scans)
    read = finished = None
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as finisher:
        for scan, following in zip_longest(scans, scans[1:]):
            this, read = read, None
            try:
                if this is None:
                    predictor.check_memory(scan.size)  # before its pixels are decoded
                    this = reader.submit(scan.read)
                image = this.result()
                if ahead and following:
                    read = reader.submit(following.read)
                told = ask(predictor, image, scan.spacing, scan.circle)
            except OctkitError as error:
                yield Predicted(scan.name, error=str(error))
                continue
            if finished:
                yield finished.result()
            finished = finisher.submit(_finish, predictor.model, scan, image, told, out, probabilities, drawer)
            if not ahead:
                finished.result()
        if finished:
            yield finished.result()


def _finish(model: Model, scan: ScanToPredict, image: np.ndarray, told: Told, out: Path, probabilities: bool,
            drawer: Drawer | None) -> Predicted:
    """Find in a scan what there is, by what the networks said of it, and write its files, the mask last."""
    result = read_off(model, image, told, scan.spacing, scan.circle, scan.line)
    if probabilities:
        save_probabilities(out, scan.name, result.probabilities)
    if result.boundaries is not None:
        _save_lines(out, scan, result, model.calibration.means if model.calibration else None)
    if drawer is not None:
        drawer.draw(scan, image, result)
    mask = save_mask(out, scan.name, result.mask, model.labels, scan.file, scan.spacing)
    return Predicted(scan.name, mask.name, result.quality.trusted, result.quality.reasons,
                     None if result.doubt is None else float(result.doubt.mean()))


@dataclass(frozen=True)
class Crew:
    """Workers who predict with a model (a run's folder, a file, "default") by `options` (mirror, precision).

    A scan that is done leaves .predicted/<name>.json among the masks: what was found, and which files were left. One
    with such a record by the same model, options and code, whose files are as they were left, is not predicted again.
    """

    workers: cluster.Here
    model: Path
    options: tuple[bool | None, str | None] = (None, None)

    def predict(self, scans: Sequence[ScanToPredict], out: Path, probabilities: bool, drawer: Drawer | None
                ) -> Iterator[Predicted]:
        """Predict scans in chunks into a folder that all workers see, in any order; little is held in memory.

        A chunk over which workers have died is given out again scan by scan: only the one to blame has failed.
        """
        out.mkdir(parents=True, exist_ok=True)
        own = str(self.model) == "default"
        files = [DEFAULT] if own else [self.model] if self.model.is_file() else sorted(
            [*self.model.glob("*.json"), *self.model.glob("models/*/fold_*/checkpoint.pt")])
        model = self.model if own else self.model.resolve()
        by = hashes.digest([cluster.own_code(), self.options, [hashes.file_hash(file) for file in files]])
        missing = []
        for scan in scans:
            if known := _known(out, scan, _key(by, scan, probabilities, drawer)):
                yield known
            else:
                missing.append(scan)
        chunks = [missing[start:start + CHUNK] for start in range(0, len(missing), CHUNK)][::-1]
        sent: dict[str, list[ScanToPredict]] = {}
        while chunks or sent:
            if chunks and not self.workers.full:
                chunk = chunks.pop()
                sent[key := f"predict {chunk[0].name}"] = chunk
                self.workers.submit(key, _predict_chunk, (model, *self.options, by), chunk, out.resolve(),
                                    probabilities, drawer)
                continue
            try:
                key, found = self.workers.next()
                yield from found
                del sent[key]
            except cluster.WorkersDied as error:
                chunk = sent.pop(error.key)
                if len(chunk) == 1:
                    yield Predicted(chunk[0].name, error=f"{chunk[0].file}: {error}")
                else:
                    chunks += [[scan] for scan in chunk]


def _predict_chunk(model: tuple, scans: Sequence[ScanToPredict], out: Path, probabilities: bool,
                   drawer: Drawer | None, tell: object) -> list[Predicted]:  # noqa: ARG001 (all calls get it)
    if not out.is_dir():
        raise OctkitError(f"{out}: not found by a worker, expected a folder that all workers see")
    keys = {scan.name: _key(model[-1], scan, probabilities, drawer) for scan in scans}
    done = [found for scan in scans if (found := _known(out, scan, keys[scan.name]))]  # by one taken for dead
    missing = [scan for scan in scans if scan.name not in {found.name for found in done}]
    for found in _predict_in_turn(_loaded(*model), missing, out, probabilities, drawer):
        if found.error is None:
            left = (found.mask, *(f"{found.name}{ending}" for ending in BESIDE))
            write_json(out / RECORDS / f"{found.name}.json", {
                "key": keys[found.name], "found": found,
                "files": {name: _state(out / name) for name in left if (out / name).exists()}})
        done.append(found)
    return done


@lru_cache(maxsize=1)
def _loaded(model: Path, mirror: bool | None, precision: str | None, _by: str) -> Predictor:
    return Predictor.load(model, mirror=mirror, precision=precision)  # once a worker


def _key(by: str, scan: ScanToPredict, probabilities: bool, drawer: Drawer | None) -> str:
    """A hash of all that decides a scan's files."""
    pixels = [hashes.data_stamp(file) if file.is_dir() else _state(file) for file in (scan.file, *scan.more_channels)]
    return hashes.digest([by, str(scan.file.resolve()), pixels, scan.size, scan.spacing, scan.circle, scan.eye,
                          scan.line, probabilities, drawer is not None])


def _state(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _known(out: Path, scan: ScanToPredict, key: str) -> Predicted | None:
    """What was found in a scan before, by the same means; None where it was not, or a file of it has changed."""
    try:
        record = read_json(out / RECORDS / f"{scan.name}.json")
        if record["key"] == key and all(_state(out / Path(name).name) == found
                                        for name, found in record["files"].items()):
            return Predicted(*record["found"])
    except (OctkitError, OSError, LookupError, TypeError, AttributeError):  # none, or not as it was written
        pass
    return None


def _save_lines(out: Path, scan: ScanToPredict, result: ScanResult, means: dict | None) -> None:
    """Leave a scan's boundaries with their doubt, and what is known of it, beside its mask (`layers.scan_files`)."""
    scan_files.write_boundaries(out / f"{scan.name}.boundaries.csv", np.asarray(result.boundaries),
                                np.asarray(result.doubt), result.half_widths)
    scale = known_scale(result.mask.shape, scan.spacing)
    scan_files.write_facts(out / f"{scan.name}{scan_files.FACTS}", ScanFacts(scale, scan.eye, scan.circle, means))


def predict_splits(run: Run, progress: bool = True) -> list[Path]:
    """Predict all scans without masks, those for validation and those for the test, as far as the data set has them."""
    return [predict_split(run, split, progress) for split in ("validation", "test") if getattr(run.dataset, split)]


def predict_split(run: Run, split: str = "validation", progress: bool = True) -> Path:
    """Predict a run's validation or test scans with the chosen model: predictions/<split>/, see `predict_scans`."""
    dataset, out = run.dataset, run.predictions(split)
    cases = getattr(dataset, split)
    if not cases:
        raise OctkitError(f"{dataset.root}: has no {split} images to predict")
    scans = [ScanToPredict(case.name, case.image, scan_size(case.image), case.spacing, case.circle,
                           partial(dataset.read_image, case), case.eye) for case in cases]
    predictor = Predictor.load(run.folder, run.settings.device)
    with renewed_folder(out, time.time_ns()) as aside:  # quality.csv is of all scans: no other call goes on with it
        predict_scans(predictor, scans, aside, progress=progress)
    return out


def predict_cross_validation(run: Run, progress: bool = True) -> Path:
    """Predict each training case with the fold that did not see it, for every configuration: predictions/cv/.

    Fold "all" holds nothing out and predicts nothing here. The predictions that were there stay until all are done;
    after a stop the folds that are done are not predicted again.
    """
    folder, folds = run.predictions("cv"), list(dict.fromkeys(run.held_out.values()))
    all_of_it = {config: {str(fold): _decided_by(run, config, fold) for fold in folds} for config in run.configs}
    with renewed_folder(folder, all_of_it) as aside:
        for config in run.configs:
            for fold in folds:
                _predict_fold(run, config, fold, aside / run.cross_validation(config, fold).relative_to(folder),
                              progress)
    return folder


def predict_held_out(run: Run, config: str, fold: int, progress: bool = True) -> Path:
    """Predict the cases that a fold held out: predictions/cv/<config>/fold_<k>/<case>, without post-processing.

    These masks decide which configuration and which post-processing to use. Where the configuration is a cascade's
    first step, its masks on the second step's grid are left in preprocessed/ for training that one.
    """
    return _predict_fold(run, config, fold, run.cross_validation(config, fold), progress)


def _predict_fold(run: Run, config: str, fold: int, out: Path, progress: bool) -> Path:
    cases = {case.name: case for case in run.dataset.train}
    held_out = held_out_cases(run.splits, fold, cases)
    [predictor] = Predictor(load_model(run, [config], [fold]), run.settings.device).configs
    if is_made_from(out, decided_by := _decided_by(run, config, fold)):
        say(f"{config} fold {fold}: its held-out cases have been predicted before")
        return out
    seconds = [name for name in run.configs if run.plan.configurations[name].previous_stage == config]
    with locks.locked(run.fold(config, fold)), renewed_folder(out, decided_by) as aside:
        done = {scan_name(path) for path in aside.iterdir() if path.suffix in (".png", ".gz")}  # its mask comes last
        missing = [name for name in held_out if name not in done]
        for second in seconds:  # stopped half-way, no old mask may pass for a new one
            for name in missing:
                (run.first_step(second) / f"{name}.npy").unlink(missing_ok=True)
        for name in tqdm(missing, desc=f"predict {config} fold {fold}", unit="scan", disable=not progress):
            _predict_held_out_case(run, predictor, cases[name], seconds, aside)
    return out


def _decided_by(run: Run, config: str, fold: int) -> dict[str, Any]:
    """All that decides a fold's predictions, ready for JSON."""
    checkpoint = run.checkpoint(config, fold)
    found = checkpoint.stat() if checkpoint.exists() else None  # without one, the model says what is missing
    return {"checkpoint": found and [found.st_size, found.st_mtime_ns], "cases": run.splits[fold]["validation"],
            "scans": hashes.data_stamp(run.dataset.root), "configs": list(run.configs),
            "infer": run.settings.infer.model_dump(mode="json"),
            "mirror_axes": list(run.settings.augment.mirror_axes)}


def _predict_held_out_case(run: Run, predictor: ConfigPredictor, case: Case, seconds: Sequence[str],
                           out: Path) -> None:
    """Leave a case's mask in `out`, and on the grids of the second steps `seconds` what a cascade's first step found.

    Probabilities are kept, in half precision, where there are other configurations to average them with, or boundaries
    to draw from them.
    """
    dataset = run.dataset
    [values], geometry = predictor.on_grid(dataset.read_image(case), case.spacing, case.circle)
    for second in seconds:
        target = load_preprocessed(run, second, [case.name])[0].geometry
        path = run.first_step(second) / f"{case.name}.npy"
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.save(file, first_step_mask(values, geometry, target))
    found = predictor.off_grid(values, geometry)
    if len(run.configs) > 1 or has_boundaries(dataset.labels, found.ndim - 1):
        save_probabilities(out, case.name, found.astype(np.float16))
    save_mask(out, case.name, found.argmax(0).astype(np.uint8), dataset.labels, case.image, case.spacing)
