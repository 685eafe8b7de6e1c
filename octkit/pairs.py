"""What lies in a data set's folders: scans and masks by name, and whether they belong together."""

from collections.abc import Mapping
from pathlib import Path

from octkit.cases import Dataset, by, is_volume, scan_name, scan_size
from octkit.files import OctkitError
from octkit.volumes import SPACING_FILE, is_nifti, is_stack

KINDS = f"PNG images, NIfTI files or folders of B-scans with their {SPACING_FILE}"


def scans_in(folder: Path, masks: bool = False, also: str = "") -> dict[str, Path]:
    """The scans of a folder in the order of their names: name -> PNG, NIfTI file or folder of B-scans.

    `also` is an ending of further files to take (".vol").

    Other files and folders without PNGs are passed over. Folders of B-scans need their spacing.json, but for
    `masks`: those lie where their image lies. Raises OctkitError for a folder that is missing or holds no scan, for
    B-scans without spacing, and for two files of one name (0001.png and 0001.nii.gz).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise OctkitError(f"{folder}: no such folder, expected one of {KINDS}")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        asked_for = bool(also) and path.suffix.lower() == also
        if path.name.startswith(".") or not (_is_png(path) or is_nifti(path) or _holds_png(path) or asked_for):
            continue
        if path.is_dir() and not masks and not is_stack(path):
            raise OctkitError(f"{path}: found no {SPACING_FILE}, expected it beside a volume's B-scans")
        name = scan_name(path)
        if name in found:
            raise OctkitError(f"{path}: {found[name].name} has the same name, expected each name once")
        found[name] = path
    if not found:
        raise OctkitError(f"{folder}: found no scan in this folder, expected {KINDS}")
    return dict(sorted(found.items()))


def check_pairs(images: Mapping[str, Path], masks: Mapping[str, Path], image_folder: Path, mask_folder: Path) -> None:
    """Each image has its mask, each mask its image, and both are of one size; headers alone are read.

    Raises OctkitError that names the first file for which this does not hold.
    """
    for name, image in images.items():
        if name not in masks:
            raise OctkitError(f"{image}: has no mask, expected one named {name} in {mask_folder}")
    for name, mask in masks.items():
        if name not in images:
            raise OctkitError(f"{mask}: has no image, expected one named {name} in {image_folder}")
        found, expected = scan_size(mask), scan_size(images[name])
        if found != expected:
            unit = "voxels" if is_volume(mask) else "px"
            raise OctkitError(f"{mask}: found a mask of {by(found)} {unit}, expected {by(expected)} {unit} "
                              "like its image")


def refuse_doubled_names(dataset: Dataset) -> None:
    """Raises OctkitError where two cases of a data set, of whatever split, have one name."""
    seen: dict[str, Path] = {}
    for case in dataset.train + dataset.validation + dataset.test + dataset.extra:
        if case.name in seen:
            raise OctkitError(f"{case.image}: {seen[case.name]} has the same name, expected each name once")
        seen[case.name] = case.image


def _is_png(path: Path) -> bool:
    return path.suffix.lower() == ".png" and path.is_file()


def _holds_png(path: Path) -> bool:
    return path.is_dir() and any(_is_png(file) for file in path.iterdir() if not file.name.startswith("."))
