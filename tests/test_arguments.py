"""Every command with every kind of bad argument: exit code 2, one line that says what and where, nothing half-written.

Each case has the command line, words that the one line must hold (the file or option, and what is wrong), and what lies
in the folder where it runs. `{w}` is a folder of things that are as they should be; what a case damages is its own copy
of them.
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
from octkit.common.files import read_json
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


def widen(features: list) -> None:
    features[:] = [count + 4 for count in features]


def started(*_):
    raise AssertionError("a lesson was started")


# What lies in the folder where a command runs.

def files(**contents):
    """Files by name ("_" for ".", "__" for "/"), text or bytes."""
    def prepare(here, _):
        for name, content in contents.items():
            path = here / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return prepare


def changed(source: str, change=None):
    """A copy of a folder of the world, `x`, in which `change(x)` damages something."""
    def prepare(here, world):
        shutil.copytree(world / source, here / "x")
        if change:
            change(here / "x")
    return prepare


def with_files(source: str, **contents):
    """A copy of a folder of the world, `x`, in which some `files` are others."""
    return changed(source, lambda x: files(**contents)(x, None))


def damaged_run(**contents):
    return with_files("run", **contents)


def lacking(source: str, file: str):
    return changed(source, lambda x: (x / file).unlink())


def edited(source: str, file: str, change):
    """A copy of a folder of the world, `x`, in which a JSON file is changed by `change(content)`, in place."""
    def edit(x):
        content = read_json(x / file)
        change(content)
        (x / file).write_text(json.dumps(content))
    return changed(source, edit)


def planned(**values):
    """A copy of the run, `x`, whose plan has other values in its configuration."""
    return edited("run", "plan.json", lambda plan: [
        plan["configurations"]["2d"][key].update(value=value) for key, value in values.items()])


def both(first, second):
    return lambda here, world: (first(here, world), second(here, world))


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
    def edit(x):
        path = x / "models/2d/fold_0/checkpoint.pt"
        content = load_checkpoint(path)
        change(content)
        save_checkpoint(path, content)
    return changed("run", edit)


def folder(name: str):
    return lambda here, _: (here / name).mkdir()


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


PREDICT, PREDICT_X, EXPORT = "predict m.zip {scans} -o out", "predict x {scans} -o out", "export x -o m.zip"
PREDICT_IN, PREDICT_NII = "predict {w}/model.zip in -o out", "predict {w}/volumes.zip a.nii -o out"
IMPORT = "import-nnunet x -o m.zip"
NNUNET = "nnunet/nnUNetTrainer__nnUNetPlans__2d"
SCAN = np.full((40, 48), 100, np.uint8)
VOLUME = np.full((3, 40, 48), 100, np.uint8)

CASES = [
    # --- which command, which option ---
    ("segment x", "No such command 'segment'"),
    ("predict", "Missing argument 'model'."),
    ("export {w}/run --zip x", "No such option: --zip"),
    ("run --profil demo", "No such option: --profil (Possible options: --profile)"),
    ("phantom out --train many", "Invalid value for '--train': Input should be a valid integer"),
    ("predict default {scans} -o out --um-per-px 3", "--um-per-px"),

    # --- run ---
    ("run --profile best --run-dir r", "--profile: found 'best', expected one of"),
    ("run --data nowhere --run-dir r", "nowhere: not found, expected the data set"),
    ("run --run-dir r --set train.epoch=3", "train.epoch:"),
    ("run --run-dir r --set train.epochs", "expected key=value"),
    ("run --run-dir r --set train.epochs=many", "train.epochs: Input should be"),
    ("run --run-dir r --set seed=" + "[" * 100_000, "seed"),
    ("run --run-dir r", "settings.json: is not valid JSON", files(r__settings_json="{")),
    ("run --run-dir r --profile smoke --set classify.weights=no.pdparams --set classify.weights_sha256=x",
     "no.pdparams: not found, expected the file named by classify.weights"),

    # --- phantom ---
    ("phantom out --kind corneal", "kind: found 'corneal'"),
    ("phantom out --looks plain", "phantom looks: found 'plain'"),
    ("phantom out --size 256", "--size: found '256'"),
    ("phantom out --size 1000000x1000000", "phantom size"),
    ("phantom out --train 1000000", "at most 9999"),
    ("phantom out", "out: ", files(out__x_txt="x")),
    ("phantom {w}/words.txt/out --size 64x64 --train 1 --val 0", "words.txt"),

    # --- report, doctor ---
    ("report nowhere", "nowhere: no such folder"),
    ("doctor", "--machine"),

    # --- commands that take a run ---
    *((f"{name} nowhere", "nowhere") for name in RUN_COMMANDS),
    *((f"{name} {{w}}/empty", "/empty") for name in RUN_COMMANDS),
    *((f"{name} x", "x/settings.json: is not valid JSON", damaged_run(settings_json='{"seed": '))
      for name in RUN_COMMANDS),
    *((f"{name} x", "x/settings.json: colour: Extra inputs",
       edited("run", "settings.json", lambda s: s.update(colour=1)))
      for name in RUN_COMMANDS),
    *((f"{name} x", "/nowhere: no such folder",
       edited("run", "settings.json", lambda s: s["data"].update(dir="/nowhere")))
      for name in ("fingerprint", "preprocess", "train", "select", "classify")),
    ("train x", "settings.json: train.epochs: Input should be a valid integer",
     edited("run", "settings.json", lambda s: s["train"].update(epochs="ten"))),
    ("plan x", "settings.json: is not valid JSON", damaged_run(settings_json=b"\xff\xfe{}")),
    ("fingerprint x", "no such folder", edited("run", "settings.json", lambda s: s["data"].update(dir="a\0b"))),
    ("plan x", "fingerprint.json: not found", changed("new")),
    ("select x", "has no prediction for", changed("untrained")),
    (EXPORT, "train this fold first with `octkit train x --config 2d --fold 0`", changed("untrained")),
    ("train x --fold 7", "fold: found 7, expected 0 to 1", edited("untrained", "plan.json", lambda _: None)),
    ("train {w}/run --config 4d", "has no configuration '4d', expected one of 2d"),
    ("plan x", "fingerprint.json: is not valid", damaged_run(fingerprint_json="{}")),
    ("plan x", "fingerprint",
     edited("run", "fingerprint.json", lambda f: f.update(shapes=[[10**9, 10**9]] * len(f["shapes"])))),
    *((command, "plan.json: is not valid JSON", damaged_run(plan_json='{"configurations": {}'))
      for command in ("preprocess x", "train x", "select x", PREDICT_X, EXPORT, "export-nnunet x -o out")),
    *((command, "plan.json: ", planned(features=[10**9] * 3)) for command in ("train x", PREDICT_X, EXPORT)),
    ("preprocess x", "plan.json: ", edited("run", "plan.json", lambda plan: plan["intensity"].update(value=[{}]))),
    ("train x", "splits.json: was made for other cases (9999",
     edited("run", "splits.json", lambda s: s[0]["train"].append("9999"))),
    ("train x", "0002", lacking("untrained", "preprocessed/2d/0002.image.npy")),
    ("train x", "0002.image.npy", with_files("untrained", preprocessed__2d__0002_image_npy=b"words")),
    ("train x", "json: is not valid",
     changed("untrained", lambda x: [file.write_text("{}") for file in x.glob("preprocessed/2d/*.json")])),
    *((command, "selection.json: is not valid JSON", damaged_run(selection_json="{"))
      for command in (PREDICT_X, EXPORT, "export-nnunet x -o out")),
    (PREDICT_X, "5d", edited("run", "selection.json", lambda s: s.update(configurations=["5d"]))),
    (PREDICT_X, "checkpoint.pt: cannot be read as a checkpoint",
     changed("run", lambda x: (x / "models/2d/fold_0/checkpoint.pt").write_text("words"))),
    (PREDICT_X, "x, 2d fold 0: found encoder.0.layers.0.weight of",
     edited("run", "plan.json", lambda plan: widen(plan["configurations"]["2d"]["features"]["value"]))),
    (PREDICT_X, "training stopped after epoch 1 of 5", checkpoint(lambda found: found.update(epochs=5))),
    (PREDICT_X, "checkpoint.pt: is no checkpoint of a training", checkpoint(lambda found: found.clear())),

    # --- predict ---
    ("predict nowhere.zip {scans} -o out",
     "nowhere.zip: not found, expected a run's folder, a model's file or default"),
    ("predict {w}/words.txt {scans} -o out", "words.txt: cannot be read as a model"),
    ("predict {w}/submission.zip {scans} -o out", "is no model"),
    (PREDICT, "m.zip: cannot be read", cut("model.zip", "m.zip", 0.6)),
    (PREDICT, "m.zip: found parts that are compressed", rewritten(lambda _: None, compression=zipfile.ZIP_DEFLATED)),
    (PREDICT, "m.zip: '../../evil' is missing or not named",
     rewritten(lambda parts: parts.update({"../../evil": b""}))),
    (PREDICT, "m.zip: its model.json is not valid JSON", rewritten(lambda parts: parts.update({"model.json": b"{"}))),
    (PREDICT, "model.json is of 11000000 bytes, expected at most",
     rewritten(lambda parts: parts.update({"model.json": b" " * 11 * 10**6}))),
    (PREDICT, "m.zip: its model.json is not valid; colour", described(lambda m: m.update(colour=9))),
    (PREDICT, "m.zip: its plan is not valid",
     described(lambda m: m["plan"]["configurations"]["2d"].update(features=[10**9] * 3))),
    (PREDICT, "m.zip, 2d fold 0: found ",
     described(lambda m: widen(m["plan"]["configurations"]["2d"]["features"]))),
    (PREDICT, "does not have the checksum",
     rewritten(lambda parts: parts.update({name: b"x" + parts[name][1:] for name in parts if "safetensors" in name}))),
    (PREDICT, "m.zip, 2d fold 0",
     described(lambda m: m["plan"].update(channels=["a", "b"], intensity=m["plan"]["intensity"] * 2,
                                          normalisation=["ct", "ct"]))),
    ("predict {w}/model.zip nowhere -o out", "nowhere: no such file or folder"),
    ("predict {w}/model.zip {w}/empty -o out", "empty: found no scan in this folder"),
    ("predict {w}/model.zip a.png -o out", "a.png: no such file", link("a.png", "nowhere")),
    (PREDICT_IN, "a.png", link("in/a.png", "/proc/self/mem")),
    (PREDICT_IN, "a.png: is damaged", cut("goals/Validation/Image/0007.png", "in/a.png", 0.5)),
    (PREDICT_IN, "a.png: found a colour image", images("in", a=("RGB", (48, 40), (1, 2, 3)))),
    (PREDICT_IN, "a.png: holds 16-bit values of at most 300", images("in", a=np.full((40, 48), 300, np.uint16))),
    ("predict {w}/model.zip a.png -o out", "a.png: ", text_png),
    ("predict {w}/model.zip a.png -o out", "a.png: ", huge_png),
    (PREDICT_IN, "b.png: cannot be read", both(images("in", a=SCAN), files(in__b_png="x"))),
    (PREDICT_IN, "has the same name", both(images("in", a=SCAN), nifti("in/a.nii", VOLUME))),
    ("predict {w}/volumes.zip in -o out", "found no spacing.json", images("in/eye", a=SCAN)),
    ("predict {w}/model.zip {w}/volumes/Validation/Image -o out", "0003.nii.gz: found a scan of 3 axes, expected 2"),
    ("predict {w}/volumes.zip {scans} -o out", "0007.png: found a scan of 2 axes, expected 3"),
    ("predict {w}/volumes.zip a.nii.gz -o out", "a.nii.gz: ",
     cut("volumes/Validation/Image/0003.nii.gz", "a.nii.gz", 0.5)),
    (PREDICT_NII, "a.nii: 30000 x 30000 x 30000 voxels are more than the limit",
     nifti("a.nii", VOLUME, at42=("<3h", 30000, 30000, 30000))),
    (PREDICT_NII, "a.nii: found 8 x 6 x 40 x 1 x 3 voxels", nifti("a.nii", VOLUME, at40=("<6h", 5, 8, 6, 40, 1, 3))),
    (PREDICT_NII, "a.nii: found the spacing", nifti("a.nii", VOLUME, at80=("<3f", 0, 0, 0))),
    (PREDICT_NII, "a.nii: found 192 voxels that are nan or infinite",
     nifti("a.nii", np.full((3, 8, 8), np.nan, np.float32))),
    ("predict {w}/model.zip a.vol -o out", "cut short", cut("scan.vol", "a.vol", 0.9)),
    ("predict {w}/model.zip {scans} -o out --um-per-px nan 11", "um_per_px: found"),
    ("predict {w}/model.zip in -o in", "images' own folder", images("in", a=SCAN)),

    # --- export, import, export ---
    ("export nowhere -o m.zip", "nowhere: found no settings.json"),
    ("import-nnunet nowhere -o m.zip", "nowhere: not found, expected the folder of a model"),
    ("import-nnunet {w}/goals -o m.zip", "goals: found neither plans.json nor"),
    ("export-nnunet nowhere -o out", "nowhere: no such folder"),
    (IMPORT, "plans.json: is not valid JSON", with_files(NNUNET, plans_json="{")),
    (IMPORT, "x, 2d",
     edited(NNUNET, "plans.json", lambda p: p["configurations"]["2d"]["architecture"]["arch_kwargs"].update(
         n_stages=10**12))),
    (IMPORT, "inherits from itself",
     edited(NNUNET, "plans.json", lambda p: p["configurations"]["2d"].update(inherits_from="2d"))),
    (IMPORT, "dataset.json: not found", lacking(NNUNET, "dataset.json")),
    (IMPORT, "checkpoint_final.pth: cannot be read as a checkpoint",
     changed(NNUNET, lambda x: (x / "fold_0/checkpoint_final.pth").write_text("words"))),
    ("import-nnunet {w}/raw -o d", "d: is there already", folder("d")),
    ("import-nnunet x -o x/imagesTr/new", "x/imagesTr/new: ", changed("raw")),
    ("import-nnunet x -o d", "octkit.json: is not valid",
     with_files("raw", octkit_json=json.dumps({"format": "octkit data set", "version": 1, "files": [
         {"file": "../evil", "sha256": ""}]}))),
    ("export-nnunet {w}/goals -o out", "out: found the name 'out', expected"),
    ("export-nnunet {w}/raw -o Dataset001_X", "already"),
    ("export-nnunet {w}/goals -o Dataset001_X", "Dataset001_X: is there already", folder("Dataset001_X")),
    ("export-nnunet x -o x/Dataset001_X", "Dataset001_X: ", changed("goals")),
    ("export-nnunet x -o Dataset001_X", "0002.png: found mask values 7",
     changed("goals", lambda x: Image.new("L", (48, 40), 7).save(x / "Train/Layer_Masks/0002.png"))),

    # --- evaluate, thickness ---
    ("evaluate p {truth} -o s.json", "0007.png: found 9 x 48 px, expected 40 x 48 px",
     images("p", **{"0007": SCAN[:9], "0008": SCAN})),
    ("evaluate p {truth} -o s.json", "0007.png: found mask values 100", images("p", **{"0007": SCAN, "0008": SCAN})),
    ("evaluate {truth} {truth} --layer lens -o s.json", "layers: found ['lens']"),
    ("evaluate {truth} {truth} --um-per-px nan 1 -o s.json", "spacing: found (nan"),
    ("thickness {w}/empty -o t.csv", "empty: found no images"),
    ("thickness {scans} -o t.csv", "0007.png: found mask values"),
    ("thickness {truth} -o t.csv --um-per-px nan", "um_per_px: found nan"),
    ("thickness {truth} -o t.csv --eye left", "eye: found 'left', expected R or L"),
    ("thickness {truth} -o t.csv", "t.csv: ", folder("t.csv")),

    # --- device ---
    ("device nowhere.vol -o out", "nowhere.vol: not found, expected a device's file"),
    ("device s.vol -o out", "s.vol: found", cut("scan.vol", "s.vol", 0.95)),
    ("device s.vol -o out", "expected at least one pixel", vol_header(12, "<I", 0)),
    ("device s.vol -o out", "s.vol: ", vol_header(12, "<3I", 2**32 - 1, 2**32 - 1, 2**32 - 1)),
    ("device s.vol -o out", "found a radial scan", vol_header(96, "<I", 5)),
    ("device s.vol -o out", "s.vol: found the scale", vol_header(24, "<d", float("nan"))),
    ("device {w}/scan.vol -o out", "holds the scan b.png", files(out__image__b_png=b"")),

    # --- submit ---
    ("submit", "submit: expected RUN -o ZIP, or --check ZIP --images DIR"),
    ("submit run --check x.zip --images x", "submit: expected RUN -o ZIP"),
    ("submit {w}/run -o s.tar", "s.tar: found no name ending in .zip"),
    ("submit {w}/run -o s.zip", "s: holds other things", files(s__notes_txt="x")),
    ("submit x -o s.zip", "predictions.csv: cannot be read", lacking("run", "classifier/predictions.csv")),
    ("submit x -o s.zip", "0001.png is no image of the set",
     damaged_run(classifier__predictions_csv="ImgName,GC_Pred\n0001.png,0.5\n")),
    ("submit x -o s.zip", "volumes: found the layout volumes",
     lambda here, world: edited("run", "settings.json", lambda s: s.update(data={"dir": str(world / "volumes")}))(
         here, world)),
    ("submit --check nowhere.zip --images {scans}", "nowhere.zip: not found"),
    ("submit --check {w}/model.zip --images {scans}", "model.zip: is no valid submission"),
    ("submit --check {w}/submission.zip --images nowhere", "nowhere: no such file"),
]


@pytest.mark.parametrize(("command", "words", "prepare"), [(*case, None)[:3] for case in CASES],
                         ids=[f"{case[0].split()[0]}: {case[1]}" for case in CASES])
def test_one_line_and_nothing_half_written(world, tmp_path, monkeypatch, capsys, command, words, prepare):
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
