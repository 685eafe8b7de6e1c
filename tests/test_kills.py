"""A training that is killed again and again ends with what it would have left undisturbed, bit for bit."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import torch
from helpers import equal, log_of, make_run, scalars_of, write_goals

from octkit.common import settings
from octkit.network.checkpoints import load_checkpoint, previous_of

KILLS = 20
EPOCHS = 300
FOLD, HELD_OUT = "models/2d/fold_0", "predictions/cv/2d/fold_0"


@pytest.fixture
def one_thread(monkeypatch):
    """For the trainings: two threads beside other work mostly wait for each other, and other numbers of threads round
    otherwise (Paddle, once imported, sets this variable too)."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def start(run, workers):
    chosen = settings.load(run / "settings.json")
    settings.with_overrides(chosen, [f"train.workers={workers}"]).save(run / "settings.json")
    return subprocess.Popen([sys.executable, "-m", "octkit", "train", str(run), "--fold", "0"], text=True,
                            start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def wait_for(condition, process):
    while process.poll() is None and not condition():
        time.sleep(0.01)
    assert process.poll() is None, f"ended before it was to be killed: {process.communicate()[0]}"


def let_end(process):
    said = process.communicate()[0]
    assert process.returncode == 0, said


def holds_the_fold(process, run):
    """Whether a training has taken its folder; it writes its process number there."""
    lock = run / FOLD / ".lock"
    return lock.exists() and lock.read_text() == str(process.pid)


def undisturbed_training(run):
    """Seconds from taking the fold to its first checkpoint, and from there to the end."""
    process = start(run, workers=0)
    wait_for(lambda: holds_the_fold(process, run), process)
    taken = time.monotonic()
    wait_for((run / FOLD / "checkpoint.pt").exists, process)
    begun = time.monotonic()
    let_end(process)
    return begun - taken, time.monotonic() - begun


def killed_training(run, beginning, training, chance):
    """Start the training and kill it at a random moment; how many epochs were done."""
    process, newest = start(run, workers=chance.choice([0, 1, 2])), run / FOLD / "checkpoint.pt"
    moment = chance.random()
    if moment < 0.1:  # while it starts
        time.sleep(chance.uniform(0, beginning))
    elif moment < 0.3:  # while it reads what is there
        wait_for(lambda: holds_the_fold(process, run), process)
        time.sleep(chance.uniform(0, beginning))
    else:  # while it trains and writes
        before = newest.stat().st_mtime_ns if newest.exists() else 0
        wait_for(lambda: newest.exists() and newest.stat().st_mtime_ns != before, process)
        time.sleep(chance.uniform(0, training / KILLS))
    assert process.poll() is None, f"ended before it was to be killed: {process.communicate()[0]}"
    crew = psutil.Process(process.pid).children(recursive=True)
    if chance.random() < 0.5:
        os.killpg(process.pid, signal.SIGKILL)
    else:  # its workers have to notice
        os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert psutil.wait_procs(crew, timeout=10)[1] == []
    return max((load_checkpoint(path)["epoch"] for path in (newest, previous_of(newest)) if path.exists()), default=0)


def assert_same_results(run, other):
    one, two = (load_checkpoint(folder / FOLD / "checkpoint.pt") for folder in (run, other))
    assert equal(one["network"], two["network"])
    moments, others = (state["optimiser"]["optimiser"]["state"] for state in (one, two))
    assert moments.keys() == others.keys()
    assert all(torch.equal(moments[key]["momentum_buffer"], others[key]["momentum_buffer"]) for key in moments)
    assert log_of(run).equals(log_of(other))
    drawn, expected = (scalars_of(folder / FOLD) for folder in (run, other))
    assert drawn.keys() == expected.keys()
    assert all(drawn[name] == expected[name] for name in drawn if name != "seconds")
    masks = sorted((run / HELD_OUT).glob("*.png"))
    assert len(masks) == 3
    for mask in masks:
        assert mask.read_bytes() == (other / HELD_OUT / mask.name).read_bytes()
        arrays = [np.load(folder / HELD_OUT / f"{mask.stem}.npz")["probabilities"] for folder in (run, other)]
        assert np.array_equal(*arrays)


@pytest.mark.usefixtures("one_thread")
def test_a_kill_changes_nothing(tmp_path):
    """Once, in the midst of training."""
    run = make_run(tmp_path / "killed", write_goals(tmp_path / "goals"), "train.epochs=15")
    undisturbed = shutil.copytree(run, tmp_path / "undisturbed")
    process = start(run, workers=1)
    wait_for(lambda: (run / FOLD / "checkpoint.previous.pt").exists(), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert load_checkpoint(previous_of(run / FOLD / "checkpoint.pt"))["epoch"] < 15
    for folder, workers in ((run, 1), (undisturbed, 0)):
        let_end(start(folder, workers))
    assert_same_results(run, undisturbed)


@pytest.mark.long
@pytest.mark.usefixtures("one_thread")
def test_twenty_kills_change_nothing(tmp_path):
    seed, started = time.time_ns() % 2**32, time.monotonic()
    chance = random.Random(seed)
    run = make_run(tmp_path / "killed", write_goals(tmp_path / "goals"), f"train.epochs={EPOCHS}")
    undisturbed = shutil.copytree(run, tmp_path / "undisturbed")
    beginning, training = undisturbed_training(undisturbed)
    done = [killed_training(run, beginning, training, chance) for _ in range(KILLS)]
    let_end(start(run, workers=1))
    assert_same_results(run, undisturbed)
    print(json.dumps({"seed": seed, "kills": KILLS, "epochs done at each": done, "of": EPOCHS,
                      "seconds": round(time.monotonic() - started)}))
