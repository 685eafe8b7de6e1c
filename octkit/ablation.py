"""What each measure gains on the way from phantom to patient: one scan set, four models, each with one measure more.

    plain           a model of phantoms of one look, the most probable label of each pixel
    + looks         a model of phantoms of every look
    + surfaces      its layers drawn from ordered boundaries
    + mirroring     averaged over mirrored copies
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from octkit.infer import Predictor
from octkit.metrics import broken_a_scans, dice
from octkit.models import Model
from octkit.reading import mask_of

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
    bare = replace(varied, surfaces=False, postprocessing=())
    drawn = replace(varied, surfaces=True)
    return dict(zip(MEASURES, (Predictor(replace(plain, surfaces=False, postprocessing=()), mirror=False),
                               Predictor(bare, mirror=False), Predictor(drawn, mirror=False),
                               Predictor(drawn, mirror=True)), strict=True))


def masks(predictors: dict[str, Predictor], scan: Scan) -> dict[str, np.ndarray]:
    """The mask (H, W) uint8 that each step draws of a scan."""
    return {name: mask_of(predictor(scan.image, None, scan.circle), predictor.model, scan.circle)
            for name, predictor in predictors.items()}


def scores(found: dict[str, np.ndarray], scan: Scan, labels: Sequence[str]) -> list[dict]:
    """One row a step: scan, step, Dice of each annotated layer (None where it is not), share of broken A-scans."""
    known = set() if scan.truth is None else set(np.unique(scan.truth).tolist()) - {0}
    return [{"scan": scan.name, "step": step, "broken": broken_a_scans(mask),
             **{name: dice(mask, scan.truth, label) if label in known else None
                for label, name in enumerate(labels, 1)}}
            for step, mask in found.items()]


def table(rows: Sequence[dict], labels: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """Means over the scans: step -> {layer: Dice or None, "broken": share}."""
    means = {}
    for step in dict.fromkeys(row["step"] for row in rows):
        own = [row for row in rows if row["step"] == step]
        means[step] = {key: _mean(row[key] for row in own) for key in (*labels, "broken")}
    return means


def _mean(values) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
