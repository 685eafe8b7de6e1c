"""What lies beside a mask: written and read back, and refused where it does not belong to it."""

import numpy as np
import pytest

from octkit.common.errors import OctkitError
from octkit.common.files import read_json
from octkit.layers.scan_files import (
    ScanFacts,
    facts_beside,
    layers_beside,
    read_boundaries,
    write_boundaries,
    write_facts,
)

ROWS = np.arange(20.0).reshape(5, 4)


def test_boundaries_and_facts_come_back(tmp_path):
    doubt = np.full((5, 4), 0.25)
    write_boundaries(tmp_path / "a.boundaries.csv", ROWS, doubt)
    lines, raw, widths = read_boundaries(tmp_path / "a.boundaries.csv")
    np.testing.assert_array_equal((lines, raw), (ROWS, doubt))
    assert widths is None
    facts = ScanFacts((3.87, 14.7), "L", False)
    write_facts(tmp_path / "a.scale.json", facts)
    assert facts_beside(tmp_path / "a.png") == facts
    assert read_json(tmp_path / "a.scale.json") == {"um_per_px": [3.87, 14.7], "eye": "L", "circle": False,
                                                    "means": None}
    assert facts_beside(tmp_path / "b.png") == ScanFacts()


def test_layers_are_seen_by_the_doubt_beside_the_mask(tmp_path):
    doubt = np.full((5, 4), 0.25)
    doubt[2, 1] = 3
    write_boundaries(tmp_path / "a.boundaries.csv", ROWS, doubt)
    seen, width = layers_beside(tmp_path / "a.png", (100, 4))
    assert seen.sum(axis=1).tolist() == [4, 3, 4] and width is None
    assert layers_beside(tmp_path / "b.png", (100, 4)) == (None, None)
    with pytest.raises(OctkitError, match="a.boundaries.csv: has 4 A-scans, its mask 5"):
        layers_beside(tmp_path / "a.png", (100, 5))


def test_calibrated_half_widths_lie_beside_the_mask_and_say_how_sure_thickness_is(tmp_path):
    widths = np.stack([np.full((5, 4), 0.3), np.full((5, 4), 0.8)])
    widths[0, 1] = 0.4
    widths[0, 4, 2] = 70  # not located: it counts as 2 px, a fiftieth of 100 rows
    write_boundaries(tmp_path / "a.boundaries.csv", ROWS, np.full((5, 4), 0.25), widths)
    np.testing.assert_array_equal(read_boundaries(tmp_path / "a.boundaries.csv")[2], widths)
    head = (tmp_path / "a.boundaries.csv").read_text().splitlines()[0].split(",")
    assert head[11] == "half width of ILM for 68%" and head[20] == "half width of choroid bottom for 95%"
    _, width = layers_beside(tmp_path / "a.png", (100, 4))
    np.testing.assert_allclose(width[0], 0.5)
    np.testing.assert_allclose(width[2], np.hypot(0.3, [0.3, 0.3, 2, 0.3]))


@pytest.mark.parametrize("content", [b"", b"a_scan,ILM\n0,1\n", b"\xff\xfe\x00", b"a,b\n1,x\n", b"a,b\n1,2\n3\n"])
def test_a_file_that_holds_no_boundaries_is_named(tmp_path, content):
    (tmp_path / "a.boundaries.csv").write_bytes(content)
    with pytest.raises(OctkitError, match="a.boundaries.csv: "):
        layers_beside(tmp_path / "a.png", (100, 4))


@pytest.mark.parametrize("content", ['{"circle": "round"}', '{"eye": "left"}', '{"um_per_px": [0, 3]}', "[]",
                                     '{"means": {"rnfl": {"global": [-1, 2]}}}', '{"means": {"rnfl": {"x": [1, 2]}}}',
                                     '{"um_per_px": [1e-308, 1e308]}'])
def test_facts_that_cannot_be_are_named(tmp_path, content):
    (tmp_path / "a.scale.json").write_text(content)
    with pytest.raises(OctkitError, match="a.scale.json: "):
        facts_beside(tmp_path / "a.png")
