"""How well `octkit doctor --groups` finds scans of one eye: pairs of phantoms, and how its weights were fitted.

Run by hand from the project's root, in the project's environment:

    .venv/bin/python benchmarks/groups.py --fit          seeds 101 to 103, both looks, true masks
    .venv/bin/python benchmarks/groups.py                seeds 201 to 203: precision and recall of pairs
    .venv/bin/python benchmarks/groups.py --predicted    the same with layers as the model in the box sees them

Scans of one set are compared as `propose` does. A pair in one proposed eye is right where it shows one person, since
folds go by person; recall counts pairs of one eye. What came out stands in benchmarks/README.md.
"""

import argparse
import itertools
import tempfile
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from octkit.data.layouts.detect import open_dataset
from octkit.inference.groups import SCANS, chances, correlations, courses, grouped
from octkit.inference.scan_result import predict_scan
from octkit.inference.sliding_window import Predictor
from octkit.phantoms.data_sets import make_data_set

SETS = tuple(itertools.product(("spectralis", "varied"), (1, 2, 3)))


def compared(seed: int, looks: str, scans: int, predictor: Predictor | None) -> tuple[np.ndarray, ...]:
    """Courses of a set's scans, and for each pair whether it shows one eye, and one person."""
    with tempfile.TemporaryDirectory() as folder:
        make_data_set(Path(folder) / "set", (scans, 0, 0), (256, 320), seed, looks=looks)
        dataset = open_dataset(Path(folder) / "set")
        found = []
        for case in dataset.train:
            image = dataset.read_image(case)
            mask = (dataset.read_mask(case) if predictor is None else
                    predict_scan(predictor, image, case.spacing, case.circle).mask)
            found.append(courses(image[0], mask))
    person, eye = (np.array(values) for values in zip(*((case.group, case.eye) for case in dataset.train), strict=True))
    same = person[:, None] == person
    return np.stack(found), same & (eye[:, None] == eye), same


def fit(scans: int) -> None:
    """Print the weights and the offset of `octkit.inference.groups`; pairs of fellow eyes are left out."""
    pairs, right = [], []
    for looks, seed in SETS:
        found, one_eye, one_person = compared(100 + seed, looks, scans, None)
        chosen = np.triu(one_eye | ~one_person, 1)
        pairs.append(correlations(found)[chosen])
        right.append(one_eye[chosen])
    model = LogisticRegression(max_iter=1000).fit(np.concatenate(pairs), np.concatenate(right))
    print("WEIGHTS", model.coef_.round(1), "OFFSET", model.intercept_ - np.log((SCANS - 1) / (scans - 1)))


def measure(scans: int, predictor: Predictor | None) -> None:
    for looks, seed in SETS:
        found, one_eye, one_person = compared(200 + seed, looks, scans, predictor)
        eyes, sure = grouped(chances(found))
        upper = np.triu(np.ones(one_eye.shape, bool), 1)
        together = (eyes[:, None] == eyes) & upper
        doubtful = [eye for eye in sure if sure[eye] < 0.8]
        wrong = {eye for eye in sure if not one_person[np.ix_(eyes == eye, eyes == eye)].all()}
        print(f"{looks:10s} {200 + seed}: {together.sum()} pairs proposed, right by person "
              f"{(together & one_person).sum() / max(together.sum(), 1):.3f}, of one eye found "
              f"{(together & one_eye).sum() / (one_eye & upper).sum():.3f}, fellow eyes joined "
              f"{(together & one_person & ~one_eye).sum()} of {(one_person & ~one_eye & upper).sum()}; "
              f"{len(doubtful)} of {len(sure)} eyes below 0.8, {len(wrong & set(doubtful))} of {len(wrong)} wrong ones",
              flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--fit", action="store_true")
    options.add_argument("--predicted", action="store_true")
    options.add_argument("--scans", type=int, default=54, help="of each set")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    if chosen.fit:
        fit(chosen.scans)
    else:
        measure(chosen.scans, Predictor.load("default") if chosen.predicted else None)


if __name__ == "__main__":
    main()
