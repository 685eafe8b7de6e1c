"""The figure of boundaries with their uncertainty: what is drawn and where."""

import numpy as np
import pytest

from octkit.data.labels import SURFACES
from octkit.figures import boundaries
from octkit.figures import picture as picture_

IMAGE = np.full((40, 60), 100, np.uint8)
BOUNDARIES = np.repeat([[5.0], [10], [15], [20], [30]], 60, axis=1)


@pytest.mark.parametrize(("um_per_px", "unit", "row"),
                         [(None, "px", 4.5), (4.0, "µm", 20.0), ((4.0, 14.0), "µm", 20.0)])
def test_lines_lie_on_the_boundaries_and_bands_around_them(um_per_px, unit, row):
    picture = boundaries.boundary_band(IMAGE[None], BOUNDARIES, np.full((5, 60), 2.0), um_per_px=um_per_px)
    above, below = picture.axes
    scale = 4 if um_per_px else 1
    np.testing.assert_allclose(above.lines[0].get_ydata(), row)
    edges = above.collections[0].get_paths()[0].vertices[:, 1]
    assert (edges.min(), edges.max()) == (row - 2 * scale, row + 2 * scale)
    np.testing.assert_allclose(below.lines[4].get_ydata(), 2 * scale)
    assert unit in below.get_ylabel() and unit in above.get_ylabel() and below.get_xlabel()
    assert [text.get_text() for text in picture.legends[0].get_texts()][:5] == list(SURFACES)
    assert f"2.0 {unit}" in picture.alt or f"8.0 {unit}" in picture.alt
    assert picture_.png(picture)


def test_a_band_never_leaves_the_image():
    picture = boundaries.boundary_band(IMAGE, BOUNDARIES, np.full((5, 60), 200.0))
    edges = np.concatenate([band.get_paths()[0].vertices[:, 1] for band in picture.axes[0].collections])
    assert edges.min() >= -0.5 and edges.max() <= 39.5


def test_the_image_keeps_its_place():
    picture = boundaries.boundary_band(IMAGE, BOUNDARIES, np.full((5, 60), 1.0))
    assert picture.axes[0].axis() == (-0.5, 59.5, 39.5, -0.5)


def test_doubts_are_named_in_plain_numbers():
    picture = boundaries.boundary_band(IMAGE, BOUNDARIES, np.geomspace(0.3, 4, 300).reshape(5, 60))
    picture_.png(picture)  # places the ticks
    low, high = picture.axes[1].get_ylim()
    ticks = picture.axes[1].get_yticklabels()
    assert [tick.get_text() for tick in ticks if low <= tick.get_position()[1] <= high] == ["0.5", "1", "2"]
