"""Runs that are killed and go on, runs that are repeated: the same bits. The whole story takes minutes (`long`)."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import smoke, write_notebook

from octkit.common import hashes
from octkit.common.errors import OctkitError
from octkit.data.doctor import data_set
from octkit.lessons import ledger, notebook, repeat, run_all
from octkit.lessons.run_all import Step
from octkit.planning.run import Run

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
    """A whole run of the smoke profile."""
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(octkit_run("--profile", "smoke", "--run-dir", folder / "run", "--set", f"data.dir={folder / 'data'}"))
    return folder


def same_results(one: Path, other: Path) -> None:
    """All results, the weights of both networks among them."""
    import torch

    same, differ = repeat.compare(Run(one), Run(other))
    assert not differ and same >= 20
    for path in sorted(one.glob("models/*/*/checkpoint.pt")):
        mine, theirs = (torch.load(found, weights_only=True)["network"]
                        for found in (path, other / path.relative_to(one)))
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
    weights = "classifier/fold_0/model.pdparams"
    assert (one / weights).read_bytes() == (other / weights).read_bytes()


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A run of one notebook, its execution pretended, on a data folder of two files."""
    monkeypatch.setattr(notebook, "execute", lambda *_: (tmp_path / "run" / "thickness.csv").write_text("1,2"))
    monkeypatch.setattr(data_set, "before_run", lambda *_: None)  # the scans are none
    (tmp_path / "scans" / "semseg").mkdir(parents=True)  # a layout's folder
    for name in "ab":
        (tmp_path / "scans" / f"{name}.png").write_text(name)
    write_notebook(tmp_path / "notebooks", "step")
    run_all.run_story(Run(tmp_path / "run"), smoke(f"data.dir={tmp_path / 'scans'}"), tmp_path / "notebooks",
                      (Step("step", data=True),))
    return tmp_path


def test_the_ledger_tells_what_a_run_was_made_with(made):
    [line] = ledger.read(Run(made / "run"))
    assert line.made_with == ledger.made_with()
    assert line.made_with["packages"]["torch"] and line.made_with["packages"]["paddlepaddle"]
    assert {"octkit", "code", "python", "processor", "cores", "threads"} <= line.made_with.keys()
    assert line.data == [hashes.data_contents(made / "scans")]


def test_nothing_differs_on_the_same_machine(made):
    assert repeat.differences(made / "run" / "settings.json") == []
    for path in (made / "scans").iterdir():  # copied data are the same data
        os.utime(path, (0, 0))
    assert repeat.differences(made / "run" / "settings.json") == []


def test_what_differs_is_named(made, monkeypatch):
    source, as_it_is = made / "run" / "settings.json", ledger.made_with()
    changed = as_it_is | {"code": "edited", "packages": as_it_is["packages"] | {"torch": "9.9"}, "cores": 640}
    monkeypatch.setattr(ledger, "made_with", lambda: changed)
    (made / "scans" / "a.png").write_text("other")
    assert repeat.differences(source) == [
        f"code {as_it_is['code']} -> edited", f"cores {as_it_is['cores']} -> 640",
        f"packages.torch {as_it_is['packages']['torch']} -> 9.9", f"{made / 'scans'}: its files have changed"]
    (made / "scans").rename(made / "away")
    assert f"{made / 'scans'} is not there any more, and is made anew" in repeat.differences(source)
    (made / "run" / "ledger.jsonl").unlink()
    assert repeat.differences(source) == [f"{made / 'run' / 'ledger.jsonl'} does not tell what the run was made with"]


def test_a_repetition_never_writes_into_another_run(made):
    source = made / "run" / "settings.json"
    chosen = smoke(f"data.dir={made / 'scans'}")

    def prepared(*arguments):
        run, found = repeat.prepare(source, *arguments)
        assert found == chosen
        return run.folder

    assert prepared() == made / "run-again"
    assert prepared(made / "elsewhere") == made / "elsewhere"
    with pytest.raises(OctkitError, match="is the folder of the run to repeat"):
        repeat.prepare(source, made / "run")
    chosen.save(made / "run-again" / "settings.json")
    assert prepared() == made / "run-again"  # one that was stopped goes on
    smoke("seed=3").save(made / "run-again" / "settings.json")
    with pytest.raises(OctkitError, match="run-again: holds a run with other settings than"):
        repeat.prepare(source)
    with pytest.raises(OctkitError, match="nowhere/settings.json: not found"):
        repeat.prepare(made / "nowhere" / "settings.json")


def test_a_repetition_says_how_it_came_out(made, monkeypatch, capsys):
    def pretend(run, chosen, **_):
        assert chosen == smoke(f"data.dir={made / 'scans'}")
        for name, text in (("thickness.csv", "1,2"), ("models/2d/fold_0/log.csv", "epoch,seconds\n1,9\n")):
            (run.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (run.folder / name).write_text(text)

    (made / "run" / "models/2d/fold_0").mkdir(parents=True)
    (made / "run" / "models/2d/fold_0/log.csv").write_text("epoch,seconds\n1,5\n")
    monkeypatch.setattr(run_all, "run_story", pretend)
    source = made / "run" / "settings.json"
    assert repeat.repeat(source) == f"{made / 'run-again'}: all done; 2 of 2 results are the same to the last byte"
    assert "code, packages, machine and data are as they were" in capsys.readouterr().out
    (made / "run" / "thickness.csv").write_text("1,3")
    (made / "run" / "scores.json").write_text("{}")
    assert repeat.repeat(source).endswith(
        "1 of 3 results are the same to the last byte, not scores.json, thickness.csv")


@pytest.mark.long
def test_a_run_killed_five_times_ends_as_one_that_was_not(undisturbed, tmp_path):
    folder = undisturbed
    lines = ledger.read(Run(folder / "run"))
    seed = random.randrange(10**6)
    moments = random.Random(seed)
    print(f"seed of the moments: {seed}")
    command = ("--profile", "smoke", "--run-dir", tmp_path / "run", "--set", f"data.dir={folder / 'data'}")
    for number in sorted(moments.sample(range(len(lines) - 1), KILLS)):  # at any moment of five of the steps
        run, step = octkit_run(*command), lines[number].step
        for said in run.stdout:
            if f" {step} ..." in said:
                break
        time.sleep(moments.uniform(0, 1) * lines[number].seconds)
        os.killpg(run.pid, signal.SIGKILL)
        output, _ = run.communicate()
        assert run.returncode == -signal.SIGKILL, output
        print(f"killed in {step}" if not output else f"killed in {step} or after: {output.splitlines()[-1]}")
    finish(octkit_run(*command))
    same_results(folder / "run", tmp_path / "run")
    assert not list(tmp_path.rglob(".*.tmp")) and not list(tmp_path.rglob("*.running.ipynb"))


@pytest.mark.long
def test_a_run_repeated_from_its_settings_has_the_same_bits(undisturbed):
    folder = undisturbed
    output = finish(octkit_run("--from", folder / "run" / "settings.json"))
    assert "code, packages, machine and data are as they were" in output
    assert "results are the same to the last byte" in output.splitlines()[-1] and ", not " not in output
    same_results(folder / "run", folder / "run-again")
