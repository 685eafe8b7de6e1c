"""Train the model in the box, from nothing but phantoms: the recorded command behind `octkit predict default`.

Run by hand from the project's root, in the project's environment; goes on where it was stopped:

    .venv/bin/python benchmarks/default_model.py RUN --export octkit/network/default.zip

Makes three sets of phantoms of every look ("varied": device, anatomy, scale and crop differ from scan to scan)
beside RUN, of three sizes, and trains one network on all of them (profile `default`, fold `all`). Then it is scored on
phantoms of other seeds, one set of a look that it never saw, and written as one file with its card. What came out
stands in benchmarks/README.md.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from octkit.common import settings
from octkit.common.files import write_json
from octkit.data.layouts import detect
from octkit.evaluation.evaluate import score_folder
from octkit.inference import select
from octkit.inference.predict_folder import predict_folder
from octkit.inference.sliding_window import Predictor
from octkit.layers.thickness import sector_errors, sectors_in_words
from octkit.network.model import Model, load_model
from octkit.network.model_file import open_model, run_card, save_model
from octkit.phantoms.data_sets import make_data_set
from octkit.planning import steps
from octkit.planning.run import Run
from octkit.training import train

# folder: scans, size in px, seed. The first is the profile's own set; the others are extra training data.
SETS = {"varied-496": (500, (496, 768), 11), "varied-800": (400, (800, 1100), 12), "varied-384": (100, (384, 512), 13)}
# name: scans, size, seed, looks of phantoms to score it on.
UNSEEN = {"spectralis look, 800 x 1100": (16, (800, 1100), 2001, "spectralis"),
          "varied looks, 800 x 1100": (16, (800, 1100), 2003, "varied"),
          "varied looks, 496 x 768": (16, (496, 768), 2002, "varied")}


def averaged(one: Model, other: Model) -> Model:
    """The mean of two models' weights: what was learned last, without losing what was known before.

    Of a model and the one that its training began with (Wortsman et al., Robust fine-tuning of zero-shot models, 2022).
    """
    members = [replace(a, weights={fold: {name: (value + b.weights[fold][name]) / 2 for name, value in state.items()}
                                   for fold, state in a.weights.items()})
               for a, b in zip(one.members, other.members, strict=True)]
    return replace(one, members=tuple(members))


def score(model: Path, run: Path, mirror: bool) -> dict[str, dict]:
    """Mean Dice, MED, errors of mean thickness by layer on each set of unseen phantoms; leaves scores-*.json in RUN."""
    found = {}
    for name, (count, size, seed, looks) in UNSEEN.items():
        folder = run.parent / f"unseen-{looks}-{size[0]}"
        if not folder.exists():
            make_data_set(folder, (1, count, 0), size, seed, looks=looks, repeated=False)
        out = run / "unseen" / (folder.name + ("-mirrored" if mirror else ""))
        predict_folder(Predictor.load(model, mirror=mirror), folder / "Validation" / "Image", out)
        [case, *_] = detect.open_dataset(folder).validation
        scores = score_folder(out, case.truth.parent)
        write_json(run / f"scores-{out.name}.json", scores)
        found[name] = {layer: {"dice": round(metrics["dice"]["mean"], 4), "med_px": round(metrics["med"]["mean"], 3)}
                       for layer, metrics in scores["summary"].items()}
        errors = sector_errors(out, case.truth.parent, case.spacing and 1000 * case.spacing[0])
        for layer, sectors in errors["layers"].items():
            found[name][layer][f"thickness_error_{errors['unit']}"] = {
                sector: {kind: row["mean"] and round(row["mean"], 2) for kind, row in kinds.items()}
                for sector, kinds in sectors.items() if not sector.startswith("GH_")}
        print(name, "mirrored" if mirror else "", found[name], sectors_in_words(errors), sep="\n")
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("run", type=Path, help="the run's folder")
    options.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    options.add_argument("--other-phantoms", type=int, default=0, metavar="N", help="train on other phantoms: N is "
                         "added to their seeds")
    options.add_argument("--times", type=int, default=1, help="so many times as many phantoms")
    options.add_argument("--set", action="append", default=[], dest="changes", help="change a setting, key=value")
    options.add_argument("--average", type=Path, metavar="MODEL", help="export the mean of its weights and MODEL's")
    options.add_argument("--export", type=Path, help="score the model and write it here as one file")
    chosen_options = options.parse_args()
    torch.set_num_threads(chosen_options.threads)
    run = chosen_options.run.resolve()
    folders = {name: run.parent / name for name in SETS}
    for name, (count, size, seed) in SETS.items():
        if not folders[name].exists():
            make_data_set(folders[name], (chosen_options.times * count, 0, 0), size,
                          seed + chosen_options.other_phantoms, looks="varied", repeated=False)
    own, *extra = map(str, folders.values())
    changes = [f"data.dir={own}", "data.phantom=null", f"train.extra_data={extra}".replace("'", '"')]
    chosen = settings.with_overrides(settings.from_profile("default"), changes + chosen_options.changes)
    chosen.save(run / "settings.json")
    steps.fingerprint_run(Run(run))
    steps.plan_run(Run(run))
    if not (run / "splits.json").exists():
        steps.preprocess_run(Run(run))
        steps.split_run(Run(run))
    train.train_fold(Run(run), "2d", "all")
    select.select(Run(run))
    if chosen_options.export:
        model, aside = load_model(Run(run)), run / "model.zip"
        if chosen_options.average:
            model = averaged(model, open_model(chosen_options.average))
        card = run_card(Run(run)) | {"name": "The model in the box", "created_by": "benchmarks/default_model.py",
                                     "data": "synthetic phantoms alone: " + ", ".join(SETS), "extra_data": [],
                                     "licence": "Apache-2.0, like octkit"}
        save_model(model, aside, card)
        score(aside, run, mirror=True)
        save_model(model, chosen_options.export, card | {"unseen_phantoms": score(aside, run, mirror=False)})


if __name__ == "__main__":
    main()
