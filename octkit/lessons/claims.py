"""Was the team right? The report's claims as experiments: candidates, a paired comparison, an interval, a verdict.

A candidate is a run beside the run that differs in what the claim is about (`experiments.experiment`), trained on all
training scans with each of `claims.seeds` seeds. A stopped training goes on. Candidates are judged on the validation
scans, which none of them saw: by the mean Dice of a scan's layers, of the most probable labels as they are. What is
compared is the difference scan by scan, averaged over the seeds; the interval is over people. Another seed can turn a
result round, so that a verdict needs all seeds on one side, too.

Leaves claims.json and claims.csv; a candidate's folder has what it scored in claims/. Neither torch nor paddle is
imported: `Trials` is given what trains and what predicts, and the classifier runs in a process of its own.
"""

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from octkit.classification.answers import read_outputs
from octkit.common import hashes
from octkit.common.errors import OctkitError
from octkit.common.files import read_json, read_table, write_csv, write_json
from octkit.common.messages import say
from octkit.data.layouts.goals import true_diagnoses
from octkit.evaluation.diagnosis import auc_gain
from octkit.evaluation.intervals import Interval, bootstrap_interval
from octkit.evaluation.records import Answers
from octkit.lessons.experiments import experiment
from octkit.phantoms.data_sets import make_data_set
from octkit.planning import steps
from octkit.planning.run import Run

COMMAND = "octkit run --profile claims"
FEWEST = 6  # people; of five all are on one side in 6 % of cases by chance, so that no 95 % interval tells
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
    """What became of a claim: `gain` (in `unit`) of what it calls better, over no scan where it was not tested."""

    claim: str
    unit: str = ""
    gain: Interval = Interval(np.nan, np.nan, np.nan, 0)
    by_seed: tuple[float, ...] = ()  # the mean of each
    note: str = ""

    @property
    def tested(self) -> bool:
        return self.gain.n > 0

    @property
    def verdict(self) -> str:
        """"supported", "not supported", "undecided" or "not tested", by `decide`."""
        return decide(self.gain, self.by_seed) if self.tested else "not tested"

    def __str__(self) -> str:
        seeds = f", by seed {', '.join(f'{mean:+.4f}' for mean in self.by_seed)}" if len(self.by_seed) > 1 else ""
        parts = f"{self.gain} {self.unit}{seeds}" if self.tested else "", self.note
        return f"{self.verdict:14s} {self.claim}: {'. '.join(filter(None, parts))}"


def decide(gain: Interval, by_seed: Sequence[float] = ()) -> str:
    """Supported where all of the interval and each seed's mean lie above 0, not supported where all lie below.

    Of fewer than `FEWEST` people nothing is decided.
    """
    if gain.n < FEWEST:
        return "undecided"
    if gain.low > 0 and all(mean > 0 for mean in by_seed):
        return "supported"
    return "not supported" if gain.high < 0 and all(mean < 0 for mean in by_seed) else "undecided"


def lengths(epochs: int) -> list[int]:
    """The lengths of training to compare: a quarter of the epochs, a half, all, twice as many."""
    return sorted({max(1, epochs // 4), max(1, epochs // 2), epochs, 2 * epochs})


class Trials:
    """A run's candidates, each trained and judged once: what has been done before is not repeated.

    `train` is `train.train_fold`, `score` is `measure.scan_scores`.
    """

    def __init__(self, run: Run, train: Callable[..., object], score: Callable[..., dict[str, dict[str, float]]]):
        self.run, self.train, self.score = run, train, score

    @property
    def candidates(self) -> dict[str, dict[str, Any]]:
        """Name -> the settings in which a candidate differs from the run; "base" is the run itself."""
        chosen, epochs = self.run.settings, self.run.settings.train.epochs
        found: dict[str, dict[str, Any]] = {"base": {}}
        if chosen.train.optimiser == "sgd":
            found["adam"] = {"train": ADAM}
        found |= {f"epochs-{n}": {"train": {"epochs": n}} for n in lengths(epochs) if n != epochs}
        if chosen.train.extra_data:
            found["without-extra"] = {"train": {"extra_data": ()}}
        elif chosen.data.phantom and (chosen.data.root / "phantom.json").exists():  # not the user's scans
            found["extra"] = {"train": {"extra_data": (str(self._extra_folder),)}}
        return found

    @property
    def trains(self) -> bool:
        """Whether candidates are asked for, and can be judged: the validation scans have truth."""
        cases = self.run.dataset.validation
        return self.run.settings.claims.seeds > 0 and bool(cases) and all(case.truth is not None for case in cases)

    @property
    def pairs(self) -> dict[str, tuple[list[Way], list[Way]]]:
        """Claim about candidates -> what it calls better, and what it calls worse."""
        base, longest = Way(), lengths(self.run.settings.train.epochs)[-1]
        pairs: dict[str, tuple[list[Way], list[Way]]] = {"mirroring gains accuracy": ([Way(mirror=True)], [base])}
        if numbered := tuple(fold for fold in self.run.settings.train.folds if fold != "all"):
            pairs["`all` beats the mean of its folds"] = [base], [Way(folds=(fold,)) for fold in numbered]
            pairs["`all` beats its folds averaged together"] = [base], [Way(folds=numbered)]
        if "adam" in self.candidates:
            pairs["Adam with the plateau rule beats SGD"] = [Way("adam")], [base]
        pairs["twice as many epochs beat this run's"] = [self._of_length(longest)], [base]
        if "extra" in self.candidates:
            pairs["extra data helps"] = [Way("extra")], [base]
        elif "without-extra" in self.candidates:
            pairs["extra data helps"] = [base], [Way("without-extra")]
        return pairs

    @property
    def trainings(self) -> list[tuple[str, int, int | str]]:
        """Candidate, seed and fold of every training that `findings` takes, for workers to do before (`ahead`)."""
        ways = [way for sides in self.pairs.values() for side in sides for way in side]
        ways += map(self._of_length, lengths(self.run.settings.train.epochs))
        seeds = range(self.run.settings.claims.seeds if self.trains else 0)
        return list(dict.fromkeys((way.candidate, seed, fold) for seed in seeds for way in ways for fold in way.folds))

    @property
    def _extra_folder(self) -> Path:
        return self.run.folder.resolve() / "claims" / f"extra-{self.run.settings.claims.extra_scans}"

    def candidate(self, name: str, seed: int) -> Run:
        """A candidate's run with the `seed`-th seed, ready to be trained; the run itself for base, first seed."""
        run = self.run
        changes = self.candidates[name] | ({"seed": run.settings.seed + seed} if seed else {})
        if not changes:
            return run
        if name == "extra" and (phantom := run.settings.data.phantom) and not self._extra_folder.exists():
            # Of other people, scanned by all kinds of devices.
            counts = run.settings.claims.extra_scans, 1, 0
            make_data_set(self._extra_folder, counts, phantom.size, phantom.seed + 1000, looks="varied")
        other = experiment(run, f"{name}-{seed}", **changes)
        if not other.splits_file.exists():
            if not other.plan_file.exists():
                steps.fingerprint_run(other)
                steps.plan_run(other)
            steps.preprocess_run(other, progress=False)
            steps.split_run(other)
        if other.plan.configurations != run.plan.configurations:
            raise OctkitError(f"{other.plan_file}: has another network than {run.plan_file}, so that more than the "
                              f"claim would differ; remove {other.folder}, it is made anew")
        return other

    def trained(self, name: str, seed: int, *folds: int | str) -> Run:
        """Train folds of a candidate to their end."""
        other = self.candidate(name, seed)
        for fold in folds:
            if not other.checkpoint(CONFIG, fold).exists():
                say(f"{other.folder}: fold {fold} is trained")
            self.train(other, CONFIG, fold, progress=False)
        return other

    def judged(self, way: Way, seed: int = 0) -> dict[str, dict[str, float]]:
        """Train a candidate to its end, predict the validation scans: scan -> {"dice", "seconds"}, kept in claims/."""
        other = self.trained(way.candidate, seed, *way.folds)
        made_from = [hashes.file_hash(other.checkpoint(CONFIG, fold)) for fold in way.folds]
        name = "-".join(map(str, way.folds)) + ("-mirrored" if way.mirror else "")
        path = other.folder / "claims" / f"{name}.json"
        if path.exists() and (kept := read_json(path))["made_from"] == made_from:
            return kept["scans"]
        found = self.score(self.run, other.folder, CONFIG, way.folds, way.mirror)
        write_json(path, {"made_from": made_from, "scans": found})
        return found

    def _table(self, ways: Sequence[Way], what: str = "dice") -> np.ndarray:
        """The mean over some ways of what each scan scores with each seed: (seeds, scans)."""
        scans = [case.name for case in self.run.dataset.validation]
        return np.array([np.mean([[found[scan][what] for scan in scans] for found in
                                  (self.judged(way, seed) for way in ways)], axis=0)
                         for seed in range(self.run.settings.claims.seeds)])

    def gain(self, better: Sequence[Way], worse: Sequence[Way], what: str = "dice") -> tuple[Interval, tuple]:
        """By how much the mean of some ways is higher than that of others: over people, and the mean of each seed."""
        table = self._table(better, what) - self._table(worse, what)
        people = [case.person for case in self.run.dataset.validation]
        return (bootstrap_interval(table.mean(axis=0), people),
                tuple(bootstrap_interval(row, people).mean for row in table))

    def _of_length(self, epochs: int) -> Way:
        return Way() if epochs == self.run.settings.train.epochs else Way(f"epochs-{epochs}")

    def curve(self) -> dict[int, Interval]:
        """Epochs -> mean Dice of the validation scans, over people, of a training of that length; over all seeds."""
        people = [case.person for case in self.run.dataset.validation]
        return {n: bootstrap_interval(self._table([self._of_length(n)]).mean(axis=0), people)
                for n in lengths(self.run.settings.train.epochs)}

    def minutes(self) -> dict[str, float]:
        """Name of each run that was trained -> the minutes of all its trainings, as their logs say."""
        runs = [self.candidate(name, seed) for seed in range(self.run.settings.claims.seeds)
                for name in self.candidates]
        found = {}
        for other in runs:
            tables = [read_table(log, ["seconds"], (), "run lesson 16 again: it is written anew")
                      for log in other.folder.glob(f"models/{CONFIG}/fold_*/log.csv")]
            found[other.folder.resolve().name] = sum(float(table["seconds"].sum()) for table in tables) / 60
        return found

    def findings(self) -> list[Finding]:
        """Test every claim that the run's settings and data allow, training what that takes; leaves both files."""
        run, validation, trains = self.run, self.run.dataset.validation, self.trains
        lacking = "" if all(case.truth for case in validation) else "the validation scans have no truth; on phantoms: "
        found = self._of_candidates() if trains else _of_run(run, lacking + COMMAND)
        found += [_fractions(run), _imagenet(run, trains), _baseline(run)]
        write_json(run.claims_file, {
            "seeds": run.settings.claims.seeds, "scans": len(validation),
            "people": len({case.person for case in validation}),
            "findings": [asdict(one) | {"gain": one.gain.as_json(), "verdict": one.verdict, "tested": one.tested,
                                       "by_seed": [mean if np.isfinite(mean) else None for mean in one.by_seed]}
                         for one in found],
            "curve": {n: interval.as_json() for n, interval in (self.curve() if trains else {}).items()},
            "minutes": self.minutes() if trains else {}})
        columns = "claim", "verdict", "unit", *Interval._fields, "by_seed", "note"
        write_csv(run.claims_file.with_suffix(".csv"), columns, [
            (one.claim, one.verdict, one.unit, *one.gain.as_json().values(), " ".join(map(str, one.by_seed)), one.note)
            for one in found])
        return found

    def _of_candidates(self) -> list[Finding]:
        found = [Finding(claim, "Dice", *self.gain(better, worse)) for claim, (better, worse) in self.pairs.items()]
        time = Finding("mirroring costs time", "s a scan", *self.gain([Way(mirror=True)], [Way()], "seconds"))
        return [found[0], time, *found[1:]]


def _of_run(run: Run, why: str) -> list[Finding]:
    """What a run without candidates shows: mirroring, on the few scans that lesson 08 has predicted both ways."""
    found = [Finding(claim, note=why) for claim in (
        "`all` beats its folds", "Adam with the plateau rule beats SGD", "more epochs help", "extra data helps")]
    if not (prices := read_json(run.mirroring_file) if run.mirroring_file.exists() else {}):
        return [Finding("mirroring costs time and gains accuracy", note=why), *found]
    plain, mirrored = prices["plain"]["dice_by_scan"], prices["mirrored"]["dice_by_scan"]
    person = {case.name: case.person for case in run.dataset.train + run.dataset.validation}
    change = bootstrap_interval([mirrored[scan] - plain[scan] for scan in plain], [person[scan] for scan in plain])
    slower = prices["mirrored"]["seconds"] / prices["plain"]["seconds"]
    note = f"It takes {slower:.1f} times as long; on {len(plain)} scans: {COMMAND} has more"
    return [Finding("mirroring gains accuracy", "Dice", change, note=note), *found]


def _fractions(run: Run) -> Finding:
    """8:2 against 7:3: the classifiers of lesson 11, on the validation scans, which no trial saw."""
    claim, labels = "8:2 beats 7:3 (glaucoma)", true_diagnoses(run.dataset)
    seven, eight = (_log_odds(run.classifier / "comparison", f"{share}_*") for share in (0.7, 0.8))
    if not (labels and seven and eight):
        return Finding(claim, note=COMMAND)
    return Finding(claim, "AUC", *_auc(run, labels, seven, eight))


def _imagenet(run: Run, trains: bool) -> Finding:
    """The run's ResNet50, which began with a file's weights, against one that began with random ones."""
    claim, labels = "ImageNet weights help (glaucoma)", true_diagnoses(run.dataset)
    if run.settings.classify.weights is None or not trains or not labels:
        return Finding(claim, note=f"{COMMAND} --set classify.weights=FILE --set classify.weights_sha256=SUM, a file "
                       "of a ResNet50's weights in Paddle")
    random = experiment(run, "random-weights", classify={"weights": None, "weights_sha256": None, "pretrained": "none"})
    done = subprocess.run([sys.executable, "-m", "octkit", "classify", str(random.folder)], capture_output=True,
                          encoding="utf-8", check=False)
    if done.returncode:
        raise OctkitError(f"{random.folder}: its classifier ended with: {done.stderr.strip()}")
    theirs, ours = ([{scan: float(np.mean([table[scan] for table in tables])) for scan in tables[0]}]
                    for tables in (_log_odds(each.classifier, "fold_*") for each in (random, run)))
    return Finding(claim, "AUC", *_auc(run, labels, theirs, ours))


def _log_odds(folder: Path, pattern: str) -> list[dict[str, float]]:
    """Scan -> log odds, of the validation scans, of each network in a folder; in the order of their names."""
    return [read_outputs(path.parent).get("validation", {}) for path in sorted(folder.glob(f"{pattern}/outputs.csv"))]


def _auc(run: Run, labels: Mapping[str, int], worse: Sequence[Mapping[str, float]],
         better: Sequence[Mapping[str, float]]) -> tuple[Interval, tuple[float, ...]]:
    """The gain in AUC, the mean of each seed's, with DeLong's interval over people; and that of each seed."""
    cases = [case for case in run.dataset.validation if case.name in labels]
    people, known = [case.person for case in cases], [labels[case.name] for case in cases]
    one, other = (np.array([[table[case.name] for case in cases] for table in tables]) for tables in (worse, better))
    each = tuple(auc_gain(known, a, b, people)[0].mean for a, b in zip(one, other, strict=False))
    return auc_gain(known, one, other, people)[0], each


def _baseline(run: Run) -> Finding:
    """Task 2 "is awkward, the baseline scores full marks": by how much the ResNet50's AUC is above `FULL_MARKS`."""
    claim, path = f"the baseline scores full marks (AUC above {FULL_MARKS})", run.classifier / "answers.json"
    scored = Answers.load(path).scores.get("validation scans", {}) if path.exists() else {}
    if "resnet50" not in scored:
        return Finding(claim, note=COMMAND)
    auc, people = scored["resnet50"].auc, scored["resnet50"].people
    mean, low, high = (np.nan if value is None else value - FULL_MARKS for value in (auc.mean, auc.low, auc.high))
    return Finding(claim, "AUC", Interval(mean, low, high, people), note=f"AUC {auc}")
