"""Names that files state and that become parts of paths: types that refuse those that lead elsewhere.

Every such file is read by pydantic, from whose errors come messages that name file and place.
"""

from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or Path(name).drive or ".." in path.parts or {"\0", "\\"} & set(name):
        raise ValueError("expected a file within the folder")
    return name


def _single(name: str) -> str:
    if "\0" in name or name == ".." or not name or Path(name).name != name:
        raise ValueError("expected a name without a folder")
    return name


Inside = Annotated[str, AfterValidator(_inside)]  # a file below some folder
CaseName = Annotated[str, AfterValidator(_single)]  # of any characters that a file's name may have
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]  # a configuration's, of any model
ConfigName = Literal["2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres"]  # those of a run
Fold = Annotated[int, Field(ge=0)] | Literal["all"]
