"""Every command with every kind of bad argument: exit code 2, one line that says what and where, nothing half-written.

Each case names the command line, what lies in the folder where it runs, and words that the one line must hold. `{w}`
is a folder of things that are as they should be; what a case damages is its own copy of them.
"""

import json
import shlex
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import make_run, tiny_model, write_goals, write_nnunet_raw, write_volumes
from PIL import Image, PngImagePlugin
from vol_files import BM, ILM, INTENSITY, RNFL, write_vol

from octkit import cli
from octkit.common.files import read_json, write_json
from octkit.data.volume_files import write_nifti
from octkit.evaluation.submission import write_submission
from octkit.exchange.nnunet_models import export_model
from octkit.inference import predict, select
from octkit.lessons import notebook
from octkit.network.checkpoints import load_checkpoint, save_checkpoint
from octkit.network.model_file import export_run, save_model
from octkit.planning.run import Run
from octkit.training import train

RUN_COMMANDS = ("fingerprint", "plan", "preprocess", "train", "select", "classify")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """What is as it should be: data sets, a run with all its steps, its model in every form, masks, a device's file."""
    w = tmp_path_factory.mktemp("world")
    write_goals(w / "goals")
    write_volumes(w / "volumes", train=2)
    write_nnunet_raw(w / "raw", train=2)
    run = make_run(w / "run", w / "goals", "train.epochs=1")
    shutil.copytree(run, w / "untrained")
    train.train_fold(Run(run), progress=False)
    predict.predict_held_out(Run(run), "2d", 0, progress=False)
    select.select(Run(run))
    predict.predict_split(Run(run), progress=False)
    table = "ImgName,GC_Pred\n0007.png,0.25\n0008.png,0.75\n"
    (run / "classifier").mkdir()
    (run / "classifier" / "predictions.csv").write_text(table)
    (w / "new").mkdir()
    shutil.copyfile(run / "settings.json", w / "new" / "settings.json")
    export_run(Run(run), w / "model.zip")
    save_model(tiny_model("3d_fullres"), w / "volumes.zip", {})
    export_model(tiny_model("2d"), w / "nnunet")
    write_submission(run / "predictions" / "validation", {"0007.png": 0.25, "0008.png": 0.75},
                     w / "goals" / "Validation" / "Image", w / "submission.zip")
    write_vol(w / "scan.vol", INTENSITY, [ILM, BM, RNFL])
    (w / "empty").mkdir()
    (w / "words.txt").write_text("words")
    return w


def tree(*folders: Path) -> dict[str, tuple]:
    """Everything below the folders, by name: kind, size, time of change; but for the locks of who is at work there."""
    found = {}
    for path in (path for folder in folders for path in folder.rglob("*") if not path.name.startswith(".lock")):
        facts = path.lstat()
        found[str(path)] = (facts.st_mode, path.is_dir() or (facts.st_size, facts.st_mtime_ns))
    return found


def call(capsys, command: str, w: Path) -> tuple[int, str, str]:
    names = {"w": w, "scans": w / "goals/Validation/Image", "truth": w / "goals/Truth/Layer_Masks"}
    with pytest.raises(SystemExit) as end:
        cli.main([word.format(**names) for word in shlex.split(command)])
    return end.value.code or 0, *capsys.readouterr()


def started(*_):
    raise AssertionError("a lesson was started")


# What lies in the folder where a command runs.

def copy(source: str, name: str, **changes):
    """A copy of something in the world; each change is a file in it ("_" for "." and "__" for "/") and its text."""
    def prepare(here, world):
        (shutil.copytree if (world / source).is_dir() else shutil.copyfile)(world / source, here / name)
        for file, text in changes.items():
            path = here / name / file.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return prepare


def edited(source: str, file: str, change):
    """A copy of a folder of the world, `x`, in which a JSON file is changed by `change(content)`, in place."""
    def prepare(here, world):
        shutil.copytree(world / source, here / "x")
        content = read_json(here / "x" / file)
        change(content)
        (here / "x" / file).write_text(json.dumps(content))
    return prepare


def files(**contents):
    """Files by name ("_" for ".", "__" for "/")."""
    def prepare(here, _):
        for name, content in contents.items():
            path = here / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return prepare


def cut(source: str, name: str, keep: float):
    """The first part of a file of the world."""
    def prepare(here, world):
        data = (world / source).read_bytes()
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(data[:int(keep * len(data))])
    return prepare


def images(folder: str, **scans):
    """PNGs in a folder, name -> array or (mode, size)."""
    def prepare(here, _):
        (here / folder).mkdir(parents=True)
        for name, pixels in scans.items():
            image = Image.new(*pixels) if isinstance(pixels, tuple) else Image.fromarray(pixels)
            image.save(here / folder / f"{name}.png")
    return prepare


def rewritten(change, source: str = "model.zip", **how):
    """A model's file, m.zip, whose parts are changed: `change(parts)` of a dict of name -> bytes."""
    def prepare(here, world):
        with zipfile.ZipFile(world / source) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        change(parts)
        with zipfile.ZipFile(here / "m.zip", "w", **how) as archive:
            for name, data in parts.items():
                archive.writestr(name, data)
    return prepare


def described(change):
    """A model's file whose model.json is changed in place."""
    def edit(parts):
        content = json.loads(parts["model.json"])
        change(content)
        parts["model.json"] = json.dumps(content).encode()
    return rewritten(edit)


def checkpoint(change):
    """A copy of the run, `x`, whose checkpoint is changed in place."""
    def prepare(here, world):
        shutil.copytree(world / "run", here / "x")
        path = here / "x/models/2d/fold_0/checkpoint.pt"
        content = load_checkpoint(path)
        change(content)
        save_checkpoint(path, content)
    return prepare


def link(name: str, target: str):
    def prepare(here, _):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).symlink_to(target)
    return prepare


def nifti(name: str, array, **fields):
    """A NIfTI file; `fields` are offsets in its header ("at70") and (struct format, values)."""
    def prepare(here, _):
        write_nifti(here / name, array)
        data = bytearray((here / name).read_bytes())
        for place, (form, *values) in fields.items():
            struct.pack_into(form, data, int(place[2:]), *values)
        (here / name).write_bytes(data)
    return prepare


def vol_header(place: int, form: str, *values):
    def prepare(here, world):
        data = bytearray((world / "scan.vol").read_bytes())
        struct.pack_into(form, data, place, *values)
        (here / "s.vol").write_bytes(data)
    return prepare


def text_png(here, _):
    words = PngImagePlugin.PngInfo()
    words.add_text("Comment", "x" * 70_000_000, zip=True)  # 70 kB that unpack to 70 MB
    Image.new("L", (40, 40)).save(here / "a.png", pnginfo=words)


def huge_png(here, _):
    data = bytearray(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">IIBBBBB", 10**6, 10**6, 8, 0, 0, 0, 0))
    data += struct.pack(">I", __import__("zlib").crc32(data[12:]))
    (here / "a.png").write_bytes(data + b"\x00\x00\x00\x00IDAT\x35\xaf\x06\x1e")


SCAN = np.full((40, 48), 100, np.uint8)
VOLUME = np.full((3, 40, 48), 100, np.uint8)

CASES = [
    # --- which command, which option ---
    ("no such command", None, "segment x", "No such command 'segment'"),
    ("argument missing", None, "predict", "Missing argument"),
    ("option missing", None, "predict default x", "Missing option '-o' / '--out'"),
    ("option unknown", None, "export {w}/run --zip x", "No such option: --zip"),
    ("number is none", None, "phantom out --train many", "--train"),
    ("scale is none", None, "thickness {truth} -o t.csv --um-per-px wide", "--um-per-px"),
    ("one scale of two", None, "predict default {scans} -o out --um-per-px 3", "--um-per-px"),

    # --- run ---
    ("run: profile", None, "run --profile best --run-dir r", "--profile: found 'best', expected one of"),
    ("run: data without a run", None, "run --data {w}/goals", "--data: expected --profile or --run-dir"),
    ("run: data missing", None, "run --data nowhere --run-dir r", "nowhere: not found, expected the data set"),
    ("run: data a file", None, "run --data {w}/words.txt --run-dir r", "words.txt: not found, expected the data set"),
    ("run: data empty", None, "run --data {w}/empty --run-dir r", "empty: found no data set, expected one of"),
    ("run: set unknown", None, "run --run-dir r --set train.epoch=3", "train.epoch:"),
    ("run: set without value", None, "run --run-dir r --set train.epochs", "expected key=value"),
    ("run: set wrong type", None, "run --run-dir r --set train.epochs=many", "train.epochs: Input should be"),
    ("run: set out of range", None, "run --run-dir r --set splits.folds=1", "splits.folds: Input should be greater"),
    ("run: set not a number", None, "run --run-dir r --set plan.memory_gb=NaN", "plan.memory_gb: Input should be"),
    ("run: set infinite", None, "run --run-dir r --set train.weight_decay=Infinity", "train.weight_decay"),
    ("run: set negative", None, "run --run-dir r --set seed=-1", "seed: Input should be greater"),
    ("run: set below a value", None, "run --run-dir r --set seed.x=1", "seed"),
    ("run: set nothing", None, "run --run-dir r --set =1", "--set =1"),
    ("run: set too large", None, "run --run-dir r --set plan.base_features=10000000000", "plan.base_features"),
    ("run: set too deep", None, "run --run-dir r --set seed=" + "[" * 100_000, "seed"),
    ("run: folder is a file", None, "run --run-dir {w}/words.txt", "words.txt: "),
    ("run: folder below a file", None, "run --run-dir {w}/words.txt/r", "words.txt"),
    ("run: settings damaged", files(r__settings_json="{"), "run --run-dir r", "settings.json: is not valid JSON"),
    ("run: classifier's weights missing", None,
     "run --run-dir r --profile smoke --set classify.weights=no.pdparams --set classify.weights_sha256=x",
     "no.pdparams: not found, expected the file named by classify.weights"),

    # --- phantom ---
    ("phantom: kind", None, "phantom out --kind corneal", "kind: found 'corneal'"),
    ("phantom: looks", None, "phantom out --looks plain", "phantom looks: found 'plain'"),
    ("phantom: size", None, "phantom out --size 256", "--size: found '256'"),
    ("phantom: size of words", None, "phantom out --size axb", "--size: found 'axb'"),
    ("phantom: size in foreign digits", None, "phantom out --size ²x³", "--size: found '²x³'"),
    ("phantom: size 0", None, "phantom out --size 0x0", "phantom size"),
    ("phantom: size absurd", None, "phantom out --size 1000000x1000000", "phantom size"),
    ("phantom: volume absurd", None, "phantom out --kind macular --size 100000x10000x10000", "phantom size"),
    ("phantom: no scans", None, "phantom out --train 0", "expected at least 1 training scan"),
    ("phantom: negative scans", None, "phantom out --val -1", "none below 0"),
    ("phantom: too many scans", None, "phantom out --train 1000000", "at most 9999"),
    ("phantom: seed", None, "phantom out --seed -1", "phantom seed: found -1"),
    ("phantom: output not empty", files(out__x_txt="x"), "phantom out", "out: "),
    ("phantom: output is a file", files(out="x"), "phantom out", "out: "),
    ("phantom: output below a file", None, "phantom {w}/words.txt/out --size 64x64 --train 1 --val 0", "words.txt"),

    # --- commands that take a run ---
    *((f"{name}: run missing", None, f"{name} nowhere", "nowhere") for name in RUN_COMMANDS),
    *((f"{name}: run is a file", None, f"{name} {{w}}/words.txt", "words.txt") for name in RUN_COMMANDS),
    *((f"{name}: run is empty", None, f"{name} {{w}}/empty", "settings.json: not found") for name in RUN_COMMANDS),
    *((f"{name}: settings damaged", copy("run", "x", settings_json='{"seed": '), f"{name} x",
       "x/settings.json: is not valid JSON") for name in RUN_COMMANDS),
    *((f"{name}: settings from a newer version", edited("run", "settings.json", lambda s: s.update(colour=1)),
       f"{name} x", "x/settings.json: colour: Extra inputs") for name in RUN_COMMANDS),
    *((f"{name}: data set gone", edited("run", "settings.json", lambda s: s["data"].update(dir="/nowhere")),
       f"{name} x", "/nowhere: no such folder") for name in ("fingerprint", "preprocess", "train", "select",
                                                              "classify")),
    ("settings: no object", copy("run", "x", settings_json="[]"), "fingerprint x", "settings.json: settings: Input"),
    ("settings: wrong type", edited("run", "settings.json", lambda s: s["train"].update(epochs="ten")), "train x",
     "settings.json: train.epochs: Input should be a valid integer"),
    ("settings: not text", copy("run", "x", settings_json=b"\xff\xfe{}"), "plan x", "settings.json: is not valid JSON"),
    ("settings: too deep", copy("run", "x", settings_json="[" * 200_000), "plan x", "settings.json: is not valid JSON"),
    ("settings: a folder", lambda here, _: (here / "x/settings.json").mkdir(parents=True), "plan x",
     "settings.json: "),
    ("settings: huge number", copy("run", "x", settings_json='{"seed": ' + "9" * 5000 + "}"), "plan x",
     "settings.json: "),
    ("settings: a name with NUL", edited("run", "settings.json", lambda s: s["data"].update(dir="a\0b")),
     "fingerprint x", "no such folder"),
    ("plan: before fingerprint", copy("new", "x"), "plan x", "fingerprint.json: not found"),
    ("preprocess: before plan", copy("new", "x"), "preprocess x", "plan.json: not found"),
    ("train: before plan", copy("new", "x"), "train x", "plan.json: not found"),
    ("select: before plan", copy("new", "x"), "select x", "json: not found"),
    ("select: before training", copy("untrained", "x"), "select x", "has no prediction for"),
    ("predict: before training", copy("untrained", "x"), "predict x {scans} -o out", "train this fold first"),
    ("export: before training", copy("untrained", "x"), "export x -o m.zip", "train this fold first"),
    ("export-nnunet: before training", copy("untrained", "x"), "export-nnunet x -o out", "train this fold first"),
    ("submit: before prediction", copy("untrained", "x"), "submit x -o s.zip", "x/"),
    ("train: before preprocessing", edited("untrained", "plan.json", lambda _: None), "train x --fold 7",
     "fold: found 7, expected 0 to 1"),
    ("train: configuration", None, "train {w}/run --config 4d", "has no configuration '4d', expected one of 2d"),
    ("train: fold is a word", None, "train {w}/run --fold first", "--fold: found 'first', expected"),
    ("train: fold in foreign digits", None, "train {w}/run --fold ²", "--fold: found '²', expected"),
    ("train: fold beyond the last", None, "train {w}/run --fold 9", "fold: found 9, expected 0 to 1"),
    ("train: fold too long", None, "train {w}/run --fold " + "9" * 5000, "--fold"),
    ("fingerprint: damaged", copy("run", "x", fingerprint_json="{}"), "plan x", "fingerprint.json: is no fingerprint"),
    ("fingerprint: no object", copy("run", "x", fingerprint_json="3"), "plan x", "fingerprint.json: is no fingerprint"),
    ("fingerprint: numbers that are none", edited("run", "fingerprint.json", lambda f: f.update(shapes=[["a"]])),
     "plan x", "fingerprint: found shapes"),
    ("fingerprint: absurd size", edited("run", "fingerprint.json", lambda f: f.update(
        shapes=[[10**9, 10**9]] * len(f["shapes"]))), "plan x", "fingerprint"),
    ("fingerprint: intensity without numbers", edited("run", "fingerprint.json", lambda f: f.update(intensity=[{}])),
     "plan x", "fingerprint"),
    *((f"{command.split()[0]}: plan damaged", copy("run", "x", plan_json='{"configurations": {}'),
       command, "plan.json: is not valid JSON")
      for command in ("preprocess x", "train x", "select x", "predict x {scans} -o out", "export x -o m.zip",
                      "export-nnunet x -o out")),
    *((f"{command.split()[0]}: plan is none", copy("run", "x", plan_json="{}"), command, "plan.json: is no plan")
      for command in ("preprocess x", "train x", "select x", "predict x {scans} -o out", "export x -o m.zip")),
    *((f"{command.split()[0]}: plan with absurd features", edited("run", "plan.json", lambda plan: plan[
        "configurations"]["2d"]["features"].update(value=[10**9, 10**9, 10**9])), command, "plan.json: ")
      for command in ("train x", "predict x {scans} -o out", "export x -o m.zip")),
    ("train: plan with absurd patch", edited("run", "plan.json", lambda plan: plan[
        "configurations"]["2d"]["patch_size"].update(value=[10**6 * 16, 10**6 * 16])), "train x", "plan.json: "),
    ("train: plan with absurd batch", edited("run", "plan.json", lambda plan: plan[
        "configurations"]["2d"]["batch_size"].update(value=10**9)), "train x", "plan.json: "),
    ("train: plan with words", edited("run", "plan.json", lambda plan: plan[
        "configurations"]["2d"]["patch_size"].update(value="large")), "train x", "plan.json: "),
    ("preprocess: plan with absurd spacing", edited("run", "plan.json", lambda plan: plan[
        "configurations"]["2d"]["spacing"].update(value=[1e-9, 1e-9])), "preprocess x", "plan.json"),
    ("preprocess: plan without statistics", edited("run", "plan.json", lambda plan: plan["intensity"].update(
        value=[{}])), "preprocess x", "plan.json: "),
    ("train: splits damaged", copy("run", "x", splits_json="[{}]"), "train x", "splits.json"),
    ("train: splits no list", copy("run", "x", splits_json="3"), "train x", "splits.json"),
    ("train: splits of other cases", edited("run", "splits.json", lambda s: s[0]["train"].append("9999")), "train x",
     "splits.json: was made for other cases (9999"),
    ("select: splits of other cases", edited("run", "splits.json", lambda s: s[0]["validation"].append("9999")),
     "select x", "9999"),
    ("select: splits damaged", copy("run", "x", splits_json="{}"), "select x", "splits.json"),
    ("train: preprocessed case missing", lambda here, world: (
        copy("untrained", "x")(here, world), (here / "x/preprocessed/2d/0001.image.npy").unlink()), "train x", "0001"),
    ("train: preprocessed case damaged", copy("untrained", "x", preprocessed__2d__0001_image_npy=b"words"), "train x",
     "0001.image.npy"),
    ("train: preprocessed facts damaged", lambda here, world: (
        copy("untrained", "x")(here, world), [file.write_text("{}") for file in here.glob("x/preprocessed/2d/*.json")]),
     "train x", "json: found {}"),
    *((f"{command.split()[0]}: selection damaged", copy("run", "x", selection_json="{"), command,
       "selection.json: is not valid JSON")
      for command in ("predict x {scans} -o out", "export x -o m.zip", "export-nnunet x -o out")),
    *((f"{command.split()[0]}: selection is none", copy("run", "x", selection_json="[]"), command, "selection.json: ")
      for command in ("predict x {scans} -o out", "export x -o m.zip", "export-nnunet x -o out")),
    ("predict: selection of no configuration", edited("run", "selection.json", lambda s: s.update(
        configurations=["5d"])), "predict x {scans} -o out", "5d"),
    ("predict: selection with foreign steps", edited("run", "selection.json", lambda s: s.update(steps=[[9]])),
     "predict x {scans} -o out", "x"),
    ("export: scores damaged", copy("run", "x", scores_json="[1]"), "export x -o m.zip", "scores.json"),
    ("predict: checkpoint of no bytes", lambda here, world: (copy("run", "x")(here, world), (
        here / "x/models/2d/fold_0/checkpoint.pt").write_bytes(b"")), "predict x {scans} -o out", "checkpoint.pt: "),
    ("predict: checkpoint is words", lambda here, world: (copy("run", "x")(here, world), (
        here / "x/models/2d/fold_0/checkpoint.pt").write_text("words")), "predict x {scans} -o out",
     "checkpoint.pt: cannot be read as a checkpoint"),
    ("predict: checkpoint of another plan", edited("run", "plan.json", lambda plan: plan["configurations"]["2d"][
        "features"].update(value=[f + 4 for f in plan["configurations"]["2d"]["features"]["value"]])),
     "predict x {scans} -o out", "x, 2d fold 0: found encoder.0.layers.0.weight of"),
    ("predict: checkpoint of an unfinished training", checkpoint(lambda found: found.update(epochs=5)),
     "predict x {scans} -o out", "training stopped after epoch 1 of 5"),
    ("predict: checkpoint of nothing", checkpoint(lambda found: found.clear()), "predict x {scans} -o out",
     "checkpoint.pt: is no checkpoint of a training"),
    ("predict: checkpoint without weights", checkpoint(lambda found: found.update(network=3)),
     "predict x {scans} -o out", "checkpoint.pt"),
    ("predict: checkpoint with epochs of words", checkpoint(lambda found: found.update(epochs="x")),
     "predict x {scans} -o out", "checkpoint.pt"),

    # --- predict ---
    ("predict: model missing", None, "predict nowhere.zip {scans} -o out", "nowhere.zip: not found, expected"),
    ("predict: model is no run", None, "predict {w}/empty {scans} -o out", "empty: found no settings.json"),
    ("predict: model is words", None, "predict {w}/words.txt {scans} -o out", "words.txt: cannot be read as a model"),
    ("predict: model is another zip", None, "predict {w}/submission.zip {scans} -o out", "holds no model.json"),
    ("predict: model is nnU-Net's folder", None, "predict {w}/nnunet {scans} -o out", "nnunet: found no settings"),
    ("predict: model cut", cut("model.zip", "m.zip", 0.6), "predict m.zip {scans} -o out", "m.zip: cannot be read"),
    ("predict: model's parts packed", rewritten(lambda _: None, compression=zipfile.ZIP_DEFLATED),
     "predict m.zip {scans} -o out", "m.zip: found parts that are compressed"),
    ("predict: model's part outside", rewritten(lambda parts: parts.update({"../../evil": b""})),
     "predict m.zip {scans} -o out", "m.zip: '../../evil' is missing or not named"),
    ("predict: model's part absolute", rewritten(lambda parts: parts.update({"/etc/evil": b""})),
     "predict m.zip {scans} -o out", "m.zip: '/etc/evil' is missing or not named"),
    ("predict: model's description damaged", rewritten(lambda parts: parts.update({"model.json": b"{"})),
     "predict m.zip {scans} -o out", "m.zip: its model.json is not valid JSON"),
    ("predict: model's description too deep", rewritten(lambda parts: parts.update({"model.json": b"[" * 10**6})),
     "predict m.zip {scans} -o out", "m.zip: its model.json is not valid JSON"),
    ("predict: model's description too large", rewritten(lambda parts: parts.update({"model.json": b" " * 11 * 10**6})),
     "predict m.zip {scans} -o out", "model.json is of 11000000 bytes, expected at most"),
    ("predict: model of the future", described(lambda m: m.update(version=9)), "predict m.zip {scans} -o out",
     "version 9 of the format"),
    ("predict: model with a foreign key", described(lambda m: m.update(colour=9)), "predict m.zip {scans} -o out",
     "m.zip: its model.json is not valid; colour"),
    ("predict: model with NaN", described(lambda m: m.update(step=float("nan"))), "predict m.zip {scans} -o out",
     "m.zip: its model.json is not valid; step"),
    ("predict: model with absurd features", described(lambda m: m["plan"]["configurations"]["2d"].update(
        features=[10**9] * 3)), "predict m.zip {scans} -o out", "m.zip: its plan is not valid"),
    ("predict: model with absurd patch", described(lambda m: m["plan"]["configurations"]["2d"].update(
        patch_size=[16 * 10**6] * 2)), "predict m.zip {scans} -o out", "m.zip: its plan is not valid"),
    ("predict: model with a tiny step", described(lambda m: m.update(step=1e-300)), "predict m.zip {scans} -o out",
     "m.zip: its model.json is not valid; step"),
    ("predict: model with other weights", described(lambda m: m["plan"]["configurations"]["2d"].update(
        features=[6] * len(m["plan"]["configurations"]["2d"]["features"]))), "predict m.zip {scans} -o out",
     "m.zip, 2d fold 0: found "),
    ("predict: model's weights damaged", rewritten(lambda parts: parts.update(
        {name: b"x" + data[1:] for name, data in parts.items() if name.endswith("safetensors")})),
     "predict m.zip {scans} -o out", "does not have the checksum"),
    ("predict: model with two channels", described(lambda m: m["plan"].update(
        channels=["a", "b"], intensity=m["plan"]["intensity"] * 2, normalisation=["ct", "ct"])),
     "predict m.zip {scans} -o out", "m.zip, 2d fold 0"),
    ("predict: images missing", None, "predict {w}/model.zip nowhere -o out", "nowhere: no such file or folder"),
    ("predict: images empty", None, "predict {w}/model.zip {w}/empty -o out", "empty: found no scan in this folder"),
    ("predict: images are words", None, "predict {w}/model.zip {w}/words.txt -o out", "words.txt: found no PNG"),
    ("predict: images dangling", link("a.png", "nowhere"), "predict {w}/model.zip a.png -o out", "a.png: no such file"),
    ("predict: images in a loop", link("a.png", "a.png"), "predict {w}/model.zip a.png -o out", "a.png"),
    ("predict: image unreadable", link("in/a.png", "/proc/self/mem"), "predict {w}/model.zip in -o out", "a.png"),
    ("predict: image is a folder", lambda here, _: (here / "in/a.png").mkdir(parents=True),
     "predict {w}/model.zip in -o out", "in"),
    ("predict: image of no bytes", files(in__a_png=b""), "predict {w}/model.zip in -o out", "a.png: cannot be read"),
    ("predict: image is words", files(in__a_png=b"words"), "predict {w}/model.zip in -o out", "a.png: cannot be read"),
    ("predict: image cut", cut("goals/Validation/Image/0007.png", "in/a.png", 0.5), "predict {w}/model.zip in -o out",
     "a.png: is damaged"),
    ("predict: image in colour", images("in", a=("RGB", (48, 40), (1, 2, 3))), "predict {w}/model.zip in -o out",
     "a.png: found a colour image"),
    ("predict: image of 16 bits", images("in", a=np.zeros((40, 48), np.uint16)), "predict {w}/model.zip in -o out",
     "a.png: found image mode I;16"),
    ("predict: image see-through", images("in", a=("RGBA", (48, 40), (1, 1, 1, 1))), "predict {w}/model.zip in -o out",
     "a.png: found transparent pixels"),
    ("predict: image with a bomb of words", text_png, "predict {w}/model.zip a.png -o out", "a.png: "),
    ("predict: image of a million squared", huge_png, "predict {w}/model.zip a.png -o out", "a.png: "),
    ("predict: one bad image of two", lambda here, world: (
        images("in", a=SCAN)(here, world), (here / "in/b.png").write_bytes(b"x")), "predict {w}/model.zip in -o out",
     "b.png: cannot be read"),
    ("predict: two scans of one name", lambda here, world: (
        images("in", a=SCAN)(here, world), nifti("in/a.nii", VOLUME)(here, world)), "predict {w}/model.zip in -o out",
     "has the same name"),
    ("predict: B-scans without spacing", images("in/eye", a=SCAN), "predict {w}/volumes.zip in -o out",
     "found no spacing.json"),
    ("predict: volume for a 2-D model", None, "predict {w}/model.zip {w}/volumes/Validation/Image -o out",
     "0003.nii.gz: found a scan of 3 axes, expected 2"),
    ("predict: 2-D scan for a model of volumes", None, "predict {w}/volumes.zip {scans} -o out",
     "0007.png: found a scan of 2 axes, expected 3"),
    ("predict: volume cut", cut("volumes/Validation/Image/0003.nii.gz", "a.nii.gz", 0.5),
     "predict {w}/volumes.zip a.nii.gz -o out", "a.nii.gz: "),
    ("predict: volume of words", files(a_nii="words"), "predict {w}/volumes.zip a.nii -o out", "a.nii: cannot be read"),
    ("predict: volume of words, packed", files(a_nii_gz="words"), "predict {w}/volumes.zip a.nii.gz -o out",
     "a.nii.gz: cannot be read"),
    ("predict: volume of absurd size", nifti("a.nii", VOLUME, at42=("<3h", 30000, 30000, 30000)),
     "predict {w}/volumes.zip a.nii -o out", "a.nii: 30000 x 30000 x 30000 voxels are more than the limit"),
    ("predict: volume larger than its file", nifti("a.nii", VOLUME, at42=("<3h", 900, 900, 900)),
     "predict {w}/volumes.zip a.nii -o out", "a.nii: "),
    ("predict: volume of negative size", nifti("a.nii", VOLUME, at42=("<h", -48)),
     "predict {w}/volumes.zip a.nii -o out", "a.nii: "),
    ("predict: volume of 5 axes", nifti("a.nii", VOLUME, at40=("<6h", 5, 8, 6, 40, 1, 3)),
     "predict {w}/volumes.zip a.nii -o out", "a.nii: found 8 x 6 x 40 x 1 x 3 voxels"),
    ("predict: volume without spacing", nifti("a.nii", VOLUME, at80=("<3f", 0, 0, 0)),
     "predict {w}/volumes.zip a.nii -o out", "a.nii: found the spacing"),
    ("predict: volume with infinite spacing", nifti("a.nii", VOLUME, at80=("<3f", 1, float("inf"), 1)),
     "predict {w}/volumes.zip a.nii -o out", "a.nii: found the spacing"),
    ("predict: volume with absurd spacing", nifti("a.nii", VOLUME, at80=("<3f", 1, 1e20, 1e20)),
     "predict {w}/volumes.zip a.nii -o out", "a.nii"),
    ("predict: volume with NaN", nifti("a.nii", np.full((3, 8, 8), np.nan, np.float32)),
     "predict {w}/volumes.zip a.nii -o out", "a.nii: found 192 voxels that are nan or infinite"),
    ("predict: volume of colours", nifti("a.nii", VOLUME, at70=("<hh", 128, 24)),
     "predict {w}/volumes.zip a.nii -o out", "a.nii: "),
    ("predict: volume of complex numbers", nifti("a.nii", np.zeros((3, 8, 8), np.float64), at70=("<hh", 32, 64)),
     "predict {w}/volumes.zip a.nii -o out", "a.nii: "),
    ("predict: device's file cut", cut("scan.vol", "a.vol", 0.9), "predict {w}/model.zip a.vol -o out", "cut short"),
    ("predict: scale negative", None, "predict {w}/model.zip {scans} -o out --um-per-px -3 11",
     "um_per_px: found -3 x 11"),
    ("predict: scale 0", None, "predict {w}/model.zip {scans} -o out --um-per-px 0 11", "um_per_px: found"),
    ("predict: scale NaN", None, "predict {w}/model.zip {scans} -o out --um-per-px nan 11", "um_per_px: found"),
    ("predict: scale infinite", None, "predict {w}/model.zip {scans} -o out --um-per-px 3 inf", "um_per_px: found"),
    ("predict: output is the input", images("in", a=SCAN), "predict {w}/model.zip in -o in", "images' own folder"),
    ("predict: output is a file", files(out="x"), "predict {w}/model.zip {scans} -o out", "out: "),
    ("predict: output below a file", None, "predict {w}/model.zip {scans} -o {w}/words.txt/out", "words.txt"),
    ("predict: output cannot be", None, "predict {w}/model.zip {scans} -o /proc/octkit", "/proc/octkit"),
    ("predict: output in the input", images("in", a=SCAN), "predict {w}/model.zip in -o in/out", "in/out: "),
    ("predict: output's name too long", None, "predict {w}/model.zip {scans} -o " + "x" * 300,
     "(File name too long)"),

    # --- export, import, export ---
    ("export: run missing", None, "export nowhere -o m.zip", "nowhere: found no settings.json"),
    ("export: run is a file", None, "export {w}/model.zip -o m.zip", "model.zip: found no settings.json"),
    ("export: output is a folder", lambda here, _: (here / "m.zip").mkdir(), "export {w}/run -o m.zip", "m.zip: "),
    ("export: output below a file", None, "export {w}/run -o {w}/words.txt/m.zip", "words.txt"),
    ("export: output cannot be", None, "export {w}/run -o /proc/m.zip", "/proc/m.zip: "),
    ("import: folder missing", None, "import-nnunet nowhere -o m.zip", "nowhere: found neither plans.json nor"),
    ("import: a file", None, "import-nnunet {w}/words.txt -o m.zip", "words.txt: found neither plans.json nor"),
    ("import: empty", None, "import-nnunet {w}/empty -o m.zip", "empty: found neither plans.json nor"),
    ("import: plans damaged", copy("nnunet/nnUNetTrainer__nnUNetPlans__2d", "x", plans_json="{"),
     "import-nnunet x -o m.zip", "plans.json: is not valid JSON"),
    ("import: plans empty", copy("nnunet/nnUNetTrainer__nnUNetPlans__2d", "x", plans_json="{}"),
     "import-nnunet x -o m.zip", "x: is no plans.json of nnU-Net"),
    ("import: plans no object", copy("nnunet/nnUNetTrainer__nnUNetPlans__2d", "x", plans_json="[]"),
     "import-nnunet x -o m.zip", "x: is no plans.json of nnU-Net"),
    ("import: plans with absurd stages", edited("nnunet/nnUNetTrainer__nnUNetPlans__2d", "plans.json", lambda p: p[
        "configurations"]["2d"]["architecture"]["arch_kwargs"].update(n_stages=10**12)), "import-nnunet x -o m.zip",
     "x, 2d"),
    ("import: plans inherit in a circle", edited("nnunet/nnUNetTrainer__nnUNetPlans__2d", "plans.json", lambda p: p[
        "configurations"]["2d"].update(inherits_from="2d")), "import-nnunet x -o m.zip", "inherits from itself"),
    ("import: plans inherit from a list", edited("nnunet/nnUNetTrainer__nnUNetPlans__2d", "plans.json", lambda p: p[
        "configurations"]["2d"].update(inherits_from=[])), "import-nnunet x -o m.zip", "x: is no plans.json"),
    ("import: dataset missing", lambda here, world: (
        copy("nnunet/nnUNetTrainer__nnUNetPlans__2d", "x")(here, world), (here / "x/dataset.json").unlink()),
     "import-nnunet x -o m.zip", "dataset.json: not found"),
    ("import: no folds", copy("nnunet/nnUNetTrainer__nnUNetPlans__2d", "x", fold9x__y=b""), 
     "import-nnunet x/fold9x -o m",
     "fold9x: found neither"),
    ("import: checkpoint damaged", lambda here, world: (
        copy("nnunet/nnUNetTrainer__nnUNetPlans__2d", "x")(here, world),
        (here / "x/fold_0/checkpoint_final.pth").write_bytes(b"words")), "import-nnunet x -o m.zip",
     "checkpoint_final.pth: cannot be read as a checkpoint"),
    ("import: output is a folder", lambda here, _: (here / "m.zip").mkdir(),
     "import-nnunet {w}/nnunet/nnUNetTrainer__nnUNetPlans__2d -o m.zip", "m.zip: "),
    ("import: data into a folder that is there", lambda here, _: (here / "d").mkdir(), "import-nnunet {w}/raw -o d",
     "d: is there already"),
    ("import: data into itself", copy("raw", "x"), "import-nnunet x -o x/imagesTr/new", "x/imagesTr/new: "),
    ("import: data's manifest leaves its folder", copy("raw", "x", octkit_json=json.dumps(
        {"format": "octkit data set", "version": 1, "files": [{"file": "../evil", "sha256": ""}]})),
     "import-nnunet x -o d", "octkit.json: is not valid"),
    ("import: data's manifest empty", copy("raw", "x", octkit_json="{}"), "import-nnunet x -o d",
     "octkit.json: is not valid"),
    ("import: data's manifest wants a folder", copy("raw", "x", octkit_json=json.dumps(
        {"format": "octkit data set", "version": 1, "files": [{"file": "a", "from": "imagesTr", "sha256": ""}]})),
     "import-nnunet x -o d", "imagesTr: not found"),
    ("import: data's manifest twice", copy("raw", "x", octkit_json=json.dumps(
        {"format": "octkit data set", "version": 1, "files": [
            {"file": "a", "from": "imagesTr/eye_001_0000.png", "slice": "b", "sha256": ""}]})),
     "import-nnunet x -o d", "octkit.json"),
    ("export-nnunet: source missing", None, "export-nnunet nowhere -o Dataset001_X", "nowhere: no such folder"),
    ("export-nnunet: source empty", None, "export-nnunet {w}/empty -o Dataset001_X", "empty: found no data set"),
    ("export-nnunet: source is words", None, "export-nnunet {w}/words.txt -o out", "words.txt: cannot be read"),
    ("export-nnunet: data set's name", None, "export-nnunet {w}/goals -o out", "out: found the name 'out', expected"),
    ("export-nnunet: is nnU-Net's already", None, "export-nnunet {w}/raw -o Dataset001_X", "already"),
    ("export-nnunet: data set is there", lambda here, _: (here / "Dataset001_X").mkdir(),
     "export-nnunet {w}/goals -o Dataset001_X", "Dataset001_X: is there already"),
    ("export-nnunet: model is there", lambda here, _: (here / "out/nnUNetTrainer__nnUNetPlans__2d").mkdir(
        parents=True), "export-nnunet {w}/run -o out", "is there already"),
    ("export-nnunet: output is a file", files(out="x"), "export-nnunet {w}/run -o out", "out"),
    ("export-nnunet: into the data set", copy("goals", "x"), "export-nnunet x -o x/Dataset001_X", "Dataset001_X: "),
    ("export-nnunet: a mask of other values", lambda here, world: (copy("goals", "x")(here, world), Image.new(
        "L", (48, 40), 7).save(here / "x/Train/Layer_Masks/0002.png")), "export-nnunet x -o Dataset001_X",
     "0002.png: found mask values 7"),

    # --- evaluate, thickness ---
    ("evaluate: predictions missing", None, "evaluate nowhere {truth} -o s.json", "nowhere: no such folder"),
    ("evaluate: truth missing", None, "evaluate {truth} nowhere -o s.json", "nowhere: no such folder"),
    ("evaluate: predictions empty", None, "evaluate {w}/empty {truth} -o s.json", "empty: found no scan"),
    ("evaluate: other names", images("p", x=SCAN), "evaluate p {truth} -o s.json", "p: does not match the truth"),
    ("evaluate: other sizes", images("p", **{"0007": SCAN[:9], "0008": SCAN}), "evaluate p {truth} -o s.json",
     "0007.png is 9 x 48 px, expected 40 x 48 px"),
    ("evaluate: other values", images("p", **{"0007": SCAN, "0008": SCAN}), "evaluate p {truth} -o s.json",
     "0007.png: found mask values 100"),
    ("evaluate: words", None, "evaluate {w}/words.txt {truth} -o s.json", "words.txt: does not match the truth"),
    ("evaluate: layer", None, "evaluate {truth} {truth} --layer lens -o s.json", "layers: found ['lens']"),
    ("evaluate: scale", None, "evaluate {truth} {truth} --um-per-px nan 1 -o s.json", "spacing: found (nan"),
    ("evaluate: output is a folder", lambda here, _: (here / "s.json").mkdir(), 
     "evaluate {truth} {truth} -o s.json", "s.json: "),
    ("evaluate: output below a file", None, "evaluate {truth} {truth} -o {w}/words.txt/s.json", "words.txt"),
    ("thickness: masks missing", None, "thickness nowhere -o t.csv", "nowhere: no such file or folder"),
    ("thickness: masks empty", None, "thickness {w}/empty -o t.csv", "empty: found no PNG images"),
    ("thickness: masks are words", None, "thickness {w}/words.txt -o t.csv", "words.txt: cannot be read"),
    ("thickness: masks are scans", None, "thickness {scans} -o t.csv", "0007.png: found mask values"),
    ("thickness: scale 0", None, "thickness {truth} -o t.csv --um-per-px 0", "um_per_px: found 0"),
    ("thickness: scale NaN", None, "thickness {truth} -o t.csv --um-per-px nan", "um_per_px: found nan"),
    ("thickness: scale negative", None, "thickness {truth} -o t.csv --um-per-px=-1", "um_per_px: found -1"),
    ("thickness: eye", None, "thickness {truth} -o t.csv --eye left", "eye: found 'left', expected R or L"),
    ("thickness: output is a folder", lambda here, _: (here / "t.csv").mkdir(), "thickness {truth} -o t.csv",
     "t.csv: "),
    ("thickness: output cannot be", None, "thickness {truth} -o /proc/t.csv", "/proc/t.csv: "),

    # --- device ---
    ("device: file missing", None, "device nowhere.vol -o out", "nowhere.vol: cannot be read (No such file"),
    ("device: a folder", None, "device {w}/empty -o out", "empty: cannot be read (Is a directory"),
    ("device: words", None, "device {w}/words.txt -o out", "words.txt: found no HSF-OCT at its beginning"),
    ("device: cut", cut("scan.vol", "s.vol", 0.95), "device s.vol -o out", "s.vol: found"),
    ("device: header cut", cut("scan.vol", "s.vol", 0.2), "device s.vol -o out", "expected a header of 2048"),
    ("device: no pixels", vol_header(12, "<I", 0), "device s.vol -o out", "expected at least one pixel"),
    ("device: absurd size", vol_header(12, "<3I", 2**32 - 1, 2**32 - 1, 2**32 - 1), "device s.vol -o out", "s.vol: "),
    ("device: absurd photograph", vol_header(48, "<2I", 2**31, 2**31), "device s.vol -o out", "cut short"),
    ("device: radial", vol_header(96, "<I", 5), "device s.vol -o out", "found a radial scan"),
    ("device: scale", vol_header(24, "<d", float("nan")), "device s.vol -o out", "s.vol: found the scale"),
    ("device: another scan there", files(out__image__b_png=b""), "device {w}/scan.vol -o out", "holds the scan b.png"),
    ("device: output is a file", files(out="x"), "device {w}/scan.vol -o out", "out"),
    ("device: output cannot be", None, "device {w}/scan.vol -o /proc/out", "/proc/out"),

    # --- submit ---
    ("submit: nothing", None, "submit", "submit: expected RUN -o ZIP, or"),
    ("submit: both", None, "submit {w}/run --check x.zip --images x", "submit: expected RUN -o ZIP, or"),
    ("submit: no run", None, "submit nowhere -o s.zip", "nowhere/settings.json: not found"),
    ("submit: no zip", None, "submit {w}/run -o s.tar", "s.tar: found no name ending in .zip"),
    ("submit: foreign folder beside", files(s__notes_txt="x"), "submit {w}/run -o s.zip", "s: holds other things"),
    ("submit: output is a folder", lambda here, _: (here / "s.zip").mkdir(), "submit {w}/run -o s.zip", "s.zip: "),
    ("submit: output cannot be", None, "submit {w}/run -o /proc/s.zip", "/proc/"),
    ("submit: no probabilities", lambda here, world: (
        copy("run", "x")(here, world), (here / "x/classifier/predictions.csv").unlink()), "submit x -o s.zip",
     "predictions.csv: cannot be read"),
    ("submit: probabilities of others", copy("run", "x", classifier__predictions_csv="ImgName,GC_Pred\n0001.png,0.5\n"),
     "submit x -o s.zip", "0001.png is no image of the set"),
    ("submit: data set of volumes", lambda here, world: (copy("run", "x")(here, world), write_json(
        here / "x/settings.json", read_json(here / "x/settings.json") | {"data": {"dir": str(world / "volumes")}})),
     "submit x -o s.zip", "volumes: found the layout volumes"),
    ("submit: archive missing", None, "submit --check nowhere.zip --images {scans}", "nowhere.zip: not found"),
    ("submit: archive is words", None, "submit --check {w}/words.txt --images {scans}", "words.txt: is not a zip"),
    ("submit: archive is a folder", None, "submit --check {w}/empty --images {scans}", "empty: "),
    ("submit: archive of something else", None, "submit --check {w}/model.zip --images {scans}",
     "model.zip: is no valid submission"),
    ("submit: images missing", None, "submit --check {w}/submission.zip --images nowhere", "nowhere: no such file"),
]


def test_the_table_has_each_case_once():
    names = [name for name, *_ in CASES]
    assert len(names) == len(set(names)) >= 60


@pytest.mark.parametrize(("prepare", "command", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_one_line_and_nothing_half_written(world, tmp_path, monkeypatch, capsys, prepare, command, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OCTKIT_DEBUG", "")
    monkeypatch.setattr(notebook, "execute", started)
    if prepare:
        prepare(tmp_path, world)
    before = tree(tmp_path, world)
    code, _, err = call(capsys, command, w=world)
    said = [line for line in err.splitlines() if line and "%|" not in line]  # progress bars are none of the message
    assert (code, len(said)) == (2, 1), err
    assert said[0].startswith("octkit: ") and words in said[0]
    assert tree(tmp_path, world) == before
