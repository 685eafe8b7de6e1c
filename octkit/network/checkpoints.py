"""Checkpoints of a training: whole or not there, with a checksum, and the one before kept.

    fold_0/checkpoint.pt             after the newest epoch
    fold_0/checkpoint.previous.pt    after the epoch before it

A checkpoint is a file of torch.save, which is a zip archive; the archive's comment is the SHA-256 of all bytes before
it, so that a wrong bit or a missing end is noticed wherever it is. It holds tensors and plain values only and is
read with `weights_only=True`: opening a stranger's file cannot run code.
"""

import hashlib
import io
import os
from pathlib import Path

import torch

from octkit.common.errors import OctkitError
from octkit.common.files import replacing
from octkit.common.messages import say

DIGEST_SIZE = 64  # hexadecimal digits of a SHA-256


def previous_of(path: Path) -> Path:
    """Where the checkpoint before the one at `path` is kept: checkpoint.pt -> checkpoint.previous.pt."""
    return path.with_stem(f"{path.stem}.previous")


def save_checkpoint(path: Path, state: dict) -> None:
    """Write a checkpoint whole or not at all; the one that was there becomes the one before.

    At every moment one of the two is whole. Raises OctkitError where the disk is full.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(-2, os.SEEK_END)  # the last two bytes are the length of the archive's comment, none so far
    buffer.write(DIGEST_SIZE.to_bytes(2, "little"))
    with replacing(path, keep=previous_of(path)) as temporary, open(temporary, "wb") as file:
        file.write(buffer.getbuffer())
        file.write(hashlib.sha256(buffer.getbuffer()).hexdigest().encode())


def load_checkpoint(path: Path) -> dict:
    """Read a checkpoint onto the CPU. Raises OctkitError where it is missing, damaged or holds code."""
    try:
        content = path.read_bytes()
        if hashlib.sha256(content[:-DIGEST_SIZE]).hexdigest().encode() != content[-DIGEST_SIZE:]:
            raise ValueError("its checksum is wrong: the file is damaged, cut short, or of another version of octkit")
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise OctkitError(f"{path}: not found, expected a checkpoint; train this fold first") from None
    except Exception as error:  # zip, pickle and torch raise a dozen kinds for what is no checkpoint
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise OctkitError(f"{path}: cannot be read as a checkpoint ({reason[0]})") from None


def newest_checkpoint(path: Path) -> dict | None:
    """The newest whole checkpoint of the two at `path`; None where there is none.

    A damaged one is renamed to checkpoint.damaged.pt, with a message. Raises OctkitError where neither can be read.
    """
    previous = previous_of(path)
    if not path.exists() and not previous.exists():
        return None
    try:
        return load_checkpoint(path)
    except OctkitError as error:
        if not previous.exists():
            raise
        # Stopped between two renames there is no newest one: nothing is lost but the epoch's time.
        damaged = str(error) if path.exists() else f"{path}: was about to be replaced when training was stopped"
    state = load_checkpoint(previous)
    say(f"{damaged}: {previous.name} is used instead")
    if path.exists():  # or the next one would push it over the only whole one
        os.replace(path, path.with_stem(f"{path.stem}.damaged"))
    return state
