"""Folds for cross-validation: each case is held out once, glaucoma and healthy spread evenly."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from octkit.common.errors import OctkitError, bad_file
from octkit.common.files import read_json_as

Split = dict[str, list[str]]


def make_splits(names: Sequence[str], folds: int = 5, seed: int = 0,
                labels: Mapping[str, int | None] | None = None, extra: Sequence[str] = ()) -> list[Split]:
    """Deal the cases into folds: a list of {"train": names, "validation": names}, one a fold.

    Each case is in exactly one validation part. The result depends on the set of names and the seed, not on their
    order. With `labels` (name -> class) each class is dealt by itself, so that the folds hold nearly the same share of
    it. `extra` cases, of other data sets, are in every train part and in no validation part. Raises OctkitError for
    fewer cases than folds, and for a name that stands twice.
    """
    if len({*names, *extra}) != len(names) + len(extra):
        raise OctkitError("splits: a case's name stands twice, expected each once")
    if not 2 <= folds <= len(names):
        raise OctkitError(f"splits.folds: found {folds} folds for {len(names)} cases, expected 2 to {len(names)}")
    random = np.random.default_rng(seed)
    classes: dict[str, list[str]] = {}
    for name in sorted(names):
        classes.setdefault(str(labels[name]) if labels else "", []).append(name)
    dealt = [name for key in sorted(classes) for name in random.permutation(classes[key]).tolist()]
    # Dealing on from class to class keeps the folds' sizes within one of each other.
    held_out = [sorted(dealt[fold::folds]) for fold in range(folds)]
    return [{"train": sorted({*names, *extra} - set(part)), "validation": part} for part in held_out]


def load_splits(path: Path) -> list[Split]:
    """Read splits.json. Raises OctkitError where it is missing or holds no folds."""
    splits = read_json_as(path, list[Split], "make the splits again")
    if not splits or any(set(split) != {"train", "validation"} for split in splits):
        raise bad_file(path, f"found {str(splits)[:60]}",
                       "expected a list of folds, each with its train and validation cases; make the splits again")
    return splits


def fold_cases(splits: Sequence[Split], fold: int | str, names: Sequence[str]) -> Split:
    """The cases of a fold by number; fold "all" trains on every name and holds none out.

    `names` are all training cases, extra ones included. Raises OctkitError for no such fold, or other cases.
    """
    if fold == "all":
        return {"train": sorted(names), "validation": []}
    if not isinstance(fold, int) or not 0 <= fold < len(splits):
        raise OctkitError(f"fold: found {fold!r}, expected 0 to {len(splits) - 1} or \"all\"")
    split = splits[fold]
    if stray := set(split["train"] + split["validation"]) ^ set(names):
        raise OctkitError(f"splits.json: was made for other cases ({min(stray)} is in one but not the other); make the "
                          "splits again")
    return split


def held_out_cases(splits: Sequence[Split], fold: int, names: Collection[str]) -> list[str]:
    """The cases that a fold held out. Raises OctkitError for no such fold, or cases that are not among `names`."""
    if not 0 <= fold < len(splits):
        raise OctkitError(f"fold: found {fold}, expected 0 to {len(splits) - 1}, as splits.json has them")
    if stray := set(splits[fold]["validation"]) - set(names):
        raise OctkitError(f"splits.json: was made for other cases ({min(stray)} is none of the data set); make the "
                          "splits again")
    return splits[fold]["validation"]
