"""The arithmetic of a plan: the grid to resample to, the patch, how deep the network is, what it needs in memory.

The rules are nnU-Net v2's (Isensee et al., Nat. Methods 18:203, 2021), each a small function, for 2 and 3 axes
alike; `planner` puts them together. Sizes are in px, spacings in any one unit, one number an axis.
"""

from collections.abc import Sequence
from math import ceil, prod

import numpy as np

ANISOTROPY = 3  # times as coarse, and as few pixels: an axis of slices
COARSER = 1.03  # a step on the way to a low resolution
START_PIXELS = {2: 2048**2, 3: 256**3}  # of the first patch that is tried, before it is cut to the scans' size
SMALLEST_MAP = 4  # px: no axis is halved below this
COMPARABLE = 2  # spacings within this factor count as equally fine
FIRST_BLOCKS, MORE_BLOCKS = (1, 3, 4), 6  # residual blocks of the first stages, and of each further one
# The yardstick: 8 GB hold a batch of 12 in a plain 2-D network of 85 million feature map values, of 2 in a 3-D one of
# 560 million. The residual networks have one for each of nnU-Net's presets M, L and XL; the largest that the memory
# reaches counts. By number of axes.
YARDSTICK_GB = 8
YARDSTICKS = {"plain": {8: {2: 85_000_000, 3: 560_000_000}},
              "residual": {8: {2: 135_000_000, 3: 680_000_000}, 24: {2: 380_000_000, 3: 2_100_000_000},
                           40: {2: 560_000_000, 3: 3_600_000_000}}}
YARDSTICK_BATCH = {2: 12, 3: 2}
SMALLEST_BATCH = 2
# Of all pixels of the data set: a larger batch would see the same scans over and over. The presets let it see them all.
BATCH_SHARE = {"plain": 0.05, "residual": 1}

Ints = tuple[int, ...]


def target_spacing(spacings: Sequence[Sequence[float]], shapes: Sequence[Sequence[int]]) -> tuple[float, ...]:
    """The spacing to resample to: the median of each axis, so that half of the cases lose no detail.

    Where one axis of a volume is far coarser (over 3 times) and has far fewer pixels (under a third) than the others,
    as 25 B-scans 0.24 mm apart, its 10th percentile is taken, to keep the detail of fine slices; but it never becomes
    finer than the other axes.
    """
    # By percentiles, as nnU-Net: np.median can differ in the last digit, and a rounded size with it.
    target, size = (np.percentile(np.array(values, float), 50, axis=0) for values in (spacings, shapes))
    if len(target) == 2:  # no slices: A-scans of 4 x 20 µm px are no stack
        return tuple(target.tolist())
    coarsest = int(target.argmax())
    others = np.delete(target, coarsest)
    if target[coarsest] > ANISOTROPY * others.max() and size[coarsest] * ANISOTROPY < np.delete(size, coarsest).min():
        fine = np.percentile([one[coarsest] for one in spacings], 10)
        target[coarsest] = others.max() + 1e-5 if fine < others.max() else fine
    return tuple(target.tolist())


def median_shape(shapes: Sequence[Sequence[int]], spacings: Sequence[Sequence[float]],
                 target: Sequence[float]) -> tuple[float, ...]:
    """Median size in px after resampling: 100 px of 2 mm are 200 px at a target of 1 mm."""
    resampled = np.round(np.array(spacings, float) / np.array(target) * np.array(shapes))
    return tuple(np.median(resampled, axis=0).tolist())


def axis_order(spacing: Sequence[float]) -> Ints:
    """A volume's axes, the coarsest first (the first of them, on a tie), the others as they are; () for 2-D scans."""
    if len(spacing) == 2:
        return ()
    slices = int(np.argmax(spacing))
    return (slices, *(axis for axis in range(len(spacing)) if axis != slices))


def coarser(spacing: Sequence[float]) -> tuple[float, ...]:
    """A spacing one step of 3 % coarser: the axes far finer than the coarsest first, once none is, all of them."""
    behind = [max(spacing) / s > COMPARABLE for s in spacing]
    return tuple(s * COARSER if late or not any(behind) else s for s, late in zip(spacing, behind, strict=True))


def start_patch(spacing: Sequence[float], shape: Sequence[float]) -> tuple[float, ...]:
    """The first patch to try: 2048 x 2048 or 256 x 256 x 256 px, made as long in mm along each axis, cut to the scan.

    A large patch shows the network the most context. 1100 x 800 px fit inside: the patch is the whole scan. With
    pixels of 4 x 16 µm the square is 4096 x 1024 px. Half a pixel stays (the median of 128 and 129 px is 128.5):
    the patch must cover it.
    """
    fineness = [1 / s for s in spacing]  # multiplied in nnU-Net's order: the last digit decides what is rounded up
    scale = (START_PIXELS[len(fineness)] / prod(fineness)) ** (1 / len(fineness))
    return tuple(min(round(fine * scale), n) for fine, n in zip(fineness, shape, strict=True))


def topology(spacing: Sequence[float], patch: Sequence[float]) -> tuple[Ints, tuple[Ints, ...], tuple[Ints, ...]]:
    """How deep the network is: (patch rounded up to what it can halve, strides, kernels), one entry a stage.

    At each stage those axes are halved that are long enough and, among these, less than twice as coarse as the
    finest: a fine axis catches up first, so that deep maps see the same distance in mm along all. One axis alone
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
    rounded = tuple(ceil(n / d) * d for n, d in zip(patch, divisors(strides), strict=True))
    return rounded, tuple(strides), tuple(kernels)


def divisors(strides: Sequence[Sequence[int]]) -> Ints:
    """What each axis of a patch must be a multiple of: 32 for an axis that is halved five times."""
    return tuple(prod(along) for along in zip(*strides, strict=True))


def feature_maps(stages: int, base: int, most: int) -> Ints:
    """Maps of each stage: 32, 64, 128, … up to the cap, which keeps deep stages from taking all the memory."""
    return tuple(min(base * 2**stage, most) for stage in range(stages))


def residual_blocks(stages: int) -> Ints:
    """Residual blocks of each stage on the way down: 1, 3, 4, 6, 6, …"""
    return (*FIRST_BLOCKS, *[MORE_BLOCKS] * stages)[:stages]


def feature_map_values(patch: Sequence[int], features: Sequence[int], strides: Sequence[Sequence[int]],
                       classes: int, blocks: Sequence[int] = ()) -> int:
    """What a network keeps in memory for one patch: the values of all its feature maps.

    Each stage has two convolutions on the way down; each but the last also an upsampled map and two convolutions
    on the way up; the logits of all classes and the background come last. GOALS: 327 million, mostly at full size.
    With residual `blocks` there are two for each block, one to begin with, one beside each stage's first block where
    that changes the maps' size or number, and only one on the way up.
    """
    pixels, total = prod(patch), prod(patch) * (classes + 1)
    for stage, (maps, stride) in enumerate(zip(features, strides, strict=True)):
        pixels //= prod(stride)
        down, up = 2, 3
        if blocks:
            beside = stage == 0 or max(stride) > 1 or maps != features[stage - 1]
            down, up = 2 * blocks[stage] + beside, 2
        total += pixels * maps * (down + (up if stage < len(features) - 1 else 0))
    return total


def budget(memory_gb: float, axes: int, architecture: str = "plain") -> float:
    """The feature map values that a network may have at the yardstick's batch: plain, in 3-D and 8 GB, 560 million."""
    known = YARDSTICKS[architecture]
    size = max((gb for gb in known if gb <= memory_gb), default=min(known))
    return known[size][axes] * (memory_gb / size)


def fits(values: int, memory_gb: float, axes: int, architecture: str = "plain") -> bool:
    """Whether a batch of two fits: a plain 2-D network may be six times the yardstick's size, which is for 12.

    A residual one is made small enough for the yardstick's batch.
    """
    batch = SMALLEST_BATCH if architecture == "plain" else YARDSTICK_BATCH[axes]
    return values * batch <= budget(memory_gb, axes, architecture) * YARDSTICK_BATCH[axes]


def shrunk(patch: Sequence[int], strides: Sequence[Sequence[int]], shape: Sequence[float],
           spacing: Sequence[float]) -> Ints:
    """A patch one step smaller, along the axis that covers most of its scan (the last of them, on a tie).

    The step is one that the smaller patch can be halved by: it may be halved less often than the larger one.
    """
    shares = [p / n for p, n in zip(patch, shape, strict=True)]
    axis = max(range(len(patch)), key=lambda a: (shares[a], a))
    trial = list(patch)
    trial[axis] -= divisors(strides)[axis]
    smaller = list(patch)
    smaller[axis] -= divisors(topology(spacing, trial)[1])[axis]
    return tuple(smaller)


def batch_size(values: int, memory_gb: float, dataset_pixels: float, patch: Sequence[int],
               architecture: str = "plain") -> int:
    """As many patches as the memory holds, but no more than `BATCH_SHARE` of the data set's pixels, and at least 2.

    GOALS in 8 GB: 85 / 327 x 12 = 3; in 24 GB memory would hold 9, but 5 % of 100 scans are 4 patches.
    """
    by_memory = round(budget(memory_gb, len(patch), architecture) / values * YARDSTICK_BATCH[len(patch)])
    by_data = round(dataset_pixels * BATCH_SHARE[architecture] / prod(patch))
    return max(min(by_memory, by_data), SMALLEST_BATCH)
