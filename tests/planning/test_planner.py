import json
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest
from helpers import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st

from octkit.common.errors import OctkitError
from octkit.common.files import read_json
from octkit.common.settings import from_profile
from octkit.data.labels import LAYERS
from octkit.planning.fingerprint import Fingerprint
from octkit.planning.plan import Plan
from octkit.planning.planner import blueprint, plan_experiment
from octkit.planning.rules import divisors

ORACLE = SHARED / "oracle" / "plans.json"
ORDER = ("2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres")
CUBE = (0.047, 0.00195, 0.0117)  # mm of a macular cube of 128 B-scans, 1024 x 512 px
RECORD = {"mean": 1.0, "median": 1.0, "min": 0.0, "max": 2.0, "std": 1.0, "percentile_00_5": 0.0,
          "percentile_99_5": 2.0}


def fingerprint(shape, spacing, cases=20, classes=3) -> Fingerprint:
    return Fingerprint([spacing] * cases, [shape] * cases, ("OCT",), [*map(str, range(classes))], [RECORD])


def test_the_plan_for_goals():
    # nnU-Net v2.8.1's own answer for 100 scans of 1100 x 800 px
    plan = plan_experiment(fingerprint((800, 1100), (1, 1), 100)).configurations["2d"]
    assert plan.patch_size == (896, 1152) and plan.batch_size == 3 and plan.batch_dice
    assert plan.features == (32, 64, 128, 256, 512, 512, 512, 512)
    assert plan.strides == ((1, 1),) + ((2, 2),) * 7 and plan.kernels == ((3, 3),) * 8
    assert plan_experiment(fingerprint((800, 1100), (1, 1), 100), 24).configurations["2d"].batch_size == 4


def oracle() -> list:
    """nnU-Net's plans, or one parameter that is skipped where they are not at hand."""
    if not ORACLE.exists():
        return [pytest.param(None, marks=pytest.mark.skip("needs nnU-Net's plans in ../shared/oracle/plans.json"))]
    return [pytest.param(entry, id=entry["case"]["name"]) for entry in json.loads(ORACLE.read_text())]


@pytest.mark.parametrize("entry", oracle())
def test_every_plan_of_nnunet(entry):
    case, theirs = entry["case"], entry["plan"]
    first = 1 if case["spacing"][0] == 999 else 0  # nnU-Net's sign for "2-D": a third axis of one slice
    found = fingerprint(case["shape"][first:], case["spacing"][first:], case["n"], case["classes"])
    plan = plan_experiment(found, case.get("memory_gb", 8))
    assert plan.axis_order == (() if first else tuple(theirs["transpose_forward"]))
    assert list(plan.configurations) == [name for name in ORDER if name in theirs["configurations"]]
    for name, own in theirs["configurations"].items():
        ours = plan.configurations[name]
        assert ours.previous_stage == own.get("previous_stage")
        expected = theirs["configurations"][own.get("inherits_from", name)]
        assert json.loads(json.dumps({
            "patch_size": ours.patch_size, "batch_size": ours.batch_size, "features_per_stage": ours.features,
            "strides": ours.strides, "kernel_sizes": ours.kernels, "batch_dice": ours.batch_dice,
            # the file has spacings with six decimals
            "spacing": [round(s, 6) for s in ours.spacing], "median_shape": ours.median_shape})) == expected, name


RESIDUAL = read_json(Path(__file__).parents[1] / "nnunet" / "plans.json")


@pytest.mark.parametrize("entry", RESIDUAL, ids=[entry["name"] for entry in RESIDUAL])
def test_every_residual_plan_of_nnunet(entry):
    """What its planners ResEncM (8 GB), L (24) and XL (40) answered: tests/nnunet/make.py asked them."""
    found = fingerprint(entry["shape"], entry["spacing"], entry["cases"], entry["classes"])
    plan = plan_experiment(found, entry["memory_gb"], architecture="residual")
    ours = {name: vars(one) for name, one in plan.configurations.items()} | {"axis_order": plan.axis_order or (0, 1, 2)}

    def plain(value):  # the file has 12 digits
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value if value is None or isinstance(value, str | bool) else float(f"{value:.12g}")

    assert plain(ours) == plain(entry["plan"])


def test_a_large_volume_gets_a_low_resolution_and_a_cascade():
    plan = plan_experiment(fingerprint((128, 1024, 512), CUBE, 40))
    full, low, cascade = (plan.configurations[name] for name in ("3d_fullres", "3d_lowres", "3d_cascade_fullres"))
    assert list(plan.configurations) == list(ORDER)
    assert cascade == replace(full, previous_stage="3d_lowres")
    assert full.batch_dice and cascade.batch_dice and not low.batch_dice
    assert full.features[-1] == low.features[-1] == 320 and plan.configurations["2d"].features[-1] == 512
    # the low resolution coarsens the fine axes until they are about half as coarse as the slices
    assert low.spacing[0] == CUBE[0] and low.spacing[1] > CUBE[1] and low.spacing[2] > CUBE[2]
    assert prod(low.patch_size) >= 0.25 * prod(low.median_shape)
    assert "1.4%" in plan.reasons["plan"]["planned"] and "less than 25%" in plan.reasons["plan"]["planned"]


@pytest.mark.parametrize(("shape", "spacing", "cases", "why"), [
    ((36, 50, 35), (1, 1, 1), 200, "it sees enough"),
    # 25 B-scans: a patch covers 18 % of them, a quarter at 1.6 times fewer voxels, and that is under twice
    ((25, 496, 512), (0.24, 0.00387, 0.0115), 30, "only 1.6 times fewer voxels")])
def test_volumes_that_need_no_cascade(shape, spacing, cases, why):
    plan = plan_experiment(fingerprint(shape, spacing, cases))
    assert list(plan.configurations) == ["2d", "3d_fullres"] and not plan.configurations["3d_fullres"].batch_dice
    assert why in plan.reasons["plan"]["planned"]


def test_one_slice_is_no_volume():
    plan = plan_experiment(fingerprint((1, 200, 275), (0.2, 0.004, 0.012)))
    flat = plan_experiment(fingerprint((200, 275), (0.004, 0.012)))
    assert list(plan.configurations) == ["2d"] and plan.axis_order == (0, 1, 2) and flat.axis_order == ()
    assert plan.configurations == flat.configurations


def test_two_slices_are_never_rounded_to_none():
    plan = plan_experiment(fingerprint((2, 1100, 700), (0.004, 0.1, 0.1)), 2)
    assert min(plan.configurations["3d_lowres"].median_shape) == 1


def test_the_order_of_a_files_axes_changes_their_order_alone():
    there = plan_experiment(fingerprint((128, 1024, 512), CUBE, 40))
    back = plan_experiment(fingerprint((1024, 512, 128), (*CUBE[1:], CUBE[0]), 40))
    assert there.axis_order == (0, 1, 2) and back.axis_order == (2, 0, 1)
    assert there.configurations == back.configurations


def test_fewer_features_are_fewer_in_every_configuration():
    plan = plan_experiment(fingerprint((128, 1024, 512), CUBE, 40), base_features=8, max_features=64)
    assert all(one.features[0] == 8 and max(one.features) == 64 for one in plan.configurations.values())


def test_half_a_pixel_more_than_a_multiple_needs_the_next_multiple():
    # half of the scans 384 x 1152, half one pixel larger: median 384.5 x 1152.5; nnU-Net v2.8.1's own answer
    shapes = [(384, 1152)] * 20 + [(385, 1153)] * 20
    plan = plan_experiment(Fingerprint([(1, 1)] * 40, shapes, ("OCT",), LAYERS, [RECORD])).configurations["2d"]
    assert plan.median_shape == (384.5, 1152.5)
    assert plan.patch_size == (448, 1280) and plan.batch_size == 2


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(40, 700), st.floats(0.2, 5)), min_size=2, max_size=3), st.integers(5, 200),
       st.sampled_from([2, 8, 24]))
def test_any_plan_is_one_that_a_network_can_be_built_from(axes, cases, memory):
    shape, spacing = zip(*axes, strict=True)
    plan = plan_experiment(fingerprint(shape, spacing, cases), memory)
    assert list(plan.configurations) == [name for name in ORDER if name in plan.configurations]
    assert len(plan.configurations) in ({1} if len(shape) == 2 else {2, 4})
    for name, one in plan.configurations.items():
        assert all(n % d == 0 and n >= d for n, d in zip(one.patch_size, divisors(one.strides), strict=True))
        assert one.batch_size >= 2
        assert len(one.patch_size) == len(one.spacing) == len(one.median_shape) == (2 if name == "2d" else 3)
        assert len(one.features) == len(one.strides) == len(one.kernels)
        assert max(one.features) <= (512 if name == "2d" else 320)
        assert set(plan.reasons[name]) == set(vars(one))
        assert one.spacing[-2:] == plan.configurations["2d"].spacing or name == "3d_lowres"


@settings(max_examples=20)
@given(st.tuples(st.integers(200, 1500), st.integers(200, 1500)))
def test_more_memory_never_means_less(shape):
    small, large = (plan_experiment(fingerprint(shape, (1, 1), 100), memory).configurations["2d"]
                    for memory in (2, 24))
    assert small.patch_size[0] * small.patch_size[1] <= large.patch_size[0] * large.patch_size[1]


@pytest.mark.parametrize("shape, spacing", [((200, 275), (1, 1)), ((1024, 128, 512), (0.00195, 0.047, 0.0117))])
def test_plan_goes_round_and_each_parameter_has_kind_and_reason(tmp_path, shape, spacing):
    plan = plan_experiment(fingerprint(shape, spacing))
    plan.save(tmp_path / "plan.json", {"loss": ("Dice", "why not")})
    assert Plan.load(tmp_path / "plan.json") == plan
    content = read_json(tmp_path / "plan.json")
    parameters = [*(entry for one in content["configurations"].values() for entry in one.values()),
                  *(content[name] for name in ("planned", "axis_order", "normalisation", "intensity")),
                  *content["blueprint"].values(), *content["empirical"].values()]
    assert all(parameter["reason"] for parameter in parameters)
    assert {parameter["kind"] for parameter in parameters} == {"blueprint", "inferred", "empirical"}
    assert content["planned"]["value"] == list(plan.configurations)
    assert content["axis_order"]["value"] == ([1, 0, 2] if len(shape) == 3 else [])


def test_an_ignore_label_takes_memory_as_nnunet_reckons():
    """Its planner counts all labels of dataset.json, "ignore" too, though the network has no output for it."""
    shape, spacing = (233, 478), (1, 1)
    plans = [plan_experiment(replace(fingerprint(shape, spacing, 900, classes), ignore=ignore))
             for classes, ignore in ((3, False), (3, True), (4, False))]
    assert [plan.configurations["2d"].batch_size for plan in plans] == [25, 24, 24]
    assert len(plans[1].classes) == 3


def test_our_own_plans_scale_every_channel_by_the_data_sets_statistics():
    found = Fingerprint([(1, 1)] * 9, [(200, 275)] * 9, ("OCT", "OCT-A"), LAYERS, [RECORD] * 2)
    assert plan_experiment(found).normalisation == ("ct", "ct")


def test_the_blueprint_names_the_axes_as_the_settings_do():
    chosen = from_profile("goals")
    axes, reason = blueprint(chosen)["mirror_axes"]
    assert axes == chosen.augment.mirror_axes == (-3, -2, -1)
    assert all(f"{axis} " in reason for axis in axes)


@pytest.mark.parametrize(("memory", "expected"), [(1e-9, "enough"), *((memory, "a number above 0") for memory in (
    0, -1, float("nan"), float("inf")))])
def test_memory_must_be_enough_for_a_patch(memory, expected):
    with pytest.raises(OctkitError, match=f"memory_gb: found {memory:g}, expected {expected}"):
        plan_experiment(fingerprint((200, 200), (1, 1)), memory)
