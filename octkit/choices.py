"""What report.html says about what was decided by trying: mirroring, configurations, post-processing."""

from collections.abc import Iterator

from octkit import plots, volume_plots
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
    yield table("The price of mirroring", ("inference", "seconds an image", "mean foreground Dice"),
                [(name, number(price["seconds"]), number(price["dice"], 4)) for name, price in prices.items()])


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
                    ("candidate", "mean Dice", *(layer_name(layer) for layer in raw)),
                    [(found["name"], number(found["mean_dice"], 4), *(number(d, 4) for d in found["dice"].values()))
                     for found in ranked])
        if not run.has("figures/14_candidates.png"):
            yield figure(plots.png(volume_plots.candidates(selection["candidates"], selection["configuration"])))
    yield table(f"Cross-validation: {selection['cases']} training scans, each predicted by the fold that did not "
                "see it", ("layer", "Dice, raw", "Dice, post-processed"),
                [(layer_name(layer), number(raw[layer], 4), number(final[layer], 4)) for layer in raw])
    yield table("Post-processing, tested on these masks",
                ("step", "mean Dice before", "after", "kept", "why"),
                [(test["step"], *(number(mean_of(test[f"dice_{when}"].values()), 5) for when in ("before", "after")),
                  "yes" if test["kept"] else "no", test["why"]) for test in tests])


def ablation(run: Run) -> Iterator[Block]:
    """What each measure gains on scans that no model has seen."""
    found = run.json("ablation.json")
    layers = [key for key in next(iter(found["means"].values())) if key != "broken"]
    scans = list(dict.fromkeys(row["scan"] for row in found["rows"]))
    yield table(f"One measure more a row, means over {len(scans)} scans ({', '.join(scans)})",
                ("step", *(f"{layer_name(layer)} Dice" for layer in layers), "broken A-scans"),
                [(step, *(number(values[layer]) for layer in layers), f"{values['broken']:.1%}")
                 for step, values in found["means"].items()])
