"""Figures of scans, masks and boundaries. Numbers are drawn by `charts`, arrangements by `diagrams`.

Every function returns a Picture: a matplotlib Figure outside pyplot's global list (nothing to close, no backend to
choose) that a notebook shows as the last expression of a cell. Images are (1, H, W) or (H, W), masks (H, W) labels
with 0 for background. A layer has one colour everywhere.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import LogLocator, NullFormatter

from octkit.common.errors import OctkitError
from octkit.data.labels import BOUNDARIES, LAYERS
from octkit.figures.picture import (
    GREY,
    LAYER_COLOURS,
    PURPLE,
    VERMILION,
    YELLOW,
    Picture,
    Scale,
    colour_bar,
    label_colours,
    layer_name,
    legend_below,
    new_picture,
    pixel_size,
    unit_name,
)

# What is wrong in a prediction: truth lost, something made up, one layer taken for another.
ERROR_COLOURS = {"missed": VERMILION, "added": PURPLE, "swapped": YELLOW}

# A boundary has the colour of the layer that it bounds, that between RNFL and GCIPL has GCIPL's; upper edges are
# solid lines, lower ones dashed.
BOUNDARY_LINES = tuple((LAYER_COLOURS[layer], style) for layer, style in (
    ("rnfl", "-"), ("gcipl", "-"), ("gcipl", "--"), ("choroid", "-"), ("choroid", "--")))


def paint(mask: np.ndarray, labels: Sequence[str] = LAYERS, opacity: float = 0.45) -> np.ndarray:
    """Labels as colours: (H, W) -> RGBA (H, W, 4) float in 0..1, background transparent."""
    colours = label_colours(labels)
    table = np.zeros((256, 4))
    for number, label in enumerate(labels, start=1):
        table[number] = (*to_rgb(colours[label]), opacity)
    return table[np.asarray(mask, np.uint8)]


def overlay(image: np.ndarray, mask: np.ndarray, truth: np.ndarray | None = None, title: str = "Layers on the scan",
            um_per_px: Scale = None, labels: Sequence[str] = LAYERS, opacity: float = 0.45) -> Picture:
    """A scan with its mask's layers filled in colour and, where given, the true boundaries as white lines."""
    height, width = np.shape(mask)
    names = [layer_name(label) for n, label in enumerate(labels, 1) if (np.asarray(mask) == n).any()]
    alt = f"{title}: OCT B-scan with {', '.join(names) or 'no layer'} coloured in"
    picture, axes = new_picture(title, size=(9, min(8.0, 1.2 + 8.2 * height / width)),
                                alt=alt + (" and true boundaries as white lines." if truth is not None else "."))
    show_scan(axes[0, 0], image, mask, truth, um_per_px, labels, opacity)
    line = Line2D([], [], color="white", lw=1.2, label="true boundary", path_effects=_outlined(2.6))
    _legend(picture, labels, [] if truth is None else [line])
    return picture


def data_grid(images: Sequence[np.ndarray], masks: Sequence[np.ndarray | None] | None = None,
              titles: Sequence[str] | None = None, title: str = "Scans of the data set", columns: int = 3,
              labels: Sequence[str] = LAYERS) -> Picture:
    """Several scans (or training patches) side by side, each with its mask where there is one."""
    if not len(images):
        raise OctkitError("data_grid: found no image, expected at least one")
    masks = masks if masks is not None else [None] * len(images)
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    height, width = np.shape(images[0])[-2:]
    picture, axes = new_picture(title, rows, columns, (9, 0.7 + rows * (0.45 + 8.2 / columns * height / width)),
                                f"{title}: {len(images)} scans.")
    for i, ax in enumerate(axes.flat):
        if i >= len(images):
            ax.axis("off")
            continue
        show_scan(ax, images[i], masks[i], labels=labels)
        ax.set_title(titles[i] if titles is not None else "", fontsize=9)
        _outer_labels_only(ax, i % columns == 0, i + columns >= len(images))
    if any(mask is not None for mask in masks):
        _legend(picture, labels)
    return picture


def comparison(image: np.ndarray, predicted: np.ndarray, truth: np.ndarray, title: str = "Prediction against truth",
               labels: Sequence[str] = LAYERS) -> Picture:
    """Three panels: the predicted layers, the true ones, and where they differ and how."""
    if np.shape(predicted) != np.shape(truth):
        raise OctkitError(f"comparison: found a prediction of {np.shape(predicted)} px and a truth of "
                          f"{np.shape(truth)} px, expected equal sizes")
    predicted, truth = np.asarray(predicted), np.asarray(truth)
    wrong = {"missed": (predicted == 0) & (truth > 0), "added": (predicted > 0) & (truth == 0),
             "swapped": (predicted != truth) & (predicted > 0) & (truth > 0)}
    share = 100 * (predicted != truth).mean()
    picture, axes = new_picture(title, 1, 3, (11, 1.3 + 3.1 * truth.shape[0] / truth.shape[1]),
                                f"{title}: the two differ in {share:.1f} % of the pixels.")
    for ax, mask, name in zip(axes[0], (predicted, truth, None), ("predicted", "truth", ""), strict=True):
        show_scan(ax, image, mask, labels=labels)
        ax.set_title(name, fontsize=9)
        _outer_labels_only(ax, ax is axes[0, 0], True)
    axes[0, 2].set_title(f"difference: {share:.1f} % of the pixels", fontsize=9)
    colours = np.zeros((*truth.shape, 4))
    for kind, where in wrong.items():
        colours[where] = (*to_rgb(ERROR_COLOURS[kind]), 0.9)
    _place(axes[0, 2], colours, None)
    _legend(picture, labels, [Patch(color=colour, label=f"{kind} ({100 * wrong[kind].mean():.2f} %)")
                              for kind, colour in ERROR_COLOURS.items()])
    return picture


def before_after(before: np.ndarray, after: np.ndarray) -> Picture:
    """A scan as stored and as the network sees it, each above its histogram."""
    shape = np.shape(before)[-2:]
    picture, axes = new_picture("What preprocessing does to a scan", 2, 2, (9, 2.6 + 4.2 * shape[0] / shape[1]),
                                height_ratios=[2, 1])
    for column, (array, name, unit) in enumerate(((before, "as stored", "grey value"),
                                                  (after, "preprocessed", "standard deviations from the mean"))):
        plane = _plane(array)
        shown = axes[0, column].imshow(plane, cmap="gray")
        axes[0, column].set_title(f"{name}, {plane.shape[0]} × {plane.shape[1]} px", fontsize=9)
        axes[0, column].set(xlabel="A-scan", ylabel="depth (px)")
        colour_bar(picture, shown, axes[0, column], unit)
        axes[1, column].hist(plane.ravel(), 64, color=GREY, weights=np.full(plane.size, 100 / plane.size))
        axes[1, column].set(xlabel=unit, ylabel="pixels (%)")
    return picture


def augment_grid(image: np.ndarray, mask: np.ndarray, augmented: Mapping[str, tuple[np.ndarray, np.ndarray]],
                 title: str = "What each augmentation does", columns: int = 5,
                 labels: Sequence[str] = LAYERS) -> Picture:
    """A patch and its augmented copies, a column each: the image above, the mask that moved with it below.

    `augmented` is name -> (image, mask). More than `columns` go into further double rows. All images share
    one grey window, the original's 0.5 to 99.5 percentiles, so a change of brightness shows as one.
    """
    tiles = {"original": (image, mask), **augmented}
    blocks = -(-len(tiles) // columns)
    height, width = np.shape(mask)
    window = np.percentile(image, (0.5, 99.5))
    picture, axes = new_picture(title, 2 * blocks, columns, (10, 0.8 + blocks * (0.5 + 3.7 * height / width)),
                                f"{title}: {', '.join(tiles)}.")
    for i in range(blocks * columns):
        above, below = axes[2 * (i // columns), i % columns], axes[2 * (i // columns) + 1, i % columns]
        if i >= len(tiles):
            above.axis("off"), below.axis("off")
            continue
        name, (changed, moved) = list(tiles.items())[i]
        above.imshow(_plane(changed), cmap="gray", vmin=window[0], vmax=window[1])
        below.imshow(np.full((*np.shape(moved), 3), 0.93))
        below.imshow(paint(moved, labels, 1.0), interpolation="nearest")
        above.set_title(name.replace("_", " "), fontsize=9)
        for ax in (above, below):
            ax.set(xticks=[], yticks=[])
        if i % columns == 0:
            above.set_ylabel("image\ndepth (px)")
            below.set_ylabel("mask\ndepth (px)")
        below.set_xlabel("A-scan")
    _legend(picture, labels)
    return picture


def boundary_band(image: np.ndarray, boundaries: np.ndarray, spread: np.ndarray,
                  title: str = "Boundaries and how sure they are", um_per_px: Scale = None) -> Picture:
    """A scan with its boundaries (5, W) as lines, each in a band of one standard deviation `spread` (5, W) px a side.

    `image` is (H, W) or (1, H, W). Below, the standard deviation of each boundary along the scan, on a logarithmic
    axis: a boundary that was not seen is drawn far above the others.
    """
    height, width = np.shape(image)[-2:]
    (axial, lateral), unit = pixel_size(um_per_px), unit_name("um" if um_per_px else "px")
    picture, axes = new_picture(title, 2, 1, (9, 2.6 + 7.6 * height / width), height_ratios=[3, 1], sharex=True,
                                alt=f"{title}: OCT B-scan with five boundaries; their median standard deviation is "
                                    f"{np.median(spread) * axial:.1f} {unit}.")
    above, below = axes[:, 0]
    show_image(above, image, um_per_px)
    above.set_aspect("auto")  # as wide as the panel below; the figure's height keeps pixels about square
    limits = above.axis()
    # Rows are counted from the image's upper edge; without a scale the axis names the pixels' centres.
    edge = 0 if um_per_px else 0.5
    along = (np.arange(width) + 0.5 - edge) * lateral
    for row, sigma, name, (colour, style) in zip(boundaries, spread, BOUNDARIES, BOUNDARY_LINES, strict=True):
        upper, lower = ((np.clip(row + side * sigma, 0, height) - edge) * axial for side in (-1, 1))
        above.fill_between(along, upper, lower, color=colour, alpha=0.4, linewidth=0)
        above.plot(along, (row - edge) * axial, color=colour, linestyle=style, linewidth=1.1, label=name,
                   path_effects=_outlined(1.9))
        below.plot(along, np.maximum(sigma * axial, 0.1 * axial), color=colour, linestyle=style, linewidth=1.1)
    above.axis(limits)
    below.set(xlabel=above.get_xlabel(), ylabel=f"uncertainty ({unit})", yscale="log")
    below.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    below.yaxis.set_major_formatter("{x:g}")
    below.yaxis.set_minor_formatter(NullFormatter())
    above.set_xlabel("")
    legend_below(picture, [*above.lines, Patch(color="grey", alpha=0.4, label="± 1 standard deviation")], columns=6)
    return picture


def show_image(ax: Axes, image: np.ndarray, um_per_px: Scale = None,
               window: tuple[float, float] | None = None) -> None:
    """Draw a scan on axes and name them.

    `window` is the values shown as black and white; without it 0 to 255 for an image as stored, otherwise
    the image's own 0.5 to 99.5 percentiles.
    """
    plane = _plane(image)
    stored = plane.min() >= 0 and 1 < plane.max() <= 255
    low, high = window or ((0, 255) if stored else np.percentile(plane, (0.5, 99.5)))
    _place(ax, plane, um_per_px, cmap="gray", vmin=low, vmax=high)
    ax.set(xlabel="along the scan (µm)" if isinstance(um_per_px, tuple) else "A-scan",
           ylabel="depth (µm)" if um_per_px else "depth (px)")


def show_scan(ax: Axes, image: np.ndarray, mask: np.ndarray | None = None, truth: np.ndarray | None = None,
              um_per_px: Scale = None, labels: Sequence[str] = LAYERS, opacity: float = 0.45) -> None:
    """Draw a scan as `show_image` does, its mask filled in and the true boundaries as lines."""
    shape = np.shape(image)[-2:]
    for given in (mask, truth):
        if given is not None and np.shape(given) != shape:
            raise OctkitError(f"found a mask of {np.shape(given)} px for a scan of {shape} px, expected equal sizes")
    show_image(ax, image, um_per_px)
    if mask is not None:
        _place(ax, paint(mask, labels, opacity), um_per_px)
    if truth is not None:
        left, right, bottom, top = _extent(shape, um_per_px)
        x, y = (start + (stop - start) / count * (np.arange(count) + 0.5)
                for start, stop, count in ((left, right, shape[1]), (top, bottom, shape[0])))
        for number in set(np.unique(truth)) - {0}:
            ax.contour(x, y, np.asarray(truth) == number, [0.5], colors="white", linewidths=0.9).set(
                path_effects=_outlined(1.9))


def _plane(image: np.ndarray) -> np.ndarray:
    image = np.asarray(image)
    return image[0] if image.ndim == 3 else image


def _extent(shape: Sequence[int], um_per_px: Scale) -> tuple[float, float, float, float]:
    """Where a picture of (H, W) lies in the shown units: left, right, bottom, top."""
    (axial, lateral), edge = pixel_size(um_per_px), 0 if um_per_px else 0.5  # no scale: ticks name pixels' centres
    return -edge * lateral, (shape[1] - edge) * lateral, (shape[0] - edge) * axial, -edge * axial


def _place(ax: Axes, pixels: np.ndarray, um_per_px: Scale, **how: Any) -> None:
    """Draw pixels where they belong on the axes, each as a square on the page."""
    axial, lateral = pixel_size(um_per_px)
    ax.imshow(pixels, extent=_extent(pixels.shape, um_per_px), aspect=lateral / axial, interpolation="nearest", **how)


def _outlined(width: float) -> list:
    """A black outline for white or coloured lines, which can be seen on dark and bright tissue."""
    return [Stroke(linewidth=width, foreground="black"), Normal()]


def _legend(picture: Picture, labels: Sequence[str], more: Sequence[Artist] = ()) -> None:
    legend_below(picture, [*(Patch(color=colour, label=layer_name(label))
                             for label, colour in label_colours(labels).items()), *more], columns=8)


def _outer_labels_only(ax: Axes, left: bool, bottom: bool) -> None:
    if not left:
        ax.set_ylabel("")
    if not bottom:
        ax.set_xlabel("")
