from dataclasses import asdict, fields, replace

import pytest
import torch
from conftest import tiny_model

from octkit.files import OctkitError
from octkit.modelcheck import Traits, check_model, check_plan, plan_of, stages_of
from octkit.models import Model


def changed(plan, config="2d", **values):
    return replace(plan, configurations=plan.configurations | {config: replace(plan.configurations[config], **values)})


@pytest.mark.parametrize("configs", [("2d",), ("2d", "3d_fullres"), ("3d_cascade_fullres",)])
def test_a_whole_model_passes(configs):
    model = tiny_model(*configs)
    check_model(model, "here")
    assert plan_of(asdict(model.plan), "here") == model.plan


def test_stages_come_last_first():
    [member] = tiny_model("3d_cascade_fullres").members
    assert [stage.config for stage in stages_of(member)] == ["3d_cascade_fullres", "3d_lowres"]


def test_traits_are_all_that_a_model_has_beside_plan_labels_and_weights():
    assert set(Traits.model_fields) | {"plan", "members", "labels"} == {field.name for field in fields(Model)}


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
    ({"patch_size": (16, 16, 16), "spacing": (1.0,) * 3, "strides": ((1, 1, 1), (2, 2, 2)),
      "kernels": ((3, 3, 3), (3, 3, 3))}, "3 axes in a plan for 2-D scans"),
])
def test_a_configuration_that_contradicts_itself_is_refused(values, found):
    with pytest.raises(OctkitError, match=r"^here: its plan is not valid") as caught:
        check_plan(changed(tiny_model("2d").plan, **values), "here")
    assert found in str(caught.value)


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


def test_json_that_is_no_plan_is_refused():
    content = asdict(tiny_model("2d").plan)
    content["configurations"]["2d"]["patch_size"] = ["wide", 16]
    with pytest.raises(OctkitError, match="here: its plan is not valid; configurations.2d.patch_size"):
        plan_of(content, "here")


def test_absurd_sizes_take_no_memory():
    plan = changed(tiny_model("2d").plan, features=(10**6, 10**6))  # its weights would be of 10^14 bytes
    model = replace(tiny_model("2d"), plan=plan)
    with pytest.raises(OctkitError, match=r"expected 1e\+06 x 1 x 3 x 3"):
        check_model(model, "here")


def test_weights_that_do_not_fit_are_refused():
    model = tiny_model("2d", folds=("0",))
    [member] = model.members
    state = member.weights["0"]
    name = next(iter(state))

    def with_state(changes):
        return replace(model, members=(replace(member, weights={"0": state | changes}),))

    for changes, found in [({"more": torch.zeros(1)}, "'more' is in one of them alone"),
                           ({name: state[name].half()}, "torch.float16"),
                           ({name: state[name][:1]}, f"found {name} of 1 x 1 x 3 x 3")]:
        with pytest.raises(OctkitError, match=found):
            check_model(with_state(changes), "here")


def test_members_that_do_not_fit_are_refused():
    model = tiny_model("3d_cascade_fullres")
    [member] = model.members
    for changes, found in [({"members": ()}, "0 members"), ({"members": (member, member)}, "2 members"),
                           ({"members": (replace(member, previous=None),)}, "comes with the stage None before it"),
                           ({"members": (replace(member, config="other"),)}, "found weights of 'other'"),
                           ({"members": (replace(member, weights={}),)}, "has no weights"),
                           ({"labels": ("a", "b", "c")}, "found the labels a, b, c"),
                           ({"postprocessing": ((1, 4),)}, "expected labels from 1 to 3")]:
        with pytest.raises(OctkitError, match=found):
            check_model(replace(model, **changes), "here")
