"""Calibrate the doubt of a model's boundaries on phantoms that it was not trained on, and say how often it then holds.

    .venv/bin/python benchmarks/doubt.py octkit/network/default.zip --work DIR --write

Draws phantoms of one look and of varied looks in two sizes: those of one seed are fitted on, those of another say in
what share of places the truth lies within the doubt, before and after. The calibration goes into the model's file; its
weights stay as they are, bit for bit. Predictions are kept in DIR by image and weights, so that the command goes on
where it was stopped; use a new folder after a change of how boundaries are drawn. --real takes a folder of real scans:
images/<name>.png with a mask of the same name in masks_goals/, and in boundaries/ the device's lines (CSV: column, ILM,
NFL_GCL, BM; rows from the middle of the first). They are never fitted to. With --write the tables go into
benchmarks/README.md.
"""

import argparse
import csv
import hashlib
import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm
from versus import machine, table, write_section

from octkit.data.image_files import read_image
from octkit.data.labels import BOUNDARIES
from octkit.data.measured import Calibration
from octkit.inference.scan_result import predict_scan
from octkit.inference.sliding_window import Predictor
from octkit.layers.calibration import HeldOut, coverage, fit, true_boundaries
from octkit.network.model_file import open_model, save_model
from octkit.phantoms import circle_scans

SETS = [(looks, size) for size in ((800, 1100), (496, 768)) for looks in ("spectralis", "varied")]
FIT_SEED, TEST_SEED = 7701, 8801  # the model's training has 11 to 13 and, after `--other-phantoms 80`, 91 to 93
LINES = {"ILM": "ILM", "NFL_GCL": "RNFL/GCIPL", "BM": "choroid top"}


class Reader:
    """Predicts scans with a model and keeps what was found in a folder, by the hash of both."""

    def __init__(self, model: Path, work: Path):
        self.predictor, self.work = Predictor.load(model), work
        with zipfile.ZipFile(model) as file:
            weights = [file.read(part) for part in sorted(file.namelist()) if part.startswith("weights/")]
        self.digest = hashlib.sha256(b"".join(weights)).hexdigest()
        work.mkdir(parents=True, exist_ok=True)

    def __call__(self, image: np.ndarray, truth: np.ndarray) -> HeldOut:
        key = hashlib.sha256(self.digest.encode() + image.astype(np.uint8).tobytes()).hexdigest()[:24]
        path = self.work / f"{key}.npz"
        if not path.exists():
            found = predict_scan(self.predictor, image[None].astype(np.float32), circle=True)
            aside = path.with_suffix(".part.npz")
            np.savez_compressed(aside, boundaries=found.boundaries, doubt=found.doubt)
            aside.rename(path)
        with np.load(path) as kept:
            return HeldOut(kept["boundaries"], kept["doubt"], truth, len(image))


def phantoms(reader: Reader, seed: int, looks: str, size: tuple[int, int], count: int) -> Iterator[HeldOut]:
    for i in tqdm(range(count), f"{looks} {size[0]} x {size[1]}", leave=False):
        drawn = circle_scans.draw((seed, size[0], i), size, bool(i % 2), looks)
        yield reader(drawn.image, true_boundaries(drawn.mask))


def real_scans(reader: Reader, folder: Path) -> Iterator[HeldOut]:
    for mask in sorted((folder / "masks_goals").glob("*.png")):
        image, lines = read_image(folder / "images" / mask.name)[0], folder / "boundaries" / f"{mask.stem}.csv"
        with open(lines, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        truth = np.full((len(BOUNDARIES), image.shape[1]), np.nan)
        for column, name in LINES.items():
            truth[BOUNDARIES.index(name)] = [float(row[column] or "nan") + 0.5 for row in rows]
        yield reader(image, truth)


def percent(shares: tuple[float, float] | None) -> str:
    return "–" if shares is None else " / ".join(f"{100 * share:.0f}" for share in shares)


def rows_of(name: str, scans: list[HeldOut], calibration: Calibration) -> list[tuple[str, ...]]:
    found = coverage([(scan, calibration) for scan in scans])
    return [(f"{name} ({len(scans)})", way, *(percent(found[way].get(boundary)) for boundary in BOUNDARIES))
            for way in ("raw", "calibrated")]


def means_of(name: str, scans: list[HeldOut], calibration: Calibration) -> list[tuple[str, ...]]:
    found = coverage([(scan, calibration) for scan in scans])["means"]
    kinds = list(dict.fromkeys(key.split()[1] for key in found))
    return [(name, layer, *(percent(found.get(f"{layer} {kind}")) for kind in kinds))
            for layer in dict.fromkeys(key.split()[0] for key in found)]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("model", type=Path, help="the model's file; its calibration is written into it")
    options.add_argument("--work", type=Path, required=True, metavar="DIR", help="where predictions are kept")
    options.add_argument("--scans", type=int, default=24, help="of each look and size, to fit on; and as many to test")
    options.add_argument("--real", type=Path, metavar="DIR", help="real scans with the device's lines, to look at")
    options.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    chosen = options.parse_args()
    reader = Reader(chosen.model, chosen.work)
    named = {f"{looks}, {size[0]} x {size[1]}": (looks, size) for looks, size in SETS}
    fitted, tested = ({name: list(phantoms(reader, seed, *kind, chosen.scans)) for name, kind in named.items()}
                      for seed in (FIT_SEED, TEST_SEED))
    calibration = fit([scan for scans in fitted.values() for scan in scans], "phantoms: " + "; ".join(named))
    alone = fit([scan for name, scans in fitted.items() if name.startswith("varied") for scan in scans], "varied alone")
    every = [(scan, calibration) for scans in tested.values() for scan in scans]
    calibration = calibration.model_copy(update={"coverage": coverage(every)})
    heads = ("set (scans)", "doubt", *BOUNDARIES)
    rows = [row for name, scans in tested.items() for row in rows_of(name, scans, calibration)]
    foreign = [row for name, scans in tested.items() if not name.startswith("varied")
               for row in rows_of(name, scans, alone)[1:]]
    means = [row for name, scans in tested.items() for row in means_of(name, scans, calibration)]
    command = f"    .venv/bin/python benchmarks/doubt.py {chosen.model} --work DIR --scans {chosen.scans}"
    text = ["What the boundaries' doubt is worth, before and after calibration:",
            command + (" --real DIR" if chosen.real else "") + (" --write" if chosen.write else ""),
            machine() + f". Fitted on {calibration.scans} phantoms of seed {FIT_SEED}, tested on others of seed "
            f"{TEST_SEED}. In what share (%) of places the truth, a mask's edge, lies within the doubt where it should "
            "in 68 / 95 %:", table(heads, rows),
            "Fitted on varied looks alone, the other look is one that neither training nor calibration has seen:",
            table(heads, foreign), "Means over sectors, calibrated:",
            table(("set", "layer", "global", "quadrants", "sectors", "hours"), means)]
    if chosen.real:
        scans = list(real_scans(reader, chosen.real))
        text += ["Real circle scans against their device's own lines, which are no truth, and were not fitted to:",
                 table(heads, [row for i, scan in enumerate(scans, 1)
                               for row in rows_of(f"real scan {i}", [scan], calibration)])]
    print(*text, sep="\n\n")
    with zipfile.ZipFile(chosen.model) as file:
        card = json.loads(file.read("card.json"))
    save_model(replace(open_model(chosen.model), calibration=calibration), chosen.model, card)
    if chosen.write:
        write_section("Doubt of the model in the box", "\n\n".join(text))


if __name__ == "__main__":
    main()
