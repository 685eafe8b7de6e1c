import csv

import numpy as np
import pytest
from helpers import SHARED
from sklearn.metrics import roc_auc_score

from octkit.layers.thickness import GARWAY_HEATH, WHOLE, sector_means
from octkit.phantoms import circle_eye
from octkit.phantoms.circle_eye import CHOROID, FLOORS, GCIPL, RNFL

TABLE = SHARED / "circle-anatomy" / "thickness_by_angle.csv"
measured = pytest.mark.skipif(not TABLE.exists(), reason="the table of measured thickness is not here")


def eyes(glaucoma: bool, count: int = 300, **how: bool) -> np.ndarray:
    """Thickness (count, 9, 48) of eyes with the seeds 0, 1, …"""
    return np.array([circle_eye.draw_eye(np.random.default_rng(seed), 48, glaucoma, **how).thickness
                     for seed in range(count)])


@pytest.fixture(scope="module")
def healthy() -> np.ndarray:
    return eyes(False)


@pytest.fixture(scope="module")
def diseased() -> np.ndarray:
    return eyes(True)


def test_healthy_rnfl_follows_the_published_course(healthy):
    mean, sd = healthy[:, RNFL].mean(axis=0), healthy[:, RNFL].std(axis=0)
    # Angle: mean and sd (um) of 80 real eyes, Rathke et al. 2014; 48 samples are 7.5 degrees apart.
    published = {0: (56.7, 9.5), 37.5: (94.0, 17.7), 60: (142.1, 27.3), 67.5: (146.6, 26.2), 75: (141.0, 29.7),
                 97.5: (92.5, 22.2), 127.5: (107.6, 28.4), 187.5: (53.4, 9.3), 232.5: (93.7, 24.0),
                 270: (133.5, 28.8), 292.5: (157.4, 26.3), 337.5: (59.1, 11.1)}
    for angle, (expected, spread) in published.items():
        assert mean[int(angle / 7.5)] == pytest.approx(expected, abs=6), angle
        assert sd[int(angle / 7.5)] == pytest.approx(spread, rel=0.3), angle


def test_healthy_circle_means(healthy):
    # RNFL, GCIPL, INL, OPL, ONL, inner segments, outer segments, RPE: circle means of the same source.
    np.testing.assert_allclose(healthy[:, :CHOROID].mean(axis=(0, 2)), (95, 52, 21, 21, 67, 16, 21, 22), atol=1.5)
    assert 7 < healthy[:, RNFL].mean(axis=1).std() < 13


@pytest.mark.parametrize(("wide", "thick", "most"), [(False, (0.03, 0.12), 410), (True, (0.15, 0.3), 460)])
def test_choroids_are_thin_inferiorly_and_the_thick_ones_thickest_temporally(wide, thick, most):
    choroid = np.array([circle_eye.draw_eye(np.random.default_rng(seed), 48, False, wide).thickness[CHOROID]
                        for seed in range(200)])
    mean = choroid.mean(axis=1)
    assert 140 < np.median(mean) < 165
    assert thick[0] < (mean > 250).mean() < thick[1]
    assert most - 40 < choroid.max() < most
    temporal, superior, nasal, inferior = (np.roll(choroid, shift, axis=1)[:, :12].mean(axis=1)
                                           for shift in (6, -6, -18, -30))
    assert inferior.mean() < superior.mean() - 15
    large = mean > 200
    assert (temporal > inferior)[large].mean() > 0.95
    assert (temporal / mean)[large].mean() > (temporal / mean)[~large].mean() + 0.06
    assert ((temporal > nasal) & (temporal > superior))[mean > 250].mean() > 0.7


def test_the_choroid_bulges_downwards_between_cusps():
    fine = [circle_eye.draw_eye(np.random.default_rng(seed), 1440, False).thickness[CHOROID] for seed in range(20)]
    bent = np.diff(fine, 2, axis=1)  # sharp where the choroid is thinnest, round where it is thickest
    assert np.median(bent.max(axis=1) / -bent.min(axis=1)) > 2


@measured
def test_tables_agree_with_their_source():
    rows = list(csv.DictReader(TABLE.read_text().splitlines()))[::2]
    for name, column in {"RNFL_MEAN": "RNFL_mean_um", "RNFL_SD": "RNFL_sd_um", "GCIPL_MEAN": "GCIPL_mean_um",
                         "INL_MEAN": "INL_mean_um", "OPL_MEAN": "OPL_mean_um", "ONL_MEAN": "ONL_mean_um"}.items():
        np.testing.assert_allclose(getattr(circle_eye, name), [float(row[column]) for row in rows], atol=0.61)
    height = [3.87 * float(row["ilm_row_minus_mean_px_mean"]) for row in rows]
    np.testing.assert_allclose(circle_eye.ILM_MEAN, height, atol=0.61)


@measured
def test_eyes_are_as_thick_and_as_different_as_those_measured(healthy):
    """200 eyes, 48 angles: means within 9 % (or 1.2 um) and 4.5 um, SDs within 8 % on average, each by 0.6 to 1.7."""
    rows = list(csv.DictReader(TABLE.read_text().splitlines()))
    for layer, name in enumerate(("RNFL", "GCIPL", "INL", "OPL", "ONL", "ELM-IS", "IS-OS", "RPE")):
        mean, sd = (np.array([float(row[f"{name}_{what}_um"]) for row in rows]) for what in ("mean", "sd"))
        found = healthy[:, layer]
        assert (abs(found.mean(axis=0) - mean) < np.minimum(np.maximum(0.09 * mean, 1.2), 4.5)).all(), name
        ratio = found.std(axis=0) / sd
        assert ratio.mean() == pytest.approx(1, abs=0.08), name
        assert ratio.min() > 0.6 and ratio.max() < 1.7, name


def test_wide_eyes_keep_the_means_and_go_beyond_the_norm(healthy):
    drawn = [circle_eye.draw_eye(np.random.default_rng(seed), 48, False, wide=True) for seed in range(200)]
    wide = np.array([eye.thickness for eye in drawn])
    np.testing.assert_allclose(wide[:, :CHOROID].mean(axis=(0, 2)), healthy[:, :CHOROID].mean(axis=(0, 2)), rtol=0.03)
    assert (wide[:, RNFL].std(axis=0) > 0.95 * healthy[:, RNFL].std(axis=0)).all()
    choroid = wide[:, CHOROID].mean(axis=1)
    assert choroid.min() < 75 and choroid.max() > 300 and wide[:, CHOROID].min() > 40
    tilt = np.array([np.ptp(eye.bruch) for eye in drawn])  # um from peak to peak
    assert tilt.min() < 150 and 250 < np.median(tilt) < 500 and tilt.max() > 700
    assert (wide[:, :CHOROID] > np.array(FLOORS)[:, None]).all()


def test_a_circle_off_centre_is_thick_where_it_is_near_the_disc():
    layers = np.repeat([[100.0], [50], [30], [30], [60], [20], [20], [22], [150]], 360, axis=1)
    layers[GCIPL] += 10 * np.cos(np.radians(np.arange(360)))
    vessels = (circle_eye.Vessel(0.0, 90.0), circle_eye.Vessel(90.0, 90.0), circle_eye.Vessel(-90.0, 90.0))
    eye = circle_eye.off_centre(circle_eye.Eye(layers, np.zeros(360), vessels), 300.0, 0.0)
    # At angle 0 the circle is 2030 um from the disc's centre, at 180 degrees 1430 um; its radius is 1730 um.
    assert eye.thickness[RNFL, [0, 180]] == pytest.approx([100 * 1730 / 2030, 100 * 1730 / 1430], abs=0.1)
    assert eye.thickness[CHOROID] == pytest.approx(150)
    # What lies straight above the disc, the circle meets asin(300 / 1730) = 9.99 degrees further on.
    assert [vessel.angle for vessel in eye.vessels] == pytest.approx([0, 99.99, -99.99], abs=0.05)
    assert eye.thickness[GCIPL, 100] == pytest.approx(50, abs=0.2)


def test_glaucoma_is_as_hard_to_tell_as_in_patients(healthy, diseased):
    sectors, truth = WHOLE | GARWAY_HEATH, np.repeat((0, 1), len(healthy))
    mean = [{name: np.array([sector_means(eye[RNFL], sectors)[name] for eye in group]) for name in sectors}
            for group in (healthy, diseased)]
    auc = {name: roc_auc_score(truth, -np.concatenate([group[name] for group in mean])) for name in sectors}
    assert 0.82 < auc["global"] < 0.90
    # Of 1,067 real exams (see `_with_loss`): the AUC of one sector, and what is left of its mean.
    real = {"GH_TI": (0.84, 0.71), "GH_TS": (0.81, 0.74), "GH_NI": (0.81, 0.74), "GH_N": (0.80, 0.78),
            "GH_NS": (0.78, 0.75), "GH_T": (0.70, 0.89)}
    assert max(real, key=auc.get) == "GH_TI" and min(real, key=auc.get) == "GH_T"
    for name, (expected, left) in real.items():
        assert auc[name] == pytest.approx(expected, abs=0.06), name
        assert mean[1][name].mean() / mean[0][name].mean() == pytest.approx(left, abs=0.06), name
    assert mean[0]["global"].std() == pytest.approx(11, abs=1.5)
    assert mean[1]["global"].std() == pytest.approx(18, abs=2.5)


def test_glaucoma_is_early_in_many_eyes_and_takes_gcipl_along(healthy, diseased):
    # Of the same seed the healthy eye is the ill one before its loss.
    left = diseased[:, :GCIPL + 1].mean(axis=2) / healthy[:, :GCIPL + 1].mean(axis=2)
    assert (left[:, RNFL] > 0.9).mean() > 0.2 and 0.02 < (left[:, RNFL] < 0.5).mean() < 0.2
    assert np.corrcoef(left.T)[0, 1] > 0.8 and left[:, RNFL].mean() < left[:, GCIPL].mean() < 0.92
    np.testing.assert_array_equal(diseased[:, GCIPL + 1:], healthy[:, GCIPL + 1:])


def test_glaucoma_has_focal_notches_that_favour_the_humps(healthy, diseased):
    left = diseased[:, RNFL] / healthy[:, RNFL]
    deepest = left.argmin(axis=1) * 7.5
    hump = np.minimum(abs(deepest - 67), abs(deepest - 292)) < 30
    assert hump.mean() > 0.45  # 120 of 360 degrees would be a third
    assert np.median(left.max(axis=1) - left.min(axis=1)) > 0.2


def test_both_eyes_of_a_person_are_ill_and_not_equally(healthy, diseased):
    before, after = (eyes(glaucoma, 100, fellow=True)[:, RNFL] for glaucoma in (False, True))
    assert np.std(before.mean(axis=1) - healthy[:100, RNFL].mean(axis=1)) < 5
    left, other = (diseased / healthy)[:100, RNFL].mean(axis=1), (after / before).mean(axis=1)
    assert 0.35 < np.corrcoef(left, other)[0, 1] < 0.8
    assert (left < 0.95).sum() > 50 and (other < 0.95).sum() > 50


def test_no_layer_vanishes(healthy, diseased):
    for thickness in (healthy, diseased):
        assert (thickness[:, :CHOROID] > np.array(FLOORS)[:, None] - 3).all()
        assert thickness[:, CHOROID].min() > 40


def test_one_seed_is_one_eye_at_any_resolution():
    coarse, fine = (circle_eye.draw_eye(np.random.default_rng(5), width, True) for width in (240, 480))
    assert coarse.vessels == fine.vessels
    np.testing.assert_allclose(coarse.thickness, fine.thickness[:, ::2], atol=0.2)
    np.testing.assert_allclose(coarse.bruch, fine.bruch[::2], atol=0.2)
