"""nnU-Net's plans.json and dataset.json <-> a Plan: what its numbers are called, and which networks are ours.

nnU-Net v2 describes a network by the arguments of a class; a Plan by its sizes, for octkit's plain or residual U-Net.
So what is built of other parts (convolutions a stage, norm, activation) has no counterpart here and is refused.
Source: nnU-Net v2.8.1, the files that its planners write, and how it reads those of v2.0 to v2.3.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from octkit.common.errors import OctkitError, first_problem
from octkit.data.layouts.nnunet import label_names
from octkit.planning.plan import MAX_STAGES, Plan, plan_of
from octkit.planning.rules import Ints, feature_maps

UNETS = {kind: f"dynamic_network_architectures.architectures.unet.{kind}"
         for kind in ("PlainConvUNet", "ResidualEncoderUNet")}
# How everything is prepared; what a file states of another way is refused.
ORDERS = {"data": 3, "seg": 1, "probabilities": 1}
PREPARED: dict[str, Any] = {
    "preprocessor_name": "DefaultPreprocessor",
    **{f"resampling_fn_{kind}": "resample_data_or_seg_to_shape" for kind in ORDERS},
    **{f"resampling_fn_{kind}_kwargs": {"is_seg": kind == "seg", "order": order, "order_z": 0,
                                        "force_separate_z": None} for kind, order in ORDERS.items()}}
PASSED = "deep_supervision", "dropout_op_kwargs"  # arguments that change no prediction
# The schemes without a question of masks; z-score has one.
SCHEMES = {"CTNormalization": "ct", "NoNormalization": "none", "RescaleTo01Normalization": "rescale_0_1",
           "RGBTo01Normalization": "rgb_0_1"}
ZSCORE = {False: "zscore", True: "zscore_in_mask"}
# How files are read: PNGs know no mm. A reader that reorders a volume's axes would give the network other axes.
READERS = {"NaturalImage2DIO": "px", "SimpleITKIO": "mm", "NibabelIO": "mm", "Tiff3DIO": "mm"}

Kind = TypeVar("Kind", bound=BaseModel)


class _Entry(BaseModel):
    """Keys that octkit needs; others are kept as they are."""

    model_config = ConfigDict(extra="allow")


class _Named(_Entry):
    """A configuration as it stands in plans.json: it may inherit any of its keys."""

    inherits_from: str | None = None


class _Plans(BaseModel):
    configurations: dict[str, _Named]
    image_reader_writer: Literal["NaturalImage2DIO", "SimpleITKIO", "NibabelIO", "Tiff3DIO"]
    transpose_forward: tuple[int, int, int]
    original_median_shape_after_transp: tuple[float | None, float, float]
    foreground_intensity_properties_per_channel: dict[int, dict[str, float]] = Field(validation_alias=AliasChoices(
        "foreground_intensity_properties_per_channel", "foreground_intensity_properties_by_modality"))


class _Dataset(BaseModel):
    channel_names: dict[int, str]
    labels: dict[str, Any]


class _Arguments(_Entry):
    """A network's sizes, by the names of a plan's `Configuration`."""

    n_stages: Annotated[int, Field(strict=True, ge=2, le=MAX_STAGES)]
    features: Ints = Field(alias="features_per_stage")
    strides: tuple[Ints, ...]
    kernels: tuple[Ints, ...] = Field(alias="kernel_sizes")
    blocks: Ints = Field((), alias="n_blocks_per_stage")
    nonlin_kwargs: dict[str, Any]


class _Old(BaseModel):
    """How v2.0 to v2.3 describe the network, in the configuration itself."""

    UNet_class_name: str
    UNet_base_num_features: int
    unet_max_num_features: int
    n_conv_per_stage_encoder: Annotated[Ints, Field(max_length=MAX_STAGES)]
    n_conv_per_stage_decoder: Ints
    pool_op_kernel_sizes: tuple[Ints, ...]
    conv_kernel_sizes: Annotated[tuple[Ints, ...], Field(min_length=1)]

    @property
    def architecture(self) -> dict[str, Any]:
        """The same as v2.4 and later say it."""
        kind, down = self.UNet_class_name, self.n_conv_per_stage_encoder
        plain, stages = kind == "PlainConvUNet", len(down)
        return {"network_class_name": UNETS.get(kind, kind), "arch_kwargs": {
            **_fixed_arguments(len(self.conv_kernel_sizes[0]), stages, () if plain else down), "n_stages": stages,
            "features_per_stage": feature_maps(stages, self.UNet_base_num_features, self.unet_max_num_features),
            "strides": self.pool_op_kernel_sizes, "kernel_sizes": self.conv_kernel_sizes, "nonlin_kwargs": {},
            "n_conv_per_stage" if plain else "n_blocks_per_stage": list(down),
            "n_conv_per_stage_decoder": list(self.n_conv_per_stage_decoder)}}


class _Architecture(BaseModel):
    network_class_name: str
    arch_kwargs: dict[str, Any]


class _Configuration(_Entry):
    """A configuration with all that it inherits, by the names of a plan's `Configuration`."""

    architecture: _Architecture
    patch_size: Ints
    batch_size: int
    spacing: tuple[float, ...]
    median_shape: tuple[float, ...] = Field(alias="median_image_size_in_voxels")
    batch_dice: bool
    normalization_schemes: tuple[str, ...]
    use_mask_for_norm: tuple[bool, ...]
    previous_stage: str | None = None


def plan_from(plans: object, dataset: object, config: str, where: Path) -> Plan:
    """The Plan of one configuration and of the step before it, from the contents of plans.json and dataset.json.

    Raises OctkitError that names what has no counterpart here.
    """
    theirs, data = _valid(_Plans, plans, where), _valid(_Dataset, dataset, where)
    entries: dict[str, _Configuration] = {}
    name: str | None = config
    while name:
        if name in entries:
            raise OctkitError(f"{where}: the configurations {', '.join(entries)} refine each other in a circle")
        entry = _resolved(theirs, name, where)
        if "architecture" not in entry and "UNet_class_name" in entry:
            entry["architecture"] = _valid(_Old, entry, f"{where}, {name}").architecture
        entries[name] = _valid(_Configuration, entry, f"{where}, {name}")
        name = entries[name].previous_stage
    order, units = theirs.transpose_forward, READERS[theirs.image_reader_writer]
    flat = units == "px" or theirs.original_median_shape_after_transp[0] == 1
    if flat and order != (0, 1, 2):
        raise OctkitError(f"{where}: puts the axes of 2-D scans into the order {order}, expected (0, 1, 2)")
    channels, intensity = range(len(data.channel_names)), theirs.foreground_intensity_properties_per_channel
    if not set(channels) == set(data.channel_names) <= set(intensity):
        raise OctkitError(f"{where}: found the channels {sorted(data.channel_names)} with intensities of "
                          f"{sorted(intensity)}, expected 0, 1, … of both")
    schemes = list(zip(entries[config].normalization_schemes, entries[config].use_mask_for_norm, strict=False))
    if len(schemes) < len(channels):  # none would stand for octkit's own
        raise OctkitError(f"{where}, {config}: found {len(schemes)} normalization_schemes with use_mask_for_norm, "
                          f"expected one for each of {len(channels)} channels")
    return plan_of({
        "configurations": {name: _configuration(entries[name], f"{where}, {name}") for name in reversed(entries)},
        "channels": [data.channel_names[i] for i in channels], "units": units, "axis_order": () if flat else order,
        "classes": label_names(where / "dataset.json", data.labels),
        "intensity": [intensity[i] for i in channels],
        "normalisation": [ZSCORE[in_mask] if scheme == "ZScoreNormalization" else SCHEMES.get(scheme, scheme)
                          for scheme, in_mask in schemes],
        "reasons": {name: {"patch_size": "as nnU-Net planned it"} for name in entries},
    }, where)


def plans_to(plan: Plan, name: str) -> dict[str, Any]:
    """The content of plans.json for a Plan; `name` is the data set's."""
    whole = max(plan.configurations.values(), key=lambda configuration: len(configuration.patch_size))
    spacing: list[float | None] = [*whole.spacing]
    shape: list[int | None] = [round(n) for n in whole.median_shape]
    if len(shape) == 2:  # a 2-D scan is one slice to nnU-Net, 999 thick; of volumes planned in 2-D we know no depth
        depth = (None, None) if plan.axis_order else (999.0, 1)
        spacing, shape = [depth[0], *spacing], [depth[1], *shape]
    order = list(plan.axis_order or (0, 1, 2))
    return {
        "dataset_name": name, "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": spacing, "original_median_shape_after_transp": shape,
        "image_reader_writer": "SimpleITKIO" if plan.axis_order or plan.units == "mm" else "NaturalImage2DIO",
        "transpose_forward": order, "transpose_backward": [order.index(axis) for axis in range(3)],
        "configurations": {config: _configuration_to(plan, config) for config in plan.configurations},
        "experiment_planner_used": "octkit", "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(i): entry for i, entry in enumerate(plan.intensity)},
    }


def dataset_to(channels: Sequence[str], labels: Sequence[str], ending: str) -> dict[str, Any]:
    """What the dataset.json of a model and of a raw data set say alike."""
    return {"channel_names": {str(i): channel for i, channel in enumerate(channels)},
            "labels": {"background": 0, **{label: i for i, label in enumerate(labels, start=1)}}, "file_ending": ending}


def _valid(kind: type[Kind], content: object, where: str | Path) -> Kind:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise OctkitError(f"{where}: is no plans.json of nnU-Net v2 with its dataset.json; "
                          f"{first_problem(error)}") from None


def _resolved(plans: _Plans, config: str, where: Path) -> dict[str, Any]:
    """A configuration's entry with all that it inherits."""
    chain: list[str] = []
    name: str | None = config
    while name is not None:
        if name not in plans.configurations:
            raise OctkitError(f"{where}: has no configuration {name!r}, expected one of "
                              f"{', '.join(plans.configurations)}")
        if name in chain:
            raise OctkitError(f"{where}: configuration {name!r} inherits from itself")
        chain.append(name)
        name = plans.configurations[name].inherits_from
    return {key: value for name in reversed(chain) for key, value in plans.configurations[name]}


def _fixed_arguments(axes: int, stages: int, blocks: Ints) -> dict[str, Any]:
    """The arguments of nnU-Net's class that make a network like octkit's, beside its sizes."""
    return ({} if blocks else {"n_conv_per_stage": [2] * stages}) | {
        "conv_op": f"torch.nn.modules.conv.Conv{axes}d", "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True}, "dropout_op": None, "nonlin": "torch.nn.LeakyReLU",
        "n_conv_per_stage_decoder": [1 if blocks else 2] * (stages - 1),
    }


def _configuration(entry: _Configuration, where: str) -> dict[str, Any]:
    """What a Configuration holds, from an nnU-Net configuration whose network is our U-Net."""
    kind = entry.architecture.network_class_name
    _check_fixed(PREPARED | {"network_class_name": kind if kind in UNETS.values() else " or ".join(UNETS.values())},
                 {**(entry.model_extra or {}), **dict(entry.architecture)}, where)
    network = _valid(_Arguments, entry.architecture.arch_kwargs, where)
    extra, slope = network.model_extra or {}, {"negative_slope": 0.01}
    fixed = _fixed_arguments(len(entry.patch_size), network.n_stages, network.blocks) | slope
    others = {name: None for name, value in extra.items() if value and name not in (*fixed, *PASSED)}  # nonlin_first …
    _check_fixed(fixed | others, {**extra, **slope, **network.nonlin_kwargs}, where)
    return dict(entry) | dict(network)


def _check_fixed(expected: Mapping[str, Any], found: Mapping[str, Any], where: str) -> None:
    """Refuse what octkit has in one way only."""
    for name, value in expected.items():
        if (stated := found.get(name, "not stated")) != value:
            raise OctkitError(f"{where}: {name} is {str(stated)[:100]}, expected {value}: octkit has no other")


def _configuration_to(plan: Plan, config: str) -> dict[str, Any]:
    """The reverse of `_configuration`."""
    ours = plan.configurations[config]
    names = {scheme: name for name, scheme in SCHEMES.items()} | dict.fromkeys(ZSCORE.values(), "ZScoreNormalization")
    entry = {
        "data_identifier": f"nnUNetPlans_{config}", **PREPARED,
        "batch_size": ours.batch_size, "patch_size": list(ours.patch_size), "spacing": list(ours.spacing),
        "median_image_size_in_voxels": list(ours.median_shape), "batch_dice": ours.batch_dice,
        "normalization_schemes": [names[scheme] for scheme in plan.schemes],
        "use_mask_for_norm": [scheme == ZSCORE[True] for scheme in plan.schemes],
        "architecture": {
            "network_class_name": UNETS["ResidualEncoderUNet" if ours.blocks else "PlainConvUNet"],
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
            "arch_kwargs": {
                **_fixed_arguments(len(ours.patch_size), len(ours.features), ours.blocks),
                **({"n_blocks_per_stage": list(ours.blocks)} if ours.blocks else {}),
                "n_stages": len(ours.features), "features_per_stage": list(ours.features),
                "kernel_sizes": [list(kernel) for kernel in ours.kernels],
                "strides": [list(stride) for stride in ours.strides],
                "dropout_op_kwargs": None, "nonlin_kwargs": {"inplace": True},
            },
        },
    }
    return entry | ({"previous_stage": ours.previous_stage} if ours.previous_stage else {})
