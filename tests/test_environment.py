"""The one list of versions and what is derived from it."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def pins(text: str) -> dict[str, str]:
    return dict(re.findall(r"^\s*(?:- )?([a-z0-9-]+)==([^\s#]+)", text, re.MULTILINE))


def test_environment_yml_holds_the_same_versions():
    expected = pins((ROOT / "requirements.txt").read_text())
    expected["paddlepaddle-gpu"] = expected.pop("paddlepaddle")
    assert pins((ROOT / "environment.yml").read_text()) == expected


def test_pyproject_reads_the_list_and_pins_nothing_itself():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["dynamic"]["dependencies"] == {"file": ["requirements.txt"]}
    assert "dependencies" not in project["project"] and "dependencies" in project["project"]["dynamic"]


def test_every_line_is_pinned_for_a_named_reason():
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    assert len(lines) > 20
    assert all(re.fullmatch(r"[a-z0-9-]+==\S+ +# .+", line) for line in lines)
