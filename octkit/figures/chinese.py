"""Figures' texts in Chinese, where that language is chosen: whole phrases, by docs/terms.md and chinese.toml.

A text with a word that is in neither table stays in English, and so do all where no font has the characters.
"""

import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FuncFormatter

from octkit.common.language import in_words, language, terms
from octkit.common.messages import warn

PHRASES = Path(__file__).with_suffix(".toml")
FAMILIES = ("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "WenQuanYi Zen Hei",
            "WenQuanYi Micro Hei", "Microsoft YaHei", "PingFang SC", "Hiragino Sans GB", "Heiti SC", "SimHei",
            "Noto Sans CJK JP", "Arial Unicode MS")
BETWEEN = {"\n": "\n", ", ": "，", ": ": "：", "; ": "；", " (": "（", ")": "）"}  # the parts of a text
WORD = re.compile("[A-Za-z]*[a-z]{3}")  # what is none, such as RNFL, px and µm, is written so in Chinese, too


@cache
def font() -> str | None:
    """An installed font's name that has Chinese characters; None where there is none, which is said once."""
    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for path in set(font_manager.findSystemFonts()) - known:  # matplotlib's own list is as old as its cache
        with suppress(Exception):  # a font that it cannot read
            font_manager.fontManager.addfont(path)
    found = {entry.name for entry in font_manager.fontManager.ttflist}
    name = next((family for family in FAMILIES if family in found), None)
    if name is None:
        warn("figures stay in English: no font with Chinese characters was found; install Noto Sans CJK (on Debian "
             "and Ubuntu: apt-get install fonts-noto-cjk)")
    return name


@cache
def _phrases() -> tuple[dict[str, str], list[tuple[re.Pattern[str], str]]]:
    """Whole texts in lower case -> Chinese, and patterns of those with {}. Short names such as RNFL stay."""
    table = terms() | tomllib.loads(PHRASES.read_text(encoding="utf-8"))
    whole = {english.lower(): chinese for english, chinese in table.items() if not english.isupper()}
    return whole, [(re.compile(re.escape(english).replace(r"\{\}", "(.+?)")), chinese)
                   for english, chinese in table.items() if "{}" in english]


def in_language(text: str) -> str:
    """What stands on a button or beside a slider, in the chosen language; a page needs no font for it."""
    return in_words(text, translated(text))


@cache
def translated(text: str) -> str:
    """A figure's text in Chinese; as it is where the tables lack a word of it."""
    whole, patterns = _phrases()
    if found := whole.get(text.strip().lower()):
        return text.replace(text.strip(), found)
    for pattern, chinese in patterns:
        if match := pattern.fullmatch(text.strip()):
            filled = [translated(part) for part in match.groups()]
            if not any(" " in part and _lacks(part, new) for part, new in zip(match.groups(), filled, strict=True)):
                return chinese.format(*filled)
    parts = re.split(r"(\n|, |: |; | \(|\))", text)
    shown = [BETWEEN.get(part) or translated(part) if len(parts) > 1 else part for part in parts]
    return text if any(map(_lacks, parts, shown)) else "".join(shown)


def _lacks(part: str, shown: str) -> bool:
    """Whether a part of a text is English words for which there is no Chinese."""
    return part == shown and WORD.search(part) is not None


@contextmanager
def in_chinese(picture: Figure) -> Iterator[None]:
    """While this lasts, the picture's texts are Chinese where that language is chosen; then they are as before."""
    family = font() if language() == "zh" else None
    texts = [(text, text.get_text(), text.get_fontfamily()) for text in picture.findobj(Text)] if family else []
    ticks = [(axis, axis.get_major_formatter()) for ax in picture.axes for axis in (ax.xaxis, ax.yaxis)
             if family and isinstance(axis.get_major_formatter(), FixedFormatter | FuncFormatter)]
    for text, english, fonts in texts:
        text.set(text=translated(english), fontfamily=[*fonts, family])
    for axis, names in ticks:  # what stands at ticks is made when they are drawn
        axis.set_major_formatter(FuncFormatter(lambda value, place, names=names: translated(names(value, place))))
    try:
        yield
    finally:
        for text, english, fonts in texts:
            text.set(text=english, fontfamily=fonts)
        for axis, names in ticks:
            axis.set_major_formatter(names)
