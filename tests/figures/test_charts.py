"""Figures of numbers: the numbers drawn are the ones given, with units, and gaps stay gaps."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from octkit.common.errors import OctkitError
from octkit.data.labels import BOUNDARIES, LAYERS
from octkit.evaluation.diagnosis import diagnosis_scores
from octkit.figures import charts
from octkit.figures.colours import BLUE, LAYER_COLOURS
from octkit.figures.picture import layer_name

MASK = np.zeros((20, 30), np.uint8)
MASK[4:8], MASK[8:12], MASK[14:18] = 1, 2, 3
IMAGE = np.choose(MASK, [10, 200, 100, 120]).astype(np.float32)[None]

COVERAGE = {"raw": dict.fromkeys(BOUNDARIES, (0.4, 0.75)), "calibrated": dict.fromkeys(BOUNDARIES, (0.7, 0.94))}


def log(epochs: int, offset: float = 0.0, validation: bool = True) -> dict[str, np.ndarray]:
    falling = -np.arange(epochs) / 10 + offset
    seen = falling if validation else np.full(epochs, np.nan)
    return {"epoch": np.arange(epochs), "learning_rate": 0.01 * 0.9 ** np.arange(epochs), "train_loss": falling,
            "validation_loss": seen + 0.1, **{f"dice_{layer}": 0.5 - seen / 4 for layer in LAYERS}}


@pytest.fixture(scope="module")
def figures():
    profile = 90 + 40 * np.cos(np.linspace(0, 4 * np.pi, 64) + np.pi)
    quadrants = {"T": 70.0, "S": 120.0, "N": 75.0, "I": 130.0}
    return {
        "intensity_histogram": charts.intensity_histogram([IMAGE], [MASK], (20, 220)),
        "class_shares": charts.class_shares([MASK] * 3),
        "learning_curves": charts.learning_curves({"fold 0": log(4), "fold 1": log(4, 0.2)}, "Training"),
        "classifier_curves": charts.classifier_curves({
            "fold_0": {**log(4), "validation_auc": np.array([0.5, 0.6, 0.7, 0.8])}, "fold_1": log(3)}),
        "layer_scores": charts.layer_scores({layer: [0.5, 0.7, 0.8] for layer in LAYERS}, "Dice"),
        "mirroring_price": charts.mirroring_price({
            "plain": {"seconds": 0.3, "dice": 0.9, "dice_by_scan": {"a": 0.88, "b": 0.92}},
            "mirrored": {"seconds": 1.2, "dice": 0.91, "dice_by_scan": {"a": 0.9, "b": 0.92}}}),
        "thickness_profile": charts.thickness_profile(profile, "um", profile + 1, (profile - 20, profile + 20),
                                                      "5 to 95 %", "One scan"),
        "group_profiles": charts.group_profiles({"healthy": np.stack([profile, profile + 1]),
                                                 "glaucoma": profile[None] * 0.7}, "um", "Groups"),
        "quadrant_bars": charts.quadrant_bars({"healthy, training": quadrants, "scan 0101": quadrants}, "um", "Means"),
        "doubt_coverage": charts.doubt_coverage(COVERAGE, "Doubt"),
        "roc": charts.roc({"thickness": diagnosis_scores([1, 0, 1, 0], [0.9, 0.2, 0.6, 0.7], [1, 0, 1, 1],
                                                         list("abcd"))}, "ROC on four scans"),
        "probability_strip": charts.probability_strip([0.2, 0.7, 0.9], [0, 0, 1]),
    }


def test_every_chart_has_a_title_labelled_axes_with_units_and_a_text(figures):
    units = {"intensity_histogram": "grey value", "class_shares": "(%)", "layer_scores": "(0 to 1)",
             "mirroring_price": "seconds", "thickness_profile": "(µm)", "group_profiles": "degrees",
             "quadrant_bars": "(µm)", "learning_curves": "epoch"}
    for name, picture in figures.items():
        assert picture.get_suptitle() and picture.alt, name
        assert all(ax.get_xlabel() and ax.get_ylabel() for ax in picture.axes), name
        assert units.get(name, "") in " ".join(ax.get_xlabel() + ax.get_ylabel() for ax in picture.axes), name


def test_a_layer_has_its_colour_in_every_chart(figures):
    lines = {line.get_label(): line.get_color() for line in figures["learning_curves"].axes[1].lines}
    assert lines == {layer_name(layer): colour for layer, colour in LAYER_COLOURS.items()}
    assert figures["thickness_profile"].axes[0].lines[-1].get_color() == LAYER_COLOURS["rnfl"]


def test_learning_curves_draw_the_mean_of_the_folds_that_got_so_far():
    picture = charts.learning_curves({"0": log(4), "1": log(2, 0.2)}, "Training")
    training = picture.axes[0].lines[0]
    assert training.get_ydata() == pytest.approx([0.1, 0.0, -0.2, -0.3])
    assert training.get_xdata().tolist() == [1, 2, 3, 4]


def test_learning_curves_without_validation_say_so():
    picture = charts.learning_curves({"all": log(3, validation=False)}, "Training")
    assert len(picture.axes[0].lines) == 1
    assert [text.get_text() for text in picture.axes[1].texts] == ["no validation:\nall cases train"]
    assert "no validation" in picture.alt


def test_a_log_is_read_with_its_gaps(tmp_path):
    (tmp_path / "log.csv").write_text("train_loss,validation_loss\n0.5,\n-0.25,0.1\n")
    read = charts.read_log(tmp_path / "log.csv")
    np.testing.assert_array_equal([read["train_loss"], read["validation_loss"]], [[0.5, -0.25], [np.nan, 0.1]])


@pytest.mark.parametrize("content", ["epoch,train_loss\n0,abc\n", "epoch,train_loss\n0,1,2\n", None])
def test_a_log_that_is_none_is_an_error_with_its_name(tmp_path, content):
    if content:
        (tmp_path / "log.csv").write_text(content)
    with pytest.raises(OctkitError, match="log.csv"):
        charts.read_log(tmp_path / "log.csv")


def test_layer_scores_draw_each_case_once_and_leave_undefined_ones_out():
    picture = charts.layer_scores({"rnfl": [0.5, None, float("nan"), 0.75], "choroid": [0.25]}, "Dice")
    points = [np.sort(dots.get_offsets()[:, 0]).tolist() for dots in picture.axes[0].collections]
    assert points == [[0.5, 0.75], [0.25]]
    assert "RNFL median 0.625" in picture.alt


def test_class_shares_are_per_cent_of_the_scan():
    dots = charts.class_shares([MASK]).axes[0].collections[0]
    assert dots.get_offsets()[0, 0] == pytest.approx(20.0)  # 4 of 20 rows


def test_the_histogram_marks_the_clip_limits_and_sums_to_the_whole_layer(figures):
    (ax,) = figures["intensity_histogram"].axes
    assert [line.get_xdata()[0] for line in ax.lines] == [20, 220]
    assert "RNFL mean 200" in figures["intensity_histogram"].alt
    assert sum(ax.patches[0].get_data().values) == pytest.approx(100)
    with pytest.raises(OctkitError, match="no labelled pixel"):
        charts.intensity_histogram([IMAGE], [MASK * 0], (20, 220))


def test_the_circle_runs_t_s_n_i_t_over_360_degrees(figures):
    (ax,) = figures["thickness_profile"].axes
    places = {round(text.get_position()[0], 1): text.get_text() for text in ax.texts}
    assert places == {22.5: "T", 90: "S", 180: "N", 270: "I", 337.5: "T"}
    assert ax.get_xlim() == (0, 360)
    assert ax.lines[-1].get_xdata()[[0, -1]] == pytest.approx([360 / 128, 360 - 360 / 128])  # the A-scans' middles


def test_a_profile_can_stand_without_a_band():
    (ax,) = charts.thickness_profile(np.full(8, 90.0), "um", None, None, "", "One scan").axes
    assert [text.get_text() for text in ax.figure.legends[0].texts] == ["predicted"]


def test_what_was_not_seen_is_a_hatched_gap():
    line = np.full(36, 100.0)
    line[[0, *range(9, 12)]] = np.nan
    picture = charts.thickness_profile(line, "um", None, (line - 1, line + 1), "band", "One scan")
    (ax,) = picture.axes
    assert np.isnan(ax.lines[-1].get_ydata()).sum() == 4
    [hatched] = [patch for patch in ax.collections if patch.get_label() == "not seen"]
    spans = sorted((path.vertices[:, 0].min(), path.vertices[:, 0].max()) for path in hatched.get_paths())
    assert spans == [(0, 10), (90, 120)]
    assert "seen in 89% of the A-scans, mean 100.0 µm" in picture.alt
    whole = charts.thickness_profile(np.ones(36), "um", None, (line, line), "band", "One scan").axes[0]
    assert "not seen" not in [patch.get_label() for patch in whole.collections]


def test_groups_have_their_colours_whatever_follows_their_name(figures):
    bars = figures["quadrant_bars"].axes[0].containers
    assert bars[0].get_label() == "healthy, training" and to_hex(bars[0][0].get_facecolor()).upper() == BLUE
    assert [bar.get_height() for bar in bars[1]] == [70, 120, 75, 130]


def test_coverage_is_drawn_against_what_it_should_be(figures):
    raw, calibrated = figures["doubt_coverage"].axes
    for ax, shares in ((raw, (40, 75)), (calibrated, (70, 94))):
        chance, *lines = ax.lines
        np.testing.assert_array_equal(chance.get_xdata(), chance.get_ydata())
        assert [line.get_label() for line in lines] == list(BOUNDARIES)
        np.testing.assert_allclose([line.get_xydata() for line in lines], [np.transpose([(68, 95), shares])] * 5)
    assert "calibrated: ILM 70 and 94 %" in figures["doubt_coverage"].alt


def test_decisions_are_counted_at_the_threshold(figures):
    assert "1 of 2 healthy, 1 of 1 glaucoma" in figures["probability_strip"].alt
    assert "thickness: AUC 0.750 [" in figures["roc"].legends[0].get_texts()[0].get_text()
