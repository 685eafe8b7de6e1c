import numpy as np
import pytest

from octkit.classification.why import occlusion


def test_what_a_network_looks_at_is_found():
    """A network that reads one corner alone: by how much is it brighter than grey?"""
    image = np.full((64, 80), 60, np.uint8)
    image[:16, :20] = 200
    found = occlusion(image, lambda images: images[:, :16, :20].mean(axis=(1, 2)) / 10)
    assert found.shape == image.shape
    assert found[0, 0] == pytest.approx(14) and found.argmax() == 0  # the square that covers all of it takes 14 away
    assert found[32:, 40:].max() == 0
