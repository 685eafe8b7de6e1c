"""The thickness model: what it knows of a scan, and that it learns what can be learned and nothing of who it is."""

import numpy as np
import pytest

from octkit.classification import thickness_model
from octkit.classification.thickness_model import COLUMNS, around, features, fit, out_of_fold, usual
from octkit.data.labels import LAYERS
from octkit.layers.thickness import Thickness


def scan(rnfl=100.0, gcipl=50.0, eye=None, columns=360):
    return Thickness(np.stack([np.broadcast_to(value, columns).astype(float) for value in (rnfl, gcipl, 200.0)]),
                     LAYERS, "um", eye)


def told(table, row, kind, layer, sector):
    return table[row, COLUMNS.index((kind, layer, sector))]


def people(count=30, scans=2, seed=0):
    """Profiles, people and labels: half of them have glaucoma, which thins RNFL in the inferior quadrant alone."""
    random = np.random.default_rng(seed)
    profiles, who, labels = [], [], []
    thin = np.where((np.arange(360) >= 225) & (np.arange(360) < 315), 40.0, 0.0)
    for person in range(count):
        ill = person % 2
        base = random.normal(100, 12)
        for _ in range(scans):
            profiles.append(scan(base - ill * thin + random.normal(0, 3, 360), random.normal(50, 3)))
            who.append(f"p{person}")
            labels.append(ill)
    return profiles, who, np.array(labels)


def test_features_by_hand():
    ring = np.where(np.arange(360) < 10, 130.0, 100.0)  # one piece of the temporal quadrant is thicker
    found = features([scan(ring)], ["a"])
    assert found.shape == (1, len(COLUMNS))
    assert told(found, 0, "mean", "rnfl", "at 0") == 130 and told(found, 0, "mean", "rnfl", "at 10") == 100
    assert told(found, 0, "mean", "rnfl", "T") == pytest.approx(100 + 30 * 10 / 90)
    assert told(found, 0, "mean", "gcipl", "global") == 50 and told(found, 0, "seen", "rnfl", "global") == 1


def test_the_other_eye_is_the_mean_of_its_scans_and_of_this_person_alone():
    scans = [scan(100, eye="R"), scan(80, eye="L"), scan(90, eye="L"), scan(40, eye="L"), scan(70)]
    found = features(scans, ["a", "a", "a", "b", "a"])
    assert [told(found, row, "against the other eye", "rnfl", "S") for row in range(3)] == [15, -20, -10]
    assert np.isnan([told(found, row, "against the other eye", "rnfl", "S") for row in (3, 4)]).all()


def test_what_was_not_seen_is_not_thin():
    profiles, who, labels = people()
    model = fit(features(profiles, who), labels, who, 0)
    gap = profiles[0].values[0].copy()
    gap[225:315] = np.nan
    found = features([scan(gap)], ["new"])
    assert np.isnan(told(found, 0, "mean", "rnfl", "I")) and told(found, 0, "seen", "rnfl", "global") == 0.75
    odds = model.decision_function(np.vstack([found, features([scan(np.nan, np.nan)], ["x"])]))
    assert np.isfinite(odds).all()
    usual_gap = np.where(np.isnan(gap), np.repeat(usual(model)["rnfl"], 10), gap)
    assert odds[0] == pytest.approx(model.decision_function(features([scan(usual_gap)], ["new"]))[0], abs=1.5)


def test_it_learns_what_separates_and_shows_where():
    profiles, who, labels = people()
    known = features(profiles, who)
    odds = out_of_fold(fit(known, labels, who, 0), known, labels, who, 0)
    assert ((odds > 0) == labels).all()
    weights = around(fit(known, labels, who, 0), 360)
    assert weights["rnfl"][225:315].mean() < 4 * min(weights["rnfl"][:225].mean(), 0)
    assert weights["rnfl"].shape == (360,)


def test_weights_around_are_the_change_of_the_log_odds():
    profiles, who, labels = people(seed=3)
    model = fit(features(profiles, who), labels, who, 0)
    weights, thicker = around(model, 360), profiles[0].values[0].copy()
    thicker[100:110] += 5
    before, after = model.decision_function(features([scan(profiles[0]["rnfl"], profiles[0]["gcipl"]),
                                                      scan(thicker, profiles[0]["gcipl"])], ["x", "y"]))
    assert after - before == pytest.approx(5 * weights["rnfl"][100:110].sum(), rel=1e-6)


def test_no_person_teaches_what_is_said_of_them(monkeypatch):
    """Labels at random by person: who remembers people is right about each, who does not is right about half."""
    random = np.random.default_rng(5)
    marks = random.normal(size=(40, len(COLUMNS)))
    who, labels = [f"p{n // 4}" for n in range(160)], np.repeat(random.permutation(np.arange(40) % 2), 4)
    known = np.repeat(marks, 4, axis=0)
    taught = []
    real = thickness_model.cross_val_predict
    monkeypatch.setattr(thickness_model, "cross_val_predict", lambda *a, cv, **k: taught.append(cv) or real(*a, cv=cv,
                                                                                                             **k))
    odds = out_of_fold(fit(known, labels, who, 0), known, labels, who, 0)
    assert 0.3 < ((odds > 0) == labels).mean() < 0.7
    assert all({who[i] for i in train}.isdisjoint(who[i] for i in test) for train, test in taught[0].split())
