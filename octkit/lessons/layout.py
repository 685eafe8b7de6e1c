"""The lessons as a student's own copies: DIR/notebooks beside DIR/reports and DIR/data.

A lesson that the student has not changed is replaced by a newer one. One that was changed is kept, and that is said.
What a cell printed is no change: its text decides. Where Chinese is chosen, the lessons of notebooks/zh/ take the place
of the English ones; their code is the same.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

import nbformat

from octkit.common.errors import OctkitError, bad_file
from octkit.common.files import links_inside, only_file, read_json_as, write_atomic, write_json
from octkit.common.hashes import digest
from octkit.common.language import LANGUAGES, language
from octkit.common.messages import say
from octkit.common.settings import LESSONS, PACKAGE

# A checkout has notebooks/, docs/, data/ beside the package; in an installed one setup.py has laid them.
CARRIER = PACKAGE if (PACKAGE / LESSONS).is_dir() else PACKAGE.parent
ORIGINALS = CARRIER / LESSONS
RECORD = ".originals.json"  # in DIR/notebooks: a hash of each lesson as it was copied


def in_language(folder: Path, name: str) -> Path:
    """A lesson of a folder in the chosen language; English where it is not translated, or not laid out so."""
    return path if (path := folder / language() / name).is_file() else folder / name


def lay_out(folder: Path) -> list[Path]:
    """Copy the lessons into <folder>/notebooks; returns the student's copies that are kept though there is a newer one.

    Inside a checkout its reports/ and data/ are shared by links, elsewhere they are made. Raises OctkitError for the
    folder that the originals lie in.
    """
    folder = Path(folder).resolve()
    copies = folder / LESSONS
    if copies == ORIGINALS:
        raise OctkitError(f"{folder}: holds the lessons themselves, expected another folder for the copies to work on")
    _share_with_checkout(folder)
    if copies.is_symlink() or links_inside(copies):
        raise OctkitError(f"{copies}: is a symbolic link, or holds one, expected a folder of files: copies could "
                          "overwrite what it leads to")
    record = copies / RECORD
    advice = "remove it: lessons that differ are then kept"
    before = read_json_as(record, dict[str, str], advice) if record.exists() else {}
    after: dict[str, str] = {}
    kept = []
    for english in sorted(ORIGINALS.rglob("*.ipynb")):
        name = english.relative_to(ORIGINALS).as_posix()
        if name.split("/")[0] in LANGUAGES:
            continue
        original = in_language(ORIGINALS, name)
        copy, text, old = copies / name, text_of(original), before.get(name, "")
        mine = text_of(copy) if copy.exists() else None
        changed = mine not in (None, text, old)
        after[name] = old if changed else text
        if changed and text != old:
            kept.append(copy)
        elif not changed and mine != text:
            write_atomic(copy, original.read_bytes())
    write_json(copies / RECORD, after)
    for copy in kept:
        say(f"{copy}: is kept as you have changed it, though there is a newer one; to get that, rename yours and give "
            "the command again")
    return kept


def text_of(notebook: Path) -> str:
    """A hash of a notebook's cells without what they printed. Raises OctkitError for what is no notebook."""
    try:
        only_file(notebook, "a notebook")
        return digest([[cell.cell_type, cell.source] for cell in nbformat.read(notebook, as_version=4).cells])
    except Exception as error:  # json's, nbformat's and jsonschema's
        raise bad_file(notebook, f"cannot be read as a notebook ({type(error).__name__})",
                       "rename it, and give the command again for a fresh one") from None


def _share_with_checkout(folder: Path) -> None:
    for name in ("reports", "data"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (folder / name).exists():
            continue
        checkout = PACKAGE.parent
        if (checkout / LESSONS).is_dir() and folder.is_relative_to(checkout):
            try:
                os.symlink(checkout / name, folder / name, target_is_directory=True)
                continue
            except OSError:  # Windows lets no user make links unless told to
                say(f"{folder / name}: is a folder of its own, as this system makes no links")
        (folder / name).mkdir()
        shutil.copyfile(CARRIER / name / "README.md", folder / name / "README.md")  # which files lie there
    for name in ("report.html", "settings.json"):  # of the run that the lessons work on, one click away
        with suppress(OSError):  # it is there, or this system makes no links
            os.symlink(Path("reports/demo", name), folder / name)
