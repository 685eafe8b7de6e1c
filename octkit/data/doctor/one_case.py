"""All that can be wrong with one case's pixels, and the lines in which it is said."""

import hashlib
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from octkit.common.errors import OctkitError, tried
from octkit.common.messages import clean
from octkit.data.anatomy import impossible
from octkit.data.dataset import Case, Dataset, is_lossy, is_volume, order_in_doubt, read_scan_mask
from octkit.data.geometry import odd_axes
from octkit.data.grey_range import GreyRange, grey_range
from octkit.data.image_files import read_header
from octkit.data.labels import IGNORE, LAYERS
from octkit.data.volume_files import b_scans, gap, volume_spacing

ERROR, WARNING = "error", "warning"
# What a failing disk or a file too large for the memory raises; all else that is wrong with a file is an OctkitError.
UNREADABLE = (OSError, EOFError, MemoryError, struct.error, zlib.error)


@dataclass(frozen=True)
class Finding:
    """A problem of a file: what was found and how to mend it. Severity "error" stops a run, "warning" does not."""

    severity: str
    file: Path
    found: str
    mend: str

    def line(self) -> str:
        """All of it in one line, whatever a file's name or a library's message holds."""
        return clean(f"{self.severity:7s} {self.file}: {self.found}, {self.mend}".replace("\n", " "), keep="")


def of_error(error: OctkitError, root: Path) -> Finding:
    """An error of opening or reading as a finding; one that names no file is the whole data set's."""
    return Finding(ERROR, error.file or root, error.found or str(error), error.mend or "expected a data set that fits")


@dataclass(frozen=True)
class Seen:
    """What a look at one case has brought: its problems, and what is compared with other cases.

    `size` is the image's, in px an axis, `digest` stands for its pixels, and `greys` is the range of its first channel;
    they are None where it cannot be read.
    """

    case: Case
    findings: tuple[Finding, ...]
    size: tuple[int, ...] | None = None
    digest: str | None = None
    greys: GreyRange | None = None


def examine(dataset: Dataset, case: Case, learned: bool) -> Seen:
    """Read a case's image and its mask or true mask, as `dataset` says, and look at them.

    A blank image is an error in a case that is `learned` from, and else a warning, as a challenge's own scans cannot
    be left out. What cannot be read becomes a finding; any other exception is a fault of the program.
    """
    findings: list[Finding] = []

    def report(error: OctkitError) -> None:
        findings.append(of_error(error, dataset.root))

    image, mask_file = None, case.mask or case.truth
    try:
        image = tried(report, dataset.read_image, case)
        if image is not None:
            findings += _look_at_image(case, image, ERROR if learned else WARNING)
            stated = tried(lambda _: None, volume_spacing, case.image) if is_volume(case.image) else case.spacing
            findings += [Finding(WARNING, case.image, *odd) for odd in odd_axes(image.shape[1:], stated)]
        if mask_file is not None:
            # Without a readable image the mask is still looked at by itself.
            like = None if image is None else case.image
            mask = tried(report, read_scan_mask, mask_file, case.mask_values or dataset.mask_values, like)
            if mask is not None:
                findings += _look_at_mask(mask_file, mask, dataset.labels, case.mask_values or dataset.mask_values)
                if like is not None and (doubt := order_in_doubt(mask_file, like)):
                    findings.append(Finding(WARNING, mask_file, doubt, "expected both in one order: look at both"))
    except UNREADABLE as error:
        return Seen(case, (*findings, Finding(ERROR, case.image, f"cannot be read ({type(error).__name__}: {error})",
                                              "expected files that can be read: copy them again")))
    if image is None:
        return Seen(case, tuple(findings))
    # As bytes where nothing is lost by it, as in nearly all scans: a quarter to hash.
    byte = image.min() >= 0 and image.max() <= 255 and (image == np.floor(image)).all()
    pixels = image.astype(np.uint8) if byte else image
    digest = hashlib.blake2b(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).data, digest_size=16)
    return Seen(case, tuple(findings), image.shape[1:], digest.hexdigest(), grey_range(image[0]))


def disorder(mask: np.ndarray) -> np.ndarray:
    """Whether a label lies below a higher one in an A-scan: (*spatial) labels -> bool without the rows' axis."""
    below = np.maximum.accumulate(mask, axis=-2)
    return np.any((mask > 0) & (mask < below), axis=-2)


def _look_at_image(case: Case, image: np.ndarray, blank: str) -> Iterator[Finding]:
    files = (case.image, *case.more_channels) if case.more_channels else (case.image,) * len(image)
    for file, channel in zip(files, image, strict=True):
        if channel.min() == channel.max():
            yield Finding(blank, file, f"holds the one value {channel.flat[0]:g} throughout",
                          "expected a scan: replace it, or take its case out")
        if file.is_dir() and (hole := gap(b_scans(file))):
            yield Finding(WARNING, hole[1], f"is the next B-scan after {hole[0].name}, with a larger step than between "
                          "others", "expected equal distances: add what is missing")
        if is_lossy(file):
            yield Finding(WARNING, file, "is compressed with loss (JPEG), which has changed its grey values",
                          "expected PNG or TIFF: export it again without loss")
        if not is_volume(file) and read_header(file).mode in ("RGBA", "LA"):
            yield Finding(WARNING, file, "has an alpha channel, opaque and passed over",
                          "expected none: save it without")


def _look_at_mask(file: Path, mask: np.ndarray, labels: tuple[str, ...],
                  values: Mapping[int, int]) -> Iterator[Finding]:
    ordered = labels == LAYERS and not (mask == IGNORE).any()  # layers labelled in part may end anywhere
    if ordered and (problem := impossible(mask, values)):
        yield Finding(ERROR, file, *problem)
        return
    if missing := [name for label, name in enumerate(labels, start=1) if not (mask == label).any()]:
        what = "background alone" if len(missing) == len(labels) else f"no {' and no '.join(missing)}"
        yield Finding(WARNING, file, f"holds {what}", f"expected {', '.join(labels)}: complete it, if the scan shows "
                      "them")
    if ordered and (wrong := disorder(mask)).any():
        first = ", ".join(map(str, np.argwhere(wrong)[0]))
        yield Finding(WARNING, file, f"has its layers out of order in {wrong.sum()} of {wrong.size} A-scans, first at "
                      f"{first}", f"expected {' above '.join(LAYERS)}: draw it anew there")
