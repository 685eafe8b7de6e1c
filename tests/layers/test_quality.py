"""When a scan is flagged and why: phantoms whose probabilities are damaged the way networks and devices do it."""

import numpy as np
import pytest
from helpers import blurred_truth

from octkit.data.labels import LAYERS
from octkit.layers.boundaries import ordered_boundaries
from octkit.layers.quality import mask_quality, measures, quality
from octkit.phantoms.circle_scans import draw
from octkit.phantoms.volume_scans import draw_volume


@pytest.fixture(scope="module")
def good():
    return blurred_truth(draw(7, (248, 384)).mask)


def judge(probabilities: np.ndarray, spread=None):
    boundaries, deviation = ordered_boundaries(probabilities, circular=True)
    return quality(boundaries, deviation if spread is None else np.hypot(deviation, spread), probabilities, True)


def test_a_good_scan_is_trusted_without_reasons(good):
    judged = judge(good)
    assert judged.trusted and judged.reasons == ()


def test_small_damage_that_boundaries_mend_is_no_reason(good):
    p = good.copy()
    p[:, :, 100:110] = 0.25
    assert judge(p).trusted


@pytest.mark.parametrize("start", [200, 374])
def test_a_gap_of_more_than_15_degrees_in_one_piece_is_a_reason(good, start):
    """Of 384 A-scans 16 are 15 degrees; 374 lies across the seam. In two pieces as many are none."""
    lost, apart = np.arange(start, start + 17) % 384, np.r_[100:109, 300:308]
    doubt = np.zeros((5, 384))
    boundaries = ordered_boundaries(good, True)[0]
    doubt[3, lost] = 9
    assert quality(boundaries, doubt, good, True).reasons == (
        "choroid top not located along 16° of the circle in one piece",)
    assert quality(boundaries, doubt, good, False).trusted == (start == 374)
    doubt[3] = 0
    doubt[3, apart] = 9
    assert quality(boundaries, doubt, good, True).trusted


@pytest.mark.parametrize(("damage", "reason"), [
    ("lost", "GCIPL is not seen in 26% of the A-scans"), ("lost", "the boundary GCIPL/INL is not located in"),
    ("opaque", "differ on"), ("cut", "the ILM lies at the image's border in"), ("empty", "RNFL is not seen in 100%"),
    ("folded", "the boundary RNFL/GCIPL is not located in"),
])
def test_what_is_wrong_is_named(good, damage, reason):
    p = good.copy()
    some = slice(0, 100)  # of 384: 26 %
    if damage == "lost":
        p[0, :, some] += p[2, :, some]
        p[2, :, some] = 0
    elif damage == "opaque":
        p[:, :, some] = 0.25
    elif damage == "empty":
        p = np.zeros_like(p)
        p[0] = 1
    else:
        ilm = ordered_boundaries(p, circular=True)[0][0]
        up = int(np.quantile(ilm, 0.25 if damage == "cut" else 0.6))
        above = p[:, :up][:, ::-1]
        p = np.concatenate([p[:, up:], np.zeros_like(p[:, :up])], axis=1)
        p[0, -up:] = 1
        if damage == "folded":  # what the device's frame cuts off at the top comes back mirrored
            tissue = above[:, :p.shape[1]]
            p[:, :tissue.shape[1]] = np.where(tissue[:1] < 0.5, tissue, p[:, :tissue.shape[1]])
    judged = judge(p)
    assert not judged.trusted
    assert any(reason in given for given in judged.reasons), judged.reasons


def test_measures_by_hand():
    boundaries = np.array([[0.0, 2], [2, 4], [4, 6], [7, 8], [10, 9.5]])
    label = np.zeros((10, 2), int)
    label[0:2, 0], label[2:4, 0], label[7:10, 0] = 1, 2, 3  # as drawn
    label[2:4, 1] = 1  # RNFL as drawn; GCIPL (2 px) and choroid (8 to 9.5: the centre of row 9 lies on it, 1 px) not
    p = np.stack([label == k for k in range(4)]).astype(float)
    doubt = np.array([[0.1, 0.1], [0.3, 0.1], [0, 0], [0.1, 0.4], [0.4, 0.4]])
    found = measures(boundaries, doubt, p, True)
    assert found["wide"].tolist() == found["gap"].tolist() == [0, 0.5, 0, 0.5, 1]
    assert found["missing"].tolist() == [0, 0.5, 0.5]
    assert found["contradicted"] == pytest.approx(3 / (7 + 2 + 3))
    assert found["border"].tolist() == [0.5, 1.0]


def test_a_doubt_as_of_models_that_disagree_is_a_reason(good):
    judged = judge(good, np.full((5, good.shape[2]), 14.0))  # one of two lies 20 px elsewhere
    assert not judged.trusted and "not located in 100%" in judged.reasons[0]


@pytest.mark.parametrize("kind", ["macular", "peripapillary"])
@pytest.mark.parametrize(("damage", "reason"), [
    (np.ndarray.copy, None),
    (lambda mask: mask[:, :, :100].fill(0), "RNFL is not seen in"),  # of 256 A-scans
    (lambda mask: np.copyto(mask, 0, where=mask == 2), "GCIPL is not seen in 100% of the A-scans"),
    (lambda mask: np.copyto(mask[1], mask[1, ::-1]), "the layers are out of order in 1 of 3 B-scans"),
    (lambda mask: np.copyto(mask[:, -40:], 3), "the choroid lies at the image's border in 100% of the A-scans")])
def test_volumes_are_flagged_by_their_masks(kind, damage, reason):
    mask = draw_volume(5, (3, 200, 256), kind).mask.copy()
    damage(mask)
    judged = mask_quality(mask, LAYERS)
    assert judged.trusted == (reason is None) == (judged.reasons == ())
    assert reason is None or any(words.startswith(reason) for words in judged.reasons)
    assert mask_quality(mask, ("a", "b", "c")).trusted  # of whose order nothing is known
