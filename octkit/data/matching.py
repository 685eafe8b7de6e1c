"""What lies in a data set's folders: scans and masks by name, and whether they belong together.

Checks hand each problem that they find to `report`, and go on with the rest where that returns: opening a data set
raises the first one, the doctor collects them.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from octkit.common.errors import Report, bad_file, refuse, tried
from octkit.common.files import listing
from octkit.data.dataset import Dataset, scan_name, scan_size
from octkit.data.mask_values import check_size
from octkit.data.volume_files import SPACING_FILE, is_nifti, is_stack, no_spacing

KINDS = f"PNG images, NIfTI files or folders of B-scans with their {SPACING_FILE}"


def scans_in(folder: Path, masks: bool = False, also: str = "", report: Report = refuse) -> dict[str, Path]:
    """The scans of a folder in the order of their names: name -> PNG, NIfTI file or folder of B-scans.

    `also` is an ending of further files to take (".vol").

    Other files and folders without PNGs are passed over. Folders of B-scans need their spacing.json, but for
    `masks`: those lie where their image lies. Raises OctkitError for a folder that is missing or holds no scan, and
    reports B-scans without spacing, and two files of one name (0001.png and 0001.nii.gz).
    """
    folder = Path(folder)
    scans = []
    for path in listing(folder, f"one of {KINDS}"):
        asked_for = bool(also) and path.suffix.lower() == also
        if not (_is_png(path) or is_nifti(path) or tried(report, _holds_png, path) or asked_for):
            continue
        if path.is_dir() and not masks and not is_stack(path):
            report(no_spacing(path))
        scans.append(path)
    if not scans:
        raise bad_file(folder, "found no scan in this folder", f"expected {KINDS}")
    return dict(sorted(by_name(scans, report).items()))


def true_masks(folder: Path, report: Report = refuse) -> dict[str, Path]:
    """The true masks of validation and test scans by name; none where there is no such folder."""
    return (tried(report, scans_in, folder, True, "", report) or {}) if folder.is_dir() else {}


def by_name(files: Iterable[Path], report: Report = refuse) -> dict[str, Path]:
    """Scans or masks by their names; a second one of a name is reported and left out."""
    found: dict[str, Path] = {}
    for path in files:
        if (name := scan_name(path)) in found:
            report(bad_file(path, f"{found[name].name} has the same name", "expected each name once: rename one"))
        else:
            found[name] = path
    return found


def check_pairs(images: Mapping[str, Path], masks: Mapping[str, Path], image_folder: Path, mask_folder: Path,
                report: Report = refuse) -> None:
    """Each image has its mask, each mask its image, and both are of one size; headers alone are read.

    Reports every file for which this does not hold.
    """
    for name, image in images.items():
        if name not in masks:
            report(bad_file(image, "has no mask", f"expected one named {name} in {mask_folder}"))
    for name, mask in masks.items():
        if name not in images:
            report(bad_file(mask, "has no image", f"expected one named {name} in {image_folder}"))
            continue
        found, expected = tried(report, scan_size, mask), tried(report, scan_size, images[name])
        if found and expected:
            tried(report, check_size, mask, found, expected)


def refuse_doubled_names(dataset: Dataset, report: Report = refuse) -> None:
    """Reports cases of a data set, of whatever split, that have the name of another."""
    seen: dict[str, Path] = {}
    for case in dataset.cases + dataset.extra:
        if case.name in seen:
            report(bad_file(case.image, f"{seen[case.name]} has the same name", "expected each name once: rename one"))
        seen.setdefault(case.name, case.image)


def _is_png(path: Path) -> bool:
    return path.suffix.lower() == ".png" and path.is_file()


def _holds_png(path: Path) -> bool:
    return path.is_dir() and any(map(_is_png, listing(path, "B-scans")))
