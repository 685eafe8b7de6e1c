"""Boundaries corrected by hand in JupyterLab: points are dragged, and what it means for the thickness is said at once.

A boundary stops at its neighbours, so the layers stay in their order. ipympl brings the mouse to the figure.
"""

import html
from collections.abc import Callable
from typing import NamedTuple

import ipywidgets
import numpy as np
from ipympl.backend_nbagg import Canvas, FigureManager
from matplotlib.backend_bases import MouseEvent

from octkit.common.errors import OctkitError
from octkit.data.labels import BOUNDARIES
from octkit.figures.chinese import in_chinese, in_language
from octkit.figures.picture import Picture, layer_name, legend_below, new_picture, unit_name
from octkit.figures.scans import draw_boundaries
from octkit.layers.boundaries import mask_from
from octkit.layers.thickness import WHOLE, profile, sector_means

POINTS = 24  # of a boundary can be dragged: on a circle one every 15 degrees
NEAR = 12  # px of the screen: so near must the mouse be to take a point


class Move(NamedTuple):
    """One correction: the boundary's name, the A-scan of the point, and by how many rows it went down (up: below 0)."""

    boundary: str
    a_scan: int
    rows: int


def moved(boundaries: np.ndarray, height: int, move: Move, circle: bool = True) -> np.ndarray:
    """The ordered boundaries (5, W) px of a scan of `height` rows after a move: a new array.

    A-scans beside the point go along, the less the farther, those of the next points not at all. The order is kept.
    """
    which, width = BOUNDARIES.index(move.boundary), boundaries.shape[1]
    away = np.abs(np.arange(width) - move.a_scan)
    share = 1 - (np.minimum(away, width - away) if circle else away) / max(1, width // POINTS)
    limits = np.vstack([np.zeros(width), boundaries, np.full(width, height)])
    result = boundaries.copy()
    result[which] = np.clip(result[which] + move.rows * share.clip(0), limits[which], limits[which + 2])
    return result


class Editor(ipywidgets.VBox):
    """A scan, (H, W) or (1, H, W), whose `boundaries` (5, W) px can be corrected; `picture` shows it without a mouse.

    `save(mask, boundaries, moves)`, with the mask (H, W) uint8 and the moves that were not undone, returns what to say.
    `um_per_px` is a row's depth, without which thickness is in px. Raises OctkitError for boundaries of another shape.
    """

    def __init__(self, image: np.ndarray, boundaries: np.ndarray, title: str,
                 save: Callable[[np.ndarray, np.ndarray, list[Move]], str], um_per_px: float | None = None,
                 circle: bool = True):
        height, width = self._size = np.shape(image)[-2:]
        if np.shape(boundaries) != (5, width) or not np.isfinite(boundaries).all():
            raise OctkitError(f"boundaries: found {np.shape(boundaries)} values, expected (5, {width}) finite ones")
        self._um_per_px, self._circle, self._save = um_per_px, circle, save
        self.boundaries = self._shown = np.maximum.accumulate(np.clip(boundaries, 0, height))
        self.moves: list[Move] = []
        self._before: list[np.ndarray] = []  # boundaries before each move
        self._held: tuple[np.ndarray, int, float] | None = None  # where the mouse has taken a point: `_press`
        self._pending: Move | None = None  # what the mouse is about to do
        step = max(1, width // POINTS)
        self.points = np.arange(step // 2, width, step)
        self.picture = self._drawn(image, title)
        self._said = ipywidgets.HTML()
        self._which = ipywidgets.Dropdown(options=BOUNDARIES, description=in_language("boundary"))
        self._where = ipywidgets.SelectionSlider(options=self.points.tolist(), description=in_language("A-scan"))
        buttons = []
        for name, act in {"up": lambda: self._step(-1), "down": lambda: self._step(1), "undo": self.undo,
                          "save": self.save}.items():
            buttons.append(button := ipywidgets.Button(description=in_language(name)))
            button.on_click(lambda _button, act=act: act())
        super().__init__([ipywidgets.HBox([self._which, self._where]), ipywidgets.HBox(buttons), self.picture.canvas,
                          self._said])
        self._first = self.means()
        self._show(self.boundaries)

    def means(self) -> dict[str, float]:
        """Mean thickness of each layer as it is shown, measured on the mask that would be saved."""
        found = profile(self.mask(), self._um_per_px)
        return {layer: sector_means(found[layer], WHOLE, self._circle)["global"] for layer in found.layers}

    def mask(self) -> np.ndarray:
        """The mask (H, W) uint8 of what is shown."""
        return mask_from(self._shown, self._size[0])

    def move(self, move: Move) -> None:
        """Move a point; `undo` takes it back."""
        self._before.append(self.boundaries)
        self.moves.append(move)
        self.boundaries = moved(self.boundaries, self._size[0], move, self._circle)
        self._show(self.boundaries)

    def undo(self) -> None:
        """Take the last move back, if there is one."""
        if self.moves:
            self.boundaries = self._before.pop()
            self.moves.pop()
            self._show(self.boundaries)

    def save(self) -> None:
        """Hand over what is there, and say what became of it."""
        try:
            self._show(self.boundaries, self._save(self.mask(), self.boundaries, list(self.moves)))
        except OctkitError as error:  # a notebook does not show what a button raises
            self._show(self.boundaries, f"{in_language('not saved')}: {error}")

    def _step(self, rows: int) -> None:
        self.move(Move(self._which.value, self._where.value, rows))

    def _drawn(self, image: np.ndarray, title: str) -> Picture:
        height, width = self._size
        picture, ((ax,),) = new_picture(title, size=(9, 1.4 + 8 * max(0.3, height / width)))
        draw_boundaries(ax, image, self.boundaries, np.zeros((5, 1)), np.ones((5, width), bool))
        for line in ax.lines:
            line.set(marker="o", markersize=5, markevery=self.points.tolist())
        legend_below(picture, ax.lines, columns=5)
        picture.dpi = 96  # as a page counts
        canvas = _Canvas(picture)
        canvas.header_visible = False
        FigureManager(canvas, 0)
        for name, act in {"button_press_event": self._press, "motion_notify_event": self._drag,
                          "button_release_event": self._release}.items():
            canvas.mpl_connect(name, act)
        return picture.with_alt(f"{title}: OCT B-scan with five boundaries to correct.")

    def _press(self, event: MouseEvent) -> None:
        toolbar = event.canvas.toolbar
        if event.inaxes is None or toolbar is not None and toolbar.mode:  # the mouse zooms
            return
        rows = self.boundaries[:, self.points] - 0.5  # the axis counts from the first row's centre
        places = np.stack([np.broadcast_to(self.points, rows.shape), rows], axis=-1).reshape(-1, 2)
        away = np.hypot(*(event.inaxes.transData.transform(places) - (event.x, event.y)).T).reshape(rows.shape)
        column = away.min(axis=0).argmin()
        if away[:, column].min() <= NEAR:
            near = np.flatnonzero(away[:, column] <= away[:, column].min() + 1)  # boundaries that meet there
            self._held = near, int(self.points[column]), self._row(event)

    def _row(self, event: MouseEvent) -> float:  # also outside the axes, where an event has none
        return self.picture.axes[0].transData.inverted().transform((event.x, event.y))[1]

    def _drag(self, event: MouseEvent) -> None:
        if self._held is not None:
            near, a_scan, start = self._held
            rows = round(self._row(event) - start)
            move = self._pending = Move(BOUNDARIES[near[-1] if rows > 0 else near[0]], a_scan, rows) if rows else None
            self._show(moved(self.boundaries, self._size[0], move, self._circle) if move else self.boundaries)

    def _release(self, event: MouseEvent) -> None:
        self._drag(event)
        move, self._held, self._pending = self._pending, None, None
        if move:
            self.move(move)

    def _show(self, boundaries: np.ndarray, more: str = "") -> None:
        """Draw these boundaries, and say the thickness that they mean."""
        self._shown = boundaries
        for line, row in zip(self.picture.axes[0].lines, boundaries, strict=True):
            line.set_ydata(row - 0.5)
        unit = unit_name("um" if self._um_per_px else "px")
        words = in_language("mean thickness")
        told = [f"{in_language(layer_name(layer))} {mean:.2f} {unit} ({mean - self._first[layer]:+.2f})"
                for layer, mean in self.means().items()]
        self._said.value = f'<span role="status">{words}: {", ".join(told)}<br>{html.escape(more)}</span>'
        self.picture.canvas.draw_idle()


class _Canvas(Canvas):
    def draw(self) -> None:
        with in_chinese(self.figure):
            super().draw()
