"""Runs that are killed and go on, runs that are repeated: the same bits. The whole story takes minutes (`long`)."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_pipeline import smoke, write_notebook

from octkit import ledger, pipeline, repeat
from octkit.files import OctkitError, write_json
from octkit.pipeline import Step

KILLS = 5


def octkit_run(*arguments) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "octkit", "run", *map(str, arguments)], start_new_session=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(run: subprocess.Popen) -> str:
    output, _ = run.communicate()
    assert run.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A whole run of the smoke profile, and how many seconds it took."""
    folder, began = tmp_path_factory.mktemp("undisturbed"), time.monotonic()
    finish(octkit_run("--profile", "smoke", "--run-dir", folder / "run", "--set", f"data.dir={folder / 'data'}"))
    return folder, time.monotonic() - began


def same_results(one: Path, other: Path) -> None:
    """All results, the weights of both networks among them."""
    import torch

    same, differ = repeat.compare(one, other)
    assert not differ and same > 20
    for path in sorted(one.glob("models/*/*/checkpoint.pt")):
        mine, theirs = (torch.load(found, weights_only=True)["network"]
                        for found in (path, other / path.relative_to(one)))
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
    weights = "classifier/model.pdparams"
    assert (one / weights).read_bytes() == (other / weights).read_bytes()


@pytest.mark.long
def test_a_run_killed_five_times_ends_as_one_that_was_not(undisturbed, tmp_path):
    folder, seconds = undisturbed
    seed = random.randrange(10**6)
    moments = random.Random(seed)
    print(f"seed of the moments: {seed}")
    command = ("--profile", "smoke", "--run-dir", tmp_path / "run", "--set", f"data.dir={folder / 'data'}")
    for _ in range(KILLS):
        run = octkit_run(*command)
        time.sleep(moments.uniform(0.3, 1) * seconds / (KILLS + 1))
        os.killpg(run.pid, signal.SIGKILL)
        output, _ = run.communicate()
        assert run.returncode == -signal.SIGKILL, output
        print("killed after:", output.splitlines()[-1:])
    finish(octkit_run(*command))
    same_results(folder / "run", tmp_path / "run")
    assert not list(tmp_path.rglob(".*.tmp")) and not list(tmp_path.rglob("*.running.ipynb"))


@pytest.mark.long
def test_a_run_repeated_from_its_settings_has_the_same_bits(undisturbed):
    folder, _ = undisturbed
    output = finish(octkit_run("--from", folder / "run" / "settings.json"))
    assert "code, packages, machine and data are as they were" in output
    assert "results are the same to the last byte" in output.splitlines()[-1] and ", not " not in output
    same_results(folder / "run", folder / "run-again")
