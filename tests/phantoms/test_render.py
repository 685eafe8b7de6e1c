import numpy as np
import pytest
from scipy.ndimage import uniform_filter1d

from octkit.phantoms import circle_eye, circle_scans, render, varied_device, varied_tissue
from octkit.phantoms.frame import Frame, PlacedEye
from octkit.phantoms.painting import Deep
from octkit.phantoms.render import paint

# Greys of the look that the README's numbers rest on, every 12th row from 5 on and every 14th A-scan from 3 on.
KEPT = {
    (3, (96, 128)): [[41, 32, 34, 191, 202, 35, 44, 48, 42], [43, 179, 181, 113, 106, 124, 50, 40, 38],
                     [137, 135, 72, 114, 139, 62, 112, 192, 167], [85, 79, 157, 71, 71, 98, 78, 97, 110],
                     [161, 77, 71, 61, 74, 76, 57, 143, 89], [59, 72, 65, 50, 40, 46, 71, 58, 83],
                     [46, 41, 75, 44, 36, 44, 38, 82, 58], [75, 44, 46, 33, 32, 33, 33, 43, 68]],
    (4, (65, 131)): [[11, 6, 4, 6, 29, 1, 8, 7, 7, 7], [10, 18, 162, 63, 41, 79, 158, 176, 162, 6],
                     [66, 50, 49, 66, 48, 94, 60, 84, 57, 92], [168, 63, 33, 19, 12, 23, 60, 69, 71, 120],
                     [26, 17, 11, 8, 6, 8, 17, 21, 18, 22]],
}


def streams(seed: int) -> list[np.random.Generator]:
    return np.random.default_rng(seed).spawn(2)


def flat(width: int = 160) -> np.ndarray:
    """Boundaries (10, W) of an eye without any course, at 8 um a row: RNFL 80 um, choroid 160 um."""
    rows = np.cumsum([30.3, 10, 7, 3, 3, 8, 2, 3, 3, 20])
    return np.repeat(rows[:, None], width, axis=1)


def painted(seed: int, boundaries=None, vessels=(), periodic=True, kind="varied") -> np.ndarray:
    boundaries = flat() if boundaries is None else boundaries
    return paint(*streams(seed), PlacedEye(boundaries, vessels, Frame((120, 160), (8.0, 35.0), periodic)), kind)


@pytest.mark.parametrize(("seed", "size"), KEPT)
def test_the_spectralis_look_stays_what_it_was(seed, size):
    image = circle_scans.draw(seed, size, glaucoma=seed % 2 == 0).image
    # One grey of 255: what another processor's last digit may do.
    np.testing.assert_allclose(image[5::12, 3::14].astype(int), KEPT[seed, size], atol=1)


@pytest.mark.parametrize("kind", render.LOOKS)
@pytest.mark.parametrize("periodic", [True, False])
def test_one_seed_is_one_image_and_another_seed_another(kind, periodic):
    first, again, other = (painted(seed, periodic=periodic, kind=kind) for seed in (1, 1, 2))
    assert first.shape == (120, 160) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.3


def scaled(monkeypatch, depth_um: float) -> None:
    """The varied look at one scale, in frames `depth_um` deep."""
    monkeypatch.setattr(circle_scans, "_drawn_scale", lambda _, size: (depth_um / size[0], 10880 / size[1]))


def test_the_look_does_not_depend_on_the_size(monkeypatch):
    """The same scan with twice the pixels, averaged in fours, shows the same layers in the same greys."""
    scaled(monkeypatch, 1800)
    for seed in (3, 5, 8):
        small = circle_scans.draw(seed, (200, 160), looks="varied").image.astype(float)
        large = circle_scans.draw(seed, (400, 320), looks="varied").image.astype(float)
        large = large.reshape(200, 2, 160, 2).mean(axis=(1, 3))
        rough = [uniform_filter1d(uniform_filter1d(image, 8, axis=0), 8, axis=1) for image in (small, large)]
        assert np.corrcoef(rough[0].ravel(), rough[1].ravel())[0, 1] > 0.85


def test_a_vessel_at_the_edge_wraps_only_round_a_circle():
    """Both images differ by the vessel alone, whose look is drawn after all else of the varied look."""
    vessel = (circle_eye.Vessel(0.0, 130.0),)
    changed = {}
    for periodic in (True, False):
        pair = [painted(4, vessels=vessels, periodic=periodic).astype(int) for vessels in (vessel, ())]
        changed[periodic] = abs(pair[0] - pair[1]).max(axis=0)
        assert changed[periodic][:3].max() > 15
        assert changed[periodic][20:140].max() == 0
    assert changed[True][-2:].max() > 15
    assert changed[False][-10:].max() == 0


@pytest.mark.parametrize("kind", render.LOOKS)
def test_a_circle_closes_without_a_seam(kind):
    seam, inside = [], []
    for seed in range(12):
        image = circle_scans.draw(seed, (96, 160), looks=kind).image.astype(float)
        grey = abs(np.diff(image, axis=1, append=image[:, :1])).mean(axis=0)
        seam.append(grey[-1])
        inside.append(grey[:-1].mean())
    assert np.mean(seam) < 1.3 * np.mean(inside)


@pytest.mark.parametrize("kind", render.LOOKS)
def test_layers_of_no_thickness_are_no_trouble(kind):
    """As in the fovea, where fibres and ganglion cells give way, and at the disc, where all do."""
    boundaries = flat()
    boundaries[:4, 40:80] = boundaries[4, 40:80]
    boundaries[:9, 60:70] = boundaries[9, 60:70]
    with np.errstate(all="raise", under="ignore"):
        image = painted(2, boundaries, (circle_eye.Vessel(146.0, 90.0),), False, kind=kind)
    assert image.std() > 5


def test_edges_lie_where_the_labels_have_them(monkeypatch):
    """The upper edge of the RNFL, flattened and averaged along the scan, is within a row of the truth."""
    scaled(monkeypatch, 1200)
    found = []
    for seed in range(40):
        scan = circle_scans.draw(seed, (200, 160), looks="varied")
        near = np.arange(-6, 7)
        rows = np.floor(scan.boundaries[0]).astype(int) + near[:, None]
        profile = np.median(np.take_along_axis(scan.image.astype(float), rows, axis=0), axis=1)
        half = (profile[:3].mean() + profile[-3:].mean()) / 2
        if profile[-3:].mean() > profile[:3].mean() + 40:
            found.append(np.interp(half, profile[3:10], near[3:10] + 0.5) - np.mean(scan.boundaries[0] % 1))
    assert len(found) > 25
    assert abs(np.median(found)) < 0.5
    assert np.mean(np.abs(found) < 1) > 0.9


def test_a_pixel_that_the_ilm_halves_is_half_retina():
    """Before the device blurs it: neither darker nor brighter than half way from the vitreous to the RNFL."""
    boundaries, shares = flat(), []
    boundaries[0] = 30.5
    for seed in range(40):
        look, noise = streams(seed)
        eye = PlacedEye(boundaries, (), Frame((120, 160), (2.4, 35.0)))
        image = varied_tissue.paint(look, noise, varied_device.draw_device(look), eye)
        vitreous, halved, retina = (image[row].mean() for row in (29, 30, 31))
        shares.append((halved - vitreous) / (retina - vitreous))
    assert abs(np.mean(shares) - 0.5) < 0.05


def test_varied_scans_vary_and_stay_legible():
    """Greys of the RNFL and of the background spread far over scans, yet the RNFL is the brighter of the two in all."""
    vitreous, rnfl = [], []
    for seed in range(40):
        scan = circle_scans.draw(seed, (128, 160), looks="varied")
        above = np.arange(128)[:, None] < scan.boundaries[0] - 3
        vitreous.append(scan.image[above].mean())
        rnfl.append(scan.image[scan.mask == 1].mean())
    assert (np.array(rnfl) > np.array(vitreous) + 8).all()
    assert np.ptp(np.percentile(rnfl, (10, 90))) > 50
    assert np.ptp(np.percentile(vitreous, (5, 95))) > 25


def test_large_vessels_cast_shadows_in_the_varied_look_too():
    vessel = (circle_eye.Vessel(180.0, 130.0),)
    left = []
    for seed in range(10):
        lit, dark = (painted(seed, vessels=vessels).astype(float)[64:67, 79:81].mean() for vessels in ((), vessel))
        left.append(dark / lit)
    assert np.median(left) < 0.75 and max(left) < 1.05


@pytest.mark.parametrize("kind", render.LOOKS)
def test_lumens_of_the_choroid_are_darker_than_its_stroma(kind, monkeypatch):
    drawn, plain = [], Deep.vessels
    monkeypatch.setattr(Deep, "vessels", lambda own, *more: drawn.append((own.top, plain(own, *more))) or drawn[-1][1])
    darker = []
    for seed in range(20):
        image = painted(seed, kind=kind).astype(float)[73:88]  # the choroid lies from row 69 to 89
        top, (lumen, _) = drawn[-1]
        lumen = lumen[73 - top:88 - top]
        darker.append(image[lumen > 0.6].mean() / image[lumen < 0.3].mean())
    assert np.median(darker) < 0.9 and max(darker) < 1.1


@pytest.mark.parametrize(("kind", "faint"), [("spectralis", (0.12, 0.45)), ("varied", (0.08, 0.35))])
def test_the_lower_edge_of_the_choroid_is_faint_in_some_scans_and_clear_in_others(kind, faint):
    """Contrast: the difference of 30 um above and below over their sum, the median of 12 parts of a circle."""
    contrast = []
    for seed in range(60):
        scan = circle_scans.draw(seed, (192, 192), looks=kind)
        below = (np.arange(192)[:, None] + 0.5 - scan.boundaries[9]) * scan.um_per_px[0]
        above, under = (np.divide(*((values * near).reshape(192, 12, 16).sum((0, 2)) for values in (scan.image, 1)))
                        for near in ((below > -30) & (below < 0), (below > 0) & (below < 30)))
        contrast.append(np.median(abs(above - under) / (above + under + 0.01)))
    assert faint[0] < np.mean(np.array(contrast) < 0.05) < faint[1]
    assert np.mean(np.array(contrast) > 0.15) > 0.2
