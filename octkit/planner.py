"""From fingerprint to plan: nnU-Net v2's rules for the 2-D configuration, each a small function.

Three kinds of parameters (Isensee et al., Nat. Methods 18:203, 2021; report, section on the pipeline
fingerprint): *blueprint* ones are fixed for every data set, *inferred* ones follow from the fingerprint and the
memory by the rules below, *empirical* ones are found by cross-validation and stand in selection.json.
plan.json says of each parameter which kind it is and why it has its value.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import ceil, prod
from pathlib import Path

import numpy as np

from octkit import settings
from octkit.files import OctkitError, read_json, write_json
from octkit.fingerprint import Fingerprint

START_AREA = 2048**2  # px of the first patch that is tried, before it is cut to the scans' size
SMALLEST_MAP = 4  # px: no axis is halved below this
COMPARABLE = 2  # spacings within this factor count as equally fine
BLOCK_CONVOLUTIONS = 2  # in each stage, on the way down and on the way up
# The yardstick: with a batch of 12, a 2-D network of 85 million feature map values needs 8 GB.
YARDSTICK_VALUES, YARDSTICK_BATCH, YARDSTICK_GB = 85_000_000, 12, 8
SMALLEST_BATCH = 2
BATCH_SHARE = 0.05  # of all pixels of the data set: a larger batch would see the same scans over and over

Ints = tuple[int, ...]


@dataclass(frozen=True)
class Configuration:
    """One network and what it is fed: sizes in px, spacing in the plan's units, one number an axis.

    `features` counts the maps of each stage, `strides` and `kernels` are those of its convolutions (full
    resolution first). `previous_stage` names the configuration that a cascade refines.
    """

    patch_size: Ints
    batch_size: int
    spacing: tuple[float, ...]
    median_shape: tuple[float, ...]
    features: Ints
    strides: tuple[Ints, ...]
    kernels: tuple[Ints, ...]
    batch_dice: bool
    previous_stage: str | None = None


@dataclass(frozen=True)
class Plan:
    """The configurations of a data set with what preprocessing needs; `reasons` says why: config -> name -> words.

    `axis_order` are the file's axes in the order in which a volume is planned and preprocessed: the coarsest first,
    so that the 2-D configuration sees slices across it; () for 2-D scans. `normalisation` is one scheme a channel
    (`preprocess.NORMALISATIONS`): "ct" in our own plans, others in plans that come from elsewhere.
    """

    configurations: dict[str, Configuration]
    channels: tuple[str, ...]
    classes: tuple[str, ...]
    intensity: tuple[dict[str, float], ...]
    units: str
    axis_order: Ints = ()
    normalisation: tuple[str, ...] = ()
    reasons: dict[str, dict[str, str]] = field(default_factory=dict)

    def save(self, path: Path, blueprint: Mapping[str, tuple[object, str]] | None = None) -> None:
        """Write plan.json: every parameter as {"value", "kind", "reason"}; `blueprint` is name -> (value, reason)."""
        write_json(path, {
            "channels": self.channels, "classes": self.classes, "units": self.units,
            "configurations": {name: {key: _parameter(value, "inferred", self.reasons.get(name, {}).get(key, ""))
                                      for key, value in asdict(configuration).items()}
                               for name, configuration in self.configurations.items()},
            "intensity": _parameter(self.intensity, "inferred", "clip to the 0.5 and 99.5 percentiles of labelled "
                                                                "pixels, z-score with their mean and deviation"),
            "blueprint": {name: _parameter(value, "blueprint", reason)
                          for name, (value, reason) in (blueprint or {}).items()},
            "empirical": {name: _parameter(None, "empirical", "decided by cross-validation, see selection.json")
                          for name in ("configuration", "postprocessing")},
        })

    @classmethod
    def load(cls, path: Path) -> "Plan":
        """Read plan.json. Raises OctkitError where it is missing or no plan."""
        content = read_json(path)
        try:
            found = content["configurations"]
            configurations = {
                name: Configuration(**{key: _frozen(entry["value"]) for key, entry in parameters.items()})
                for name, parameters in found.items()}
            reasons = {name: {key: entry["reason"] for key, entry in parameters.items() if entry["reason"]}
                       for name, parameters in found.items()}
            return cls(configurations, tuple(content["channels"]), tuple(content["classes"]),
                       tuple(content["intensity"]["value"]), content["units"], reasons)
        except (KeyError, TypeError, AttributeError) as error:
            raise OctkitError(f"{path}: is no plan ({type(error).__name__}: {error}); make it again") from None


def plan_experiment(fingerprint: Fingerprint, memory_gb: float = YARDSTICK_GB, base_features: int = 32,
                    max_features: int = 512) -> Plan:
    """Plan the 2-D configuration for a data set.

    Volumes are planned slice by slice: slices lie across the axis of the coarsest spacing. The defaults are the
    blueprint's; fewer features make a smaller network (and so a larger batch in the same memory).
    Raises OctkitError for a memory that is not above 0.
    """
    if not (np.isfinite(memory_gb) and memory_gb > 0):
        raise OctkitError(f"memory_gb: found {memory_gb}, expected a number above 0")
    target = target_spacing(fingerprint.spacings, fingerprint.shapes)
    shape = median_shape(fingerprint.shapes, fingerprint.spacings, target)
    plane = plane_axes(target)
    spacing, plane_shape = tuple(target[a] for a in plane), tuple(shape[a] for a in plane)
    values = prod(shape) * len(fingerprint.shapes)
    configuration, reasons = plan_2d(spacing, plane_shape, values, len(fingerprint.classes), memory_gb,
                                     base_features, max_features)
    return Plan({"2d": configuration}, fingerprint.channels, fingerprint.classes, fingerprint.intensity,
                fingerprint.units, {"2d": reasons})


def plan_2d(spacing: Sequence[float], shape: Sequence[float], dataset_pixels: float, classes: int, memory_gb: float,
            base_features: int, max_features: int) -> tuple[Configuration, dict[str, str]]:
    """The 2-D configuration for slices of median `shape`, and the reason for each of its parameters."""
    budget = YARDSTICK_VALUES * memory_gb / YARDSTICK_GB
    first = start_patch(spacing, shape)
    patch, strides, kernels = topology(spacing, first)
    whole = patch
    features = feature_maps(len(strides), base_features, max_features)
    while not fits(values := feature_map_values(patch, features, strides, classes), budget):
        smaller = shrunk(patch, shape, spacing)
        if min(smaller) < 1:
            raise OctkitError(f"memory_gb: found {memory_gb:g}, expected enough for a batch of {SMALLEST_BATCH} of "
                              "the smallest patch")
        patch, strides, kernels = topology(spacing, smaller)
        features = feature_maps(len(strides), base_features, max_features)
    batch = batch_size(values, budget, dataset_pixels, patch)
    configuration = Configuration(patch, batch, tuple(spacing), tuple(shape), features, strides, kernels, True)
    halved = tuple(prod(stride[axis] for stride in strides) for axis in range(len(patch)))
    return configuration, {
        "patch_size": f"median scan {_by(shape)}, rounded up to multiples of {_by(halved)}"
                      + (f", then shrunk from {_by(whole)} to fit {memory_gb:g} GB" if patch != whole else ""),
        "batch_size": f"{values / 1e6:.0f} million feature map values a scan in {memory_gb:g} GB; at most "
                      f"{BATCH_SHARE:.0%} of all pixels, at least {SMALLEST_BATCH}",
        "spacing": "median over the cases", "median_shape": "median over the cases at this spacing",
        "features": f"{base_features}, doubled at each stage, at most {max_features}",
        "strides": f"an axis is halved while it keeps {SMALLEST_MAP} px and is not coarser than the other",
        "kernels": "3 along each axis, but 1 along one that is still more than twice as coarse",
        "batch_dice": "a 2-D patch may lack a layer: Dice over the whole batch", "previous_stage": "no cascade",
    }


def target_spacing(spacings: Sequence[Sequence[float]], shapes: Sequence[Sequence[int]]) -> tuple[float, ...]:
    """The spacing to resample to: the median of each axis, so that half of the cases lose no detail.

    Where one axis of a volume is far coarser (over 3 times) and has far fewer pixels (under a third) than the
    others, its 10th percentile is taken, so that scans with fine slices are not thrown away; but it never becomes
    finer than the other axes. 25 B-scans 0.24 mm apart, 496 x 512 px of 4 x 12 µm: such an axis.
    """
    spacings, shapes = np.array(spacings, float), np.array(shapes, float)
    target, size = np.median(spacings, axis=0), np.median(shapes, axis=0)
    if len(target) == 2:  # no slices: A-scans of 4 x 20 µm px are no stack
        return tuple(target.tolist())
    coarsest = int(target.argmax())
    others = np.delete(target, coarsest)
    if target[coarsest] > 3 * others.max() and size[coarsest] * 3 < np.delete(size, coarsest).min():
        fine = np.percentile(spacings[:, coarsest], 10)
        if fine < others.max():
            fine = max(others.max(), fine) + 1e-5
        target[coarsest] = fine
    return tuple(target.tolist())


def median_shape(shapes: Sequence[Sequence[int]], spacings: Sequence[Sequence[float]],
                 target: Sequence[float]) -> tuple[float, ...]:
    """Median size in px after resampling: 100 px of 2 mm are 200 px at a target of 1 mm."""
    resampled = np.round(np.array(spacings, float) / np.array(target) * np.array(shapes))
    return tuple(np.median(resampled, axis=0).tolist())


def plane_axes(spacing: Sequence[float]) -> Ints:
    """The two axes of a slice: all of a 2-D scan, of a volume all but the coarsest one (the first, on a tie)."""
    slices = int(np.argmax(spacing)) if len(spacing) == 3 else None
    return tuple(axis for axis in range(len(spacing)) if axis != slices)


def start_patch(spacing: Sequence[float], shape: Sequence[float]) -> tuple[float, ...]:
    """The first patch to try: 2048 x 2048 px, stretched to a square in mm, cut to the median scan.

    A large patch shows the network the most context. 1100 x 800 px fit inside: the patch is the whole scan. With
    pixels of 4 x 16 µm the square is 4096 x 1024 px. Half a pixel stays (the median of 128 and 129 px is 128.5):
    the patch must cover it.
    """
    finest = START_AREA ** (1 / len(spacing)) * prod(spacing) ** (1 / len(spacing))
    return tuple(min(round(finest / s), n) for s, n in zip(spacing, shape, strict=True))


def topology(spacing: Sequence[float], patch: Sequence[float]) -> tuple[Ints, tuple[Ints, ...], tuple[Ints, ...]]:
    """How deep the network is: (patch rounded up to what it can halve, strides, kernels), one entry a stage.

    At each stage those axes are halved that are long enough and, among these, less than twice as coarse as the
    finest: a fine axis catches up first, so that deep maps see the same distance in mm along both. One axis alone
    is halved only while it has 12 px or more. The kernel is 1 along an axis until its spacing is comparable.
    800 x 1100 px: seven halvings, patch 896 x 1152, maps of 7 x 9 px at the bottom.
    """
    size, resolution = [float(n) for n in patch], [float(s) for s in spacing]
    axes = range(len(size))
    strides, kernels, kernel = [(1,) * len(size)], [], [1] * len(size)
    while True:
        long_enough = [a for a in axes if size[a] >= 2 * SMALLEST_MAP]
        finest = min((resolution[a] for a in long_enough), default=0)
        halved = [a for a in long_enough if resolution[a] / finest < COMPARABLE]
        if not halved or (len(halved) == 1 and size[halved[0]] < 3 * SMALLEST_MAP):
            break
        kernel = [3 if k == 3 or resolution[a] / min(resolution) < COMPARABLE else 1
                  for a, k in zip(axes, kernel, strict=True)]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if a in halved else 1 for a in axes))
        for a in halved:
            size[a], resolution[a] = ceil(size[a] / 2), resolution[a] * 2
    kernels.append((3,) * len(size))
    divisor = [prod(stride[a] for stride in strides) for a in axes]
    rounded = tuple(ceil(n / d) * d for n, d in zip(patch, divisor, strict=True))
    return rounded, tuple(strides), tuple(kernels)


def feature_maps(stages: int, base: int, most: int) -> Ints:
    """Maps of each stage: 32, 64, 128, … up to the cap, which keeps deep stages from taking all the memory."""
    return tuple(min(base * 2**stage, most) for stage in range(stages))


def feature_map_values(patch: Sequence[int], features: Sequence[int], strides: Sequence[Sequence[int]],
                       classes: int) -> int:
    """What a network keeps in memory for one scan: the values of all its feature maps.

    Each stage has two convolutions on the way down; each but the last also an upsampled map and two convolutions
    on the way up; the scores of all classes and the background come last. GOALS: 327 million, mostly at full size.
    """
    pixels, total = prod(patch), prod(patch) * (classes + 1)
    for stage, (maps, stride) in enumerate(zip(features, strides, strict=True)):
        pixels //= prod(stride)
        upwards = 1 + BLOCK_CONVOLUTIONS if stage < len(features) - 1 else 0
        total += pixels * maps * (BLOCK_CONVOLUTIONS + upwards)
    return total


def fits(values: int, budget: float) -> bool:
    """Whether a batch of two fits: the budget is for a batch of 12 on the yardstick network."""
    return values * SMALLEST_BATCH <= budget * YARDSTICK_BATCH


def shrunk(patch: Sequence[int], shape: Sequence[float], spacing: Sequence[float]) -> Ints:
    """A patch one step smaller, along the axis that covers most of its scan.

    The step is one that the smaller patch can be halved by: it may be halved less often than the larger one.
    """
    shares = [p / n for p, n in zip(patch, shape, strict=True)]
    axis = max(range(len(patch)), key=lambda a: (shares[a], a))
    trial = list(patch)
    trial[axis] -= _divisor(topology(spacing, patch)[1], axis)
    smaller = list(patch)
    smaller[axis] -= _divisor(topology(spacing, trial)[1], axis)
    return tuple(smaller)


def batch_size(values: int, budget: float, dataset_pixels: float, patch: Sequence[int]) -> int:
    """As many patches as the memory holds, but no more than 5 % of the data set's pixels, and at least 2.

    GOALS in 8 GB: 85 / 327 x 12 = 3; in 24 GB memory would hold 9, but 5 % of 100 scans are 4 patches.
    """
    by_memory = round(budget / values * YARDSTICK_BATCH)
    by_data = round(dataset_pixels * BATCH_SHARE / prod(patch))
    return max(min(by_memory, by_data), SMALLEST_BATCH)


def plan_run(run_dir: str | Path) -> Plan:
    """Plan a run from its fingerprint.json and settings.json; leaves plan.json."""
    run_dir = Path(run_dir)
    chosen = settings.load(run_dir / "settings.json")
    wanted = chosen.plan
    plan = plan_experiment(Fingerprint.load(run_dir / "fingerprint.json"), wanted.memory_gb, wanted.base_features,
                           wanted.max_features)
    if wanted.batch_size is not None:
        planned = plan.configurations["2d"]
        reason = f"set by plan.batch_size; the rule gives {planned.batch_size}"
        plan = replace(plan, configurations={"2d": replace(planned, batch_size=wanted.batch_size)},
                       reasons={"2d": plan.reasons["2d"] | {"batch_size": reason}})
    plan.save(run_dir / "plan.json", blueprint(chosen))
    return plan


def blueprint(chosen: settings.Settings) -> dict[str, tuple[object, str]]:
    """The parameters that are the same for every data set, as this run's settings have them: (value, reason)."""
    train = chosen.train
    schedule = ("rate x (1 - epoch / epochs)^0.9" if train.optimiser == "sgd"
                else "rate / 5 when the loss stands still")
    return {
        "architecture": ("U-Net, two conv - instance norm - leaky ReLU a stage", "one template serves all data sets"),
        "loss": ("Dice + cross-entropy", "overlap for thin layers, pixels for steady gradients"),
        "deep_supervision": (train.deep_supervision, "gradients reach the deep stages from the first step"),
        "optimiser": (train.optimiser, "Nesterov momentum, or Adam as in the report"),
        "initial_rate": (train.initial_rate, schedule),
        "weight_decay": (train.weight_decay, "the recipe's"),
        "epochs": (train.epochs, f"of {train.iterations_per_epoch} batches each"),
        "oversample": (round(train.oversample, 3), "share of patches centred on a layer, at least one a batch"),
        "augmentation": ("eight transforms and mirroring", "a scan may change in any way that keeps its truth"),
        "mirror_axes": (chosen.augment.mirror_axes, "0 rows, 1 A-scans"),
        "folds": (chosen.splits.folds, "each case is held out once"),
        "window_step": (chosen.infer.step, "of the patch: each pixel is seen near a window's centre"),
    }


def _divisor(strides: Sequence[Sequence[int]], axis: int) -> int:
    return prod(stride[axis] for stride in strides)


def _parameter(value, kind: str, reason: str) -> dict:
    return {"value": value, "kind": kind, "reason": reason}


def _frozen(value):
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _by(sizes: Sequence[float]) -> str:
    return " x ".join(f"{size:g}" for size in sizes)
