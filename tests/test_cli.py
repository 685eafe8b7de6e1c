import errno
import os
import subprocess
import sys

import pytest
from helpers import write_volumes

from octkit import __version__
from octkit.common import locks, settings
from octkit.common.errors import OctkitError
from octkit.common.files import read_json, write_json
from octkit.data.volume_files import volume_size
from octkit.lessons import run_all
from octkit.lessons.notebook import NotebookFailed

COMMANDS = ["run", "compare", "report", "phantom", "doctor", "fingerprint", "plan", "preprocess", "train", "select",
            "predict", "export", "import-nnunet", "export-nnunet", "evaluate", "thickness", "lessons", "device",
            "export-masks", "import-masks", "classify", "submit"]
HEAVY = {"torch", "paddle", "matplotlib", "pandas", "papermill", "pydantic", "scipy", "albumentations", "cv2",
         "skimage", "sklearn", "rich", "eyepy", "pydicom"}


@pytest.fixture
def started(monkeypatch):
    """What `octkit run` would have run: [(run_dir, settings)]."""
    calls = []
    monkeypatch.setattr(run_all, "run_story", lambda run, chosen, **_: calls.append((run.folder, chosen)))
    return calls


def test_help_names_every_command_and_loads_nothing_heavy():
    code = "\n".join(["import sys", "sys.modules['fcntl'] = None  # as on Windows",
                      "from octkit import cli", "try:", "    cli.main(['--help'])",
                      "except SystemExit as end:", f"    print(end.code, {HEAVY} & set(sys.modules))"])
    run = subprocess.run([sys.executable, "-c", code], cwd=settings.PROJECT, capture_output=True, text=True)
    assert run.stdout.endswith("\n0 set()\n")
    listed = [line.split() for line in run.stdout.partition("Commands:\n")[2].splitlines() if line.startswith("  ")]
    assert [words[0] for words in listed] == COMMANDS


def test_predictions_and_their_pictures_load_no_library_that_only_others_need():
    code = ("import sys, octkit.inference.predict, octkit.figures.overlays; print({'pandas', 'scipy.stats', "
            "'distributed', 'sklearn', 'nibabel', 'matplotlib.pyplot'} & set(sys.modules))")
    run = subprocess.run([sys.executable, "-c", code], cwd=settings.PROJECT, capture_output=True, text=True)
    assert run.stdout.endswith("set()\n")


def test_python_m_octkit():
    run = subprocess.run([sys.executable, "-m", "octkit", "evaluate", "no", "where"], cwd=settings.PROJECT,
                         capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("octkit: no") and run.stderr.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(octkit, command):
    code, out, err = octkit(command, "--help")
    assert (code, err) == (0, "") and out.startswith(f"Usage: octkit {command}")


def test_without_a_command(octkit):
    assert octkit("--version") == (0, f"{__version__}\n", "")
    code, out, err = octkit()
    assert (code, err) == (0, "") and "Commands:" in out


@pytest.mark.parametrize("error, code, message", [
    (OctkitError("x.png: found nothing"), 2, "octkit: x.png: found nothing\n"),
    (NotebookFailed("07_train, cell [3] `x`: E: y"), 1, "octkit: 07_train, cell [3] `x`: E: y\n"),
    (ZeroDivisionError("by zero"), 1,
     "octkit: ZeroDivisionError: by zero (octkit --debug COMMAND … shows where)\n"),
    (RuntimeError("Too many open files. Communication with the workers is no longer possible."), 2,
     "octkit: too many open files: raise the limit (ulimit -n 4096), or lower train.workers\n"),
    (OSError(errno.ENOLCK, "No locks available"), 2,
     "octkit: octkit run --run-dir {run}: the system refused something ([Errno 37] No locks available); octkit "
     "--debug COMMAND … shows where\n"),
    (KeyboardInterrupt(), 130, "octkit: interrupted; the same command goes on from here\n"),
])
def test_errors_and_their_exit_codes(octkit, monkeypatch, tmp_path, error, code, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(run_all, "run_story", fail)
    assert octkit("run", "--run-dir", tmp_path) == (code, "", message.format(run=tmp_path))


MACHINES = {
    "a locale without UTF-8": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "output in ASCII": {"PYTHONIOENCODING": "ascii"},
    "output in Latin-1": {"PYTHONIOENCODING": "latin-1:strict"},
    "warnings are errors": {"PYTHONWARNINGS": "error"},
}


@pytest.mark.parametrize("environment", MACHINES.values(), ids=MACHINES)
def test_names_are_read_and_printed_in_utf_8(tmp_path, environment):
    folder = tmp_path / "视网膜 {x} [1]"
    folder.mkdir()
    code = "\n".join(["import os, sys, warnings", "from octkit import cli", "from octkit.data.doctor import data_set",
                      "def tell(data, _):", "    warnings.warn('x', stacklevel=1)", "    print(data, os.listdir(data))",
                      "    print(sys.getfilesystemencoding(), os.environ['PYTHONIOENCODING'])",
                      "data_set.tell = tell", "cli.main()"])
    (folder / "é").touch()
    done = subprocess.run([sys.executable, "-c", code, "doctor", folder], env=os.environ | environment,
                          cwd=settings.PROJECT, capture_output=True, encoding="utf-8")
    assert done.stdout == f"{folder} ['é']\nutf-8 utf-8:backslashreplace\n" and done.returncode == 0
    done = subprocess.run([sys.executable, "-m", "octkit", "doctor", folder], env=os.environ | environment,
                          cwd=settings.PROJECT, capture_output=True, encoding="utf-8")
    assert done.returncode == 2 and str(folder) in done.stderr and "UnicodeEncodeError" not in done.stderr


def test_a_command_takes_the_open_files_that_it_may_have(tmp_path):
    code = "\n".join(["import resource", "from octkit import cli", "from octkit.data.doctor import data_set",
                      "data_set.tell = lambda *_: print(resource.getrlimit(resource.RLIMIT_NOFILE))", "cli.main()"])
    done = subprocess.run(["bash", "-c", 'ulimit -Sn 100 && ulimit -Hn 200 && exec "$@"', "-", sys.executable, "-c",
                           code, "doctor", tmp_path], cwd=settings.PROJECT, capture_output=True, encoding="utf-8")
    assert done.stdout == "(200, 200)\n"


def test_debug_shows_the_traceback(octkit, monkeypatch):
    with pytest.raises(OctkitError, match="--size"):
        octkit("--debug", "phantom", "out", "--size", "x")
    monkeypatch.setenv("OCTKIT_DEBUG", "1")
    with pytest.raises(OctkitError, match="--size"):
        octkit("phantom", "out", "--size", "x")


def test_run_starts_from_a_profile(octkit, started, tmp_path):
    code, out, _ = octkit("run", "--profile", "smoke", "--set", "train.epochs=5", "--set", "seed=3")
    assert code == 0 and "report.html" in out
    octkit("run", "--run-dir", tmp_path / "new")
    (first, chosen), (second, default) = started
    assert first == settings.PROJECT / "reports" / "smoke" and second == tmp_path / "new"
    assert (chosen.profile, chosen.train.epochs, chosen.seed) == ("smoke", 5, 3)
    assert default == settings.from_profile("demo")


def test_run_goes_on_with_the_settings_of_its_folder(octkit, started, tmp_path):
    kept = settings.with_overrides(settings.from_profile("smoke"), ["train.epochs=5"])
    kept.save(tmp_path / "settings.json")
    octkit("run", "--run-dir", tmp_path)
    octkit("run", "--run-dir", tmp_path, "--set", "seed=3")
    _, out, _ = octkit("run", "--run-dir", tmp_path, "--profile", "smoke")
    assert f"{tmp_path / 'settings.json'}: is kept, though profile smoke" in out and "train.epochs 2 -> 5" in out
    _, out, _ = octkit("run", "--run-dir", tmp_path, "--profile", "smoke", "--set", "train.epochs=5")
    assert "is kept" not in out  # that is what was asked for
    code, _, err = octkit("run", "--run-dir", tmp_path, "--profile", "demo")
    assert code == 2 and "holds a run of profile smoke" in err
    assert [chosen for _, chosen in started] == [kept, settings.with_overrides(kept, ["seed=3"]), kept, kept]
    (tmp_path / "settings.json").unlink()
    octkit("run", "--run-dir", tmp_path, "--profile", "smoke")
    assert started[-1][1] == settings.from_profile("smoke")


def test_a_run_like_another_one_takes_its_settings_but_for_those_set(octkit, started, tmp_path):
    kept = settings.with_overrides(settings.from_profile("smoke"), ["train.epochs=5"])
    kept.save(tmp_path / "x" / "settings.json")
    command = ("run", "--like", tmp_path / "x", "--run-dir", tmp_path / "y", "--set", "seed=3")
    for _ in range(2):  # given again, it goes on
        assert octkit(*command)[0] == 0
    expected = settings.with_overrides(kept, ["seed=3"])
    assert started == [(tmp_path / "y", expected)] * 2 and settings.load(tmp_path / "y/settings.json") == expected
    assert settings.load(tmp_path / "x/settings.json") == kept
    code, _, err = octkit(*command, "--set", "train.epochs=6")
    assert code == 2 and "train.epochs 6 -> 5" in err
    for wrong in (command[:3], (*command, "--profile", "smoke"), (*command[:5], "--set", "train.epochs=5")):
        assert octkit(*wrong)[0] == 2


def test_run_repeats_another_one(octkit, started, tmp_path):
    kept = settings.with_overrides(settings.from_profile("smoke"), ["train.epochs=5"])
    kept.save(tmp_path / "x" / "settings.json")
    code, out, _ = octkit("run", "--from", tmp_path / "x" / "settings.json")
    assert code == 0 and "ledger.jsonl does not tell what the run was made with" in out
    assert started == [(tmp_path / "x-again", kept)]
    for other in (("--profile", "smoke"), ("--data", "scans"), ("--set", "seed=3"), ("--like", "x")):
        code, _, err = octkit("run", "--from", tmp_path / "x" / "settings.json", *other)
        assert code == 2 and err.startswith("octkit: --from: repeats a run as it was")


@pytest.mark.parametrize("command, alone", [("fingerprint", True), ("plan", True), ("preprocess", True),
                                            ("select", True), ("train", False), ("classify", False)])
def test_a_step_refuses_a_folder_in_which_a_run_is_at_work(octkit, tmp_path, command, alone):
    settings.from_profile("smoke").save(tmp_path / "settings.json")
    with locks.locked(tmp_path):  # as octkit run does
        code, _, err = octkit(command, tmp_path)
    assert code == 2 and f"process {os.getpid()} is running in this folder" in err
    with locks.held(tmp_path, "models/2d/fold_4"):  # a training: only what wants the folder for itself is refused
        _, _, err = octkit(command, tmp_path)
        assert ("is running in this folder" in err) == alone


def test_one_classifier_is_trained_at_a_time(octkit, tmp_path):
    settings.from_profile("smoke").save(tmp_path / "settings.json")
    with locks.held(tmp_path, "classifier"):
        code, _, err = octkit("classify", tmp_path)
    assert code == 2 and f"classifier: process {os.getpid()} is running in this folder" in err


def test_given_data_are_never_made_up(octkit, started, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    octkit("run", "--data", "scans", "--run-dir", "run")
    [(_, chosen)] = started
    assert chosen.data.root == tmp_path / "scans" and chosen.data.phantom is None


def test_evaluate_and_thickness(octkit, goals, tmp_path):
    truth = goals / "Truth" / "Layer_Masks"
    code, out, err = octkit("evaluate", truth, truth, "-o", tmp_path / "scores.json", "--um-per-px", 4, 10)
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[1:3] == [["metric", "rnfl", "gcipl", "choroid", "unit"], ["dice", *["1.0000"] * 3, "0", "to", "1"]]
    scores = read_json(tmp_path / "scores.json")
    assert scores["spacing_mm"] == [0.004, 0.01] and scores["mean"]["dice"] == 1.0
    _, out, _ = octkit("evaluate", truth, truth, "--layer", "gcipl")
    assert out.splitlines()[1].split() == ["metric", "gcipl", "unit"]
    (tmp_path / "groups.csv").write_text("ImgName,person,eye\n7,a,R\n8,b,\n9,c,\n")
    code, out, _ = octkit("evaluate", truth, truth, "-o", tmp_path / "scores.json", "--groups", tmp_path / "groups.csv")
    assert code == 0 and "2 people" in out and read_json(tmp_path / "scores.json")["people"] == 2
    (tmp_path / "groups.csv").write_text("ImgName,person,eye\n7,a,R\n")
    assert octkit("evaluate", truth, truth, "--groups", tmp_path / "groups.csv")[0] == 2
    code, out, _ = octkit("evaluate", truth, truth, "-o", tmp_path / "scores.json", "--sectors")
    assert code == 0 and "rnfl     GH_TI  +0.00 +0.00 +0.00" in out
    assert read_json(tmp_path / "scores.json")["sectors"]["layers"]["gcipl"]["I"]["absolute"]["groups"] == 2
    # The scans' RNFL is 6 px thick everywhere.
    code, out, _ = octkit("thickness", truth, "-o", tmp_path / "t.csv", "--um-per-px", 4)
    assert code == 0 and f"{tmp_path / 't.csv'}: thickness of 2 scans" in out
    assert "0007,,um,rnfl,24.000,24.000" in (tmp_path / "t.csv").read_text()
    octkit("thickness", truth, "-o", tmp_path / "t.csv", "--eye", "L")
    assert "0007,L,px,rnfl," + ",".join(["6.000"] * 23) in (tmp_path / "t.csv").read_text()


def test_the_doctor_proposes_groups_and_overwrites_none(octkit, goals):
    code, out, _ = octkit("doctor", goals, "--groups")
    assert code == 0 and str(goals / "groups.csv") in out
    written = (goals / "groups.csv").read_text()
    assert written.startswith("ImgName,person,eye,sure") and len(written.splitlines()) == 9
    code, _, err = octkit("doctor", goals, "--groups")
    assert code == 2 and str(goals / "groups.csv") in err and (goals / "groups.csv").read_text() == written


def test_evaluate_takes_volumes_and_their_own_scale(octkit, tmp_path):
    masks = write_volumes(tmp_path / "set", train=2) / "Train" / "Mask"
    code, out, err = octkit("evaluate", masks, masks, "--layer", "rnfl", "-o", tmp_path / "scores.json")
    assert (code, err) == (0, "") and out.splitlines()[2].split()[:2] == ["dice", "1.0000"]
    assert read_json(tmp_path / "scores.json")["spacing_mm"] == pytest.approx([0.12, 0.004, 0.015])
    assert octkit("evaluate", masks, masks, "--um-per-px", 2, 15, "-o", tmp_path / "scores.json")[0] == 0
    assert read_json(tmp_path / "scores.json")["spacing_mm"] == [0.002, 0.015]


def test_phantom_then_the_steps_before_training(octkit, tmp_path):
    data, run = tmp_path / "phantoms", tmp_path / "run"
    assert octkit("phantom", data, "--train", 5, "--val", 2, "--size", "96x128", "--seed", 4)[0] == 0
    write_json(run / "settings.json", settings.with_overrides(
        settings.from_profile("smoke"), [f"data.dir={data}", "data.phantom=null"]).model_dump(mode="json"))
    for command in ("fingerprint", "plan", "preprocess"):
        code, _, err = octkit(command, run)
        assert code == 0, err
    assert {path.name for path in run.iterdir()} == {"settings.json", "fingerprint.json", "plan.json", "splits.json",
                                                     "preprocessed", ".lock", ".lock.db"}


def test_phantom_volumes(octkit, tmp_path):
    data = tmp_path / "volumes"
    code, _, err = octkit("phantom", data, "--kind", "peripapillary", "--train", 1, "--val", 1, "--size", "4x64x70")
    assert code == 0, err
    assert volume_size(data / "Train" / "Image" / "0001.nii.gz") == (4, 64, 70)
    assert volume_size(data / "Truth" / "Mask" / "0002.nii.gz") == (4, 64, 70)
