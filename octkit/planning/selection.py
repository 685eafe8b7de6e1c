"""What cross-validation has decided: selection.json as values."""

from pathlib import Path

from pydantic import BaseModel

from octkit.common.files import read_json_as, write_json
from octkit.common.settings import Fold, Name


class PostprocessingTest(BaseModel, frozen=True):
    """One test of post-processing on the cross-validation masks: what was tried, Dice by layer, kept or not and why."""

    step: str
    labels: tuple[int, ...]
    kept: bool
    why: str
    dice_before: dict[str, float | None]
    dice_after: dict[str, float | None]
    gain: dict[str, float | int | None] = {}


class Candidate(BaseModel, frozen=True):
    """A configuration, or a pair whose probabilities are averaged, with its Dice.

    `over_cases` is its mean foreground Dice over the cases, `behind_best` how far it lies below the best candidate
    case by case; both {"mean", "sd", "n"}. `dice_by_scan` is scan -> layer -> Dice, before post-processing; empty in
    files of older versions.
    """

    name: str
    configurations: tuple[str, ...]
    dice: dict[str, float | None]
    mean_dice: float
    over_cases: dict[str, float | int | None] = {}
    behind_best: dict[str, float | int | None] = {}
    dice_by_scan: dict[str, dict[str, float | None]] = {}


class Selection(BaseModel, frozen=True):
    """The chosen configuration or pair and the chosen way from its probabilities to a mask.

    `steps` are the post-processing steps to apply, each the labels of which only the largest component stays. `circle`
    says that they were tested on scans that close to a circle, `surfaces` that masks are drawn from ordered
    boundaries. Without held-out cases there are no `candidates` and no tests.
    """

    configuration: str
    configurations: tuple[Name, ...]
    why: str
    folds: tuple[Fold, ...] = ()
    cases: int = 0
    candidates: tuple[Candidate, ...] = ()
    postprocessing: tuple[PostprocessingTest, ...] = ()
    steps: tuple[tuple[int, ...], ...]
    circle: bool
    surfaces: bool

    @property
    def chosen(self) -> Candidate | None:
        """The chosen candidate; None where there was nothing to choose from."""
        return next((found for found in self.candidates if found.name == self.configuration), None)

    @staticmethod
    def load(path: Path) -> "Selection":
        """Read selection.json. Raises OctkitError where it is missing or not what `octkit select` writes."""
        return read_json_as(path, Selection, "select again")

    def save(self, path: Path) -> None:
        write_json(path, self.model_dump(mode="json"))
