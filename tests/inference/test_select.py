import numpy as np
import pytest

from octkit.data.labels import LAYERS
from octkit.evaluation.metrics import dice
from octkit.inference.select import best, candidates, decide_boundaries, decide_postprocessing
from octkit.layers.boundaries import mask_from, ordered_boundaries
from octkit.phantoms.circle_scans import draw
from octkit.planning.selection import Candidate


def array(text: str) -> np.ndarray:
    return np.array([[int(c) for c in row] for row in text.split()], np.uint8)


NAMES = ("rnfl", "gcipl")


def test_islands_are_removed_where_that_raises_dice():
    truth = [array("11100 22200 00000")]
    predicted = [array("11100 22200 00001")]
    steps, records = decide_postprocessing(predicted, truth, NAMES)
    assert steps == ((1, 2),)
    assert [record.kept for record in records] == [True, False, False]
    assert records[0].dice_before["rnfl"] == pytest.approx(6 / 7)
    assert records[0].dice_after["rnfl"] == 1


def test_what_a_step_changes_is_told_case_by_case():
    truth = [array("11100 22200 00000")] * 2
    predicted = [array("11100 22200 00001"), truth[0]]
    _, records = decide_postprocessing(predicted, truth, NAMES)
    # in the first case rnfl goes from 6/7 to 1 and gcipl stays 1: 1/14 of the mean; the second does not change
    assert records[0].gain == {"mean": pytest.approx(1 / 28), "sd": pytest.approx(1 / 14 / np.sqrt(2)), "n": 2}
    assert records[1].gain == {"mean": 0, "sd": 0, "n": 2}


def test_nothing_is_done_where_a_layer_would_fall():
    # the truth has two pieces: removing the island helps gcipl but costs rnfl
    truth = [array("1110001 2220000")]
    predicted = [array("1110001 2220002")]
    steps, records = decide_postprocessing(predicted, truth, NAMES)
    assert records[0].why.startswith("a layer falls: rnfl 1.00000")
    assert steps == ((2,),)  # but gcipl alone may be cleaned
    assert records[2].kept and records[2].step == "keep only the largest component of gcipl"


def test_no_gain_means_no_step():
    masks = [array("110 220")]
    steps, records = decide_postprocessing(masks, masks, NAMES)
    assert steps == () and {record.why for record in records} == {"mean Dice does not rise"}


def test_candidates_are_all_singles_then_all_pairs_simplest_first():
    assert candidates(("2d", "3d_lowres", "3d_fullres")) == [
        ("2d",), ("3d_lowres",), ("3d_fullres",),
        ("2d", "3d_lowres"), ("2d", "3d_fullres"), ("3d_lowres", "3d_fullres")]
    assert candidates(("2d",)) == [("2d",)]


def scored(**values):
    return [Candidate(name=name, configurations=(name,), dice={}, mean_dice=value) for name, value in values.items()]


def test_the_best_candidate_wins_and_a_tie_goes_to_the_simpler():
    assert best(scored(flat=0.8, full=0.9, pair=0.85))[0].name == "full"
    winner, why = best(scored(flat=0.8, full=0.9, pair=0.9))
    assert winner.name == "full" and why == "the highest mean Dice of 3 candidates; the simplest of 2 with the same"
    assert best(scored(flat=0.8))[1] == "the plan's only configuration"


def test_ordered_boundaries_are_chosen_where_the_score_does_not_fall():
    phantom = draw(3, (128, 160))
    wrong = phantom.mask.copy()
    wrong[2:8, 20:60] = 3  # an island that costs choroid's Dice
    probabilities = np.where(wrong == np.arange(4)[:, None, None], 0.9, 0.1 / 3).astype(np.float32)
    ordered = mask_from(ordered_boundaries(probabilities, True)[0], 128)
    keep, record = decide_boundaries([ordered], [wrong], [phantom.mask], LAYERS, "choose")
    assert record.dice_before["choroid"] == dice(wrong, phantom.mask, 3)
    assert keep and record.kept and record.dice_after["choroid"] > record.dice_before["choroid"] + 0.01
    assert record.gain["n"] == 1 and record.gain["sd"] is None and record.gain["mean"] > 0.003
    # a truth with an island, which no ordered boundaries can draw
    assert not decide_boundaries([ordered], [wrong], [wrong], LAYERS, "choose")[0]
    assert decide_boundaries([ordered], [wrong], [wrong], LAYERS, "always")[0]
    assert not decide_boundaries([ordered], [wrong], [phantom.mask], LAYERS, "never")[0]
