"""Two processes that torchrun has started learn what one learns."""

import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import make_run, train_and_stop_in_the_second_epoch, write_goals, write_volumes

from octkit.common.errors import OctkitError
from octkit.network.checkpoints import load_checkpoint
from octkit.planning.run import Run
from octkit.training import ranks
from octkit.training.train import train_fold

# Three patches a batch: the ranks' shares differ. At a larger rate rounding errors grow beyond 1e-6 within 20 steps.
CHANGES = ("plan.batch_size=3", "train.iterations_per_epoch=10", "train.workers=0", "train.initial_rate=0.0001")


def with_torchrun(run, config):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "octkit",
               "train", str(run), "--config", config]
    done = subprocess.run(command, capture_output=True, text=True, check=False,
                          env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check_the_same(one, other, config):
    logs = [np.genfromtxt(run / f"models/{config}/fold_0/log.csv", delimiter=",", names=True) for run in (one, other)]
    for column in ("train_loss", "validation_loss"):
        np.testing.assert_allclose(logs[1][column], logs[0][column], rtol=1e-6)
    for name in logs[0].dtype.names:
        if name.startswith("dice_"):  # of whole pixels: one on the edge may fall either way
            np.testing.assert_allclose(logs[1][name], logs[0][name], atol=1e-3, equal_nan=True)
    weights = [load_checkpoint(run / f"models/{config}/fold_0/checkpoint.pt")["network"] for run in (one, other)]
    assert all(np.allclose(weights[0][name], weights[1][name], rtol=1e-4, atol=1e-6) for name in weights[0])


def test_two_ranks_learn_what_one_learns_from_volumes(tmp_path):  # Dice of each sample
    data = write_volumes(tmp_path / "data")
    alone, shared = (make_run(tmp_path / name, data, *CHANGES, "train.epochs=2") for name in ("alone", "shared"))
    train_fold(Run(alone), "3d_fullres", 0, progress=False)
    assert with_torchrun(shared, "3d_fullres").count("scans to train on") == 1  # the first rank alone speaks
    check_the_same(alone, shared, "3d_fullres")


def test_a_training_that_one_began_goes_on_with_two(tmp_path):  # 2-D: Dice of the batch
    data = write_goals(tmp_path / "data")
    alone, shared = (make_run(tmp_path / name, data, *CHANGES, "train.epochs=3") for name in ("alone", "shared"))
    train_fold(Run(alone), progress=False)
    train_and_stop_in_the_second_epoch(shared)
    assert "goes on after epoch 1 of 3" in with_torchrun(shared, "2d")
    check_the_same(alone, shared, "2d")


def test_alone_a_rank_has_the_whole_batch():
    assert list(range(5))[ranks.own_patches(5)] == [0, 1, 2, 3, 4]
    assert ranks.of_first(lambda: "made") == "made"


def test_every_patch_is_one_ranks(monkeypatch):
    monkeypatch.setattr(ranks, "count", lambda: 3)
    dealt = []
    for rank in range(3):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        dealt += list(range(7))[ranks.own_patches(7)]
    assert sorted(dealt) == list(range(7))
    with pytest.raises(OctkitError, match=r"2 patches.*3 processes.*plan\.batch_size"):
        ranks.own_patches(2)
