import csv
import math

import numpy as np
import pytest
from helpers import SHARED
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from octkit.common.errors import OctkitError
from octkit.data.image_files import read_mask, write_mask
from octkit.data.labels import GOALS_GREYS, LAYERS
from octkit.layers.scan_files import ScanFacts, write_boundaries, write_facts
from octkit.layers.thickness import (
    GARWAY_HEATH,
    HOURS,
    MEANS,
    QUADRANTS,
    WHOLE,
    Thickness,
    asymmetry,
    clock_hours,
    coverage,
    errors,
    grouped,
    means,
    profile,
    quadrants,
    reference_band,
    resample,
    sector_errors,
    sector_means,
    sectors_in_words,
    table_rows,
    thickness_table,
    write_csv,
)
from octkit.phantoms.circle_scans import draw

REAL_SCANS = SHARED / "real-scans"

#     A-scans  0 1 2 3
MASK = np.array([[0, 1, 1, 0],
                 [1, 1, 1, 0],
                 [2, 1, 2, 2],
                 [2, 2, 0, 2]], np.uint8)


def test_profile_by_hand():
    found = profile(MASK)
    assert (found.layers, found.unit, found.eye) == (("rnfl", "gcipl", "choroid"), "px", None)
    np.testing.assert_array_equal(found["rnfl"], [1, 3, 2, 0])
    np.testing.assert_array_equal(found["gcipl"], [2, 1, 1, 2])
    # Of the choroid nothing is marked anywhere: unknown, not 0.
    np.testing.assert_array_equal(found["choroid"], [np.nan] * 4)


def test_profile_in_micrometres():
    found = profile(MASK, um_per_px=3.87, eye="L")
    assert (found.unit, found.eye) == ("um", "L")
    np.testing.assert_allclose(found["rnfl"], [3.87, 11.61, 7.74, 0])


def test_an_a_scan_without_any_layer_was_not_seen_and_one_that_lacks_a_layer_is_0_thick():
    mask = np.insert(MASK, 2, 0, axis=1)
    found = profile(mask)
    np.testing.assert_array_equal(found["rnfl"], [1, 3, np.nan, 2, 0])
    np.testing.assert_array_equal(found["gcipl"], [2, 1, np.nan, 1, 2])


def test_what_was_not_seen_is_nan_whatever_the_mask_holds():
    seen = np.array([[1, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1]], bool)
    found = profile(MASK, 2.0, seen=seen)
    np.testing.assert_array_equal(found["rnfl"], [2, np.nan, 4, 0])
    np.testing.assert_array_equal(found["gcipl"], [4, 2, np.nan, np.nan])
    with pytest.raises(OctkitError, match="seen: found"):
        profile(MASK, seen=seen[:, :3])


def test_means_bridge_a_gap_and_say_how_much_was_seen():
    line = one_a_scan_a_degree()
    line[100:120] = np.nan  # straight from 99 to 120: what was there
    assert quadrants(line)["S"] == pytest.approx((45 + 134) / 2)
    assert coverage(line, QUADRANTS) == {"T": 1, "S": 70 / 90, "N": 1, "I": 1}
    line[45] = line[46] = line[47] = np.nan
    assert means(line)["global"] == pytest.approx(179.5)
    assert coverage(line, WHOLE)["global"] == pytest.approx(337 / 360)
    assert quadrants(line)["S"] is not None and math.isnan(quadrants(line)["S"])  # 67 of 90 seen


def test_a_gap_at_the_seam_is_bridged_round_the_circle_and_at_the_end_of_a_line_is_not():
    line = np.array([np.nan, 10.0, 10, 10, 10, 10, 10, 30])
    assert sector_means(line, WHOLE)["global"] == pytest.approx((20 + 60 + 30) / 8)
    assert sector_means(line, WHOLE, circular=False)["global"] == pytest.approx((10 + 60 + 30) / 8)


def test_the_global_mean_depends_little_on_where_the_gap_lies():
    line = profile(draw(9, (248, 384)).mask)["rnfl"]
    off = []
    for start in range(0, 384, 24):
        gap = line.copy()
        gap[(start + np.arange(50)) % 384] = np.nan
        off.append(np.abs([means(gap)["global"], np.nanmean(gap)] - line.mean()))
    bridged, plain = np.mean(off, axis=0)
    assert bridged < 0.02 * line.mean() and bridged < plain / 2


def test_quadrants_by_hand():
    # 8 A-scans, middles at 22.5, 67.5, 112.5, …: T has the first and the last, then S S, N N, I I.
    line = np.array([1, 10, 20, 100, 200, 1000, 3000, 3.0])
    assert quadrants(line) == {"T": 2, "S": 15, "N": 150, "I": 2000}
    assert means(line)["global"] == pytest.approx(line.mean())


def test_a_middle_on_the_border_opens_the_next_quadrant_and_one_without_a_scans_is_unknown():
    # 4 A-scans, middles at 45, 135, 225 and 315 degrees; 2 A-scans, middles at 90 and 270 degrees.
    assert quadrants(np.array([1.0, 2, 3, 4])) == {"S": 1, "N": 2, "I": 3, "T": 4}
    assert quadrants(np.array([1.0, 3.0])) == pytest.approx({"T": np.nan, "S": 1, "N": np.nan, "I": 3}, nan_ok=True)


@given(st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_the_quadrants_of_a_full_circle_average_to_the_global_mean(quarter, seed):
    line = np.random.default_rng(seed).uniform(0, 200, 4 * quarter)
    assert np.mean(list(quadrants(line).values())) == pytest.approx(means(line)["global"])


@given(st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_mirroring_swaps_superior_and_inferior_alone(pairs, seed):
    line = np.random.default_rng(seed).uniform(0, 200, 8 * pairs)  # no middle lies on a border
    here, mirrored = quadrants(line), quadrants(line[::-1])
    for there, back in zip("TSNI", "TINS", strict=True):
        assert mirrored[there] == pytest.approx(here[back])


def one_a_scan_a_degree() -> np.ndarray:
    """360 A-scans, each as thick as the degree it starts at: 0, 1, … 359."""
    return np.arange(360.0)


def test_the_six_sectors_by_hand():
    found = sector_means(one_a_scan_a_degree(), GARWAY_HEATH)
    # T holds 0 … 44 and 315 … 359; of the others the mean of the first and the last degree.
    assert found == {"GH_T": (22 * 45 + 337 * 45) / 90, "GH_TS": (45 + 84) / 2, "GH_NS": (85 + 124) / 2,
                     "GH_N": (125 + 234) / 2, "GH_NI": (235 + 274) / 2, "GH_TI": (275 + 314) / 2}


def test_the_hours_of_both_eyes_by_hand():
    line = one_a_scan_a_degree()
    right, left = (sector_means(line, clock_hours(eye)) for eye in "RL")
    # Noon is superior and 6 inferior in both; 9 is temporal in a right eye and nasal in a left, 3 the other way round.
    assert right["hour_12"] == left["hour_12"] == (75 + 104) / 2
    assert right["hour_6"] == left["hour_6"] == (255 + 284) / 2
    assert right["hour_3"] == left["hour_9"] == (165 + 194) / 2
    assert right["hour_9"] == left["hour_3"] == (7 * 15 + 352 * 15) / 30
    # 10 of a right eye is temporal superior, 2 of a left; 7 and 5 are temporal inferior, where glaucoma likes to begin.
    assert right["hour_10"] == left["hour_2"] == (15 + 44) / 2
    assert right["hour_7"] == left["hour_5"] == (285 + 314) / 2


def test_an_unknown_eye_has_no_hours():
    assert set(means(one_a_scan_a_degree())) == set(MEANS) - set(HOURS)


@pytest.mark.parametrize("sectors", [QUADRANTS, GARWAY_HEATH, clock_hours("R"), clock_hours("L")])
@given(count=st.integers(1, 900))
def test_sectors_cover_the_circle_once(sectors, count):
    angles = (np.arange(count) + 0.5) * 360 / count
    # An A-scan that is 1 where all others are nought shows in one sector alone.
    for place in (0, count // 3, count - 1):
        found = sector_means((angles == angles[place]).astype(float), sectors)
        assert sum(mean > 0 for mean in found.values()) == 1


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_three_hours_are_a_quadrant(twelfth, seed):
    line = np.random.default_rng(seed).uniform(0, 200, 12 * twelfth)
    for eye, hours in (("R", {"T": (8, 9, 10), "S": (11, 12, 1), "N": (2, 3, 4), "I": (5, 6, 7)}),
                       ("L", {"T": (2, 3, 4), "S": (11, 12, 1), "N": (8, 9, 10), "I": (5, 6, 7)})):
        found = means(line, eye)
        for quadrant, three in hours.items():
            assert np.mean([found[f"hour_{hour}"] for hour in three]) == pytest.approx(found[quadrant])


def test_resampling_by_hand_goes_around_the_end():
    # Middles at 90 and 270 degrees; then at 45, 135, 225, 315: the first lies half way back to the last.
    np.testing.assert_allclose(resample(np.array([0.0, 4.0]), 4), [1, 1, 3, 3])
    line = np.array([3.0, 1.0, 2.0])
    assert resample(line, 3) is line


@given(st.integers(2, 300), st.integers(2, 300))
def test_resampling_keeps_what_is_constant(old, new):
    np.testing.assert_allclose(resample(np.full(old, 7.5), new), np.full(new, 7.5))


def eye(side: str, *lines, unit: str = "um", layers: tuple[str, ...] = ("rnfl",)) -> Thickness:
    return Thickness(np.array(lines, float), layers, unit, side)


def test_asymmetry_by_hand():
    found = asymmetry(eye("R", [1, 10, 20, 30]), eye("L", [0, 12, 20, 10]))
    assert (found.unit, found.layers) == ("um", ("rnfl",))
    np.testing.assert_array_equal(found["rnfl"], [1, -2, 0, 20])
    assert means(found["rnfl"])["global"] == 4.75
    assert quadrants(found["rnfl"]) == {"S": 1, "N": -2, "I": 0, "T": 20}


def test_what_one_eye_has_not_seen_is_unknown_in_the_comparison():
    found = asymmetry(eye("R", [1, np.nan, 20, 30]), eye("L", [0, 12, 20, np.nan]))
    np.testing.assert_array_equal(found["rnfl"], [1, np.nan, 0, np.nan])


def test_asymmetry_is_taken_on_the_finer_grid():
    found = asymmetry(eye("R", [5, 5]), eye("L", [1, 2, 3, 4]))
    np.testing.assert_array_equal(found["rnfl"], [4, 3, 2, 1])
    found = asymmetry(eye("R", [1, 2, 3, 4]), eye("L", [0, 4]))
    np.testing.assert_array_equal(found["rnfl"], [0, 1, 0, 1])


@given(st.integers(2, 200), st.integers(0, 2**32 - 1))
def test_exchanged_eyes_have_the_opposite_asymmetry(count, seed):
    one, other = np.random.default_rng(seed).uniform(0, 200, (2, count))
    np.testing.assert_array_equal(asymmetry(eye("R", one), eye("L", other)).values,
                                  -asymmetry(eye("R", other), eye("L", one)).values)
    for name, difference in means(asymmetry(eye("R", one), eye("L", other))["rnfl"]).items():
        assert difference == pytest.approx(means(one)[name] - means(other)[name], nan_ok=True)


def test_profiles_by_group_are_on_the_finest_grid_and_of_scans_that_have_the_layer():
    scans = [eye("R", row) for row in ([1, 1, 3, 3], [0, 4], [2, 2, 2, 2], [np.nan] * 4, [np.nan] * 4)]
    groups = grouped(scans, ["healthy", "healthy", "glaucoma", "healthy", "undiagnosed"], "rnfl")
    assert {name: found.tolist() for name, found in groups.items()} == {
        "healthy": [[1, 1, 3, 3], [1, 1, 3, 3]], "glaucoma": [[2, 2, 2, 2]]}


def test_reference_band_by_hand():
    low, high = reference_band([np.array([10.0 * k, 5.0]) for k in range(11)], 20, 90)
    np.testing.assert_allclose(low, [20, 5])
    np.testing.assert_allclose(high, [90, 5])
    # Gaps are left out.
    low, high = reference_band([np.array([1.0, np.nan, np.nan]), np.array([3.0, 5.0, np.nan])], 0, 100)
    np.testing.assert_allclose([low, high], [[1, 5, np.nan], [3, 5, np.nan]])
    # A coarser case is brought to the finest grid.
    low, high = reference_band([np.array([1.0, 1, 3, 3]), np.array([0.0, 4.0])], 0, 100)
    np.testing.assert_allclose([low, high], [[1, 1, 3, 3]] * 2)


def test_errors_by_hand():
    truth = MASK.copy()
    truth[3, 3] = 3  # GCIPL 2 1 1 1, choroid 0 0 0 1
    found = errors(profile(MASK, 2.0), profile(truth, 2.0))
    by_quadrant = {layer: {name: error[name] for name in ("mean_absolute", "global", *QUADRANTS)}
                   for layer, error in found.items()}
    assert by_quadrant["rnfl"] == {"mean_absolute": 0, "global": 0, "S": 0, "N": 0, "I": 0, "T": 0}
    assert by_quadrant["gcipl"] == {"mean_absolute": 0.5, "global": 0.5, "S": 0, "N": 0, "I": 0, "T": 2}
    assert found["gcipl"]["GH_T"] == 2
    # The prediction has no choroid at all: nothing is known of it, and the coverage says so.
    for one, other in ((MASK, truth), (truth, MASK)):
        lost = errors(profile(one), profile(other))["choroid"]
        assert math.isnan(lost["global"]) and math.isnan(lost["mean_absolute"]) and lost["coverage"] == 0


def test_errors_are_those_of_the_means_that_are_given_with_gaps_bridged():
    predicted, truth = eye("R", [5.0, np.nan, 7, 9, 1, 1, 1, 1]), eye("R", [4.0, 100, 9, 9, 1, 1, 1, np.nan])
    found = errors(predicted, truth)["rnfl"]
    assert (found["mean_absolute"], found["coverage"]) == (3 / 6, 6 / 8)  # where both were seen
    # The gaps are bridged by 6 and, at the seam, by 2.5: means of 31 / 8 and 127.5 / 8.
    assert found["global"] == pytest.approx((31 - 127.5) / 8)


@pytest.mark.parametrize(("function", "arguments", "message"), [
    (profile, (MASK, 0), "um_per_px: found 0"), (profile, (MASK, float("nan")), "um_per_px: found nan"),
    (profile, (MASK, 0.00387), "um_per_px: found 0.00387, expected micrometres"),
    (profile, (MASK, 1, "left"), "eye: found 'left'"),
    (asymmetry, (eye("L", [1]), eye("R", [1])), "found the eyes L and R, expected R and L"),
    (asymmetry, (eye("R", [1]), eye(None, [1])), "found the eyes R and None"),
    (asymmetry, (eye("R", [1]), eye("L", [1], unit="px")), "differ in unit, right um, left px"),
    (asymmetry, (eye("R", [1]), eye("L", [1], layers=("choroid",))), "differ in layers"),
    (reference_band, ([np.ones(3)],), "found 1 profiles, expected those of at least 2"),
    (reference_band, ([np.ones(3)] * 3, 95, 5), "found the limits 95 and 5"),
    (reference_band, ([np.ones(3)] * 3, -1, 95), "found the limits -1 and 95"),
    (reference_band, ([np.ones(3), np.full(3, np.nan)],), "no thickness in profile 1"),
    (errors, (profile(MASK, 2.0), profile(MASK)), "unit: predicted um, truth px"),
    (errors, (profile(MASK[:, :3]), profile(MASK)), "A-scans: predicted 3, truth 4"),
    (errors, (eye("R", [1]), eye("R", [1], layers=("choroid",))), "layers"),
    (clock_hours, (None,), "eye: found None, expected R or L"),
])
def test_what_cannot_be_meant_is_refused(function, arguments, message):
    with pytest.raises(OctkitError, match=message):
        function(*arguments)


def test_table_and_csv(tmp_path):
    write_mask(tmp_path / "masks" / "0102.png", MASK, GOALS_GREYS)
    write_mask(tmp_path / "masks" / "0101.png", np.repeat(MASK, 2, axis=0), GOALS_GREYS)
    rows = thickness_table(tmp_path / "masks", 1.5)
    assert [(row["case"], row["layer"]) for row in rows] == [
        (case, layer) for case in ("0101", "0102") for layer in ("rnfl", "gcipl", "choroid")]
    # The middles of the 4 A-scans lie at 45, 135, 225 and 315 degrees; Garway-Heath's nasal sector has two of them.
    sectors = {"T": 0.0, "S": 1.5, "N": 4.5, "I": 3.0, "GH_T": 0.0, "GH_TS": 1.5, "GH_NS": None, "GH_N": 3.75,
               "GH_NI": None, "GH_TI": None}
    shares = {f"coverage_{name}": float(mean is not None) for name, mean in sectors.items()}
    assert rows[3] == {"case": "0102", "eye": None, "unit": "um", "layer": "rnfl", "global": 2.25, **sectors,
                       **dict.fromkeys(HOURS), "coverage": 1.0, **shares,
                       **{f"coverage_{hour}": None for hour in HOURS},
                       **{f"half{level}_{name}": None for level in (68, 95) for name in MEANS}}
    assert rows[0]["global"] == 4.5
    assert rows[5]["global"] is None
    write_csv(tmp_path / "thickness.csv", rows)
    with open(tmp_path / "thickness.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == ["case", "eye", "unit", "layer", "global", "T", "S", "N", "I", "GH_T", "GH_TS", "GH_NS",
                             "GH_N", "GH_NI", "GH_TI", *HOURS, "coverage", *(f"coverage_{name}" for name in MEANS[1:]),
                             *(f"half{level}_{name}" for level in (68, 95) for name in MEANS)]
    assert {name: value for name, value in read[3].items() if value and not name.startswith("coverage_")} == {
        "case": "0102", "unit": "um", "layer": "rnfl", "global": "2.250", "T": "0.000", "S": "1.500", "N": "4.500",
        "I": "3.000", "GH_T": "0.000", "GH_TS": "1.500", "GH_N": "3.750",
        "coverage": "1.000"}
    assert (read[5]["global"], read[5]["coverage"]) == ("", "0.000")


def test_rows_of_a_known_eye_have_its_hours(tmp_path):
    [row] = table_rows({"a": eye("L", one_a_scan_a_degree())})
    assert (row["eye"], row["hour_9"], row["hour_2"]) == ("L", 179.5, 29.5)
    write_mask(tmp_path / "a.png", np.tile(MASK, (1, 10)), GOALS_GREYS)
    rows = thickness_table(tmp_path, eye="R")
    assert {row["eye"] for row in rows} == {"R"} and all(rows[0][hour] is not None for hour in HOURS)


def test_the_table_knows_what_lies_beside_a_mask(tmp_path):
    write_mask(tmp_path / "a.png", np.tile(MASK, (1, 10)), GOALS_GREYS)
    doubt = np.zeros((5, 40))
    doubt[0, 3:8] = 1  # of 4 rows: RNFL is not located
    write_boundaries(tmp_path / "a.boundaries.csv", doubt, doubt)
    write_facts(tmp_path / "a.scale.json", ScanFacts((2.0, 10.0), "R", True))
    rnfl, gcipl, _ = thickness_table(tmp_path)
    assert (rnfl["unit"], rnfl["eye"], rnfl["coverage"], gcipl["coverage"]) == ("um", "R", 35 / 40, 1)
    # A-scans 3 to 7, at 31.5 to 67.5 degrees: of hour 10 (15 to 45 degrees) one of three was seen, of hour 11 none.
    assert (rnfl["hour_10"], rnfl["hour_11"], rnfl["coverage_hour_10"]) == (None, None, 1 / 3)
    # 10 times 1 3 2 0, but 0 1 3 2 0 bridged from 2 to 1
    assert rnfl["global"] == pytest.approx(2 * (60 - 6 + 7.5) / 40)
    # What the user says comes first.
    row = thickness_table(tmp_path, 4.0, "L")[0]
    assert (row["unit"], row["eye"], row["global"]) == ("um", "L", pytest.approx(2 * rnfl["global"]))


def test_the_table_says_how_sure_means_are_where_the_model_was_calibrated(tmp_path):
    write_mask(tmp_path / "a.png", np.tile(MASK, (25, 10)), GOALS_GREYS)
    widths = np.stack([np.full((5, 40), 0.3), np.full((5, 40), 0.9)])
    widths[:2, :, :20] = 0.6  # both levels: 68 % alone counts
    widths[0, :, :20] = 0.6
    write_boundaries(tmp_path / "a.boundaries.csv", np.zeros((5, 40)), np.zeros((5, 40)), widths)
    factors = {"global": (0.5, 1.0), "quadrants": (1.0, 2.0)}
    write_facts(tmp_path / "a.scale.json", ScanFacts((2.0, 10.0), "R", True, dict.fromkeys(LAYERS, factors)))
    row = thickness_table(tmp_path)[0]
    # An A-scan's own: 2 um a px times the root of 2 times 0.6 (the superior half) or 0.3.
    assert row["half68_global"] == pytest.approx(0.5 * 2 * 2**0.5 * 0.45)
    assert (row["half68_S"], row["half95_S"]) == pytest.approx((2 * 2**0.5 * 0.6, 4 * 2**0.5 * 0.6))
    assert row["half95_I"] == pytest.approx(4 * 2**0.5 * 0.3)
    assert row["half68_GH_N"] is None and row["half68_hour_9"] is None  # no such factors
    write_facts(tmp_path / "a.scale.json", ScanFacts((2.0, 10.0), "R", True))
    assert thickness_table(tmp_path)[0]["half68_global"] is None


def test_errors_by_sector_have_their_sign_and_intervals_over_people(tmp_path):
    truth = np.zeros((60, 360), np.uint8)
    truth[20:40] = 1
    for name, top in {"a": 18, "b": 20, "c": 24}.items():
        mask = truth.copy()
        mask[20:top], mask[top:20] = 0, 1
        mask[40:42, 45:135] = 1  # superior: 2 px more
        write_mask(tmp_path / "found" / f"{name}.png", mask, GOALS_GREYS)
        write_mask(tmp_path / "true" / f"{name}.png", truth, GOALS_GREYS)
        write_facts(tmp_path / "found" / f"{name}.scale.json", ScanFacts((2.0, 10.0), "R", True))
    found = sector_errors(tmp_path / "found", tmp_path / "true")
    assert found["unit"] == "um"
    rnfl = found["layers"]["rnfl"]
    signed, absolute = rnfl["T"]["signed"], rnfl["T"]["absolute"]
    assert signed["mean"] == pytest.approx((4 + 0 - 8) / 3) and absolute["mean"] == pytest.approx((4 + 0 + 8) / 3)
    assert signed["low"] < signed["mean"] < signed["high"] and signed["groups"] == 3
    assert rnfl["S"]["signed"]["mean"] == pytest.approx((8 + 4 - 4) / 3)
    assert rnfl["global"]["signed"]["mean"] == pytest.approx((5 + 1 - 7) / 3)
    assert found["layers"]["choroid"]["T"]["signed"]["mean"] is None
    assert any(line.split()[:3] == ["rnfl", "T", "-1.33"] for line in sectors_in_words(found).splitlines())
    grouped = sector_errors(tmp_path / "found", tmp_path / "true", groups={"a": "x", "b": "x", "c": "y"})
    assert grouped["layers"]["rnfl"]["T"]["signed"]["mean"] == pytest.approx((2 - 8) / 2)
    with pytest.raises(OctkitError, match="true: has no mask of c"):
        (tmp_path / "true" / "c.png").unlink()
        sector_errors(tmp_path / "found", tmp_path / "true")


def test_a_line_scan_has_no_sectors(tmp_path, capsys):
    write_mask(tmp_path / "a.png", np.tile(MASK, (1, 10)), GOALS_GREYS)
    write_facts(tmp_path / "a.scale.json", ScanFacts(None, "R", False))
    row = thickness_table(tmp_path)[0]
    assert {name for name in MEANS if row[name] is not None} == {"global"}
    assert (row["global"], row["coverage"], row["coverage_T"]) == (1.5, 1, None)
    assert "a: is no circle" in capsys.readouterr().out


def test_an_empty_table_and_a_name_given_twice_are_refused(tmp_path):
    with pytest.raises(OctkitError, match="at least one case"):
        write_csv(tmp_path / "thickness.csv", [])
    for name in ("a.png", "a.tif"):  # one of them would take the other's row
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / name)
    with pytest.raises(OctkitError, match="a.tif: a.png has the same name"):
        thickness_table(tmp_path)


@pytest.mark.skipif(not REAL_SCANS.exists(), reason="../shared/real-scans is not here")
@pytest.mark.parametrize("name", ["willis_716_2", "willis_716_4"])
def test_rnfl_of_a_real_scan_agrees_with_the_device(name):
    line = np.genfromtxt(REAL_SCANS / "boundaries" / f"{name}.csv", delimiter=",", names=True)
    found = profile(read_mask(REAL_SCANS / "masks_goals" / f"{name}.png", GOALS_GREYS), 3.87)
    device = 3.87 * (line["NFL_GCL"] - line["ILM"])
    # Rounding both lines to pixels is off by less than a pixel in an A-scan, and evens out over the circle.
    assert np.nanmax(np.abs(found["rnfl"] - device)) < 3.87 + 1e-6
    assert means(found["rnfl"])["global"] == pytest.approx(np.nanmean(device), abs=0.5)
    # The nerve fibres enter above and below: superior and inferior are thicker than temporal and nasal.
    by_quadrant = quadrants(found["rnfl"])
    assert min(by_quadrant["S"], by_quadrant["I"]) > max(by_quadrant["T"], by_quadrant["N"])
    assert np.isnan(found["choroid"]).all()
