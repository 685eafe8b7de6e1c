"""What tells the scans that a model reads from other pictures, as numbers in the model's file."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

KINDS = "circle", "macula", "disc", "other"  # the first is what the model reads


class Scope(BaseModel):
    """A logistic regression of `KINDS` on what `layers.scope.describe` finds, fitted by benchmarks/scope.py.

    `features` has the mean and the standard deviation of each number, by name; `weights` for each kind a number for
    each feature, in their order, and a constant at the end. A scan is in scope where its probability of the first kind
    is `least` or more. `flagged`: examples not used in fitting, by what they show, and how many of them are flagged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    features: dict[str, tuple[FiniteFloat, Annotated[FiniteFloat, Field(gt=0)]]]
    weights: dict[str, tuple[FiniteFloat, ...]]
    least: Annotated[float, Field(ge=0, le=1)]
    flagged: dict[str, tuple[int, int]] = {}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if set(self.weights) != set(KINDS) or any(len(row) != len(self.features) + 1 for row in self.weights.values()):
            raise ValueError(f"found weights of {', '.join(self.weights)}, expected {len(self.features) + 1} each of "
                             f"{', '.join(KINDS)}")
        return self
