"""Train one fold: patches, the two optimisers of the recipe, logs, checkpoints, resuming.

Leaves models/<config>/fold_<k>/checkpoint.pt (after each epoch, and the one before it), log.csv and TensorBoard
scalars. Patches come by number, and log and scalars follow from the checkpoint: neither the number of workers nor a
stop and resume changes anything, but for the log's last column, the seconds that an epoch took. Several processes may
share one training (`ranks`); a training that one began goes on with several.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from octkit.common import locks
from octkit.common.errors import OctkitError, by, saying_what_is_kept
from octkit.common.files import clear_unfinished, replacing, saying_disk_full, set_aside
from octkit.common.hashes import code_files
from octkit.common.messages import say
from octkit.common.settings import TrainSettings
from octkit.common.system import use_private_caches
from octkit.data.labels import IGNORE
from octkit.evaluation.metrics import dice_from_counts
from octkit.network import memory
from octkit.network.checkpoints import newest_checkpoint, previous_of, save_checkpoint
from octkit.network.model import as_trained, autocast, build_network, choose_device, memory_format, working_precision
from octkit.network.model_file import starting_weights
from octkit.planning.folds import Split, fold_cases
from octkit.planning.preprocess import PreprocessedCase, load_preprocessed
from octkit.planning.run import Run
from octkit.training import ranks
from octkit.training.augmentation import Augmenter
from octkit.training.batches import Batch, batches
from octkit.training.loss import deep_supervision_loss
from octkit.training.patches import Patches

MAX_GRADIENT_NORM = 12.0  # nnU-Net's gradient clipping
POLY_POWER = 0.9
# nnU-Net v1's plateau rule, which the report names: the smoothed training loss has to fall by 1e-3 in 30 epochs.
PLATEAU_FACTOR, PLATEAU_PATIENCE, PLATEAU_THRESHOLD = 0.2, 30, 1e-3
LOSS_SMOOTHING = 0.93
LOOK_EVERY = 10  # steps: to ask a GPU for a loss stops it until all that it was given is done
HELD_OUT_WORKERS = 2  # make held-out patches beside a GPU; they are not augmented
VALIDATION_STREAM = 1  # keeps the validation patches' random numbers apart from the training patches'
# After a change in these rooms, as far as this module imports them, a checkpoint is of another training.
CODE_ROOMS = ("octkit.training", "octkit.network", "octkit.evaluation")
# With so many maps at full resolution compiling gains 55 ms a step; after so many steps twice the time that it takes.
COMPILED_MAPS, COMPILED_STEPS = 32, 1200

Row = dict[str, float | None]  # an epoch's numbers by column of log.csv


def train_fold(run: Run, config: str = "2d", fold: int | str = 0, resume: bool = True, progress: bool = True,
               after_epoch: Callable[[Sequence[Row]], object] | None = None) -> Path:
    """Train a fold of a run to its end, going on from its checkpoint where there is one; returns its folder.

    Args:
        run: a run with settings, plan, splits and preprocessed cases.
        config: the plan's configuration. A cascade's second step needs the first step's predictions of all its cases.
        fold: a fold's number, or "all" for training on everything without validation.
        resume: False starts again even where a checkpoint fits.
        after_epoch: is called with the log, a row an epoch so far.

    A training with other settings, data or code, or one that is started again, is kept beside: before-1.fold_<k>.

    Raises OctkitError where a command before is missing, where another process trains this fold, where the memory or
    the disk does not suffice, or where no checkpoint of it is whole.
    """
    with ranks.joined(choose_device(run.settings.device)):
        opened = open_fold(run, config, fold)
        decided_by = fingerprint_of(opened)
        torch.manual_seed(run.settings.seed)
        network = build_network(run.plan, config, run.settings.train.deep_supervision)
        if (path := run.settings.train.start_from) is not None:
            network.load_state_dict(start := starting_weights(path, config, fold, network.state_dict()))
            decided_by["start"] = _digest({name: tensor.double().sum().item() for name, tensor in start.items()})
        opened.folder.mkdir(parents=True, exist_ok=True)
        with locks.locked(opened.folder) if ranks.rank() == 0 else nullcontext():
            checkpoint = ranks.of_first(lambda: _prepared(opened, decided_by, resume))
            _train(opened, network, checkpoint, decided_by, progress, after_epoch)
    return opened.folder


def _prepared(fold: "Fold", decided_by: dict[str, str], resume: bool) -> dict | None:
    """The checkpoint to go on from, None where training starts; other trainings' files are out of the way."""
    clear_unfinished(fold.folder)
    if not resume:
        _begin_anew(fold, "was asked to start again")
    checkpoint = _checkpoint_to_go_on_from(fold, decided_by)
    # A stop right after a checkpoint has left the log an epoch behind.
    _write_log(fold.folder / "log.csv", checkpoint["log"] if checkpoint else [])
    return checkpoint


def _train(fold: "Fold", network: torch.nn.Module, checkpoint: dict | None, decided_by: dict[str, str],
           progress: bool, after_epoch: Callable[[Sequence[Row]], object] | None) -> None:
    """Train to the end. The first rank keeps what is learned; the others learn along."""
    log, epochs = checkpoint["log"] if checkpoint else [], fold.run.settings.train.epochs
    if len(log) == epochs:
        say(f"{fold.title}: has been trained before, with these settings")
        return
    if log:
        say(f"{fold.title}: goes on after epoch {len(log)} of {epochs}")
    first = ranks.rank() == 0
    with tensorboard(fold.folder, log) if first else nullcontext() as add_scalars, saying_what_is_kept(fold.checkpoint):
        training = Training(fold, network, checkpoint)
        for row in training.epochs(progress and first):
            if add_scalars is not None:
                save_checkpoint(fold.checkpoint, training.state() | {"decided_by": decided_by})
                _write_log(fold.folder / "log.csv", training.log)
                add_scalars(row)
                if after_epoch is not None:
                    after_epoch(training.log)


@dataclass(frozen=True)
class Fold:
    """A fold of a configuration, its cases opened. `number` is "all" where nothing is held out."""

    run: Run
    config: str
    number: int | str
    split: Split
    training: tuple[PreprocessedCase, ...]
    validation: tuple[PreprocessedCase, ...]

    configuration = property(lambda self: self.run.plan.configurations[self.config])
    title = property(lambda self: f"{self.config} fold {self.number}")
    folder = property(lambda self: self.run.fold(self.config, self.number))
    checkpoint = property(lambda self: self.run.checkpoint(self.config, self.number))


def open_fold(run: Run, config: str, number: int | str) -> Fold:
    """Raises OctkitError for a configuration, a fold, a preprocessed case or a first step's mask that is missing."""
    plan = run.plan
    if config not in plan.configurations:
        raise OctkitError(f"{run.plan_file}: has no configuration {config!r}, "
                          f"expected one of {', '.join(plan.configurations)}")
    names = [case.name for case in run.training_data.training]
    split = fold_cases([] if number == "all" else run.splits, number, names)
    first_step = None
    if previous := plan.configurations[config].previous_stage:
        first_step = run.first_step(config)
        split = _with_first_step(run, split, previous, first_step)
    training, validation = (load_preprocessed(run, config, split[part], first_step) for part in ("train", "validation"))
    return Fold(run, config, number, split, training, validation)


def _with_first_step(run: Run, split: Split, previous: str, folder: Path) -> Split:
    """The split without extra cases, which every fold of the first step has trained on. Raises for missing masks."""
    own = {case.name for case in run.training_data.train}
    training = [name for name in split["train"] if name in own]
    if len(training) < len(split["train"]):
        say(f"the second step learns from {len(training)} cases: the first step has seen the "
            f"{len(split['train']) - len(training)} extra ones in every fold")
    missing = [name for name in (*training, *split["validation"]) if not (folder / f"{name}.npy").exists()]
    if missing:
        folds = [k for k, part in enumerate(run.splits) if set(missing) & set(part["validation"])]
        commands = "; ".join(f"octkit train {run.folder} --config {previous} --fold {k}" for k in folds)
        raise OctkitError(f"{folder}: has no first-step mask of {len(missing)} cases ({missing[0]} is the first); get "
                          f"them with: {commands}")
    return {"train": training, "validation": split["validation"]}


def fingerprint_of(fold: Fold) -> dict[str, str]:
    """What a checkpoint depends on, each part hashed: training goes on only where all of it is unchanged."""
    chosen, training = fold.run.settings, fold.training
    parts = {
        "seed": chosen.seed,
        "train settings": chosen.train.model_dump(mode="json", exclude={"configs", "folds", "workers"}),
        "augment settings": chosen.augment.model_dump(mode="json"),
        "plan": fold.configuration.__dict__,
        "intensity": fold.run.plan.intensity,
        "split": fold.split,
        "code": [path.read_text(encoding="utf-8") for path in code_files("octkit.training.train", CODE_ROOMS)],
        "preprocessed cases": [[case.name, list(case.image.shape), float(case.image[..., ::7].sum())]
                               for case in training],
        "first step": [[case.name, int(case.previous[..., ::7].sum())] for case in training if case.first_step],
    }
    return {name: _digest(part) for name, part in parts.items()}


def _digest(part: Any) -> str:
    return hashlib.sha256(json.dumps(part, sort_keys=True, default=list).encode()).hexdigest()[:16]


def _checkpoint_to_go_on_from(fold: Fold, decided_by: dict[str, str]) -> dict | None:
    """The newest checkpoint of this training; None where it starts. Raises OctkitError where none is whole."""
    try:
        checkpoint = newest_checkpoint(fold.checkpoint)
    except OctkitError as error:
        raise OctkitError(f"{error}; no checkpoint of this fold is whole: train it anew with `octkit train "
                          f"{fold.run.folder} --config {fold.config} --fold {fold.number} --restart`") from None
    if checkpoint is None or checkpoint["decided_by"] == decided_by:
        return checkpoint
    changed = [key for key in decided_by if decided_by[key] != checkpoint["decided_by"].get(key)]
    _begin_anew(fold, f"{', '.join(changed)} changed since the training that was there")
    return None


def _begin_anew(fold: Fold, why: str) -> None:
    """Keep what was trained here in a folder of its own: another training's result must not pass for this one's."""
    kept = set_aside(fold.folder, (fold.checkpoint.name, previous_of(fold.checkpoint).name, "log.csv"))
    if kept is not None:
        say(f"{fold.title}: {why}; that one is kept in {kept}, and training starts anew")


class Training:
    """A fold's training from its checkpoint to its end; raises where memory, a device or a compiler is missing."""

    def __init__(self, fold: Fold, network: torch.nn.Module, checkpoint: dict | None):
        chosen, plan, configuration = fold.run.settings, fold.run.plan, fold.configuration
        self.options, self.title = chosen.train, fold.title
        self.classes, self.batch_dice = plan.classes, configuration.batch_dice
        self.log: list[Row] = checkpoint["log"] if checkpoint else []
        self.device = choose_device(chosen.device)
        self.precision = working_precision(chosen.train.precision, self.device)
        self.layout = memory_format(len(configuration.patch_size), self.device, self.precision, training=True)
        memory.check_training(network, plan, fold.config, chosen.train, self.device, self.precision)
        memory.keep_freed_memory()
        torch.backends.cudnn.benchmark = True  # patches are of one size: a GPU may try which ways are fastest
        self.network = network.to(self.device, memory_format=self.layout)  # type: ignore[call-overload]  # torch's gap
        self.optimiser = Optimiser(network, chosen.train)
        if checkpoint:
            network.load_state_dict(checkpoint["network"])
            self.optimiser.restore(checkpoint["optimiser"])
        augmenter = Augmenter(configuration.patch_size, chosen.augment.rotation_degrees, chosen.augment.mirror_axes)
        sizes = configuration.patch_size, configuration.batch_size, chosen.train.oversample
        shown = len(plan.classes) if configuration.previous_stage else 0  # the first step's classes, as channels
        self.patches = Patches(fold.training, *sizes, (chosen.seed,), augmenter, shown)
        self.held_out = Patches(fold.validation, *sizes, (chosen.seed, VALIDATION_STREAM), None, shown)
        # Decided by the whole training's length: gone on with after a stop, it rounds as it would have undisturbed.
        steps = chosen.train.epochs * chosen.train.iterations_per_epoch
        say(f"{fold.title}: {len(fold.training)} scans to train on, {len(fold.validation)} held out; "
            f"{chosen.train.epochs} epochs of {chosen.train.iterations_per_epoch} batches of "
            f"{configuration.batch_size} patches of {by(configuration.patch_size)} px, {chosen.train.optimiser}, rate "
            f"{chosen.train.initial_rate:g}, {self.precision} on {self.device}")
        self.compiled = compiled(network, chosen.train.compile, steps, configuration.features[0], self.device)

    def state(self) -> dict:
        """What a checkpoint holds of the training."""
        return {"network": self.network.state_dict(), "optimiser": self.optimiser.state(), "log": self.log,
                "epoch": len(self.log), "epochs": self.options.epochs}

    def epochs(self, progress: bool) -> Iterator[Row]:
        """Train the epochs that are left; the row of each as it ends."""
        done, steps = len(self.log), self.options.iterations_per_epoch
        last = self.options.epochs
        checks, workers = self.options.validation_iterations, self.options.workers
        beside = min(workers, HELD_OUT_WORKERS) if self.device.type == "cuda" and self.held_out.cases else 0
        with (batches(self.patches, done * steps, last * steps, workers, self.device) as source,
              batches(self.held_out, done * checks, last * checks, beside, self.device) as held_out):
            for epoch in range(done, last):
                started = time.perf_counter()
                rate = self.optimiser.start_epoch(epoch)
                loss = self.learn(epoch, source, progress)
                row = {"epoch": epoch + 1, "learning_rate": rate, "train_loss": loss, **self.validate(held_out)}
                self.log.append(row | {"seconds": round(time.perf_counter() - started, 3)})
                self.optimiser.end_epoch(loss)
                yield self.log[-1]

    def learn(self, epoch: int, source: Iterator[Batch], progress: bool) -> float:
        """The steps of one epoch; the mean of their losses."""
        self.network.train()
        losses, number, epochs = [], epoch + 1, self.options.epochs
        bar = tqdm(range(self.options.iterations_per_epoch), unit="batch", disable=not progress,
                   leave=number == epochs, desc=f"{self.title} epoch {number}/{epochs}")
        for _ in bar:
            losses.append(self.step(*next(source)))
            if len(losses) % LOOK_EVERY == 0:
                bar.set_postfix(loss=f"{self._finite(losses[-1]):.3f}", rate=f"{self.optimiser.rate:.1e}")
        return float(np.mean([self._finite(loss) for loss in losses]))

    @staticmethod
    def _finite(loss: torch.Tensor) -> float:
        """The loss as a number. Raises OctkitError where it is no finite one."""
        if not np.isfinite(value := loss.item()):
            raise OctkitError(f"the training loss became {value}; lower train.initial_rate or use "
                              "train.precision=float32")
        return value

    def step(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """One gradient step; the loss before it, on the training's device."""
        self.optimiser.inner.zero_grad(set_to_none=True)
        try:
            images, masks = self._on_device(images, masks)
            with autocast(self.precision, self.device):
                loss = self._loss(self.compiled(images), masks)
            loss.backward()
            ranks.sum_gradients(self.network.parameters())
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), MAX_GRADIENT_NORM)
            self.optimiser.inner.step()
        except torch.OutOfMemoryError:
            raise OctkitError(f"a batch of {len(images)} patches does not fit into the GPU's memory; lower "
                              "plan.batch_size, or plan.memory_gb and let the planner choose") from None
        return loss.detach()

    @torch.no_grad()
    def validate(self, source: Iterator[Batch]) -> Row:
        """Loss and nnU-Net's pseudo-Dice, of all held-out patches as one scan; None where nothing is held out."""
        if not self.held_out.cases:
            return {"validation_loss": None, **{f"dice_{name}": None for name in self.classes}}
        self.network.train(as_trained(self.device))
        # Of each class: pixels that both have, that each of the two has. All stays on the device until the end.
        losses, counts = [], torch.zeros(len(self.classes), 3, dtype=torch.float64, device=self.device)
        for _ in range(self.options.validation_iterations):
            images, masks = self._on_device(*next(source))
            with autocast(self.precision, self.device):
                outputs = self.network(images)
                losses.append(self._loss(outputs, masks))
            predicted = (outputs[0] if isinstance(outputs, list) else outputs).argmax(1)
            for label, count in enumerate(counts, start=1):
                ours, theirs = (predicted == label) & (masks != IGNORE), masks == label
                count += torch.stack([(ours & theirs).sum(), ours.sum(), theirs.sum()])
        pixels = ranks.summed(counts).cpu().numpy()
        dice = {f"dice_{name}": dice_from_counts(*count) for name, count in zip(self.classes, pixels, strict=True)}
        return {"validation_loss": float(np.mean([loss.item() for loss in losses]))} | {
            name: None if np.isnan(value) else float(value) for name, value in dice.items()}

    def _on_device(self, images: torch.Tensor, masks: torch.Tensor) -> Batch:
        return (images.to(self.device, non_blocking=True, memory_format=self.layout),
                masks.to(self.device, non_blocking=True))

    def _loss(self, outputs: torch.Tensor | list[torch.Tensor], masks: torch.Tensor) -> torch.Tensor:
        # Without deep supervision the network returns one tensor, which is a list of one output.
        outputs = outputs if isinstance(outputs, list) else [outputs]
        return deep_supervision_loss(outputs, masks, self.batch_dice, self.options.dropped_outputs)


def poly_rate(initial: float, epoch: int, epochs: int) -> float:
    """The rate of epoch 0 … epochs - 1: initial x (1 - epoch / epochs)^0.9; 0.01 halfway is 0.0054."""
    return initial * (1 - epoch / epochs) ** POLY_POWER


class Optimiser:
    """The optimiser with its rate's schedule: `sgd` with the poly rule or `adam` with the plateau rule."""

    inner: torch.optim.Optimizer

    def __init__(self, network: torch.nn.Module, chosen: TrainSettings):
        self.chosen = chosen
        self.smoothed_loss: float | None = None
        self.plateau = None
        if chosen.optimiser == "sgd":
            self.inner = torch.optim.SGD(network.parameters(), chosen.initial_rate, momentum=chosen.momentum,
                                         nesterov=chosen.momentum > 0, weight_decay=chosen.weight_decay, fused=True)
        else:
            self.inner = torch.optim.Adam(network.parameters(), chosen.initial_rate, weight_decay=chosen.weight_decay,
                                          amsgrad=chosen.amsgrad, fused=True)
            self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                self.inner, "min", PLATEAU_FACTOR, PLATEAU_PATIENCE, PLATEAU_THRESHOLD, "abs")

    @property
    def rate(self) -> float:
        """The learning rate that is set."""
        return self.inner.param_groups[0]["lr"]

    def start_epoch(self, epoch: int) -> float:
        """Set and return the learning rate of this epoch."""
        if self.plateau is None:
            for group in self.inner.param_groups:
                group["lr"] = poly_rate(self.chosen.initial_rate, epoch, self.chosen.epochs)
        return self.rate

    def end_epoch(self, training_loss: float) -> None:
        """Tell the plateau rule how the epoch went."""
        if self.plateau is not None:
            before = training_loss if self.smoothed_loss is None else self.smoothed_loss
            self.smoothed_loss = LOSS_SMOOTHING * before + (1 - LOSS_SMOOTHING) * training_loss
            self.plateau.step(self.smoothed_loss)

    def state(self) -> dict:
        """What a checkpoint holds of the optimiser."""
        return {"optimiser": self.inner.state_dict(), "smoothed_loss": self.smoothed_loss,
                "plateau": self.plateau.state_dict() if self.plateau else None}

    def restore(self, state: dict) -> None:
        """Go on from a `state`."""
        self.inner.load_state_dict(state["optimiser"])
        for weights, kept in self.inner.state.items():
            for name, values in kept.items():  # from another processor they may lie in another order in memory
                if torch.is_tensor(values) and values.shape == weights.shape:
                    kept[name] = torch.empty_like(weights).copy_(values)
        self.smoothed_loss = state["smoothed_loss"]
        if self.plateau is not None:
            self.plateau.load_state_dict(state["plateau"])


def compiled(network: torch.nn.Module, wanted: str, steps: int, maps: int, device: torch.device) -> Callable:
    """The network as it is to be called in training; its weights stay where they are.

    `wanted` is "always", "never", or "auto": where torch can compile, for many `steps` of networks with many `maps` at
    full resolution. Raises OctkitError where torch cannot, and it is wanted always.
    """
    if wanted == "never" or (wanted == "auto" and (steps < COMPILED_STEPS or maps < COMPILED_MAPS)):
        return network
    if reason := why_not(device):
        if wanted == "always":
            raise OctkitError(f"train.compile: torch cannot compile here ({reason}), expected a C++ compiler such as "
                              "g++ on the path; set train.compile=auto or train.compile=never")
        say(f"training is not compiled and takes longer: torch cannot compile here ({reason})")
        return network
    say("the network is compiled, which takes about half a minute before the first step")
    return torch.compile(network)


def why_not(device: torch.device) -> str | None:
    """Why torch cannot compile on this device; None where it can. Found out by compiling a product and its gradient."""
    use_private_caches()  # a notebook's kernel has not been started by the command line
    number = torch.ones(2, device=device, requires_grad=True)
    try:
        torch.compile(lambda x: (x * x).sum())(number).backward()
    except RuntimeError as error:  # of many kinds, by what is missing
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return None


def _write_log(path: Path, log: Sequence[Row]) -> None:
    if log:
        with replacing(path) as temporary:
            pd.DataFrame(log).to_csv(temporary, index=False)
    else:  # of a training that starts: what is there is another one's
        path.unlink(missing_ok=True)


@contextmanager
def tensorboard(folder: Path, log: Sequence[Row]) -> Iterator[Callable[[Row], None]]:
    """`with tensorboard(folder, log) as add:` a new events file in place of older ones; `add(row)` appends an epoch.

    It begins with the rows of `log`. Numbers that are None are left out. Raises OctkitError where the disk is full:
    written here and not by torch's SummaryWriter, whose thread prints a traceback then.
    """
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # slow to import, and needed only here
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    for path in folder.glob("events.out.tfevents.*"):
        path.write_bytes(b"")  # not removed: a TensorBoard that is running would look for it, and for nothing else
    path = folder / f"events.out.tfevents.{time.time():.6f}"  # read in the order of their names
    with saying_disk_full(path), open(path, "wb") as file:
        records = RecordWriter(file)

        def write(**content: Any) -> None:
            records.write(Event(wall_time=time.time(), **content).SerializeToString())

        def add(row: Row) -> None:
            values = [Summary.Value(tag=name, simple_value=value) for name, value in row.items()
                      if name != "epoch" and value is not None]
            write(step=row["epoch"], summary=Summary(value=values))
            file.flush()

        write(file_version="brain.Event:2")
        write(step=1, session_log=SessionLog(status=SessionLog.START))  # forget what was read of older files
        for row in log:
            add(row)
        yield add
