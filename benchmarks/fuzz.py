"""Damage files in many ways and load them through octkit: what comes out is a value or an OctkitError.

    python benchmarks/fuzz.py --runs 20000 --seed 1
    python benchmarks/fuzz.py --runs 20000 --seed 1 --models      models and run folders alone

Each file is a whole one (PNG, NIfTI, devices' files, tables, what lies beside a mask, a submission, settings.json,
plan.json, a model's file, its weights behind a checksum that fits, a run folder's files, nnU-Net's checkpoint and
plans, Paddle's weights) with bits flipped, bytes cut out, doubled, spliced from elsewhere or set to extreme numbers;
seven in ten are nearly valid: other values in JSON, and of zips and checkpoints the parts inside, so that their
checksums fit. Another exception than OctkitError, more than 10 s of the processor or 1 GB of memory for one file, or a
write outside of its folder, is a finding: it is printed, its file kept in --keep, and the exit code is 1. A crash ends
the run. The same seed makes the same files.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import pickle
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from octkit.classification.paddle_weights import read_weights
from octkit.common import settings
from octkit.common.errors import OctkitError
from octkit.common.files import read_json, write_json
from octkit.data.device_files import open_device
from octkit.data.groups import read_groups
from octkit.data.image_files import read_image, read_mask, write_png
from octkit.data.labels import GOALS_GREYS
from octkit.data.layouts.goals import read_labels
from octkit.data.measured import Calibration
from octkit.data.volume_files import read_volume, read_volume_mask, volume_spacing, write_nifti
from octkit.evaluation.evaluate import read_predictions
from octkit.evaluation.submission import check_submission, write_submission
from octkit.exchange.nnunet_models import export_model, open_folder
from octkit.layers.scan_files import ScanFacts, write_boundaries, write_facts
from octkit.layers.thickness import thickness_table
from octkit.lessons import ledger
from octkit.network.checkpoints import DIGEST_SIZE, save_checkpoint
from octkit.network.model import build_network
from octkit.network.model_file import open_model, run_card, save_model
from octkit.planning.plan import Plan
from octkit.planning.run import Run

SECONDS, GIGABYTES = 10, 1
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
WORDS = (b"null", b"-1", b"1e999", b"NaN", b"[]", b"{}", b'""', b"true", b"99999999999999999999", b"[[[[[[[[",
         b"\\u0000", b"0.5", b"1e-300", b'"2d"')


def damaged(data: bytes, random: np.random.Generator) -> bytes:
    """One to four changes at random places."""
    data = bytearray(data)
    for _ in range(random.integers(1, 5)):
        # Half of the changes fall into the first 400 bytes, where headers are.
        reach = len(data) if random.random() < 0.5 else min(len(data), 400)
        at, length = int(random.integers(max(reach, 1))), int(random.integers(1, 33))
        match random.integers(7):
            case 0:
                if data:
                    data[at] ^= 1 << int(random.integers(8))
            case 1:
                del data[at:]
            case 2:
                del data[at:at + length]
            case 3:
                data[at:at] = data[at:at + length]
            case 4:
                other = int(random.integers(max(len(data), 1)))
                data[at:at + length] = data[other:other + length]
            case 5:
                number = EXTREMES[random.integers(len(EXTREMES))]
                form = "<>"[random.integers(2)] + "BHIQ"[random.integers(4)]
                size = struct.calcsize(form)
                data[at:at + size] = struct.pack(form, number % 256**size)
            case 6:
                data[at:at + int(random.integers(0, 6))] = WORDS[random.integers(len(WORDS))]
    return bytes(data)


def damaged_json(data: bytes, random: np.random.Generator) -> bytes:
    """JSON in which one to three values, at any depth, are others: the damage that a parser does not see."""
    tree = json.loads(data)
    for _ in range(random.integers(1, 4)):
        node = tree
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = keys[random.integers(len(keys))]
            if isinstance(node[key], dict | list) and node[key] and random.random() < 0.85:
                node = node[key]
                continue
            values = [None, True, -1, 0, 1, 3, 10**9, 10**30, 1e308, 1e-300, float("nan"), float("inf"), "", [],
                      {}, "x", [[]], [1, 2], ["a"], {"a": 1}, "2d", "\0", "../x", node[key]]
            match random.integers(4):
                case 0 if isinstance(node, dict):
                    del node[key]
                case 1 if isinstance(node, list):
                    node.append(node[key])
                case 2 if isinstance(node, dict):
                    node[str(values[random.integers(len(values))])] = node[key]
                case _:
                    node[key] = values[random.integers(len(values))]
            break
    return json.dumps(tree).encode()


def damaged_parts(data: bytes, random: np.random.Generator) -> bytes:
    """A zip in which one part is damaged, and everything around it fits: checksums, sizes, names."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = [(entry, archive.read(entry)) for entry in archive.infolist()]
    # The small parts say what is in the large ones.
    weights = np.array([1 / (100 + len(content)) for _, content in parts])
    chosen = random.choice(len(parts), p=weights / weights.sum())
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, (entry, content) in enumerate(parts):
            if number == chosen:
                tree = entry.filename.endswith(".json") and random.random() < 0.8
                content = (damaged_json if tree else damaged)(content, random)
            archive.writestr(entry.filename, content, entry.compress_type)
            if number == chosen and random.random() < 0.05:
                archive.writestr(entry.filename, content, entry.compress_type)
    return made.getvalue()


def damaged_weights(data: bytes, random: np.random.Generator) -> bytes:
    """A model's file whose safetensors are damaged behind a checksum that fits."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in parts if name.endswith(".safetensors"))
    old = hashlib.sha256(parts[name]).hexdigest().encode()
    parts[name] = damaged(parts[name], random)
    parts["model.json"] = parts["model.json"].replace(old, hashlib.sha256(parts[name]).hexdigest().encode())
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for part, content in parts.items():
            archive.writestr(part, content)
    return made.getvalue()


def damaged_checkpoint(data: bytes, random: np.random.Generator) -> bytes:
    """A checkpoint of octkit's in which one part is damaged, sealed with a checksum that fits."""
    content = damaged_parts(data, random)[:-2] + DIGEST_SIZE.to_bytes(2, "little")
    return content + hashlib.sha256(content).hexdigest().encode()


def watch_writes(folder: Path) -> list[str]:
    """What this process writes, moves, makes or removes outside of `folder`, as it happens."""
    changing = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod", "os.truncate")
    found: list[str] = []

    def look(event: str, arguments: tuple) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in changing:
            paths = arguments[:2 if event in ("os.rename", "os.link") else 1]
            named = [path for path in paths if isinstance(path, str | os.PathLike)]
            found.extend(f"{event} {path}" for path in map(os.path.realpath, named)
                         if not path.startswith((f"{folder}/", "/dev/null")))

    sys.addaudithook(look)
    return found


def whole_files(folder: Path) -> dict[str, tuple[bytes, str, Callable[[Path], object], Callable]]:
    """Kind -> a whole file's bytes, its name, what loads it, and the damage that suits it beside `damaged`."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # what the tests make, is whole
    import device_makers
    from helpers import make_run, scope_of, striped_scan, striped_volume, tiny_model, write_goals
    from vol_files import BM, ILM, INTENSITY, RNFL, vol_bytes

    scan, label = striped_scan(1)
    volume, labels = striped_volume(1)
    greys = {value: value for value in range(256)}

    def made(name: str, write: Callable[[Path], object]) -> bytes:
        write(folder / name)
        return (folder / name).read_bytes()

    def nifti(path: Path) -> None:
        read_volume(path)
        volume_spacing(path)
        read_volume_mask(path, greys)

    def png(path: Path) -> None:
        read_image(path)
        read_mask(path, greys)

    coded = np.array(list(GOALS_GREYS), np.uint8)[label]
    goals = write_goals(folder / "goals", train=3, validation=1)
    plan = tiny_model("2d").plan
    export_model(tiny_model("2d", folds=("0",)), folder / "nnunet")
    [theirs] = (folder / "nnunet").iterdir()

    def checkpoint(path: Path) -> None:
        (theirs / "fold_0" / "checkpoint_final.pth").write_bytes(path.read_bytes())
        open_folder(theirs)

    weights = (theirs / "fold_0" / "checkpoint_final.pth").read_bytes()

    def described(name: str) -> Callable[[Path], None]:
        whole = (theirs / name).read_bytes()

        def load(path: Path) -> None:
            (theirs / "fold_0" / "checkpoint_final.pth").write_bytes(weights)
            (theirs / name).write_bytes(path.read_bytes())
            try:
                open_folder(theirs)
            finally:
                (theirs / name).write_bytes(whole)
        return load

    run = make_run(folder / "run", goals, "train.epochs=2")
    state = {name: tensor.detach() for name, tensor in build_network(Run(run).plan, "2d", False).state_dict().items()}
    save_checkpoint(Run(run).checkpoint("2d", 0), {
        "epoch": 2, "epochs": 2, "network": OrderedDict(state), "log": [{"epoch": 1, "loss": 0.5}]})
    write_json(run / "selection.json", {
        "configuration": "2d", "configurations": ["2d"], "why": "it is best", "steps": [[1]], "circle": True,
        "surfaces": False, "candidates": [{"name": "2d", "configurations": ["2d"], "mean_dice": 0.9,
                                           "dice": {"rnfl": 0.9}}]})
    ledger.append(Run(run), ledger.Line(step="01_data", status="done", inputs="a", shown="b", made="c",
                                        outputs={"figures/01.png": (1, 2, "c")}))

    def part(name: str) -> Callable[[Path], None]:
        whole = (run / name).read_bytes()

        def load(path: Path) -> None:
            (run / name).write_bytes(path.read_bytes())
            try:
                ledger.ends(Run(run))
                _ = Run(run).fingerprint, Run(run).splits
                run_card(Run(run))
                open_model(run)
            finally:
                (run / name).write_bytes(whole)
        return load

    parts = {f"run: {Path(name).name}": ((run / name).read_bytes(), Path(name).name, part(name), damage)
             for name, damage in [
                 *((f"{name}.json", damaged_json)
                   for name in ("settings", "plan", "splits", "fingerprint", "selection")),
                 ("ledger.jsonl", damaged_json), ("models/2d/fold_0/checkpoint.pt", damaged_checkpoint)]}
    paddles = pickle.dumps({"w": np.ones((2, 3), np.float32), "b": np.arange(3)}, protocol=2)
    measured = open_model("default").calibration
    assert measured is not None  # the model in the box is calibrated
    model = made("model.zip", lambda path: save_model(tiny_model("2d", scope=scope_of(0.5), calibration=measured), path,
                                                      {"name": "fuzz"}))
    beside = folder / "beside"
    write_png(beside / "a.png", coded)
    lines = np.repeat([[8.0], [14.0], [20.0], [28.0], [36.0]], coded.shape[1], axis=1)
    write_boundaries(beside / "a.boundaries.csv", lines, lines / 40, np.stack([lines, lines]) / 20)
    write_facts(beside / "a.scale.json", ScanFacts((3.9, 15.0), "R", True, measured.means))

    def next_to(name: str, damage: Callable) -> tuple[bytes, str, Callable[[Path], None], Callable]:
        whole = (beside / name).read_bytes()

        def load(path: Path) -> None:
            (beside / name).write_bytes(path.read_bytes())
            try:
                thickness_table(beside)
            finally:
                (beside / name).write_bytes(whole)
        return whole, name, load, damage

    scans = goals / "Validation" / "Image"
    answers = {path.name: 0.5 for path in scans.iterdir()}
    write_submission(goals / "Truth" / "Layer_Masks", answers, scans, folder / "sent.zip")
    sent, listed = (folder / "sent.zip").read_bytes(), (folder / "sent" / "Classification_Results.csv").read_bytes()
    return {
        "PNG": (made("a.png", Image.fromarray(scan).save), "a.png", png, damaged),
        "PNG of RGB": (made("b.png", Image.fromarray(np.dstack([coded] * 3)).save), "b.png", png, damaged),
        "NIfTI": (made("a.nii", lambda path: write_nifti(path, labels)), "a.nii", nifti, damaged),
        "NIfTI, packed": (made("a.nii.gz", lambda path: write_nifti(path, volume)), "a.nii.gz", nifti, damaged),
        ".vol": (vol_bytes(INTENSITY, [ILM, BM, RNFL]), "a.vol", open_device, damaged),
        ".E2E": (device_makers.e2e_bytes(device_makers.e2e_b_scan(1, 2, INTENSITY[0] / 2, {0: ILM[0], 2: RNFL[0]})),
                 "a.e2e", open_device, damaged),
        ".fda": (device_makers.topcon_bytes({
            "@IMG_JPEG": device_makers.topcon_jpeg(scan[None], 0), "@PARAM_SCAN_04": device_makers.topcon_scale(),
            "@CONTOUR_INFO": device_makers.topcon_line("RETINA_1", np.full((1, scan.shape[1]), 9))}), "a.fda",
            open_device, damaged),
        ".fds": (device_makers.topcon_bytes({"@IMG_SCAN_03": device_makers.topcon_raw(volume.astype(int)),
                                             "@PARAM_SCAN_04": device_makers.topcon_scale()}), "a.fds", open_device,
                 damaged),
        "HEYEX's XML": (device_makers.write_xml(folder, volume[:1], [(0, 0, 1, 0)], {}).read_bytes(), "export.xml",
                        open_device, damaged),
        "DICOM": (device_makers.write_dicom(folder / "a.dcm", volume, points=(1, 2, 3, 4)).read_bytes(), "a.dcm",
                  open_device, damaged),
        "XLSX": ((goals / "Train" / "Train_GC_GT.xlsx").read_bytes(), "a.xlsx", read_labels, damaged_parts),
        "CSV table": (b"ImgName,GC_Label\n0001.png,1\n2,0\n3,\"0\"\n", "a.csv", read_labels, damaged),
        "groups.csv": (b"ImgName,person,eye\n0001.png,p1,R\n2,\"p,2\",\n", "groups.csv", read_groups, damaged),
        "predictions.csv": (listed, "predictions.csv", read_predictions, damaged),
        "submission": (sent, "sub.zip", lambda path: check_submission(path, scans), damaged_parts),
        "boundaries.csv": next_to("a.boundaries.csv", damaged),
        "scale.json": next_to("a.scale.json", damaged_json),
        "calibration.json": (made("calibration.json", lambda path: write_json(path, measured.model_dump(mode="json"))),
                             "calibration.json", Calibration.load, damaged_json),
        "settings.json": (made("settings.json", settings.from_profile("demo").save), "settings.json", settings.load,
                          damaged_json),
        "plan.json": (made("plan.json", plan.save), "plan.json", Plan.load, damaged_json),
        "model": (model, "model.zip", open_model, damaged_parts),
        "safetensors": (model, "weights.zip", open_model, damaged_weights),
        "nnU-Net's checkpoint": (weights, "checkpoint.pth", checkpoint, damaged_parts),
        "nnU-Net's plans.json": ((theirs / "plans.json").read_bytes(), "plans.json", described("plans.json"),
                                 damaged_json),
        "nnU-Net's dataset.json": ((theirs / "dataset.json").read_bytes(), "dataset.json", described("dataset.json"),
                                   damaged_json),
        **parts,
        "Paddle's weights": (paddles, "w.pdparams", read_weights, damaged),
        "any JSON": (b'{"a": [1, 2.5, "x", null]}', "any.json", read_json, damaged),
    }


class TooSlow(BaseException):
    """No Exception: readers turn these into sentences."""


def stop(*_) -> None:
    raise TooSlow(f"more than {SECONDS} s of processor time")


def tried(load: Callable[[Path], object], path: Path) -> tuple[str, str]:
    """How loading a file ended: "loaded", "refused" or "finding", and for a finding what it was."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            load(path)
        end, what = "loaded", ""
    except OctkitError as error:
        end, what = ("refused", "") if str(error) else ("finding", "an OctkitError without words")
    except (Exception, TooSlow) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        end, what = "finding", f"{type(error).__name__}: {str(error)[:100]} ({where})"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if (grown := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) > GIGABYTES * 2**20:
        end, what = "finding", f"{grown / 2**20:.1f} GB of memory"
    return end, what


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000, help="files in all, dealt evenly over the kinds")
    parser.add_argument("--models", action="store_true", help="models and run folders alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=None, help="a folder for the files of findings")
    arguments = parser.parse_args(words)
    signal.signal(signal.SIGPROF, stop)
    # Far above what any of these files needs: an absurd demand ends in a MemoryError instead of in a dead machine.
    resource.setrlimit(resource.RLIMIT_AS, (16 * 2**30, 16 * 2**30))
    warnings.simplefilter("ignore")
    ends, findings, began = {}, Counter(), time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        kinds = whole_files(Path(scratch))
        if arguments.models:
            kinds = {kind: made for kind, made in kinds.items()
                     if kind.startswith(("run: ", "nnU-Net", "Paddle", "model", "safetensors", "plan.json"))}
        for data, name, load, _ in kinds.values():  # what is whole must load, or nothing is tested
            (Path(scratch) / name).write_bytes(data)
            with contextlib.redirect_stdout(io.StringIO()):
                load(Path(scratch) / name)
        outside = watch_writes(Path(scratch).resolve())
        for number in range(arguments.runs):
            kind = list(kinds)[number % len(kinds)]
            data, name, load, suited = kinds[kind]
            random = np.random.default_rng((arguments.seed, number))
            damage = suited if random.random() < 0.7 else damaged
            path = Path(scratch) / name
            path.write_bytes(changed := damage(data, random))
            end, what = tried(load, path)
            if outside:
                end, what = "finding", f"written outside of its folder: {outside[0]}"
                outside.clear()
            ends.setdefault(kind, Counter())[end] += 1
            if end == "finding":
                findings[f"{kind}: {what}"] += 1
                if arguments.keep and findings[f"{kind}: {what}"] == 1:
                    arguments.keep.mkdir(parents=True, exist_ok=True)
                    (arguments.keep / f"{arguments.seed}_{number}_{name}").write_bytes(changed)
                    outside.clear()
    print("| kind | files | loaded | refused | findings |\n|---|---|---|---|---|")
    for kind, counted in ends.items():
        print(f"| {kind} | {counted.total()} | {counted['loaded']} | {counted['refused']} | {counted['finding']} |")
    total = sum(ends.values(), Counter())
    print(f"| all | {total.total()} | {total['loaded']} | {total['refused']} | {total['finding']} |")
    print(f"seed {arguments.seed}, {time.monotonic() - began:.0f} s, at most "
          f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")
    for what, times in findings.most_common():
        print(f"{times:5d} x {what}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
