import os
import subprocess
import sys

import pytest
import torch

from octkit.common.errors import OctkitError
from octkit.network.unet import UNet
from octkit.training import train
from octkit.training.train import PAYS_AFTER, WIDE, compiled, why_not

CPU = torch.device("cpu")


@pytest.mark.parametrize(("wanted", "steps", "maps", "expected"), [
    ("always", 1, 1, True), ("never", 10**6, 512, False), ("auto", PAYS_AFTER, WIDE, True),
    ("auto", PAYS_AFTER - 1, WIDE, False), ("auto", PAYS_AFTER, WIDE - 1, False)])
def test_when_a_training_is_compiled(monkeypatch, wanted, steps, maps, expected):
    monkeypatch.setattr(train, "why_not", lambda _: None)
    monkeypatch.setattr(torch, "compile", lambda network: ("compiled", network))
    assert compiled("network", wanted, steps, maps, CPU) == (("compiled", "network") if expected else "network")


def test_where_torch_cannot_compile(monkeypatch, capsys):
    monkeypatch.setattr(train, "why_not", lambda _: "no g++")
    assert compiled("network", "auto", PAYS_AFTER, WIDE, CPU) == "network"
    assert "not compiled and takes longer: torch cannot compile here (no g++)" in capsys.readouterr().out
    with pytest.raises(OctkitError, match=r"train.compile: torch cannot compile here \(no g\+\+\), expected a C\+\+"):
        compiled("network", "always", 1, 1, CPU)


def test_a_missing_compiler_is_noticed(tmp_path):
    code = "import torch; from octkit.training.train import why_not; print(why_not(torch.device('cpu')))"
    environment = os.environ | {"PATH": "", "CXX": "", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "ompiler" in run.stdout


def test_a_compiled_network_learns_the_same():
    if reason := why_not(CPU):
        pytest.skip(f"torch cannot compile here: {reason}")
    torch.manual_seed(0)
    network = UNet(1, 3, (4, 6), ((1, 1), (2, 2)), ((3, 3), (3, 3)))
    image = torch.randn(2, 1, 16, 24)
    found = []
    for call in (network, compiled(network, "always", 1, 1, CPU)):
        network.zero_grad()
        loss = sum(scores.square().mean() for scores in call(image))
        loss.backward()
        found.append([loss.detach(), *(weights.grad.clone() for weights in network.parameters())])
    for plain, fused in zip(*found, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-3, atol=1e-5)
