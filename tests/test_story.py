"""The whole story in the `smoke` profile: every notebook, in order, through the command line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from octkit.files import read_json
from octkit.images import image_size, list_images
from octkit.pipeline import STEPS
from octkit.submission import check_submission

REAL_SCANS = Path(__file__).parents[2] / "shared" / "real-scans" / "images"


def octkit(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "octkit", *map(str, arguments)], capture_output=True, text=True,
                          check=False)


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    folder = tmp_path_factory.mktemp("story")
    done = octkit("run", "--profile", "smoke", "--run-dir", folder / "run", "--set", f"data.dir={folder / 'data'}")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_notebook_ran_and_the_ledger_says_so(story):
    lines = [json.loads(line) for line in (story / "run/ledger.jsonl").read_text().splitlines()]
    assert {line["status"] for line in lines} == {"done"}
    assert all(line["seconds"] > 0 and line["peak_memory_mb"] > 0 for line in lines)
    ran = {line["step"] for line in lines}
    assert ran == {step.notebook for step in STEPS if not step.each_fold} | {"07_train_2d_fold_0", "07_train_2d_fold_1"}
    assert {path.stem for path in (story / "run/notebooks").glob("*.ipynb")} == ran


def test_each_step_left_its_files(story):
    for name in ("fingerprint.json", "plan.json", "splits.json", "selection.json", "scores.json", "thickness.csv",
                 "models/2d/fold_0/checkpoint.pt", "models/2d/fold_1/log.csv", "classifier/model.pdparams",
                 "classifier/predictions.csv", "submission.zip", "report.html"):
        assert (story / "run" / name).stat().st_size > 0, name
    compared = read_json(story / "run/classifier/comparison.json")
    assert {name: len(auc) for name, auc in compared.items()} == {"80% to train on": 1, "70% to train on": 1}
    scores = read_json(story / "run/scores.json")
    assert set(scores["cases"]) == {path.stem for path in (story / "data/Truth/Layer_Masks").iterdir()}


def test_the_submission_is_valid(story):
    assert check_submission(story / "run/submission.zip", story / "data/Validation/Image").images == 4


def test_the_report_has_no_missing_part_and_opens_offline(story):
    page = (story / "run/report.html").read_text()
    assert "not run:" not in page and "cannot be shown:" not in page
    assert "RANDOM INITIALISATION" in page
    assert 'src="http' not in page and 'href="http' not in page


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
            assert image_size(tmp_path / "masks" / image.name) == image_size(image)


def test_the_run_predicts_real_scans(story, tmp_path):
    if not REAL_SCANS.is_dir():
        pytest.skip("needs the real scans in ../shared/real-scans")
    done = octkit("predict", story / "run", REAL_SCANS, "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name: image_size(path) for path in list_images(tmp_path)} == {
        path.name: image_size(path) for path in list_images(REAL_SCANS)}
