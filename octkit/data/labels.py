"""The layers, their labels, their boundaries, and how masks code them in files."""

from collections.abc import Sequence

LAYERS = ("rnfl", "gcipl", "choroid")

# In training masks alone: what nobody has labelled. It has no loss and no metric, and no patch is centred on it.
IGNORE = 255

# The grey coding: value in the file -> label.
GOALS_GREYS = {0: 1, 80: 2, 160: 3, 255: 0}
# What copies of GOALS in folders bscan/ and semseg/ mean by the same greys.
SEMSEG_GREYS = {0: 0, 80: 1, 160: 2, 255: 3}


def mask_coding(labels: Sequence[str]) -> dict[int, int]:
    """How octkit codes PNG masks of its own, value -> label: GOALS greys for the three layers, else label numbers."""
    return dict(GOALS_GREYS) if tuple(labels) == LAYERS else {label: label for label in range(len(labels) + 1)}

BOUNDARIES = ("ILM", "RNFL/GCIPL", "GCIPL/INL", "choroid top", "choroid bottom")

LABELS = (0, 1, 2, 0, 3, 0)  # of the six regions, from the top

BETWEEN = {1: (0, 1), 2: (1, 2), 3: (3, 4)}  # label -> the boundaries above and below the layer
