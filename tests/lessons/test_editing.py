"""A scan corrected in the editor becomes a data set: as import-masks leaves it, measured again, to be learned from."""

import csv

import numpy as np
import pytest

from octkit.common.errors import OctkitError
from octkit.common.files import read_json
from octkit.common.settings import from_profile, with_overrides
from octkit.data.image_files import read_image, write_mask, write_png
from octkit.data.labels import GOALS_GREYS
from octkit.data.layouts.detect import open_dataset, open_run
from octkit.figures.editor import Move
from octkit.layers.boundaries import mask_from
from octkit.layers.scan_files import ScanFacts, read_boundaries, write_boundaries, write_facts
from octkit.layers.thickness import thickness_table
from octkit.lessons.editing import edit

FLAT = np.repeat(np.array([10.0, 20, 40, 60, 80])[:, None], 240, axis=1)
DOWN = Move("RNFL/GCIPL", 105, 10)  # makes the RNFL 100 / 240 rows of 4 um thicker on average


@pytest.fixture
def proposal(tmp_path):
    """Two scans as `octkit predict` leaves them; of the first RNFL/GCIPL was not located in a half."""
    doubt = np.ones((5, 240))
    doubt[1, :120] = 50
    for name in ("a", "b"):
        write_png(tmp_path / f"scans/{name}.png", np.arange(24000).reshape(100, 240) % 251)
        write_mask(tmp_path / f"masks/{name}.png", mask_from(FLAT, 100), GOALS_GREYS)
        write_boundaries(tmp_path / f"masks/{name}.boundaries.csv", FLAT, doubt)
        write_facts(tmp_path / f"masks/{name}.scale.json", ScanFacts((4.0, 11.0), "R", True))
    return tmp_path / "masks", tmp_path / "scans", tmp_path / "corrected"


def test_a_saved_scan_is_a_data_set_with_its_thickness_measured_again(proposal):
    masks, scans, out = proposal
    assert {row["layer"]: row["global"] for row in thickness_table(masks) if row["case"] == "a"}["rnfl"] is None
    editor = edit(masks, "a", out, scans)
    editor.move(DOWN)
    expected = editor.mask()
    assert (expected != mask_from(FLAT, 100)).sum() == 100
    editor.save()
    assert "100 px" in editor.children[-1].value
    dataset = open_dataset(out)
    (case,) = dataset.train
    assert case.name == "a" and case.spacing == (0.004, 0.011)
    np.testing.assert_array_equal(dataset.read_mask(case), expected)
    np.testing.assert_array_equal(dataset.read_image(case), read_image(scans / "a.png"))
    np.testing.assert_allclose(read_boundaries(out / "Train/Layer_Masks/a.boundaries.csv")[0], editor.boundaries)
    assert read_json(out / "changes/a.json") == {"pixels": 100, "moves": [DOWN._asdict()]}
    with open(out / "thickness.csv", newline="") as file:
        measured = {row["layer"]: float(row["global"]) for row in csv.DictReader(file)}
    assert measured == pytest.approx({"rnfl": 40 + 400 / 240, "gcipl": 80 - 400 / 240, "choroid": 80}, abs=1e-3)


def test_work_goes_on_where_it_was_saved_and_scans_add_up(proposal):
    masks, scans, out = proposal
    for move in (DOWN, Move("ILM", 5, -2)):
        editor = edit(masks, "a", out, scans)
        editor.move(move)
        editor.save()
    assert read_json(out / "changes/a.json")["moves"] == [DOWN._asdict(), Move("ILM", 5, -2)._asdict()]
    np.testing.assert_allclose(editor.boundaries[:2, [5, 105]], [[8, 10], [20, 30]])
    write_facts(masks / "b.scale.json", ScanFacts((5.0, 11.0)))
    edit(masks, "b", out, scans).save()
    assert [case.name for case in open_dataset(out).train] == ["a", "b"]
    assert not (out / "scale.json").exists()  # it would be that of all
    rows = {(row["case"], row["layer"]): row["global"] for row in thickness_table(out / "Train/Layer_Masks")}
    assert rows["b", "gcipl"] == 100 and rows["a", "choroid"] == 80


def test_what_was_corrected_can_be_learned_from(proposal, goals):
    masks, scans, out = proposal
    edit(masks, "a", out, scans).save()
    chosen = with_overrides(from_profile("smoke"), [f"data.dir={goals}", f'train.extra_data=["{out}"]'])
    assert "corrected_a" in [case.name for case in open_run(chosen).training]


def test_scans_that_are_not_there_are_named(proposal):
    masks, scans, out = proposal
    with pytest.raises(OctkitError, match="a, b"):
        edit(masks, "c", out, scans)
    (masks / "a.boundaries.csv").unlink()
    with pytest.raises(OctkitError, match=r"a\.boundaries\.csv"):
        edit(masks, "a", out, scans)
