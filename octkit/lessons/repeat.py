"""Where a run starts from: a profile, the settings of its own folder, or those of a run that is to be repeated.

A repetition says first what is not as it was. The ledger beside the settings tells what the run was made with (code,
packages, processor, threads) and a hash of its data. On one machine with the same of all of them a repetition ends with
the same bits, on a CPU; where something differs, that is what to look at first when numbers differ.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from octkit.common import hashes, settings
from octkit.common.errors import OctkitError
from octkit.lessons import ledger, run_all

# What a run's results are; beside them it leaves times, dates and pictures.
RESULTS = ("fingerprint.json", "plan.json", "splits.json", "models/*/*/log.csv", "selection.json", "scores.json",
           "predictions/**/*.png", "predictions/**/*.nii.gz", "thickness.csv", "ablation.json", "classifier/log.csv",
           "classifier/predictions.csv", "submission.zip")


def choose(profile: str | None, data: Path | None, run_dir: Path | None,
           changes: Sequence[str]) -> tuple[Path, settings.Settings]:
    """The folder and the settings of `octkit run`.

    A folder with settings goes on with them unless a `profile` is named; a new one takes the profile's, or the demo's.
    `changes` are "key=value". Raises OctkitError for what does not fit together.
    """
    if data and not (profile or run_dir):
        raise OctkitError("--data: expected --profile or --run-dir with it, or the demo's run folder would be used")
    run_dir = run_dir or settings.PROJECT / "reports" / (profile or "demo")
    if profile is None and (run_dir / "settings.json").exists():
        chosen = settings.load(run_dir / "settings.json")
    else:
        chosen = settings.from_profile(profile or "demo")
    if data:  # phantoms are never made at a path that was meant to hold scans
        changes = [f"data.dir={data.resolve()}", "data.phantom=null", *changes]
    return run_dir, settings.with_overrides(chosen, list(changes)) if changes else chosen


def repeat(source: Path, run_dir: Path | None = None, *changes) -> str:
    """Repeat the run of a settings.json; print what is not as it was, and return a sentence on how it came out.

    Raises OctkitError where anything is to be changed (`changes`, what other options of the command hold), and what
    `prepare` and `pipeline.run` raise.
    """
    if any(changes):
        raise OctkitError("--from: repeats a run as it was, expected no --profile, --data or --set with it")
    run_dir, chosen = prepare(source, run_dir)
    differ = differences(source)
    print(f"{run_dir}: repeats {Path(source).parent}; "
          + (f"not as it was: {'; '.join(differ)}" if differ else "code, packages, machine and data are as they were"))
    run_all.run(run_dir, chosen)
    same, differ = compare(Path(source).parent, run_dir)
    return (f"{run_dir}: all done; {same} of {same + len(differ)} results are the same to the last byte"
            + (f", not {', '.join(differ[:5])}{' …' if len(differ) > 5 else ''}" if differ else ""))


def prepare(source: Path, run_dir: Path | None = None) -> tuple[Path, settings.Settings]:
    """The folder and the settings of a repetition of the run that `source`, its settings.json, belongs to.

    The folder is `run_dir`, or one beside the run: X-again. Raises OctkitError where it is the run's own, or holds a
    run with other settings: nothing is ever overwritten. One that was stopped goes on.
    """
    chosen = settings.load(source)
    folder = Path(source).resolve().parent
    run_dir = Path(run_dir or folder.with_name(f"{folder.name}-again"))
    if run_dir.resolve() == folder:
        raise OctkitError(f"{run_dir}: is the folder of the run to repeat, expected another --run-dir")
    there = run_dir / "settings.json"
    if there.exists() and settings.load(there) != chosen:
        raise OctkitError(f"{run_dir}: holds a run with other settings than {source}, expected a new --run-dir")
    return run_dir, chosen


def differences(source: Path) -> list[str]:
    """What is not as it was when the run of this settings.json was made: code, packages, machine, data."""
    folder = Path(source).resolve().parent
    lines = ledger.read(folder)
    done = [line for step in dict.fromkeys(line.get("step") for line in lines)
            if (line := ledger.last(lines, step)) and line["status"] == "done" and "made_with" in line]
    if not done:
        return [f"{folder / 'ledger.jsonl'} does not tell what the run was made with"]
    now, found = settings.flat(ledger.made_with()), []
    for line in done:
        before = settings.flat(line["made_with"])
        found += [f"{key} {before.get(key)} -> {now.get(key)}" for key in sorted(before | now)
                  if before.get(key) != now.get(key)]
    chosen = settings.load(source)
    for line in done:
        roots = (chosen.data.root, *chosen.train.extra_roots)
        for root, before in zip(roots, line.get("data", ()), strict=False):
            now_there = hashes.data_contents(root)
            if now_there is None:
                found.append(f"{root} is not there any more" + (", and is made anew" if chosen.data.phantom else ""))
            elif now_there != before:
                found.append(f"{root}: its files have changed")
    return list(dict.fromkeys(found))


def compare(one: Path, other: Path) -> tuple[int, list[str]]:
    """How many results two runs have in common to the last byte, and the names of those that differ or are in one only.

    The columns that say how long an epoch took are left out.
    """
    mine, theirs = _results(Path(one)), _results(Path(other))
    differ = [name for name in sorted(mine | theirs) if mine.get(name) != theirs.get(name)]
    return len(mine | theirs) - len(differ), differ


def _results(run_dir: Path) -> dict[str, bytes]:
    return {path.relative_to(run_dir).as_posix(): _without_times(path) for pattern in RESULTS
            for path in run_dir.glob(pattern)}


def _without_times(path: Path) -> bytes:
    if path.name != "log.csv":
        return path.read_bytes()
    rows = csv.DictReader(io.StringIO(path.read_text()))
    return "\n".join(str({key: value for key, value in row.items() if key != "seconds"}) for row in rows).encode()
