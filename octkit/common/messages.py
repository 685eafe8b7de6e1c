"""What the package tells its user beside results: through Python's logging, shown on standard output.

Warnings go to standard error. A program that wants it elsewhere, or not at all, gives the logger "octkit" a handler or
a level of its own.
"""

import io
import logging
import os
import sys
from functools import cache


class _Print(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # To what standard output is now: a notebook and a test put their own there. Warnings spare what is piped on.
        print(self.format(record), file=sys.stderr if record.levelno >= logging.WARNING else None)


def utf8_output() -> None:
    """Have all that this process and those it starts print be UTF-8, whatever the locale; printing never fails."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # of a name that is no UTF-8: \udcc3
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
