"""The one list of versions and what is derived from it."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def pins(text: str) -> dict[str, str]:
    return dict(re.findall(r"^\s*(?:- )?([a-z0-9-]+)==([^\s#]+)", text, re.MULTILINE))


def test_conda_and_binder_take_the_same_versions():
    expected = pins((ROOT / "requirements.txt").read_text())
    gpu, paddle = ((ROOT / name).read_text() for name in ("environment.yml", "environment-paddle.yml"))
    torch, classifier = expected["torch"], expected["paddlepaddle"]
    [cuda] = re.findall(r"https://download\.pytorch\.org/whl/(cu\d+)\n", gpu)
    assert pins(gpu) == expected | {"torch": f"{torch}+{cuda}"}
    assert f"https://www.paddlepaddle.org.cn/packages/stable/{cuda}/\n" in paddle
    del expected["torch"], expected["paddlepaddle"]
    assert pins(paddle) == expected | {"paddlepaddle-gpu": classifier}
    assert pins((ROOT / "binder/requirements.txt").read_text()) == {"torch": f"{torch}+cpu"}


def test_pyproject_pins_nothing_itself_and_each_package_stands_in_one_part():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"dependencies", "optional-dependencies"} <= set(project["dynamic"])
    parts = runpy.run_path(str(ROOT / "setup.py"))["parts"]()
    assert sorted(sum(parts.values(), [])) == sorted(
        f"{name}=={version}" for name, version in pins((ROOT / "requirements.txt").read_text()).items())
    assert not any(name.startswith(("paddle", "jupyter", "papermill", "pytest")) for name in parts["core"])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `pip install .` makes of the files that git knows, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    for name in filter(None, tracked.decode().split("\0")):
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / "source" / name)
    stale = folder / "source/build/lib/octkit/stale.py"  # of an older build
    stale.parent.mkdir(parents=True)
    stale.write_text("")
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w",
                    str(folder), str(folder / "source")], check=True)
    with zipfile.ZipFile(next(folder.glob("octkit-*.whl"))) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_is_the_package_and_what_it_carries(wheel):
    found = {path.relative_to(wheel / "octkit").as_posix() for path in (wheel / "octkit").rglob("*") if path.is_file()}
    code = {path.relative_to(ROOT / "octkit").as_posix() for path in (ROOT / "octkit").rglob("*")
            if path.is_file() and path.suffix != ".pyc"}
    carried = {path.relative_to(ROOT).as_posix() for path in (ROOT / "notebooks").rglob("*.ipynb")
               if ".ipynb_checkpoints" not in path.parts}
    assert found == code | carried | {"docs/terms.md", "data/README.md", "reports/README.md"}


def test_the_wheel_lays_the_lessons_out_and_keeps_runs_in_the_working_folder(wheel, tmp_path):
    script = ("from octkit.cli import main; from octkit.common import settings; "
              "print(settings.PACKAGE, settings.PROJECT); main(['lessons', 'mine'])")
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(wheel)},
                          stdout=subprocess.PIPE, encoding="utf-8", check=True)
    assert done.stdout.splitlines()[0] == f"{wheel / 'octkit'} {tmp_path}"
    assert {path.name for path in (tmp_path / "mine/notebooks").glob("*.ipynb")} == {
        path.name for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert all((tmp_path / "mine" / name / "README.md").is_file() for name in ("data", "reports"))


def test_every_line_is_pinned_for_a_named_reason():
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    assert len(lines) > 20
    assert all(re.fullmatch(r"[a-z0-9-]+==\S+ +# .+", line) for line in lines)


def locked(name: str) -> dict[str, list[str]]:
    """What a file of requirements/ installs: "package==version" -> the hashes of its files."""
    entries = re.split(r"\n(?=[a-z0-9])", (ROOT / "requirements" / f"{name}.txt").read_text())
    return {entry.split(maxsplit=1)[0]: re.findall(r"--hash=sha256:([0-9a-f]{64})\b", entry) for entry in entries}


def test_the_lock_holds_the_lists_versions_by_their_hashes():
    found = locked("lock") | locked("torch")
    for package, version in pins((ROOT / "requirements.txt").read_text()).items():
        assert f"{package}=={version}" in found, "out of date: run `make lock`"
    assert list(locked("torch-cpu"))[-1] == next(iter(locked("torch"))) + "+cpu"
    for part in ("pip", "torch", "cuda", "lock"):
        assert all(locked(part).values()), part


def test_the_set_up_takes_nothing_but_what_has_a_hash():
    """And what builds octkit itself is in the lock, too."""
    text = (ROOT / "setup_env.py").read_text()
    calls = re.findall(r"\bpip\((.*)\)", text.partition("def pip")[0])
    assert len(calls) == 7 and [call for call in calls if '"--require-hashes", "-r", "requirements/' not in call] == [
        '"--no-build-isolation", "--editable", "."', "*shlex.split(chosen), alone=False"]
    assert "(PYTHON) setup_env.py" in (ROOT / "Makefile").read_text()
    assert any(package.startswith("setuptools==") for package in locked("lock"))
