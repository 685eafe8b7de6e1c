"""A network compiled for training: torch fuses what lies between two convolutions into one pass over the maps.

Without it norm, activation and the change of precision each read and write all maps. Compiling takes half a minute
before the first step, so that it pays for long trainings alone; and for wide networks, as the convolutions of narrow
ones take nearly all of a step (benchmarks/README.md).
"""

import os
import shutil
from collections.abc import Callable

import torch

from octkit.files import OctkitError

WIDE = 32  # maps at full resolution from which on something was gained: 60 ms a step, where 16 maps gained 3
PAYS_AFTER = 1200  # steps, in which half a minute is gained twice
COMPILERS = ("g++", "clang++", "c++")  # torch writes C++; on a GPU it needs one to start its kernels


def compiled(network: torch.nn.Module, wanted: str, steps: int, maps: int) -> Callable:
    """The network as it is to be called in training; its weights stay where they are.

    Args:
        wanted: "always", "never", or "auto": where there is a C++ compiler, for many `steps` of networks with many
            `maps` at full resolution.

    Raises OctkitError where there is none and it is wanted always.
    """
    if wanted == "never" or (wanted == "auto" and (steps < PAYS_AFTER or maps < WIDE)):
        return network
    if not any(map(shutil.which, (*filter(None, [os.environ.get("CXX")]), *COMPILERS))):
        if wanted == "always":
            raise OctkitError(f"train.compile: found no C++ compiler, expected one of {', '.join(COMPILERS)} on the "
                              "path, or its name in CXX; set train.compile=auto or train.compile=never")
        print("no C++ compiler is there: training is not compiled and takes longer")
        return network
    print("the network is compiled, which takes about half a minute before the first step")
    return torch.compile(network)
