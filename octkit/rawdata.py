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

from octkit.cases import LAYERS, Case, Dataset, by, is_volume, scan_size
from octkit.files import OctkitError, read_json
from octkit.pairs import check_pairs, refuse_doubled_names
from octkit.volumes import NIFTI_ENDINGS, volume_spacing

ENDINGS = (".png", *NIFTI_ENDINGS)
KEYS = ("channel_names", "labels", "numTraining", "file_ending")


def open_raw(root: Path) -> Dataset:
    """Open a raw data set of nnU-Net's and check that its parts fit together.

    Label names are kept as they are, but for the three layers in their order, however they are written: those become
    octkit's LAYERS. Reads folders and headers, no pixels. Raises OctkitError for a dataset.json that does not fit,
    for labels that are no plain numbers (regions, "ignore"), and for the first file that is missing, doubled, of
    another size, or without its counterpart.
    """
    where = root / "dataset.json"
    if not where.exists():
        raise OctkitError(f"{where}: not found, expected it beside imagesTr in a raw data set of nnU-Net's")
    content = read_json(where)
    missing = [key for key in KEYS if key not in content] if isinstance(content, dict) else KEYS
    if missing:
        raise OctkitError(f"{where}: found no {', '.join(missing)}, expected a dataset.json of nnU-Net v2")
    ending = content["file_ending"]
    if ending not in ENDINGS:
        raise OctkitError(f"{where}: found the file_ending {ending!r}, expected one of {', '.join(ENDINGS)}")
    channels, labels = _channels(where, content["channel_names"]), _labels(where, content["labels"])
    images = _images_in(root / "imagesTr", ending, channels)
    masks = {file.name.removesuffix(ending): file for file in _files_in(root / "labelsTr", ending)}
    check_pairs({name: files[0] for name, files in images.items()}, masks, root / "imagesTr", root / "labelsTr")
    if content["numTraining"] != len(images):
        raise OctkitError(f"{where}: found numTraining {content['numTraining']!r}, expected {len(images)}, the cases "
                          f"in {root / 'imagesTr'}")
    test = _images_in(root / "imagesTs", ending, channels) if (root / "imagesTs").is_dir() else {}
    dataset = Dataset(root.name, root, "nnunet", labels, channels, {n: n for n in range(len(labels) + 1)},
                      tuple(_case(name, files, masks[name]) for name, files in images.items()),
                      test=tuple(_case(name, files) for name, files in test.items()))
    refuse_doubled_names(dataset)
    return dataset


def _case(name: str, files: list[Path], mask: Path | None = None) -> Case:
    spacing = volume_spacing(files[0]) if is_volume(files[0]) else None
    return Case(name, files[0], mask, spacing=spacing, more_channels=tuple(files[1:]))


def _channels(where: Path, found) -> tuple[str, ...]:
    expected = [str(n) for n in range(len(found))] if isinstance(found, dict) and found else None
    if not expected or set(found) != set(expected) or not all(isinstance(name, str) for name in found.values()):
        raise OctkitError(f"{where}: found the channel_names {found!r}, expected names by number: "
                          '{"0": "OCT", "1": …}')
    return tuple(found[number] for number in expected)


def _labels(where: Path, found) -> tuple[str, ...]:
    if not isinstance(found, dict):
        raise OctkitError(f"{where}: found the labels {found!r}, expected numbers by name: "
                          '{"background": 0, "rnfl": 1, …}')
    if regions := [name for name, value in found.items() if isinstance(value, list)]:
        raise OctkitError(f"{where}: the label {regions[0]!r} is a region of several values, which octkit does not "
                          "learn; expected one number a label")
    if "ignore" in found:
        raise OctkitError(f"{where}: found the label 'ignore' for pixels that nobody labelled, which octkit does not "
                          "learn from; expected masks that are labelled throughout")
    numbers = [value for value in found.values() if type(value) is int]  # True would pass for an int
    if len(numbers) < len(found) or sorted(numbers) != list(range(len(found))) or found.get("background") != 0:
        raise OctkitError(f"{where}: found the labels {found!r}, expected background 0, others 1, 2, … without a gap")
    if not 1 < len(found) <= 255:
        raise OctkitError(f"{where}: found {len(found)} labels, expected background and 1 to 254 others")
    names = tuple(sorted(found, key=found.get))[1:]
    return LAYERS if tuple(name.lower() for name in names) == LAYERS else names


def _files_in(folder: Path, ending: str) -> list[Path]:
    if not folder.is_dir():
        raise OctkitError(f"{folder}: no such folder, expected files *{ending}")
    files = sorted(path for path in folder.iterdir() if path.name.endswith(ending) and not path.name.startswith("."))
    if not files:
        raise OctkitError(f"{folder}: found no files *{ending}, which dataset.json names as file_ending")
    return files


def _images_in(folder: Path, ending: str, channels: tuple[str, ...]) -> dict[str, list[Path]]:
    """The files of each case, first channel first; all channels are there and of one size."""
    cases: dict[str, dict[int, Path]] = {}
    for file in _files_in(folder, ending):
        parts = re.fullmatch(r"(.+)_(\d{4})", file.name.removesuffix(ending), re.ASCII)
        if parts is None or int(parts[2]) >= len(channels):
            raise OctkitError(f"{file}: expected a name such as CASE_0000{ending}, with the channel's number from 0000 "
                              f"to {len(channels) - 1:04d}")
        cases.setdefault(parts[1], {})[int(parts[2])] = file
    for name, files in cases.items():
        for number in range(len(channels)):
            if number not in files:
                raise OctkitError(f"{folder / name}_{number:04d}{ending}: not found, expected a file for each of "
                                  f"{len(channels)} channels ({', '.join(channels)})")
            found, expected = scan_size(files[number]), scan_size(files[0])
            if found != expected:
                raise OctkitError(f"{files[number]}: found {by(found)} px, expected {by(expected)} px like the case's "
                                  "first channel")
    return {name: [files[number] for number in range(len(channels))] for name, files in sorted(cases.items())}
