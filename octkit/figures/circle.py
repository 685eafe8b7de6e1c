"""Figures of the circle around the optic disc: the disc of its sectors, and two eyes against each other.

Like `charts`, every function returns a Picture; profiles come as `thickness.Thickness`, which knows unit and eye.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Wedge
from matplotlib.typing import ColorType

from octkit.figures.charts import circle_axis, mark_unseen
from octkit.figures.colours import BLUE, GREY, LAYER_COLOURS, VERMILION
from octkit.figures.picture import Picture, layer_name, legend_below, new_picture, unit_name
from octkit.figures.scans import show_image
from octkit.layers.seen import bridged
from octkit.layers.thickness import GARWAY_HEATH, Thickness, angles, asymmetry, clock_hours, means, resample

# Told apart by the colour-blind, and by their dashes in print.
RIGHT, LEFT = {"color": BLUE, "ls": "-"}, {"color": VERMILION, "ls": "--"}
EYE_NAMES = {"R": "right eye", "L": "left eye", None: "side not known, drawn as a right eye"}


def sector_discs(scans: Mapping[str, Thickness], title: str) -> Picture:
    """Mean RNFL thickness of each sector, a disc a scan (name -> Thickness), as the examiner sees the eye.

    In the centre stands the global mean, around it Garway-Heath's six sectors, outside the twelve hours; these only
    where the eye is known. All discs share one scale of colours, from 0 to the thickest sector.
    """
    picture, (row,) = new_picture(title, 1, len(scans), (3.6 * len(scans), 3.9))
    found = {name: means(scan["rnfl"], scan.eye) for name, scan in scans.items()}
    colours = LinearSegmentedColormap.from_list("rnfl", ["white", LAYER_COLOURS["rnfl"]])
    thickest = np.nanmax([0.0, *(mean for values in found.values() for mean in values.values())])
    said = []
    for ax, (name, scan) in zip(row, scans.items(), strict=True):
        values = found[name]
        for ring, sectors in ((1, GARWAY_HEATH), (2, clock_hours(scan.eye) if scan.eye else {})):
            for sector, limits in sectors.items():
                mean = values[sector]
                colour = colours(mean / thickest if thickest else 0) if np.isfinite(mean) else "white"
                _sector(ax, ring, limits, scan.eye, f"{sector.partition('_')[2]}\n{_number(mean)}", colour)
        ax.text(0, 0, _number(values["global"]), ha="center", va="center", fontsize=13, fontweight="bold")
        ax.set(xlim=(-3.1, 3.1), ylim=(-3.1, 3.1), aspect="equal", xticks=[], yticks=[])
        ax.set_xlabel(f"{name}\n{EYE_NAMES[scan.eye]}; mean thickness ({unit_name(scan.unit)})", fontsize=8)
        ax.spines[["left", "bottom"]].set_visible(False)
        said.append(f"{name} ({EYE_NAMES[scan.eye]}): global {_number(values['global'])}, " + ", ".join(
            f"{sector.partition('_')[2]} {_number(values[sector])}" for sector in GARWAY_HEATH))
    return picture.with_alt(f"Mean RNFL thickness by sector in {unit_name(scan.unit)}. {'; '.join(said)}.")


def two_eyes(right: Thickness, left: Thickness, title: str) -> Picture:
    """The RNFL of both eyes around the circle, and below how much thicker the right one is in each A-scan.

    Where it was not seen in both, the upper panel is hatched.
    Raises OctkitError as `thickness.asymmetry`.
    """
    difference = asymmetry(right, left)["rnfl"]
    picture, ((both,), (below,)) = new_picture(title, 2, 1, (9, 5.4), sharex=True, height_ratios=(3, 2))
    for name, scan, look in (("right eye", right, RIGHT), ("left eye", left, LEFT)):
        both.plot(angles(scan["rnfl"]), scan["rnfl"], lw=2, label=name, **look)
    mark_unseen(both, difference)
    circle_axis(both, right.unit)
    both.set(xlabel="", ylim=(0, None))
    both.legend(frameon=False, fontsize=8)
    below.axhline(0, color=GREY, lw=1)
    for side, look in ((difference > 0, RIGHT), (difference < 0, LEFT)):
        below.fill_between(angles(difference), np.where(side, difference, 0), color=look["color"], alpha=0.4, lw=0)
    circle_axis(below, right.unit, "right minus left")
    seen = difference[np.isfinite(difference)]
    said = (f"right minus left: mean {means(difference)['global']:+.1f} {unit_name(right.unit)}, from "
            f"{seen.min():+.1f} to {seen.max():+.1f}" if seen.size else "nowhere seen in both")
    return picture.with_alt(f"RNFL thickness of a right and a left eye in TSNIT order; {said}.")


def cursor(image: np.ndarray, scan: Thickness, degrees: float, title: str) -> Picture:
    """One A-scan, pointed at in three views: the scan (1, H, W), its RNFL profile, and the circle around the disc."""
    column = round(degrees / 360 * image.shape[-1]) % image.shape[-1]
    value, side = scan["rnfl"][column], 1 if scan.eye == "L" else -1  # the temple is on the left of a right eye
    said = f"{value:.0f} {unit_name(scan.unit)}" if np.isfinite(value) else "not seen"
    picture, ((above, _), (profile, disc)) = new_picture(f"{title}: RNFL at {degrees:g}° is {said}", 2, 2, (9, 5.4),
                                                         width_ratios=(3, 1))
    picture.delaxes(picture.axes[1])
    show_image(above, image)
    above.axvline(column, color=VERMILION, lw=1.5)
    profile.plot(angles(scan["rnfl"]), scan["rnfl"], color=LAYER_COLOURS["rnfl"], lw=2)
    mark_unseen(profile, scan["rnfl"])
    profile.axvline(degrees, color=VERMILION, lw=1.5)
    circle_axis(profile, scan.unit)
    profile.set(ylim=(0, None))
    turn = np.radians(np.arange(361))
    disc.plot(side * np.cos(turn), np.sin(turn), color=BLUE)
    disc.plot(side * np.cos(np.radians(degrees)), np.sin(np.radians(degrees)), "o", ms=10, color=VERMILION)
    for letter, place in {"T": (side, 0), "S": (0, 1), "N": (-side, 0), "I": (0, -1)}.items():
        disc.text(1.3 * place[0], 1.3 * place[1], letter, ha="center", va="center", fontweight="bold", color=GREY)
    disc.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), aspect="equal", xticks=[], yticks=[], xlabel=EYE_NAMES[scan.eye])
    disc.spines[:].set_visible(False)
    told = f"is {said} thick" if np.isfinite(value) else "was not seen"
    return picture.with_alt(f"{title}: at {degrees:g} degrees the RNFL {told}.")


def weighed(scan: Thickness, usual: Mapping[str, np.ndarray], weights: Mapping[str, np.ndarray],
            title: str) -> Picture:
    """Why the thickness model says what it says: where a scan differs from the `usual` profile, and what that weighs.

    `usual` and `weights` are layer -> (n,) around the circle, weights in log odds for one unit more in each piece
    (`thickness_model.around`). Red is what speaks for glaucoma, blue what speaks against it.
    """
    picture, axes = new_picture(title, 2, 1, (9, 5.4), sharex=True, height_ratios=(3, 2))
    (above,), (below,) = axes
    total = 0.0
    for layer, weight in weights.items():
        at = angles(weight)
        line, mean = (resample(values, len(weight)) for values in (bridged(scan[layer]), usual[layer]))
        above.plot(at, line, color=LAYER_COLOURS[layer], lw=2, label=layer_name(layer))
        above.plot(at, mean, color=LAYER_COLOURS[layer], lw=1, ls="--", label=f"{layer_name(layer)}, usual")
        share = np.nan_to_num(weight * (line - mean))
        total += share.sum()
        for side, colour in ((share > 0, VERMILION), (share < 0, BLUE)):
            above.fill_between(at, line, mean, where=side, color=colour, alpha=0.35, lw=0)
        # So much do 10 units less over 30 degrees add: a number that one can picture.
        below.step(at, -10 * weight * len(weight) / 12, where="mid", color=LAYER_COLOURS[layer])
    mark_unseen(above, scan["rnfl"])
    below.axhline(0, color=GREY, lw=1)
    for ax in (above, below):
        circle_axis(ax, scan.unit)
    above.set(xlabel="", ylim=(0, None))
    below.set_ylabel(f"log odds of 10 {unit_name(scan.unit)}\nless over 30 degrees")
    legend_below(picture)
    return picture.with_alt(f"{title}. All differences from the usual profile together: {total:+.2f} log odds of "
                            "glaucoma.")


def _sector(ax: Axes, ring: int, limits: tuple[float, float], eye: str | None, text: str, colour: ColorType) -> None:
    start, stop = limits[0], limits[1] + (360 if limits[1] < limits[0] else 0)
    # The temple is on the left of a right eye: 0° there, and clockwise. A left eye is its mirror image.
    first, last = (start, stop) if eye == "L" else (180 - stop, 180 - start)
    ax.add_patch(Wedge((0, 0), ring + 1, first, last, width=1, lw=1, edgecolor=GREY, facecolor=colour))
    middle = np.deg2rad((first + last) / 2)
    ax.text((ring + 0.5) * np.cos(middle), (ring + 0.5) * np.sin(middle), text, ha="center", va="center", fontsize=8)


def _number(value: float) -> str:
    return f"{value:.0f}" if np.isfinite(value) else "–"
