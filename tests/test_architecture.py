"""What the house is built like: floors, the walls between torch and paddle, the size of its rooms."""

import ast
import re
import sys
from pathlib import Path

import nbformat
import pytest

from octkit import pipeline
from octkit.settings import PROJECT, Settings

PACKAGE = PROJECT / "octkit"
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")
NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))

# From the ground up: a module imports only what stands on a lower floor.
FLOORS = (
    ("files", "codings", "pool", "kernel", "processor"),
    ("images", "workbooks", "settings", "metrics", "loss", "unet", "anatomy", "postprocess", "ledger", "topology",
     "warps", "perturb", "curves", "checkpoints", "scalars"),
    ("volumes", "intensities", "brushes", "surfaces"),
    ("cases", "machines", "confidence"),
    ("plots", "pairs", "tissue", "examine", "plans"),
    ("goals", "volumesets", "rawdata", "mgunet"),
    ("layouts", "fingerprint", "splits", "augment", "charts", "diagrams", "volume_plots", "widgets", "notebook",
     "pdparams", "resampling", "looks", "bands"),
    ("planner", "patches", "doctor", "phantom", "devices", "raster", "nndata"),
    ("preprocess", "models", "volume_phantom", "workers", "compiling"),
    ("modelcheck", "memory", "engines"),
    ("modelfile",),
    ("nnplans",),
    ("train", "infer", "reading", "nnunet", "onnxfile"),
    ("predict", "thickness", "evaluate"),
    ("ensemble", "ablation"),
    ("classify", "submission", "sections", "circle"),
    ("choices",),
    ("report",),
    ("pipeline",),
    ("runs",),
    ("cli",),
    ("__main__",),
)
FLOOR = {module: floor for floor, modules in enumerate(FLOORS) for module in modules}

# Who may import a library that is heavy, unmaintained or at odds with another one.
ONLY = {
    "paddle": {"classify"},
    "albumentations": {"augment"},
    "papermill": {"notebook"},
    "eyepy": {"devices"},
    "ncnn": {"engines"},
    "onnx": {"onnxfile"},
    "torch": {"loss", "unet", "warps", "patches", "models", "modelcheck", "modelfile", "train", "infer", "nnunet",
              "checkpoints", "workers", "memory", "engines", "compiling"},
}
NO_TORCH_NO_PADDLE = ("cases", "settings", "layouts", "doctor", "devices", "metrics", "thickness", "submission",
                      "evaluate", "splits", "fingerprint", "planner", "plots", "charts", "circle", "diagrams",
                      "widgets", "sections", "report", "pipeline", "curves", "surfaces", "confidence", "bands")


def imports(tree: ast.AST) -> set[str]:
    """Every module that a piece of code imports, wherever in it: "torch.nn", "octkit.cases"."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide what is imported"
            found |= {f"octkit.{alias.name}" for alias in node.names} if node.module == "octkit" else {node.module}
    return found


def parse(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module}.py").read_text())


def rooms(found: set[str]) -> set[str]:
    """The modules of octkit among imports."""
    return {name.split(".")[1] for name in found if name.startswith("octkit.")} & set(MODULES)


def libraries(found: set[str]) -> set[str]:
    return {name.split(".")[0] for name in found} - {"octkit"}


def reached(found: set[str]) -> set[str]:
    """The libraries that imports bring in, directly or through modules of octkit."""
    seen, front = set(), rooms(found)
    while front:
        seen |= front
        front = set().union(*(rooms(imports(parse(module))) for module in front)) - seen
    return libraries(found).union(*(libraries(imports(parse(module))) for module in seen))


def cells(path: Path, kind: str) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def code(path: Path) -> ast.Module:
    """A notebook's code; lines for IPython alone (%, !) are left out."""
    return ast.parse(re.sub(r"(?m)^[%!].*$", "", "\n".join(cell.source for cell in cells(path, "code"))))


def test_every_module_has_its_floor():
    floored = [module for modules in FLOORS for module in modules]
    assert sorted(floored) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_from_lower_floors_only(module):
    above = {name for name in rooms(imports(parse(module))) if FLOOR[name] >= FLOOR[module]}
    assert not above


@pytest.mark.parametrize("library", ONLY)
def test_who_may_import(library):
    assert {module for module in MODULES if library in libraries(imports(parse(module)))} == ONLY[library]


@pytest.mark.parametrize("module", [name for name in MODULES if name not in ("cli", "__main__")])
def test_torch_and_paddle_never_meet_in_a_module(module):
    assert not {"torch", "paddle"} <= reached({f"octkit.{module}"})


def test_torch_and_paddle_never_meet_in_a_command():
    tree = parse("cli")
    commands = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    tree.body = [node for node in tree.body if node not in commands]
    assert not {"torch", "paddle"} & reached(imports(tree))
    found = {command.name: {"torch", "paddle"} & reached(imports(command)) for command in commands}
    assert found["train"] == found["predict"] == found["export"] == {"torch"} and found["classify"] == {"paddle"}
    assert all(len(both) < 2 for both in found.values())


@pytest.mark.parametrize("module", NO_TORCH_NO_PADDLE)
def test_what_needs_neither_loads_neither(module):
    assert not {"torch", "paddle"} & reached({f"octkit.{module}"})


@pytest.mark.parametrize("module", MODULES)
def test_modules_stay_small(module):
    lines = (PACKAGE / f"{module}.py").read_text().splitlines()
    assert len(lines) <= (400 if module == "cli" else 320)  # a list of commands is read by the command


@pytest.mark.parametrize("module", [name for name in MODULES if name != "__main__"])
def test_nothing_happens_at_import(module):
    """Definitions, imports and constants, but for what a library must be told before it is imported."""
    kinds = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
    body = parse(module).body
    assert isinstance(body[0], ast.Expr) and ast.get_docstring(parse(module))
    actions = [ast.unparse(node) for node in body[1:] if not isinstance(node, kinds)]
    assert [action for action in actions if not (module == "augment" and "albumentations.pytorch" in action)] == []


def test_the_package_itself_holds_the_version_alone():
    [assignment] = ast.parse((PACKAGE / "__init__.py").read_text()).body
    assert isinstance(assignment, ast.Assign) and [name.id for name in assignment.targets] == ["__version__"]


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
    assert [path.stem for path in NOTEBOOKS] == sorted({step.notebook for steps in pipeline.STORIES.values()
                                                        for step in steps})


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


@pytest.mark.parametrize(("story", "step"), [(story, step) for story in pipeline.STORIES
                                             for step in pipeline.STORIES[story]],
                         ids=lambda value: getattr(value, "notebook", value))
def test_a_step_declares_the_settings_that_its_notebook_reads(story, step):
    """What is read but not declared, there or in a step before, would leave a stale result in place."""
    steps = {other.notebook: other for other in pipeline.STORIES[story]}
    declared, front = set(), {step.notebook}
    while front:
        declared |= {name for notebook in front for name in steps[notebook].settings + steps[notebook].shows}
        front = {need for notebook in front for need in steps[notebook].needs}
    read = {node.attr for node in ast.walk(code(PROJECT / "notebooks" / f"{step.notebook}.ipynb"))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "chosen"}
    assert read <= set(Settings.model_fields) | {"save", "model_dump", "model_copy"}
    assert "*" in declared or read & set(Settings.model_fields) <= declared
