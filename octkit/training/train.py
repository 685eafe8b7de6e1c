"""Train one fold: patches, the two optimisers of the recipe, logs, checkpoints, resuming.

Leaves models/<config>/fold_<k>/checkpoint.pt (after each epoch, and the one before it), log.csv and TensorBoard
scalars. Patches come by number (`patches`), so neither the number of workers nor a stop and resume changes what is
learned. Log and scalars follow from the checkpoint: whatever moment a training is stopped in, all that it leaves
in the end is what it would have left undisturbed, but for the log's last column, the seconds that an epoch took here.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from octkit.common import locks, settings
from octkit.common.errors import OctkitError
from octkit.common.files import clear_unfinished, replacing, saying_disk_full
from octkit.common.hashes import code_files
from octkit.evaluation.metrics import dice_from_counts
from octkit.network import memory
from octkit.network.checkpoints import newest_checkpoint, remove_checkpoints, save_checkpoint
from octkit.network.model import autocast, build_network, choose_device, memory_format, working_precision
from octkit.network.model_file import starting_weights
from octkit.planning.folds import fold_cases
from octkit.planning.plan import Plan
from octkit.planning.preprocess import PreprocessedCase, load_preprocessed
from octkit.planning.run import Run
from octkit.training.augmentation import Augmenter
from octkit.training.batches import batches
from octkit.training.loss import deep_supervision_loss
from octkit.training.patches import Patches

# nnU-Net's gradient clipping: a bad batch early on cannot throw the weights away.
MAX_GRADIENT_NORM = 12.0
POLY_POWER = 0.9
# nnU-Net v1's plateau rule, which the report names: the smoothed training loss has to fall by 1e-3 in 30 epochs.
PLATEAU = {"factor": 0.2, "patience": 30, "threshold": 1e-3, "threshold_mode": "abs"}
LOSS_SMOOTHING = 0.93
# What training does is decided in these rooms, as far as this module imports them: after a change a checkpoint is of
# another training.
CODE_ROOMS = ("octkit.training", "octkit.network", "octkit.evaluation")
# Keeps the validation patches' random numbers apart from the training patches'.
VALIDATION_STREAM = 1


def poly_rate(initial: float, epoch: int, epochs: int) -> float:
    """The rate of epoch 0 … epochs - 1: initial x (1 - epoch / epochs)^0.9; 0.01 halfway is 0.0054."""
    return initial * (1 - epoch / epochs) ** POLY_POWER


class Optimiser:
    """The optimiser with its rate's schedule: `sgd` with the poly rule or `adam` with the plateau rule."""

    def __init__(self, network: torch.nn.Module, chosen: settings.TrainSettings):
        self.chosen = chosen
        self.smoothed_loss: float | None = None
        self.plateau = None
        if chosen.optimiser == "sgd":
            self.step = torch.optim.SGD(network.parameters(), chosen.initial_rate, momentum=chosen.momentum,
                                        nesterov=chosen.momentum > 0, weight_decay=chosen.weight_decay, fused=True)
        else:
            self.step = torch.optim.Adam(network.parameters(), chosen.initial_rate, weight_decay=chosen.weight_decay,
                                         fused=True)
            self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(self.step, **PLATEAU)

    def start_epoch(self, epoch: int) -> float:
        """Set and return the learning rate of this epoch."""
        if self.plateau is None:
            for group in self.step.param_groups:
                group["lr"] = poly_rate(self.chosen.initial_rate, epoch, self.chosen.epochs)
        return self.step.param_groups[0]["lr"]

    def end_epoch(self, training_loss: float) -> None:
        if self.plateau is not None:
            before = training_loss if self.smoothed_loss is None else self.smoothed_loss
            self.smoothed_loss = LOSS_SMOOTHING * before + (1 - LOSS_SMOOTHING) * training_loss
            self.plateau.step(self.smoothed_loss)

    def state(self) -> dict:
        return {"optimiser": self.step.state_dict(), "smoothed_loss": self.smoothed_loss,
                "plateau": self.plateau.state_dict() if self.plateau else None}

    def restore(self, state: dict) -> None:
        self.step.load_state_dict(state["optimiser"])
        self.smoothed_loss = state["smoothed_loss"]
        if self.plateau is not None:
            self.plateau.load_state_dict(state["plateau"])


def train_fold(run: Run, config: str = "2d", fold: int | str = 0, resume: bool = True,
               progress: bool = True) -> Path:
    """Train a fold of a run to its end, going on from its checkpoint where there is one.

    Args:
        run: a run with settings, plan, splits and preprocessed cases.
        config: the plan's configuration. A cascade's second stage needs the first stage's predictions of all its
            training cases: train that one's folds first.
        fold: a fold's number, or "all" for training on everything without validation.
        resume: False starts again even where a checkpoint fits.

    Returns:
        The fold's folder. Raises OctkitError where a step before is missing, where another process trains this fold,
        where the memory or the disk does not suffice, or where no checkpoint of it is whole.
    """
    chosen, plan = run.settings, run.plan
    if config not in plan.configurations:
        raise OctkitError(f"{run.plan_file}: has no configuration {config!r}, "
                          f"expected one of {', '.join(plan.configurations)}")
    dataset = run.training_data
    split = fold_cases(run.splits, fold, [case.name for case in dataset.training])
    first_stage = None
    if previous := plan.configurations[config].previous_stage:
        first_stage = run.first_step(config)
        split = _with_first_stage(run, split, [case.name for case in dataset.train], previous, first_stage)
    folder = run.fold(config, fold)
    training = load_preprocessed(run, config, split["train"], first_stage)
    validation = load_preprocessed(run, config, split["validation"], first_stage)
    decided_by = fingerprint_of(chosen, plan, config, split, training)

    torch.manual_seed(chosen.seed)
    network = build_network(plan, config, chosen.train.deep_supervision)
    if chosen.train.start_from is not None:
        start = starting_weights(chosen.train.start_from, config, fold, network.state_dict())
        network.load_state_dict(start)
        decided_by["start"] = _digest({name: tensor.double().sum().item() for name, tensor in start.items()})
    folder.mkdir(parents=True, exist_ok=True)
    with locks.locked(folder):
        clear_unfinished(folder)
        if not resume:
            remove_checkpoints(folder / "checkpoint.pt")
        title, command = f"{config} fold {fold}", f"octkit train {run.folder} --config {config} --fold {fold} --restart"
        checkpoint = _checkpoint_to_go_on_from(folder / "checkpoint.pt", decided_by, title, command)
        log = checkpoint["log"] if checkpoint else []
        if log:
            print(f"{title}: goes on after epoch {len(log)} of {chosen.train.epochs}")
        # Again: a stop behind a checkpoint has left the log and the scalars an epoch behind.
        _write_log(folder / "log.csv", log)
        scalars = Scalars(folder, log)
        if len(log) < chosen.train.epochs:
            device = choose_device(chosen.device)
            precision = working_precision(chosen.train.precision, device)
            memory.check_training(network, plan, config, chosen.train, device, precision)
            memory.keep_freed_memory()
            network.to(device, memory_format=memory_format(len(plan.configurations[config].patch_size), device,
                                                           precision, training=True))
            optimiser = Optimiser(network, chosen.train)
            if checkpoint:
                network.load_state_dict(checkpoint["network"])
                optimiser.restore(checkpoint["optimiser"])
            _train_epochs(network, optimiser, log, scalars, chosen, plan, config, training, validation, folder,
                          decided_by, device, precision, title, progress)
    return folder


def _checkpoint_to_go_on_from(path: Path, decided_by: dict[str, str], title: str, restart: str) -> dict | None:
    """The newest checkpoint of this training; None where it starts. Raises OctkitError where none is whole."""
    try:
        checkpoint = newest_checkpoint(path)
    except OctkitError as error:
        raise OctkitError(f"{error}; no checkpoint of this fold is whole: train it anew with `{restart}`") from None
    if checkpoint is None or checkpoint["decided_by"] == decided_by:
        return checkpoint
    changed = [key for key in decided_by if decided_by[key] != checkpoint["decided_by"].get(key)]
    print(f"{title}: {', '.join(changed)} changed since the checkpoint was written: training starts again")
    remove_checkpoints(path)  # until the first epoch ends it would pass for this training's result
    return None


def _with_first_stage(run: Run, split: dict, own: Sequence[str], previous: str, folder: Path) -> dict:
    """The split without extra cases, for which no fold of the first stage was blind. Raises where a mask is missing."""
    training = [name for name in split["train"] if name in set(own)]
    if len(training) < len(split["train"]):
        print(f"the second stage learns from {len(training)} cases: the first stage has seen the "
              f"{len(split['train']) - len(training)} extra ones in every fold")
    missing = [name for name in (*training, *split["validation"]) if not (folder / f"{name}.npy").exists()]
    if missing:
        folds = [k for k, part in enumerate(run.splits) if set(missing) & set(part["validation"])]
        commands = "; ".join(f"octkit train {run.folder} --config {previous} --fold {k}" for k in folds)
        raise OctkitError(f"{folder}: has no first-stage mask of {len(missing)} cases ({missing[0]} is the first); get "
                          f"them with: {commands}")
    return {"train": training, "validation": split["validation"]}


def fingerprint_of(chosen: settings.Settings, plan: Plan, config: str, split: dict,
                   training: Sequence[PreprocessedCase]) -> dict[str, str]:
    """What a checkpoint depends on, each part hashed: resuming is only right where all of it is unchanged."""
    parts = {
        "seed": chosen.seed,
        "train settings": chosen.train.model_dump(mode="json", exclude={"configs", "folds", "workers"}),
        "augment settings": chosen.augment.model_dump(mode="json"),
        "plan": plan.configurations[config].__dict__,
        "intensity": plan.intensity,
        "split": split,
        "code": [path.read_text() for path in code_files("octkit.training.train", CODE_ROOMS)],
        "preprocessed cases": [[case.name, list(case.image.shape), float(case.image[..., ::7].sum())]
                               for case in training],
        "first stage": [[case.name, int(case.previous[..., ::7].sum())] for case in training if case.first_step],
    }
    return {name: _digest(part) for name, part in parts.items()}


def _digest(part) -> str:
    return hashlib.sha256(json.dumps(part, sort_keys=True, default=list).encode()).hexdigest()[:16]


def _train_epochs(network, optimiser, log, scalars, chosen, plan, config, training, validation, folder, decided_by,
                  device, precision, title, progress) -> None:
    options, configuration = chosen.train, plan.configurations[config]
    batch_size, patch_size = configuration.batch_size, configuration.patch_size
    augmenter = Augmenter(patch_size, chosen.augment.rotation_degrees, chosen.augment.mirror_axes)
    shown = len(plan.classes) if configuration.previous_stage else 0  # first-stage labels shown to the network
    patches = Patches(training, patch_size, batch_size, options.oversample, (chosen.seed,), augmenter, shown)
    held_out = Patches(validation, patch_size, batch_size, options.oversample, (chosen.seed, VALIDATION_STREAM), None,
                       shown)
    done, steps = len(log), options.iterations_per_epoch
    # Decided by the whole training's length: gone on with after a stop, it rounds as it would have undisturbed.
    called = compiled(network, options.compile, options.epochs * steps, configuration.features[0], device)
    with batches(patches, done * steps, options.epochs * steps, options.workers, device) as source:
        for epoch in range(done, options.epochs):
            started = time.perf_counter()
            rate = optimiser.start_epoch(epoch)
            network.train()
            losses = []
            bar = tqdm(range(steps), desc=f"{title} epoch {epoch + 1}/{options.epochs}", unit="batch",
                       disable=not progress, leave=epoch + 1 == options.epochs)
            for _ in bar:
                loss = _step(called, optimiser.step, *next(source), configuration.batch_dice, precision, device)
                losses.append(loss)
                bar.set_postfix(loss=f"{loss:.3f}", rate=f"{rate:.1e}")
            row = {"epoch": epoch + 1, "learning_rate": rate, "train_loss": float(np.mean(losses))}
            row |= _validate(network, held_out, epoch, options.validation_iterations, configuration.batch_dice,
                             plan.classes, precision, device) if validation else _no_validation(plan.classes)
            row["seconds"] = round(time.perf_counter() - started, 3)
            optimiser.end_epoch(row["train_loss"])
            log.append(row)
            save_checkpoint(folder / "checkpoint.pt", {
                "network": network.state_dict(), "optimiser": optimiser.state(), "log": log, "epoch": epoch + 1,
                "epochs": options.epochs, "decided_by": decided_by})
            _write_log(folder / "log.csv", log)
            scalars.add(row)


def _step(called, optimiser, images, masks, batch_dice: bool, precision: str, device: torch.device) -> float:
    images = images.to(device, non_blocking=True, memory_format=memory_format(images.ndim - 2, device, precision, True))
    masks = masks.to(device, non_blocking=True)
    optimiser.zero_grad(set_to_none=True)
    try:
        with autocast(precision, device):
            loss = _loss(called(images), masks, batch_dice)
        loss.backward()
    except torch.OutOfMemoryError:
        raise OctkitError(f"a batch of {len(images)} patches does not fit into the GPU's memory; lower "
                          "plan.batch_size, or plan.memory_gb and let the planner choose") from None
    torch.nn.utils.clip_grad_norm_(called.parameters(), MAX_GRADIENT_NORM)
    optimiser.step()
    value = loss.item()
    if not np.isfinite(value):
        raise OctkitError(f"the training loss became {value}; lower train.initial_rate or use train.precision=float32")
    return value


def _loss(outputs, masks: torch.Tensor, batch_dice: bool) -> torch.Tensor:
    # Without deep supervision the network returns one tensor, which is a list of one output.
    return deep_supervision_loss(outputs if isinstance(outputs, list) else [outputs], masks, batch_dice)


@torch.no_grad()
def _validate(network, patches: Patches, epoch: int, iterations: int, batch_dice: bool, classes, precision: str,
              device: torch.device) -> dict:
    """Loss and pseudo-Dice on held-out patches: Dice of all patches as if they were one scan, as nnU-Net logs it."""
    network.eval()
    losses, counts = [], np.zeros((3, len(classes)))
    for batch in range(epoch * iterations, (epoch + 1) * iterations):
        items = [patches[number] for number in range(batch * patches.batch_size, (batch + 1) * patches.batch_size)]
        images = torch.stack([image for image, _ in items])
        images = images.to(device, memory_format=memory_format(images.ndim - 2, device, precision, True))
        masks = torch.stack([mask for _, mask in items]).to(device)
        with autocast(precision, device):
            outputs = network(images)
            losses.append(_loss(outputs, masks, batch_dice).item())
        predicted = (outputs[0] if isinstance(outputs, list) else outputs).argmax(1)
        for label in range(1, len(classes) + 1):
            ours, theirs = predicted == label, masks == label
            counts[:, label - 1] += [(ours & theirs).sum().item(), ours.sum().item(), theirs.sum().item()]
    dice = [dice_from_counts(*counts[:, i]) for i in range(len(classes))]
    return {"validation_loss": float(np.mean(losses)),
            **{f"dice_{name}": None if np.isnan(value) else float(value)
               for name, value in zip(classes, dice, strict=True)}}


def _no_validation(classes) -> dict:
    return {"validation_loss": None, **{f"dice_{name}": None for name in classes}}


def _write_log(path: Path, log: list[dict]) -> None:
    if not log:  # of a training that starts: what is there is another one's
        path.unlink(missing_ok=True)
        return
    with replacing(path) as temporary:
        pd.DataFrame(log).to_csv(temporary, index=False)


WIDE = 32  # maps at full resolution from which on something was gained: 55 ms a step, where 16 maps gained none
PAYS_AFTER = 1200  # steps, in which half a minute is gained twice


def compiled(network: torch.nn.Module, wanted: str, steps: int, maps: int, device: torch.device) -> Callable:
    """The network as it is to be called in training; its weights stay where they are.

    Args:
        wanted: "always", "never", or "auto": where torch can compile, for many `steps` of networks with many `maps` at
            full resolution.

    Raises OctkitError where torch cannot, for want of a C++ compiler above all, and it is wanted always.
    """
    if wanted == "never" or (wanted == "auto" and (steps < PAYS_AFTER or maps < WIDE)):
        return network
    if reason := why_not(device):
        if wanted == "always":
            raise OctkitError(f"train.compile: torch cannot compile here ({reason}), expected a C++ compiler such as "
                              "g++ on the path; set train.compile=auto or train.compile=never")
        print(f"training is not compiled and takes longer: torch cannot compile here ({reason})")
        return network
    print("the network is compiled, which takes about half a minute before the first step")
    return torch.compile(network)


def why_not(device: torch.device) -> str | None:
    """Why torch cannot compile on this device; None where it can. Found out by compiling a product and its gradient."""
    number = torch.ones(2, device=device, requires_grad=True)
    try:
        torch.compile(lambda x: (x * x).sum())(number).backward()
    except RuntimeError as error:  # of many kinds, by what is missing
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return None


class Scalars:
    """The events file of a folder: everything in `log` (rows with "epoch" and numbers), and what `add` appends."""

    def __init__(self, folder: Path, log: Sequence[Mapping[str, float | None]]):
        from tensorboard.compat.proto import event_pb2, summary_pb2  # slow to import, and needed only here

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        for path in Path(folder).glob("events.out.tfevents.*"):
            path.unlink()
        # Another name than before: a TensorBoard that runs would go on reading the file that is gone.
        self.path = Path(folder) / f"events.out.tfevents.{time.time_ns()}.octkit"
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)  # a TensorBoard that runs forgets what it has
        self._write([self._event(file_version="brain.Event:2"), self._event(step=1, session_log=start)])
        for row in log:
            self.add(row)

    def add(self, row: Mapping[str, float | None]) -> None:
        """Append one epoch's numbers; those that are None are left out."""
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in row.items()
                  if name != "epoch" and value is not None]
        self._write([self._event(wall_time=time.time(), step=row["epoch"], summary=self._summary(value=values))])

    def _write(self, events: Sequence) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        # torch's SummaryWriter writes in a thread of its own, where a full disk is an error that nobody sees.
        with saying_disk_full(self.path), open(self.path, "ab") as file:
            writer = RecordWriter(file)
            for event in events:
                writer.write(event.SerializeToString())
