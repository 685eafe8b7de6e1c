"""What the package tells its user beside results: through Python's logging, shown on standard output.

Warnings go to standard error. A program that wants it elsewhere, or not at all, gives the logger "octkit" a handler or
a level of its own.
"""

import io
import logging
import os
import sys
from collections.abc import Iterable
from functools import cache
from typing import Any


def clean(text: str, keep: str = "\n\t\xa0\u3000") -> str:
    """A text in which what would make a terminal do things is shown as what it is, such as \\x1b.

    Names of files and texts from elsewhere may hold it. Of what is not printable, what stands in `keep` stays.
    """
    return text if text.isprintable() else "".join(
        character if character.isprintable() or character in keep else repr(character)[1:-1] for character in text)


class _Clean:
    """A terminal's stream that is written to as `clean` says, but for tqdm's return to the start of its line."""

    def __init__(self, stream: io.TextIOWrapper):
        self.stream = stream

    def write(self, text: str) -> int:
        start = "\r" * text.startswith("\r")
        self.stream.write(start + clean(text[len(start):]))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        self.write("".join(lines))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _Print(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # To what standard output is now: a notebook and a test put their own there. Warnings spare what is piped on.
        print(clean(self.format(record)), file=sys.stderr if record.levelno >= logging.WARNING else None)


def utf8_output() -> None:
    """Have all that this process and those it starts print be UTF-8, whatever the locale; printing never fails.

    What this process prints is `clean`, whoever prints it: libraries, warnings, tracebacks.
    """
    for name in ("stdout", "stderr"):
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # of a name that is no UTF-8: \udcc3
            setattr(sys, name, _Clean(stream))
    os.environ["PYTHONIOENCODING"] = "utf-8:backslashreplace"


@cache
def warn(message: str) -> None:
    """Log a message at level WARNING, which is shown on standard error: once a process, however often it is said."""
    say(message, logging.WARNING)


def say(message: str, level: int = logging.INFO) -> None:
    """Log a message."""
    logger = logging.getLogger("octkit")
    if not logger.handlers:
        logger.addHandler(_Print())
        logger.propagate = False  # or a root handler would show it once more
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    logger.log(level, "%s", message)


say_once = cache(say)  # once a process, however often
