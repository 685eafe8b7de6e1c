"""Folds for cross-validation: each case is held out once, with all scans of its person; glaucoma spread evenly."""

import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from octkit.common.errors import OctkitError, bad_file
from octkit.common.files import read_json_as
from octkit.common.settings import CaseName
from octkit.data.dataset import Case
from octkit.data.layouts.goals import lacking_diagnoses

Split = dict[str, list[CaseName]]


def make_splits(cases: Iterable[Case], folds: int = 5, seed: int = 0, extra: Iterable[Case] = ()) -> list[Split]:
    """Deal the cases into folds: a list of {"train": names, "validation": names}, one a fold.

    Each case is in exactly one validation part, and with it all of its group; a case without a group is one of its
    own. Within that, the folds hold nearly the same share of each class (glaucoma, healthy, unknown). The result
    depends on the set of cases and the seed, not on their order. `extra` cases, of other data sets, are in every train
    part and in no validation part. Raises OctkitError for fewer groups than folds, and for a name that stands twice.
    """
    cases, more = list(cases), [case.name for case in extra]
    names = [case.name for case in cases]
    if len({*names, *more}) != len(names) + len(more):
        raise OctkitError("splits: a case's name stands twice, expected each once")
    held_out = _dealt(cases, folds, seed)
    return [{"train": sorted({*names, *more} - set(part)), "validation": part} for part in held_out]


def hold_out(cases: Iterable[Case], train_fraction: float, seed: int) -> Split:
    """Divide labelled cases once, into those to learn from and those to hold out, groups kept together.

    As many folds are dealt as come nearest to `train_fraction` and leave both classes on each side (0.8: five, one of
    them held out; 0.7: ten and three). Raises OctkitError for a case without a label, and where a class has fewer than
    two groups, one for each side.
    """
    cases = list(cases)
    if lacking := lacking_diagnoses(cases):
        raise lacking
    groups = [len({case.person for case in cases if case.glaucoma == label}) for label in (0, 1)]
    label_of = {case.name: case.glaucoma for case in cases}
    for most in range(min(*groups, 20), 1, -1):
        share = Fraction(1 - train_fraction).limit_denominator(most)
        share = min(max(share, Fraction(1, most)), Fraction(most - 1, most))
        parts = _dealt(cases, share.denominator, seed)
        for _ in parts:  # people with scans of both classes can leave a fold with one: then the next ones are taken
            parts = [*parts[1:], parts[0]]
            held_out = {name for part in parts[:share.numerator] for name in part}
            sides = (sorted(label_of.keys() - held_out), sorted(held_out))
            if all({label_of[name] for name in side} == {0, 1} for side in sides):
                return dict(zip(("train", "validation"), sides, strict=True))
    raise OctkitError("glaucoma labels: found no division by person with both classes on both sides; expected more "
                      "people, or another seed")


def check_folds(cases: Sequence[Case], folds: int) -> None:
    """Raise OctkitError for fewer people than folds; it says which settings would do."""
    if not 2 <= folds <= (count := len({case.person for case in cases})):
        trained = ",".join(map(str, range(count)))
        fewer = f"--set splits.folds={count} --set 'train.folds=[{trained}]'; or " if count > 1 else ""
        raise OctkitError(f"splits.folds: found {folds} folds for {len(cases)} cases of {count} people, expected scans "
                          f"of at least {folds} people: add some; or {fewer}--set 'train.folds=[\"all\"]', which "
                          "learns from all and holds none out")


def _dealt(cases: Sequence[Case], folds: int, seed: int) -> list[list[str]]:
    """The names that each fold holds out, sorted."""
    from sklearn.model_selection import StratifiedGroupKFold  # here, for it takes a second to import

    cases = sorted(cases, key=lambda case: case.name)
    people = [case.person for case in cases]
    check_folds(cases, folds)
    classes = [-1 if case.glaucoma is None else case.glaucoma for case in cases]
    if max(Counter(classes).values()) < folds:
        classes = [0] * len(cases)  # no class reaches every fold: nothing to spread evenly
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a rarer class than folds is spread as far as it goes
        parts = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(classes, classes, people)
        return [[cases[index].name for index in held_out] for _, held_out in parts]


def people_of_both(people: Sequence[str], labels: Iterable[int]) -> tuple[int, int]:
    """How many people have glaucoma (label 1 in some scan), and how many others there are."""
    ill = {person for person, label in zip(people, labels, strict=True) if label == 1}
    return len(ill), len({*people} - ill)


def deal_people(people: Sequence[str], labels: Sequence[int] | np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each of n scans, (n,) int: all of a person in one, people of both classes in each.

    There are `folds` of them, or as many as there are people in the smaller class. Raises ValueError below two.
    """
    from sklearn.model_selection import StratifiedKFold  # here, for it takes a second to import

    ill = {person: label for label, person in sorted(zip(labels, people, strict=True))}
    names = sorted(ill)
    parts = StratifiedKFold(min(folds, *people_of_both(people, labels)), shuffle=True, random_state=seed)
    fold_of = {names[index]: fold for fold, (_, held_out) in enumerate(
        parts.split(names, [ill[name] for name in names])) for index in held_out}
    return np.array([fold_of[person] for person in people])


def keeps_together(splits: Sequence[Split], cases: Iterable[Case]) -> bool:
    """Whether no person has scans in both parts of a fold."""
    person = {case.name: case.person for case in cases}
    return all({person[name] for name in split["validation"]}.isdisjoint(person[name] for name in split["train"])
               for split in splits)


def load_splits(path: Path) -> list[Split]:
    """Read splits.json, empty where fold "all" is the only one. Raises OctkitError where it is missing or damaged."""
    splits = read_json_as(path, list[Split], "make the splits again")
    if any(set(split) != {"train", "validation"} for split in splits):
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
        numbers = f"0 to {len(splits) - 1} or " if splits else ""
        raise OctkitError(f"fold: found {fold!r}, expected {numbers}\"all\"")
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
