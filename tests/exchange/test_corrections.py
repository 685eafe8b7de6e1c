"""Masks go out to labelme and ITK-SNAP and come back: the same where nobody edited, exact where somebody did."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from helpers import write_goals

from octkit.common import settings
from octkit.common.errors import OctkitError
from octkit.common.files import read_json, write_json
from octkit.data.image_files import read_image, read_mask, write_mask, write_png
from octkit.data.labels import GOALS_GREYS
from octkit.data.layouts.detect import open_dataset, open_run
from octkit.data.volume_files import read_volume_mask, volume_spacing, write_nifti
from octkit.exchange.corrections import export_masks, import_masks
from octkit.planning.run import Run

NUMBERS = {number: number for number in range(4)}


def layers(height: int = 40, width: int = 30) -> np.ndarray:
    """Three layers with slanted edges, and a gap in the first."""
    rows, columns = np.mgrid[:height, :width]
    top = 8 + columns // 4
    mask = np.select([(rows >= top) & (rows < top + 6), (rows >= top + 6) & (rows < top + 9), rows >= 30], [1, 2, 3], 0)
    mask[:, 12:14][mask[:, 12:14] == 1] = 0
    return mask.astype(np.uint8)


@pytest.fixture
def predicted(tmp_path) -> tuple[Path, Path]:
    """Masks and scans of two people's eyes."""
    for name in ("a", "b"):
        write_mask(tmp_path / "masks" / f"{name}.png", layers(), GOALS_GREYS)
        write_json(tmp_path / "masks" / f"{name}.scale.json", {"um_per_px": [4.0, 11.0], "eye": "R", "circle": True})
        write_png(tmp_path / "images" / f"{name}.png", np.arange(1200).reshape(40, 30) % 251)
    return tmp_path / "masks", tmp_path / "images"


def taken_back(edited: Path, name: str, out: Path) -> np.ndarray:
    import_masks(edited, out)
    return read_mask(out / "Train/Layer_Masks" / f"{name}.png", GOALS_GREYS)


@pytest.mark.parametrize("program", ["labelme", "itksnap"])
def test_what_nobody_edits_comes_back_the_same(tmp_path, predicted, program):
    assert export_masks(predicted[0], tmp_path / "hand", program, predicted[1]) == ["a", "b"]
    assert import_masks(tmp_path / "hand", tmp_path / "out") == dict.fromkeys(
        ("a", "b"), "0 px changed, rnfl 22.40 -> 22.40 um, gcipl 12.00 -> 12.00 um, choroid 40.00 -> 40.00 um")
    dataset = open_dataset(tmp_path / "out")
    assert [case.name for case in dataset.train] == ["a", "b"] and dataset.train[0].spacing == (0.004, 0.011)
    np.testing.assert_array_equal(dataset.read_mask(dataset.train[0]), layers())
    np.testing.assert_array_equal(dataset.read_image(dataset.train[0]), read_image(predicted[1] / "a.png"))


def test_a_moved_point_changes_the_pixels_that_it_moved_over_alone(tmp_path, predicted):
    export_masks(predicted[0], hand := tmp_path / "hand", "labelme", predicted[1])
    drawing = read_json(hand / "a.json")
    choroid = next(shape for shape in drawing["shapes"] if shape["label"] == "choroid")
    assert sorted(choroid["points"]) == [[0.25, 30.25], [0.25, 39.75], [29.75, 30.25], [29.75, 39.75]]
    choroid["points"] = [[x, 33.0] if y < 35 else [x, y] for x, y in choroid["points"]]
    write_json(hand / "a.json", drawing)
    expected = layers()
    expected[30:33] = 0
    np.testing.assert_array_equal(taken_back(hand, "a", tmp_path / "out"), expected)


def test_a_new_polygon_lies_over_older_ones_and_background_takes_away(tmp_path, predicted):
    export_masks(predicted[0], hand := tmp_path / "hand", "labelme", predicted[1])
    drawing = read_json(hand / "a.json")
    for label, (x, y) in (("rnfl", (12, 11)), ("background", (3, 35))):
        square = [[x, y], [x + 2, y], [x + 2, y + 3], [x, y + 3]]
        drawing["shapes"].append({"label": label, "points": square, "shape_type": "polygon"})
    (hand / "a.json").write_text(json.dumps(drawing))
    expected = layers()
    expected[11:14, 12:14], expected[35:38, 3:5] = 1, 0
    np.testing.assert_array_equal(taken_back(hand, "a", tmp_path / "out"), expected)


def test_itksnap_gets_volumes_in_their_place_and_its_voxels_come_back(tmp_path):
    like = tmp_path / "images/v.nii.gz"
    mask = np.stack([layers(), layers()[::-1]])
    write_nifti(like, mask * 50, (0.12, 0.004, 0.011))
    write_nifti(tmp_path / "masks/v.nii.gz", mask, like=like)
    export_masks(tmp_path / "masks", hand := tmp_path / "hand", "itksnap", tmp_path / "images")
    assert '2 0 158 115 1 1 1 "gcipl"' in (hand / "labels.txt").read_text().splitlines()
    stored = nibabel.load(hand / "mask/v.nii.gz")
    voxels = np.asarray(stored.dataobj).copy()
    voxels[3, 20:25, 1] = 3  # A-scan 3, rows 20 to 24 of the second B-scan
    nibabel.save(nibabel.Nifti1Image(voxels, stored.affine), hand / "mask/v.nii.gz")
    expected = mask.copy()
    expected[1, 20:25, 3] = 3
    assert import_masks(hand, tmp_path / "out") == {"v": f"{(expected != mask).sum()} px changed"}
    np.testing.assert_array_equal(read_volume_mask(tmp_path / "out/Train/Mask/v.nii.gz", NUMBERS), expected)
    assert volume_spacing(tmp_path / "out/Train/Image/v.nii.gz") == pytest.approx((0.12, 0.004, 0.011))
    assert open_dataset(tmp_path / "out").labels == ("rnfl", "gcipl", "choroid")


def test_a_circle_in_itksnap_is_one_slice(tmp_path, predicted):
    export_masks(predicted[0], hand := tmp_path / "hand", "itksnap", predicted[1])
    stored = nibabel.load(hand / "mask/b.nii.gz")
    assert stored.shape == (30, 40, 1) and nibabel.aff2axcodes(stored.affine) == ("L", "P", "S")  # rows lead down
    voxels = np.asarray(stored.dataobj).copy()
    voxels[5, 0] = 2
    nibabel.save(nibabel.Nifti1Image(voxels, stored.affine), hand / "mask/b.nii.gz")
    expected = layers()
    expected[0, 5] = 2
    np.testing.assert_array_equal(taken_back(hand, "b", tmp_path / "out"), expected)


def test_the_commands_say_what_changed_and_measure_again(tmp_path, predicted, octkit):
    code, *_ = octkit("export-masks", predicted[0], tmp_path / "hand", "--for", "labelme", "--images", predicted[1])
    assert code == 0
    (tmp_path / "hand/b.json").unlink()
    drawing = read_json(tmp_path / "hand/a.json")
    drawing["shapes"].append({"label": "choroid", "points": [[0, 28], [30, 28], [30, 30], [0, 30]], "shape_type":
                              "polygon"})
    write_json(tmp_path / "hand/a.json", drawing)
    code, said, _ = octkit("import-masks", tmp_path / "hand", tmp_path / "out")
    assert code == 0 and "a: 60 px changed" in said and "choroid 40.00 -> 48.00 um" in said and "b:" not in said
    assert "left out, as their masks are not there: b" in said
    table = (tmp_path / "out/thickness.csv").read_text().splitlines()
    assert len(table) == 4 and table[3].startswith("a,R,um,choroid,48.000")
    assert [case.name for case in open_dataset(tmp_path / "out").train] == ["a"]


@pytest.mark.parametrize(("change", "message"), [
    (lambda drawing: drawing["shapes"][0].update(label="drusen"), "label 'drusen'"),
    (lambda drawing: drawing.update(imageWidth=31), "40 x 31 px"),
    (lambda drawing: drawing["shapes"][0].update(shape_type="circle"), "shape_type"),
    (lambda drawing: drawing["shapes"][0].update(points=[[1, 2], [3, 4]]), "points"),
    (lambda drawing: drawing["shapes"][0]["points"].append([1e300, 2]), "points"),
])
def test_labels_sizes_and_shapes_that_are_not_the_exports_are_refused(tmp_path, predicted, change, message):
    export_masks(predicted[0], hand := tmp_path / "hand", "labelme", predicted[1])
    change(drawing := read_json(hand / "a.json"))
    write_json(hand / "a.json", drawing)
    with pytest.raises(OctkitError, match=message) as error:
        import_masks(hand, tmp_path / "out")
    assert error.value.file == hand / "a.json" and not (tmp_path / "out").exists()


def test_voxels_of_unknown_labels_and_another_size_are_refused(tmp_path, predicted):
    export_masks(predicted[0], hand := tmp_path / "hand", "itksnap", predicted[1])
    stored = nibabel.load(hand / "mask/a.nii.gz")
    for voxels in (np.asarray(stored.dataobj) + 1, np.asarray(stored.dataobj)[:-1]):
        nibabel.save(nibabel.Nifti1Image(voxels, stored.affine), hand / "mask/a.nii.gz")
        with pytest.raises(OctkitError, match="found mask values 4|voxels"):
            import_masks(hand, tmp_path / "out")


def test_an_edge_that_is_moved_in_curved_layers_moves_so_far_and_no_other_does(tmp_path):
    """Polygons lie beside their layers' edges here and there: 0.1 px on average, and gaps of a pixel between layers."""
    columns, rows = np.arange(400), np.arange(300)[:, None]
    ilm = 60 + 10 * np.sin(columns / 40)
    edges = np.cumsum([ilm, 25 + 12 * np.cos(columns / 30), 15 + 3 * np.sin(columns / 17), 40 + 0 * ilm,
                       50 + 5 * np.sin(columns / 50)], axis=0)
    mask = np.select([(rows >= edges[upper]) & (rows < edges[upper + 1]) for upper in (0, 1, 3)], [1, 2, 3], 0)
    write_mask(tmp_path / "masks/a.png", mask.astype(np.uint8), GOALS_GREYS)
    write_png(tmp_path / "images/a.png", mask * 50)
    export_masks(tmp_path / "masks", hand := tmp_path / "hand", "labelme", tmp_path / "images")
    drawing = read_json(hand / "a.json")
    for shape in drawing["shapes"]:
        if shape["label"] == "rnfl":
            shape["points"] = [[x, y - 5 if abs(y - np.interp(x, columns + 0.5, ilm)) < 3 else y]
                               for x, y in shape["points"]]
    write_json(hand / "a.json", drawing)
    moved = np.where((rows >= ilm - 5) & (rows < ilm), 1, mask)
    found = taken_back(hand, "a", tmp_path / "out")
    np.testing.assert_array_equal(found[:, 1:-1] * (rows >= ilm + 1)[:, 1:-1], (mask * (rows >= ilm + 1))[:, 1:-1])
    assert abs((found == 1).sum(0) - (moved == 1).sum(0)).mean() < 0.3


def test_layers_that_are_drawn_in_the_wrong_order_are_named(tmp_path, predicted, capsys):
    export_masks(predicted[0], hand := tmp_path / "hand", "itksnap", predicted[1])
    stored = nibabel.load(hand / "mask/a.nii.gz")
    voxels = np.asarray(stored.dataobj).copy()
    voxels[:10, :5] = 2  # GCIPL above RNFL in a third of the A-scans
    nibabel.save(nibabel.Nifti1Image(voxels, stored.affine), hand / "mask/a.nii.gz")
    import_masks(hand, tmp_path / "out")
    said = "".join(capsys.readouterr())
    assert "mask/a.nii.gz: " in said and "do not lie as rnfl above gcipl above choroid" in said and "b.nii" not in said


@pytest.mark.parametrize("program", ["labelme", "itksnap"])
def test_exchanged_labels_and_a_picture_of_another_size_are_refused(tmp_path, predicted, program):
    export_masks(predicted[0], hand := tmp_path / "hand", program, predicted[1])
    if program == "labelme":
        picture, file = hand / "b.png", hand / "a.json"
        file.write_text(file.read_text().replace("rnfl", "x").replace("choroid", "rnfl").replace('"x"', '"choroid"'))
        write_png(picture, np.zeros((40, 31)))
    else:
        picture, file = hand / "image/b.nii.gz", hand / "mask/a.nii.gz"
        stored = nibabel.load(file)
        voxels = np.array([0, 3, 2, 1], np.uint8)[np.asarray(stored.dataobj)]
        nibabel.save(nibabel.Nifti1Image(voxels, stored.affine), file)
        nibabel.save(nibabel.Nifti1Image(np.zeros((31, 40, 1), np.uint8), stored.affine), picture)
    with pytest.raises(OctkitError, match="are they exchanged"):
        import_masks(hand, tmp_path / "out")
    file.unlink()
    with pytest.raises(OctkitError, match="40 x 31 px") as error:
        import_masks(hand, tmp_path / "out")
    assert error.value.file == picture


def test_masks_of_a_run_come_back_as_extra_data_of_another(tmp_path, capsys):
    goals = write_goals(tmp_path / "goals", train=2, validation=2)
    chosen = settings.with_overrides(settings.from_profile("smoke"), [f"data.dir={goals}"])
    chosen.save((run := tmp_path / "run") / "settings.json")
    shutil.copytree(goals / "Truth/Layer_Masks", Run(run).predictions("validation"))
    assert export_masks(run, hand := tmp_path / "hand", "labelme") == ["0003", "0004"]
    assert "cannot be scored on them" in "".join(capsys.readouterr())
    import_masks(hand, out := tmp_path / "corrected")
    dataset = open_run(settings.with_overrides(chosen, [f'train.extra_data=["{out}"]']))
    assert [case.name for case in dataset.extra] == ["corrected_0003", "corrected_0004"]
    np.testing.assert_array_equal(dataset.read_mask(dataset.extra[0]), read_mask(goals / "Truth/Layer_Masks/0003.png",
                                                                                GOALS_GREYS))


def test_what_a_model_knew_of_its_own_mask_is_not_said_of_a_corrected_one(tmp_path, predicted):
    facts = read_json(predicted[0] / "a.scale.json") | {"means": {"rnfl": {}}, "circle": False}
    write_json(predicted[0] / "a.scale.json", facts)
    export_masks(predicted[0], hand := tmp_path / "hand", "labelme", predicted[1])
    import_masks(hand, tmp_path / "out")
    assert read_json(tmp_path / "out/Train/Layer_Masks/a.scale.json") == facts | {"means": None}


def test_circles_and_volumes_do_not_go_out_together(tmp_path, predicted):
    for folder in predicted:
        write_nifti(folder / "v.nii.gz", np.stack([layers(), layers()]), (0.12, 0.004, 0.011))
    with pytest.raises(OctkitError, match="masks of 2 and 3 axes"):
        export_masks(predicted[0], tmp_path / "hand", "itksnap", predicted[1])
    assert not (tmp_path / "hand").exists()


def test_what_cannot_go_out_or_come_back_says_why(tmp_path, predicted):
    masks, images = predicted
    with pytest.raises(OctkitError, match="--images"):
        export_masks(masks, tmp_path / "hand", "labelme")
    (images / "b.png").unlink()
    with pytest.raises(OctkitError, match="has no scan"):
        export_masks(masks, tmp_path / "hand", "labelme", images)
    with pytest.raises(OctkitError, match="export.json"):
        import_masks(masks, tmp_path / "out")
