"""One folder of this user's alone for what libraries keep between two runs.

torch keeps compiled code, in pickles, in a folder of the shared /tmp whose name anyone can guess: who makes it first
has their code run by the one who trains.
"""

import atexit
import os
import shutil
import stat
import tempfile
from pathlib import Path

from octkit.common.messages import warn
from octkit.common.system import is_mine

VARIABLES = {"TORCHINDUCTOR_CACHE_DIR": "torch", "TRITON_CACHE_DIR": "triton", "MPLCONFIGDIR": "matplotlib"}


def use_private_caches() -> None:
    """Have torch, triton and matplotlib keep their files in <the user's caches>/octkit, of mode 0700.

    To be called before they are used; processes started later inherit it. What the user's environment names stays.
    Where the folder cannot be made, or is another user's, a temporary one takes its place, for this process.
    """
    if unset := [name for name in VARIABLES if name not in os.environ]:
        folder = _private_folder()
        os.environ |= {name: str(folder / VARIABLES[name]) for name in unset}


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
