"""A trained model: its parts, and a run's folder opened as one model."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from octkit import settings
from octkit.checkpoints import load_checkpoint
from octkit.files import OctkitError, read_json
from octkit.plans import Plan
from octkit.unet import UNet, weight_shapes

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Member:
    """One configuration of a model, trained: a set of weights for each fold.

    `weights` maps the fold's name ("0" … "4", "all") to a state dict of float32 tensors. `previous` is the stage
    whose result a cascade's second stage refines.
    """

    config: str
    weights: dict[str, dict[str, torch.Tensor]]
    previous: "Member | None" = None


@dataclass(frozen=True)
class Model:
    """A trained model: one configuration or a pair that is averaged, and all that prediction needs beside them.

    `labels` are the foreground's names, `mirror_axes` those seen in training (-1 A-scans, -2 rows, -3 B-scans),
    `postprocessing` the steps chosen by cross-validation, `circle` says that it was so on scans whose last A-scan is
    the neighbour of the first, and `surfaces` that masks are drawn from ordered boundaries. `blend` is what is averaged
    over windows, mirrored copies and folds: "probabilities" (the recipe's), or "scores" before softmax (nnU-Net v2's,
    for models that come from there).
    """

    plan: Plan
    members: tuple[Member, ...]
    labels: tuple[str, ...]
    mirror: bool
    mirror_axes: tuple[int, ...]
    step: float
    precision: str
    postprocessing: tuple[tuple[int, ...], ...] = ()
    circle: bool = False
    surfaces: bool = False
    blend: str = "probabilities"


def build_network(plan: Plan, config: str, deep_supervision: bool) -> UNet:
    """The U-Net that a plan's configuration describes.

    A cascade's second stage sees beside the image what the first stage found, one channel for each class.
    """
    return UNet(*_parts(plan, config), deep_supervision)


def expected_shapes(plan: Plan, config: str) -> dict[str, tuple[int, ...]]:
    """The weights of that network, name -> shape, without making it."""
    return weight_shapes(*_parts(plan, config))


def _parts(plan: Plan, config: str) -> tuple:
    configuration = plan.configurations[config]
    inputs = len(plan.channels) + (len(plan.classes) if configuration.previous_stage else 0)
    return inputs, len(plan.classes) + 1, configuration.features, configuration.strides, configuration.kernels


def choose_device(name: str) -> torch.device:
    """"auto" takes a CUDA device where there is one. Raises OctkitError where "cuda" is asked for in vain."""
    if name == "cuda" and not torch.cuda.is_available():
        raise OctkitError("device: cuda was asked for, but torch finds no CUDA device; set device=auto or device=cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def working_precision(wanted: str, device: torch.device) -> str:
    """The precision to compute in: bfloat16 only where the processor has it, and said where not.

    A CPU without bfloat16 instructions would have to emulate them.
    """
    if wanted == "bfloat16" and device.type == "cpu":
        able = torch.cpu.get_capabilities()
        if not any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")):
            print("this CPU has no bfloat16 instructions: computing in float32")
            return "float32"
    if wanted == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        print("this GPU has no bfloat16: computing in float32")
        return "float32"
    return wanted


def autocast(precision: str, device: torch.device):
    """The context in which a network computes: autocast to bfloat16, or none."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bfloat16" else nullcontext()


def memory_format(axes: int, device: torch.device, precision: str, training: bool) -> torch.memory_format:
    """How feature maps lie in memory where it is fastest: channels last, but for training in float32 on a CPU.

    There a step (2 patches of 320 x 576 px, 16 to 96 maps) took 1.8 s of processor time instead of 3.0 s with the
    channels first (AMD EPYC, AVX2, one thread); bfloat16, prediction and GPUs want them last.
    """
    if training and device.type == "cpu" and precision == "float32":
        return torch.contiguous_format
    return torch.channels_last if axes == 2 else torch.channels_last_3d


def fold_dir(run_dir: Path, config: str, fold: int | str) -> Path:
    return Path(run_dir) / "models" / config / f"fold_{fold}"


def load_weights(network: torch.nn.Module, state: dict[str, torch.Tensor], where: str) -> None:
    """Put weights into a network. Raises OctkitError where they belong to another one."""
    try:
        network.load_state_dict(state)
    except RuntimeError:
        raise OctkitError(f"{where}: its weights do not fit the network of plan.json; the plan has changed since, "
                          "train again") from None


def load_model(run_dir: Path, configs: Sequence[str] | None = None, folds=None) -> Model:
    """Open a run's folder as a model: the plan and the weights of all folds that its settings name.

    Args:
        run_dir: the run's folder, reports/<run>.
        configs: configurations to average; None takes those that selection.json names, or the plan's only one.
        folds: these alone instead of all that the settings name (cross-validation).

    Raises:
        OctkitError: where a fold is missing or its training is not finished, or nothing has been chosen yet.
    """
    run_dir = Path(run_dir)
    if not (run_dir / "settings.json").exists():
        raise OctkitError(f"{run_dir}: found no settings.json, expected the folder of a run")
    chosen = settings.load(run_dir / "settings.json")
    plan = Plan.load(run_dir / "plan.json")
    selection = run_dir / "selection.json"
    decided = {"configurations": [], "steps": [], "circle": False, "surfaces": chosen.infer.surfaces == "always"}
    if selection.exists():
        decided = _decided(selection)
    elif configs is None:
        print(f"{selection}: not there, so that no post-processing is applied and scans count as no circles; "
              f"`octkit select {run_dir}` decides both")
    if configs is None:
        trained = chosen.train.configs_among(plan.configurations)
        configs = decided["configurations"] or (trained if len(trained) == 1 else ())
        if not configs:
            raise OctkitError(f"{selection}: not found, and the plan has {len(trained)} configurations to choose from; "
                              f"train their folds, then `octkit select {run_dir}`")
    if foreign := [config for config in configs if config not in plan.configurations]:
        raise OctkitError(f"{run_dir / 'plan.json'}: has no configuration {foreign[0]!r}, expected one of "
                          f"{', '.join(plan.configurations)}; it was chosen or asked for")
    if folds is None:
        folds = chosen.train.folds
    members = tuple(_member(run_dir, plan, config, folds) for config in configs)
    return Model(plan, members, tuple(plan.classes), chosen.infer.mirror, chosen.augment.mirror_axes,
                 chosen.infer.step, chosen.train.precision, tuple(tuple(step) for step in decided["steps"]),
                 decided["circle"], decided["surfaces"])


def _decided(path: Path) -> dict:
    """What selection.json says of prediction. Raises OctkitError where it does not say it."""
    found = read_json(path)
    good = (isinstance(found, dict) and {"configurations", "steps", "circle", "surfaces"} <= set(found)
            and isinstance(found["configurations"], list) and isinstance(found["steps"], list)
            and all(isinstance(step, list) and all(type(label) is int for label in step) for step in found["steps"])
            and isinstance(found["circle"], bool) and isinstance(found["surfaces"], bool))
    if not good:
        raise OctkitError(f"{path}: found {str(found)[:60]}, expected configurations, steps, circle and surfaces as "
                          "`octkit select` writes them; select again")
    return found


def _member(run_dir: Path, plan: Plan, config: str, folds) -> Member:
    previous = plan.configurations[config].previous_stage
    weights = {str(fold): finished_weights(run_dir, config, fold) for fold in folds}
    return Member(config, weights, _member(run_dir, plan, previous, folds) if previous else None)


def finished_weights(run_dir: Path, config: str, fold: int | str) -> dict[str, torch.Tensor]:
    """The weights of a fold whose training has ended. Raises OctkitError where it has not, and says how to end it."""
    path = fold_dir(run_dir, config, fold) / "checkpoint.pt"
    command = f"`octkit train {run_dir} --config {config} --fold {fold}`"
    if not path.exists():
        raise OctkitError(f"{path}: not found; train this fold first with {command}")
    try:
        checkpoint = load_checkpoint(path)
    except OctkitError as error:
        raise OctkitError(f"{error}; {command} mends it from the checkpoint before") from None
    kinds = {"epoch": int, "epochs": int, "network": dict}
    if not isinstance(checkpoint, dict) or not all(isinstance(checkpoint.get(key), kinds[key]) for key in kinds):
        raise OctkitError(f"{path}: is no checkpoint of a training, found {', '.join(map(str, checkpoint))}")
    if checkpoint["epoch"] < checkpoint["epochs"]:
        raise OctkitError(f"{path}: training stopped after epoch {checkpoint['epoch']} of {checkpoint['epochs']}; "
                          f"finish it with {command}")
    return checkpoint["network"]
