import os
import pickle

import numpy as np
import pytest

from octkit.classification.paddle_weights import read_weights
from octkit.common.errors import OctkitError


class Asking:
    """A pickle that asks for a function to be called when it is read."""

    def __init__(self, *what):
        self.what = what

    def __reduce__(self):
        return self.what


def test_a_pickle_that_runs_something_is_refused_and_not_run(tmp_path):
    path = tmp_path / "weights.pdparams"
    path.write_bytes(pickle.dumps({"conv1.weight": Asking(os.mkdir, (str(tmp_path / "ran"),))}))
    with pytest.raises(OctkitError, match="weights.pdparams.*mkdir"):
        read_weights(path)
    assert not (tmp_path / "ran").exists()
    # 8 TB for a few bytes
    path.write_bytes(pickle.dumps({"conv1.weight": Asking(np.array(0).__reduce__()[0], (np.ndarray, (10**12,), b"d"))}))
    with pytest.raises(OctkitError, match="weights.pdparams.*an array of its own making"):
        read_weights(path)


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps([1, 2]), pickle.dumps({"a": "text"}),
                                     pickle.dumps({"a": [[1], [1, 2]]}),
                                     pickle.dumps({"a": np.array(["text"], object)})])
def test_what_holds_no_arrays_is_refused(tmp_path, content):
    path = tmp_path / "weights.pdparams"
    path.write_bytes(content)
    with pytest.raises(OctkitError, match="weights.pdparams"):
        read_weights(path)
