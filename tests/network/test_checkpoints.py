import hashlib
import io

import pytest
import torch

from octkit.common.errors import OctkitError
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
    with pytest.raises(Exception, match="pickle"):  # a save that fails changes nothing
        save_checkpoint(path, {"epoch": lambda: 4})
    assert names(tmp_path) == ["c.previous.pt", "c.pt"]
    assert [load_checkpoint(tmp_path / name)["epoch"] for name in names(tmp_path)] == [2, 3]
    assert newest_checkpoint(tmp_path / "other.pt") is None


class Evil:
    def __reduce__(self):
        return print, ("code ran",)


def test_a_checkpoint_that_holds_code_is_refused_and_not_run(tmp_path, capsys):
    buffer = io.BytesIO()
    torch.save({"network": Evil()}, buffer)
    content = buffer.getvalue()[:-2] + DIGEST_SIZE.to_bytes(2, "little")
    (tmp_path / "c.pt").write_bytes(content + hashlib.sha256(content).hexdigest().encode())
    with pytest.raises(OctkitError, match=r"c.pt: cannot be read as a checkpoint \(Weights only load failed"):
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
