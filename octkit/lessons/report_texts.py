"""The report's texts in the chosen language (report_texts.toml), and the terms in them that docs/terms.md defines."""

import html
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import NamedTuple

from octkit.common.language import TERMS, in_words, language
from octkit.common.settings import flat
from octkit.figures.picture import LAYER_NAMES

MARK = re.compile(r"\[\[(.+?)(?:\|(.+?))?\]\]")  # [[term]] or [[term|as shown]]
ROW = re.compile(r"(?m)^\| (?!English )(.+?) \| (.+?) \| (.+?) \| (.+?) \|$")


@cache
def texts() -> dict[str, str]:
    """"section.data.zh" -> text, of all keys and both languages."""
    return {key: str(found) for key, found in
            flat(tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))).items()}


def text(key: str, **values: object) -> str:
    """A text with what it asks for filled in. KeyError: there is no such text, or it asks for another value."""
    return texts()[f"{key}.{language()}"].format(**values)


def word(kind: str, name: str) -> str:
    """What something that a run's files name is called, such as the "layer" "choroid"; else its own name."""
    return texts().get(f"{kind}.{name}.{language()}", name)


def layer(label: str) -> str:
    return word("layer", LAYER_NAMES.get(label, label))


def how_to_read(figure: str) -> str:
    """The sentence for a figure by its file's name: for 09_example_best that of 09_example; "" where there is none."""
    while figure and f"figure.{figure}.en" not in texts():
        figure = figure.rpartition("_")[0]
    return text(f"figure.{figure}") if figure else ""


class Term(NamedTuple):
    id: str
    name: str
    meaning: str


class Glossary:
    """The terms that a page has `used`; `linked` makes links to their definitions of the marks in a text."""

    def __init__(self) -> None:
        self.known: dict[str, Term] = {}
        self.used: dict[str, Term] = {}
        for number, row in enumerate(ROW.findall(TERMS.read_text(encoding="utf-8"))):
            name, meaning = in_words(row[::2], row[1::2])
            term = Term(f"term-{number}", name, meaning.replace("`", ""))
            self.known |= dict.fromkeys((name, *name.split(in_words(", ", "、"))), term)

    def linked(self, shown: object) -> str:
        """A text as HTML, all but its marks escaped; a mark of what is no term stays text."""
        return MARK.sub(self._link, html.escape(str(shown)))

    def _link(self, mark: re.Match[str]) -> str:
        term = self.known.get(mark[1])
        if term is None:
            return mark[0]
        self.used[term.id] = term
        return f'<a class="term" href="#{term.id}" title="{html.escape(term.meaning)}">{mark[2] or mark[1]}</a>'
