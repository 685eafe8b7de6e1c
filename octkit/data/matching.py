"""What lies in a data set's folders: scans and masks by name, and whether they belong together.

Each problem goes to `report`, and the rest is looked at where that returns: opening a data set raises the first
problem, the doctor collects all.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from octkit.common.errors import Report, bad_file, refuse, tried
from octkit.common.files import listing
from octkit.data.dataset import Dataset, fit, is_volume, scan_name
from octkit.data.image_files import IMAGE_KINDS, OVERLAY, is_image, list_images, read_header
from octkit.data.volume_files import SPACING_FILE, is_nifti, is_stack, no_spacing

KINDS = f"{IMAGE_KINDS}, NIfTI files or folders of B-scans with their {SPACING_FILE}"


def scans_in(folder: Path, masks: bool = False, also: tuple[str, ...] = (), report: Report = refuse) -> dict[str, Path]:
    """The scans of a folder in the order of their names: name -> 2-D image, NIfTI file or folder of B-scans.

    `also` are endings of further files to take (".vol"); all others are passed over. Folders of B-scans need their
    spacing.json, but for `masks`. Raises OctkitError for a folder that is missing or holds no scan. Reports B-scans
    without spacing, and two files of one name (0001.png and 0001.nii.gz).
    """
    scans = []
    for path in listing(folder, f"one of {KINDS}"):
        if is_nifti(path) or path.suffix.lower() in also or _is_image_file(path):
            scans.append(path)
        elif path.is_dir() and any(map(_is_image_file, tried(report, listing, path, "B-scans") or ())):
            if not masks and not is_stack(path):
                report(no_spacing(path))
            scans.append(path)
    if not scans:
        raise bad_file(folder, "found no scan in this folder", f"expected {KINDS}")
    return dict(sorted(by_name(scans, report).items()))


def scans_found(folder: Path, masks: bool, report: Report) -> dict[str, Path]:
    """As `scans_in`, but all problems are reported: empty where there is no scan."""
    return tried(report, scans_in, folder, masks, (), report) or {}


def channel_of(name: str) -> tuple[str, int]:
    """The case and the channel that a scan's name tells as nnU-Net's do: CASE and 1 for CASE_0001; -1 if it tells none.
    """
    found = re.fullmatch(r"(.+)_(\d{4})", name, re.ASCII)
    return (found[1], int(found[2])) if found else (name, -1)


def by_channel(files: Sequence[Path], channels: int) -> list[tuple[Path, ...]]:
    """The files of each scan of so many channels: CASE_0000, CASE_0001, … are one scan, as in nnU-Net's folders.

    Files of other names, device files and colour images, which hold all channels by themselves, are a scan each. Raises
    OctkitError for a channel that is not there, or does not fit the first one, and for colour images that are named as
    all channels of a scan are: they may be meant as either.
    """
    scans: list[tuple[Path, ...]] = []
    numbered: dict[str, dict[int, Path]] = {}
    for file in files:
        name, channel = channel_of(scan_name(file))
        if channels == 1 or channel < 0 or not (is_image(file) or is_volume(file)):
            scans.append((file,))
        else:
            numbered.setdefault(name, {})[channel] = file
    for name, one in numbered.items():
        whole = set(one) == set(range(channels))
        if all(is_image(file) and read_header(file).colours == channels for file in one.values()):
            if whole:
                raise bad_file(one[0], f"is a colour image, and named as one of the {channels} channels of {name}",
                               "expected grey images for channels, or other names for colour images")
            scans += [(file,) for file in one.values()]
            continue
        if not whole:
            raise bad_file(next(iter(one.values())), f"found the channels {sorted(one)} of {name}",
                           f"expected {channels} files, {name}_0000 to {name}_{channels - 1:04d}, in one folder")
        for channel in range(1, channels):
            fit(one[channel], one[0])
        scans.append(tuple(one[channel] for channel in range(channels)))
    place = {file: number for number, file in enumerate(files)}
    return sorted(scans, key=lambda one: place[one[0]])


def true_masks(folder: Path, report: Report = refuse) -> dict[str, Path]:
    """The true masks of validation and test scans by name; none where there is no such folder."""
    return scans_found(folder, True, report) if folder.is_dir() else {}


def images_in(folder: Path, report: Report = refuse) -> dict[str, Path]:
    """The image files of a folder by name. Reports a folder without any, and two of one name (1.png and 1.jpg)."""
    return by_name(tried(report, list_images, folder) or (), report)


def check_pairs(images: Mapping[str, Path], masks: Mapping[str, Path], report: Report = refuse) -> None:
    """Each image has its mask, each mask its image, and both fit together; headers alone are read.

    Reports every file for which this does not hold. Without any image or mask nothing is checked.
    """
    if not images or not masks:  # that their folder is empty has been reported
        return
    for name, image in images.items():
        if name not in masks:
            where = next(iter(masks.values())).parent
            report(bad_file(image, "has no mask", f"expected one named {name} in {where}"))
    for name, mask in masks.items():
        if name not in images:
            where = next(iter(images.values())).parent
            report(bad_file(mask, "has no image", f"expected one named {name} in {where}"))
            continue
        tried(report, fit, mask, images[name])


def refuse_doubled_names(dataset: Dataset, report: Report = refuse) -> None:
    """Reports cases of a data set, of whatever split, that have the name of another."""
    seen: dict[str, Path] = {}
    for case in dataset.cases + dataset.extra:
        if (first := seen.setdefault(case.name, case.image)) != case.image:
            report(bad_file(case.image, f"{first} has the same name", "expected each name once: rename one"))


def by_name(files: Iterable[Path], report: Report = refuse) -> dict[str, Path]:
    """Scans or masks by name; reports two of one name, and one whose mask would take a picture's place."""
    found: dict[str, Path] = {}
    for path in files:
        if f"{scan_name(path)}.png".lower().endswith(OVERLAY):
            report(bad_file(path, f"is named as the pictures beside masks are ({OVERLAY})", "expected another name"))
        if (first := found.setdefault(scan_name(path), path)) != path:
            report(bad_file(path, f"{first.name} has the same name", "expected each name once: rename one"))
    return found


def _is_image_file(path: Path) -> bool:
    return is_image(path) and path.is_file()
