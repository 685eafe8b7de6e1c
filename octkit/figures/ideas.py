"""One drawn idea a lesson: small made-up examples, drawn by code, that a reader can also print in grey.

Every function returns a Picture. Its arguments are what a reader may turn (`widgets.touch`); their defaults are the
picture on paper.
"""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.patches import Circle, Rectangle

from octkit.evaluation.intervals import bootstrap_interval
from octkit.evaluation.metrics import dice
from octkit.figures.charts import circle_axis
from octkit.figures.colours import BLUE, GREY, ORANGE, PURPLE, VERMILION
from octkit.figures.picture import Picture, new_picture

PALE = "#E5E5E5"
TALL, WIDE, SHORT = (9, 4.2), (9, 3.4), (9, 2.8)  # inches


def circle_scan(degrees: float = 60) -> Picture:
    """Where a circle scan is taken: the circle around the disc of a right eye, and the same unrolled (T S N I T)."""
    picture, ((eye, unrolled),) = new_picture("A circle scan is a circle around the optic disc, cut open at the temple",
                                              1, 2, TALL, width_ratios=(2, 3))
    for radius, look in ((0.45, {"fc": PALE, "ec": GREY}), (1, {"fill": False, "ec": BLUE, "lw": 2.5})):
        eye.add_patch(Circle((0, 0), radius, **look))
    for letter, place in {"T": (-1.35, 0), "S": (0, 1.25), "N": (1.25, 0), "I": (0, -1.4)}.items():
        eye.text(*place, letter, ha="center", va="center", fontsize=12, fontweight="bold", color=GREY)
    eye.text(0, 0, "disc", ha="center", va="center", fontsize=9)
    x, y = -math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    eye.plot([-1.15, -0.85], [0, 0], color="black", lw=1.5)
    eye.text(-1.12, -0.28, "cut", fontsize=8, ha="center")
    eye.plot(x, y, "o", ms=10, color=VERMILION)
    eye.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), aspect="equal", xticks=[], yticks=[])
    eye.spines[:].set_visible(False)
    angle = np.arange(361)
    course = 75 + 70 * (_bell(angle - 70, 24) + _bell(angle - 290, 24))
    unrolled.plot(angle, course, color=ORANGE, lw=2.5)
    unrolled.plot(degrees % 360, course[round(degrees % 360)], "o", ms=10, color=VERMILION)
    circle_axis(unrolled, "um", "RNFL thickness, made up")
    unrolled.set(ylim=(0, 170))
    return picture.with_alt(f"The point at {degrees:.0f} degrees, on the circle around the disc and on the unrolled "
                            "RNFL profile.")


def clipping(low: float = 0.5, high: float = 99.5) -> Picture:
    """Grey values before and after clipping at two percentiles and z-scoring."""
    rng = np.random.default_rng(0)
    grey = np.concatenate([rng.gamma(4, 12, 6000), rng.normal(140, 25, 4000), rng.uniform(235, 255, 60)]).clip(0, 255)
    limits = np.percentile(grey, (min(low, high), max(low, high)))
    clipped = grey.clip(*limits)
    scaled = (clipped - clipped.mean()) / max(clipped.std(), 1e-6)
    picture, ((before, after),) = new_picture("Clip the extremes, then subtract the mean and divide by the deviation",
                                              1, 2, SHORT)
    before.hist(grey, 80, color=PALE, ec=GREY, lw=0.3)
    for limit, name in zip(limits, (low, high), strict=True):
        before.axvline(limit, color="black", ls="--", lw=1)
        before.text(limit, 1.0, f"{name:g} %", transform=before.get_xaxis_transform(), fontsize=8, ha="center")
    after.hist(scaled, 80, color=PALE, ec=GREY, lw=0.3)
    before.set(xlabel="grey value as stored", ylabel="pixels")
    after.set(xlabel="what the network sees: mean 0, deviation 1", xlim=(-5, 5))
    return picture.with_alt(f"Clipped at {limits[0]:.0f} and {limits[1]:.0f}; z-scored values reach from "
                            f"{scaled.min():.1f} to {scaled.max():.1f}.")


def halvings(size: int = 800, smallest: int = 4) -> Picture:
    """How often an axis is halved until its maps would have fewer than `smallest` pixels; odd ones are rounded up."""
    lengths = [size]
    while lengths[-1] >= 2 * smallest:
        lengths.append((lengths[-1] + 1) // 2)
    picture, ((ax,),) = new_picture(f"{size} px can be halved {len(lengths) - 1} times: {len(lengths)} stages",
                                    size=(9, 1.2 + 0.26 * len(lengths)))
    ax.barh(range(len(lengths)), lengths, color=PALE, ec=GREY)
    for stage, length in enumerate(lengths):
        ax.text(length, stage, f" {length} px; one of its pixels stands for {2**stage}", va="center", fontsize=8)
    ax.set(xlabel="pixels of a map along this axis", ylabel="stage", xlim=(0, 1.45 * size), yticks=range(len(lengths)))
    ax.invert_yaxis()
    return picture.with_alt(f"Lengths of the maps, from stage 0 on: {', '.join(map(str, lengths))} px.")


def folds_by_person(people: int = 5, folds: int = 5) -> Picture:
    """Two ways of dealing scans into folds, three scans a person: by scan, which leaks, and by person."""
    scans = 3 * people
    picture, axes = new_picture("A fold that holds a scan out must not learn from the same person", 1, 2, WIDE)
    by_scan = np.random.default_rng(1).permutation(scans) % folds
    by_person = np.repeat(np.arange(people) % folds, 3)
    for ax, dealt, name in ((axes[0, 0], by_scan, "dealt by scan"), (axes[0, 1], by_person, "dealt by person")):
        for number, fold in enumerate(dealt):
            person, scan = divmod(number, 3)
            held_out = fold == 0
            ax.add_patch(Rectangle((scan, person), 0.9, 0.8, fc=VERMILION if held_out else PALE, ec=GREY,
                                   hatch="//" if held_out else ""))
            ax.text(scan + 0.45, person + 0.4, f"fold {fold}", ha="center", va="center", fontsize=8,
                    bbox={"fc": "white", "ec": "none", "pad": 1.5} if held_out else None)  # else the hatch crosses it
        split = sum(len(set(dealt[3 * p:3 * p + 3])) > 1 for p in range(people))
        ax.set_title(f"{name}: {split} of {people} people in several folds", fontsize=9)
        ax.set(xlim=(-0.1, 3.1), ylim=(people, -0.2), xticks=[], yticks=np.arange(people) + 0.4,
               yticklabels=[f"person {p + 1}" for p in range(people)])
    return picture.with_alt("Each row is a person with three scans; hatched scans are held out by fold 0.")


def moved_together(degrees: float = 12, grey: float = 1.3) -> Picture:
    """Augmentation: a rotation moves scan and mask alike, a change of grey values leaves the mask as it is."""
    rows, columns = np.mgrid[:60, :90].astype(float)
    angle = math.radians(degrees)
    picture, axes = new_picture("A rotation moves scan and mask alike; a change of grey changes the scan alone", 1, 4,
                                (10, 2.4))
    panels = [("scan", 0, 1.0, False), ("mask", 0, 1.0, True), (f"scan, {degrees:g}°, grey × {grey:g}", angle, grey,
              False), (f"mask, {degrees:g}°", angle, 1.0, True)]
    for ax, (name, turned, factor, is_mask) in zip(axes.flat, panels, strict=True):
        down = 30 + (rows - 30) * math.cos(turned) - (columns - 45) * math.sin(turned)
        along = 45 + (rows - 30) * math.sin(turned) + (columns - 45) * math.cos(turned)
        layer = (down > 20 + 4 * np.sin(along / 12)) & (down < 32 + 3 * np.sin(along / 9))
        shown = layer if is_mask else factor * (0.2 + 0.45 * layer + 0.08 * np.sin(along * 1.3) * np.sin(down))
        ax.imshow(shown, cmap="gray", vmin=0, vmax=1)
        ax.set_title(name, fontsize=9)
        ax.set(xticks=[], yticks=[])
    return picture.with_alt(f"A made-up scan and its mask, before and after a rotation by {degrees:g} degrees.")


def receptive_field(convolutions: int = 2, halved: int = 1) -> Picture:
    """What one output pixel depends on after so many 3 x 3 convolutions a stage; a later stage's first moves by two."""
    reach, step, reaches = 1, 1, [1]
    for stage in range(halved + 1):
        for number in range(convolutions):
            reach += 2 * step
            reaches.append(reach)
            if stage and not number:  # a stage's first convolution moves by two: the later ones reach twice as far
                step *= 2
    size = max(15, reach + 4)
    picture, ((ax,),) = new_picture(f"{convolutions} convolutions of 3 × 3 a stage, {halved + 1} stage"
                                    f"{'s' * (halved > 0)}: one output pixel sees {reach} × {reach} px", size=(9, 4.6))
    ax.imshow(np.indices((size, size)).sum(axis=0) % 2, cmap="gray", vmin=-6, vmax=1, interpolation="nearest")
    middle = size / 2 - 0.5
    for number, width in enumerate(reaches):
        ax.add_patch(Rectangle((middle - width / 2, middle - width / 2), width, width, fill=number == 0, lw=1.8,
                               fc=VERMILION, ec=VERMILION if number == 0 else BLUE, ls=("-", "--")[number % 2]))
        if number:
            ax.annotate(f"after convolution {number}: {width} px", (middle + width / 2, middle - width / 2),
                        xytext=(size + 1, size * (1 - number / len(reaches)) - 1), fontsize=8, va="center",
                        annotation_clip=False, arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.6})
    ax.set(xticks=[], yticks=[], xlim=(-0.5, size * 1.6), ylim=(size - 0.5, -0.5))
    ax.spines[:].set_visible(False)
    return picture.with_alt(f"Nested squares: the receptive field grows as {', '.join(map(str, reaches))} px.")


def instance_norm(brightness: float = 40, contrast: float = 0.5) -> Picture:
    """The same A-scan from two machines, before and after each scan's own mean and deviation are taken out."""
    depth = np.arange(200)
    first = 30 + 120 * _bell(depth - 60, 9) + 70 * _bell(depth - 85, 12) + 100 * _bell(depth - 130, 6)
    second = contrast * first + brightness
    picture, ((before, after),) = new_picture("Instance norm takes a scan's own brightness and contrast out", 1, 2,
                                              SHORT)
    for values, name, look in ((first, "machine A", {"color": BLUE, "lw": 3.5, "alpha": 0.6}),
                               (second, "machine B", {"color": VERMILION, "ls": "--"})):
        before.plot(depth, values, label=name, **look)
        after.plot(depth, (values - values.mean()) / max(values.std(), 1e-6), **look)
    before.set(xlabel="depth (px)", ylabel="before", ylim=(0, 255))
    after.set(xlabel="depth (px)", ylabel="after: mean 0, deviation 1")
    before.legend(frameon=False, fontsize=8)
    return picture.with_alt("Two A-scans of other brightness and contrast lie on each other after instance norm.")


def skip_connection(halved: int = 3) -> Picture:
    """An edge after `halved` halvings and back, without a skip connection and with one."""
    fine = (np.arange(64) >= 27).astype(float)
    block = 2**halved
    coarse = fine.reshape(-1, block).mean(axis=1)
    back = np.interp(np.arange(64), np.arange(len(coarse)) * block + (block - 1) / 2, coarse)
    picture, axes = new_picture("Without the skip connection the decoder no longer knows where the edge was", 1, 3,
                                SHORT, sharey=True)
    for ax, values, name in zip(axes.flat, (fine, back, fine), (
            "encoder, full resolution", f"back from 1/{block} of the resolution", "with the skip connection"),
            strict=True):
        ax.step(np.arange(64), values, where="mid", color=BLUE, lw=2)
        ax.axvline(26.5, color=VERMILION, ls="--", lw=1)
        ax.set_title(name, fontsize=9)
        ax.set(xlabel="depth (px)", ylim=(-0.1, 1.1))
    axes[0, 0].set(ylabel="feature")
    unsure = int(((back > 0.1) & (back < 0.9)).sum())
    return picture.with_alt(f"After {halved} halvings the edge is spread over {unsure} px; the skip connection brings "
                            "it back.")


def dice_of_shapes(shift: int = 3, thick: int = 8) -> Picture:
    """Dice of a layer `thick` px high against itself moved down by `shift` px, with the pixels counted."""
    truth, predicted = np.zeros((2, 30, 40), np.uint8)
    truth[5:5 + thick, 4:36] = 1
    predicted[5 + shift:5 + shift + thick, 4:36] = 1
    found = dice(predicted, truth, 1)
    both = int((truth & predicted).sum())
    picture, ((ax,),) = new_picture(f"Dice = 2 × {both} / ({truth.sum()} + {predicted.sum()}) = {found:.3f}",
                                    size=(9, 4.2))
    ax.imshow(truth + 2 * predicted, cmap="gray_r", vmin=0, vmax=6, interpolation="nearest")
    for top, name, colour, dashes in ((5, "truth", BLUE, "-"), (5 + shift, "prediction", VERMILION, "--")):
        ax.add_patch(Rectangle((3.5, top - 0.5), 32, thick, fill=False, lw=2.5, ec=colour, ls=dashes,
                               label=f"{name}: {32 * thick} px"))
    ax.set(xticks=[], yticks=[], xlim=(-0.5, 39.5), ylim=(29.5, -0.5))
    ax.spines[:].set_visible(False)
    ax.legend(loc="lower right", fontsize=9, title=f"in both: {both} px")
    return picture.with_alt(f"A layer of {thick} px, moved by {shift} px: Dice {found:.3f}.")


def descent(learning_rate: float = 0.3, steps: int = 8) -> Picture:
    """Gradient descent on the loss w²: each step goes against the slope, times the learning rate."""
    weights = 3 * (1 - 2 * learning_rate) ** np.arange(steps + 1)  # w - rate * 2 w
    weight = np.linspace(-4, 4, 200)
    picture, ((curve, course),) = new_picture(f"Learning rate {learning_rate:g}: after {steps} steps the loss is "
                                              f"{weights[-1] ** 2:.3g}", 1, 2, WIDE)
    curve.plot(weight, weight**2, color=GREY)
    curve.plot(weights, weights**2, "o-", color=VERMILION, lw=1, ms=6)
    curve.set(xlabel="weight", ylabel="loss", xlim=(-4, 4), ylim=(0, 16))
    course.plot(weights**2, "o-", color=VERMILION)
    course.set(xlabel="step", ylabel="loss", ylim=(0, max(9.5, min((weights**2).max(), 100))))
    return picture.with_alt(f"From weight 3, loss 9, in {steps} steps to weight {weights[-1]:.3g}, loss "
                            f"{weights[-1] ** 2:.3g}.")


def schedules(epochs: int = 200, initial_rate: float = 0.01, power: float = 0.9) -> Picture:
    """The learning rate over a training: by the poly rule, and divided by five on each of three plateaus."""
    epoch = np.arange(epochs)
    poly = initial_rate * (1 - epoch / epochs) ** power
    plateau = initial_rate / 5.0 ** np.searchsorted(np.array([0.4, 0.65, 0.85]) * epochs, epoch)
    picture, ((ax,),) = new_picture("Two rules for the learning rate", size=SHORT)
    ax.semilogy(epoch, poly, color=BLUE, lw=2, label=f"poly: (1 - epoch / epochs) ^ {power:g}")
    ax.step(epoch, plateau, color=VERMILION, ls="--", lw=2, where="post",
            label="plateau: divided by 5 when the loss stays")
    ax.set(xlabel="epoch", ylabel="learning rate", ylim=(initial_rate / 500, initial_rate * 1.5))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.legend(frameon=False, fontsize=8)
    return picture.with_alt(f"From {initial_rate:g} on; after half of the epochs the poly rule gives "
                            f"{poly[epochs // 2]:.4g}.")


def window_weights(length: int = 300, window: int = 128, step: float = 0.5) -> Picture:
    """Windows along one axis, their weights, and the sum by which the weighted predictions are divided."""
    count = max(1, math.ceil((length - window) / (step * window)) + 1)
    starts = np.rint(np.linspace(0, max(length - window, 0), count)).astype(int)
    picture, ((ax, below),) = new_picture(f"{count} windows of {window} px along {length} px, at most "
                                          f"{step:g} of a window apart", 1, 2, WIDE)
    total = np.zeros(length)
    for number, start in enumerate(starts):
        place = np.arange(start, min(start + window, length))
        weight = _bell(place - start - (window - 1) / 2, window / 8)
        total[place] += weight
        ax.plot(place, weight, lw=1.6, color=(BLUE, VERMILION, PURPLE)[number % 3], ls=("-", "--", ":")[number % 3])
        below.barh(number, window, left=start, color=PALE, ec=GREY)
    ax.fill_between(np.arange(length), total, color=PALE, label="sum")
    ax.set(xlabel="pixel", ylabel="weight", xlim=(0, length), ylim=(0, None))
    ax.legend(frameon=False, fontsize=8)
    below.set(xlabel="pixel", ylabel="window", xlim=(0, length), yticks=range(count))
    return picture.with_alt(f"{count} windows start at {', '.join(map(str, starts))}; the centre of each counts most.")


def averaged_members(members: int = 5, noise: float = 0.08) -> Picture:
    """Probabilities of one layer down an A-scan, by several networks, and their mean: errors of chance cancel."""
    depth = np.arange(80)
    truth = ((depth > 25) & (depth < 50)).astype(float)
    rng = np.random.default_rng(3)
    shifts = rng.normal(0, 30 * noise, members)
    curves = [1 / (1 + np.exp(-(12 - np.abs(depth - 37.5 - shift)) / 1.5)) for shift in shifts]
    bumps = [0.7 * _bell(depth - place, 3) for place in rng.uniform(55, 78, members)]
    single = np.clip(np.array(curves) + np.array(bumps), 0, 1)
    picture, ((ax,),) = new_picture(f"The mean of {members} networks makes fewer errors than one", size=WIDE)
    ax.fill_between(depth, truth, color=PALE, step="mid", label="the layer")
    ax.plot(depth, single.T, color=GREY, lw=0.7)
    ax.plot(depth, single.mean(axis=0), color=BLUE, lw=3, label="mean")
    ax.axhline(0.5, color="black", ls="--", lw=1)
    ax.set(xlabel="depth (px)", ylabel="probability of the layer")
    ax.legend(frameon=False, fontsize=8)
    one, all_of_them = (int(((p > 0.5) != (truth > 0.5)).sum()) for p in (single[0], single.mean(axis=0)))
    return picture.with_alt(f"The first network is wrong in {one} pixels, the mean of {members} in {all_of_them}.")


def boundary_path(stiffness: float = 2.0) -> Picture:
    """A boundary as the best path from left to right, against the best row of each A-scan by itself."""
    rng = np.random.default_rng(5)
    rows, columns = np.mgrid[:30, :60]
    truth = 14 + 4 * np.sin(columns[0] / 9)
    strength = _bell(rows - truth, 2.0) + 0.45 * rng.random((30, 60))
    strength[:, 24:31] = 0.45 * rng.random((30, 7))  # the shadow of a vessel
    alone = strength.argmax(axis=0)
    cost = stiffness / 10 * np.square(np.subtract.outer(np.arange(30), np.arange(30)))
    best, came = strength[:, 0], []
    for column in range(1, 60):
        through = best[None] - cost
        came.append(through.argmax(axis=1))
        best = through.max(axis=1) + strength[:, column]
    path = [int(best.argmax())]
    for previous in reversed(came):
        path.append(int(previous[path[-1]]))
    picture, ((ax,),) = new_picture("A boundary as a path: what one A-scan cannot tell, its neighbours do", size=TALL)
    ax.imshow(strength, cmap="gray", aspect="auto")
    ax.plot(alone, ".", color=VERMILION, ms=7, label="best row of each A-scan alone")
    ax.plot(path[::-1], color=BLUE, lw=2.5, label="best path")
    ax.set(xlabel="A-scan (a vessel's shadow from 24 to 30)", ylabel="depth (px)")
    ax.legend(loc="lower right", fontsize=8)
    errors = [float(np.abs(np.array(found) - truth).mean()) for found in (alone, path[::-1])]
    return picture.with_alt(f"Mean error {errors[0]:.1f} px for each A-scan alone, {errors[1]:.1f} px for the path.")


def roc_threshold(healthy: Sequence[float], glaucoma: Sequence[float], threshold: float,
                  quantity: str = "probability of glaucoma") -> Picture:
    """Two groups on one axis, a threshold through them, and the ROC curve that moving it draws.

    A scan at or above the threshold is called glaucoma.
    """
    without, with_it = np.sort(np.asarray(healthy, float)), np.sort(np.asarray(glaucoma, float))
    cuts = np.unique([*without, *with_it, threshold, np.inf])[::-1]
    false_positive, true_positive = ([float((group >= cut).mean()) for cut in cuts] for group in (without, with_it))
    here = float((without >= threshold).mean()), float((with_it >= threshold).mean())
    auc = float(np.mean(np.subtract.outer(with_it, without) > 0) + np.mean(np.equal.outer(with_it, without)) / 2)
    counts = f"{int((with_it >= threshold).sum())} of {len(with_it)} found, " \
             f"{int((without >= threshold).sum())} of {len(without)} false alarms"
    picture, ((strip, curve),) = new_picture(f"Threshold {threshold:.3g}: {counts}", 1, 2, TALL, width_ratios=(3, 2))
    for row, (values, name, marker) in enumerate(((without, "healthy", "o"), (with_it, "glaucoma", "^"))):
        strip.plot(values, row + 0.25 * np.sin(np.arange(len(values)) * 2.4), marker, ms=6, alpha=0.7,
                   color=(BLUE, VERMILION)[row], label=name)
    strip.axvline(threshold, color="black", ls="--")
    strip.set(xlabel=quantity, yticks=[0, 1], yticklabels=["healthy", "glaucoma"], ylim=(-0.6, 1.6))
    curve.plot(false_positive, true_positive, color=GREY, lw=2)
    curve.plot([0, 1], [0, 1], color=PALE, lw=1)
    curve.plot(*here, "o", ms=11, color=VERMILION)
    curve.set(xlabel="1 - specificity (false alarms)", ylabel="sensitivity (found)", aspect="equal",
              xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    curve.set_title(f"AUC {auc:.3f}", fontsize=9)
    return picture.with_alt(f"At threshold {threshold:.3g}: {counts}; AUC {auc:.3f}.")


def smoothed_mask(width: int = 3) -> Picture:
    """A column of a mask in GOALS greys, as stored and after smoothing over `width` px: new greys are other labels."""
    stored = np.repeat([255, 0, 80, 255, 160, 255], (10, 8, 8, 8, 10, 6))
    smooth = np.convolve(np.pad(stored, width // 2, "edge"), np.ones(width) / width, "valid")[:len(stored)]
    strange = int((~np.isin(np.rint(smooth), (0, 80, 160, 255))).sum())
    picture, ((ax,),) = new_picture(f"Smoothed over {width} px, {strange} of {len(stored)} pixels have a grey that "
                                    "is no label", size=WIDE)
    for grey, name in ((0, "RNFL"), (80, "GCIPL"), (160, "choroid"), (255, "everything else")):
        ax.axhline(grey, color=PALE, lw=6, zorder=0)
        ax.text(len(stored), grey, f" {name} ({grey})", va="center", fontsize=8)
    ax.step(np.arange(len(stored)), stored, where="mid", color=GREY, lw=2.5, label="as stored")
    ax.plot(smooth, "o--", color=VERMILION, ms=4, lw=1, label="smoothed")
    ax.set(xlabel="depth (px)", ylabel="grey value of the mask", ylim=(-15, 275))
    ax.legend(frameon=False, fontsize=8)
    return picture.with_alt(f"Smoothing over {width} px makes {strange} of {len(stored)} greys that stand for no "
                            "label.")


def kernels_of_volumes(between_um: float = 120, along_um: float = 12) -> Picture:
    """Voxels to scale: where B-scans lie far apart, a 3 x 3 x 3 kernel mixes tissue that lies far apart."""
    picture, axes = new_picture("What a kernel of three voxels an axis covers, seen from above", 1, 2, WIDE)
    for ax, across, name in ((axes[0, 0], 3, "3 × 3 × 3"), (axes[0, 1], 1, "1 × 3 × 3")):
        for row in range(5):
            for column in range(int(5 * max(between_um / along_um, 1))):
                inside = abs(row - 2) <= across // 2 and abs(column - int(2.5 * max(between_um / along_um, 1))) <= 1
                ax.add_patch(Rectangle((column * along_um, row * between_um), along_um, between_um, lw=0.4, ec=GREY,
                                       fc=VERMILION if inside else "white"))
        ax.set(xlim=(0, 5 * max(between_um, along_um)), ylim=(0, 5 * between_um), aspect="equal",
               xlabel="along a B-scan (µm)", ylabel="across the B-scans (µm)")
        ax.set_title(f"kernel {name}: {across * between_um:.0f} × {3 * along_um:.0f} µm", fontsize=9)
    return picture.with_alt(f"A kernel of three B-scans covers {3 * between_um:.0f} µm across, {3 * along_um:.0f} µm "
                            "along them.")


def coverage(factor: float = 1.0, points: int = 100) -> Picture:
    """A band of ± `factor` stated deviations around a boundary, and how many of the true places lie in it."""
    rng = np.random.default_rng(7)
    along = np.arange(points)
    stated = 1 + 0.8 * np.sin(along / 15) ** 2
    error = 1.6 * stated * rng.standard_normal(points)  # the errors are larger than was stated
    inside = np.abs(error) <= factor * stated
    picture, ((ax,),) = new_picture(f"A band of ± {factor:g} stated deviations holds {inside.mean():.0%} of the true "
                                    "places", size=WIDE)
    ax.fill_between(along, -factor * stated, factor * stated, color=PALE, label="band")
    for chosen, name, look in ((inside, "inside", {"color": BLUE, "marker": "o"}),
                               (~inside, "outside", {"color": VERMILION, "marker": "x"})):
        ax.scatter(along[chosen], error[chosen], s=18, label=name, **look)
    ax.set(xlabel="A-scan", ylabel="true minus drawn (px)", ylim=(-8, 8))
    ax.legend(frameon=False, fontsize=8, ncols=3)
    return picture.with_alt(f"Of {points} true places {inside.sum()} lie in the band. One deviation should hold 68 %; "
                            "here the errors were made 1.6 times as large as stated.")


def paired(people: int = 12, gain: float = 0.01) -> Picture:
    """Two methods on the same people: their scores overlap, their differences scan by scan tell."""
    rng = np.random.default_rng(2)
    first = rng.normal(0.93, 0.03, people)
    second = first + gain + rng.normal(0, 0.006, people)
    picture, ((scores, change),) = new_picture("Compare scan by scan: people differ more than methods do", 1, 2,
                                               WIDE)
    for values, place in ((first, 0), (second, 1)):
        scores.plot(np.full(people, place), values, "o", color=(BLUE, VERMILION)[place], alpha=0.7)
    scores.plot([0, 1], [first, second], color=GREY, lw=0.6)
    scores.set(xticks=[0, 1], xticklabels=["method A", "method B"], xlim=(-0.4, 1.4), ylabel="Dice")
    better = int((second > first).sum())
    change.axvline(0, color="black", lw=1)
    change.plot(second - first, np.arange(people), "o", color=PURPLE)
    change.set(xlabel="B minus A, the same person", yticks=[])
    mean, deviation = np.mean(second - first), first.std(ddof=1)
    return picture.with_alt(f"B is better in {better} of {people} people; the mean change is {mean:+.4f}, the scores "
                            f"of one method spread by {deviation:.3f}.")


def interval_of_mean(people: int = 20) -> Picture:
    """A mean over people, drawn again and again from them, and its 95 % interval: it narrows with their number."""
    rng = np.random.default_rng(11)
    values = rng.normal(0.95, 0.02, people)
    means = values[rng.integers(people, size=(4000, people))].mean(axis=1)
    _, low, high, _ = bootstrap_interval(values)
    picture, ((ax,),) = new_picture(f"Mean of {people} people: {values.mean():.3f} [{low:.3f}, {high:.3f}]", size=SHORT)
    ax.hist(means, np.linspace(0.9, 1, 101), color=PALE, ec=GREY, lw=0.3)
    ax.plot(values, np.full(people, 40), "|", color=VERMILION, ms=14)
    for limit in (low, high):
        ax.axvline(limit, color="black", ls="--", lw=1)
    ax.set(xlabel="Dice (ticks: one person each; bars: means of people drawn again)", ylabel="times", xlim=(0.9, 1))
    return picture.with_alt(f"The mean of {people} people is {values.mean():.3f}; its 95 % interval is "
                            f"{high - low:.3f} wide.")


def _bell(distance: np.ndarray, width: float) -> np.ndarray:
    return np.exp(-0.5 * np.square(distance / width))
