import os

import pytest
from helpers import smoke, tiny_model

from octkit.common.errors import OctkitError
from octkit.common.files import write_json
from octkit.planning.run import Run


@pytest.fixture
def run(tmp_path):
    smoke().save(tmp_path / "settings.json")
    return Run(str(tmp_path))


def test_a_run_knows_its_files(run):
    def inside(path):
        return path.relative_to(run.folder).as_posix()

    names = {"settings": "json", "fingerprint": "json", "plan": "json", "splits": "json", "selection": "json",
             "scores": "json", "ledger": "jsonl", "report": "html"}
    assert all(inside(getattr(run, f"{name}_file")) == f"{name}.{ending}" for name, ending in names.items())
    assert inside(run.checkpoint("2d", "all")) == "models/2d/fold_all/checkpoint.pt"
    assert inside(run.predictions("test")) == "predictions/test"
    assert inside(run.cross_validation("2d", 0)) == "predictions/cv/2d/fold_0"


def test_a_cascade_reads_the_cases_of_full_resolution_and_keeps_its_masks_apart(run):
    assert run.preprocessed("3d_cascade_fullres") == run.preprocessed("3d_fullres") != run.preprocessed("3d_lowres")
    assert run.first_step("3d_cascade_fullres") != run.preprocessed("3d_cascade_fullres")


def test_what_was_read_is_kept_until_its_file_changes(run):
    before = run.settings
    assert run.settings is before
    smoke("seed=7").save(run.settings_file)
    assert run.settings.seed == 7
    stamp = run.settings_file.stat()
    content = run.settings_file.read_text().replace('"seed": 7', '"seed": 8')
    run.settings_file.write_text(content)  # of the same size
    os.utime(run.settings_file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))
    assert run.settings.seed == 8


@pytest.mark.parametrize("name", ["fingerprint", "plan", "splits", "selection"])
def test_a_missing_file_is_named(run, name):
    with pytest.raises(OctkitError, match=rf"{run.folder}/{name}\.json: not found"):
        getattr(run, name)


def test_configurations_stand_in_the_plans_order(run):
    tiny_model("3d_cascade_fullres").plan.save(run.plan_file)
    assert run.configs == tuple(run.plan.configurations)
    smoke('train.configs=["3d_fullres", "2d"]').save(run.settings_file)
    assert run.configs == ("2d", "3d_fullres")


def test_the_data_set_is_opened_again_where_the_settings_name_another(run, goals):
    smoke(f"data.dir={goals}").save(run.settings_file)
    own = run.dataset
    assert run.dataset is own and own.root == goals and len(run.training_data.training) == 6
    smoke("data.dir=/nowhere").save(run.settings_file)
    with pytest.raises(OctkitError, match="/nowhere"):
        _ = run.dataset


def test_a_selection_of_another_kind_is_refused(run):
    write_json(run.selection_file, {"configuration": "2d"})
    with pytest.raises(OctkitError, match=r"selection\.json: .*select again"):
        _ = run.selection
