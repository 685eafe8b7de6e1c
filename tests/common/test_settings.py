import json

import pytest
from pydantic import TypeAdapter, ValidationError

from octkit.common.errors import OctkitError
from octkit.common.settings import (
    PROFILES,
    CaseName,
    Inside,
    Name,
    from_profile,
    load,
    with_changes,
    with_overrides,
)


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_go_round_through_the_file(tmp_path, name):
    settings = from_profile(name)
    settings.save(tmp_path / "settings.json")
    assert load(tmp_path / "settings.json") == settings
    assert json.loads((tmp_path / "settings.json").read_text())["train"]["epochs"] == settings.train.epochs


def test_goals_holds_the_recipes_numbers():
    settings = from_profile("goals")
    train = settings.train
    assert (train.epochs, train.iterations_per_epoch, train.initial_rate) == (1000, 250, 0.01)
    assert (train.momentum, train.weight_decay, train.optimiser) == (0.99, 3e-5, "sgd")
    assert (settings.plan.base_features, settings.plan.max_features) == (32, 512)
    assert (settings.classify.image_size, settings.classify.initial_rate) == (256, 1e-6)


def test_report_is_the_teams_own():
    settings = from_profile("report")
    assert settings.train.final_folds == ("all",) and settings.train.optimiser == "adam" and settings.train.amsgrad
    assert settings.train.folds == (0, "all")  # fold 0 holds scans out to judge by
    assert settings.plan.batch_size == 32 and not settings.infer.mirror


def test_overrides_change_what_they_name_and_nothing_else():
    before = from_profile("demo")
    after = with_overrides(before, ["train.epochs=3", 'train.folds=[0,"all"]', "data.dir=elsewhere"])
    assert after.train.epochs == 3 and after.train.folds == (0, "all") and after.data.dir == "elsewhere"
    assert after.model_copy(update={"train": before.train, "data": before.data}) == before


def test_an_absent_section_can_be_filled():
    assert with_overrides(from_profile("goals"), ["data.phantom.train=5"]).data.phantom.train == 5


@pytest.mark.parametrize(("override", "reason"), [
    ("train.epoch=3", "train.epoch: Extra inputs.*the nearest is train.epochs"), ("train.epochs=0", "train.epochs"),
    ("epochs", "expected key=value"),
    ("seed.x=1", "seed"), ("train.folds=[7]", "train.folds names"), ("train.folds=[]", "at least one fold"),
    ("train.initial_rate=NaN", "initial_rate"), ("train.optimiser=rmsprop", "optimiser"),
    ("classify.weights=w.pdparams", "needs classify.weights_sha256"), ("seed=-1", "seed")])
def test_wrong_overrides_are_errors_that_name_the_key(override, reason):
    with pytest.raises(OctkitError, match=reason):
        with_overrides(from_profile("demo"), [override])


@pytest.mark.parametrize("override", [
    "data.phantom.train=10000", "data.phantom.size=[20000,20000]", "data.phantom.size=[1,1000000000]",
    'data.phantom={"kind":"macular","size":[500,500,1000]}', 'data.phantom={"train":9000,"size":[2000,2000]}'])
def test_phantoms_that_would_fill_a_disk_are_refused(override):
    with pytest.raises(OctkitError, match="data.phantom"):
        with_overrides(from_profile("demo"), [override])


def test_what_old_runs_set_and_no_version_knows_any_more_is_left_out_and_said(tmp_path, capsys):
    old = from_profile("demo").model_dump(mode="json")
    old["infer"]["engine"] = "auto"
    (tmp_path / "settings.json").write_text(json.dumps(old))
    assert load(tmp_path / "settings.json") == from_profile("demo")
    assert "settings.json: infer.engine = auto" in capsys.readouterr().out
    with pytest.raises(OctkitError, match="infer.engine"):
        with_overrides(from_profile("demo"), ["infer.engine=torch"])


def test_settings_are_frozen():
    settings = with_overrides(from_profile("demo"), ["data.phantom.train=5"])
    for section, name, value, call, option in (
            (settings.train, "optimiser", "adam", "train={'optimiser': 'adam'}", 'train.optimiser="adam"'),
            (settings.data.phantom, "seed", 3, "data={'phantom': {'seed': 3}}", "data.phantom.seed=3"),
            (settings, "seed", 3, ", seed=3)", "--set seed=3")):
        before = getattr(section, name)
        with pytest.raises(OctkitError) as error:
            setattr(section, name, value)
        assert call in str(error.value) and option in str(error.value)
        assert getattr(section, name) == before


def test_changes_are_those_of_the_command_line():
    before = from_profile("goals")
    assert with_changes(before, {"train": {"epochs": 3, "folds": (0, "all")}, "data": {"phantom": {"train": 5}}}) == (
        with_overrides(before, ["train.epochs=3", 'train.folds=[0, "all"]', "data.phantom.train=5"]))
    assert before == from_profile("goals")


def taken(kind, name):
    try:
        return TypeAdapter(kind).validate_python(name) == name
    except ValidationError:
        return False


@pytest.mark.parametrize(("name", "kinds"), [
    ("2d", {"Inside", "CaseName", "Name"}), ("3d_fullres_bs-8", {"Inside", "CaseName", "Name"}),
    ("病例 1.a", {"Inside", "CaseName"}), ("...", {"Inside", "CaseName"}), ("=1", {"Inside", "CaseName"}),
    ("figures/01.png", {"Inside"}), ("a\\b", {"CaseName"}),
    *((name, set()) for name in ("", ".", "..", "/", "/etc/passwd", "../a", "a/../../b", "a/..", "a\0b"))])
def test_which_names_lead_nowhere(name, kinds):
    assert {kind for kind, what in (("Inside", Inside), ("CaseName", CaseName), ("Name", Name))
            if taken(what, name)} == kinds
