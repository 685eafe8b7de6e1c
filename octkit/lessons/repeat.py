"""Where a run starts from: a profile, the settings of its own folder, or those of a run that is to be repeated.

A repetition says first what is not as it was. The ledger beside the settings tells what the run was made with (code,
packages, processor, threads) and a hash of its data. On one machine with the same of all of them a repetition ends with
the same bits, on a CPU; where something differs, that is what to look at first when numbers differ.
"""

from collections.abc import Sequence
from pathlib import Path

from octkit.common import hashes, settings
from octkit.common.cluster import Here
from octkit.common.errors import OctkitError
from octkit.common.files import read_table
from octkit.common.messages import say
from octkit.common.settings import Settings
from octkit.data.layouts import detect
from octkit.lessons import experiments, ledger, run_all
from octkit.phantoms.data_sets import check_place
from octkit.planning.run import Run


def choose(profile: str | None, data: Path | None, run_dir: Path | None, changes: Sequence[str],
           like: Path | None = None) -> tuple[Run, Settings]:
    """The run and the settings of `octkit run`.

    A folder with settings goes on with them, and says where they are not those of the `profile` that is named; a new
    one takes the profile's, or the demo's, or those of the run that it is to be `like`, with which it then shares what
    is the same. `changes` are "key=value". Raises OctkitError for what does not fit together.
    """
    if like and (profile or not run_dir):
        raise OctkitError("--like: expected --run-dir with it, the new run's folder, and no --profile")
    if data and not (profile or run_dir):
        raise OctkitError("--data: expected --profile or --run-dir with it, or the demo's run folder would be used")
    run = Run(run_dir or settings.PROJECT / "reports" / (profile or "demo"))
    if data:  # phantoms are never made at a path that was meant to hold scans
        changes = [f"data.dir={data.resolve()}", "data.phantom=null", *changes]
    start = Run(like).settings if like else settings.from_profile(profile or "demo")
    start = settings.with_overrides(start, list(changes)) if changes else start
    if like:
        return experiments.run_like(Run(like), run.folder, _checked(start, changes)), start
    if not run.exists:
        return run, start
    if profile not in (None, run.settings.profile):
        raise OctkitError(f"{run.folder}: holds a run of profile {run.settings.profile}, found --profile {profile}, "
                          "expected another --run-dir, or no --profile")
    chosen = settings.with_overrides(run.settings, list(changes)) if changes else run.settings
    if profile and (differ := settings.changes(start.model_dump(mode="json"), chosen.model_dump(mode="json"))):
        say(f"{run.settings_file}: is kept, though profile {profile} has other settings ({', '.join(differ)}); remove "
            "the file to begin with the profile's, or take another --run-dir")
    return run, _checked(chosen, changes)


def _checked(chosen: Settings, changes: Sequence[str] = ()) -> Settings:
    """The settings, unless they would have phantoms made where no command has asked for them (`check_place`).

    Nor where data.dir is a folder without a data set: all files of what a stranger names (/proc) would be read.
    """
    for root in filter(Path.is_dir, chosen.data_roots):
        detect.open_dataset(root, lambda _: None)
    if chosen.data.phantom and not any(change.startswith("data.dir=") for change in changes):
        check_place(chosen.data.root, chosen.data.phantom)
    return chosen


def repeat(source: Path, run_dir: Path | None = None, *changes: object, workers: Here | None = None) -> str:
    """Repeat the run of a settings.json; say what is not as it was, and return a sentence on how it came out.

    Raises OctkitError where anything is to be changed (`changes`, what other options of the command hold), and what
    `prepare` and `run_all.run_story` raise.
    """
    if any(changes):
        raise OctkitError("--from: repeats a run as it was, expected no --profile, --data or --set with it")
    run, chosen = prepare(source, run_dir)
    before = Run(Path(source).parent)
    differ = differences(source)
    say(f"{run.folder}: repeats {before.folder}; "
        + (f"not as it was: {'; '.join(differ)}" if differ else "code, packages, machine and data are as they were"))
    run_all.run_story(run, chosen, workers=workers)
    same, differ = compare(before, run)
    return (f"{run.folder}: all done; {same} of {same + len(differ)} results are the same to the last byte"
            + (f", not {', '.join(differ[:5])}{' …' if len(differ) > 5 else ''}" if differ else ""))


def prepare(source: Path, run_dir: Path | None = None) -> tuple[Run, Settings]:
    """The run and the settings of a repetition of the run that `source`, its settings.json, belongs to.

    Its folder is `run_dir`, or one beside the run: X-again. Raises OctkitError where it is the run's own, or holds a
    run with other settings: nothing is ever overwritten. One that was stopped goes on.
    """
    chosen = settings.load(source)
    folder = Path(source).resolve().parent
    run = Run(run_dir or folder.with_name(f"{folder.name}-again"))
    if run.folder.resolve() == folder:
        raise OctkitError(f"{run.folder}: is the folder of the run to repeat, expected another --run-dir")
    if run.exists and run.settings != chosen:
        raise OctkitError(f"{run.folder}: holds a run with other settings than {source}, expected a new --run-dir")
    return run, _checked(chosen)


def differences(source: Path) -> list[str]:
    """What is not as it was when the run of this settings.json was made: code, packages, machine, data."""
    run, chosen = Run(Path(source).resolve().parent), settings.load(source)
    done = [line for line in ledger.ends(run).values() if line.status == "done" and line.made_with]
    if not done:
        return [f"{run.ledger_file} does not tell what the run was made with"]
    now = ledger.made_with()
    found = [change for line in done for change in settings.changes(line.made_with or {}, now)]
    for line in done:
        for root, before in zip(chosen.data_roots, line.data or (), strict=False):
            now_there = hashes.data_contents(root)
            if now_there is None:
                found.append(f"{root} is not there any more" + (", and is made anew" if chosen.data.phantom else ""))
            elif now_there != before:
                found.append(f"{root}: its files have changed")
    return list(dict.fromkeys(found))


def compare(one: Run, other: Run) -> tuple[int, list[str]]:
    """How many results two runs have in common to the last byte, and the names of those that differ or are in one only.

    The columns that say how long an epoch took are left out.
    """
    mine, theirs = _results(one), _results(other)
    differ = [name for name in sorted(mine | theirs) if mine.get(name) != theirs.get(name)]
    return len(mine | theirs) - len(differ), differ


def _results(run: Run) -> dict[str, bytes]:
    """A run's results, name -> content; beside them it leaves times, dates and pictures."""
    files = [run.fingerprint_file, run.plan_file, run.splits_file, run.selection_file, run.scores_file,
             run.thickness_file, run.ablation_file, run.submission_file,
             *(run.classifier / name for name in ("answers.json", "probabilities.csv", "predictions.csv"))]
    for pattern in ("predictions/**/*.png", "predictions/**/*.nii.gz", "predictions/**/*.csv"):
        files += run.folder.glob(pattern)
    found = {path: path.read_bytes() for path in files if path.exists()}
    for path in (*run.folder.glob("models/*/fold_*/log.csv"), *run.classifier.glob("fold_*/log.csv")):
        log = read_table(path, (), (), "run the step again that writes it")
        found[path] = log.drop(columns="seconds", errors="ignore").to_csv().encode()
    return {path.relative_to(run.folder).as_posix(): content for path, content in found.items()}
