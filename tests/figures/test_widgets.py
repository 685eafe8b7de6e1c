"""Widgets without a browser: moving a control draws another picture."""

import base64
import html
import re

import ipywidgets
import numpy as np
import pytest

from octkit.data.dataset import Case, Dataset
from octkit.data.image_files import write_mask, write_png
from octkit.data.labels import LAYERS
from octkit.figures import picture, scans, widgets

GREYS = {0: 1, 80: 2, 160: 3, 255: 0}


@pytest.fixture
def dataset(tmp_path):
    """Two scans of 20 x 30 px, the second with nothing in its mask."""
    cases = []
    for name, glaucoma in (("0001", 1), ("0002", None)):
        image, mask = tmp_path / f"{name}.png", tmp_path / f"{name}_mask.png"
        write_png(image, np.full((20, 30), 80, np.uint8))
        write_mask(mask, np.repeat(np.arange(4, dtype=np.uint8) * bool(glaucoma), 150).reshape(20, 30), GREYS)
        cases.append(Case(name, image, mask, glaucoma=glaucoma, spacing=(0.004, 0.01)))
    return Dataset("two", tmp_path, "goals", LAYERS, ("OCT",), GREYS, tuple(cases))


def controls(box: ipywidgets.VBox) -> dict[str, ipywidgets.Widget]:
    return {widget.description: widget for widget in box.children[0].children}


def shown(box: ipywidgets.VBox) -> tuple[bytes, str]:
    """The picture's PNG bytes and its text alternative, as a browser would read them."""
    data, alt = re.fullmatch(r'<img src="data:.*;base64,(.+)" alt="(.+)" style=".+">', box.children[1].value).groups()
    return base64.b64decode(data), html.unescape(alt)


def test_browsing_shows_the_scan_that_the_slider_points_at(dataset):
    box = widgets.browse(dataset)
    first = shown(box)
    assert first[1].startswith("Scan 0001, glaucoma: OCT B-scan with RNFL, GCIPL, choroid")
    controls(box)["scan"].value = 1
    assert shown(box)[1].startswith("Scan 0002: OCT B-scan with no layer")
    controls(box)["scan"].value = 0
    controls(box)["opacity"].value = 0
    assert shown(box)[0] != first[0] and shown(box)[1] == first[1]


def test_a_control_for_each_argument_begins_at_its_default_and_draws_again():
    asked = []

    def draw(name="noise", seed=3, mirrored=False, grey_scale=0.5):
        asked.append((name, seed, mirrored, grey_scale))
        return picture.new_picture(f"{name}, seed {seed}")[0]

    box = widgets.touch(draw, name=["gamma", "noise"], seed=(0, 9), mirrored=False, grey_scale=(0.0, 1.0))
    assert list(controls(box)) == ["name", "seed", "mirrored", "grey scale"]
    controls(box)["seed"].value = 7
    controls(box)["name"].value = "gamma"
    assert asked == [("noise", 3, False, 0.5), ("noise", 7, False, 0.5), ("gamma", 7, False, 0.5)]
    assert shown(box)[1] == "gamma, seed 7"


def test_a_live_picture_is_replaced():
    live = widgets.Live()
    live.show(picture.new_picture("epoch 1")[0])
    assert 'alt="epoch 1"' in live.value
    live.show(picture.new_picture("epoch 2")[0])
    assert 'alt="epoch 2"' in live.value and "epoch 1" not in live.value


def test_the_window_says_how_much_it_clips():
    box = widgets.window(np.arange(100, dtype=np.float32).reshape(1, 10, 10))
    assert shown(box)[1] == "Window 0.0 to 99.0: 0.0 % of pixels clipped"
    controls(box)["grey"].value = (9.9, 99.0)
    assert "10.0 % of pixels clipped" in shown(box)[1]


def test_the_static_picture_beside_a_widget_is_what_the_widget_shows(dataset):
    case = dataset.train[0]
    static = scans.overlay(dataset.read_image(case), dataset.read_mask(case), title="Scan 0001, glaucoma",
                           um_per_px=(4.0, 10.0))
    assert shown(widgets.browse(dataset))[0] == picture.png(static)
