"""What the lessons' code names must exist, also on paths that a run on phantoms does not take (real scans, a GPU)."""

import ast
import importlib
import importlib.util
import json
import re
import statistics
from pathlib import Path

import nbformat
import pytest

from octkit.common.settings import PROJECT

LESSONS = sorted((PROJECT / "notebooks").glob("*.ipynb"))


def code_of(lesson: Path) -> ast.Module:
    cells = [cell for cell in json.loads(lesson.read_text())["cells"] if cell["cell_type"] == "code"]
    return ast.parse("\n".join("".join(cell["source"]) for cell in cells))


def missing_names(tree: ast.Module) -> list[str]:
    """`module.name` for each name that the code takes from a module of octkit and that is not there."""
    missing, modules = [], {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "octkit":
            for name in node.names:
                try:
                    modules[name.asname or name.name] = importlib.import_module(f"{node.module}.{name.name}")
                except ModuleNotFoundError:
                    if not hasattr(importlib.import_module(node.module), name.name):
                        missing.append(f"{node.module}.{name.name}")
    for node in ast.walk(tree):
        named = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules
        if named and not hasattr(modules[node.value.id], node.attr):
            missing.append(f"{node.value.id}.{node.attr}")
    return missing


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_what_a_lesson_names_is_there(lesson):
    assert missing_names(code_of(lesson)) == []


def test_a_name_that_is_not_there_is_found():
    code = ("from octkit.data import labels\n"
            "from octkit.data.labels import LAYERS, NOTHING\nif LAYERS:\n    labels.GREYS(1)")
    assert missing_names(ast.parse(code)) == ["octkit.data.labels.NOTHING", "labels.GREYS"]


def test_the_glossary_lesson_is_the_table_of_terms():
    spec = importlib.util.spec_from_file_location("glossary_lesson", PROJECT / "docs/glossary_lesson.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    english = module.glossary()
    for language, made in (("", english), ("zh", module.in_chinese(english))):
        assert nbformat.read(PROJECT / "notebooks" / language / "17_glossary.ipynb", as_version=4) == made


def test_each_term_stands_once_in_both_languages():
    rows = [line.strip("| ").split(" | ") for line in (PROJECT / "docs/terms.md").read_text("utf-8").splitlines()
            if line.startswith("| ") and not line.startswith("| English")]
    assert all(len(row) == 4 and all(row) for row in rows)
    words = [row[0] for row in rows]
    assert len(words) == len(set(words)) > 60
    assert all(any("一" <= letter <= "鿿" for letter in row[3]) for row in rows)


@pytest.mark.parametrize("lesson", [lesson for lesson in LESSONS if lesson.stem != "17_glossary"],
                         ids=lambda path: path.stem)
def test_a_lesson_has_its_form(lesson):
    """What you will be able to do, an idea that is drawn and can be turned, exercises, what you have learnt, links."""
    cells = nbformat.read(lesson, as_version=4).cells
    text, code = ([cell.source for cell in cells if cell.cell_type == kind] for kind in ("markdown", "code"))
    for part in ("**What you will be able to do**", "**What you need to know:**", "**Time:**"):
        assert part in text[0]
    whole = "\n".join(text)
    for heading in ("## The idea", "## Exercises", "## What you have learnt", "## To read on"):
        assert whole.count(heading) == 1
    assert any("ideas." in cell for cell in code) and any("widgets." in cell for cell in code)
    assert 3 <= len(re.findall(r"\]\(https://", whole.partition("## To read on")[2])) <= 5
    for file, anchor in re.findall(r"\]\((?!https://)([^)#]+)#?([^)]*)\)", whole):
        headings = [cell.source for cell in nbformat.read(lesson.parent / file, as_version=4).cells]
        assert not anchor or any(f"## {anchor.replace('-', ' ')}" in heading for heading in headings)
    prose = re.sub(r"(?ms)```.*?```|^\|.*?$|\$\$.*?\$\$|\]\([^)]*\)", "", whole)
    words = [len(sentence.split()) for sentence in re.split(r"(?<=[.?!:])\s+", prose)]
    assert statistics.median(n for n in words if n > 2) <= 14  # short sentences for readers from everywhere
