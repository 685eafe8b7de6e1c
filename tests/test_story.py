"""The whole stories in small: every notebook, in order, through the command line."""

import json

import nbformat
import numpy as np
import pytest
from helpers import SHARED, octkit

from octkit.common.files import read_json
from octkit.common.settings import PROJECT
from octkit.data.image_files import list_images, read_header
from octkit.data.volume_files import read_volume, volume_size, volume_spacing
from octkit.evaluation.submission import check_submission
from octkit.inference.sliding_window import Predictor
from octkit.lessons import check
from octkit.lessons.run_all import STEPS, VOLUME_STEPS
from octkit.planning.run import Run

REAL_SCANS = SHARED / "real-scans" / "images"


def test_every_notebook_ran_and_the_ledger_says_so(story):
    lines = [json.loads(line) for line in (story / "run/ledger.jsonl").read_text().splitlines()]
    assert {line["status"] for line in lines} == {"done"}
    assert all(line["seconds"] > 0 and line["peak_memory_mb"] > 0 for line in lines)
    ran = {line["step"] for line in lines}
    assert ran == {step.notebook for step in STEPS if not step.each_fold} | {"07_train_2d_fold_0", "07_train_2d_fold_1"}
    assert {path.stem for path in (story / "run/notebooks").glob("*.ipynb")} == ran | {"17_glossary"}  # links


def test_each_step_left_its_files(story):
    for name in ("fingerprint.json", "plan.json", "splits.json", "selection.json", "scores.json", "thickness.csv",
                 "models/2d/fold_0/checkpoint.pt", "models/2d/fold_1/log.csv", "classifier/fold_0/model.pdparams",
                 "classifier/fold_1/outputs.csv", "classifier/probabilities.csv", "classifier/predictions.csv",
                 "submission.zip", "report.html"):
        assert (story / "run" / name).stat().st_size > 0, name
    compared = read_json(story / "run/classifier/comparison.json")
    assert {name: len(auc) for name, auc in compared.items()} == {"80% to train on": 1, "70% to train on": 1}
    answers = read_json(story / "run/classifier/answers.json")
    assert answers["lacking"] is None and set(answers["scores"]) == {"cross-validation", "validation scans"}
    assert all(set(found) == {"thickness", "resnet50", "both"} for found in answers["scores"].values())
    scores = read_json(story / "run/scores.json")
    assert set(scores["cases"]) == {path.stem for path in (story / "data/Truth/Layer_Masks").iterdir()}


def test_the_submission_is_valid(story):
    assert check_submission(story / "run/submission.zip", story / "data/Validation/Image").images == 4


def test_the_report_has_no_missing_part_and_opens_offline(story):
    page = (story / "run/report.html").read_text()
    assert "not run:" not in page and "cannot be shown:" not in page
    assert "RANDOM INITIALISATION" in page
    assert 'src="http' not in page and 'href="http' not in page


def solved(monkeypatch, lesson, run_dir) -> dict[str, bool]:
    """What the cells of a lesson's solutions, called one after the other, are told: exercise -> right or not."""
    told, real = {}, check.check
    monkeypatch.setattr(check, "check", lambda name, answer, run: told.update({name: real(name, answer, run)}))
    names = {}
    for cell in nbformat.read(PROJECT / "notebooks" / "solutions" / f"{lesson}.ipynb", as_version=4).cells:
        if cell.cell_type == "code":
            exec(cell.source, names)  # a kernel each would take a minute
            names |= {"run_dir": run_dir} if "parameters" in cell.metadata.get("tags", []) else {}
    return told


def of_lesson(lesson):
    return [name for name in check.exercises() if name[:2] == lesson[:2]]


@pytest.mark.parametrize("lesson", sorted(step.notebook for step in STEPS))
def test_the_solutions_are_right(story, monkeypatch, lesson):
    assert solved(monkeypatch, lesson, story / "run") == dict.fromkeys(of_lesson(lesson), True)


def test_usual_wrong_answers_are_found_wrong_with_their_remarks(story):
    found = 0
    for name, method in check.exercises().items():
        known = method(check.Exercises(Run(story / "run"))) if name[:2] != "14" else check.Known(0)
        for wrong in known.wrong:
            right, remark = check.judged(known, wrong)  # in so small a run some are the right answer, by chance
            assert right or remark[:-1] in known.wrong.values(), name
            found += not right
    assert found > 30


def test_executed_lessons_ask_their_exercises(story):
    for step in STEPS:
        for path in (story / "run/notebooks").glob(f"{step.notebook}*.ipynb"):
            cells = nbformat.read(path, as_version=4).cells
            starters = [cell for cell in cells if "exercise" in cell.metadata.get("tags", [])]
            said = [cell.outputs[-1].text.splitlines()[-1] for cell in starters]
            assert [text.split(":")[0] for text in said] == [f"Exercise {name}" for name in of_lesson(step.notebook)]
            assert all("not answered" in text for text in said)


def test_done_steps_are_skipped(story):
    again = octkit("run", "--run-dir", story / "run")
    assert again.returncode == 0, again.stderr
    lines = [json.loads(line) for line in (story / "run/ledger.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines[len(lines) // 2:]] == ["skipped"] * (len(STEPS) + 1)


def test_the_run_predicts_scans_of_other_sizes(story, tmp_path):
    images = story / "data/Validation/Image"
    other = octkit("phantom", tmp_path / "other", "--train", 1, "--val", 2, "--size", "120x150")
    assert other.returncode == 0, other.stderr
    for folder in (images, tmp_path / "other/Validation/Image"):
        done = octkit("predict", story / "run", folder, "-o", tmp_path / "masks")
        assert done.returncode == 0, done.stderr
        for image in list_images(folder):
            assert read_header(tmp_path / "masks" / image.name).size == read_header(image).size


def test_the_run_predicts_real_scans(story, tmp_path):
    if not REAL_SCANS.is_dir():
        pytest.skip("needs the real scans in ../shared/real-scans")
    done = octkit("predict", story / "run", REAL_SCANS, "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name: read_header(path).size for path in list_images(tmp_path)} == {
        path.name: read_header(path).size for path in list_images(REAL_SCANS)}


# The volumes profile with its numbers turned down; so little memory that a plan has all four configurations.
SMALL_VOLUMES = ("data.phantom.train=4", "data.phantom.validation=2", "data.phantom.size=[8,64,80]",
                 "plan.memory_gb=0.004", "plan.base_features=4", "plan.max_features=8", "train.epochs=1",
                 "train.iterations_per_epoch=2", "train.validation_iterations=1", "train.workers=0",
                 "train.precision=float32")
CONFIGS = ("2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres")


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("volumes")
    changes = [f"data.dir={folder / 'data'}", *SMALL_VOLUMES]
    done = octkit("run", "--profile", "volumes", "--run-dir", folder / "run",
                  *(part for change in changes for part in ("--set", change)))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_volumes_have_all_configurations_and_pairs_to_choose_from(volumes):
    selection = read_json(volumes / "run/selection.json")
    assert selection["cases"] == 4
    names = [candidate["name"] for candidate in selection["candidates"]]
    assert names == [*CONFIGS, *(f"{a} + {b}" for i, a in enumerate(CONFIGS) for b in CONFIGS[i + 1:])]
    best = max(selection["candidates"], key=lambda candidate: candidate["mean_dice"])
    assert selection["configuration"] == best["name"]
    for config in CONFIGS:
        for fold in (0, 1):
            assert (volumes / f"run/models/{config}/fold_{fold}/checkpoint.pt").exists()
    assert len(list((volumes / "run/preprocessed/3d_cascade_fullres").glob("*.npy"))) == 4


def test_the_report_of_volumes_has_no_missing_part(volumes):
    page = (volumes / "run/report.html").read_text()
    assert "not run:" not in page and "cannot be shown:" not in page
    assert "3d_lowres + 3d_cascade_fullres" in page and "Glaucoma" not in page
    lines = [json.loads(line) for line in (volumes / "run/ledger.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [step.notebook for step in VOLUME_STEPS]
    assert {line["status"] for line in lines} == {"done"}


@pytest.mark.parametrize("lesson", sorted(step.notebook for step in VOLUME_STEPS))
def test_the_solutions_are_right_for_volumes(volumes, monkeypatch, lesson):
    assert solved(monkeypatch, lesson, volumes / "run") == dict.fromkeys(of_lesson(lesson), True)


@pytest.mark.parametrize("config", CONFIGS)
def test_every_configuration_predicts_volumes(volumes, config):
    image = volumes / "data/Validation/Image/0005.nii.gz"
    found = Predictor.load(volumes / "run", configs=[config], folds=[0])(read_volume(image), volume_spacing(image))
    assert found.shape == (4, *volume_size(image))
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-4)


def test_the_command_line_predicts_and_scores_volumes(volumes, tmp_path):
    done = octkit("predict", volumes / "run", volumes / "data/Validation/Image", "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    for mask in ("0005.nii.gz", "0006.nii.gz"):
        assert volume_size(tmp_path / mask) == (8, 64, 80)
    done = octkit("evaluate", tmp_path, volumes / "data/Truth/Mask")
    assert done.returncode == 0 and "choroid" in done.stdout, done.stderr
