"""Resampling to another grid: images with cubic splines, masks label by label, coarse slices by themselves.

Source: report, section on preprocessing; nnU-Net's rules for anisotropic volumes (Isensee et al., Nat. Methods 18:203,
2021).
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

# Voxels more than this many times as long one way as another are no longer interpolated between that way: what lies
# between two B-scans 0.2 mm apart is not their average (nnU-Net's threshold).
ANISOTROPIC = 3


def new_shape(shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]) -> tuple[int, ...]:
    """Size in px that covers the same field at the target spacing: 100 px of 2 mm at 1 mm are 200 px."""
    return tuple(max(1, round(old / new * n)) for n, old, new in zip(shape, spacing, target, strict=True))


def coarse_axis(spacing: Sequence[float], target: Sequence[float]) -> int | None:
    """The axis of a volume that is resampled with the nearest slice: more than 3 times as coarse as the finest.

    Looked for in the scan's own spacing, then in the target. None where there is none, or where two share the coarsest
    spacing; B-scans 0.24 mm apart of 0.004 x 0.012 mm px: axis 0.
    """
    for voxel in (spacing, target):
        if len(voxel) == 3 and max(voxel) / min(voxel) > ANISOTROPIC:
            coarsest = [axis for axis, size in enumerate(voxel) if size == max(voxel)]
            return coarsest[0] if len(coarsest) == 1 else None
    return None


def resample(array: np.ndarray, shape: Sequence[int], order: int, coarse: int | None = None,
             dtype: type = np.float32) -> np.ndarray:
    """Resample each channel of (channels, *spatial) to `shape` with splines of `order`; same corners, as `dtype`.

    Pixels are areas, not points: the outer edges of the grid stay where they are. Values stay within each channel's
    (or slice's) own range, which cubic splines would overshoot. Along the axis `coarse` the nearest slice is taken,
    and each slice is resampled by itself.
    """
    shape = tuple(shape)
    if array.shape[1:] == shape:
        return array.astype(dtype, copy=False)
    if coarse is None:
        return np.stack([_zoomed(channel, shape, order, dtype) for channel in array])
    slices, wanted = array.shape[1 + coarse], shape[coarse]
    plane = shape[:coarse] + shape[coarse + 1:]
    # The slice in which each new slice's centre lies; on the edge between two it is the later one.
    nearest = np.floor(slices / wanted * (np.arange(wanted) + 0.5)).astype(int).clip(0, slices - 1)
    kept, where = np.unique(nearest, return_inverse=True)
    resampled: np.ndarray = np.empty((len(array), *shape), dtype)
    for channel, moved in zip(array, np.moveaxis(resampled, 1 + coarse, 1), strict=True):
        moved[:] = np.stack([_zoomed(np.take(channel, k, coarse), plane, order, dtype) for k in kept])[where]
    return resampled


def _zoomed(array: np.ndarray, shape: tuple[int, ...], order: int, dtype: type) -> np.ndarray:
    array = array.astype(dtype)
    if array.shape == shape:
        return array
    zoom = [new / old for old, new in zip(array.shape, shape, strict=True)]
    resampled = ndimage.zoom(array, zoom, order=order, mode="nearest", grid_mode=True)
    return np.clip(resampled, array.min(), array.max(), out=resampled)


def resample_mask(mask: np.ndarray, shape: Sequence[int], coarse: int | None = None) -> np.ndarray:
    """Resample labels (*spatial): each label's indicator linearly, then the label with the largest share.

    Splines on label numbers would invent label 1 between labels 0 and 2.
    """
    if mask.shape == tuple(shape):
        return mask
    best, winner = np.full(shape, -1, np.float32), np.zeros(shape, np.uint8)
    for label in np.unique(mask):  # one at a time: a volume's indicators together would be large
        share = resample((mask == label)[None], shape, order=1, coarse=coarse)[0]
        better = share > best
        best[better], winner[better] = share[better], label
    return winner
