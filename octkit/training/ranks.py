"""One training on several GPUs, or processes, that torchrun has started: its ranks.

    torchrun --nproc-per-node 4 -m octkit train RUN        octkit train RUN --gpus 4

Each rank has the whole network and learns from its share of every batch; sums over a batch (batch Dice, the mean loss,
gradients) are made over all ranks, so that k ranks learn what one does, but for rounding. The first rank alone writes.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import distributed

from octkit.common.errors import OctkitError

Made = TypeVar("Made")


def rank() -> int:
    """This process's number among those of its training, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def count() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Have the processes that torchrun has started work together; one that was started alone works alone.

    Raises OctkitError where a machine has fewer GPUs than processes. Ranks but the first say warnings alone.
    """
    if not distributed.is_torchelastic_launched() or int(os.environ["WORLD_SIZE"]) == 1:
        yield
        return
    if device.type == "cuda":
        if (own := int(os.environ["LOCAL_RANK"])) >= torch.cuda.device_count():
            raise OctkitError(f"found {torch.cuda.device_count()} GPUs for {os.environ['LOCAL_WORLD_SIZE']} processes, "
                              "expected one each: start fewer, or set device=cpu")
        torch.cuda.set_device(own)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    logger, level = logging.getLogger("octkit"), logging.getLogger("octkit").level
    if rank():
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
        distributed.destroy_process_group()


def of_first(make: Callable[[], Made]) -> Made:
    """What the first rank makes, given to all; what it raises as an OctkitError is raised in all."""
    if count() == 1:
        return make()
    made: list = [None, None]
    if rank() == 0:
        try:
            made[0] = make()
        except OctkitError as error:
            made[1] = str(error)
    distributed.broadcast_object_list(made)
    if made[1] is not None:
        raise OctkitError(made[1])
    return made[0]


def own_patches(batch_size: int) -> slice:
    """Which patches of a batch are this rank's: every k-th, so that each has some that are centred on a layer.

    Raises OctkitError for a batch of fewer patches than ranks.
    """
    if batch_size < count():
        raise OctkitError(f"a batch of {batch_size} patches cannot be dealt to {count()} processes, expected one or "
                          "more each: start fewer, or raise plan.batch_size")
    return slice(rank(), None, count())


def share(own: torch.Tensor) -> torch.Tensor | float:
    """Which part of the whole batch this rank's patches `own` (patches, …) are; 1 where it works alone."""
    if count() == 1:
        return 1.0
    patches = torch.tensor(float(len(own)), device=own.device)
    return patches / summed(patches)


def summed(values: torch.Tensor) -> torch.Tensor:
    """The sum over ranks; its gradient is that of this rank's part (`sum_gradients` adds up the others')."""
    if count() == 1:
        return values
    whole = values.detach().clone()
    distributed.all_reduce(whole)
    return values + (whole - values.detach())


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Have each parameter's gradient be the sum over ranks, in one message."""
    if count() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
