"""Which circle scans show one person, proposed from the scans themselves, for data sets that do not say it.

Of each scan three courses around the circle are compared: the thickness of RNFL and GCIPL, less what they are in the
mean over all scans, and the shadows that the vessels cast on the layers below. Two scans of one eye agree in all three
once they are turned onto each other. Fellow eyes come out as one person where they are as much alike, else as two.
"""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.distance import squareform
from scipy.special import expit
from tqdm.auto import tqdm

from octkit.common.errors import bad_file
from octkit.common.files import cell_text, write_csv
from octkit.data.dataset import scan_name
from octkit.data.groups import COLUMNS, GROUPS_FILE
from octkit.data.labels import LAYERS
from octkit.data.layouts.detect import open_dataset
from octkit.inference.scan_result import predict_scan
from octkit.inference.sliding_window import Predictor
from octkit.layers.thickness import resample

ANGLES = 360
OFF_CENTRE = (-4, 0, 4)  # degrees by which vessels move at most where the circle's centre does, some 120 um
# Log-odds that two scans show one eye, from the correlations of their RNFL, GCIPL and shadows, where one pair in two
# does; fitted on phantoms of other seeds than those measured (benchmarks/groups.py --fit).
WEIGHTS, OFFSET = (6.1, 6.5, 4.2), -7.2
SCANS = 3  # of an eye, as in GOALS: of n scans a pair then shows one eye with a chance of 2 in n - 1


def propose(data: str | Path, progress: bool = True) -> Path:
    """Write groups.csv for a data set of circle scans, with a column `sure` from 0 to 1, and return its path.

    Layers come from the masks, those of Truth/ too, and where there is none from the model in the box. Raises
    OctkitError where there is a groups.csv, and where the scans are no circles of RNFL, GCIPL and choroid.
    """
    dataset = open_dataset(data)
    file = dataset.root / GROUPS_FILE
    if file.exists():
        raise bad_file(file, "is there already", "expected a data set without: move it away to have one proposed")
    if dataset.labels != LAYERS or not all(case.circle for case in dataset.cases):
        raise bad_file(dataset.root, "holds other scans", f"expected circle scans of {', '.join(LAYERS)}")
    predictor: Predictor | None = None
    found = []
    for case in tqdm(dataset.cases, "compare", unit="scan", disable=not progress):
        image = dataset.read_image(case)
        mask = dataset.read_mask(case) if case.mask else dataset.read_truth(case)
        if mask is None:
            predictor = predictor or Predictor.load("default")
            mask = predict_scan(predictor, image, case.spacing, case.circle).mask
        found.append(courses(image[0], mask))
    people, sure = grouped(chances(np.stack(found)))
    names = [case.image.name if scan_name(case.image) == case.name else case.name for case in dataset.cases]
    write_csv(file, (*COLUMNS, "sure"), [(name, f"p{who:03d}", case.eye or "", f"{sure[who]:.2f}")
                                         for name, case, who in zip(names, dataset.cases, people, strict=True)])
    return file


def in_words(file: Path) -> str:
    """A proposed groups.csv as lines: who has several scans and how sure that is, the least sure first."""
    table = pd.read_csv(file, converters={"ImgName": cell_text})
    people = table.groupby("person").agg({"ImgName": list, "sure": "first"})
    several = people[people.ImgName.map(len) > 1].sort_values("sure")
    lines = [f"{row.sure:.2f}  {person}: {', '.join(row.ImgName)}" for person, row in several.iterrows()]
    return "\n".join([*lines, f"{file}: {len(people)} people proposed, {len(several)} of them with several scans. Look "
                      "at the scans of each, the least sure first (0 to 1), and mend the table: both eyes of a person "
                      "may stand under two names"])


def courses(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What is compared of a scan (H, W) with its mask (H, W): RNFL, GCIPL and shadows, (3, 360) float64."""
    rows = np.arange(len(mask))[:, None]
    rnfl, gcipl = ((mask == label).sum(axis=0).astype(float) for label in (1, 2))
    # The lower half between GCIPL and choroid is evenly bright, and dark where a vessel lies above.
    last, bruch = np.where(mask == 2, rows, 0).max(axis=0), np.where(mask == 3, rows, len(mask)).min(axis=0)
    band = (rows > (last + bruch) / 2) & (rows < bruch)
    light = (np.log1p(image) * band).sum(axis=0) / np.maximum(band.sum(axis=0), 1)
    found = np.stack([resample(course, ANGLES) for course in (rnfl, gcipl, light)])
    found = gaussian_filter1d(found, 1.5, axis=1, mode="wrap")
    found[2] -= gaussian_filter1d(found[2], 25, mode="wrap")
    return found


def correlations(found: np.ndarray) -> np.ndarray:
    """Courses (n, 3, 360) of a data set's scans, less their mean over the set, compared: (n, n, 3).

    Each pair is compared as turned, and seen from another centre, where the three correlations are largest in sum.
    """
    residual = found - found.mean(axis=0)
    residual -= residual.mean(axis=2, keepdims=True)
    residual /= np.maximum(np.linalg.norm(residual, axis=2, keepdims=True), 1e-9)
    angle, best = np.arange(ANGLES), np.full((len(found), len(found), 3), -1.0)
    for turn, along, across in product(range(-6, 7, 2), OFF_CENTRE, OFF_CENTRE):
        seen = angle + turn + along * np.cos(np.radians(angle)) + across * np.sin(np.radians(angle))
        low, share = np.floor(seen).astype(int), seen % 1
        moved = (1 - share) * residual[..., low % ANGLES] + share * residual[..., (low + 1) % ANGLES]
        alike = np.einsum("ica,jca->ijc", residual, moved, optimize=True)
        best = np.where((alike.sum(axis=2) > best.sum(axis=2))[..., None], alike, best)
    return np.where((best.sum(axis=2) >= best.sum(axis=2).T)[..., None], best, best.transpose(1, 0, 2))


def chances(found: np.ndarray) -> np.ndarray:
    """The chance that two scans show one eye, (n, n), from their courses (n, 3, 360)."""
    n = len(found)
    log_odds = correlations(found) @ np.array(WEIGHTS) + OFFSET + np.log((SCANS - 1) / max(n - 1, 2))
    return np.where(np.eye(n, dtype=bool), 1.0, expit(log_odds))


def grouped(chance: np.ndarray) -> tuple[np.ndarray, dict[int, float]]:
    """Scans whose `chance` (n, n) is above one half on average as one person: the number for each, from 1, (n,).

    And for each person how sure that is: the mean chance within, or that none of it belongs to the person most alike,
    whichever is less.
    """
    labels = np.ones(1, int) if len(chance) == 1 else fcluster(
        linkage(squareform(1 - chance, checks=False), "average"), 0.5, "distance")
    first = {label: number for number, label in enumerate(dict.fromkeys(labels.tolist()), start=1)}
    people = np.array([first[label] for label in labels])
    sure = {}
    for who in first.values():
        own, size = people == who, (people == who).sum()
        within = (chance[np.ix_(own, own)].sum() - size) / (size * (size - 1)) if size > 1 else 1.0
        others = [chance[np.ix_(own, people == other)].mean() for other in first.values() if other != who]
        sure[who] = float(min(within, 1 - max(others, default=0.0)))
    return people, sure
