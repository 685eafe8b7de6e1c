"""The steps of a run before training: fingerprint, plan, preprocessed cases, folds. Each leaves files."""

from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from octkit.common.errors import OctkitError
from octkit.common.files import clear_unfinished, replacing, write_json
from octkit.common.messages import say
from octkit.data.dataset import Case, Dataset, scan_size
from octkit.planning.fingerprint import Fingerprint, extract, readers
from octkit.planning.folds import Split, keeps_together, make_splits
from octkit.planning.plan import Plan
from octkit.planning.planner import blueprint, plan_experiment, with_batch_size
from octkit.planning.preprocess import PreprocessedCase, check_grid, load_preprocessed, preprocess
from octkit.planning.run import Run


def fingerprint_run(run: Run) -> Fingerprint:
    """Describe a run's training cases; leaves fingerprint.json."""
    found = extract(run.training_data, units=run.settings.plan.units)
    found.save(run.fingerprint_file)
    return found


def plan_run(run: Run) -> Plan:
    """Plan a run from its fingerprint.json and settings.json; leaves plan.json."""
    wanted = run.settings.plan
    plan = plan_experiment(run.fingerprint, wanted.memory_gb, wanted.base_features, wanted.max_features,
                           wanted.architecture)
    if wanted.batch_size is not None:
        plan = with_batch_size(plan, wanted.batch_size)
    plan.save(run.plan_file, blueprint(run.settings))
    return plan


def preprocess_run(run: Run, progress: bool = True) -> tuple[PreprocessedCase, ...]:
    """Preprocess a run's training cases for every configuration that it trains.

    Leaves preprocessed/<config>/ with <case>.image.npy, .mask.npy and .json; returns the first configuration's cases.
    """
    plan, dataset, configs = run.plan, run.training_data, run.configs
    # A cascade's second step needs its first one's grid as well, whether or not that one is a candidate itself.
    needed = [config for name in configs for config in (plan.configurations[name].previous_stage, name) if config]
    for folder, config in {run.preprocessed(config): config for config in needed}.items():
        for marker in folder.glob("*.json"):  # stopped half-way, no case of another plan may pass for a new one
            marker.unlink()
        clear_unfinished(folder)
        with readers(dataset.training) as pool:  # decoding, arithmetic and waiting for the disk overlap
            done = pool.map(partial(_preprocess_case, dataset, plan, config, folder), dataset.training)
            for _ in tqdm(done, f"preprocess {config}", len(dataset.training), unit="scan", disable=not progress):
                pass
    return load_preprocessed(run, configs[0], [case.name for case in dataset.training])


def split_run(run: Run) -> list[Split]:
    """Deal a run's training cases into folds by person, glaucoma spread evenly; leaves splits.json.

    Once a fold has been trained its folds stay, as long as they are of the same cases and keep people together. None
    are dealt, and the list is empty, where fold "all" alone is trained and there are fewer people than folds.
    Raises OctkitError for too few people, and as `check_decidable`.
    """
    chosen, dataset = run.settings, run.training_data
    check_decidable(run)
    if run.splits_file.exists() and any(run.folder.glob("models/*/fold_[0-9]*")):
        names, splits = sorted(case.name for case in dataset.training), run.splits
        same = all(sorted(split["train"] + split["validation"]) == names for split in splits)
        if same and len(splits) == chosen.splits.folds and keeps_together(splits, dataset.training):
            say(f"{run.splits_file}: stays as it is, folds have been trained by it; delete models/ to deal anew")
            return splits
    none = chosen.train.folds == ("all",) and len({case.person for case in dataset.train}) < chosen.splits.folds
    splits = [] if none else make_splits(dataset.train, chosen.splits.folds, chosen.seed, dataset.extra)
    write_json(run.splits_file, splits)
    return splits


def check_decidable(run: Run) -> None:
    """Raise OctkitError for a run that trains fold "all" alone, though it needs cases that were held out.

    They decide between configurations, and a cascade's second step learns from their masks.
    """
    if run.settings.train.folds != ("all",):
        return
    simple = [config for config in run.configs if not run.plan.configurations[config].previous_stage]
    if len(run.configs) > 1 or not simple:
        one = simple[0] if simple else next(iter(run.plan.configurations))
        raise OctkitError(f"{run.folder}: fold \"all\" holds nothing out, so nothing decides between "
                          f"{', '.join(run.configs)}, and a cascade has nothing to refine; train numbered folds too "
                          f"(train.folds), or one configuration: --set 'train.configs=[\"{one}\"]'")


def _preprocess_case(dataset: Dataset, plan: Plan, config: str, folder: Path, case: Case) -> None:
    check_grid(scan_size(case.image), case.spacing, plan, config, case.image)
    image, mask, geometry = preprocess(dataset.read_image(case), case.spacing, plan, config, dataset.read_mask(case))
    for kind, array in (("image", image), ("mask", np.asarray(mask))):
        with replacing(folder / f"{case.name}.{kind}.npy") as temporary, open(temporary, "wb") as file:
            np.save(file, array)
    # Last, as it marks the case as complete.
    write_json(folder / f"{case.name}.json", asdict(geometry) | {"circle": case.circle and geometry.all_a_scans})
