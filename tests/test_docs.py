"""The pages say what the code is: the rooms' table and picture, and examples that run."""

import re
import tomllib
from pathlib import Path

import pytest
from test_architecture import MODULES, PACKAGE, ROOMS

from octkit.common.settings import PROJECT

DOCS = PROJECT / "docs"


def test_the_page_has_the_rooms_of_the_code():
    table = (DOCS / "architecture.md").read_text(encoding="utf-8").split("## The rooms")[1].split("##")[0]
    rows = {room: cell for room, cell in re.findall(r"(?m)^\| `(\w+)` \|.*\| ([^|]+) \|$", table)}
    assert rows.keys() == ROOMS.keys()
    told = {room: () if cell == "nothing" else tuple(cell.split(", ")) for room, cell in rows.items()}
    assert {room: below for room, below in told.items() if room != "lessons"} == {
        room: below for room, below in ROOMS.items() if room != "lessons"}
    assert rows["lessons"] == "all above"


def test_the_picture_shows_every_module():
    picture = (DOCS / "rooms.svg").read_text(encoding="utf-8")
    words = set(re.findall(r">([\w/]+)</", picture))
    shown = {path.relative_to(PACKAGE).with_suffix("").as_posix().partition("/")[2] for path in MODULES.values()} - {""}
    assert shown <= words


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md", "README.md"])
def test_files_that_a_page_names_are_there(page):
    named = set(re.findall(r"`([\w/]+\.(?:py|toml|txt|json|zip))`", (PROJECT / page).read_text(encoding="utf-8")))
    roots = (PROJECT, PACKAGE)
    written_by_a_run = {"settings.json"}
    assert {name for name in named if not any((root / name).exists() for root in roots)} <= written_by_a_run


def test_names_beside_a_file_stand_in_it():
    """A row such as "`layers/boundaries.py`: `LEAST_UM`, `STEEPEST`" names what is there."""
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    beside = re.findall(r"`([\w/]+\.py)`: ((?:`\w+`(?:, )?)+)", page)
    named = [(file, name) for file, names in beside for name in re.findall(r"\w+", names)]
    assert len(named) > 10
    for file, name in named:
        assert re.search(rf"(?m)^(def |class |){name}\b", (PACKAGE / file).read_text(encoding="utf-8")), (file, name)


def test_the_package_that_is_installed_is_whole():
    """Every folder with code is a package, and every other file is package data."""
    setup = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert setup["packages"]["find"]["include"] == ["octkit*"]
    assert all((path.parent / "__init__.py").exists() for path in PACKAGE.rglob("*.py"))
    data = {path for pattern in setup["package-data"]["octkit"] for path in PACKAGE.glob(pattern)}
    others = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert data == others and len(data) == 6


def examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / "api.md").read_text(encoding="utf-8"), re.DOTALL)


def test_the_examples_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for example in examples():
        exec(compile(example, "docs/api.md", "exec"), names)
    assert (tmp_path / "submission.zip").is_file()
