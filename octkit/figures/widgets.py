"""Sliders for JupyterLab. They do not survive an export to HTML: beside each stands a static figure.

Each function returns a box of controls over a picture; the picture is a PNG that the controls redraw, so no
output area and no plotting backend is involved.
"""

import base64
import html
import inspect
from collections.abc import Callable
from typing import Any

import ipywidgets
import numpy as np

from octkit.data.dataset import Dataset
from octkit.figures.chinese import in_language
from octkit.figures.picture import Picture, new_picture, png
from octkit.figures.scans import overlay, show_image


def touch(draw: Callable[..., Picture | str], **controls: Any) -> ipywidgets.VBox:
    """A control for each argument of `draw`, and the picture, or HTML, that it makes of their values.

    Controls are ipywidgets' abbreviations: (least, most[, step]) or (…, start) a slider, a list a choice, a bool a box,
    or a widget. What the argument is called stands before its control.
    """
    made = {}
    for name, given in controls.items():
        start = inspect.signature(draw).parameters[name].default
        made[name] = widget = ipywidgets.interactive.widget_from_abbrev(given, start)
        widget.description = in_language(name.replace("_", " "))
        widget.style = {"description_width": "initial"}
        if hasattr(widget, "continuous_update"):
            widget.continuous_update = False
    shown = ipywidgets.HTML()  # ipywidgets' own Image has no text alternative

    def redraw(_change: object = None) -> None:
        found = draw(**{name: widget.value for name, widget in made.items()})
        shown.value = found if isinstance(found, str) else image(found)

    for widget in made.values():
        widget.observe(redraw, names="value")
    redraw()
    return ipywidgets.VBox([ipywidgets.HBox(list(made.values())), shown])


def browse(dataset: Dataset) -> ipywidgets.VBox:
    """Walk through the training scans with a slider, their layers over them at any opacity."""

    def draw(scan: int = 0, opacity: float = 0.45) -> Picture:
        case = dataset.train[scan]
        label = {1: ", glaucoma", 0: ", healthy", None: ""}[case.glaucoma]
        scale = None if case.spacing is None else (case.spacing[0] * 1000, case.spacing[1] * 1000)
        return overlay(dataset.read_image(case), dataset.read_mask(case), f"Scan {case.name}{label}", scale,
                       dataset.labels, opacity)

    return touch(draw, scan=(0, len(dataset.train) - 1), opacity=(0.0, 1.0, 0.05))


def window(image: np.ndarray) -> ipywidgets.VBox:
    """Set the grey window of a scan (1, H, W) by its two ends: what clipping keeps and what it loses."""
    low, high = float(np.min(image)), float(np.max(image))

    def draw(grey: tuple[float, float] = (low, high)) -> Picture:
        start, stop = grey
        outside = ((image < start) | (image > stop)).mean()
        picture, ((ax,),) = new_picture(f"Window {start:.1f} to {stop:.1f}: {100 * outside:.1f} % of pixels clipped",
                                        size=(9, 1 + 8.2 * image.shape[-2] / image.shape[-1]))
        show_image(ax, image, window=(start, stop))
        return picture

    return touch(draw, grey=ipywidgets.FloatRangeSlider(value=(low, high), min=low, max=high,
                                                        step=(high - low) / 256 or 1.0))


class Live(ipywidgets.HTML):
    """A picture that code replaces while it runs: `live.show(picture)`."""

    def show(self, picture: Picture) -> None:
        """Put this picture in the place of the one that is shown."""
        self.value = image(picture)


def image(picture: Picture) -> str:
    """A picture as HTML, with its text alternative."""
    data = base64.b64encode(png(picture)).decode()
    return (f'<img src="data:image/png;base64,{data}" alt="{html.escape(picture.alt)}" '
            'style="width: 864px; max-width: 100%">')
