"""Run folders from strangers: nothing outside of them is deleted, written or shown; each of these once got through."""

import json
import os
import re
import shutil
import subprocess
import uuid

import pytest
from helpers import make_run, write_goals

from octkit.common import hashes
from octkit.common.files import read_json, write_json
from octkit.common.settings import PROJECT
from octkit.data.layouts.detect import list_scans
from octkit.lessons import ledger, notebook
from octkit.lessons.experiments import experiment
from octkit.planning.run import Run

# Where a link is put, and which of the victim's things it leads to.
LINKS = {"ledger.jsonl": "profile", ".lock": "profile", ".lock.db": "profile", "settings.json": "settings.json",
         "notebooks/01_data.running.ipynb": "profile", "notebooks": "pictures", "figures": "pictures",
         "preprocessed/2d": "pictures", "predictions/validation": "pictures",
         "predictions/.validation.unfinished": "pictures", "models/2d/fold_0/events.out.tfevents.1": "profile"}


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planned")
    return make_run(folder / "run", write_goals(folder / "goals"))


@pytest.fixture
def run(planned, tmp_path):
    """A stranger's run, and beside it the things of the one who opens it."""
    shutil.copytree(planned, tmp_path / "run")
    (tmp_path / "home" / "pictures").mkdir(parents=True)
    (tmp_path / "home" / "profile").write_text("alias ll='ls -l'\n")
    for name in ("a.png", "0001.json"):
        (tmp_path / "home" / "pictures" / name).write_bytes(b"mine")
    shutil.copy(planned / "settings.json", tmp_path / "home")
    return Run(tmp_path / "run")


def at_home(run):
    home = run.folder.parent / "home"
    return {path: path.is_file() and path.read_bytes() for path in home.rglob("*")}


@pytest.mark.parametrize("command", ["preprocess RUN", "run --run-dir RUN"])
@pytest.mark.parametrize("link", LINKS)
def test_no_command_goes_where_a_link_leads(octkit, run, monkeypatch, link, command):
    monkeypatch.setattr(notebook, "execute", lambda *_: pytest.fail("a lesson was started"))
    path, before = run.folder / link, at_home(run)
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(run.folder.parent / "home" / LINKS[link])
    code, _, err = octkit(*command.replace("RUN", str(run.folder)).split())
    assert code == 2 and f"{path}: is a symbolic link" in err
    assert at_home(run) == before


def test_a_run_may_be_reached_through_a_link_and_hold_links_that_stay(octkit, run):
    elsewhere = run.folder.rename(run.folder.with_name("big disk"))
    run.folder.symlink_to(elsewhere)
    (elsewhere / "newest").symlink_to("models")
    (elsewhere / ".#plan.json").symlink_to("me@here.1234")  # an editor's lock: of nothing, and inside
    assert octkit("plan", run.folder)[0] == 0


def test_a_configuration_has_one_of_four_names(octkit, run):
    plan = read_json(run.plan_file)
    plan["configurations"]["../../home/pictures"] = plan["configurations"].pop("2d")
    write_json(run.plan_file, plan)
    before = at_home(run)
    code, _, err = octkit("preprocess", run.folder)
    assert code == 2 and str(run.plan_file) in err and "../../home/pictures" in err
    assert at_home(run) == before


@pytest.mark.parametrize(("file", "change"), [
    ("splits.json", lambda splits: splits[0]["train"].append("../../home/pictures/a")),
    ("splits.json", lambda splits: splits[0]["validation"].append("..")),
    ("selection.json", lambda chosen: chosen["configurations"].append("../2d")),
    ("selection.json", lambda chosen: chosen["folds"].append("0/../../../x"))])
def test_names_in_a_runs_files_lead_nowhere(octkit, run, file, change):
    write_json(run.selection_file, {"configuration": "2d", "configurations": ["2d"], "why": "", "folds": [0],
                                    "steps": [], "circle": True, "surfaces": False})
    content = read_json(run.folder / file)
    change(content)
    write_json(run.folder / file, content)
    code, _, err = octkit(*(["train", run.folder] if file == "splits.json" else ["export", run.folder, "-o", "x.zip"]))
    assert code == 2 and f"{run.folder / file}: is not valid" in err


@pytest.mark.parametrize("name", ["../home/profile", "/etc/passwd", "figures/../../home/profile", "a\\..\\b", "", "."])
def test_a_ledgers_files_lie_in_the_run(run, name):
    line = ledger.Line(step="01_data", status="done", outputs={"figures/01.png": (1, 1, "x")}).model_dump(mode="json")
    run.ledger_file.write_text(json.dumps(line) + "\n" + json.dumps(line | {"outputs": {name: (1, 1, "x")}}) + "\n")
    assert [line.contents for line in ledger.read(run)] == [{"figures/01.png": "x"}]


def test_an_experiment_shares_files_not_links(run, monkeypatch):
    (run.folder / "figures").mkdir()
    (run.folder / "figures" / "real.png").write_bytes(b"a picture")
    (run.folder / "figures" / "01_scans.png").symlink_to("real.png")
    monkeypatch.setattr(ledger, "code_version", lambda: "the same")
    other = experiment(run, "b", infer={"mirror": True})
    shared = other.folder / "figures" / "01_scans.png"
    assert shared.read_bytes() == b"a picture" and not shared.is_symlink()
    assert os.path.samefile(shared, run.folder / "figures" / "real.png")


def test_what_a_stranger_wrote_controls_no_terminal(octkit, run):
    """Names of files, labels, texts of the ledger: none reaches the terminal as it is."""
    scan = run.settings.data.root / "Train" / "Image" / "0001\x1b[2J\x9b\u202e.txt"
    scan.write_text("")
    try:
        seen = "".join(map(str, octkit("doctor", run.settings.data.root))).replace("\r", "")
    finally:
        scan.unlink()
    assert "0001\\x1b[2J\\x9b\\u202e.txt" in seen
    made_with = {"octkit": "\x1b]0;owned\x07", "code": "x"}
    ledger.append(run, ledger.Line(step="\x1b[8m", status="done", made_with=made_with))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(notebook, "execute", lambda *_: None)
        seen += "".join(map(str, octkit("run", "--from", run.settings_file)))
    assert "owned" in seen
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(seen)


@pytest.mark.parametrize("command", ["--from SETTINGS", "--like RUN --run-dir OUT --set seed=5"])
def test_not_all_files_of_a_machine_are_read_because_settings_name_them(octkit, run, monkeypatch, command):
    """A stranger's run says that its data lie in /: their hash would be that of all files of the machine."""
    monkeypatch.setattr(hashes, "_visible_files", lambda root: pytest.fail(f"{root} is read"))
    content = read_json(run.settings_file)
    content["data"]["dir"] = str(run.folder.parent / "home")
    write_json(run.settings_file, content)
    ledger.append(run, ledger.Line(step="01_data", status="done", made_with={"code": "x"}, data=["x"]))
    places = {"SETTINGS": run.settings_file, "RUN": run.folder, "OUT": run.folder.with_name("out")}
    code, _, err = octkit("run", *(str(places.get(word, word)) for word in command.split()))
    assert code == 2 and "home: found no data set" in err


@pytest.mark.parametrize("command", ["predict default HERE -o OUT", "thickness HERE -o OUT", "evaluate HERE THERE",
                                     "evaluate THERE HERE", "import-nnunet HERE -o OUT"])
@pytest.mark.parametrize("link", ["0001.png", "stack/0.png", "0001.scale.json"])
def test_no_link_leads_out_of_a_folder_of_scans(octkit, tmp_path, command, link):
    """A stranger's folder would have a private picture read, and its copy lie among the results."""
    for folder in ("here/stack", "there"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "private").write_bytes(b"mine")
    (tmp_path / "there" / "0001.png").write_bytes((PROJECT / "docs/example.png").read_bytes())
    (tmp_path / "here" / link).symlink_to(tmp_path / "private")
    places = {"HERE": tmp_path / "here", "THERE": tmp_path / "there", "OUT": tmp_path / "out"}
    code, _, err = octkit(*(str(places.get(word, word)) for word in command.split()))
    assert code == 2 and f"{tmp_path / 'here' / link}: is a symbolic link to {tmp_path / 'private'}" in err
    assert not (tmp_path / "out").exists()


def test_a_link_that_one_names_oneself_is_followed(tmp_path):
    write_goals(tmp_path / "set", train=2)
    (tmp_path / "folder").symlink_to(tmp_path / "set" / "Train" / "Image")
    (tmp_path / "scan.png").symlink_to(tmp_path / "set" / "Train" / "Image" / "0001.png")
    assert len(list_scans(tmp_path / "folder")) == 2 and list_scans(tmp_path / "scan.png") == (tmp_path / "scan.png",)


def test_the_lab_talks_to_its_kernels_through_files(tmp_path):
    """With the options of `make lab` sockets are files, in a folder of this user's alone whose name is short enough."""
    from jupyter_client.manager import KernelManager
    from traitlets.config.loader import KVArgParseConfigLoader

    [recipe] = re.findall(r" JUPYTER_RUNTIME_DIR=(.*?) \\\s+\$\(BIN\)/jupyter lab (.*?)\n\n",
                          (PROJECT / "Makefile").read_text(), re.DOTALL)
    made = subprocess.run(["sh", "-c", f"echo {recipe[0].replace('$$', '$').replace('/tmp/', f'{tmp_path}/')}"],
                          capture_output=True, text=True, check=True).stdout.strip()
    assert os.stat(made).st_mode & 0o777 == 0o700 and "/tmp/octkit." in recipe[0]
    options = [word for word in recipe[1].split() if word.startswith("--KernelManager.")]
    manager = KernelManager(config=KVArgParseConfigLoader(options).load_config(),
                            connection_file=f"/tmp/octkit.XXXXXX/kernel-{uuid.uuid4()}.json")
    assert manager.transport == "ipc" and len(f"{manager.ip}-5") < 104
