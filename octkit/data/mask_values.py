"""What a mask with foreign values may mean: a guess for the user, never applied by itself."""

from collections.abc import Mapping

import numpy as np

EDGE = 0.2  # the share of a mask's pixels that may lie on soft borders, in small masks too


def proposal(pixels: np.ndarray, values: Mapping[int, int]) -> str:
    """How a mask (*spatial) could be mended whose values are not all in `values` (value in the file -> label).

    A half sentence such as "it looks inverted: write 255 - value", or "" where nothing is plain: label numbers, label
    numbers spread over the greys (0, 85, 170, 255), inverted greys, and borders that were smoothed.
    """
    found = set(np.unique(pixels).tolist())
    codes = {label: value for value, label in reversed(values.items())}  # the first value of each label
    labels = sorted(codes)
    if found <= set(labels):
        return f"they look like label numbers: write {_mapping({label: codes[label] for label in labels})}"
    if {255 - value for value in found} <= set(values):
        return "it looks inverted: write 255 - value"
    step = min(found - {0}, default=0)
    if found == {label * step for label in labels}:
        spread = {label * step: codes[label] for label in labels}
        return f"they look like label numbers times {step:g}: write {_mapping(spread)}"
    known = np.isin(pixels, list(values))
    # Many values, all between known ones: one or two are rather a layer of their own.
    between = min(values) <= min(found) and max(found) <= max(values) and len(found - set(values)) > 2
    if between and (~known).mean() < EDGE and _beside(known, ~known):
        return (f"{(~known).mean():.1%} of the pixels lie between, as on smoothed edges: make it again without "
                "interpolation (the nearest values would draw rims of other layers)")
    return ""


def _mapping(changes: Mapping[float, int]) -> str:
    return ", ".join(f"{new} for {old:g}" for old, new in changes.items())


def _beside(known: np.ndarray, foreign: np.ndarray) -> bool:
    """Whether nearly all foreign pixels touch a known one, in the last two axes."""
    rows, columns = known.shape[-2:]
    padded = np.pad(known, [(0, 0)] * (known.ndim - 2) + [(1, 1), (1, 1)])
    touched = np.zeros_like(known)
    for down in range(3):
        for right in range(3):
            touched |= padded[..., down:down + rows, right:right + columns]
    return bool(touched[foreign].mean() > 0.9)
