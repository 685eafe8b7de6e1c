"""Files that are whole or not there at all, JSON, and the one error for what the user can mend."""

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path


class OctkitError(Exception):
    """An error that the user can mend: one sentence with the file, what was found and what was expected.

    `bad_file` makes those whose parts can be told apart.
    """

    file: Path | None = None
    found = mend = ""


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


def tried(report: Report, function: Callable, *arguments):
    """What `function` returns; None where it raises an OctkitError, which is reported."""
    try:
        return function(*arguments)
    except OctkitError as error:
        report(error)
    return None


def listing(folder: Path, expected: str, hidden: bool = False) -> list[Path]:
    """What lies in a folder in the order of names, hidden files or all others; `expected` says what should lie there.

    Raises OctkitError for no folder, and for one that may not be read.
    """
    try:
        return sorted(path for path in Path(folder).iterdir() if path.name.startswith(".") == hidden)
    except (FileNotFoundError, NotADirectoryError):
        raise bad_file(folder, "no such folder", f"expected {expected}") from None
    except OSError as error:
        raise bad_file(folder, f"cannot be read ({error.strerror})", "expected a folder that you may read") from None


def one_line(message: str) -> str:
    """A message as one line: problems that stand one a line are joined, and a name's odd characters are shown as such.

    A file's name from elsewhere may hold what makes a terminal do things.
    """
    heading, *problems = message.split("\n  ")
    joined = " ".join([heading, "; ".join(problems)]) if problems else heading
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in joined)


class replacing:
    """`with replacing(path) as temporary:` write to `temporary`; only a finished file takes `path`'s place."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self.temporary = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex[:8]}.tmp")

    def __enter__(self) -> Path:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self.path, error) from None
        return self.temporary

    def __exit__(self, kind, error, traceback) -> None:
        try:
            if kind is None:
                # The data must be on disk before the name is, or a power cut leaves an empty "finished" file.
                with open(self.temporary, "rb") as file:
                    os.fsync(file.fileno())
                os.replace(self.temporary, self.path)
            elif isinstance(error, OSError) and error.filename in (str(self.temporary), self.temporary):
                raise error
        except OSError as failed:
            raise cannot_write(self.path, failed) from None
        finally:
            if self.path.parent.is_dir():
                self.temporary.unlink(missing_ok=True)


def cannot_write(path: Path, error: OSError) -> OctkitError:
    """The error for a file or folder that the system does not let us write."""
    return OctkitError(f"{path}: cannot be written ({error.strerror}), expected a place where one may write")


class new_folder:
    """`with new_folder(path) as temporary:` fill `temporary`; only a finished folder gets the name `path`.

    Raises OctkitError where `path` is there already, lies in the folder `source` that it is made from, or cannot be
    made.
    """

    def __init__(self, path: Path, source: Path | None = None):
        self.path = Path(path)
        if os.path.lexists(self.path):
            raise OctkitError(f"{self.path}: is there already, expected a new folder")
        if source is not None and self.path.resolve().is_relative_to(Path(source).resolve()):
            raise OctkitError(f"{self.path}: lies in {source}, which it is made from, expected a folder elsewhere")

    def __enter__(self) -> Path:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.temporary = Path(tempfile.mkdtemp(prefix=f".{self.path.name[:100]}.", suffix=".tmp",
                                                   dir=self.path.parent))
        except OSError as error:
            raise cannot_write(self.path, error) from None
        self.temporary.chmod(0o755)
        return self.temporary

    def __exit__(self, kind, error, traceback) -> None:
        try:
            if kind is None:
                os.rename(self.temporary, self.path)
        except OSError as failed:
            raise cannot_write(self.path, failed) from None
        finally:
            shutil.rmtree(self.temporary, ignore_errors=True)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a whole file or nothing."""
    with replacing(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: Path, value) -> None:
    """Write readable JSON, atomically. NaN is refused: a reader of the file could not parse it."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path):
    """Read a JSON file. Raises OctkitError where it is missing or no JSON."""
    try:
        return json.loads(Path(path).read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise OctkitError(f"{path}: not found; expected the JSON file that the step before leaves") from None
    except OSError as error:
        raise bad_file(path, f"cannot be read ({error.strerror})", "expected a JSON file") from None
    except (ValueError, RecursionError) as error:  # also text in no UTF-8, and numbers of thousands of digits
        raise bad_file(path, f"is not valid JSON ({error})", "expected JSON: write it anew") from None
