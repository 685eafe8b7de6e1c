"""Decide by cross-validation: which configuration, and which post-processing. Leaves selection.json.

Rule for post-processing (report, section on empirical parameters): keep only the largest component of all
foreground together if that raises the mean foreground Dice and lowers no layer's; then the same test layer
by layer on top of it.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from octkit import layouts, settings
from octkit.cases import Dataset
from octkit.files import OctkitError, read_json, write_json
from octkit.images import read_mask
from octkit.metrics import dice
from octkit.postprocess import apply_steps

Steps = tuple[tuple[int, ...], ...]


def mean_dice(predicted: Sequence[np.ndarray], truth: Sequence[np.ndarray], labels: int) -> np.ndarray:
    """Mean Dice over cases of each foreground label: (labels,) float.

    Cases in which a label is in neither mask do not count for it; nan where that is so in all of them.
    """
    table = np.array([[dice(p, t, label) for label in range(1, labels + 1)]
                      for p, t in zip(predicted, truth, strict=True)])
    counted = ~np.isnan(table)
    return np.divide(np.where(counted, table, 0).sum(0), counted.sum(0), where=counted.any(0),
                     out=np.full(labels, np.nan))


def decide_postprocessing(predicted: Sequence[np.ndarray], truth: Sequence[np.ndarray], names: Sequence[str],
                          circle: bool = False) -> tuple[Steps, list[dict]]:
    """Test the recipe's post-processing steps on cross-validation masks.

    Args:
        predicted, truth: one (*spatial) uint8 mask a case.
        names: the foreground labels' names, label 1 first.
        circle: scans close to a circle, so components may run through the seam.

    Returns:
        The steps to apply, and one record a test: what was tried, Dice by layer before and after, kept or
        not and why.
    """
    everything = tuple(range(1, len(names) + 1))
    steps: Steps = ()
    before = mean_dice(predicted, truth, len(names))
    records = []
    for labels in (everything, *((label,) for label in everything)):
        trial = (*steps, labels)
        after = mean_dice([apply_steps(mask, trial, circle) for mask in predicted], truth, len(names))
        keep, why = _is_better(before, after, names)
        what = "all foreground together" if labels == everything else names[labels[0] - 1]
        records.append({"step": f"largest component of {what}", "labels": list(labels), "kept": keep, "why": why,
                        "dice_before": _named(before, names), "dice_after": _named(after, names)})
        if keep:
            steps, before = trial, after
    return steps, records


def _is_better(before: np.ndarray, after: np.ndarray, names: Sequence[str]) -> tuple[bool, str]:
    lowered = [f"{name} {b:.5f} -> {a:.5f}" for name, b, a in zip(names, before, after, strict=True) if a < b]
    gain = float(np.nanmean(after) - np.nanmean(before))
    if gain > 0 and not lowered:
        return True, f"mean Dice rises by {gain:.2e}, no layer falls"
    if lowered:
        return False, "a layer falls: " + ", ".join(lowered)
    return False, "mean Dice does not rise"


def select(run_dir: str | Path) -> dict:
    """Score a run's cross-validation masks, decide the post-processing, write selection.json and return it.

    With fold "all" alone nothing was held out: then nothing is decided, and selection.json says so.
    """
    run_dir = Path(run_dir)
    chosen = settings.load(run_dir / "settings.json")
    dataset = layouts.open_dataset(chosen.data.root)
    splits = read_json(run_dir / "splits.json")
    folds = [fold for fold in chosen.train.folds if fold != "all"]
    config = chosen.train.config
    if not folds:
        selection = {"configuration": config, "why": "the only one; fold all holds nothing out to decide with",
                     "folds": ["all"], "candidates": [], "postprocessing": [], "steps": [], "circle": False}
        write_json(run_dir / "selection.json", selection)
        return selection
    names = [name for fold in folds for name in splits[fold]["validation"]]
    predicted, truth = _cross_validation_masks(run_dir, dataset, names)
    circle = all(case.circle for case in dataset.train)
    steps, records = decide_postprocessing(predicted, truth, dataset.labels, circle)
    # 2-D data has one configuration. With more, every one and every pair stands here as a candidate.
    per_layer = mean_dice(predicted, truth, len(dataset.labels))
    selection = {
        "configuration": config,
        "why": "the only configuration of 2-D data",
        "folds": folds,
        "cases": len(names),
        "candidates": [{"name": config, "dice": _named(per_layer, dataset.labels),
                        "mean_dice": float(np.nanmean(per_layer))}],
        "postprocessing": records,
        "steps": [list(step) for step in steps],
        "circle": circle,
    }
    write_json(run_dir / "selection.json", selection)
    return selection


def _cross_validation_masks(run_dir: Path, dataset: Dataset, names: Sequence[str],
                            ) -> tuple[list[np.ndarray], list[np.ndarray]]:
    cases = {case.name: case for case in dataset.train}
    folder = run_dir / "predictions" / "cv"
    missing = [name for name in names if not (folder / f"{name}.png").exists()]
    if missing:
        raise OctkitError(f"{folder}: has no prediction for {len(missing)} cases ({missing[0]} is the first); "
                          "predict the cross-validation first")
    truth = [dataset.read_mask(cases[name]) for name in names]
    predicted = [read_mask(folder / f"{name}.png", dataset.mask_values, mask.shape)
                 for name, mask in zip(names, truth, strict=True)]
    return predicted, truth


def _named(values: np.ndarray, names: Sequence[str]) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else float(value) for name, value in zip(names, values, strict=True)}
