"""octkit's models in nnU-Net: exported, loaded there, and asked for the same scan.

    PYTHONPATH=. python benchmarks/nnunet_models.py --nnunet-python ENV/bin/python

ENV is an environment of its own with nnunetv2 2.8.1. octkit writes models of random weights, two folds each, and
predicts a phantom with them; the script then runs itself in ENV, where nnU-Net opens the exported folders and predicts
the same arrays through its nnUNetPredictor; the two exchange .npz files.

octkit averages logits as nnU-Net does (`blend`), in half precision as nnU-Net does: nothing of nnU-Net is changed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

STATISTICS = {"mean": 110.0, "std": 55.0, "median": 105.0, "min": 0.0, "max": 255.0, "percentile_00_5": 8.0,
              "percentile_99_5": 236.0}
# patch, stages' strides, scan's shape and spacing (the 2-D scan's unit is the pixel)
FLAT = ((64, 96), [(1, 1), (2, 2), (2, 2), (2, 2)], (100, 170), None)
DEEP = ((16, 32, 32), [(1, 1, 1), (1, 2, 2), (2, 2, 2)], (20, 50, 60), (0.12, 0.004, 0.012))
# name -> configuration, these, residual blocks
CASES = {"2d": ("2d", *FLAT, ()), "3d": ("3d_fullres", *DEEP, ()), "2d_residual": ("2d", *FLAT, (1, 3, 4, 6)),
         "3d_residual": ("3d_fullres", *DEEP, (1, 3, 4))}


def make_models(folder: Path) -> None:
    """Write FOLDER/<case>/: the scan, octkit's probabilities, and the model exported for nnU-Net."""
    import torch

    from octkit.exchange.nnunet_models import export_model
    from octkit.inference.sliding_window import Predictor
    from octkit.network.model import Member, Model, build_network
    from octkit.planning.plan import Configuration, Plan

    for name, (config, patch, strides, shape, spacing, blocks) in CASES.items():
        random = np.random.default_rng(0)
        order = (1, 2, 0) if spacing else ()  # an order that is no identity, so that a slip shows
        features = tuple(8 * 2**i for i in range(len(strides)))
        kernels = tuple((3,) * len(patch) for _ in strides)
        spacing_there = tuple(spacing[axis] * 1.25 for axis in order) if spacing else (1.0, 1.0)
        configuration = Configuration(patch, 2, spacing_there, shape, features, tuple(strides), kernels, False,
                                      blocks=blocks)
        plan = Plan({config: configuration}, ("OCT",), ("rnfl", "gcipl", "choroid"), (STATISTICS,),
                    "mm" if spacing else "px", order)
        torch.manual_seed(0)
        weights = {str(fold): {part: tensor + 0.1 * torch.randn_like(tensor) for part, tensor
                               in build_network(plan, config, False).state_dict().items()} for fold in range(2)}
        model = Model(plan, (Member(config, weights),), plan.classes, True, (-3, -2, -1), 0.5, "float32",
                      blend="logits")
        image = random.uniform(1, 255, (1, *shape)).astype(np.float32)
        [exported] = export_model(model, folder / name)
        found = {kind: Predictor(model, "cpu", mirror)(image, spacing)
                 for kind, mirror in (("plain", False), ("mirrored", True))}
        np.savez(folder / f"{name}.npz", image=image if spacing else image[:, None],
                 spacing=spacing or (999.0, 1.0, 1.0), folder=str(exported), **found)


def ask_nnunet(folder: Path) -> None:
    """In nnU-Net's environment: FOLDER/<case>.nnunet.npz with its answers."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    for name in CASES:
        given, found = np.load(folder / f"{name}.npz"), {}
        for kind in ("plain", "mirrored"):
            predictor = nnUNetPredictor(use_mirroring=kind == "mirrored", device=torch.device("cpu"),
                                        perform_everything_on_device=False, allow_tqdm=False)
            predictor.initialize_from_trained_model_folder(str(given["folder"]), None)
            _, probabilities = predictor.predict_single_npy_array(
                given["image"], {"spacing": list(given["spacing"])}, save_or_return_probabilities=True)
            found[kind] = np.asarray(probabilities).reshape(given[kind].shape)
        np.savez(folder / f"{name}.nnunet.npz", **found)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--nnunet-python", type=Path, help="the python of an environment with nnunetv2")
    parser.add_argument("--ask", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask:
        ask_nnunet(options.ask)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_models(folder)
        paths = {name: str(folder) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | paths
        subprocess.run([options.nnunet_python, __file__, "--ask", folder], env=environment, check=True,
                       stdout=subprocess.DEVNULL)
        for name in CASES:
            ours, theirs = np.load(folder / f"{name}.npz"), np.load(folder / f"{name}.nnunet.npz")
            for kind in theirs:
                difference = np.abs(ours[kind] - theirs[kind])
                masks = (ours[kind].argmax(0) != theirs[kind].argmax(0)).sum()
                beyond = np.count_nonzero(difference > 1e-4)
                print(f"{name:12s} {kind:9s} largest difference {difference.max():.1e}; beyond 1e-4 {beyond} of "
                      f"{difference.size}; masks differ in {masks} of {difference[0].size}; probabilities from "
                      f"{ours[kind].min():.3f} to {ours[kind].max():.3f}")
                if beyond:
                    sys.exit(f"{name} {kind}: expected at most 1e-4")


if __name__ == "__main__":
    main()
