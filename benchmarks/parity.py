"""Trained to the end by nnU-Net 2.8.1 and by octkit: the same plan, scans and folds, judged on scans of other people.

    PYTHONPATH=. .venv/bin/python benchmarks/parity.py FOLDER --environment DIR [--seeds 3] [--write]

Phantoms of a quarter of GOALS's size; fold 0 trained for 40 epochs of 50 steps with 16 maps, each by its own pipeline:
augmentation, loading, loss, learning rate. octkit takes the loss of as many outputs as nnU-Net. The masks are the most
probable labels by each one's own prediction, mirrored copies averaged, without boundaries or post-processing. Dice is
by scan, averaged over seeds; intervals are over people. FOLDER keeps what has ended: a stopped comparison goes on. DIR
as in training.py. With --write the table goes into benchmarks/README.md.
"""

import json
import sys
from pathlib import Path

import training
from training import ANSWER
from versus import (
    NNUNET,
    finished,
    machine,
    nnunet_environment,
    nnunet_python,
    octkit_environment,
    table,
    version_there,
    write_section,
)

LAYERS = ("RNFL", "GCIPL", "choroid")
PEOPLE = "people.json"


def split_theirs(folder: Path) -> None:
    """nnU-Net's folds as octkit has dealt them, and the scans to be judged as it wants them."""
    from octkit.data.image_files import write_png
    from octkit.planning.run import Run

    run, name = Run(folder / "run"), "Dataset001_OCT"
    splits = [{"train": split["train"], "val": split["validation"]} for split in run.splits]
    (folder / "nnUNet_preprocessed" / name / "splits_final.json").write_text(json.dumps(splits), encoding="utf-8")
    (folder / "judged").mkdir(exist_ok=True)
    for case in run.dataset.validation:
        write_png(folder / "judged" / f"{case.name}_0000.png", run.dataset.read_image(case)[0].astype("uint8"))
    (folder / PEOPLE).write_text(json.dumps({case.name: case.person for case in run.dataset.validation}),
                                 encoding="utf-8")


def train_ours(folder: Path, options) -> dict:
    """Train fold 0 with octkit and score the masks: scan -> Dice of each layer."""
    from octkit.inference.sliding_window import Predictor
    from octkit.planning.run import Run

    training.train_ours(folder, options)
    run = Run(folder / options.run)
    predictor = Predictor.load(run.folder, options.device, True, ["2d"], [0])
    return scores(folder, lambda case: predictor(run.dataset.read_image(case), case.spacing, case.circle).argmax(0))


def scores(folder: Path, mask) -> dict:
    import numpy as np

    from octkit.evaluation.metrics import dice_of_labels
    from octkit.planning.run import Run

    dataset = Run(folder / "run").dataset
    return {case.name: dice_of_labels(np.asarray(mask(case)), dataset.read_truth(case), len(LAYERS))
            for case in dataset.validation}


def train_theirs(folder: Path, options, python: Path, seed: int) -> dict:
    """The same by nnU-Net: its trainer, then its own command for prediction."""
    from octkit.data.image_files import read_image

    environment, out = nnunet_environment(folder, options.cores), folder / f"theirs-{seed}"
    if not out.exists():
        options.keep = True
        training.ask([python, Path(training.__file__).resolve(), "--child", "theirs", "--folder", folder], environment,
                     options, seed, options.cores)
        aside = folder / f"theirs-{seed}-unfinished"
        finished([python.parent / "nnUNetv2_predict", "-d", "1", "-c", "2d", "-f", "0", "-i", folder / "judged", "-o",
                  aside, "-device", options.device, "-npp", "1", "-nps", "1"], environment)
        aside.rename(out)
    return scores(folder, lambda case: read_image(out / f"{case.name}.png")[0])


def ask_ours(folder: Path, options, seed: int) -> dict:
    """Our side, in a process of its own; kept beside nnU-Net's."""
    kept = folder / f"ours-{seed}.json"
    if not kept.exists():
        found = training.ask([sys.executable, Path(__file__).resolve(), "--child", "ours", "--folder", folder, "--run",
                              "run", folder], octkit_environment(options.cores), options, seed, options.cores)
        found.pop("peak_mb")
        kept.write_text(json.dumps(found), encoding="utf-8")
    return json.loads(kept.read_text(encoding="utf-8"))


def compared(folder: Path, options, python: Path) -> str:
    import numpy as np

    from octkit.evaluation.intervals import bootstrap_interval

    people = json.loads((folder / PEOPLE).read_text(encoding="utf-8"))
    sides: dict[str, list] = {"nnU-Net": [], "octkit": []}
    for seed in range(options.seeds):
        for who, found in (("octkit", ask_ours(folder, options, seed)),
                           ("nnU-Net", train_theirs(folder, options, python, seed))):
            sides[who].append([found[name] for name in people])
    tables = {who: np.mean(each, axis=0) for who, each in sides.items()}  # (scans, layers)
    who, rows = list(people.values()), []
    for number, layer in enumerate((*LAYERS, "mean")):
        columns = {name: values[:, number] if number < len(LAYERS) else values.mean(axis=1)
                   for name, values in tables.items()}
        each = [bootstrap_interval(values, who) for values in (columns["nnU-Net"], columns["octkit"],
                                                               columns["octkit"] - columns["nnU-Net"])]
        rows.append([layer, *(f"{one.mean:.4f} [{one.low:.4f}, {one.high:.4f}]" for one in each[:2]),
                     f"{each[2].mean:+.4f} [{each[2].low:+.4f}, {each[2].high:+.4f}]"])
    by_seed = {name: ", ".join(f"{np.mean(one):.4f}" for one in each) for name, each in sides.items()}
    return (f"{machine()}; nnU-Net {NNUNET} on torch {version_there(python, 'torch')}, octkit on torch "
            f"{version_there(sys.executable, 'torch')}. {training.patch(folder)}; {options.epochs} epochs of "
            f"{options.steps} steps, {options.seeds} seeds, {len(people)} scans of {len(set(who))} people that neither "
            "has seen; Dice with 95 % intervals over people.\n\n"
            + table(["layer", "nnU-Net", "octkit", "octkit - nnU-Net"], rows)
            + "\n\nMean by seed: " + "; ".join(f"{name} {text}" for name, text in by_seed.items()) + ".")


def main() -> None:
    parser = training.arguments()
    parser.add_argument("where", type=Path, metavar="FOLDER")
    parser.set_defaults(scans=60, judged=60, maps=16, epochs=40, steps=50, dropped=1)
    options = parser.parse_args()
    if options.child:
        print("\n" + ANSWER + json.dumps(train_ours(options.folder, options)), flush=True)
        return
    if not options.environment:
        parser.error("--environment: expected the folder of nnU-Net's environment")
    python, folder = nnunet_python(options.environment), options.where.resolve()
    if not (folder / PEOPLE).exists():
        training.prepare(folder, options, python)
        split_theirs(folder)
    text = compared(folder, options, python)
    print(text)
    if options.write:
        write_section(options.write, text)


if __name__ == "__main__":
    main()
