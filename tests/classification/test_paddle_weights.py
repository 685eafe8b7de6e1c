import os
import pickle

import numpy as np
import pytest

from octkit.classification.paddle_weights import read_weights
from octkit.common.errors import OctkitError


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_a_pickle_that_runs_something_is_refused_and_not_run(tmp_path):
    path = tmp_path / "weights.pdparams"
    path.write_bytes(pickle.dumps({"conv1.weight": Malicious(tmp_path / "ran")}))
    with pytest.raises(OctkitError, match="weights.pdparams.*mkdir"):
        read_weights(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps([1, 2]), pickle.dumps({"a": "text"}),
                                     pickle.dumps({"a": [[1], [1, 2]]}),
                                     pickle.dumps({"a": np.array(["text"], object)})])
def test_what_holds_no_arrays_is_refused(tmp_path, content):
    path = tmp_path / "weights.pdparams"
    path.write_bytes(content)
    with pytest.raises(OctkitError, match="weights.pdparams"):
        read_weights(path)


class Swelling:
    """A pickle of a few bytes that asks for an array of 8 TB."""

    def __reduce__(self):
        return np.array(0).__reduce__()[0], (np.ndarray, (10**12,), b"d")


def test_a_pickle_that_would_fill_the_memory_is_refused(tmp_path):
    (tmp_path / "weights.pdparams").write_bytes(pickle.dumps({"conv1.weight": Swelling()}))
    with pytest.raises(OctkitError, match="weights.pdparams.*an array of its own making"):
        read_weights(tmp_path / "weights.pdparams")
