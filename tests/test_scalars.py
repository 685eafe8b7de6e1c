import pytest
from helpers import scalars_of

from octkit.training.train import Scalars


def test_tensorboard_reads_what_was_written(tmp_path):
    scalars = Scalars(tmp_path, [])
    scalars.add({"epoch": 1, "train_loss": 0.5, "dice_rnfl": None})
    scalars.add({"epoch": 2, "train_loss": 0.25, "dice_rnfl": 0.75})
    assert scalars_of(tmp_path) == {"train_loss": [(1, 0.5), (2, 0.25)], "dice_rnfl": [(2, 0.75)]}


def test_going_on_leaves_no_doubles_and_no_gaps(tmp_path):
    log = [{"epoch": 1, "train_loss": 0.5}]
    first = Scalars(tmp_path, [])
    first.add(log[0])
    first.add({"epoch": 2, "train_loss": 9.0})  # of an epoch whose checkpoint was lost
    with open(first.path, "ab") as file:
        file.write(b"torn")
    again = Scalars(tmp_path, log)
    again.add({"epoch": 2, "train_loss": 0.25})
    assert scalars_of(tmp_path) == {"train_loss": [(1, 0.5), (2, 0.25)]}
    assert list(tmp_path.iterdir()) == [again.path] and again.path != first.path


def test_values_keep_their_digits(tmp_path):
    Scalars(tmp_path, [{"epoch": 1, "learning_rate": 1e-7}])
    [[(_, value)]] = scalars_of(tmp_path).values()
    assert value == pytest.approx(1e-7, rel=1e-6)
