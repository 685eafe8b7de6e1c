"""What a library has to be told about this computer's processor before its first computation."""

import os
from pathlib import Path


def usable_cores() -> int:
    """The cores that this process may use: a container or a batch system may give it fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()  # not on macOS


def let_mkl_use_avx2(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Have Intel's MKL use AVX2 on AMD's processors, where they have it; whether it was asked to.

    The MKL of 2019 that comes with Paddle takes its slowest way on processors of other makers: on an AMD EPYC the
    gradient step of a ResNet50 took seven to ten times as long (benchmarks/README.md). MKL_DEBUG_CPU_TYPE, which MKL
    reads at its first computation, names the kind of processor to take it for; 5 is one with AVX2. A value that is set
    already stays. MKL of 2020 and later ignores it.
    """
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    able = "AuthenticAMD" in text and " avx2 " in text
    if able:
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
    return able
