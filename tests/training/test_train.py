import copy
import itertools
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import (
    equal,
    fill,
    killed_at_each_write,
    log_of,
    make_run,
    scalars_of,
    train_and_stop_in_the_second_epoch,
    write_goals,
    write_volumes,
)

from octkit.common import hashes, locks
from octkit.common.errors import OctkitError
from octkit.common.files import read_json
from octkit.common.settings import TrainSettings
from octkit.data.layouts import detect
from octkit.inference.predict import predict_held_out
from octkit.network.checkpoints import load_checkpoint
from octkit.network.model import build_network, finished_weights
from octkit.network.unet import UNet
from octkit.planning import steps
from octkit.planning.run import Run
from octkit.training import train
from octkit.training.train import Optimiser, compiled, poly_rate, tensorboard, train_fold, why_not

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def goals(tmp_path_factory):
    return write_goals(tmp_path_factory.mktemp("data") / "goals")


def weights(run):
    return load_checkpoint(run / "models/2d/fold_0/checkpoint.pt")["network"]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_poly_rate_by_hand():
    assert poly_rate(0.01, 0, 10) == 0.01
    assert poly_rate(0.01, 5, 10) == pytest.approx(0.01 * 0.5**0.9)


def test_plateau_rule_divides_by_five_after_30_epochs_without_gain_in_the_smoothed_loss():
    optimiser = Optimiser(torch.nn.Linear(1, 1), TrainSettings(optimiser="adam"))
    rates = []
    for epoch in range(34):
        rates.append(optimiser.start_epoch(epoch))
        optimiser.end_epoch(1.0)
    # the first epoch sets the mark, 31 without improvement follow
    assert rates[:32] == [0.01] * 32 and rates[32] == pytest.approx(0.002)
    for loss in (1.0, 0.0, 0.5):
        optimiser.end_epoch(loss)
    assert optimiser.smoothed_loss == pytest.approx(0.93 * (0.93 * 1.0 + 0.07 * 0.0) + 0.07 * 0.5)


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_an_optimiser_goes_on_where_weights_lie_in_another_order(kind):
    # As where a training in float32 on a CPU goes on in bfloat16, or on a GPU: channels first, then channels last.
    torch.manual_seed(0)
    first = torch.nn.Conv2d(3, 4, 3)
    last = copy.deepcopy(first).to(memory_format=torch.channels_last)
    image, one = torch.randn(1, 3, 8, 8), Optimiser(first, TrainSettings(optimiser=kind))

    def step(network, optimiser):
        optimiser.inner.zero_grad()
        network(image).square().mean().backward()
        optimiser.inner.step()

    step(first, one)
    last.load_state_dict(first.state_dict())
    other = Optimiser(last, TrainSettings(optimiser=kind))
    other.restore(copy.deepcopy(one.state()))
    for _ in range(3):
        step(first, one)
        step(last, other)
    torch.testing.assert_close(last.weight, first.weight)


def test_a_loss_is_asked_for_at_every_tenth_step_alone():
    asked = []

    class Loss:
        def __init__(self, number):
            self.number = number

        def item(self):
            asked.append((self.number, step))
            return 0.5

    training = object.__new__(train.Training)
    training.network, training.title = torch.nn.Linear(1, 1), "2d fold 0"
    training.options = TrainSettings(iterations_per_epoch=25)
    training.optimiser = Optimiser(training.network, training.options)
    step = 0

    def stepped(*_):
        nonlocal step
        step += 1
        return Loss(step)

    training.step = stepped
    assert training.learn(0, itertools.repeat((None, None)), progress=False) == 0.5
    assert [pair for pair in asked if pair[1] < 25] == [(10, 10), (20, 20)]


def test_a_step_that_does_not_fit_into_a_gpu_is_said(goals, tmp_path, monkeypatch):
    run = Run(make_run(tmp_path, goals))
    training = train.Training(train.open_fold(run, "2d", 0), build_network(run.plan, "2d", True), None)
    batch = [torch.stack(part) for part in zip(*(training.patches[n] for n in range(2)), strict=True)]

    def full():
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patched, pytest.raises(OctkitError, match="a batch of 2 patches"):
        patched.setattr(training.optimiser.inner, "step", full)
        training.step(*batch)
    assert torch.isfinite(training.step(*batch))


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_stopped_and_resumed_is_the_same_as_undisturbed(goals, tmp_path, kind):
    change = f"train.optimiser={kind}"
    whole, halved = (make_run(tmp_path / name, goals, change) for name in ("whole", "halved"))
    train_fold(Run(whole), progress=False)
    train_and_stop_in_the_second_epoch(halved)
    assert load_checkpoint(halved / "models/2d/fold_0/checkpoint.pt")["epoch"] == 1
    train_fold(Run(halved), progress=False)
    assert equal(weights(whole), weights(halved))
    assert log_of(whole).equals(log_of(halved))


def test_what_a_stop_left_behind_is_mended(goals, tmp_path):
    run = make_run(tmp_path, goals, "train.epochs=2")
    half = run / "models/2d/fold_0/.checkpoint.pt.12345678.tmp"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    path = train_fold(Run(run), progress=False) / "log.csv"
    assert not half.exists()
    whole = path.read_text()
    path.write_text("".join(whole.splitlines(keepends=True)[:-1]))  # an epoch behind its checkpoint
    train_fold(Run(run), progress=False)
    assert path.read_text() == whole


def test_the_number_of_workers_changes_nothing(goals, tmp_path):
    alone, *others = (make_run(tmp_path / str(n), goals, f"train.workers={n}", "train.epochs=2") for n in (0, 1, 2))
    train_fold(Run(alone), progress=False)
    for run in others:
        train_fold(Run(run), progress=False)
        assert equal(weights(alone), weights(run))
        assert log_of(alone).equals(log_of(run))


def test_two_trainings_of_one_fold_are_refused_and_of_two_are_not(goals, tmp_path):
    run = make_run(tmp_path, goals, "train.epochs=1", "train.folds=[0,1]")
    (run / "models/2d/fold_0").mkdir(parents=True)
    with locks.locked(run / "models/2d/fold_0"):
        with pytest.raises(OctkitError, match=r"fold_0: process \d+"):
            train_fold(Run(run), progress=False)
        train_fold(Run(run), fold=1, progress=False)
    train_fold(Run(run), progress=False)


def test_a_damaged_checkpoint_costs_an_epoch_and_no_bit(goals, tmp_path, capsys):
    run = make_run(tmp_path, goals)
    folder = train_fold(Run(run), progress=False)
    whole, log, scalars = weights(run), log_of(run), scalars_of(folder)
    stored = folder / "checkpoint.pt"
    stored.write_bytes(stored.read_bytes()[:-1] + b"x")
    with pytest.raises(OctkitError, match="checksum"):
        finished_weights(Run(run), "2d", 0)
    train_fold(Run(run), progress=False)
    assert "goes on after epoch 2 of 3" in capsys.readouterr().out
    assert equal(whole, weights(run)) and log.equals(log_of(run))
    again = scalars_of(folder)
    assert again.keys() == scalars.keys() > {"train_loss", "dice_rnfl"}
    assert all(again[name] == scalars[name] for name in again if name != "seconds")
    for path in folder.glob("checkpoint*.pt"):
        path.write_bytes(b"")
    with pytest.raises(OctkitError, match="--restart"):
        train_fold(Run(run), progress=False)
    train_fold(Run(run), resume=False, progress=False)
    assert equal(whole, weights(run))


def test_a_full_disk_stops_with_a_sentence_and_nothing_is_lost(goals, tmp_path, small_disk):
    """A disk that holds the run and its first checkpoint, but no second one beside it; then some space is freed."""
    free, undisturbed = make_run(small_disk, goals), make_run(tmp_path / "elsewhere", goals)
    train_fold(Run(undisturbed), progress=False)
    ballast = small_disk / "ballast"
    size = (undisturbed / "models/2d/fold_0/checkpoint.pt").stat().st_size
    fill(ballast, leave=size * 3 // 2)
    with pytest.raises(OctkitError, match="checkpoint.pt: the disk is full"):
        train_fold(Run(free), progress=False)
    folder = free / "models/2d/fold_0"
    assert load_checkpoint(folder / "checkpoint.pt")["epoch"] == 1
    assert not list(folder.glob(".*.tmp"))
    ballast.unlink()
    train_fold(Run(free), progress=False)
    assert equal(weights(undisturbed), weights(free)) and log_of(undisturbed).equals(log_of(free))


def test_a_full_disk_in_preprocessing_leaves_whole_files_only(goals, small_disk):
    run = make_run(small_disk, goals)
    whole = contents(run / "preprocessed/2d")
    shutil.rmtree(run / "preprocessed/2d")
    fill(small_disk / "ballast", leave=3 * len(whole["0001.image.npy"]))
    with pytest.raises(OctkitError, match=r"preprocessed/2d/.*: the disk is full"):
        steps.preprocess_run(Run(run), progress=False)
    left = contents(run / "preprocessed/2d")
    assert left and left.items() < whole.items()
    (small_disk / "ballast").unlink()
    steps.preprocess_run(Run(run), progress=False)
    assert contents(run / "preprocessed/2d") == whole


def test_other_settings_start_again_and_say_so(goals, tmp_path, capsys):
    run = make_run(tmp_path, goals, "train.epochs=1")
    train_fold(Run(run), progress=False)
    finished = contents(run / "models/2d/fold_0")
    make_run(tmp_path, goals, "train.epochs=1", "train.initial_rate=0.001", "train.deep_supervision=false")
    log = train_fold(Run(run), progress=False) / "log.csv"
    kept = run / "models/2d/before-1.fold_0"
    said = capsys.readouterr().out
    assert "train settings changed" in said and str(kept) in said
    assert contents(kept) == {name: finished[name] for name in ("checkpoint.pt", "log.csv")}
    assert pd.read_csv(log)["learning_rate"].tolist() == [0.001] and np.isfinite(pd.read_csv(log)["train_loss"]).all()


def test_a_training_that_has_ended_is_left_as_it_is(goals, tmp_path):
    run = make_run(tmp_path, goals, "train.epochs=1")
    ended = contents(train_fold(Run(run), progress=False))
    del ended[".lock"]  # names who had it last
    again = contents(train_fold(Run(run), progress=False))
    del again[".lock"]
    assert again == ended


def test_what_trains_is_said_as_it_trains(goals, tmp_path, monkeypatch, capsys):
    run = make_run(tmp_path, goals, "train.precision=bfloat16", "train.epochs=1", "train.initial_rate=0.003")
    monkeypatch.setattr(train, "working_precision", lambda *_: "float32")  # a processor without bfloat16
    train_fold(Run(run), progress=False)
    assert ("2d fold 0: 3 scans to train on, 3 held out; 1 epochs of 2 batches of 2 patches of 40 x 48 px, sgd, rate "
            "0.003, float32 on cpu") in capsys.readouterr().out


def test_a_training_is_kept_whenever_the_next_one_is_killed_and_whatever_starts_it_again(goals, tmp_path):
    run = make_run(tmp_path, goals)
    folder = train_fold(Run(run), progress=False)
    finished = contents(folder)["checkpoint.pt"]
    opened = train.open_fold(Run(run), "2d", 0)
    for _ in killed_at_each_write(lambda: train._begin_anew(opened, "was asked to start again")):
        found = [path for path in (run / "models/2d").glob("*/checkpoint.pt") if path.read_bytes() == finished]
        assert found  # whole, in its own folder or beside it
        if not (folder / "checkpoint.pt").exists():
            os.link(found[0], folder / "checkpoint.pt")
    train_fold(Run(run), resume=False, progress=False)
    kept = sorted((run / "models/2d").glob("before-*"))[-1]
    assert (kept / "checkpoint.pt").read_bytes() == finished
    assert not (folder / "checkpoint.pt").samefile(kept / "checkpoint.pt")


def test_fold_all_has_no_validation(goals, tmp_path):
    run = make_run(tmp_path, goals, 'train.folds=["all"]', "train.epochs=1")
    log = pd.read_csv(train_fold(Run(run), fold="all", progress=False) / "log.csv")
    assert log[["validation_loss", "dice_rnfl"]].isna().all().all() and np.isfinite(log["train_loss"]).all()


def test_it_learns(goals, tmp_path):
    run = make_run(tmp_path, goals, "train.epochs=6", "train.iterations_per_epoch=15", "train.initial_rate=0.05",
                   "plan.base_features=8", "plan.max_features=16")
    log = pd.read_csv(train_fold(Run(run), progress=False) / "log.csv")
    assert log["dice_rnfl"].iloc[-1] > 0.8
    assert log["train_loss"].iloc[-1] < log["train_loss"].iloc[0] - 0.5
    assert list(log) == ["epoch", "learning_rate", "train_loss", "validation_loss", "dice_rnfl", "dice_gcipl",
                         "dice_choroid", "seconds"]


def test_a_residual_network_is_planned_and_learns(goals, tmp_path):
    run = Run(make_run(tmp_path, goals, "plan.architecture=residual", "train.epochs=2", "train.iterations_per_epoch=6"))
    plan = run.plan.configurations["2d"]
    assert plan.blocks == (1, 3, 4, 6, 6, 6)[:len(plan.features)]
    assert read_json(run.plan_file)["blueprint"]["architecture"]["value"] == "residual"
    log = pd.read_csv(train_fold(run, progress=False) / "log.csv")
    assert log["train_loss"].iloc[-1] < log["train_loss"].iloc[0]
    assert load_checkpoint(run.checkpoint("2d", 0))["network"]["encoder.0.0.layers.4.weight"].any()  # begins with 0


def test_what_is_missing_is_named(goals, tmp_path, monkeypatch):
    run = make_run(tmp_path, goals)
    with monkeypatch.context() as patched, pytest.raises(OctkitError, match="2d needs about 0.2 GB"):
        patched.setattr(train.memory, "free_bytes", lambda _: 1000)
        train_fold(Run(run))
    next((run / "preprocessed/2d").glob("*.json")).unlink()
    with pytest.raises(OctkitError, match="octkit preprocess"):
        train_fold(Run(run), fold="all")


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """A run on striped volumes whose plan is a cascade's, with extra cases beside; nothing is trained yet."""
    folder = tmp_path_factory.mktemp("volumes")
    write_volumes(folder / "own", size=(8, 48, 64))
    write_volumes(folder / "more", size=(8, 48, 64))
    return make_run(folder, folder / "own", "data.phantom=null", f'train.extra_data=["{folder / "more"}"]',
                    "plan.memory_gb=0.0015", "train.folds=[0,1]", "train.epochs=1", "augment.mirror_axes=[-1,-3]")


def test_extra_cases_are_learned_from_and_never_validated_on(volumes):
    own = {case.name for case in detect.open_dataset(volumes / "own").train}
    for split in Run(volumes).splits:
        extra = set(split["train"]) - own
        assert extra and all(name.startswith("more_") for name in extra) and set(split["validation"]) < own
    assert all((volumes / f"preprocessed/2d/{name}.json").exists() for name in extra)


def test_a_second_step_needs_the_first_ones_predictions_and_says_how_to_get_them(volumes):
    with pytest.raises(OctkitError, match="--config 3d_lowres --fold 0; octkit .* --fold 1"):
        train_fold(Run(volumes), "3d_cascade_fullres", 0, progress=False)


def test_a_cascade_is_trained_on_held_out_masks_of_its_first_step(volumes, capsys):
    for fold in (0, 1):
        train_fold(Run(volumes), "3d_lowres", fold, progress=False)
        predict_held_out(Run(volumes), "3d_lowres", fold, progress=False)
    train_fold(Run(volumes), "3d_cascade_fullres", 0, progress=False)
    assert "has seen the" in capsys.readouterr().out  # extra cases are left out, and that is said
    found = load_checkpoint(volumes / "models/3d_cascade_fullres/fold_0/checkpoint.pt")["network"]
    assert found["encoder.0.layers.0.weight"].shape[1] == 1 + 3
    [case, *_] = train.open_fold(Run(volumes), "3d_cascade_fullres", 0).validation
    assert case.previous.shape == case.mask.shape and case.previous.dtype == np.uint8


@pytest.mark.parametrize("config", ["2d", "3d_fullres"])
def test_configurations_of_volumes_train_and_log(volumes, config):
    log = pd.read_csv(train_fold(Run(volumes), config, 0, progress=False) / "log.csv")
    assert np.isfinite(log["train_loss"]).all() and np.isfinite(log["validation_loss"]).all()


def test_a_training_that_starts_from_a_model_begins_with_its_weights(goals, tmp_path):
    first = make_run(tmp_path / "first", goals)
    train_fold(Run(first), progress=False)
    second = make_run(tmp_path / "second", goals, f"train.start_from={first}", "train.initial_rate=1e-12", "seed=7")
    train_fold(Run(second), progress=False)
    assert all(torch.allclose(tensor, weights(first)[name], atol=1e-7) for name, tensor in weights(second).items())
    train_fold(Run(second), progress=False)  # done: the checkpoint is that of this very start
    kept = weights(second)
    train_fold(Run(make_run(tmp_path / "first", goals, "seed=3")), progress=False)
    train_fold(Run(second), progress=False)  # the model it starts from is another one now
    assert not equal(weights(second), kept)


def test_going_on_leaves_no_doubles_and_no_gaps_in_tensorboard(tmp_path):
    """After a stop between checkpoint and scalars, or in the midst of writing them; also for one that is running."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = [{"epoch": 1, "train_loss": 0.5, "dice_rnfl": None}, {"epoch": 2, "train_loss": 0.25, "dice_rnfl": 0.75}]
    with tensorboard(tmp_path, log[:1]) as add:
        add({"epoch": 2, "train_loss": 9.0})  # of an epoch whose checkpoint was lost
    [written] = tmp_path.iterdir()
    before = written.rename(tmp_path / "events.out.tfevents.1234567890.earlier")
    with open(before, "ab") as file:
        file.write(b"torn")
    running = EventAccumulator(str(tmp_path)).Reload()
    with tensorboard(tmp_path, log) as add:
        add({"epoch": 3, "train_loss": 1e-7})
        assert scalars_of(tmp_path) == {"train_loss": [(1, 0.5), (2, 0.25), (3, pytest.approx(1e-7, rel=1e-6))],
                                        "dice_rnfl": [(2, 0.75)]}
    assert [event.step for event in running.Reload().Scalars("train_loss")] == [1, 2, 3]


def test_a_disk_that_is_full_of_scalars_is_said(small_disk, capfd):
    with pytest.raises(OctkitError, match="the disk is full"), tensorboard(small_disk, []) as add:
        add({"epoch": 1, "train_loss": 0.5})
        fill(small_disk / "ballast", leave=0)
        for epoch in range(2, 200):
            add({"epoch": epoch, "train_loss": 0.5})
    assert capfd.readouterr().err == ""


def test_training_does_without_tensorboard_until_it_writes():
    code = "import sys, octkit.training.train; print('tensorboard' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_code_that_decides_a_training_is_what_it_imports():
    files = {path.relative_to(hashes.PACKAGE).as_posix()
             for path in hashes.code_files("octkit.training.train", train.CODE_ROOMS)}
    own = {f"training/{path.name}" for path in (hashes.PACKAGE / "training").glob("*.py")}
    own -= {"training/__init__.py", "training/cost.py"}  # what a training would take decides nothing of it
    assert {"network/unet.py", "network/model.py", "network/checkpoints.py", "evaluation/metrics.py"} | own <= files
    assert all(name.split("/")[0] in ("network", "evaluation", "training") for name in files)


@pytest.mark.parametrize(("edited", "another"), [
    ("network/unet.py", True), ("evaluation/metrics.py", True), ("training/cascade_errors.py", True),
    ("lessons/notebook.py", False), ("training/stranger.py", False), ("planning/folds.py", False)])
def test_a_checkpoint_is_of_another_training_where_that_code_changed(goals, tmp_path, monkeypatch, edited, another):
    run = Run(make_run(tmp_path / "run", goals))
    fold = train.open_fold(run, "2d", 0)
    package = shutil.copytree(hashes.PACKAGE, tmp_path / "octkit", ignore=shutil.ignore_patterns("*.zip", "*.pyc"))
    (package / "training/stranger.py").write_text('"""Imported by nobody."""\n')
    monkeypatch.setattr(hashes, "PACKAGE", package)
    before = train.fingerprint_of(fold)
    with open(package / edited, "a") as file:
        file.write("\nEDITED = True\n")
    after = train.fingerprint_of(fold)
    assert {name for name in before if before[name] != after[name]} == ({"code"} if another else set())


@pytest.mark.parametrize(("wanted", "steps", "maps", "expected"), [
    ("always", 1, 1, True), ("never", 10**6, 512, False), ("auto", train.COMPILED_STEPS, train.COMPILED_MAPS, True),
    ("auto", train.COMPILED_STEPS - 1, 512, False), ("auto", 10**6, train.COMPILED_MAPS - 1, False)])
def test_when_a_training_is_compiled(monkeypatch, wanted, steps, maps, expected):
    monkeypatch.setattr(train, "why_not", lambda _: None)
    monkeypatch.setattr(torch, "compile", lambda network: ("compiled", network))
    assert compiled("network", wanted, steps, maps, CPU) == (("compiled", "network") if expected else "network")


def test_where_torch_cannot_compile(monkeypatch, capsys):
    monkeypatch.setattr(train, "why_not", lambda _: "no g++")
    assert compiled("network", "auto", 10**6, 512, CPU) == "network"
    assert "no g++" in capsys.readouterr().out
    with pytest.raises(OctkitError, match=r"train.compile: .*no g\+\+"):
        compiled("network", "always", 1, 1, CPU)


def test_a_missing_compiler_is_noticed(tmp_path):
    code = "import torch; from octkit.training.train import why_not; print(why_not(torch.device('cpu')))"
    environment = os.environ | {"PATH": "", "CXX": "", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "ompiler" in run.stdout


def test_a_compiled_network_learns_the_same():
    if reason := why_not(CPU):
        pytest.skip(f"torch cannot compile here: {reason}")
    torch.manual_seed(0)
    network = UNet(1, 3, (4, 6), ((1, 1), (2, 2)), ((3, 3), (3, 3)))
    image = torch.randn(2, 1, 16, 24)
    found = []
    for call in (network, compiled(network, "always", 1, 1, CPU)):
        network.zero_grad()
        loss = sum(logits.square().mean() for logits in call(image))
        loss.backward()
        found.append([loss.detach(), *(weights.grad.clone() for weights in network.parameters())])
    for plain, fused in zip(*found, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-3, atol=1e-5)
