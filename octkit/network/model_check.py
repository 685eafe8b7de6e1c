"""Whether a model's plan, members and weights fit together; checked before a network is built."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from octkit.common.errors import OctkitError, by
from octkit.common.settings import LEAST_STEP
from octkit.data.measured import Calibration, Scope
from octkit.network.model import Member, Model, expected_shapes
from octkit.planning.plan import Plan, check_plan


def _renamed(blend: object) -> object:
    return "logits" if blend == "scores" else blend  # older files say "scores"


class Traits(BaseModel):
    """How a model predicts, beside its plan and weights: the fields of `Model` by their own names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mirror: bool
    mirror_axes: tuple[Literal[-3, -2, -1], ...]
    step: Annotated[float, Field(ge=LEAST_STEP, le=1)]
    precision: Literal["float32", "bfloat16"]
    postprocessing: tuple[tuple[int, ...], ...] = ()
    circle: bool = False
    surfaces: bool = False
    blend: Annotated[Literal["probabilities", "logits"], BeforeValidator(_renamed)]
    scope: Scope | None = None
    calibration: Calibration | None = None


def check_model(model: Model, where: str | Path) -> None:
    """Raise OctkitError where a model's plan, members and weights do not fit together."""
    check_plan(model.plan, where)
    if tuple(model.labels) != tuple(model.plan.classes):
        raise OctkitError(f"{where}: found the labels {', '.join(model.labels)}, expected "
                          f"{', '.join(model.plan.classes)} as in its plan")
    if not model.members or len({member.config for member in model.members}) != len(model.members):
        raise OctkitError(f"{where}: found {len(model.members)} members, expected each configuration once")
    for step in (step for member in model.members for step in steps_of(member)):
        if step.config not in model.plan.configurations:
            raise OctkitError(f"{where}: found weights of {step.config!r}, expected one of the plan's configurations "
                              f"{', '.join(model.plan.configurations)}")
        found = step.previous.config if step.previous else None
        expected = model.plan.configurations[step.config].previous_stage
        if found != expected:
            raise OctkitError(f"{where}: {step.config} comes with the first step {found}, expected {expected}")
        if not step.weights:
            raise OctkitError(f"{where}: {step.config} has no weights, expected those of one fold at least")
        for fold, state in step.weights.items():
            _check_weights(model.plan, step.config, state, f"{where}, {step.config} fold {fold}")
    known = range(1, len(model.labels) + 1)
    if not all(labels and set(labels) <= set(known) for labels in model.postprocessing):
        raise OctkitError(f"{where}: found the post-processing {model.postprocessing}, expected labels from 1 to "
                          f"{len(model.labels)}")


def _check_weights(plan: Plan, config: str, state: dict[str, torch.Tensor], where: str) -> None:
    expected = expected_shapes(plan, config)  # a plan of absurd size takes no memory here
    if odd := sorted(set(state) ^ set(expected)):
        raise OctkitError(f"{where}: found {len(state)} tensors, expected {len(expected)} as its plan has them "
                          f"({odd[0]!r} is in one of them alone)")
    for name, tensor in state.items():
        if tuple(tensor.shape) != expected[name] or tensor.dtype != torch.float32:
            raise OctkitError(f"{where}: found {name} of {by(tensor.shape)}, {tensor.dtype}, expected "
                              f"{by(expected[name])}, torch.float32 as its plan has it (if the plan has changed "
                              "since, train again)")
    stored = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in state.values()}
    if sum(tensor.nbytes for tensor in state.values()) > sum(stored.values()):  # a small file would fill the memory
        raise OctkitError(f"{where}: found weights that share their numbers, expected each its own")


def steps_of(member: Member) -> Iterator[Member]:
    """A member, then the step before it where there is one."""
    yield member
    if member.previous:
        yield from steps_of(member.previous)
