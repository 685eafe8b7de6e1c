"""A student's copies of the lessons: what is hers stays, what is not follows the originals."""

import json
import shutil

import nbformat
import pytest

from octkit.common.errors import OctkitError
from octkit.common.settings import PROJECT, project_folder
from octkit.lessons import layout
from octkit.lessons.layout import lay_out


@pytest.fixture
def originals(tmp_path, monkeypatch):
    folder = tmp_path / "package" / "notebooks"
    (folder / "solutions").mkdir(parents=True)
    for name in ("00_start.ipynb", "01_data.ipynb", "solutions/01_data.ipynb"):
        write(folder / name, "print('first')")
    monkeypatch.setattr(layout, "ORIGINALS", folder)
    return folder


def write(path, text, printed=()):
    cell = nbformat.v4.new_code_cell(text, id="01")
    cell.outputs = [nbformat.v4.new_output("stream", text=line) for line in printed]
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)


def source(path):
    return nbformat.read(path, as_version=4).cells[0].source


def test_all_lessons_lie_beside_reports_and_data(tmp_path, originals):
    assert lay_out(tmp_path / "mine") == []
    copied = {path.relative_to(tmp_path / "mine").as_posix() for path in (tmp_path / "mine").rglob("*.ipynb")}
    assert copied == {f"notebooks/{path.relative_to(originals).as_posix()}" for path in originals.rglob("*.ipynb")}
    assert (tmp_path / "mine/reports").is_dir() and (tmp_path / "mine/data").is_dir()
    for working in ("mine", "mine/notebooks", "mine/notebooks/solutions"):
        assert project_folder(tmp_path / "elsewhere/octkit", tmp_path / working) == tmp_path / "mine"


def test_a_runs_executed_lessons_are_not_the_projects(tmp_path, originals):  # noqa: ARG001
    lay_out(tmp_path / "mine")
    run = tmp_path / "mine/reports/demo"
    (run / "notebooks").mkdir(parents=True)
    write(run / "notebooks/00_start.ipynb", "")
    (run / "ledger.jsonl").touch()
    for working in (run, run / "notebooks", run / ".steps/11_classify_prepared"):
        assert project_folder(tmp_path / "elsewhere/octkit", working) == tmp_path / "mine"
    (tmp_path / "mine/ledger.jsonl").touch()  # as octkit run --run-dir . leaves it
    assert project_folder(tmp_path / "elsewhere/octkit", tmp_path / "mine/notebooks") == tmp_path / "mine"


def test_lessons_are_laid_out_in_the_chosen_language(tmp_path, originals, monkeypatch):
    (originals / "zh").mkdir()
    for name in ("00_start.ipynb", "01_data.ipynb"):
        write(originals / "zh" / name, "print('一')")
    lay_out(tmp_path)
    assert not (tmp_path / "notebooks/zh").exists()
    write(tmp_path / "notebooks/01_data.ipynb", "print('mine')")
    monkeypatch.setenv("OCTKIT_LANGUAGE", "zh")
    assert lay_out(tmp_path) == [tmp_path / "notebooks/01_data.ipynb"]
    assert source(tmp_path / "notebooks/00_start.ipynb") == "print('一')"
    assert source(tmp_path / "notebooks/01_data.ipynb") == "print('mine')"
    assert source(tmp_path / "notebooks/solutions/01_data.ipynb") == "print('first')"  # not translated
    assert not (tmp_path / "notebooks/zh").exists()


def test_a_newer_lesson_replaces_one_that_was_only_run(tmp_path, originals):
    lay_out(tmp_path)
    write(tmp_path / "notebooks/01_data.ipynb", "print('first')", printed=["first"])
    write(originals / "01_data.ipynb", "print('second')")
    assert lay_out(tmp_path) == []
    assert source(tmp_path / "notebooks/01_data.ipynb") == "print('second')"


def test_a_changed_lesson_is_kept_and_told_of_once_there_is_a_newer_one(tmp_path, originals, capsys):
    lay_out(tmp_path)
    mine = tmp_path / "notebooks/01_data.ipynb"
    write(mine, "print('mine')")
    assert lay_out(tmp_path) == [] and capsys.readouterr().out == ""
    write(originals / "01_data.ipynb", "print('second')")
    for _ in range(2):  # as long as it is so
        assert lay_out(tmp_path) == [mine]
        assert str(mine) in capsys.readouterr().out and source(mine) == "print('mine')"
    mine.rename(tmp_path / "notebooks/mine.ipynb")  # the advice
    assert lay_out(tmp_path) == [] and source(mine) == "print('second')"


def test_the_originals_are_not_copied_onto_themselves(originals):
    with pytest.raises(OctkitError, match="expected another folder"):
        lay_out(originals.parent)


@pytest.mark.usefixtures("originals")
@pytest.mark.parametrize(("name", "content"), [("01_data.ipynb", "{"), (".originals.json", "[1]")])
def test_a_copy_that_is_no_notebook_and_a_record_of_another_kind_are_named(tmp_path, name, content):
    lay_out(tmp_path)
    (tmp_path / "notebooks" / name).write_text(content)
    with pytest.raises(OctkitError, match=name):
        lay_out(tmp_path)


def test_inside_a_checkout_runs_and_data_are_shared(originals, monkeypatch):
    monkeypatch.setattr(layout, "PACKAGE", originals.parent / "octkit")
    (originals.parent / "reports/demo").mkdir(parents=True)
    lay_out(originals.parent / "lab")
    assert (originals.parent / "lab/reports/demo").is_dir()
    (originals.parent / "reports/demo/report.html").write_text("a report")
    assert (originals.parent / "lab/report.html").read_text() == "a report"
    assert project_folder(originals.parent / "octkit", originals.parent / "lab/notebooks") == originals.parent / "lab"


def test_another_users_lessons_are_not_taken(tmp_path, originals, monkeypatch):
    lay_out(tmp_path / "tmp")
    monkeypatch.setattr("os.getuid", lambda: -5)
    assert project_folder(originals.parent / "octkit", tmp_path / "tmp/notebooks") == originals.parent


def test_the_real_lessons_can_be_laid_out(tmp_path):
    lay_out(tmp_path)
    record = json.loads((tmp_path / "notebooks/.originals.json").read_text())
    assert {"00_start.ipynb", "17_glossary.ipynb"} <= set(record)
    shutil.rmtree(tmp_path / "notebooks")
    assert not (PROJECT / "notebooks/.originals.json").exists()


@pytest.mark.usefixtures("originals")
@pytest.mark.parametrize("name", ["00_start.ipynb", "01_data.ipynb"])
def test_a_link_among_the_copies_is_not_written_through(tmp_path, name):
    lay_out(tmp_path / "mine")
    victim = tmp_path / "victim.ipynb"
    if name == "00_start.ipynb":
        shutil.copyfile(tmp_path / "mine/notebooks" / name, victim)
    before = victim.read_bytes() if victim.exists() else None
    (tmp_path / "mine/notebooks" / name).unlink()
    (tmp_path / "mine/notebooks" / name).symlink_to(victim)
    with pytest.raises(OctkitError, match=name):
        lay_out(tmp_path / "mine")
    assert (victim.read_bytes() if victim.exists() else None) == before


@pytest.mark.usefixtures("originals")
def test_a_folder_of_copies_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "victim").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notebooks").symlink_to(tmp_path / "victim")
    with pytest.raises(OctkitError, match="notebooks"):
        lay_out(tmp_path / "mine")
    assert not list((tmp_path / "victim").iterdir())
