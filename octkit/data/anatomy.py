"""Whether the layers of a mask lie as in an eye, and what its values may mean where they do not.

From the top an A-scan holds background, RNFL, GCIPL, background, choroid, background; any of them may be missing. How
far a mask departs from that is counted in pixels: a hole, a lost layer or a few A-scans out of order weigh little, and
a mask whose values mean something else departs nearly everywhere.
"""

from collections.abc import Mapping
from itertools import permutations
from operator import itemgetter

import numpy as np

from octkit.data.labels import GOALS_GREYS, LABELS, LAYERS, SEMSEG_GREYS

NAMES = ("elsewhere", "RNFL", "GCIPL", "choroid")
A_SCANS = 64  # so many, evenly spread, stand for all
MOST = 0.7  # share of the pixels that one layer may cover: a frame cropped to the retina has 0.3
# Of the layers' pixels a share may be out of order. The least exchange of meanings (RNFL and GCIPL of a macula) gave
# 0.065 of phantoms.
SUSPECT = 0.02  # above it other meanings of the values are tried …
BETTER = 0.25  # … and believed where they leave so much of it at most
HOPELESS = 0.2  # above it a mask is wrong whatever its values mean

Reading = tuple[tuple[int, ...], bool]  # the true label of each label, and whether the mask is upside down


def impossible(mask: np.ndarray, values: Mapping[int, int]) -> tuple[str, str] | None:
    """What is impossible in a mask of RNFL, GCIPL and choroid, and how to mend it: two half sentences, or None.

    `mask` is (*spatial) uint8 labels as they were read with `values`, value in the file -> label. What a diseased eye
    or an unfinished mask shows is possible: a layer that is missing or has a hole, layers out of order in some A-scans,
    A-scans without labels.
    """
    a_scans = np.moveaxis(mask, -2, 0).reshape(mask.shape[-2], -1)
    a_scans = a_scans[:, ::-(-a_scans.shape[1] // A_SCANS)]
    covered, wrong = _largest_share(a_scans), out_of_order(a_scans)
    if covered <= MOST and wrong <= SUSPECT:
        return None
    codes = {label: value for value, label in reversed(list(values.items())) if (a_scans == label).any()}
    readings = _better(a_scans, SUSPECT if covered > MOST else BETTER * wrong, codes)
    if covered <= MOST and wrong <= HOPELESS and not readings:
        return None
    shares = ", ".join(f"{NAMES[label]} on {(a_scans == label).mean():.0%}" for label in sorted(codes) if label)
    found = f"shows what no eye has ({shares} of the pixels, of these {wrong:.0%} out of order)"
    order = f"expected {' above '.join(LAYERS)}"
    if len(readings) != 1:
        return found, f"{order}: look up what its values mean, or draw it anew"
    [(meaning, flipped)] = readings
    if all(meaning[label] == label for label in codes):
        return "has its layers upside down", f"{order}: flip it, and its image where that is upside down, too"
    ours = {label: value for value, label in reversed(list(values.items()))}
    in_order = sorted(codes.items(), key=itemgetter(1))  # of the values
    looks_like = ", ".join(f"{value} {NAMES[meaning[label]]}" for label, value in in_order)
    changes = ", ".join(f"{ours[meaning[label]]} for {value}" for label, value in in_order)
    return found, (f"{order}; its values look like {looks_like}: write {changes}"
                   + ("; and it is upside down: flip it" if flipped else ""))


def out_of_order(a_scans: np.ndarray) -> float:
    """The share of the layers' pixels that no six regions in the right order can explain; `a_scans` (rows, n) labels.

    For each A-scan the borders of the regions are taken that explain most pixels.
    """
    explained = np.zeros((len(a_scans) + 1, a_scans.shape[1]), np.int32)  # of the pixels above each row, at most
    for label in LABELS:
        above = np.pad(np.cumsum(a_scans == label, axis=0, dtype=np.int32), ((1, 0), (0, 0)))
        explained = above + np.maximum.accumulate(explained - above, axis=0)  # the region may begin at any row
    return float((a_scans.size - explained[-1].sum()) / max(np.count_nonzero(a_scans), 1))


def _largest_share(a_scans: np.ndarray) -> float:
    return max(float((a_scans == label).mean()) for label in (1, 2, 3))


def _better(a_scans: np.ndarray, limit: float, codes: Mapping[int, int]) -> list[Reading]:
    """The readings of a mask that leave the fewest pixels out of order, `limit` at most: several where it is not plain.

    `codes` are the labels in the mask and their values in the file. Among equals known codings alone are believed, and
    those that need no flip.
    """
    found: dict[Reading, float] = {}
    for meaning in permutations(range(4)):
        for flipped in (False, True):
            read = np.array(meaning, np.uint8)[a_scans[::-1] if flipped else a_scans]
            if _largest_share(read) <= MOST and (wrong := out_of_order(read)) <= limit:
                # What stands for labels that are not in the mask makes no difference.
                found[tuple(meaning[label] if label in codes else -1 for label in range(4)), flipped] = wrong
    readings = [reading for reading, wrong in found.items() if wrong == min(found.values())]
    known = [(meaning, flipped) for meaning, flipped in readings if len(codes) > 2 and any(  # 0 and 255 say nothing
        all(coding.get(value) == meaning[label] for label, value in codes.items())
        for coding in (GOALS_GREYS, SEMSEG_GREYS))]
    upright = [reading for reading in known or readings if not reading[1]]
    return upright or known or readings
