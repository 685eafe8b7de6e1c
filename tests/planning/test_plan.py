from dataclasses import replace

import pytest
from helpers import tiny_model

from octkit.common.errors import OctkitError
from octkit.common.files import read_json, write_json
from octkit.planning.plan import NORMALISATIONS, Plan, check_plan
from octkit.planning.preprocess import SCHEMES


def changed(plan, config="2d", **values):
    return replace(plan, configurations=plan.configurations | {config: replace(plan.configurations[config], **values)})


@pytest.mark.parametrize(("values", "found"), [
    ({"patch_size": (15, 16)}, "patch 15 x 16"),  # not divisible by the strides
    ({"patch_size": (16,)}, "no network"),
    ({"patch_size": (16, 0)}, "patch 16 x 0"),
    ({"strides": ((2, 2), (2, 2))}, "no network"),  # the first stage is at full resolution
    ({"kernels": ((3, 3), (2, 2))}, "no network"),
    ({"features": (4,)}, "1 stages"),
    ({"features": (4, 0)}, "no network"),
    ({"spacing": (1.0, float("nan"))}, "no network"),
    ({"spacing": (1.0, -1.0)}, "no network"),
    ({"previous_stage": "3d_lowres"}, "refines '3d_lowres', which is not there"),
    ({"previous_stage": "2d"}, "refines '2d', which refines another"),
    ({"patch_size": (16,) * 3, "spacing": (1.0,) * 3, "strides": ((1,) * 3, (2,) * 3), "kernels": ((3,) * 3,) * 2},
     "3 axes in a plan for 2-D scans"),
    # what would fill the memory
    *((values, "configuration '2d' is too large") for values in (
        {"patch_size": (16 * 10**6, 16)}, {"features": (4, 10**9)}, {"batch_size": 10**9}, {"batch_size": 0})),
])
def test_a_configuration_that_contradicts_itself_is_refused(values, found):
    with pytest.raises(OctkitError, match=rf"^here: its plan is not valid.*{found}"):
        check_plan(changed(tiny_model("2d").plan, **values), "here")


@pytest.mark.parametrize(("values", "found"), [
    ({"channels": ("OCT", "other")}, "2 channels, but intensities of 1"),
    ({"channels": ()}, "0 channels"),
    ({"normalisation": ("ct", "ct")}, "2 ways to normalise"),
    ({"normalisation": ("magic",)}, "the normalisation 'magic'"),
    ({"axis_order": (0, 0, 1)}, r"the axis order \(0, 0, 1\)"),
    ({"intensity": ({"mean": 1.0},)}, "intensities without"),
    ({"classes": ()}, "0 classes"),
])
def test_a_plan_that_contradicts_itself_is_refused(values, found):
    with pytest.raises(OctkitError, match=found):
        check_plan(replace(tiny_model("2d").plan, **values), "here")


@pytest.mark.parametrize("configs", [("2d",), ("3d_cascade_fullres",)])
def test_a_plan_is_read_as_it_was_written(tmp_path, configs):
    plan = replace(tiny_model(*configs).plan, reasons={"2d": {"patch_size": "so it fits"}, "plan": {"planned": "all"}})
    for written in (plan, replace(plan, normalisation=("zscore",), reasons={})):
        written.save(tmp_path / "plan.json")
        assert Plan.load(tmp_path / "plan.json") == written


@pytest.mark.parametrize(("size", "found"), [([15, 16], "configuration '2d' describes no network"),
                                             (["wide", 16], "configurations.2d.patch_size")])
def test_a_file_that_contradicts_itself_is_refused_by_its_name(tmp_path, size, found):
    path = tmp_path / "plan.json"
    tiny_model("2d").plan.save(path)
    content = read_json(path)
    content["configurations"]["2d"]["patch_size"]["value"] = size
    write_json(path, content)
    with pytest.raises(OctkitError, match=f"plan.json: its plan is not valid; .*{found}"):
        Plan.load(path)


def test_each_way_to_normalise_can_be_done():
    assert set(NORMALISATIONS) == set(SCHEMES)


@pytest.mark.parametrize("content", [[], {"configurations": {"2d": 1}}, {"channels": ["OCT"]}])
def test_a_file_that_is_no_plan(tmp_path, content):
    write_json(tmp_path / "plan.json", content)
    with pytest.raises(OctkitError, match=r"plan.json: .*octkit plan"):
        Plan.load(tmp_path / "plan.json")
