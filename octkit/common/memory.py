"""How much memory is free, and whether a file's content fits into it."""

from math import inf
from pathlib import Path

import psutil

from octkit.common.errors import bad_file

GB = 1e9
SMALL = 0.1 * GB  # what takes less is read without a look
# Files of Linux's resource groups (limit, use, what is given up on demand): version 2, version 1.
LIMITS = (("memory.max", "memory.current", "inactive_file"),
          ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"))


def check_content(path: Path, need: float) -> None:
    """Raise OctkitError where reading a file takes more memory (`need`, bytes) than is free."""
    if need > SMALL and need > (free := free_memory()):
        raise bad_file(path, f"takes about {need / GB:.1f} GB of memory to read, found {free / GB:.1f} GB free",
                       "expected one that fits: cut it into parts, or close other programs")


def free_memory(groups: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> float:
    """Bytes that the system and the process's resource groups leave.

    A container or a batch system gives a process less than the machine has. `groups` and `membership` are where Linux
    keeps its resource groups and says to which a process belongs.
    """
    return min(psutil.virtual_memory().available, *_left_in_groups(groups, membership), inf)


def _left_in_groups(groups: Path, membership: Path) -> list[float]:
    if not membership.exists():  # no Linux
        return []
    left = []
    for line in membership.read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = groups / "memory" if controllers else groups
        folder = root / path.strip("/")
        for group in (folder, *folder.parents):  # each group above limits as well
            left += [_left(group, *names) for names in LIMITS if (group / names[0]).exists()]
            if group == root:
                break
    return left


def _left(group: Path, limit: str, used: str, reclaimable: str) -> float:
    most = (group / limit).read_text(encoding="utf-8").strip()
    if most == "max":
        return inf
    # Files that were read long ago count as used, but are given up as soon as memory is asked for.
    details = dict(line.split() for line in (group / "memory.stat").read_text(encoding="utf-8").splitlines())
    return int(most) - int((group / used).read_text(encoding="utf-8")) + int(details.get(reclaimable, 0))
