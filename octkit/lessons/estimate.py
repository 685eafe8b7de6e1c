"""What a run will take before it starts: time, memory, disk, from its plan and a measurement of about a minute."""

import tempfile
from collections.abc import Callable
from math import ceil, prod
from pathlib import Path
from typing import Any

from octkit.common.memory import GB, free_memory
from octkit.common.settings import Settings, with_changes
from octkit.data.layouts import detect
from octkit.lessons import run_all
from octkit.phantoms.data_sets import make_data_set
from octkit.planning import steps
from octkit.planning.plan import Plan
from octkit.planning.run import Run

# Of the demo, 2026-11-28, 2 cores of an AMD EPYC (Zen 3) beside other work: lessons that train nothing took 5 to 18 s
# and 0.3 to 0.7 GB.
LESSON_SECONDS = 12
REST = 0.1 * GB  # of the disk: figures, executed lessons, report
KERNEL = 0.6 * GB


def estimate(run: Run, chosen: Settings, measured: Callable[[Plan, str, Settings], Any]) -> str:
    """A run's cost in words, all done in one process; `measured` is `training.cost.measured`.

    The ResNet50 of lesson 11 and the candidates of lesson 16 are not in it, which is said.
    """
    with tempfile.TemporaryDirectory() as scratch:
        plan, scans, predicted = _planned(run, chosen, Path(scratch))
    folds, options = len(chosen.train.folds), chosen.train
    mirrored = 2 ** len(chosen.augment.mirror_axes) if chosen.infer.mirror else 1
    lessons = len(run_all.STORIES[chosen.story]) + folds
    lines, seconds, disk, peak = [], lessons * LESSON_SECONDS, REST, 0.0
    for name in options.configs_among(plan.configurations):
        configuration, cost = plan.configurations[name], measured(plan, name, chosen)
        training = folds * options.epochs * (options.iterations_per_epoch * cost.step
                                             + options.validation_iterations * cost.forward)
        shape, patches = configuration.median_shape, configuration.patch_size
        windows = prod(shape[:-len(patches)]) * prod(  # 2-D networks take a volume slice by slice
            1 + ceil(max(0, size / patch - 1) / chosen.infer.step)
            for size, patch in zip(shape[-len(patches):], patches, strict=True))
        each = windows * mirrored * cost.forward / configuration.batch_size  # a scan, by one network
        predicting = each * (scans + predicted * len(options.final_folds))
        disk += (folds * 2 * 4 * cost.weights * (2 if options.optimiser == "sgd" else 3)  # two checkpoints a fold
                 + scans * prod(shape) * (4 * plan.input_channels(name) + 1 + 2 * (len(plan.classes) + 1)))
        seconds, peak = seconds + training + predicting, max(peak, cost.memory + KERNEL)
        lines.append(f"{name}: {folds} folds of {options.epochs} epochs {_time(training)} ({cost.step:.3f} s a step), "
                     f"predictions {_time(predicting)} ({each:.2f} s a scan and fold)")
    return "\n".join([
        *lines, f"in all about {_time(seconds)} on one machine; {peak / GB:.1f} GB of memory (found "
        f"{free_memory() / GB:.1f} GB free), {disk / GB:.1f} GB of disk; without lesson 11's ResNet50 and lesson 16's "
        "candidates"])


def _planned(run: Run, chosen: Settings, scratch: Path) -> tuple[Plan, int, int]:
    """The plan, how many scans there are to train on, and how many others; of phantoms to come a few are drawn."""
    if phantom := None if chosen.data.root.is_dir() else chosen.data.phantom:
        counts = phantom.train, phantom.validation + phantom.test
        make_data_set(scratch / "data", (4, 1, 0), phantom.size, phantom.seed, phantom.kind, phantom.looks)
        chosen = with_changes(chosen, {"data": {"dir": str(scratch / "data"), "phantom": None}})
    else:
        dataset = detect.open_run(chosen)
        counts = len(dataset.training), len(dataset.validation) + len(dataset.test)
    if run.exists and run.plan_file.exists():
        return run.plan, *counts
    other = Run(scratch / "run")
    chosen.save(other.settings_file)
    steps.fingerprint_run(other)
    return steps.plan_run(other), *counts


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{seconds / 60:.1f} min"
