"""What lies beside a mask, and who measures it wants to know: boundaries with their doubt, facts of the scan.

    <name>.boundaries.csv    a row an A-scan: the five boundaries and the raw standard deviation of their places, in px;
                             of a calibrated model also half widths: the truth lies so near in 68 and in 95 % of places
    <name>.scale.json        what is known of the scan: um_per_px, eye, circle; `octkit device` writes it as well, and
                             beside its images, where `octkit predict` reads it. Of a calibrated model also `means`: how
                             sure means over sectors are (`thickness.mean_widths`)
"""

import csv
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from octkit.common.errors import bad_file
from octkit.common.files import TEXT, only_file, read_arrays, read_json_as, write_csv, write_json
from octkit.data.labels import BOUNDARIES
from octkit.data.measured import Factor, Kind
from octkit.layers.seen import layer_widths, layers_seen

LEVELS = 0.68, 0.95  # of places, which a calibrated half width holds
COLUMNS = ("a_scan", *BOUNDARIES, *(f"doubt of {name}" for name in BOUNDARIES))
WIDTHS = tuple(f"half width of {name} for {level:.0%}" for level in LEVELS for name in BOUNDARIES)
FACTS = ".scale.json"
AGAIN = "have it written again (octkit predict, octkit device), or remove it: then the picture alone counts"


@dataclass(frozen=True)
class ScanFacts:
    """What is known of a scan: um a row and an A-scan, its eye, whether it is a full circle; None: not known.

    `means` is `Calibration.means` of the model that has read it; None where that is uncalibrated.
    """

    um_per_px: tuple[float, float] | None = None
    eye: str | None = None
    circle: bool | None = None
    means: dict[str, dict[Kind, tuple[Factor, Factor]]] | None = None


def write_boundaries(path: Path, boundaries: np.ndarray, doubt: np.ndarray, widths: np.ndarray | None = None) -> None:
    """Write the five boundaries and their raw doubt, (5, W) px each, as CSV; row 0.0 is the image's upper edge.

    `widths` (2, 5, W) px are their half widths for 68 and 95 %; None, of an uncalibrated model, leaves them out.
    """
    columns = np.vstack([boundaries, doubt, *([] if widths is None else widths)])
    write_csv(path, COLUMNS + WIDTHS if len(columns) > 10 else COLUMNS,
              ([column, *(f"{number:.3f}" for number in row)] for column, row in enumerate(columns.T)))


def read_boundaries(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """What `write_boundaries` wrote. Raises OctkitError where it cannot be read, or is none."""
    try:
        with open(only_file(path, "boundaries", TEXT), newline="", encoding="utf-8") as file:
            heads, *rows = csv.reader(file)
        numbers = np.array(rows, float).T
    except (OSError, ValueError, csv.Error) as error:
        raise bad_file(path, f"cannot be read ({error})", AGAIN) from None
    if tuple(heads) not in (COLUMNS, COLUMNS + WIDTHS) or len(numbers) != len(heads):
        raise bad_file(path, "is no table of the five boundaries and their doubt", AGAIN)
    return numbers[1:6], numbers[6:11], numbers[11:].reshape(2, 5, -1) if len(numbers) > 11 else None


def read_probabilities(path: Path, fold: int) -> np.ndarray:
    """What was kept of a scan that a fold held out, (classes, *spatial) float32. Raises OctkitError for damage."""
    again = f"predict the held-out scans again (octkit train RUN --fold {fold})"
    return read_arrays(path, ["probabilities"], again)["probabilities"].astype(np.float32)


def write_facts(path: Path, facts: ScanFacts) -> None:
    """Write what is known of a scan as JSON."""
    write_json(path, asdict(facts))


def facts_beside(picture: Path) -> ScanFacts:
    """What is known of a mask's scan, or an image's: <name>.scale.json beside it, or nothing where there is none."""
    path = picture.with_name(picture.stem + FACTS)
    facts = read_json_as(path, ScanFacts, AGAIN) if path.exists() else ScanFacts()
    if facts.eye not in ("R", "L", None) or not all(0.01 < um < 10_000 for um in facts.um_per_px or ()):
        raise bad_file(path, f"holds the eye {facts.eye} and the scale {facts.um_per_px}, which cannot be", AGAIN)
    return facts


def layers_beside(mask: Path, shape: tuple[int, ...]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Where the layers of a mask of `shape` (H, W) were seen, (3, W) bool, and how sure their thickness is, (3, W) px.

    By the boundaries beside it (`seen.layers_seen`, `seen.layer_widths`); None where there are none, the second also
    where they are uncalibrated. Raises OctkitError for boundaries of another number of A-scans.
    """
    path = mask.with_name(f"{mask.stem}.boundaries.csv")
    if not path.exists():
        return None, None
    _, doubt, widths = read_boundaries(path)
    if doubt.shape[1] != shape[1]:
        raise bad_file(path, f"has {doubt.shape[1]} A-scans, its mask {shape[1]}", AGAIN)
    return layers_seen(doubt, shape[0]), None if widths is None else layer_widths(widths[0], shape[0])
