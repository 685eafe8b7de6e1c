"""What a data set is made of: cases with their images and masks, 2-D scans and volumes alike.

Images are (channels, *spatial) float32 as stored (0..255), masks (*spatial) uint8 labels with 0 for background;
spatial is (rows, A-scans), for volumes (B-scans, rows, A-scans).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from octkit.common.errors import bad_file
from octkit.data import volume_files
from octkit.data.device_files import READERS
from octkit.data.geometry import AS_STORED
from octkit.data.image_files import FORMATS, is_image, read_header, read_image, read_mask
from octkit.data.mask_values import check_size
from octkit.data.volume_files import NIFTI_ENDINGS, b_scans, is_nifti, read_volume, read_volume_mask, volume_size


@dataclass(frozen=True)
class Case:
    """One scan: where its files lie and what is known of it.

    `image` is a 2-D image, a NIfTI file or a folder of B-scans; `more_channels` are the files of further channels, but
    for a colour image, which holds three by itself.
    `spacing` is in mm per axis and None where the scale is unknown; `eye` is "R", "L" or None; `circle` says that the
    last A-scan is the neighbour of the first; `glaucoma` is 1, 0 or None. `mask_values` is the coding of this case's
    mask where it is not the data set's. `truth` is the true mask of a validation or test scan, for scoring alone.
    `group` is the person, None where nobody says who: then the scan is a group of its own.
    """

    name: str
    image: Path
    mask: Path | None = None
    glaucoma: int | None = None
    spacing: tuple[float, ...] | None = None
    eye: str | None = None
    circle: bool = False
    more_channels: tuple[Path, ...] = ()
    mask_values: Mapping[int, int] | None = None
    truth: Path | None = None
    group: str | None = None

    @property
    def person(self) -> str:
        """Who it is, for whatever keeps scans of one person together: the group, or one that this scan alone makes."""
        return f"person {self.group}" if self.group else f"scan {self.name}"


@dataclass(frozen=True)
class Dataset:
    """The cases of a data set by split, and how its files are to be read.

    `labels` are the foreground names (label 1 first); `mask_values` maps the values in mask files to labels. `extra`
    are training cases from other data sets, which no fold validates on.
    """

    name: str
    root: Path
    layout: str
    labels: tuple[str, ...]
    channels: tuple[str, ...]
    mask_values: dict[int, int]
    train: tuple[Case, ...]
    validation: tuple[Case, ...] = ()
    test: tuple[Case, ...] = ()
    extra: tuple[Case, ...] = ()

    @property
    def splits(self) -> dict[str, tuple[Case, ...]]:
        """The data set's own cases by split; extra ones are in none."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def cases(self) -> tuple[Case, ...]:
        """The data set's own cases, of all splits."""
        return self.train + self.validation + self.test

    @property
    def training(self) -> tuple[Case, ...]:
        """All cases to learn from: the data set's own and the extra ones."""
        return self.train + self.extra

    @property
    def circle(self) -> bool:
        """Whether all training scans are circles."""
        return all(case.circle for case in self.train)

    @property
    def synthetic(self) -> bool:
        """Whether the scans are phantoms, as their phantom.json says."""
        return (self.root / "phantom.json").exists()

    def read_image(self, case: Case) -> np.ndarray:
        """The case's image, (channels, *spatial) float32, values as stored.

        Raises OctkitError where its channels do not fit together, or are not as many as the data set's.
        """
        files, names = (case.image, *case.more_channels), self.channels
        if 1 < len(files) != len(names):
            raise bad_file(case.image, f"found {len(files)} channels", f"expected {len(names)} ({', '.join(names)})")
        return read_channels(files, len(names))

    def read_truth(self, case: Case) -> np.ndarray | None:
        """The true mask of a validation or test case, (*spatial) uint8 labels; None where there is none."""
        return None if case.truth is None else read_scan_mask(case.truth, self.mask_values, case.image)

    def read_mask(self, case: Case) -> np.ndarray:
        """The case's mask, (*spatial) uint8 labels; it must fit its image and hold known values alone."""
        if case.mask is None:
            raise bad_file(case.image, "this case has no mask", "expected one for a training case")
        return read_scan_mask(case.mask, case.mask_values or self.mask_values, case.image)


def is_volume(path: Path) -> bool:
    """Whether a path holds a volume's file formats: NIfTI (also of one slice), or a folder of B-scans."""
    return is_nifti(path) or (Path(path).is_dir() and not is_image(path))


def scan_name(path: Path) -> str:
    """The name of a scan: its file's without the ending, "0001" for 0001.png, 0001.nii.gz and the folder 0001."""
    name = Path(path).name
    for ending in (*NIFTI_ENDINGS, *FORMATS, *READERS):
        if name.lower().endswith(ending):
            return name[:-len(ending)]
    return name


def scan_size(path: Path) -> tuple[int, ...]:
    """Pixels an axis of a 2-D image or a volume, from headers alone."""
    return volume_size(path) if is_volume(path) else read_header(path).size


def fit(path: Path, like: Path) -> np.ndarray:
    """How a mask, a channel or a prediction is turned onto the pixels of the scan `like`: as `volume_files.fit`.

    From headers alone. Raises OctkitError, which names both files, where they do not have the same pixels.
    """
    if is_volume(path) and is_volume(like):
        return volume_files.fit(path, like)
    check_size(path, scan_size(path), scan_size(like), like)
    return AS_STORED


def order_in_doubt(path: Path, like: Path) -> str:
    """What should be looked at where a volume `fit`s the volume `like`: half a sentence about the first, or "".

    A folder of B-scans cannot say from which end it is stored: beside a NIfTI file that states a turned order it is
    right where one was made from the other, and else wrong.
    """
    if not (is_volume(path) and is_volume(like)):
        return ""
    if (fit(path, like) != AS_STORED).any():
        return (f"stores its voxels in another order than {like}: it is turned by the two headers, and lengths are "
                "measured along the rows of that file")
    stated = [volume_files.stated_way(scan) for scan in (path, like) if is_nifti(scan)]
    if len(stated) == 1 and (stated[0] != AS_STORED).any():
        return (f"is taken beside {like} in the order of their files: only one of the two states where its voxels lie, "
                "and that in a turned order")
    return ""


def is_lossy(path: Path) -> bool:
    """Whether a scan's compression has changed its grey values; of volumes those of B-scans as images can be."""
    return any(read_header(file).lossy for file in (b_scans(path) if path.is_dir() else filter(is_image, [path])))


def read_scan(path: Path, like: Path | None = None, channels: int = 1) -> np.ndarray:
    """A 2-D image or a volume, (channels, *spatial) float32: a volume has one channel, a colour image three.

    Voxels come as stored, or turned onto those of the scan `like`. Raises OctkitError as its reader, as `fit`, and for
    another number of channels.
    """
    way = AS_STORED if like is None else fit(path, like)
    if not is_volume(path):
        return read_image(path, channels)
    if channels != 1:
        raise bad_file(path, "found 1 channels", f"expected {channels}")
    return read_volume(path, way)


def read_channels(files: Sequence[Path], channels: int) -> np.ndarray:
    """A scan of one file that holds all channels, or of one for each: (channels, *spatial) float32, as `read_scan`."""
    first, *more = files
    if not more:
        return read_scan(first, channels=channels)
    return np.concatenate([read_scan(first), *(read_scan(file, first) for file in more)])


def read_scan_mask(path: Path, values: Mapping[int, int], like: Path | None = None) -> np.ndarray:
    """A mask of a 2-D image or a volume as labels, (*spatial) uint8, as stored or on the pixels of the scan `like`.

    `values` maps the file's values to labels. Raises OctkitError as its reader and as `fit`.
    """
    way = AS_STORED if like is None else fit(path, like)
    return read_volume_mask(path, values, way) if is_volume(path) else read_mask(path, values)


