import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from octkit.inference.postprocess import apply_steps, keep_largest_component


def array(text: str) -> np.ndarray:
    return np.array([[int(c) for c in row] for row in text.split()], np.uint8)


def test_islands_go_and_the_largest_piece_stays():
    np.testing.assert_array_equal(keep_largest_component(array("1100 0002 1120"), (1,)), array("1100 0002 0020"))


def test_foreground_together_is_one_object():
    # 1 and 2 touch: together three pixels against two
    np.testing.assert_array_equal(keep_largest_component(array("12033 10000"), (1, 2, 3)), array("12000 10000"))


def test_corners_do_not_connect():
    np.testing.assert_array_equal(keep_largest_component(array("110 001"), (1,)), array("110 000"))


def test_on_a_circle_a_piece_may_run_through_the_seam():
    mask = array("1001101 0000000")  # columns 6 and 0 are neighbours: two pieces of two pixels, the first stays
    np.testing.assert_array_equal(keep_largest_component(mask, (1,)), array("0001100 0000000"))
    np.testing.assert_array_equal(keep_largest_component(mask, (1,), circle=True), array("1000001 0000000"))


def test_the_seam_joins_chains_of_pieces():
    # four pieces that only the seam strings together: 5 px against 4 px in the middle
    mask = array("1000001 0000000 1101101 0000000 0011000")
    cleaned = keep_largest_component(mask, (1,), circle=True)
    np.testing.assert_array_equal(cleaned, array("0000000 0000000 1100001 0000000 0000000"))


def test_steps_apply_in_order():
    mask = array("11022 00000 30001")
    np.testing.assert_array_equal(apply_steps(mask, ((1, 2, 3), (1,))), array("11000 00000 00000"))
    np.testing.assert_array_equal(apply_steps(mask, ()), mask)


@settings(max_examples=60)
@given(hnp.arrays(np.uint8, (5, 6), elements=st.integers(0, 2)), st.booleans())
def test_cleaning_only_removes_and_twice_is_once(mask, circle):
    cleaned = keep_largest_component(mask, (1, 2), circle)
    assert ((cleaned == mask) | (cleaned == 0)).all()
    np.testing.assert_array_equal(keep_largest_component(cleaned, (1, 2), circle), cleaned)
    assert (cleaned > 0).any() == (mask > 0).any()
