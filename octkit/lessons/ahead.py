"""What a lesson trains, as notebooks that workers execute side by side before it: it finds them done, as after a stop.

The first makes the run ready and lists the trainings. All have kernels of their own: torch and paddle share no process.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat

from octkit.common.files import read_json, write_atomic
from octkit.common.settings import PROJECT
from octkit.lessons.notebook import Notebook
from octkit.planning.run import Run

OPEN = "from octkit.common.files import write_json\nfrom octkit.planning.run import Run\n\nrun = Run(run_dir)\n"
# Lesson -> code that defines how it trains, and code that lists its trainings by what it loops over itself: in rounds,
# of which the second needs the first, a training's name -> what `train` is called with, the last file that it leaves.
LESSONS = {
    "11_classify": ("""from octkit.classification import measure

train = lambda name: measure.train(run, name)
""", """rounds = [{name: ([name], str(run.classifier / name / "trained.json")) for name in measure.trainings(run)}]
"""),
    "14_volumes": ("""from octkit.inference.predict import predict_held_out
from octkit.phantoms.data_sets import make_unless_there
from octkit.planning import steps
from octkit.training.train import train_fold

def train(config, fold):
    train_fold(run, config, fold, progress=False)
    if fold != "all":
        predict_held_out(run, config, fold, progress=False)
""", """make_unless_there(run.settings.data.root, run.settings.data.phantom)
for step in (steps.fingerprint_run, steps.plan_run, steps.preprocess_run, steps.split_run):
    step(run)
rounds = [{f"{config}_fold_{fold}": ([config, fold], str(run.checkpoint(config, fold)))
           for config in run.configs for fold in run.settings.train.folds
           if bool(run.plan.configurations[config].previous_stage) == second} for second in (False, True)]
"""),
    "16_claims": ("""from octkit.lessons.claims import CONFIG, Trials
from octkit.training.train import train_fold

trials = Trials(run, train_fold, None)
train = trials.trained
""", """rounds = [{f"{name}-{seed}_fold_{fold}": ([name, seed, fold],
                                          str(trials.candidate(name, seed).checkpoint(CONFIG, fold)))
           for name, seed, fold in trials.trainings}]
""")}


def rounds(lesson: str, run: Run) -> Iterator[list[tuple[str, Notebook, Path]]]:
    """What is to be executed before a lesson, round by round: its name, notebook and the last file that it leaves."""
    if lesson not in LESSONS or (lesson == "16_claims" and not run.settings.claims.seeds):
        return
    (train, trainings), listed = LESSONS[lesson], run.steps / f"{lesson}.json"

    def made(name: str, code: str, last: str | Path) -> tuple[str, Notebook, Path]:
        whole, cells = f"{lesson}_{re.sub('[^A-Za-z0-9_.-]', '_', name)}", (OPEN + train, code)
        path = run.steps / whole / "trains.ipynb"
        write_atomic(path, nbformat.writes(nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, cells)])))
        return whole, Notebook(path, tuple(("code", text) for text in cells), PROJECT), Path(last)

    yield [made("prepared", f"{trainings}write_json(run.steps / {listed.name!r}, rounds)", listed)]
    for found in filter(None, read_json(listed)):
        yield [made(name, f"train(*{arguments!r})", last) for name, (arguments, last) in found.items()]
