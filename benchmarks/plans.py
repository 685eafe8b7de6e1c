"""Hold octkit's plans against nnU-Net v2.8.1's own on random data sets, all configurations.

Run by hand, in an environment of its own, from the project's root:

    python3.11 -m venv /path/to/nnunet
    /path/to/nnunet/bin/pip install torch==2.13.0
    /path/to/nnunet/bin/pip install nnunetv2==2.8.1 pydantic==2.14.4 psutil==7.2.2
    PYTHONPATH=. /path/to/nnunet/bin/python benchmarks/plans.py --data-sets 100 --seed 7   [--residual] [--ignore]

Half of the data sets are 2-D, half volumes; sizes, spacings, their spread, the order of axes, the number of cases and
classes and the memory are drawn at random. nnU-Net's planner runs whole, from its constructor to the plans that it
would save; only the files that it reads and writes are stood in for. Compared are the configurations there are, the
order of axes, and of each configuration patch, batch, features, strides, kernels, spacing, median shape, batch Dice
and the stage before. Results stand in benchmarks/README.md.
"""

import argparse
import collections
import contextlib
import io
import json
import random
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
from nnunetv2.experiment_planning.experiment_planners import default_experiment_planner as nnunet
from nnunetv2.experiment_planning.experiment_planners.residual_unets import residual_encoder_unet_planners as residual

from octkit.planning.fingerprint import Fingerprint
from octkit.planning.plan import Plan
from octkit.planning.planner import plan_experiment

RECORD = {"mean": 1, "median": 1, "min": 0, "max": 2, "std": 1, "percentile_00_5": 0, "percentile_99_5": 2}


def random_data_set(volumes: bool) -> tuple[list, list, int, int]:
    """Spacings and shapes of all cases, number of classes, memory in GB."""
    cases, spread = random.choice([5, 20, 60, 150]), random.choice([0, 0, 0.2])
    if volumes:
        size = [random.choice([random.randint(1, 30), random.randint(10, 200)]), random.randint(40, 1100),
                random.randint(40, 700)]
        if random.random() < 0.5:  # an OCT volume: fine A-scans, coarse slices
            spacing = [random.uniform(0.03, 0.3), random.uniform(0.0019, 0.006), random.uniform(0.005, 0.03)]
        else:
            spacing = random.choice([[1, 1, 1], [random.uniform(0.003, 0.3) for _ in range(3)]])
        if random.random() < 0.3:
            order = random.sample(range(3), 3)
            size, spacing = [size[a] for a in order], [spacing[a] for a in order]
    else:
        size = [random.randint(30, 2200) for _ in range(2)]
        spacing = random.choice([[1, 1], [1, random.choice([0.5, 2.5, 4, 8])],
                                 [random.uniform(0.001, 0.02), random.uniform(0.001, 0.02)]])
    shapes = [[max(1, int(n * random.uniform(1 - spread, 1 + spread))) for n in size] for _ in range(cases)]
    spacings = [[s * random.uniform(1 - spread / 2, 1 + spread / 2) for s in spacing] for _ in range(cases)]
    return spacings, shapes, random.choice([1, 2, 3, 7]), random.choice([2, 4, 8, 11, 24, 40])


def nnunet_plans(spacings: list, shapes: list, classes: int, memory_gb: float,
                 planner_class: type[nnunet.ExperimentPlanner] = nnunet.ExperimentPlanner,
                 ignore: bool = False) -> dict:
    """The plans that nnU-Net would save; a 2-D scan is for it a volume of one slice, 999 thick."""
    names = [*(f"class_{i}" for i in range(1, classes + 1)), *["ignore"] * ignore]
    if len(shapes[0]) == 2:
        spacings, shapes = [[999, *s] for s in spacings], [[1, *s] for s in shapes]
    files = {
        "dataset.json": {"channel_names": {"0": "CT"}, "numTraining": len(shapes), "file_ending": ".png",
                         "labels": {"background": 0, **{name: i for i, name in enumerate(names, start=1)}}},
        "dataset_fingerprint.json": {"spacings": spacings, "shapes_after_crop": shapes,
                                     "median_relative_size_after_cropping": 1,
                                     "foreground_intensity_properties_per_channel": {"0": RECORD}},
    }
    stand_ins = {
        "maybe_convert_to_dataset_name": str, "nnUNet_raw": "raw", "nnUNet_preprocessed": "preprocessed",
        "load_json": lambda path: files[Path(path).name], "isfile": lambda path: Path(path).name in files,
        "get_filenames_of_train_images_and_targets": lambda *_: {"a": {"images": ["a.png"]}},
        "determine_reader_writer_from_dataset_json": lambda *_: str, "shutil": SimpleNamespace(copy=lambda *_: None),
    }
    # On torch's "meta" device a network is counted without memory for its weights. The planner prints a lot.
    with (mock.patch.multiple(nnunet, **stand_ins), torch.device("meta"),
          contextlib.redirect_stdout(io.StringIO())):
        planner = planner_class("random", memory_gb)
        planner.save_plans = nnunet.recursive_fix_for_json_export
        return planner.plan_experiment()


def planner_class(memory_gb: float) -> type[nnunet.ExperimentPlanner]:
    """nnU-Net's preset of residual encoders for so much memory, as `octkit.planning.rules` takes its yardstick."""
    return (residual.nnUNetPlannerResEncM if memory_gb < 24 else
            residual.nnUNetPlannerResEncL if memory_gb < 40 else residual.nnUNetPlannerResEncXL)


def nnunet_answer(plans: dict) -> dict:
    """nnU-Net's plans by our names; its cascade inherits from 3d_fullres."""
    answer = {"axis_order": plans["transpose_forward"]}
    for name, own in plans["configurations"].items():
        found = plans["configurations"][own.get("inherits_from", name)]
        network = found["architecture"]["arch_kwargs"]
        answer[name] = {"patch_size": found["patch_size"], "batch_size": found["batch_size"],
                        "features": network["features_per_stage"], "strides": network["strides"],
                        "blocks": network.get("n_blocks_per_stage", []),
                        "kernels": network["kernel_sizes"], "spacing": found["spacing"],
                        "median_shape": found["median_image_size_in_voxels"], "batch_dice": found["batch_dice"],
                        "previous_stage": own.get("previous_stage")}
    return answer


def our_answer(plan: Plan) -> dict:
    # A 2-D scan has no axis to put first; nnU-Net's has its one slice there already.
    return {"axis_order": plan.axis_order or (0, 1, 2),
            **{name: vars(configuration) for name, configuration in plan.configurations.items()}}


def plain(value):
    """Tuples, lists and arrays as lists, numbers with 12 digits, all else as it is."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list | np.ndarray):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, str | bool) else float(f"{float(value):.12g}")


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--data-sets", type=int, default=100)
    options.add_argument("--seed", type=int, default=7)
    options.add_argument("--residual", action="store_true", help="ResEncM below 24 GB, else L, XL from 40")
    options.add_argument("--ignore", action="store_true", help="all data sets have an ignore label")
    chosen = options.parse_args()
    random.seed(chosen.seed)
    equal, kinds = 0, collections.Counter()
    for number in range(chosen.data_sets):
        spacings, shapes, classes, memory = random_data_set(volumes=number % 2 == 1)
        kind = planner_class(memory) if chosen.residual else nnunet.ExperimentPlanner
        found = Fingerprint(spacings, shapes, ["OCT"], [*map(str, range(classes))], [RECORD],
                            ignore=chosen.ignore)
        plan = plan_experiment(found, memory, architecture="residual" if chosen.residual else "plain")
        ours = plain(our_answer(plan))
        try:
            theirs = plain(nnunet_answer(nnunet_plans(spacings, shapes, classes, memory, kind,
                                                      chosen.ignore)))
        except OverflowError:  # a volume of one or two slices can have none left at its low resolution
            kinds["nnU-Net has no plan"] += 1
            continue
        kinds[f"{len(shapes[0])}-D, " + " ".join(plan.configurations)] += 1
        equal += ours == theirs
        if ours != theirs:
            print(f"data set {number}, {memory} GB, {shapes[0]} px of {spacings[0]}, ours and theirs: "
                  + json.dumps({name: (ours.get(name), theirs.get(name)) for name in ours | theirs
                                if ours.get(name) != theirs.get(name)}), flush=True)
    compared = kinds.total() - kinds["nnU-Net has no plan"]
    print(f"{equal} of {compared} plans equal (seed {chosen.seed}): "
          + "; ".join(f"{count} x {kind}" for kind, count in sorted(kinds.items())))


if __name__ == "__main__":
    main()
