"""Ask nnU-Net v2.8.1 for plans and models with residual encoders: what lies beside this file.

Run by hand, in an environment of its own (`benchmarks/plans.py` says how), from the project's root:

    PYTHONPATH=.:benchmarks /path/to/nnunet/bin/python tests/nnunet/make.py

plans.json has what nnU-Net's planners ResEncM, L and XL plan, by our names. residual_2d and residual_3d are models as
nnU-Net's training leaves them, of random weights, with a scan and what nnU-Net's predictor makes of it (expected.npz).
"""

import json
import os
from pathlib import Path

os.environ |= {name: "/nowhere" for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from plans import RECORD, nnunet_answer, nnunet_plans, plain, planner_class

HERE = Path(__file__).parent
# name, shape, spacing (PNGs have none: 1), cases, classes, memory in GB: a preset's own
CASES = [("GOALS", (800, 1100), (1, 1), 100, 3, 8), ("GOALS, L", (800, 1100), (1, 1), 100, 3, 24),
         ("tiny phantom", (200, 275), (1, 1), 24, 3, 8), ("macular cube", (128, 1024, 512), (0.047, 0.00195, 0.0117),
                                                          40, 3, 8),
         ("raster of 25 B-scans, XL", (25, 496, 512), (0.24, 0.00387, 0.0115), 30, 2, 40)]
# patch, features, strides, kernels, blocks, scan, spacing; a stage has no more maps, another strides along one axis
MODELS = {"2d": ((32, 48), (4, 8, 8), ((1, 1), (2, 2), (2, 1)), ((3, 3),) * 3, (1, 2, 1), (44, 60), (999, 1, 1)),
          "3d_fullres": ((8, 16, 16), (4, 6), ((1, 1, 1), (1, 2, 2)), ((1, 3, 3), (3, 3, 3)), (1, 2), (10, 20, 24),
                         (3, 1, 1))}


def plans() -> list[dict]:
    found = []
    for name, shape, spacing, cases, classes, memory in CASES:
        theirs = nnunet_plans([spacing] * cases, [shape] * cases, classes, memory, planner_class(memory))
        found.append({"name": name, "shape": shape, "spacing": spacing, "cases": cases, "classes": classes,
                      "memory_gb": memory, "plan": plain(nnunet_answer(theirs))})
    return found


def model(config: str, folder: Path) -> None:
    """A model's folder with a checkpoint of random weights, a scan, and nnU-Net's answers."""
    patch, features, strides, kernels, blocks, shape, spacing = MODELS[config]
    axes = len(patch)
    theirs = nnunet_plans([spacing[-axes:]] * 5, [shape] * 5, 3, 8, planner_class(8))
    entry = theirs["configurations"][config]
    entry |= {"patch_size": patch, "batch_size": 2}
    entry["architecture"]["arch_kwargs"] |= {
        "n_stages": len(features), "features_per_stage": features, "strides": strides, "kernel_sizes": kernels,
        "n_blocks_per_stage": blocks, "n_conv_per_stage_decoder": [1] * (len(features) - 1)}
    record = {**RECORD, "mean": 120.0, "std": 45.0, "percentile_00_5": 12.0, "percentile_99_5": 240.0}
    theirs |= {"configurations": {config: entry}, "foreground_intensity_properties_per_channel": {"0": record},
               "dataset_name": "Dataset001_Tiny",
               "image_reader_writer": "SimpleITKIO" if axes == 3 else "NaturalImage2DIO"}
    described = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "rnfl": 1, "gcipl": 2, "choroid": 3},
                 "numTraining": 5, "file_ending": ".nii.gz" if axes == 3 else ".png"}
    (folder / "fold_0").mkdir(parents=True, exist_ok=True)
    for name, content in (("plans.json", theirs), ("dataset.json", described)):
        (folder / name).write_text(json.dumps(content, indent=1))
    torch.manual_seed(axes)
    architecture = entry["architecture"]
    network = get_network_from_plans(architecture["network_class_name"], architecture["arch_kwargs"],
                                     architecture["_kw_requires_import"], 1, 4, True, True)
    with torch.no_grad():  # an untrained block adds nothing: its last norm is 0
        for weights in network.parameters():
            weights += 0.2 * torch.randn_like(weights)
    torch.save({"network_weights": network.state_dict(), "init_args": {"configuration": config, "fold": 0},
                "trainer_name": "nnUNetTrainer", "inference_allowed_mirroring_axes": tuple(range(axes))},
               folder / "fold_0" / "checkpoint_final.pth")
    image = np.random.default_rng(axes).integers(1, 256, shape).astype(np.float32)
    found: dict[str, np.ndarray] = {"image": image.astype(np.uint8)}
    for kind in ("plain", "mirrored"):
        predictor = nnUNetPredictor(use_mirroring=kind == "mirrored", device=torch.device("cpu"),
                                    perform_everything_on_device=False, allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(folder), None)
        mask, probabilities = predictor.predict_single_npy_array(
            image.reshape(1, *shape if axes == 3 else (1, *shape)), {"spacing": list(spacing)},
            save_or_return_probabilities=True)
        found |= {f"mask_{kind}": np.asarray(mask).reshape(shape).astype(np.uint8),
                  f"probabilities_{kind}": np.asarray(probabilities, np.float32).reshape(-1, *shape)}
    np.savez_compressed(folder / "expected.npz", **found)


if __name__ == "__main__":
    (HERE / "plans.json").write_text("[\n" + ",\n".join(map(json.dumps, plans())) + "\n]\n")
    model("2d", HERE / "residual_2d")
    model("3d_fullres", HERE / "residual_3d")
