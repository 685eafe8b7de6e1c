"""Experiments: runs beside a run that share with it what their settings leave the same; and runs compared.

    adam = experiment(run, "adam", train={"optimiser": "adam"})     the folder reports/<run>-adam
    print(compare([run, adam]))

What is shared is decided by the hashes by which `octkit run` skips a step: the files of each step whose inputs are the
same under both settings stand in the new folder as second names of the same files (copies of what one edits, and where
the disk has no hard links), with the step's line in the ledger. `octkit run` does the rest.
"""

import html
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ipywidgets
import numpy as np

from octkit.common import hashes, settings
from octkit.common.errors import OctkitError
from octkit.common.files import link, new_folder, write_atomic, write_csv
from octkit.common.messages import say
from octkit.common.settings import Settings
from octkit.evaluation.evaluate import aligned
from octkit.evaluation.intervals import FEW, Interval, bootstrap_interval
from octkit.evaluation.records import Scores
from octkit.figures import charts, widgets
from octkit.figures.picture import Picture, layer_name, png
from octkit.lessons import ledger, run_all
from octkit.planning.run import Run

EDITED = (".json", ".csv", ".html", ".ipynb")  # an editor may write into the file itself: these are copied
METRICS = {"dice": "Dice", "med": "MED (px)", "thickness_error": "thickness error (px)"}


def experiment(run: Run, name: str, **changes: Any) -> Run:
    """A run like another one but for some settings, in the folder beside it that has its name and `name`.

    Args:
        changes: a section's settings, or one that stands in none: train={"optimiser": "adam"}, seed=3.

    The folder of an experiment with the same settings is opened again. Raises OctkitError for settings that do not
    exist, that change nothing, or that differ from those of the experiment in that folder.
    """
    folder = Path(os.path.abspath(run.folder))
    if not name or Path(name).name != name:
        raise OctkitError(f"experiment: found the name {name!r}, expected one for a folder, such as \"adam\"")
    return run_like(run, folder.with_name(f"{folder.name}-{name}"), settings.with_changes(run.settings, changes))


def run_like(source: Run, folder: Path, chosen: Settings) -> Run:
    """The run in a folder with the settings `chosen`; a new one shares with `source` all that is the same in both."""
    run = Run(folder)
    if run.exists:
        if differ := settings.changes(chosen.model_dump(mode="json"), run.settings.model_dump(mode="json")):
            raise OctkitError(f"{folder}: is a run with other settings ({', '.join(differ)}), expected the same, or "
                              "another name for this one")
        return run
    if not (differ := settings.changes(source.settings.model_dump(mode="json"), chosen.model_dump(mode="json"))):
        raise OctkitError(f"{folder}: would be the same as {source.folder}, expected a setting that differs")
    with new_folder(folder) as temporary:
        chosen.save(Run(temporary).settings_file)
        shared = _share(source, chosen, Run(temporary))
    say(f"{folder}: {', '.join(differ)}; " + (f"shares {', '.join(shared)} with {source.folder}" if shared else
                                              f"shares no step with {source.folder}"))
    return run


def _share(source: Run, chosen: Settings, run: Run) -> list[str]:
    """Put into a new run the files and lines of all steps that are the same under its settings; the steps' names."""
    ends, theirs, ours = ledger.ends(source), run_all.jobs(source, source.settings), run_all.jobs(run, chosen)
    done: dict[str, list[str]] = {}
    anew, shared = set[str](), list[str]()
    for job in ours:
        inputs, line = run_all.inputs_of(job, chosen, done), ends.get(job.name)
        if line is None:  # there is none where a lesson was executed by hand
            needed, before = ({other.name for other in jobs if other.step.notebook in job.step.needs}
                              for jobs in (ours, theirs))
            same = needed == before - anew and inputs == run_all.inputs_of(job, source.settings, done)
        else:
            same = line.status == "done" and line.inputs == inputs and not job.not_whole(source, line)
        if not same or job.name not in {other.name for other in theirs}:
            anew.add(job.name)
            done.setdefault(job.step.notebook, []).append(f"{inputs} anew")
            continue
        done.setdefault(job.step.notebook, []).append(f"{inputs} {line.made if line else 'by hand'}")
        # The line may be a stranger's: what the step does not leave is not taken from it.
        files = [name for name in job.files(source) if not line or not line.outputs or name in line.outputs]
        for name in files:
            _take_over(source.folder / name, run.folder / name)
        if line:
            _take_over(job.copy(source), job.copy(run))
            ledger.append(run, line)
        shared += [job.name] if files or line else []
    if all(getattr(source.settings, part) == getattr(chosen, part) for part in ("data", "classify", "seed", "device")):
        for path in source.classifier.glob("fold_*/*"):  # each knows what it was made from: `resnet50.train` looks
            target = run.classifier / path.relative_to(source.classifier)
            if not target.exists():  # it does where the lesson is shared as a whole
                _take_over(path, target)
    return shared


def _take_over(source: Path, target: Path) -> None:
    if source.suffix in EDITED:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
    else:
        link(source, target)


class Row(NamedTuple):
    """A layer's metric: its mean over people in each run, and of each run but the first what it gains scan by scan."""

    name: str
    means: tuple[float, ...]
    gains: tuple[Interval, ...]


@dataclass(frozen=True)
class Comparison:
    """Runs side by side; `print` shows it, `figure` draws it.

    `differ` is setting -> its value in each run, `scores` scan -> layer -> metric -> its value in each run, `logs` name
    of a run -> fold -> columns of its log.csv. `people` says whose each scan is, `notes` what limits the comparison.
    """

    names: tuple[str, ...]
    differ: dict[str, tuple[Any, ...]]
    where: str
    scores: dict[str, dict[str, dict[str, tuple[float | None, ...]]]]
    people: tuple[str, ...]
    notes: tuple[str, ...]
    logs: dict[str, dict[str, Any]]

    @property
    def rows(self) -> list[Row]:
        found = []
        layers = next(iter(self.scores.values()))
        for layer, metrics in layers.items():
            for metric in metrics:
                table = np.array([scan[layer][metric] for scan in self.scores.values()], float).T  # None becomes nan
                means, gains = ([bootstrap_interval(values, self.people) for values in part]
                                for part in (table, table[1:] - table[0]))
                found.append(Row(f"{layer_name(layer)} {METRICS[metric]}", tuple(one.mean for one in means),
                                 tuple(gains)))
        return found

    def __str__(self) -> str:
        heads = [f"{name} minus {self.names[0]}" for name in self.names[1:]]
        tables = [[("settings that differ", *self.names), *((key, *map(str, found)) for key, found in
                                                           self.differ.items())],
                  [(f"means over {len(self.scores)} {self.where} scans", *self.names, *heads),
                   *((row.name, *(f"{mean:.4f}" for mean in row.means), *map(str, row.gains))
                     for row in self.rows)]]
        lines = [aligned(table) for table in tables]
        people = len(set(self.people))
        few = ", and so few make them too narrow" if people < FEW else ""
        said = (f"Differences are scan by scan, with 95 % intervals (bootstrap over {people} people; a scan that names "
                f"nobody counts as one{few}). Each model was trained once.")
        return "\n\n".join([*lines, "\n".join([*self.notes, said])])

    def figure(self) -> Picture:
        """The curves of all runs, and the intervals of the differences in Dice."""
        gains = {f"{row.name}\n{name}": gain for row in self.rows if row.name.endswith(METRICS["dice"])
                 for name, gain in zip(self.names[1:], row.gains, strict=True)}
        return charts.compared_runs(self.logs, gains, f"{', '.join(self.names[1:])} against {self.names[0]}")

    def save(self, folder: Path) -> None:
        """Leave scores.csv, a row for each scan, layer and metric, and curves.png in a folder."""
        write_csv(folder / "scores.csv", ("scan", "layer", "metric", *self.names),
                  ((scan, layer, metric, *values) for scan, layers in self.scores.items()
                   for layer, metrics in layers.items() for metric, values in metrics.items()))
        write_atomic(folder / "curves.png", png(self.figure()))


def compare(runs: Sequence[Run]) -> Comparison:
    """Compare runs with the first of them, scan by scan: validation scans where all are scored, else held-out ones.

    Raises OctkitError for fewer than two runs, where one has no scores, and where they have no scan in common.
    """
    if len(runs) < 2:
        raise OctkitError(f"compare: found {len(runs)} run, expected two or more")
    unscored = [run for run in runs if not run.scores_file.exists()]
    where = "cross-validation" if unscored else "validation"
    scored = [_held_out(run) if unscored else Scores.load(run.scores_file).cases for run in runs]
    if not all(scored):
        raise OctkitError(f"{unscored[0].folder}: has no scores to compare, neither scores.json nor, as all others, "
                          f"scans in selection.json; octkit run --run-dir {unscored[0].folder} gets them")
    scans, notes = _scans_in_common(runs, scored, where)
    layers = [layer for layer in scored[0][scans[0]] if all(layer in found[scans[0]] for found in scored)]
    metrics = [metric for metric in METRICS if metric in scored[0][scans[0]][layers[0]]]
    trees = [settings.flat(run.settings.model_dump(mode="json")) for run in runs]
    differ = {key: tuple(tree.get(key) for tree in trees) for key in sorted(set().union(*trees))}
    names = [run.folder.resolve().name for run in runs]
    if len(set(names)) < len(names):
        names = [f"{name} ({number})" for number, name in enumerate(names, 1)]
    return Comparison(
        tuple(names), {key: found for key, found in differ.items() if any(value != found[0] for value in found)}, where,
        {scan: {layer: {metric: tuple(found[scan][layer][metric] for found in scored) for metric in metrics}
                for layer in layers} for scan in scans},
        _people(runs[0], scans), tuple(notes), dict(zip(names, map(_logs, runs), strict=True)))


def chooser(runs: Sequence[Run]) -> ipywidgets.VBox:
    """Choose two runs and see them compared; `compare([one, other])` and its `figure` are the same on paper."""
    by_name = {run.folder.resolve().name: run for run in runs}
    names = [*by_name]

    def draw(run: str = names[0], against: str = names[min(1, len(names) - 1)]) -> str:
        try:
            found = compare([by_name[run], by_name[against]])
        except OctkitError as error:
            return f"<pre>{html.escape(str(error))}</pre>"
        return f"{widgets.image(found.figure())}<pre>{html.escape(str(found))}</pre>"

    return widgets.touch(draw, run=names, against=names)


Scored = dict[str, dict[str, dict[str, float | None]]]  # scan -> layer -> metric -> value


def _held_out(run: Run) -> Scored:
    """What cross-validation has found out about the chosen configuration; nothing where there was none."""
    chosen = run.selection.chosen if run.selection_file.exists() else None
    return {scan: {layer: {"dice": dice} for layer, dice in found.items()}
            for scan, found in (chosen.dice_by_scan if chosen else {}).items()}


def _scans_in_common(runs: Sequence[Run], scored: Sequence[Scored], where: str) -> tuple[list[str], list[str]]:
    """The scans that all runs have scored, and what is to be said of them."""
    roots = {run.settings.data.root.resolve() for run in runs}
    notes = []
    if len(roots) > 1:  # a name alone does not tell: every GOALS data set has a 0101
        notes.append("The runs have different data sets; scans of the same name and the same content are compared.")
        known = [{case.name: _content(case.image) for case in run.dataset.cases
                  if case.name in found} for run, found in zip(runs, scored, strict=True)]
    else:
        states = {line.data[0] for run in runs for line in ledger.ends(run).values() if line.data}
        if len(states) > 1:
            raise OctkitError(f"{roots.pop()}: has changed between the runs, so that their scans cannot be compared; "
                              "run both again (octkit run --run-dir …)")
        known = [dict.fromkeys(found) for found in scored]
    common = [scan for scan in scored[0] if all(scan in found for found in scored)
              and all(scans[scan] == known[0][scan] for scans in known)]
    if not common:
        raise OctkitError(f"compare: {' and '.join(str(run.folder) for run in runs)} have no {where} scan in common")
    if any(len(found) > len(common) for found in scored):
        notes.append(f"Compared on the {len(common)} scans that all have, of {', '.join(str(len(x)) for x in scored)}.")
    if where == "cross-validation" and any(run.splits != runs[0].splits for run in runs):
        notes.append("Their folds differ: the networks that held a scan out have learned from other scans.")
    return common, notes


def _people(run: Run, scans: Sequence[str]) -> tuple[str, ...]:
    person = {case.name: case.person for case in run.dataset.cases}
    return tuple(person.get(scan, scan) for scan in scans)


def _content(image: Path) -> str | None:
    return hashes.file_hash(image) if image.is_file() else hashes.data_contents(image)


def _logs(run: Run) -> dict[str, dict]:
    """Fold -> columns of log.csv, of the run's first configuration."""
    folds = {fold: run.fold(run.configs[0], fold) / "log.csv" for fold in run.settings.train.folds}
    return {f"fold {fold}": charts.read_log(path) for fold, path in folds.items() if path.exists()}
