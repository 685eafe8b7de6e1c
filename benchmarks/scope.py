"""Fit what tells circle scans around the disc from other pictures, measure how often it errs, write it into the model.

Run by hand from the project's root, in the project's environment, whenever the model in the box is made anew:

    .venv/bin/python benchmarks/scope.py octkit/network/default.zip --work FOLDER

Draws phantoms: circle scans (both looks, several sizes, healthy or not, mirrored, turned, tilted, straight, noisy, with
black A-scans, cut), lines through the same eyes (through the fovea and beside it, through the disc and beside it, at
any angle, short and long), circle scans on their head or side, and pictures that are no OCT. The model predicts them,
`layers/scope.py` describes what it finds, and a logistic regression of the kinds is fitted. Seeds used in fitting are
not used in measuring. Predictions stay in FOLDER; a run that was stopped goes on there.
"""

import argparse
import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scope_examples
import torch
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression

from octkit import phantoms
from octkit.common.files import replacing
from octkit.data.measured import KINDS, Scope
from octkit.inference.scan_result import predict_scan
from octkit.inference.sliding_window import Predictor
from octkit.layers.scope import ENDS, FARTHEST, chances, describe, outside
from octkit.network.model import Model
from octkit.network.model_file import open_model, save_model

# A scan whose probability of being a circle is smaller is out of scope. Below one half, as a good scan that is flagged
# costs more than a line beside the disc that is not: what such a line shows may be a piece of a circle.
LEAST = 0.3


@dataclass(frozen=True)
class Found:
    """What the model finds in an example: its kind and name, what describes it, and whether it is flagged anyway."""

    kind: str
    name: str
    numbers: dict[str, float]
    flagged: bool

    def without_ends(self) -> dict[str, float]:
        """What describes it where nobody says that it is a full circle."""
        return self.numbers | dict.fromkeys(ENDS, float("nan"))


def predicted(model: Model, seed: int, rounds: int, work: Path) -> list[Found]:
    """What the model finds in the examples of a seed; predictions are kept, by its weights and what draws examples."""
    model, made = replace(model, scope=None), hashlib.sha256()
    for member in model.members:
        for state in member.weights.values():
            for _, tensor in sorted(state.items()):  # a file's order is not always the same
                made.update(tensor.numpy().tobytes())
    for source in [Path(scope_examples.__file__), *sorted(Path(phantoms.__file__).parent.glob("*.py"))]:
        made.update(source.read_bytes())
    predictor, found = Predictor(model), []
    for kind, name, number in scope_examples.examples(rounds):
        path = work / made.hexdigest()[:16] / f"{seed} {name} {number}.npz"
        if not path.exists():
            image = scope_examples.drawn(seed, kind, name, number)
            result = predict_scan(predictor, image[None].astype(np.float32))
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary, open(temporary, "wb") as file:
                np.savez_compressed(file, boundaries=result.boundaries, doubt=result.doubt,
                                    likeliest=result.probabilities.argmax(0).astype(np.uint8),
                                    flagged=not result.quality.trusted)
            print(f"seed {seed}: {name} {number}", flush=True)
        with np.load(path) as kept:
            numbers = describe(kept["boundaries"], kept["doubt"], kept["likeliest"], True)
            found.append(Found(kind, name, numbers, bool(kept["flagged"])))
    return found


def fitted(found: Sequence[Found]) -> Scope:
    """A logistic regression of the kinds, each example once with its ends and once without.

    0 of a feature is half-way between the circles' mean and the others'. All four kinds have the same weight, so that
    LEAST means the same whatever the number of examples.
    """
    names, kinds = list(found[0].numbers), np.array([one.kind for one in found])
    values = np.array([list(one.numbers.values()) for one in found])
    circle = kinds == KINDS[0]
    mean, spread = (values[circle].mean(0) + values[~circle].mean(0)) / 2, values.std(0)
    inputs = np.clip((values - mean) / spread, -FARTHEST, FARTHEST)
    both = np.vstack([inputs, np.where(np.isin(names, ENDS), 0, inputs)])
    regression = LogisticRegression(C=0.3, max_iter=5000, class_weight="balanced").fit(both, np.tile(kinds, 2))
    rows = np.column_stack([regression.coef_, regression.intercept_]).round(4)
    return Scope(features={name: (round(m, 5), round(s, 5)) for name, m, s in zip(names, mean, spread, strict=True)},
                 weights={kind: tuple(rows[list(regression.classes_).index(kind)]) for kind in KINDS}, least=LEAST)


def measured(found: Sequence[Found], scope: Scope) -> Scope:
    """Print how many examples of each name are flagged; returns the scope with these counts."""
    print("| example | out of scope | 95 % interval | not said to be a circle | other reasons |")
    print("|---|---|---|---|---|")
    groups = {name: [one for one in found if one.name == name] for name in dict.fromkeys(one.name for one in found)}
    groups |= {"**circle scans**": [one for one in found if one.kind == KINDS[0]],
               "**of them without another reason**": [one for one in found if one.kind == KINDS[0] and not one.flagged],
               "**other pictures**": [one for one in found if one.kind != KINDS[0]]}
    counts = {}
    for name, group in groups.items():
        out, endless, other = (sum(flags) for flags in zip(*(
            (outside(one.numbers, scope) is not None, outside(one.without_ends(), scope) is not None, one.flagged)
            for one in group), strict=True))
        low, high = binomtest(out, len(group)).proportion_ci(method="wilson")
        print(f"| {name} | {out} of {len(group)} | {low:.1%} to {high:.1%} | {endless} | {other} |")
        counts[name.strip("*")] = (out, len(group))
    right = Counter((one.kind, max(KINDS, key=lambda kind: chances(one.numbers, scope)[kind])) for one in found)
    print("\nlikeliest kind:", ", ".join(f"{truth} as {kind} {n}" for (truth, kind), n in sorted(right.items())))
    return scope.model_copy(update={"flagged": {name: counts[name] for name in ("circle scans", "other pictures")}})


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("model", type=Path, help="the model's file; its weights stay as they are")
    options.add_argument("--work", type=Path, required=True, help="a folder for predictions")
    options.add_argument("--rounds", type=int, nargs=2, default=(8, 16), help="of each example: to fit, to measure")
    options.add_argument("--dry", action="store_true", help="leave the model's file as it is")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    model = open_model(chosen.model)
    scope = fitted(predicted(model, 1, chosen.rounds[0], chosen.work))
    scope = measured(predicted(model, 2, chosen.rounds[1], chosen.work), scope)
    print({kind: dict(zip([*scope.features, "constant"], row, strict=True)) for kind, row in scope.weights.items()})
    print("least probability of a circle:", scope.least)
    if not chosen.dry:
        with zipfile.ZipFile(chosen.model) as archive:
            card = json.loads(archive.read("card.json"))
        save_model(replace(model, scope=scope), chosen.model, card)


if __name__ == "__main__":
    main()
