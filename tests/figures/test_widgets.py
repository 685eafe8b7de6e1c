"""Widgets without a browser: moving a control draws another picture."""

import base64
import html
import re

import ipywidgets
import numpy as np
import pytest

from octkit.common.errors import OctkitError
from octkit.data.dataset import Case, Dataset
from octkit.data.image_files import write_mask, write_png
from octkit.data.labels import LAYERS
from octkit.figures import picture, scans, widgets

GREYS = {0: 1, 80: 2, 160: 3, 255: 0}


@pytest.fixture
def dataset(tmp_path):
    """Two scans of 20 x 30 px, the second without a mask."""
    cases = []
    for number, name in enumerate(("0001", "0002")):
        write_png(tmp_path / f"{name}.png", np.full((20, 30), 80 + number, np.uint8))
        mask = tmp_path / f"{name}_mask.png" if number == 0 else None
        if mask:
            write_mask(mask, np.repeat(np.arange(4, dtype=np.uint8), 5)[:, None] * np.ones((1, 30), np.uint8), GREYS)
        cases.append(Case(name, tmp_path / f"{name}.png", mask, glaucoma=1 if mask else None, spacing=(0.004, 0.01)))
    return Dataset("two", tmp_path, "goals", LAYERS, ("OCT",), GREYS, tuple(cases))


def controls(box: ipywidgets.VBox) -> dict[str, ipywidgets.Widget]:
    return {widget.description: widget for widget in box.children[0].children}


def shown(box: ipywidgets.VBox) -> tuple[bytes, str]:
    """The picture's PNG bytes and its text alternative, as a browser would read them."""
    data, alt = re.fullmatch(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)" style="[^"]+">',
                             box.children[1].value).groups()
    return base64.b64decode(data), html.unescape(alt)


def test_browsing_shows_the_scan_that_the_slider_points_at(dataset):
    box = widgets.browse(dataset)
    first = shown(box)
    assert first[0].startswith(b"\x89PNG")
    assert first[1].startswith("Scan 0001, glaucoma: OCT B-scan with RNFL, GCIPL, choroid")
    controls(box)["scan"].value = 1
    assert shown(box)[1].startswith("Scan 0002: OCT B-scan with no layer")
    controls(box)["scan"].value = 0
    assert shown(box) == first
    controls(box)["opacity"].value = 0
    assert shown(box)[0] != first[0]


def test_a_prediction_is_filled_in_and_the_truth_becomes_lines(dataset):
    box = widgets.browse(dataset, predicted={"0001": np.zeros((20, 30), np.uint8)})
    assert "no layer" in shown(box)[1] and "true boundaries" in shown(box)[1]


def test_browsing_nothing_is_an_error(dataset):
    with pytest.raises(OctkitError, match="no case"):
        widgets.browse(dataset, cases=())


def test_the_augmentation_widget_asks_for_the_chosen_transform_and_seed():
    asked = []
    image, mask = np.zeros((1, 8, 8), np.float32), np.zeros((8, 8), np.uint8)

    def apply(name, seed):
        asked.append((name, seed))
        return image + seed, mask

    box = widgets.augmentation(image, mask, ["gamma", "noise"], apply)
    controls(box)["seed"].value = 7
    controls(box)["transform"].value = "noise"
    assert asked == [("gamma", 0), ("gamma", 7), ("noise", 7)]
    assert "noise, seed 7" in shown(box)[1]


def test_the_window_says_how_much_it_clips():
    ramp = np.arange(100, dtype=np.float32).reshape(1, 10, 10)
    box = widgets.window(ramp)
    assert shown(box)[1] == "Window 0.0 to 99.0: 0.0 % of pixels clipped"
    controls(box)["window"].value = (9.9, 99.0)
    assert "10.0 % of pixels clipped" in shown(box)[1]


def test_the_static_picture_beside_a_widget_is_what_the_widget_shows(dataset):
    case = dataset.train[0]
    static = scans.overlay(dataset.read_image(case), dataset.read_mask(case), title="Scan 0001, glaucoma",
                           um_per_px=(4.0, 10.0))
    assert shown(widgets.browse(dataset))[0] == picture.png(static)
