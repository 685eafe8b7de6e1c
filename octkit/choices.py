"""What report.html says about what was decided by trying: mirroring, configurations, post-processing."""

from collections.abc import Iterator

from octkit import plots, volume_plots
from octkit.metrics import spread, with_spread
from octkit.plots import layer_name
from octkit.sections import Block, Run, figure, mean_of, number, table


def key_postprocessing(run: Run) -> Iterator[Block]:
    selection = run.json("selection.json")
    kept = [record["step"] for record in selection["postprocessing"] if record["kept"]]
    if not selection["postprocessing"]:
        decision = f"none, since nothing was decided: {selection['why']}"
    elif kept:
        decision = f"{', then '.join(kept)}, as cross-validation decided"
    else:
        decision = "none, since no test on the cross-validation masks raised the mean Dice without lowering a layer's"
    yield Block("text", f"Post-processing: {decision}.")


def mirroring(run: Run) -> Iterator[Block]:
    prices = run.json("mirroring.json")
    first = next(iter(prices.values()))["dice_by_scan"]
    gains = {name: spread(price["dice_by_scan"][scan] - first[scan] for scan in first)
             for name, price in prices.items()}
    yield table("The price of mirroring, mean ± standard deviation over held-out scans",
                ("inference", "seconds an image", "mean foreground Dice", "change, scan by scan"),
                [(name, number(price["seconds"]), with_spread(spread(price["dice_by_scan"].values())),
                  with_spread(gains[name], sign="+") if price["dice_by_scan"] is not first else "")
                 for name, price in prices.items()])


def cross_validation(run: Run) -> Iterator[Block]:
    selection = run.json("selection.json")
    tests = selection["postprocessing"]
    if not selection["candidates"]:
        yield Block("text", f"No cross-validation: {selection['why']}.")
        return
    raw = next(candidate["dice"] for candidate in selection["candidates"]
               if candidate["name"] == selection["configuration"])
    final = next((test["dice_after"] for test in reversed(tests) if test["kept"]), raw)
    if len(selection["candidates"]) > 1:
        ranked = sorted(selection["candidates"], key=lambda candidate: -candidate["mean_dice"])
        yield table(f"Every configuration and every pair (probabilities averaged); chosen: "
                    f"{selection['configuration']}, {selection['why']}",
                    ("candidate", "mean Dice", "over the scans", "behind the best, scan by scan",
                     *(layer_name(layer) for layer in raw)),
                    [(found["name"], number(found["mean_dice"], 4), with_spread(found["over_cases"]),
                      with_spread(found["behind_best"], sign="+"), *(number(d, 4) for d in found["dice"].values()))
                     for found in ranked])
        if not run.has("figures/14_candidates.png"):
            yield figure(plots.png(volume_plots.candidates(selection["candidates"], selection["configuration"])))
    yield table(f"Cross-validation: {selection['cases']} training scans, each predicted by the fold that did not "
                "see it", ("layer", "Dice, raw", "Dice, post-processed"),
                [(layer_name(layer), number(raw[layer], 4), number(final[layer], 4)) for layer in raw])
    yield table("Post-processing, tested on these masks; the change is the mean over the scans ± standard deviation",
                ("step", "mean Dice before", "after", "change, scan by scan", "kept", "why"),
                [(test["step"], *(number(mean_of(test[f"dice_{when}"].values()), 5) for when in ("before", "after")),
                  with_spread(test["gain"], 5, "+"), "yes" if test["kept"] else "no", test["why"]) for test in tests])


def ablation(run: Run) -> Iterator[Block]:
    """What each measure gains on scans that no model has seen."""
    found = run.json("ablation.json")
    layers = [key for key in next(iter(found["over_scans"].values())) if key != "broken"]
    scans = list(dict.fromkeys(row["scan"] for row in found["rows"]))
    heads = ("step", *(f"{layer_name(layer)} Dice" for layer in layers), "broken A-scans")
    for key, caption, sign in (
            ("over_scans", "One measure more a row, mean ± standard deviation", ""),
            ("gains", "What each measure changes, scan by scan", "+")):
        yield table(f"{caption} over {len(scans)} scans ({', '.join(scans)}); each model was trained once", heads,
                    [(step, *(with_spread(values[column], 3, sign) for column in (*layers, "broken")))
                     for step, values in found[key].items()])
