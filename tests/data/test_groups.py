import pytest
from helpers import write_goals, write_volumes

from octkit.common import settings
from octkit.common.errors import OctkitError
from octkit.common.files import write_csv
from octkit.data.groups import COLUMNS, people_of, read_groups
from octkit.data.layouts.detect import open_dataset, open_run


def table(folder, text, encoding="utf-8"):
    (folder / "groups.csv").write_bytes(text.encode(encoding))
    return folder / "groups.csv"


@pytest.mark.parametrize("text", ["ImgName,person,eye\n0001.png,a,R\n0002,a,\n3, b ,L\n",
                                  "\ufeffImgName,person,eye\r\n1,a,R\r\n0002.png,a,\r\n\"0003\",b,L\r\n",
                                  "eye,ImgName,note,person\nR,1,x,a\n,2,,a\nL,3,\"y, z\",b",
                                  "ImgName;person;eye\n0001;a;R\n2;a;\n3;b;L\n"])
def test_a_cases_person_and_eye_come_from_the_table(tmp_path, text):
    table(write_goals(tmp_path / "set", train=3, validation=1), text)
    dataset = open_dataset(tmp_path / "set")
    assert [(case.group, case.eye) for case in dataset.cases] == [("a", "R"), ("a", None), ("b", "L"), (None, None)]
    assert [case.person for case in dataset.cases] == ["person a", "person a", "person b", "scan 0004"]


def test_names_are_found_as_a_table_writes_them(tmp_path):
    names = ["a\x1b[2J", ";=1", "b\n\t"]
    write_csv(tmp_path / "groups.csv", COLUMNS, [(f"{name}.png", f"p{len(name)}", "") for name in names])
    assert people_of(tmp_path / "groups.csv", names) == {name: f"person p{len(name)}" for name in names}


def test_every_layout_has_such_a_table(tmp_path):
    table(write_volumes(tmp_path / "set"), "ImgName,person\n0001.nii.gz,a\n5,b\n")
    assert [case.group for case in open_dataset(tmp_path / "set").cases] == ["a", None, None, None, "b"]


@pytest.mark.parametrize(("text", "words"), [
    ("ImgName,person,eye\n0001,a,R\n1.png,b,L\n", "'1.png' again in line 3"),
    ("ImgName,person,eye\n0001,a,OD\n", "eye 'OD' in line 2"),
    ("ImgName person eye\n0001 a R\n", "found columns"), ("", r"found columns \[\]"),
    ("ImgName,person,eye\n,a,R\n", "ImgName '' in line 2"),
    ("ImgName,person,eye\nscan_0001,a,R\nscan_0002,a,L\n", "first scan_0001, expected names such as 0001"),
    ("ImgName,person,eye\n0001,\"a,R\n", "as CSV")])
def test_a_wrong_table_is_refused(tmp_path, text, words):
    file = table(write_goals(tmp_path / "set"), text)
    with pytest.raises(OctkitError, match=words) as refused:
        open_dataset(tmp_path / "set")
    assert refused.value.file == file


def test_another_encoding_is_refused(tmp_path):
    with pytest.raises(OctkitError, match="groups.csv: is no text in UTF-8"):
        read_groups(table(tmp_path, "ImgName,person,eye\n1,Jürgen,R\n", "latin-1"))


def test_the_people_of_some_scans(tmp_path):
    file = table(tmp_path, "ImgName,person,eye\n1,a,R\n2,a,L\n3,,\n4,b,R\n")
    assert people_of(file, ["0001", "0002", "0003"]) == {"0001": "person a", "0002": "person a", "0003": "scan 0003"}
    with pytest.raises(OctkitError, match="has no row for 0005 and 1 more"):
        people_of(file, ["0001", "0005", "0006"])
    with pytest.raises(OctkitError, match="groups.csv: not found"):
        people_of(tmp_path / "none" / "groups.csv", [])


def test_extra_data_of_known_people_is_refused(tmp_path):
    for name, text in (("own", "ImgName,person\n7,a\n"), ("more", "ImgName,person\n1,b\n2,a\n")):
        table(write_goals(tmp_path / name), text)
    chosen = settings.with_overrides(settings.from_profile("smoke"), [
        f"data.dir={tmp_path / 'own'}", f'train.extra_data=["{tmp_path / "more"}"]'])
    with pytest.raises(OctkitError, match="more/groups.csv: person a stands in .*own/groups.csv"):
        open_run(chosen)
    table(tmp_path / "more", "ImgName,person\n1,b\n2,c\n")
    assert [case.group for case in open_run(chosen).extra][:2] == ["b", "c"]


def test_names_that_are_formulas_come_back(tmp_path):
    names = ["=1+1", "-x", "@a", "'=b"]
    write_csv(tmp_path / "groups.csv", COLUMNS, [(f"{name}.png", f"+{name}", "R") for name in names])
    assert all(line[0] == "'" for line in (tmp_path / "groups.csv").read_text().splitlines()[1:])
    assert people_of(tmp_path / "groups.csv", names) == {name: f"person +{name}" for name in names}


def test_a_name_of_many_digits_and_a_table_of_many_columns_are_read(tmp_path):
    digits = "1" * 5000
    (tmp_path / "groups.csv").write_text(f"ImgName,person,{','.join(map(str, range(1000)))}\n{digits},ann\n007,ben\n")
    assert {key: row.person for key, row in read_groups(tmp_path / "groups.csv").items()} == {digits: "ann", "7": "ben"}
