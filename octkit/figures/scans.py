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
from matplotlib.patches import Patch
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import LogLocator, NullFormatter

from octkit.common.errors import OctkitError
from octkit.data.labels import BOUNDARIES, LAYERS
from octkit.figures.colours import GREY, LAYER_COLOURS, PURPLE, VERMILION, YELLOW, label_colours
from octkit.figures.picture import Picture, colour_bar, layer_name, legend_below, new_picture
from octkit.layers.seen import located

Scale = tuple[float, float] | None  # µm per px, axial and lateral; None: unknown

# What is wrong in a prediction: truth lost, something made up, one layer taken for another.
ERROR_COLOURS = {"missed": VERMILION, "added": PURPLE, "swapped": YELLOW}

# A boundary has the colour of the layer that it bounds, that between RNFL and GCIPL has GCIPL's; upper edges are
# solid lines, lower ones dashed.
BOUNDARY_LINES: list[dict[str, Any]] = [{"color": LAYER_COLOURS[layer], "ls": style, "lw": 1.1} for layer, style in (
    ("rnfl", "-"), ("gcipl", "-"), ("gcipl", "--"), ("choroid", "-"), ("choroid", "--"))]


def paint(mask: np.ndarray, labels: Sequence[str] = LAYERS, opacity: float = 0.45) -> np.ndarray:
    """Labels as colours: (H, W) -> RGBA (H, W, 4) float in 0..1, background transparent."""
    table = np.zeros((256, 4))
    for number, colour in enumerate(label_colours(labels).values(), start=1):
        table[number] = (*to_rgb(colour), opacity)
    return table[np.asarray(mask, np.uint8)]


def overlay(image: np.ndarray, mask: np.ndarray, title: str, um_per_px: Scale = None, labels: Sequence[str] = LAYERS,
            opacity: float = 0.45) -> Picture:
    """A scan with its mask's layers filled in colour."""
    height, width = mask.shape
    names = [layer_name(label) for n, label in enumerate(labels, 1) if (mask == n).any()]
    picture, ((ax,),) = new_picture(title, size=(9, min(8.0, 1.2 + 8.2 * height / width)))
    show_scan(ax, image, mask, um_per_px, labels, opacity)
    _legend(picture, labels)
    return picture.with_alt(f"{title}: OCT B-scan with {', '.join(names) or 'no layer'} coloured in.")


def data_grid(images: Sequence[np.ndarray], masks: Sequence[np.ndarray | None] | None = None,
              titles: Sequence[str] | None = None, *, title: str, columns: int = 3,
              labels: Sequence[str] = LAYERS) -> Picture:
    """Several scans (or training patches) side by side, each with its mask where there is one."""
    masks = masks or [None] * len(images)
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    height, width = np.shape(images[0])[-2:]
    picture, axes = new_picture(title, rows, columns, (9, 0.7 + rows * (0.45 + 8.2 / columns * height / width)))
    for i, ax in enumerate(axes.flat):
        if i >= len(images):
            ax.axis("off")
            continue
        show_scan(ax, images[i], masks[i], labels=labels)
        ax.set_title(titles[i] if titles else "", fontsize=9)
        if i % columns:
            ax.set_ylabel("")
        if i + columns < len(images):
            ax.set_xlabel("")
    if any(mask is not None for mask in masks):
        _legend(picture, labels)
    return picture.with_alt(f"{title}: {len(images)} scans.")


def comparison(image: np.ndarray, predicted: np.ndarray, truth: np.ndarray, title: str,
               labels: Sequence[str] = LAYERS) -> Picture:
    """Three panels: the predicted layers (H, W), the true ones, and where they differ and how."""
    if predicted.shape != truth.shape:
        raise OctkitError(f"comparison: found a prediction of {predicted.shape} px and a truth of {truth.shape} px, "
                          "expected equal sizes")
    wrong = {"missed": (predicted == 0) & (truth > 0), "added": (predicted > 0) & (truth == 0),
             "swapped": (predicted != truth) & (predicted > 0) & (truth > 0)}
    share = 100 * (predicted != truth).mean()
    picture, (axes,) = new_picture(title, 1, 3, (11, 1.3 + 3.1 * truth.shape[0] / truth.shape[1]))
    differing = f"difference: {share:.1f} % of the pixels"
    for ax, mask, name in zip(axes, (predicted, truth, None), ("predicted", "truth", differing), strict=True):
        show_scan(ax, image, mask, labels=labels)
        ax.set_title(name, fontsize=9)
        if ax is not axes[0]:
            ax.set_ylabel("")
    colours = np.zeros((*truth.shape, 4))
    for kind, where in wrong.items():
        colours[where] = (*to_rgb(ERROR_COLOURS[kind]), 0.9)
    axes[2].imshow(colours, interpolation="nearest")
    _legend(picture, labels, [Patch(color=colour, label=f"{kind} ({100 * wrong[kind].mean():.2f} %)")
                              for kind, colour in ERROR_COLOURS.items()])
    return picture.with_alt(f"{title}: the two differ in {share:.1f} % of the pixels.")


def relevance(image: np.ndarray, weights: np.ndarray, title: str) -> Picture:
    """A scan beside itself under what speaks for glaucoma (red) and against it (blue): `weights` (H, W) log odds."""
    shape = np.shape(weights)
    picture, ((plain, ax),) = new_picture(title, 1, 2, (9, 1.2 + 4.2 * shape[0] / shape[1]))
    most = max(float(np.abs(weights).max()), 1e-6)
    for one in (plain, ax):
        show_image(one, image)
    shown = ax.imshow(weights, cmap="RdBu_r", vmin=-most, vmax=most, alpha=0.45)
    ax.set_ylabel("")
    colour_bar(picture, shown, ax, "for glaucoma (log odds)")
    return picture.with_alt(f"{title}: from {weights.min():+.2f} to {weights.max():+.2f} log odds.")


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
                 title: str = "What each augmentation does", columns: int = 5) -> Picture:
    """A patch and its augmented copies, a column each: the image above, the mask that moved with it below.

    `augmented` is name -> (image, mask). More than `columns` go into further double rows. All images share
    one grey window, the original's 0.5 to 99.5 percentiles, so a change of brightness shows as one.
    """
    tiles = {"original": (image, mask), **augmented}
    blocks = -(-len(tiles) // columns)
    height, width = np.shape(mask)
    window = np.percentile(image, (0.5, 99.5))
    picture, axes = new_picture(title, 2 * blocks, columns, (10, 0.8 + blocks * (0.5 + 3.7 * height / width)))
    for i in range(blocks * columns):
        above, below = axes[2 * (i // columns), i % columns], axes[2 * (i // columns) + 1, i % columns]
        if i >= len(tiles):
            above.axis("off")
            below.axis("off")
            continue
        name, (changed, moved) = list(tiles.items())[i]
        above.imshow(_plane(changed), cmap="gray", vmin=window[0], vmax=window[1])
        below.imshow(np.full((*np.shape(moved), 3), 0.93))
        below.imshow(paint(moved, opacity=1.0), interpolation="nearest")
        above.set_title(name.replace("_", " "), fontsize=9)
        first = i % columns == 0
        above.set(xticks=[], yticks=[], ylabel="image\ndepth (px)" if first else "")
        below.set(xticks=[], yticks=[], ylabel="mask\ndepth (px)" if first else "", xlabel="A-scan")
    _legend(picture, LAYERS)
    return picture.with_alt(f"{title}: {', '.join(tiles)}.")


def boundary_band(image: np.ndarray, boundaries: np.ndarray, doubt: np.ndarray, title: str,
                  half_widths: np.ndarray | None = None) -> Picture:
    """A scan with its boundaries (5, W) as lines, each in the band in which it lies in 68 % of places.

    `image` is (H, W) or (1, H, W). `half_widths` (2, 5, W) px are those of `calibration.half_widths`; without them the
    band is one standard deviation of the raw `doubt` (5, W) px a side, and "uncalibrated". Below, the band's half width
    along the scan, on a logarithmic axis: a boundary that was not seen is drawn far above the others. The line of a
    boundary has a gap where it is not located (`seen.located`, by the raw doubt).
    """
    height, width = np.shape(image)[-2:]
    spread = doubt if half_widths is None else half_widths[0]
    meaning = "± 1 standard deviation, uncalibrated" if half_widths is None else "holds the boundary in 68 % of places"
    picture, ((above,), (below,)) = new_picture(title, 2, 1, (9, 2.6 + 7.6 * height / width), height_ratios=[3, 1],
                                                sharex=True)
    draw_boundaries(above, image, boundaries, spread, located(doubt, height))
    for sigma, look in zip(spread, BOUNDARY_LINES, strict=True):
        below.plot(np.arange(width), np.maximum(sigma, 0.1), **look)
    below.set(xlabel=above.get_xlabel(), ylabel="half width (px)", yscale="log")
    below.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    below.yaxis.set_major_formatter("{x:g}")
    below.yaxis.set_minor_formatter(NullFormatter())
    above.set_xlabel("")
    legend_below(picture, [*above.lines, Patch(color="grey", alpha=0.4, label=meaning)], columns=6)
    return picture.with_alt(f"{title}: OCT B-scan with five boundaries. A band's median half width is "
                            f"{np.median(spread):.1f} px; {meaning}.")


def draw_boundaries(ax: Axes, image: np.ndarray, boundaries: np.ndarray, spread: np.ndarray, there: np.ndarray) -> None:
    """A scan (H, W) or (1, H, W) with its boundaries (5, W), each in a band of `spread` (5, W) px a side.

    A boundary's line has a gap where it is not `there`, (5, W) bool.
    """
    height, width = np.shape(image)[-2:]
    show_image(ax, image)
    ax.set_aspect("auto")  # as wide as the panel below; the figure's height keeps pixels about square
    limits = ax.axis()
    outline = [Stroke(linewidth=1.9, foreground="black"), Normal()]  # seen on dark and on bright tissue
    for row, sigma, known, name, look in zip(boundaries, spread, there, BOUNDARIES, BOUNDARY_LINES, strict=True):
        # Rows are counted from the image's upper edge, the axis from the first row's centre.
        upper, lower = (np.clip(row + side * sigma, 0, height) - 0.5 for side in (-1, 1))
        ax.fill_between(np.arange(width), upper, lower, color=look["color"], alpha=0.4, linewidth=0)
        ax.plot(np.arange(width), np.where(known, row - 0.5, np.nan), label=name, path_effects=outline, **look)
    ax.axis(limits)


def show_image(ax: Axes, image: np.ndarray, um_per_px: Scale = None, window: tuple[float, float] | None = None) -> None:
    """Draw a scan on axes and name them.

    `window` is the values shown as black and white; without it 0 to 255 for an image as stored, otherwise
    the image's own 0.5 to 99.5 percentiles.
    """
    plane = _plane(image)
    stored = plane.min() >= 0 and 1 < plane.max() <= 255
    low, high = window or ((0, 255) if stored else np.percentile(plane, (0.5, 99.5)))
    ax.imshow(plane, cmap="gray", vmin=low, vmax=high, **_place(plane.shape, um_per_px))
    ax.set(xlabel="along the scan (µm)" if um_per_px else "A-scan", ylabel="depth (µm)" if um_per_px else "depth (px)")


def show_scan(ax: Axes, image: np.ndarray, mask: np.ndarray | None, um_per_px: Scale = None,
              labels: Sequence[str] = LAYERS, opacity: float = 0.45) -> None:
    """Draw a scan as `show_image` does, its mask filled in."""
    shape = np.shape(image)[-2:]
    if mask is not None and np.shape(mask) != shape:
        raise OctkitError(f"found a mask of {np.shape(mask)} px for a scan of {shape} px, expected equal sizes")
    show_image(ax, image, um_per_px)
    if mask is not None:
        ax.imshow(paint(mask, labels, opacity), **_place(shape, um_per_px))


def _plane(image: np.ndarray) -> np.ndarray:
    image = np.asarray(image)
    return image[0] if image.ndim == 3 else image


def _place(shape: tuple[int, ...], um_per_px: Scale) -> dict[str, Any]:
    """How `imshow` draws pixels (H, W), each a square on the page; without a scale ticks name the pixels' centres."""
    if um_per_px is None:
        return {"interpolation": "nearest"}
    axial, lateral = um_per_px
    return {"interpolation": "nearest", "aspect": lateral / axial,
            "extent": (0, shape[1] * lateral, shape[0] * axial, 0)}


def _legend(picture: Picture, labels: Sequence[str], more: Sequence[Artist] = ()) -> None:
    legend_below(picture, [*(Patch(color=colour, label=layer_name(label))
                             for label, colour in label_colours(labels).items()), *more], columns=8)
