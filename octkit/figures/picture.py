"""What all figures share: a picture, its legend, how it is saved, how layers and units are written."""

import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.text import Text

from octkit.common.files import write_atomic
from octkit.common.language import language
from octkit.figures.chinese import font, in_chinese
from octkit.planning.run import Run

LAYER_NAMES = {"rnfl": "RNFL", "gcipl": "GCIPL", "choroid": "choroid"}
POWER = re.compile(r"\$\\mathdefault\{[-−\d.]*(\\times)?(\d+\^\{[-−\d.]+\})?\}\$")  # noqa: RUF001 (an axis writes so)
DPI = 144  # 1.5 pixels of the file to one of the page: sharp, and a scan's figure still under half a megabyte


class Picture(Figure):
    """A Figure that a notebook shows without pyplot, with a text for readers who cannot see it."""

    alt = ""

    def with_alt(self, alt: str) -> "Picture":
        """The picture itself, with this text for readers who cannot see it."""
        self.alt = alt
        return self

    def _repr_png_(self) -> tuple[bytes, dict]:
        return png(self), {"alt": self.alt, "width": round(self.get_figwidth() * 96)}


def new_picture(title: str, rows: int = 1, columns: int = 1, size: tuple[float, float] = (9, 4),
                **grid: Any) -> tuple[Picture, np.ndarray]:
    """An empty Picture with a title over a grid of axes: (picture, axes (rows, columns)); size in inches."""
    picture = Picture(figsize=size, layout="constrained")
    FigureCanvasAgg(picture)
    picture.alt = title
    picture.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    axes = picture.subplots(rows, columns, squeeze=False, **grid)
    for ax in axes.flat:
        ax.tick_params(labelsize=8)
        ax.xaxis.label.set_size(9)
        ax.yaxis.label.set_size(9)
        ax.spines[["top", "right"]].set_visible(False)
    return picture, axes


def png(picture: Picture) -> bytes:
    """The figure as a PNG file's bytes, in the chosen language, its title and text alternative in the file's header."""
    with in_chinese(picture):
        return _png(picture)


def _png(picture: Picture) -> bytes:
    buffer = BytesIO()
    for text in picture.findobj(Text):  # a name with two $ is no formula; the axes' own powers of ten are
        text.set_parse_math(POWER.fullmatch(text.get_text()) is not None)
    # Software: None keeps the matplotlib version out, so equal figures are equal files.
    picture.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={
        "Title": picture.get_suptitle(), "Description": picture.alt, "Software": None})
    return buffer.getvalue()


def save(run: Run, picture: Picture, name: str) -> Picture:
    """Write the figure as <name>.png into the run's figures and return it: a cell that ends with this shows it.

    That one is English in any language: a step's files tell whether it has to run again. The other is zh/<name>.png.
    """
    path, english = run.figures / f"{name}.png", _png(picture)
    if language() == "zh" and font():
        write_atomic(_chinese(path), png(picture))
    elif not path.exists() or path.read_bytes() != english:  # else the Chinese one, if any, shows the same
        _chinese(path).unlink(missing_ok=True)
    write_atomic(path, english)
    return picture


def saved_figures(run: Run, pattern: str) -> list[Path]:
    """The run's figures whose names match, in their order; in Chinese where that is chosen and they were drawn so."""
    return [_chinese(path) if language() == "zh" and _chinese(path).is_file() else path
            for path in sorted(run.figures.glob(pattern))]


def _chinese(path: Path) -> Path:
    return path.parent / "zh" / path.name


def layer_name(label: str) -> str:
    """How a label is written in figures: RNFL and GCIPL are acronyms."""
    return LAYER_NAMES.get(label, label)


def unit_name(unit: str) -> str:
    """How a unit is written in figures: um is µm."""
    return "µm" if unit == "um" else unit


def legend_below(picture: Picture, handles: Sequence[Artist] | None = None, columns: int = 4) -> None:
    """A legend below the axes, where it hides no data: of all that has a label there, or of the handles given."""
    picture.legend(handles=handles, loc="outside lower left", ncols=columns, frameon=False, fontsize=8)


def colour_bar(picture: Picture, shown: ScalarMappable, ax: Axes | list[Axes], label: str) -> None:
    """A colour bar beside axes, written like their other labels."""
    bar = picture.colorbar(shown, ax=ax, shrink=0.8)
    bar.set_label(label, size=9)
    bar.ax.tick_params(labelsize=8)
