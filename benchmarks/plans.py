"""Hold octkit's 2-D plans against nnU-Net v2.8.1's own on random data sets.

Run by hand, in an environment of its own, from the project's root:

    python3.11 -m venv /path/to/nnunet
    /path/to/nnunet/bin/pip install torch==2.13.0
    /path/to/nnunet/bin/pip install nnunetv2==2.8.1 pydantic==2.14.4
    PYTHONPATH=. /path/to/nnunet/bin/python benchmarks/plans.py --data-sets 100 --seed 7

Half of the data sets are 2-D, half volumes (planned slice by slice); sizes, spacings, their spread, the number of
cases and classes and the memory are drawn at random. Compared are patch, batch, features, strides, kernels, spacing
and median shape. Results stand in benchmarks/README.md.
"""

import argparse
import json
import random

import numpy as np
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape

from octkit.fingerprint import Fingerprint
from octkit.planner import plan_experiment

RECORD = {"mean": 1, "median": 1, "min": 0, "max": 2, "std": 1, "percentile_00_5": 0, "percentile_99_5": 2}
# What nnU-Net's constructor sets; it is passed by, since it wants a data set on disk.
CONSTANTS = {
    "UNet_class": PlainConvUNet, "anisotropy_threshold": 3, "UNet_base_num_features": 32, "UNet_max_features_2d": 512,
    "UNet_max_features_3d": 320, "UNet_reference_val_3d": 560000000, "UNet_reference_val_2d": 85000000,
    "UNet_reference_com_nfeatures": 32, "UNet_reference_val_corresp_GB": 8, "UNet_reference_val_corresp_bs_2d": 12,
    "UNet_reference_val_corresp_bs_3d": 2, "UNet_featuremap_min_edge_length": 4, "UNet_min_batch_size": 2,
    "UNet_blocks_per_stage_encoder": (2,) * 30, "UNet_blocks_per_stage_decoder": (2,) * 29, "max_dataset_covered": 0.05,
    "overwrite_target_spacing": None, "suppress_transpose": False, "preprocessor_name": "DefaultPreprocessor",
}


def random_data_set(volumes: bool) -> tuple[list, list, int, int]:
    """Spacings and shapes of all cases, number of classes, memory in GB."""
    cases, spread = random.choice([5, 20, 60, 150]), random.choice([0, 0.2])
    if volumes:
        size = [random.randint(10, 130), random.randint(40, 900), random.randint(40, 700)]
        random.shuffle(size)
        spacing = [random.uniform(0.003, 0.3) for _ in range(3)]
    else:
        size = [random.randint(30, 2200) for _ in range(2)]
        spacing = random.choice([[1, 1], [1, random.choice([0.5, 2.5, 4, 8])],
                                 [random.uniform(0.001, 0.02), random.uniform(0.001, 0.02)]])
    shapes = [[max(16, int(n * random.uniform(1 - spread, 1 + spread))) for n in size] for _ in range(cases)]
    spacings = [[s * random.uniform(1 - spread / 2, 1 + spread / 2) for s in spacing] for _ in range(cases)]
    return spacings, shapes, random.choice([1, 2, 3, 7]), random.choice([2, 4, 8, 11, 24, 40])


def nnunet_answer(spacings: list, shapes: list, classes: int, memory_gb: float) -> dict:
    """nnU-Net's 2-D configuration; a 2-D scan is for it a volume of one slice, 999 thick."""
    if len(shapes[0]) == 2:
        spacings, shapes = [[999, *s] for s in spacings], [[1, *s] for s in shapes]
    planner = ExperimentPlanner.__new__(ExperimentPlanner)
    planner.__dict__ |= CONSTANTS | {"UNet_vram_target_GB": memory_gb}
    planner.dataset_fingerprint = {"spacings": spacings, "shapes_after_crop": shapes,
                                   "median_relative_size_after_cropping": 1,
                                   "foreground_intensity_properties_per_channel": {"0": {}}}
    planner.dataset_json = {"channel_names": {"0": "CT"}, "numTraining": len(shapes),
                            "labels": {"background": 0, **{f"class_{i}": i for i in range(1, classes + 1)}}}
    planner.generate_data_identifier = str
    target, (order, _) = planner.determine_fullres_target_spacing(), planner.determine_transpose()
    median = np.median([compute_new_shape(shape, spacing, target)
                        for shape, spacing in zip(shapes, spacings, strict=True)], 0)[order]
    pixels = float(np.prod(median)) * len(shapes)
    found = planner.get_plans_for_configuration(target[order][1:], median[1:], "2d", pixels, {})
    network = found["architecture"]["arch_kwargs"]
    return {"patch_size": found["patch_size"], "batch_size": found["batch_size"],
            "features": network["features_per_stage"], "strides": network["strides"],
            "kernels": network["kernel_sizes"], "spacing": found["spacing"],
            "median_shape": found["median_image_size_in_voxels"]}


def plain(value):
    """Tuples, lists and arrays as lists of numbers with 9 digits."""
    if isinstance(value, tuple | list | np.ndarray):
        return [plain(item) for item in value]
    return float(f"{float(value):.9g}")


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--data-sets", type=int, default=100)
    options.add_argument("--seed", type=int, default=7)
    chosen = options.parse_args()
    random.seed(chosen.seed)
    equal = 0
    for number in range(chosen.data_sets):
        spacings, shapes, classes, memory = random_data_set(volumes=number % 2 == 1)
        theirs = nnunet_answer(spacings, shapes, classes, memory)
        plan = plan_experiment(Fingerprint(spacings, shapes, 1, classes, [RECORD]), memory).configurations["2d"]
        wrong = {name: (plain(getattr(plan, name)), plain(value)) for name, value in theirs.items()
                 if plain(getattr(plan, name)) != plain(value)}
        equal += not wrong
        if wrong:
            print(f"data set {number}, ours and theirs: {json.dumps(wrong)}")
    print(f"{equal} of {chosen.data_sets} plans equal (seed {chosen.seed})")


if __name__ == "__main__":
    main()
