"""Bring notebooks/zh into step with the English lessons, and list what is to translate.

    .venv/bin/python docs/translations.py

Code cells become those of the English lesson, cell by cell; texts that are translated stay. A text that is missing gets
a cell that says so, with the English below. Exit code 1 where something is left to translate.
"""

import copy
import hashlib
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

LESSONS = Path(__file__).parents[1] / "notebooks"
CHINESE = LESSONS / "zh"
MARK = "**（尚未翻译）**\n\n"  # before an English text that has no Chinese one


def english_lessons() -> list[Path]:
    """The lessons that are translated. Of the solutions those that have been begun."""
    return [path for path in sorted(LESSONS.rglob("*.ipynb")) if CHINESE not in path.parents
            and (path.parent == LESSONS or (CHINESE / path.relative_to(LESSONS)).is_file())]


def stamp(english: NotebookNode) -> str:
    """What a translated cell keeps of the English one: the first 16 hex digits of its text's SHA-256."""
    return hashlib.sha256(english.source.encode()).hexdigest()[:16]


def in_step(english: NotebookNode, chinese: NotebookNode) -> tuple[NotebookNode, list[str]]:
    """The Chinese lesson with the cells of the English one, and what of its texts is to do: "ID: missing"."""
    theirs = {cell.id: cell for cell in chinese.cells}
    made, left = copy.deepcopy(english), []
    for cell in made.cells:
        mine = theirs.pop(cell.id, None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        elif mine is None or mine.cell_type != cell.cell_type or mine.source.startswith(MARK):
            left.append(f"{cell.id}: missing")
            cell.source = MARK + cell.source
        else:
            if mine.metadata.get("octkit", {}).get("translates") != stamp(cell):
                left.append(f"{cell.id}: stale")
            cell.source, cell.metadata = mine.source, mine.metadata
    return made, left + [f"{name}: surplus, is left out: {cell.source[:60]!r}" for name, cell in theirs.items()]


def main() -> int:
    """Write all lessons of notebooks/zh that were out of step; returns 1 where there is something to translate."""
    wrong = 0
    for path in english_lessons():
        target = CHINESE / path.relative_to(LESSONS)
        english = nbformat.read(path, as_version=4)
        chinese = nbformat.read(target, as_version=4) if target.exists() else nbformat.v4.new_notebook()
        made, left = in_step(english, chinese)
        for line in left:
            print(f"{target.relative_to(LESSONS)}: {line}")
        wrong += len(left)
        if made != chinese:
            target.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(made, target)
            print(f"{target.relative_to(LESSONS)}: brought into step")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
