"""The set-up: what it looks for first, and which build of torch it takes."""

import importlib.util
import re
import subprocess
import sys
import urllib.error
from types import SimpleNamespace

import pytest

from octkit.common.settings import PROJECT


@pytest.fixture
def setup_env(monkeypatch):
    """The module, which runs no command here but notes it; `fails` are the parts of those that fail."""
    spec = importlib.util.spec_from_file_location("setup_env", PROJECT / "setup_env.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.commands, module.fails = [], []

    def run(command, check, **_):
        module.commands.append(" ".join(command))
        failed = any(part in module.commands[-1] for part in module.fails)
        if failed and check:
            raise subprocess.CalledProcessError(1, command)
        return SimpleNamespace(returncode=int(failed))
    monkeypatch.setattr(module.subprocess, "run", run)
    monkeypatch.setattr(module.sys, "platform", "linux")
    monkeypatch.setattr(module, "has_gpu", lambda: False)
    monkeypatch.setattr(module, "answers", lambda _: True)
    for name in ("TORCH", "TORCH_INDEX"):
        monkeypatch.delenv(name, raising=False)
    return module


def installed(module):
    """Which files of requirements/, or other packages, pip was told to install."""
    return [re.sub(r".*-check (--no-deps )?", "", command) for command in module.commands]


CPU = "--require-hashes -r requirements/torch-cpu.txt"
CUDA = ["--require-hashes -r requirements/torch.txt", "--require-hashes -r requirements/cuda.txt"]


def test_a_machine_without_a_gpu_gets_the_build_for_the_cpu_from_pytorchs_own_index(setup_env):
    setup_env.install_torch()
    assert installed(setup_env) == [f"{CPU} --extra-index-url https://download.pytorch.org/whl/cpu"]


@pytest.mark.parametrize(("index", "expected"), [("https://mirror/cpu", [f"{CPU} --extra-index-url https://mirror/cpu"]),
                                                 ("", [CPU])])
def test_the_index_can_be_another_or_none(setup_env, monkeypatch, index, expected):
    monkeypatch.setenv("TORCH_INDEX", index)
    setup_env.install_torch()
    assert installed(setup_env) == expected


def test_where_no_index_has_it_pypis_build_comes_with_cudas_libraries_and_that_is_said(setup_env, capsys):
    setup_env.fails = ["torch-cpu"]
    setup_env.install_torch()
    assert installed(setup_env)[1:] == CUDA
    assert "6 GB" in capsys.readouterr().out


def test_an_index_that_does_not_answer_is_not_asked_twice(setup_env, monkeypatch):
    monkeypatch.undo()

    def unreachable(url, timeout):
        assert url == "https://mirror/cpu/torch/" and timeout < 60
        raise urllib.error.URLError("no route")
    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    assert setup_env.answers("https://mirror/cpu/") is False


@pytest.mark.parametrize(("platform", "gpu", "expected"), [("linux", True, CUDA), ("darwin", False, CUDA[:1]),
                                                           ("win32", True, CUDA[:1])])
def test_pypis_build_is_taken_for_a_gpu_and_on_other_systems(setup_env, monkeypatch, platform, gpu, expected):
    monkeypatch.setattr(setup_env.sys, "platform", platform)
    monkeypatch.setattr(setup_env, "has_gpu", lambda: gpu)
    setup_env.install_torch()
    assert installed(setup_env) == expected


def test_any_other_build_can_be_named(setup_env, monkeypatch):
    monkeypatch.setenv("TORCH", 'torch==2.13.0 --index-url "https://a/b c"')
    setup_env.install_torch()
    assert installed(setup_env) == ["torch==2.13.0 --index-url https://a/b c"]
    assert "--no-deps" not in setup_env.commands[0]  # builds with CUDA name its libraries


@pytest.mark.parametrize(("what", "value", "told"), [
    ("sys.version_info", (3, 10, 1), "expected 3.11, 3.12 or 3.13"), ("sys.version_info", (3, 14, 0), "PYTHON="),
    ("importlib.util.find_spec", lambda _: None, "python3-venv"),
    ("shutil.disk_usage", lambda _: SimpleNamespace(free=1e9), "1.0 GB of disk free"),
    ("LIBRARIES", {"libnowhere.so.1": "nowhere1"}, "apt install nowhere1")])
def test_what_would_stop_it_later_is_said_before_anything_is_made(setup_env, monkeypatch, capsys, what, value, told):
    assert list(setup_env.find_problems()) == []
    with monkeypatch.context() as patch:
        owner, _, name = what.rpartition(".")
        patch.setattr(importlib.import_module(owner) if owner else setup_env, name, value)
        problems = list(setup_env.find_problems())
        with pytest.raises(SystemExit) as ended:
            setup_env.main()
    assert len(problems) == 1 and told in problems[0] and told in capsys.readouterr().err
    assert ended.value.code == 1 and setup_env.commands == []


def test_the_whole_set_up_ends_with_a_look_at_every_library(setup_env, monkeypatch, tmp_path):
    monkeypatch.setattr(setup_env, "BIN", tmp_path / ".venv" / "bin")
    setup_env.BIN.mkdir(parents=True)
    setup_env.main()
    assert setup_env.commands[0].startswith(f"{sys.executable} -m venv")
    assert installed(setup_env)[1] == "--require-hashes -r requirements/pip.txt"
    assert installed(setup_env)[3:5] == ["--require-hashes -r requirements/lock.txt",
                                         "--no-build-isolation --editable ."]
    assert setup_env.commands[-1].endswith("doctor --machine") and (tmp_path / ".venv/ready").exists()


@pytest.mark.parametrize("step", ["doctor", "lock.txt"])
def test_a_set_up_that_fails_is_not_ready(setup_env, monkeypatch, tmp_path, step):
    monkeypatch.setattr(setup_env, "BIN", tmp_path / ".venv" / "bin")
    setup_env.BIN.mkdir(parents=True)
    setup_env.fails = [step]
    with pytest.raises(SystemExit, match=step):
        setup_env.main()
    assert not (tmp_path / ".venv/ready").exists()
