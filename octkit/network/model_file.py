"""A trained model as one file, to hand on: a zip whose parts anyone can read.

    model.json                          the plan, what is averaged, post-processing; a checksum for each file of weights
    weights/<member>/fold_<k>.safetensors   float32 tensors as trained, bit for bit
    card.json, README.md                the model's card: data, scores, seed, versions, licence

A cascade's member has the weights of its first step in weights/<member>.<first step>/. Parts are not compressed and
never unpacked to disk; safetensors hold numbers and no code. The same model makes the same bytes.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from octkit import __version__
from octkit.common import settings
from octkit.common.errors import OctkitError, bad_file, first_problem
from octkit.common.files import only_file, read_json_as, write_atomic
from octkit.common.settings import Name
from octkit.network.model import Member, Model, load_model
from octkit.network.model_check import Traits, check_model
from octkit.planning.plan import Plan
from octkit.planning.run import Run

VERSION = 1
DEFAULT = Path(__file__).with_name("default.zip")  # trained on phantoms alone, by benchmarks/default_model.py
MAX_DESCRIPTION = 10_000_000  # bytes of a JSON part; a plan of four configurations has some 10,000
MAX_WEIGHTS = 4 * 2**30  # bytes of a fold's; nnU-Net's largest networks have 0.4
KEPT = tuple(name for name in Model.__dataclass_fields__ if name != "members")  # in model.json, by their own names
LICENCE = ("not stated. octkit's code is under Apache-2.0; weights may be bound by the terms of the data they were "
           "trained on (GOALS may not be redistributed)")

Fold = Annotated[str, Field(pattern=r"^(all|[0-9]{1,3})$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Weights(_Part):
    file: str
    sha256: str


class _Step(_Part):
    config: Name
    weights: dict[Fold, _Weights]
    previous: "_Step | None" = None

    def files(self) -> list[str]:
        return [weights.file for weights in self.weights.values()] + (self.previous.files() if self.previous else [])


class _Scores(BaseModel):
    """What the card takes from scores.json: layer -> metric -> statistics over the cases, and the metrics' units."""

    summary: dict[str, dict[str, dict[str, Any]]] = {}
    units: dict[str, str] = {}


class _Description(Traits):
    """model.json."""

    format: Literal["octkit model"]
    version: int
    octkit: str
    plan: Plan
    labels: tuple[str, ...]
    members: tuple[_Step, ...]


def open_model(path: str | Path, configs: Sequence[str] | None = None,
               folds: Sequence[int | str] | None = None) -> Model:
    """Open a trained model: the folder of a run, a file of `save_model`, or "default", the one that comes with octkit.

    Args:
        configs: these configurations alone; None takes those that were chosen.
        folds: these folds alone; None takes all.

    Raises:
        OctkitError: where it is missing, damaged, no model of octkit, or lacks what is asked for.
    """
    path = DEFAULT if str(path) == "default" else Path(path)
    if path.is_dir():
        if not Run(path).exists:
            raise _no_model(path, [str(found) for level in ("*", "*/*", "*/*/*") for found in path.glob(level)])
        model = load_model(Run(path), configs, folds)
        check_model(model, path)
        return model
    model = _read_file(path)
    members = {member.config: member for member in model.members}
    wanted = members if configs is None else configs
    if absent := [config for config in wanted if config not in members]:
        raise OctkitError(f"{path}: has no configuration {absent[0]!r}, expected one of {', '.join(members)}")
    chosen = [members[config] for config in wanted]
    return replace(model, members=tuple(chosen if folds is None else [_with_folds(one, folds, path) for one in chosen]),
                   calibration=model.calibration if len(chosen) == len(members) else None)


def starting_weights(path: str, config: str, fold: int | str,
                     network: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights that a training of `config` begins with where it starts from another model.

    Args:
        path: the model, as `open_model` takes it; a path is absolute, or relative to the project's root.
        fold: its weights of this fold, or, where it has no such fold, those of its first.
        network: the state dict of the network to train, float32 tensors by name. Its layers of logits stay as they are
            where the number of classes differs; everything else comes from the model.

    Raises:
        OctkitError: where there is no such model, or its network has other stages, widths, kernels or channels.
    """
    model = open_model(path if path == "default" else settings.PROJECT / path)
    members = {member.config: member for member in model.members}
    if config not in members:
        raise OctkitError(f"train.start_from={path}: has no configuration {config!r}, found {', '.join(members)}")
    weights = members[config].weights
    start = dict(weights.get(str(fold), next(iter(weights.values()))))
    for name, tensor in network.items():
        if name.startswith("scores.") and name in start and start[name].shape != tensor.shape:
            start[name] = tensor
    ours, theirs = ({name: tuple(tensor.shape) for name, tensor in state.items()} for state in (network, start))
    if ours != theirs:
        odd = next(name for name in ours | theirs if ours.get(name) != theirs.get(name))
        raise OctkitError(f"train.start_from={path}: its network is another: {odd} is {theirs.get(odd, 'missing')}, "
                          f"expected {ours.get(odd, 'none')}; plan.architecture, plan.base_features, "
                          "plan.max_features and plan.memory_gb decide which network is planned")
    return start


def save_model(model: Model, path: str | Path, card: dict) -> None:
    """Write a model as one file, whole or not at all; weights stay as they are, bit for bit.

    Raises OctkitError where plan and weights do not fit together.
    """
    check_model(model, path)
    weights: dict[str, bytes] = {}
    members = tuple(_described(member, member.config, weights) for member in model.members)
    kept = {name: getattr(model, name) for name in KEPT}
    described = _Description(format="octkit model", version=VERSION, octkit=__version__, members=members,
                             **kept | {"plan": asdict(model.plan)})
    parts = {"model.json": _json(described.model_dump(mode="json")), "card.json": _json(card),
             "README.md": card_text(model, card).encode(), **weights}
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, data in parts.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))  # no dates: the same model makes the same bytes
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, data)
    write_atomic(Path(path), whole.getvalue())


def export_run(run: Run, path: str | Path) -> Model:
    """Write the model of a run, with its card, as one file; returns the model."""
    model = load_model(run)
    save_model(model, path, run_card(run))
    return model


def run_card(run: Run) -> dict:
    """What a run knows of its model: data, seed, scores, versions. No case is named: names may be patients'."""
    chosen = run.settings
    scores = read_json_as(run.scores_file, _Scores, "score the run again") if run.scores_file.exists() else _Scores()
    selection = run.selection if run.selection_file.exists() else None
    candidates = [candidate.model_dump(include={"name", "dice", "mean_dice"})
                  for candidate in (selection.candidates if selection else ())]
    return {
        "name": run.folder.resolve().name,
        "data": Path(chosen.data.dir).name + (" (synthetic phantoms)" if chosen.data.phantom else ""),
        "extra_data": [Path(folder).name for folder in chosen.train.extra_data],
        "start_from": chosen.train.start_from and Path(chosen.train.start_from).name,
        "profile": chosen.profile, "seed": chosen.seed, "epochs": chosen.train.epochs,
        "folds": list(chosen.train.final_folds), "scores": scores.summary, "units": scores.units,
        "cross_validation": candidates, "why": selection.why if selection else "",
        "versions": {"octkit": __version__, "torch": version("torch")}, "licence": LICENCE,
        "created_by": "octkit export"}


def card_text(model: Model, card: dict) -> str:
    """The card for people: README.md of the file."""
    lines = [f"# {card.get('name', 'A model')}", "",
             f"Segments {', '.join(model.labels)} in OCT scans. For teaching, research and competitions; it is not a "
             "medical device.", "", "    octkit predict THIS_FILE IMAGES -o OUT", "",
             f"Averages {' and '.join(member.config for member in model.members)}, folds "
             f"{', '.join(model.members[0].weights)}. Planned in {model.plan.units}: takes scans "
             + ("at their own grid, whatever their scale." if model.plan.units == "px" else
                "of a known scale on its own spacing, others at their own grid.") + " The boundaries' doubt is "
             + (f"calibrated on {model.calibration.scans} scans: {model.calibration.origin}." if model.calibration else
                "uncalibrated."), "", _scope_text(model), ""]
    lines += [f"- {key.replace('_', ' ')}: {value}" for key, value in card.items()
              if key not in ("name", "scores", "units") and value not in ("", [], {}, None)]
    for layer, metrics in card.get("scores", {}).items():
        for metric, over_cases in metrics.items():
            mean = over_cases.get("mean")
            shown = "undefined" if mean is None else f"{mean:.4f}"
            lines.append(f"- {layer} {metric}: {shown} {card.get('units', {}).get(metric, '')}".rstrip())
    return "\n".join(lines) + "\n"


def _scope_text(model: Model) -> str:
    if model.scope is None:
        return "In scope: scans like those of its training. It does not recognise others."
    counts = ", ".join(f"{flagged} of {of} {what}" for what, (flagged, of) in model.scope.flagged.items())
    return ("In scope: circle scans around the optic disc. Lines through the macula or the disc, and pictures that are "
            f"no OCT, are flagged in quality.csv. Flagged of phantoms that the limits were not fitted to: {counts}.")


def _described(member: Member, where: str, parts: dict[str, bytes]) -> _Step:
    """A member's entry in model.json; its weights are added to `parts`."""
    weights = {}
    for fold, state in member.weights.items():
        data = safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})
        weights[fold] = _Weights(file=f"weights/{where}/fold_{fold}.safetensors",
                                 sha256=hashlib.sha256(data).hexdigest())
        parts[weights[fold].file] = data
    first = member.previous
    previous = _described(first, f"{where}.{first.config}", parts) if first else None
    return _Step(config=member.config, weights=weights, previous=previous)


def _with_folds(member: Member, folds: Sequence[int | str], path: Path) -> Member:
    wanted = list(map(str, folds))
    if absent := [fold for fold in wanted if fold not in member.weights]:
        raise OctkitError(f"{path}: has no fold {absent[0]} of {member.config}, expected one of "
                          f"{', '.join(member.weights)}")
    previous = _with_folds(member.previous, folds, path) if member.previous else None
    return replace(member, weights={fold: member.weights[fold] for fold in wanted}, previous=previous)


def _read_file(path: Path) -> Model:
    try:
        with zipfile.ZipFile(only_file(path, "a model's file")) as archive:
            _check_parts(archive, path)
            return _read_parts(archive, path)
    except FileNotFoundError:
        raise OctkitError(f"{path}: not found, expected a run's folder, a model's file or default") from None
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise OctkitError(f"{path}: cannot be read as a model's file ({error}), expected one that `octkit export` "
                          "writes") from None


def _no_model(path: Path, names: Iterable[str]) -> OctkitError:
    """The error for a folder or a zip that holds `names` and is no model: what it is instead, and what to do."""
    inside, above = {PurePosixPath(name).name for name in names}, path.resolve().parents
    theirs = path if "plans.json" in inside else next((up for up in above if (up / "plans.json").is_file()), None)
    if theirs:
        return bad_file(path, "belongs to a model of nnU-Net's", "make a model's file of that first: octkit "
                        f"import-nnunet {theirs} -o MODEL.zip")
    if run := next((up for up in above if Run(up).exists), None):
        return bad_file(path, "is a part of a run", f"give the run's folder: {run}")
    if "data.pkl" in inside:
        return bad_file(path, "is a checkpoint, which does not tell the network that it belongs to",
                        "give the run's folder, or nnU-Net's folder with plans.json to octkit import-nnunet")
    return bad_file(path, "is no model (found neither settings.json nor model.json)",
                    "expected a run's folder, a file that `octkit export` writes, or default")


def _check_parts(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse what `save_model` never writes: compressed, doubled, overlapping or very large parts."""
    parts = {part.filename: part for part in archive.infolist()}
    if "model.json" not in parts:
        raise _no_model(path, parts)
    if len(parts) < len(archive.infolist()) or any(part.compress_type != zipfile.ZIP_STORED or part.flag_bits & 1
                                                   for part in parts.values()):
        raise OctkitError(f"{path}: found parts that are compressed, encrypted or there twice, expected each once and "
                          "stored as it is")
    if sum(part.file_size for part in parts.values()) > path.stat().st_size:
        raise OctkitError(f"{path}: its parts claim to be larger than the file, expected a whole model's file")
    for name, part in parts.items():
        if part.file_size > (most := MAX_WEIGHTS if name.endswith(".safetensors") else MAX_DESCRIPTION):
            raise OctkitError(f"{path}: its {name} is of {part.file_size} bytes, expected at most {most}")


def _read_parts(archive: zipfile.ZipFile, path: Path) -> Model:
    try:
        content = json.loads(archive.read("model.json"))
    except (ValueError, RecursionError) as error:
        raise OctkitError(f"{path}: its model.json is not valid JSON ({error})") from None
    version = content.get("version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > VERSION:
        raise OctkitError(f"{path}: was written in version {version} of the format, expected at most {VERSION}; "
                          "a newer octkit can read it")
    try:
        found = _Description.model_validate(content)
    except ValidationError as error:
        raise OctkitError(f"{path}: its model.json is not valid; {first_problem(error)}") from None
    named = [file for member in found.members for file in member.files()]
    expected = {"model.json", "card.json", "README.md", *named}
    if odd := sorted(set(archive.namelist()) ^ expected):
        raise OctkitError(f"{path}: {odd[0]!r} is missing or not named in model.json, expected {len(expected)} parts")
    if len(named) > (files := len(set(named))):
        raise OctkitError(f"{path}: names {len(named)} sets of weights for {files} files, expected a file each")
    members = tuple(_read_member(archive, member, path) for member in found.members)
    model = Model(members=members, **{name: getattr(found, name) for name in KEPT})
    check_model(model, path)
    return model


def _read_member(archive: zipfile.ZipFile, step: _Step, path: Path) -> Member:
    weights = {}
    for fold, entry in step.weights.items():
        data = archive.read(entry.file)
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise OctkitError(f"{path}: {entry.file} does not have the checksum that model.json states; fetch the file "
                              "again")
        if len(data) < 8 or int.from_bytes(data[:8], "little") > MAX_DESCRIPTION:
            raise OctkitError(f"{path}: {entry.file} cannot be read as weights (its header is too long)")
        try:
            weights[fold] = safetensors.torch.load(data)
        except Exception as error:  # safetensors' own error and those of odd headers
            raise OctkitError(f"{path}: {entry.file} cannot be read as weights ({error})") from None
    return Member(step.config, weights, _read_member(archive, step.previous, path) if step.previous else None)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()
