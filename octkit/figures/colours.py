"""The colours of all figures: one for each layer everywhere, and all told apart by colour-blind readers."""

from collections.abc import Sequence
from itertools import cycle

# The palette of Okabe and Ito (2008), and a grey.
ORANGE, SKY_BLUE, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
GREY = "#4D4D4D"

LAYER_COLOURS = {"rnfl": ORANGE, "gcipl": SKY_BLUE, "choroid": GREEN}
OTHER_COLOURS = (PURPLE, BLUE, VERMILION, YELLOW)  # of labels that are no layer of ours, in their order


def label_colours(labels: Sequence[str]) -> dict[str, str]:
    """Label name -> colour; our three layers always have theirs."""
    others = cycle(OTHER_COLOURS)
    return {label: LAYER_COLOURS.get(label) or next(others) for label in labels}
