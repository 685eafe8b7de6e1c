"""One tree of settings for a whole run: frozen, validated, saved beside the results that it decided.

A profile is a named starting point. What follows from the settings (patch, batch, topology) the planner derives and
saves in plan.json. Unknown keys are errors, so a typing mistake cannot pass unseen.
"""

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from difflib import get_close_matches
from math import prod
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from octkit.common.errors import OctkitError, by, first_problem
from octkit.common.files import read_json, write_json
from octkit.common.messages import say
from octkit.common.system import is_mine


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or Path(name).drive or ".." in path.parts or {"\0", "\\"} & set(name):
        raise ValueError("expected a file within the folder")
    return name


def _single(name: str) -> str:
    if "\0" in name or name == ".." or not name or Path(name).name != name:
        raise ValueError("expected a name without a folder")
    return name


# Names that files state and that become parts of paths: those that lead elsewhere are refused.
Inside = Annotated[str, AfterValidator(_inside)]  # a file below some folder
CaseName = Annotated[str, AfterValidator(_single)]  # of any characters that a file's name may have
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]  # a configuration's, of any model
ConfigName = Literal["2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres"]  # those of a run
Fold = Annotated[int, Field(ge=0)] | Literal["all"]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
# Limits far above what makes sense: they stop a slip of the hand that would fill the memory, or never end.
Maps = Annotated[int, Field(ge=1, le=4096)]
RETIRED = ("infer.engine",)  # keys of old settings.json files that decide nothing any more
MOST_PHANTOMS, MOST_VALUES = 9999, 100_000_000  # scans of a synthetic data set, values of one
LEAST_STEP = 0.05  # of a window: 400 windows then look at each pixel of a scan, and 8000 at a volume's


def project_folder(package: Path, working: Path) -> Path:
    """Where data/ and reports/ lie: the working folder, or one of four above, with the lessons.

    A run's folder has executed copies of the lessons, and lies in the one that is meant (reports/demo/notebooks). Else
    the checkout that the `package` lies in, or, where it was installed, the working folder itself.
    """
    with_lessons = []
    for folder in (working, *working.parents[:4]):
        lesson = folder / LESSONS / "00_start.ipynb"
        # Another user's, in a folder such as /tmp, would be executed.
        if lesson.is_file() and is_mine(lesson.stat()):
            with_lessons.append(folder)
            if not (folder / LEDGER).exists():
                return folder
    if (package.parent / LESSONS).is_dir():
        return package.parent
    return with_lessons[0] if with_lessons else working  # a run in the project's folder itself


LESSONS, LEDGER = "notebooks", "ledger.jsonl"  # in a project's folder; of a run, in its own
PACKAGE = Path(__file__).resolve().parents[1]
PROJECT = project_folder(PACKAGE, Path.cwd())


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def __setattr__(self, name: str, value: Any) -> None:
        """Settings stand in a file beside the results that they decided, and never change in memory alone."""
        [section] = [key for key, kind in SECTIONS.items() if isinstance(self, kind)]
        path = [part for part in (*section.split("."), name) if part]
        tree = value
        for part in reversed(path[1:]):
            tree = {part: tree}
        raise OctkitError(
            f"{'.'.join(path)}: settings are frozen, expected an experiment, a run of its own beside this one: "
            f'experiments.experiment(run, "name", {path[0]}={tree!r}) of octkit.lessons, or octkit run --like RUN '
            f"--run-dir NEW --set {'.'.join(path)}={json.dumps(value, default=str)}")


class PhantomSettings(Section):
    """The synthetic data set to make where `data.dir` does not exist yet.

    `kind` is a circle scan, or a volume around the fovea or the optic disc. `size` is in px: (rows, A-scans), for
    volumes (B-scans, rows, A-scans). `looks` "spectralis" is one kind of device, "varied" draws one for each scan.
    """

    kind: Literal["circle", "macular", "peripapillary"] = "circle"
    train: Count = 160
    validation: Count = 40
    test: Annotated[int, Field(ge=0)] = 0
    size: tuple[Annotated[int, Field(ge=1, le=100_000)], ...] = (256, 320)
    seed: Seed = 0
    looks: Literal["spectralis", "varied"] = "spectralis"

    @model_validator(mode="after")
    def _size_fits(self) -> Self:
        if len(self.size) != (axes := 2 if self.kind == "circle" else 3):
            raise ValueError(f"phantom.size: found {len(self.size)} numbers, expected {axes} for kind {self.kind}")
        scans, scan = self.train + self.validation + self.test, prod(self.size)
        if scan > MOST_VALUES or scans > MOST_PHANTOMS or scans * scan > 100 * MOST_VALUES:
            raise ValueError(f"phantom: found {scans} scans of {by(self.size)} px, expected at most {MOST_PHANTOMS} "
                             f"scans, {MOST_VALUES} px a scan, and a hundred times that in all")
        return self


class DataSettings(Section):
    """Where the data set lies: an absolute folder, or one relative to the project's."""

    dir: str = "data/GOALS"
    phantom: PhantomSettings | None = None

    @property
    def root(self) -> Path:
        return PROJECT / self.dir


class PlanSettings(Section):
    """The planner's room: the network's kind, GPU memory aimed at, widths. None: the rule decides.

    `architecture` "residual" plans nnU-Net's residual encoders, M with a `memory_gb` of 8, L with 24, XL with 40.
    `units` "mm" plans in true lengths where the scale is known; "px" takes every pixel as 1 x 1, as nnU-Net does
    with PNG files: scans then stay at their own grid.
    """

    units: Literal["mm", "px"] = "mm"
    architecture: Literal["plain", "residual"] = "plain"
    memory_gb: Annotated[float, Field(gt=0, le=10_000)] = 8.0
    base_features: Maps = 32
    max_features: Maps = 512
    batch_size: Annotated[int, Field(ge=1, le=10_000)] | None = None


class SplitSettings(Section):
    folds: Annotated[int, Field(ge=2)] = 5


class AugmentSettings(Section):
    """`rotation_degrees` None: nnU-Net's rule (180, or less for elongated patches).

    Axes are counted from the last, which serves scans and volumes alike: -1 A-scans, -2 rows, -3 B-scans. A 2-D
    patch has no -3.
    """

    rotation_degrees: Annotated[float, Field(ge=0, le=180)] | None = None
    mirror_axes: tuple[Literal[-3, -2, -1], ...] = (-3, -2, -1)


class TrainSettings(Section):
    """How a fold is trained, and which there are.

    `configs` "all": every configuration of the plan. `extra_data` are folders of labelled data sets whose cases are
    learned from beside the run's own and never validated on. `start_from` is a model whose weights training begins with
    (fine-tuning): its file, a run's folder, or "default". `dropped_outputs` is how many of the decoder's lowest outputs
    have no loss: 2 as the report says, 1 as nnU-Net does. `amsgrad` is for adam, as in nnU-Net v1. Where fold "all" is
    trained beside others, it alone makes the final masks; the others hold scans out to decide and to judge by.
    `compile` "auto": torch compiles the network where it is wide and so many steps follow that it pays.
    """

    configs: Literal["all"] | tuple[ConfigName, ...] = "all"
    extra_data: tuple[str, ...] = ()
    start_from: str | None = None
    folds: tuple[Fold, ...] = (0, 1, 2, 3, 4)
    optimiser: Literal["sgd", "adam"] = "sgd"
    epochs: Count = 1000
    iterations_per_epoch: Count = 250
    validation_iterations: Count = 50
    initial_rate: Positive = 0.01
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 3e-5
    amsgrad: bool = False
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    oversample: Annotated[float, Field(ge=0, le=1)] = 1 / 3
    deep_supervision: bool = True
    dropped_outputs: Annotated[int, Field(ge=0)] = 2
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: Literal["auto", "always", "never"] = "auto"
    workers: Annotated[int, Field(ge=0, le=256)] = 4

    @property
    def final_folds(self) -> tuple[Fold, ...]:
        """The folds whose networks are averaged for final masks."""
        return ("all",) if "all" in self.folds else self.folds

    def configs_among(self, planned: Collection[str]) -> tuple[str, ...]:
        """The configurations to train of those `planned`, in the plan's order, in which they need each other.

        Raises OctkitError where `configs` names one that the plan has not.
        """
        wanted = tuple(planned) if self.configs == "all" else self.configs
        if absent := [config for config in wanted if config not in planned]:
            raise OctkitError(f"train.configs: found {absent[0]!r}, but the plan has only {', '.join(planned)}")
        return tuple(config for config in planned if config in wanted)


class InferSettings(Section):
    """How scans are predicted; `surfaces` says whether masks are drawn from ordered boundaries, or who decides."""

    mirror: bool = True
    surfaces: Literal["choose", "always", "never"] = "choose"
    step: Annotated[float, Field(ge=LEAST_STEP, le=1)] = 0.5  # of the patch


class ClassifySettings(Section):
    """The report's recipe; `weights` is a local file of ImageNet weights, checked against `weights_sha256`.

    A ResNet50 is trained for each fold of `train.folds`, without the scans that it holds out; for fold "all" one, on
    `train_fraction` of the scans. `nested`: also one without each two folds, so that what combines the answers is
    cross-validated by networks of which none has seen the scans held out.
    `compare_fractions` are shares of training scans to hold against each other, each trained with `compare_seeds` seeds
    (the report's 8:2 against 7:3).
    """

    image_size: Annotated[int, Field(ge=32, le=4096)] = 256
    epochs: Count = 100
    batch_size: Count = 8
    initial_rate: Positive = 1e-6
    train_fraction: Share = 0.8
    compare_fractions: tuple[Share, ...] = (0.8, 0.7)
    compare_seeds: Count = 3
    nested: bool = False
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 30.0
    vertical_flip: bool = True
    pretrained: Literal["imagenet", "none"] = "imagenet"
    weights: str | None = None
    weights_sha256: str | None = None

    @model_validator(mode="after")
    def _checksum_given(self) -> Self:
        if self.weights is not None and self.weights_sha256 is None:
            raise ValueError("classify.weights needs classify.weights_sha256, the file's SHA-256 checksum")
        return self


class ClaimsSettings(Section):
    """Lesson 16: with how many `seeds` each candidate is trained beside the run, which takes hours; 0 trains none.

    `extra_scans` phantoms are learned from besides where the claim is that extra data helps.
    """

    seeds: Annotated[int, Field(ge=0, le=100)] = 0
    extra_scans: Count = 54


class Settings(Section):
    """Everything that decides a run's result."""

    profile: str = "goals"
    story: Literal["circle", "volumes", "claims"] = "circle"  # which lessons `octkit run` executes
    seed: Seed = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    data: DataSettings = DataSettings()
    plan: PlanSettings = PlanSettings()
    splits: SplitSettings = SplitSettings()
    augment: AugmentSettings = AugmentSettings()
    train: TrainSettings = TrainSettings()
    infer: InferSettings = InferSettings()
    classify: ClassifySettings = ClassifySettings()
    claims: ClaimsSettings = ClaimsSettings()

    @model_validator(mode="after")
    def _folds_exist(self) -> Self:
        wrong = [fold for fold in self.train.folds if fold != "all" and fold >= self.splits.folds]
        if wrong:
            raise ValueError(f"train.folds names {wrong}, but splits.folds makes folds 0 to {self.splits.folds - 1}")
        if not self.train.folds or len(set(self.train.folds)) != len(self.train.folds):
            raise ValueError("train.folds must name at least one fold and each fold once")
        if self.classify.nested and len(set(self.train.folds) - {"all"}) < 2:
            raise ValueError("classify.nested needs two folds or more in train.folds")
        return self

    @property
    def data_roots(self) -> tuple[Path, ...]:
        """The folder of the run's data set and those of the extra ones."""
        return self.data.root, *(PROJECT / folder for folder in self.train.extra_data)

    def save(self, path: Path) -> None:
        write_json(path, self.model_dump(mode="json"))


# How the file names each section.
SECTIONS = {"": Settings, "data": DataSettings, "data.phantom": PhantomSettings, "plan": PlanSettings,
            "splits": SplitSettings, "augment": AugmentSettings, "train": TrainSettings, "infer": InferSettings,
            "classify": ClassifySettings, "claims": ClaimsSettings}

# What each profile changes in the defaults above, which are the recipe's own numbers.
PROFILES: dict[str, dict] = {
    # The full recipe on a GPU box with the GOALS download.
    "goals": {"train": {"precision": "bfloat16"}},
    # What the report's team did: everything in one model, Adam with the plateau rule, no mirroring. Fold 0 is trained
    # beside it and makes no final mask: on the scans that it holds out post-processing is chosen and mirroring judged.
    "report": {"plan": {"batch_size": 32}, "infer": {"mirror": False},
               "train": {"folds": [0, "all"], "optimiser": "adam", "amsgrad": True, "precision": "bfloat16"}},
    # Two CPU cores: phantoms, half the maps, two of five folds.
    "demo": {
        "data": {"dir": "data/phantom", "phantom": {}},
        "plan": {"units": "px", "base_features": 16, "max_features": 128, "batch_size": 2},
        "augment": {"rotation_degrees": 15.0, "mirror_axes": [-1]},
        "train": {"folds": [0, 1], "epochs": 12, "iterations_per_epoch": 40, "validation_iterations": 4,
                  "initial_rate": 0.05, "momentum": 0.9, "precision": "bfloat16", "workers": 1},
        "infer": {"mirror": False},
        "classify": {"image_size": 64, "epochs": 15,  # two networks, a fold each, in the time of 30 epochs of one
                     "initial_rate": 1e-3, "rotation_degrees": 10.0,
                     "vertical_flip": False, "pretrained": "none", "compare_fractions": []},
    },
    # The model in the box: learned from phantoms of every look alone, for scans of any machine.
    "default": {
        "data": {"dir": "data/varied", "phantom": {"train": 600, "validation": 40, "size": [496, 768], "seed": 11,
                                                   "looks": "varied"}},
        "plan": {"units": "px", "memory_gb": 0.5, "base_features": 16, "max_features": 96},
        "augment": {"mirror_axes": [-1]},
        "train": {"folds": ["all"], "epochs": 32, "iterations_per_epoch": 50, "initial_rate": 0.05, "momentum": 0.9,
                  "workers": 0},
        "infer": {"mirror": False, "surfaces": "always"},
    },
    # Volumes: all four configurations and their pairs, small enough for a laptop.
    "volumes": {
        "story": "volumes",
        "data": {"dir": "data/phantom-volumes",
                 "phantom": {"kind": "macular", "train": 10, "validation": 4, "size": [16, 128, 160]}},
        "plan": {"base_features": 8, "max_features": 64, "memory_gb": 0.05},
        "splits": {"folds": 2},
        "augment": {"mirror_axes": [-1]},
        "train": {"folds": [0, 1], "epochs": 8, "iterations_per_epoch": 25, "validation_iterations": 2,
                  "initial_rate": 0.05, "momentum": 0.9, "precision": "bfloat16", "workers": 1},
        "infer": {"mirror": False},
    },
    # Two CPU cores, an hour and more: the report's claims (lesson 16) on phantoms of a quarter of GOALS's size.
    "claims": {
        "story": "claims",
        "data": {"dir": "data/claims", "phantom": {"train": 54, "validation": 108, "size": [200, 272], "seed": 3}},
        "plan": {"units": "px", "base_features": 16, "max_features": 128, "batch_size": 2},
        "augment": {"rotation_degrees": 15.0, "mirror_axes": [-1]},
        "train": {"folds": [0, 1], "epochs": 50, "iterations_per_epoch": 8, "validation_iterations": 1,
                  "initial_rate": 0.05, "momentum": 0.9, "workers": 0},
        "infer": {"mirror": False},
        "classify": {"image_size": 64, "epochs": 10, "initial_rate": 1e-3, "rotation_degrees": 10.0,
                     "vertical_flip": False, "pretrained": "none", "compare_seeds": 2},
        "claims": {"seeds": 2},
    },
    # The tests: the whole story in minutes, no claim on quality.
    "smoke": {
        "data": {"dir": "data/smoke", "phantom": {"train": 10, "validation": 4, "size": [96, 128]}},
        "plan": {"units": "px", "base_features": 8, "max_features": 16, "batch_size": 2},
        "augment": {"rotation_degrees": 15.0, "mirror_axes": [-1]},
        "train": {"folds": [0, 1], "epochs": 2, "iterations_per_epoch": 3, "validation_iterations": 1,
                  "momentum": 0.9, "workers": 0},
        "infer": {"mirror": False},
        "classify": {"image_size": 32, "epochs": 2, "initial_rate": 1e-4, "pretrained": "none",
                     "compare_seeds": 1},
    },
}


def from_profile(name: str) -> Settings:
    """The settings of a named profile."""
    if name not in PROFILES:
        raise OctkitError(f"--profile: found {name!r}, expected one of {', '.join(PROFILES)}")
    return Settings.model_validate({"profile": name, **PROFILES[name]})


def load(path: Path) -> Settings:
    """Read a run's settings.json without what is `RETIRED`. Raises OctkitError that names the file and wrong keys."""
    tree = read_json(path)
    for key in RETIRED:
        section, name = key.split(".")
        if isinstance(tree, dict) and isinstance(tree.get(section), dict) and name in tree[section]:
            say(f"{path}: {key} = {tree[section].pop(name)} is left out, this version has no such setting")
    return _validated(tree, str(path))


def with_overrides(settings: Settings, overrides: list[str]) -> Settings:
    """New settings with `key=value` changes such as "train.epochs=50" or "train.folds=[0,1]"."""
    tree = settings.model_dump(mode="json")
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise OctkitError(f"--set {override}: expected key=value, such as train.epochs=50")
        value: Any = text
        with suppress(ValueError, RecursionError):  # no JSON, numbers of thousands of digits, lists without end
            value = json.loads(text)
        for name in reversed(key.strip().split(".")):
            value = {name: value}
        _merge(tree, value)
    return _validated(tree, "--set " + " ".join(overrides))


def with_changes(settings: Settings, wanted: Mapping[str, Any]) -> Settings:
    """New settings with changes such as {"train": {"epochs": 50}, "seed": 3}; what is not named stays."""
    tree = settings.model_dump(mode="json")
    _merge(tree, wanted)
    return _validated(tree, "settings")


def _merge(tree: dict[str, Any], wanted: Mapping[str, Any]) -> None:
    for name, value in wanted.items():
        if isinstance(value, Mapping):
            if not isinstance(tree.get(name), dict):  # data.phantom may be null so far
                tree[name] = {}
            _merge(tree[name], value)
        else:
            tree[name] = value


def _validated(tree: Any, where: str) -> Settings:
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        unknown = [".".join(map(str, each["loc"])) for each in error.errors() if each["type"] == "extra_forbidden"]
        known = [*Settings.model_fields, *flat(Settings(data=DataSettings(phantom=PhantomSettings())).model_dump())]
        near = [f"; {name} is no setting, the nearest is {found[0]}" for name in unknown
                if (found := get_close_matches(name, known, 1))]
        raise OctkitError(f"{where}: {first_problem(error, 5)}{''.join(near)}") from None


def flat(tree: dict, prefix: str = "") -> dict[str, object]:
    """A tree of settings with one key a leaf: {"train": {"epochs": 3}} -> {"train.epochs": 3}."""
    leaves: dict[str, object] = {}
    for name, node in tree.items():
        leaves |= flat(node, f"{prefix}{name}.") if isinstance(node, dict) else {f"{prefix}{name}": node}
    return leaves


def changes(before: dict, now: dict) -> list[str]:
    """What differs between two trees, one text a leaf: "train.epochs 3 -> 4"."""
    old, new = flat(before), flat(now)
    return [f"{key} {old.get(key)} -> {new.get(key)}" for key in sorted(old | new) if old.get(key) != new.get(key)]
