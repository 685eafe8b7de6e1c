import shutil

import pytest
import torch

from octkit.compiling import PAYS_AFTER, WIDE, compiled
from octkit.files import OctkitError
from octkit.unet import UNet


@pytest.fixture
def compilers(monkeypatch):
    """The names of the C++ compilers that are there, to be changed by a test; torch does not compile."""
    names = ["g++"]
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: name if name in names else None)
    monkeypatch.setattr(torch, "compile", lambda network: ("compiled", network))
    return names


@pytest.mark.parametrize(("wanted", "steps", "maps", "expected"), [
    ("always", 1, 1, True), ("never", 10**6, 512, False), ("auto", PAYS_AFTER, WIDE, True),
    ("auto", PAYS_AFTER - 1, WIDE, False), ("auto", PAYS_AFTER, WIDE - 1, False)])
@pytest.mark.usefixtures("compilers")
def test_when_a_training_is_compiled(wanted, steps, maps, expected):
    assert (compiled("network", wanted, steps, maps) == ("compiled", "network")) == expected


def test_without_a_compiler(compilers, capsys, monkeypatch):
    compilers.clear()
    assert compiled("network", "auto", PAYS_AFTER, WIDE) == "network"
    assert "no C++ compiler" in capsys.readouterr().out
    with pytest.raises(OctkitError, match="train.compile: found no C[+][+] compiler, expected one of g[+][+]"):
        compiled("network", "always", 1, 1)
    compilers.append("icpx")
    monkeypatch.setenv("CXX", "icpx")
    assert compiled("network", "always", 1, 1) == ("compiled", "network")


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="there is no C++ compiler")
def test_a_compiled_network_learns_the_same():
    torch.manual_seed(0)
    network = UNet(1, 3, (4, 6), ((1, 1), (2, 2)), ((3, 3), (3, 3)))
    image = torch.randn(2, 1, 16, 24)
    found = []
    for call in (network, compiled(network, "always", 1, 1)):
        network.zero_grad()
        loss = sum(scores.square().mean() for scores in call(image))
        loss.backward()
        found.append([loss.detach(), *(weights.grad.clone() for weights in network.parameters())])
    for plain, fused in zip(*found, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-3, atol=1e-5)
