"""nnU-Net's raw data sets: a folder of images, one of masks, and dataset.json that says what they are.

    dataset.json                    {"channel_names": {"0": "OCT"}, "labels": {"background": 0, "rnfl": 1, …},
                                     "numTraining": 80, "file_ending": ".png"}
    imagesTr/CASE_0000.png          one file a channel: CASE_0001.png would be the second one's
    labelsTr/CASE.png               label numbers
    imagesTs/CASE_0000.png          optional, no labels

The format is that of nnU-Net v2 (its documentation/dataset_format.md). PNG files and NIfTI files are read; the spacing
of PNG files is unknown.
"""

import re
from pathlib import Path

from octkit.common.errors import Report, bad_file, by, refuse, tried
from octkit.common.files import listing, read_json
from octkit.data.dataset import Case, Dataset, is_volume, scan_size
from octkit.data.labels import LAYERS
from octkit.data.matching import check_pairs, refuse_doubled_names
from octkit.data.volume_files import NIFTI_ENDINGS, volume_spacing

ENDINGS = (".png", *NIFTI_ENDINGS)
KEYS = ("channel_names", "labels", "numTraining", "file_ending")


def open_raw(root: Path, report: Report = refuse) -> Dataset:
    """Open a raw data set of nnU-Net's and check that its parts fit together.

    Label names are kept as they are, but for the three layers in their order, however they are written: those become
    octkit's LAYERS. Reads folders and headers, no pixels. Raises OctkitError for a dataset.json that does not fit and
    for labels that are no plain numbers (regions, "ignore"); reports every file that is missing, doubled, of another
    size, or without its counterpart: the first one is raised where nobody collects them.
    """
    where = root / "dataset.json"
    if not where.exists():
        raise bad_file(where, "not found", "expected it beside imagesTr in a raw data set of nnU-Net's")
    content = read_json(where)
    missing = [key for key in KEYS if key not in content] if isinstance(content, dict) else KEYS
    if missing:
        raise bad_file(where, f"found no {', '.join(missing)}", "expected a dataset.json of nnU-Net v2")
    ending = content["file_ending"]
    if ending not in ENDINGS:
        raise bad_file(where, f"found the file_ending {ending!r}", f"expected one of {', '.join(ENDINGS)}")
    channels, labels = _channels(where, content["channel_names"]), label_names(where, content["labels"])
    images = _images_in(root / "imagesTr", ending, channels, report)
    masks = {file.name.removesuffix(ending): file
             for file in tried(report, _files_in, root / "labelsTr", ending) or ()}
    if images and masks:
        check_pairs({name: files[min(files)] for name, files in images.items()}, masks, root / "imagesTr",
                    root / "labelsTr", report)
    if content["numTraining"] != len(images):
        report(bad_file(where, f"found numTraining {content['numTraining']!r}", f"expected {len(images)}, the cases in "
                        f"{root / 'imagesTr'}"))
    test = _images_in(root / "imagesTs", ending, channels, report) if (root / "imagesTs").is_dir() else {}
    dataset = Dataset(root.name, root, "nnunet", labels, channels, {n: n for n in range(len(labels) + 1)},
                      _cases(images, masks, report), test=_cases(test, {}, report))
    refuse_doubled_names(dataset, report)
    return dataset


def _cases(images: dict[str, dict[int, Path]], masks: dict[str, Path], report: Report) -> tuple[Case, ...]:
    cases = []
    for name, files in images.items():
        first, *more = (files[number] for number in sorted(files))
        spacing = tried(report, volume_spacing, first) if is_volume(first) else None
        cases.append(Case(name, first, masks.get(name), spacing=spacing, more_channels=tuple(more)))
    return tuple(cases)


def _channels(where: Path, found) -> tuple[str, ...]:
    expected = [str(n) for n in range(len(found))] if isinstance(found, dict) and found else None
    if not expected or set(found) != set(expected) or not all(isinstance(name, str) for name in found.values()):
        raise bad_file(where, f"found the channel_names {found!r}", 'expected names by number: {"0": "OCT", "1": …}')
    return tuple(found[number] for number in expected)


def label_names(where: Path, found: object, ignore: bool = False) -> tuple[str, ...]:
    """The names of the labels 1, 2, … in the "labels" of a dataset.json, as LAYERS where they are these in their order.

    `ignore` lets nnU-Net's label "ignore" pass, which stands for pixels without a label: no network predicts it.
    Raises OctkitError for regions, gaps, and what is no label.
    """
    if isinstance(found, dict) and ignore:
        found = {name: value for name, value in found.items() if name != "ignore"}
    if not isinstance(found, dict):
        raise bad_file(where, f"found the labels {found!r}",
                       'expected numbers by name: {"background": 0, "rnfl": 1, …}')
    if regions := [name for name, value in found.items() if isinstance(value, list)]:
        raise bad_file(where, f"the label {regions[0]!r} is a region of several values, which octkit does not learn",
                       "expected one number a label")
    if "ignore" in found:
        raise bad_file(where, "found the label 'ignore' for pixels that nobody labelled, which octkit does not learn "
                       "from", "expected masks that are labelled throughout")
    numbers = [value for value in found.values() if type(value) is int]  # True would pass for an int
    if len(numbers) < len(found) or sorted(numbers) != list(range(len(found))) or found.get("background") != 0:
        raise bad_file(where, f"found the labels {found!r}", "expected background 0, others 1, 2, … without a gap")
    if not 1 < len(found) <= 255:
        raise bad_file(where, f"found {len(found)} labels", "expected background and 1 to 254 others")
    names = tuple(sorted(found, key=found.get))[1:]
    return LAYERS if tuple(name.lower() for name in names) == LAYERS else names


def _files_in(folder: Path, ending: str) -> list[Path]:
    files = [path for path in listing(folder, f"files *{ending}") if path.name.endswith(ending)]
    if not files:
        raise bad_file(folder, f"found no files *{ending}", "which dataset.json names as file_ending")
    return files


def _images_in(folder: Path, ending: str, channels: tuple[str, ...], report: Report) -> dict[str, dict[int, Path]]:
    """The files of each case by channel; reports channels that are not there or not of one size."""
    cases: dict[str, dict[int, Path]] = {}
    for file in tried(report, _files_in, folder, ending) or ():
        parts = re.fullmatch(r"(.+)_(\d{4})", file.name.removesuffix(ending), re.ASCII)
        if parts is None or int(parts[2]) >= len(channels):
            report(bad_file(file, "has another name", f"expected a name such as CASE_0000{ending}, with the channel's "
                            f"number from 0000 to {len(channels) - 1:04d}"))
        else:
            cases.setdefault(parts[1], {})[int(parts[2])] = file
    for name, files in cases.items():
        sizes = {number: tried(report, scan_size, file) for number, file in files.items()}
        for number in range(len(channels)):
            if number not in files:
                report(bad_file(f"{folder / name}_{number:04d}{ending}", "not found", "expected a file for each of "
                                f"{len(channels)} channels ({', '.join(channels)})"))
            elif sizes[number] and sizes.get(0) and sizes[number] != sizes[0]:
                report(bad_file(files[number], f"found {by(sizes[number])} px", f"expected {by(sizes[0])} px like the "
                                "case's first channel"))
    return dict(sorted(cases.items()))
