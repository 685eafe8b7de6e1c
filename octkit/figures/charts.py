"""Figures of numbers: histograms, learning curves, scores, thickness around the circle, ROC.

Every function returns a Picture and takes arrays or dicts, no files (but for `read_log`).
"""

import csv
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter

from octkit.common.errors import OctkitError
from octkit.data.labels import BOUNDARIES, LAYERS
from octkit.evaluation.metrics import THRESHOLD
from octkit.figures.colours import BLUE, GREY, LAYER_COLOURS, PURPLE, VERMILION, YELLOW, label_colours
from octkit.figures.picture import Picture, layer_name, legend_below, new_picture, unit_name
from octkit.figures.scans import BOUNDARY_LINES
from octkit.layers.thickness import QUADRANT_NAMES, QUADRANTS, WHOLE, angles, sector_means

GROUP_COLOURS = {"healthy": BLUE, "glaucoma": VERMILION}
TRAIN_COLOUR, VALIDATION_COLOUR = BLUE, VERMILION


def intensity_histogram(images: Sequence[np.ndarray], masks: Sequence[np.ndarray],
                        clip: tuple[float, float]) -> Picture:
    """Grey values of each layer over all the given scans, with the fingerprint's clip limits marked."""
    picture, ((ax,),) = new_picture("How bright each layer is", size=(9, 3.6))
    grey, label_of = (np.concatenate([np.ravel(array) for array in arrays]) for arrays in (images, masks))
    parts = {label: grey[label_of == number] for number, label in enumerate(LAYERS, 1) if (label_of == number).any()}
    if not parts:
        raise OctkitError("intensity_histogram: found no labelled pixel in the masks, expected some")
    everything = np.concatenate(list(parts.values()))
    bins = np.linspace(everything.min(), everything.max() + 1e-6, 65)
    for label, part in parts.items():
        shares = np.histogram(part, bins)[0] * 100 / part.size
        ax.stairs(shares, bins, fill=True, alpha=0.3, color=LAYER_COLOURS[label])
        ax.stairs(shares, bins, lw=1.6, color=LAYER_COLOURS[label],
                  label=f"{layer_name(label)}, mean {part.mean():.0f}")
    for limit, name, side in zip(clip, ("0.5 %", "99.5 %"), ("left", "right"), strict=True):
        ax.axvline(limit, color="black", ls="--", lw=1)
        ax.annotate(f" clip {limit:.0f} ({name})", (limit, 0.97), xycoords=("data", "axes fraction"), fontsize=8,
                    ha=side, va="top")
    ax.set(xlabel="intensity (grey value as stored)", ylabel="pixels of the layer (%)")
    legend_below(picture)
    said = ", ".join(f"{layer_name(label)} mean {part.mean():.0f}" for label, part in parts.items())
    return picture.with_alt(f"How bright each layer is: {said}.")


def class_shares(masks: Sequence[np.ndarray]) -> Picture:
    """Share of pixels of each layer, a dot a scan: the imbalance that Dice and oversampling answer."""
    shares = {label: [100 * float((mask == number).mean()) for mask in masks] for number, label in enumerate(LAYERS, 1)}
    return layer_scores(shares, "How much of a scan each layer fills", "share of the scan's pixels", "%", best=None)


def read_log(path: str | Path) -> dict[str, np.ndarray]:
    """A log.csv as column -> float64 (epochs,), NaN where a cell is empty. Raises OctkitError."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        columns = rows[0] if rows else ()
        return {column: np.array([float(row[column] or "nan") for row in rows]) for column in columns}
    except FileNotFoundError:
        raise OctkitError(f"{path}: not found, expected a training log") from None
    except (TypeError, ValueError) as error:
        raise OctkitError(f"{path}: is no table of numbers ({error}), expected a training log") from None


def learning_curves(logs: Mapping[str, Mapping[str, np.ndarray]], title: str) -> Picture:
    """Loss, validation pseudo-Dice of each layer and learning rate over the epochs.

    `logs` is the name of a fold -> columns as `read_log` gives them. Of several folds the line is the mean
    and the band runs from the lowest to the highest.
    """
    picture, ((loss, dice, rate),) = new_picture(title, 1, 3, (11, 3.5))
    _loss_lines(loss, logs)
    final = []
    labels = [column[5:] for column in next(iter(logs.values())) if column.startswith("dice_")]
    for label, colour in label_colours(labels).items():
        mean = _fold_lines(dice, logs, f"dice_{label}", colour, layer_name(label))
        if mean is not None:
            final.append(f"{layer_name(label)} {mean[-1]:.3f}")
    _fold_lines(rate, logs, "learning_rate", GREY, "")
    several = "" if len(logs) == 1 else f", {len(logs)} folds"
    for ax, name, unit in ((loss, "loss" + several, "Dice + cross-entropy loss"),
                           (dice, "pseudo-Dice on validation patches" + several, "Dice (0 to 1)"),
                           (rate, "learning rate", "learning rate")):
        ax.set_title(name, fontsize=9)
        ax.set(xlabel="epoch", ylabel=unit)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if dice.lines:
        dice.set_ylim(top=1.0)
        dice.legend(frameon=False, fontsize=8, loc="lower right")
    else:
        dice.text(0.5, 0.5, "no validation:\nall cases train", transform=dice.transAxes, ha="center", va="center")
    return picture.with_alt(f"{title}. Last pseudo-Dice: {', '.join(final) or 'none, there is no validation'}.")


def compared_runs(logs: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]],
                  gains: Mapping[str, tuple[float, float, float, int]], title: str) -> Picture:
    """Loss and mean pseudo-Dice of several runs over their epochs, and intervals of what they gain.

    `logs` is name of a run -> name of a fold -> columns as `read_log` gives them; a line is the mean of a run's folds.
    `gains` is what was compared -> (mean, low, high, number of scans) of the differences.
    """
    picture, ((loss, dice, gain),) = new_picture(title, 1, 3, (11, 3.8))
    looks = zip(cycle((BLUE, VERMILION, PURPLE, "black")), cycle(("-", "--", ":", "-.")))
    for (name, folds), (colour, line) in zip(logs.items(), looks, strict=False):
        for ax, values in ((loss, "train_loss"), (dice, "dice_")):
            found = [np.mean([log[column] for column in log if column.startswith(values)], axis=0)
                     for log in folds.values() if log]
            if epochs := min(map(len, found), default=0):
                ax.plot(np.arange(1, epochs + 1), np.mean([one[:epochs] for one in found], axis=0), line, color=colour,
                        lw=1.8, label=name, marker="o" if epochs < 3 else None)
    _intervals(gain, {name: (*found[:3], "black") for name, found in gains.items()})
    gain.axvline(0, color=GREY, lw=1, ls=":")
    for ax, name, label, unit in ((loss, "training loss, mean of the folds", "epoch", "Dice + cross-entropy loss"),
                                  (dice, "pseudo-Dice, mean of folds and layers", "epoch", "Dice (0 to 1)"),
                                  (gain, "change scan by scan, 95 % interval", "difference in Dice", "")):
        ax.set_title(name, fontsize=9)
        ax.set(xlabel=label, ylabel=unit)
    for ax in (loss, dice):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend(frameon=False, fontsize=8)
    said = ", ".join(f"{' '.join(name.split())} {mean:+.4f} ({low:+.4f} to {high:+.4f})"
                     for name, (mean, low, high, _) in gains.items())
    return picture.with_alt(f"{title}. Change in Dice, scan by scan, with 95 % intervals: {said}.")


def claims(gains: Mapping[str, tuple[float, float, float, str]],
           curve: Mapping[int, tuple[float, float, float]]) -> Picture:
    """What the better side of each claim gains: name -> (mean, low, high, verdict); and epochs -> (mean, low, high)."""
    picture, ((gain, length),) = new_picture("Was the team right?", 1, 2, (11, 1.6 + 0.4 * len(gains)))
    colours = {"supported": BLUE, "not supported": VERMILION}
    _intervals(gain, {f"{name}\n{verdict}": (mean, low, high, colours.get(verdict, GREY))
                      for name, (mean, low, high, verdict) in gains.items()}, fontsize=8)
    gain.axvline(0, color="black", lw=1, ls=":")
    gain.set(xlabel="gain with 95 % interval: above 0 the claim holds")
    if curve:
        epochs, (means, lows, highs) = list(curve), np.array(list(curve.values())).T
        length.errorbar(epochs, means, (means - lows, highs - means), fmt="o-", color=BLUE, capsize=3)
    else:
        length.text(0.5, 0.5, "this run has trained one length", ha="center", transform=length.transAxes, color=GREY)
    length.set(xlabel="epochs of training", ylabel="mean Dice on validation scans")
    return picture.with_alt("; ".join(f"{name}: {mean:+.4f} ({low:+.4f} to {high:+.4f}), {verdict}"
                                      for name, (mean, low, high, verdict) in gains.items()) + ".")


def classifier_curves(logs: Mapping[str, Mapping[str, np.ndarray]]) -> Picture:
    """Loss and validation AUC of the ResNet50 of each fold, as `learning_curves`; the loss on a logarithmic axis."""
    picture, ((loss, area),) = new_picture("ResNet50: loss and AUC by epoch", 1, 2, (9, 3.3))
    _loss_lines(loss, logs)
    _fold_lines(area, logs, "validation_auc", VALIDATION_COLOUR, "validation")
    area.axhline(0.5, color=GREY, ls=":", lw=1)
    loss.axhline(np.log(2), color=GREY, ls=":", lw=1)
    # The first epochs' validation losses are a hundred times the last ones': on a linear axis nothing else shows.
    loss.set(xlabel="epoch", ylabel="cross-entropy loss (dotted: chance)", yscale="log")
    loss.yaxis.set_major_formatter("{x:g}")
    loss.yaxis.set_minor_formatter(NullFormatter())
    area.set(xlabel="epoch", ylabel="AUC (0.5 is chance)", ylim=(0, 1.02))
    for ax in (loss, area):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return picture


def layer_scores(values: Mapping[str, Sequence[float]], title: str, quantity: str = "Dice", unit: str = "0 to 1",
                 best: float | None = 1.0, rows: str = "layer") -> Picture:
    """A strip and a box for each layer over the cases: Dice, or MED ("MED", "px").

    `values` is layer -> one number a case (NaN or None is left out); `best` draws the line of a perfect score, `rows`
    says what stands in the rows where it is not layers.
    """
    picture, ((ax,),) = new_picture(title, size=(7, 3.6))
    said = []
    for row, (label, colour) in enumerate(label_colours(list(values)).items()):
        points = np.array([v for v in values[label] if v is not None and np.isfinite(v)], float)
        if not points.size:
            continue
        ax.boxplot(points, positions=[row], widths=0.5, showfliers=False, orientation="horizontal",
                   medianprops={"color": "black"}, boxprops={"color": GREY}, whiskerprops={"color": GREY})
        _dots(ax, points, row, 0.3, s=16, color=colour, zorder=3)
        said.append(f"{layer_name(label)} median {np.median(points):.3g}")
    if best is not None:
        ax.axvline(best, color=GREY, lw=0.8, ls=":")
    ax.set_yticks(range(len(values)), [layer_name(label) for label in values])
    ax.invert_yaxis()
    ax.set(xlabel=f"{quantity} ({unit})", ylabel=rows)
    return picture.with_alt(f"{quantity} over the cases: {', '.join(said) or 'no value'}.")


def mirroring_price(runs: Mapping[str, Mapping]) -> Picture:
    """Seconds an image against Dice of the two `runs`, name -> {"seconds": …, "dice": …, "dice_by_scan": {…}}."""
    picture, ((ax,),) = new_picture("What mirroring costs and what it gives", size=(6.5, 3.6))
    points = np.array([(run["seconds"], run["dice"]) for run in runs.values()], float)
    ax.scatter(*points.T, s=60, color=[TRAIN_COLOUR, VALIDATION_COLOUR])
    for name, (seconds, dice) in zip(runs, points, strict=True):
        ax.annotate(f"{name}\n{seconds:.2f} s, {dice:.4f}", (seconds, dice), xytext=(8, 0), fontsize=8,
                    textcoords="offset points", ha="left", va="center")
    for scan in next(iter(runs.values()))["dice_by_scan"]:  # a line each: the change counts, not the spread
        ax.plot(points[:, 0], [run["dice_by_scan"][scan] for run in runs.values()], ".-", color=GREY, lw=1, zorder=0)
    ax.margins(0.3, 0.5)
    ax.set_xlim(left=0)
    ax.set(xlabel="time (seconds an image)", ylabel="mean foreground Dice")
    ax.ticklabel_format(axis="y", useOffset=False)
    return picture.with_alt("; ".join(f"{name}: {run['seconds']:.2f} seconds an image, Dice {run['dice']:.4f}"
                                      for name, run in runs.items()) + ".")


def thickness_profile(thickness: np.ndarray, unit: str, truth: np.ndarray | None,
                      band: tuple[np.ndarray, np.ndarray] | None, band_name: str, title: str) -> Picture:
    """RNFL thickness around the circle, (A-scans,) in TSNIT order from the temporal middle.

    `truth` and the `band`'s two limits, where known, are in the same order and unit ("px" or "um"), at any number of
    A-scans. Where nothing was seen (nan) the line has a gap, which is hatched.
    """
    picture, ((ax,),) = new_picture(title, size=(9, 3.6))
    circle_axis(ax, unit)
    mark_unseen(ax, thickness)
    if band is not None:
        ax.fill_between(angles(band[0]), *band, color="#BBBBBB", alpha=0.5, lw=0, label=band_name)
    if truth is not None:
        ax.plot(angles(truth), truth, color="black", lw=1, ls="--", label="truth")
    ax.plot(angles(thickness), thickness, color=LAYER_COLOURS["rnfl"], lw=2, label="predicted")
    legend_below(picture)
    ax.set_ylim(bottom=0)
    mean, seen = sector_means(thickness, WHOLE)["global"], np.isfinite(thickness).mean()
    return picture.with_alt(f"RNFL thickness in TSNIT order, seen in {seen:.0%} of the A-scans, "
                            + (f"mean {mean:.1f} {unit_name(unit)}." if np.isfinite(mean) else "too few for a mean."))


def mark_unseen(ax: Axes, thickness: np.ndarray) -> None:
    """Hatch where a profile (A-scans,) around the circle was not seen (nan)."""
    unseen = np.repeat(~np.isfinite(thickness), 2)
    if unseen.any():
        edges = np.arange(len(thickness) + 1) * 360 / len(thickness)
        ax.fill_between(np.repeat(edges, 2)[1:-1], 0, 1, where=unseen, transform=ax.get_xaxis_transform(),
                        facecolor="none", edgecolor=GREY, hatch="///", lw=0, label="not seen")


def group_profiles(groups: Mapping[str, np.ndarray], unit: str, title: str) -> Picture:
    """Mean RNFL thickness around the circle of groups of scans (name -> (scans, A-scans)), bands of one deviation."""
    picture, ((ax,),) = new_picture(title, size=(9, 3.6))
    circle_axis(ax, unit)
    told = []
    for name, colour in _group_colours(groups).items():
        lines = np.ma.masked_invalid(groups[name])
        mean, deviation = (found.filled(np.nan) for found in (lines.mean(axis=0), lines.std(axis=0, ddof=1)))
        ax.fill_between(angles(mean), mean - deviation, mean + deviation, color=colour, alpha=0.2, lw=0)
        ax.plot(angles(mean), mean, color=colour, lw=2, label=f"{name} ({len(groups[name])} scans)")
        told.append(f"{name} {np.ma.filled(lines.mean(), np.nan):.1f} {unit_name(unit)}")
    legend_below(picture)
    ax.set_ylim(bottom=0)
    return picture.with_alt(f"Mean RNFL thickness: {', '.join(told)}; bands are one standard deviation.")


def quadrant_bars(means: Mapping[str, Mapping[str, float]], unit: str, title: str) -> Picture:
    """Mean RNFL thickness of each quadrant; `means` is group or scan -> {"T", "S", "N", "I"} -> number."""
    picture, ((ax,),) = new_picture(title, size=(6.5, 3.4))
    width = 0.8 / len(means)
    for i, (name, colour) in enumerate(_group_colours(means).items()):
        places = np.arange(4) + (i - (len(means) - 1) / 2) * width
        bars = ax.bar(places, [means[name][quadrant] for quadrant in QUADRANTS], width * 0.92, color=colour, label=name)
        ax.bar_label(bars, fmt="%.0f", fontsize=8, padding=1)
    ax.set_xticks(range(4), [QUADRANT_NAMES[quadrant] for quadrant in QUADRANTS])
    ax.set(xlabel="quadrant", ylabel=f"mean thickness ({unit_name(unit)})")
    legend_below(picture)
    return picture


def roc(answers: Mapping[str, Mapping[str, Any]], title: str) -> Picture:
    """How well answers tell glaucoma: ROC curves with AUC and interval, and whether probabilities can be believed.

    `answers` is name -> `diagnosis.diagnosis_scores`. Right: the share of glaucoma among scans of about one predicted
    probability; on the dotted line it is what was predicted.
    """
    picture, ((curves, trust),) = new_picture(title, 1, 2, (9, 4.6))
    said = []
    for ax in (curves, trust):
        ax.plot([0, 1], [0, 1], color=GREY, lw=1, ls=":")
    looks = zip((BLUE, VERMILION, PURPLE), ("-", "--", "-."), ("o", "s", "^"), strict=True)
    for (name, found), (colour, line, marker) in zip(answers.items(), looks, strict=False):
        area, reliability = found["auc"], found["reliability"]
        interval = "" if area["low"] is None else f" [{area['low']:.2f}, {area['high']:.2f}]"
        said.append(f"{name}: AUC {area['mean']:.3f}{interval}, Brier score {found['brier']:.3f}")
        curves.plot(found["roc"]["fpr"], found["roc"]["tpr"], line, color=colour, lw=2, label=said[-1])
        trust.plot(reliability["predicted"], reliability["observed"], line, color=colour, lw=1.5, marker=marker)
    curves.set(xlabel="false positive rate (1 − specificity)", ylabel="true positive rate (sensitivity)")
    trust.set(xlabel="predicted probability of glaucoma", ylabel="share of scans with glaucoma")
    for ax in (curves, trust):
        ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    legend_below(picture, columns=1)
    return picture.with_alt(f"{title}: {'; '.join(said)}.")


def probability_strip(probabilities: Sequence[float], truth: Sequence[int]) -> Picture:
    """A dot a scan, by true class (1 glaucoma, 0 healthy), with the threshold of the decision."""
    picture, ((ax,),) = new_picture("Probability of glaucoma, by true class", size=(7, 2.6))
    said = []
    for row, name in enumerate(("healthy", "glaucoma")):
        points = np.array(probabilities, float)[np.array(truth) == row]
        _dots(ax, points, row, 0.5, s=22, color=GROUP_COLOURS[name])
        said.append(f"{((points >= THRESHOLD) == row).sum()} of {points.size} {name}")
    ax.axvline(THRESHOLD, color="black", lw=1, ls="--")
    ax.set_yticks((0, 1), ("healthy", "glaucoma"))
    ax.set(xlabel="predicted probability of glaucoma (0 to 1)", ylabel="true class",
           xlim=(-0.02, 1.02), ylim=(-0.6, 1.6))
    return picture.with_alt(f"Probability of glaucoma, by true class. On the right side of {THRESHOLD}: "
                            f"{', '.join(said)}.")


def doubt_coverage(coverage: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> Picture:
    """How often the truth lies within the doubt of each boundary, against how often it should: 68 and 95 %.

    `coverage` is that of a `Calibration`: "raw" and "calibrated", boundary -> (share for 68 %, for 95 %), 0 to 1.
    """
    picture, (axes,) = new_picture(title, 1, 2, (8, 4), sharey=True)
    for ax, way, name in zip(axes, ("raw", "calibrated"), ("raw: 1 and 1.96 standard deviations", "calibrated"),
                             strict=True):
        ax.plot([0, 100], [0, 100], color=GREY, lw=1, ls=":", label="as it should be")
        for boundary, look in zip(BOUNDARIES, BOUNDARY_LINES, strict=True):
            ax.plot((68, 95), 100 * np.array(coverage[way][boundary]), marker="o", label=boundary, **look)
        ax.set_title(name, fontsize=9)
        ax.set(xlabel="truth should lie within (% of places)", ylabel="truth lies within (% of places)",
               xlim=(60, 100), ylim=(0, 102), xticks=(68, 95))
    legend_below(picture, axes[0].lines, columns=6)
    said = [f"{way}: " + ", ".join(f"{name} {100 * low:.0f} and {100 * high:.0f} %"
                                   for name, (low, high) in coverage[way].items()) for way in ("raw", "calibrated")]
    return picture.with_alt(f"{title}. {'; '.join(said)}.")


def _intervals(ax: Axes, rows: Mapping[str, tuple[float, float, float, str]], **look: Any) -> None:
    """Draw a row for each name: (mean, low, high, colour)."""
    for row, (mean, low, high, colour) in enumerate(rows.values()):
        ax.plot((low, high), (row, row), color=colour, lw=2)
        ax.plot(mean, row, "o", color=colour)
    ax.set_yticks(range(len(rows)), list(rows), **look)
    ax.invert_yaxis()


def _dots(ax: Axes, points: np.ndarray, row: int, height: float, **look: Any) -> None:
    """Draw a row of dots, spread over `height` by the golden ratio: even, and the same each time."""
    ax.scatter(points, row + height * ((np.arange(points.size) * 0.618) % 1 - 0.5), alpha=0.75, linewidths=0, **look)


def _loss_lines(ax: Axes, logs: Mapping[str, Mapping]) -> None:
    _fold_lines(ax, logs, "train_loss", TRAIN_COLOUR, "training")
    _fold_lines(ax, logs, "validation_loss", VALIDATION_COLOUR, "validation")
    ax.legend(frameon=False, fontsize=8)


def _fold_lines(ax: Axes, logs: Mapping[str, Mapping], column: str, colour: str, name: str) -> np.ndarray | None:
    """Draw a column of all folds and return its mean; folds without the column, or empty in it, are left out."""
    import pandas as pd  # here, as pictures of predicted scans do without it, and it takes half a second

    found = [pd.Series(log[column], dtype=float) for log in logs.values() if np.isfinite(log.get(column, ())).any()]
    if not found:
        return None
    # Folds may have run for different times; at each epoch those that reached it count.
    table = pd.DataFrame(found).dropna(axis="columns", how="all")
    mean, epochs = table.mean().to_numpy(), table.columns.to_numpy() + 1  # counted from 1, as in log.csv
    if len(found) > 1:
        ax.fill_between(epochs, table.min(), table.max(), color=colour, alpha=0.2, lw=0)
    ax.plot(epochs, mean, color=colour, lw=1.8, label=name, marker="o" if len(epochs) < 3 else None)
    return mean


def circle_axis(ax: Axes, unit: str, quantity: str = "thickness") -> None:
    """Set axes up for a profile around the circle: 0 to 360 degrees with the quadrants' letters."""
    for i, (letter, (start, stop)) in enumerate(QUADRANTS.items()):
        # The temporal quadrant lies on both ends.
        for left, right in [(start, stop)] if start < stop else [(0, stop), (start, 360)]:
            ax.axvspan(left, right, color="#F2F2F2" if i % 2 else "white", lw=0, zorder=0)
            ax.text((left + right) / 2, 0.02, letter, transform=ax.get_xaxis_transform(), ha="center", fontsize=10,
                    fontweight="bold", color=GREY)
    ax.set_xticks(range(0, 361, 45))
    ax.set(xlim=(0, 360), xlabel="angle from the temporal middle (degrees; T S N I T)",
           ylabel=f"{quantity} ({unit_name(unit)})")


def _group_colours(groups: Mapping[str, object]) -> dict[str, str]:
    """Names that begin with healthy or glaucoma have their colours, others the RNFL's own and what is left."""
    others = cycle((LAYER_COLOURS["rnfl"], PURPLE, YELLOW, "black"))
    return {name: GROUP_COLOURS.get(name.split()[0].strip(",:")) or next(others) for name in groups}
