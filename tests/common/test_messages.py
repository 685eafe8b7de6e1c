import io
import logging
import sys
import warnings

import pytest

from octkit.common import messages
from octkit.common.messages import clean, say, utf8_output

TITLE, SHOWN = "\x1b]0;owned\x07", "\\x1b]0;owned\\x07"


@pytest.mark.parametrize(("text", "shown"), [
    ("RNFL 层\u3000é µm\n\tnext\xa0line", None), (f"a{TITLE}b", f"a{SHOWN}b"), ("done\rfail", "done\\rfail"),
    ("\x9b2J\x08\x7f", "\\x9b2J\\x08\\x7f"), ("a\u202egnp.exe\u200b", "a\\u202egnp.exe\\u200b"), ("\udcc3", "\\udcc3")])
def test_what_controls_a_terminal_is_shown(text, shown):
    assert clean(text) == (shown or text) == clean(clean(text))


def test_whoever_prints_is_cleaned(monkeypatch):
    """On both streams: print, a library's warning and log, tqdm's bar, whose return to the line's start is left."""
    from tqdm import tqdm

    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), write_through=True))
    utf8_output()
    utf8_output()
    print("one", TITLE)
    sys.stdout.writelines([TITLE, "\n"])
    sys.stderr.write(warnings.formatwarning(TITLE, UserWarning, "file", 1))  # as Python shows it outside of pytest
    logger = logging.Logger("a library's")
    logger.addHandler(logging.StreamHandler())
    logger.error(TITLE)
    for _ in tqdm([1], desc=TITLE):
        pass
    out, err = (getattr(sys, name).buffer.getvalue().decode() for name in ("stdout", "stderr"))
    assert out == f"one {SHOWN}\n{SHOWN}\n"
    assert err.count(SHOWN) >= 3 and "\r" + SHOWN in err and "\x1b" not in err and "\x07" not in err


def test_what_octkit_says_is_clean_in_any_program(capsys):
    say(f"case {TITLE}")
    messages.warn(f"case {TITLE}")
    assert capsys.readouterr() == (f"case {SHOWN}\n", f"case {SHOWN}\n")
