"""Three answers: that each listens to its own evidence, that nothing held out decides, and how one is chosen."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from octkit.classification import answers
from octkit.classification.answers import ANSWERS, Evidence, choose, cross_validate, fit, regress
from octkit.common.errors import OctkitError
from octkit.evaluation.diagnosis import auc_interval


def evidence(people=40, scans=2, network=2.0, thickness=2.0, seed=0):
    """Scans whose two sources tell glaucoma by so many standard deviations; one column of thickness."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(people) % 2, scans)
    count = people * scans
    return Evidence(tuple(f"s{n}" for n in range(count)), tuple(f"p{n // scans}" for n in range(count)),
                    random.normal(labels * network), random.normal(labels[:, None] * [thickness, 0]), labels,
                    np.arange(count) // scans % 3)


def test_each_answer_listens_to_its_own_evidence():
    known = evidence()
    fitted = fit(known, 0)
    told = fitted.ask(known).probabilities
    assert list(told) == list(ANSWERS) and all(((p > 0) & (p < 1)).all() for p in told.values())
    other = fitted.ask(replace(known, logits=-known.logits)).probabilities
    assert np.array_equal(told["thickness"], other["thickness"])
    assert not np.allclose(told["resnet50"], other["resnet50"]) and not np.allclose(told["both"], other["both"])


@pytest.mark.parametrize("columns", [1, 2])
def test_where_no_weight_would_be_negative_it_is_scikit_learns_regression(columns):
    known = evidence()
    inputs = np.column_stack([known.logits, known.features[:, 0]])[:, :columns]
    plain = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-10)).fit(inputs, known.labels)
    assert regress(inputs, known.labels).ask(inputs) == pytest.approx(plain.predict_proba(inputs)[:, 1])


def test_equal_log_odds_tell_nothing_of_others():
    found = regress(np.full((10, 1), -0.123456), np.arange(10) % 2)  # whose deviation is 1e-17, by rounding
    assert found.ask(np.array([[-0.2], [0.0]])) == pytest.approx([0.5, 0.5], abs=0.01)


def test_log_odds_that_are_no_number_are_refused(tmp_path):
    (tmp_path / "outputs.csv").write_text("split,scan,log_odds\nheld out,a,0.5\nheld out,b,\n")
    with pytest.raises(OctkitError, match="outputs.csv: found log odds that are no number"):
        answers.read_outputs(tmp_path)


def test_a_network_that_was_wrong_of_a_few_people_is_not_believed_the_other_way_round():
    """Its order of other scans stays, and both together say what thickness says."""
    known, more = evidence(network=-1.5), evidence(100, seed=1)
    told = fit(known, 0).ask(more).probabilities
    assert list(np.argsort(told["resnet50"])) == list(np.argsort(more.logits))
    assert np.ptp(told["resnet50"]) < 0.02
    assert told["both"] == pytest.approx(told["thickness"], abs=0.02)
    inputs = np.column_stack([known.features[:, 0], known.logits])
    assert min(LogisticRegression().fit(inputs, known.labels).coef_[0]) < -0.5  # a free regression would believe that


def test_both_are_better_than_either_where_each_knows_something():
    known, more = evidence(seed=1), evidence(300, seed=2)
    told = fit(known, 0).ask(more)
    auc = {name: auc_interval(more.labels, p, more.people).mean for name, p in told.probabilities.items()}
    assert auc["both"] > max(auc["thickness"], auc["resnet50"])
    assert 0.85 < (~told.called["both"][more.labels == 0]).mean() < 1


@pytest.mark.parametrize("nested", [False, True])
def test_nothing_that_is_held_out_decides_anything(monkeypatch, nested):
    """Whatever is fitted and set is so by people who are not in the part that it is asked about."""
    known, asked = evidence(), []
    if nested:
        known = replace(known, nested={fold: known.logits + 10 * (fold + 1) for fold in range(3)})
    real = answers.fit

    def watched(rest, seed):
        fitted = real(rest, seed)
        asked.append(rest)
        return fitted

    monkeypatch.setattr(answers, "fit", watched)
    assert len(cross_validate(known, 0).called["both"]) == len(known.names)
    assert len(asked) == (3 if nested else answers.FOLDS)
    for rest in asked:
        held_out = set(known.names) - set(rest.names)
        assert not {known.people[int(name[1:])] for name in held_out} & set(rest.people)
        if nested:
            [fold] = {int(known.folds[int(name[1:])]) for name in held_out}
            places = [int(name[1:]) for name in rest.names]
            assert np.array_equal(rest.logits, known.logits[places] + 10 * (fold + 1))


def test_a_threshold_never_comes_from_the_scans_that_it_is_used_on():
    known = evidence(seed=3)
    found = cross_validate(known, 0)
    # The healthy scans of one part become extreme: their own calls follow the threshold of the others.
    parts = answers.deal_people(known.people, known.labels, answers.FOLDS, 0)
    wild = (parts == 2) & (known.labels == 0)
    other = cross_validate(replace(known, logits=np.where(wild, 50.0, known.logits)), 0)
    assert other.called["resnet50"][wild].all() and not found.called["resnet50"][wild].all()


def test_without_thickness_the_network_answers_alone_and_with_few_people_as_it_is():
    known = replace(evidence(), features=None)
    assert list(fit(known, 0).ask(known).probabilities) == ["resnet50"]
    assert list(cross_validate(known, 0).probabilities) == ["resnet50"]
    few = evidence(3)
    told = fit(few, 0).ask(few)
    assert told.probabilities["resnet50"] == pytest.approx(1 / (1 + np.exp(-few.logits)))
    assert list(told.called["resnet50"]) == list(few.logits >= 0)
    assert cross_validate(few, 0) is None


def test_ties_go_to_the_simpler():
    known = evidence(200, 1, seed=4)
    good, bad = known.logits, np.random.default_rng(0).normal(size=200)
    same = {"thickness": good, "resnet50": bad, "both": good + 1e-3 * bad}
    chosen, why, behind = choose(known.labels, same, known.people)
    assert chosen == "thickness" and behind["resnet50"]["mean"] > 0.2 and behind["resnet50"]["p"] < 0.001
    chosen, why, _ = choose(known.labels, {"thickness": bad, "resnet50": good, "both": good}, known.people)
    assert (chosen, "highest" in why) == ("resnet50", True)
