"""What lies beside a mask: written and read back, and refused where it does not belong to it."""

import numpy as np
import pytest

from octkit.common.errors import OctkitError
from octkit.common.files import read_json
from octkit.layers.scan_files import (
    ScanFacts,
    facts_beside,
    read_boundaries,
    seen_beside,
    write_boundaries,
    write_facts,
)

ROWS = np.arange(20.0).reshape(5, 4)


def test_boundaries_and_facts_come_back(tmp_path):
    doubt = np.full((5, 4), 0.25)
    write_boundaries(tmp_path / "a.boundaries.csv", ROWS, doubt)
    np.testing.assert_array_equal(read_boundaries(tmp_path / "a.boundaries.csv"), (ROWS, doubt))
    facts = ScanFacts((3.87, 14.7), "L", False)
    write_facts(tmp_path / "a.scale.json", facts)
    assert facts_beside(tmp_path / "a.png") == facts
    assert read_json(tmp_path / "a.scale.json") == {"um_per_px": [3.87, 14.7], "eye": "L", "circle": False}
    assert facts_beside(tmp_path / "b.png") == ScanFacts()


def test_layers_are_seen_by_the_doubt_beside_the_mask(tmp_path):
    doubt = np.full((5, 4), 0.25)
    doubt[2, 1] = 3
    write_boundaries(tmp_path / "a.boundaries.csv", ROWS, doubt)
    assert seen_beside(tmp_path / "a.png", (100, 4)).sum(axis=1).tolist() == [4, 3, 4]
    assert seen_beside(tmp_path / "b.png", (100, 4)) is None
    with pytest.raises(OctkitError, match="a.boundaries.csv: has 4 A-scans, its mask 5"):
        seen_beside(tmp_path / "a.png", (100, 5))


@pytest.mark.parametrize("content", [b"", b"a_scan,ILM\n0,1\n", b"\xff\xfe\x00", b"a,b\n1,x\n", b"a,b\n1,2\n3\n"])
def test_a_file_that_holds_no_boundaries_is_named(tmp_path, content):
    (tmp_path / "a.boundaries.csv").write_bytes(content)
    with pytest.raises(OctkitError, match="a.boundaries.csv: "):
        seen_beside(tmp_path / "a.png", (100, 4))


@pytest.mark.parametrize("content", ['{"circle": "round"}', '{"eye": "left"}', '{"um_per_px": [0, 3]}', "[]"])
def test_facts_that_cannot_be_are_named(tmp_path, content):
    (tmp_path / "a.scale.json").write_text(content)
    with pytest.raises(OctkitError, match="a.scale.json: "):
        facts_beside(tmp_path / "a.png")
