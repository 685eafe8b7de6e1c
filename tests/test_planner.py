import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octkit import settings as run_settings
from octkit.files import OctkitError, read_json
from octkit.fingerprint import Fingerprint
from octkit.planner import (
    Plan,
    feature_map_values,
    plan_experiment,
    plan_run,
    plane_axes,
    start_patch,
    target_spacing,
    topology,
)

ORACLE = Path(__file__).parents[2] / "shared" / "oracle" / "plans.json"
RECORD = {"mean": 1.0, "median": 1.0, "min": 0.0, "max": 2.0, "std": 1.0, "percentile_00_5": 0.0,
          "percentile_99_5": 2.0}


def fingerprint(shape, spacing, cases=20, classes=3) -> Fingerprint:
    return Fingerprint([spacing] * cases, [shape] * cases, ("OCT",), classes, [RECORD])


def test_the_plan_for_goals():
    # nnU-Net v2.8.1's own answer for 100 scans of 1100 x 800 px
    plan = plan_experiment(fingerprint((800, 1100), (1, 1), 100)).configurations["2d"]
    assert plan.patch_size == (896, 1152) and plan.batch_size == 3 and plan.batch_dice
    assert plan.features == (32, 64, 128, 256, 512, 512, 512, 512)
    assert plan.strides == ((1, 1),) + ((2, 2),) * 7 and plan.kernels == ((3, 3),) * 8
    assert plan_experiment(fingerprint((800, 1100), (1, 1), 100), 24).configurations["2d"].batch_size == 4


def test_every_2d_plan_of_nnunet():
    if not ORACLE.exists():
        pytest.skip("needs nnU-Net's plans in ../shared/oracle/plans.json")
    for entry in json.loads(ORACLE.read_text()):
        case, expected = entry["case"], entry["plan"]["configurations"]["2d"]
        first = 1 if case["spacing"][0] == 999 else 0  # nnU-Net's sign for "2-D": a third axis of one slice
        found = fingerprint(case["shape"][first:], case["spacing"][first:], case["n"], case["classes"])
        plan = plan_experiment(found, case.get("memory_gb", 8)).configurations["2d"]
        ours = {"patch_size": plan.patch_size, "batch_size": plan.batch_size, "features_per_stage": plan.features,
                "strides": plan.strides, "kernel_sizes": plan.kernels, "batch_dice": plan.batch_dice,
                "spacing": plan.spacing, "median_shape": plan.median_shape}
        assert json.loads(json.dumps(ours)) == {key: expected[key] for key in ours}, case["name"]


def test_start_patch_by_hand():
    assert start_patch((1, 1), (800, 1100)) == (800, 1100)
    assert start_patch((0.004, 0.016), (9000, 9000)) == (4096, 1024)
    assert start_patch((1, 1), (128.5, 300)) == (128.5, 300)


def test_half_a_pixel_more_than_a_multiple_needs_the_next_multiple():
    # half of the scans 384 x 1152, half one pixel larger: median 384.5 x 1152.5; nnU-Net v2.8.1's own answer
    shapes = [(384, 1152)] * 20 + [(385, 1153)] * 20
    plan = plan_experiment(Fingerprint([(1, 1)] * 40, shapes, ("OCT",), 3, [RECORD])).configurations["2d"]
    assert plan.median_shape == (384.5, 1152.5)
    assert plan.patch_size == (448, 1280) and plan.batch_size == 2


def test_topology_by_hand():
    # 24 x 8: both halve to 12 x 4, then 24's axis alone could become 6, but 12 px are just enough for that
    patch, strides, kernels = topology((1, 1), (24, 8))
    assert strides == ((1, 1), (2, 2), (2, 1)) and patch == (24, 8) and kernels == ((3, 3),) * 3
    # the fine axis catches up first, and the kernel is flat until it has
    _, strides, kernels = topology((1, 4), (64, 64))
    assert strides[:3] == ((1, 1), (2, 1), (2, 1)) and kernels[:3] == ((3, 1), (3, 1), (3, 3))
    assert topology((1, 1), (7, 7)) == ((7, 7), ((1, 1),), ((3, 3),))


def test_feature_map_values_by_hand():
    # stage 0: 16 px x 2 maps x (2 down + 1 up + 2 up) = 160; stage 1: 4 px x 4 maps x 2 = 32; scores 16 px x 3 = 48
    assert feature_map_values((4, 4), (2, 4), ((1, 1), (2, 2)), classes=2) == 240


def test_target_spacing_of_coarse_slices_is_their_10th_percentile():
    shapes = [(25, 496, 512)] * 5
    spacings = [(step, 0.004, 0.012) for step in (0.1, 0.2, 0.3, 0.3, 0.3)]
    assert target_spacing(spacings, shapes) == pytest.approx((0.14, 0.004, 0.012))
    assert target_spacing(spacings, [(200, 496, 512)] * 5) == pytest.approx((0.3, 0.004, 0.012))


def test_target_spacing_of_a_2d_scan_is_the_median_however_coarse_its_a_scans():
    spacings = [(0.004, wide) for wide in (0.01, 0.015, 0.02, 0.02, 0.02)]
    assert target_spacing(spacings, [(1000, 90)] * 5) == (0.004, 0.02)


def test_slices_lie_across_the_coarsest_axis():
    assert plane_axes((0.1, 0.5, 0.2)) == (0, 2)
    assert plane_axes((1, 1, 1)) == (1, 2)
    assert plane_axes((1, 3)) == (0, 1)


@settings(max_examples=60, deadline=None)
@given(st.tuples(st.integers(40, 1500), st.integers(40, 1500)), st.floats(0.1, 10), st.integers(5, 200),
       st.sampled_from([2, 8, 24]))
def test_any_plan_is_one_that_a_network_can_be_built_from(shape, ratio, cases, memory):
    plan = plan_experiment(fingerprint(shape, (1, ratio), cases), memory).configurations["2d"]
    for axis in range(2):
        divisor = 1
        for stride in plan.strides:
            divisor *= stride[axis]
        assert plan.patch_size[axis] % divisor == 0
        assert plan.patch_size[axis] // divisor >= 1
    assert plan.batch_size >= 2
    assert len(plan.features) == len(plan.strides) == len(plan.kernels) and max(plan.features) <= 512


@settings(max_examples=20, deadline=None)
@given(st.tuples(st.integers(200, 1500), st.integers(200, 1500)))
def test_more_memory_never_means_less(shape):
    small, large = (plan_experiment(fingerprint(shape, (1, 1), 100), memory).configurations["2d"]
                    for memory in (2, 24))
    assert small.patch_size[0] * small.patch_size[1] <= large.patch_size[0] * large.patch_size[1]


def test_plan_goes_round_and_each_parameter_has_kind_and_reason(tmp_path):
    plan = plan_experiment(fingerprint((200, 275), (1, 1)))
    plan.save(tmp_path / "plan.json", {"loss": ("Dice", "why not")})
    assert Plan.load(tmp_path / "plan.json") == plan
    content = read_json(tmp_path / "plan.json")
    parameters = [*content["configurations"]["2d"].values(), content["intensity"], *content["blueprint"].values(),
                  *content["empirical"].values()]
    assert all(parameter["reason"] for parameter in parameters)
    assert {parameter["kind"] for parameter in parameters} == {"blueprint", "inferred", "empirical"}


def test_a_run_is_planned_with_its_own_settings(tmp_path):
    chosen = run_settings.with_overrides(run_settings.from_profile("demo"), ["plan.batch_size=7"])
    chosen.save(tmp_path / "settings.json")
    fingerprint((256, 320), (1, 1)).save(tmp_path / "fingerprint.json")
    plan = plan_run(tmp_path)
    assert plan.configurations["2d"].batch_size == 7 and plan.configurations["2d"].features[:2] == (16, 32)
    assert "the rule gives" in plan.reasons["2d"]["batch_size"]
    assert Plan.load(tmp_path / "plan.json") == plan
    assert read_json(tmp_path / "plan.json")["blueprint"]["epochs"]["value"] == chosen.train.epochs


@pytest.mark.parametrize("memory", [0, -1, float("nan"), float("inf")])
def test_memory_must_be_above_0(memory):
    with pytest.raises(OctkitError, match="memory_gb: found .*, expected a number above 0"):
        plan_experiment(fingerprint((200, 200), (1, 1)), memory)


def test_memory_that_holds_no_patch_at_all():
    with pytest.raises(OctkitError, match="memory_gb: found 1e-09, expected enough"):
        plan_experiment(fingerprint((200, 200), (1, 1)), 1e-9)


def test_a_file_that_is_no_plan(tmp_path):
    (tmp_path / "plan.json").write_text('{"configurations": {"2d": 1}}')
    with pytest.raises(OctkitError, match="plan.json: is no plan"):
        Plan.load(tmp_path / "plan.json")
