"""The editor without a browser: what a drag does to boundaries and thickness, in numbers worked out by hand."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from matplotlib.backend_bases import MouseEvent

from octkit.common.errors import OctkitError
from octkit.data.labels import BOUNDARIES
from octkit.figures.editor import Editor, Move, moved
from octkit.layers.boundaries import mask_from

ROWS = (10, 20, 40, 60, 80)  # of flat boundaries in a scan of 100 rows of 4 um: RNFL 40 um, GCIPL 80, choroid 80
WIDTH = 240  # points every 10 A-scans, from A-scan 5 on
GAINED = (10 + 2 * (9 + 8 + 7 + 6 + 5 + 4 + 3 + 2 + 1)) / WIDTH * 4  # um of the mean, of one point 10 rows down


def flat():
    return np.repeat(np.array(ROWS, float)[:, None], WIDTH, axis=1)


@pytest.fixture
def kept():
    return []


@pytest.fixture
def editor(kept):
    def save(*what):
        kept.append(what)
        return "in <a> folder"

    return Editor(np.zeros((1, 100, WIDTH)), flat(), "Scan", save, um_per_px=4.0)


def mouse(editor, kind, a_scan, row):
    canvas = editor.picture.canvas
    canvas.draw()
    x, y = editor.picture.axes[0].transData.transform((a_scan, row - 0.5))
    MouseEvent(kind, canvas, x, y, button=1)._process()


def drag(editor, a_scan, start, *rows):
    mouse(editor, "button_press_event", a_scan, start)
    for row in rows:
        mouse(editor, "motion_notify_event", a_scan, row)
    mouse(editor, "button_release_event", a_scan, rows[-1])


def said(editor):
    return re.sub("<[^>]*>", " ", editor.children[-1].value)


def test_a_dragged_point_takes_its_neighbours_along_and_thickness_changes_by_what_it_moved(editor):
    assert "RNFL 40.00 µm (+0.00)" in said(editor)
    mouse(editor, "button_press_event", 105, 20)
    mouse(editor, "motion_notify_event", 105, 30)
    assert f"RNFL {40 + GAINED:.2f} µm (+{GAINED:.2f}), GCIPL {80 - GAINED:.2f} µm (-{GAINED:.2f})" in said(editor)
    assert editor.moves == []  # not before the mouse lets go
    mouse(editor, "button_release_event", 105, 30)
    assert editor.moves == [Move("RNFL/GCIPL", 105, 10)]
    expected = flat()
    expected[1, 95:116] += [0, *range(1, 11), *range(9, -1, -1)]
    np.testing.assert_allclose(editor.boundaries, expected)
    assert editor.means() == pytest.approx({"rnfl": 40 + GAINED, "gcipl": 80 - GAINED, "choroid": 80})


def test_a_drag_across_the_neighbour_ends_at_it(editor):
    drag(editor, 105, 20, 30, 95)  # past three boundaries
    np.testing.assert_allclose(editor.boundaries[:, 105], (10, 40, 40, 60, 80))
    drag(editor, 105, 40, 60)  # where two meet, the one that has room is taken
    np.testing.assert_allclose(editor.boundaries[:, 105], (10, 40, 60, 60, 80))
    drag(editor, 5, 10, 1)
    drag(editor, 5, 1, 0)
    np.testing.assert_allclose(editor.boundaries[0, [5, 4, 236, 235]], (0, 1, 9, 10))  # round the circle's seam


@given(some.lists(some.tuples(some.sampled_from(BOUNDARIES), some.integers(0, WIDTH - 1), some.integers(-120, 120))),
       some.booleans())
@settings(deadline=None)
def test_no_moves_break_the_order_or_leave_the_scan(moves, circle):
    boundaries = flat()
    for move in moves:
        boundaries = moved(boundaries, 100, Move(*move), circle)
    assert (np.diff(boundaries, axis=0) >= 0).all() and boundaries.min() >= 0 and boundaries.max() <= 100


def test_a_line_has_no_seam():
    assert moved(flat(), 100, Move("ILM", 5, -10), circle=False)[0, 236] == 10


def test_undo_takes_back_move_by_move_and_save_hands_over_the_rest(editor, kept):
    drag(editor, 105, 20, 30)
    which, where = editor.children[0].children
    buttons = {button.description: button for button in editor.children[1].children}
    which.value, where.value = "choroid bottom", 15
    buttons["down"].click()
    buttons["down"].click()
    assert editor.boundaries[4, 15] == 82
    buttons["undo"].click()
    buttons["save"].click()
    mask, boundaries, moves = kept[0]
    assert moves == [("RNFL/GCIPL", 105, 10), ("choroid bottom", 15, 1)]
    np.testing.assert_array_equal(mask, mask_from(boundaries, 100))
    assert boundaries[4, 15] == 81 and "in &lt;a&gt; folder" in editor.children[-1].value
    for _ in range(3):  # one more than there are moves
        buttons["undo"].click()
    np.testing.assert_array_equal(editor.boundaries, flat())


def test_a_click_beside_all_points_and_a_mouse_that_zooms_move_nothing(editor):
    drag(editor, 105, 30, 35)
    editor.picture.canvas.toolbar.zoom()
    drag(editor, 105, 20, 30)
    np.testing.assert_array_equal(editor.boundaries, flat())


def test_without_a_scale_thickness_is_in_px_and_what_cannot_be_saved_is_said():
    def save(*_):
        raise OctkitError("the disk is full")

    editor = Editor(np.zeros((100, WIDTH)), flat(), "Scan", save)
    assert "RNFL 10.00 px" in said(editor)
    editor.save()
    assert "the disk is full" in said(editor)


@pytest.mark.parametrize("boundaries", [flat()[:4], flat()[:, 1:], flat() * np.nan])
def test_boundaries_of_another_scan_are_refused(boundaries):
    with pytest.raises(OctkitError, match=r"\(5, 240\)"):
        Editor(np.zeros((100, WIDTH)), boundaries, "Scan", print)


def test_its_words_are_chinese_where_that_language_is_chosen(monkeypatch):
    monkeypatch.setenv("OCTKIT_LANGUAGE", "zh")
    editor = Editor(np.zeros((100, WIDTH)), flat(), "Scan", lambda *_: "")
    assert [button.description for button in editor.children[1].children] == ["上移", "下移", "撤销", "保存"]
    assert [one.description for one in editor.children[0].children] == ["边界", "A 扫描"]
    assert "平均厚度: RNFL 10.00 px" in said(editor) and "脉络膜 20.00 px" in said(editor)
