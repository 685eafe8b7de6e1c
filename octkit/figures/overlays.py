"""What was predicted, for a person to look at: a picture of each scan, and a page with all of them, the worst first.

    <name>.overlay.png    boundaries with their doubt, the RNFL's profile, the flag's reasons
    index.html            all pictures of a folder: scans not to be trusted first, then by doubt
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import numpy as np

from octkit.common.files import write_atomic
from octkit.common.messages import clean
from octkit.data.dataset import Case, Dataset, is_volume, read_scan_mask
from octkit.data.image_files import OVERLAY
from octkit.data.labels import mask_coding
from octkit.figures.charts import circle_axis, mark_unseen
from octkit.figures.colours import LAYER_COLOURS, VERMILION
from octkit.figures.picture import Picture, legend_below, new_picture, png, unit_name
from octkit.figures.scans import draw_boundaries
from octkit.figures.scans import overlay as coloured
from octkit.layers.boundaries import known_scale
from octkit.layers.scan_files import read_boundaries
from octkit.layers.seen import layers_seen, located
from octkit.layers.thickness import Thickness, angles, means, of_case, profile

TEMPLATE = Path(__file__).with_suffix(".html.j2")  # of index.html


def overlay(image: np.ndarray, boundaries: np.ndarray, doubt: np.ndarray, half_widths: np.ndarray | None,
            thickness: Thickness, name: str, reasons: tuple[str, ...] = ()) -> Picture:
    """A scan (1, H, W) with its boundaries (5, W) in bands of 68 % (of one raw deviation where not calibrated).

    Below, the RNFL's profile, with gaps where it was not seen, and why the scan is flagged.
    """
    height, width = image.shape[-2:]
    mean = means(thickness["rnfl"])["global"] if thickness.circle else np.nanmean([np.nan, *thickness["rnfl"]])
    said = f"RNFL {mean:.0f} {unit_name(thickness.unit)}" if np.isfinite(mean) else "no mean RNFL"
    picture, ((above,), (below,)) = new_picture(f"{name}: {said}", 2, 1, (9, 3.4 + 6.5 * min(height / width, 2)),
                                                height_ratios=(3, 1.4))
    draw_boundaries(above, image, boundaries, doubt if half_widths is None else half_widths[0], located(doubt, height))
    if reasons:
        above.set_title("\n".join(textwrap.wrap("Look first: " + "; ".join(reasons), 110)), fontsize=9, loc="left",
                        color=VERMILION)
    place = angles(thickness["rnfl"])
    if thickness.circle:
        circle_axis(below, thickness.unit)
        mark_unseen(below, thickness["rnfl"])
    else:
        below.set(xlim=(0, 360), xticks=[], xlabel="along the scan", ylabel=f"thickness ({unit_name(thickness.unit)})")
    below.plot(place, thickness["rnfl"], color=LAYER_COLOURS["rnfl"], lw=2)
    below.set_ylim(bottom=0)
    legend_below(picture, above.lines, columns=5)
    return picture.with_alt(f"{name}: scan with five boundaries and their doubt, {said}. "
                            f"{'; '.join(reasons) or 'Not flagged'}.")


def of_files(dataset: Dataset, case: Case, folder: Path, reasons: tuple[str, ...] = ()) -> Picture:
    """A predicted case as `overlay` shows it, by the files in a run's `folder` of predictions.

    Without boundaries there its layers are coloured in, those of a volume in its middle B-scan. Raises OctkitError
    for files that are missing or damaged.
    """
    image, path = dataset.read_image(case), folder / f"{case.name}.nii.gz"
    if not path.exists():
        path = path.with_name(f"{case.name}.png")
    numbers = {label: label for label in range(len(dataset.labels) + 1)}
    mask = read_scan_mask(path, numbers if is_volume(path) else mask_coding(dataset.labels), case.image)
    if (lines := folder / f"{case.name}.boundaries.csv").exists():
        return overlay(image[:1], *read_boundaries(lines), of_case(case, mask, path), case.name, reasons)
    if mask.ndim == 3:
        image, mask = image[:, len(mask) // 2], mask[len(mask) // 2]
    return coloured(image[0], mask, case.name, labels=dataset.labels)


@dataclass(frozen=True)
class Overlays:
    """The pictures of a folder of predictions: a `Drawer` of `inference.predict`."""

    folder: Path

    def draw(self, scan: Any, image: np.ndarray, result: Any) -> None:
        """Draw a `ScanToPredict` with its `ScanResult`, where it has boundaries."""
        if result.boundaries is None:
            return
        scale = known_scale(result.mask.shape, scan.spacing)
        seen = layers_seen(result.doubt, result.mask.shape[0])
        thickness = profile(result.mask, scale and scale[0], scan.eye, seen=seen)
        if scan.line or scan.circle is False:
            thickness = Thickness(thickness.values, thickness.layers, thickness.unit, scan.eye, circle=False)
        name = scan.name.encode(errors="backslashreplace").decode()  # one that is no UTF-8 cannot be drawn
        picture = overlay(image[:1], result.boundaries, result.doubt, result.half_widths, thickness, name,
                          result.quality.reasons)
        write_atomic(self.folder / f"{scan.name}{OVERLAY}", png(picture))

    def write_index(self, scans: Sequence[Any]) -> Path:
        """Write index.html over `Predicted` scans, drawn or not."""
        ranked = sorted(scans, key=lambda each: (
            each.trusted, -np.inf if each.doubt is None else -each.doubt, each.name))
        shown = [{"trusted": scan.trusted, "name": clean(scan.name), "told": "; ".join(scan.reasons) or "not flagged",
                  "drawn": (self.folder / f"{scan.name}{OVERLAY}").exists(),
                  "link": quote(f"{scan.name}{OVERLAY}", errors="surrogateescape")} for scan in ranked]
        page = jinja2.Environment(autoescape=True).from_string(TEMPLATE.read_text(encoding="utf-8"))
        write_atomic(path := self.folder / "index.html", page.render(scans=shown))
        return path
