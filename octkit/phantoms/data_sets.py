"""Whole data sets of phantoms on disk: circle scans in the GOALS layout, volumes as NIfTI in the volumes layout.

About half of the scans of each split have glaucoma. Beside the layout: phantom.json (what was asked for, and what each
eye is), groups.csv (whose eye it is), and Truth/ with the masks of the validation and test scans, for evaluation alone.
The i-th scan of a split depends on (seed, split, i) only, so that a larger set begins with the smaller one.

Circle scans come from people as GOALS's do (300 scans of 99 eyes of 66 people): 27 in a row are of 6 people, half of
them with both eyes, and of each eye three. Nobody is in two splits. Each volume is of a person of its own.
"""

import io
import os
import re
import shlex
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from octkit import __version__
from octkit.common.errors import OctkitError, bad_file
from octkit.common.files import new_folder, read_json_as, write_atomic, write_csv, write_json
from octkit.common.settings import PROJECT, PhantomSettings
from octkit.data.groups import COLUMNS, GROUPS_FILE
from octkit.data.image_files import write_mask, write_png
from octkit.data.labels import GOALS_GREYS, LAYERS
from octkit.data.volume_files import write_nifti
from octkit.phantoms import circle_scans, volume_scans
from octkit.phantoms.circle_scans import CirclePhantom
from octkit.phantoms.volume_eye import WINDOWS
from octkit.phantoms.volume_scans import VolumePhantom

KINDS = ("circle", *WINDOWS)
SPLITS = ("Train", "Validation", "Test")
NAMED = "OCTKIT_PHANTOMS"  # in the environment: the folder that this run's caller has named


@dataclass(frozen=True)
class _Made:
    """What phantom.json tells of a set. Those made before there was a choice are circles of one device."""

    seed: int
    size: tuple[int, ...]
    scans: dict[str, dict[str, Any]]
    kind: str = "circle"
    looks: str = "spectralis"


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


def make_data_set(out: str | Path, counts: tuple[int, int, int], size: tuple[int, ...], seed: int = 0,
                  kind: str = "circle", looks: str = "spectralis", repeated: bool = True) -> None:
    """Write a data set to the folder `out`, whole or not at all. `counts`: training, validation and test scans.

    `kind` "circle", "macular" or "peripapillary"; `size` (H, W) or (B, H, W). A data set of circle scans has one scale,
    in scale.json. Where the `looks` are "varied" each scan has its own (in phantom.json), scale.json is left out, and
    lengths stay in px. Without `repeated` each circle scan is of a person of its own, and there is no groups.csv.
    Raises OctkitError for a kind, looks, size, counts or seed that cannot be, and where `out` exists and is not empty.
    """
    out = Path(out).resolve()
    common = _checked(kind, size, looks)
    if counts[0] < 1 or min(counts) < 0 or sum(counts) > 9999:
        raise OctkitError("phantom: found {} training, {} validation and {} test scans, expected at least 1 training "
                          "scan, none below 0, and at most 9999 in all".format(*counts))
    if seed < 0:
        raise OctkitError(f"phantom seed: found {seed}, expected 0 or more")
    if out.exists():
        if not out.is_dir() or any(out.iterdir()):
            raise OctkitError(f"{out}: already exists, expected a new or an empty folder")
        out.rmdir()
    planned = [(name, (seed, split, index)) for split, name in enumerate(SPLITS) for index in range(counts[split])]
    scans: dict[str, dict[str, Any]] = {}
    with new_folder(out) as making:
        for split, scan_seed in tqdm(planned, "phantoms", unit="scan", leave=False, mininterval=1):
            person = person_of(scan_seed[2]) if kind == "circle" and repeated else None
            glaucoma = has_glaucoma(seed, scan_seed[1], person[0] if person else scan_seed[2])
            phantom = _drawn(scan_seed, size, kind, glaucoma, looks, person)
            name, facts = _write_scan(making, split, len(scans) + 1, phantom, own_scale=looks == "varied")
            scans[name] = {"split": split, "glaucoma": int(glaucoma)} | facts
            if person:
                scans[name]["person"] = f"{seed}-{split.lower()}-{person[0] + 1}"
        if kind == "circle" and repeated:
            write_csv(making / GROUPS_FILE, COLUMNS,
                      [(name, facts["person"], facts["eye"]) for name, facts in scans.items()])
        if kind == "circle":
            _write_labels(making / "Train" / "Train_GC_GT.xlsx", scans, ("Train",))
            _write_labels(making / "Truth" / "GC_GT.xlsx", scans, ("Validation", "Test"))
            if common["um_per_px"]:
                write_json(making / "scale.json", common)
        else:
            write_json(making / "labels.json", {"labels": list(LAYERS)})
        asked = {"kind": kind, "seed": seed, "size": list(size), "looks": looks} | common
        made_by = {"versions": {"octkit": __version__, "numpy": np.__version__}}
        write_json(making / "phantom.json", asked | made_by | {"scans": scans})


def make_unless_there(out: str | Path, wanted: PhantomSettings | None) -> None:
    """Make the data set that the settings ask for, if any, unless `out` holds it already.

    Raises OctkitError where it holds other phantoms, and as `check_place`. The user's own scans stay as they are.
    """
    if wanted is None:
        return
    out = Path(out)
    counts = (wanted.train, wanted.validation, wanted.test)
    if not out.exists():
        check_place(out, wanted)
        make_data_set(out, counts, wanted.size, wanted.seed, wanted.kind, wanted.looks)
        return
    if not (out / "phantom.json").exists():
        return  # the user's own scans; phantoms are only a stand-in
    made = read_json_as(out / "phantom.json", _Made, "delete its folder to make the phantoms anew")
    splits = [scan.get("split") for scan in made.scans.values()]
    found, asked = ({"kind": source.kind, "looks": source.looks, "seed": source.seed, "size": list(source.size),
                     **dict(zip(SPLITS, numbers, strict=True))}
                    for source, numbers in ((made, map(splits.count, SPLITS)), (wanted, counts)))
    if found != asked:
        raise bad_file(out, f"holds phantoms of {found}, but the settings ask for {asked}",
                       "delete it or set another data.dir")


def check_place(out: Path, wanted: PhantomSettings) -> None:
    """Raise OctkitError where phantoms would be made outside of the project, in a folder that settings.json names.

    The file may be somebody else's. A folder that a command or a script has named (`NAMED`) is the user's wish.
    """
    mine = Path(os.path.abspath(out)).is_relative_to(PROJECT) or os.environ.get(NAMED) == str(out)
    if not out.exists() and not mine:
        raise bad_file(out, "is not there, and no phantoms are made outside of the project because a file says so",
                       f"if you want them there: octkit phantom {shlex.quote(str(out))} --kind {wanted.kind} --train "
                       f"{wanted.train} --val {wanted.validation} --test {wanted.test} --size "
                       f"{'x'.join(map(str, wanted.size))} --seed {wanted.seed} --looks {wanted.looks}")


def _checked(kind: str, size: tuple[int, ...], looks: str) -> dict[str, list[float] | None]:
    """What the scans of a set have in common: um per px of circle scans, None if they differ; spacing of volumes."""
    if kind not in KINDS:
        raise OctkitError(f"phantom kind: found {kind!r}, expected one of {', '.join(KINDS)}")
    if kind == "circle":
        height, width = size
        circle_scans.check((height, width), looks)
        return {"um_per_px": None if looks == "varied" else list(circle_scans.scale_of((height, width)))}
    volume_scans.check(size, kind, looks)
    return {"spacing": list(volume_scans.spacing_of(size))}


def _drawn(seed: tuple[int, ...], size: tuple[int, ...], kind: str, glaucoma: bool,
           looks: str, person: tuple[int, bool] | None) -> CirclePhantom | VolumePhantom:
    if kind == "circle":
        (height, width), who = size, person and (*seed[:2], person[0], 2)
        return circle_scans.draw(seed, (height, width), glaucoma, looks, who, bool(person and person[1]))
    b_scans, height, width = size
    return volume_scans.draw_volume(seed, (b_scans, height, width), kind, glaucoma, looks)


def _write_scan(root: Path, split: str, number: int, phantom: CirclePhantom | VolumePhantom,
                own_scale: bool) -> tuple[str, dict[str, Any]]:
    """Write a scan and its mask; returns its file name and what is to be known of it."""
    facts: dict[str, Any] = {"eye": phantom.eye}
    images, masks = root / split / "Image", root / ("Train" if split == "Train" else "Truth")
    if isinstance(phantom, VolumePhantom):
        name = f"{number:04d}.nii.gz"
        write_nifti(images / name, phantom.image, phantom.spacing)
        write_nifti(masks / "Mask" / name, phantom.mask, phantom.spacing)
        return name, facts
    name = f"{number:04d}.png"
    write_png(images / name, phantom.image)
    write_mask(masks / "Layer_Masks" / name, phantom.mask, GOALS_GREYS)
    facts["rnfl_um"] = round(phantom.rnfl_um, 2)
    if own_scale:
        facts["um_per_px"] = [round(scale, 4) for scale in phantom.um_per_px]
    return name, facts


def person_of(index: int) -> tuple[int, bool]:
    """Whose the i-th scan of a split is: the number of the person, and whether it is of the fellow eye.

    First one scan of each of 6 people, then one of the fellow eye of three of them, then all nine eyes twice more.
    """
    block, eye = index // 27, index % 9
    return 6 * block + eye % 6, eye >= 6


def has_glaucoma(seed: int, split: int, index: int) -> bool:
    """Whether a person of a data set has glaucoma, in both eyes: one of each pair, half of any split."""
    first = np.random.default_rng((seed, split, index // 2, 1)).random() < 0.5
    return bool(first == (index % 2 == 0))


def _write_labels(path: Path, scans: dict[str, dict[str, Any]], splits: tuple[str, ...]) -> None:
    """A table of who has glaucoma, as xlsx, without the times that Excel files carry: equal labels are equal bytes."""
    from openpyxl import Workbook

    rows = [(int(name[:-4]), facts["glaucoma"]) for name, facts in scans.items() if facts["split"] in splits]
    if not rows:
        return
    book, dated, timeless = Workbook(), io.BytesIO(), io.BytesIO()
    for row in (("ImgName", "GC_Label"), *rows):
        book.active.append(row)
    book.save(dated)
    with zipfile.ZipFile(dated) as source, zipfile.ZipFile(timeless, "w") as target:
        for entry in source.infolist():
            content = re.sub(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", b"2000-01-01T00:00:00Z", source.read(entry))
            target.writestr(zipfile.ZipInfo(entry.filename), content, zipfile.ZIP_DEFLATED)
    write_atomic(path, timeless.getvalue())
