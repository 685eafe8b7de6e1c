"""What each measure gains on the way from phantom to patient: one scan set, four models, each with one measure more.

    plain           a model of phantoms of one look, the most probable label of each pixel
    + looks         a model of phantoms of every look
    + surfaces      its layers drawn from ordered boundaries
    + mirroring     averaged over mirrored copies
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from octkit.data.image_files import read_image, read_mask
from octkit.data.labels import GOALS_GREYS
from octkit.data.matching import images_in
from octkit.evaluation.metrics import broken_a_scans, dice, spread
from octkit.inference.scan_result import ScanResult, predict_scan
from octkit.inference.sliding_window import Predictor
from octkit.network.model import Model

MEASURES = ("plain", "+ looks", "+ surfaces", "+ mirroring")


@dataclass(frozen=True)
class Scan:
    """A scan to try models on: image (1, H, W) as stored, truth (H, W) labels; only labels in the truth are scored."""

    name: str
    image: np.ndarray
    truth: np.ndarray | None = None
    circle: bool = True


def steps(plain: Model, varied: Model) -> dict[str, Predictor]:
    """A predictor for each of `MEASURES`, from the model of one look and that of every look."""
    alone, bare = (replace(model, surfaces=False, postprocessing=()) for model in (plain, varied))
    drawn = replace(varied, surfaces=True)
    return {name: Predictor(model, mirror=name == MEASURES[-1])
            for name, model in zip(MEASURES, (alone, bare, drawn, drawn), strict=True)}


def annotated_scans(folder: Path) -> list[Scan]:
    """The scans in images/, with their masks in masks_goals/ (images in GOALS greys) where there are any."""
    images, masks = (images_in(part) if part.is_dir() else {} for part in (folder / "images", folder / "masks_goals"))
    return [Scan(name, read_image(path), read_mask(masks[name], GOALS_GREYS) if name in masks else None)
            for name, path in images.items()]


def results(predictors: dict[str, Predictor], scan: Scan) -> dict[str, ScanResult]:
    """What each step finds in a scan."""
    return {name: predict_scan(predictor, scan.image, circle=scan.circle) for name, predictor in predictors.items()}


def scores(masks: dict[str, np.ndarray], scan: Scan, labels: Sequence[str]) -> list[dict]:
    """One row a step: scan, step, Dice of each annotated layer (None where it is not), share of broken A-scans."""
    known = set() if scan.truth is None else set(np.unique(scan.truth).tolist()) - {0}
    return [{"scan": scan.name, "step": step, "broken": broken_a_scans(mask),
             **{name: dice(mask, scan.truth, label) if scan.truth is not None and label in known else None
                for label, name in enumerate(labels, 1)}}
            for step, mask in masks.items()]


def table(rows: Sequence[dict], labels: Sequence[str]) -> dict[str, dict[str, dict]]:
    """Over the scans: step -> {layer: Dice, "broken": share}, each as {"mean", "sd", "n"}."""
    return {step: {key: spread(row[key] for row in own) for key in (*labels, "broken")}
            for step, own in _by_step(rows).items()}


def gains(rows: Sequence[dict], labels: Sequence[str]) -> dict[str, dict[str, dict]]:
    """What each step gains over the one before it, scan by scan: like `table`, without the first step."""
    steps = _by_step(rows)
    return {step: {key: spread(after[key] - before[key] for before, after in zip(steps[last], own, strict=True)
                               if None not in (before[key], after[key])) for key in (*labels, "broken")}
            for last, (step, own) in zip(steps, list(steps.items())[1:], strict=False)}


def _by_step(rows: Sequence[dict]) -> dict[str, list[dict]]:
    return {step: [row for row in rows if row["step"] == step] for step in dict.fromkeys(row["step"] for row in rows)}
