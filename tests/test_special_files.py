"""Pipes, devices and sockets where a file is expected: they would be read, or waited for, without an end."""

import os
import socket
from pathlib import Path

import pytest

from octkit.classification.paddle_weights import read_weights
from octkit.common import settings
from octkit.common.errors import OctkitError
from octkit.data.groups import read_groups
from octkit.data.heidelberg import open_vol
from octkit.data.image_files import read_image
from octkit.data.layouts.goals import read_labels
from octkit.data.volume_files import read_volume
from octkit.evaluation.evaluate import read_predictions
from octkit.evaluation.submission import check_submission
from octkit.exchange.nnunet_models import import_model, read_checkpoint
from octkit.layers.scan_files import read_boundaries
from octkit.network.checkpoints import load_checkpoint
from octkit.network.model_file import open_model
from octkit.planning.fingerprint import Fingerprint
from octkit.planning.plan import Plan
from octkit.planning.run import Run

READERS = {
    "settings.json": settings.load, "plan.json": Plan.load, "fingerprint.json": Fingerprint.load,
    "checkpoint.pt": load_checkpoint, "checkpoint_final.pth": read_checkpoint, "model.zip": open_model,
    "nnunet.zip": lambda path: import_model(path, path.with_name("out.zip")), "weights.pdparams": read_weights,
    "scan.png": read_image, "scan.nii.gz": read_volume, "scan.vol": open_vol, "table.xlsx": read_labels,
    "table.csv": read_labels, "groups.csv": read_groups, "scan.boundaries.csv": read_boundaries,
    "predictions.csv": read_predictions, "submission.zip": lambda path: check_submission(path, path.parent / "images"),
}


def listening(path: Path) -> None:
    here = os.open(".", os.O_RDONLY)
    os.chdir(path.parent)  # a socket's path has at most 107 bytes
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.fchdir(here)
        os.close(here)


MAKERS = {"pipe": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "socket": listening}


@pytest.mark.parametrize("name", [name for name in READERS if not name.endswith((".zip", ".png", ".gz", ".xlsx"))
                                  and name != "table.csv"])
def test_a_file_of_holes_is_refused_with_its_size(tmp_path, name):
    """A file that states a terabyte takes none of the disk, and one that is read whole fills the memory."""
    with open(tmp_path / name, "wb") as file:
        file.write(b"HSF-OCT")
        file.truncate(2**40)
    with pytest.raises(OctkitError, match=r"takes about \d{4,}.* GB of memory|is of 1099511627776 bytes") as refused:
        READERS[name](tmp_path / name)
    assert refused.value.file == tmp_path / name


@pytest.mark.parametrize("maker", ["pipe", "socket"])
@pytest.mark.parametrize("name", ["ledger.jsonl", "models/2d/fold_0/log.csv", "preprocessed/2d/a.npy"])
def test_a_run_that_holds_one_is_refused_as_it_is_opened(tmp_path, name, maker):
    settings.from_profile("smoke").save(tmp_path / "settings.json")
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    MAKERS[maker](tmp_path / name)
    with pytest.raises(OctkitError, match="is a pipe or a device") as refused:
        _ = Run(tmp_path).settings
    assert refused.value.file == tmp_path / name


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_is_refused_and_named(tmp_path, name, maker):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/0001.png").write_bytes((settings.PROJECT / "docs/example.png").read_bytes())
    MAKERS[maker](tmp_path / name)
    with pytest.raises(OctkitError, match="is a pipe or a device") as refused:
        READERS[name](tmp_path / name)
    assert refused.value.file == tmp_path / name
