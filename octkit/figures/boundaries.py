"""The figure of boundaries and their uncertainty on a scan; the house's other figures of scans are in `plots`."""

import numpy as np
from matplotlib.patches import Patch
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import LogLocator, NullFormatter

from octkit.data.labels import SURFACES
from octkit.figures.picture import LAYER_COLOURS, Picture, Scale, new_picture
from octkit.figures.scans import show_scan

# A boundary has the colour of the layer that it bounds; that between RNFL and GCIPL has GCIPL's.
COLOURS = tuple(LAYER_COLOURS[layer] for layer in ("rnfl", "gcipl", "gcipl", "choroid", "choroid"))
STYLES = ("-", "-", "--", "-", "--")  # upper edges whole, lower ones dashed


def boundary_band(image: np.ndarray, boundaries: np.ndarray, spread: np.ndarray,
                  title: str = "Boundaries and how sure they are", um_per_px: Scale = None) -> Picture:
    """A scan with its boundaries (5, W) as lines, each in a band of one standard deviation `spread` (5, W) px a side.

    `image` is (H, W) or (1, H, W). Below, the standard deviation of each boundary along the scan, on a logarithmic
    axis: a boundary that was not seen leaves the picture's scale.
    """
    height, width = np.shape(image)[-2:]
    axial, lateral = um_per_px if isinstance(um_per_px, tuple | list) else (um_per_px or 1, 1)
    picture, axes = new_picture(title, 2, 1, (9, 2.6 + 7.6 * height / width), height_ratios=[3, 1], sharex=True,
                                alt=f"{title}: OCT B-scan with five boundaries; their median standard deviation is "
                                    f"{np.median(spread) * axial:.1f} {'µm' if um_per_px else 'px'}.")
    above, below = axes[:, 0]
    show_scan(above, image, um_per_px=um_per_px)
    above.set_aspect("auto")  # as wide as the panel below; the figure's height keeps pixels about square
    limits = above.axis()
    # Rows are counted from the image's upper edge; without a scale the axis names the pixels' centres.
    edge = 0 if um_per_px else 0.5
    along = (np.arange(width) + (0.5 if um_per_px else 0)) * lateral
    for row, sigma, colour, style, name in zip(boundaries, spread, COLOURS, STYLES, SURFACES, strict=True):
        upper, lower = ((np.clip(row + side * sigma, 0, height) - edge) * axial for side in (-1, 1))
        above.fill_between(along, upper, lower, color=colour, alpha=0.4, linewidth=0)
        above.plot(along, (row - edge) * axial, color=colour, linestyle=style, linewidth=1.1, label=name,
                   path_effects=[Stroke(linewidth=1.9, foreground="black"), Normal()])
        below.plot(along, np.maximum(sigma * axial, 0.1 * axial), color=colour, linestyle=style, linewidth=1.1)
    above.axis(limits)
    below.set(xlabel=above.get_xlabel(), ylabel=f"uncertainty ({'µm' if um_per_px else 'px'})", yscale="log")
    below.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    below.yaxis.set_major_formatter("{x:g}")
    below.yaxis.set_minor_formatter(NullFormatter())
    above.set_xlabel("")
    lines, names = above.get_legend_handles_labels()
    picture.legend([*lines, Patch(color="grey", alpha=0.4)], [*names, "± 1 standard deviation"],
                   loc="outside lower left", ncols=6, frameon=False, fontsize=8)
    return picture
