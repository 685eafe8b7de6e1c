import numpy as np
import pytest

from octkit.common.errors import OctkitError
from octkit.data.measured import Scope
from octkit.layers.boundaries import mask_from
from octkit.layers.scope import ENDS, chances, describe, outside

WIDTH = 200
PHASE = np.linspace(0, 2 * np.pi, WIDTH, endpoint=False)


def drawn(rnfl=20.0, gcipl=10.0, outer=40.0, bruch=100.0):
    """Boundaries (5, W) of layers of these rows above Bruch's membrane."""
    layers = np.broadcast_arrays(*(np.asarray(line, float) for line in (rnfl, gcipl, outer, bruch)), np.zeros(WIDTH))
    rnfl, gcipl, outer, bruch = layers[:4]
    return np.stack([bruch - outer - gcipl - rnfl, bruch - outer - gcipl, bruch - outer, bruch, bruch + 30])


def numbers(boundaries, height=160, circular=True, doubt=0.5):
    return describe(boundaries, np.full(boundaries.shape, doubt), mask_from(boundaries, height), circular)


def test_even_layers_by_hand():
    found = numbers(drawn())
    expected = {"rnfl_to_gcipl": np.log(2), "rnfl_to_outer": np.log(0.5), "outer_to_retina": np.log(40 / 70),
                "thin_rnfl": np.log(0.5), "thin_gcipl": np.log(0.25), "uneven_gcipl": np.log(0.02),
                "uneven_outer": np.log(0.02), "pit": 0, "thin_middle": 0, "two_humps": 0, "one_side": 0,
                "bowl_to_wave": 0,
                "lost_retina": 0, "lost_choroid": 0, "doubt": np.log(0.5 / 40 + 0.003), "contradicted": 0,
                **dict.fromkeys(ENDS, np.log(0.03))}
    assert found == pytest.approx(expected, abs=1e-9)


def test_humps_and_a_pit_by_hand():
    found = numbers(drawn(rnfl=20 + 5 * np.cos(PHASE) - 8 * np.cos(2 * PHASE) - 3 * np.sin(PHASE)))
    assert [found[name] for name in ("thin_middle", "two_humps", "one_side")] == pytest.approx(
        [5 / 40, 8 / 40, 3 / 40], rel=0.03)
    pit = 12 * np.exp(-0.5 * ((np.arange(WIDTH) - 100) / 20) ** 2)
    assert numbers(drawn(outer=40 - pit))["pit"] == pytest.approx(12 / 70, rel=0.05)


def test_a_wave_is_no_bowl():
    wave, bowl = 100 + 10 * np.sin(PHASE + 1), 100 + 10 * np.linspace(-1, 1, WIDTH) ** 2
    assert numbers(drawn(bruch=wave))["bowl_to_wave"] > 1 and numbers(drawn(bruch=bowl))["bowl_to_wave"] < -0.5


def test_ends_meet_or_not_where_the_scan_is_said_to_close():
    slope = np.linspace(0, 20, WIDTH)  # 20 rows over the scan, half of the outer retina
    found = numbers(drawn(bruch=100 + slope))
    assert [found[name] for name in ("bruch_ends", "ilm_ends")] == pytest.approx([np.log(0.5 + 0.03)] * 2, abs=0.01)
    assert found["rnfl_ends"] == pytest.approx(np.log(0.03))
    assert numbers(drawn(bruch=100 + 10 * np.sin(PHASE)))["bruch_ends"] < np.log(0.06)
    assert np.isnan([numbers(drawn(bruch=100 + slope), circular=False)[name] for name in ENDS]).all()


def test_neither_rows_nor_the_side_have_a_say():
    lines = drawn(rnfl=20 + 5 * np.cos(PHASE - 1), gcipl=10 + np.sin(3 * PHASE), bruch=100 + 9 * np.cos(PHASE))
    one = numbers(lines)
    assert numbers(2 * lines, height=320, doubt=1) == pytest.approx(one, abs=0.02)
    assert numbers(lines[:, ::-1]) == pytest.approx(one, abs=0.02)


def test_what_is_lost_or_contradicted_is_counted():
    lines, doubt = drawn(), np.full((5, WIDTH), 0.5)
    doubt[:3, :50], doubt[4, :100] = 50, 50
    labels = mask_from(lines, 160)
    labels[lines[0, 0].astype(int):, :50] = 0  # a quarter of the foreground
    found = describe(lines, doubt, labels, True)
    assert (found["lost_retina"], found["lost_choroid"]) == (0.25, 0.25)
    assert found["contradicted"] == pytest.approx(np.sqrt(0.25))


@pytest.mark.parametrize("width", [1, 2, 30])
def test_a_narrow_picture_is_described(width):
    found = describe(drawn()[:, :width], np.full((5, width), 0.5), mask_from(drawn()[:, :width], 160), True)
    assert np.isfinite(list(found.values())).all()


@pytest.fixture
def scope():
    """Two numbers: `a` speaks for circles, `b` for the macula against the disc."""
    return Scope(features={"a": (1.0, 2.0), "b": (0.0, 1.0)}, least=0.4, weights={
        "circle": (1.0, 0.0, 0.5), "macula": (0.0, 1.0, 0.0), "disc": (0.0, -1.0, 0.0), "other": (0.0, 0.0, -9.0)})


def test_chances_by_hand(scope):
    logits = np.array([1.0 + 0.5, 0.5, -0.5, -9.0])
    expected = np.exp(logits) / np.exp(logits).sum()
    assert list(chances({"a": 3.0, "b": 0.5, "c": 7.0}, scope).values()) == pytest.approx(list(expected))


def test_no_number_has_more_than_its_say_and_what_is_not_known_has_none(scope):
    assert chances({"a": 1e9, "b": 0}, scope) == chances({"a": 7, "b": 0}, scope)
    assert chances({"a": np.nan, "b": 0}, scope) == chances({"a": 1, "b": 0}, scope)


def test_the_reason_names_the_likeliest_kind(scope):
    assert outside({"a": 3, "b": 0}, scope) is None
    for b, kind in ((2, "macula"), (-2, "disc")):
        assert kind in outside({"a": -3, "b": b}, scope)


def test_a_number_of_a_newer_octkit_is_named(scope):
    with pytest.raises(OctkitError, match="'b'.*newer"):
        chances({"a": 1}, scope)


@pytest.mark.parametrize("change", [
    {"weights": {"circle": (1.0, 2.0, 3.0)}}, {"features": {"a": (0.0, 1.0)}}, {"features": {"a": (0, 0), "b": (0, 1)}},
    {"least": 1.5}, {"weights": dict.fromkeys(("circle", "macula", "disc", "other"), (1.0, np.nan, 0.0))}])
def test_numbers_that_do_not_fit_together_are_refused(scope, change):
    with pytest.raises(ValueError, match="validation error"):
        Scope.model_validate(scope.model_dump() | change)
