"""Synthetic circle scans, healthy and with glaucoma, and a whole data set of them in the GOALS layout.

An eye of `anatomy` is put into the frame and painted: layers, vessels with their shadows, choroid, sclera,
vitreous, then light, speckle, blur and the camera's noise. All of it is periodic along the A-scans. Grey levels and
noise are held against real Spectralis scans, whose display is the fourth root of the intensity, and varied around.
"""

import io
import math
import os
import re
import shutil
import uuid
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from scipy.special import expit
from tqdm.auto import tqdm

from octkit import __version__
from octkit.anatomy import CIRCUMFERENCE, Eye, Vessel, course, draw_eye, near, place, rasterise
from octkit.files import OctkitError, read_json, write_json
from octkit.goals import GOALS_GREYS
from octkit.images import MAX_PIXELS, write_mask, write_png

SMALLEST = 64  # px along each axis
LEAST_FIELD, FULL_FIELD = 900, 1900  # um in depth: what an eye needs, and what a device's frame shows


@dataclass(frozen=True)
class Phantom:
    """A drawn scan with its truth.

    `image` (H, W) uint8; `mask` (H, W) uint8 labels, 1 RNFL, 2 GCIPL, 3 choroid; `boundaries` (10, W) float64 rows of
    `anatomy.BOUNDARIES`, where row 0.0 is the upper edge of the first pixel; `um_per_px` (axial, lateral);
    `eye` "R" or "L", of no effect on the image (both come in TSNIT order); `rnfl_um` the mean RNFL thickness.
    """

    image: np.ndarray
    mask: np.ndarray
    boundaries: np.ndarray
    glaucoma: bool
    eye: str
    um_per_px: tuple[float, float]
    rnfl_um: float


def scale_of(size: tuple[int, int]) -> tuple[float, float]:
    """(axial, lateral) um per px for an image of `size` (H, W).

    Up to 487 rows the frame is a crop of a device's, at 3.9 um a row but at least 0.9 mm deep; above, it is the
    whole frame of 1.9 mm. The A-scans share a circle of 3.46 mm diameter.
    """
    return min(max(3.9 * size[0], LEAST_FIELD), FULL_FIELD) / size[0], CIRCUMFERENCE / size[1]


def draw(seed, size: tuple[int, int], um_per_px: tuple[float, float] | None = None,
         glaucoma: bool = False) -> Phantom:
    """Draw one scan of `size` (H, W) px; `seed` is whatever numpy's default_rng takes, None excepted.

    Raises OctkitError for a size or a scale that cannot hold an eye.
    """
    size, um_per_px = _checked(size, um_per_px)
    # Three streams: the pixels' noise depends on the size, the eye and its look must not.
    shape_rng, look_rng, noise_rng = np.random.default_rng(seed).spawn(3)
    eye = draw_eye(shape_rng, size[1], glaucoma)
    side = str(shape_rng.choice(("R", "L")))
    boundaries = place(eye, size[0], um_per_px[0], look_rng.beta(2, 2.6))
    image = _paint(look_rng, noise_rng, eye, boundaries, size, um_per_px)
    mask = rasterise(boundaries, size[0])
    return Phantom(image, mask, boundaries, bool(glaucoma), side, um_per_px, float(eye.thickness[0].mean()))


def _checked(size, um_per_px) -> tuple[tuple[int, int], tuple[float, float]]:
    height, width = size
    if min(height, width) < SMALLEST or height * width > MAX_PIXELS:
        raise OctkitError(f"phantom size: found {height} x {width} px, expected at least {SMALLEST} x {SMALLEST} "
                          f"and at most {MAX_PIXELS} px in all")
    axial, lateral = um_per_px if um_per_px is not None else scale_of(size)
    if not (axial <= 15 and height * axial > LEAST_FIELD - 1e-6):
        raise OctkitError(f"phantom scale: found {axial:g} um a row over {height} rows, expected at most 15 um and "
                          f"a frame at least {LEAST_FIELD} um deep")
    if not 1000 <= lateral * width / math.pi <= 12000:
        raise OctkitError(f"phantom scale: found {lateral:g} um an A-scan over {width} A-scans, expected a circle of "
                          "1 to 12 mm diameter (3.46 mm is usual)")
    return (int(height), int(width)), (float(axial), float(lateral))


def _paint(rng, noise, eye: Eye, b: np.ndarray, size, um_per_px) -> np.ndarray:
    """The image (H, W) uint8: the look from `rng`, the pixels' noise from `noise`. Grey levels until _camera."""
    height, width = size
    angle = np.arange(width) * (360 / width)
    rnfl, vitreous = rng.uniform(145, 190), rng.uniform(10, 48)
    image = _vitreous(rng, noise, b[0], vitreous, size, um_per_px)
    soft = max(1.0, 5 / um_per_px[0])
    # From the RNFL to the RPE, as shares of the RNFL's level.
    shares = np.array((1, 0.67, 0.48, 0.61, 0.37, 1.08, 0.72, 1.15)) * rng.normal(1, 0.03, 8)
    bundles = 1 + 0.06 * course(rng, angle, 1 / np.arange(1, 21))
    for layer, share in enumerate(shares):
        _below(image, b[layer], rnfl * share * (bundles if layer == 0 else 1), soft)
    # Where the ILM lies square to the beam it mirrors it.
    mirror = np.clip(course(rng, angle, np.ones(25)) - 0.8, 0, 1.5) * rng.uniform(0, 0.5)
    _line(image, b[0] + 5 / um_per_px[0], rnfl * mirror, 5 / um_per_px[0])
    _line(image, b[5] - 15 / um_per_px[0], 0.1 * rnfl, 4 / um_per_px[0])  # the external limiting membrane
    _choroid(rng, noise, image, b, 0.58 * rnfl, vitreous, um_per_px)
    for vessel in eye.vessels:
        _vessel(rng, image, vessel, b, um_per_px)
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    light = (1 + rng.uniform(0, 0.12) * course(rng, angle, (1, 0.6, 0.3))) * (1 + 0.02 * noise.standard_normal(width))
    if rng.random() < 0.4:  # a floater's or the lens's shadow over everything
        light *= 1 - rng.uniform(0.1, 0.35) * near(angle, rng.uniform(0, 360), rng.uniform(4, 20))
    image *= light * (1 - rng.uniform(0, 0.35) * rows**2)
    image *= np.exp(rng.uniform(0.07, 0.17) * _field(noise, size, um_per_px, (3.5, 9)))  # speckle
    return _camera(rng, noise, image, vitreous, rows)


def _below(image: np.ndarray, boundary: np.ndarray, level, soft: float) -> None:
    """Paint all below the boundary (W,) with `level`, in place; the edge is `soft` rows wide."""
    low, high = max(int(boundary.min() - soft) - 1, 0), int(boundary.max() + soft) + 2
    centre = np.arange(low, min(high, len(image)))[:, None] + 0.5
    image[low:high] += np.clip((centre - boundary) / soft + 0.5, 0, 1) * (level - image[low:high])
    image[high:] = level


def _line(image: np.ndarray, course_rows: np.ndarray, gain, sigma: float) -> None:
    """Add a bright line of standard deviation `sigma` rows, in place."""
    low, high = max(int(course_rows.min() - 4 * sigma), 0), int(course_rows.max() + 4 * sigma) + 2
    centre = np.arange(low, min(high, len(image)))[:, None] + 0.5
    image[low:high] += gain * np.exp(-0.5 * ((centre - course_rows) / sigma) ** 2)


def _field(noise, size, um_per_px, grain) -> np.ndarray:
    """Gaussian noise (H, W) float32 of variance 1, grain (axial, lateral) in um, periodic along the A-scans."""
    sigma = [g / u for g, u in zip(grain, um_per_px, strict=True)]
    field = noise.standard_normal(size, dtype=np.float32)
    field = gaussian_filter(field, sigma, mode=("reflect", "wrap"), truncate=3)
    return field / field.std()


def _vitreous(rng, noise, ilm, level, size, um_per_px) -> np.ndarray:
    """The ground to paint on, (H, W) float32: near-dark, with haze in some scans and a detached hyaloid in others."""
    height, width = size
    angle = np.arange(width) * (360 / width)
    image = np.full(size, level, np.float32)
    above = ((ilm - np.arange(height)[:, None] - 0.5) * um_per_px[0]).astype(np.float32)
    if rng.random() < 0.5:  # the vitreous cortex, dense near the retina
        image += rng.uniform(4, 22) * np.exp(-np.maximum(above, 0) / rng.uniform(30, 90))
    if rng.random() < 0.3:
        image += rng.uniform(3, 14) * np.maximum(_field(noise, size, um_per_px, (60, 400)), 0)
    if rng.random() < 0.5:
        gap = rng.uniform(15, 130) + rng.uniform(10, 60) * course(rng, angle, (1, 0.7, 0.4))
        # The membrane spans the retina's bumps and touches it here and there.
        gap = np.maximum(gap, 4) + (ilm - gaussian_filter1d(ilm, width / 40, mode="wrap")) * um_per_px[0]
        brightness = rng.uniform(8, 60) * np.maximum(1 + 0.4 * course(rng, angle, 1 / np.arange(1, 13)), 0)
        image *= 1 - rng.uniform(0, 0.35) * ((above < gap) & (above > 0))
        _line(image, ilm - gap / um_per_px[0], brightness, rng.uniform(4, 8) / um_per_px[0])
    return image


def _choroid(rng, noise, image, b, level, vitreous, um_per_px) -> None:
    """Stroma with dark vessel lumens that grow with depth, and the sclera's fading light below, in place."""
    height, width = image.shape
    low, bottom = max(int(b[8].min()) - 2, 0), min(int(b[9].max()) + 6, height)
    depth = ((np.arange(low, height)[:, None] + 0.5 - b[8]) * um_per_px[0]).astype(np.float32)
    thickness = ((b[9] - b[8]) * um_per_px[0]).astype(np.float32)
    inside = np.maximum(depth[:bottom - low], 0)
    relative = np.minimum(inside / thickness, 1)
    grain = rng.uniform(0.8, 1.3)
    fine = _field(noise, inside.shape, um_per_px, (7 * grain, 20 * grain))
    coarse = _field(noise, inside.shape, um_per_px, (16 * grain, 45 * grain))
    deep = np.clip(1.6 * relative - 0.25, 0, 1)
    mixed = ((1 - deep) * fine + deep * coarse) / np.hypot(1 - deep, deep)
    lumen = rng.uniform(0.3, 0.55) * expit(2.5 * (mixed - rng.uniform(-0.3, 0.3))) * np.minimum(inside / 25, 1)
    choroid = level * (0.92 + 0.7 * np.exp(-inside / 20)) * (1 - 0.15 * relative) * (1 - lumen)
    streaks = 1 + 0.06 * course(rng, np.arange(width) * (360 / width), np.ones(40))
    floor, under = 0.45 * vitreous, np.maximum(depth - thickness, 0)
    fading = (1 + rng.uniform(0, 0.25) * np.exp(-under / 25)) * np.exp(-under / rng.uniform(180, 420))
    whole = floor + np.maximum(rng.uniform(0.36, 0.53) * level * streaks - floor, 0) * fading
    edge = np.clip((depth[:bottom - low] - thickness) / (8 + um_per_px[0]) + 0.5, 0, 1)
    whole[:bottom - low] = choroid + edge * (whole[:bottom - low] - choroid)
    image[low:] += np.clip(depth / max(um_per_px[0], 6) + 0.5, 0, 1) * (whole - image[low:])


def _vessel(rng, image, vessel: Vessel, b, um_per_px) -> None:
    """Lumen, bright walls and shadow of a retinal vessel, in place."""
    height, width = image.shape
    axial, lateral = um_per_px
    column = vessel.angle / 360 * width
    reach = int(np.ceil(1.5 * vessel.diameter / lateral)) + 1
    columns = np.arange(int(column) - reach, int(column) + reach + 1)
    across = (columns - column) * lateral / (vessel.diameter / 2)
    columns %= width
    upper, lower = b[0, columns], b[1, columns]
    tall = np.minimum(0.9 * vessel.diameter / axial, 0.85 * (lower - upper))
    centre = upper + rng.uniform(0.42, 0.58) * (lower - upper)
    down = (np.arange(height)[:, None] + 0.5 - centre) / (tall / 2)
    radius = np.hypot(across, down)
    wall = np.exp(-0.5 * ((radius - 1) / 0.25) ** 2) * np.abs(down) / (radius + 1e-3)
    streak = np.exp(-0.5 * (across / 0.3) ** 2) * expit(4 * (1.6 - np.abs(down)))
    shadow = (0.1 + 0.48 * min(vessel.diameter / 115, 1)) * rng.uniform(0.75, 1.1)
    shadow = shadow * np.exp(-np.abs(across / rng.uniform(0.8, 1.15)) ** 3) * expit(2.5 * (down - 1.2))
    lumen = rng.uniform(0.05, 0.3) * expit(10 * (0.85 - radius))
    image[:, columns] *= ((1 + rng.uniform(0.1, 0.4) * wall + rng.uniform(0.05, 0.35) * streak)
                          * (1 - lumen) * (1 - shadow))


def _camera(rng, noise, image, vitreous, rows) -> np.ndarray:
    """Blur, shot and readout noise (added to the intensity, the fourth power of the grey), exposure and gamma."""
    image = gaussian_filter(image, rng.uniform(0.2, 0.75), mode=("reflect", "wrap"), truncate=3)
    readout = (rng.uniform(0.6, 0.95) * vitreous * (1 - 0.5 * rows)) ** 4
    intensity = image**4
    intensity += noise.standard_normal(image.shape, dtype=np.float32) * (readout + 0.1 * intensity)
    exposed = np.sqrt(np.sqrt(np.maximum(intensity, 0))) * rng.uniform(0.85, 1.2) / 255
    return np.rint(255 * np.clip(exposed, 0, 1) ** rng.uniform(0.75, 1.2)).astype(np.uint8)


def make_dataset(out: str | Path, train: int, validation: int, test: int = 0, size: tuple[int, int] = (256, 320),
                 seed: int = 0, um_per_px: tuple[float, float] | None = None) -> None:
    """Write a data set of phantoms in the GOALS layout to the folder `out`; half of each split has glaucoma.

    Beside the layout: scale.json, phantom.json (what was asked for, and what each eye is) and Truth/ with the masks
    and labels of the validation and test scans, for evaluation alone. The i-th scan of a split depends on (seed,
    split, i) only, so that a larger set begins with the smaller one. Nothing is left of a run that fails. Raises
    OctkitError where `out` exists and is not empty, or for numbers and sizes that cannot be.
    """
    out = Path(out).resolve()
    size, um_per_px = _checked(size, um_per_px)
    counts = {"Train": train, "Validation": validation, "Test": test}
    if train < 1 or min(counts.values()) < 0 or sum(counts.values()) > 9999:
        raise OctkitError(f"phantom: found {train} training, {validation} validation and {test} test scans, expected "
                          "at least 1 training scan, none below 0, and at most 9999 in all")
    if seed < 0:
        raise OctkitError(f"phantom seed: found {seed}, expected 0 or more")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OctkitError(f"{out}: already exists, expected a new or an empty folder")
    making = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        making.mkdir(parents=True)
        _write(making, counts, size, seed, um_per_px)
        if out.exists():
            out.rmdir()
        os.replace(making, out)
    except OSError as error:
        raise OctkitError(f"{out}: cannot be written ({error})") from error
    finally:
        shutil.rmtree(making, ignore_errors=True)


def make_once(out: str | Path, train: int, validation: int, test: int, size: tuple[int, int], seed: int) -> None:
    """Make the data set unless `out` holds it already; raises OctkitError where it holds another one."""
    out = Path(out)
    if not out.exists():
        make_dataset(out, train, validation, test, size, seed)
        return
    if not (out / "phantom.json").exists():
        return  # scans of the user's own: phantoms are only a stand-in for them
    made = read_json(out / "phantom.json")
    splits = [fact["split"] for fact in made["scans"].values()]
    counts = {split: splits.count(split) for split in ("Train", "Validation", "Test")}
    found = {"seed": made["seed"], "size": made["size"], **counts}
    wanted = {"seed": seed, "size": list(size), "Train": train, "Validation": validation, "Test": test}
    if found != wanted:
        raise OctkitError(f"{out}: holds phantoms of {found}, but the settings ask for {wanted}; "
                          "delete it or set another data.dir")


def _write(root: Path, counts: dict[str, int], size, seed: int, um_per_px) -> None:
    facts, truth, number = {}, {}, 0
    progress = tqdm(total=sum(counts.values()), desc="phantoms", unit="scan", leave=False, mininterval=1)
    for split_number, (split, count) in enumerate(counts.items()):
        labels = {}
        for index in range(count):
            number += 1
            phantom = draw((seed, split_number, index), size, um_per_px, _has_glaucoma(seed, split_number, index))
            name = f"{number:04d}.png"
            write_png(root / split / "Image" / name, phantom.image)
            masks = root / ("Train/Layer_Masks" if split == "Train" else "Truth/Layer_Masks")
            write_mask(masks / name, phantom.mask, GOALS_GREYS)
            labels[number] = int(phantom.glaucoma)
            facts[name] = {"split": split, "glaucoma": int(phantom.glaucoma), "eye": phantom.eye,
                           "rnfl_um": round(phantom.rnfl_um, 2)}
            progress.update()
        if split == "Train":
            _write_labels(root / "Train" / "Train_GC_GT.xlsx", labels)
        else:
            truth |= labels
    progress.close()
    if truth:
        _write_labels(root / "Truth" / "GC_GT.xlsx", truth)
    asked = {"seed": seed, "size": list(size), "um_per_px": list(um_per_px)}
    made_by = {"versions": {"octkit": __version__, "numpy": np.__version__}}
    write_json(root / "scale.json", {"um_per_px": list(um_per_px)})
    write_json(root / "phantom.json", asked | made_by | {"scans": facts})


def _has_glaucoma(seed: int, split: int, index: int) -> bool:
    # One of each pair: half of any split, whatever its length.
    first = np.random.default_rng((seed, split, index // 2, 1)).random() < 0.5
    return bool(first == (index % 2 == 0))


def _write_labels(path: Path, labels: dict[int, int]) -> None:
    """A label table as xlsx, without the times that Excel files carry: equal labels are equal bytes."""
    from openpyxl import Workbook

    book = Workbook()
    book.active.append(("ImgName", "GC_Label"))
    for row in labels.items():
        book.active.append(row)
    buffer = io.BytesIO()
    book.save(buffer)
    with zipfile.ZipFile(buffer) as dated, zipfile.ZipFile(path, "w") as timeless:
        for entry in dated.infolist():
            content = re.sub(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", b"2000-01-01T00:00:00Z", dated.read(entry))
            timeless.writestr(zipfile.ZipInfo(entry.filename), content, zipfile.ZIP_DEFLATED)
