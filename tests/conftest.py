import os
import subprocess
from pathlib import Path

import helpers
import pytest
from filelock import FileLock
from hypothesis import settings

from octkit import cli

settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_collection_modifyitems(items):
    """The whole story, which takes longest, comes first; what else reads it last: another process has it by then."""
    rank = {"test_story.py": 0, "test_page.py": 2}
    items.sort(key=lambda item: rank.get(item.path.name, 1))


@pytest.fixture
def goals(tmp_path) -> Path:
    return helpers.write_goals(tmp_path / "goals")


@pytest.fixture(scope="session")
def story(tmp_path_factory) -> Path:
    """The whole story in small: a folder with `data` and the finished `run`. Takes minutes, once for all processes."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "story"
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "run/report.html").exists():
            # Two folds: all people are held out once, enough of them to compare the answers to the glaucoma question.
            done = helpers.octkit("run", "--profile", "smoke", "--run-dir", folder / "run", "--set",
                                  f"data.dir={folder / 'data'}", "--set", "splits.folds=2")
            assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def small_disk(tmp_path):
    """An empty folder on a disk of 4 MB of its own."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small disk takes the right to mount one: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def octkit(capsys, monkeypatch):
    """`octkit("doctor", …)` -> exit code, standard output, standard error."""
    monkeypatch.setenv("OCTKIT_DEBUG", "")

    def call(*arguments):
        with pytest.raises(SystemExit) as end:
            cli.main([str(argument) for argument in arguments])
        return end.value.code or 0, *capsys.readouterr()

    return call
