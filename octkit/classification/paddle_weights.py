"""Paddle's weight files, .pdparams, read without paddle and without running what a stranger's file asks for."""

from pathlib import Path

import numpy as np

from octkit.common.errors import OctkitError
from octkit.common.files import only_file
from octkit.common.pickles import Plain, read_pickle


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .pdparams file by name. Raises OctkitError for one that is damaged or holds more than arrays."""
    try:
        content = read_pickle(only_file(path, "weights", 2).read_bytes())
    except OctkitError:
        raise
    except Exception as error:  # reading a pickle is running it: a damaged one can raise any error
        raise OctkitError(f"{path}: cannot be read as weights ({error}), expected arrays by name") from None
    if not isinstance(content, dict):
        raise OctkitError(f"{path}: holds a {type(content).__name__}, expected arrays by name")
    content.pop("StructuredToParameterName@@", None)
    for name, array in content.items():
        if not isinstance(array, Plain) or array.values is None:
            raise OctkitError(f"{path}: {name!r} is no array of numbers, expected arrays by name")
    return {str(name): array.values for name, array in content.items()}
