"""What a plan is: plan.json as values, and whether its numbers can be those of a network.

`planner` makes plans from a fingerprint, others come with a model from elsewhere, and any file may have been edited.
So each is checked when it is read, before an array or a network is made by its numbers.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite, nan, prod
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from octkit.common.errors import OctkitError, by, first_problem
from octkit.common.files import read_json_as, write_json
from octkit.common.settings import ConfigName, Name
from octkit.planning.rules import Ints

# Limits far above what any plan needs: they stop a file that would fill the memory or never end.
MAX_STAGES = 16  # of a U-Net: 2^16 px are more than any scan has
MAX_FEATURES = 4096  # maps; the recipe has 512
MAX_PATCH = 20_000_000  # px; a GOALS scan has 900,000, nnU-Net's largest volumes 2 million
MAX_BATCH = 10_000
MAX_KERNEL = 31
MAX_BLOCKS = 100  # residual ones a stage; nnU-Net's have 6
STATISTICS = ("mean", "std", "percentile_00_5", "percentile_99_5")
# How a channel may be brought to the network's grey scale (`preprocess` does it).
NORMALISATIONS = ("ct", "zscore", "zscore_in_mask", "rescale_0_1", "rgb_0_1", "none")


@dataclass(frozen=True)
class Configuration:
    """One network and what it is fed: sizes in px, spacing in the plan's units, one number an axis.

    `features` counts the maps of each stage of the U-Net, `strides` and `kernels` are those of its convolutions (full
    resolution first), `blocks` the residual blocks of each stage on the way down; a plain network has none.
    `previous_stage` names a cascade's first step, which this configuration refines.
    """

    patch_size: Ints
    batch_size: int
    spacing: tuple[float, ...]
    median_shape: tuple[float, ...]
    features: Ints
    strides: tuple[Ints, ...]
    kernels: tuple[Ints, ...]
    batch_dice: bool
    previous_stage: Name | None = None
    blocks: Ints = ()


@dataclass(frozen=True)
class Plan:
    """The configurations of a data set with what preprocessing needs.

    `axis_order` are the file's axes in the order in which a volume is planned and preprocessed: the coarsest first,
    so that the 2-D configuration sees slices across it; () for 2-D scans. `normalisation` is one scheme a channel
    (`NORMALISATIONS`): "ct" in our own plans, others in plans that come from elsewhere. `reasons` says why:
    config -> parameter -> words; under "plan" those of "planned" (which configurations), "axis_order", "normalisation".
    """

    configurations: dict[Name, Configuration]
    channels: tuple[str, ...]
    classes: tuple[str, ...]
    intensity: tuple[dict[str, float], ...]
    units: str
    axis_order: Ints = ()
    normalisation: tuple[str, ...] = ()
    reasons: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def axes(self) -> int:
        """How many axes the scans have: 2 or 3."""
        return len(self.axis_order) or 2

    @property
    def schemes(self) -> tuple[str, ...]:
        """How each channel is normalised, one of `NORMALISATIONS`."""
        return self.normalisation or ("ct",) * len(self.channels)

    def input_channels(self, config: str) -> int:
        """How many channels the network sees; a cascade's second step also sees the first's result, one a class."""
        return len(self.channels) + (len(self.classes) if self.configurations[config].previous_stage else 0)

    def save(self, path: Path, blueprint: Mapping[str, tuple[object, str]] | None = None) -> None:
        """Write plan.json: every parameter as {"value", "kind", "reason"}; `blueprint` is name -> (value, reason)."""
        def inferred(value: Any, name: str, key: str) -> dict:
            return {"value": value, "kind": "inferred", "reason": self.reasons.get(name, {}).get(key, "")}

        undecided = {"value": None, "kind": "empirical", "reason": "decided by cross-validation, see selection.json"}
        write_json(path, {
            "channels": self.channels, "classes": self.classes, "units": self.units,
            "planned": inferred(list(self.configurations), "plan", "planned"),
            "configurations": {name: {key: inferred(value, name, key) for key, value in asdict(configuration).items()}
                               for name, configuration in self.configurations.items()},
            "axis_order": inferred(self.axis_order, "plan", "axis_order"),
            "normalisation": inferred(self.normalisation, "plan", "normalisation"),
            "intensity": {"value": self.intensity, "kind": "inferred",
                          "reason": "of the labelled pixels of all training cases"},
            "blueprint": {name: {"value": value, "kind": "blueprint", "reason": reason}
                          for name, (value, reason) in (blueprint or {}).items()},
            "empirical": {"configuration": undecided, "postprocessing": undecided},
        })

    @staticmethod
    def load(path: Path) -> "Plan":
        """Read plan.json. Raises OctkitError where it is missing, no plan, or one that `check_plan` refuses."""
        found = read_json_as(path, _PlanFile, "make it again with `octkit plan`")
        explained = {"plan": {key: getattr(found, key) for key in ("planned", "axis_order", "normalisation")}}
        reasons = {name: {key: entry.reason for key, entry in entries.items() if entry.reason}
                   for name, entries in (explained | found.configurations).items()}
        return plan_of({
            "configurations": {name: {key: entry.value for key, entry in entries.items()}
                               for name, entries in found.configurations.items()},
            "channels": found.channels, "classes": found.classes, "units": found.units,
            "reasons": {name: words for name, words in reasons.items() if words},
            **{key: getattr(found, key).value for key in ("intensity", "axis_order", "normalisation")}}, path)


class _Entry(BaseModel):
    value: Any
    reason: str


class _PlanFile(BaseModel):
    """plan.json, as far as a plan is made of it."""

    channels: tuple[str, ...]
    classes: tuple[str, ...]
    units: str
    configurations: dict[ConfigName, dict[str, _Entry]]
    planned: _Entry
    intensity: _Entry
    axis_order: _Entry
    normalisation: _Entry


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
    for name, one in plan.configurations.items():
        patch, maps = by(one.patch_size), one.features
        if not _describes_a_network(one):
            problems.append(f"configuration {name!r} describes no network of 2 or 3 axes (patch {patch}, "
                            f"{len(maps)} stages)")
        elif prod(one.patch_size) > MAX_PATCH or max(maps) > MAX_FEATURES or not 1 <= one.batch_size <= MAX_BATCH:
            problems.append(f"configuration {name!r} is too large (patch {patch}, batch {one.batch_size}, up to "
                            f"{max(maps)} maps)")
        if len(one.patch_size) == 3 and not plan.axis_order:
            problems.append(f"configuration {name!r} of 3 axes in a plan for 2-D scans")
        if one.previous_stage is not None and one.previous_stage not in plan.configurations:
            problems.append(f"configuration {name!r} refines {one.previous_stage!r}, which is not there")
        elif one.previous_stage is not None and plan.configurations[one.previous_stage].previous_stage is not None:
            problems.append(f"configuration {name!r} refines {one.previous_stage!r}, which refines another (or itself)")
    if not plan.channels or len(plan.intensity) != len(plan.channels):
        problems.append(f"{len(plan.channels)} channels, but intensities of {len(plan.intensity)}")
    if plan.normalisation and len(plan.normalisation) != len(plan.channels):
        problems.append(f"{len(plan.channels)} channels, but {len(plan.normalisation)} ways to normalise them")
    if foreign := sorted(set(plan.normalisation) - set(NORMALISATIONS)):
        problems.append(f"the normalisation {foreign[0]!r}, not one of {', '.join(NORMALISATIONS)}")
    if plan.axis_order and sorted(plan.axis_order) != [0, 1, 2]:
        problems.append(f"the axis order {plan.axis_order}")
    if not all(isfinite(record.get(key, nan)) for record in plan.intensity for key in STATISTICS):
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
    if configuration.blocks and (len(configuration.blocks) != stages or not 1 <= min(configuration.blocks)
                                 <= max(configuration.blocks) <= MAX_BLOCKS):
        return False
    divisor = [prod(stride[axis] for stride in configuration.strides) for axis in range(axes)]
    return (set(configuration.strides[0]) == {1} and min(configuration.features) >= 1
            and all(size % 2 and size <= MAX_KERNEL for kernel in configuration.kernels for size in kernel)
            and not any(size % d for size, d in zip(configuration.patch_size, divisor, strict=True))
            and len(configuration.spacing) == axes and all(1e-6 < s < 1e6 for s in configuration.spacing))
