"""Synthetic circle scans, healthy and with glaucoma, and a whole data set of them in the GOALS layout.

An eye of `anatomy` is put into the frame and painted by `looks`. All of it is periodic along the A-scans. With the
looks "spectralis" all scans come from one kind of device and share one scale; with "varied" eyes go beyond the
norm, each scan has a machine of its own, and, where no scale is given, a scale of its own too.
"""

import io
import math
import os
import re
import shutil
import uuid
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from octkit import __version__
from octkit.common.errors import OctkitError
from octkit.common.files import write_json
from octkit.data.image_files import MAX_PIXELS, write_mask, write_png
from octkit.data.labels import GOALS_GREYS
from octkit.phantoms.circle_eye import CIRCUMFERENCE, draw_eye, place, rasterise
from octkit.phantoms.render import LOOKS, paint

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


def parse_size(text: str | None, kind: str) -> tuple[int, ...]:
    """A size in px from words such as "256x320", for volumes "25x200x256", which None stands for.

    Raises OctkitError for other words.
    """
    usual = "256x320" if kind == "circle" else "25x200x256"
    numbers = (text or usual).split("x")
    plain = all(n.isascii() and n.isdigit() and len(n) < 10 for n in numbers)
    if not plain or len(numbers) != usual.count("x") + 1:
        expected = ("rows x columns such as " if kind == "circle" else "B-scans x rows x columns such as ") + usual
        raise OctkitError(f"--size: found {text!r}, expected {expected}")
    return tuple(map(int, numbers))


def scale_of(size: tuple[int, int]) -> tuple[float, float]:
    """(axial, lateral) um per px for an image of `size` (H, W).

    Up to 487 rows the frame is a crop of a device's, at 3.9 um a row but at least 0.9 mm deep; above, it is the
    whole frame of 1.9 mm. The A-scans share a circle of 3.46 mm diameter.
    """
    return min(max(3.9 * size[0], LEAST_FIELD), FULL_FIELD) / size[0], CIRCUMFERENCE / size[1]


def draw(seed, size: tuple[int, int], um_per_px: tuple[float, float] | None = None, glaucoma: bool = False,
         looks: str = "spectralis") -> Phantom:
    """Draw one scan of `size` (H, W) px; `seed` is whatever numpy's default_rng takes, None excepted.

    `looks` "spectralis" or "varied"; without `um_per_px` the scale is `scale_of(size)`, or drawn around it for
    "varied". Raises OctkitError for looks that do not exist and for a size or a scale that cannot hold an eye.
    """
    size, um_per_px = _checked(size, um_per_px, looks)
    # Separate streams: the pixels' noise depends on the size, the eye and its look must not.
    shape_rng, look_rng, noise_rng, scale_rng = np.random.default_rng(seed).spawn(4)
    varied = looks == "varied"
    if um_per_px is None:
        um_per_px = _drawn_scale(scale_rng, size) if varied else scale_of(size)
    eye = draw_eye(shape_rng, size[1], glaucoma, wide=varied)
    side = str(shape_rng.choice(("R", "L")))
    position, margin = (look_rng.beta(1.1, 1.4), 0.012) if varied else (look_rng.beta(2, 2.6), 0.03)
    boundaries = place(eye, size[0], um_per_px[0], position, margin)
    image = paint(look_rng, noise_rng, boundaries, eye.vessels, um_per_px, size, looks)
    mask = rasterise(boundaries, size[0])
    return Phantom(image, mask, boundaries, bool(glaucoma), side, um_per_px, float(eye.thickness[0].mean()))


def _drawn_scale(rng, size: tuple[int, int]) -> tuple[float, float]:
    """Frames 0.9 to 2.9 mm deep, at 1.9 um a row and more: crops of a device's frame, and scans that were shrunk."""
    shallow = max(LEAST_FIELD, 1.9 * size[0])
    deep = max(shallow, min(2.2 * scale_of(size)[0] * size[0], 2900, 15 * size[0]))
    depth = shallow * (deep / shallow) ** rng.beta(1.2, 1.6)
    return float(depth / size[0]), float(CIRCUMFERENCE * rng.uniform(0.95, 1.05) / size[1])


def _checked(size, um_per_px, looks) -> tuple[tuple[int, int], tuple[float, float] | None]:
    height, width = size
    if looks not in LOOKS:
        raise OctkitError(f"phantom looks: found {looks!r}, expected one of {', '.join(LOOKS)}")
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
    return (int(height), int(width)), None if um_per_px is None else (float(axial), float(lateral))


def make_dataset(out: str | Path, train: int, validation: int, test: int = 0, size: tuple[int, int] = (256, 320),
                 seed: int = 0, um_per_px: tuple[float, float] | None = None, looks: str = "spectralis") -> None:
    """Write a data set of phantoms in the GOALS layout to the folder `out`; half of each split has glaucoma.

    Beside the layout: scale.json, phantom.json (what was asked for, and what each eye is) and Truth/ with the masks
    and labels of the validation and test scans, for evaluation alone. A data set has one scale: where the `looks` are
    "varied" and no `um_per_px` is given, each scan has its own (in phantom.json), scale.json is left out, and lengths
    stay in px. Raises OctkitError for a size or a scale that cannot hold an eye, and as `write_set` does.
    """
    size, um_per_px = _checked(size, um_per_px, looks)
    if um_per_px is None and looks == "spectralis":
        um_per_px = scale_of(size)

    def write_scan(root: Path, split: str, number: int, scan_seed, glaucoma: bool) -> tuple[str, dict]:
        scan = draw(scan_seed, size, um_per_px, glaucoma, looks)
        name = f"{number:04d}.png"
        write_png(root / split / "Image" / name, scan.image)
        write_mask(root / ("Train" if split == "Train" else "Truth") / "Layer_Masks" / name, scan.mask, GOALS_GREYS)
        own_scale = {} if um_per_px else {"um_per_px": [round(scale, 4) for scale in scan.um_per_px]}
        return name, {"eye": scan.eye, "rnfl_um": round(scan.rnfl_um, 2)} | own_scale

    def finish(root: Path, scans: dict[str, dict]) -> None:
        for table, wanted in (("Train/Train_GC_GT.xlsx", ("Train",)), ("Truth/GC_GT.xlsx", ("Validation", "Test"))):
            labels = {int(name[:-4]): fact["glaucoma"] for name, fact in scans.items() if fact["split"] in wanted}
            if labels:
                _write_labels(root / table, labels)
        if um_per_px:
            write_json(root / "scale.json", {"um_per_px": list(um_per_px)})

    asked = {"kind": "circle", "seed": seed, "size": list(size), "looks": looks,
             "um_per_px": um_per_px and list(um_per_px)}
    write_set(out, {"Train": train, "Validation": validation, "Test": test}, seed, asked, write_scan, finish)


def write_set(out: str | Path, counts: dict[str, int], seed: int, asked: dict, write_scan: Callable[..., tuple],
              finish: Callable[[Path, dict], None]) -> None:
    """Write a data set of phantoms of any kind to the folder `out`, whole or not at all.

    `write_scan(root, split, number, seed, glaucoma)` draws a scan, writes its files and returns its file name and what
    is to be known of it; `finish(root, scans)` writes what stands once in a set. phantom.json holds what was `asked`
    for, and the scans. The i-th scan of a split depends on (seed, split, i) only, so that a larger set begins with the
    smaller one. Raises OctkitError where `out` exists and is not empty, and for counts and seeds that cannot be.
    """
    out = Path(out).resolve()
    if counts["Train"] < 1 or min(counts.values()) < 0 or sum(counts.values()) > 9999:
        raise OctkitError(f"phantom: found {counts['Train']} training, {counts['Validation']} validation and "
                          f"{counts['Test']} test scans, expected at least 1 training scan, none below 0, and at most "
                          "9999 in all")
    if seed < 0:
        raise OctkitError(f"phantom seed: found {seed}, expected 0 or more")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OctkitError(f"{out}: already exists, expected a new or an empty folder")
    making = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        making.mkdir(parents=True)
        scans = _write_scans(making, counts, seed, write_scan)
        finish(making, scans)
        made_by = {"versions": {"octkit": __version__, "numpy": np.__version__}}
        write_json(making / "phantom.json", asked | made_by | {"scans": scans})
        if out.exists():
            out.rmdir()
        os.replace(making, out)
    except OSError as error:
        raise OctkitError(f"{out}: cannot be written ({error})") from error
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _write_scans(root: Path, counts: dict[str, int], seed: int, write_scan) -> dict[str, dict]:
    scans = {}
    with tqdm(total=sum(counts.values()), desc="phantoms", unit="scan", leave=False, mininterval=1) as progress:
        for split_number, (split, count) in enumerate(counts.items()):
            for index in range(count):
                glaucoma = _has_glaucoma(seed, split_number, index)
                name, facts = write_scan(root, split, len(scans) + 1, (seed, split_number, index), glaucoma)
                scans[name] = {"split": split, "glaucoma": int(glaucoma)} | facts
                progress.update()
    return scans


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
