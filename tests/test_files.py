import json

import pytest

from octkit.files import OctkitError, read_json, replacing, write_json


def test_replacing_keeps_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_goes_round_and_refuses_nan(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"a": [1, 2.5, None]}
    with pytest.raises(ValueError):
        write_json(tmp_path / "b.json", {"a": float("nan")})
    assert not (tmp_path / "b.json").exists()


def test_json_errors_name_the_file(tmp_path):
    with pytest.raises(OctkitError, match="plan.json: not found"):
        read_json(tmp_path / "plan.json")
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(OctkitError, match="plan.json: is not valid JSON"):
        read_json(tmp_path / "plan.json")
    (tmp_path / "plan.json").write_text(json.dumps([1]))
    assert read_json(tmp_path / "plan.json") == [1]
