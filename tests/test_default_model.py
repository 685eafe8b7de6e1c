"""The model that comes with octkit, on phantoms and, where there are any, on real scans."""

import csv
import subprocess
import sys

import numpy as np
import pytest
from helpers import SHARED

from octkit.data.image_files import list_images, read_header, read_image, read_mask
from octkit.data.labels import GOALS_GREYS
from octkit.evaluation.metrics import broken_a_scans, dice, layer_thickness
from octkit.inference.scan_result import predict_scan
from octkit.inference.sliding_window import Predictor
from octkit.network.model_file import DEFAULT, open_model
from octkit.phantoms.circle_scans import draw
from octkit.phantoms.volume_eye import WINDOWS
from octkit.phantoms.volume_scans import draw_volume

REAL_SCANS = SHARED / "real-scans"


@pytest.fixture(scope="module")
def predictor():
    return Predictor.load("default")


def test_it_is_small_and_says_what_it_is():
    assert DEFAULT.stat().st_size <= 10e6
    model = open_model("default")
    assert model.labels == ("rnfl", "gcipl", "choroid") and model.surfaces and model.circle


@pytest.mark.parametrize(("looks", "least"), [("spectralis", (0.96, 0.94, 0.93)), ("varied", (0.93, 0.87, 0.85))])
def test_it_knows_phantoms_that_it_has_not_seen(predictor, looks, least):
    scores = []
    for seed in range(3):
        phantom = draw((77, seed), (496, 768), glaucoma=seed == 1, looks=looks)
        found = predict_scan(predictor, phantom.image[None].astype(np.float32), circle=True)
        assert broken_a_scans(found.mask) == 0
        scores.append([dice(found.mask, phantom.mask, label) for label in (1, 2, 3)])
    assert (np.mean(scores, axis=0) > least).all()


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    if not REAL_SCANS.is_dir():
        pytest.skip("needs the real scans in ../shared/real-scans")
    out = tmp_path_factory.mktemp("real")
    command = [sys.executable, "-m", "octkit", "predict", "default", REAL_SCANS / "images", "-o", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize("name", ["willis_716_2", "willis_716_4"])
def test_it_segments_real_scans(real, name):
    found, truth = (read_mask(folder / f"{name}.png", GOALS_GREYS) for folder in (real, REAL_SCANS / "masks_goals"))
    assert dice(found, truth, 1) >= 0.93
    assert abs(layer_thickness(found, 1).mean() - layer_thickness(truth, 1).mean()) * 3.87 <= 5
    assert broken_a_scans(found) == 0


def is_out_of_scope(found):
    return any(reason.startswith("not a circle scan around the disc") for reason in found.quality.reasons)


def test_it_reads_circle_scans_and_says_so_of_others(predictor):
    volume = {kind: draw_volume(5, (3, 384, 512), kind).image for kind in WINDOWS}
    circle = draw(6, (384, 512)).image
    pictures = {"circle": circle, "fovea": volume["macular"][1], "beside the fovea": volume["macular"][0],
                "disc": volume["peripapillary"][1], "upside-down": circle[::-1],
                "noise": np.random.default_rng(0).integers(0, 255, (384, 512))}
    assert {name for name, image in pictures.items()
            if not is_out_of_scope(predict_scan(predictor, image[None].astype(np.float32)))} == {"circle"}


def test_real_macular_scans_are_out_of_its_scope(predictor):
    if not REAL_SCANS.is_dir():
        pytest.skip("needs the real scans in ../shared/real-scans")
    scans = list_images(REAL_SCANS / "macula")
    assert len(scans) == 7
    assert all(is_out_of_scope(predict_scan(predictor, read_image(path))) for path in scans)


def test_it_says_which_real_scan_is_not_to_be_trusted(real):
    with open(real / "quality.csv", newline="") as file:
        flags = {row["scan"]: row for row in csv.DictReader(file)}
    assert {name: row["trusted"] for name, row in flags.items()} == {
        "halirutan_valid_hardcase": "NO", "willis_716_2": "yes", "willis_716_4": "yes"}
    assert flags["halirutan_valid_hardcase"]["reasons"]
    for image in list_images(REAL_SCANS / "images"):
        assert read_header(real / image.name).size == read_header(image).size
        with open(real / f"{image.stem}.boundaries.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == read_header(image).size[1]
        edges = np.array([[float(row[name]) for name in list(row)[1:6]] for row in rows])
        assert (np.diff(edges, axis=1) > 0).all()
