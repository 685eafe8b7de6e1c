"""What not every system has, behind functions that every system has. Windows has no fcntl, no fork, fewer signals.

Only this module names such things, and `lessons/kernel.py`, whose watcher is for systems with fork alone. Besides: the
folder of this user's alone in which libraries keep what they need again.
"""

import atexit
import ctypes
import errno
import faulthandler
import os
import shutil
import signal
import stat
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

from octkit.common.messages import warn

SHARED = Path("/dev/shm")  # where Linux keeps the memory that processes share; a container's has 64 MiB by default
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)  # a flag of os.open
KILLED, NO_PAGE = (getattr(signal, name, None) for name in ("SIGKILL", "SIGBUS"))
ASKED = getattr(signal, "SIGUSR1", None)
PR_SET_PDEATHSIG = 1  # linux/prctl.h
CACHES = {"TORCHINDUCTOR_CACHE_DIR": "torch", "TRITON_CACHE_DIR": "triton", "MPLCONFIGDIR": "matplotlib"}


def is_mine(status: os.stat_result) -> bool:
    """Whether a file is this user's; where files have no owners it is."""
    return not hasattr(os, "getuid") or status.st_uid == os.getuid()


def allow_open_files(count: int) -> None:
    """Have this process open so many files, or as many as the system lets it."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count and soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count if hard < 0 else min(hard, count), hard))


def why_no_locks(file: BinaryIO) -> str | None:
    """Why no file can be locked where this one lies; None where they can."""
    try:
        import fcntl
    except ImportError:  # Windows locks every file
        return None
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(file, fcntl.LOCK_UN)
    except OSError as error:
        return None if error.errno in (errno.EACCES, errno.EAGAIN) else str(error)
    return None


def exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step of the system's; False where it has none (Linux has, on most disks)."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    return rename is not None and rename(-100, os.fsencode(one), -100, os.fsencode(other), 2) == 0


def begin_worker() -> None:
    """In a data worker: print where it stands when asked (`ask`), and end with its parent, however that ends."""
    if ASKED:
        faulthandler.register(ASKED, 2)  # to stderr
    if sys.platform == "linux":  # elsewhere torch's own watchdog ends it within seconds of the training's end
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def ask(process: int) -> None:
    """Have a worker print where it stands, where the system has a signal for that."""
    if ASKED:
        os.kill(process, ASKED)


def use_private_caches() -> None:
    """Have torch, triton and matplotlib keep their files in <the user's caches>/octkit, of mode 0700.

    torch keeps compiled code, in pickles, in a folder of the shared /tmp whose name anyone can guess: who makes it
    first has their code run by the one who trains. To be called before they are used; processes started later inherit
    it. What the user's environment names stays. Where the folder cannot be made, or is another user's, a temporary one
    takes its place, for this process.
    """
    if unset := [name for name in CACHES if name not in os.environ]:
        folder = _private_folder()
        os.environ |= {name: str(folder / CACHES[name]) for name in unset}


def _private_folder() -> Path:
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "octkit"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and is_mine(found) and os.access(folder, os.W_OK):
            folder.chmod(0o700)
            return folder
        warn(f"{folder}: is no folder of yours, so what is compiled is not kept; remove it, or set XDG_CACHE_HOME")
    except (OSError, RuntimeError):  # nobody may write there, or there is no home
        pass
    folder = Path(tempfile.mkdtemp(prefix="octkit-"))  # mode 0700, of a name that nobody can guess
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
