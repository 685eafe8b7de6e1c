import subprocess
from pathlib import Path

import pytest
from helpers import write_goals

from octkit import cli


@pytest.fixture
def goals(tmp_path) -> Path:
    return write_goals(tmp_path / "goals")


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
