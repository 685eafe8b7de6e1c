"""Pictures of predictions, and the page that shows them, the worst first."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from octkit.data.image_files import is_image
from octkit.figures.overlays import Overlays, overlay
from octkit.layers.quality import Quality
from octkit.layers.thickness import Thickness

SIZE = 40, 60
LINES = np.repeat([[8.0], [14.0], [20.0], [28.0], [36.0]], SIZE[1], axis=1)


def result(trusted=True, doubt=0.5, lines=LINES):
    mask = np.zeros(SIZE, np.uint8)
    mask[8:14], mask[14:20], mask[28:36] = 1, 2, 3
    reasons = () if trusted else ("<b>black</b>",)
    return SimpleNamespace(mask=mask, boundaries=lines, doubt=None if lines is None else np.full_like(LINES, doubt),
                           half_widths=None, quality=Quality(trusted, reasons))


def scan(name, line=False):
    return SimpleNamespace(name=name, spacing=(0.01, 0.05), eye="R", circle=not line, line=line)


def drawn(folder, results):
    """The page over scans, by name, and their results."""
    overlays = Overlays(folder)
    for name, found in results.items():
        overlays.draw(scan(name), np.zeros((1, *SIZE)), found)
    return overlays.write_index([
        SimpleNamespace(name=name, trusted=found.quality.trusted, reasons=found.quality.reasons,
                        doubt=None if found.doubt is None else found.doubt.mean())
        for name, found in results.items()]).read_text("utf-8")


def test_the_worst_scan_comes_first_and_names_are_text(tmp_path):
    page = drawn(tmp_path, {"sure #1": result(), "unsure": result(doubt=0.7), "flagged": result(trusted=False),
                            "volume": result(lines=None)})
    assert re.findall("<figcaption><b>(.*?)</b>", page) == ["flagged", "volume", "unsure", "sure #1"]
    assert "&lt;b&gt;black&lt;/b&gt;" in page and "<b>black" not in page
    links = re.findall('src="(.*?)"', page)
    assert links == ["flagged.overlay.png", "unsure.overlay.png", "sure%20%231.overlay.png"]
    assert (tmp_path / "sure #1.overlay.png").exists() and not is_image(tmp_path / "sure #1.overlay.png")
    assert "4 predicted scans, 1 to look at first" in page


@pytest.mark.parametrize("circle", [True, False])
def test_an_overlay_says_the_mean_and_shows_gaps(circle):
    values = np.full((3, SIZE[1]), 90.0)
    values[0, :6] = np.nan
    picture = overlay(np.zeros((1, *SIZE)), LINES, np.full_like(LINES, 0.5), None,
                      Thickness(values, ("rnfl", "gcipl", "choroid"), "um", "R", circle), "Scan", ("too dark",))
    assert picture.get_suptitle() == "Scan: RNFL 90 µm" and "too dark" in picture.alt
    above, below = picture.axes
    assert len(above.lines) == 5 and "too dark" in above.get_title(loc="left")
    assert np.isnan(below.lines[-1].get_ydata()).sum() == 6
    assert ("T S N I T" in below.get_xlabel()) == circle


def test_a_name_that_is_no_utf_8_is_drawn_and_linked(tmp_path):
    page = drawn(tmp_path, {"e\udcff": result()})
    assert 'src="e%FF.overlay.png"' in page and (tmp_path / "e\udcff.overlay.png").exists()


def test_a_name_controls_neither_the_page_nor_the_picture(tmp_path):
    name = "a\x1b[2J\u202e $\\mathdefault{\\frac$"
    page = drawn(tmp_path, {name: result()})
    assert "<b>a\\x1b[2J\\u202e $" in page and not {"\x1b", "\u202e"} & set(page)
    assert (tmp_path / f"{name}.overlay.png").exists()


def test_a_tall_scan_makes_no_tall_picture():
    lines = LINES[:, :4]
    thickness = Thickness(np.full((3, 4), 90.0), ("rnfl", "gcipl", "choroid"), "um", "R")
    picture = overlay(np.zeros((1, 4000, 4)), lines, lines * 0 + 0.5, None, thickness, "tall")
    assert picture.get_figheight() < 20
