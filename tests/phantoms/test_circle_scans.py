import csv
import json
from pathlib import Path

import numpy as np
import pytest
from helpers import SHARED

from octkit.common.errors import OctkitError
from octkit.data.image_files import read_mask
from octkit.data.labels import GOALS_GREYS
from octkit.data.layouts import detect
from octkit.data.layouts.goals import read_labels
from octkit.phantoms import circle_eye, circle_scans

TABLE = SHARED / "circle-anatomy" / "thickness_by_angle.csv"
SMALL = (64, 72)


def eyes(count: int, glaucoma: bool, width: int = 48) -> np.ndarray:
    """Thickness (count, 9, width) of eyes with the seeds 0, 1, …"""
    return np.array([circle_eye.draw_eye(np.random.default_rng(seed), width, glaucoma).thickness
                     for seed in range(count)])


@pytest.fixture(scope="module")
def healthy() -> np.ndarray:
    return eyes(200, False)


@pytest.fixture(scope="module")
def diseased() -> np.ndarray:
    return eyes(200, True)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


# The eye.

def test_healthy_rnfl_follows_the_published_course(healthy):
    mean, sd = healthy[:, 0].mean(axis=0), healthy[:, 0].std(axis=0)
    # Angle: mean and sd (um) of 80 real eyes, Rathke et al. 2014; 48 samples are 7.5 degrees apart.
    published = {0: (56.7, 9.5), 37.5: (94.0, 17.7), 60: (142.1, 27.3), 67.5: (146.6, 26.2), 75: (141.0, 29.7),
                 97.5: (92.5, 22.2), 127.5: (107.6, 28.4), 187.5: (53.4, 9.3), 232.5: (93.7, 24.0),
                 270: (133.5, 28.8), 292.5: (157.4, 26.3), 337.5: (59.1, 11.1)}
    for angle, (expected, spread) in published.items():
        assert mean[int(angle / 7.5)] == pytest.approx(expected, abs=6), angle
        assert sd[int(angle / 7.5)] == pytest.approx(spread, rel=0.3), angle


def test_healthy_circle_means(healthy):
    # RNFL, GCIPL, INL, OPL, ONL, inner segments, outer segments, RPE: circle means of the same source.
    np.testing.assert_allclose(healthy[:, :8].mean(axis=(0, 2)), (95, 52, 21, 21, 67, 16, 21, 22), atol=1.5)
    assert 7 < healthy[:, 0].mean(axis=1).std() < 13
    choroid = healthy[:, 8].mean(axis=1)
    assert 125 < choroid.mean() < 155
    assert choroid.std() > 25
    inferior, superior = healthy[:, 8, 36].mean(), healthy[:, 8, 12].mean()
    assert inferior < superior - 15


@pytest.mark.skipif(not TABLE.exists(), reason="the table of measured thickness is not here")
def test_tables_agree_with_their_source():
    rows = list(csv.DictReader(TABLE.read_text().splitlines()))[::2]
    for name, column in {"RNFL_MEAN": "RNFL_mean_um", "RNFL_SD": "RNFL_sd_um", "GCIPL_MEAN": "GCIPL_mean_um",
                         "INL_MEAN": "INL_mean_um", "OPL_MEAN": "OPL_mean_um", "ONL_MEAN": "ONL_mean_um"}.items():
        np.testing.assert_allclose(getattr(circle_eye, name), [float(row[column]) for row in rows], atol=0.61)
    height = [3.87 * float(row["ilm_row_minus_mean_px_mean"]) for row in rows]
    np.testing.assert_allclose(circle_eye.ILM_MEAN, height, atol=0.61)


@pytest.mark.skipif(not TABLE.exists(), reason="the table of measured thickness is not here")
def test_eyes_are_as_thick_and_as_different_as_those_measured(healthy):
    """200 eyes, 48 angles: means within 9 % (or 1.2 um) and 4.5 um, SDs within 8 % on average, each by 0.6 to 1.7."""
    rows = list(csv.DictReader(TABLE.read_text().splitlines()))
    for layer, name in enumerate(("RNFL", "GCIPL", "INL", "OPL", "ONL", "ELM-IS", "IS-OS", "RPE")):
        mean, sd = (np.array([float(row[f"{name}_{what}_um"]) for row in rows]) for what in ("mean", "sd"))
        found = healthy[:, layer]
        assert (abs(found.mean(axis=0) - mean) < np.minimum(np.maximum(0.09 * mean, 1.2), 4.5)).all(), name
        ratio = found.std(axis=0) / sd
        assert ratio.mean() == pytest.approx(1, abs=0.08), name
        assert ratio.min() > 0.6 and ratio.max() < 1.7, name


def test_wide_eyes_keep_the_means_and_go_beyond_the_norm(healthy):
    drawn = [circle_eye.draw_eye(np.random.default_rng(seed), 48, False, wide=True) for seed in range(200)]
    wide = np.array([eye.thickness for eye in drawn])
    np.testing.assert_allclose(wide[:, :8].mean(axis=(0, 2)), healthy[:, :8].mean(axis=(0, 2)), rtol=0.03)
    assert (wide[:, 0].std(axis=0) > 0.95 * healthy[:, 0].std(axis=0)).all()
    choroid = wide[:, 8].mean(axis=1)
    assert choroid.min() < 75 and choroid.max() > 300 and wide[:, 8].min() >= 40
    tilt = np.array([np.ptp(eye.bruch) for eye in drawn])  # um from peak to peak
    assert tilt.min() < 150 and 250 < np.median(tilt) < 500 and tilt.max() > 700
    assert (wide[:, :8] > np.array(circle_eye.FLOORS)[:, None]).all()


def test_a_circle_off_centre_is_thick_where_it_is_near_the_disc():
    layers = np.repeat([[100.0], [50], [30], [30], [60], [20], [20], [22], [150]], 360, axis=1)
    layers[1] += 10 * np.cos(np.radians(np.arange(360)))
    vessels = (circle_eye.Vessel(0.0, 90.0), circle_eye.Vessel(90.0, 90.0), circle_eye.Vessel(-90.0, 90.0))
    eye = circle_eye.off_centre(circle_eye.Eye(layers, np.zeros(360), vessels), 300.0, 0.0)
    # At angle 0 the circle is 2030 um from the disc's centre, at 180 degrees 1430 um; its radius is 1730 um.
    assert eye.thickness[0, [0, 180]] == pytest.approx([100 * 1730 / 2030, 100 * 1730 / 1430], abs=0.1)
    assert eye.thickness[8] == pytest.approx(150)
    # What lies straight above the disc, the circle meets asin(300 / 1730) = 9.99 degrees further on.
    assert [vessel.angle for vessel in eye.vessels] == pytest.approx([0, 99.99, -99.99], abs=0.05)
    assert eye.thickness[1, 100] == pytest.approx(50, abs=0.2)


def test_glaucoma_thins_rnfl_and_gcipl_and_can_be_told(healthy, diseased):
    sound, ill = healthy[:, 0].mean(axis=1), diseased[:, 0].mean(axis=1)
    assert ill.mean() == pytest.approx(65, abs=5)
    assert 6 < ill.std() < 13
    assert (sound[:, None] > ill).mean() > 0.95  # the AUC of the mean RNFL thickness
    ratio = diseased[:, :8].mean(axis=(0, 2)) / healthy[:, :8].mean(axis=(0, 2))
    assert ratio[0] < ratio[1] < 0.9
    np.testing.assert_allclose(ratio[2:], 1, atol=0.02)


def test_glaucoma_has_focal_notches_that_favour_the_humps(healthy, diseased):
    # Of the same seed the healthy eye is the ill one before its loss.
    left = diseased[:, 0] / healthy[:, 0]
    deepest = left.argmin(axis=1) * 7.5
    hump = np.minimum(abs(deepest - 67), abs(deepest - 292)) < 30
    assert hump.mean() > 0.6  # 120 of 360 degrees would be a third
    assert np.median(left.max(axis=1) - left.min(axis=1)) > 0.2


def test_no_layer_vanishes(healthy, diseased):
    for thickness in (healthy, diseased):
        assert (thickness[:, :8] > np.array(circle_eye.FLOORS)[:, None] - 3).all()
        assert thickness[:, 8].min() >= 45


def test_course_has_mean_0_variance_1_and_closes():
    angle = np.arange(120) * 3.0
    drawn = np.array([circle_eye.course(np.random.default_rng(seed), angle, (1, 0.5, 0.3)) for seed in range(2000)])
    np.testing.assert_allclose(drawn.mean(axis=0), 0, atol=0.1)
    np.testing.assert_allclose(drawn.var(axis=0), 1, atol=0.15)
    np.testing.assert_allclose(circle_eye.course(np.random.default_rng(1), angle + 360, (1, 0.5)),
                               circle_eye.course(np.random.default_rng(1), angle, (1, 0.5)), atol=1e-9)


def test_one_seed_is_one_eye_at_any_resolution():
    coarse, fine = (circle_eye.draw_eye(np.random.default_rng(5), width, True) for width in (240, 480))
    assert coarse.vessels == fine.vessels
    np.testing.assert_allclose(coarse.thickness, fine.thickness[:, ::2], atol=0.2)
    np.testing.assert_allclose(coarse.bruch, fine.bruch[::2], atol=0.2)


# The scan.

@pytest.mark.parametrize("size", [SMALL, (65, 131), (96, 128), (256, 160)])
def test_boundaries_are_ordered_and_inside_the_frame(size):
    for seed in range(12):
        scan = circle_scans.draw(seed, size, glaucoma=bool(seed % 2))
        assert scan.image.shape == scan.mask.shape == size
        assert scan.image.dtype == scan.mask.dtype == np.uint8
        assert scan.boundaries.shape == (len(circle_eye.BOUNDARIES), size[1])
        assert (np.diff(scan.boundaries, axis=0) > 0).all()
        assert scan.boundaries.min() >= 0
        assert scan.boundaries.max() <= size[0]
        for label in (1, 2, 3):
            assert (scan.mask == label).any(axis=0).all(), "a layer is missing in some A-scan"


def test_mask_by_hand():
    boundaries = np.array([[1.0, 0.4], [2.6, 1.5], [3.4, 2.0], [3.4, 2.0], [3.4, 2.0], [3.4, 2.0], [3.4, 2.0],
                           [3.4, 2.0], [4.0, 3.0], [5.0, 3.4]])
    # Centres lie at 0.5, 1.5, …: in the first column row 2 (2.5) is RNFL still, in the second row 1 (1.5) is GCIPL
    # already and no centre lies between 3.0 and 3.4.
    expected = np.array([[0, 1], [1, 2], [1, 0], [0, 0], [3, 0], [0, 0]])
    np.testing.assert_array_equal(circle_eye.rasterise(boundaries, 6), expected)


def test_mask_is_the_boundaries_rasterised():
    scan = circle_scans.draw(2, (80, 66))
    for column in range(66):
        for row in range(80):
            edge = scan.boundaries[:, column]
            layer = int(np.searchsorted(edge, row + 0.5, side="right"))  # edges at or above the pixel's centre
            assert scan.mask[row, column] == {1: 1, 2: 2, 9: 3}.get(layer, 0)


def test_scan_is_periodic():
    seam, inside = [], []
    for seed in range(8):
        scan = circle_scans.draw(seed, (96, 160))
        steps = abs(np.diff(scan.boundaries, axis=1, append=scan.boundaries[:, :1]))
        assert (steps[:, -1] <= steps[:, :-1].max(axis=1) + 1e-9).all()
        grey = abs(np.diff(scan.image.astype(float), axis=1, append=scan.image[:, :1])).mean(axis=0)
        seam.append(grey[-1])
        inside.append(grey[:-1].mean())
    assert np.mean(seam) < 1.3 * np.mean(inside)


def test_layers_have_their_order_of_brightness():
    greys = []
    for seed in range(10):
        scan = circle_scans.draw(seed, (160, 96), glaucoma=bool(seed % 2))
        rows = np.arange(160)[:, None] + 0.5
        layer = (rows >= scan.boundaries[:, None, :]).sum(axis=0)  # 0 vitreous, 1 RNFL … 8 RPE, 9 choroid, 10 sclera
        greys.append([np.median(scan.image[layer == number]) for number in range(11)])
    vitreous, rnfl, gcipl, inl, opl, onl, _, _, rpe, choroid, sclera = np.median(greys, axis=0)
    assert rnfl > gcipl > opl > inl > onl > vitreous
    assert rpe > gcipl
    assert gcipl > choroid > sclera


def test_large_vessels_cast_shadows():
    darker = []
    for seed in range(6):
        scan = circle_scans.draw(seed, (128, 320))
        eye = circle_eye.draw_eye(np.random.default_rng(seed).spawn(3)[0], 320, False)
        rows = np.arange(128)[:, None] + 0.5
        rpe = np.where((rows > scan.boundaries[7]) & (rows < scan.boundaries[8]), scan.image, np.nan)
        brightness = np.nanmean(rpe, axis=0)
        below = [int(round(vessel.angle / 360 * 320)) % 320 for vessel in eye.vessels if vessel.diameter > 85]
        darker.append(np.mean(brightness[below]) / np.median(brightness))
    assert np.mean(darker) < 0.75


def test_draw_repeats_itself_and_seeds_differ():
    first, again, other = (circle_scans.draw(seed, SMALL) for seed in ((3, 1), (3, 1), (3, 2)))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.boundaries, again.boundaries)
    assert (first.image != other.image).any()
    assert first.eye in ("R", "L")


def test_scale():
    assert circle_scans.scale_of((256, 320)) == pytest.approx((3.9, 33.968), abs=1e-3)  # pi * 3460 / 320
    assert circle_scans.scale_of((496, 768))[0] == pytest.approx(1900 / 496)
    assert circle_scans.scale_of((800, 1100)) == pytest.approx((2.375, 9.882), abs=1e-3)
    assert circle_scans.scale_of((96, 128))[0] == pytest.approx(900 / 96)
    scan = circle_scans.draw(0, (128, 64), um_per_px=(8.0, 180.0))
    assert np.diff(scan.boundaries[:2], axis=0).mean() * 8.0 == pytest.approx(scan.rnfl_um)


def test_varied_scans_draw_a_scale_unless_it_is_given():
    for size, most in (((256, 320), 2200), ((800, 1100), 2900), ((64, 72), 960)):
        scales = [circle_scans.draw(seed, size, looks="varied").um_per_px for seed in range(4 if size[0] > 300 else 20)]
        depth = np.array([axial * size[0] for axial, _ in scales])
        assert (depth >= 900).all() and (depth <= most).all() and len(set(depth)) == len(depth)
        assert all(axial >= 1.9 for axial, _ in scales)
    scan = circle_scans.draw(1, (128, 96), (8.0, 110.0), looks="varied")
    assert scan.um_per_px == (8.0, 110.0)
    assert np.diff(scan.boundaries[:2], axis=0).mean() * 8.0 == pytest.approx(scan.rnfl_um)


@pytest.mark.parametrize("size", [SMALL, (65, 131), (256, 160)])
def test_varied_scans_are_whole_too(size):
    for seed in range(20):
        scan = circle_scans.draw(seed, size, glaucoma=bool(seed % 2), looks="varied")
        assert (np.diff(scan.boundaries, axis=0) > 0).all()
        assert scan.boundaries.min() >= 0 and scan.boundaries.max() <= size[0]
        assert all((scan.mask == label).any(axis=0).all() for label in (1, 2, 3))
        np.testing.assert_array_equal(scan.mask, circle_eye.rasterise(scan.boundaries, size[0]))


def test_a_varied_data_set_has_a_scale_file_only_for_a_scale_given(tmp_path):
    circle_scans.make_dataset(tmp_path / "own", 2, 1, 0, SMALL, looks="varied")
    assert not (tmp_path / "own" / "scale.json").exists()
    dataset = detect.open_dataset(tmp_path / "own")
    assert dataset.train[0].spacing is None
    made = json.loads((tmp_path / "own" / "phantom.json").read_text())
    assert (made["looks"], made["um_per_px"]) == ("varied", None)
    assert made["scans"]["0001.png"]["um_per_px"] == pytest.approx(
        circle_scans.draw((0, 0, 0), SMALL, looks="varied").um_per_px, abs=1e-4)
    scan = circle_scans.draw((0, 0, 1), SMALL, glaucoma=bool(dataset.train[1].glaucoma), looks="varied")
    np.testing.assert_array_equal(dataset.read_image(dataset.train[1])[0], scan.image)
    circle_scans.make_dataset(tmp_path / "given", 2, 1, 0, SMALL, 0, (14.5, 150.0), "varied")
    assert json.loads((tmp_path / "given" / "scale.json").read_text()) == {"um_per_px": [14.5, 150.0]}


def test_unknown_looks_are_refused(tmp_path):
    with pytest.raises(OctkitError, match="phantom looks: found 'plain', expected one of spectralis, varied"):
        circle_scans.make_dataset(tmp_path / "set", 2, 1, 0, SMALL, looks="plain")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("size", "scale", "words"), [
    ((63, 200), None, "63 x 200"), ((200, 40), None, "at least 64 x 64"), ((20000, 20000), None, "at most"),
    ((128, 128), (3.9, 80.0), "900 um deep"), ((128, 128), (20.0, 80.0), "at most 15 um"),
    ((128, 128), (8.0, 1.0), "1 to 12 mm"), ((128, 128), (float("nan"), 80.0), "15 um")])
def test_draw_refuses_what_cannot_hold_an_eye(size, scale, words):
    with pytest.raises(OctkitError, match=words):
        circle_scans.draw(0, size, scale)


# The data set.

def test_dataset_is_whole_and_readable(tmp_path):
    circle_scans.make_dataset(tmp_path / "set", 5, 2, 2, SMALL, seed=4)
    assert set(files(tmp_path / "set")) == (
        {f"Train/Image/{n:04d}.png" for n in range(1, 6)} | {f"Train/Layer_Masks/{n:04d}.png" for n in range(1, 6)}
        | {f"Validation/Image/{n:04d}.png" for n in (6, 7)} | {f"Test/Image/{n:04d}.png" for n in (8, 9)}
        | {f"Truth/Layer_Masks/{n:04d}.png" for n in range(6, 10)}
        | {"Train/Train_GC_GT.xlsx", "Truth/GC_GT.xlsx", "scale.json", "phantom.json"})
    dataset = detect.open_dataset(tmp_path / "set")
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [5, 2, 2]
    assert dataset.train[0].spacing == pytest.approx((900 / 64 / 1000, np.pi * 3.46 / 72))
    assert dataset.train[0].circle
    facts = json.loads((tmp_path / "set" / "phantom.json").read_text())
    assert (facts["seed"], facts["size"]) == (4, [64, 72])
    for index, case in enumerate(dataset.train):
        scan = circle_scans.draw((4, 0, index), SMALL, glaucoma=bool(case.glaucoma))
        np.testing.assert_array_equal(dataset.read_image(case)[0], scan.image)
        np.testing.assert_array_equal(dataset.read_mask(case), scan.mask)
        assert facts["scans"][f"{case.name}.png"]["rnfl_um"] == pytest.approx(scan.rnfl_um, abs=0.01)
        assert facts["scans"][f"{case.name}.png"]["glaucoma"] == case.glaucoma
    truth = read_labels(tmp_path / "set" / "Truth" / "GC_GT.xlsx")
    assert set(truth) == {6, 7, 8, 9}
    mask = read_mask(tmp_path / "set" / "Truth" / "Layer_Masks" / "0009.png", GOALS_GREYS, SMALL)
    np.testing.assert_array_equal(mask, circle_scans.draw((4, 2, 1), SMALL, glaucoma=bool(truth[9])).mask)


def test_half_of_each_split_has_glaucoma_in_no_fixed_order():
    for split in range(3):
        labels = [circle_scans._has_glaucoma(0, split, index) for index in range(80)]
        assert sum(labels) == 40
        assert len(set(zip(labels[::2], labels[1::2], strict=True))) == 2


def test_same_seed_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        circle_scans.make_dataset(tmp_path / name, 2, 1, 0, SMALL, seed)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a")["Train/Image/0001.png"] != files(tmp_path / "c")["Train/Image/0001.png"]


def test_larger_set_begins_with_the_smaller(tmp_path):
    circle_scans.make_dataset(tmp_path / "small", 3, 1, 0, SMALL)
    circle_scans.make_dataset(tmp_path / "large", 4, 2, 1, SMALL)
    small, large = files(tmp_path / "small"), files(tmp_path / "large")
    for number in (1, 2, 3):
        for folder in ("Image", "Layer_Masks"):
            assert small[f"Train/{folder}/{number:04d}.png"] == large[f"Train/{folder}/{number:04d}.png"]
    assert small["Validation/Image/0004.png"] == large["Validation/Image/0005.png"]
    labels = [read_labels(tmp_path / name / "Train" / "Train_GC_GT.xlsx") for name in ("small", "large")]
    assert labels[0].items() <= labels[1].items()


def test_without_held_out_scans_there_is_no_truth(tmp_path):
    circle_scans.make_dataset(tmp_path / "set", 2, 0, 0, SMALL)
    assert {path.name for path in (tmp_path / "set").iterdir()} == {"Train", "scale.json", "phantom.json"}
    assert detect.open_dataset(tmp_path / "set").validation == ()


def test_existing_folder_is_refused_unless_empty(tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    with pytest.raises(OctkitError, match="full: already exists"):
        circle_scans.make_dataset(full, 2, 1, 0, SMALL)
    assert files(full) == {"mine.txt": b"mine"}
    with pytest.raises(OctkitError, match="already exists"):
        circle_scans.make_dataset(full / "mine.txt", 2, 1, 0, SMALL)
    (tmp_path / "empty").mkdir()
    circle_scans.make_dataset(tmp_path / "empty", 2, 1, 0, SMALL)
    assert len(detect.open_dataset(tmp_path / "empty").train) == 2


@pytest.mark.parametrize("counts", [(0, 1, 0), (2, -1, 0), (9000, 1000, 0)])
def test_impossible_counts_are_refused(tmp_path, counts):
    with pytest.raises(OctkitError, match=str(counts[0])):
        circle_scans.make_dataset(tmp_path / "set", *counts, SMALL)


def test_wrong_size_and_seed_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(OctkitError, match="10 x 10"):
        circle_scans.make_dataset(tmp_path / "set", 2, 1, 0, (10, 10))
    with pytest.raises(OctkitError, match="seed: found -1"):
        circle_scans.make_dataset(tmp_path / "set", 2, 1, 0, SMALL, seed=-1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("failure", "seen"), [(OSError("disk full"), OctkitError), (RuntimeError("x"), RuntimeError),
                                               (KeyboardInterrupt(), KeyboardInterrupt)])
def test_failed_run_leaves_nothing(tmp_path, monkeypatch, failure, seen):
    written = []

    def fails_at_third(path, pixels):
        written.append(path)
        if len(written) == 3:
            raise failure
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pixels.tobytes())

    monkeypatch.setattr(circle_scans, "write_png", fails_at_third)
    with pytest.raises(seen):
        circle_scans.make_dataset(tmp_path / "set", 4, 1, 0, SMALL)
    assert len(written) == 3
    assert list(tmp_path.iterdir()) == []
