"""Where the voxels of a NIfTI file lie, and how one file's come into the order of another's.

A header's affine says where each voxel lies, in mm: as sform, as qform, as both, or not at all. Two files of one scan
(image and mask, prediction and truth, two channels) may store the same places from different ends, or with their axes
in another order: then one is turned. Files whose voxels lie elsewhere are refused, as nothing is resampled.

A `way` to turn an array is nibabel's orientation (3, 2): a row for each of its axes, the axis that it becomes and 1, or
-1 where it is flipped.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from octkit.common.errors import bad_file, by
from octkit.data.mask_values import check_size

AS_STORED = np.array([[0, 1], [1, 1], [2, 1]])
# NIfTI's codes for the unit of lengths: metre, mm, micrometre.
MM_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}
# How far two axes may differ, as a share of a voxel. Writers round to 32 bits: 1e-7, but 5e-4 where an axis is worked
# out from the three rounded numbers of a qform. A registration turns by more.
AXIS = 1e-3
# How far the volumes' centres may lie apart, in voxels. Rounding moves an origin at 100 mm by 0.002 voxels of 4 um; who
# counts from a voxel's corner instead of its centre is off by 0.5.
SHIFT = 0.1
DEEPEST = 20.0  # mm, of a scan: devices' frames have 2 to 6. A header that says more counts in another unit, or in none
ALIKE = 1.05  # numbers of voxels, or spacings, that differ by less are taken as equal where axes are guessed


def way_like(path: Path, volume: Any, like: Path, scan: Any) -> np.ndarray | None:
    """The way to turn a file onto the voxels of the file `like`; None where one of the headers states no place.

    `volume` and `scan` are nibabel's images of the two files, with up to three axes and others of length 1. Affines are
    compared sform with sform or qform with qform, where the headers have one of them in common. A unit that one does
    not state is the other's. Raises OctkitError, which names both files, for another size or place.
    """
    ours, theirs = _affines(path, volume, scan), _affines(like, scan, volume)
    if not ours or not theirs:
        return None
    pairs = [(ours[kind], theirs[kind]) for kind in ours if kind in theirs] or list(
        zip(ours.values(), theirs.values(), strict=True))
    ways = [_way(*pair) for pair in pairs]
    if (ways[0] != ways[-1]).any():
        raise bad_file(path, f"lies in one order by its sform and that of {like}, in another by their qforms",
                       "expected headers whose sform and qform agree: save it with the header of that file")
    counts = np.array(three_axes(volume.shape))[np.argsort(ways[0][:, 0])]
    check_size(path, spatial(tuple(counts)), spatial(three_axes(scan.shape)), like)
    if what := _elsewhere(*pairs[0], ways[0], counts):
        raise bad_file(path, f"lies elsewhere than {like} by its header: {what}", "expected the same voxels: resample "
                       "it to that file; if they are the same, save it with that file's header")
    return ways[0]


def way_in_space(volume: Any) -> np.ndarray:
    """The way from the axes of nibabel's image to those of space (to the right, to the front, up)."""
    from nibabel.orientations import io_orientation

    placed = volume.header["sform_code"] or volume.header["qform_code"]
    return io_orientation(volume.affine).astype(int) if placed else AS_STORED


def turned(values: np.ndarray, way: np.ndarray) -> np.ndarray:
    """An array in the order of a NIfTI file's axes, turned: (*spatial)."""
    from nibabel.orientations import apply_orientation

    array = apply_orientation(values.reshape(three_axes(values.shape)), way).T
    return np.ascontiguousarray(array.reshape(spatial(array.shape[::-1])))


def three_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape, 1, 1)[:3]


def spatial(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The size (*spatial) of a NIfTI file whose own axes have the `shape`; that of a single slice has two axes."""
    size = tuple(int(n) for n in shape[::-1])
    return size[1:] if len(size) == 3 and size[0] == 1 else size


def odd_axes(size: Sequence[int], spacing: Sequence[float] | None) -> list[tuple[str, str]]:
    """What is odd in a scan's size and stated spacing (mm), as (what was found, what to do) for a warning.

    No scan is deeper than DEEPEST. In volumes rows lie nearest, B-scans farthest apart and are fewest; dense volumes
    have as many B-scans as A-scans, and hardly more than rows.
    """
    odd = []
    if spacing is not None and (size[-2] * spacing[-2] > DEEPEST or set(spacing) == {1.0}):
        odd.append((f"states pixels {by(spacing)} mm apart, so that it is {size[-2] * spacing[-2]:g} mm deep, as "
                    "headers do that nobody has filled in", "expected true distances in mm: of a file that says more "
                    f"than {DEEPEST:g} mm of depth the scale counts as unknown, and lengths are in pixels"))
    if len(size) != 3 or spacing is None:
        return odd
    b_scans, rows, a_scans = spacing
    if not rows <= ALIKE * a_scans <= ALIKE ** 2 * b_scans or size[0] > ALIKE * min(size[1:]):
        odd.append((f"has {by(size)} B-scans, rows and A-scans, {by(spacing)} mm apart",
                    "expected the fewest B-scans, farthest apart: are its axes in another order?"))
    return odd


def _affines(path: Path, volume: Any, other: Any) -> dict[str, np.ndarray]:
    """The affines (4, 4), in mm, that a header states: "sform" first, which most programs go by."""
    units = [int(image.header["xyzt_units"]) % 8 for image in (volume, other)]
    scale = MM_PER_UNIT.get(units[0] or units[1], 1.0)
    found = {}
    for kind, stated in (("sform", volume.header.get_sform), ("qform", volume.header.get_qform)):
        try:
            affine, code = stated(coded=True)
            usable = affine is None or np.linalg.matrix_rank(_unit_axes(affine)) == 3
        except Exception:  # numbers that are no rotation or not finite: numpy and nibabel have an error for each
            code, usable = 1, False
        if not usable:
            raise bad_file(path, f"states in its {kind} where its voxels lie, but that is no place in space",
                           "expected three axes: save it with the header of the scan that it belongs to")
        if code:
            found[kind] = np.diag([scale, scale, scale, 1.0]) @ affine
    return found


def _way(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """The way that brings the axes of one affine closest to those of another."""
    from nibabel.affines import from_matvec
    from nibabel.orientations import io_orientation

    return io_orientation(from_matvec(np.linalg.solve(_unit_axes(theirs), _unit_axes(ours)))).astype(int)


def _elsewhere(ours: np.ndarray, theirs: np.ndarray, way: np.ndarray, counts: np.ndarray) -> str:
    """What is different where a file's voxels, turned, do not lie where the other's do; else "".

    Both have the size `counts`. An axis of one voxel may point anywhere.
    """
    from nibabel.orientations import inv_ornt_aff

    ours = ours @ inv_ornt_aff(way, counts[way[:, 0]])
    found, expected = (np.linalg.norm(affine[:3, :3], axis=0) for affine in (ours, theirs))
    apart = np.linalg.norm(ours[:3, :3] - theirs[:3, :3], axis=0) / expected
    shift = np.abs(np.linalg.solve(theirs[:3, :3], ((ours - theirs) @ [*(counts - 1) / 2, 1])[:3]))
    long = counts > 1
    if (np.abs(found / expected - 1) > AXIS)[long].any():
        return f"its voxels are {by(found[::-1])} mm apart, there {by(expected[::-1])} mm"
    if (apart > AXIS)[long].any():
        return f"its axes are turned by {np.degrees(apart[long].max()):.2g} degrees"
    if (shift > SHIFT)[long].any():
        return f"it is shifted by {by([round(float(n), 2) for n in shift[::-1]])} voxels"
    return ""


def _unit_axes(affine: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # an axis of no length becomes nan, which is no place
        return affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
