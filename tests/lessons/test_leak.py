from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from octkit.data.layouts.detect import open_dataset
from octkit.lessons.leak import dealt_both_ways
from octkit.phantoms.data_sets import make_data_set


def test_twins_are_read_by_heart_only_where_they_are_dealt_by_scan(goals):
    """Three people with two equal scans each: by heart all is right, else the most alike of the others is taken."""
    rows = np.arange(40)[:, None]
    for number in range(1, 7):
        thick = 4 * ((number + 1) // 2)  # 4, 4, 8, 8, 12, 12 px
        mask = np.where(rows < 8 + thick, np.where(rows < 8, 255, 0), 255) * np.ones((1, 48))
        for folder, picture in (("Image", 255 - mask), ("Layer_Masks", mask)):
            Image.fromarray(picture.astype(np.uint8)).save(goals / f"Train/{folder}/{number:04d}.png")
    (goals / "groups.csv").write_text("ImgName,person,eye\n" + "".join(f"{n},{(n + 1) // 2},\n" for n in range(1, 7)))
    dataset = open_dataset(goals)
    found = dealt_both_ways(dataset, 3, 0)
    assert found["by person"]["rnfl thickness error in px"] == (pytest.approx(4), 4, 4, 3)
    assert found["by scan"]["rnfl thickness error in px"].mean < 4
    assert [list(dealt_both_ways(dataset, folds, 0)) for folds in (4, 7)] == [["by scan"], []]  # 6 scans of 3 people
    unlabelled = replace(dataset, train=tuple(replace(case, group=None, glaucoma=None) for case in dataset.train))
    assert [list(scores) for scores in dealt_both_ways(unlabelled, 3, 0).values()] == [["rnfl thickness error in px"]]


def test_the_leak_is_seen_on_phantoms(tmp_path):
    make_data_set(tmp_path / "set", (54, 0, 0), (96, 128), seed=0)
    found = dealt_both_ways(open_dataset(tmp_path / "set"), 5, 0)
    scan, person = (found[how]["rnfl thickness error in px"] for how in ("by scan", "by person"))
    assert scan.mean < person.low and scan.high < person.high and scan.n == person.n == 12
    assert found["by scan"]["share of right diagnoses"].mean > found["by person"]["share of right diagnoses"].mean + 0.1
