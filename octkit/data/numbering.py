"""The order of a volume's B-scans: by the number in their files' names, since "10" sorts before "2" as text.

The number is the last run of digits that differs between the files: 7 of scan-7.png, of 0007.png, of 7_of_12.png.
"""

import re
from collections.abc import Iterable
from itertools import pairwise, zip_longest
from pathlib import Path

from octkit.common.errors import bad_file

ALIKE = "expected B-scans whose names differ in one number alone, such as scan-1.png and scan-12.png: rename them"


def by_number(files: Iterable[Path]) -> dict[int | str, Path]:
    """The B-scans of one folder by number, in ascending order; by name where no name holds a digit.

    Raises OctkitError that names two files where they have the same number, where their names differ in more than
    numbers, and where two numbers in them give different orders.
    """
    files = sorted(files)
    parts = {file: re.split(r"([0-9]+)", file.stem.casefold()) for file in files}  # text, digits, text, …, digits, text
    first = parts[files[0]]
    if all(len(part) == 1 for part in parts.values()):
        return _each_once((file.stem.casefold(), file) for file in files)
    for file in files:
        if parts[file][::2] != first[::2]:
            raise bad_file(file, f"has another kind of name than {files[0].name}", ALIKE)
    differing = [at for at in range(1, len(first), 2) if len({int(parts[file][at]) for file in files}) > 1]
    last = differing[-1] if differing else -2
    found = _each_once(sorted((int(parts[file][last]), file) for file in files))
    for one, other in pairwise(found.values()):
        # Of 0.5 and 0.12, nobody knows whether these are decimals.
        decimals = first[last - 1] == "." and len(parts[one][last]) != len(parts[other][last])
        if decimals or any(int(parts[one][at]) > int(parts[other][at]) for at in differing):
            raise bad_file(other, f"comes before or after {one.name} by one number in their names or another", ALIKE)
    return found


def check_paired(files: Iterable[Path], like: Iterable[Path]) -> None:
    """Raises OctkitError that names two files where the B-scans of two folders do not have the same numbers."""
    ours, theirs = by_number(files), by_number(like)
    for (number, file), (expected, other) in zip_longest(ours.items(), theirs.items(), fillvalue=(None, None)):
        if number != expected:
            file, other = file or list(ours.values())[-1].parent, other or list(theirs.values())[-1].parent
            raise bad_file(file, f"cannot be paired with {other}", "expected B-scans of the same numbers in both "
                           "folders: rename them, or add what is missing")


def gap(files: Iterable[Path]) -> tuple[Path, Path] | None:
    """Two neighbours between which B-scans are missing, as numbers go up by more there than elsewhere; else None."""
    numbers = [(number, file) for number, file in by_number(files).items() if isinstance(number, int)]
    steps = [(later - number, file, after) for (number, file), (later, after) in pairwise(numbers)]
    usual = min((step for step, *_ in steps), default=0)
    return next(((file, after) for step, file, after in steps if step > usual), None)


def _each_once(numbered: Iterable[tuple[int | str, Path]]) -> dict[int | str, Path]:
    found: dict[int | str, Path] = {}
    for number, file in numbered:
        if (first := found.setdefault(number, file)) != file:
            raise bad_file(file, f"{first.name} has the same number", "expected each B-scan once: rename or delete one")
    return found
