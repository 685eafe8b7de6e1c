"""Batches from worker processes.

A worker that raises brings its own traceback. One that is killed, or that does nothing for 45 s, ends the training with
a sentence; one that does nothing first prints where it stands. No worker outlives the training, however that ends.
"""

import ctypes
import faulthandler
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import psutil
import torch
from torch.utils.data import DataLoader

from octkit.common.errors import OctkitError
from octkit.training.patches import Patches

LOOK_EVERY = 9.0  # seconds without a batch after which the workers are looked at
LOOKS = 5  # without any progress: 45 s, so that all is told within a minute
# Seconds of processor time in which something happens: a worker that waits wakes up every 5 s for some microseconds.
PROGRESS = 0.02
PR_SET_PDEATHSIG = 1  # linux/prctl.h

Batch = tuple[torch.Tensor, torch.Tensor]


@contextmanager
def batches(patches: Patches, first: int, last: int, workers: int, device: torch.device) -> Iterator[Iterator[Batch]]:
    """Batches `first` to `last` - 1 of the patches, in order, made by so many processes; by this one where it is 0.

    Raises OctkitError where a worker died or hangs. The workers have ended when the block is left.
    """
    # One pass over all numbers that are left: workers start once a training, not once an epoch.
    loader = DataLoader(patches, batch_size=patches.batch_size, sampler=range(first * patches.batch_size,
                        last * patches.batch_size), num_workers=workers, pin_memory=device.type == "cuda",
                        worker_init_fn=_start_worker, timeout=LOOK_EVERY if workers else 0)
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


def _watched(iterator: Iterator[Batch], crew: Sequence) -> Iterator[Batch]:
    """The batches; where none comes the workers are looked at, and a slow one is told from one that hangs."""
    still, spent = 0, _spent(crew)
    while True:
        try:
            yield next(iterator)
            still, spent = 0, _spent(crew)
        except StopIteration:
            return
        except OctkitError as error:  # with a worker's traceback before its sentence
            raise OctkitError(str(error).splitlines()[-1].partition(": ")[2]) from None
        except RuntimeError as error:
            if "DataLoader timed out" not in str(error):
                raise
            before, spent = spent, _spent(crew)
            still = still + 1 if spent < before + PROGRESS else 0
            if still == LOOKS:
                raise _hanging(crew) from None


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
        os.kill(process.pid, signal.SIGUSR1)
        time.sleep(1 / len(crew))  # for its traceback; those of several at once would be mixed letter by letter
    for process in crew:
        with suppress(RuntimeError):  # torch's, of the first one that ends
            process.kill()  # one that is stopped listens to nothing less
            process.join()
        process.join()
    return OctkitError(f"no batch came from the data workers and none of them did anything for "
                       f"{LOOKS * LOOK_EVERY:.0f} s ({', '.join(states)}); each that was not stopped has printed "
                       "where it stands; is the disk with the preprocessed scans still there? Give the same command "
                       "again, it goes on; train.workers=0 does without workers")


def _how_ended(crew: Sequence) -> str | None:
    """How the first worker that failed ended, in words."""
    for process in crew:
        if code := process.exitcode:
            how = f"ended with exit code {code}" if code > 0 else f"was killed by {signal.Signals(-code).name}"
            memory = ", as the system does where memory runs out" if code == -signal.SIGKILL else ""
            return f"a data worker (process {process.pid}) {how}{memory}"
    return None


def _start_worker(_: int) -> None:
    import cv2

    # Workers stand beside a training that uses all cores; their own threads would only get in its way.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    faulthandler.register(signal.SIGUSR1, 2)  # to stderr
    if sys.platform == "linux":  # elsewhere torch's own watchdog ends it within seconds of the training's end
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
