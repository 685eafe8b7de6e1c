"""Figures of volumes and of the choice among configurations: en-face maps, B-scans in a row, candidates."""

from collections.abc import Mapping, Sequence

import numpy as np

from octkit.figures.colours import BLUE, GREY, VERMILION
from octkit.figures.picture import Picture, colour_bar, new_picture, unit_name
from octkit.figures.scans import data_grid
from octkit.planning.selection import Candidate


def b_scans(volume: np.ndarray, mask: np.ndarray, numbers: Sequence[int], title: str,
            labels: Sequence[str]) -> Picture:
    """Some B-scans of a volume (1, B, H, W), counted from 0, side by side with their layers from a mask (B, H, W)."""
    return data_grid([volume[0, number] for number in numbers], [mask[number] for number in numbers],
                     [f"B-scan {number + 1} of {len(mask)}" for number in numbers], title=title, labels=labels)


def thickness_maps(maps: Mapping[str, np.ndarray], spacing: tuple[float, float] | None, unit: str, title: str,
                   compare: bool = True) -> Picture:
    """En-face maps (B-scans, A-scans) side by side, on one colour scale where they are to be `compare`d.

    `spacing` is mm between B-scans and between A-scans; without it the axes count them.
    """
    picture, axes = new_picture(title, 1, len(maps), (min(4.4 * len(maps), 12), 4.2))
    highest = [float(np.nanmax(found)) for found in maps.values()]
    for ax, (name, found), own in zip(axes[0], maps.items(), highest, strict=True):
        between, along = spacing or (1, 1)
        extent = (0, found.shape[1] * along, found.shape[0] * between, 0)
        shown = ax.imshow(found, extent=extent, aspect="equal" if spacing else "auto", cmap="viridis", vmin=0,
                          vmax=max(highest) if compare else own, interpolation="nearest")
        ax.set_title(f"{name}, mean {np.nanmean(found):.0f} {unit_name(unit)}", fontsize=9)
        ax.set(xlabel="along the B-scan (mm)" if spacing else "A-scan",
               ylabel=("across the B-scans (mm)" if spacing else "B-scan") if ax is axes[0, 0] else "")
        if not compare:
            colour_bar(picture, shown, ax, f"thickness ({unit_name(unit)})")
    if compare:
        colour_bar(picture, shown, axes[0].tolist(), f"thickness ({unit_name(unit)})")
    said = ", ".join(f"{name} mean {np.nanmean(found):.1f} {unit}" for name, found in maps.items())
    return picture.with_alt(f"{title}: {said}.")


def candidates(scored: Sequence[Candidate], chosen: str) -> Picture:
    """Mean foreground Dice of each candidate in selection.json, best first, the chosen one marked.

    The whiskers are a standard deviation of how far a candidate stays behind the best one, case by case.
    """
    ranked = sorted(scored, key=lambda candidate: -candidate.mean_dice)
    picture, ((ax,),) = new_picture("Every configuration and every pair, by cross-validation",
                                    size=(9, 1.2 + 0.32 * len(ranked)))
    values = [candidate.mean_dice for candidate in ranked]
    ax.hlines(range(len(ranked)), min(values), values, color=GREY, lw=0.8)
    ax.scatter(values, range(len(ranked)), s=44, zorder=3,
               color=[VERMILION if candidate.name == chosen else BLUE for candidate in ranked])
    ax.errorbar(values, range(len(ranked)), xerr=[found.behind_best["sd"] or 0 for found in ranked], fmt="none",
                ecolor=GREY, elinewidth=0.8, capsize=2)
    for row, value in enumerate(values):
        ax.annotate(f"{value:.4f}", (value, row), xytext=(7, 0), textcoords="offset points", fontsize=8, va="center")
    ax.set_yticks(range(len(ranked)), [found.name + " (chosen)" * (found.name == chosen) for found in ranked],
                  fontsize=8)
    ax.invert_yaxis()
    ax.margins(x=0.15)
    ax.set(xlabel="mean foreground Dice (0 to 1); whiskers: deviation of the distance to the best, case by case",
           ylabel="candidate")
    return picture.with_alt("Mean Dice: " + ", ".join(f"{c.name} {c.mean_dice:.4f}" for c in ranked) + ".")
