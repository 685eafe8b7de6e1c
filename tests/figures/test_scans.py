"""Figures of scans, masks and boundaries: what is drawn, where and in which colour."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from PIL import Image

from octkit.common.errors import OctkitError
from octkit.data import labels
from octkit.figures import picture as picture_
from octkit.figures import scans
from octkit.figures.colours import LAYER_COLOURS

IMAGE = np.full((1, 20, 30), 100, np.float32)
MASK = np.zeros((20, 30), np.uint8)
MASK[4:8], MASK[8:12], MASK[14:18] = 1, 2, 3
BOUNDARIES = np.repeat([[4.0], [8], [12], [14], [18]], 30, axis=1)


@pytest.fixture(scope="module")
def figures() -> dict[str, picture_.Picture]:
    """One figure of each function, by its name."""
    z_scored = (IMAGE - 90) / 30 + np.linspace(-1, 1, 30, dtype=np.float32)
    return {
        "overlay": scans.overlay(IMAGE, MASK, "Layers"),
        "data_grid": scans.data_grid([IMAGE] * 4, [MASK, None, MASK, MASK], ["a", "b", "c", "d"], title="Scans"),
        "comparison": scans.comparison(IMAGE, np.roll(MASK, 1, 0), MASK, "Both"),
        "before_after": scans.before_after(IMAGE, z_scored),
        "augment_grid": scans.augment_grid(z_scored, MASK, {"low_resolution": (z_scored, MASK)}),
        "relevance": scans.relevance(IMAGE, np.where(MASK == 1, 0.5, -0.1), "Why"),
        "boundary_band": scans.boundary_band(IMAGE, BOUNDARIES, np.full((5, 30), 0.25), "Boundaries"),
    }


def test_every_figure_says_what_one_sees_names_its_axes_and_its_layers_and_leaves_nothing_in_pyplot(figures):
    for name, picture in figures.items():
        assert picture.get_suptitle() and picture.alt, name
        words = "".join(ax.get_xlabel() + ax.get_ylabel() for ax in picture.axes if ax.axison)
        assert "A-scan" in words and "(px)" in words, name
        if name not in ("before_after", "boundary_band", "relevance"):
            assert [text.get_text() for text in picture.legends[0].get_texts()][:3] == ["RNFL", "GCIPL", "choroid"]
    assert not plt.get_fignums()


def test_paint_gives_background_no_colour_and_each_label_its_own():
    painted = scans.paint(np.array([[0, 1], [2, 3]], np.uint8), opacity=0.5)
    assert painted[0, 0].tolist() == [0, 0, 0, 0]
    for (row, column), layer in (((0, 1), "rnfl"), ((1, 0), "gcipl"), ((1, 1), "choroid")):
        assert painted[row, column] == pytest.approx([*to_rgb(LAYER_COLOURS[layer]), 0.5])


def test_an_overlay_blends_the_layers_colour_over_the_scan_and_leaves_background_grey():
    picture = scans.overlay(IMAGE, MASK, "Layers", opacity=0.4)
    with Image.open(io.BytesIO(picture_.png(picture))) as image:
        drawn = np.asarray(image.convert("RGB"))[::-1] / 255  # rows from below, as matplotlib counts them
    for row, layer in ((2, None), (6, "rnfl"), (10, "gcipl"), (16, "choroid")):
        colour = np.full(3, 100 / 255)
        if layer:
            colour = 0.6 * colour + 0.4 * np.array(to_rgb(LAYER_COLOURS[layer]))
        x, y = (picture.axes[0].transData.transform((15, row)) * picture_.DPI / picture.dpi).astype(int)
        assert drawn[y, x] == pytest.approx(colour, abs=0.015)


@pytest.mark.parametrize("scale, x_label, y_label, corner", [
    (None, "A-scan", "depth (px)", (29.5, 19.5)), ((4.0, 11.0), "along the scan (µm)", "depth (µm)", (330, 80))])
def test_axes_are_in_micrometres_where_the_scale_is_known(scale, x_label, y_label, corner):
    (ax,) = scans.overlay(IMAGE, MASK, "Layers", scale).axes
    assert (ax.get_xlabel(), ax.get_ylabel()) == (x_label, y_label)
    assert (ax.get_xlim()[1], ax.get_ylim()[0]) == pytest.approx(corner)


def test_comparison_counts_what_is_missed_added_and_swapped():
    truth = np.zeros((10, 10), np.uint8)
    truth[0, :4], truth[1, :2] = 1, 2
    predicted = np.zeros((10, 10), np.uint8)
    predicted[0, :3], predicted[1, :2], predicted[5, :1] = 1, (3, 2), 1
    picture = scans.comparison(np.zeros((10, 10)), predicted, truth, "Both")
    assert [text.get_text() for text in picture.legends[0].get_texts()][3:] == [
        "missed (1.00 %)", "added (1.00 %)", "swapped (1.00 %)"]
    assert "3.0 %" in picture.axes[2].get_title()


def test_augmented_copies_share_the_originals_grey_window():
    ramp = np.linspace(0, 1, 600, dtype=np.float32).reshape(1, 20, 30)
    original, brighter = scans.augment_grid(ramp, MASK, {"brightness": (ramp + 5, MASK)}, columns=2).axes[:2]
    assert original.images[0].get_clim() == brighter.images[0].get_clim() == pytest.approx((0.005, 0.995), abs=0.001)
    assert (original.get_title(), brighter.get_title()) == ("original", "brightness")


@given(st.integers(1, 9), st.integers(1, 5))
@settings(max_examples=10)
def test_a_grid_shows_every_scan_once(count, columns):
    titles = [f"scan {i}" for i in range(count)]
    picture = scans.data_grid([IMAGE] * count, titles=titles, title="Scans", columns=columns)
    assert [ax.get_title() for ax in picture.axes if ax.axison] == titles


def test_masks_of_another_size_are_refused():
    with pytest.raises(OctkitError, match=r"\(5, 5\).*\(20, 30\)"):
        scans.overlay(IMAGE, np.zeros((5, 5), np.uint8), "Layers")
    with pytest.raises(OctkitError, match="equal sizes"):
        scans.comparison(IMAGE, MASK, MASK[1:], "Both")


def test_lines_lie_on_the_boundaries_and_bands_around_them(figures):
    picture = figures["boundary_band"]
    above, below = picture.axes
    np.testing.assert_allclose(above.lines[0].get_ydata(), 3.5)
    edges = above.collections[0].get_paths()[0].vertices[:, 1]
    assert (edges.min(), edges.max()) == (3.25, 3.75)
    np.testing.assert_allclose(below.lines[4].get_ydata(), 0.25)
    assert "px" in below.get_ylabel() and "px" in above.get_ylabel() and "0.2 px" in picture.alt
    assert [text.get_text() for text in picture.legends[0].get_texts()][:5] == list(labels.BOUNDARIES)


def test_a_calibrated_band_is_68_percent_wide_and_says_so():
    raw, widths = np.full((5, 30), 0.25), np.stack([np.full((5, 30), 1.5), np.full((5, 30), 4.0)])
    raw[2, 10:14] = 5  # not located by the raw doubt
    plain, calibrated = (scans.boundary_band(IMAGE, BOUNDARIES, raw, "B", found) for found in (None, widths))
    edges = calibrated.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert (edges.min(), edges.max()) == (2.0, 5.0)
    assert [np.flatnonzero(np.isnan(line.get_ydata())).tolist() for line in calibrated.axes[0].lines[:5]] == [
        [], [], [10, 11, 12, 13], [], []]
    assert "68 %" in calibrated.legends[0].get_texts()[-1].get_text() and "1.5 px" in calibrated.alt
    assert "uncalibrated" in plain.legends[0].get_texts()[-1].get_text()


def test_a_band_never_leaves_the_image_which_keeps_its_place():
    above = scans.boundary_band(IMAGE, BOUNDARIES, np.full((5, 30), 200.0), "Boundaries").axes[0]
    edges = np.concatenate([band.get_paths()[0].vertices[:, 1] for band in above.collections])
    assert edges.min() >= -0.5 and edges.max() <= 19.5
    assert above.axis() == (-0.5, 29.5, 19.5, -0.5)


def test_doubts_are_named_in_plain_numbers():
    picture = scans.boundary_band(IMAGE, BOUNDARIES, np.geomspace(0.3, 4, 150).reshape(5, 30), "Boundaries")
    picture_.png(picture)  # places the ticks
    low, high = picture.axes[1].get_ylim()
    ticks = picture.axes[1].get_yticklabels()
    assert [tick.get_text() for tick in ticks if low <= tick.get_position()[1] <= high] == ["0.5", "1", "2"]
