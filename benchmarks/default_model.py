"""Train the model in the box, from nothing but phantoms: the recorded command behind `octkit predict default`.

Run by hand from the project's root, in the project's environment; goes on where it was stopped:

    .venv/bin/python benchmarks/default_model.py RUN

Makes three sets of phantoms of every look ("varied": machine, anatomy, scale and crop differ from scan to scan)
beside RUN, of three sizes, and trains one network on all of them (profile `default`, fold `all`). What came out stands
in benchmarks/README.md.
"""

import argparse
from pathlib import Path

import torch

from octkit import fingerprint, layouts, phantom, planner, preprocess, settings, train

# folder: scans, size in px, seed. The first is the profile's own set; the others are extra training data.
SETS = {"varied-496": (600, (496, 768), 11), "varied-800": (200, (800, 1100), 12), "varied-384": (200, (384, 512), 13)}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("run", type=Path, help="the run's folder")
    options.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    options.add_argument("--set", action="append", default=[], dest="changes", help="change a setting, key=value")
    chosen_options = options.parse_args()
    torch.set_num_threads(chosen_options.threads)
    run = chosen_options.run.resolve()
    folders = {name: run.parent / name for name in SETS}
    for name, (count, size, seed) in SETS.items():
        if not folders[name].exists():
            phantom.make_dataset(folders[name], count, 0, size=size, seed=seed, looks="varied")
    own, *extra = map(str, folders.values())
    changes = [f"data.dir={own}", "data.phantom=null", f"train.extra_data={extra}".replace("'", '"')]
    chosen = settings.with_overrides(settings.from_profile("default"), changes + chosen_options.changes)
    chosen.save(run / "settings.json")
    fingerprint.extract(layouts.open_run(chosen), units=chosen.plan.units).save(run / "fingerprint.json")
    planner.plan_run(run)
    if not (run / "splits.json").exists():
        preprocess.preprocess_run(run)
        preprocess.split_run(run)
    train.train_fold(run, "2d", "all")


if __name__ == "__main__":
    main()
