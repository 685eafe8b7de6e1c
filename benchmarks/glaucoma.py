"""The three answers to "is it glaucoma" of a run, on more phantoms that nobody has learned from.

    PYTHONPATH=. .venv/bin/python benchmarks/glaucoma.py reports/demo [--scans 400] [--seed 1000] [--write]

Phantoms as the run's own, of other people, are made and kept in <run>-more. A process of its own predicts their layers
(torch); this one asks the run's networks (paddle) and its answers, as `octkit classify` fitted them. Printed are AUC,
sensitivity and specificity at the run's own thresholds, and whether both together are worse than either alone beyond
the paired interval by person. With --write it goes into benchmarks/README.md.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
from versus import machine, octkit_environment, table, write_section

from octkit.common.errors import OctkitError
from octkit.data.layouts.detect import open_dataset
from octkit.data.layouts.goals import true_diagnoses
from octkit.planning.run import Run


def predict(run: Run, more: Path) -> None:
    """Leave the boundaries of the new scans in <more>/predicted, as a run's validation scans have them."""
    from functools import partial

    from octkit.data.dataset import scan_size
    from octkit.inference.predict import ScanToPredict, predict_scans
    from octkit.inference.sliding_window import Predictor

    dataset = open_dataset(more / "data")
    scans = [ScanToPredict(case.name, case.image, scan_size(case.image), case.spacing, case.circle,
                           partial(dataset.read_image, case), case.eye) for case in dataset.validation]
    (more / "predicted").mkdir(exist_ok=True)
    predict_scans(Predictor.load(run.folder, run.settings.device), scans, more / "predicted")


def asked(run: Run, more: Path):
    """The answers' Fitted, what is known of the new scans, and their diagnoses (n,)."""
    from octkit.classification import measure, resnet50, thickness_model
    from octkit.classification.answers import Evidence

    dataset, people = open_dataset(more / "data"), []
    people = tuple(case.person for case in dataset.validation)
    images = resnet50.load_images([case.image for case in dataset.validation], run.settings.classify.image_size)
    profiles = thickness_model.predicted_profiles(run, more / "predicted", dataset.validation)
    truth = true_diagnoses(dataset)
    scans = Evidence(tuple(case.name for case in dataset.validation), people,
                     resnet50.reader(measure.network_folders(run), run.settings)(images),
                     thickness_model.features(profiles, people))
    return measure.fitted_answers(run), scans, np.array([truth[name] for name in scans.names])


def report(run: Run, fitted, scans, labels: np.ndarray) -> str:
    from octkit.evaluation.diagnosis import auc_gain, diagnosis_scores
    from octkit.evaluation.records import AnswerScores

    told, called, _ = fitted.ask(scans)
    rows, lines = [], []
    for name, values in told.items():
        scores = AnswerScores.model_validate(diagnosis_scores(
            labels, values, called[name], scans.people) | {"brier_raw": None})
        rows.append([name, str(scores.auc), str(scores.sensitivity), str(scores.specificity), f"{scores.brier:.3f}"])
    for name in [name for name in told if name != "both" and "both" in told]:
        gain, p = auc_gain(labels, told[name], told["both"], scans.people)
        verdict = "worse" if gain.high < 0 else "not worse"
        lines.append(f"Both together against {name}: AUC {gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}], "
                     f"p = {p:.2g}: {verdict} beyond the paired interval.")
    return (f"{machine()}; {run.folder.name}. {len(labels)} phantoms of {len(set(scans.people))} people, none in the "
            "run; 95 % intervals over people, sensitivity and specificity at the thresholds that the run set for a "
            "specificity of 95 %.\n\n" + table(["answer", "AUC", "sensitivity", "specificity", "Brier score"], rows)
            + "\n\n" + "\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--scans", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    run = Run(options.run)
    more = run.folder.with_name(f"{run.folder.name}-more")
    if options.child:
        return predict(run, more)
    phantom = run.settings.data.phantom
    if phantom is None:
        raise OctkitError(f"{run.folder}: is no run on phantoms, expected one")
    if not (more / "data").exists():
        from octkit.phantoms.data_sets import make_data_set

        make_data_set(more / "data", (1, options.scans, 0), phantom.size, options.seed, looks=phantom.looks)
    subprocess.run([sys.executable, __file__, str(run.folder), "--child"], check=True,
                   env=octkit_environment(2))
    text = report(run, *asked(run, more))
    print(text)
    if options.write:
        write_section("The answers to the glaucoma question on more phantoms", text)
    return None


if __name__ == "__main__":
    main()
