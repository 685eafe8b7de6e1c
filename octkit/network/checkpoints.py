"""Checkpoints of a training: whole or not there, with a checksum, and the one before kept.

    fold_0/checkpoint.pt             after the newest epoch
    fold_0/checkpoint.previous.pt    after the epoch before it

A checkpoint is a file of torch.save, which is a zip archive; the archive's comment is the SHA-256 of all bytes before
it, so that a wrong bit or a missing end is noticed wherever it is. It holds tensors and plain values only, and what
reads it knows nothing else (`read_archive`, which reads nnU-Net's as well): opening a stranger's file cannot run code.
"""

import hashlib
import io
import os
import zipfile
from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

import torch

from octkit.common.errors import OctkitError
from octkit.common.files import only_file, replacing
from octkit.common.messages import say
from octkit.common.pickles import read_pickle

MOST_AXES = 8  # of a tensor
DIGEST_SIZE = 64  # hexadecimal digits of a SHA-256
TYPES = {f"torch.{name}Storage": kind for name, kind in [
    ("Float", torch.float32), ("Double", torch.float64), ("Half", torch.float16), ("BFloat16", torch.bfloat16),
    ("Long", torch.int64), ("Int", torch.int32), ("Short", torch.int16), ("Char", torch.int8), ("Byte", torch.uint8),
    ("Bool", torch.bool)]}


def read_archive(data: bytes) -> Any:
    """What torch.save has written, on the CPU; tensors lie in memory as they did.

    Raises an error of any kind for what is damaged, names code, or would take more memory than the file.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = archive.infolist()
        # torch packs nothing and writes each part once.
        if (any(part.compress_type != zipfile.ZIP_STORED for part in parts)
                or sum(part.file_size for part in parts) > len(data)):
            raise ValueError("its parts unpack to more than the file")
        if max(Counter(part.filename for part in parts).values(), default=1) > 1:
            raise ValueError("it has parts of one name")
        [pickled] = [part.filename for part in parts if part.filename.endswith("/data.pkl")] or [""]
        if not pickled:
            raise ValueError("it is no file of torch's")
        root = pickled.removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("its numbers are in another order of bytes than this computer's")
        stored: dict[str, torch.Tensor] = {}

        def numbers(key: Any) -> torch.Tensor:
            _, kind, name, _, count = key
            if type(name) is not str:  # any other value may stand for a text of any length
                raise ValueError("it names its numbers by other things than words")
            if name not in stored:
                content = bytearray(archive.read(f"{root}data/{name}"))
                stored[name] = torch.frombuffer(content, dtype=kind) if content else torch.empty(0, dtype=kind)
            if stored[name].dtype != kind or len(stored[name]) != count:
                raise ValueError(f"its data/{name} is of another size or kind than stated")
            return stored[name]

        return read_pickle(archive.read(pickled), TYPES | {
            "torch._utils._rebuild_tensor_v2": _tensor, "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
            "torch.device": lambda *parts: parts, "torch.Size": _size}, numbers)


def _size(lengths: tuple[int, ...]) -> tuple[int, ...]:
    if type(lengths) is not tuple or len(lengths) > MOST_AXES:  # a text sent again and again would fill the memory
        raise ValueError("it has a size of more axes than any tensor")
    return lengths


def _tensor(numbers: torch.Tensor, offset: int, size: tuple[int, ...], strides: tuple[int, ...],
            *_: Any) -> torch.Tensor:
    """A tensor all of whose numbers are stored: a view of them may claim any size."""
    if not all(type(number) is int and number >= 0 for number in (offset, *size, *strides)):
        raise ValueError("it has a tensor whose size is no number")
    if prod(size) > len(numbers):
        raise ValueError("it has a tensor not all of whose numbers are stored")
    return numbers.as_strided(size, strides, offset)


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
        content = only_file(path, "a checkpoint", 2).read_bytes()
        if hashlib.sha256(content[:-DIGEST_SIZE]).hexdigest().encode() != content[-DIGEST_SIZE:]:
            raise ValueError("its checksum is wrong: the file is damaged, cut short, or of another version of octkit")
        return read_archive(content)
    except OctkitError:
        raise
    except FileNotFoundError:
        raise OctkitError(f"{path}: not found, expected a checkpoint; train this fold first (lesson 07)") from None
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
