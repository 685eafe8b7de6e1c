"""Whether a scan's grey values lie where others' do: 0 … 1, 12 bits in 16, or inverted greys look like nothing learned.

The scale is that of the usual values, 0 at their low end and 1 at their high end. Phantoms of many devices have their
99.5 percentile from 0.53 to 1.16 of it and their median up to 0.42; values times 1/4 reach 0.29, times 4 begin at 2.1,
and inverted ones have their median at 0.69 and above. A changed contrast (gamma) cannot be told from another device's.
"""

import numpy as np

DARK, BRIGHT = 0.4, 1.6  # the 99.5 percentile lies between
HIGH_MEDIAN = 0.6  # most pixels of a scan lie outside of the bright layers: their median is lower
ENOUGH = 500_000  # pixels, evenly spread, stand for all of a volume

GreyRange = tuple[float, float, float]


def grey_range(channel: np.ndarray) -> GreyRange:
    """The 0.5, 50 and 99.5 percentiles of a channel's values, (*spatial) of any kind."""
    values = channel.ravel()
    # An odd step does not stay in one A-scan where their number is even.
    low, median, high = np.percentile(values[::values.size // ENOUGH | 1], (0.5, 50, 99.5))
    return float(low), float(median), float(high)


def odd_range(found: GreyRange, low: float, high: float) -> str | None:
    """How a scan's grey values differ by far from usual ones, which lie between `low` and `high`; None where not."""
    if high <= low:
        return None
    _, median, top = ((value - low) / (high - low) for value in found)
    if top < DARK:
        return "far too dark"
    if top > BRIGHT:
        return "far too bright"
    return "inverted, or too bright in most pixels" if median > HIGH_MEDIAN else None


def shown(low: float, high: float) -> str:
    """A range for a sentence: "0 to 0.93", "26 to 44461"."""
    return " to ".join(f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}" for value in (low, high))
