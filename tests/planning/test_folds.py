from pathlib import Path

import pytest
from helpers import advised
from hypothesis import given
from hypothesis import strategies as st

from octkit.common.errors import OctkitError
from octkit.common.files import write_json
from octkit.common.settings import from_profile, with_overrides
from octkit.data.dataset import Case
from octkit.planning.folds import fold_cases, held_out_cases, hold_out, keeps_together, load_splits, make_splits

NAMES = [f"{n:04d}" for n in range(1, 101)]


def cases(names, labels=(), groups=()):
    """Cases by name, with their glaucoma labels and people where these are given."""
    known = [*labels, *[None] * (len(names) - len(labels))], [*groups, *[None] * (len(names) - len(groups))]
    return [Case(name, Path(f"{name}.png"), glaucoma=label, group=group)
            for name, label, group in zip(names, *known, strict=True)]


ALL = cases(NAMES)
people = st.lists(st.tuples(st.integers(0, 1), st.integers(1, 4), st.booleans()), min_size=6, max_size=25)


def family(drawn):
    """Cases of people drawn as (glaucoma, number of scans, whether the last scan is of an eye of the other class)."""
    rows = [(str(number), 1 - label if mixed and scan == count - 1 else label)
            for number, (label, count, mixed) in enumerate(drawn) for scan in range(count)]
    return cases([f"{n:03d}" for n in range(len(rows))], [label for _, label in rows], [who for who, _ in rows])


def test_five_folds_are_80_20_and_hold_each_case_out_once():
    splits = make_splits(ALL)
    assert [(len(s["train"]), len(s["validation"])) for s in splits] == [(80, 20)] * 5
    assert sorted(name for split in splits for name in split["validation"]) == NAMES
    assert all(not set(s["train"]) & set(s["validation"]) for s in splits)


def test_order_does_not_matter_and_the_seed_does():
    assert make_splits(ALL) == make_splits(ALL[::-1])
    assert make_splits(ALL, seed=1) != make_splits(ALL)


@given(st.integers(2, 6), st.integers(18, 40), st.integers(0, 5))
def test_classes_are_spread_evenly(folds, count, seed):
    labels = {name: int(i % 3 == 0) for i, name in enumerate(NAMES[:count])}
    splits = make_splits(cases(NAMES[:count], list(labels.values())), folds, seed)
    held_out = [sum(labels[name] for name in split["validation"]) for split in splits]
    assert max(held_out) - min(held_out) <= 1
    sizes = [len(split["validation"]) for split in splits]
    assert max(sizes) - min(sizes) <= 2 and sum(sizes) == count


@given(people, st.integers(2, 6), st.integers(0, 5))
def test_all_scans_of_a_person_are_in_one_fold(drawn, folds, seed):
    scans = family(drawn)
    splits, who = make_splits(scans, folds, seed), {case.name: case.group for case in scans}
    parts = [{who[name] for name in split["validation"]} for split in splits]
    assert all(parts) and sum(map(len, parts)) == len(drawn)  # each person once, and no fold is empty
    assert sorted(name for split in splits for name in split["validation"]) == [case.name for case in scans]
    assert keeps_together(splits, scans)
    assert splits == make_splits(scans[::-1], folds, seed)


def test_glaucoma_is_spread_over_folds_of_people():
    scans = family([(number % 2, 3, False) for number in range(20)])
    label = {case.name: case.glaucoma for case in scans}
    for split in make_splits(scans, 5, seed=2):
        assert [label[name] for name in split["validation"]].count(1) == 6 == len(split["validation"]) / 2


def test_a_seed_gives_the_same_folds_everywhere():
    scans = family([(number % 2, 2, False) for number in range(4)])
    found = [split["validation"] for split in make_splits(scans, 2, seed=1)]
    assert found == [["000", "001", "006", "007"], ["002", "003", "004", "005"]]


def test_folds_that_mix_people_are_known():
    scans = cases(["1", "2", "3"], groups=["a", "a"])
    assert keeps_together([{"train": ["3"], "validation": ["1", "2"]}], scans)
    assert not keeps_together([{"train": ["1", "3"], "validation": ["2"]}], scans)
    assert keeps_together([{"train": ["1", "3"], "validation": ["2"]}], cases(["1", "2", "3"]))


def test_a_class_too_rare_for_the_folds_does_not_stop_them():
    splits = make_splits(cases(NAMES[:6], [0, 0, 0, 1, 1, 1]), 5)
    assert sorted(len(split["validation"]) for split in splits) == [1, 1, 1, 1, 2]


# One division, for the classifier.

def test_a_division_keeps_the_share_of_each_class():
    scans = cases(NAMES[:50], [0] * 30 + [1] * 20)
    split = hold_out(scans, 0.8, seed=3)
    assert sorted(split["train"] + split["validation"]) == NAMES[:50]
    label = {case.name: case.glaucoma for case in scans}
    assert [sum(label[name] for name in split[part]) for part in ("train", "validation")] == [16, 4]
    assert [len(hold_out(scans, share, seed=3)["train"]) for share in (0.8, 0.7, 0.5)] == [40, 35, 25]
    assert hold_out(scans[::-1], 0.8, seed=3) == split != hold_out(scans, 0.8, seed=4)


@given(people, st.sampled_from((0.8, 0.7, 0.5, 0.99)), st.integers(0, 3))
def test_a_division_by_people_has_both_classes_on_either_side(drawn, share, seed):
    scans = family(drawn + [(0, 2, False), (0, 1, False), (1, 2, False), (1, 1, False)])
    split = hold_out(scans, share, seed)
    assert keeps_together([split], scans)
    assert sorted(split["train"] + split["validation"]) == [case.name for case in scans]
    label = {case.name: case.glaucoma for case in scans}
    assert all({label[name] for name in names} == {0, 1} for names in split.values())


def test_a_class_of_one_person_cannot_be_divided():
    assert len(hold_out(cases(NAMES[:4], [0, 1, 0, 1]), 0.99, seed=0)["validation"]) == 2
    with pytest.raises(OctkitError, match="2 with glaucoma of 1 people, 2 without"):
        hold_out(cases(NAMES[:4], [0, 1, 0, 1], ["a", "b", "c", "b"]), 0.8, seed=0)
    with pytest.raises(OctkitError, match="0 with glaucoma, 1 without, 1 not told"):
        hold_out(cases(NAMES[:2], [0]), 0.8, seed=0)


def test_extra_cases_are_learned_from_and_never_held_out():
    extra = ["more_1", "more_2"]
    splits = make_splits(ALL, extra=cases(extra))
    for plain, split in zip(make_splits(ALL), splits, strict=True):
        assert split == {"train": sorted(plain["train"] + extra), "validation": plain["validation"]}
    assert fold_cases(splits, 0, NAMES + extra) == splits[0]
    assert fold_cases(splits, "all", NAMES + extra) == {"train": sorted(NAMES + extra), "validation": []}
    with pytest.raises(OctkitError, match="more_1 is in one but not the other"):
        fold_cases(splits, 0, NAMES)


@pytest.mark.parametrize("fold", [5, -1, "0", None])
def test_unknown_folds_are_errors(fold):
    with pytest.raises(OctkitError, match='expected 0 to 4 or "all"'):
        fold_cases(make_splits(ALL), fold, NAMES)


@pytest.mark.parametrize("people", [1, 2, 3])
def test_too_few_people_for_the_folds_and_the_advice_helps(people):
    scans = cases(NAMES[:6], groups=[str(number % people) for number in range(6)])
    with pytest.raises(OctkitError, match=f"5 folds for 6 cases of {people} people") as error:
        make_splits(scans)
    *numbered, everything = advised(error)
    assert with_overrides(from_profile("goals"), [everything]).train.folds == ("all",)
    if people > 1:
        chosen = with_overrides(from_profile("goals"), numbered)
        assert len(make_splits(scans, chosen.splits.folds)) == people == len(chosen.train.folds)


def test_doubled_names():
    for names, extra in ((["a", "a", "b"], []), (["a", "b"], ["a"])):
        with pytest.raises(OctkitError, match="twice"):
            make_splits(cases(names), 2, extra=cases(extra))


@pytest.mark.parametrize("content", [3, {}, [{}], [{"train": ["a"], "validation": [1]}], [{"train": "a"}]])
def test_a_file_without_folds_is_refused(tmp_path, content):
    write_json(tmp_path / "splits.json", content)
    with pytest.raises(OctkitError, match=r"splits.json: .*make the splits again"):
        load_splits(tmp_path / "splits.json")


def test_the_cases_that_a_fold_held_out(tmp_path):
    write_json(tmp_path / "splits.json", make_splits(ALL))
    splits = load_splits(tmp_path / "splits.json")
    assert splits == make_splits(ALL)
    assert held_out_cases(splits, 1, NAMES) == splits[1]["validation"]
    with pytest.raises(OctkitError, match="found 5, expected 0 to 4"):
        held_out_cases(splits, 5, NAMES)
    with pytest.raises(OctkitError, match=f"{splits[1]['validation'][0]} is none of the data set"):
        held_out_cases(splits, 1, splits[1]["train"])
