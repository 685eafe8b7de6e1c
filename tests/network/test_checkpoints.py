import hashlib
import io
import zipfile

import pytest
import torch

from octkit.common.errors import OctkitError
from octkit.network import checkpoints
from octkit.network.checkpoints import DIGEST_SIZE, load_checkpoint, newest_checkpoint, save_checkpoint

STATE = {"network": {"w": torch.arange(6, dtype=torch.float32).reshape(2, 3)}, "epoch": 3, "log": [{"loss": 0.5}]}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def saved(folder, epochs):
    """The checkpoint of a training after each of these epochs."""
    for epoch in epochs:
        save_checkpoint(folder / "c.pt", {"epoch": epoch})
    return folder / "c.pt"


def test_checkpoints_go_round_and_are_ordinary_files_of_torch(tmp_path):
    save_checkpoint(tmp_path / "c.pt", STATE)
    for loaded in (load_checkpoint(tmp_path / "c.pt"), torch.load(tmp_path / "c.pt", weights_only=True)):
        assert loaded["epoch"] == 3 and loaded["log"] == [{"loss": 0.5}]
        assert torch.equal(loaded["network"]["w"], STATE["network"]["w"])
    assert names(tmp_path) == ["c.pt"]


def test_the_one_before_is_kept(tmp_path):
    path = saved(tmp_path, (1, 2, 3))
    with pytest.raises(Exception, match="local object"):  # a save that fails changes nothing
        save_checkpoint(path, {"epoch": lambda: 4})
    assert names(tmp_path) == ["c.previous.pt", "c.pt"]
    assert [load_checkpoint(tmp_path / name)["epoch"] for name in names(tmp_path)] == [2, 3]
    assert newest_checkpoint(tmp_path / "other.pt") is None


def seal(path, archive):
    """Write a zip archive as a checkpoint whose checksum fits."""
    content = archive[:-2] + DIGEST_SIZE.to_bytes(2, "little")
    path.write_bytes(content + hashlib.sha256(content).hexdigest().encode())


class Evil:
    def __reduce__(self):
        return print, ("code ran",)


def test_a_checkpoint_that_holds_code_is_refused_and_not_run(tmp_path, capsys):
    buffer = io.BytesIO()
    torch.save({"network": Evil()}, buffer)
    seal(tmp_path / "c.pt", buffer.getvalue())
    with pytest.raises(OctkitError, match=r"c.pt: cannot be read as a checkpoint \(it asks for \S*\.print"):
        load_checkpoint(tmp_path / "c.pt")
    assert "code ran" not in capsys.readouterr().out


def test_any_wrong_bit_and_any_missing_end_is_noticed(tmp_path):
    path = tmp_path / "c.pt"
    save_checkpoint(path, STATE)
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        for damaged in (content[:place] + bytes([content[place] ^ 1]) + content[place + 1:], content[:place]):
            path.write_bytes(damaged)
            with pytest.raises(OctkitError, match="c.pt: .*checksum is wrong"):
                load_checkpoint(path)


def test_a_damaged_newest_is_said_set_aside_and_the_one_before_used(tmp_path, capsys):
    path = saved(tmp_path, (1, 2))
    path.write_bytes(path.read_bytes()[:-1000])
    assert newest_checkpoint(path) == {"epoch": 1}
    assert "c.pt: cannot be read as a checkpoint" in (said := capsys.readouterr().out)
    assert "c.previous.pt is used instead" in said
    # the next save must not push the damaged one over the whole one
    saved(tmp_path, (2,))
    assert names(tmp_path) == ["c.damaged.pt", "c.previous.pt", "c.pt"] and newest_checkpoint(path) == {"epoch": 2}
    assert load_checkpoint(tmp_path / "c.previous.pt") == {"epoch": 1}


def test_stopped_between_the_two_renames_nothing_is_lost(tmp_path, capsys):
    path = saved(tmp_path, (1,))
    path.rename(tmp_path / "c.previous.pt")
    assert newest_checkpoint(path) == {"epoch": 1}
    assert "was about to be replaced" in capsys.readouterr().out


@pytest.mark.parametrize("count", [1, 2])
def test_where_none_is_whole_that_is_an_error(tmp_path, count):
    saved(tmp_path, range(count))
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.raises(OctkitError, match="cannot be read as a checkpoint"):
        newest_checkpoint(tmp_path / "c.pt")


class Claims:
    """A tensor of a million numbers, of which the file holds one."""

    def __reduce__(self):
        one = torch.storage.TypedStorage(wrap_storage=torch.UntypedStorage(4), dtype=torch.float32, _internal=True)
        return torch._utils._rebuild_tensor_v2, (one, 0, (10**6,), (1,), False, {})


@pytest.mark.parametrize("weights", [torch.ones(1).expand(1000, 1000), Claims()])
def test_a_tensor_that_is_larger_than_what_is_stored_is_refused(tmp_path, weights):
    """torch takes the memory for it."""
    save_checkpoint(tmp_path / "c.pt", {"network": {"w": weights}})
    with pytest.raises(OctkitError, match=r"c.pt: .*not all of whose numbers are stored"):
        load_checkpoint(tmp_path / "c.pt")


def test_a_packed_archive_is_refused_before_it_is_unpacked(tmp_path):
    buffer, packed = io.BytesIO(), io.BytesIO()
    torch.save({"network": {"w": torch.zeros(10**6)}}, buffer)
    with zipfile.ZipFile(buffer) as archive, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as other:
        for name in archive.namelist():
            other.writestr(name, archive.read(name))
    assert len(packed.getvalue()) < 10_000
    seal(tmp_path / "c.pt", packed.getvalue())
    with pytest.raises(OctkitError, match="c.pt: .*unpack to more than the file"):
        load_checkpoint(tmp_path / "c.pt")


def test_tensors_come_back_as_they_lay_in_memory(tmp_path):
    state = {"last": torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last), "none": torch.zeros(0, 3),
             "turned": torch.rand(3, 4).t(), "half": torch.rand(3).bfloat16(), "whole": torch.arange(3),
             "one": torch.tensor(2.5), "learned": torch.nn.Parameter(torch.rand(2)), "part": torch.rand(9)[2:5]}
    save_checkpoint(tmp_path / "c.pt", state)
    for name, found in load_checkpoint(tmp_path / "c.pt").items():
        assert torch.equal(found, state[name]) and found.dtype == state[name].dtype, name
        assert found.stride() == state[name].stride() and not found.requires_grad, name
        found += 1  # nothing else shares them


@pytest.mark.parametrize("size", [("A", 10**10), (True, 2), (-1, 2)])
def test_a_size_that_is_no_number_takes_no_memory(size):
    with pytest.raises(ValueError, match="size"):  # "A" times a number is a text of so many letters
        checkpoints._tensor(torch.zeros(4), 0, size, (2, 1))
