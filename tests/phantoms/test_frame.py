import numpy as np

from octkit.phantoms.circle_eye import UM_PER_DEGREE
from octkit.phantoms.frame import Frame, place, rasterise


def test_columns_wrap_or_end():
    counted, columns = Frame((5, 10), (1, 1)).around(1.4, 2)
    np.testing.assert_array_equal(counted, [-1, 0, 1, 2, 3])
    np.testing.assert_array_equal(columns, [9, 0, 1, 2, 3])
    counted, columns = Frame((5, 10), (1, 1), False).around(1.4, 2)
    np.testing.assert_array_equal(columns, [0, 1, 2, 3])
    np.testing.assert_array_equal(counted, columns)


def test_degrees_of_a_circle_and_of_a_line():
    np.testing.assert_allclose(Frame((5, 4), (1, 1)).degrees, [0, 90, 180, 270])
    np.testing.assert_allclose(Frame((5, 3), (1, 2 * UM_PER_DEGREE), False).degrees, [0, 2, 4])


def test_mask_by_hand():
    boundaries = np.array([[1.0, 0.4], [2.6, 1.5], [3.4, 2.0], [3.4, 2.0], [3.4, 2.0], [3.4, 2.0], [3.4, 2.0],
                           [3.4, 2.0], [4.0, 3.0], [5.0, 3.4]])
    # Centres lie at 0.5, 1.5, …: in the first column row 2 (2.5) is RNFL still, in the second row 1 (1.5) is GCIPL
    # already and no centre lies between 3.0 and 3.4.
    expected = np.array([[0, 1], [1, 2], [1, 0], [0, 0], [3, 0], [0, 0]])
    np.testing.assert_array_equal(rasterise(boundaries, 6), expected)


def test_an_eye_too_thick_for_a_frame_ends_at_its_edge():
    depth = np.cumsum([-500.0, 100, 100, 50, 50, 50, 50, 50, 50, 400])[:, None] * np.ones(4)
    rows = place(depth, np.array([0.0, 50, 0, 50]), Frame((80, 4), (10, 1)), 0.5, 20)
    np.testing.assert_allclose(rows, np.repeat([[2], [12], [22], [27], [32], [37], [42], [47], [52], [80]], 4, axis=1))
