import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest
import torch
from helpers import tiny_model

from octkit.common.errors import OctkitError
from octkit.common.memory import free_memory
from octkit.common.settings import TrainSettings
from octkit.network import memory
from octkit.network.model import build_network
from octkit.network.unet import UNet
from octkit.planning.rules import feature_map_values

CPU = torch.device("cpu")


@pytest.fixture
def small():
    return tiny_model("2d")


def test_training_by_hand(small):
    # 16 x 16 px, 4 and 8 maps: 256 (4 scores + 4 x 5) + 64 x 8 x 2 = 7,168 values a patch, kept twice; 7 times the
    # finest stage's 1,024 for a moment; batch 2; 100 parameters three times
    assert memory.training_bytes(100, small.plan, "2d", TrainSettings(), "float32") == memory.LIBRARIES + 4 * (
        3 * 100 + 2 * (2 * 7168 + memory.MOMENTARY_IN_TRAINING * 1024))
    adam = memory.training_bytes(100, small.plan, "2d", TrainSettings(optimiser="adam"), "float32")
    assert adam - memory.training_bytes(100, small.plan, "2d", TrainSettings(), "float32") == 400


@pytest.mark.parametrize("blocks", [(), (1, 3, 4)])
def test_what_training_keeps_is_what_is_counted(blocks):
    features, strides, kernels = (16, 32, 32), ((1, 1), (2, 2), (2, 2)), ((3, 3),) * 3
    network, kept = UNet(1, 4, features, strides, kernels, blocks), {}
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = network(torch.zeros(2, 1, 48, 64))
    found = sum(size for place, size in kept.items() if place not in own)
    counted = 2 * 2 * 4 * feature_map_values((48, 64), features, strides, 3, blocks)  # batch, twice, bytes
    assert len(outputs) == 2 and 0.9 * counted < found < counted


def test_each_worker_keeps_two_batches_waiting(small):
    assert memory.loading_bytes(small.plan, "2d", 3) == 3 * (2 * 2 * 256 * (4 + 1) + memory.WORKER)


def test_prediction_by_hand(small):
    assert memory.window_bytes(small) == 4 * memory.FORWARD * 256 * 4
    assert memory.window_bytes(small, 4) == 4 * memory.window_bytes(small)
    assert memory.window_bytes(small, unfolds=True) == memory.window_bytes(small)
    assert memory.probability_bytes(small, (100, 200)) == 4 * 4 * 20_000
    # 4 maps of 4 x 16 x 16 voxels, float32; few maps are unfolded: copied with the 9 voxels around each, four times
    plain, unfolded = (memory.window_bytes(tiny_model("3d_fullres"), unfolds=unfolds) for unfolds in (False, True))
    assert (plain, unfolded) == (12 * 16_384, (12 + 4 * 9) * 16_384)


def test_what_is_too_much_is_said_with_the_setting_that_helps(small, monkeypatch):
    network = build_network(small.plan, "2d", True)
    monkeypatch.setattr(memory, "free_bytes", lambda _: 1e5)
    with pytest.raises(OctkitError, match=r"2d needs about 0.8 GB .*workers \(4 now\), plan.batch_size \(2 now\)"):
        memory.check_training(network, small.plan, "2d", TrainSettings(), CPU, "float32")
    with pytest.raises(OctkitError, match="a scan of 500 x 1000 needs about 0.1 GB of memory, .*infer.mirror=false"):
        memory.check_prediction(small, (500, 1000), 8, CPU, "float32")
    monkeypatch.setattr(memory, "free_bytes", lambda _: 1e12)
    memory.check_training(network, small.plan, "2d", TrainSettings(), CPU, "float32")
    memory.check_prediction(small, (500, 1000), 8, CPU, "float32")


def group(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"memory.{name}").write_text(content)


@pytest.fixture
def machine(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10_000))


@pytest.mark.usefixtures("machine")
def test_a_containers_limit_counts_and_every_one_above_it(tmp_path):
    (tmp_path / "cgroup").write_text("0::/batch/job\n")
    group(tmp_path / "groups/batch/job", max="max\n", current="5\n", stat="")
    assert free_memory(tmp_path / "groups", tmp_path / "cgroup") == 10_000
    group(tmp_path / "groups/batch", max="8000\n", current="5000\n", stat="anon 1\ninactive_file 400\n")
    assert free_memory(tmp_path / "groups", tmp_path / "cgroup") == 8000 - 5000 + 400


@pytest.mark.usefixtures("machine")
def test_version_1_of_the_groups(tmp_path):
    (tmp_path / "cgroup").write_text("5:cpu,cpuacct:/x\n4:memory:/x\n")
    group(tmp_path / "groups/memory/x", limit_in_bytes="2000", usage_in_bytes="1500", stat="total_inactive_file 50")
    assert free_memory(tmp_path / "groups", tmp_path / "cgroup") == 550
    assert free_memory(tmp_path, tmp_path / "none") == 10_000  # no groups: the machine decides


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's alone")
def test_freed_memory_is_kept_for_the_next_array():
    # In a process of its own, as it holds until the end: 10 arrays of 40 MB, one after the other. A page is 4 KiB.
    code = """if True:
        import resource, sys
        import numpy as np
        from octkit.network.memory import keep_freed_memory
        if sys.argv[1] == "keep":
            keep_freed_memory()
        np.ones(5_000_000)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            np.ones(5_000_000)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"""
    small_pages = os.environ | {"NUMPY_MADVISE_HUGEPAGE": "0"}
    faults = {how: int(subprocess.run([sys.executable, "-c", code, how], capture_output=True, text=True, check=True,
                                      env=small_pages).stdout) for how in ("keep", "give back")}
    assert faults["keep"] < 2000 and faults["give back"] > 90_000
