"""What of a scan was seen: A-scans with a signal, boundaries that are located in them, and what lies between the seen.

A layer that was not seen is not thin: its thickness there is not known.
"""

import numpy as np
from scipy.ndimage import uniform_filter1d

from octkit.data.labels import BETWEEN

# Share of the image's height; a boundary whose place has a larger standard deviation is not located (38 um in a whole
# frame, as much as a thin RNFL).
WIDE = 0.02
# Contrast of an A-scan as a share of the strong ones' (their 90th percentile). Behind vessels and opacities phantoms of
# all looks keep at least 0.20 of it and ten real scans 0.33; black columns have none, black ones of a JPEG file little.
FAINT = 0.1


def has_signal(image: np.ndarray) -> np.ndarray:
    """Whether an A-scan shows anything: (W,) bool for a scan (channels, H, W).

    Its contrast is the standard deviation down the column, after a mean over a fiftieth of the rows against noise. Of
    several channels one is enough. In an image of one grey value no A-scan has a signal.
    """
    smooth = uniform_filter1d(np.asarray(image, float), max(1, image.shape[1] // 50), axis=1)
    contrast = smooth.std(axis=1)
    return (contrast > FAINT * np.percentile(contrast, 90, axis=1, keepdims=True)).any(axis=0)


def located(doubt: np.ndarray, height: int) -> np.ndarray:
    """Where boundaries are located, (5, W) bool, by the standard deviations of their places, `doubt` (5, W) px."""
    return doubt <= WIDE * height


def layers_seen(doubt: np.ndarray, height: int) -> np.ndarray:
    """Where RNFL, GCIPL and choroid are seen, (3, W) bool: both boundaries of the layer are located."""
    known = located(doubt, height)
    return np.stack([known[upper] & known[lower] for upper, lower in BETWEEN.values()])


def layer_widths(half_widths: np.ndarray, height: int) -> np.ndarray:
    """How sure each layer's thickness is in an A-scan, (3, W) px, by its boundaries' half widths (5, W) for 68 %.

    Both boundaries' together, as of errors that are independent. One that is not located counts as at the limit: its
    thickness is bridged.
    """
    near = np.minimum(half_widths, WIDE * height)
    return np.stack([np.hypot(near[upper], near[lower]) for upper, lower in BETWEEN.values()])


def longest_gap(seen: np.ndarray, circular: bool) -> int:
    """The most A-scans in one piece that are not seen, of (W,) bool; on a circle a piece may lie across the seam."""
    places = np.flatnonzero(np.tile(seen, 2) if circular else seen)
    if not places.size:
        return len(seen)
    ends = () if circular else (-1, len(seen))
    return int(np.diff(np.sort([*places, *ends])).max(initial=1)) - 1


def bridged(line: np.ndarray, circular: bool = True) -> np.ndarray:
    """A profile (W,) with its gaps (nan) filled, straight from one edge to the other; where all or nothing is seen, as
    it is.

    On a circle a gap at the seam has its other edge there; at the end of a line the last seen value goes on.
    """
    seen, places = np.isfinite(line), np.arange(len(line))
    if seen.all() or not seen.any():
        return line
    return np.interp(places, places[seen], line[seen], period=len(line) if circular else None)
