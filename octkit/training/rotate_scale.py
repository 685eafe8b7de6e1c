"""Rotation and scaling of patches, how far a patch may be turned, and how much of the scan that takes.

Probabilities and ranges are nnU-Net v2's (the trainer's `configure_rotation_dummyDA_mirroring_and_inital_patch_size`
and `get_training_transforms`), except that scaling is drawn as the size of things (version 2 draws the step of the
sampling grid: sizes 0.71 to 1.43). A patch of few slices is turned and scaled in the slices' plane alone, all alike; a
2-D patch is one slice.
"""

from collections.abc import Sequence

import cv2
import numpy as np

ROTATION_PROBABILITY = 0.2
SCALING_PROBABILITY, SCALING = 0.2, (0.7, 1.4)  # size of things, as a factor
ELONGATED = 1.5  # beyond this ratio of sides a turned 2-D patch would be mostly padding, so it is only tilted
ROTATION_DEGREES, ROTATION_DEGREES_ELONGATED, ROTATION_DEGREES_3D = 180.0, 15.0, 30.0  # 3-D: about each axis
FEW_SLICES = 3  # a longest side of more than this many times the first


def in_plane(patch_size: Sequence[int]) -> bool:
    """Whether a patch is 3-D with few slices: its longest side more than 3 times its first."""
    return len(patch_size) == 3 and max(patch_size) > FEW_SLICES * patch_size[0]


def rotation_limit(patch_size: Sequence[int]) -> float:
    """The largest rotation in degrees, by nnU-Net's rule.

    2-D: 180, or 15 where one side is more than 1.5 times the other. 3-D: 30 about each axis, or 180 in the slices'
    plane where they are few.
    """
    if len(patch_size) == 3:
        return ROTATION_DEGREES if in_plane(patch_size) else ROTATION_DEGREES_3D
    return ROTATION_DEGREES_ELONGATED if max(patch_size) > ELONGATED * min(patch_size) else ROTATION_DEGREES


def draw_warp(patch_size: Sequence[int], degrees: float, random: np.random.Generator) -> np.ndarray | None:
    """The matrix of a random warp (`affine`), or None: nothing is moved.

    Rotation by up to so many degrees either way has a probability of 0.2, scaling has 0.2, independent of each other.
    """
    rotates, scales = random.random() < ROTATION_PROBABILITY, random.random() < SCALING_PROBABILITY
    if not rotates and not scales:
        return None
    angles = random.uniform(-degrees, degrees, 3) if rotates else np.zeros(3)
    factor = random.uniform(*SCALING) if scales else 1.0
    if len(patch_size) == 2 or in_plane(patch_size):
        return affine((angles[0], 0, 0), (1, factor, factor))
    return affine(angles, (factor, factor, factor))


def reach(patch_size: Sequence[int], matrix: np.ndarray) -> tuple[int, ...]:
    """The size about the same centre in which all of a warped patch's pixels come from; nowhere less than the patch's.

    nnU-Net cuts all patches in the size that the largest rotation and the smallest scale could need (its
    `get_patch_size`); this is what one warp needs. An even number of pixels more on each axis: a square of 9 turned by
    45 degrees reaches 5.66 px from its centre instead of 4, which takes 9 + 2 x 2.
    """
    half = (np.array(patch_size) - 1) / 2
    beyond = np.abs(matrix[-len(half):, -len(half):]) @ half - half
    return tuple(n + 2 * max(0, int(np.ceil(more - 1e-6))) for n, more in zip(patch_size, beyond, strict=True))


def warp(image: np.ndarray, labels: np.ndarray, matrix: np.ndarray, size: Sequence[int],
         ) -> tuple[np.ndarray, np.ndarray]:
    """A patch of this size, 2-D or 3-D, from the middle of a warped image and its labels (both *spatial, channels)."""
    if len(size) == 2:
        image, labels = warp_slices(image[None], labels[None], matrix, (1, *size))
        return image[0], labels[0]
    return (warp_slices if in_plane(size) else warp_volume)(image, labels, matrix, size)


def affine(angles: Sequence[float] | np.ndarray, factors: Sequence[float]) -> np.ndarray:
    """Where a warped volume's voxels come from: (3, 3), source = matrix @ target, both seen from the centre.

    Things become `factors` times as large along the axes, then turn by `angles` in degrees about the first axis,
    the second and the last. About the first by 90: what lay along the second axis comes to lie along the last.
    """
    turn = np.eye(3)
    for axis, angle in enumerate(np.radians(angles)):
        a, b = (other for other in range(3) if other != axis)
        about = np.eye(3)
        about[[a, b], [a, b]] = np.cos(angle)
        about[b, a], about[a, b] = np.sin(angle), -np.sin(angle)
        turn = about @ turn
    return np.diag(1 / np.asarray(factors)) @ turn.T


def warp_slices(image: np.ndarray, labels: np.ndarray, matrix: np.ndarray, size: Sequence[int] | None = None,
                ) -> tuple[np.ndarray, np.ndarray]:
    """`warp_volume` by a `matrix` that leaves the first axis alone: each slice in its plane."""
    depth, height, width = size or labels.shape[:3]
    plane = matrix[1:, 1:]
    shift = (np.array(labels.shape[1:3]) - 1) / 2 - plane @ (np.array([height, width]) - 1) / 2
    of_cv2 = np.column_stack([plane[::-1, ::-1], shift[::-1]])  # which counts x before y

    def warp(array: np.ndarray, interpolation: int) -> np.ndarray:
        warped = np.empty((depth, height, width, array.shape[3]), array.dtype)
        for d, c in np.ndindex(depth, array.shape[3]):
            warped[d, :, :, c] = cv2.warpAffine(np.ascontiguousarray(array[d, :, :, c]), of_cv2, (width, height),
                                                flags=interpolation | cv2.WARP_INVERSE_MAP)
        return warped

    return warp(image, cv2.INTER_LINEAR), warp(labels, cv2.INTER_NEAREST)


def warp_volume(image: np.ndarray, labels: np.ndarray, matrix: np.ndarray, size: Sequence[int] | None = None,
                ) -> tuple[np.ndarray, np.ndarray]:
    """Sample a volume by the `matrix` of `affine`, in a grid of this size about its centre (its own); outside is 0.

    Image (D, H, W, channels) linear, labels (D, H, W, maps) nearest. On one core, 64 x 64 x 64 with one map takes
    half the time of scipy's affine_transform.
    """
    import torch  # needed only here: the lessons that look at 2-D patches do without

    shape, source = tuple(size or labels.shape[:3]), labels.shape
    z, y, x = (axis.astype(np.float32) for axis in np.ogrid[tuple(slice((1 - n) / 2, (n + 1) / 2) for n in shape)])
    grid = np.empty((*shape, 3), np.float32)
    # grid_sample counts x, y, z and calls the outer edges of the grid -1 and 1.
    for place, axis in enumerate((2, 1, 0)):
        row = (matrix[axis] * 2 / source[axis]).astype(np.float32)
        np.add(row[0] * z + row[1] * y, row[2] * x, out=grid[..., place])
    places = torch.from_numpy(grid)[None]

    def warp(array: np.ndarray, mode: str) -> np.ndarray:
        channels = torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 0), np.float32))[None]
        warped = torch.nn.functional.grid_sample(channels, places, mode, padding_mode="zeros", align_corners=False)
        return np.moveaxis(warped[0].numpy().astype(array.dtype), 0, -1)

    return warp(image, "bilinear"), warp(labels, "nearest")
