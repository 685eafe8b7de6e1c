"""nnU-Net's plans.json and dataset.json <-> a Plan: what its numbers are called, and which networks are ours.

nnU-Net v2 describes a network by the arguments of a class; a Plan by its sizes, for the one U-Net of the recipe. So
anything but two convolutions a stage, instance norm and leaky ReLU has no counterpart here and is refused.
Source: nnU-Net v2.8.1, the files that its planner writes.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from octkit.common.errors import OctkitError
from octkit.data.labels import LAYERS
from octkit.planning.plan import MAX_STAGES, Plan, plan_of

UNET = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
RESAMPLING = "resample_data_or_seg_to_shape"
# The schemes without a question of masks; z-score has one.
SCHEMES = {"CTNormalization": "ct", "NoNormalization": "none", "RescaleTo01Normalization": "rescale_0_1",
           "RGBTo01Normalization": "rgb_0_1"}
ZSCORE = {False: "zscore", True: "zscore_in_mask"}
# How files are read: PNGs know no mm. A reader that turns volumes round would hand the network other axes than ours.
READERS = {"NaturalImage2DIO": "px", "SimpleITKIO": "mm", "NibabelIO": "mm"}


def plan_from(plans: Mapping, dataset: Mapping, config: str, where: Path) -> Plan:
    """The Plan of one configuration and of the stage before it, from the contents of plans.json and dataset.json.

    Raises OctkitError that names what has no counterpart here.
    """
    try:
        names = [config]
        while previous := _resolved(plans, names[0], where).get("previous_stage"):
            if previous in names:
                raise OctkitError(f"{where}: the stages {', '.join(names)} refine each other in a circle")
            names.insert(0, previous)
        entries = {name: _resolved(plans, name, where) for name in names}
        channels = [dataset["channel_names"][str(i)] for i in range(len(dataset["channel_names"]))]
        axis_order, units = _grid(plans, where)
        content = {
            "configurations": {name: _configuration(entry, f"{where}, {name}") for name, entry in entries.items()},
            "channels": channels, "classes": labels_from(dataset, where), "units": units, "axis_order": axis_order,
            "intensity": [dict(plans["foreground_intensity_properties_per_channel"][str(i)])
                          for i in range(len(channels))],
            "normalisation": _normalisation(entries[config], where),
            "reasons": {name: {"patch_size": "as nnU-Net planned it"} for name in names},
        }
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
        raise OctkitError(f"{where}: is no plans.json of nnU-Net v2.4 or later with its dataset.json "
                          f"({type(error).__name__}: {error})") from None
    return plan_of(content, where)


def labels_from(dataset: Mapping, where: Path) -> tuple[str, ...]:
    """The foreground's names, label 1 first; our own names where they are the three layers in our order.

    A label to ignore is nothing that a network predicts. Raises OctkitError for regions and for gaps.
    """
    labels = {name: value for name, value in dataset["labels"].items() if name not in ("background", "ignore")}
    if regions := [name for name, value in labels.items() if not isinstance(value, int)]:
        raise OctkitError(f"{where}: the label {regions[0]!r} is a region of several values, expected one value a "
                          "label; region-based training has no counterpart here")
    names = tuple(sorted(labels, key=labels.get))
    if dataset["labels"].get("background") != 0 or [labels[name] for name in names] != list(range(1, len(names) + 1)):
        raise OctkitError(f"{where}: found the labels {dict(dataset['labels'])}, expected background 0 and then "
                          "1, 2, … without a gap")
    lowered = tuple(name.lower() for name in names)
    return LAYERS if lowered == LAYERS else names


def plans_to(plan: Plan, name: str) -> dict:
    """The content of plans.json for a Plan; `name` is the data set's."""
    whole = max(plan.configurations.values(), key=lambda configuration: len(configuration.patch_size))
    spacing, shape = list(whole.spacing), [round(n) for n in whole.median_shape]
    if len(shape) == 2:  # a 2-D scan is one slice to nnU-Net, 999 thick; of volumes planned in 2-D we know no depth
        depth = (None, None) if plan.axis_order else (999.0, 1)
        spacing, shape = [depth[0], *spacing], [depth[1], *shape]
    order = list(plan.axis_order or (0, 1, 2))
    return {
        "dataset_name": name, "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": spacing, "original_median_shape_after_transp": shape,
        "image_reader_writer": "NaturalImage2DIO" if _is_natural(plan) else "SimpleITKIO",
        "transpose_forward": order, "transpose_backward": [order.index(axis) for axis in range(3)],
        "configurations": {config: _configuration_to(plan, config) for config in plan.configurations},
        "experiment_planner_used": "octkit", "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(i): dict(record)
                                                        for i, record in enumerate(plan.intensity)},
    }


def dataset_to(plan: Plan) -> dict:
    """The content of a model folder's dataset.json for a Plan."""
    return {
        "channel_names": {str(i): channel for i, channel in enumerate(plan.channels)},
        "labels": {"background": 0, **{label: i for i, label in enumerate(plan.classes, start=1)}},
        "file_ending": ".png" if _is_natural(plan) else ".nii.gz",
    }


def _is_natural(plan: Plan) -> bool:
    return not plan.axis_order and plan.units == "px"


def _resolved(plans: Mapping, config: str, where: Path, seen: tuple[str, ...] = ()) -> dict:
    """A configuration's entry with all that it inherits."""
    if config not in plans["configurations"]:
        raise OctkitError(f"{where}: has no configuration {config!r}, expected one of "
                          f"{', '.join(plans['configurations'])}")
    entry = dict(plans["configurations"][config])
    parent = entry.pop("inherits_from", None)
    if parent in (*seen, config):
        raise OctkitError(f"{where}: configuration {config!r} inherits from itself")
    return entry if parent is None else _resolved(plans, parent, where, (*seen, config)) | entry


def _grid(plans: Mapping, where: Path) -> tuple[tuple[int, ...], str]:
    """The plan's order of axes, () for 2-D scans, and its units."""
    reader = plans["image_reader_writer"]
    if reader not in READERS:
        raise OctkitError(f"{where}: was trained on files read by {reader}, expected one of {', '.join(READERS)}")
    flat = READERS[reader] == "px" or plans["original_median_shape_after_transp"][0] == 1
    order = tuple(plans["transpose_forward"])
    if flat and order != (0, 1, 2):
        raise OctkitError(f"{where}: puts the axes of 2-D scans into the order {order}, expected (0, 1, 2)")
    return () if flat else order, READERS[reader]


def _configuration(entry: Mapping, where: str) -> dict:
    """What a Configuration holds, from an nnU-Net configuration whose network is our U-Net."""
    architecture = entry["architecture"]
    network, arguments = architecture["network_class_name"], architecture["arch_kwargs"]
    if network != UNET:
        raise OctkitError(f"{where}: the network is a {network.rpartition('.')[2]}, expected a PlainConvUNet; residual "
                          "encoders and others have no counterpart here")
    axes, stages = len(entry["patch_size"]), arguments["n_stages"]
    if type(stages) is not int or not 2 <= stages <= MAX_STAGES:
        raise OctkitError(f"{where}: the network has {str(stages)[:60]} stages, expected 2 to {MAX_STAGES}")
    expected = {
        "conv_op": f"torch.nn.modules.conv.Conv{axes}d", "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True}, "dropout_op": None, "nonlin": "torch.nn.LeakyReLU",
        "n_conv_per_stage": [2] * stages, "n_conv_per_stage_decoder": [2] * (stages - 1),
    }
    for name, value in expected.items():
        if arguments[name] != value:
            raise OctkitError(f"{where}: the network's {name} is {arguments[name]}, expected {value} as in our U-Net")
    if arguments["nonlin_kwargs"].get("negative_slope", 0.01) != 0.01:
        raise OctkitError(f"{where}: the leaky ReLU's slope is {arguments['nonlin_kwargs']['negative_slope']}, "
                          "expected 0.01")
    for kind in ("data", "seg", "probabilities"):
        if entry[f"resampling_fn_{kind}"] != RESAMPLING:
            raise OctkitError(f"{where}: resamples with {entry[f'resampling_fn_{kind}']}, expected {RESAMPLING}")
    return {
        "patch_size": entry["patch_size"], "batch_size": entry["batch_size"], "spacing": entry["spacing"],
        "median_shape": entry["median_image_size_in_voxels"], "features": arguments["features_per_stage"],
        "strides": arguments["strides"], "kernels": arguments["kernel_sizes"], "batch_dice": entry["batch_dice"],
        "previous_stage": entry.get("previous_stage"),
    }


def _configuration_to(plan: Plan, config: str) -> dict:
    """The reverse of `_configuration`."""
    configuration = plan.configurations[config]
    axes, stages = len(configuration.patch_size), len(configuration.features)
    schemes = plan.normalisation or ("ct",) * len(plan.channels)
    theirs = {ours: name for name, ours in SCHEMES.items()} | dict.fromkeys(ZSCORE.values(), "ZScoreNormalization")
    orders = {"data": {"is_seg": False, "order": 3}, "seg": {"is_seg": True, "order": 1},
              "probabilities": {"is_seg": False, "order": 1}}
    sizes = {name: [list(value) if isinstance(value, tuple) else value for value in values]
             for name, values in asdict(configuration).items() if isinstance(values, tuple)}
    entry = {
        "data_identifier": f"nnUNetPlans_{config}", "preprocessor_name": "DefaultPreprocessor",
        "batch_size": configuration.batch_size, "patch_size": sizes["patch_size"], "spacing": sizes["spacing"],
        "median_image_size_in_voxels": sizes["median_shape"], "batch_dice": configuration.batch_dice,
        "normalization_schemes": [theirs[scheme] for scheme in schemes],
        "use_mask_for_norm": [scheme == ZSCORE[True] for scheme in schemes],
        **{f"resampling_fn_{kind}": RESAMPLING for kind in orders},
        **{f"resampling_fn_{kind}_kwargs": {**order, "order_z": 0, "force_separate_z": None}
           for kind, order in orders.items()},
        "architecture": {
            "network_class_name": UNET, "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
            "arch_kwargs": {
                "n_stages": stages, "features_per_stage": sizes["features"],
                "conv_op": f"torch.nn.modules.conv.Conv{axes}d", "kernel_sizes": sizes["kernels"],
                "strides": sizes["strides"], "n_conv_per_stage": [2] * stages,
                "n_conv_per_stage_decoder": [2] * (stages - 1), "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True}, "dropout_op": None, "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
            },
        },
    }
    return entry | ({"previous_stage": configuration.previous_stage} if configuration.previous_stage else {})


def _normalisation(entry: Mapping, where: Path) -> tuple[str, ...]:
    found = []
    for scheme, in_mask in zip(entry["normalization_schemes"], entry["use_mask_for_norm"], strict=True):
        if scheme == "ZScoreNormalization":
            found.append(ZSCORE[bool(in_mask)])
        elif scheme in SCHEMES:
            found.append(SCHEMES[scheme])
        else:
            raise OctkitError(f"{where}: normalises with {scheme}, expected one of ZScoreNormalization, "
                              f"{', '.join(SCHEMES)}")
    return tuple(found)
