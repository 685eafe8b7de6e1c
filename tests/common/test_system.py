"""What only some systems have: octkit is imported, and works, where it is hidden."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from octkit.common import system
from octkit.common.settings import PROJECT
from octkit.training import train

# Libraries bring their own ways for each system: they are loaded first, then octkit is loaded again without POSIX.
HIDDEN = """
import importlib, os, pathlib, signal, sys
names = sys.argv[2:]
for name in names:
    importlib.import_module(name)
for name in [name for name in sys.modules if name.partition(".")[0] == "octkit"]:
    del sys.modules[name]
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
for name in ("fork", "getuid", "geteuid", "killpg", "setsid", "sched_getaffinity", "O_NOFOLLOW", "mkfifo", "uname"):
    delattr(os, name)
for name in ("SIGKILL", "SIGHUP", "SIGUSR1", "SIGBUS"):
    delattr(signal, name)
sys.platform = "win32"
for name in names:
    importlib.import_module(name)
from octkit.common import files, processes, settings, system
folder = pathlib.Path(sys.argv[1])
files.write_json(folder / "file.json", [1])
with files.open_own(folder / ".lock") as file, files.renewed_folder(folder / "made", 1) as aside:
    (aside / "file").touch()
    assert system.why_no_locks(file) is None
system.use_private_caches()
system.allow_open_files(4096), system.begin_worker(), system.ask(os.getpid())
assert settings.project_folder(folder / "octkit", folder) == folder and processes.cores() == os.cpu_count()
print("works")
"""
MODULES = sorted(".".join(path.relative_to(PROJECT).with_suffix("").parts) for path in PROJECT.glob("octkit/**/*.py")
                 if path.name not in ("__init__.py", "__main__.py"))


@pytest.mark.parametrize("paddle", [False, True])  # torch and paddle do not share a process
def test_all_is_imported_and_files_are_written_where_posix_is_hidden(tmp_path, paddle):
    names = [name for name in MODULES if name.startswith("octkit.classification.") == paddle]
    done = subprocess.run([sys.executable, "-c", HIDDEN, str(tmp_path), *names], cwd=tmp_path, capture_output=True,
                          env=os.environ | {"PYTHONPATH": str(PROJECT), "XDG_CACHE_HOME": str(tmp_path)},
                          encoding="utf-8")
    assert done.stdout.splitlines()[-1:] == ["works"], done.stderr


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder, in a process whose environment is this test's."""
    monkeypatch.setattr(os, "environ", {"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"]})
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def chosen():
    return {Path(os.environ[name]).parent for name in system.CACHES}


def test_caches_lie_in_a_folder_that_nobody_else_may_enter(home):
    (home / ".cache/octkit").mkdir(parents=True, mode=0o777)
    system.use_private_caches()
    assert chosen() == {home / ".cache/octkit"}
    assert stat.S_IMODE((home / ".cache/octkit").stat().st_mode) == 0o700


def test_what_the_user_has_set_stays(home):
    os.environ |= {"XDG_CACHE_HOME": str(home / "own"), "MPLCONFIGDIR": str(home / "plots")}
    system.use_private_caches()
    assert os.environ["MPLCONFIGDIR"] == str(home / "plots")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(home / "own/octkit/torch")


def anothers(_, monkeypatch):
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)


def a_link(home, _):
    (home / ".cache").mkdir()
    (home / "elsewhere").mkdir(mode=0o777)
    (home / ".cache/octkit").symlink_to(home / "elsewhere")


def a_file(home, _):
    (home / ".cache").write_bytes(b"")


def no_home(*_):
    os.environ["HOME"] = "/proc/none"


@pytest.mark.parametrize("prevent", [anothers, a_link, a_file, no_home])
def test_where_that_folder_is_not_the_users_a_new_one_takes_its_place(home, monkeypatch, prevent):
    prevent(home, monkeypatch)
    system.use_private_caches()
    [folder] = chosen()
    assert not folder.is_relative_to(home) and not folder.is_symlink()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.rmdir()


def test_torch_compiles_in_no_folder_that_another_user_can_make_first(home, monkeypatch):
    used = []

    def compile_in(network):
        from torch._inductor.runtime.cache_dir_utils import cache_dir

        used.append(Path(cache_dir()))
        return network

    monkeypatch.setattr(torch, "compile", compile_in)
    train.compiled(torch.nn.Linear(1, 1), "always", 1, 1, torch.device("cpu"))
    assert set(used) == {home / ".cache/octkit/torch"}


def test_a_command_hands_them_to_all_that_it_starts(tmp_path):
    """And before matplotlib or torch are imported."""
    script = ("import sys; from octkit import cli; before = {'matplotlib', 'torch'} & set(sys.modules); sys.argv[1:] = "
              "['--version']\ntry: cli.main()\nexcept SystemExit: pass\nimport os; "
              "print(os.environ['TORCHINDUCTOR_CACHE_DIR'], os.environ['MPLCONFIGDIR'], before)")
    kept = {name: value for name, value in os.environ.items() if name not in (*system.CACHES, "XDG_CACHE_HOME")}
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True,
                         env=kept | {"HOME": str(tmp_path), "PYTHONPATH": str(PROJECT)})
    cache = tmp_path / ".cache/octkit"
    assert run.stdout.splitlines()[-1] == f"{cache / 'torch'} {cache / 'matplotlib'} set()"
