"""What it costs to deal scans of one person into several folds, shown by the simplest model that remembers."""

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from octkit.data.dataset import Case, Dataset
from octkit.evaluation.intervals import Interval, bootstrap_interval
from octkit.planning.folds import make_splits

PICTURE = (40, 32)  # px, columns x rows, in which scans are compared


def dealt_both_ways(dataset: Dataset, folds: int, seed: int) -> dict[str, dict[str, Interval]]:
    """A nearest neighbour, cross-validated with folds dealt by scan and by person: how dealt -> what -> Interval.

    Each held-out scan is given the thickness (px) of the first layer and the diagnosis of the training scan whose
    small picture is most alike. Intervals are over people. Without any diagnosis, without groups, or with fewer people
    than folds, what cannot be told is left out.
    """
    pictures = {case.name: cv2.resize(dataset.read_image(case)[0], PICTURE, interpolation=cv2.INTER_AREA)
                for case in dataset.train}
    thickness = {case.name: (dataset.read_mask(case) == 1).sum(axis=0).mean() for case in dataset.train}
    label = {case.name: case.glaucoma for case in dataset.train}
    alone = [replace(case, group=None) for case in dataset.train]
    ways: dict[str, Sequence[Case]] = {"by scan": alone}
    if any(case.group for case in dataset.train):
        ways["by person"] = dataset.train
    found = {}
    for how, cases in ways.items():
        if len({case.person for case in cases}) < folds:
            continue
        nearest = {}
        for split in make_splits(cases, folds, seed):
            known = np.stack([pictures[name] for name in split["train"]])
            for name in split["validation"]:
                distance = np.square(known - pictures[name]).sum(axis=(1, 2))
                nearest[name] = split["train"][distance.argmin()]
        people = [case.person for case in dataset.train]
        wrong = [abs(thickness[nearest[case.name]] - thickness[case.name]) for case in dataset.train]
        found[how] = {f"{dataset.labels[0]} thickness error in px": bootstrap_interval(wrong, people)}
        if all(case.glaucoma is not None for case in dataset.train):
            right = [float(label[nearest[case.name]] == case.glaucoma) for case in dataset.train]
            found[how]["share of right diagnoses"] = bootstrap_interval(right, people)
    return found
