"""Write notebooks/17_glossary.ipynb from docs/terms.md: .venv/bin/python docs/glossary_lesson.py

Each part of the table becomes a cell, so that other lessons can link to its heading.
"""

import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
INTRODUCTION = """# 17 · Glossary

**What you will be able to do:** look up each word of these lessons, in English and in Chinese. The same table stands
in `docs/terms.md`."""


def glossary() -> nbformat.NotebookNode:
    """The lesson as a notebook, made from docs/terms.md and the metadata of lesson 00."""
    first = nbformat.read(ROOT / "notebooks/00_start.ipynb", as_version=4)
    parts = re.split(r"(?m)^(?=## )", (ROOT / "docs/terms.md").read_text(encoding="utf-8"))[1:]
    cells = [nbformat.v4.new_markdown_cell(text.strip()) for text in (INTRODUCTION, *parts)]
    cells[1:1] = [next(cell for cell in first.cells if "parameters" in cell.metadata.get("tags", ()))]
    for number, cell in enumerate(cells, start=1):
        cell.id = f"17-{number:02d}"
    return nbformat.v4.new_notebook(cells=cells, metadata=first.metadata)


if __name__ == "__main__":
    nbformat.write(glossary(), ROOT / "notebooks/17_glossary.ipynb")
