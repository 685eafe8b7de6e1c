"""A network compiled for training: torch fuses what lies between two convolutions into one pass over the maps.

Without it norm, activation and the change of precision each read and write all maps. Compiling takes half a minute
before the first step, so that it pays for long trainings alone; and for wide networks, as the convolutions of narrow
ones take nearly all of a step (benchmarks/README.md).
"""

from collections.abc import Callable

import torch

from octkit.files import OctkitError

WIDE = 32  # maps at full resolution from which on something was gained: 55 ms a step, where 16 maps gained none
PAYS_AFTER = 1200  # steps, in which half a minute is gained twice


def compiled(network: torch.nn.Module, wanted: str, steps: int, maps: int, device: torch.device) -> Callable:
    """The network as it is to be called in training; its weights stay where they are.

    Args:
        wanted: "always", "never", or "auto": where torch can compile, for many `steps` of networks with many `maps` at
            full resolution.

    Raises OctkitError where torch cannot, for want of a C++ compiler above all, and it is wanted always.
    """
    if wanted == "never" or (wanted == "auto" and (steps < PAYS_AFTER or maps < WIDE)):
        return network
    if reason := why_not(device):
        if wanted == "always":
            raise OctkitError(f"train.compile: torch cannot compile here ({reason}), expected a C++ compiler such as "
                              "g++ on the path; set train.compile=auto or train.compile=never")
        print(f"training is not compiled and takes longer: torch cannot compile here ({reason})")
        return network
    print("the network is compiled, which takes about half a minute before the first step")
    return torch.compile(network)


def why_not(device: torch.device) -> str | None:
    """Why torch cannot compile on this device; None where it can. Found out by compiling a product and its gradient."""
    number = torch.ones(2, device=device, requires_grad=True)
    try:
        torch.compile(lambda x: (x * x).sum())(number).backward()
    except RuntimeError as error:  # of many kinds, by what is missing
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return None
