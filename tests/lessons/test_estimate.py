import pytest
from helpers import smoke, write_goals

from octkit.lessons.estimate import estimate
from octkit.planning.run import Run
from octkit.training.cost import Cost, measured

LONG = ("train.folds=[0,1]", "train.epochs=30", "train.iterations_per_epoch=60", "train.validation_iterations=8",
        "infer.mirror=false", "infer.step=0.5")


def two_seconds(plan, config, chosen):  # noqa: ARG001
    return Cost(step=2.0, forward=0.5, memory=3e9, weights=1_000_000)


@pytest.mark.parametrize("made", [True, False])
def test_an_estimate_is_the_sum_of_what_was_measured(tmp_path, made):
    data = ("data.phantom=null",) if made else ("data.phantom.train=6", "data.phantom.validation=2",
                                                "data.phantom.size=[64,80]")
    if made:
        write_goals(tmp_path / "data", train=6, validation=2)
    chosen = smoke(f"data.dir={tmp_path / 'data'}", *data, *LONG)
    said = estimate(Run(tmp_path / "run"), chosen, two_seconds)
    # 2 folds x 30 epochs x (60 x 2 s + 8 x 0.5 s) = 7440 s
    assert "2d: 2 folds of 30 epochs 2.1 h (2.000 s a step)" in said
    assert "3.6 GB of memory" in said and "0.1 GB of disk" in said
    assert not (tmp_path / "run").exists() and (tmp_path / "data").exists() == made


def test_a_measurement_is_one_of_the_plans_network(tmp_path, monkeypatch):
    monkeypatch.setattr("octkit.training.cost.SECONDS", 0)
    found = []

    def keep(plan, config, chosen):
        found.append((plan, measured(plan, config, chosen)))
        return found[-1][1]

    chosen = smoke(f"data.dir={write_goals(tmp_path / 'goals')}", "data.phantom=null", "plan.base_features=4",
                   "plan.max_features=8")
    estimate(Run(tmp_path / "run"), chosen, keep)
    [(plan, cost)] = found
    first, second, *_ = plan.configurations["2d"].features
    # Of the first block's two convolutions alone, 3 x 3: image to 4 maps, 4 to 4.
    assert cost.weights > 9 * (1 * first + first * first) and (first, second) == (4, 8)
    assert cost.step > 0 and cost.forward > 0 and cost.memory > 4 * 3 * cost.weights
