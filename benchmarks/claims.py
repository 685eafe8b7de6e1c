"""The page of the report's claims, from a run that has tested them.

    octkit run --profile claims                        # an hour or more on two cores; goes on where it was stopped
    python benchmarks/claims.py reports/claims         # prints the page
    python benchmarks/claims.py reports/claims --write # docs/claims.md
                       … --note "beside other work"    # a sentence on how it was computed
"""

import argparse
from datetime import date
from pathlib import Path

from octkit.common.files import read_json, write_atomic
from octkit.lessons import ledger
from octkit.planning.run import Run

PAGE = Path(__file__).resolve().parents[1] / "docs" / "claims.md"


def page(run: Run, note: str = "") -> str:
    """The page in Markdown. Raises OctkitError where the run has no claims.json."""
    found, chosen = read_json(run.claims_file), run.settings
    made = ledger.ends(run)["16_claims"].made_with or {}
    lines = ["# Was the team right?", "",
             f"Profile {chosen.profile}, {found['seeds']} seeds, judged on {found['scans']} scans of "
             f"{found['people']} people that no candidate saw. Written {date.today()}; computed on "
             f"{made.get('processor', 'an unknown processor')}, {made.get('cores', 'unknown')} cores. {note}".rstrip(),
             "", "A claim is supported or not where the interval leaves out 0 and every seed says the same; else it is "
             "undecided. [Lesson 16](../notebooks/16_claims.ipynb) explains the design; `octkit run --profile claims` "
             "computes it anew. Of an AUC the gain is the mean of the seeds' gains.", "",
             "| claim | verdict | gain, 95 % interval over people | each seed | remark |", "|---|---|---|---|---|"]
    for one in found["findings"]:
        gain, unit = one["gain"], one["unit"]
        shown = "" if gain["mean"] is None else f"{gain['mean']:+.4f} {unit}" + (
            "" if gain["low"] is None else f" [{gain['low']:+.4f}, {gain['high']:+.4f}]")
        seeds = ", ".join("—" if mean is None else f"{mean:+.4f}" for mean in one["by_seed"])
        lines.append(f"| {one['claim']} | {one['verdict']} | {shown} | {seeds} | {one['note']} |")
    lines += ["", "| epochs | mean Dice, 95 % interval |", "|---|---|",
              *(f"| {n} | {at['mean']:.4f} [{at['low']:.4f}, {at['high']:.4f}] |" for n, at in found["curve"].items()),
              "", "| run | minutes of training |", "|---|---|",
              *(f"| {name} | {minutes:.1f} |" for name, minutes in found["minutes"].items()), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--note", default="")
    asked = parser.parse_args()
    text = page(Run(asked.run), asked.note)
    if asked.write:
        write_atomic(PAGE, text)
    print(text)
