"""Exercises that answer back: `check("06-2", answer, run)` at the end of a lesson says right, or what is off.

What is right is computed from the run's files or by the package's own rules, so that it changes with them. torch and
paddle are not imported.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain, product
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from octkit.common.errors import OctkitError
from octkit.common.files import read_json, read_table
from octkit.common.language import in_words
from octkit.data.image_files import read_mask
from octkit.data.labels import LAYERS, mask_coding
from octkit.data.layouts.goals import true_diagnoses
from octkit.evaluation.evaluate import examples, read_predictions
from octkit.evaluation.metrics import THRESHOLD, broken_a_scans, dice
from octkit.figures.charts import read_log
from octkit.figures.chinese import in_language
from octkit.layers import thickness
from octkit.lessons import ledger
from octkit.planning import rules
from octkit.planning.fingerprint import crop_to_nonzero
from octkit.planning.preprocess import normalise
from octkit.planning.run import Run

TOLERANCE = 0.01  # of the right number: answers may be rounded to three digits
NEAR = 0.02  # of the training scans: a rule that decides so many fewer rightly than the best is nearly the best
VAGUE = "too ", "off by one", "look at ", "it is another"  # remarks after which the hint is worth a look
TRIES: Counter[tuple[str, str]] = Counter()  # (run, exercise) -> wrong answers so far


class Known(NamedTuple):
    """The right answer (a number, a text, or a tuple of them), and usual wrong ones with the remark that helps.

    An answer may be off by `tolerance` of a number, and `within` so much of it, for what the lesson prints with few
    digits. Where many answers are right, `judge` says of one whether it is, and why; None where it is not of the kind
    of `right`.
    """

    right: Any
    wrong: dict[Any, str] = {}
    within: float = 1e-9
    judge: Callable[[Any], tuple[bool, str] | None] | None = None
    tolerance: float = TOLERANCE


def check(name: str, answer: Any, run: Run) -> bool:
    """Print whether an answer to the exercise `name` ("06-2") is right, else what is off; True where it is right."""
    if name not in (known := exercises()):
        near = [other for other in known if other[:2] == name[:2]] or known
        return _show(name, False, f"There is no such exercise. There are {', '.join(near)}.")
    if answer is None:
        print(_said(f"Exercise {name}: not answered. Write your answer in the place of None and run this cell."))
        return False
    try:
        right, remark = judged(known[name](Exercises(run)), answer)
    except (OctkitError, OSError) as error:
        return _show(name, False, f"Cannot be checked: {error}. Have the lessons up to this one been run (octkit run)?")
    TRIES[str(run.folder), name] += not right
    vague = remark.startswith(VAGUE) and TRIES[str(run.folder), name] > 1
    verdict = in_words("Right.", "正确。") if right else in_words("Not yet.", "还不对。")
    told = [remark, *["The hint under the question helps."] * vague]
    return _show(name, right, " ".join([verdict, *map(_said, filter(None, told))]))


def _said(remark: str) -> str:
    """A remark as a sentence, in the language that people read; what has no Chinese stays in English."""
    words = remark.rstrip(".")
    shown = in_language(words)
    return remark[:1].upper() + remark[1:] if shown == words else f"{shown}。"


def count_right(sides: tuple[list[float], list[float]], limit: float | None = None) -> int:
    """How many scans, with glaucoma and without, are decided rightly by "from `limit` on it is glaucoma".

    None: by the limit that suits best. nan is never called glaucoma.
    """
    sick, healthy = sides
    limits = [*filter(math.isfinite, sick + healthy), math.inf] if limit is None else [limit]
    return max(sum(value >= cut for value in sick) + sum(not value >= cut for value in healthy) for cut in limits)


def exercises() -> dict[str, Callable[["Exercises"], Known]]:
    """Name of each exercise -> the method of `Exercises` that knows it; the method's name ends in the exercise's."""
    return {name[-4:].replace("_", "-"): method for name, method in vars(Exercises).items() if name[-1].isdigit()}


def judged(known: Known, answer: Any) -> tuple[bool, str]:
    """Whether an answer is right, and a remark. Raises OctkitError where the run has no right answer."""
    right = known.right
    if right is None or right != right:
        raise OctkitError("this run left nothing to answer it from (too few scans, or none that was seen)")
    if known.judge and (verdict := known.judge(answer)):
        return verdict
    if known.judge or not _fits(right, answer):
        return False, f"expected {_kind(right)}, found {answer!r:.40} ({type(answer).__name__})."
    if _same(right, answer, known.within, known.tolerance):
        return True, ""
    wrong = chain(known.wrong.items(), _relations(right))
    remarks = (remark for value, remark in wrong if _same(value, answer, tolerance=known.tolerance))
    return False, (next(remarks, "") or _what_is_off(right, answer)) + "."


def _what_is_off(right: Any, answer: Any) -> str:
    if isinstance(right, str):
        return "it is another one"
    if isinstance(right, tuple):
        off = [str(at) for at, pair in enumerate(zip(right, answer, strict=True), 1) if not _same(*pair)]
        return f"look at value {' and '.join(off)} of the {len(right)}"
    if isinstance(right, int) and answer % 1:
        return "asked for is a whole number"
    return f"too {'large' if answer > right else 'small'}"


def _relations(right: Any) -> Iterator[tuple[Any, str]]:
    """Wrong numbers that say by themselves what went wrong."""
    if isinstance(right, tuple):
        yield right[::-1], "the values are swapped"
    if isinstance(right, float):
        yield round(right, 2), "rounded too far: give one digit more"
    if isinstance(right, int):
        yield from ((right + 1, "off by one, too large"), (right - 1, "off by one, too small"))
    if isinstance(right, Real):
        yield from ((-right, "the sign is the other one"), (1.0 - right, "this is the other part, 1 minus it is right"),
                    (right and 1.0 / right, "divide the other way round"), (100.0 * right, "in per cent, not a share"),
                    (1e3 * right, "1000 times too large, the unit?"), (right / 1e3, "1000 times too small, the unit?"))


def _kind(right: Any) -> str:
    if isinstance(right, tuple):
        return f"({', '.join(map(_kind, right))})"
    return "a text in quotes" if isinstance(right, str) else "a number"


def _fits(right: Any, answer: Any) -> bool:
    if isinstance(right, tuple):
        listed = isinstance(answer, (tuple, list, np.ndarray)) and len(answer) == len(right)
        return listed and all(map(_fits, right, answer))
    if isinstance(right, str):
        return isinstance(answer, str)
    return isinstance(answer, Real) and not isinstance(answer, bool) and math.isfinite(answer)


def _same(right: Any, answer: Any, within: float = 1e-9, tolerance: float = TOLERANCE) -> bool:
    if isinstance(right, tuple):
        return all(_same(*pair, within, tolerance) for pair in zip(right, answer, strict=True))
    if isinstance(right, str):  # scans and steps may be called by their files
        plain = answer.strip("+ ").removesuffix(".ipynb").removesuffix(".png")
        return right.strip("+ ").casefold() == plain.casefold()
    return answer == right if isinstance(right, int) else math.isclose(answer, right, rel_tol=tolerance, abs_tol=within)


def _show(name: str, right: bool, text: str) -> bool:
    Console(highlight=False).print(Panel.fit(Text(text), title=in_words(f"Exercise {name}", f"练习 {name}"),
                                             title_align="left", border_style="green" if right else "red"))
    return right


class Exercises:
    """The exercises of all lessons on one run: a method each, whose name ends in the exercise's."""

    def __init__(self, run: Run):
        self.run = run

    data = property(lambda self: self.run.dataset)
    first = property(lambda self: self.data.train[0])
    plan = property(lambda self: self.run.plan.configurations["2d"])
    train = property(lambda self: self.run.settings.train)

    def rnfl(self, case: Any) -> np.ndarray:
        """The profile of the RNFL in a training case's mask."""
        return thickness.of_case(case, self.data.read_mask(case))["rnfl"]

    def shares(self) -> np.ndarray:
        """The share of each label in the pixels of the training masks."""
        masks = map(self.data.read_mask, self.data.train)
        counts = np.sum([np.bincount(mask.ravel(), minlength=256) for mask in masks], axis=0)
        return counts / counts.sum()

    def glaucoma(self) -> dict[str, float]:
        """Name of a validation scan -> the submitted probability."""
        found = read_predictions(self.run.classifier / "predictions.csv")
        return {name.rpartition(".")[0]: value for name, value in found.items()}

    def thinness(self) -> dict[str, dict[str, float]]:
        """Sector -> validation scan -> minus the mean RNFL thickness of its predicted mask, nan without one."""
        sectors = list(thickness.all_sectors())
        table: Any = read_table(self.run.thickness_file, sectors, ("case", "layer"), "run lesson 10 again")
        return (-table[table.layer == "rnfl"].set_index("case")[sectors]).to_dict()

    def thinness_in_training(self, sector: str) -> tuple[list[float], list[float]]:
        """The same of a sector in the training masks: of scans with glaucoma and of scans without."""
        found = [(case.glaucoma, -thickness.means(self.rnfl(case))[sector]) for case in self.data.train]
        sick, healthy = ([value for label, value in found if label == side] for side in (1, 0))
        return sick, healthy

    def sides(self, values: dict[str, float]) -> tuple[list[float], list[float]]:
        """Values by validation scan as those of scans with glaucoma and those of scans without."""
        if not (known := true_diagnoses(self.data)):
            raise OctkitError(f"{self.data.root}: keeps the diagnoses of the validation scans to itself")
        sick, healthy = ([value for name, value in values.items() if known.get(name) == label] for label in (1, 0))
        return sick, healthy

    def degrees_of_an_a_scan_00_1(self) -> Known:
        return Known(float(np.diff(thickness.angles(np.zeros(768)))[0]), {
            2 * math.pi / 768: "this is in radians",
            360 / 767: "from the last A-scan it is one more step to the first: the two ends are neighbours"},
                     tolerance=0.001)

    def leaves_selection_00_2(self) -> Known:
        from octkit.lessons.run_all import STEPS  # here, for it takes a second to import

        return Known(next(int(step.notebook[:2]) for step in STEPS if "selection.json" in step.leaves),
                     {8: "this one predicts the held-out scans; what is chosen by them comes after"})

    def share_of_pixels_01_1(self) -> Known:
        background, layer = self.shares()[:2]
        return Known(layer, {layer / (1 - background): "this is its share of the layers; asked was that of all pixels"})

    def always_background_01_2(self) -> Known:
        mask, background = self.data.read_mask(self.first), self.shares()[0]
        return Known((background, dice(0 * mask, mask, 1)), {
            (1 - background, 0.0): "these pixels are exactly those that it gets wrong",
            (background, background): "Dice is the overlap with the layer, and there is none"})

    def cropped_02_1(self) -> Known:
        image = np.zeros((1, 8, 10))
        image[:, 2:6, 3:10] = 1
        return Known(tuple(side.stop - side.start for side in crop_to_nonzero(image)),
                     {(3, 6): "rows 2 to 5 are four: both ends count", (8, 10): "this is the size before"})

    def mean_grey_02_2(self) -> Known:
        image, mask = self.data.read_image(self.first)[0], self.data.read_mask(self.first)
        return Known(float(image[mask > 0].mean()), {
            float(image.mean()): "this is the mean over all pixels; asked was that over pixels with a label"})

    def halvings_03_1(self) -> Known:
        halvings = len(rules.topology((1, 1), (40, 40))[1]) - 1
        return Known(halvings, {halvings + 1: "5 px are not halved again: fewer than 4 would be left"})

    def batch_03_2(self) -> Known:
        patch, strides, _ = rules.topology((1, 1), (800, 1100))
        values = rules.feature_map_values(patch, rules.feature_maps(len(strides), 32, 512), strides, 3)
        few, many = (rules.batch_size(values, 16, scans * 800 * 1100, patch) for scans in (100, 10**6))
        return Known(few, {many: "so many the memory holds, but a batch has at most 5 % of all pixels"})

    def held_out_04_1(self) -> Known:
        name = self.data.train[-1].name
        fold = next((k for k, split in enumerate(self.run.splits) if name in split["validation"]), math.nan)
        return Known(fold, {fold + 1: "folds are counted from 0"})

    def speckle_04_2(self) -> Known:
        record = self.run.fingerprint.intensity[0]
        return Known(float(normalise(np.full((1, 1, 1), 255.0), [record], ["ct"]).item()), {
            (255 - record["mean"]) / record["std"]: "it is clipped first, to the 99.5 percentile",
            record["percentile_99_5"] - record["mean"]: "divide by the deviation, too"})

    def not_drawn_05_1(self) -> Known:
        chances = 0.1, 0.2, 0.15, 0.15, 0.25, 0.1, 0.3, 0.2, 0.2  # training's, which needs torch: a test compares
        return Known(math.prod(1 - chance for chance in chances), {
            1 - sum(chances): "chances of things that can happen together do not add up",
            math.prod(chances): "this is the chance of all at once"})

    def mirrored_05_2(self) -> Known:
        axes = len({-1, -2} & set(self.run.settings.augment.mirror_axes))
        return Known(2**axes, {2**axes - 1: "the patch as it is counts, too",
                               4: f"in this run only {axes} of the two axes may be mirrored: see `mirror_axes`"})

    def dice_by_hand_06_1(self) -> Known:
        ours, theirs = np.zeros((2, 4, 7), int)
        ours[:, :4] = theirs[:, 1:] = 1
        return Known(dice(ours, theirs, 1), {
            12 / 28: "this is the intersection over the union; Dice is twice the overlap over the sum of both",
            12 / 16: "this is the share of A that is hit", 12 / 24: "this is the share of B that is hit"})

    def rate_06_2(self) -> Known:
        rate = self.train.initial_rate
        return Known(rate * 0.4**0.9, {0.4 * rate: "this is a straight line; the rule has a power of 0.9",
                                       rate * 0.6**0.9: "after 60 % of the epochs 40 % of them are left",
                                       0.4**0.9: "this is the factor, times the first rate"})

    def receptive_field_06_3(self) -> Known:
        field, apart, blind = [1], 1, 1
        for (kernel, _), (stride, _) in zip(self.plan.kernels[:3], self.plan.strides[:3], strict=True):
            blind += 2 * (kernel - 1)
            field += [field[-1] + (kernel - 1) * apart, field[-1] + (kernel - 1) * apart * (1 + stride)]
            apart *= stride
        return Known(field[-1], {field[4]: "this is the end of the second stage",
                                 blind: "after each stride neighbours lie twice as far apart"})

    def patches_07_1(self) -> Known:
        batches = self.train.epochs * self.train.iterations_per_epoch
        return Known(batches * self.plan.batch_size, {
            batches: "these are batches", batches * self.plan.batch_size // self.train.epochs: "this is one epoch"})

    def best_epoch_07_2(self) -> Known:
        log = read_log(self.run.fold("2d", self.train.folds[0]) / "log.csv")
        dice_of, loss = log[f"dice_{self.data.labels[0]}"], log["validation_loss"]
        if not np.isfinite(dice_of).any():  # fold "all" holds none out
            return Known(None)
        best, of_loss = (int(log["epoch"][at]) for at in (np.nanargmax(dice_of), np.nanargmin(loss)))
        return Known(best, {best - 1: "epochs are counted from 1; read the column `epoch` at this place",
                            of_loss: "in this epoch the loss is best, not this Dice"})

    def windows_08_1(self) -> Known:
        gaps = math.ceil((1100 - 384) / (384 / 2))
        return Known(gaps + 1, {gaps: "these are the steps; the first window needs none",
                                math.ceil(1100 / 384): "they would not overlap by half"})

    def mirroring_08_2(self) -> Known:
        prices = read_json(self.run.mirroring_file)
        plain, mirrored = (prices[name]["dice_by_scan"] if prices else {} for name in ("plain", "mirrored"))
        gain = sum(mirrored[name] - plain[name] for name in plain) / len(plain) if plain else None
        return Known(gain, within=0.51e-4)  # the lesson prints four digits

    def worst_scan_09_1(self) -> Known:
        scores, layer = read_json(self.run.scores_file), self.data.labels[0]
        by_dice = sorted((case[layer]["dice"] or 0, name) for name, case in scores["cases"].items())
        return Known(by_dice[0][1], {by_dice[-1][1]: "this is the best one",
                                     examples(scores)["worst"][0]: "this is the worst by the mean over all layers"})

    def averaged_09_2(self) -> Known:
        found = np.array([[0.5, 0.4, 0], [0.5, 0.4, 0], [0.1, 0.8, 0]])  # RNFL, GCIPL, choroid; the rest: background
        return Known(LAYERS[found.mean(0).argmax()], {
            "rnfl": "two of three say so, but probabilities are averaged, so that who is sure counts more"})

    def inferior_10_1(self) -> Known:
        found, um = thickness.means(self.rnfl(self.first)), 1000 * (self.first.spacing or [0.001])[0]
        return Known(found["I"], {found["I"] / um: "this is in px", found["S"]: "this is the superior quadrant",
                                  found["global"]: "this is the mean over the whole circle"})

    def bridged_10_2(self) -> Known:
        profile = np.array([60, 80, 100, np.nan, np.nan, 160, 140, 120, 100, 90, 80, 60])
        return Known(thickness.sector_means(profile, thickness.WHOLE)["global"], {
            float(np.nanmean(profile)): "this leaves the gap out, which lies where the layer is thick",
            float(np.nansum(profile)) / 12: "unseen is not 0 thick"})

    def limit_10_3(self) -> Known:
        found = {case.name: thickness.quadrants(self.rnfl(case))["I"] for case in self.data.train}
        healthy = [found[case.name] for case in self.data.train if case.glaucoma == 0] or [math.nan]
        return Known(float(np.nanpercentile(healthy, 5)), {
            float(np.nanpercentile([*found.values()], 5)): "this is the limit of all scans; take the healthy ones",
            min(healthy): "this is the thinnest healthy scan"})

    def auc_of_thickness_11_1(self) -> Known:
        pairs = list(product(*self.thinness_in_training("I")))
        right = sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs) if pairs else math.nan
        return Known(right, {1 - right: "thin speaks for glaucoma: count the pairs the other way round"})

    def threshold_11_2(self) -> Known:
        def judge(answer: Any) -> tuple[bool, str] | None:
            if not _fits(THRESHOLD, answer):
                return None
            missed, alarmed = sum(p < answer for p in sick), sum(p >= answer for p in healthy)
            fewest = sum(value >= min(sick) for value in healthy)
            more = f"; it can be as few as {fewest}" if not missed and alarmed > fewest else ""
            return not missed and not more, f"{missed} with glaucoma are missed, {alarmed} healthy ones alarmed{more}."

        sick, healthy = self.sides(self.glaucoma())
        return Known(min(sick, default=None), judge=judge)

    def rival_11_3(self) -> Known:
        def judge(answer: Any) -> tuple[bool, str] | None:
            if not _fits(("", 0.0), answer):
                return None
            if answer[0] not in (thin := self.thinness()):
                return False, f"the sectors are {', '.join(thin)}."
            learned = self.thinness_in_training(answer[0])
            ours, best = count_right(learned, -answer[1]), count_right(learned)
            chosen = f"of {sum(map(len, learned))} training scans your rule decides {ours} rightly"
            if ours < best - NEAR * sum(map(len, learned)):
                return False, f"{chosen}, the best limit of this sector {best}."
            rule, submitted = self.sides(thin[answer[0]]), self.sides(self.glaucoma())
            found, rival = count_right(rule, -answer[1]), count_right(submitted, THRESHOLD)
            return True, (f"{chosen}, the best of this sector {best}: honestly chosen. Does it reach the submitted "
                          f"answer? {'Yes' if found >= rival else 'No'}: of {sum(map(len, rule))} validation scans "
                          f"it decides {found} rightly, the submitted answer (from {THRESHOLD} on it is glaucoma) "
                          f"{rival}.")

        return Known(("I", 0.0), judge=judge)

    def called_glaucoma_12_1(self) -> Known:
        values = self.glaucoma().values()
        called = sum(value >= THRESHOLD for value in values)
        return Known(called, {len(values) - called: "these are the ones below 0.5", len(values): "these are all scans"})

    def rnfl_pixels_12_2(self) -> Known:
        name = self.data.validation[0].name
        mask = read_mask(self.run.predictions("validation") / f"{name}.png", mask_coding(self.data.labels))
        return Known(int((mask == 1).sum()), {int((mask == 0).sum()): "grey 255 is the background, 0 the RNFL"})

    def longest_step_13_1(self) -> Known:
        ends = ledger.ends(self.run)
        by_time, by_memory = (max(ends, key=lambda step: getattr(ends[step], what), default=None)
                              for what in ("seconds", "peak_memory_mb"))
        return Known(by_time, {by_memory: "this one took the most memory"})

    def share_of_time_13_2(self) -> Known:
        seconds = [end.seconds for end in ledger.ends(self.run).values()] or [math.nan]
        return Known(max(seconds) / sum(seconds), {max(seconds): "these are its seconds; divide by those of all steps"})

    def apart_14_1(self) -> Known:
        between, row, a_scan = self.first.spacing or [math.nan] * 3
        return Known(between / a_scan, {between / row: "this is against the rows; asked was against the A-scans"})

    def cubic_mm_14_2(self) -> Known:
        voxels, voxel = int((self.data.read_mask(self.first) == 1).sum()), math.prod(self.first.spacing or [math.nan])
        return Known(voxels * voxel, {voxels: "these are voxels", voxel: "this is one voxel"})

    def broken_15_1(self) -> Known:
        a_scans = ["0112030", "0122330", "0211030", "1120333", "0121030"]
        return Known(broken_a_scans(np.array([list(map(int, a_scan)) for a_scan in a_scans]).T), {
            4 / 5: "a crop may have no background above or below",
            2 / 5: "between GCIPL and choroid lies the outer retina, which is background here"})

    def best_measure_15_2(self) -> Known:
        gains = read_json(self.run.ablation_file)["gains"]
        best, mended = (max(gains, key=lambda step: sign * (gains[step][name]["mean"] or 0))
                        for name, sign in (("rnfl", 1), ("broken", -1)))
        return Known(best, {mended: "this one mends the most A-scans; asked was the Dice"})

    def verdict_16_1(self) -> Known:
        return Known("undecided", {
            "supported": "the mean is above 0, but the interval reaches below it",
            "not supported": "most of the interval lies above 0: these scans do not show that the claim is wrong"})

    def people_16_2(self) -> Known:
        scans = self.data.validation
        people = len({case.person for case in scans})
        return Known(people, {len(scans): "these are scans; several are of one person"} if len(scans) > people else {})

    def by_chance_16_3(self) -> Known:
        return Known(8 * 0.05, {1 - 0.95**8: "this is the chance that at least one does; asked was how many on average",
                                0.05: "this is one claim; there are eight"})
