"""Figures of scans and masks. Numbers are drawn by `charts`, arrangements by `diagrams`.

Every function returns a Picture: a matplotlib Figure outside pyplot's global list (nothing to close, no
backend to choose) that a notebook shows as the last expression of a cell. Images are (1, H, W) or (H, W),
masks (H, W) labels with 0 for background. One colour for a layer everywhere; all colours are from the
palette of Okabe and Ito (2008), which colour-blind readers can tell apart.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import Normal, Stroke
from PIL import Image

from octkit.common.errors import OctkitError
from octkit.data.labels import LAYERS
from octkit.figures.picture import (
    ERROR_COLOURS,
    GREY,
    Picture,
    Scale,
    colour_bar,
    label_colours,
    layer_name,
    new_picture,
)


def read_texts(path: str | Path) -> tuple[str, str]:
    """(title, text alternative) of a PNG that `save` wrote; of another PNG its name, twice."""
    try:
        with Image.open(path) as image:
            title = image.info.get("Title", Path(path).stem)
            return title, image.info.get("Description", title)
    except OSError as error:
        raise OctkitError(f"{path}: cannot be read as an image ({error})") from None


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
    _legend(picture, labels, truth is not None)
    return picture


def data_grid(images: Sequence[np.ndarray], masks: Sequence[np.ndarray | None] | None = None,
              titles: Sequence[str] | None = None, title: str = "Scans of the data set", columns: int = 3,
              um_per_px: Scale = None, labels: Sequence[str] = LAYERS) -> Picture:
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
        show_scan(ax, images[i], masks[i], None, um_per_px, labels)
        ax.set_title(titles[i] if titles is not None else "", fontsize=9)
        _outer_labels_only(ax, i % columns == 0, i + columns >= len(images))
    if any(mask is not None for mask in masks):
        _legend(picture, labels, False)
    return picture


def comparison(image: np.ndarray, predicted: np.ndarray, truth: np.ndarray, title: str = "Prediction against truth",
               um_per_px: Scale = None, labels: Sequence[str] = LAYERS) -> Picture:
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
        show_scan(ax, image, mask, None, um_per_px, labels)
        ax.set_title(name, fontsize=9)
        _outer_labels_only(ax, ax is axes[0, 0], True)
    axes[0, 2].set_title(f"difference: {share:.1f} % of the pixels", fontsize=9)
    colours = np.zeros((*truth.shape, 4))
    for kind, where in wrong.items():
        colours[where] = (*to_rgb(ERROR_COLOURS[kind]), 0.9)
    _image(axes[0, 2], colours, um_per_px)
    extra = [Patch(color=colour, label=f"{kind} ({100 * wrong[kind].mean():.2f} %)")
             for kind, colour in ERROR_COLOURS.items()]
    _legend(picture, labels, False, extra)
    return picture


def postprocessing(image: np.ndarray, before: np.ndarray, after: np.ndarray, title: str = "Post-processing",
                   um_per_px: Scale = None, labels: Sequence[str] = LAYERS) -> Picture:
    """A mask before and after post-processing, with what was taken away marked on the second panel."""
    removed = np.asarray(before) != np.asarray(after)
    picture, axes = new_picture(title, 1, 2, (10, 1.5 + 4.6 * removed.shape[0] / removed.shape[1]),
                                f"{title}: {removed.sum()} pixels changed.")
    names = "before", f"after: {removed.sum()} px changed"
    for ax, mask, name in zip(axes[0], (before, after), names, strict=True):
        show_scan(ax, image, mask, None, um_per_px, labels)
        ax.set_title(name, fontsize=9)
        _outer_labels_only(ax, ax is axes[0, 0], True)
    _image(axes[0, 1], removed[..., None] * np.array([*to_rgb(ERROR_COLOURS["missed"]), 0.9]), um_per_px)
    _legend(picture, labels, False, [Patch(color=ERROR_COLOURS["missed"], label="changed")])
    return picture


def before_after(before: np.ndarray, after: np.ndarray, title: str = "What preprocessing does to a scan") -> Picture:
    """A scan as stored and as the network sees it, each above its histogram."""
    shape = np.shape(before)[-2:]
    picture, axes = new_picture(title, 2, 2, (9, 2.6 + 4.2 * shape[0] / shape[1]), height_ratios=[2, 1])
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
    _legend(picture, labels, False)
    return picture


def _plane(image: np.ndarray) -> np.ndarray:
    image = np.asarray(image)
    return image[0] if image.ndim == 3 else image


def _extent(shape: Sequence[int], um_per_px: Scale) -> tuple[tuple[float, ...], float]:
    """Axis limits in the shown units, and the aspect that keeps the file's pixels square on the page."""
    axial, lateral = um_per_px if isinstance(um_per_px, tuple | list) else (um_per_px or 1, 1)
    (height, width), edge = shape[:2], 0 if um_per_px else 0.5  # without a scale ticks name the pixels' centres
    limits = (-edge * lateral, (width - edge) * lateral, (height - edge) * axial, -edge * axial)
    return limits, lateral / axial


def _image(ax, pixels: np.ndarray, um_per_px: Scale, **how) -> None:
    limits, aspect = _extent(pixels.shape, um_per_px)
    ax.imshow(pixels, extent=limits, aspect=aspect, interpolation="nearest", **how)


def show_scan(ax, image: np.ndarray, mask: np.ndarray | None = None, truth: np.ndarray | None = None,
              um_per_px: Scale = None, labels: Sequence[str] = LAYERS, opacity: float = 0.45,
              window: tuple[float, float] | None = None) -> None:
    """Draw a scan on axes, its mask filled in and the true boundaries as lines, and name the axes.

    `window` is the values shown as black and white; without it 0 to 255 for an image as stored, otherwise
    the image's own 0.5 to 99.5 percentiles.
    """
    plane = _plane(image)
    stored = plane.min() >= 0 and 1 < plane.max() <= 255
    low, high = window or ((0, 255) if stored else np.percentile(plane, (0.5, 99.5)))
    _image(ax, plane, um_per_px, cmap="gray", vmin=low, vmax=high)
    for given in (mask, truth):
        if given is not None and np.shape(given) != plane.shape:
            raise OctkitError(f"found a mask of {np.shape(given)} px for a scan of {plane.shape} px, expected equal")
    if mask is not None:
        _image(ax, paint(mask, labels, opacity), um_per_px)
    if truth is not None:
        (left, right, bottom, top), _ = _extent(plane.shape, um_per_px)
        step = (right - left) / plane.shape[1], (bottom - top) / plane.shape[0]
        x = left + step[0] * (np.arange(plane.shape[1]) + 0.5)
        y = top + step[1] * (np.arange(plane.shape[0]) + 0.5)
        for number in range(1, len(labels) + 1):
            if (np.asarray(truth) == number).any():
                ax.contour(x, y, np.asarray(truth) == number, [0.5], colors="white", linewidths=0.9).set(
                    path_effects=[Stroke(linewidth=1.9, foreground="black"), Normal()])
    lateral = isinstance(um_per_px, tuple | list)
    ax.set(xlabel="along the scan (µm)" if lateral else "A-scan",
           ylabel="depth (µm)" if um_per_px else "depth (px)")


def _legend(picture: Picture, labels: Sequence[str], truth: bool, extra: Sequence = ()) -> None:
    handles = [Patch(color=colour, label=layer_name(label)) for label, colour in label_colours(labels).items()]
    if truth:
        line = Line2D([], [], color="white", lw=1.2, label="true boundary",
                      path_effects=[Stroke(linewidth=2.6, foreground="black"), Normal()])
        handles.append(line)
    picture.legend(handles=[*handles, *extra], loc="outside lower left", ncols=8, frameon=False, fontsize=8)


def _outer_labels_only(ax, left: bool, bottom: bool) -> None:
    if not left:
        ax.set_ylabel("")
    if not bottom:
        ax.set_xlabel("")
