import numpy as np
import pytest
from scipy.ndimage import uniform_filter1d

from octkit.common.errors import OctkitError
from octkit.phantoms import circle_eye, circle_scans, render, varied_device, varied_tissue
from octkit.phantoms.frame import Frame, PlacedEye
from octkit.phantoms.render import paint

# Greys of the look that the README's numbers rest on, every 12th row from 5 on and every 14th A-scan from 3 on.
KEPT = {
    (3, (96, 128)): [[29, 28, 28, 38, 36, 214, 44, 35, 22], [28, 31, 40, 248, 151, 111, 180, 171, 13],
                     [34, 205, 216, 138, 67, 156, 47, 156, 126], [113, 125, 80, 73, 89, 54, 62, 46, 90],
                     [54, 60, 199, 84, 68, 58, 55, 70, 62], [155, 56, 67, 51, 32, 29, 22, 35, 59],
                     [42, 36, 32, 26, 21, 19, 18, 23, 33], [24, 38, 24, 21, 20, 15, 12, 12, 18]],
    (4, (65, 131)): [[32, 21, 15, 22, 224, 192, 164, 36, 22, 24], [20, 21, 19, 207, 98, 94, 95, 163, 19, 22],
                     [35, 84, 195, 179, 84, 102, 83, 180, 152, 11], [121, 116, 129, 71, 67, 56, 54, 56, 181, 140],
                     [213, 122, 55, 48, 47, 38, 35, 38, 69, 182]],
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


def test_the_look_does_not_depend_on_the_size():
    """The same scan with twice the pixels, averaged in fours, shows the same layers in the same greys."""
    for seed in (3, 5, 8):
        small = circle_scans.draw(seed, (200, 160), (9.0, 68.0), looks="varied").image.astype(float)
        large = circle_scans.draw(seed, (400, 320), (4.5, 34.0), looks="varied").image.astype(float)
        large = large.reshape(200, 2, 160, 2).mean(axis=(1, 3))
        rough = [uniform_filter1d(uniform_filter1d(image, 8, axis=0), 8, axis=1) for image in (small, large)]
        assert np.corrcoef(rough[0].ravel(), rough[1].ravel())[0, 1] > 0.85


def test_unknown_looks_are_refused():
    with pytest.raises(OctkitError, match="pretty.* spectralis, varied"):
        painted(0, kind="pretty")


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


def test_edges_lie_where_the_labels_have_them():
    """The upper edge of the RNFL, flattened and averaged along the scan, is within a row of the truth."""
    found = []
    for seed in range(40):
        scan = circle_scans.draw(seed, (200, 160), (6.0, 68.0), looks="varied")
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
