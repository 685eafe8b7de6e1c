import pytest
from hypothesis import given
from hypothesis import strategies as st

from octkit.common.errors import OctkitError
from octkit.common.files import write_json
from octkit.planning.folds import fold_cases, held_out_cases, load_splits, make_splits

NAMES = [f"{n:04d}" for n in range(1, 101)]


def test_five_folds_are_80_20_and_hold_each_case_out_once():
    splits = make_splits(NAMES)
    assert [(len(s["train"]), len(s["validation"])) for s in splits] == [(80, 20)] * 5
    assert sorted(name for split in splits for name in split["validation"]) == NAMES
    assert all(not set(s["train"]) & set(s["validation"]) for s in splits)


def test_order_does_not_matter_and_the_seed_does():
    assert make_splits(NAMES) == make_splits(NAMES[::-1])
    assert make_splits(NAMES, seed=1) != make_splits(NAMES)


@given(st.integers(2, 6), st.integers(6, 40), st.integers(0, 5))
def test_classes_are_spread_evenly(folds, count, seed):
    labels = {name: i % 3 == 0 for i, name in enumerate(NAMES[:count])}
    splits = make_splits(NAMES[:count], folds, seed, labels)
    held_out = [sum(labels[name] for name in split["validation"]) for split in splits]
    assert max(held_out) - min(held_out) <= 1
    sizes = [len(split["validation"]) for split in splits]
    assert max(sizes) - min(sizes) <= 1 and sum(sizes) == count


def test_extra_cases_are_learned_from_and_never_held_out():
    splits, extra = make_splits(NAMES, extra=["more_1", "more_2"]), ["more_1", "more_2"]
    for plain, split in zip(make_splits(NAMES), splits, strict=True):
        assert split == {"train": sorted(plain["train"] + extra), "validation": plain["validation"]}
    assert fold_cases(splits, 0, NAMES + extra) == splits[0]
    assert fold_cases(splits, "all", NAMES + extra) == {"train": sorted(NAMES + extra), "validation": []}
    with pytest.raises(OctkitError, match="more_1 is in one but not the other"):
        fold_cases(splits, 0, NAMES)


@pytest.mark.parametrize("fold", [5, -1, "0", None])
def test_unknown_folds_are_errors(fold):
    with pytest.raises(OctkitError, match='expected 0 to 4 or "all"'):
        fold_cases(make_splits(NAMES), fold, NAMES)


def test_too_few_cases_and_doubled_names():
    with pytest.raises(OctkitError, match="5 folds for 3 cases"):
        make_splits(NAMES[:3])
    for names, extra in ((["a", "a", "b"], []), (["a", "b"], ["a"])):
        with pytest.raises(OctkitError, match="twice"):
            make_splits(names, 2, extra=extra)


@pytest.mark.parametrize("content", [3, {}, [], [{}], [{"train": ["a"], "validation": [1]}], [{"train": "a"}]])
def test_a_file_without_folds_is_refused(tmp_path, content):
    write_json(tmp_path / "splits.json", content)
    with pytest.raises(OctkitError, match=r"splits.json: .*make the splits again"):
        load_splits(tmp_path / "splits.json")


def test_the_cases_that_a_fold_held_out(tmp_path):
    write_json(tmp_path / "splits.json", make_splits(NAMES))
    splits = load_splits(tmp_path / "splits.json")
    assert splits == make_splits(NAMES)
    assert held_out_cases(splits, 1, NAMES) == splits[1]["validation"]
    with pytest.raises(OctkitError, match="found 5, expected 0 to 4"):
        held_out_cases(splits, 5, NAMES)
    with pytest.raises(OctkitError, match=f"{splits[1]['validation'][0]} is none of the data set"):
        held_out_cases(splits, 1, splits[1]["train"])
