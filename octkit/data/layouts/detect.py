"""Folders on disk -> Dataset: which of the known layouts a folder has, the data sets of a run, scans to predict.

Each layout has a module that opens it and says what lies where: `goals`, `semseg` (copies of GOALS), `volumes`,
`nnunet` (its raw data) and `mgunet`. data/README.md shows them all.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from octkit.common import settings
from octkit.common.errors import OctkitError, Report, bad_file, no_file, refuse
from octkit.common.files import links_inside
from octkit.data import device_files
from octkit.data.dataset import Case, Dataset, scan_size
from octkit.data.device_files import IN_FOLDERS, NOT_READ, is_device_file
from octkit.data.groups import refuse_known_people, with_groups
from octkit.data.image_files import is_image
from octkit.data.layouts.goals import open_goals
from octkit.data.layouts.mgunet import open_mgunet
from octkit.data.layouts.nnunet import open_raw
from octkit.data.layouts.semseg import open_semseg
from octkit.data.layouts.volumes import open_volumes
from octkit.data.matching import KINDS, by_name, refuse_doubled_names, scans_in
from octkit.data.volume_files import is_nifti, is_stack

# The folder that no other layout has -> whose layout it is, and what opens it.
LAYOUTS: dict[str, tuple[str, Callable[[Path, Report], Dataset]]] = {
    "Train/Layer_Masks": ("GOALS", open_goals),
    "Train/Mask": ("volumes", open_volumes),
    "imagesTr": ("nnU-Net raw data", open_raw),
    "train/img": ("MGU-Net", open_mgunet),
    **dict.fromkeys(("semseg", "train/semseg", "Train/semseg"), ("a copy of GOALS", open_semseg)),
}


def open_dataset(path: str | Path, report: Report = refuse) -> Dataset:
    """Find out which layout a folder has, open it, and check that its parts fit together.

    Reads folders, headers and tables, no pixels. Raises OctkitError for a folder of no layout or of two. Reports
    symbolic links that leave the folder, and files that are missing, doubled, of another size, or without their
    counterpart: the first one is raised, if `report` does not collect them.
    """
    root = Path(path)
    looked_for = ", ".join(f"{folder} ({name})" for folder, (name, _) in LAYOUTS.items())
    if not root.is_dir():
        raise bad_file(root, "no such folder", "expected a data set")
    try:
        found = [folder for folder in LAYOUTS if (root / folder).is_dir()]
        # One layout may be found twice: where capitals make no difference, train/semseg is Train/semseg.
        if not found and (near := _near(root)):
            raise bad_file(root, "found no data set", f"expected the folder of one, such as {', '.join(near[:3])}")
        if len({LAYOUTS[folder] for folder in found}) != 1:
            raise bad_file(root, f"found {' and '.join(found) or 'no data set'}",
                           f"expected one of the folders {looked_for}")
        for link in links_inside(root, report, hidden=False):
            if not link.exists():
                report(no_file(link, "a file"))
        dataset = LAYOUTS[found[0]][1](root, report)
        refuse_doubled_names(dataset, report)
        return with_groups(dataset, report)
    except OSError as error:  # a folder without the right to look into it, a disk that fails
        raise bad_file(error.filename or root, f"cannot be read ({error.strerror})",
                       "expected a data set that you may read") from None


def _near(root: Path) -> list[str]:
    """The data sets in a folder, or the one that it lies in: a download may be unpacked a folder deeper."""
    around = {hit.parents[folder.count("/")] for folder in LAYOUTS for hit in root.glob(f"*/{folder}")}
    around |= {root.parent for folder in LAYOUTS if (root.parent / folder).is_dir()}
    return sorted(map(str, around))


def open_run(chosen: settings.Settings) -> Dataset:
    """The data set of a run, with the labelled cases of `train.extra_data` as `extra`, named "<folder>_<case>".

    Raises OctkitError for extra data that is the run's own, has other labels, channels or axes, whose names collide
    with others, or that shows people of the run's own data.
    """
    own = open_dataset(chosen.data.root)
    roots, extra = [own.root.resolve()], []
    for folder in chosen.train.extra_data:
        more = open_dataset(settings.PROJECT / folder)
        if more.root.resolve() in roots:
            raise OctkitError(f"{more.root}: stands twice among data.dir and train.extra_data, expected each data set "
                              "once")
        roots.append(more.root.resolve())
        extra += (cases := _extra_cases(own, more))
        refuse_known_people(own, cases, more.root)
    dataset = replace(own, extra=tuple(extra))
    refuse_doubled_names(dataset)
    return dataset


def list_scans(path: str | Path) -> tuple[Path, ...]:
    """The scans to predict, by name: an image, a NIfTI or device's file, a folder of B-scans, a folder of these.

    Raises OctkitError for a path that is none of them, B-scans without spacing.json, two scans of one name, and links
    that lead out of the folder.
    """
    path = Path(path)
    if not path.exists():
        raise OctkitError(f"{path}: no such file or folder, expected {KINDS}")
    if path.is_file() and not (is_nifti(path) or is_image(path) or is_device_file(path)):
        raise OctkitError(f"{path}: {NOT_READ.get(path.suffix.lower(), 'is no scan')}; expected {device_files.KINDS}, "
                          f"{KINDS}")
    links_inside(path, hidden=False)
    found = by_name([path]) if path.is_file() or is_stack(path) else scans_in(path, also=IN_FOLDERS)
    return tuple(found.values())


def _extra_cases(own: Dataset, more: Dataset) -> list[Case]:
    """The labelled cases of `more`; their `mask_values` give the labels of `own` of the same names."""
    if set(more.labels) != set(own.labels):
        raise OctkitError(f"{more.root}: found the labels {', '.join(more.labels)}, expected {', '.join(own.labels)} "
                          f"like {own.root}")
    if len(more.channels) != len(own.channels):
        raise OctkitError(f"{more.root}: found {len(more.channels)} channels, expected {len(own.channels)} like "
                          f"{own.root}")
    axes = len(scan_size(own.train[0].image))
    labelled = [case for case in more.cases if case.mask is not None]
    for case in labelled:
        if len(found := scan_size(case.image)) != axes:
            raise OctkitError(f"{case.image}: found {len(found)} axes, expected {axes} like the scans of {own.root}")
    ours = {theirs: own.labels.index(name) + 1 for theirs, name in enumerate(more.labels, start=1)}
    coding = {value: ours.get(label, label) for value, label in more.mask_values.items()}
    return [replace(case, name=f"{more.root.name}_{case.name}", mask_values=coding) for case in labelled]
