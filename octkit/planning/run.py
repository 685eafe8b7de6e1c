"""A run's folder: the names of its files, and what stands in them.

    settings.json  fingerprint.json  plan.json  splits.json  selection.json  calibration.json  scores.json
    ledger.jsonl
    preprocessed/<config>/   models/<config>/fold_<k>/   predictions/   classifier/   figures/   notebooks/
    submission.zip   report.html
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from octkit.common import settings
from octkit.common.errors import OctkitError, bad_file
from octkit.common.files import links_inside
from octkit.common.settings import LEDGER, Settings
from octkit.data.dataset import Dataset
from octkit.data.layouts import detect
from octkit.data.measured import Calibration
from octkit.planning.fingerprint import Fingerprint
from octkit.planning.folds import Split, held_out_cases, load_splits
from octkit.planning.plan import Plan
from octkit.planning.selection import Selection

# Who leaves a file; of volumes lesson 14 leaves them all.
MADE_BY = {"fingerprint": "lesson 02 (octkit fingerprint)", "plan": "lesson 03 (octkit plan)",
           "splits": "lesson 04 (octkit preprocess)", "selection": "lesson 09 (octkit select)"}


class Run:
    """A run's folder. `run.settings`, `run.plan` … are read at their first use, and again where their file has changed.

    Each raises OctkitError where its file is missing or damaged.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._kept: dict[str, tuple[object, Any]] = {}  # name -> (what told of a change, value)
        self._checked = False

    @staticmethod
    def start(folder: str | Path, profile: str) -> "Run":
        """The run in a folder; a new one gets the settings of a profile."""
        run = Run(folder)
        if not run.exists:
            settings.from_profile(profile).save(run.settings_file)
        return run

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    def check_links(self) -> None:
        """Raise OctkitError where a symbolic link in the folder leads out of it; looked at once.

        Whatever is read of a run asks this first. Who writes into a folder without having read of it asks itself.
        """
        if not self._checked:
            links_inside(self.folder)
            self._checked = True

    @property
    def exists(self) -> bool:
        """Whether the folder holds a run's settings."""
        return self.settings_file.exists()

    @property
    def settings(self) -> Settings:
        if not self.exists:
            raise OctkitError(f"{self.folder}: found no settings.json, expected the folder of a run, as "
                              "lesson 00 and octkit run make it")
        return self._read("settings", self.settings_file, settings.load)

    @property
    def dataset(self) -> Dataset:
        """The run's data set, without the training cases of `train.extra_data`."""
        return self._keep("dataset", self._data_of(), lambda: detect.open_dataset(self.settings.data.root))

    @property
    def training_data(self) -> Dataset:
        """The same with them."""
        return self._keep("training_data", self._data_of(), lambda: detect.open_run(self.settings))

    @property
    def fingerprint(self) -> Fingerprint:
        return self._read("fingerprint", self.fingerprint_file, Fingerprint.load)

    @property
    def plan(self) -> Plan:
        return self._read("plan", self.plan_file, Plan.load)

    @property
    def splits(self) -> list[Split]:
        return self._read("splits", self.splits_file, load_splits)

    @property
    def held_out(self) -> dict[str, int]:
        """Name of a training case -> the fold that held it out; empty where fold "all" alone is trained."""
        names = {case.name for case in self.dataset.train}
        return {name: fold for fold in self.settings.train.folds if fold != "all"
                for name in held_out_cases(self.splits, fold, names)}

    @property
    def selection(self) -> Selection:
        return self._read("selection", self.selection_file, Selection.load)

    @property
    def calibration(self) -> Calibration | None:
        """What the boundaries' doubt is worth; None where nothing was held out to measure it, and of other labels."""
        path = self.calibration_file
        return self._read("calibration", path, Calibration.load) if path.exists() else None

    @property
    def configs(self) -> tuple[str, ...]:
        """The configurations that the run trains, in the plan's order, in which they need each other."""
        return self.settings.train.configs_among(self.plan.configurations)

    settings_file = property(lambda self: self.folder / "settings.json")
    fingerprint_file = property(lambda self: self.folder / "fingerprint.json")
    plan_file = property(lambda self: self.folder / "plan.json")
    splits_file = property(lambda self: self.folder / "splits.json")
    selection_file = property(lambda self: self.folder / "selection.json")
    calibration_file = property(lambda self: self.folder / "calibration.json")
    scores_file = property(lambda self: self.folder / "scores.json")
    mirroring_file = property(lambda self: self.folder / "mirroring.json")
    ablation_file = property(lambda self: self.folder / "ablation.json")
    claims_file = property(lambda self: self.folder / "claims.json")
    thickness_file = property(lambda self: self.folder / "thickness.csv")
    corrected = property(lambda self: self.folder / "corrected")  # scans corrected in lesson 10: a data set
    ledger_file = property(lambda self: self.folder / LEDGER)
    submission_file = property(lambda self: self.folder / "submission.zip")
    report_file = property(lambda self: self.folder / "report.html")
    classifier = property(lambda self: self.folder / "classifier")
    figures = property(lambda self: self.folder / "figures")
    notebooks = property(lambda self: self.folder / "notebooks")
    steps = property(lambda self: self.folder / ".steps")  # a folder each, while a notebook is executed

    def preprocessed(self, config: str) -> Path:
        """Where preprocessed cases lie; a cascade's second step shares those of 3d_fullres."""
        return self.folder / "preprocessed" / ("3d_fullres" if config == "3d_cascade_fullres" else config)

    def first_step(self, config: str) -> Path:
        """Where a cascade's first-step masks lie, <case>.npy on the grid of the second step `config`."""
        return self.folder / "preprocessed" / config

    def fold(self, config: str, fold: int | str) -> Path:
        """The folder of a fold's training."""
        return self.folder / "models" / config / f"fold_{fold}"

    def checkpoint(self, config: str, fold: int | str) -> Path:
        return self.fold(config, fold) / "checkpoint.pt"

    def predictions(self, split: str) -> Path:
        """The final masks of a split: "validation" or "test"."""
        return self.folder / "predictions" / split

    def cross_validation(self, config: str, fold: int | str) -> Path:
        """The predictions of the training cases that a fold held out."""
        return self.folder / "predictions" / "cv" / config / f"fold_{fold}"

    def _read(self, name: str, path: Path, load: Callable[[Path], Any]) -> Any:
        if name in MADE_BY and not path.exists():
            raise bad_file(path, "not found", f"expected what {MADE_BY[name]} leaves: run it first")
        return self._keep(name, _stamp(path), lambda: load(path))

    def _keep(self, name: str, stamp: object, load: Callable[[], Any]) -> Any:
        self.check_links()
        if name not in self._kept or self._kept[name][0] != stamp:
            self._kept[name] = stamp, load()
        return self._kept[name][1]

    def _data_of(self) -> object:
        # Folders of images have no one file that tells of a change; a data set is opened once for the same settings.
        return self.settings.data.dir, self.settings.train.extra_data


def _stamp(path: Path) -> tuple[int, int, int] | None:
    found = path.stat() if path.exists() else None
    return found and (found.st_ino, found.st_size, found.st_mtime_ns)
