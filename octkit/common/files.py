"""Files that are whole or not there at all; JSON and CSV."""

import csv
import errno
import io
import itertools
import json
import os
import re
import shutil
import uuid
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from octkit.common.errors import OctkitError, Report, bad_file, cannot_write, first_problem, no_file, refuse
from octkit.common.memory import check_content
from octkit.common.messages import clean
from octkit.common.system import NO_FOLLOW, exchange

if TYPE_CHECKING:
    from pandas import DataFrame

Kind = TypeVar("Kind")

# No space, a quota used up, a limit on a file's size (`ulimit -f`).
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MADE_FROM = ".made_from.json"
# How text begins that a spreadsheet takes for a formula; in much of Europe a semicolon begins another cell. `write_csv`
# puts an apostrophe before it: after none and after others, so that one can be taken away again.
FORMULA = re.compile(r"(^|;)(?=['\"]*[=+\-@＝＋－＠])")  # noqa: RUF001
WRITTEN = re.compile(FORMULA.pattern.replace("(?=", "'(?="))
TEXT = 50  # times its size: the most memory that JSON's values or a CSV's cells take
NOTHING_LEFT = 64 * 1024  # bytes: less than a disk's smallest pieces leave free when a file has filled it


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


def inside(root: Path, path: Path) -> bool:
    """Whether a path, its symbolic links followed, lies in the folder `root`."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def links_inside(root: Path, report: Report = refuse, hidden: bool = True) -> list[Path]:
    """The symbolic links in a folder that stay in it; reports those that lead out of it, and folders unread.

    A folder from somebody else could name any file of this machine otherwise. `root` itself may be a link. Without
    `hidden` what lies in hidden folders is passed over; with it, pipes and devices are reported, too.
    """
    def unread(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            report(bad_file(error.filename, f"cannot be read ({error.strerror})",
                            "expected a folder that you may read"))

    staying = []
    for folder, folders, files in os.walk(root, onerror=unread):
        folders[:] = [name for name in folders if hidden or not name.startswith(".")]
        for link in (Path(folder, name) for name in sorted(folders + files)):
            if not link.is_symlink():
                if hidden and not link.is_file() and not link.is_dir() and link.exists():
                    report(no_file(link, "a file"))
            elif inside(root, link):
                staying.append(link)
            else:
                report(bad_file(link, f"is a symbolic link to {os.readlink(link)}, outside of {root}",
                                "expected the file itself: copy it here"))
    return staying


def open_own(path: Path, buffering: int = -1) -> BinaryIO:
    """Open a file of octkit's to read and append; raises OctkitError where a symbolic link is in its place."""
    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | NO_FOLLOW, 0o666)

    if Path(path).is_symlink():  # where the system has no such flag
        raise bad_file(path, f"is a symbolic link to {os.readlink(path)}", "expected a file of octkit's: remove it")
    return open(path, "ab+", buffering, opener=opener)


def only_file(path: str | Path, expected: str, times: int = 0) -> Path:
    """The path, which may be missing; raises OctkitError for a folder, and for a pipe, device or socket.

    Such a one would be read, or waited for, without an end. `expected` says what should be there. Also raises where
    reading the file takes more memory than is free: so many `times` its size, which a few bytes on the disk can state.
    """
    if (path := Path(path)).exists() and not path.is_file():
        raise no_file(path, expected)
    if times and path.exists():
        check_content(path, times * path.stat().st_size)
    return path


@contextmanager
def replacing(path: Path, keep: Path | None = None) -> Iterator[Path]:
    """`with replacing(path) as temporary:` write to `temporary`; only a finished file takes `path`'s place.

    The file that was at `path` before is lost, or moved to `keep` where that is given. Raises OctkitError where the
    disk is full, and where the system does not let us write there.
    """
    path = Path(path)
    with _beside(path) as temporary:
        yield temporary
        # The data must be on disk before the name is, or a power cut leaves an empty "finished" file.
        with open(temporary, "rb+") as file:  # Windows flushes only what may be written
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)


@contextmanager
def new_folder(path: Path, source: Path | None = None) -> Iterator[Path]:
    """`with new_folder(path) as temporary:` fill `temporary`; only a finished folder gets the name `path`.

    Raises OctkitError where `path` is there already, lies in the folder `source` that it is made from, or cannot be
    made, and where the disk is full.
    """
    path = Path(path)
    if os.path.lexists(path):
        raise OctkitError(f"{path}: is there already, expected a new folder")
    if source is not None and path.resolve().is_relative_to(Path(source).resolve()):
        raise OctkitError(f"{path}: lies in {source}, which it is made from, expected a folder elsewhere")
    with _beside(path) as temporary:
        temporary.mkdir()
        yield temporary
        os.rename(temporary, path)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A hidden name beside `path` to write to; whatever is left there in the end is removed."""
    temporary = path.with_name(f".{path.name[:50]}.{uuid.uuid4().hex[:8]}.tmp")  # short: a name has 255 bytes
    try:
        with saying_disk_full(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
    except OSError as error:
        if error.filename is None or Path(error.filename) not in (temporary, *path.parents):
            raise  # of another file, which the block reads
        raise cannot_write(path, error) from None
    finally:
        with suppress(OSError):
            _remove(temporary)


@contextmanager
def renewed_folder(path: Path, made_from: Any) -> Iterator[Path]:
    """`with renewed_folder(path, made_from) as aside:` fill `aside`; a block that ends gives it the name `path`.

    Until then the folder that was at `path` stays as it is, and what a stopped block has left in `aside` is kept: the
    next call goes on in it where `made_from`, any JSON value, is the same, otherwise with an empty one. `made_from`
    stays in the folder (`is_made_from`). Raises OctkitError where the disk is full.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.unfinished")
    with saying_disk_full(path):
        if aside.is_symlink() or not is_made_from(aside, made_from):
            _remove_folder(aside)
            write_json(aside / MADE_FROM, made_from)
        yield aside
        if path.exists() and not exchange(aside, path):
            # Stopped between these two, `path` is gone, but `aside` is whole: the next call goes on and renames it.
            _remove_folder(before := path.with_name(f".{path.name}.before.tmp"))
            os.rename(path, before)
            os.rename(aside, path)
            _remove_folder(before)
        elif not path.exists():
            os.rename(aside, path)
        _remove_folder(aside)  # after an exchange, what was at `path`


def set_aside(folder: Path, names: Iterable[str]) -> Path | None:
    """Move files of a folder, those of the `names` that are there, to a new one beside it: before-1.<folder>, or -2 …

    Returns that folder, None where none of the files is there. Stopped on the way, the files are whole in one of both.
    """
    files = [Path(folder) / name for name in names if (Path(folder) / name).exists()]
    if not files:
        return None
    kept = next(path for number in itertools.count(1)
                if not (path := Path(folder).with_name(f"before-{number}.{Path(folder).name}")).exists())
    with new_folder(kept) as temporary:
        for file in files:
            link(file, temporary / file.name)
    for file in files:
        file.unlink()
    return kept


def link(source: Path, target: Path) -> None:
    """Give a file a second name; where the disk has no hard links, a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)


def is_made_from(folder: Path, made_from: Any) -> bool:
    """Whether a folder of `renewed_folder` was made from this JSON value."""
    stamp = Path(folder) / MADE_FROM
    return stamp.exists() and read_json(stamp) == json.loads(json.dumps(made_from))


def _remove_folder(folder: Path) -> None:
    if folder.is_symlink():  # what it leads to is somebody else's
        folder.unlink()
        return
    (folder / MADE_FROM).unlink(missing_ok=True)  # first: stopped half-way, what is left must not pass for whole
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def saying_disk_full(path: Path) -> Iterator[None]:
    """Turn whatever is raised while `path` is written to a full disk into one sentence.

    Only some libraries say so: numpy raises an OSError without a number, torch and safetensors errors of their own. So
    after any error the disk is asked as well, while what was written of the file is still there.
    """
    try:
        yield
    except OctkitError:
        raise
    except Exception as error:
        nothing_left = path.parent.is_dir() and shutil.disk_usage(path.parent).free < NOTHING_LEFT
        if not nothing_left and getattr(error, "errno", None) not in DISK_FULL:
            raise
        raise OctkitError(f"{path}: the disk is full, or this user's share of it; free some space and give the same "
                          "command again: it goes on from what is finished") from error


def clear_unfinished(folder: Path) -> None:
    """Remove what killed processes have left half-written anywhere in a folder (`replacing`, `new_folder`)."""
    for path in list(Path(folder).rglob(".*.tmp")):
        _remove(path)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a whole file or nothing."""
    with replacing(path) as temporary:
        # A file's name that is no UTF-8 is written as JSON writes it: \udcc3.
        temporary.write_bytes(data.encode(errors="backslashreplace") if isinstance(data, str) else data)


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON, atomically. NaN is refused: a reader of the file could not parse it."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Write a table with a heading, whole or not at all; lines end in a line feed.

    Text that a spreadsheet would take for a formula gets an apostrophe before it, which `cell_text` takes away.
    Characters that control a terminal or tear a row are shown as what they are (`messages.clean`).
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(map(_cell, row) for row in (columns, *rows))
    write_atomic(path, text.getvalue())


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = clean(value, keep="\xa0\u3000")
    with suppress(ValueError):
        float(text)
        return text
    return FORMULA.sub(r"\1'", text)


def cell_text(cell: str) -> str:
    """What `write_csv` was given for a cell, but for control characters."""
    return WRITTEN.sub(r"\1", cell)


def read_table(path: Path, numbers: Iterable[str], texts: Iterable[str], mend: str) -> "DataFrame":
    """A CSV file with a heading; its columns `numbers` are float64, nan for an empty cell, all others text.

    Raises OctkitError where it cannot be read, has no row, or lacks one of the columns `numbers` and `texts`; `mend`
    says what helps.
    """
    import pandas as pd  # here, as it takes half a second that not every command needs

    try:
        kinds: Any = defaultdict(lambda: str, dict.fromkeys(numbers, float))
        found = pd.read_csv(only_file(path, "a table", TEXT), dtype=kinds, keep_default_na=False,
                            na_values=dict.fromkeys(numbers, ""))
        if lacking := [name for name in (*texts, *numbers) if name not in found]:
            raise ValueError(f"no column {lacking[0]}")
        if found.empty:
            raise ValueError("no row")
        return found
    except (OSError, ValueError) as error:  # pandas' own are ValueErrors
        raise bad_file(path, f"cannot be read as a table ({error})", mend) from None


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises OctkitError where it is missing or no JSON."""
    try:
        text = only_file(path, "a JSON file", TEXT).read_text(encoding="utf-8-sig")  # Windows' editors put a mark first
        return json.loads(text)
    except (FileNotFoundError, NotADirectoryError):
        raise OctkitError(f"{path}: not found; expected the JSON file that the step before leaves") from None
    except OSError as error:
        raise bad_file(path, f"cannot be read ({error.strerror})", "expected a JSON file") from None
    except (ValueError, RecursionError) as error:  # also text in no UTF-8, and numbers of thousands of digits
        raise bad_file(path, f"is not valid JSON ({error})", "expected JSON: write it anew") from None


def read_arrays(path: Path, names: Sequence[str], mend: str) -> dict[str, Any]:
    """The arrays of an .npz file by name, those `names` among them; `mend` says what helps where that cannot be.

    Raises OctkitError where it is missing or damaged, lacks an array, or takes more memory than is free.
    """
    import numpy as np  # here, as most of what reads files needs none

    try:
        with np.load(path, allow_pickle=False) as file:
            check_content(path, 3 * sum(part.file_size for part in file.zip.infolist()))
            arrays = dict(file)  # each array's checksum is looked at
    except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise bad_file(path, f"cannot be read ({error})", mend) from None
    if lost := [name for name in names if name not in arrays]:
        raise bad_file(path, f"holds no {', '.join(lost)}", mend)
    return arrays


def read_json_as(path: Path, kind: type[Kind], mend: str) -> Kind:
    """Read a JSON file as a pydantic model, a dataclass, or a type such as `list[dict[str, int]]`.

    Raises OctkitError where it is missing, no JSON, or of another kind: the file, the first wrong value, and `mend`,
    which says what helps ("select again").
    """
    from pydantic import TypeAdapter, ValidationError  # here, as it takes half a second that not every command needs

    content = read_json(path)
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        raise bad_file(path, f"is not valid; {first_problem(error)}", mend) from None
