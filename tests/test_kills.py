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
from conftest import scalars_of, write_goals
from test_train import equal, log_of, make_run

from octkit import settings
from octkit.checkpoints import load_checkpoint, previous_of

EPOCHS = 60
# Seconds after a training has taken its fold: to read its checkpoint, start workers, and train some epochs.
LATEST_KILL = 2.5
FOLD = "models/2d/fold_0"


def start(run, workers):
    chosen = settings.load(run / "settings.json")
    settings.with_overrides(chosen, [f"train.workers={workers}"]).save(run / "settings.json")
    return subprocess.Popen([sys.executable, "-m", "octkit", "train", str(run), "--fold", "0"], text=True,
                            start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def wait_until_it_trains(process, run):
    """Until it holds the fold's lock; a training writes its process number there."""
    lock = run / FOLD / ".lock"
    while process.poll() is None and not (lock.exists() and lock.read_text() == str(process.pid)):
        time.sleep(0.01)


def kill_again_and_again(run, kills, chance):
    """Start the training and kill it so many times; how many epochs were done at each kill."""
    done = []
    for _ in range(kills):
        process = start(run, workers=chance.choice([0, 1, 2]))
        if chance.random() < 0.9:  # the others are killed while they still start
            wait_until_it_trains(process, run)
        time.sleep(chance.uniform(0, LATEST_KILL))
        assert process.poll() is None, f"ended before it was killed: {process.communicate()[0]}"
        crew = psutil.Process(process.pid).children(recursive=True)
        if chance.random() < 0.5:
            os.killpg(process.pid, signal.SIGKILL)
        else:  # its workers have to notice
            os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert psutil.wait_procs(crew, timeout=10)[1] == []
        paths = [path for path in (run / FOLD / "checkpoint.pt", previous_of(run / FOLD / "checkpoint.pt"))
                 if path.exists()]
        done.append(max((load_checkpoint(path)["epoch"] for path in paths), default=0))  # whole, both of them
    return done


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
    masks = sorted((run / "predictions/cv/2d").glob("*.png"))
    assert len(masks) == 3
    for mask in masks:
        assert mask.read_bytes() == (other / "predictions/cv/2d" / mask.name).read_bytes()
        arrays = [np.load(folder / f"predictions/cv/2d/{mask.stem}.npz")["probabilities"] for folder in (run, other)]
        assert np.array_equal(*arrays)


def kill_test(tmp_path, kills, epochs):
    seed = time.time_ns() % 2**32
    run = make_run(tmp_path / "killed", write_goals(tmp_path / "goals"), f"train.epochs={epochs}")
    undisturbed = shutil.copytree(run, tmp_path / "undisturbed")
    assert start(undisturbed, workers=0).wait() == 0
    done = kill_again_and_again(run, kills, random.Random(seed))
    last = start(run, workers=1)
    said = last.communicate()[0]
    print(json.dumps({"seed": seed, "epochs done at each kill": done, "of": epochs}))
    assert last.returncode == 0, said
    assert_same_results(run, undisturbed)


def test_a_few_kills(tmp_path):
    kill_test(tmp_path, kills=2, epochs=EPOCHS)


@pytest.mark.long
def test_twenty_kills(tmp_path):
    kill_test(tmp_path, kills=20, epochs=10 * EPOCHS)
