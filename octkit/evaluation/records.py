"""What evaluation has left in a run's folder, read back: scores.json and the glaucoma answers' answers.json."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, model_validator

from octkit.common.files import read_json_as

Number = float | None  # None: undefined


class Estimate(BaseModel, frozen=True):
    """A value with its 95 % interval, where that is known."""

    mean: Number
    low: Number = None
    high: Number = None

    def __str__(self) -> str:
        return self.shown()

    def shown(self, digits: int = 3) -> str:
        """As "0.912 [0.850, 0.956]"."""
        if self.mean is None:
            return "—"
        interval = "" if None in (self.low, self.high) else f" [{self.low:.{digits}f}, {self.high:.{digits}f}]"
        return f"{self.mean:.{digits}f}{interval}"


class Summary(Estimate, frozen=True):
    """A metric's mean and standard deviation over the cases where it is defined, or its mean over people."""

    std: Number = None
    undefined: int = 0


class Scores(BaseModel, frozen=True):
    """The parts of scores.json that are shown; `evaluate.score_folder` says what they are."""

    cases: dict[str, dict[str, dict[str, Number]]]
    summary: dict[str, dict[str, Summary]]
    units: dict[str, str]
    people: int = 0
    by_group: dict[str, dict[str, Summary]] = {}  # in files of older versions: nobody has counted people
    nsd_tolerance_px: float = 0.0

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        for layer, found in self.summary.items():
            if lost := {"dice", "med", "thickness_error", *self.units} - found.keys():
                raise ValueError(f"{layer} lacks {', '.join(sorted(lost))}")
        return self

    @staticmethod
    def load(path: Path) -> "Scores":
        """Read scores.json. Raises OctkitError where it is missing, damaged, or lacks a layer's metric."""
        return read_json_as(path, Scores, "score the masks again")


class AnswerScores(BaseModel, frozen=True):
    """What is shown of `diagnosis.diagnosis_scores`, and the Brier score before recalibration."""

    scans: int
    people: int
    auc: Estimate
    sensitivity: Estimate
    specificity: Estimate
    f1: Number
    brier: float
    brier_raw: Number


class Answers(BaseModel, frozen=True):
    """answers.json; `classification.measure.answer` says what it holds."""

    chosen: str
    why: str
    lacking: str | None
    specificity: float
    learned_from: dict[str, int]
    behind: dict[str, dict[str, Number]]
    scores: dict[str, dict[str, AnswerScores]]

    @staticmethod
    def load(path: Path) -> "Answers":
        """Read answers.json. Raises OctkitError where it is missing or damaged."""
        return read_json_as(path, Answers, "answer again (octkit classify RUN)")
