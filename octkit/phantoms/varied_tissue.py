"""The reflectivity of an eye in the look "varied": layers, vessels and their shadows, choroid, sclera, vitreous.

Painted in the fourth root of the intensity, 1 in a healthy RNFL: near to what every display shows, so that factors and
edges are the eye's own. Levels are given in dB of intensity. Those of the retina are medians of real Spectralis
scans, and vary around them; all other ranges are ours, by eye from published scans. Names of draws end in their
unit; those without one are factors or shares.

What still differs from real scans: no disease but glaucoma (no oedema, drusen, epiretinal membrane or atrophy around
the disc), no disc, no mirrored or folded retina of a scan out of range, no blinks and no jumps. Vessels cross square to
the scan and their shadows are straight; those of the choroid are all cut across, none runs along the scan. Greys and
graininess of RNFL, RPE and choroid enclose those of two real Spectralis scans, but no real scan of another device was
at hand to compare the other devices with. The choroid's lower edge is labelled where it lies, be it seen or not: of 724
healthy eyes scanned without enhanced depth imaging it was found in 52 %, in none of those thicker than 360 um (Transl.
Vis. Sci. Technol. 2018, PMC6166895).
"""

import numpy as np
from numpy.random import Generator
from scipy.ndimage import gaussian_filter1d
from scipy.special import expit

from octkit.phantoms.circle_eye import BRUCH, GCIPL, GCIPL_INL, ILM, INL, ONL_IS, OPL, RNFL, RNFL_GCIPL, SCLERA, Vessel
from octkit.phantoms.draws import bell, course, log_uniform, near, uniform
from octkit.phantoms.frame import Frame, PlacedEye, centres
from octkit.phantoms.painting import Deep, add_line, fill_below, texture, woven_texture
from octkit.phantoms.varied_device import Device

# dB against the RNFL, from the RNFL to the RPE, and the sd between scans.
LEVELS = (0, -6.3, -11.5, -9.5, -17, -0.5, -4.5, 2.5)
LEVELS_SD = (0, 1.2, 1.5, 1.5, 1.5, 2, 2, 1.5)


def paint(look: Generator, noise: Generator, device: Device, eye: PlacedEye) -> np.ndarray:
    """The fourth root of the reflectivity, (H, W) float32.

    Vessels are drawn last from `look`, so that all else is one look whatever vessels there are.
    """
    ilm, bruch, frame = eye.boundaries[ILM], eye.boundaries[BRUCH], eye.frame
    vitreous, floating = _vitreous(look, noise, ilm, frame)
    image = np.zeros(frame.size, np.float32)
    _retina(look, image, device, eye)
    retina = image[max(int(ilm.min()) - 1, 0):int(bruch.max()) + 2]
    grain = uniform(look, axial_um=(8, 30), lateral_um=(8, 60), strength=(0.02, 0.09))
    retina *= 1 + grain.strength * texture(noise, frame, (grain.axial_um, grain.lateral_um), retina.shape)
    _choroid(look, noise, image, device, eye)
    light = _light(look, frame.degrees) * floating
    for vessel in eye.vessels:
        _vessel(look, image, vessel, eye)
    high = min(int(ilm.max()) + 3, frame.size[0])
    inside = np.clip(np.arange(high)[:, None] + 1 - ilm, 0, 1).astype(np.float32)
    image[:high] *= inside
    image[:high] += (1 - inside) * vitreous[:high]
    return image * light.astype(np.float32)


def level(decibel: float | np.ndarray) -> np.ndarray:
    """dB of intensity to the fourth root's scale."""
    return 10 ** (np.asarray(decibel) / 40)


def _retina(look: Generator, image: np.ndarray, device: Device, eye: PlacedEye) -> None:
    """The layers from RNFL to RPE. Fibres send back less where they are thin or lie askew to the beam."""
    b, angle, (axial, lateral) = eye.boundaries, eye.frame.degrees, eye.frame.um_per_px
    soft = max(1.0, look.uniform(3, 9) / axial)
    layers = _layer_levels(look, device)
    smooth = gaussian_filter1d(b[ILM], 80 / lateral, mode=eye.frame.edges[1])
    tilt = np.degrees(np.arctan(np.gradient(smooth) * axial / lateral))
    drawn = uniform(look, askew_db=(0, 2.5), thin_db=(0, 6), bundles_db=(0.2, 1.5))
    askew = -drawn.askew_db * np.minimum((tilt / 10) ** 2, 3)
    thin = -drawn.thin_db * np.clip(1 - (b[RNFL_GCIPL] - b[ILM]) * axial / 90, 0, 1)
    bundles = drawn.bundles_db * course(look, angle, np.arange(1, 61) ** -0.6)
    ganglia_db = -look.uniform(0, 3)  # the ganglion cells' bodies are darker than their dendrites
    for layer, decibel in enumerate(layers):
        uneven_db = look.uniform(0, 0.5)
        own = (askew + thin + bundles if layer == RNFL else 0.4 * askew) + uneven_db * course(look, angle, (1, 1, 1))
        # The ILM's edge is drawn last, against the vitreous: a soft one here would be cut in half there.
        edge = b[ILM] - soft if layer == RNFL else b[layer]
        fill_below(image, edge, level(decibel + own + (ganglia_db if layer == GCIPL else 0)), soft)
        if layer == GCIPL:
            bodies = look.uniform(0.35, 0.6)  # their share of the layer
            fill_below(image, b[RNFL_GCIPL] + bodies * (b[GCIPL_INL] - b[RNFL_GCIPL]), level(decibel + own), soft)
    fall = look.uniform(-0.1, 0.25)  # of the RNFL from its surface to its base
    low, high = max(int(b[ILM].min()), 0), int(b[RNFL_GCIPL].max()) + 1
    depth = (centres(low, min(high, len(image))) - b[ILM]) / np.maximum(b[RNFL_GCIPL] - b[ILM], 1)
    image[low:high] *= 1 - fall * np.clip(depth, 0, 1) * (depth < 1)
    _reflections(look, image, b, tilt, angle, axial)


def _layer_levels(look: Generator, device: Device) -> np.ndarray:
    """dB (8,) of the layers. However weak the device's contrast, RNFL, GCIPL, INL and OPL differ."""
    layers = np.array(LEVELS) * device.contrast + look.normal(0, LEVELS_SD)
    layers[GCIPL] = min(layers[GCIPL], -2)
    layers[INL] = min(layers[INL], layers[GCIPL] - 1.3)
    layers[OPL] = max(layers[OPL], layers[INL] + 0.8)
    return layers


def _reflections(look: Generator, image: np.ndarray, b: np.ndarray, tilt: np.ndarray, angle: np.ndarray,
                 axial: float) -> None:
    """Where the ILM lies square to the beam it mirrors it; the external limiting membrane is a faint line."""
    waves = course(look, angle, np.ones(40))
    drawn = uniform(look, least=(0.8, 2), mirror=(0, 0.7), even=(-0.08, 0.12), ilm_um=(2, 5), elm_above_um=(-3, 6),
                    elm=(0, 0.25), elm_um=(2.5, 4.5))
    mirror = np.clip(waves - drawn.least, 0, 1) * drawn.mirror
    add_line(image, b[ILM] + 4 / axial, mirror * bell(tilt, 6) + drawn.even, max(drawn.ilm_um / axial, 0.5))
    add_line(image, b[ONL_IS] - drawn.elm_above_um / axial, drawn.elm, drawn.elm_um / axial)


def _choroid(look: Generator, noise: Generator, image: np.ndarray, device: Device, eye: PlacedEye) -> None:
    """Stroma with dark vessels, then the sclera, near to the choroid's level or far below."""
    axial, penetration, deep = eye.frame.um_per_px[0], device.penetration, Deep.of(eye, above=3, below=12, least=1)
    lumen, wall = deep.vessels(look, noise, eye.frame)
    stroma = level(look.normal(-7.5 + 4 * penetration, 1.8) * device.contrast)
    drawn = uniform(look, falls_um=(150, 350), dark=(0.1, 0.6), seen_db=(-8, 8), capillaries=(0, 0.8),
                    capillaries_um=(8, 25))
    # In half of the scans some light gets to the sclera, up to 8 dB above the noise; in the others it may be lost.
    seen = level(drawn.seen_db - device.snr + max(device.roll_off, 0) * deep.bottom / len(image))
    fall = max(drawn.falls_um + 700 * penetration, np.median(deep.thickness) / np.log(max(stroma / seen, 1.2)))
    capillaries = drawn.capillaries * np.exp(-deep.inside / drawn.capillaries_um)
    choroid = stroma * (1 + capillaries + wall) * (1 - drawn.dark * lumen) * np.exp(-deep.inside / fall)
    # The choroid's mean there.
    lower_edge = stroma * (1 - drawn.dark * deep.at_edge(lumen)) * np.exp(-deep.thickness / fall)
    sclera = _sclera(look, noise, lower_edge, deep, eye, penetration)
    deep.paint(image, choroid, sclera, look.uniform(3, 45) + axial, axial)


def _sclera(look: Generator, noise: Generator, lower_edge: np.ndarray, deep: Deep, eye: PlacedEye,
            penetration: float) -> np.ndarray:
    """The sclera from the top of `deep` on, (H - top, W), as a share of the choroid's level at its `lower_edge` (W,).

    That share decides how well the edge is seen: not at all in parts of a circle where it is about 1.
    """
    drawn = uniform(look, step_db=(-9, 6 + 4 * penetration), clear=(0, 2.5), parts_db=(0, 2.5))
    step_db = drawn.step_db * min(drawn.clear, 1) + drawn.parts_db * course(look, eye.frame.degrees, (1, 1, 1))
    begin = lower_edge * level(step_db)
    under = np.maximum(deep.depth - deep.thickness, 0)
    drawn = uniform(look, fibres_axial_um=(8, 20), fibres_lateral_um=(60, 250), falls_um=(120, 300), deeper=(0, 1),
                    fibres=(0, 0.14), streaks=(0, 0.1))
    sclera = begin * np.exp(-under / (drawn.falls_um + 500 * penetration * drawn.deeper))
    fibres = (drawn.fibres_axial_um, drawn.fibres_lateral_um)
    sclera *= 1 + drawn.fibres * woven_texture(noise, eye.frame, fibres, sclera.shape)
    sclera *= 1 + drawn.streaks * course(look, eye.frame.degrees, np.ones(50))  # light let through by the RPE
    if look.random() < 0.3:  # the gap between choroid and sclera, a dark or bright line
        gap = uniform(look, gain=(-0.25, 0.25), wide_um=(5, 10))
        add_line(sclera, eye.boundaries[SCLERA] - deep.top, gap.gain * begin, gap.wide_um / eye.frame.um_per_px[0])
    return sclera


def _vessel(look: Generator, image: np.ndarray, vessel: Vessel, eye: PlacedEye) -> None:
    """Bright walls above and below, a lumen darker or brighter than the fibres, and the shadow under it."""
    height, width = image.shape
    axial, lateral = eye.frame.um_per_px
    drawn = uniform(look, slant=(0.9, 1.5), centre=(0.4, 0.65), wall_sd=(0.15, 0.35), streak_sd=(0.2, 0.5),
                    lumen=(-0.15, 0.4), shadow_db=(2, 9), large_db=(0, 14), shadow_width=(0.75, 1.1),
                    shadow_power=(2, 5), shadow_sharp=(1.5, 4), shadow_start=(0.4, 1.2), wall=(0.05, 0.5),
                    streak=(0, 0.3))
    column = vessel.angle / 360 * width
    wide = vessel.diameter * drawn.slant
    counted, columns = eye.frame.around(column, int(np.ceil(1.3 * wide / lateral)) + 1)
    across = ((counted + 0.5 - column) * lateral / (wide / 2)).astype(np.float32)
    upper, lower = eye.boundaries[ILM, columns], eye.boundaries[RNFL_GCIPL, columns]
    tall = np.maximum(np.minimum(vessel.diameter / axial, 0.95 * (lower - upper)), 0.5)
    centre = upper + np.maximum(tall / 2, drawn.centre * (lower - upper))
    down = ((centres(0, height) - centre) / (tall / 2)).astype(np.float32)
    radius = np.hypot(across, down)
    wall = bell(radius - 1, drawn.wall_sd) * np.abs(down) / (radius + 1e-3)
    streak = bell(across, drawn.streak_sd) * expit(4 * (1.3 - np.abs(down)))
    lumen = drawn.lumen * expit(8 * (0.85 - radius))
    left = level(-(drawn.shadow_db + drawn.large_db * min(vessel.diameter / 115, 1)))
    sides = np.exp(-np.abs(across / drawn.shadow_width) ** drawn.shadow_power)
    shadow = 1 - (1 - left) * sides * expit(drawn.shadow_sharp * (down - drawn.shadow_start))
    image[:, columns] *= (1 + drawn.wall * wall + drawn.streak * streak) * (1 - lumen) * shadow


def _light(look: Generator, angle: np.ndarray) -> np.ndarray:
    """What each A-scan gets of the light, (W,) on the fourth root's scale: vignetting, and broad shadows over all."""
    vignetting_db = look.uniform(0, 2.5)
    decibel = vignetting_db * course(look, angle, (1, 0.6, 0.3))
    for chance in (0.35, 0.15, 0.05):  # floaters, lashes, the iris
        centre, degrees, lost_db = look.uniform(0, 360), log_uniform(look, 3, 35), look.uniform(2, 16)
        decibel = decibel - lost_db * near(angle, centre, degrees) * (look.random() < chance)
    return level(decibel)


def _vitreous(look: Generator, noise: Generator, ilm: np.ndarray, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) haze, clouds, membranes and floaters above the ILM, and the light (W,) that floaters let through."""
    (height, width), axial, angle = frame.size, frame.um_per_px[0], frame.degrees
    low = min(int(ilm.max()) + 3, height)
    whole, through = np.zeros(frame.size, np.float32), np.ones(width)
    above = ((ilm - np.arange(low)[:, None] - 0.5) * axial).astype(np.float32)
    image = whole[:low]
    if look.random() < 0.5:  # the cortex, dense near the retina
        cortex = uniform(look, db=(-36, -18), falls_um=(40, 250))
        image += level(cortex.db) * np.exp(-np.maximum(above, 0) / cortex.falls_um)
    if look.random() < 0.4:
        cloud = uniform(look, axial_um=(20, 110), lateral_um=(150, 900), db=(-36, -18), spread=(-0.5, 0.7))
        clouds = woven_texture(noise, frame, (cloud.axial_um, cloud.lateral_um), image.shape)
        image += level(cloud.db) * np.clip(clouds + cloud.spread, 0, 2)
    if look.random() < 0.3:  # fibrils, as dots
        dot = uniform(look, axial_um=(3, 7), lateral_um=(8, 25), rare=(0, 1), db=(-20, -4), reach_um=(40, 400))
        dots = np.clip(texture(noise, frame, (dot.axial_um, dot.lateral_um), image.shape) - 1.8, 0, 1)
        where = woven_texture(noise, frame, (60, 400), image.shape) > dot.rare
        image += level(dot.db) * dots * where * (above < dot.reach_um)
    for chance in (0.6, 0.25, 0.1):
        if look.random() < chance:
            _membrane(look, image, ilm, above, frame)
    if look.random() < 0.25:
        floater = uniform(look, centre=(0, 360), tall_um=(15, 90), degrees=(1, 6), above_um=(100, 600), db=(-22, -5),
                          lost_db=(0, 14))
        across = near(angle, floater.centre, floater.degrees)
        add_line(image, ilm - floater.above_um / axial, level(floater.db) * across, floater.tall_um / axial / 2)
        through = level(-floater.lost_db * across)
    return whole, through


def _membrane(look: Generator, image: np.ndarray, ilm: np.ndarray, above: np.ndarray, frame: Frame) -> None:
    """A hyaloid: it spans the retina's bumps, follows it closely or stands off, and is seen in parts of its way."""
    angle, axial, close = frame.degrees, frame.um_per_px[0], look.random() < 0.4
    gap_um = look.uniform(8, 40) if close else look.uniform(40, 350)
    gap = gap_um * (1 + 0.4 * course(look, angle, (1, 0.7, 0.4)))
    spans = look.uniform(30, 80) if close else look.uniform(6, 20)  # to the width of the scan
    spanned = gaussian_filter1d(ilm, len(angle) / spans, mode=frame.edges[1])
    gap = np.maximum(np.maximum(gap, 4) + (ilm - spanned) * axial, 4)
    mostly = look.uniform(0, 1)
    seen = np.clip(mostly + 0.8 * course(look, angle, 1 / np.arange(1, 13)), 0, 1.5)
    drawn = uniform(look, db=(-26, -6), clear=(0, 0.6), wide_um=(3, 9))
    image *= 1 - drawn.clear * (above < gap)  # the space below is clear
    add_line(image, ilm - gap / axial, level(drawn.db) * seen, max(drawn.wide_um / axial, 0.4))
