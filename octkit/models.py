"""A trained model on disk: checkpoints of a fold, and a run's folder opened as one model.

Checkpoints hold tensors and plain values only and are read with `weights_only=True`: opening a
stranger's file cannot run code.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from octkit import settings
from octkit.cases import OctkitError, read_json, replacing
from octkit.planner import Configuration, Plan
from octkit.unet import UNet


@dataclass(frozen=True)
class Model:
    """A trained model: one set of weights a fold, and all that prediction needs to know beside them.

    `weights` maps the fold's name ("0" … "4", "all") to a state dict of float32 tensors. `labels` are the
    foreground's names, `mirror_axes` those seen in training, `postprocessing` the steps chosen by
    cross-validation.
    """

    plan: Plan
    config: str
    labels: tuple[str, ...]
    weights: dict[str, dict[str, torch.Tensor]]
    mirror: bool
    mirror_axes: tuple[int, ...]
    step: float
    precision: str
    postprocessing: tuple[tuple[int, ...], ...] = ()


def build_network(configuration: Configuration, channels: int, labels: int, deep_supervision: bool) -> UNet:
    """The U-Net that a plan's configuration describes; `labels` counts the foreground classes."""
    return UNet(channels, labels + 1, configuration.features, configuration.strides, configuration.kernels,
                deep_supervision)


def choose_device(name: str) -> torch.device:
    """"auto" takes a CUDA device where there is one. Raises OctkitError where "cuda" is asked for in vain."""
    if name == "cuda" and not torch.cuda.is_available():
        raise OctkitError("device: cuda was asked for, but torch finds no CUDA device; set device=auto or device=cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def fold_dir(run_dir: Path, config: str, fold: int | str) -> Path:
    return Path(run_dir) / "models" / config / f"fold_{fold}"


def save_checkpoint(path: Path, state: dict) -> None:
    """Write a checkpoint whole or not at all."""
    with replacing(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path: Path) -> dict:
    """Read a checkpoint onto the CPU. Raises OctkitError where it is missing, damaged or holds code."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise OctkitError(f"{path}: not found, expected a checkpoint; train this fold first") from None
    except Exception as error:  # zip, pickle and torch raise a dozen kinds for a damaged file
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise OctkitError(f"{path}: cannot be read as a checkpoint ({reason[0]})") from None


def load_model(run_dir: Path, config: str | None = None, folds=None) -> Model:
    """Open a run's folder as a model: the plan and the weights of all folds that its settings name.

    Args:
        run_dir: the run's folder, reports/<run>.
        config: configuration; None takes the one in settings.json.
        folds: these alone instead of all that the settings name (cross-validation).

    Raises:
        OctkitError: where a fold is missing or its training is not finished.
    """
    run_dir = Path(run_dir)
    if not (run_dir / "settings.json").exists():
        raise OctkitError(f"{run_dir}: found no settings.json, expected the folder of a run")
    chosen = settings.load(run_dir / "settings.json")
    plan = Plan.load(run_dir / "plan.json")
    config = config or chosen.train.config
    weights = {}
    for fold in chosen.train.folds if folds is None else folds:
        path = fold_dir(run_dir, config, fold) / "checkpoint.pt"
        checkpoint = load_checkpoint(path)
        if checkpoint["epoch"] < checkpoint["epochs"]:
            raise OctkitError(f"{path}: training stopped after epoch {checkpoint['epoch']} of {checkpoint['epochs']}; "
                              f"finish it with `octkit train {run_dir} --fold {fold}`")
        weights[str(fold)] = checkpoint["network"]
    selection = run_dir / "selection.json"
    steps = read_json(selection)["steps"] if selection.exists() else []
    return Model(plan, config, tuple(plan.classes), weights, chosen.infer.mirror, chosen.augment.mirror_axes,
                 chosen.infer.step, chosen.train.precision, tuple(tuple(step) for step in steps))
