import csv
import errno
import os
import resource

import numpy as np
import pytest
from helpers import fill, killed_at_each_write
from hypothesis import given
from hypothesis import strategies as st

from octkit.common import files
from octkit.common.errors import OctkitError, one_line
from octkit.common.files import (
    cell_text,
    clear_unfinished,
    is_made_from,
    link,
    links_inside,
    new_folder,
    open_own,
    read_json,
    read_json_as,
    read_table,
    renewed_folder,
    replacing,
    write_atomic,
    write_csv,
    write_json,
)


def test_replacing_keeps_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_goes_round_and_refuses_nan(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"a": [1, 2.5, None]}
    with pytest.raises(ValueError):
        write_json(tmp_path / "b.json", {"a": float("nan")})
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "byte order mark"])
def test_json_is_read_as_utf_8(tmp_path, mark):
    (tmp_path / "a.json").write_bytes(f'{mark}{{"name": "视网膜"}}'.encode())
    assert read_json(tmp_path / "a.json") == {"name": "视网膜"}


def test_a_name_that_is_no_utf_8_can_be_written(tmp_path):
    write_atomic(tmp_path / "a.csv", os.fsdecode(b"scan\xca\xfd,1\n"))
    assert (tmp_path / "a.csv").read_bytes() == rb"scan\udcca\udcfd,1" + b"\n"


def test_a_file_that_is_replaced_may_be_kept(tmp_path):
    for content in ("one", "two", "three"):
        with replacing(tmp_path / "new", keep=tmp_path / "old") as temporary:
            temporary.write_text(content)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"new": "three", "old": "two"}


@pytest.mark.parametrize("write", [
    lambda file: file.write(bytes(100_000)),
    lambda file: np.save(file, np.zeros(100_000)),  # numpy's error has no number
], ids=["bytes", "numpy"])
def test_a_full_disk_is_one_sentence_and_leaves_the_old_file(small_disk, write):
    path = small_disk / "a.npy"
    write_atomic(path, "old")
    fill(small_disk / "ballast", leave=50_000)
    with pytest.raises(OctkitError, match="a.npy: the disk is full, .*; free some space and give the same command"), \
            replacing(path) as temporary, open(temporary, "wb") as file:
        write(file)
    assert path.read_text() == "old" and sorted(os.listdir(small_disk)) == ["a.npy", "ballast"]


def test_a_new_folder_on_a_full_disk_is_one_sentence_too(small_disk):
    fill(small_disk / "ballast", leave=200_000)
    with pytest.raises(OctkitError, match="new: the disk is full"), new_folder(small_disk / "new") as folder, \
            open(folder / "a.npy", "wb") as file:
        np.save(file, np.zeros(100_000))
    assert os.listdir(small_disk) == ["ballast"]


def test_a_disk_that_is_full_only_when_synced(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OctkitError, match="a.txt: the disk is full"):
        write_atomic(tmp_path / "a.txt", "new")
    assert list(tmp_path.iterdir()) == []


def test_a_limit_on_a_files_size_is_told_like_a_full_disk(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OctkitError, match="a.txt: the disk is full"):
            write_atomic(tmp_path / "a.txt", bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a.txt"):
        raise ZeroDivisionError
    with pytest.raises(PermissionError), replacing(tmp_path / "a.txt"):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_no_json_and_deep_and_long_json_are_refused(tmp_path):
    with pytest.raises(OctkitError, match="a.json: not found"):
        read_json(tmp_path / "a.json")
    for text in ("{", "[" * 200_000, "9" * 5000, "\xff"):
        (tmp_path / "a.json").write_text(text, encoding="latin1")
        with pytest.raises(OctkitError, match="a.json: is not valid JSON"):
            read_json(tmp_path / "a.json")


def test_where_nothing_can_be_written_is_said_by_its_own_name(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.json").mkdir()
    for path in (tmp_path / "file" / "a.json", tmp_path / "folder.json", tmp_path / ("x" * 300)):
        with pytest.raises(OctkitError, match="cannot be written") as caught:
            write_json(path, 1)
        assert str(caught.value).startswith(f"{path}: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.json"]
    write_json(tmp_path / ("漢" * 83), 1)  # 249 bytes: there is room for no more in the name that it has meanwhile
    assert len(list(tmp_path.iterdir())) == 3


def test_a_new_folder_is_whole_or_not_there(tmp_path):
    with new_folder(tmp_path / "a" / "b") as temporary:
        (temporary / "x").write_text("x")
        assert not (tmp_path / "a" / "b").exists()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["x"]
    with pytest.raises(RuntimeError), new_folder(tmp_path / "a" / "c") as temporary:
        (temporary / "x").write_text("x")
        raise RuntimeError
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
    for path, source in ((tmp_path / "a" / "b", None), (tmp_path / "a" / "b" / "c", tmp_path / "a")):
        words = "is there already" if source is None else "which it is made from"
        with pytest.raises(OctkitError, match=words), new_folder(path, source):
            pass


def test_one_line_joins_problems_and_shows_what_a_name_hides():
    assert one_line("a: 2 found:\n  b is wrong\n  c is missing") == "a: 2 found: b is wrong; c is missing"
    assert one_line("a\x1b[2Jb\nc\udcff: é 漢") == "a\\x1b[2Jb\\nc\\udcff: é 漢"


def test_a_json_file_of_another_kind_is_refused_with_its_first_wrong_value(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1, 2]})
    assert read_json_as(tmp_path / "a.json", dict[str, tuple[int, ...]], "make it again") == {"a": (1, 2)}
    with pytest.raises(OctkitError, match=r"a\.json: .*\ba\b.*found \[1, 2\].*make it again"):
        read_json_as(tmp_path / "a.json", dict[str, int], "make it again")
    with pytest.raises(OctkitError, match=r"b\.json"):
        read_json_as(tmp_path / "b.json", dict[str, int], "make it again")


def content(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.name[0] != "."}


def renew(folder, version):
    """Two files in a renewed folder; the names of those that were made and not taken over."""
    made = []
    with renewed_folder(folder, [version]) as aside:
        for name in ("a", "b"):
            if not (aside / name).exists():
                write_atomic(aside / name, version)
                made.append(name)
    return made


@pytest.mark.parametrize("exchange", [True, False], ids=["exchanged", "renamed"])
def test_a_folder_is_the_old_one_or_the_new_one_whenever_it_is_killed(tmp_path, monkeypatch, exchange):
    """Where the system cannot exchange two names there is a moment with neither, and the new one waits beside."""
    if not exchange:
        monkeypatch.setattr(files, "exchange", lambda *_: False)
    old, new = ({"a": version, "b": version} for version in ("old", "new"))
    folder, met = tmp_path / "folder", []
    renew(folder, "old")
    for _ in killed_at_each_write(lambda: renew(folder, "new")):
        whole = folder if exchange or folder.exists() else tmp_path / ".folder.unfinished"
        met.append(content(whole))
        assert met[-1] in (old, new) and is_made_from(whole, [met[-1]["a"]])
        clear_unfinished(tmp_path)
        renew(folder, "new")
        assert content(folder) == new and list(tmp_path.iterdir()) == [folder]
        renew(folder, "old")
        assert content(folder) == old
    assert len(met) > 10 and old in met and met[-1] == new


def test_a_folder_that_is_renewed_goes_on_only_with_what_is_made_from_the_same(tmp_path):
    for version, expected in (("one", ["b"]), ("two", ["a", "b"])):
        with pytest.raises(RuntimeError), renewed_folder(tmp_path / "x", ["one"]) as aside:
            write_atomic(aside / "a", "one")
            raise RuntimeError
        assert renew(tmp_path / "x", version) == expected
        assert content(tmp_path / "x") == {"a": version, "b": version}


@pytest.mark.parametrize("place", ["here", ".here.unfinished"])
def test_a_renewed_folder_never_touches_what_a_link_leads_to(tmp_path, place):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for name in ("a.png", files.MADE_FROM):
        (theirs / name).write_text("1")
    (tmp_path / place).symlink_to(theirs)
    with renewed_folder(tmp_path / "here", 1) as aside:
        (aside / "b.png").write_text("new")
    assert {path.name: path.read_text() for path in theirs.iterdir()} == {"a.png": "1", files.MADE_FROM: "1"}
    assert (tmp_path / "here" / "b.png").read_text() == "new" and not (tmp_path / "here").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "theirs"]


def test_what_is_unfinished_goes_and_not_what_it_leads_to(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "a.png").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".a.tmp").symlink_to(tmp_path / "theirs")
    clear_unfinished(tmp_path / "run")
    assert not any((tmp_path / "run").iterdir()) and (tmp_path / "theirs" / "a.png").exists()


@pytest.mark.parametrize("flag", [True, False], ids=["O_NOFOLLOW", "without"])
def test_a_file_of_octkits_is_no_link(tmp_path, monkeypatch, flag):
    if not flag:
        monkeypatch.delattr(os, "O_NOFOLLOW")
    (tmp_path / "profile").write_text("theirs")
    for place, target in (("a", "profile"), ("b", "nothing")):
        (tmp_path / place).symlink_to(tmp_path / target)
        with pytest.raises(OctkitError, match=f"{place}: is a symbolic link to"), open_own(tmp_path / place):
            pass
    with open_own(tmp_path / "c") as file:
        file.write(b"ours")
    assert {path.name for path in tmp_path.iterdir()} == {"profile", "a", "b", "c"}
    assert (tmp_path / "c").read_bytes() == b"ours"


def test_which_links_stay_in_a_folder(tmp_path):
    root = tmp_path / "root"
    (root / ".hidden").mkdir(parents=True)
    for place, target in (("up", ".."), (".hidden/out", "/etc"), ("stays", ".hidden"), ("dangles", "nothing"),
                          ("round", "round"), ("twice", "up/root/stays")):
        (root / place).symlink_to(target)
    found = []
    staying = links_inside(root, found.append)
    assert {path.name for path in staying} == {"stays", "dangles", "round", "twice"}
    assert {error.file.name for error in found} == {"up", "out"}
    found.clear()
    links_inside(root, found.append, hidden=False)
    assert {error.file.name for error in found} == {"up"}


def test_a_second_name_is_one_of_the_file_itself(tmp_path):
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").symlink_to("a")
    link(tmp_path / "b", tmp_path / "elsewhere" / "b")
    assert os.path.samefile(tmp_path / "elsewhere" / "b", tmp_path / "a")
    assert not (tmp_path / "elsewhere" / "b").is_symlink()


def cells_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize(("text", "written"), [
    ("=HYPERLINK(1)", "'=HYPERLINK(1)"), ("+1+cmd|' /C calc'!A0", "'+1+cmd|' /C calc'!A0"), ("@SUM(A1)", "'@SUM(A1)"),
    ("-A1", "'-A1"), ("'=1", "''=1"), ("＝1", "'＝1"), ("a;=cmd", "a;'=cmd"), (";'+1;2", ";''+1;2"),  # noqa: RUF001
    ('a;"=1', "a;'\"=1"), ('"=1', "'\"=1"), (";a=1", ";a=1"),
    ("-0.300", "-0.300"), ("-inf", "-inf"), ("1=1", "1=1"), ("'a", "'a"), ("", ""), ("0001.png", "0001.png")])
def test_no_cell_is_a_formula(tmp_path, text, written):
    write_csv(tmp_path / "a.csv", (text,), [(text,), (-0.3,)])
    assert cells_of(tmp_path / "a.csv") == [[written], [written], ["-0.3"]]
    assert cell_text(written) == text


@pytest.mark.parametrize(("text", "written"), [
    ("a\x1b[2Jb\u202e\x9b", "a\\x1b[2Jb\\u202e\\x9b"), ("\t=1", "\\t=1"), ("\r=1", "\\r=1"), ("a\n=1", "a\\n=1"),
    ("\r-1", "\\r-1"), ("漢\u3000é", "漢\u3000é")])
def test_no_cell_controls_a_terminal_or_tears_a_row(tmp_path, text, written):
    write_csv(tmp_path / "a.csv", (text,), [(text,)])
    assert cells_of(tmp_path / "a.csv") == [[written], [written]]


@given(st.text(st.sampled_from("'\"=+-@;＝a1. "), max_size=6))  # noqa: RUF001
def test_cells_read_back_are_those_that_were_written(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    write_csv(path, ("name", "also"), [(text, text)])
    [_, row] = cells_of(path)
    assert [cell_text(cell) for cell in row] == [text, text]


def test_a_table_has_numbers_and_texts(tmp_path):
    (tmp_path / "a.csv").write_text("name,x,y\nNA,0.1,1e-3\n,,7\n")
    found = read_table(tmp_path / "a.csv", ["x"], ["name"], "")
    assert list(found["name"]) == ["NA", ""] and list(found["y"]) == ["1e-3", "7"]
    np.testing.assert_array_equal(found["x"], [0.1, np.nan])


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\0", b'a,b\n"1,2\n', b"a,b\n", b"a\n1\n", b"a,b\nx,1\n", None])
def test_a_damaged_table_is_refused(tmp_path, content):
    path = tmp_path / "a.csv"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(OctkitError) as error:
        read_table(path, ["a"], ["b"], "write it again")
    assert error.value.file == path and (content is None or error.value.mend == "write it again")


def test_folders_and_files_have_the_modes_that_the_user_asks_for(tmp_path):
    before = os.umask(0o027)
    try:
        with new_folder(tmp_path / "a" / "new") as temporary:
            write_atomic(temporary / "file", "1")
        with renewed_folder(tmp_path / "renewed", 1):
            pass
        with open_own(tmp_path / "own"):
            pass
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.name[0] != "."} == {
        "a": 0o750, "new": 0o750, "renewed": 0o750, "file": 0o640, "own": 0o640}
