import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import write_mgunet, write_semseg
from scipy.ndimage import gaussian_filter1d

from octkit.common.errors import OctkitError
from octkit.data.layouts.detect import open_dataset
from octkit.inference import groups
from octkit.phantoms.data_sets import make_data_set


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """27 scans of 6 people, three of them with both eyes, and 6 of others, with their truth; nobody says who is who."""
    folder = tmp_path_factory.mktemp("groups") / "set"
    make_data_set(folder, (27, 6, 0), (128, 192), seed=8)
    known = {case.name: case for case in open_dataset(folder).cases}
    (folder / "groups.csv").unlink()
    return folder, known


def test_scans_of_one_eye_are_found_on_phantoms(phantoms):
    folder, known = phantoms
    file = groups.propose(folder, progress=False)
    found = {case.name: case for case in open_dataset(folder).cases}
    pairs = [(one, other) for one in known for other in known if one < other]
    together = {pair for pair in pairs if found[pair[0]].group == found[pair[1]].group}
    eye = {pair for pair in pairs if len({(known[name].group, known[name].eye) for name in pair}) == 1}
    person = {pair for pair in pairs if len({known[name].group for name in pair}) == 1}
    assert len(eye) == 27 and len(eye & together) >= 24
    assert together <= person
    words = groups.in_words(file)
    assert str(file) in words and f"{len({case.group for case in found.values()})} people proposed" in words
    before = file.read_bytes()
    with pytest.raises(OctkitError, match="is there already") as refused:
        groups.propose(folder, progress=False)
    assert refused.value.file == file and file.read_bytes() == before
    file.unlink()


def test_without_masks_the_model_in_the_box_says_where_the_layers_are(phantoms, tmp_path, monkeypatch):
    folder, data = phantoms[0], open_dataset(phantoms[0])
    shutil.copytree(folder, tmp_path / "set")
    shutil.rmtree(tmp_path / "set/Truth")
    truth = {data.read_image(case).tobytes(): data.read_truth(case) for case in data.validation}
    loaded, asked = [], []

    def predicted(predictor, image, spacing, circle):
        asked.append((predictor, spacing, circle))
        return SimpleNamespace(mask=truth[image.tobytes()])

    monkeypatch.setattr(groups.Predictor, "load", lambda model: loaded.append(model) or "box")
    monkeypatch.setattr(groups, "predict_scan", predicted)
    with_masks = groups.propose(folder, progress=False)
    text = with_masks.read_text()
    with_masks.unlink()
    assert asked == []
    assert groups.propose(tmp_path / "set", progress=False).read_text() == text
    assert loaded == ["default"] and asked == [("box", data.validation[0].spacing, True)] * 6


def test_a_turned_scan_is_the_same_eye_and_another_is_not():
    random = np.random.default_rng(0)
    courses = gaussian_filter1d(random.normal(size=(10, 3, 360)), 6, mode="wrap")
    courses[1] = np.roll(courses[0], 4, axis=1)
    found = groups.correlations(courses)
    np.testing.assert_allclose(found, found.transpose(1, 0, 2))
    assert (found[0, 1] > 0.95).all() and found[0, 2:].sum(axis=1).max() < 2
    people, _ = groups.grouped(groups.chances(courses))
    assert people[0] == people[1] and len(set(people)) == 9


def test_groups_and_how_sure_they_are_by_hand():
    chance = np.eye(4)
    for (one, other), value in {(0, 2): 0.9, (0, 1): 0.1, (1, 2): 0.3, (0, 3): 0.0, (1, 3): 0.4, (2, 3): 0.0}.items():
        chance[one, other] = chance[other, one] = value
    people, sure = groups.grouped(chance)
    assert people.tolist() == [1, 2, 1, 3]
    # Scans 0 and 2: 0.9 within, 0.2 on average to scan 1. Scans 1 and 3: 0.4 to each other.
    assert sure == pytest.approx({1: 0.8, 2: 0.6, 3: 0.6})
    assert groups.grouped(np.ones((1, 1)))[0].tolist() == [1]


def test_scans_that_are_no_circles_are_refused(tmp_path):
    with pytest.raises(OctkitError, match="expected circle scans"):
        groups.propose(write_mgunet(tmp_path / "set"), progress=False)
    assert not (tmp_path / "set/groups.csv").exists()


def test_a_proposed_table_names_the_scans_of_every_layout(tmp_path, monkeypatch):
    monkeypatch.setattr(groups, "courses", lambda *_: np.zeros((3, 360)))
    monkeypatch.setattr(groups, "chances", lambda found: np.full((len(found),) * 2, 0.9))
    root = write_semseg(tmp_path / "set")  # whose cases are called train_0001, and their files 0001.png
    groups.propose(root, progress=False)
    assert {case.group for case in open_dataset(root).cases} == {"p001"}
