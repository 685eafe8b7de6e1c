"""Batches from worker processes.

What a worker raises is raised here as it is. One that is killed, or that does nothing for 45 s, ends the training with
a sentence; one that does nothing first prints where it stands. No worker outlives the training, however that ends.
"""

import multiprocessing
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.pool import ExceptionWithTraceback  # type: ignore[attr-defined]  # typeshed lacks it
from multiprocessing.util import get_temp_dir
from typing import Any

import numpy as np
import psutil
import torch
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from octkit.common.errors import OctkitError
from octkit.common.messages import warn
from octkit.common.processes import portable, short_temporary_folder
from octkit.common.system import KILLED, NO_PAGE, SHARED, ask, begin_worker
from octkit.training import ranks
from octkit.training.patches import Patches

LOOK_EVERY = 9.0  # seconds without a batch after which the workers are looked at
LOOKS = 5  # without any progress: 45 s, so that all is told within a minute
# Seconds of processor time in which something happens: a worker that waits wakes up every 5 s for some microseconds.
PROGRESS = 0.02
MORE_SHARED = "give it more room (docker run --shm-size=2g), or do without workers (train.workers=0)"

Batch = tuple[torch.Tensor, torch.Tensor]


@contextmanager
def batches(patches: Patches, first: int, last: int, workers: int, device: torch.device) -> Iterator[Iterator[Batch]]:
    """Batches `first` to `last` - 1 of the patches, in order, made by so many processes; by this one where it is 0.

    Of a training that several ranks share, each gets its own patches of each batch.

    Raises OctkitError where a worker died or hangs. The workers have ended when the block is left. Where the system has
    no room for what workers need, batches come another way; they are the same.
    """
    workers = workers if workers and _startable(workers) else 0
    own = ranks.own_patches(patches.batch_size)
    made = _Batches(patches, own, piped=bool(workers) and not _shareable(patches, workers))
    # One pass over all numbers that are left: workers start once a training, not once an epoch.
    loader = DataLoader(made, batch_size=None, sampler=range(first, last), num_workers=workers,
                        pin_memory=device.type == "cuda", worker_init_fn=_start_worker, collate_fn=_as_made,
                        timeout=LOOK_EVERY if workers else 0)
    if not workers:
        yield iter(loader)
        return
    others = multiprocessing.active_children()
    iterator = iter(loader)
    crew = [process for process in multiprocessing.active_children() if process not in others]
    try:
        yield _watched(iterator, crew)
    except RuntimeError as error:  # torch's, raised wherever this process was when a worker ended
        if "DataLoader worker" not in str(error) or not (ended := _how_ended(crew)):
            raise
        raise OctkitError(f"{ended}; give the same command again, it goes on; with train.workers=0 there are no "
                          "workers, and less memory is needed") from None
    finally:
        # torch does it when the last reference is gone; an error's traceback holds some.
        iterator._shutdown_workers()  # type: ignore[attr-defined]


@dataclass(eq=False)
class _Batches(Dataset):
    """Batches by number, of the `own` patches each. Where `piped`, a worker sends arrays, not by shared memory."""

    patches: Patches
    own: slice
    piped: bool

    def __getitem__(self, number: int) -> Any:
        """Images and masks; in a worker also what went wrong, as torch would wrap its sentence in a traceback."""
        try:
            size = self.patches.batch_size
            patches = [self.patches[n] for n in range(number * size, (number + 1) * size)[self.own]]
            if self.piped:
                return [np.stack(part) for part in zip(*patches, strict=True)]
            return default_collate(patches)
        except Exception as error:
            if get_worker_info() is None:
                raise
            if "shared memory" in str(error):  # torch's words
                return OctkitError(f"{SHARED} is full, through which data workers send their batches; {MORE_SHARED}")
            return ExceptionWithTraceback(portable(error), error.__traceback__)  # arrives as the error, caused by it


def _as_made(batch: Any) -> Any:  # torch's own would make tensors of arrays, in shared memory
    return batch


def _startable(workers: int) -> bool:
    """Whether the system lets so many workers talk with this process; says so where it does not."""
    with short_temporary_folder():
        get_temp_dir()  # in which sockets lie that torch sends through
    try:
        # What torch makes for them, or more: an event takes five semaphores, which lie in shared memory, a queue three.
        _ = [multiprocessing.Event() for _ in range(workers + 3)]
    except (OSError, ImportError) as error:
        warn(f"no data workers, as the system does not let them start ({error}); one process does all, which is slower")
        return False
    return True


def _shareable(patches: Patches, workers: int) -> bool:
    """Whether the memory that processes can share holds all batches that are made ahead; says so where it does not."""
    if not SHARED.is_dir():  # no Linux
        return True
    # Two batches a worker are made ahead, and one is in use.
    needed = (2 * workers + 1) * patches.batch_size * sum(part.nbytes for part in patches[0])
    if (free := shutil.disk_usage(SHARED).free) >= needed:
        return True
    warn(f"{SHARED} has {free / 2**20:.1f} MiB free, of {needed / 2**20:.1f} MiB that {workers} data workers can fill; "
         f"they use pipes instead, which is slower: {MORE_SHARED}")
    return False


def _watched(iterator: Iterator, crew: Sequence) -> Iterator[Batch]:
    """The batches; where none comes the workers are looked at, and a slow one is told from one that hangs."""
    still, spent = 0, _spent(crew)
    while True:
        try:
            batch = next(iterator)
            still, spent = 0, _spent(crew)
        except StopIteration:
            return
        except RuntimeError as error:
            if "DataLoader timed out" not in str(error):
                raise
            before, spent = spent, _spent(crew)
            still = still + 1 if spent < before + PROGRESS else 0
            if still == LOOKS:
                raise _hanging(crew) from None
            continue
        if isinstance(batch, Exception):
            raise batch
        yield tuple(map(torch.as_tensor, batch))  # type: ignore[misc]  # image and mask


def _spent(crew: Sequence) -> float:
    """Seconds of processor time that the workers have used."""
    total = 0.0
    for process in crew:
        with suppress(psutil.NoSuchProcess):  # torch says so in the same moment
            total += sum(psutil.Process(process.pid).cpu_times()[:2])
    return total


def _hanging(crew: Sequence) -> OctkitError:
    """The error for workers that do nothing, after they have printed where they stand; ends them."""
    states = [f"process {process.pid}: {psutil.Process(process.pid).status()}" for process in crew]
    for process in crew:
        ask(process.pid)
        time.sleep(1 / len(crew))  # for its traceback; those of several at once would be mixed letter by letter
    _end(crew)
    return OctkitError(f"no batch came from the data workers and none of them did anything for "
                       f"{LOOKS * LOOK_EVERY:.0f} s ({', '.join(states)}); each that was not stopped has printed "
                       "where it stands; is the disk with the preprocessed scans still there? Give the same command "
                       "again, it goes on; train.workers=0 does without workers")


def _end(crew: Sequence) -> None:
    for process in crew:
        with suppress(RuntimeError):  # torch's, of the first one that ends
            process.kill()  # one that is stopped listens to nothing less
            process.join()
        process.join()


def _how_ended(crew: Sequence) -> str | None:
    """How the first worker that failed ended, in words."""
    for process in crew:
        if code := process.exitcode:
            how = f"ended with exit code {code}" if code > 0 else f"was killed by {signal.Signals(-code).name}"
            why = {KILLED: ", as the system does where memory runs out",
                   NO_PAGE: f", as the system does where {SHARED} is full: {MORE_SHARED}"}.get(-code, "")
            return f"a data worker (process {process.pid}) {how}{why}"
    return None


def _start_worker(_: int) -> None:
    import cv2

    # Workers stand beside a training that uses all cores; their own threads would only get in its way.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    begin_worker()
