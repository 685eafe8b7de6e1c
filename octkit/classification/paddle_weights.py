"""Paddle's weight files, .pdparams, read without paddle and without running what a stranger's file asks for."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from octkit.common.errors import OctkitError


class _ArraysOnly(pickle.Unpickler):
    """Reads what paddle.save writes. A pickle may have any function called while it is read; here only these."""

    ALLOWED = {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"), ("collections", "OrderedDict"),
               ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no part of a state dict")
        return _empty_array if name == "_reconstruct" else super().find_class(module, name)


def _empty_array(kind: type, shape: tuple[int, ...], _dtype: Any) -> np.ndarray:
    """What numpy's `_reconstruct` makes before its content is set; for another shape it would take any memory."""
    if kind is not np.ndarray or shape != (0,):
        raise pickle.UnpicklingError("it asks for an array of its own making, which is no part of a state dict")
    return np.ndarray(0, np.int8)


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .pdparams file by name. Raises OctkitError for one that is damaged or holds more than arrays."""
    try:
        content = _ArraysOnly(io.BytesIO(Path(path).read_bytes()), encoding="latin1").load()
    except Exception as error:  # reading a pickle is running it: a damaged one can raise any error
        raise OctkitError(f"{path}: cannot be read as weights ({error}), expected arrays by name") from None
    if not isinstance(content, dict):
        raise OctkitError(f"{path}: holds a {type(content).__name__}, expected arrays by name")
    content.pop("StructuredToParameterName@@", None)
    for name, array in content.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
            raise OctkitError(f"{path}: {name!r} is no array of numbers, expected arrays by name")
    return {str(name): array for name, array in content.items()}
