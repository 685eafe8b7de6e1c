"""Hashes: of values, and of a data set's files."""

import ast
import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]


def digest(value: Any) -> str:
    """A hash of anything that JSON can write; equal values have equal hashes, whatever their keys' order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def code_version(package: Path = PACKAGE) -> str:
    """A hash over the files of the package, all rooms: any edit in them makes every step's result stale."""
    files = [path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc" and path.name[0] != "."]
    return digest({path.relative_to(package).as_posix(): path.read_bytes().hex() for path in files})


def file_hash(path: Path) -> str:
    """BLAKE2b of a file's bytes, 32 digits; about a second a gigabyte."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def data_stamp(root: Path) -> str | None:
    """A hash over the names, sizes and modification times of a data set's files; None where it is absent.

    Contents are not read: hashing a data set of volumes would take longer than most steps.
    """
    if not Path(root).is_dir():
        return None
    return digest(sorted([str(path.relative_to(root)), path.stat().st_size, path.stat().st_mtime_ns]
                         for path in _visible_files(root)))


def data_contents(root: Path) -> str | None:
    """A hash over the names and bytes of a data set's files; None where it is absent.

    Unlike `data_stamp` it is the same for a copy of the data set. All of it is read.
    """
    if not Path(root).is_dir():
        return None
    total = hashlib.sha256()
    for name, path in sorted((path.relative_to(root).as_posix(), path) for path in _visible_files(root)):
        with open(path, "rb") as file:
            total.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def _visible_files(root: Path) -> list[Path]:
    return [path for path in Path(root).rglob("[!.]*") if path.is_file()]


def code_files(module: str, rooms: Collection[str]) -> list[Path]:
    """The files of a module and of all that it imports, directly or not, within `rooms` of the package, sorted.

    Imports inside of functions count. `module` is "octkit.training.train", a room "octkit.training".
    """
    found: dict[str, Path] = {}
    front = [module]
    while front:
        name = front.pop()
        path = PACKAGE.parent.joinpath(*name.split(".")).with_suffix(".py")
        if name in found or not path.is_file() or name.rpartition(".")[0] not in rooms:
            continue
        found[name] = path
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                front += [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                front += [alias.name for alias in node.names]
    return sorted(found.values())
