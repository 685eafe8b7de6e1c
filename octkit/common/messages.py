"""What the package tells its user beside results: through Python's logging, shown on standard output.

A program that wants it elsewhere, or not at all, gives the logger "octkit" a handler or a level of its own.
"""

import logging


class _Print(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record))  # to what standard output is now: a notebook and a test put their own there


def say(message: str) -> None:
    """Log a message at level INFO."""
    logger = logging.getLogger("octkit")
    if not logger.handlers:
        logger.addHandler(_Print())
        logger.propagate = False  # or a root handler would show it once more
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    logger.info("%s", message)
