"""Pickles of numbers, read without calling anything that they ask for.

A pickle names functions of any library and calls them with whatever it holds. Here a name stands for a small function
of ours, or the file is refused; numpy and torch never see a value that has not been checked.
"""

import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from io import BytesIO
from math import prod
from typing import Any, ClassVar

import numpy as np

PLAIN = re.compile(r"[<|=]?([fiu][1248]|b1)")  # numpy's names of numbers, in the order of bytes that files have
# Needed by no file of weights: objects and extensions, buffers taken before they are filled, and what hashes tuples of
# any depth (Python would end with its stack).
REFUSED = b"".join([pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4,
                    pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.DICT, pickle.ADDITEMS, pickle.FROZENSET])
Names = Mapping[str, Any]


class Plain:
    """What stands for a numpy dtype or array while a pickle is read: `dtype`, and of an array the `values`."""

    dtype: np.dtype | None = None
    values: np.ndarray | None = None

    def fill(self, state: Any) -> None:
        """Take the state that numpy's object would have got. Raises UnpicklingError for all but plain numbers."""
        if self.dtype is not None:  # (version, order of bytes, and what only other kinds have)
            if state[1:] not in (("<", None, None, None, -1, -1, 0), ("|", None, None, None, -1, -1, 0)):
                raise pickle.UnpicklingError("it asks for an array of its own kind, which is no part of a state dict")
            return
        _, shape, kind, columns_first, data = state
        if not isinstance(kind, Plain) or kind.dtype is None or min(shape, default=0) < 0:
            raise pickle.UnpicklingError("it holds an array of no numbers, which is no part of a state dict")
        values = np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, kind.dtype)
        if len(values) != prod(shape):
            raise pickle.UnpicklingError("it holds an array of another size than it states")
        self.values = values.reshape(shape, order="F" if columns_first else "C")


def _dtype(name: str, *_: Any) -> Plain:
    if not PLAIN.fullmatch(name):
        raise pickle.UnpicklingError(f"it holds values of type {name!r:.40}, which are no plain numbers")
    plain = Plain()
    plain.dtype = np.dtype(name)
    return plain


def _array(_kind: Any, shape: Any, _code: Any) -> Plain:
    if shape != (0,):  # what numpy writes; a larger one would take memory before it is filled
        raise pickle.UnpicklingError("it asks for an array of its own making, which is no part of a state dict")
    return Plain()


def _scalar(kind: Plain, data: bytes) -> float:
    return np.frombuffer(data, kind.dtype, 1)[0].item()


def _ordered() -> dict:
    return OrderedDict()


NUMPY: Names = {"numpy.ndarray": None, "numpy.dtype": _dtype,
                "collections.OrderedDict": _ordered} | {
    f"numpy.{core}.multiarray.{name}": function for core in ("core", "_core")
    for name, function in (("_reconstruct", _array), ("scalar", _scalar))}


class _Reader(pickle._Unpickler):  # written in Python: the one in C takes memory for whatever index a pickle names
    stack: list  # these three are pickle's own, which mypy does not know of
    metastack: list
    pop_mark: Callable[[], list]
    dispatch: ClassVar[dict[int, Any]] = {code: read for code, read in pickle._Unpickler.dispatch.items()
                                          if code not in REFUSED}

    def __init__(self, data: bytes, names: Names, stored: Callable[[Any], Any] | None):
        super().__init__(BytesIO(data), encoding="latin1")
        self.names, self.stored = {**NUMPY, "_codecs.encode": self.encode, **names}, stored
        self.left = len(data)

    def encode(self, text: str, _encoding: str = "") -> bytes:
        """How protocol 2 writes bytes: as text, which stands in the pickle once for each time that it is encoded."""
        self.left -= len(text)
        if type(text) is not str or self.left < 0:
            raise pickle.UnpicklingError("it makes more bytes than it has")
        return text.encode("latin1")

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in self.names:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no part of a trained model")
        return self.names[f"{module}.{name}"]

    def persistent_load(self, key: Any) -> Any:
        if self.stored is None:
            raise pickle.UnpicklingError("it asks for another file")
        return self.stored(key)

    def load_build(self) -> None:
        state = self.stack.pop()
        if isinstance(made := self.stack[-1], Plain):
            made.fill(state)
        elif not isinstance(made, OrderedDict):  # its attributes are nobody's need
            raise pickle.UnpicklingError(f"it fills a {type(made).__name__}, which is no part of a trained model")

    def load_setitems(self) -> None:
        items = self.pop_mark()
        if any(type(key) is not str and not (type(key) is int and key.bit_length() < 32) for key in items[::2]):
            raise pickle.UnpicklingError("it names its parts by other things than words and numbers")
        if not isinstance(filled := self.stack[-1], dict):
            raise pickle.UnpicklingError(f"it fills a {type(filled).__name__}, which is no part of a trained model")
        filled.update(zip(items[::2], items[1::2], strict=True))  # dict.update would leave an OrderedDict's order empty

    def load_setitem(self) -> None:
        self.metastack.append(self.stack[:-2])
        self.stack = self.stack[-2:]
        self.load_setitems()

    dispatch |= {pickle.BUILD[0]: load_build, pickle.SETITEMS[0]: load_setitems, pickle.SETITEM[0]: load_setitem}


def read_pickle(data: bytes, names: Names | None = None, stored: Callable[[Any], Any] | None = None) -> Any:
    """What a pickle holds: plain values, dicts, lists; numpy's arrays as `Plain`, its scalars as Python's numbers.

    `names` are further names that it may use ("torch.device") and what stands for each; `stored` gives what it refers
    to outside of itself. Raises UnpicklingError for other names, and anything for a damaged pickle.
    """
    return _Reader(data, names or {}, stored).load()
