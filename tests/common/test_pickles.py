import pickle
from collections import OrderedDict

import pytest

from octkit.common.pickles import read_pickle


@pytest.mark.parametrize("entries", [{"one": 1}, {"one": 1, "two": [2.5], "three": {"four": None}}])
@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_a_dictionary_is_read_with_its_entries_in_order(kind, entries):
    found = read_pickle(pickle.dumps(kind(entries), protocol=2))
    assert found == kind(entries) and list(found.items()) == list(entries.items())


def test_what_is_no_dictionary_is_not_filled():
    with pytest.raises(pickle.UnpicklingError, match="list"):
        read_pickle(b"\x80\x02](U\x01aK\x01u.")  # an empty list, then the entry "a": 1 for it


def test_a_text_that_is_encoded_again_and_again_makes_no_more_than_the_file():
    # A text of 1000 letters, kept in the memo; each further 6 bytes ask for it to be encoded once more.
    again = b"c_codecs\nencode\nh\x01\x85R"
    data = b"\x80\x02(X" + (1000).to_bytes(4, "little") + b"a" * 1000 + b"q\x010" + again * 100 + b"l."
    with pytest.raises(pickle.UnpicklingError, match="more bytes than it has"):
        read_pickle(data)
    once = b"\x80\x02(X" + (1000).to_bytes(4, "little") + b"a" * 1000 + b"q\x010" + again + b"l."
    assert read_pickle(once) == [b"a" * 1000]
