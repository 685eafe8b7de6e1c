"""What only some systems have: octkit is imported, and works, where it is hidden."""

import os
import subprocess
import sys

import pytest

from octkit.common.settings import PROJECT

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
from octkit.common import caches, files, processes, settings, system
folder = pathlib.Path(sys.argv[1])
files.write_json(folder / "file.json", [1])
with files.open_own(folder / ".lock") as file, files.renewed_folder(folder / "made", 1) as aside:
    (aside / "file").touch()
    assert system.why_no_locks(file) is None
caches.use_private_caches()
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
