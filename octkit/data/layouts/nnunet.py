"""nnU-Net's raw data sets: a folder of images, one of masks, and dataset.json that says what they are.

    dataset.json                    {"channel_names": {"0": "OCT"}, "labels": {"background": 0, "rnfl": 1, …},
                                     "numTraining": 80, "file_ending": ".png"}
    imagesTr/CASE_0000.png          one file a channel: CASE_0001.png would be the second one's; a colour image alone
                                    is three channels
    labelsTr/CASE.png               label numbers; the highest may be called "ignore": pixels that nobody has labelled
    imagesTs/CASE_0000.png          optional, no labels

The format is that of nnU-Net v2 (its documentation/dataset_format.md). 2-D images and NIfTI files are read; the
spacing of images is unknown.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, field_validator

from octkit.common.errors import Report, bad_file, refuse, tried
from octkit.common.files import listing, read_json_as
from octkit.data.dataset import Case, Dataset, fit, is_volume
from octkit.data.image_files import is_image, read_header
from octkit.data.labels import IGNORE, LAYERS
from octkit.data.matching import channel_of, check_pairs
from octkit.data.volume_files import stated_scale


class _Description(BaseModel, strict=True):
    """What octkit reads of dataset.json; other keys are passed over."""

    channel_names: dict[str, str] = Field(min_length=1)
    labels: dict[str, int | list[int]]
    numTraining: int
    file_ending: Literal[".png", ".bmp", ".tif", ".nii.gz", ".nii"]

    @field_validator("channel_names")
    @classmethod
    def _numbered(cls, names: dict[str, str]) -> dict[str, str]:
        if set(names) != {str(number) for number in range(len(names))}:
            raise ValueError('names stand by number: {"0": "OCT", "1": …}')
        return names


def open_raw(root: Path, report: Report = refuse) -> Dataset:
    """Open a raw data set of nnU-Net's and check that its parts fit together.

    Reads folders and headers, no pixels. Raises OctkitError for a dataset.json that does not fit and as `label_names`.
    Reports every file that is missing, doubled, of another size, or without its counterpart.
    """
    where = root / "dataset.json"
    if not where.exists():
        raise bad_file(where, "not found", "expected it beside imagesTr in a raw data set of nnU-Net's")
    described = read_json_as(where, _Description, "expected a dataset.json of nnU-Net v2 for images or NIfTI files")
    labels, ending = label_names(where, described.labels), described.file_ending
    channels = tuple(described.channel_names[str(number)] for number in range(len(described.channel_names)))
    images = _images_in(root / "imagesTr", ending, channels, report)
    masks = {file.name.removesuffix(ending): file for file in _files_in(root / "labelsTr", ending, report)}
    check_pairs({name: files[min(files)] for name, files in images.items()}, masks, report)
    if described.numTraining != len(images):
        report(bad_file(where, f"found numTraining {described.numTraining}", f"expected {len(images)}, the cases in "
                        f"{root / 'imagesTr'}"))
    test = _images_in(root / "imagesTs", ending, channels, report) if (root / "imagesTs").is_dir() else {}
    coding = {number: number for number in range(len(labels) + 1)}
    if "ignore" in described.labels:
        coding[len(coding)] = IGNORE
    return Dataset(root.name, root, "nnunet", labels, channels, coding, _cases(images, masks, report),
                   test=_cases(test, {}, report))


def _cases(images: dict[str, dict[int, Path]], masks: dict[str, Path], report: Report) -> tuple[Case, ...]:
    cases = []
    for name, files in images.items():
        first, *more = (files[number] for number in sorted(files))
        spacing = tried(report, stated_scale, first) if is_volume(first) else None
        cases.append(Case(name, first, masks.get(name), spacing=spacing, more_channels=tuple(more)))
    return tuple(cases)


def label_names(where: Path, numbers: Mapping[str, object]) -> tuple[str, ...]:
    """The names of the labels 1, 2, … in the "labels" of a dataset.json, as LAYERS where they are these in their order.

    "ignore", which stands for pixels without a label, has the highest number and is none of them: no network predicts
    it. Raises OctkitError for regions, and for numbers other than background 0 and 1, 2, … without a gap.
    """
    if regions := [name for name, value in numbers.items() if isinstance(value, list | tuple) and len(value) > 1]:
        raise bad_file(where, f"the label {regions[0]!r} is a region of several values, which octkit does not learn",
                       "expected one number a label: give each part its own; a model of regions stays with nnU-Net")
    by_number = {value: name for name, value in numbers.items() if type(value) is int}  # True would pass for an int
    if len(by_number) < len(numbers) or set(by_number) != set(range(len(numbers))) or by_number.get(0) != "background":
        raise bad_file(where, f"found the labels {numbers}", "expected background 0, others 1, 2, … without a gap")
    if numbers.get("ignore", len(numbers) - 1) != len(numbers) - 1:
        raise bad_file(where, f"found the labels {numbers}", "expected ignore as the last, as nnU-Net does")
    by_number = {value: name for value, name in by_number.items() if name != "ignore"}
    if not 1 < len(by_number) <= 255:
        raise bad_file(where, f"found {len(by_number)} labels", "expected background and 1 to 254 others")
    names = tuple(by_number[number] for number in range(1, len(by_number)))
    return LAYERS if tuple(name.lower() for name in names) == LAYERS else names


def _files_in(folder: Path, ending: str, report: Report) -> list[Path]:
    found = tried(report, listing, folder, f"files *{ending}")
    files = [path for path in found or () if path.name.endswith(ending)]
    if found is not None and not files:
        report(bad_file(folder, f"found no files *{ending}", "which dataset.json names as file_ending"))
    return files


def _images_in(folder: Path, ending: str, channels: tuple[str, ...], report: Report) -> dict[str, dict[int, Path]]:
    """The files of each case by channel; reports channels that are not there or do not fit the first."""
    cases: dict[str, dict[int, Path]] = {}
    for file in _files_in(folder, ending, report):
        name, channel = channel_of(file.name.removesuffix(ending))
        if not 0 <= channel < len(channels):
            report(bad_file(file, "has another name", f"expected a name such as CASE_0000{ending}, with the channel's "
                            f"number from 0000 to {len(channels) - 1:04d}"))
        else:
            cases.setdefault(name, {})[channel] = file
    for name, files in cases.items():
        if list(files) == [0] and len(channels) == 3 and is_image(files[0]):
            header = tried(report, read_header, files[0])
            if header is None or header.colours == 3:
                continue
        for number in range(len(channels)):
            if number not in files:
                report(bad_file(f"{folder / name}_{number:04d}{ending}", "not found", "expected a file for each of "
                                f"{len(channels)} channels ({', '.join(channels)})"))
            elif 0 in files:
                tried(report, fit, files[number], files[0])
    return dict(sorted(cases.items()))
