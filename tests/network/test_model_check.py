from dataclasses import asdict, fields, replace

import pytest
import torch
from helpers import tiny_model

from octkit.common.errors import OctkitError
from octkit.network.model import Model
from octkit.network.model_check import Traits, check_model, steps_of
from octkit.planning.plan import plan_of


@pytest.mark.parametrize("configs", [("2d",), ("2d", "3d_fullres"), ("3d_cascade_fullres",)])
def test_a_whole_model_passes(configs):
    model = tiny_model(*configs)
    check_model(model, "here")
    assert plan_of(asdict(model.plan), "here") == model.plan


def test_a_cascades_steps_come_last_first():
    [member] = tiny_model("3d_cascade_fullres").members
    assert [step.config for step in steps_of(member)] == ["3d_cascade_fullres", "3d_lowres"]


def test_traits_are_all_that_a_model_has_beside_plan_labels_and_weights():
    assert set(Traits.model_fields) | {"plan", "members", "labels"} == {field.name for field in fields(Model)}


def test_absurd_sizes_take_no_memory():
    model = tiny_model("2d")
    huge = replace(model.plan.configurations["2d"], features=(4096, 4096))  # its weights would be of 1.2 GB
    model = replace(model, plan=replace(model.plan, configurations={"2d": huge}))
    with pytest.raises(OctkitError, match="expected 4096 x 1 x 3 x 3"):
        check_model(model, "here")


def test_weights_that_do_not_fit_are_refused():
    model = tiny_model("2d", folds=("0",))
    [member] = model.members
    state = member.weights["0"]
    name = next(iter(state))

    for changes, found in [({"more": torch.zeros(1)}, "'more' is in one of them alone"),
                           ({name: state[name].half()}, "torch.float16"),
                           ({name: state[name][:1]}, f"found {name} of 1 x 1 x 3 x 3")]:
        with pytest.raises(OctkitError, match=found):
            check_model(replace(model, members=(replace(member, weights={"0": state | changes}),)), "here")


def test_members_that_do_not_fit_are_refused():
    model = tiny_model("3d_cascade_fullres")
    [member] = model.members
    for changes, found in [({"members": ()}, "0 members"), ({"members": (member, member)}, "2 members"),
                           ({"members": (replace(member, previous=None),)}, "first step None"),
                           ({"members": (replace(member, config="other"),)}, "found weights of 'other'"),
                           ({"members": (replace(member, weights={}),)}, "has no weights"),
                           ({"labels": ("a", "b", "c")}, "found the labels a, b, c"),
                           ({"postprocessing": ((1, 4),)}, "expected labels from 1 to 3")]:
        with pytest.raises(OctkitError, match=found):
            check_model(replace(model, **changes), "here")
