"""Correct a scan's layers by hand in a notebook, or label scans of one's own, from what a model has proposed.

    octkit predict default my_scans -o proposal                     in a terminal
    edit("proposal", "scan_01", "corrected", images="my_scans")     in a notebook: drag, and save

`corrected` becomes a data set as `octkit import-masks` leaves it, of all scans that were saved.
"""

from pathlib import Path

import numpy as np

from octkit.common.errors import bad_file
from octkit.common.files import read_json
from octkit.data.dataset import read_scan
from octkit.exchange import corrections
from octkit.figures.chinese import in_language
from octkit.figures.editor import Editor, Move
from octkit.layers.scan_files import facts_beside, read_boundaries


def edit(source: str | Path, name: str, out: str | Path, images: str | Path | None = None) -> Editor:
    """The editor of one scan, which goes on where it was saved in `out` before.

    `source` is a run (its final masks of validation scans), or a folder that `octkit predict` has left; then `images`
    is where its scans lie. Raises OctkitError where it has no such scan, or one without the five boundaries.
    """
    source, out = Path(source), Path(out)
    masks, scans, _ = corrections.sources(source, Path(images) if images else None)
    if name not in masks or name not in scans:
        raise bad_file(source, f"has no mask and scan named {name}", f"expected one of {', '.join(masks)}")
    proposal = masks[name].with_name(f"{name}.boundaries.csv")
    if not proposal.exists():
        raise bad_file(proposal, "not found", "expected the boundaries that octkit predict leaves beside 2-D masks")
    own = out / "Train/Layer_Masks" / proposal.name
    earlier = read_json(out / f"changes/{name}.json")["moves"] if own.exists() else []
    facts, image = facts_beside(masks[name]), read_scan(scans[name])

    def save(mask: np.ndarray, boundaries: np.ndarray, moves: list[Move]) -> str:
        changes = earlier + [move._asdict() for move in moves]
        changed = corrections.add(out, image, mask, boundaries, masks[name], changes)
        return f"{in_language(f'saved in {out}')}: {in_language(changed)}"

    return Editor(image, read_boundaries(own if own.exists() else proposal)[0], f"Scan {name}, to be corrected", save,
                  facts.um_per_px and facts.um_per_px[0], facts.circle is not False)
