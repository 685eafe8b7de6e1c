import os
import pickle

import numpy as np
import pytest

from octkit.classification.paddle_weights import read_weights
from octkit.common.errors import OctkitError


class Made:
    """A pickle that asks for `make(*arguments)` when it is read, filled with `state` where there is one."""

    def __init__(self, make, *arguments, state=None):
        self.parts = (make, arguments) if state is None else (make, arguments, state)

    def __reduce__(self):
        return self.parts


def test_a_pickle_that_runs_something_is_refused_and_not_run(tmp_path):
    path = tmp_path / "weights.pdparams"
    path.write_bytes(pickle.dumps({"conv1.weight": Made(os.mkdir, str(tmp_path / "ran"))}))
    with pytest.raises(OctkitError, match="weights.pdparams.*mkdir"):
        read_weights(path)
    assert not (tmp_path / "ran").exists()
    # 8 TB for a few bytes
    path.write_bytes(pickle.dumps({"conv1.weight": Made(np.array(0).__reduce__()[0], np.ndarray, (10**12,), b"d")}))
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


DTYPE_STATE = (3, "<", None, None, None, -1, -1, 0)
DTYPES = {
    "fields of its own": Made(np.dtype, "V8", False, True,
                              state=(3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 16)),
    "objects": Made(np.dtype, "O", False, True, state=(3, "|", None, None, None, -1, -1, 63)),
    "a size of its own": Made(np.dtype, "f4", False, True, state=(3, "<", None, None, None, 1 << 30, 1, 0)),
    "text": Made(np.dtype, "U1000000000", False, True, state=(3, "<", None, None, None, 4 * 10**9, 4, 8)),
}


@pytest.mark.parametrize("kind", DTYPES)
def test_numpys_types_take_no_state_from_the_file(tmp_path, kind):
    """numpy's own would end in freed objects, or in a segmentation fault."""
    path = tmp_path / "weights.pdparams"
    rebuild = np.array(0).__reduce__()[0]
    path.write_bytes(pickle.dumps({"w": Made(rebuild, np.ndarray, (0,), b"b",
                                             state=(1, (0,), DTYPES[kind], False, b""))}))
    with pytest.raises(OctkitError, match=r"weights\.pdparams: cannot be read as weights \(it "):
        read_weights(path)


def test_a_pickle_that_names_a_far_place_takes_no_memory(tmp_path):
    """The reader in C makes a table of so many places. And hashing tuples in tuples without end ends in a crash."""
    path = tmp_path / "weights.pdparams"
    path.write_bytes(b"\x80\x02}r\xff\xff\xff\x0f.")  # an empty dict, remembered as number 2**28
    assert read_weights(path) == {}
    path.write_bytes(b"\x80\x02})" + b"\x85" * 10**6 + b"K\x01s.")
    with pytest.raises(OctkitError, match="weights.pdparams"):
        read_weights(path)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_arrays_come_back_as_they_were(tmp_path, protocol):
    arrays = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "f": np.asfortranarray(np.eye(3)),
              "n": np.array([1, 2], np.int64), "b": np.array([True, False]), "one": np.array(2.5),
              "h": np.ones(2, "f2")}
    (tmp_path / "w.pdparams").write_bytes(pickle.dumps(arrays, protocol=protocol))
    found = read_weights(tmp_path / "w.pdparams")
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype and found[name].tolist() == array.tolist(), name
