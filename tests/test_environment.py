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


def locked(name: str) -> dict[str, list[str]]:
    """What a file of requirements/ installs: "package==version" -> the hashes of its files."""
    entries = re.split(r"\n(?=[a-z0-9])", (ROOT / "requirements" / f"{name}.txt").read_text())
    return {entry.split(maxsplit=1)[0]: re.findall(r"--hash=sha256:([0-9a-f]{64})\b", entry) for entry in entries}


def test_the_lock_holds_the_lists_versions_by_their_hashes():
    found = locked("lock") | locked("torch")
    for package, version in pins((ROOT / "requirements.txt").read_text()).items():
        assert f"{package}=={version}" in found, "out of date: run `make lock`"
    assert list(locked("torch-cpu"))[-1] == next(iter(locked("torch"))) + "+cpu"
    for part in ("pip", "torch", "cuda", "lock"):
        assert all(locked(part).values()), part


def test_the_set_up_takes_nothing_but_what_has_a_hash():
    """And what builds octkit itself is in the lock, too."""
    text = (ROOT / "Makefile").read_text()
    made = text.partition(".venv/ready:")[2].partition("\n\n")[0]
    assert re.findall(r"\$\(HASHED\)/([a-z-]+)\.txt", made) == ["pip", "torch-cpu", "torch", "cuda", "lock"]
    assert "HASHED = $(PIP) --require-hashes" in text and "--no-build-isolation" in made
    assert any(package.startswith("setuptools==") for package in locked("lock"))
