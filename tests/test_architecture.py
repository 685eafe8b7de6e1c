"""How the package is built: its rooms, which may import which, who may import heavy libraries, the size of modules."""

import ast
import re
import sys
from pathlib import Path

import nbformat
import pytest

from octkit.common.settings import PROJECT, Settings
from octkit.lessons import ahead, run_all

PACKAGE = PROJECT / "octkit"
NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))

# room -> the rooms that it may import, and through them what those may. docs/architecture.md shows this table.
ROOMS = {
    "common": (),
    "data": ("common",),
    "phantoms": ("data",),
    "planning": ("data",),
    "evaluation": ("data",),
    "network": ("planning",),
    "layers": ("evaluation",),
    "training": ("network", "evaluation"),
    "inference": ("network", "layers"),
    "classification": ("planning", "layers"),
    "exchange": ("network", "layers"),
    "figures": ("planning", "layers"),
    "lessons": ("phantoms", "training", "inference", "classification", "exchange", "figures"),
}
INNER_ROOMS = {"data/layouts", "data/doctor"}
OUTSIDE = {"octkit.cli", "octkit.__main__"}  # above all rooms

# library -> the rooms or modules that may import it.
ONLY = {
    "torch": ("network", "training", "inference", "exchange"),
    "paddle": ("classification",),
    "dask": ("common.cluster",),
    "distributed": ("common.cluster",),
    "eyepy": ("data.heidelberg",),
    "pydicom": ("data.dicom",),
    "albumentations": ("training.augmentation",),
    "papermill": ("lessons.notebook",),
    "onnx": ("exchange.onnx",),
    "filelock": ("common.locks",),
}
# They tell albumentations what it must not load, paddle of what it must not warn, and where it finds OpenMP.
ACTIONS_AT_IMPORT = {"octkit.training.augmentation", "octkit.classification.resnet50"}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__init__.py"}
INSIDE = [module for module in MODULES if module not in OUTSIDE]


def room_of(module: str) -> str:
    return module.split(".")[1]


def imports(tree: ast.AST) -> set[str]:
    """Every module that a piece of code imports, wherever in it: "torch.nn", "octkit.data.dataset"."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide what is imported"
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            found |= inner or {node.module}
    return found


def parse(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def ours(found: set[str]) -> set[str]:
    return found & MODULES.keys()


def libraries(found: set[str]) -> set[str]:
    return {name.split(".")[0] for name in found} - {"octkit"}


def allowed(room: str) -> set[str]:
    """A room itself, the rooms that it may import, and what those may."""
    return {room}.union(*(allowed(below) for below in ROOMS[room]))


def reached(found: set[str]) -> set[str]:
    """The libraries that imports bring in, directly or through modules of octkit."""
    seen, front = set(), ours(found)
    while front:
        seen |= front
        front = set().union(*(ours(imports(parse(module))) for module in front)) - seen
    return libraries(found).union(*(libraries(imports(parse(module))) for module in seen))


def cells(path: Path, kind: str) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def code(path: Path) -> ast.Module:
    """A notebook's code; lines for IPython alone (%, !) are left out."""
    return ast.parse(re.sub(r"(?m)^[%!].*$", "", "\n".join(cell.source for cell in cells(path, "code"))))


def test_the_rooms_are_those_of_the_table():
    folders = {path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")} - {"."}
    assert folders == ROOMS.keys() | INNER_ROOMS


def test_tests_lie_in_the_rooms_of_what_they_test():
    for path in (PROJECT / "tests").glob("*/**/test_*.py"):
        room = path.parent.relative_to(PROJECT / "tests")
        assert room.name == "browser" or (PACKAGE / room / path.name.removeprefix("test_")).is_file(), path


@pytest.mark.parametrize("module", INSIDE)
def test_a_module_imports_what_its_room_may(module):
    strangers = {name for name in ours(imports(parse(module))) if name in OUTSIDE
                 or room_of(name) not in allowed(room_of(module))}
    assert not strangers


def test_no_module_imports_itself_by_way_of_others():
    below = {module: ours(imports(parse(module))) for module in MODULES}
    while below:
        free = {module for module, needs in below.items() if not needs & below.keys()}
        assert free, f"a circle among {sorted(below)}"
        below = {module: needs for module, needs in below.items() if module not in free}


@pytest.mark.parametrize("library", ONLY)
def test_who_may_import(library):
    users = {module.removeprefix("octkit.") for module in MODULES if library in libraries(imports(parse(module)))}
    assert {user for user in users if user not in ONLY[library] and user.split(".")[0] not in ONLY[library]} == set()


@pytest.mark.parametrize("module", INSIDE)
def test_torch_and_paddle_never_meet_in_a_module(module):
    found = {"torch", "paddle"} & reached({module})
    assert len(found) < 2
    assert not found or room_of(module) in (*ONLY["torch"], *ONLY["paddle"])


def test_torch_and_paddle_never_meet_in_a_command():
    tree = parse("octkit.cli")
    commands = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    tree.body = [node for node in tree.body if node not in commands]
    assert not {"torch", "paddle"} & reached(imports(tree))
    found = {command.name: {"torch", "paddle"} & reached(imports(command)) for command in commands}
    assert found["train"] == found["predict"] == found["export"] == {"torch"} and found["classify"] == {"paddle"}
    assert all(len(both) < 2 for both in found.values())


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_one_idea(module):
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= 500


@pytest.mark.parametrize("module", [name for name in MODULES if name != "octkit.__main__"])
def test_nothing_happens_at_import(module):
    """Definitions, imports and constants, but for what a library must be told before it is imported."""
    kinds = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
    body = parse(module).body
    assert ast.get_docstring(parse(module))
    typing_only = [node for node in body[1:] if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    actions = [node for node in body[1:] if not isinstance(node, kinds) and node not in typing_only]
    assert not actions or module in ACTIONS_AT_IMPORT


POSIX = {"fcntl", "resource", "pwd", "grp", "termios", "os.fork", "os.getuid", "os.geteuid", "os.killpg", "os.setsid",
         "os.sched_getaffinity", "os.O_NOFOLLOW", "os.O_DIRECTORY", "os.mkfifo", "os.uname", "os.statvfs",
         "signal.SIGKILL", "signal.SIGHUP", "signal.SIGUSR1", "signal.SIGBUS", "faulthandler.register"}


@pytest.mark.parametrize("module", [name for name in MODULES if name not in ("octkit.common.system",
                                                                             "octkit.lessons.kernel")])
def test_what_windows_lacks_stands_in_one_module(module):
    """Or is asked for before it is used."""
    tree = parse(module)
    asked = {f"{call.args[0].id}.{call.args[1].value}" for call in ast.walk(tree) if isinstance(call, ast.Call)
             and getattr(call.func, "id", "") == "hasattr" and isinstance(call.args[0], ast.Name)}
    used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)} | libraries(imports(tree))
    assert used & POSIX <= asked


def test_rooms_and_the_package_hold_no_code_of_their_own():
    for path in PACKAGE.rglob("__init__.py"):
        names = [target.id for node in ast.parse(path.read_text()).body for target in node.targets]
        assert names == (["__version__"] if path.parent == PACKAGE else [])


def _takes_the_locale(call: ast.Call) -> bool:
    """Whether a call reads or writes text in whatever encoding the machine is set to."""
    options = {keyword.arg: keyword.value for keyword in call.keywords}
    name = getattr(call.func, "id", getattr(call.func, "attr", ""))
    mode = options.get("mode", call.args[1] if len(call.args) > 1 else None)
    text = (name in ("read_text", "write_text") or getattr(options.get("text"), "value", None) is True
            or ast.unparse(call.func) == "open" and "b" not in getattr(mode, "value", ""))
    return text and "encoding" not in options


def test_the_check_of_encodings_finds_what_it_looks_for():
    calls = ["open(x)", "open(x, 'w')", "open(x, mode='r')", "x.read_text()", "x.write_text(y)", "run(x, text=True)",
             "open(x, 'rb')", "open(x, encoding='utf-8')", "x.read_text(encoding='utf-8')", "Image.open(x)"]
    found = [call for call in calls if _takes_the_locale(ast.parse(call).body[0].value)]
    assert found == calls[:6]


@pytest.mark.parametrize("path", sorted([*PACKAGE.rglob("*.py"), *PROJECT.glob("benchmarks/*.py"),
                                         *PROJECT.glob("docs/*.py"), *NOTEBOOKS]),
                         ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_text_is_utf_8_whatever_the_locale(path):
    tree = code(path) if path.suffix == ".ipynb" else ast.parse(path.read_text(encoding="utf-8"))
    found = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Call) and _takes_the_locale(node)]
    assert found == []


def test_dependencies_are_pinned_and_used_or_named():
    """Every library that octkit imports stands in the one list of versions, pinned."""
    pinned = {line.split("==")[0].strip().lower().replace("-", "_")
              for line in (PROJECT / "requirements.txt").read_text().splitlines() if "==" in line.partition("#")[0]}
    named = {"PIL": "pillow", "cv2": "opencv_python_headless", "sklearn": "scikit_learn", "paddle": "paddlepaddle",
             "skimage": "scikit_image", "IPython": "ipykernel", "jupyter_client": "ipykernel", "rich": "typer",
             "jinja2": "jinja2"}
    imported = set().union(*(libraries(imports(parse(module))) for module in MODULES)) - set(sys.stdlib_module_names)
    assert {named.get(name, name) for name in imported} <= pinned


def test_the_notebooks_are_the_steps():
    text_alone = {"17_glossary"}
    steps = {step.notebook for steps in run_all.STORIES.values() for step in steps}
    assert [path.stem for path in NOTEBOOKS] == sorted(steps | text_alone)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_clean_lessons(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in cells(path, "code"):
        assert cell.outputs == [] and cell.execution_count is None
        assert 0 < len(cell.source.splitlines()) <= 15, cell.source
    for cell in cells(path, "markdown"):
        assert cell.source.strip() and not cell.source.startswith("# #")
    assert cells(path, "markdown")[0].source.startswith(f"# {path.stem[:2]}")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_take_the_run_folder_alone(path):
    tagged = [cell for cell in cells(path, "code") if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    values = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(tagged[0].source).body}
    expected = {"run_dir": "../reports/volumes" if path.stem == "14_volumes" else "../reports/demo"}
    assert values == (expected | {"config": "2d", "fold": 0} if path.stem == "07_train" else expected)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_torch_and_paddle_never_meet_in_a_notebook(path):
    assert not {"torch", "paddle"} <= reached(imports(code(path)))


@pytest.mark.parametrize("lesson", ahead.LESSONS)
def test_torch_and_paddle_never_meet_in_the_trainings_of_a_lesson(lesson):
    code = ast.parse("\n".join([ahead.OPEN, *ahead.LESSONS[lesson]]))
    assert len({"torch", "paddle"} & reached(imports(code))) == 1


@pytest.mark.parametrize(("story", "step"), [(story, step) for story in run_all.STORIES
                                             for step in run_all.STORIES[story]],
                         ids=lambda value: getattr(value, "notebook", value))
def test_a_step_declares_the_settings_that_its_notebook_reads(story, step):
    """What is read but not declared, there or in a step before, would leave a stale result in place."""
    steps = {other.notebook: other for other in run_all.STORIES[story]}
    declared, front = set(), {step.notebook}
    while front:
        declared |= {name for notebook in front for name in steps[notebook].settings + steps[notebook].shows}
        front = {need for notebook in front for need in steps[notebook].needs}
    read = {node.attr for node in ast.walk(code(PROJECT / "notebooks" / f"{step.notebook}.ipynb"))
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("chosen", "run.settings")}
    assert read <= set(Settings.model_fields) | {"save", "model_dump", "model_copy"}
    assert "*" in declared or read & set(Settings.model_fields) <= declared
