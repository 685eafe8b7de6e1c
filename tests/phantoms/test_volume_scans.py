import numpy as np
import pytest

from octkit.common import settings
from octkit.common.errors import OctkitError
from octkit.common.files import read_json, write_json
from octkit.data.dataset import read_scan, read_scan_mask
from octkit.data.layouts import detect
from octkit.data.volume_files import read_volume, read_volume_mask, volume_size, volume_spacing
from octkit.phantoms import circle_scans, volume_scans
from octkit.phantoms.volume_scans import draw_volume, make_once, make_volumes

SMALL = (5, 64, 72)
KINDS = ("macular", "peripapillary")
LABELS = {0: 0, 1: 1, 2: 2, 3: 3}


def files(root) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


# One volume.

@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [SMALL, (7, 97, 64), (2, 200, 80)])
def test_boundaries_are_ordered_and_inside_the_frame(kind, size):
    for seed in range(6):
        volume = draw_volume(seed, size, kind, glaucoma=bool(seed % 2))
        assert volume.image.shape == volume.mask.shape == size
        assert volume.image.dtype == volume.mask.dtype == np.uint8
        assert volume.boundaries.shape == (10, size[0], size[2])
        opening = np.isnan(volume.boundaries)
        assert (opening.all(axis=0) == opening.any(axis=0)).all()
        assert opening.any() == (kind == "peripapillary") or size[0] == 2  # two B-scans pass the disc by
        assert (np.diff(volume.boundaries, axis=0)[~opening[1:]] >= -1e-9).all()
        assert np.nanmin(volume.boundaries) >= 0 and np.nanmax(volume.boundaries) <= size[1]
        assert volume.image.std() > 20


@pytest.mark.parametrize("kind", KINDS)
def test_mask_is_the_boundaries_rasterised(kind):
    volume = draw_volume(1, (6, 80, 66), kind)
    expected = np.zeros_like(volume.mask)
    centre = np.arange(80)[:, None] + 0.5
    for label, upper in {1: 0, 2: 1, 3: 8}.items():
        top, bottom = volume.boundaries[upper], volume.boundaries[upper + 1]
        expected[(centre >= top[:, None]) & (centre < bottom[:, None])] = label  # nan is in no layer
    np.testing.assert_array_equal(volume.mask, expected)
    outside = np.isfinite(volume.boundaries[0])
    assert ((volume.mask == 3).any(axis=1) == outside).all()


def test_a_layer_is_one_run_of_voxels_in_every_a_scan():
    for seed, kind in enumerate(KINDS):
        mask = draw_volume(seed, (9, 200, 128), kind).mask
        for label in (1, 2, 3):
            layer = np.pad(mask == label, ((0, 0), (1, 1), (0, 0)))
            assert np.count_nonzero(np.diff(layer.astype(int), axis=1), axis=1).max() == 2


@pytest.mark.parametrize("kind", KINDS)
def test_surfaces_are_smooth_along_and_across_b_scans(kind):
    """Steps between neighbours in um; across B-scans, 0.12 mm apart, there is motion too (4 um sd)."""
    for seed in range(3):
        volume = draw_volume(seed, (49, 128, 128), kind)
        bruch = volume.boundaries[8] * volume.spacing[1] * 1000
        along, across = abs(np.diff(bruch, axis=1)), abs(np.diff(bruch, axis=0))
        assert np.nanmax(along) < 8  # 47 um apart
        assert np.nanmax(across) < 45
        assert 1 < np.nanstd(np.diff(np.nanmean(bruch, axis=1), n=2)) < 25  # there is motion
        gcipl = np.diff(volume.boundaries[1:3], axis=0)[0] * volume.spacing[1] * 1000
        assert np.nanmax(abs(np.diff(gcipl, axis=1))) < 18  # thickness has no motion in it
        assert np.nanmax(abs(np.diff(gcipl, axis=0))) < 35


def test_a_volume_repeats_itself_and_seeds_differ():
    first, again, other = (draw_volume(seed, SMALL) for seed in ((3, 0, 1), (3, 0, 1), (3, 0, 2)))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.boundaries, again.boundaries)
    assert (first.image != other.image).any()
    assert {draw_volume(seed, SMALL).eye for seed in range(12)} == {"R", "L"}


def test_one_look_a_volume_and_noise_of_its_own_for_each_b_scan():
    volume = draw_volume(4, (6, 128, 96), "peripapillary")
    levels = [[np.median(b_scan[mask == label]) for label in (1, 3)]
              for b_scan, mask in zip(volume.image, volume.mask, strict=True)]
    assert (np.ptp(levels, axis=0) < 30).all()
    others = [np.median(other.image[other.mask == 1]) for other in (draw_volume(seed, SMALL) for seed in range(10))]
    assert np.ptp(others) > 50
    assert (volume.image[0] != volume.image[1]).mean() > 0.5


def test_vessels_cast_shadows_where_they_cross():
    darker = []
    for seed in range(4):
        volume = draw_volume(seed, (8, 128, 256), "peripapillary")
        rows = np.arange(128)[:, None] + 0.5
        rpe = (rows > volume.boundaries[7][:, None]) & (rows < volume.boundaries[8][:, None])
        total = rpe.sum(axis=1)
        mean = np.where(rpe, volume.image, 0).sum(axis=1)[total > 0] / total[total > 0]
        darker.append(np.percentile(mean, 1) / np.median(mean))
    assert np.mean(darker) < 0.8


def test_nothing_runs_over_the_edge():
    """The left and right edge of a B-scan are no neighbours: their choroids' grain is not alike."""
    alike, apart = [], []
    for seed in range(6):
        image = draw_volume(seed, (5, 96, 128)).image.astype(float)
        detail = image - image.mean(axis=(0, 2), keepdims=True)
        alike.append(abs(detail[..., 0] - detail[..., -1]).mean())
        apart.append(abs(detail[..., 0] - detail[..., 1]).mean())
    assert np.mean(alike) > 1.5 * np.mean(apart)


def test_spacing_follows_the_size_or_is_what_was_asked_for():
    assert draw_volume(0, (25, 200, 64)).spacing == pytest.approx((0.24, 0.0045, 6 / 64))
    asked = (0.5, 0.0125, 0.05)
    volume = draw_volume(0, (6, 80, 70), spacing=asked)
    assert volume.spacing == asked
    # GCIPL at its ring is what it is in um, whatever the voxels.
    gcipl = np.diff(volume.boundaries[1:3], axis=0)[0] * 12.5
    assert 70 < gcipl.max() < 110


@pytest.mark.parametrize(("changes", "words"), [
    ({"size": (1, 100, 100)}, "1 x 100 x 100"), ({"size": (5, 63, 100)}, "at least 2 B-scans of 64 x 64"),
    ({"size": (200, 300)}, "200 x 300"), ({"size": (2000, 1000, 1000)}, "at most"),
    ({"kind": "circle"}, "kind: found 'circle'"), ({"looks": "new"}, "looks: found 'new'"),
    ({"spacing": (0.24, 0.0039, 0.02)}, "frame at least 0.9 mm deep"), ({"spacing": (0.24, 0.02, 0.02)}, "0.015 mm"),
    ({"spacing": (2.4, 0.009, 0.02)}, "field of 12 x"), ({"spacing": (float("nan"), 0.009, 0.02)}, "field of nan")])
def test_what_cannot_hold_an_eye_is_refused(changes, words):
    with pytest.raises(OctkitError, match=words):
        draw_volume(0, **{"size": (5, 128, 100), **changes})


# The data set.

@pytest.mark.parametrize("kind", KINDS)
def test_data_set_is_whole_and_readable(tmp_path, kind):
    make_volumes(tmp_path / "set", 2, 1, 1, SMALL, seed=4, kind=kind)
    assert set(files(tmp_path / "set")) == (
        {f"Train/{folder}/{n:04d}.nii.gz" for n in (1, 2) for folder in ("Image", "Mask")}
        | {"Validation/Image/0003.nii.gz", "Test/Image/0004.nii.gz", "Truth/Mask/0003.nii.gz", "Truth/Mask/0004.nii.gz",
           "labels.json", "phantom.json"})
    assert read_json(tmp_path / "set" / "labels.json") == {"labels": ["rnfl", "gcipl", "choroid"]}
    facts = read_json(tmp_path / "set" / "phantom.json")
    assert (facts["kind"], facts["seed"], facts["size"]) == (kind, 4, list(SMALL))
    drawn_masks = []
    drawn = [("Train", 1, (4, 0, 0)), ("Train", 2, (4, 0, 1)), ("Validation", 3, (4, 1, 0)), ("Test", 4, (4, 2, 0))]
    for split, number, seed in drawn:
        name = f"{number:04d}.nii.gz"
        fact = facts["scans"][name]
        volume = draw_volume(seed, SMALL, kind, glaucoma=bool(fact["glaucoma"]))
        drawn_masks.append(volume.mask)
        image = tmp_path / "set" / split / "Image" / name
        assert fact["split"] == split and fact["eye"] == volume.eye
        np.testing.assert_array_equal(read_volume(image)[0], volume.image)
        assert volume_spacing(image) == pytest.approx(volume.spacing, rel=1e-6)
        mask = tmp_path / "set" / ("Train" if split == "Train" else "Truth") / "Mask" / name
        np.testing.assert_array_equal(read_volume_mask(mask, LABELS, SMALL), volume.mask)
        assert volume_spacing(mask) == pytest.approx(volume.spacing, rel=1e-6)
    assert facts["scans"]["0001.nii.gz"]["glaucoma"] != facts["scans"]["0002.nii.gz"]["glaucoma"]
    dataset = detect.open_dataset(tmp_path / "set")
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [2, 1, 1]
    assert dataset.layout == "volumes" and dataset.labels == ("rnfl", "gcipl", "choroid")
    np.testing.assert_array_equal(dataset.read_mask(dataset.train[1]), drawn_masks[1])


def test_the_same_volumes_as_folders_of_b_scans(tmp_path):
    make_volumes(tmp_path / "nifti", 1, 1, 0, SMALL)
    make_volumes(tmp_path / "stacks", 1, 1, 0, SMALL, stacks=True)
    for folder, split in (("Image", "Train"), ("Image", "Validation"), ("Mask", "Train"), ("Mask", "Truth")):
        name = "0001" if split == "Train" else "0002"
        nifti, stack = (tmp_path / kind / split / folder / (name + ending)
                        for kind, ending in (("nifti", ".nii.gz"), ("stacks", "")))
        assert volume_size(stack) == SMALL
        assert volume_spacing(stack) == pytest.approx(volume_spacing(nifti), rel=1e-6)
        if folder == "Mask":
            np.testing.assert_array_equal(read_scan_mask(stack, LABELS), read_scan_mask(nifti, LABELS))
        else:
            np.testing.assert_array_equal(read_scan(stack), read_scan(nifti))


def test_same_seed_same_bytes_and_a_larger_set_begins_with_the_smaller(tmp_path):
    for name, counts in (("small", (1, 1, 0)), ("again", (1, 1, 0)), ("large", (2, 2, 1))):
        make_volumes(tmp_path / name, *counts, SMALL, 7)
    small, again, large = (files(tmp_path / name) for name in ("small", "again", "large"))
    assert small == again
    for folder in ("Image", "Mask"):
        assert small[f"Train/{folder}/0001.nii.gz"] == large[f"Train/{folder}/0001.nii.gz"]
    assert small["Validation/Image/0002.nii.gz"] == large["Validation/Image/0003.nii.gz"]
    assert small["Truth/Mask/0002.nii.gz"] == large["Truth/Mask/0003.nii.gz"]


@pytest.mark.parametrize(("failure", "seen"), [(OSError("disk full"), OctkitError),
                                               (KeyboardInterrupt(), KeyboardInterrupt)])
def test_failed_run_leaves_nothing(tmp_path, monkeypatch, failure, seen):
    written, write = [], volume_scans.write_nifti

    def fails_at_third(path, *rest):
        written.append(path)
        if len(written) == 3:
            raise failure
        write(path, *rest)

    monkeypatch.setattr(volume_scans, "write_nifti", fails_at_third)
    with pytest.raises(seen):
        make_volumes(tmp_path / "set", 2, 1, 0, SMALL)
    assert len(written) == 3
    assert list(tmp_path.iterdir()) == []


def test_wrong_numbers_are_refused_before_anything_is_written(tmp_path):
    for counts, size, seed, words in (((0, 1, 0), SMALL, 0, "found 0 training"), ((1, 1, 0), (5, 9, 9), 0, "5 x 9 x 9"),
                                      ((1, 1, 0), SMALL, -1, "seed: found -1")):
        with pytest.raises(OctkitError, match=words):
            make_volumes(tmp_path / "set", *counts, size, seed)
    assert list(tmp_path.iterdir()) == []


# Once.

def wanted(**changes) -> settings.PhantomSettings:
    return settings.PhantomSettings(**{"train": 2, "validation": 1, "size": (64, 64), "seed": 3} | changes)


def test_circles_are_made_once_and_another_set_is_not_taken_for_them(tmp_path):
    out = tmp_path / "set"
    make_once(out, wanted())
    np.testing.assert_array_equal(read_scan(out / "Train" / "Image" / "0001.png")[0], circle_scans.draw(
        (3, 0, 0), (64, 64), glaucoma=bool(read_json(out / "phantom.json")["scans"]["0001.png"]["glaucoma"])).image)
    before = (out / "phantom.json").stat().st_mtime_ns
    make_once(out, wanted())
    assert (out / "phantom.json").stat().st_mtime_ns == before
    for changes in ({"train": 3}, {"size": (64, 80)}, {"seed": 4}, {"looks": "varied"},
                    {"kind": "macular", "size": SMALL}):
        with pytest.raises(OctkitError, match="but the settings ask for"):
            make_once(out, wanted(**changes))


@pytest.mark.parametrize("kind", KINDS)
def test_volumes_are_made_once_too(tmp_path, kind):
    out, asked = tmp_path / "set", wanted(kind=kind, size=SMALL, train=1)
    make_once(out, asked)
    assert volume_size(out / "Train" / "Image" / "0001.nii.gz") == SMALL
    made = files(out)
    make_once(out, asked)
    assert files(out) == made
    other = KINDS[1 - KINDS.index(kind)]
    with pytest.raises(OctkitError, match=f"'kind': '{other}'"):
        make_once(out, asked.model_copy(update={"kind": other}))


def test_a_set_of_before_there_were_kinds_is_known_again(tmp_path):
    out = tmp_path / "set"
    make_once(out, wanted())
    facts = read_json(out / "phantom.json")
    write_json(out / "phantom.json", {key: value for key, value in facts.items() if key not in ("kind", "looks")})
    make_once(out, wanted())
    assert len(detect.open_dataset(out).train) == 2


def test_scans_of_the_users_own_stay_as_they_are(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "scan.png").write_bytes(b"mine")
    make_once(tmp_path / "mine", wanted())
    assert files(tmp_path / "mine") == {"scan.png": b"mine"}
