"""How far a scan's boundaries can be trusted: a flag with its reasons.

The flag is for the whole scan and says "look at this one before you use it". Its limits were chosen on phantoms with
simulated probabilities (blurred labels with noise, two sizes, 8 eyes each), between damage that ordered boundaries mend
(a layer lost or two swapped along 3 % of the scan, 5 % opaque, islands along 10 %: wide at most 0.16, contradicted at
most 0.13, border 0) and damage that they cannot (the same along 20 %, folded scans, scans cut off at the top along
20 %, noise: wide at least 0.16, or border at least 0.2). No real scan was looked at.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from octkit.data.anatomy import NAMES, out_of_order
from octkit.data.labels import BETWEEN, BOUNDARIES, LAYERS
from octkit.layers.boundaries import mask_from
from octkit.layers.seen import located, longest_gap

WIDE_SHARE = MISSING_SHARE = 0.15  # of the A-scans: a boundary may not be located, a layer not be seen in so many
CONTRADICTED = 0.15  # share of the foreground (the network's and the drawn layers') on which the two may differ
GAP = 15  # degrees of a circle (of a line: as large a share of it) in which a boundary may be lost in one piece
BORDER_SHARE = 0.05  # of the A-scans: ILM or choroid's bottom may lie within a row of the image's border in so many


@dataclass(frozen=True)
class Quality:
    """Whether what was found in a scan may be used without a look at it, and if not, why: one sentence a reason."""

    trusted: bool
    reasons: tuple[str, ...]


def quality(boundaries: np.ndarray, doubt: np.ndarray, probabilities: np.ndarray, circular: bool) -> Quality:
    """Flag a scan whose boundaries should not be used before somebody has looked.

    `boundaries` and the standard deviation of their places, `doubt`, are (5, W); they were found in the `probabilities`
    (4, H, W). `circular`: the last A-scan is the neighbour of the first.
    """
    found = measures(boundaries, doubt, probabilities, circular)
    reasons = [f"{NAMES[label]} is not seen in {share:.0%} of the A-scans"
               for label, share in zip(BETWEEN, found["missing"], strict=True) if share > MISSING_SHARE]
    reasons += [f"the boundary {name} is not located in {share:.0%} of the A-scans"
                for name, share in zip(BOUNDARIES, found["wide"], strict=True) if share > WIDE_SHARE]
    if lost := [name for name, share in zip(BOUNDARIES, found["gap"], strict=True) if share > GAP / 360]:
        longest = found["gap"].max()
        reasons.append(f"{', '.join(lost)} not located along "
                       + (f"{360 * longest:.0f}° of the circle" if circular else f"{longest:.0%} of the A-scans")
                       + " in one piece")
    if found["contradicted"] > CONTRADICTED:
        reasons.append(f"the network's labels and the drawn layers differ on {found['contradicted']:.0%} of the "
                       "foreground")
    reasons += [f"the {name} lies at the image's border in {share:.0%} of the A-scans"
                for name, share in zip(("ILM", "choroid's bottom"), found["border"], strict=True)
                if share > BORDER_SHARE]
    return Quality(not reasons, tuple(reasons))


def mask_quality(mask: np.ndarray, labels: Sequence[str]) -> Quality:
    """Flag a volume whose mask, (B, H, W) uint8, should not be used before somebody has looked.

    The same measures as of a scan with boundaries, as far as a mask has them and by the same limits. Layers out of
    order count B-scan by B-scan, as a few lost ones are little of a volume. Of other `labels` nothing is known.
    """
    if tuple(labels) != LAYERS:
        return Quality(True, ())
    seen = [(layer.any(axis=1), NAMES[label]) for label in BETWEEN for layer in [mask == label]]
    reasons = [f"{name} is not seen in {1 - found.mean():.0%} of the A-scans" for found, name in seen
               if 1 - found.mean() > MISSING_SHARE]
    disordered = sum(out_of_order(b_scan) > CONTRADICTED for b_scan in mask)
    if disordered:
        reasons.append(f"the layers are out of order in {disordered} of {len(mask)} B-scans")
    reasons += [f"the {name} lies at the image's border in {share:.0%} of the A-scans"
                for name, share in (("RNFL", (mask[:, 0] == 1).mean()), ("choroid", (mask[:, -1] == 3).mean()))
                if share > BORDER_SHARE]
    return Quality(not reasons, tuple(reasons))


def measures(boundaries: np.ndarray, doubt: np.ndarray, probabilities: np.ndarray, circular: bool) -> dict[str, Any]:
    """What the flag is decided on, all shares from 0 to 1.

    `wide` (5,): A-scans in which a boundary is not located, `gap` (5,): the most of them in one piece; `missing` (3,):
    A-scans in which no pixel of a drawn layer has that layer as its likeliest label; `contradicted`: pixels on which
    drawn layers and likeliest labels differ, of those that either calls foreground; `border` (2,): A-scans with the ILM
    or the choroid's bottom within a row of the border.
    """
    height = probabilities.shape[1]
    drawn, likeliest = mask_from(boundaries, height), probabilities.argmax(axis=0)
    foreground = np.count_nonzero((drawn > 0) | (likeliest > 0))
    right = [(drawn == label) & (likeliest == label) for label in BETWEEN]
    known = located(doubt, height)
    return {"wide": 1 - known.mean(axis=1),
            "gap": np.array([longest_gap(line, circular) / len(line) for line in known]),
            "missing": np.array([1 - layer.any(axis=0).mean() for layer in right]),
            "contradicted": np.count_nonzero(drawn != likeliest) / max(int(foreground), 1),
            "border": np.array([(boundaries[0] < 1).mean(), (boundaries[4] > height - 1).mean()])}
