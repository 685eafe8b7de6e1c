"""The language that people read: English, or Chinese where OCTKIT_LANGUAGE=zh says so. It changes no result.

The words of both are one table, docs/terms.md. A variable of the environment reaches the kernels of the lessons, too.
"""

import os
import re
from functools import cache
from pathlib import Path
from typing import TypeVar

from octkit.common.errors import OctkitError
from octkit.common.hashes import PACKAGE

Text = TypeVar("Text")

VARIABLE = "OCTKIT_LANGUAGE"
LANGUAGES = ("en", "zh")
# A checkout's; an installed package carries its own, as it does the lessons.
TERMS = next(filter(Path.is_file, (folder / "docs/terms.md" for folder in (PACKAGE, PACKAGE.parent))), Path())


def language() -> str:
    """The chosen language, "en" or "zh". Raises OctkitError where OCTKIT_LANGUAGE names another."""
    if (found := os.environ.get(VARIABLE) or "en") not in LANGUAGES:
        raise OctkitError(f"{VARIABLE}: found {found!r}, expected en or zh (Chinese)")
    return found


def choose(name: str | None) -> None:
    """Choose the language of this process and of those that it starts; None leaves it. Raises OctkitError."""
    if name is not None and name not in LANGUAGES:
        raise OctkitError(f"--language: found {name!r}, expected en or zh (Chinese)")
    os.environ[VARIABLE] = name or language()


def in_words(english: Text, chinese: Text) -> Text:
    """Whichever of the two is in the chosen language: texts, or whole tables of them."""
    return chinese if language() == "zh" else english


@cache
def terms(path: Path = TERMS) -> dict[str, str]:
    """English -> Chinese of all rows of docs/terms.md; rows of several terms ("layer, boundary") are taken apart."""
    rows = re.findall(r"(?m)^\| (?!English )([^|]+?) \| ([^|]+?) \|", path.read_text(encoding="utf-8"))
    found: dict[str, str] = {}
    for english, chinese in rows:
        parts = english.split(", "), chinese.split("、")
        found |= dict(zip(*parts, strict=True)) if len(parts[0]) == len(parts[1]) else {english: chinese}
    return found
