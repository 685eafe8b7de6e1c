"""Sliders for JupyterLab. They do not survive an export to HTML: beside each stands a static figure.

Each function returns a box of controls over a picture; the picture is a PNG that the controls redraw, so no
output area and no plotting backend is involved.
"""

import base64
import html
from collections.abc import Callable, Mapping, Sequence

import ipywidgets
import numpy as np

from octkit.common.errors import OctkitError
from octkit.data.dataset import Case, Dataset
from octkit.figures.picture import Picture, new_picture, png
from octkit.figures.scans import augment_grid, overlay, show_image


def browse(dataset: Dataset, cases: Sequence[Case] | None = None,
           predicted: Mapping[str, np.ndarray] | None = None) -> ipywidgets.VBox:
    """Walk through scans (the training cases if none are given) with a slider, layers over them at any opacity.

    `predicted` (case name -> mask (H, W)) is filled in where given, with the true boundaries as lines where
    the case has a mask; otherwise the case's own mask is filled in.
    """
    cases = dataset.train if cases is None else cases
    if not cases:
        raise OctkitError(f"{dataset.root}: found no case to browse, expected at least one")
    number = ipywidgets.IntSlider(0, 0, len(cases) - 1, description="scan", continuous_update=False)
    opacity = ipywidgets.FloatSlider(0.45, min=0, max=1, step=0.05, description="opacity", continuous_update=False)

    def draw() -> Picture:
        case = cases[number.value]
        image = dataset.read_image(case)
        truth = dataset.read_mask(case) if case.mask is not None else None
        mask = (predicted or {}).get(case.name)
        lines = truth if mask is not None else None
        mask = mask if mask is not None else truth if truth is not None else np.zeros(image.shape[1:], np.uint8)
        label = {1: ", glaucoma", 0: ", healthy", None: ""}[case.glaucoma]
        return overlay(image, mask, lines, f"Scan {case.name}{label}", _scale(case), dataset.labels, opacity.value)

    return _redrawn(draw, number, opacity)


def augmentation(image: np.ndarray, mask: np.ndarray, names: Sequence[str],
                 apply: Callable[[str, int], tuple[np.ndarray, np.ndarray]]) -> ipywidgets.VBox:
    """Choose a transform and a seed and see what it does to a patch; `apply(name, seed)` -> (image, mask)."""
    name = ipywidgets.Dropdown(options=list(names), description="transform")
    seed = ipywidgets.IntSlider(0, 0, 99, description="seed", continuous_update=False)

    def draw() -> Picture:
        return augment_grid(image, mask, {f"{name.value}, seed {seed.value}": apply(name.value, seed.value)},
                            f"What {name.value.replace('_', ' ')} does", columns=2)

    return _redrawn(draw, name, seed)


def window(image: np.ndarray) -> ipywidgets.VBox:
    """Set the grey window of a scan (1, H, W) by its two ends: what clipping keeps and what it loses."""
    low, high = float(np.min(image)), float(np.max(image))
    ends = ipywidgets.FloatRangeSlider(value=(low, high), min=low, max=high, step=(high - low) / 256 or 1.0,
                                       description="window", continuous_update=False)

    def draw() -> Picture:
        (start, stop), plane = ends.value, np.asarray(image)
        outside = ((plane < start) | (plane > stop)).mean()
        picture, ((ax,),) = new_picture(f"Window {start:.1f} to {stop:.1f}: {100 * outside:.1f} % of pixels clipped",
                                        size=(9, 1 + 8.2 * plane.shape[-2] / plane.shape[-1]))
        show_image(ax, plane, window=(start, stop))
        return picture

    return _redrawn(draw, ends)


def _scale(case: Case) -> tuple[float, float] | None:
    return None if case.spacing is None else (case.spacing[0] * 1000, case.spacing[1] * 1000)


def _redrawn(draw: Callable[[], Picture], *controls: ipywidgets.Widget) -> ipywidgets.VBox:
    """The controls over a picture that `draw` makes anew whenever one of them changes."""
    shown = ipywidgets.HTML()  # ipywidgets' own Image has no text alternative

    def redraw(_change: object = None) -> None:
        picture = draw()
        data = base64.b64encode(png(picture)).decode()
        shown.value = (f'<img src="data:image/png;base64,{data}" alt="{html.escape(picture.alt)}" '
                       'style="width: 864px; max-width: 100%">')

    for control in controls:
        control.observe(redraw, names="value")
    redraw()
    return ipywidgets.VBox([ipywidgets.HBox(list(controls)), shown])
