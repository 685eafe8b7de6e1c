"""AUC, sensitivity and specificity with intervals that count people: by hand, and against their definitions."""

import json

import numpy as np
import pytest

from octkit.evaluation.diagnosis import auc_gain, auc_interval, diagnosis_scores, threshold_for, wilson

Z = 1.959964


def drawn(people=60, scans=1, spread=1.0, seed=0):
    """Labels, two answers of unlike worth and people; scans of a person are the same where `spread` is 0."""
    random = np.random.default_rng(seed)
    labels = np.arange(people) % 2
    first, second = random.normal(labels * 1.5, 1), random.normal(labels * 0.5, 1)
    labels, first, second, who = (np.repeat(values, scans) for values in (labels, first, second, np.arange(people)))
    noise = spread * random.normal(size=(2, people * scans))
    return labels, first + noise[0], second + noise[1], [f"p{n}" for n in who]


def delong(labels, *answers):
    """AUCs and their covariance as DeLong et al. (1988) write them, for scans that are each of a person."""
    ill, placements = labels == 1, []
    for found in answers:
        psi = np.array([[float(x > y) + 0.5 * (x == y) for y in found[~ill]] for x in found[ill]])
        placements.append((psi.mean(axis=1), psi.mean(axis=0)))
    v10, v01 = (np.cov([place[side] for place in placements]) for side in (0, 1))
    return [place[0].mean() for place in placements], v10 / ill.sum() + v01 / (~ill).sum()


def test_an_auc_and_its_interval_by_hand():
    # Glaucoma 0.9, 0.4 against healthy 0.6, 0.1: three of four pairs in order. Placements 1, 0.5 and 0.5, 1: each
    # variance is 0.125 and the AUC's 2 * 0.125 / 2 = 0.125. On the logit's scale: log 3 ± 1.96 * sqrt(0.125) / 0.1875.
    found = auc_interval([1, 1, 0, 0], [0.9, 0.4, 0.6, 0.1], list("abcd"))
    half = Z * np.sqrt(0.125) / (0.75 * 0.25)
    assert found.mean == 0.75 and found.n == 4
    assert [np.log(end / (1 - end)) for end in found[1:3]] == pytest.approx([np.log(3) - half, np.log(3) + half])


def test_with_a_scan_a_person_they_are_delongs():
    labels, first, second, people = drawn()
    (one, other), covariance = delong(labels, first, second)
    found, (gain, p) = auc_interval(labels, first, people), auc_gain(labels, first, second, people)
    spread = np.log(found.high / (1 - found.high)) - np.log(found.mean / (1 - found.mean))
    assert spread * found.mean * (1 - found.mean) / Z == pytest.approx(np.sqrt(covariance[0, 0]))
    deviation = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert gain == pytest.approx((other - one, other - one - Z * deviation, other - one + Z * deviation, 60))
    assert 0 < p < 0.05 and auc_gain(labels, first, first, people)[1] == 1


def test_several_seeds_gain_what_each_gains_in_the_mean():
    labels, first, second, people = drawn()
    found, _ = auc_gain(labels, [first, second], [second, first], people)
    assert found == (0, 0, 0, 60)
    both, p = auc_gain(labels, [first, -first], [second, second], people)
    each = [auc_gain(labels, one, second, people)[0].mean for one in (first, -first)]
    assert both.mean == pytest.approx(np.mean(each)) and both.low < both.mean < both.high and 0 < p < 1
    assert auc_gain(labels, [first] * 2, [second] * 2, people)[0] == pytest.approx(
        auc_gain(labels, first, second, people)[0])


def test_a_gain_that_nobody_moves_has_no_interval():
    # No order and a perfect one: in both of them all of a class are placed alike.
    found, p = auc_gain([1, 1, 0, 0], [0.5] * 4, [0.9, 0.8, 0.2, 0.1], list("abcd"))
    assert found.mean == 0.5 and np.isnan([found.low, found.high, p]).all()


def test_five_equal_scans_of_a_person_tell_no_more_than_one():
    labels, first, second, people = drawn(spread=0)
    more = drawn(scans=5, spread=0)
    assert auc_interval(*more[:2], more[3]) == pytest.approx(auc_interval(labels, first, people))
    assert auc_gain(*more)[0] == pytest.approx(auc_gain(labels, first, second, people)[0])


def test_the_interval_holds_the_true_auc_about_95_times_in_100():
    true = 0.8556  # of two normal distributions 1.5 apart, of deviation 1 within people and none besides
    held = [found.low < true < found.high for seed in range(200)
            for labels, first, _, people in [drawn(40, 3, spread=0, seed=seed)]
            for found in [auc_interval(labels, first, people)]]
    assert 0.91 <= np.mean(held) <= 0.99


@pytest.mark.parametrize(("labels", "found"), [([1, 1, 0, 0], [0.9, 0.8, 0.2, 0.1]), ([1, 0, 0], [0.3, 0.2, 0.6]),
                                               ([1, 1], [0.5, 0.6])], ids=["apart", "one person", "one class"])
def test_what_cannot_be_told_has_no_interval(labels, found):
    interval = auc_interval(labels, found, [str(n) for n in range(len(labels))])
    assert np.isnan(interval[1:3]).all()


def test_wilson_by_hand():
    # 8 of 10, each of a person: (0.8 + z²/20 ± z sqrt(0.016 + z²/400)) / (1 + z²/10).
    found = wilson([True] * 8 + [False] * 2, [str(n) for n in range(10)])
    assert found == (0.8, pytest.approx(0.4901625), pytest.approx(0.9433178), 10)
    # The same scans five times over of the same people, and all of ten people right: ten people, not fifty scans.
    again = wilson(([True] * 8 + [False] * 2) * 5, [str(n % 10) for n in range(50)])
    assert again[1:] == pytest.approx((wilson([True] * 8 + [False] * 2, [str(n) for n in range(10)])[1:]), abs=0.02)
    assert wilson([True] * 30, [str(n % 10) for n in range(30)])[:2] == (1, pytest.approx(10 / (10 + Z**2)))
    assert np.isnan(wilson([], []).mean)


@pytest.mark.parametrize(("specificity", "allowed"), [(0.95, 1), (0.9, 2), (1.0, 0)])
def test_a_threshold_keeps_its_specificity_on_the_scans_that_it_is_set_by(specificity, allowed):
    healthy = np.random.default_rng(0).permutation(np.arange(20) / 20)
    assert (healthy > threshold_for(healthy, specificity)).sum() == allowed
    assert threshold_for([0.2, 0.7]) == 0.7


def test_counts_and_the_roc_by_hand():
    # Called are two of three glaucomas and one of four healthy scans.
    known, found = [1, 1, 1, 0, 0, 0, 0], [0.9, 0.5, 0.3, 0.6, 0.4, 0.2, 0.1]
    scores = diagnosis_scores(known, found, np.array(found) >= 0.5, list("abcdefg"))
    assert scores["confusion"] == {"true_positive": 2, "false_negative": 1, "false_positive": 1, "true_negative": 3}
    assert [scores["sensitivity"]["mean"], scores["specificity"]["mean"], scores["f1"]] == pytest.approx(
        [2 / 3, 3 / 4, 4 / 6])
    # Of 12 pairs of a glaucoma and a healthy scan, 0.9 wins 4, 0.5 wins 3, 0.3 wins 2.
    roc = scores["roc"]
    assert scores["auc"]["mean"] == pytest.approx(9 / 12) == pytest.approx(np.trapezoid(roc["tpr"], roc["fpr"]))
    assert (roc["fpr"][0], roc["tpr"][0], roc["thresholds"][0]) == (0, 0, None)
    assert (roc["fpr"][-1], roc["tpr"][-1]) == (1, 1)
    one_class = diagnosis_scores([1, 1], [0.9, 0.2], [True, False], list("ab"))
    assert (one_class["auc"]["mean"], one_class["roc"], one_class["specificity"]["mean"]) == (None, None, None)
    assert (one_class["sensitivity"]["mean"], one_class["f1"]) == (0.5, pytest.approx(2 / 3))
    assert diagnosis_scores([0], [0.2], [False], ["a"])["f1"] is None


def test_scores_by_hand():
    found = diagnosis_scores([1, 1, 0, 0], [0.9, 0.4, 0.6, 0.1], [True, False, False, False], list("abcc"))
    assert found["brier"] == pytest.approx((0.01 + 0.36 + 0.36 + 0.01) / 4)
    assert (found["sensitivity"]["mean"], found["specificity"]["mean"], found["f1"]) == (0.5, 1, pytest.approx(2 / 3))
    assert (found["scans"], found["people"]) == (4, 3)
    assert found["reliability"] == {"predicted": [0.1, 0.4, 0.6, 0.9], "observed": [0, 1, 0, 1]}
    assert json.loads(json.dumps(found, allow_nan=False))["auc"]["low"] is None  # the healthy scans are one person's
