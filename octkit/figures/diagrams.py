"""Figures of how things are arranged: image sizes, patches, the plan, the U-Net, sliding windows, the folds."""

import itertools
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import FancyBboxPatch, Patch, Rectangle

from octkit.common.errors import OctkitError
from octkit.figures.colours import BLUE, GREY, LAYER_COLOURS, ORANGE, OTHER_COLOURS, PURPLE, VERMILION
from octkit.figures.picture import Picture, colour_bar, legend_below, new_picture
from octkit.figures.scans import show_image

# What decides a parameter: fixed for all data, derived by a rule, or found by cross-validation.
KIND_COLOURS = {"blueprint": BLUE, "inferred": ORANGE, "empirical": PURPLE}


def image_sizes(shapes: Sequence[Sequence[int]]) -> Picture:
    """The distinct (H, W) of the scans as outlines drawn to scale; small where there is one, which the title says."""
    sizes, counts = np.unique(np.array(shapes, int), axis=0, return_counts=True)
    several = len(sizes) > 1
    picture, ((ax,),) = new_picture("Image sizes" if several else f"All scans are {sizes[0][0]} × {sizes[0][1]} px",
                                    size=(6.5, 4.6) if several else (3.6, 2.7))
    for (height, width), count in zip(sizes, counts, strict=True):
        ax.add_patch(Rectangle((0, 0), width, height, fill=False, lw=1 + 3 * count / counts.max(), color=GREY))
        ax.annotate(f"{height} × {width} px: {count} scan{'s' if count > 1 else ''} ", (width, height), fontsize=8,
                    ha="right", va="top", xytext=(-4, 14), textcoords="offset points")
    ax.set(xlim=(0, sizes[:, 1].max() * 1.05), ylim=(sizes[:, 0].max() * 1.12, 0), aspect="equal",
           xlabel="width (A-scans, px)", ylabel="depth (px)")
    found = ", ".join(f"{count} of {h} × {w} px" for (h, w), count in zip(sizes, counts, strict=True))
    return picture.with_alt(f"Image sizes: {found}.")


def patch_extents(volume: Sequence[float], patches: Mapping[str, Sequence[float]]) -> Picture:
    """Two sections of a volume, along a B-scan and from above, with the patch of each configuration, to scale.

    `volume` and `patches` (name -> extent) are lengths across B-scans, rows and A-scans in mm. A 2-D patch has two
    numbers and lies within one B-scan: from above it is a line.
    """
    picture, (axes,) = new_picture("How much of a volume each configuration sees at once", 1, 2, (9, 3.8))
    colours = dict(zip(patches, OTHER_COLOURS, strict=False))  # a configuration is no layer: not a layer's colour
    extents = {name: (0, *extent) if len(extent) == 2 else tuple(extent) for name, extent in patches.items()}
    for ax, vertical, name in ((axes[0], 1, "one B-scan"), (axes[1], 0, "from above")):
        for which, extent in (("volume", volume), *extents.items()):
            height, width = extent[vertical], extent[2]
            ax.add_patch(Rectangle(((volume[2] - width) / 2, (volume[vertical] - height) / 2), width, height, lw=1.8,
                                   fill=which == "volume", fc="#E5E5E5", ec=colours.get(which, GREY)))
        tallest, widest = (max(extent[a] for extent in (volume, *extents.values())) for a in (vertical, 2))
        # A patch may reach over the edge: it is rounded up to what can be halved.
        over = ((widest - volume[2]) / 2 + 0.04 * widest, (tallest - volume[vertical]) / 2 + 0.04 * tallest)
        ax.set(xlim=(-over[0], volume[2] + over[0]), ylim=(volume[vertical] + over[1], -over[1]), aspect="equal",
               xlabel="along a B-scan (mm)", ylabel=("across the B-scans (mm)", "depth (mm)")[vertical])
        ax.set_title(name, fontsize=9)
    legend_below(picture, [Patch(fc="#E5E5E5", ec=GREY, label="the median volume"),
                           *(Patch(fill=False, ec=colour, lw=1.8, label=name) for name, colour in colours.items())],
                 columns=len(colours) + 1)
    said = [f"{name} {' × '.join(f'{n:.2g}' for n in extent)}" for name, extent in patches.items()]
    return picture.with_alt(f"A volume of {' × '.join(f'{n:.2g}' for n in volume)} mm; patches: {', '.join(said)}.")


def plan_rows(plan: Mapping) -> list[tuple[str, object, str, str]]:
    """The parameters of a plan.json as (name, value, kind, reason), nested names joined by dots.

    A parameter is any object that has the keys value, kind and reason, at any depth.
    """
    rows = []
    for name, entry in plan.items():
        if isinstance(entry, Mapping) and {"value", "kind", "reason"} <= entry.keys():
            rows.append((name, entry["value"], entry["kind"], entry["reason"]))
        elif isinstance(entry, Mapping):
            rows += [(f"{name}.{inner}", value, kind, reason) for inner, value, kind, reason in plan_rows(entry)]
    return rows


def plan_table(plan: Mapping) -> Picture:
    """A plan.json as a table, coloured by kind: blueprint, inferred, empirical."""
    rows = [(name, textwrap.wrap(in_words(value), 34) or [""], kind, textwrap.wrap(reason, 62) or [""])
            for name, value, kind, reason in plan_rows(plan)]
    if not rows:
        raise OctkitError("plan_table: found no parameter with value, kind and reason, expected a plan's JSON")
    lines = [max(len(value), len(reason)) + 0.5 for _, value, _, reason in rows]
    picture, ((ax,),) = new_picture("The plan: each parameter, what decides it, and why",
                                    size=(11, 0.9 + 0.165 * (sum(lines) + 2)))
    ax.axis("off")
    ax.set(xlim=(0, 1), ylim=(sum(lines) + 1.5, 0))
    columns = (0.01, 0.22, 0.47, 0.56)
    for x, head in zip(columns, ("parameter", "value", "kind", "reason"), strict=True):
        ax.text(x, 0.8, head, fontsize=8.5, fontweight="bold", va="center")
    top = 1.4
    for (name, value, kind, reason), height in zip(rows, lines, strict=True):
        colour = KIND_COLOURS.get(kind, GREY)
        ax.add_patch(Rectangle((0, top), 1, height, color=colour, alpha=0.13, lw=0))
        ax.add_patch(Rectangle((0, top), 0.005, height, color=colour, lw=0))
        for x, text in zip(columns, (name, "\n".join(value), kind, "\n".join(reason)), strict=True):
            ax.text(x, top + 0.25, text, fontsize=8, va="top", linespacing=1.1)
        top += height
    kinds = [row[2] for row in rows]
    legend_below(picture, [Patch(color=colour, alpha=0.6, label=f"{kind} ({kinds.count(kind)})")
                           for kind, colour in KIND_COLOURS.items()])
    return picture.with_alt("; ".join(f"{name} = {' '.join(value)} ({kind})" for name, value, kind, _ in rows) + ".")


def topology(features: Sequence[int], strides: Sequence[Sequence[int]], patch_size: Sequence[int], channels: int,
             classes: int, dropped: int = 2) -> Picture:
    """The U-Net of a configuration: a box a stage with its maps and their size, skip connections, auxiliary outputs.

    The `dropped` lowest outputs have no loss and are left out.
    """
    stages = len(features)
    sizes = list(itertools.accumulate(strides[1:], np.floor_divide, initial=np.array(patch_size)))
    picture, ((ax,),) = new_picture("The U-Net that the plan asks for", size=(9, 0.9 + 0.72 * stages))
    ax.axis("off")
    ax.set(xlim=(-0.2, 10.2), ylim=(stages - 0.3, -0.7))
    # The encoder's boxes lie on the left, the decoder's on the right; below, the two sides meet in the middle.
    encoder = [1.6 + 0.62 * 3.4 * stage / max(1, stages - 1) for stage in range(stages - 1)] + [5]
    decoder = [10 - x for x in encoder]
    for stage, (maps, size) in enumerate(zip(features, sizes, strict=True)):
        for x in dict.fromkeys((encoder[stage], decoder[stage])):
            ax.add_patch(FancyBboxPatch((x - 0.85, stage - 0.3), 1.7, 0.6, boxstyle="round,pad=0,rounding_size=0.06",
                                        lw=1, ec=GREY, fc="#FBE9C6" if x == 5 else "#DCEEFA" if x < 5 else "#D6EEE5"))
            ax.text(x, stage, f"{maps} maps\n{' × '.join(map(str, size))}", fontsize=8, ha="center", va="center")
    outputs = max(1, stages - 1 - dropped)
    share = 0.5 ** np.arange(outputs)
    for stage in range(stages - 1):
        left, right = encoder[stage], decoder[stage]
        aside = 0.3 if stage + 2 == stages else 0  # both arrows of the lowest box, side by side
        _arrow(ax, (left + 0.87, stage), (right - 0.87, stage), ls="--")
        _arrow(ax, (left, stage + 0.31), (encoder[stage + 1] - aside, stage + 0.69))
        _arrow(ax, (decoder[stage + 1] + aside, stage + 0.69), (right, stage + 0.31))
        ax.text(left - 0.75, stage + 0.5, "stride " + "×".join(map(str, strides[stage + 1])), fontsize=7, color=GREY,
                ha="right", va="center")
        if stage < outputs:
            _arrow(ax, (right + 0.87, stage), (right + 1.15, stage), color=VERMILION)
            ax.text(right + 1.2, stage, f"loss × {share[stage] / share.sum():.2f}", fontsize=8, va="center",
                    color=VERMILION)
    patch = " × ".join(map(str, patch_size))
    ax.text(0, -0.5, f"input: {channels} channel{'s' if channels > 1 else ''}, {patch} px", fontsize=8)
    ax.text(10, -0.5, f"output: {classes} classes", fontsize=8, ha="right")
    ax.text(5, -0.12, "skip connection", fontsize=7, color=GREY, ha="center")
    return picture.with_alt(f"U-Net with {stages} stages of {', '.join(map(str, features))} maps on {patch} px, "
                            f"{outputs} outputs with a loss.")


def sliding_window(image: np.ndarray, patch_size: Sequence[int], starts: Sequence[Sequence[int]],
                   weights: np.ndarray) -> Picture:
    """Three panels: the windows on the scan, one window's weights, and the weights summed over all windows.

    `starts` are the (row, column) of the windows' upper left corners, `weights` is (rows, columns) of a patch.
    """
    height, width = np.shape(image)[-2:]
    total = np.zeros((height, width))
    tall, wide = patch_size
    picture, ((scan, one, whole),) = new_picture("Sliding window: where it stops, and how each pixel counts", 1, 3,
                                                 (11, 1.0 + 2.9 * height / width))
    show_image(scan, image)
    for number, (row, column) in enumerate(starts):
        # Inset by a step each, or windows that share an edge hide one another.
        inset = 1.5 + 1.5 * (number % 4)
        scan.add_patch(Rectangle((column + inset, row + inset), wide - 2 * inset, tall - 2 * inset, fill=False, lw=1.8,
                                 color=(*LAYER_COLOURS.values(), *OTHER_COLOURS)[number % 7]))
        part = total[row:row + tall, column:column + wide]
        part += weights[:part.shape[0], :part.shape[1]]
    scan.set_title(f"{len(starts)} window{'s' if len(starts) > 1 else ''}", fontsize=9)
    for ax, values, name in ((one, weights, "weight in one window"), (whole, total, "sum of weights")):
        colour_bar(picture, ax.imshow(values, cmap="cividis", vmin=0), ax, "weight")
        ax.set_title(name, fontsize=9)
        ax.set(xlabel="A-scan", ylabel="depth (px)")
    return picture.with_alt(f"{len(starts)} windows of {tall} × {wide} px over a scan of {height} × {width} px; "
                            "weights fall from the centre outwards.")


def split_diagram(splits: Sequence[Mapping[str, Sequence[str]]], glaucoma: Mapping[str, int | None]) -> Picture:
    """A row a fold, a column a case: held back for validation or in training; cases with `glaucoma` stand last."""
    names = sorted({*splits[0]["train"], *splits[0]["validation"]}, key=lambda name: (glaucoma.get(name) or 0, name))
    table = np.array([[name in set(split["validation"]) for name in names] for split in splits], float)
    picture, ((ax,),) = new_picture("The folds: who trains and who is held back", size=(9, 1.5 + 0.32 * len(splits)))
    ax.pcolormesh(table, cmap=ListedColormap(["#D9D9D9", VERMILION]), vmin=0, vmax=1, edgecolors="white", lw=0.4)
    ax.invert_yaxis()
    ax.set_yticks(np.arange(len(splits)) + 0.5,
                  [f"fold {i}: {int(row.sum())} of {len(names)}" for i, row in enumerate(table)])
    ax.set(xlabel=f"case ({len(names)} in all; right of the line: glaucoma)", ylabel="fold")
    ax.axvline(sum(not glaucoma.get(name) for name in names), color="black", lw=1.5)
    legend_below(picture, [Patch(color="#D9D9D9", label="training"), Patch(color=VERMILION, label="validation")])
    held = ", ".join(str(int(row.sum())) for row in table)
    return picture.with_alt(f"{len(splits)} folds over {len(names)} cases, which hold back {held} of them.")


def _arrow(ax: Axes, start: tuple[float, float], stop: tuple[float, float], color: str = GREY, ls: str = "-") -> None:
    ax.annotate("", stop, start, arrowprops={"arrowstyle": "->", "color": color, "ls": ls, "lw": 1})


def in_words(value: object) -> str:
    """A plan's value as short text: floats with four digits, lists in brackets."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(in_words(v) for v in value) + "]"
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {in_words(v)}" for k, v in value.items())
    return str(value)
