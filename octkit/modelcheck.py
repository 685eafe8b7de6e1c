"""Whether a model holds together: the plan's numbers, its members, and the shapes of their weights.

What a run leaves fits by construction; a file from elsewhere need not, and is checked before a network is built.
"""

from collections.abc import Iterator
from math import isfinite, prod
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from octkit.cases import by
from octkit.files import OctkitError
from octkit.models import Member, Model, build_network
from octkit.planner import Configuration, Plan
from octkit.preprocess import NORMALISATIONS

MAX_STAGES = 16  # of a U-Net: 2^16 px are more than any scan has
STATISTICS = ("mean", "std", "percentile_00_5", "percentile_99_5")


class Traits(BaseModel):
    """How a model predicts, beside its plan and weights: the fields of `models.Model` by their own names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mirror: bool
    mirror_axes: tuple[Literal[-3, -2, -1], ...]
    step: Annotated[float, Field(gt=0, le=1)]
    precision: Literal["float32", "bfloat16"]
    postprocessing: tuple[tuple[int, ...], ...] = ()
    circle: bool = False
    surfaces: bool = False
    blend: Literal["probabilities", "scores"]


def plan_of(content: dict, where: str | Path) -> Plan:
    """A plan from JSON values, checked. Raises OctkitError that names what is wrong."""
    try:
        plan = TypeAdapter(Plan).validate_python(content)
    except ValidationError as error:
        raise OctkitError(f"{where}: its plan is not valid; {first_problem(error)}") from None
    check_plan(plan, where)
    return plan


def check_plan(plan: Plan, where: str | Path) -> None:
    """Raise OctkitError where the numbers of a plan contradict each other, or are none."""
    problems = []
    for name, configuration in plan.configurations.items():
        if not _describes_a_network(configuration):
            problems.append(f"configuration {name!r} describes no network of 2 or 3 axes (patch "
                            f"{by(configuration.patch_size)}, {len(configuration.features)} stages)")
        if len(configuration.patch_size) == 3 and not plan.axis_order:
            problems.append(f"configuration {name!r} of 3 axes in a plan for 2-D scans")
        if configuration.previous_stage is not None and configuration.previous_stage not in plan.configurations:
            problems.append(f"configuration {name!r} refines {configuration.previous_stage!r}, which is not there")
    if not plan.channels or len(plan.intensity) != len(plan.channels):
        problems.append(f"{len(plan.channels)} channels, but intensities of {len(plan.intensity)}")
    if plan.normalisation and len(plan.normalisation) != len(plan.channels):
        problems.append(f"{len(plan.channels)} channels, but {len(plan.normalisation)} ways to normalise them")
    if foreign := sorted(set(plan.normalisation) - set(NORMALISATIONS)):
        problems.append(f"the normalisation {foreign[0]!r}, not one of {', '.join(NORMALISATIONS)}")
    if plan.axis_order and sorted(plan.axis_order) != [0, 1, 2]:
        problems.append(f"the axis order {plan.axis_order}")
    for record in plan.intensity:
        if not all(isfinite(record.get(key, float("nan"))) for key in STATISTICS):
            problems.append(f"intensities without {', '.join(STATISTICS)}")
    if not 1 <= len(plan.classes) <= 254:
        problems.append(f"{len(plan.classes)} classes")
    if problems:
        raise OctkitError(f"{where}: its plan is not valid; found {'; '.join(problems)}")


def _describes_a_network(configuration: Configuration) -> bool:
    axes, stages = len(configuration.patch_size), len(configuration.features)
    sizes = [configuration.patch_size, *configuration.strides, *configuration.kernels]
    if axes not in (2, 3) or any(len(size) != axes or min(size) < 1 for size in sizes):
        return False
    if not (2 <= stages <= MAX_STAGES and stages == len(configuration.strides) == len(configuration.kernels)):
        return False
    divisor = [prod(stride[axis] for stride in configuration.strides) for axis in range(axes)]
    return (set(configuration.strides[0]) == {1} and min(configuration.features) >= 1
            and all(size % 2 for kernel in configuration.kernels for size in kernel)
            and not any(size % d for size, d in zip(configuration.patch_size, divisor, strict=True))
            and len(configuration.spacing) == axes and all(isfinite(s) and s > 0 for s in configuration.spacing))


def check_model(model: Model, where: str | Path) -> None:
    """Raise OctkitError where a model's plan, members and weights do not fit together."""
    check_plan(model.plan, where)
    if tuple(model.labels) != tuple(model.plan.classes):
        raise OctkitError(f"{where}: found the labels {', '.join(model.labels)}, expected "
                          f"{', '.join(model.plan.classes)} as in its plan")
    if not model.members or len({member.config for member in model.members}) != len(model.members):
        raise OctkitError(f"{where}: found {len(model.members)} members, expected each configuration once")
    for member in model.members:
        for stage in stages_of(member):
            if stage.config not in model.plan.configurations:
                raise OctkitError(f"{where}: found weights of {stage.config!r}, expected one of the plan's "
                                  f"configurations {', '.join(model.plan.configurations)}")
            found, expected = (stage.previous and stage.previous.config,
                               model.plan.configurations[stage.config].previous_stage)
            if found != expected:
                raise OctkitError(f"{where}: {stage.config} comes with the stage {found} before it, expected "
                                  f"{expected}")
            if not stage.weights:
                raise OctkitError(f"{where}: {stage.config} has no weights, expected those of one fold at least")
            for fold, state in stage.weights.items():
                _check_weights(model.plan, stage.config, state, f"{where}, {stage.config} fold {fold}")
    known = range(1, len(model.labels) + 1)
    if not all(step and all(label in known for label in step) for step in model.postprocessing):
        raise OctkitError(f"{where}: found the post-processing {model.postprocessing}, expected labels from 1 to "
                          f"{len(model.labels)}")


def _check_weights(plan: Plan, config: str, state: dict[str, torch.Tensor], where: str) -> None:
    with torch.device("meta"):  # names and shapes alone: a plan of absurd size takes no memory here
        expected = build_network(plan, config, False).state_dict()
    if set(state) != set(expected):
        odd = sorted(set(state) ^ set(expected))
        raise OctkitError(f"{where}: found {len(state)} tensors, expected {len(expected)} as its plan has them "
                          f"({odd[0]!r} is in one of them alone)")
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape or tensor.dtype != torch.float32:
            raise OctkitError(f"{where}: found {name} of {by(tensor.shape)}, {tensor.dtype}, expected "
                              f"{by(expected[name].shape)}, torch.float32 as its plan has it")


def stages_of(member: Member) -> Iterator[Member]:
    """A member, then the stages before it."""
    while member is not None:
        yield member
        member = member.previous


def first_problem(error: ValidationError) -> str:
    """What pydantic found, in words."""
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc'])) or 'it'}: {problem['msg']} (found {str(problem['input'])[:60]})"
