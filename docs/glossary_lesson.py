"""Write lesson 17, English and Chinese, from docs/terms.md: .venv/bin/python docs/glossary_lesson.py

Each part of the table becomes a cell, so that other lessons can link to its heading.
"""

import copy
import hashlib
import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]
INTRODUCTION = """# 17 · Glossary

**What you will be able to do:** look up each word of these lessons, in English and in Chinese. The same table stands
in `docs/terms.md`."""
CHINESE_INTRODUCTION = """# 17 · 术语表

**学完本课，你将能够：** 查到课程中每个术语的中文和英文。同一张表也在 `docs/terms.md` 中。"""
CHINESE_HEADINGS = {"Eye and scan": "眼睛与图像", "Data and plan": "数据与计划",
                    "Network and training": "网络与训练", "Prediction and judgement": "预测与评价"}


def glossary() -> nbformat.NotebookNode:
    """The lesson as a notebook, made from docs/terms.md and the metadata of lesson 00."""
    first = nbformat.read(ROOT / "notebooks/00_start.ipynb", as_version=4)
    parts = re.split(r"(?m)^(?=## )", (ROOT / "docs/terms.md").read_text(encoding="utf-8"))[1:]
    cells = [nbformat.v4.new_markdown_cell(text.strip()) for text in (INTRODUCTION, *parts)]
    cells[1:1] = [next(cell for cell in first.cells if "parameters" in cell.metadata.get("tags", ()))]
    for number, cell in enumerate(cells, start=1):
        cell.id = f"17-{number:02d}"
    return nbformat.v4.new_notebook(cells=cells, metadata=first.metadata)


def in_chinese(english: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The lesson with the Chinese words first; each translated cell holds a hash of the English one."""
    chinese = copy.deepcopy(english)
    for cell in chinese.cells:
        if cell.cell_type == "markdown":
            cell.metadata["octkit"] = {"translates": hashlib.sha256(cell.source.encode()).hexdigest()[:16]}
            cell.source = _part_in_chinese(cell.source) if cell.source.startswith("## ") else CHINESE_INTRODUCTION
    return chinese


def _part_in_chinese(part: str) -> str:
    heading, _, *rows = part.removeprefix("## ").splitlines()
    words = [re.split(r" \| ", row.strip("| ")) for row in rows if not row.startswith("|--")]
    table = [f"| {chinese} | {english} | {explained} | {meaning} |" for english, chinese, meaning, explained in words]
    # JupyterLab finds both kinds of anchor: a heading's own words, and an id (which it renames to data-jupyter-id).
    anchor = f'<a id="{heading.replace(" ", "-")}"></a>'
    return "\n".join([anchor, "", f"## {CHINESE_HEADINGS[heading]}", "", table[0], "|---|---|---|---|", *table[1:]])


if __name__ == "__main__":
    lesson = glossary()
    nbformat.write(lesson, ROOT / "notebooks/17_glossary.ipynb")
    (ROOT / "notebooks/zh").mkdir(exist_ok=True)
    nbformat.write(in_chinese(lesson), ROOT / "notebooks/zh/17_glossary.ipynb")
