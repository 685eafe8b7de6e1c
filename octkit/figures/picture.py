"""What all figures share: colours, sizes, a picture, saving it."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from octkit.common.errors import OctkitError
from octkit.common.files import write_atomic
from octkit.planning.run import Run

LAYER_COLOURS = {"rnfl": "#E69F00", "gcipl": "#56B4E9", "choroid": "#009E73"}

# For labels that are no layer of ours, in their order; the three above are taken.
OTHER_COLOURS = ("#CC79A7", "#0072B2", "#D55E00", "#F0E442")

# What is wrong in a prediction: truth lost, something made up, one layer taken for another.
ERROR_COLOURS = {"missed": "#D55E00", "added": "#CC79A7", "swapped": "#F0E442"}

LAYER_NAMES = {"rnfl": "RNFL", "gcipl": "GCIPL", "choroid": "choroid"}

GREY = "#4D4D4D"

DPI = 144  # 1.5 pixels of the file to one of the page: sharp, and a scan's figure still under half a megabyte

Scale = float | tuple[float, float] | None  # µm per px: axial, or (axial, lateral); None: unknown


class Picture(Figure):
    """A Figure that shows itself in a notebook, with a text for readers who cannot see it.

    A bare Figure has no picture of its own: notebooks show one only after pyplot has registered it.
    """

    alt = ""

    def _repr_png_(self) -> tuple[bytes, dict]:
        return png(self), {"alt": self.alt, "width": round(self.get_figwidth() * 96)}


def new_picture(title: str, rows: int = 1, columns: int = 1, size: tuple[float, float] = (9, 4), alt: str = "",
                **grid) -> tuple[Picture, np.ndarray]:
    """An empty Picture with a title over a grid of axes: (picture, axes (rows, columns)); size in inches."""
    picture = Picture(figsize=size, layout="constrained")
    FigureCanvasAgg(picture)
    picture.alt = alt or title
    picture.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    axes = picture.subplots(rows, columns, squeeze=False, **grid)
    for ax in axes.flat:
        ax.tick_params(labelsize=8)
        ax.xaxis.label.set_size(9)
        ax.yaxis.label.set_size(9)
        ax.spines[["top", "right"]].set_visible(False)
    return picture, axes


def png(picture: Figure) -> bytes:
    """The figure as the bytes of a PNG file, with its title and its text alternative in the file's header."""
    buffer = BytesIO()
    title = picture.get_suptitle()
    for text in picture.findobj(Text):  # a name with two $ is no formula; the axes' own powers of ten are
        text.set_parse_math("mathdefault" in text.get_text())
    # Software: None keeps the matplotlib version out, so equal figures are equal files.
    picture.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={
        "Title": title, "Description": getattr(picture, "alt", "") or title, "Software": None})
    return buffer.getvalue()


def save(run: Run, picture: Figure, name: str) -> Path:
    """Write the figure into the run's figures, as <name>.png; returns the path."""
    return write(picture, run.figures / f"{name}.png")


def write(picture: Figure, path: str | Path) -> Path:
    """Write the figure as PNG, whole or not at all, making its folder; returns the path."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise OctkitError(f"{path}: found the ending {path.suffix or '(none)'}, expected .png")
    write_atomic(path, png(picture))
    return path


def layer_name(label: str) -> str:
    """How a label is written in figures: RNFL and GCIPL are acronyms."""
    return LAYER_NAMES.get(label, label)


def label_colours(labels: Sequence[str]) -> dict[str, str]:
    """Label name -> colour; our three layers always have theirs."""
    others = [label for label in labels if label not in LAYER_COLOURS]
    spare = {label: OTHER_COLOURS[i % len(OTHER_COLOURS)] for i, label in enumerate(others)}
    return {label: LAYER_COLOURS.get(label) or spare[label] for label in labels}


def colour_bar(picture: Picture, shown, ax, label: str) -> None:
    """A colour bar beside axes, written like their other labels."""
    bar = picture.colorbar(shown, ax=ax, shrink=0.8)
    bar.set_label(label, size=9)
    bar.ax.tick_params(labelsize=8)
