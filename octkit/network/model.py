"""A trained model: its parts, and a run's folder opened as one model."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ValidationError

from octkit.common.errors import OctkitError, first_problem
from octkit.common.messages import say, say_once
from octkit.data.measured import Calibration, Scope
from octkit.network.checkpoints import load_checkpoint
from octkit.network.unet import UNet, weight_shapes
from octkit.planning.plan import Plan
from octkit.planning.rules import Ints
from octkit.planning.run import Run

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Member:
    """One configuration of a model, trained: a set of weights for each fold.

    `weights` maps the fold's name ("0" … "4", "all") to a state dict of float32 tensors. `previous` is a cascade's
    first step, whose result the second one refines.
    """

    config: str
    weights: dict[str, dict[str, torch.Tensor]]
    previous: "Member | None" = None


@dataclass(frozen=True)
class Model:
    """A trained model: one configuration or a pair that is averaged, and all that prediction needs beside them.

    `labels` are the foreground's names, `mirror_axes` those seen in training (-1 A-scans, -2 rows, -3 B-scans),
    `postprocessing` the steps chosen by cross-validation; `circle` says that these scans close to a circle, `surfaces`
    that masks are drawn from ordered boundaries. `blend` is what is averaged over windows, mirrored copies and folds:
    "probabilities", or "logits" in models that come from nnU-Net v2. `scope` tells the scans that it reads from others
    (`layers.scope`); None: nothing is known of that. `calibration` says what the boundaries' doubt is worth; None:
    nobody has measured it.
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
    scope: Scope | None = None
    calibration: Calibration | None = None


def build_network(plan: Plan, config: str, deep_supervision: bool) -> UNet:
    """The U-Net that a plan's configuration describes."""
    return UNet(*_parts(plan, config), deep_supervision=deep_supervision)


def expected_shapes(plan: Plan, config: str) -> dict[str, tuple[int, ...]]:
    """The weights of that network, name -> shape, without making it."""
    return weight_shapes(*_parts(plan, config))


def _parts(plan: Plan, config: str) -> tuple[int, int, Ints, tuple[Ints, ...], tuple[Ints, ...], Ints]:
    configuration = plan.configurations[config]
    return (plan.input_channels(config), len(plan.classes) + 1, configuration.features, configuration.strides,
            configuration.kernels, configuration.blocks)


def choose_device(name: str) -> torch.device:
    """"auto" takes a CUDA device where there is one. Raises OctkitError where "cuda" is asked for in vain."""
    if name == "cuda" and not torch.cuda.is_available():
        raise OctkitError("device: cuda was asked for, but torch finds no CUDA device; set device=auto or device=cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def working_precision(wanted: str, device: torch.device) -> str:
    """The precision to compute in: bfloat16 only where the processor has it without emulation."""
    if wanted != "bfloat16":
        return wanted
    if device.type == "cuda":
        able = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    if not able:
        say(f"this {'GPU' if device.type == 'cuda' else 'CPU'} has no bfloat16 instructions: computing in float32")
    return "bfloat16" if able else "float32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """The context in which a network computes: autocast to bfloat16, or none."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bfloat16" else nullcontext()


def as_trained(device: torch.device) -> bool:
    """Whether a network predicts by training's functions: on a GPU, where autocast has group norm in float32.

    On a CPU those for prediction are faster (`unet.InstanceNorm`); which is on a GPU nobody has measured.
    """
    return device.type == "cuda"


def memory_format(axes: int, device: torch.device, precision: str, training: bool) -> torch.memory_format:
    """How feature maps lie in memory where it is fastest: channels last, but for training in float32 on a CPU.

    There a step (2 patches of 320 x 576 px, 16 to 96 maps) took 1.8 s instead of 3.0 s with the channels first.
    """
    if training and device.type == "cpu" and precision == "float32":
        return torch.contiguous_format
    return torch.channels_last if axes == 2 else torch.channels_last_3d


def load_weights(network: torch.nn.Module, state: dict[str, torch.Tensor], where: str) -> None:
    """Put weights into a network. Raises OctkitError where they belong to another one."""
    try:
        network.load_state_dict(state)
    except RuntimeError:
        raise OctkitError(f"{where}: its weights do not fit the network of plan.json; train again") from None


def load_model(run: Run, configs: Sequence[str] | None = None, folds: Sequence[int | str] | None = None) -> Model:
    """Open a run's folder as a model: the plan and the weights of its `final_folds`.

    Args:
        configs: configurations to average; None takes those that selection.json names, or the plan's only one.
        folds: these instead (cross-validation).

    Raises:
        OctkitError: where a fold is missing or its training is not finished, or nothing has been chosen yet.
    """
    chosen, plan = run.settings, run.plan
    decided = run.selection if run.selection_file.exists() else None
    if configs is None and decided is not None:
        configs = decided.configurations
    elif configs is None:
        say_once(f"{run.selection_file}: not there, so that no post-processing is applied and scans count as no "
                 f"circles; `octkit select {run.folder}` decides both")
        configs = run.configs
        if len(configs) > 1:
            raise OctkitError(f"{run.selection_file}: not found, and the plan has {len(configs)} configurations to "
                              f"choose from; train their folds, then `octkit select {run.folder}`")
    if foreign := [config for config in configs if config not in plan.configurations]:
        raise OctkitError(f"{run.plan_file}: has no configuration {foreign[0]!r}, expected one of "
                          f"{', '.join(plan.configurations)}; it was chosen or asked for")
    members = tuple(_member(run, config, chosen.train.final_folds if folds is None else folds) for config in configs)
    return Model(plan, members, tuple(plan.classes), chosen.infer.mirror, chosen.augment.mirror_axes,
                 chosen.infer.step, chosen.train.precision, decided.steps if decided else (),
                 decided is not None and decided.circle,
                 decided.surfaces if decided else chosen.infer.surfaces == "always",
                 calibration=run.calibration if decided and tuple(configs) == decided.configurations else None)


def _member(run: Run, config: str, folds: Sequence[int | str]) -> Member:
    previous = run.plan.configurations[config].previous_stage
    weights = {str(fold): finished_weights(run, config, fold) for fold in folds}
    return Member(config, weights, _member(run, previous, folds) if previous else None)


class _Checkpoint(BaseModel):
    """What a training's checkpoint holds, as far as a model needs it."""

    epoch: int
    epochs: int
    network: dict[str, Any]


def finished_weights(run: Run, config: str, fold: int | str) -> dict[str, torch.Tensor]:
    """The weights of a fold whose training has ended. Raises OctkitError where it has not, and says how to end it."""
    path = run.checkpoint(config, fold)
    command = f"`octkit train {run.folder} --config {config} --fold {fold}`"
    if not path.exists():
        raise OctkitError(f"{path}: not found; train this fold first with {command}")
    try:
        checkpoint = load_checkpoint(path)
    except OctkitError as error:
        raise OctkitError(f"{error}; {command} mends it from the checkpoint before") from None
    try:
        _Checkpoint.model_validate(checkpoint)
    except ValidationError as error:
        raise OctkitError(f"{path}: is no checkpoint of a training; {first_problem(error)}; {command}") from None
    if checkpoint["epoch"] < checkpoint["epochs"]:
        raise OctkitError(f"{path}: training stopped after epoch {checkpoint['epoch']} of {checkpoint['epochs']}; "
                          f"finish it with {command}")
    return checkpoint["network"]
