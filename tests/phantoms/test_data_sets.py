import errno
import json
import shlex
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from octkit import cli
from octkit.common import settings
from octkit.common.errors import OctkitError
from octkit.common.files import read_json, write_json
from octkit.data.dataset import read_scan, read_scan_mask
from octkit.data.image_files import read_mask
from octkit.data.labels import GOALS_GREYS
from octkit.data.layouts import detect
from octkit.data.layouts.goals import read_labels
from octkit.data.volume_files import volume_spacing
from octkit.lessons import repeat
from octkit.phantoms import circle_scans, data_sets
from octkit.phantoms.circle_scans import draw
from octkit.phantoms.data_sets import has_glaucoma, make_data_set, make_unless_there, parse_size, person_of
from octkit.phantoms.volume_scans import draw_volume

SMALL, SMALL_VOLUME = (64, 72), (5, 64, 72)
VOLUMES = ("macular", "peripapillary")
SIZES = {"circle": SMALL, "macular": SMALL_VOLUME}


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_a_size_in_words():
    assert parse_size(None, "circle") == (256, 320) and parse_size("5x64x72", "macular") == SMALL_VOLUME
    for text, kind in (("256", "circle"), ("²x³", "circle"), ("64x72", "macular"), ("1x-2", "circle")):
        with pytest.raises(OctkitError, match=f"--size.*{text}"):
            parse_size(text, kind)


def test_a_set_of_circles_is_whole_and_readable(tmp_path):
    root = tmp_path / "set"
    make_data_set(root, (5, 2, 2), SMALL, seed=4, repeated=False)
    assert set(files(root)) == (
        {f"Train/Image/{n:04d}.png" for n in range(1, 6)} | {f"Train/Layer_Masks/{n:04d}.png" for n in range(1, 6)}
        | {f"Validation/Image/{n:04d}.png" for n in (6, 7)} | {f"Test/Image/{n:04d}.png" for n in (8, 9)}
        | {f"Truth/Layer_Masks/{n:04d}.png" for n in range(6, 10)}
        | {"Train/Train_GC_GT.xlsx", "Truth/GC_GT.xlsx", "scale.json", "phantom.json"})
    dataset = detect.open_dataset(root)
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [5, 2, 2]
    assert dataset.train[0].spacing == pytest.approx((900 / 64 / 1000, np.pi * 3.46 / 72))
    assert dataset.train[0].circle
    facts = read_json(root / "phantom.json")
    assert (facts["seed"], facts["size"]) == (4, [64, 72])
    for index, case in enumerate(dataset.train):
        scan = draw((4, 0, index), SMALL, glaucoma=bool(case.glaucoma))
        np.testing.assert_array_equal(dataset.read_image(case)[0], scan.image)
        np.testing.assert_array_equal(dataset.read_mask(case), scan.mask)
        assert facts["scans"][f"{case.name}.png"]["rnfl_um"] == pytest.approx(scan.rnfl_um, abs=0.01)
        assert facts["scans"][f"{case.name}.png"]["glaucoma"] == case.glaucoma
    truth = read_labels(root / "Truth" / "GC_GT.xlsx")
    assert set(truth) == {6, 7, 8, 9}
    mask = read_mask(root / "Truth" / "Layer_Masks" / "0009.png", GOALS_GREYS, SMALL)
    np.testing.assert_array_equal(mask, draw((4, 2, 1), SMALL, glaucoma=bool(truth[9])).mask)


def test_varied_circles_have_a_scale_each(tmp_path):
    root = tmp_path / "set"
    make_data_set(root, (2, 1, 0), SMALL, looks="varied", repeated=False)
    assert not (root / "scale.json").exists()
    dataset, made = detect.open_dataset(root), read_json(root / "phantom.json")
    assert dataset.train[0].spacing is None
    assert (made["looks"], made["um_per_px"]) == ("varied", None)
    scan = draw((0, 0, 1), SMALL, glaucoma=bool(dataset.train[1].glaucoma), looks="varied")
    assert made["scans"]["0002.png"]["um_per_px"] == pytest.approx(scan.um_per_px, abs=1e-4)
    np.testing.assert_array_equal(dataset.read_image(dataset.train[1])[0], scan.image)


@pytest.mark.parametrize("kind", VOLUMES)
def test_a_set_of_volumes_is_whole_and_readable(tmp_path, kind):
    root = tmp_path / "set"
    make_data_set(root, (2, 1, 1), SMALL_VOLUME, 4, kind)
    assert set(files(root)) == (
        {f"Train/{folder}/{n:04d}.nii.gz" for n in (1, 2) for folder in ("Image", "Mask")}
        | {"Validation/Image/0003.nii.gz", "Test/Image/0004.nii.gz", "Truth/Mask/0003.nii.gz", "Truth/Mask/0004.nii.gz",
           "labels.json", "phantom.json"})
    facts = read_json(root / "phantom.json")
    assert (facts["kind"], facts["seed"], facts["size"]) == (kind, 4, list(SMALL_VOLUME))
    for split, number, seed in (("Train", 1, (4, 0, 0)), ("Train", 2, (4, 0, 1)), ("Validation", 3, (4, 1, 0)),
                                ("Test", 4, (4, 2, 0))):
        name = f"{number:04d}.nii.gz"
        fact, image = facts["scans"][name], root / split / "Image" / name
        mask = root / ("Train" if split == "Train" else "Truth") / "Mask" / name
        volume = draw_volume(seed, SMALL_VOLUME, kind, glaucoma=bool(fact["glaucoma"]))
        assert fact["split"] == split and fact["eye"] == volume.eye
        np.testing.assert_array_equal(read_scan(image)[0], volume.image)
        np.testing.assert_array_equal(read_scan_mask(mask, {n: n for n in range(4)}), volume.mask)
        assert volume_spacing(image) == pytest.approx(volume.spacing, rel=1e-6)
        assert volume_spacing(mask) == pytest.approx(volume.spacing, rel=1e-6)
    dataset = detect.open_dataset(root)
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [2, 1, 1]
    assert dataset.layout == "volumes" and dataset.labels == ("rnfl", "gcipl", "choroid")


def test_half_of_each_split_has_glaucoma_in_no_fixed_order():
    for split in range(3):
        labels = [has_glaucoma(0, split, index) for index in range(80)]
        assert sum(labels) == 40
        assert len(set(zip(labels[::2], labels[1::2], strict=True))) == 2


def test_people_have_one_or_two_eyes_and_eyes_three_scans():
    people = [person_of(index) for index in range(270)]
    scans = Counter(people)
    assert set(scans.values()) == {3} and len(scans) == 90 and len({person for person, _ in people}) == 60
    assert sum(fellow for _, fellow in scans) == 30
    assert len({person for person, _ in people[:6]}) == 6  # a small set is of as many people as it can


def test_scans_of_one_eye_share_their_layers_and_nobody_is_in_two_splits(tmp_path):
    make_data_set(tmp_path / "set", (27, 9, 6), SMALL, seed=5)
    dataset = detect.open_dataset(tmp_path / "set")
    people = [{case.group for case in cases} for cases in dataset.splits.values()]
    assert [len(split) for split in people] == [6, 6, 6] and len(set.union(*people)) == 18
    for person in people[0]:
        scans = [case for case in dataset.train if case.group == person]
        assert len({case.glaucoma for case in scans}) == 1
        assert Counter(case.eye for case in scans) in ({"R": 3, "L": 3}, {"R": 3}, {"L": 3})
    rnfl = {case.name: (dataset.read_mask(case) == 1).sum(axis=0) for case in dataset.train}
    pixels = {case.name: dataset.read_image(case) for case in dataset.train}
    assert len({image.tobytes() for image in pixels.values()}) == 27
    like, unlike = [], []
    for one, other in combinations(dataset.train, 2):
        alike = np.corrcoef(rnfl[one.name], rnfl[other.name])[0, 1]
        (like if (one.group, one.eye) == (other.group, other.eye) else unlike).append(alike)
    assert np.median(like) > 0.9 > 0.85 > np.median(unlike)


@pytest.mark.parametrize("looks", ["spectralis", "varied"])
def test_a_person_is_known_by_its_seed_and_the_fellow_eye_is_much_alike(looks):
    def scan(seed, person, fellow=False):
        return draw(seed, (128, 160), True, looks, person, fellow)

    first, again, fellow = scan(1, 7), scan(2, 7), scan(3, 7, fellow=True)
    assert first.eye == again.eye != fellow.eye
    np.testing.assert_array_equal(first.image, scan(1, 7).image)
    assert (first.image != again.image).any()
    others = [scan(10 + seed, 100 + seed).rnfl_um for seed in range(12)]
    assert abs(first.rnfl_um - again.rnfl_um) < np.std(others) > abs(first.rnfl_um - fellow.rnfl_um)


@pytest.mark.parametrize("kind", SIZES)
def test_same_seed_same_bytes_and_a_larger_set_begins_with_the_smaller(tmp_path, kind):
    for name, counts, seed in (("small", (2, 1, 0), 7), ("again", (2, 1, 0), 7), ("large", (3, 2, 1), 7),
                               ("other", (2, 1, 0), 8)):
        make_data_set(tmp_path / name, counts, SIZES[kind], seed, kind)
    small, again, large, other = (files(tmp_path / name) for name in ("small", "again", "large", "other"))
    assert small == again
    scans = [name for name in small if name.startswith("Train/") and "000" in name]
    assert len(scans) == 4 and all(small[name] == large[name] for name in scans)
    assert all(small[name] != other[name] for name in scans)
    for name in (name for name in small if "0003" in name):
        assert small[name] == large[name.replace("0003", "0004")]


def test_without_held_out_scans_there_is_no_truth(tmp_path):
    make_data_set(tmp_path / "set", (2, 0, 0), SMALL)
    assert {path.name for path in (tmp_path / "set").iterdir()} == {"Train", "scale.json", "phantom.json", "groups.csv"}
    assert detect.open_dataset(tmp_path / "set").validation == ()


def test_existing_folder_is_refused_unless_empty(tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    for out in (full, full / "mine.txt"):
        with pytest.raises(OctkitError, match=f"{out.name}: already exists"):
            make_data_set(out, (2, 1, 0), SMALL)
    assert files(full) == {"mine.txt": b"mine"}
    (tmp_path / "empty").mkdir()
    make_data_set(tmp_path / "empty", (2, 1, 0), SMALL)
    assert len(detect.open_dataset(tmp_path / "empty").train) == 2


@pytest.mark.parametrize(("changes", "words"), [
    ({"counts": (0, 1, 0)}, "0 training"), ({"counts": (2, -1, 0)}, "-1 validation"),
    ({"counts": (9000, 1000, 0)}, "9000 training"), ({"size": (10, 10)}, "size.*10 x 10"), ({"seed": -1}, "seed.*-1"),
    ({"looks": "plain"}, "looks.*plain"), ({"kind": "corneal"}, "kind.*corneal.*circle"),
    ({"kind": "macular", "size": (5, 9, 9)}, "size.*5 x 9 x 9")])
def test_wrong_numbers_and_words_are_refused_before_anything_is_written(tmp_path, changes, words):
    with pytest.raises(OctkitError, match=words):
        make_data_set(tmp_path / "set", **{"counts": (2, 1, 0), "size": SMALL} | changes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("failure", "seen"), [(OSError(errno.ENOSPC, "no space"), OctkitError),
                                               (RuntimeError("x"), RuntimeError),
                                               (KeyboardInterrupt(), KeyboardInterrupt)])
@pytest.mark.parametrize(("kind", "writer"), [("circle", "write_png"), ("macular", "write_nifti")])
def test_failed_run_leaves_nothing(tmp_path, monkeypatch, kind, writer, failure, seen):
    written, write = [], getattr(data_sets, writer)

    def fails_at_third(path, *rest):
        written.append(path)
        if len(written) == 3:
            raise failure
        write(path, *rest)

    monkeypatch.setattr(data_sets, writer, fails_at_third)
    with pytest.raises(seen):
        make_data_set(tmp_path / "set", (4, 1, 0), SIZES[kind], 0, kind)
    assert len(written) == 3
    assert list(tmp_path.iterdir()) == []


# Unless it is there.

@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(data_sets, "PROJECT", tmp_path)


@pytest.mark.parametrize("place", ["/nowhere/set", "../elsewhere/set"])
def test_no_phantoms_are_made_outside_of_the_project_because_settings_say_so(tmp_path, monkeypatch, place):
    """settings.json may be another's; what it says instead works."""
    monkeypatch.setattr(data_sets, "PROJECT", tmp_path / "project")
    (tmp_path / "project").mkdir()
    out = tmp_path / "project" / place.replace("/nowhere", str(tmp_path / "nowhere"))
    with pytest.raises(OctkitError, match="no phantoms are made outside of the project") as refused:
        make_unless_there(out, wanted())
    assert list(tmp_path.rglob("*")) == [tmp_path / "project"]
    with pytest.raises(SystemExit) as end:
        cli.main(shlex.split(str(refused.value).partition("them there: octkit ")[2]))
    assert not end.value.code
    make_unless_there(out, wanted())  # is what they ask for


def test_a_run_that_was_handed_on_makes_nothing_at_its_makers_place(tmp_path):
    elsewhere = tmp_path / "home of another"
    chosen = settings.with_overrides(settings.from_profile("smoke"), [f"data.dir={elsewhere}"])
    chosen.save(tmp_path / "run" / "settings.json")
    with pytest.raises(OctkitError, match="home of another: is not there"):
        repeat.choose(None, None, tmp_path / "run", [])
    with pytest.raises(OctkitError, match="home of another: is not there"):
        repeat.prepare(tmp_path / "run" / "settings.json")
    assert repeat.choose(None, None, tmp_path / "run", [f"data.dir={elsewhere}"])[1] == chosen  # the user's own wish


def wanted(**changes) -> settings.PhantomSettings:
    return settings.PhantomSettings(**{"train": 2, "validation": 1, "size": (64, 64), "seed": 3} | changes)


@pytest.mark.parametrize("changes", [{}, *({"kind": kind, "size": SMALL_VOLUME, "train": 1} for kind in VOLUMES)])
@pytest.mark.usefixtures("project")
def test_a_set_is_made_once_and_another_is_not_taken_for_it(tmp_path, changes):
    out = tmp_path / "set"
    make_unless_there(out, wanted(**changes))
    made = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    make_unless_there(out, wanted(**changes))
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == made
    other_kind = {"kind": "peripapillary" if changes.get("kind") == "macular" else "macular", "size": SMALL_VOLUME}
    for other in ({"train": 3}, {"seed": 4}, {"looks": "varied"}, other_kind):
        with pytest.raises(OctkitError, match="but the settings ask for") as refused:
            make_unless_there(out, wanted(**changes | other))
        assert refused.value.file == out


@pytest.mark.usefixtures("project")
def test_the_settings_decide_what_is_made(tmp_path):
    make_unless_there(tmp_path / "set", wanted())
    dataset = detect.open_dataset(tmp_path / "set")
    scan = circle_scans.draw((3, 0, 0), (64, 64), glaucoma=bool(dataset.train[0].glaucoma), person=(3, 0, 0, 2))
    np.testing.assert_array_equal(dataset.read_image(dataset.train[0])[0], scan.image)


def test_a_set_of_before_there_were_kinds_or_people_is_known_again(tmp_path):
    out = tmp_path / "set"
    make_data_set(out, (2, 1, 0), (64, 64), 3, repeated=False)
    before = files(out)
    facts = read_json(out / "phantom.json")
    write_json(out / "phantom.json", {key: value for key, value in facts.items() if key not in ("kind", "looks")})
    make_unless_there(out, wanted())
    assert files(out).keys() == before.keys() and len(detect.open_dataset(out).train) == 2


def test_a_damaged_description_is_named(tmp_path):
    (tmp_path / "phantom.json").write_text(json.dumps({"seed": 1, "size": [64, 64], "scans": {"a.png": 3}}))
    with pytest.raises(OctkitError, match="phantom.json.*a.png"):
        make_unless_there(tmp_path, wanted())


def test_scans_of_the_users_own_stay_as_they_are(tmp_path):
    (tmp_path / "scan.png").write_bytes(b"mine")
    make_unless_there(tmp_path, wanted())
    assert files(tmp_path) == {"scan.png": b"mine"}
