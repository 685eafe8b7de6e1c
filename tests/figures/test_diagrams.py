"""Diagrams: every stage, window, fold and parameter is there once."""

import numpy as np
import pytest
from matplotlib.patches import FancyBboxPatch, Rectangle

from octkit.common.errors import OctkitError
from octkit.figures import diagrams

PLAN = {"name": "phantom",
        "configurations": {"2d": {"patch_size": {"value": [64, 80], "kind": "inferred", "reason": "median size"},
                                  "batch_dice": {"value": True, "kind": "inferred", "reason": "2-D"}}},
        "blueprint": {"loss": {"value": "Dice", "kind": "blueprint", "reason": "always"}}}


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_plan_rows_find_parameters_at_any_depth_and_nothing_else():
    assert diagrams.plan_rows(PLAN) == [
        ("configurations.2d.patch_size", [64, 80], "inferred", "median size"),
        ("configurations.2d.batch_dice", True, "inferred", "2-D"),
        ("blueprint.loss", "Dice", "blueprint", "always")]


def test_the_plan_table_shows_each_parameter_and_counts_the_kinds():
    picture = diagrams.plan_table(PLAN)
    assert {"configurations.2d.patch_size", "[64, 80]", "inferred", "median size", "blueprint.loss", "Dice"} <= set(
        texts(picture.axes[0]))
    assert [text.get_text() for text in picture.legends[0].get_texts()] == [
        "blueprint (1)", "inferred (2)", "empirical (0)"]
    with pytest.raises(OctkitError, match="no parameter"):
        diagrams.plan_table({"patch_size": [64, 80]})


def test_the_u_net_has_a_box_for_each_stage_and_both_arms():
    (ax,) = diagrams.topology([16, 32, 64, 128, 128], [[1, 1], [2, 2], [2, 2], [2, 1], [2, 2]], (96, 128), 1, 4).axes
    assert sum(isinstance(patch, FancyBboxPatch) for patch in ax.patches) == 9  # five stages down, four up
    shown = texts(ax)
    assert shown.count("64 maps\n24 × 32") == 2 and shown.count("128 maps\n6 × 16") == 1
    assert "stride 2×1" in shown
    # Outputs on all decoder stages but the two lowest, each loss half of the one above: 2/3 and 1/3.
    assert [text for text in shown if text.startswith("loss")] == ["loss × 0.67", "loss × 0.33"]


@pytest.mark.parametrize("stages", [2, 3, 9])
def test_the_loss_shares_of_any_depth_sum_to_one(stages):
    shown = texts(diagrams.topology([8] * stages, [[1, 1]] + [[2, 2]] * (stages - 1), (512, 512), 1, 4).axes[0])
    shares = [float(text.split()[-1]) for text in shown if text.startswith("loss")]
    assert len(shares) == max(1, stages - 3) and sum(shares) == pytest.approx(1, abs=0.03)


def test_windows_are_drawn_where_they_stop_and_their_weights_are_summed():
    weights = np.array([[1.0, 2.0], [3.0, 4.0]])
    picture = diagrams.sliding_window(np.zeros((1, 2, 4)), (2, 2), [(0, 0), (0, 1), (0, 2)], weights)
    assert picture.axes[2].images[0].get_array().tolist() == [[1, 3, 3, 2], [3, 7, 7, 4]]
    assert picture.axes[0].get_title() == "3 windows"
    assert sum(isinstance(patch, Rectangle) for patch in picture.axes[0].patches) == 3


def test_image_sizes_are_counted_and_drawn_to_scale():
    (ax,) = diagrams.image_sizes([(80, 100)] * 3 + [(50, 60)]).axes
    assert texts(ax) == ["50 × 60 px: 1 scan ", "80 × 100 px: 3 scans "]
    assert [(patch.get_width(), patch.get_height()) for patch in ax.patches] == [(60, 50), (100, 80)]
    assert ax.get_xlabel() == "width (A-scans, px)"
    alone = diagrams.image_sizes([(80, 100)] * 3)
    assert "80 × 100 px" in alone.get_suptitle() and alone.get_figwidth() < ax.figure.get_figwidth()


def test_patches_lie_around_the_middle_of_their_volume_and_a_2d_one_is_a_line_from_above():
    picture = diagrams.patch_extents((6, 2, 4), {"2d": (2, 4), "3d_fullres": (2, 1, 3)})
    section, above = ([(*patch.get_xy(), patch.get_width(), patch.get_height()) for patch in ax.patches]
                      for ax in picture.axes)
    assert section == [(0, 0, 4, 2), (0, 0, 4, 2), (0.5, 0.5, 3, 1)]  # x, y, width, height: volume, 2d, 3d_fullres
    assert above == [(0, 0, 4, 6), (0, 3, 4, 0), (0.5, 2, 3, 2)]
    assert [text.get_text() for text in picture.legends[0].get_texts()] == ["the median volume", "2d", "3d_fullres"]
    assert {ax.get_ylabel() for ax in picture.axes} == {"depth (mm)", "across the B-scans (mm)"}
    assert "3d_fullres 2 × 1 × 3" in picture.alt


def test_a_patch_that_reaches_over_the_edge_is_shown_whole():
    axes = diagrams.patch_extents((6, 2, 4), {"3d_fullres": (8, 2, 5)}).axes
    for ax, height in zip(axes, (2, 8), strict=True):
        assert ax.get_xlim()[0] < -0.5 and ax.get_xlim()[1] > 4.5
        assert ax.get_ylim()[0] - ax.get_ylim()[1] > height


def test_each_case_is_held_back_in_the_row_of_its_fold():
    splits = [{"train": ["b", "c"], "validation": ["a"]}, {"train": ["a", "c"], "validation": ["b"]},
              {"train": ["a", "b"], "validation": ["c"]}]
    (ax,) = diagrams.split_diagram(splits, {"a": 1, "b": 0, "c": 0}).axes
    # Healthy cases first: the columns are b, c, a.
    assert ax.collections[0].get_array().reshape(3, 3).tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert ax.lines[0].get_xdata()[0] == 2
    assert [label.get_text() for label in ax.get_yticklabels()][0] == "fold 0: 1 of 3"


def test_every_diagram_has_a_title_and_a_text_alternative():
    for picture in (diagrams.plan_table(PLAN), diagrams.topology([8, 16], [[1, 1], [2, 2]], (32, 32), 1, 4),
                    diagrams.image_sizes([(8, 9)]), diagrams.patch_extents((6, 2, 6), {"2d": (2, 6)}),
                    diagrams.split_diagram([{"train": ["a"], "validation": ["b"]}], {"a": None, "b": None})):
        assert picture.get_suptitle() and picture.alt != picture.get_suptitle()
