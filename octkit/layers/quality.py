"""How far a scan's boundaries can be trusted: where models disagree, and a flag with its reasons.

Two sources of doubt: each model's own (`surfaces.uncertainty`, the width), and the spread between models, or between
mirrored copies seen by one model. The flag is for the whole scan and says "look at this one before you use it".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from octkit.common.errors import OctkitError
from octkit.data.labels import BETWEEN, BOUNDARIES
from octkit.layers.boundaries import mask_from, ordered_boundaries

LAYER_NAMES = {1: "RNFL", 2: "GCIPL", 3: "choroid"}


@dataclass(frozen=True)
class Limits:
    """From where on a scan is flagged.

    wide: share of the image's height; a boundary with a larger standard deviation is not located (38 um in a whole
        frame, as much as a thin RNFL).
    wide_share, missing_share: share of A-scans in which a boundary may be wide, a layer not be seen at all.
    contradicted: share of the foreground (the network's and the drawn layers' together) on which the two may differ.
    border_share: share of A-scans in which ILM or the choroid's bottom may lie within a row of the image's border.

    Chosen on phantoms with simulated probabilities (blurred labels with noise, two sizes, 8 eyes each), between damage
    that the surfaces mend (a layer lost or two swapped along 3 % of the scan, 5 % opaque, islands along 10 %: wide at
    most 0.16, contradicted at most 0.13, border 0) and damage that they cannot (the same along 20 %, folded scans,
    scans cut off at the top along 20 %, noise: wide at least 0.16, or border at least 0.2). No real scan was looked at.
    """

    wide: float = 0.02
    wide_share: float = 0.15
    missing_share: float = 0.15
    contradicted: float = 0.15
    border_share: float = 0.05


@dataclass(frozen=True)
class Quality:
    """Whether a scan's boundaries may be used without a look at them, and if not, why: one sentence a reason."""

    trusted: bool
    reasons: tuple[str, ...]


def boundary_spread(probabilities: Sequence[np.ndarray], circular: bool) -> np.ndarray:
    """How far models disagree: standard deviation of each boundary over them, (5, W) float64 in px.

    `probabilities` has (4, H, W) from each model (or mirrored copy, mirrored back), as `ordered_boundaries` takes them.
    Raises OctkitError for fewer than two, which cannot disagree, and for different shapes.
    """
    shapes = {np.shape(member) for member in probabilities}
    if len(probabilities) < 2 or len(shapes) > 1:
        raise OctkitError(f"spread of boundaries: found {len(probabilities)} models with probabilities of shape "
                          f"{', '.join(map(str, sorted(shapes))) or 'none'}, expected at least two of one shape")
    return np.std([ordered_boundaries(member, circular)[0] for member in probabilities], axis=0, ddof=1)


def doubt(width: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Both sources of doubt in one standard deviation, (5, W) in px: their variances add up."""
    return np.hypot(width, spread)


def quality(boundaries: np.ndarray, width: np.ndarray, spread: np.ndarray, probabilities: np.ndarray,
            limits: Limits | None = None) -> Quality:
    """Flag a scan whose boundaries should not be used before somebody has looked.

    Args:
        boundaries, width: what `ordered_boundaries` gave for the scan, (5, W) each.
        spread: what `boundary_spread` gave, or zeros where there is one model only.
        probabilities: (4, H, W) that the boundaries were found in.
    """
    limits = limits or Limits()
    return Quality(not (reasons := _reasons(measures(boundaries, width, spread, probabilities, limits.wide), limits)),
                   reasons)


def measures(boundaries: np.ndarray, width: np.ndarray, spread: np.ndarray, probabilities: np.ndarray,
             wide: float) -> dict[str, np.ndarray | float]:
    """What the flag is decided on, all shares from 0 to 1.

    `wide` (5,): A-scans in which a boundary is not located; `missing` (3,): A-scans in which no pixel of a drawn
    layer has that layer as its likeliest label; `contradicted`: pixels on which drawn layers and likeliest labels
    differ, of those that either calls foreground; `border` (2,): A-scans with the ILM or the choroid's bottom within a
    row of the border.
    """
    height = probabilities.shape[1]
    drawn, likeliest = mask_from(boundaries, height), probabilities.argmax(axis=0)
    foreground = np.count_nonzero((drawn > 0) | (likeliest > 0))
    right = [(drawn == label) & (likeliest == label) for label in BETWEEN]
    return {"wide": (doubt(width, spread) > wide * height).mean(axis=1),
            "missing": np.array([1 - layer.any(axis=0).mean() for layer in right]),
            "contradicted": np.count_nonzero(drawn != likeliest) / max(foreground, 1),
            "border": np.array([(boundaries[0] < 1).mean(), (boundaries[4] > height - 1).mean()])}


def _reasons(found: dict, limits: Limits) -> tuple[str, ...]:
    reasons = [f"{LAYER_NAMES[label]} is not seen in {share:.0%} of the A-scans"
               for label, share in zip(BETWEEN, found["missing"], strict=True) if share > limits.missing_share]
    reasons += [f"the boundary {name} is not located in {share:.0%} of the A-scans"
                for name, share in zip(BOUNDARIES, found["wide"], strict=True) if share > limits.wide_share]
    if found["contradicted"] > limits.contradicted:
        reasons.append(f"the network's labels and the drawn layers differ on {found['contradicted']:.0%} of the "
                       "foreground")
    reasons += [f"the {name} lies at the image's border in {share:.0%} of the A-scans"
                for name, share in zip(("ILM", "choroid's bottom"), found["border"], strict=True)
                if share > limits.border_share]
    return tuple(reasons)
