"""Trained models from nnU-Net v2 and back, weights bit for bit.

    nnUNetTrainer__nnUNetPlans__3d_fullres/
        plans.json  dataset.json        what the network is and what it is fed
        fold_0/checkpoint_final.pth     its weights, one folder a fold
        fold_0/checkpoint_best.pth      of the best epoch so far, taken where no fold has the other, or where asked for
        octkit.json  README.txt         ours: what nnU-Net has no place for

nnUNetv2_export_model_to_zip packs such folders, below the data set's, as a zip.
A checkpoint of nnU-Net holds tensors, plain values and numpy's scalars (its losses), and is read as one of ours is.
"""

import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, ValidationError

from octkit import __version__
from octkit.common import files
from octkit.common.errors import OctkitError, bad_file
from octkit.common.messages import say
from octkit.exchange.nnunet_plans import dataset_to, plan_from, plans_to
from octkit.network.checkpoints import read_archive
from octkit.network.model import Member, Model
from octkit.network.model_check import Traits, check_model, steps_of
from octkit.network.model_file import LICENCE, save_model
from octkit.planning.plan import Configuration, Plan

TRAINER, PLANS = "nnUNetTrainer", "nnUNetPlans"
CHECKPOINT, BEST = "checkpoint_final.pth", "checkpoint_best.pth"
KINDS = "final", "best", "latest"  # of checkpoints: at the end, of the best epoch, of a training under way
# What a zip is unpacked for. Trained weights hardly shrink: what grows more than this is no model.
WANTED = re.compile(rf"(.*/)?(plans\.json|dataset\.json|octkit\.json|fold_[^/]+/checkpoint_({'|'.join(KINDS)})\.pth)")
MOST_GROWTH, MOST_MORE = 10, 10_000_000  # times the zip's size, and bytes
CARRIED = "octkit.json"
MODEL = ("expected the folder of a model that nnU-Net has trained (plans.json, fold_*), its zip as "
         "nnUNetv2_export_model_to_zip writes it, or the folder of a raw data set")

Weights = dict[str, torch.Tensor]
Axes = Annotated[tuple[int, ...], FailFast(), BeforeValidator(lambda axes: axes or ())]  # None stands for none


class _Arguments(BaseModel):
    configuration: str | None = None


class Checkpoint(BaseModel):
    """What octkit reads of an nnU-Net checkpoint."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    network_weights: dict[str, torch.Tensor]
    trainer_name: str
    init_args: _Arguments = _Arguments()
    inference_allowed_mirroring_axes: Axes = ()


def import_model(path: str | Path, out: str | Path, checkpoint: str | None = None) -> Model:
    """Write a model of nnU-Net's as one file, to predict with.

    `path` is its folder, one that holds it alone (nnUNet_results/Dataset001_X), or a zip of either; `checkpoint` one of
    `KINDS`, None for the last or else the best. Raises OctkitError where there is no model or more than one, for a zip
    that would grow too large, and as `open_folder`.
    """
    path = Path(path)
    if checkpoint not in (None, *KINDS):
        raise OctkitError(f"checkpoint: found {checkpoint!r}, expected one of {', '.join(KINDS)}")
    with _unpacked(path) as root:
        folder = _only_model(root, path)
        model, trainer = _open(folder, checkpoint)
        save_model(model, out, {
            "name": (path if folder == root else folder).resolve().name.removesuffix(".zip"),
            "data": str(files.read_json(folder / "plans.json").get("dataset_name", "not stated")),
            "folds": list(model.members[0].weights), "trained_by": f"nnU-Net, {trainer}",
            "checkpoint": _checkpoint_name(folder, checkpoint), "versions": {"octkit": __version__}, "licence": LICENCE,
            "created_by": "octkit import-nnunet"})
    return model


@contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    """A folder as it is; a zip as a folder for this long, with what a model needs of it.

    zipfile itself keeps every file below the folder, whatever its name says.
    """
    if path.is_dir():
        files.links_inside(path)
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="octkit-") as folder:
        try:
            with (zipfile.ZipFile(files.only_file(path, "a zip")) as archive,
                  files.saying_disk_full(Path(folder) / path.name)):
                if "model.json" in archive.namelist():
                    raise bad_file(path, "is a model of octkit's", "give it to octkit predict as it is")
                parts = [part for part in archive.infolist() if WANTED.fullmatch(part.filename)]
                if (size := sum(part.file_size for part in parts)) > MOST_GROWTH * path.stat().st_size + MOST_MORE:
                    raise bad_file(path, f"would unpack to {size} bytes", "expected trained weights, which hardly "
                                   "shrink: pack the model anew")
                archive.extractall(folder, parts)
        except FileNotFoundError:
            raise bad_file(path, "not found", MODEL) from None
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise bad_file(path, f"cannot be read as a zip ({error})", MODEL) from None
        try:
            yield Path(folder)
        except OctkitError as error:  # the folder is gone when this is read
            raise OctkitError(str(error).replace(folder, str(path))) from None


def _only_model(root: Path, path: Path) -> Path:
    """The one folder of a model in `root`, which `path` stands for: itself, or one up to three levels below."""
    levels = ("plans.json", "*/plans.json", "*/*/plans.json", "*/*/*/plans.json")
    found = next((there for level in levels if (there := sorted(root.glob(level)))), [])
    if len(found) > 1:
        names = ", ".join(plans.parent.name for plans in found[:5]) + " …" * (len(found) > 5)
        raise bad_file(path, f"holds {len(found)} models ({names})", ("" if path.is_dir() else "unpack it and ")
                       + "give the folder of one; a cascade finds its first step beside it")
    if not found:
        raise bad_file(path, "found neither plans.json nor imagesTr", MODEL)
    return found[0].parent


def open_folder(folder: str | Path) -> Model:
    """Open a folder of nnU-Net's with the folds trained to their end: fold_*/checkpoint_final.pth, or else the best.

    The configuration is the checkpoint's, else the one in the folder's name; the first step of a cascade is looked for
    in the folder beside. As nnU-Net does, `fold_all` is taken where there is no other fold. Windows, mirrored copies
    and folds are averaged as there, before softmax, unless octkit.json says otherwise.
    Raises OctkitError where something is missing, damaged, or has no counterpart here.
    """
    return _open(Path(folder))[0]


def _open(folder: Path, kind: str | None = None) -> tuple[Model, str]:
    """A folder's model, and the name of the class that trained it."""
    member, plan, checkpoint = _trained(folder, kind)
    if found := sorted(folder.glob("**/postprocessing.pkl")):
        say(f"{found[0]}: is left out, since a pickle may hold code; masks are as nnU-Net predicts them before it")
    dimensions = len(plan.configurations[member.config].patch_size)
    axes = checkpoint.inference_allowed_mirroring_axes
    if odd := set(axes) - set(range(dimensions)):
        raise OctkitError(f"{folder}: its checkpoints mirror axis {min(odd)}, expected axes from 0 to {dimensions - 1}")
    traits: dict[str, Any] = {"mirror": bool(axes), "mirror_axes": tuple(axis - dimensions for axis in axes),
                              "step": 0.5, "precision": "float32", "blend": "logits"}
    if (folder / CARRIED).exists():
        traits = dict(files.read_json_as(folder / CARRIED, Traits, "expected what export-nnunet leaves; without this "
                                         "file it predicts as nnU-Net does"))
    model = Model(plan, (member,), plan.classes, **traits)
    check_model(model, folder)
    return model, checkpoint.trainer_name


def export_model(model: Model, folder: str | Path) -> list[Path]:
    """Write a model as folders that nnU-Net predicts with, one a configuration, cascades with their first step's.

    What nnU-Net has no place for is said, and stands in each folder's README.txt and octkit.json. Returns the
    folders. Raises OctkitError where one is there already.
    """
    folder = Path(folder)
    check_model(model, folder)
    steps = {step.config: step for member in model.members for step in steps_of(member)}
    targets = {config: folder / f"{TRAINER}__{PLANS}__{config}" for config in steps}
    with ExitStack() as unfinished:  # all are finished, or none is left: nnU-Net takes all folds that it finds
        for config, member in steps.items():
            target = unfinished.enter_context(files.new_folder(targets[config]))
            _write_folder(model, member, target, folder.resolve().name)
    for sentence in what_is_lost(model):
        say(sentence)
    return list(targets.values())


def what_is_lost(model: Model) -> list[str]:
    """What nnU-Net cannot carry of a model or does otherwise, in sentences for the user."""
    plan, step = model.plan, f"{model.step:g}"
    removed = "; ".join("+".join(model.labels[label - 1] for label in group) for group in model.postprocessing)
    known: list[tuple[object, str]] = [
        (len(model.members) > 1, f"This model averages {' and '.join(member.config for member in model.members)}: let "
         "nnU-Net predict with each (--save_probabilities) and average with nnUNetv2_ensemble."),
        *((True, f"{member.config} refines {member.previous.config}: predict with that first and give its masks with "
           "-prev_stage_predictions.") for member in model.members if member.previous),
        (model.blend == "probabilities", "nnU-Net averages windows, mirrored copies and folds before softmax, this "
         "model after it: probabilities differ a little."),
        (model.circle, "A scan of a full circle ends at its edges for nnU-Net; this model goes on across the seam."),
        (model.surfaces, "Masks are drawn from the most probable label of each pixel, not from ordered boundaries."),
        (model.postprocessing, f"Post-processing is left out (largest component of {removed})."),
        (model.mirror_axes and not model.mirror,
         "This model predicts without mirrored copies: give nnUNetv2_predict --disable_tta."),
        (model.step != 0.5, f"Windows are {step} of their size apart: give nnUNetv2_predict -step_size {step}."),
        (plan.units == "px" and plan.axis_order,
         "It was planned in pixels: give nnU-Net volumes whose header says 1 x 1 x 1 mm."),
        (plan.units == "mm" and not plan.axis_order,
         "It was planned in mm: give nnU-Net the scans as NIfTI files with their spacing, not as PNG."),
        ("all" in model.members[0].weights, "Fold all is taken only where asked for: give nnUNetv2_predict -f all."),
    ]
    return [sentence for applies, sentence in known if applies]


def names_of_weights(network: Configuration) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Our name of each tensor of a U-Net and all its names in nnU-Net's classes, which keep several for some.

    There the decoder counts from the lowest stage up, here from the finest down; it names its encoder again, and each
    layer again in a list of all.
    """
    stages, kinds = len(network.features), ("weight", "bias")
    # Each convolution and its norm: our list of layers, the convolution's number in it, their name of both.
    pairs = [(f"decoder.{i}.layers", 3 * j, f"decoder.stages.{stages - 2 - i}.convs.{j}")
             for i, j in product(range(stages - 1), range(1 if network.blocks else 2))]
    if network.blocks:
        pairs.append(("stem.layers", 0, "encoder.stem.convs.0"))
    else:
        pairs += [(f"encoder.{i}.layers", 3 * j, f"encoder.stages.{i}.0.convs.{j}")
                  for i, j in product(range(stages), range(2))]
    for i, count in enumerate(network.blocks):
        theirs = f"encoder.stages.{i}.blocks"
        pairs += [(f"encoder.{i}.{block}.layers", 3 * j, f"{theirs}.{block}.conv{j + 1}")
                  for block, j in product(range(count), range(2))]
        if i and network.features[i] != network.features[i - 1]:  # behind the average, where there is one
            pairs.append((f"encoder.{i}.0.skip", 1, f"{theirs}.0.skip.{int(max(network.strides[i]) > 1)}"))
    for (ours, first, theirs), (layer, name), kind in product(pairs, enumerate(("conv", "norm")), kinds):
        if not (ours.endswith("skip") and (name, kind) == ("conv", "bias")):
            yield f"{ours}.{first + layer}.{kind}", tuple(
                f"{prefix}{theirs}.{tail}.{kind}" for prefix in ("", "decoder.")[:1 + theirs.startswith("encoder")]
                for tail in (name, f"all_modules.{layer}"))
    heads = (("up", "transpconvs"), ("scores", "seg_layers"))
    for level, (ours, theirs), kind in product(range(stages - 1), heads, kinds):
        yield f"{ours}.{level}.{kind}", (f"decoder.{theirs}.{stages - 2 - level}.{kind}",)


def weights_from(theirs: Weights, network: Configuration, where: str | Path) -> Weights:
    """Our U-Net's weights from nnU-Net's. Raises OctkitError where names are missing, foreign or at odds."""
    names = dict(names_of_weights(network))
    expected = {name for aliases in names.values() for name in aliases}
    if odd := sorted(set(theirs) ^ expected):
        raise OctkitError(f"{where}: {odd[0]!r} is {'foreign' if odd[0] in theirs else 'missing'}, expected the "
                          f"{len(expected)} tensors of a {'Residual' if network.blocks else 'PlainConv'}UNet of "
                          f"{len(network.features)} stages")
    for first, name in ((first, name) for first, *others in names.values() for name in others):
        if not torch.equal(theirs[first], theirs[name]):
            raise OctkitError(f"{where}: {first!r} and {name!r} differ, expected one tensor under two names")
    return {ours: theirs[aliases[0]] for ours, aliases in names.items()}


def weights_to(ours: Weights, network: Configuration) -> Weights:
    """The reverse of `weights_from`, with every name that nnU-Net asks for."""
    return {alias: ours[name].detach().cpu() for name, aliases in names_of_weights(network) for alias in aliases}


def read_checkpoint(path: Path) -> Checkpoint:
    """What nnU-Net has saved of a fold, on the CPU. Raises OctkitError where it is damaged or asks for code."""
    try:
        content = read_archive(files.only_file(path, "a checkpoint", 2).read_bytes())
    except OctkitError:
        raise
    except Exception as error:  # zip, pickle and torch raise a dozen kinds for a damaged file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise bad_file(path, f"cannot be read as a checkpoint ({reason})", "expected one of nnU-Net v2") from None
    try:
        return Checkpoint.model_validate(content)
    except ValidationError as error:  # its values stay unsaid: nested ones may be of any length
        problem = error.errors(include_input=False)[0]
        raise OctkitError(f"{path}: is no checkpoint of nnU-Net; {'.'.join(map(str, problem['loc']))}: "
                          f"{problem['msg']}") from None


def _checkpoint_name(folder: Path, kind: str | None) -> str:
    """Which checkpoint counts: the one asked for, a training's last one, or the best where no fold has that."""
    if kind:
        return f"checkpoint_{kind}.pth"
    last, best = (any(folder.glob(f"fold_*/{name}")) for name in (CHECKPOINT, BEST))
    return BEST if best and not last else CHECKPOINT


def _checkpoints(folder: Path, kind: str | None) -> dict[str, Checkpoint]:
    """The checkpoint of each fold that has it, by the fold's name."""
    if (name := _checkpoint_name(folder, kind)) == BEST and not kind:
        say(f"{folder}: has no {CHECKPOINT}; {BEST} is taken, of a training that may not have come to its end")
    found = {inside.name.removeprefix("fold_"): inside / name for inside in sorted(folder.glob("fold_*"))}
    if odd := [fold for fold in found if fold != "all" and not fold.isdecimal()]:
        raise OctkitError(f"{folder}/fold_{odd[0]}: found the fold {odd[0]!r}, expected a number or all")
    for fold in [fold for fold, path in found.items() if not path.exists()]:
        say(f"{found.pop(fold).parent}: has no {name} and is left out")
    if len(found) > 1 and "all" in found:
        del found["all"]
        say(f"{folder}: fold_all is left out, as there are others")
    if not found:
        there = [other for other in KINDS if any(folder.glob(f"fold_*/checkpoint_{other}.pth"))]
        raise OctkitError(f"{folder}: found no fold_*/{name}, expected the folder of a model that nnU-Net has "
                          "trained" + (f"; it holds others: --checkpoint {'|'.join(there)}" if there else ""))
    return {fold: read_checkpoint(path) for fold, path in found.items()}


def _trained(folder: Path, kind: str | None, top: Plan | None = None,
             asked: str = "") -> tuple[Member, Plan, Checkpoint]:
    """The configuration trained in a folder, its plan, and a checkpoint: all state the same but for their weights.

    A cascade's first step, `asked` for by the plan `top`, lies in a folder beside.
    """
    checkpoints = _checkpoints(folder, kind)
    prefix, separator, named = folder.resolve().name.rpartition("__")
    stated = {(checkpoint.init_args.configuration or named, checkpoint.inference_allowed_mirroring_axes)
              for checkpoint in checkpoints.values()}
    if len(stated) > 1:
        raise OctkitError(f"{folder}: its folds are of different trainings, found {sorted(stated)}, expected one "
                          "configuration and one choice of axes to mirror")
    [(config, _)] = stated
    plan = plan_from(files.read_json(folder / "plans.json"), files.read_json(folder / "dataset.json"), config, folder)
    configuration = plan.configurations[config]
    if top and (config != asked or configuration != top.configurations[asked] or _prepares(plan) != _prepares(top)):
        raise OctkitError(f"{folder}: is no {asked} of the same plan as the cascade's second step, expected its first")
    weights = {fold: weights_from(checkpoint.network_weights, configuration,
                                  folder / f"fold_{fold}") for fold, checkpoint in checkpoints.items()}
    previous = None
    if first := configuration.previous_stage:
        beside = folder.resolve().parent / f"{prefix}{separator}{first}"
        if not (beside / "plans.json").is_file():
            raise OctkitError(f"{folder}: is the second step of a cascade and cannot predict without its first, "
                              f"expected that one in {beside}")
        previous = _trained(beside, kind, top or plan, first)[0]
    return Member(config, weights, previous), plan, next(iter(checkpoints.values()))


def _prepares(plan: Plan) -> tuple:
    """What both steps of a cascade share: how scans are read and normalised, and what is found in them."""
    return plan.channels, plan.classes, plan.intensity, plan.units, plan.axis_order, plan.schemes


def _write_folder(model: Model, member: Member, target: Path, name: str) -> None:
    plan, configuration = model.plan, model.plan.configurations[member.config]
    axes = len(configuration.patch_size)
    mirrored = tuple(sorted(axis + axes for axis in model.mirror_axes if axis >= -axes))
    for fold, state in member.weights.items():
        with files.replacing(target / f"fold_{fold}" / CHECKPOINT) as temporary:
            torch.save({
                "network_weights": weights_to(state, configuration),
                "init_args": {"configuration": member.config, "fold": fold if fold == "all" else int(fold)},
                "trainer_name": TRAINER, "inference_allowed_mirroring_axes": mirrored or None,
            }, temporary)
    files.write_json(target / "plans.json", plans_to(plan, name))
    ending = ".png" if plan.units == "px" and not plan.axis_order else ".nii.gz"
    files.write_json(target / "dataset.json", dataset_to(plan.channels, plan.classes, ending))
    traits = Traits.model_validate({name: getattr(model, name) for name in Traits.model_fields})
    files.write_json(target / CARRIED, traits.model_dump(mode="json"))
    files.write_atomic(target / "README.txt", "\n".join([
        f"Written by octkit {__version__} for nnU-Net v2: nnUNetv2_predict_from_modelfolder -m THIS_FOLDER", "",
        *what_is_lost(model)]) + "\n")
