"""How thick the RNFL of phantoms is by sector, healthy and with glaucoma, beside what was printed of real eyes.

Run by hand from the project's root, in the project's environment:

    .venv/bin/python benchmarks/sectors.py                   3,000 eyes, the table
    .venv/bin/python benchmarks/sectors.py --wide            eyes of the look varied
    .venv/bin/python benchmarks/sectors.py --real FILE.csv   also what phantoms teach about rows of your own

FILE.csv has a row an exam: subject, glaucoma (Y or N) and RNFL3.5.G, .T, .TS, .NS, .N, .NI, .TI in um. Two logistic
regressions on these seven means are tested on it: one learned from phantoms alone, one from the rows themselves,
cross-validated by subject. What came out stands in benchmarks/README.md.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from octkit.layers.thickness import GARWAY_HEATH, WHOLE, sector_means
from octkit.phantoms.circle_eye import GCIPL, RNFL, draw_eye, seen_again

# Mean and sd of the RNFL (um) without and with glaucoma, and the AUC: Spectralis, circles of 3.5 mm, one half of
# asalber/glaucoma-staging on GitHub (1,067 exams of 541 subjects).
REAL = {"G": (103, 11, 79, 20, 0.87), "T": (71, 12, 63, 20, 0.70), "TS": (131, 23, 97, 32, 0.81),
        "NS": (118, 25, 89, 30, 0.78), "N": (88, 16, 69, 20, 0.80), "NI": (120, 24, 89, 31, 0.81),
        "TI": (153, 21, 108, 38, 0.84)}


MODEL = make_pipeline(StandardScaler(), LogisticRegression(C=0.1))


def chances(x: np.ndarray, y: np.ndarray, group: np.ndarray | None = None) -> np.ndarray:
    """The chance of glaucoma of each row, (n,), by a model of the other four fifths."""
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    group = np.arange(len(y)) if group is None else group
    return cross_val_predict(MODEL, x, y, groups=group, cv=folds, method="predict_proba")[:, 1]


def drawn(eyes: int, wide: bool, fellow: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Means (um) of RNFL and GCIPL over the sectors of REAL, (2, eyes, 7), and who has glaucoma, every second one."""
    names = ("global", *(f"GH_{name}" for name in list(REAL)[1:]))
    values = []
    for seed in range(eyes):
        rng = np.random.default_rng((7, seed))
        eye = seen_again(rng, draw_eye(rng, 180, bool(seed % 2), wide, fellow))
        found = [sector_means(eye.thickness[layer], WHOLE | GARWAY_HEATH) for layer in (RNFL, GCIPL)]
        values.append([[means[name] for name in names] for means in found])
    return np.array(values).swapaxes(0, 1), np.arange(eyes) % 2


def table(values: np.ndarray, ill: np.ndarray) -> None:
    print("| | real healthy | glaucoma | left | AUC | phantoms healthy | glaucoma | left | AUC |\n|" + "---|" * 9)
    for (name, real), found in zip(REAL.items(), values.T, strict=True):
        ours = [f(found[ill == label]) for label in (0, 1) for f in (np.mean, np.std)]
        print(f"| {name} |" + "|".join(f" {a:.0f} ± {b:.0f} | {c:.0f} ± {d:.0f} | {c / a:.2f} | {auc:.2f} "
                                       for a, b, c, d, auc in (real, (*ours, roc_auc_score(ill, -found)))) + "|")


def on_real(path: Path, values: np.ndarray, ill: np.ndarray) -> None:
    """AUCs on the rows of a file with 95 % intervals, by bootstrap over subjects."""
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    x = np.array([[float(row[f"RNFL3.5.{name}"] or "nan") for name in REAL] for row in rows])
    whole = np.isfinite(x).all(axis=1)
    x, subject = x[whole], np.array([row["subject"] for row in rows])[whole]
    y = np.array([row["glaucoma"] == "Y" for row in rows])[whole]
    print(f"{len(x)} whole rows of {len(rows)}, {y.sum()} with glaucoma, {len(set(subject))} subjects")
    ours, theirs = MODEL.fit(values, ill).predict_proba(x)[:, 1], chances(x, y, subject)
    rng, people = np.random.default_rng(0), {name: np.flatnonzero(subject == name) for name in set(subject)}
    boots = [np.concatenate([people[name] for name in rng.choice(sorted(people), len(people))]) for _ in range(1000)]
    for what, scores in {"learned from phantoms": (ours,), "learned from rows": (theirs,), "global mean": (-x[:, 0],),
                         "rows less phantoms": (theirs, ours)}.items():
        auc = [roc_auc_score(y[b], scores[0][b]) - (roc_auc_score(y[b], scores[1][b]) if scores[1:] else 0)
               for b in (slice(None), *boots)]
        print(f"{what}: {auc[0]:.3f} ({np.percentile(auc[1:], 2.5):.3f} to {np.percentile(auc[1:], 97.5):.3f})")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--real", type=Path, help="a CSV file of real rows")
    options.add_argument("--eyes", type=int, default=3000)
    options.add_argument("--wide", action="store_true", help="eyes of the look varied")
    chosen = options.parse_args()
    (values, gcipl), ill = drawn(chosen.eyes, chosen.wide)
    table(values, ill)
    (fellows, _), theirs = drawn(chosen.eyes // 4, chosen.wide, fellow=True)
    alike = np.corrcoef(values[:len(fellows), 0][theirs == 1], fellows[theirs == 1, 0])[0, 1]
    print(f"GCIPL, global: AUC {roc_auc_score(ill, -gcipl[:, 0]):.2f}; "
          f"all sectors of both {roc_auc_score(ill, chances(np.hstack([values, gcipl]), ill)):.2f}")
    print(f"global RNFL of two eyes with glaucoma: correlation {alike:.2f}")
    if chosen.real:
        on_real(chosen.real, values, ill)


if __name__ == "__main__":
    main()
