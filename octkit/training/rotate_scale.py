"""Rotation and scaling of 3-D patches, and how far a patch may be turned.

Probabilities and ranges are nnU-Net v2's (the trainer's `configure_rotation_dummyDA_mirroring_and_inital_patch_size`
and `get_training_transforms`), except that scaling is drawn as the size of things (version 2 draws the step of the
sampling grid: sizes 0.71 to 1.43). A patch of few slices is turned and scaled in the slices' plane alone, all alike.
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


def random_warp(image: np.ndarray, labels: np.ndarray, degrees: float, random: np.random.Generator,
                ) -> tuple[np.ndarray, np.ndarray]:
    """Rotate with probability 0.2, by up to so many degrees either way, and scale with 0.2, independent of each other.

    Image (D, H, W, channels) float32, labels (D, H, W, maps) uint8; resampled once at most.
    """
    rotates, scales = random.random() < ROTATION_PROBABILITY, random.random() < SCALING_PROBABILITY
    if not rotates and not scales:
        return image, labels
    angles = random.uniform(-degrees, degrees, 3) if rotates else np.zeros(3)
    factor = random.uniform(*SCALING) if scales else 1.0
    if in_plane(labels.shape[:3]):
        return warp_slices(image, labels, affine((angles[0], 0, 0), (1, factor, factor)))
    return warp_volume(image, labels, affine(angles, (factor, factor, factor)))


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


def warp_slices(image: np.ndarray, labels: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`warp_volume` by a `matrix` that leaves the first axis alone: each slice in its plane."""
    height, width = labels.shape[1:3]
    plane, centre = matrix[1:, 1:], np.array([height - 1, width - 1]) / 2
    shift = centre - plane @ centre
    of_cv2 = np.column_stack([plane[::-1, ::-1], shift[::-1]])  # which counts x before y

    def warp(array: np.ndarray, interpolation: int) -> np.ndarray:
        warped = np.empty_like(array)
        for d, c in np.ndindex(array.shape[0], array.shape[3]):
            warped[d, :, :, c] = cv2.warpAffine(np.ascontiguousarray(array[d, :, :, c]), of_cv2, (width, height),
                                                flags=interpolation | cv2.WARP_INVERSE_MAP)
        return warped

    return warp(image, cv2.INTER_LINEAR), warp(labels, cv2.INTER_NEAREST)


def warp_volume(image: np.ndarray, labels: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sample a volume by the `matrix` of `affine`; outside is 0.

    Image (D, H, W, channels) linear, labels (D, H, W, maps) nearest. On one core, 64 x 64 x 64 with one map takes
    half the time of scipy's affine_transform.
    """
    import torch  # needed only here: the lessons that look at 2-D patches do without

    shape = labels.shape[:3]
    z, y, x = (axis.astype(np.float32) for axis in np.ogrid[tuple(slice((1 - n) / 2, (n + 1) / 2) for n in shape)])
    grid = np.empty((*shape, 3), np.float32)
    # grid_sample counts x, y, z and calls the outer edges of the grid -1 and 1.
    for place, axis in enumerate((2, 1, 0)):
        row = (matrix[axis] * 2 / shape[axis]).astype(np.float32)
        np.add(row[0] * z + row[1] * y, row[2] * x, out=grid[..., place])
    places = torch.from_numpy(grid)[None]

    def warp(array: np.ndarray, mode: str) -> np.ndarray:
        channels = torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 0), np.float32))[None]
        warped = torch.nn.functional.grid_sample(channels, places, mode, padding_mode="zeros", align_corners=False)
        return np.moveaxis(warped[0].numpy().astype(array.dtype), 0, -1)

    return warp(image, "bilinear"), warp(labels, "nearest")
