import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octkit.files import OctkitError
from octkit.images import read_mask, write_mask
from octkit.layouts import GOALS_GREYS
from octkit.thickness import errors, means, profile, quadrants, table_rows, thickness_table, write_csv

REAL_SCANS = Path(__file__).parents[2] / "shared" / "real-scans"

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


def test_a_scan_stored_the_other_way_round_is_mirrored_into_tsnit():
    np.testing.assert_array_equal(profile(MASK[:, ::-1], order="TINST").values, profile(MASK).values)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"um_per_px": 0}, "um_per_px: found 0"),
    ({"um_per_px": float("nan")}, "um_per_px: found nan"),
    ({"order": "NITSN"}, "order: found 'NITSN'"),
    ({"eye": "left"}, "eye: found 'left'"),
])
def test_profile_refuses_what_it_cannot_mean(arguments, message):
    with pytest.raises(OctkitError, match=message):
        profile(MASK, **arguments)


def test_quadrants_by_hand():
    # 8 A-scans, middles at 22.5, 67.5, 112.5, …: T has the first and the last, then S S, N N, I I.
    line = np.array([1, 10, 20, 100, 200, 1000, 3000, 3.0])
    assert quadrants(line) == {"T": 2, "S": 15, "N": 150, "I": 2000}
    assert means(line)["global"] == pytest.approx(line.mean())


def test_a_middle_on_the_border_opens_the_next_quadrant():
    # 4 A-scans, middles at 45, 135, 225 and 315 degrees.
    assert quadrants(np.array([1.0, 2, 3, 4])) == {"S": 1, "N": 2, "I": 3, "T": 4}


def test_a_quadrant_without_a_scans_is_unknown():
    found = quadrants(np.array([1.0, 3.0]))  # middles at 90 and 270 degrees
    assert (found["S"], found["I"]) == (1, 3)
    assert math.isnan(found["T"]) and math.isnan(found["N"])


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


def test_errors_by_hand():
    truth = MASK.copy()
    truth[3, 3] = 3  # GCIPL 2 1 1 1, choroid 0 0 0 1
    found = errors(profile(MASK, 2.0), profile(truth, 2.0))
    assert found["rnfl"] == {"mean_absolute": 0, "global": 0, "S": 0, "N": 0, "I": 0, "T": 0}
    assert found["gcipl"] == {"mean_absolute": 0.5, "global": 0.5, "S": 0, "N": 0, "I": 0, "T": 2}
    # The prediction has no choroid at all: as thick as nothing.
    assert found["choroid"]["global"] == -0.5
    assert math.isnan(errors(profile(truth), profile(MASK))["choroid"]["mean_absolute"])


@pytest.mark.parametrize(("other", "message"), [
    (profile(MASK, 2.0), "unit: predicted px, truth um"),
    (profile(MASK[:, :3]), "A-scans: predicted 4, truth 3"),
    (profile(MASK, layers=("rnfl",)), "layers"),
])
def test_errors_refuse_what_cannot_be_compared(other, message):
    with pytest.raises(OctkitError, match=message):
        errors(profile(MASK), other)


def test_table_and_csv(tmp_path):
    write_mask(tmp_path / "masks" / "0102.png", MASK, GOALS_GREYS)
    write_mask(tmp_path / "masks" / "0101.png", np.repeat(MASK, 2, axis=0), GOALS_GREYS)
    rows = thickness_table(tmp_path / "masks", 1.5)
    assert [(row["case"], row["layer"]) for row in rows] == [
        (case, layer) for case in ("0101", "0102") for layer in ("rnfl", "gcipl", "choroid")]
    assert rows[3] == {"case": "0102", "eye": None, "unit": "um", "layer": "rnfl", "global": 2.25,
                       "T": 0.0, "S": 1.5, "N": 4.5, "I": 3.0}
    assert rows[0]["global"] == 4.5
    assert rows[5]["global"] is None
    write_csv(tmp_path / "thickness.csv", rows)
    with open(tmp_path / "thickness.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == ["case", "eye", "unit", "layer", "global", "T", "S", "N", "I"]
    assert read[3] == {"case": "0102", "eye": "", "unit": "um", "layer": "rnfl", "global": "2.250", "T": "0.000",
                       "S": "1.500", "N": "4.500", "I": "3.000"}
    assert read[5]["global"] == ""


def test_table_rows_carry_the_eye():
    assert table_rows({"a": profile(MASK, eye="R")})[0]["eye"] == "R"


def test_an_empty_table_and_a_foreign_mask_are_refused(tmp_path):
    with pytest.raises(OctkitError, match="at least one case"):
        write_csv(tmp_path / "thickness.csv", [])
    with pytest.raises(OctkitError, match="found no PNG"):
        thickness_table(tmp_path)
    write_mask(tmp_path / "a.png", MASK, {7: 0, 0: 1, 80: 2})
    with pytest.raises(OctkitError, match="a.png: found mask values 7"):
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
