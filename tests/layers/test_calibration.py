"""What doubt is worth: quantiles worked out by hand, coverage on scans that were not fitted on, and what is refused."""

import numpy as np
import pytest

from octkit.common.errors import OctkitError
from octkit.common.files import write_json
from octkit.data.labels import BOUNDARIES, IGNORE
from octkit.data.measured import Calibration
from octkit.layers.calibration import HeldOut, at_least, coverage, fit, half_widths, true_boundaries
from octkit.layers.thickness import mean_widths
from octkit.phantoms.circle_scans import draw

LINES = np.array([20.0, 40, 60, 120, 160])[:, None]


def scan(error, doubt) -> HeldOut:
    """A scan of 200 rows whose boundaries are off by `error` (5, W) or (W,) px."""
    truth = np.repeat(LINES, np.shape(error)[-1], axis=1)
    return HeldOut(truth + error, np.broadcast_to(doubt, truth.shape).astype(float), truth, 200)


def drawn(rng, bias=0.0) -> HeldOut:
    """Errors whose size is the square of the doubt, as networks that are too sure have them."""
    doubt = np.exp(rng.uniform(-1, 1, (5, 120)))
    return scan(doubt**2 * (rng.normal(size=(5, 120)) + bias * rng.normal(size=(5, 1))), doubt)


def test_few_scans_give_a_factor_by_the_quantile_over_scans():
    # Of 9 scans whose errors are 1 to 9 times the doubt, the 7th is the first with 68 % at or below it (6 / 9 is less),
    # the last the first with 95 %. The first scan has a thousand A-scans and weighs as much as the others.
    scans = [scan(np.full(1000 if n == 1 else 8, n * 0.5), 0.5) for n in range(1, 10)]
    found = fit(scans, "nine scans")
    assert found.scans == 9 and found.origin == "nine scans" and found.coverage == {}
    widths = half_widths(found, np.full((5, 3), 2.0), 200)
    np.testing.assert_allclose(widths[0], 14)
    np.testing.assert_allclose(widths[1], 18)


def test_half_widths_hold_the_truth_as_often_as_they_say_at_small_and_at_large_doubt():
    rng = np.random.default_rng(1)
    found = fit([drawn(rng) for _ in range(60)], "drawn")
    tests = [drawn(rng) for _ in range(60)]
    for part in (lambda doubt: doubt < 0.7, lambda doubt: (doubt > 0.7) & (doubt < 1.5), lambda doubt: doubt > 1.5):
        within = [[(one.errors <= width)[part(one.doubt)].mean() for width in half_widths(found, one.doubt, 200)]
                  for one in tests]
        np.testing.assert_allclose(np.mean(within, axis=0), (0.68, 0.95), atol=0.05)
    shares = coverage([(one, found) for one in tests])
    np.testing.assert_allclose([*shares["calibrated"].values()], [(0.68, 0.95)] * 5, atol=0.03)


def test_half_widths_never_fall_and_stay_large_where_nothing_was_seen():
    rng = np.random.default_rng(2)
    found = fit([drawn(rng) for _ in range(40)], "drawn")
    doubt = np.broadcast_to(np.geomspace(1e-9, 500, 2000), (5, 2000))
    widths = half_widths(found, doubt, 200)
    assert (np.diff(widths, axis=2) >= 0).all() and (widths[1] >= widths[0]).all()
    assert widths.min() > 0 and widths.max() == 200
    unseen = half_widths(found, np.full((5, 1), 200 / 12**0.5), 200)  # the whole column's spread
    assert unseen.min() > 50


def test_the_same_doubt_is_worth_less_in_a_difficult_scan():
    rng = np.random.default_rng(5)

    def of(level, rows):
        """Errors in proportion to the doubt of the place and to that of the whole scan."""
        doubt = np.exp(rng.uniform(-1, 1, (5, 200)) + level)
        one = scan(np.exp(level) * doubt * rng.normal(size=(5, 200)), doubt)
        return HeldOut(one.boundaries, one.doubt, one.truth, rows)

    found = fit([of(level, rows) for level in rng.uniform(-1, 1, 30) for rows in (200, 400)], "drawn")
    curve = found.model_copy(update={"scan": {}})
    for level in (-0.9, 0.9):
        with_it, without = (np.array([*coverage([(of(level, 200), known) for _ in range(20)])["calibrated"].values()])
                            for known in (found, curve))
        np.testing.assert_allclose(with_it, [(0.68, 0.95)] * 5, atol=0.09)
        assert (abs(without - (0.68, 0.95))[:, 0] > 0.12).all()
    # Beyond all scans of the fit the correction stays that of the last.
    far, last = (half_widths(found, np.full((5, 4), np.exp(level)), 10**6) for level in (5, 4))
    np.testing.assert_allclose(far / last, np.e, rtol=1e-6)


def test_where_the_truth_is_not_known_nothing_is_learned_of_it():
    scans = [scan(np.full((5, 8), 1.0), 0.5) for _ in range(4)]
    for one in scans[:3]:
        one.boundaries[1, :4] += 100
        one.truth[1, :4] = np.nan
    np.testing.assert_allclose(half_widths(fit(scans, ""), np.full((5, 1), 0.5), 200), 1.0)
    mask = np.zeros((50, 4), np.uint8)
    mask[10:20] = 1
    mask[20:30] = 2
    lines = true_boundaries(mask)
    assert lines[:3, 0].tolist() == [10, 20, 30] and np.isnan(lines[3:]).all()
    assert fit([HeldOut(lines, np.ones((5, 4)), lines, 50)] * 3, "no choroid") is None


def test_the_truth_of_a_phantom_is_the_edges_of_its_mask():
    phantom = draw(5, (128, 96))
    assert np.abs(true_boundaries(phantom.mask) - phantom.boundaries[[0, 1, 2, 8, 9]]).max() <= 0.51


def test_a_scan_that_is_not_labelled_throughout_has_no_boundaries():
    mask = np.array([[0, 0], [1, 1], [2, 2], [0, 0], [3, 3], [0, IGNORE]], np.uint8)
    assert true_boundaries(mask)[:, 0].tolist() == [1, 2, 3, 4, 5] and np.isnan(true_boundaries(mask)[:, 1]).all()


def test_coverage_is_measured_on_the_parts_that_were_not_fitted_on():
    small, large = ([scan(np.full(8, size), 1.0) for _ in range(3)] for size in (0.9, 3.0))
    found = fit(small + large, "both", ["a"] * 3 + ["b"] * 3)
    # The first part lies within what the second gives, the second not within what the first gives.
    assert found.coverage["calibrated"] == dict.fromkeys(BOUNDARIES, (0.5, 0.5))
    assert found.coverage["raw"] == dict.fromkeys(BOUNDARIES, (0.5, 0.5))  # 3 px are not in 1.96
    assert fit(small, "one part", ["a"] * 3).coverage == {}


def test_errors_that_hang_together_make_means_less_sure():
    rng = np.random.default_rng(3)
    loose, tied = (fit([drawn(rng, bias) for _ in range(80)], "") for bias in (0, 2))
    for layer in ("rnfl", "gcipl", "choroid"):
        assert 2 * loose.means[layer]["global"][0] < tied.means[layer]["global"][0]
        # Means of more A-scans are surer where errors are independent.
        assert loose.means[layer]["global"][0] < loose.means[layer]["quadrants"][0] < loose.means[layer]["hours"][0]
    again = coverage([(drawn(rng, 2), tied) for _ in range(80)])["means"]
    np.testing.assert_allclose([*again.values()], [(0.68, 0.95)] * 12, atol=0.12)


def test_a_mean_is_as_sure_as_its_a_scans_times_a_factor():
    width = np.array([1.0, 3.0, 1.0, 3.0])
    assert mean_widths(width, {"half": (0, 180), "whole": (0, 360), "none": (1, 2)}, (0.5, 2))["half"] == (1.0, 4.0)
    assert np.isnan(mean_widths(width, {"none": (1, 2)}, (0.5, 2))["none"]).all()


def test_networks_that_differ_are_never_surer_than_that():
    widths = np.ones((2, 5, 1))
    assert at_least(widths, np.full((5, 1), 3.0))[:, 0, 0] == pytest.approx([2.983, 5.880], abs=1e-3)
    np.testing.assert_array_equal(at_least(widths, np.full((5, 1), 0.1)), widths)


def test_a_calibration_comes_back_and_what_is_none_is_refused(tmp_path):
    rng = np.random.default_rng(4)
    found = fit([drawn(rng) for _ in range(12)], "drawn", [0, 1] * 6)
    write_json(tmp_path / "calibration.json", content := found.model_dump(mode="json"))
    assert Calibration.load(tmp_path / "calibration.json") == found
    [point] = content["knots"]["ILM"]
    for wrong in ({"knots": {"ILM": [point]}}, {"scans": 0}, {"levels": 3}, {"means": {}},
                  {"knots": content["knots"] | {"ILM": []}}, {"knots": content["knots"] | {"ILM": [[1, -1, 2]]}},
                  {"knots": content["knots"] | {"ILM": [[1, 2, 3], [2, 1, 3]]}},
                  {"scan": {"ILM": [[1, 1], [0, 0]]}, "limits": [[0, -1, 1]] * 2},
                  {"scan": dict.fromkeys(BOUNDARIES, [[1, 1], [0, 0]])}):
        write_json(tmp_path / "calibration.json", content | wrong)
        with pytest.raises(OctkitError, match=r"calibration.json: .*select again"):
            Calibration.load(tmp_path / "calibration.json")
