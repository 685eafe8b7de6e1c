"""Is a scan what the model reads, a circle around the optic disc? Or a line through macula or disc, or no OCT at all?

A few numbers describe the boundaries that were found (`describe`), and a logistic regression gives each kind of picture
its probability (`chances`). Its parameters belong to one model; `benchmarks/scope.py` fits them and measures how often
they err. Lengths are compared with the outer retina (GCIPL to choroid), which is alike all round the disc and which
glaucoma spares: no scale is needed. The choroid's thickness has no say, as eyes differ too much.

What a circle has, in health and in glaucoma: an RNFL thicker than the GCIPL (around the fovea it is the other way),
layers that are even but for the RNFL's two humps, in TSNIT order (or mirrored), no pit, ends that meet, and a course of
Bruch's membrane like a wave (a line's is like a bowl). Ends that do not meet are not enough: circles may be cut.
"""

from collections.abc import Mapping

import numpy as np
from scipy.ndimage import uniform_filter1d
from scipy.special import softmax

from octkit.common.errors import OctkitError
from octkit.data.measured import KINDS, Scope
from octkit.layers.boundaries import mask_from
from octkit.layers.seen import located

LOOKS_LIKE = {"macula": "it looks like a line scan through the macula",
              "disc": "it looks like a line scan through the optic disc or beside it",
              "other": "it looks like no upright OCT scan"}
BY_ITS_FILE = "not a circle scan around the disc: its file says that it is a line scan"
FARTHEST = 3.0  # standard deviations: no single number has more of a say, however odd it is
ENDS = ("rnfl_ends", "gcipl_ends", "ilm_ends", "bruch_ends")


def describe(boundaries: np.ndarray, doubt: np.ndarray, likeliest: np.ndarray, circular: bool) -> dict[str, float]:
    """What tells circle scans from other pictures, by name: logarithms of ratios, and shares.

    `boundaries` and the standard deviation of their places, `doubt`, are (5, W) px; `likeliest` (H, W) uint8 has each
    pixel's most probable label. The ENDS are nan where the scan is not said to be `circular`.
    """
    height, width = likeliest.shape
    layers = np.diff(boundaries, axis=0)[:3]
    rnfl, gcipl, outer = uniform_filter1d(layers, max(3, width // 40), axis=1, mode="nearest")
    edge = width // 50  # boundaries that were made to close are bent there
    inside, ruler = slice(edge, width - edge), max(float(np.median(outer)), 1e-3)
    retina = rnfl + gcipl + outer
    angle = 2 * np.pi * np.arange(width) / width
    wave_1, wave_2 = (np.stack([np.cos(order * angle), np.sin(order * angle)]) for order in (1, 2))
    bowl = np.vander(np.linspace(-1, 1, width), 3).T  # square, slope, constant
    drawn, lost = mask_from(boundaries, height), 1 - located(doubt, height).mean(axis=1)
    foreground = max(int(np.count_nonzero((drawn > 0) | (likeliest > 0))), 1)
    ends = (_ends_apart(np.vstack([layers[:2], boundaries[[0, 3]]]), edge) / ruler if circular else np.full(4, np.nan))
    return {
        "rnfl_to_gcipl": _log(np.median(rnfl) / np.median(gcipl)), "rnfl_to_outer": _log(rnfl.mean() / ruler),
        "outer_to_retina": _log(ruler / np.median(retina)),
        "thin_rnfl": _log(np.percentile(rnfl, 10) / ruler), "thin_gcipl": _log(np.percentile(gcipl, 10) / ruler),
        "uneven_gcipl": _log(gcipl[inside].std() / gcipl.mean() + 0.02),
        "uneven_outer": _log(outer[inside].std() / ruler + 0.02),
        "pit": float(1 - retina[inside].min() / np.median(retina)),
        "thin_middle": float(wave_1[0] @ rnfl / rnfl.sum()), "two_humps": float(-wave_2[0] @ rnfl / rnfl.sum()),
        "one_side": float(abs(wave_1[1] @ rnfl) / rnfl.sum()),
        "bowl_to_wave": _log(_left_over(boundaries[3], bowl, inside, ruler)
                             / _left_over(boundaries[3], np.vstack([bowl[2:], wave_1, wave_2]), inside, ruler)),
        "lost_retina": float(lost[:3].mean()), "lost_choroid": float(lost[3:].mean()),
        "doubt": _log(np.median(doubt[:4]) / ruler + 0.003),
        "contradicted": float(np.sqrt(np.count_nonzero(drawn != likeliest) / foreground)),
        **{name: _log(apart + 0.03) for name, apart in zip(ENDS, ends, strict=True)}}


def chances(found: Mapping[str, float], scope: Scope) -> dict[str, float]:
    """The probability of each of `KINDS`, by what `describe` has `found`; what is nan has no say.

    Raises OctkitError where the model asks for what this octkit does not describe.
    """
    if unknown := [name for name in scope.features if name not in found]:
        raise OctkitError(f"the model's scope: found {unknown[0]!r}, expected what this octkit knows of a scan "
                          f"({', '.join(found)}); a newer octkit may know it")
    off = np.array([(found[name] - mean) / spread for name, (mean, spread) in scope.features.items()])
    off = np.append(np.clip(np.nan_to_num(off), -FARTHEST, FARTHEST), 1)
    logits = np.array([scope.weights[kind] for kind in KINDS]) @ off
    return dict(zip(KINDS, map(float, softmax(logits)), strict=True))


def outside(found: Mapping[str, float], scope: Scope) -> str | None:
    """Why a scan is out of a model's scope, in one sentence; None where it is in scope. As `chances`."""
    chance = chances(found, scope)
    if chance[KINDS[0]] >= scope.least:
        return None
    return f"not a circle scan around the disc: {LOOKS_LIKE[max(LOOKS_LIKE, key=lambda kind: chance[kind])]}"


def _ends_apart(lines: np.ndarray, edge: int) -> np.ndarray:
    """How far the ends of lines (n, W) are apart where they would meet, (n,): each a straight line through 6 % of the
    A-scans, beginning `edge` from the end."""
    places = np.arange(edge, edge + max(lines.shape[1] // 16, 2))
    at = np.minimum(places, lines.shape[1] - 1)
    first, last = (np.polyfit(places + 0.5, end[:, at].T, 1)[1] for end in (lines, lines[:, ::-1]))
    return np.abs(first - last)


def _left_over(line: np.ndarray, courses: np.ndarray, inside: slice, ruler: float) -> float:
    """Standard deviation of what the best sum of `courses` (n, W) leaves of a line (W,), and 1 % of the `ruler`."""
    best, *_ = np.linalg.lstsq(courses.T, line, rcond=None)
    return float((line - best @ courses)[inside].std()) + 0.01 * ruler


def _log(value: float) -> float:
    return float(np.log(max(value, 1e-3)))
