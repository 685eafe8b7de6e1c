"""The one error for what the user can mend, its parts, and what is done with it."""

import html
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from octkit.common.messages import clean, say

if TYPE_CHECKING:  # importing it takes half a second
    from pydantic import ValidationError

Found = TypeVar("Found")


class Folded:
    """An exception that a notebook shows as its sentence; where it was raised stands below, folded."""

    def _render_traceback_(self: Any) -> list[str]:  # what IPython asks for in place of its own traceback
        from IPython.core.getipython import get_ipython
        from IPython.display import HTML, display

        shell: Any = get_ipython()
        if hasattr(shell, "kernel") and not hasattr(self, "folded"):  # a kernel asks twice
            self.folded = True
            told = html.escape("".join(traceback.format_exception(self)))

            def below(_result: object) -> None:
                shell.events.unregister("post_run_cell", below)
                display(HTML(f"<details><summary>Where it was raised</summary><pre>{told}</pre></details>"))

            shell.events.register("post_run_cell", below)
        return [f"\x1b[31m{type(self).__name__}\x1b[0m: {self}"]


class Stopped(Folded, KeyboardInterrupt):
    """Ctrl-C, or the square above a notebook, during a training."""


class OctkitError(Folded, Exception):
    """An error that the user can mend: one sentence with the file, what was found and what was expected.

    `bad_file` makes those whose parts can be told apart. `exit_code` is what a command ends with.
    """

    exit_code = 2
    file: Path | None = None
    found = mend = ""


@contextmanager
def saying_what_is_kept(checkpoint: Path) -> Iterator[None]:
    """During a training that goes on from its checkpoint. Raises Stopped where it is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        kept = f"what its epochs have learned is kept in {checkpoint}" if checkpoint.exists() else "no epoch has ended"
        say(f"The training is stopped: {kept}. Run the cell, or give the command, again, and it goes on from there.")
        raise Stopped("stopped; what is kept is said above") from None


# What is done with a problem: raised (`refuse`), or collected by who wants to know all of them.
Report = Callable[[OctkitError], None]


def bad_file(file: Path | str, found: str, mend: str) -> OctkitError:
    """The error "FILE: FOUND, MEND", which keeps its three parts: `mend` says what was expected, or what to do."""
    error = OctkitError(f"{file}: {found}, {mend}")
    error.file, error.found, error.mend = Path(file), found, mend
    return error


def no_file(path: Path | str, expected: str) -> OctkitError:
    """The error for a path that is no file one could read: nothing there, a folder, a pipe that nobody fills."""
    path = Path(path)
    if path.is_symlink() and not path.exists():
        return bad_file(path, f"is a symbolic link to {os.readlink(path)}, which is not there",
                        "expected the file itself: copy it here")
    what = "is a folder" if path.is_dir() else "is a pipe or a device" if path.exists() else "not found"
    return bad_file(path, what, f"expected {expected}")


def refuse(error: OctkitError) -> None:
    """The `Report` of all who need a data set without a fault: raise the first one."""
    raise error


def tried(report: Report, function: Callable[..., Found], *arguments: Any) -> Found | None:
    """What `function` returns; None where it raises an OctkitError, which is reported."""
    try:
        return function(*arguments)
    except OctkitError as error:
        report(error)
    return None


def one_line(message: str) -> str:
    """A message as one line: problems that stand one a line are joined, a name's odd characters are shown as such."""
    heading, *problems = message.split("\n  ")
    joined = " ".join([heading, "; ".join(problems)]) if problems else heading
    return clean(joined, keep="")


def cannot_write(path: Path, error: OSError) -> OctkitError:
    """The error for a file or folder that the system does not let us write."""
    return OctkitError(f"{path}: cannot be written ({error.strerror or error}), expected a place where one may write")


def first_problem(error: "ValidationError", count: int = 1) -> str:
    """The first problem that pydantic found, or the first few, in words: where, what is wrong, what stands there."""
    problems = [(".".join(map(str, problem["loc"])), f"{problem['msg']} (found {problem['input']!r:.60})")
                for problem in error.errors()[:count]]
    return "; ".join(": ".join(filter(None, parts)) for parts in problems)


def by(shape: Sequence[float]) -> str:
    """A size for a sentence: "800 x 1100"."""
    return " x ".join(f"{n:g}" for n in shape)
