import numpy as np
import pytest

from octkit.data.grey_range import grey_range, odd_range, shown
from octkit.phantoms.circle_scans import draw
from octkit.phantoms.volume_scans import draw_volume

CHANGES = {"times 1/255": lambda grey: grey / 255, "times 257": lambda grey: grey * 257,
           "times 16": lambda grey: grey * 16, "times 1/4": lambda grey: grey / 4, "inverted": lambda grey: 255 - grey,
           "-1 to 1": lambda grey: grey / 127.5 - 1, "z-scored": lambda grey: (grey - grey.mean()) / grey.std()}


def test_percentiles_by_hand():
    assert grey_range(np.arange(201.0).reshape(3, 67)) == (1, 100, 199)
    assert grey_range(np.zeros((2, 3))) == (0, 0, 0)


@pytest.mark.parametrize(("found", "odd"), [
    ((0, 30, 200), None), ((0, 0, 0.9), "far too dark"), ((0, 30, 79), "far too dark"), ((0, 30, 81), None),
    ((0, 30, 319), None), ((0, 30, 321), "far too bright"), ((20, 130, 250), "inverted, or too bright in most pixels")])
def test_the_limits(found, odd):
    assert odd_range(found, 0, 200) == odd
    assert odd_range(tuple(value + 50 for value in found), 50, 250) == odd
    assert odd_range(found, 0, 0) is None  # a model of blank scans has no range


def test_ranges_in_words():
    assert shown(0, 0.93123) == "0 to 0.931" and shown(26.04, 44461.2) == "26 to 44461"


@pytest.mark.parametrize("seed", range(4))
def test_phantoms_of_any_device_fit_and_their_changed_copies_do_not(seed):
    """Against what the model in the box was trained on: 0 to 229."""
    for image in (draw(seed, (128, 160), looks="varied").image,
                  draw_volume(seed, (2, 128, 96), "macular", looks="varied").image):
        assert odd_range(grey_range(image), 0, 229) is None
        for change in CHANGES.values():
            assert odd_range(grey_range(change(image.astype(np.float32))), 0, 229)


def test_a_sample_stands_for_a_large_volume():
    volume = np.random.default_rng(0).gamma(2, 20, (16, 256, 512))
    np.testing.assert_allclose(grey_range(volume), np.percentile(volume, (0.5, 50, 99.5)), rtol=0.05)
