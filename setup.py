"""What pyproject.toml cannot say: dependencies by the parts of requirements.txt, and what a wheel carries along."""

import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
CARRIED = ("notebooks/**/*.ipynb", "docs/terms.md", "data/README.md", "reports/README.md")  # to octkit/ in the wheel


def parts() -> dict[str, list[str]]:
    """The packages of requirements.txt by the part that they stand in: "core", or the extra's name."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"# \[(\w+)\]", line):
            part = found.setdefault(heading[1], [])
        elif package := line.partition("#")[0].strip():
            part.append(package)
    return found


class BuildWithLessons(build_py):
    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)  # modules of an older build would go into the wheel
        super().run()
        for file in [] if self.editable_mode else [path for pattern in CARRIED for path in ROOT.glob(pattern)]:
            target = Path(self.build_lib, "octkit", file.relative_to(ROOT))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


if __name__ == "__main__":
    extras = parts()
    setup(install_requires=extras.pop("core"), extras_require=extras, cmdclass={"build_py": BuildWithLessons})
