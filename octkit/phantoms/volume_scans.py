"""Synthetic volumes, macular and around the optic disc, and whole data sets of them in the volumes layout.

An eye of `raster` is put into the frame and painted B-scan by B-scan by `looks`: one machine a volume, noise of its own
for each B-scan, which also lies a little higher or lower than its neighbours, as the eye moves between them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from octkit.common.errors import OctkitError, by
from octkit.common.files import read_json, write_json
from octkit.common.settings import PhantomSettings
from octkit.data.image_files import write_png
from octkit.data.labels import LAYERS
from octkit.data.volume_files import MAX_VOXELS, SPACING_FILE, write_nifti
from octkit.phantoms import circle_scans
from octkit.phantoms.circle_eye import Vessel, rasterise
from octkit.phantoms.render import LOOKS, paint
from octkit.phantoms.volume_eye import WINDOWS, Raster, VesselCourse, draw_raster

SIZE = (25, 200, 256)
FIELD = 6.0  # mm along and across B-scans
MOTION = 4.0  # um: how far B-scans are displaced in depth, sd
MARGIN = 0.03  # of the frame's depth that stays free above and below


@dataclass(frozen=True)
class VolumePhantom:
    """A drawn volume with its truth.

    `image` (B, H, W) uint8; `mask` (B, H, W) uint8 labels, 1 RNFL, 2 GCIPL, 3 choroid, none of them inside the opening
    of Bruch's membrane; `boundaries` (10, B, W) float64 rows of `anatomy.BOUNDARIES`, nan inside the opening, where
    row 0.0 is the upper edge of the first voxel; `spacing` mm between B-scans, rows and A-scans; `eye` "R" or "L".
    """

    image: np.ndarray
    mask: np.ndarray
    boundaries: np.ndarray
    spacing: tuple[float, float, float]
    kind: str
    eye: str
    glaucoma: bool


def spacing_of(size: tuple[int, int, int]) -> tuple[float, float, float]:
    """mm between B-scans, rows and A-scans of a volume of `size`: 6 x 6 mm, as deep as a circle scan."""
    return FIELD / size[0], circle_scans.scale_of(size[1:])[0] / 1000, FIELD / size[2]


def draw_volume(seed, size: tuple[int, int, int] = SIZE, kind: str = "macular",
                spacing: tuple[float, float, float] | None = None, glaucoma: bool = False,
                looks: str = "spectralis") -> VolumePhantom:
    """Draw one volume of `size` (B, H, W); `seed` is whatever numpy's default_rng takes, None excepted.

    `kind` is "macular" or "peripapillary". As in a fundus photograph the first B-scan is the highest, and left eyes are
    mirrored. `looks` as for circle scans. Raises OctkitError for another kind, other looks, and for a size or a
    spacing that cannot hold an eye.
    """
    size, spacing = _checked(size, kind, spacing, looks)
    shape_rng, look_rng, noise_rng = np.random.default_rng(seed).spawn(3)
    eye = str(shape_rng.choice(("R", "L")))
    down, across = ((np.arange(n) - (n - 1) / 2) * mm for n, mm in ((size[0], spacing[0]), (size[2], spacing[2])))
    raster = draw_raster(shape_rng, kind, down, across, eye, glaucoma)
    motion = MOTION * noise_rng.standard_normal((size[0], 1))
    rows = _place(raster, motion, size[1], 1000 * spacing[1], look_rng.beta(2, 2.6))
    image = _painted(look_rng, noise_rng, rows, raster.vessels, size, spacing, looks)
    mask = rasterise(rows.reshape(len(rows), -1), size[1]).reshape(size[1], size[0], size[2]).transpose(1, 0, 2)
    mask = np.where(raster.opening[:, None], np.uint8(0), mask)
    return VolumePhantom(image, mask, np.where(raster.opening, np.nan, rows), spacing, kind, eye, bool(glaucoma))


def _checked(size, kind, spacing, looks) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    if kind not in WINDOWS:
        raise OctkitError(f"phantom kind: found {kind!r}, expected one of {', '.join(WINDOWS)}")
    if looks not in LOOKS:
        raise OctkitError(f"phantom looks: found {looks!r}, expected one of {', '.join(LOOKS)}")
    if (len(size) != 3 or size[0] < 2 or min(size[1:]) < circle_scans.SMALLEST
            or np.prod(size, dtype=float) > MAX_VOXELS):
        raise OctkitError(f"phantom size: found {by(size)} voxels, expected at least 2 B-scans of "
                          f"{circle_scans.SMALLEST} x {circle_scans.SMALLEST} px, at most {MAX_VOXELS} voxels in all")
    spacing = spacing if spacing is not None else spacing_of(size)
    apart, axial, lateral = spacing
    if not (axial <= 0.015 and 1000 * size[1] * axial > circle_scans.LEAST_FIELD - 1e-6):
        raise OctkitError(f"phantom spacing: found {axial:g} mm a row over {size[1]} rows, expected at most 0.015 mm "
                          f"and a frame at least {circle_scans.LEAST_FIELD / 1000} mm deep")
    if not (2 <= apart * size[0] <= 9 and 2 <= lateral * size[2] <= 9):
        raise OctkitError(f"phantom spacing: found a field of {apart * size[0]:g} x {lateral * size[2]:g} mm, expected "
                          "2 to 9 mm along and across B-scans (6 is usual)")
    return tuple(map(int, size)), tuple(map(float, spacing))


def _place(raster: Raster, motion, height: int, axial: float, position: float) -> np.ndarray:
    """Boundaries as (10, B, W) rows; as `anatomy.place`, an eye is flattened until all that is labelled is inside."""
    margin = MARGIN * height * axial
    for share in np.linspace(1, 0, 41):
        placed = raster.depth + share * (raster.bruch + motion)
        top, bottom = placed[0].min(), np.where(raster.opening, placed[0], placed[9]).max()
        spare = height * axial - 2 * margin - (bottom - top)
        if spare >= 0:
            break
    return (placed - top + margin + max(spare, 0) * position) / axial


def _painted(look_rng, noise_rng, rows: np.ndarray, vessels, size, spacing, looks) -> np.ndarray:
    """The image (B, H, W) uint8."""
    look, lateral = int(look_rng.integers(2**62)), 1000 * spacing[2]
    image = np.empty(size, np.uint8)
    for number, noise in enumerate(noise_rng.spawn(size[0])):
        met = [place for vessel in vessels for place in _crossings(vessel, number, lateral)]
        # The look's random numbers must not depend on how many vessels a B-scan meets: two for each, most of them
        # outside of it.
        places = (met + [Vessel(-360.0, 20.0)] * 2 * len(vessels))[:2 * len(vessels)]
        image[number] = paint(np.random.default_rng(look), noise, rows[:, number], places,
                              (1000 * spacing[1], lateral), size[1:], looks, periodic=False)
    return image


def _crossings(vessel: VesselCourse, number: int, lateral: float) -> list[Vessel]:
    """Where a vessel crosses a B-scan, as the painter wants it: 360 degrees are the B-scan's length.

    One that is crossed slantwise looks wider, by 2.5 at most.
    """
    distance = vessel.distance[number]
    step = np.diff(distance)
    # The sign also changes on the disc's far side, in a leap.
    columns = np.flatnonzero((distance[:-1] * distance[1:] < 0) & (np.abs(step) < 3 * lateral))
    return [Vessel(float(column - distance[column] / step[column] + 0.5) * 360 / len(distance),
                   float(vessel.diameter[number, column] / max(abs(step[column]) / lateral, 0.4)))
            for column in columns]


def make_volumes(out: str | Path, train: int, validation: int, test: int = 0, size: tuple[int, int, int] = SIZE,
                 seed: int = 0, kind: str = "macular", spacing: tuple[float, float, float] | None = None,
                 looks: str = "spectralis", stacks: bool = False) -> None:
    """Write a data set of volumes in the volumes layout to the folder `out`; half of each split has glaucoma.

    Volumes are NIfTI files, with `stacks` folders of B-scan PNGs. Beside the layout: phantom.json and Truth/Mask, as
    `phantom.make_dataset` has them, whose promises hold here too. Raises OctkitError as it does.
    """
    size, spacing = _checked(size, kind, spacing, looks)

    def write_volume(root: Path, split: str, number: int, scan_seed, glaucoma: bool) -> tuple[str, dict]:
        volume = draw_volume(scan_seed, size, kind, spacing, glaucoma, looks)
        name = f"{number:04d}" + ("" if stacks else ".nii.gz")
        write = write_stack if stacks else write_nifti
        write(root / split / "Image" / name, volume.image, spacing)
        write(root / ("Train" if split == "Train" else "Truth") / "Mask" / name, volume.mask, spacing)
        return name, {"eye": volume.eye}

    def finish(root: Path, _scans: dict) -> None:
        write_json(root / "labels.json", {"labels": list(LAYERS)})

    asked = {"kind": kind, "seed": seed, "size": list(size), "looks": looks, "spacing": list(spacing)}
    counts = {"Train": train, "Validation": validation, "Test": test}
    circle_scans.write_set(Path(out), counts, seed, asked, write_volume, finish)


def write_stack(folder: Path, volume: np.ndarray, spacing: tuple[float, float, float]) -> None:
    """Write (B, H, W) uint8 as a folder of B-scan PNGs with their spacing in mm."""
    for number, b_scan in enumerate(volume):
        write_png(folder / f"{number:03d}.png", b_scan)
    write_json(folder / SPACING_FILE, {"spacing": list(spacing)})


def make_any(out: str | Path, counts: tuple[int, int, int], size: tuple[int, ...], seed: int, kind: str,
             looks: str) -> None:
    """Write a data set of phantoms of any kind: circle scans, or volumes. `counts`: training, validation, test scans.

    Raises OctkitError as `phantom.make_dataset` and `make_volumes`.
    """
    if kind == "circle":
        circle_scans.make_dataset(out, *counts, size, seed, looks=looks)
    else:
        make_volumes(out, *counts, size, seed, kind, looks=looks)


def make_once(out: str | Path, wanted: PhantomSettings | None) -> None:
    """Make the data set of circle scans or volumes, if one is wanted, unless `out` holds it already.

    Raises OctkitError where it holds other phantoms. Scans of the user's own stay as they are.
    """
    if wanted is None:
        return
    out = Path(out)
    counts = (wanted.train, wanted.validation, wanted.test)
    if not out.exists():
        make_any(out, counts, wanted.size, wanted.seed, wanted.kind, wanted.looks)
        return
    if not (out / "phantom.json").exists():
        return  # phantoms are only a stand-in
    made = read_json(out / "phantom.json")
    splits = [fact["split"] for fact in made["scans"].values()]
    names = ("Train", "Validation", "Test")
    # Sets made before there was a choice are circles of one device.
    found = {"kind": made.get("kind", "circle"), "looks": made.get("looks", "spectralis"), "seed": made["seed"],
             "size": made["size"], **{split: splits.count(split) for split in names}}
    asked = {"kind": wanted.kind, "looks": wanted.looks, "seed": wanted.seed, "size": list(wanted.size),
             **dict(zip(names, counts, strict=True))}
    if found != asked:
        raise OctkitError(f"{out}: holds phantoms of {found}, but the settings ask for {asked}; "
                          "delete it or set another data.dir")
