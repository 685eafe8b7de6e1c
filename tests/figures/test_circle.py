"""Figures of the circle: sectors where the examiner sees them, differences as they were computed."""

import numpy as np
import pytest
from matplotlib.patches import Wedge

from octkit.common.errors import OctkitError
from octkit.figures import circle
from octkit.figures.picture import Picture
from octkit.layers.thickness import Thickness, means

HILLS = 90 + 40 * np.sin(np.deg2rad((np.arange(720) + 0.5) / 2) * 2 - 1)


def scan(side: str | None, line: np.ndarray = HILLS, unit: str = "um") -> Thickness:
    return Thickness(line[None], ("rnfl",), unit, side)


def discs(*scans: Thickness) -> Picture:
    return circle.sector_discs(dict(zip("ab", scans, strict=False)), "Sectors")


def places(ax) -> dict[str, tuple[float, float]]:
    """Where the names of sectors and hours stand: "TS" -> (x, y)."""
    return {text.get_text().split("\n")[0]: text.get_position() for text in ax.texts}


def test_a_right_eye_has_its_temple_on_the_left_and_a_left_eye_on_the_right():
    right, left = discs(scan("R"), scan("L")).axes
    for ax, side in ((right, -1), (left, 1)):
        found = places(ax)
        assert found["T"] == pytest.approx((side * 1.5, 0), abs=1e-9)
        assert found["TS"][0] * side > 0 and found["TS"][1] > 0
        assert found["NI"][0] * side < 0 and found["NI"][1] < 0
    # The hours are a clock's face on both: 12 up, 3 on the right, 6 down, 9 on the left.
    for found in (places(right), places(left)):
        for hour, place in (("12", (0, 2.5)), ("3", (2.5, 0)), ("6", (0, -2.5)), ("9", (-2.5, 0))):
            assert found[hour] == pytest.approx(place, abs=1e-9)


def test_a_disc_shows_the_means():
    [ax] = discs(scan("L")).axes
    found = means(HILLS, "L")
    assert {text.get_text() for text in ax.texts} == {f"{found['global']:.0f}", *(
        f"{name.partition('_')[2]}\n{mean:.0f}" for name, mean in found.items() if name.startswith(("GH", "hour")))}
    assert "(µm)" in ax.get_xlabel() and "left eye" in ax.get_xlabel()


def test_an_unknown_eye_has_no_hours_and_an_unknown_layer_no_numbers():
    picture = discs(scan(None), scan("R", HILLS * np.nan, "px"))
    no_eye, nothing = picture.axes
    assert set(places(no_eye)) == {"T", "TS", "NS", "N", "NI", "TI", f"{HILLS.mean():.0f}"}
    assert "side not known" in no_eye.get_xlabel() and "side not known" in picture.alt
    assert {text.get_text().split("\n")[-1] for text in nothing.texts} == {"–"}
    assert {patch.get_facecolor() for patch in nothing.patches if isinstance(patch, Wedge)} == {(1, 1, 1, 1)}


def test_discs_share_their_scale_of_colours():
    thick, thin = (np.array([patch.get_facecolor() for patch in ax.patches])[:, :3].sum(1)
                   for ax in discs(scan("R"), scan("R", HILLS / 2)).axes)
    assert (thick < thin).all()


def test_two_eyes_show_right_minus_left():
    picture = circle.two_eyes(scan("R", HILLS + 3), scan("L", HILLS), "Two eyes")
    both, below = picture.axes
    assert [line.get_label() for line in both.lines] == ["right eye", "left eye"]
    np.testing.assert_array_equal(both.lines[1].get_ydata(), HILLS)
    heights = np.concatenate([fill.get_paths()[0].vertices[:, 1] for fill in below.collections])
    assert (heights.min(), heights.max()) == pytest.approx((0, 3))
    assert below.get_ylabel() == "right minus left (µm)" and "mean +3.0 µm" in picture.alt
    with pytest.raises(OctkitError, match="expected R and L"):
        circle.two_eyes(scan("L"), scan("R"), "Two eyes")


def test_what_one_eye_has_not_seen_is_a_gap_and_in_no_number():
    gap = HILLS.copy()
    gap[100:140] = np.nan
    picture = circle.two_eyes(scan("R", gap + 3), scan("L", HILLS), "Two eyes")
    both = picture.axes[0]
    assert np.isnan(both.lines[0].get_ydata()).sum() == 40 and "mean +3.0 µm, from +3.0 to +3.0" in picture.alt
    assert [patch.get_label() for patch in both.collections].count("not seen") == 1
    assert "nowhere seen" in circle.two_eyes(scan("R", HILLS * np.nan), scan("L"), "Two eyes").alt


@pytest.mark.parametrize(("side", "x"), [("R", -1), ("L", 1), (None, -1)])
def test_the_cursor_points_at_one_a_scan_in_all_three_views(side, x):
    line = HILLS.copy()
    line[0] = 123
    picture = circle.cursor(np.zeros((1, 20, len(line))), scan(side, line), 0, "Scan")
    image, profile, disc = picture.axes
    assert picture.get_suptitle() == "Scan: RNFL at 0° is 123 µm"
    assert [ax.lines[-1].get_xdata()[0] for ax in (image, profile)] == [0, 0]
    assert disc.lines[1].get_xdata()[0] == pytest.approx(x)  # temporal
    line[0] = np.nan
    assert "not seen" in circle.cursor(np.zeros((1, 20, len(line))), scan(side, line), 0, "Scan").alt


def test_what_is_weighed_is_drawn_in_its_colours_and_adds_up():
    flat = np.full((2, 360), 100.0)
    flat[0, 90:180] = 80  # RNFL is thin there, where a unit more is worth -0.01: 90 pieces of 20 units
    weights = {"rnfl": np.where((np.arange(360) >= 90) & (np.arange(360) < 180), -0.01, 0.0), "gcipl": np.zeros(360)}
    picture = circle.weighed(Thickness(flat, ("rnfl", "gcipl"), "um"), {"rnfl": np.full(36, 100.0),
                                                                        "gcipl": np.full(36, 100.0)}, weights, "Why")
    assert "+18.00 log odds" in picture.alt
    above, below = picture.axes
    assert above.lines[0].get_ydata()[100] == 80 and above.lines[1].get_ydata()[100] == 100
    # 10 units less over 30 of 360 degrees are 30 pieces of 10 units: 3 log odds.
    assert below.lines[0].get_ydata().max() == pytest.approx(3)
