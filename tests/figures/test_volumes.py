"""Figures of volumes: the B-scans asked for, maps on one scale or each on its own, candidates in their order."""

import numpy as np
import pytest

from octkit.data.labels import LAYERS
from octkit.figures import volumes
from octkit.planning.selection import Candidate


def test_b_scans_are_those_asked_for_with_their_masks():
    volume = np.arange(4 * 6 * 8, dtype=float).reshape(4, 6, 8)
    mask = np.zeros(volume.shape, np.uint8)
    mask[2, 3] = 1
    axes = volumes.b_scans(volume[None], mask, [0, 2], "Two", LAYERS).axes
    assert [ax.get_title() for ax in axes] == ["B-scan 1 of 4", "B-scan 3 of 4"]
    scan, paint = (image.get_array() for image in axes[1].images)
    np.testing.assert_array_equal(scan, volume[2])
    assert paint[3, 0, 3] > 0 == paint[2, 0, 3]


@pytest.mark.parametrize("compare", [True, False])
def test_maps_share_a_scale_where_they_are_compared(compare):
    maps = {"thin": np.full((3, 4), 10.0), "thick": np.full((3, 4), 100.0)}
    figure = volumes.thickness_maps(maps, (0.2, 0.01), "um", "Maps", compare)
    tops = [ax.images[0].get_clim()[1] for ax in figure.axes if ax.images and ax.get_title()]
    assert tops == ([100, 100] if compare else [10, 100])
    assert "thin mean 10.0 um, thick mean 100.0 um" in figure.alt
    left, right, bottom, top = figure.axes[0].images[0].get_extent()
    assert (right, bottom) == pytest.approx((0.04, 0.6))


def test_without_a_scale_maps_count_b_scans():
    figure = volumes.thickness_maps({"a": np.ones((3, 4))}, None, "px", "Map")
    assert figure.axes[0].get_ylabel() == "B-scan" and figure.axes[0].get_xlabel() == "A-scan"


def test_candidates_are_ranked_and_the_chosen_one_is_marked():
    scored = [Candidate(name=name, configurations=(name,), dice={}, mean_dice=dice,
                        behind_best={"mean": behind, "sd": behind / 2, "n": 4})
              for name, dice, behind in (("2d", 0.8, 0.1), ("3d_fullres", 0.9, 0.0))]
    figure = volumes.candidates(scored, "3d_fullres")
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["3d_fullres (chosen)", "2d"]
    assert "3d_fullres 0.9000, 2d 0.8000" in figure.alt
