"""From fingerprint to plan: which networks a data set gets, by nnU-Net v2's rules, each a small function.

Three kinds of parameters (Isensee et al., Nat. Methods 18:203, 2021; report, section on the pipeline
fingerprint): *blueprint* ones are fixed for every data set, *inferred* ones follow from the fingerprint and the
memory by the rules here and in `rules`, *empirical* ones are found by cross-validation and stand in
selection.json. plan.json says of each parameter which kind it is and why it has its value.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import prod

import numpy as np

from octkit.common import settings
from octkit.common.errors import OctkitError, by
from octkit.planning import rules
from octkit.planning.fingerprint import Fingerprint
from octkit.planning.plan import Configuration, Plan

MOST_3D_FEATURES = 320  # the recipe's; 2-D networks have up to 512 maps
ENOUGH_CONTEXT = 0.25  # of the median volume: a patch that covers less needs a first look at low resolution
WORTHWHILE = 2  # times fewer voxels, or there is no cascade

Planned = tuple[Configuration, dict[str, str]]  # with the reason for each of its parameters


def plan_experiment(fingerprint: Fingerprint, memory_gb: float = rules.YARDSTICK_GB, base_features: int = 32,
                    max_features: int = 512, architecture: str = "plain") -> Plan:
    """Plan the configurations of a data set, simpler ones first and each after the one that it needs.

    2-D scans get "2d" alone. Volumes also get "3d_fullres", and where its patch sees too little of them "3d_lowres"
    and "3d_cascade_fullres", which refines the former's result at full resolution. Their "2d" sees slices across
    the coarsest axis. `architecture` is that of `PlanSettings`.
    Raises OctkitError for a memory that is not above 0, or too small for any patch.
    """
    if not (np.isfinite(memory_gb) and memory_gb > 0):
        raise OctkitError(f"memory_gb: found {memory_gb}, expected a number above 0")
    target = rules.target_spacing(fingerprint.spacings, fingerprint.shapes)
    order = rules.axis_order(target)
    shape = rules.median_shape(fingerprint.shapes, fingerprint.spacings, target)
    spacing, shape = (tuple(values[a] for a in order or (0, 1)) for values in (target, shape))
    cases = len(fingerprint.shapes)
    # nnU-Net counts "ignore" among the outputs, though networks have none for it: batches are to be as large as its.
    plan_one = partial(plan_network, classes=len(fingerprint.classes) + fingerprint.ignore, memory_gb=memory_gb,
                       base_features=base_features, max_features=max_features, architecture=architecture)
    in_3d: dict[str, Planned] = {}
    if not order or shape[0] == 1:
        why = f"{'volumes of one slice' if order else '2-D scans'}: there is no depth for a 3-D network"
    else:
        in_3d, why = plan_volumes(plan_one, spacing, shape, cases)
    planned = {"2d": plan_one(spacing[-2:], shape[-2:], prod(shape) * cases), **in_3d}
    across = f"axis {order[0]} is the coarsest (the first, on a tie): slices lie across it" if order else ""
    reasons = {"planned": why, "axis_order": across or "2-D scans keep theirs",
               "normalisation": "grey values mean the same in every scan: clip to the 0.5 and 99.5 percentiles, "
                                "z-score with mean and deviation"}
    return Plan({name: configuration for name, (configuration, _) in planned.items()}, fingerprint.channels,
                fingerprint.classes, fingerprint.intensity, fingerprint.units, order,
                ("ct",) * len(fingerprint.channels),
                {"plan": reasons} | {name: words for name, (_, words) in planned.items()})


def plan_network(spacing: Sequence[float], shape: Sequence[float], dataset_pixels: float, classes: int,
                 memory_gb: float, base_features: int, max_features: int, architecture: str) -> Planned:
    """The configuration for slices or volumes of median `shape`, and the reason for each of its parameters.

    The patch starts as large as it may and shrinks until a batch of two fits into the memory; then the batch
    grows as far as it may.
    """
    axes = len(spacing)
    most = max_features if axes == 2 else min(max_features, MOST_3D_FEATURES)
    first = rules.start_patch(spacing, shape)
    patch, strides, kernels = rules.topology(spacing, first)
    whole = patch
    while True:
        features = rules.feature_maps(len(strides), base_features, most)
        blocks = rules.residual_blocks(len(strides)) if architecture == "residual" else ()
        values = rules.feature_map_values(patch, features, strides, classes, blocks)
        if rules.fits(values, memory_gb, axes, architecture):
            break
        smaller = rules.shrunk(patch, strides, shape, spacing)
        if min(smaller) < 1:
            raise OctkitError(f"memory_gb: found {memory_gb:g}, expected enough for two of the smallest patch")
        patch, strides, kernels = rules.topology(spacing, smaller)
    batch = rules.batch_size(values, memory_gb, dataset_pixels, patch, architecture)
    configuration = Configuration(patch, batch, tuple(spacing), tuple(shape), features, strides, kernels, True,
                                  blocks=blocks)
    start = "the median scan" if tuple(first) == tuple(shape) else "the first patch tried"
    return configuration, {
        "patch_size": f"{start}, {by(first)}, rounded up to multiples that can be halved"
                      + (f", then shrunk from {by(whole)} to fit {memory_gb:g} GB" if patch != whole else ""),
        "batch_size": f"{values / 1e6:.0f} million feature map values a patch in {memory_gb:g} GB; at most "
                      f"{rules.BATCH_SHARE[architecture]:.0%} of all pixels, at least {rules.SMALLEST_BATCH}",
        "spacing": "median over the cases" + "; 10th percentile across slices far coarser and fewer" * (axes == 3),
        "median_shape": "median over the cases at this spacing",
        "features": f"{base_features}, doubled at each stage, at most {most}",
        "strides": f"an axis is halved while it keeps {rules.SMALLEST_MAP} px and is not coarser than the others",
        "kernels": "3 along each axis, but 1 along one that is still at least twice as coarse",
        "batch_dice": "a 2-D patch may lack a layer: Dice over the whole batch",
        "previous_stage": "needs no step before it",
        "blocks": "nnU-Net's: 1, 3, 4, then 6 a stage" if blocks else "a plain network has no residual blocks",
    }


def plan_volumes(plan_one: Callable[..., Planned], spacing: Sequence[float], shape: Sequence[float],
                 cases: int) -> tuple[dict[str, Planned], str]:
    """The 3-D configurations of volumes, and one sentence on why these: name -> (configuration, reasons).

    Where a patch at full resolution covers less than 25 % of the median volume, the spacing is made coarser step by
    step until a patch covers that much: "3d_lowres". It is dropped again where it has not even half the voxels.
    """
    full, words = plan_one(spacing, shape, prod(shape) * cases)
    planned: Planned | None = None
    voxels = prod(shape)
    covered = share = prod(full.patch_size) / voxels
    while share < ENOUGH_CONTEXT:
        spacing = rules.coarser(spacing)
        low_shape = [old / new * n for old, new, n in zip(full.spacing, spacing, shape, strict=True)]
        voxels = prod(low_shape)
        # At least one: few slices may be left with none by rounding (nnU-Net's planner stops there with an error).
        planned = plan_one(spacing, [max(1, round(n)) for n in low_shape], voxels * cases)
        share = prod(planned[0].patch_size) / voxels
    why = f"a patch of 3d_fullres covers {_percent(covered)} of the median volume"
    fewer = prod(shape) / voxels
    if planned is None or fewer < WORTHWHILE:
        why += (f", at least {ENOUGH_CONTEXT:.0%}: it sees enough" if planned is None else
                f", less than {ENOUGH_CONTEXT:.0%}, but 3d_lowres would have only {fewer:.2g} times fewer voxels")
        enough = "a patch covers much of a volume: Dice patch by patch"
        return {"3d_fullres": (replace(full, batch_dice=False), words | {"batch_dice": enough})}, why
    low, low_words = planned
    why += f", less than {ENOUGH_CONTEXT:.0%}: 3d_lowres sees more at once, the cascade refines what it finds"
    words |= {"batch_dice": "a patch covers little of a volume and may lack a layer: Dice over the whole batch"}
    return {
        "3d_lowres": (replace(low, batch_dice=False), low_words | {
            "spacing": f"made coarser by {rules.COARSER - 1:.0%} a step, fine axes first, until a patch covers "
                       f"{ENOUGH_CONTEXT:.0%} of a volume",
            "median_shape": f"that of 3d_fullres at this spacing, {fewer:.2g} times fewer voxels",
            "batch_dice": f"a patch covers {_percent(share)} of a volume: Dice patch by patch"}),
        "3d_fullres": (full, words),
        "3d_cascade_fullres": (replace(full, previous_stage="3d_lowres"),
                               words | {"previous_stage": "its result is given along, one channel a class"}),
    }, why


def with_batch_size(plan: Plan, size: int) -> Plan:
    """The plan with one batch size for all configurations; the reasons keep what the rule gives."""
    reasons = {name: plan.reasons[name] | {"batch_size": f"set by plan.batch_size; the rule gives {rule.batch_size}"}
               for name, rule in plan.configurations.items()}
    return replace(plan, reasons=plan.reasons | reasons, configurations={
        name: replace(rule, batch_size=size) for name, rule in plan.configurations.items()})


def blueprint(chosen: settings.Settings) -> dict[str, tuple[object, str]]:
    """The parameters that are the same for every data set, as this run's settings have them: (value, reason)."""
    train = chosen.train
    schedule = "rate x (1 - epoch / epochs)^0.9" if train.optimiser == "sgd" else "rate / 5 when the loss stands still"
    return {
        "architecture": (chosen.plan.architecture, "U-Net, two conv - instance norm - leaky ReLU a stage; or residual "
                         "blocks on the way down and one conv a stage on the way up"),
        "loss": ("Dice + cross-entropy", "overlap for thin layers, pixels for steady gradients"),
        "deep_supervision": (train.deep_supervision, "gradients reach the deep stages from the first step"),
        "dropped_outputs": (train.dropped_outputs, "lowest outputs without a loss: the report 2, nnU-Net 1"),
        "optimiser": (train.optimiser, "Nesterov momentum, or Adam as in the report"),
        "initial_rate": (train.initial_rate, schedule),
        "weight_decay": (train.weight_decay, "the recipe's"),
        "epochs": (train.epochs, f"of {train.iterations_per_epoch} batches each"),
        "oversample": (round(train.oversample, 3), "share of patches centred on a layer, at least one a batch"),
        "augmentation": ("eight transforms and mirroring", "a scan may change in any way that keeps its truth"),
        "mirror_axes": (chosen.augment.mirror_axes, "-1 A-scans, -2 rows, -3 B-scans; a 2-D patch has no -3"),
        "folds": (chosen.splits.folds, "each case is held out once"),
        "window_step": (chosen.infer.step, "of the patch: each pixel is seen near a window's centre"),
    }


def _percent(share: float) -> str:
    return f"{share:.1%}" if share < 1 else "all"
