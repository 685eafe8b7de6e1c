import shutil

import numpy as np
import pandas as pd
import pytest
from helpers import make_run, striped_scan, write_semseg

from octkit.common.errors import OctkitError
from octkit.data.doctor.data_set import look_through
from octkit.data.labels import LAYERS
from octkit.data.layouts.detect import open_dataset
from octkit.inference.measure import score_validation
from octkit.inference.predict import save_mask
from octkit.planning.run import Run


@pytest.mark.parametrize("splits", [("train", "val", "test"), ("Train", "Validation", "Test")])
def test_the_same_greys_mean_other_layers(tmp_path, splits):
    dataset = open_dataset(write_semseg(tmp_path / "copy", splits))
    assert (dataset.layout, dataset.labels) == ("semseg", LAYERS)
    assert [[case.name for case in cases] for cases in dataset.splits.values()] == [
        [f"{split}_{number:04d}" for number in range(1, 5)] for split in ("train", "validation", "test")]
    assert all(case.circle and case.spacing is None and case.glaucoma is None for case in dataset.cases)
    np.testing.assert_array_equal(dataset.read_image(dataset.train[0])[0], striped_scan(1)[0])
    np.testing.assert_array_equal(dataset.read_mask(dataset.train[0]), striped_scan(1)[1])
    np.testing.assert_array_equal(dataset.read_truth(dataset.test[3]), striped_scan(12)[1])
    assert dataset.validation[0].mask is None  # for scoring alone


def test_folders_without_splits_hold_training_scans(tmp_path):
    root = write_semseg(tmp_path / "copy", ("",))
    (root / "bscan/0001.png").rename(root / "bscan/left eye.png")
    (root / "semseg/0001.png").rename(root / "semseg/left eye.png")
    dataset = open_dataset(root)
    assert [case.name for case in dataset.train] == ["0002", "0003", "0004", "left eye"]
    assert dataset.validation == dataset.test == ()
    [lacking] = look_through(root, 0, progress=False).findings  # for the classifier alone
    assert lacking.severity == "warning" and "4 not told" in lacking.found


def test_a_split_without_masks_is_predicted_alone(tmp_path):
    root = write_semseg(tmp_path / "copy")
    shutil.rmtree(root / "test/semseg")
    assert [case.truth for case in open_dataset(root).test] == [None] * 4
    (root / "val/semseg/0002.png").unlink()
    with pytest.raises(OctkitError, match="val/bscan/0002.png: has no mask"):
        open_dataset(root)


@pytest.mark.parametrize("place", [".", "train"])
def test_a_table_is_read_where_there_is_one(tmp_path, place):
    root = write_semseg(tmp_path / "copy")
    rows = [{"ImgName": number, "GC_Label": number % 2} for number in range(1, 5)]
    pd.DataFrame(rows).to_excel(root / place / "Train_GC_GT.xlsx", index=False)
    assert [case.glaucoma for case in open_dataset(root).train] == [1, 0, 1, 0]
    pd.DataFrame(rows[:3]).to_excel(root / place / "Train_GC_GT.xlsx", index=False)
    with pytest.raises(OctkitError, match="Train_GC_GT.xlsx: has no row for .*train/bscan/0004.png"):
        open_dataset(root)


def test_predictions_in_our_greys_are_scored_against_masks_in_theirs(tmp_path):
    run = Run(make_run(tmp_path / "run", write_semseg(tmp_path / "copy")))
    for case in run.dataset.validation:
        save_mask(run.predictions("validation"), case.name, run.dataset.read_truth(case), LAYERS, case.image)
    assert score_validation(run)["mean"]["dice"] == 1
