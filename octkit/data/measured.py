"""What was measured of a model on scans that it was not trained on, as parts of its file.

`Calibration`, also calibration.json of a run: what its doubt is worth. `Scope`: what tells the scans that it reads from
other pictures.
"""

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, Field, FiniteFloat, model_validator

from octkit.common.files import read_json_as
from octkit.data.labels import BOUNDARIES, LAYERS

KINDS = "circle", "macula", "disc", "other"  # the first is what the model reads
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Kind = Annotated[str, Field(pattern="^(global|quadrants|sectors|hours)$")]
Factor = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Number = Annotated[float, Field(ge=-100, le=100)]


class Calibration(BaseModel, frozen=True, extra="forbid"):
    """What `layers.calibration.fit` has found on scans with a truth that the network was not trained on.

    `scans` is their number, `origin` what they are, in words. `knots` has points (raw doubt, half width for 68, for
    95 %) in px for each boundary; none of the three ever falls. `scan` corrects these curves by what the whole scan is
    like (`layers.calibration.looks`): for each boundary the slopes (68, 95 %) of the logarithm of its half width, one
    pair a feature; empty where too few scans were seen. `limits` are each feature's mean, least and
    largest value in the fit. `means` has, by layer and kind of mean, its half
    widths for 68 and 95 % in units of the mean one of its A-scans (`thickness.mean_widths`), where such were seen.
    `coverage` has the shares of places that half widths hold which were fitted on other scans
    (`layers.calibration.coverage`).
    """

    scans: Annotated[int, Field(ge=1)]
    origin: str
    knots: dict[str, tuple[tuple[Positive, Positive, Positive], ...]]
    means: dict[str, dict[Kind, tuple[Factor, Factor]]]
    scan: dict[str, tuple[tuple[Number, Number], tuple[Number, Number]]] = {}
    limits: tuple[tuple[Number, Number, Number], ...] = ()
    coverage: dict[str, dict[str, tuple[float, float]]] = {}

    @staticmethod
    def load(path: Path) -> "Calibration":
        """Read calibration.json. Raises OctkitError where it is missing or not what `octkit select` writes."""
        return read_json_as(path, Calibration, "select again")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if set(self.knots) != set(BOUNDARIES) or set(self.means) != set(LAYERS):
            raise ValueError(f"found {', '.join(self.knots)} and {', '.join(self.means)}, expected the five boundaries "
                             "and the three layers")
        if self.scan and (set(self.scan) != set(BOUNDARIES) or len(self.limits) != 2):
            raise ValueError("scan: expected the slopes of the five boundaries, and limits for both features")
        for name, points in self.knots.items():
            columns = list(zip(*points, strict=True))
            if not points or any(list(column) != sorted(column) for column in columns):
                raise ValueError(f"{name}: expected points, none lower than the one before it")
        return self


class Scope(BaseModel, frozen=True, extra="forbid"):
    """A logistic regression of `KINDS` on what `layers.scope.describe` finds, fitted by benchmarks/scope.py.

    `features` has the mean and the standard deviation of each number, by name; `weights` for each kind a number for
    each feature, in their order, and a constant at the end. A scan is in scope where its probability of the first kind
    is `least` or more. `flagged`: examples not used in fitting, by what they show, and how many of them are flagged.
    """

    features: dict[str, tuple[FiniteFloat, Positive]]
    weights: dict[str, tuple[FiniteFloat, ...]]
    least: Annotated[float, Field(ge=0, le=1)]
    flagged: dict[str, tuple[int, int]] = {}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if set(self.weights) != set(KINDS) or any(len(row) != len(self.features) + 1 for row in self.weights.values()):
            raise ValueError(f"found weights of {', '.join(self.weights)}, expected {len(self.features) + 1} each of "
                             f"{', '.join(KINDS)}")
        return self
