"""A submission with faults, for the lesson that shows how one is checked."""

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def broken_submission(good: Path) -> Iterator[Path]:
    """`with broken_submission(run.submission_file) as path:` a copy without one mask and with a probability of 7."""
    with tempfile.TemporaryDirectory() as folder:
        broken = Path(folder) / "broken.zip"
        with zipfile.ZipFile(good) as source, zipfile.ZipFile(broken, "w") as target:
            lost = next(name for name in source.namelist() if name.endswith(".png"))
            for name in source.namelist():
                if name != lost:
                    target.writestr(name, source.read(name).replace(b".png,0.", b".png,7.", 1)
                                    if name.endswith(".csv") else source.read(name))
        yield broken
