"""What an eye throws back, for varied phantoms: layers, vessels and their shadows, choroid, sclera, vitreous.

Painted in the fourth root of the intensity, 1 in a healthy RNFL: near to what every display shows, so that factors and
edges are the eye's own. Levels are given in dB of intensity. Those of the retina are medians of real Spectralis
scans, and vary around them; all others are ours, by eye from published scans.

What still differs from real scans: no disease but glaucoma (no oedema, drusen, epiretinal membrane or atrophy around
the disc), no disc, no mirrored or folded retina of a scan out of range, no blinks and no jumps. Vessels cross square to
the scan and their shadows are straight; the vessels of the choroid are blobs of noise where real ones are tubes with
bright walls. Greys and graininess of RNFL, RPE and choroid enclose those of two real Spectralis scans, but no
real scan of another device was at hand to hold the other machines against. The choroid's lower edge can be made out
in every phantom, as what is labelled must be seen; in many a real scan it is lost.
"""


import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.special import expit

from octkit.phantoms.circle_eye import Vessel, course, near
from octkit.phantoms.painting import around, below, degrees, edges, field, line, woven_field
from octkit.phantoms.varied_device import Machine

# dB against the RNFL: GCL + IPL, INL, OPL, ONL, inner segments, outer segments, RPE.
LEVELS = (0, -6.3, -11.5, -9.5, -17, -0.5, -4.5, 2.5)


def paint(rng: np.random.Generator, noise: np.random.Generator, machine: Machine, b: np.ndarray, vessels,
          um_per_px: tuple[float, float], size: tuple[int, int], periodic: bool = True) -> np.ndarray:
    """The fourth root of the reflectivity, (H, W) float32, of an eye with boundaries `b` (10, W) in rows.

    Vessels are drawn last from `rng`, so that all else is one look whatever vessels there are.
    """
    angle = degrees(size[1], um_per_px[1], periodic)
    vitreous, floating = _vitreous(rng, noise, b[0], um_per_px, size, periodic)
    image = np.zeros(size, np.float32)
    _retina(rng, image, machine, b, angle, um_per_px, periodic)
    grain = (rng.uniform(8, 30), rng.uniform(8, 60))
    low, high = max(int(b[0].min()) - 1, 0), int(b[8].max()) + 2
    image[low:high] *= 1 + rng.uniform(0.02, 0.09) * field(noise, image[low:high].shape, um_per_px, grain, periodic)
    _choroid(rng, noise, image, machine, b, angle, um_per_px, periodic)
    light = _light(rng, angle) * floating
    for vessel in vessels:
        _vessel(rng, image, vessel, b, um_per_px, periodic)
    high = min(int(b[0].max()) + 3, size[0])
    inside = np.clip(np.arange(high)[:, None] + 1 - b[0], 0, 1).astype(np.float32)
    image[:high] *= inside
    image[:high] += (1 - inside) * vitreous[:high]
    return image * light.astype(np.float32)


def level(decibel):
    """dB of intensity to the fourth root's scale."""
    return 10 ** (np.asarray(decibel) / 40)


def _retina(rng, image, machine: Machine, b, angle, um_per_px, periodic) -> None:
    """The layers from RNFL to RPE. Fibres send back less where they are thin or lie askew to the beam."""
    axial, lateral = um_per_px
    soft = max(1.0, rng.uniform(3, 9) / axial)
    layers = np.array(LEVELS) * machine.contrast + rng.normal(0, (0, 1.2, 1.5, 1.5, 1.5, 2, 2, 1.5))
    layers[1] = min(layers[1], -2)  # however weak the contrast, there is some: RNFL, GCIPL, INL, OPL
    layers[2] = min(layers[2], layers[1] - 1.3)
    layers[3] = max(layers[3], layers[2] + 0.8)
    smooth = gaussian_filter1d(b[0], 80 / lateral, mode=edges(periodic)[1])
    tilt = np.degrees(np.arctan(np.gradient(smooth) * axial / lateral))
    askew = -rng.uniform(0, 2.5) * np.minimum((tilt / 10) ** 2, 3)
    thin = -rng.uniform(0, 6) * np.clip(1 - (b[1] - b[0]) * axial / 90, 0, 1)
    bundles = rng.uniform(0.2, 1.5) * course(rng, angle, np.arange(1, 61) ** -0.6)
    ganglia = -rng.uniform(0, 3)  # the ganglion cells' bodies are darker than their dendrites
    for layer, decibel in enumerate(layers):
        own = (askew + thin + bundles, 0.4 * askew)[min(layer, 1)] + rng.uniform(0, 0.5) * course(rng, angle, (1, 1, 1))
        # The ILM's edge is drawn last, against the vitreous: a soft one here would be cut in half there.
        edge = b[0] - soft if layer == 0 else b[layer]
        below(image, edge, level(decibel + own + (ganglia if layer == 1 else 0)), soft)
        if layer == 1:
            below(image, b[1] + rng.uniform(0.35, 0.6) * (b[2] - b[1]), level(decibel + own), soft)
    fall = rng.uniform(-0.1, 0.25)  # of the RNFL from its surface to its base
    low, high = max(int(b[0].min()), 0), int(b[1].max()) + 1
    depth = (np.arange(low, min(high, len(image)))[:, None] + 0.5 - b[0]) / np.maximum(b[1] - b[0], 1)
    image[low:high] *= 1 - fall * np.clip(depth, 0, 1) * (depth < 1)
    # Where the ILM lies square to the beam it mirrors it.
    mirror = np.clip(course(rng, angle, np.ones(40)) - rng.uniform(0.8, 2), 0, 1) * rng.uniform(0, 0.7)
    mirror = mirror * np.exp(-0.5 * (tilt / 6) ** 2) + rng.uniform(-0.08, 0.12)
    line(image, b[0] + 4 / axial, mirror, max(rng.uniform(2, 5) / axial, 0.5))
    line(image, b[5] - rng.uniform(-3, 6) / axial, rng.uniform(0, 0.25), rng.uniform(2.5, 4.5) / axial)  # ELM


def _choroid(rng, noise, image, machine: Machine, b, angle, um_per_px, periodic) -> None:
    """Stroma with dark vessels that grow with depth, then the sclera, near to the choroid's level or far below."""
    height, axial, deep = len(image), um_per_px[0], machine.penetration
    low, bottom = max(int(b[8].min()) - 3, 0), min(int(b[9].max()) + 12, height)
    depth = ((np.arange(low, height)[:, None] + 0.5 - b[8]) * axial).astype(np.float32)
    thick = np.maximum((b[9] - b[8]) * axial, 1).astype(np.float32)
    inside = np.maximum(depth[:bottom - low], 0)
    relative = np.minimum(inside / thick, 1)
    scale = rng.uniform(0.7, 1.3) * np.clip(np.median(thick) / 140, 0.6, 1.5)
    flat = rng.uniform(1.5, 4)  # lumens are cut slantwise: wider than high
    grains = [(size * scale, size * flat * scale) for size in (6, 17)]
    fine, coarse = (woven_field(noise, inside.shape, um_per_px, grain, periodic) for grain in grains)
    mix = np.clip(rng.uniform(1.2, 2.4) * relative - rng.uniform(0, 0.4), 0, 1)
    mixed = ((1 - mix) * fine + mix * coarse) / np.hypot(1 - mix, mix)
    sharp, share = rng.uniform(1, 4), rng.uniform(-0.5, 0.9)
    lumen = expit(sharp * (mixed - share)) * np.minimum(inside / rng.uniform(10, 40), 1)
    wall = rng.uniform(0, 0.35) * np.exp(-0.5 * ((mixed - share + 0.7) / 0.35) ** 2)
    stroma = level(rng.normal(-7.5 + 4 * deep, 1.8) * machine.contrast)
    fall, dark = rng.uniform(150, 350) + 700 * deep, rng.uniform(0.1, 0.6)
    # What no grader sees is not labelled: some light gets to the sclera, 2 to 8 dB above the noise.
    seen = level(rng.uniform(2, 8) - machine.snr + max(machine.roll_off, 0) * bottom / height)
    fall = max(fall, np.median(thick) / np.log(max(stroma / seen, 1.2)))
    capillaries = rng.uniform(0, 0.8) * np.exp(-inside / rng.uniform(8, 25))
    choroid = stroma * (1 + capillaries + wall) * (1 - dark * lumen) * np.exp(-inside / fall)
    # The sclera starts from the choroid's mean at its lower edge: the share of it decides how well that edge is seen.
    begin = stroma * (1 - 0.45 * dark) * np.exp(-thick / fall)
    begin *= rng.uniform(0.5, 0.88) if rng.random() < 0.7 - 0.3 * deep else rng.uniform(1.12, 1.5)
    under = np.maximum(depth - thick, 0)
    fibres = (rng.uniform(8, 20), rng.uniform(60, 250))
    whole = begin * np.exp(-under / (rng.uniform(120, 300) + 500 * deep * rng.random()))
    whole *= 1 + rng.uniform(0, 0.14) * woven_field(noise, whole.shape, um_per_px, fibres, periodic)
    whole *= 1 + rng.uniform(0, 0.1) * course(rng, angle, np.ones(50))  # light let through by the RPE in streaks
    if rng.random() < 0.3:  # the gap between choroid and sclera, a dark or bright line
        line(whole, b[9] - low, rng.uniform(-0.25, 0.25) * begin, rng.uniform(5, 10) / axial)
    blurred = rng.uniform(3, 25) + axial
    edge = np.clip((depth[:bottom - low] - thick) / blurred + 0.5, 0, 1)
    whole[:bottom - low] = choroid + edge * (whole[:bottom - low] - choroid)
    image[low:] += np.clip(depth / max(axial, 6) + 0.5, 0, 1) * (whole - image[low:])


def _vessel(rng, image, vessel: Vessel, b, um_per_px, periodic) -> None:
    """Bright walls above and below, a lumen darker or brighter than the fibres, and the shadow under it."""
    height, width = image.shape
    axial, lateral = um_per_px
    column = vessel.angle / 360 * width
    wide = vessel.diameter * rng.uniform(0.9, 1.5)  # cut slantwise
    counted, columns = around(column, int(np.ceil(1.3 * wide / lateral)) + 1, width, periodic)
    across = ((counted + 0.5 - column) * lateral / (wide / 2)).astype(np.float32)
    upper, lower = b[0, columns], b[1, columns]
    tall = np.maximum(np.minimum(vessel.diameter / axial, 0.95 * (lower - upper)), 0.5)
    centre = upper + np.maximum(tall / 2, rng.uniform(0.4, 0.65) * (lower - upper))
    down = ((np.arange(height)[:, None] + 0.5 - centre) / (tall / 2)).astype(np.float32)
    radius = np.hypot(across, down)
    thin = rng.uniform(0.15, 0.35)
    wall = np.exp(-0.5 * ((radius - 1) / thin) ** 2) * np.abs(down) / (radius + 1e-3)
    streak = np.exp(-0.5 * (across / rng.uniform(0.2, 0.5)) ** 2) * expit(4 * (1.3 - np.abs(down)))
    lumen = rng.uniform(-0.15, 0.4) * expit(8 * (0.85 - radius))
    strength = rng.uniform(2, 9) + rng.uniform(0, 14) * min(vessel.diameter / 115, 1)  # dB
    sides = np.exp(-np.abs(across / rng.uniform(0.75, 1.1)) ** rng.uniform(2, 5))
    shadow = 1 - (1 - level(-strength)) * sides * expit(rng.uniform(1.5, 4) * (down - rng.uniform(0.4, 1.2)))
    bright = 1 + rng.uniform(0.05, 0.5) * wall + rng.uniform(0, 0.3) * streak
    image[:, columns] *= bright * (1 - lumen) * shadow


def _light(rng, angle) -> np.ndarray:
    """What each A-scan gets of the light, (W,) on the fourth root's scale: vignetting, and broad shadows over all."""
    decibel = rng.uniform(0, 2.5) * course(rng, angle, (1, 0.6, 0.3))
    for chance in (0.35, 0.15, 0.05):  # floaters, lashes, the iris
        centre, width, lost = rng.uniform(0, 360), np.exp(rng.uniform(np.log(3), np.log(35))), rng.uniform(2, 16)
        decibel = decibel - lost * near(angle, centre, width) * (rng.random() < chance)
    return level(decibel)


def _vitreous(rng, noise, ilm, um_per_px, size, periodic) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) haze, clouds, membranes and floaters above the ILM, and the light (W,) that floaters let through."""
    height, width = size
    axial = um_per_px[0]
    angle = degrees(width, um_per_px[1], periodic)
    low = min(int(ilm.max()) + 3, height)
    image, through = np.zeros(size, np.float32), np.ones(width)
    above = ((ilm - np.arange(low)[:, None] - 0.5) * axial).astype(np.float32)
    shape = image[:low].shape
    if rng.random() < 0.5:  # the cortex, dense near the retina
        image[:low] += level(rng.uniform(-36, -18)) * np.exp(-np.maximum(above, 0) / rng.uniform(40, 250))
    if rng.random() < 0.4:
        clouds = woven_field(noise, shape, um_per_px, (rng.uniform(20, 110), rng.uniform(150, 900)), periodic)
        image[:low] += level(rng.uniform(-36, -18)) * np.clip(clouds + rng.uniform(-0.5, 0.7), 0, 2)
    if rng.random() < 0.3:  # fibrils, as dots
        dots = np.clip(field(noise, shape, um_per_px, (rng.uniform(3, 7), rng.uniform(8, 25)), periodic) - 1.8, 0, 1)
        where = woven_field(noise, shape, um_per_px, (60, 400), periodic) > rng.uniform(0, 1)
        image[:low] += level(rng.uniform(-20, -4)) * dots * where * (above < rng.uniform(40, 400))
    for chance in (0.6, 0.25, 0.1):
        if rng.random() < chance:
            _membrane(rng, image[:low], ilm, above, angle, axial, edges(periodic)[1])
    if rng.random() < 0.25:
        centre, size_um = rng.uniform(0, 360), rng.uniform(15, 90)
        bell = near(angle, centre, rng.uniform(1, 6))
        line(image[:low], ilm - rng.uniform(100, 600) / axial, level(rng.uniform(-22, -5)) * bell, size_um / axial / 2)
        through = level(-rng.uniform(0, 14) * bell)
    return image, through


def _membrane(rng, image, ilm, above, angle, axial, beyond) -> None:
    """A hyaloid: it spans the retina's bumps, follows it closely or stands off, and is lost and found along its way."""
    close = rng.random() < 0.4
    gap = (rng.uniform(8, 40) if close else rng.uniform(40, 350)) * (1 + 0.4 * course(rng, angle, (1, 0.7, 0.4)))
    spanned = gaussian_filter1d(ilm, len(angle) / (rng.uniform(30, 80) if close else rng.uniform(6, 20)), mode=beyond)
    gap = np.maximum(np.maximum(gap, 4) + (ilm - spanned) * axial, 4)
    seen = np.clip(rng.uniform(0, 1) + 0.8 * course(rng, angle, 1 / np.arange(1, 13)), 0, 1.5)
    bright = level(rng.uniform(-26, -6)) * seen
    image *= 1 - rng.uniform(0, 0.6) * (above < gap)  # the space below is clear
    line(image, ilm - gap / axial, bright, max(rng.uniform(3, 9) / axial, 0.4))
