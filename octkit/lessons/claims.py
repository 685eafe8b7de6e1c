"""Was the team right? The report's claims as experiments: candidates, a paired comparison, an interval, a verdict.

A candidate is a run beside the run that differs in what the claim is about (`experiments.experiment`), trained on all
training scans with each of `claims.seeds` seeds. A stopped training goes on. Candidates are judged on the validation
scans, which none of them saw: by the mean Dice of a scan's layers, of the most probable labels as they are. What is
compared is the difference scan by scan, averaged over the seeds; the interval is over people. Another seed can turn a
result round, so that a verdict needs all seeds on one side, too.

Leaves claims.json and claims.csv; a candidate's folder has what it scored in claims/.
"""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from octkit.common import hashes
from octkit.common.errors import OctkitError
from octkit.common.files import read_json, read_table, write_csv, write_json
from octkit.common.messages import say
from octkit.data.layouts.goals import true_diagnoses
from octkit.evaluation.diagnosis import auc_gain
from octkit.evaluation.intervals import Interval, bootstrap_interval
from octkit.evaluation.metrics import dice_of_labels
from octkit.evaluation.records import Answers
from octkit.inference.sliding_window import Predictor
from octkit.lessons.experiments import experiment
from octkit.phantoms.data_sets import make_data_set
from octkit.planning import steps
from octkit.planning.run import Run
from octkit.training.train import train_fold

COMMAND = "octkit run --profile claims"
FULL_MARKS = 0.99  # an AUC from which on there is nothing left to gain
CONFIG = "2d"
# The report's: nnU-Net v1's Adam keeps the largest second moment (amsgrad).
ADAM = {"optimiser": "adam", "amsgrad": True, "initial_rate": 0.01}


class Way(NamedTuple):
    """A candidate, which of its folds are averaged, and whether mirrored copies are."""

    candidate: str = "base"
    folds: tuple[int | str, ...] = ("all",)
    mirror: bool = False


@dataclass(frozen=True)
class Finding:
    """What became of a claim: `gain` (in `unit`) of what it calls better, and the verdict; `by_seed` means of each."""

    claim: str
    unit: str
    gain: Interval = Interval(np.nan, np.nan, np.nan, 0)
    by_seed: tuple[float, ...] = ()
    note: str = ""
    tested: bool = True

    @property
    def verdict(self) -> str:
        """"supported", "not supported", "undecided" or "not tested", by `decide`."""
        return decide(self.gain, self.by_seed) if self.tested else "not tested"

    def __str__(self) -> str:
        return f"{self.verdict:14s} {self.claim}: " + (f"{self.gain} {self.unit}{self._seeds()}" if self.tested else
                                                       self.note)

    def _seeds(self) -> str:
        each = f", by seed {', '.join(f'{mean:+.4f}' for mean in self.by_seed)}" if len(self.by_seed) > 1 else ""
        return each + (f". {self.note}" if self.note else "")


def decide(gain: Interval, by_seed: Sequence[float] = ()) -> str:
    """Supported where all of the interval and each seed's mean lie above 0, not supported where all lie below."""
    if gain.low > 0 and all(mean > 0 for mean in by_seed):
        return "supported"
    return "not supported" if gain.high < 0 and all(mean < 0 for mean in by_seed) else "undecided"


def candidates(run: Run) -> dict[str, dict[str, Any]]:
    """Name -> the settings in which a candidate differs from the run; "base" is the run itself."""
    chosen, epochs = run.settings, run.settings.train.epochs
    found: dict[str, dict[str, Any]] = {"base": {}}
    if chosen.train.optimiser == "sgd":
        found["adam"] = {"train": ADAM}
    found |= {f"epochs-{n}": {"train": {"epochs": n}} for n in lengths(epochs) if n != epochs}
    if chosen.train.extra_data:
        found["without-extra"] = {"train": {"extra_data": ()}}
    elif chosen.data.phantom and (chosen.data.root / "phantom.json").exists():  # not the user's scans
        found["extra"] = {"train": {"extra_data": (str(_extra_folder(run)),)}}
    return found


def lengths(epochs: int) -> list[int]:
    """The lengths of training to compare: a quarter of the epochs, a half, all, twice as many."""
    return sorted({max(1, epochs // 4), max(1, epochs // 2), epochs, 2 * epochs})


def _extra_folder(run: Run) -> Path:
    return run.folder.resolve() / "claims" / f"extra-{run.settings.claims.extra_scans}"


def _candidate(run: Run, name: str, seed: int) -> Run:
    """A candidate's run with the `seed`-th seed, ready to be trained; the run itself for base and the first seed."""
    changes = candidates(run)[name] | ({"seed": run.settings.seed + seed} if seed else {})
    if not changes:
        return run
    phantom = run.settings.data.phantom
    if name == "extra" and phantom and not (folder := _extra_folder(run)).exists():
        # Of other people, scanned by all kinds of devices.
        counts = run.settings.claims.extra_scans, 1, 0
        make_data_set(folder, counts, phantom.size, phantom.seed + 1000, looks="varied")
    other = experiment(run, f"{name}-{seed}", **changes)
    if not other.splits_file.exists():
        if not other.plan_file.exists():
            steps.fingerprint_run(other)
            steps.plan_run(other)
        steps.preprocess_run(other, progress=False)
        steps.split_run(other)
    if other.plan.configurations != run.plan.configurations:
        raise OctkitError(f"{other.plan_file}: has another network than {run.plan_file}, so that more than the claim "
                          f"would differ; remove {other.folder}, it is made anew")
    return other


def judged(run: Run, way: Way, seed: int = 0) -> dict[str, dict[str, float]]:
    """Train a candidate to its end and predict the validation scans: scan -> {"dice", "seconds"}, kept in claims/."""
    other = _candidate(run, way.candidate, seed)
    for fold in way.folds:
        if not other.checkpoint(CONFIG, fold).exists():
            say(f"{other.folder}: fold {fold} is trained")
        train_fold(other, CONFIG, fold, progress=False)
    made_from = [hashes.file_hash(other.checkpoint(CONFIG, fold)) for fold in way.folds]
    name = "-".join(map(str, way.folds)) + ("-mirrored" if way.mirror else "")
    path = other.folder / "claims" / f"{name}.json"
    if path.exists() and (kept := read_json(path))["made_from"] == made_from:
        return kept["scans"]
    predictor = Predictor.load(other.folder, run.settings.device, way.mirror, [CONFIG], way.folds)
    dataset, found = run.dataset, {}
    for case in (dataset.validation[0], *dataset.validation):  # the first one twice: it warms up
        image, truth = dataset.read_image(case), dataset.read_truth(case)
        assert truth is not None  # `findings` has looked
        began = time.perf_counter()
        mask = predictor(image, case.spacing, case.circle).argmax(0)
        seconds = time.perf_counter() - began
        found[case.name] = {"dice": float(np.nanmean(dice_of_labels(mask, truth, len(dataset.labels)))),
                            "seconds": seconds}
    write_json(path, {"made_from": made_from, "scans": found})
    return found


def gain(run: Run, better: Sequence[Way], worse: Sequence[Way], what: str = "dice") -> tuple[Interval, tuple]:
    """By how much the mean of some ways is higher than that of others: over people, and the mean of each seed."""
    people = {case.name: case.person for case in run.dataset.validation}

    def side(ways: Sequence[Way], seed: int) -> np.ndarray:
        tables = [judged(run, way, seed) for way in ways]
        return np.mean([[table[scan][what] for scan in people] for table in tables], axis=0)

    table = [side(better, seed) - side(worse, seed) for seed in range(run.settings.claims.seeds)]
    who = list(people.values())
    return (bootstrap_interval(np.mean(table, axis=0), who),
            tuple(bootstrap_interval(row, who).mean for row in table))


def findings(run: Run) -> list[Finding]:
    """Test every claim that the run's settings and data allow, train what that takes; leaves claims.json and .csv."""
    truth = all(case.truth is not None for case in run.dataset.validation)
    trains = run.settings.claims.seeds > 0 and truth and bool(run.dataset.validation)
    found = _of_candidates(run) if trains else _of_run(run, COMMAND if truth else
                                                       f"the validation scans have no truth; on phantoms: {COMMAND}")
    found += [_fractions(run), _imagenet(run, trains), _baseline(run)]
    write_json(run.claims_file, {
        "seeds": run.settings.claims.seeds, "scans": len(run.dataset.validation),
        "people": len({case.person for case in run.dataset.validation}),
        "findings": [asdict(one) | {"gain": _finite(one.gain), "verdict": one.verdict,
                                   "by_seed": [_number(mean) for mean in one.by_seed]} for one in found],
        "curve": {n: _finite(interval) for n, interval in (curve(run) if trains else {}).items()},
        "minutes": minutes(run) if trains else {}})
    columns = "claim", "verdict", "unit", *Interval._fields, "by_seed", "note"
    write_csv(run.claims_file.with_suffix(".csv"), columns, [
        (one.claim, one.verdict, one.unit, *_finite(one.gain).values(), " ".join(map(str, one.by_seed)), one.note)
        for one in found])
    return found


def _of_candidates(run: Run) -> list[Finding]:
    base, mirrored = Way(), Way(mirror=True)
    numbered = tuple(fold for fold in run.settings.train.folds if fold != "all")
    last, before = (Way(_length(run, n)) for n in (lengths(run.settings.train.epochs)[-1], run.settings.train.epochs))
    known = candidates(run)
    extra = ((Way("extra"), base) if "extra" in known else (base, Way("without-extra")) if "without-extra" in known
             else None)
    trials: list[tuple[str, str, Sequence[Way], Sequence[Way], str]] = [
        ("mirroring gains accuracy", "Dice", [mirrored], [base], "dice"),
        ("mirroring costs time", "s a scan", [mirrored], [base], "seconds")]
    if numbered:
        each = [Way(folds=(fold,)) for fold in numbered]
        trials += [("`all` beats the mean of its folds", "Dice", [base], each, "dice"),
                   ("`all` beats its folds averaged together", "Dice", [base], [Way(folds=numbered)], "dice")]
    if "adam" in known:
        trials.append(("Adam with the plateau rule beats SGD", "Dice", [Way("adam")], [base], "dice"))
    trials.append(("twice as many epochs beat this run's", "Dice", [last], [before], "dice"))
    if extra:
        trials.append(("extra data helps", "Dice", [extra[0]], [extra[1]], "dice"))
    return [Finding(claim, unit, *gain(run, better, worse, what)) for claim, unit, better, worse, what in trials]


def _length(run: Run, epochs: int) -> str:
    return "base" if epochs == run.settings.train.epochs else f"epochs-{epochs}"


def curve(run: Run) -> dict[int, Interval]:
    """Epochs -> mean Dice of the validation scans, over people, of a training of that length; over all seeds."""
    people = [case.person for case in run.dataset.validation]
    found = {}
    for n in lengths(run.settings.train.epochs):
        tables = [judged(run, Way(_length(run, n)), seed) for seed in range(run.settings.claims.seeds)]
        found[n] = bootstrap_interval(np.mean([[table[case.name]["dice"] for case in run.dataset.validation]
                                               for table in tables], axis=0), people)
    return found


def minutes(run: Run) -> dict[str, float]:
    """Name of each run that was trained -> the minutes of all its trainings, as their logs say."""
    found = {}
    for seed in range(run.settings.claims.seeds):
        for name in candidates(run):
            other = _candidate(run, name, seed)
            logs = other.folder.glob(f"models/{CONFIG}/fold_*/log.csv")
            tables = [read_table(log, ["seconds"], (), "run lesson 16 again: it is written anew") for log in logs]
            found[other.folder.resolve().name] = sum(float(table["seconds"].sum()) for table in tables) / 60
    return found


def _of_run(run: Run, why: str) -> list[Finding]:
    """What a run without candidates shows: mirroring, on the few scans that lesson 08 has predicted both ways."""
    prices = read_json(run.mirroring_file) if run.mirroring_file.exists() else {}
    found = [Finding(claim, "", note=why, tested=False) for claim in (
        "`all` beats its folds", "Adam with the plateau rule beats SGD", "more epochs help", "extra data helps")]
    if not prices:
        return [Finding("mirroring costs time and gains accuracy", "", note=why, tested=False), *found]
    plain, mirrored = prices["plain"]["dice_by_scan"], prices["mirrored"]["dice_by_scan"]
    cases = run.dataset.train + run.dataset.validation
    person = {case.name: case.person for case in cases}
    change = bootstrap_interval([mirrored[scan] - plain[scan] for scan in plain], [person[scan] for scan in plain])
    slower = prices["mirrored"]["seconds"] / prices["plain"]["seconds"]
    return [Finding("mirroring gains accuracy", "Dice", change,
                    note=f"It takes {slower:.1f} times as long; on {len(plain)} scans: {COMMAND} has more"), *found]


def _fractions(run: Run) -> Finding:
    """8:2 against 7:3: the classifiers of lesson 11, on the validation scans, which no trial saw."""
    claim, folder = "8:2 beats 7:3 (glaucoma)", run.classifier / "comparison"
    tables = {share: _outputs(folder.glob(f"{share}_*/outputs.csv")) for share in (0.7, 0.8)}
    labels = true_diagnoses(run.dataset)
    if not labels or not all(tables.values()):
        return Finding(claim, "", note=COMMAND, tested=False)
    return Finding(claim, "AUC", *_auc(run, labels, tables[0.7], tables[0.8]))


def _imagenet(run: Run, trains: bool) -> Finding:
    """The run's ResNet50, which began with a file's weights, against one that began with random ones."""
    claim, chosen = "ImageNet weights help (glaucoma)", run.settings.classify
    labels = true_diagnoses(run.dataset)
    if chosen.weights is None or not trains or not labels:
        return Finding(claim, "", tested=False, note=f"{COMMAND} --set classify.weights=FILE --set "
                       "classify.weights_sha256=SUM, a file of a ResNet50's weights in Paddle")
    random = experiment(run, "random-weights", classify={"weights": None, "weights_sha256": None, "pretrained": "none"})
    # In a process of its own: Paddle and torch do not share one.
    done = subprocess.run([sys.executable, "-m", "octkit", "classify", str(random.folder)], capture_output=True,
                          encoding="utf-8", check=False)
    if done.returncode:
        raise OctkitError(f"{random.folder}: its classifier ended with: {done.stderr.strip()}")
    theirs, ours = ([{scan: float(np.mean([table[scan] for table in tables])) for scan in tables[0]}]
                    for tables in (_outputs(each.classifier.glob("fold_*/outputs.csv")) for each in (random, run)))
    return Finding(claim, "AUC", *_auc(run, labels, theirs, ours))


def _outputs(files: Any) -> list[dict[str, float]]:
    """Scan -> log odds, of the validation scans, of each file; in the order of their names."""
    tables = [read_table(path, ["log_odds"], ("split", "scan"), "classify again") for path in sorted(files)]
    return [dict(zip(own["scan"], own["log_odds"], strict=True))
            for table in tables if len(own := table[table["split"] == "validation"])]


def _auc(run: Run, labels: Mapping[str, int], worse: Sequence[Mapping[str, float]],
         better: Sequence[Mapping[str, float]]) -> tuple[Interval, tuple[float, ...]]:
    """The gain in AUC of the means over seeds, with DeLong's interval, and that of each seed."""
    scans = [case.name for case in run.dataset.validation if case.name in labels]
    people = [case.person for case in run.dataset.validation if case.name in labels]
    known = [labels[scan] for scan in scans]
    one, other = (np.array([[table[scan] for scan in scans] for table in tables]) for tables in (worse, better))
    each = tuple(auc_gain(known, a, b, people)[0].mean for a, b in zip(one, other, strict=False))
    return auc_gain(known, one.mean(0), other.mean(0), people)[0], each


def _baseline(run: Run) -> Finding:
    """Task 2 "is awkward, the baseline scores full marks": by how much the ResNet50's AUC is above `FULL_MARKS`."""
    claim, path = f"the baseline scores full marks (AUC above {FULL_MARKS})", run.classifier / "answers.json"
    scored = Answers.load(path).scores.get("validation scans", {}) if path.exists() else {}
    if "resnet50" not in scored:
        return Finding(claim, "", note=COMMAND, tested=False)
    answer = scored["resnet50"]
    mean, low, high = (np.nan if value is None else value - FULL_MARKS
                       for value in (answer.auc.mean, answer.auc.low, answer.auc.high))
    return Finding(claim, "AUC", Interval(mean, low, high, answer.people), note=f"AUC {answer.auc}")


def _finite(found: Interval) -> dict[str, float | None]:
    return {name: _number(value) for name, value in found._asdict().items()}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
