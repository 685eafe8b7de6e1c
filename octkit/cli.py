"""The command line: each command is a call or two into the package, which is imported when it is asked for.

Errors that the user can mend end in one plain line and exit code 2, a notebook that failed in one line and
exit code 1, Ctrl-C in 130. `octkit --debug COMMAND …` shows the traceback instead.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

from typer import Argument, Context, Exit, Option, Typer
from typer.exceptions import TyperException

from octkit import __version__
from octkit.common.errors import OctkitError, one_line
from octkit.common.language import VARIABLE, choose
from octkit.common.locks import held
from octkit.common.messages import utf8_output
from octkit.common.system import allow_open_files, use_private_caches
from octkit.data.labels import LAYERS

if TYPE_CHECKING:
    from octkit.planning.run import Run

OPEN_FILES = 4096  # many times what a run with many workers has open

RunFolder = Annotated[Path, Argument(metavar="RUN", help="a run's folder, as octkit run makes it")]
Language = Annotated[str | None, Option("--language", metavar="en|zh", help="of lessons, figures and report")]
Scheduler = Annotated[str | None, Option(metavar="tcp://…", help="have workers of Dask's do it (docs/cluster.md)")]
Workers = Annotated[int | None, Option(metavar="N", min=1, help="so many workers of this machine")]
Scale = Annotated[tuple[float, float] | None, Option(metavar="AXIAL LATERAL", help="the scans' scale, where known")]

# Plain help: rich's boxes take longer to import than most commands take to say what is wrong.
app = Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def main(arguments: list[str] | None = None) -> None:
    """Run a command line (default: this process's); ends in SystemExit with the exit code."""
    if arguments is None:
        _settle_in()
    utf8_output()
    try:
        code = app(arguments, prog_name="octkit", standalone_mode=False)
        if code == 130:  # what typer makes of Ctrl-C
            _end("interrupted; the same command goes on from here", 130)
        sys.exit(code)
    except TyperException as error:
        _end(error.format_message(), error.exit_code)
    except OctkitError as error:
        _end(str(error), error.exit_code)
    except Exception as error:
        from octkit.common.machine import in_a_sentence

        _end(*in_a_sentence(error, ["octkit", *(sys.argv[1:] if arguments is None else arguments)]))


def _settle_in() -> None:
    """Take the open files that the system allows, a Python that no locale or PYTHONWARNINGS has changed, own caches."""
    allow_open_files(OPEN_FILES)
    warnings = os.environ.pop("PYTHONWARNINGS", "")
    if sys.getfilesystemencoding() != "utf-8" or "error" in warnings:  # names would be taken for GBK or Latin-1
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    use_private_caches()


def _end(message: str, code: int) -> NoReturn:
    if os.environ.get("OCTKIT_DEBUG") and sys.exc_info()[0]:
        raise  # noqa: PLE0704 (called from an except clause)
    print(f"octkit: {one_line(message)}", file=sys.stderr)
    sys.exit(code)


@contextmanager
def _held_run(run_dir: Path, part: str | None = None, shared: bool = False) -> Iterator["Run"]:
    """A run whose folder, or a `part` of it, this process holds (`locks.held`)."""
    from octkit.planning.run import Run

    run = Run(run_dir)
    run.check_links()
    if part is not None:
        _ = run.settings  # before the lock makes the part's folder: what is no run stays as it is
    with held(run_dir, part, shared):
        yield run


@app.callback(invoke_without_command=True)
def octkit(
    context: Context,
    debug: Annotated[bool, Option("--debug", help="show tracebacks (or set OCTKIT_DEBUG=1)")] = False,
    version: Annotated[bool, Option("--version", help="show the version")] = False,
) -> None:
    """Teaching and competition kit for retinal OCT: layers, thickness, glaucoma."""
    if debug:
        os.environ["OCTKIT_DEBUG"] = "1"
    if context.invoked_subcommand is None:
        print(__version__ if version else context.get_help())


@app.command()
def run(
    profile: Annotated[str | None, Option(help="start from smoke, demo, volumes, claims, goals or report")] = None,
    data: Annotated[Path | None, Option(metavar="DIR", help="the data set (data/README.md)")] = None,
    run_dir: Annotated[Path | None, Option(metavar="DIR", help="default: reports/<profile>")] = None,
    changes: Annotated[list[str] | None, Option("--set", metavar="KEY=VALUE", help="change a setting, such as "
                                                "train.epochs=50; may be repeated")] = None,
    source: Annotated[Path | None, Option("--from", metavar="FILE", help="a settings.json to repeat")] = None,
    like: Annotated[Path | None, Option("--like", metavar="RUN", help="an experiment: a new run like this one but for "
                                        "--set, which shares what stays the same")] = None,
    foretell: Annotated[bool, Option("--estimate", help="say what the run would take (a minute), run nothing")] = False,
    scheduler: Scheduler = None, workers: Workers = None, language: Language = None,
) -> None:
    """Run all notebooks in order, but for what is done.

    A run folder with settings goes on with them; a new one takes the profile's, or the demo's.
    """
    from octkit.common.cluster import workers_of
    from octkit.lessons import estimate, repeat, run_all

    choose(language)
    if foretell:
        from octkit.training.cost import measured

        return print(estimate.estimate(*repeat.choose(profile, data, run_dir, changes or [], like), measured))
    with workers_of(scheduler, workers) as crew:
        if source:
            return print(repeat.repeat(source, run_dir, profile, data, changes, like, workers=crew))
        run, chosen = repeat.choose(profile, data, run_dir, changes or [], like)
        run_all.run_story(run, chosen, workers=crew)
    left = run.claims_file if chosen.story == "claims" else run.report_file
    return print(f"{run.folder}: all done, open {left}")


@app.command()
def compare(
    runs: Annotated[list[Path], Argument(metavar="RUN RUN …", help="run folders; all are compared with the first")],
    out: Annotated[Path | None, Option("-o", "--out", metavar="DIR", help="scores.csv by scan, and curves.png")] = None,
) -> None:
    """Runs side by side: settings that differ, scores scan by scan with intervals, curves."""
    from octkit.lessons import experiments
    from octkit.planning.run import Run

    found = experiments.compare([Run(folder) for folder in runs])
    if out:
        found.save(out)
    print(found)


@app.command()
def report(
    run_dir: RunFolder,
    against: Annotated[Path | None, Option(metavar="RUN", help="another run, to compare it with")] = None,
    language: Language = None,
) -> None:
    """Write a run's report.html again, from the files in its folder."""
    from octkit.lessons.report import write_report
    from octkit.planning.run import Run

    choose(language)
    page = write_report(Run(run_dir), Run(against) if against else None)
    print(f"{page}: {page.stat().st_size / 1e6:.1f} MB, opens in any browser, offline")


@app.command()
def phantom(
    out: Annotated[Path, Argument(help="the folder to make")],
    kind: Annotated[str, Option(help="circle scans, or volumes: macular, peripapillary")] = "circle",
    train: Annotated[int, Option(help="labelled scans")] = 80,
    val: Annotated[int, Option(help="validation scans, their truth beside the layout")] = 40,
    test: Annotated[int, Option(help="test scans, likewise")] = 0,
    size: Annotated[str | None, Option(metavar="[B-SCANSx]HxW", help="px; default 256x320, volumes 25x200x256")] = None,
    seed: Annotated[int, Option(help="another seed, other eyes")] = 0,
    looks: Annotated[str, Option(help="spectralis: one kind of device; varied: many")] = "spectralis",
) -> None:
    """Make a synthetic data set: circle scans in the GOALS layout, or NIfTI volumes."""
    from octkit.phantoms.data_sets import make_data_set, parse_size

    make_data_set(out, (train, val, test), parse_size(size, kind), seed, kind, looks)


@app.command()
def doctor(
    data: Annotated[Path | None, Argument(metavar="DATA", help="a data set's folder (data/README.md)")] = None,
    as_json: Annotated[bool, Option("--json", help="for machines: all findings as JSON")] = False,
    groups: Annotated[bool, Option("--groups", help="propose groups.csv: which scans show one eye")] = False,
    machine: Annotated[bool, Option("--machine", help="look at this machine instead: what will be used")] = False,
) -> None:
    """Say what is wrong with a data set, a line a problem; exit code 2 where an error would stop a run."""
    if machine:
        from octkit.common.machine import tell as tell_machine

        return tell_machine()
    if data is None:
        raise OctkitError("doctor: expected a data set's folder, or --machine")
    if groups:
        from octkit.inference.groups import in_words, propose

        return print(in_words(propose(data)))
    from octkit.data.doctor.data_set import tell

    return tell(data, as_json)


@app.command()
def fingerprint(run_dir: RunFolder) -> None:
    """Describe a run's data set: fingerprint.json."""
    from octkit.planning import steps

    with _held_run(run_dir) as run:
        steps.fingerprint_run(run)


@app.command()
def plan(run_dir: RunFolder) -> None:
    """Derive the network from the fingerprint: plan.json."""
    from octkit.planning import steps

    with _held_run(run_dir) as run:
        steps.plan_run(run)


@app.command()
def preprocess(run_dir: RunFolder) -> None:
    """Crop, resample and normalise training cases; make the folds."""
    from octkit.planning import steps

    with _held_run(run_dir) as run:
        steps.preprocess_run(run)
        steps.split_run(run)


@app.command()
def train(
    run_dir: RunFolder,
    config: Annotated[str, Option(help="the plan's configuration")] = "2d",
    fold: Annotated[str, Option(metavar="K", help="a fold's number, or all")] = "0",
    resume: Annotated[bool, Option("--resume/--restart", help="use the checkpoint, or start anew")] = True,
    gpus: Annotated[int, Option(metavar="N", min=1, help="share each batch among so many GPUs of this machine")] = 1,
) -> None:
    """Train one fold, from its checkpoint if there is one; then predict the cases that it held out.

    --gpus N starts torchrun, which may also be called by hand: torchrun --nproc-per-node N -m octkit train RUN …
    """
    if fold != "all" and not (fold.isascii() and fold.isdigit() and len(fold) < 10):  # "²" is a digit, too
        raise OctkitError(f"--fold: found {fold!r}, expected a fold's number or all")
    if gpus > 1:
        again = ("--config", config, "--fold", fold, "--resume" if resume else "--restart")
        torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(gpus))
        raise Exit(subprocess.run([*torchrun, "-m", "octkit", "train", str(run_dir), *again], check=False).returncode)
    from octkit.inference.predict import predict_held_out
    from octkit.training.train import train_fold

    with _held_run(run_dir, shared=True) as run:
        train_fold(run, config, fold if fold == "all" else int(fold), resume=resume)
        if fold != "all" and os.environ.get("RANK", "0") == "0":  # torchrun's number: the others have learned along
            predict_held_out(run, config, int(fold))


@app.command()
def select(run_dir: RunFolder) -> None:
    """Choose configuration and post-processing by cross-validation: selection.json."""
    from octkit.inference.select import select

    with _held_run(run_dir) as run:
        chosen = select(run)
    for candidate in sorted(chosen.candidates, key=lambda found: -found.mean_dice):
        print(f"{candidate.mean_dice:.4f}  {candidate.name}")
    print(f"{chosen.configuration}: {chosen.why}")


@app.command()
def predict(
    model: Annotated[Path, Argument(help="a run's folder, a model's file, or default: the model in the box")],
    images: Annotated[Path, Argument(help="an image, NIfTI or device file, a folder of B-scans, or a folder of such")],
    out: Annotated[Path, Option("-o", "--out", metavar="DIR", help="where the masks go")],
    mirror: Annotated[bool | None, Option("--mirror/--no-mirror", help="average over mirrored copies; "
                                          "default: as the model's settings say")] = None,
    probabilities: Annotated[bool, Option("--probabilities", help="write <name>.npz as well")] = False,
    um_per_px: Scale = None,
    circle: Annotated[bool | None, Option("--circle/--no-circle", help="whether the scans are full circles; "
                                          "default: as those that the model was made from")] = None,
    precision: Annotated[str | None, Option(metavar="NAME", help="float32 or bfloat16; default: as trained")] = None,
    pictures: Annotated[bool, Option("--pictures/--no-pictures", help="draw boundaries, and index.html")] = True,
    scheduler: Scheduler = None, workers: Workers = None,
) -> None:
    """Segment scans of any size: a PNG for each, in GOALS greys, or a NIfTI file for each volume.

    The model in the box (default) reads circle scans around the optic disc. Others are flagged in quality.csv.
    """
    from octkit.common.cluster import workers_of
    from octkit.inference.predict import Crew, predict_scans
    from octkit.inference.predict_folder import predict_folder
    from octkit.inference.sliding_window import Predictor
    if pictures:
        from octkit.figures.overlays import Overlays  # its matplotlib takes a second to import

    predictor = Predictor.load(model, mirror=mirror, precision=precision)
    with workers_of(scheduler, workers) as found:
        if crew := Crew(found, model, (mirror, precision)) if scheduler or workers else None:
            images, out = images.absolute(), out.absolute()  # a worker may have another working folder
        written = predict_folder(predictor, images, out, probabilities, um_per_px, circle,
                                 way=partial(predict_scans, drawer=Overlays(out) if pictures else None, crew=crew))
    print(f"{out}: {len(written)} masks" + (f"; {out / 'index.html'} shows them, the worst first" if pictures else ""))


@app.command()
def export(
    run_dir: RunFolder,
    out: Annotated[Path, Option("-o", "--out", metavar="FILE", help="the file to write")],
    onnx: Annotated[bool, Option("--onnx", help="the network alone, for ONNX runtimes")] = False,
) -> None:
    """Write a run's model as one file, to predict with."""
    from octkit.exchange import onnx as onnxfile
    from octkit.network import model_file
    from octkit.planning.run import Run

    if onnx:
        onnxfile.export_onnx(model_file.open_model(run_dir), out)
    else:
        model_file.export_run(Run(run_dir), out)


@app.command()
def import_nnunet(
    source: Annotated[Path, Argument(help="a trained model's folder (plans.json, fold_*) or zip, or a raw data set")],
    out: Annotated[Path, Option("-o", "--out", help="the model's file, or the data set's folder")],
    checkpoint: Annotated[str | None, Option(metavar="KIND", help="of a model: final, best or latest; default: final, "
                                             "or best where no fold has that")] = None,
) -> None:
    """Take in a model or a data set of nnU-Net's."""
    from octkit.exchange import nnunet_data, nnunet_models

    if (source / "imagesTr").is_dir():
        nnunet_data.import_dataset(source, out)
    else:
        nnunet_models.import_model(source, out, checkpoint)


@app.command()
def export_nnunet(
    source: Annotated[Path, Argument(help="a run's folder, a model's file, default, or a data set's folder")],
    out: Annotated[Path, Option("-o", "--out", metavar="FOLDER", help="for the model's folders, or the new data set")],
) -> None:
    """Write a model or a data set for nnU-Net."""
    from octkit.exchange import nnunet_data, nnunet_models
    from octkit.network import model_file
    from octkit.planning.run import Run

    if str(source) == "default" or source.is_file() or Run(source).exists:
        nnunet_models.export_model(model_file.open_model(source), out)
    else:
        nnunet_data.export_dataset(source, out)


@app.command()
def evaluate(
    predicted: Annotated[Path, Argument(help="folder of predicted masks: images or volumes")],
    truth: Annotated[Path, Argument(help="folder of true masks, by the same names")],
    out: Annotated[Path | None, Option("-o", "--out", metavar="FILE", help="all scores, as JSON")] = None,
    layers: Annotated[list[str] | None, Option("--layer", metavar="NAME", help="score this layer alone, where "
                                               "the truth has no other; may be repeated")] = None,
    um_per_px: Scale = None,
    groups: Annotated[Path | None, Option(metavar="FILE", help="a groups.csv (data/README.md): means over people, "
                                          "with intervals")] = None,
    sectors: Annotated[bool, Option("--sectors", help="of circle scans in GOALS greys: also how far off mean thickness "
                                    "is in each sector")] = False,
) -> None:
    """Score masks by layer: Dice, MED, thickness error."""
    from octkit.common.files import write_json
    from octkit.data.groups import people_of
    from octkit.evaluation.evaluate import grouped, in_words, score_folder
    from octkit.layers.thickness import sector_errors, sectors_in_words

    scale = um_per_px and (um_per_px[0] / 1000, um_per_px[1] / 1000)
    scores = score_folder(predicted, truth, scale, layers or LAYERS)
    people = people_of(groups, scores["cases"]) if groups else None
    if people:
        scores = grouped(scores, people)
    if sectors:
        scores["sectors"] = sector_errors(predicted, truth, um_per_px and um_per_px[0], people)
    if out:
        write_json(out, scores)
    print(in_words(scores), *([sectors_in_words(scores["sectors"])] if sectors else []), sep="\n\n")


@app.command()
def thickness(
    masks: Annotated[Path, Argument(help="folder of masks of circle scans, in GOALS greys")],
    out: Annotated[Path, Option("-o", "--out", metavar="FILE", help="the table, as CSV")],
    um_per_px: Annotated[float | None, Option(metavar="X", help="depth of a pixel; default: as known beside a mask "
                                         "(NAME.scale.json), else in pixels")] = None,
    eye: Annotated[str | None, Option(metavar="R|L", help="the side of all these eyes, for clock hours; "
                                  "default: as known beside a mask")] = None,
) -> None:
    """Measure layers around the circle: global, quadrants, sectors, hours, and how much of each was seen.

    Sectors mean something in circle scans around the optic disc alone. Lines known as such (NAME.scale.json) get none.
    """
    from octkit.layers.thickness import thickness_table, write_csv

    rows = thickness_table(masks, um_per_px, eye)
    write_csv(out, rows)
    print(f"{out}: thickness of {len({row['case'] for row in rows})} scans")


@app.command()
def lessons(
    folder: Annotated[Path, Argument(metavar="DIR", help="gets notebooks/, reports/ and data/")],
    language: Language = None,
) -> None:
    """Lay the lessons out to work on; called again, it brings newer ones and keeps those that you have changed."""
    from octkit.lessons.layout import lay_out

    choose(language)
    lay_out(folder)
    # Through files, as other users of a machine reach the ports of its kernels; Windows has none.
    windows = sys.platform == "win32"
    option = "" if windows else " --KernelManager.transport=ipc"
    spoken = f"{'set ' * windows}{VARIABLE}={language}{'&' * windows} " if language else ""  # for figures
    print(f"{folder / 'notebooks'}: open it with `{spoken}jupyter lab{option}`, and begin with 00_start.ipynb")


@app.command()
def device(
    file: Annotated[Path, Argument(help="Heidelberg's .vol, .E2E or XML export, Topcon's .fda or .fds, DICOM (.dcm)")],
    out: Annotated[Path | None, Option("-o", "--out", metavar="DIR", help="a folder for this file alone")] = None,
    inside: Annotated[bool, Option("--list", help="say what is inside, and write nothing")] = False,
) -> None:
    """Turn a device's file into image, scale and the device's own layers."""
    from octkit.data.device_files import convert, open_device

    if (out is None) != inside:
        raise OctkitError("device: expected -o DIR or --list")
    print(*(convert(file, out) if out else (f"{name}: {scan}" for name, scan in open_device(file).items())), sep="\n")


@app.command()
def export_masks(
    source: Annotated[Path, Argument(help="a run's folder, or a folder of masks in GOALS greys or NIfTI")],
    out: Annotated[Path, Argument(metavar="OUT", help="a new folder")],
    program: Annotated[str, Option("--for", metavar="NAME", help="itksnap, or labelme (2-D scans)")],
    images: Annotated[Path | None, Option(metavar="DIR", help="where the scans of a folder's masks lie")] = None,
) -> None:
    """Write masks and their scans to be corrected by hand, for octkit import-masks."""
    from octkit.exchange import corrections

    print(f"{out}: {len(corrections.export_masks(source, out, program, images))} masks")


@app.command()
def import_masks(
    edited: Annotated[Path, Argument(help="a folder of export-masks; scans that are deleted in it are left out")],
    out: Annotated[Path, Argument(metavar="OUT", help="a new folder: a data set, for train.extra_data as well")],
) -> None:
    """Take corrected masks in, say what changed, and measure layers again: thickness.csv."""
    from octkit.exchange import corrections

    print(*map(": ".join, corrections.import_masks(edited, out).items()), sep="\n")


@app.command()
def classify(run_dir: RunFolder) -> None:
    """Answer whether it is glaucoma: train a ResNet50 a fold, fit the thickness model and both together, choose."""
    from octkit.classification import measure  # and never torch: the two do not share a process
    from octkit.evaluation.records import Answers

    with _held_run(run_dir, "classifier") as run:
        measure.train_networks(run)
        if (found := measure.answer(run))["lacking"]:
            print(f"no thickness model: {found['lacking']}")
        for where, answers in Answers.model_validate(found).scores.items():
            print(f"{where}: " + ", ".join(f"{name} AUC {scores.auc}" for name, scores in answers.items()))
        print(f"{run.classifier / 'predictions.csv'}: the answer of {found['chosen']}")


@app.command()
def submit(
    source: Annotated[Path | None, Argument(metavar="RUN", help="a run's folder")] = None,
    out: Annotated[Path | None, Option("-o", "--out", metavar="ZIP", help="the archive to write")] = None,
    check: Annotated[Path | None, Option("--check", metavar="ZIP", help="check an archive instead")] = None,
    images: Annotated[Path | None, Option("--images", metavar="DIR", help="the images that it answers to")] = None,
) -> None:
    """Write a run's submission, or check one."""
    from octkit.evaluation import submission
    from octkit.planning.run import Run

    if check and images and not (source or out):
        submission.check_submission(check, images)
        print(f"{check}: valid")
    elif source and out and not (check or images):
        run = Run(source)
        submission.submit(run.dataset, run.predictions("validation"), run.classifier / "predictions.csv", out)
        print(f"{out}: written and checked")
    else:
        raise OctkitError("submit: expected RUN -o ZIP, or --check ZIP --images DIR")
