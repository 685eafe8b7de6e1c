import hashlib
import io

import pytest
import torch

from octkit.common.errors import OctkitError
from octkit.network.checkpoints import (
    DIGEST_SIZE,
    load_checkpoint,
    newest_checkpoint,
    previous_of,
    remove_checkpoints,
    save_checkpoint,
)

STATE = {"network": {"w": torch.arange(6, dtype=torch.float32).reshape(2, 3)}, "epoch": 3, "log": [{"loss": 0.5}]}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_checkpoints_go_round(tmp_path):
    save_checkpoint(tmp_path / "c.pt", STATE)
    loaded = load_checkpoint(tmp_path / "c.pt")
    assert loaded["epoch"] == 3 and loaded["log"] == [{"loss": 0.5}]
    assert torch.equal(loaded["network"]["w"], STATE["network"]["w"])
    assert names(tmp_path) == ["c.pt"]


def test_a_checkpoint_is_an_ordinary_file_of_torch(tmp_path):
    save_checkpoint(tmp_path / "c.pt", STATE)
    assert torch.equal(torch.load(tmp_path / "c.pt", weights_only=True)["network"]["w"], STATE["network"]["w"])


def test_the_one_before_is_kept(tmp_path):
    for epoch in (1, 2, 3):
        save_checkpoint(tmp_path / "c.pt", {"epoch": epoch})
    assert names(tmp_path) == ["c.previous.pt", "c.pt"]
    assert load_checkpoint(tmp_path / "c.pt") == {"epoch": 3}
    assert load_checkpoint(tmp_path / "c.previous.pt") == {"epoch": 2}
    remove_checkpoints(tmp_path / "c.pt")
    assert names(tmp_path) == [] and newest_checkpoint(tmp_path / "c.pt") is None


def test_a_failed_save_keeps_both_checkpoints_before(tmp_path):
    for epoch in (1, 2):
        save_checkpoint(tmp_path / "c.pt", {"epoch": epoch})
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(tmp_path / "c.pt", {"epoch": lambda: 3})
    assert [load_checkpoint(tmp_path / name)["epoch"] for name in names(tmp_path)] == [1, 2]


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
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1:])
        with pytest.raises(OctkitError, match="c.pt: cannot be read as a checkpoint .its checksum is wrong"):
            load_checkpoint(path)
        path.write_bytes(content[:place])
        with pytest.raises(OctkitError, match="c.pt: cannot be read as a checkpoint .its checksum is wrong"):
            load_checkpoint(path)


def test_a_damaged_newest_is_said_set_aside_and_the_one_before_used(tmp_path, capsys):
    path = tmp_path / "c.pt"
    for epoch in (1, 2):
        save_checkpoint(path, {"epoch": epoch})
    path.write_bytes(path.read_bytes()[:-1000])
    assert newest_checkpoint(path) == {"epoch": 1}
    assert "c.pt: cannot be read as a checkpoint" in (said := capsys.readouterr().out)
    assert "c.previous.pt is used instead" in said
    # the next save must not push the damaged one over the whole one
    save_checkpoint(path, {"epoch": 2})
    assert names(tmp_path) == ["c.damaged.pt", "c.previous.pt", "c.pt"]
    assert load_checkpoint(previous_of(path)) == {"epoch": 1} and newest_checkpoint(path) == {"epoch": 2}


def test_stopped_between_the_two_renames_nothing_is_lost(tmp_path, capsys):
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"epoch": 1})
    path.rename(previous_of(path))
    assert newest_checkpoint(path) == {"epoch": 1}
    assert "was about to be replaced" in capsys.readouterr().out


@pytest.mark.parametrize("saved", [1, 2])
def test_where_none_is_whole_that_is_an_error(tmp_path, saved):
    for epoch in range(saved):
        save_checkpoint(tmp_path / "c.pt", {"epoch": epoch})
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.raises(OctkitError, match="cannot be read as a checkpoint"):
        newest_checkpoint(tmp_path / "c.pt")
