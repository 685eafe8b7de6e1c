"""What the machine lacks is named, with what helps, before it stops a run."""

import ctypes
import json
import runpy
import sys
from types import SimpleNamespace

import pytest
from helpers import smoke

from octkit.common import machine
from octkit.common.errors import OctkitError
from octkit.common.settings import PROJECT
from octkit.lessons import run_all
from octkit.planning.run import Run


def test_every_library_stands_in_the_part_that_is_told():
    parts = runpy.run_path(str(PROJECT / "setup.py"))["parts"]()
    named = {"cv2": "opencv-python-headless", "sklearn": "scikit-learn", "matplotlib.pyplot": "matplotlib",
             "paddle": "paddlepaddle"}
    for library, part in machine.LIBRARIES.items():
        assert any(line.startswith(f"{named.get(library, library)}==") for line in parts[part]), library


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Makes a library of one line of code, which a new process finds."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    def make(name, code):
        (tmp_path / f"{name}.py").write_text(code)
        return name
    return make


def test_a_library_is_imported_in_another_process(library):
    assert machine.probe(library("one", "__version__ = '1.5'")) == {"version": "1.5"}
    assert "one" not in sys.modules


@pytest.mark.parametrize(("code", "told"), [
    ("raise ImportError('libgomp.so.1: cannot open shared object file: No such file or directory')", "libgomp1"),
    ("raise ImportError('libodd.so.7: cannot open shared object file: No such file or directory')", "libodd.so.7"),
    ("import papermill_that_is_not_there", "papermill_that_is_not_there"), ("import os; os.abort()", "-6"),
    ("raise RuntimeError('of another kind')", "of another kind")])
def test_what_is_wrong_with_an_import_is_told(library, code, told):
    name = library("broken", code)
    assert told in machine.probe(name)["error"]
    with pytest.raises(OctkitError, match="broken: .*"):
        machine.check(name)


@pytest.mark.parametrize(("message", "helps"), [
    ("No module named 'paddle'", '[classify]"'), ("No module named 'eyepy.io'", '[devices]"'),
    ("No module named 'jinja2'", '[lessons]"'), ("No module named 'torch'", "pip install ")])
def test_a_command_without_its_extra_names_it(message, helps):
    said, code = machine.in_a_sentence(ModuleNotFoundError(message), ["octkit", "x"])
    assert helps in said and code == 2


@pytest.mark.parametrize(("note", "command"), [
    ({"url": "{}/o%20k.whl", "archive_info": {}}, '-m pip install "{}/o k.whl[lessons]"'),
    ({"url": "{}", "dir_info": {"editable": True}}, '-m pip install --editable "{}[lessons]"'),
    ({"url": "{}/gone.whl"}, 'pip install ".[lessons]" in octkit\'s folder'), (None, 'pip install ".[lessons]"')])
def test_an_extra_is_installed_from_where_octkit_came(tmp_path, monkeypatch, note, command):
    (tmp_path / "o k.whl").touch()
    text = note and json.dumps(note | {"url": note["url"].replace("{}", tmp_path.as_uri())})
    came = SimpleNamespace(read_text={"direct_url.json": text}.get)
    monkeypatch.setattr(machine.metadata, "distribution", {"octkit": came}.get)
    said = machine.how_to_get("papermill")
    assert command.replace("{}", str(tmp_path)) in said
    assert sys.executable in said or "in octkit's folder" in said  # the environment that lacks it, not another's pip


def test_an_import_error_of_octkits_own_stays_as_it_is():
    assert machine.in_a_sentence(ImportError("cannot import name 'x'"), ["octkit", "x"])[1] == 1


def test_without_the_systems_openmp_torchs_is_loaded(monkeypatch):
    loaded = []

    def cdll(name, *mode):
        if name == "libgomp.so.1":
            raise OSError
        loaded.append((name, *mode))
    monkeypatch.setattr(ctypes, "CDLL", cdll)
    monkeypatch.setattr(sys, "platform", "linux")
    machine.find_openmp()
    [(name, mode)] = loaded
    assert name.endswith("torch/lib/libgomp.so.1") and mode == ctypes.RTLD_GLOBAL
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda _: None)
    machine.find_openmp()  # with neither, the import of paddle says what is missing
    assert len(loaded) == 1


def test_the_page_says_what_will_be_used_and_what_fails(monkeypatch, octkit):
    found = {"torch": {"version": "2.13.0", "CUDA": "12.6", "GPUs": ["H200 (141 GB)"], "use": "cuda, bfloat16"},
             "paddle": {"missing": "paddle is not installed"}, "onnx": {"error": "it is broken"}}
    monkeypatch.setattr(machine, "probe", lambda name: found.get(name, {"version": "1"}))
    code, out, err = octkit("doctor", "--machine")
    assert code == 2 and "onnx: it is broken" in err and "paddle:" not in err
    for text in ("H200 (141 GB)", "torch 12.6, paddle unknown", "segmentation cuda, bfloat16", "ResNet50 nothing"):
        assert text in out


def test_a_run_that_needs_paddle_ends_before_its_first_lesson_where_it_cannot_be_imported(tmp_path, monkeypatch):
    def check(library):
        raise OctkitError(f"{library}: broken")
    monkeypatch.setattr(run_all, "check", check)
    with pytest.raises(OctkitError, match="paddle: broken"):
        run_all.run_story(Run(tmp_path / "run"), smoke())
    assert not (tmp_path / "run").exists()
