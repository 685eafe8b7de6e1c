"""Values in mask files to labels; for foreign values a guess what they may mean, which is never applied by itself."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_dilation

from octkit.common.errors import bad_file, by

EDGE = 0.2  # the share of a mask's pixels that may lie on soft borders, in small masks too


def decode(path: Path, stored: np.ndarray, values: Mapping[int, int]) -> np.ndarray:
    """The labels (*spatial) uint8 of a mask's `stored` values; `values` maps a value in the file to its label.

    Raises OctkitError for values that are not in `values`: it names them, and what they may mean where that is plain.
    """
    mask, known = np.zeros(stored.shape, np.uint8), np.zeros(stored.shape, bool)
    for value, label in values.items():
        found = stored == value
        mask[found] = label
        known |= found
    if not known.all():
        guess = proposal(stored, values)
        raise bad_file(path, f"found mask values {some(np.unique(stored[~known]).tolist())}",
                       f"expected only {some(sorted(values))}" + (f"; {guess}" if guess else ""))
    return mask


def check_size(path: Path, found: Sequence[int], expected: Sequence[int], like: Path | str = "its image") -> None:
    """Raises OctkitError for a mask (a channel, a prediction) of another size than the scan `like`."""
    if tuple(found) != tuple(expected):
        unit = "px" if len(found) == 2 else "voxels"
        raise bad_file(path, f"found {by(found)} {unit}", f"expected {by(expected)} {unit} like {like}")


def some(values: Sequence[float]) -> str:
    """The first eight values for a sentence, and how many there are where there are more."""
    shown = ", ".join(f"{value:g}" for value in values[:8])
    return shown + (f", … ({len(values)} in all)" if len(values) > 8 else "")


def proposal(pixels: np.ndarray, values: Mapping[int, int]) -> str:
    """How a mask (*spatial) could be mended whose values are not all in `values` (value in the file -> label).

    A half sentence such as "it looks inverted: write 255 - value", or "" where nothing is plain: label numbers, label
    numbers spread over the greys (0, 85, 170, 255), inverted greys, greys spread to 16 bits, and smoothed borders.
    """
    found = set(np.unique(pixels).tolist())
    # The first value of each label.
    codes = dict(sorted({label: value for value, label in reversed(list(values.items()))}.items()))
    if found <= set(codes):
        return f"they look like label numbers: write {', '.join(f'{codes[label]} for {label}' for label in codes)}"
    if {255 - value for value in found} <= set(values):
        return "it looks inverted: write 255 - value"
    if {value / 257 for value in found} <= set(values):
        return "they look like the expected values spread to 16 bits: write value / 257"
    step = min(found - {0}, default=0)
    if found == {label * step for label in codes}:
        changes = ", ".join(f"{value} for {label * step:g}" for label, value in codes.items())
        return f"they look like label numbers times {step:g}: write {changes}"
    known = np.isin(pixels, list(values))
    # Many values, all between known ones: one or two are rather a layer of their own.
    between = min(values) <= min(found) and max(found) <= max(values) and len(found - set(values)) > 2
    if between and (~known).mean() < EDGE:
        beside = binary_dilation(known, np.ones((1,) * (known.ndim - 2) + (3, 3), bool))  # in the last two axes
        if beside[~known].mean() > 0.9:
            return (f"{(~known).mean():.1%} of the pixels lie between, as on smoothed edges: make it again without "
                    "interpolation (the nearest values would draw rims of other layers)")
    return ""
