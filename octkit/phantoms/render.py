"""The image of an eye, for circle scans and for the B-scans of volumes, in one of two looks.

"spectralis" is one device: its grey levels and noise were compared with real Spectralis scans, whose display is the
fourth root of the intensity, and vary around them. "varied" draws a device for each scan (`varied_device`) and paints
the eye as that device would show it (`varied_tissue`): for models that must hold up on scans of devices they never saw.
Ranges of random draws are by eye from such scans; shares are of a grey level, lengths in um where a name says so.
"""

import numpy as np
from numpy.random import Generator
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from scipy.special import expit

from octkit.common.errors import OctkitError
from octkit.phantoms import varied_device, varied_tissue
from octkit.phantoms.circle_eye import ILM, ONL_IS, RNFL, RNFL_GCIPL, Vessel
from octkit.phantoms.draws import bell, course, log_uniform, near, uniform
from octkit.phantoms.frame import PlacedEye, centres
from octkit.phantoms.painting import Deep, add_line, fill_below, texture

LOOKS = ("spectralis", "varied")
LEVELS = (1, 0.67, 0.48, 0.61, 0.37, 1.08, 0.72, 1.15)  # greys from the RNFL to the RPE, as shares of the RNFL's


def check_looks(looks: str) -> None:
    """Raise OctkitError for looks that do not exist."""
    if looks not in LOOKS:
        raise OctkitError(f"phantom looks: found {looks!r}, expected one of {', '.join(LOOKS)}")


def paint(look: Generator, noise: Generator, eye: PlacedEye, looks: str = "spectralis") -> np.ndarray:
    """The image (H, W) uint8 of an eye.

    `look` draws the look, the same at any size; `noise` the grain. Two generators with one seed give B-scans of a
    volume one device.
    """
    if looks == "spectralis":
        return _spectralis(look, noise, eye)
    device = varied_device.draw_device(look)
    return varied_device.expose(noise, device, varied_tissue.paint(look, noise, device, eye), eye)


def _spectralis(look: Generator, noise: Generator, eye: PlacedEye) -> np.ndarray:
    b, angle, axial = eye.boundaries, eye.frame.degrees, eye.frame.um_per_px[0]
    greys = uniform(look, rnfl=(145, 190), vitreous=(10, 48))
    image = _vitreous(look, noise, eye, greys.vitreous)
    shares = np.array(LEVELS) * look.normal(1, 0.03, 8)
    bundles = 1 + 0.06 * course(look, angle, 1 / np.arange(1, 21))
    for layer, share in enumerate(shares):
        fill_below(image, b[layer], greys.rnfl * share * (bundles if layer == RNFL else 1), max(1.0, 5 / axial))
    # Where the ILM lies square to the beam it mirrors it.
    mirror = np.clip(course(look, angle, np.ones(25)) - 0.8, 0, 1.5) * look.uniform(0, 0.5)
    add_line(image, b[ILM] + 5 / axial, greys.rnfl * mirror, 5 / axial)
    add_line(image, b[ONL_IS] - 15 / axial, 0.1 * greys.rnfl, 4 / axial)  # the external limiting membrane
    _choroid(look, noise, image, eye, 0.58 * greys.rnfl, greys.vitreous)
    for vessel in eye.vessels:
        _vessel(look, image, vessel, eye)
    rows = np.linspace(0, 1, len(image), dtype=np.float32)[:, None]
    image *= _light(look, noise, angle) * (1 - look.uniform(0, 0.35) * rows**2)
    speckle = look.uniform(0.07, 0.17)  # sd of the grey's logarithm
    image *= np.exp(speckle * texture(noise, eye.frame, (3.5, 9)))
    return _camera(look, noise, image, greys.vitreous, rows, eye.frame.edges)


def _vitreous(look: Generator, noise: Generator, eye: PlacedEye, level: float) -> np.ndarray:
    """The ground to paint on, (H, W) float32: near-dark, with haze in some scans and a detached hyaloid in others."""
    (height, width), axial, ilm = eye.frame.size, eye.frame.um_per_px[0], eye.boundaries[ILM]
    angle = eye.frame.degrees
    image = np.full(eye.frame.size, level, np.float32)
    above = ((ilm - np.arange(height)[:, None] - 0.5) * axial).astype(np.float32)
    if look.random() < 0.5:  # the vitreous cortex, dense near the retina
        cortex = uniform(look, grey=(4, 22), falls_um=(30, 90))
        image += cortex.grey * np.exp(-np.maximum(above, 0) / cortex.falls_um)
    if look.random() < 0.3:
        cloud_grey = look.uniform(3, 14)
        image += cloud_grey * np.maximum(texture(noise, eye.frame, (60, 400)), 0)
    if look.random() < 0.5:
        hyaloid = uniform(look, gap_um=(15, 130), waves_um=(10, 60))
        gap = hyaloid.gap_um + hyaloid.waves_um * course(look, angle, (1, 0.7, 0.4))
        # The membrane spans the retina's bumps and touches it here and there.
        gap = np.maximum(gap, 4) + (ilm - gaussian_filter1d(ilm, width / 40, mode=eye.frame.edges[1])) * axial
        grey = look.uniform(8, 60)
        brightness = grey * np.maximum(1 + 0.4 * course(look, angle, 1 / np.arange(1, 13)), 0)
        below = uniform(look, darker=(0, 0.35), membrane_um=(4, 8))
        image *= 1 - below.darker * ((above < gap) & (above > 0))
        add_line(image, ilm - gap / axial, brightness, below.membrane_um / axial)
    return image


def _choroid(look: Generator, noise: Generator, image: np.ndarray, eye: PlacedEye, level: float,
             vitreous: float) -> None:
    """Stroma with dark lumens of vessels, and the sclera's fading light below, in place."""
    frame, deep = eye.frame, Deep.of(eye, above=2, below=6, least=0)
    inside, (lumen, wall) = deep.inside, deep.vessels(look, noise, frame)
    streaks = 1 + 0.06 * course(look, frame.degrees, np.ones(40))
    floor, under = 0.45 * vitreous, np.maximum(deep.depth - deep.thickness, 0)
    drawn = uniform(look, lumen=(0.35, 0.6), rim=(0, 0.25), fades_um=(180, 420), sclera=(0.6, 1.08), parts=(0, 0.15))
    lost_um = log_uniform(look, 200, 1500)  # enhanced depth imaging loses less of the light with depth
    choroid = level * (0.95 + 0.7 * np.exp(-inside / 20) + wall) * (1 - drawn.lumen * lumen) * np.exp(-inside / lost_um)
    # The choroid's mean at its lower edge, and the share of it that the sclera has there.
    edge = level * (1 - drawn.lumen * deep.at_edge(lumen)) * np.exp(-deep.thickness / lost_um)
    share = drawn.sclera + drawn.parts * course(look, frame.degrees, (1, 1, 1))
    fading = (1 + drawn.rim * np.exp(-under / 25)) * np.exp(-under / drawn.fades_um)
    sclera = floor + np.maximum(share * edge * streaks - floor, 0) * fading
    axial = frame.um_per_px[0]
    deep.paint(image, choroid, sclera, 8 + axial, axial)


def _vessel(look: Generator, image: np.ndarray, vessel: Vessel, eye: PlacedEye) -> None:
    """Lumen, bright walls and shadow of a retinal vessel, in place."""
    height, width = image.shape
    axial, lateral = eye.frame.um_per_px
    drawn = uniform(look, centre=(0.42, 0.58), dark=(0.75, 1.1), shadow_width=(0.8, 1.15), lumen=(0.05, 0.3),
                    wall=(0.1, 0.4), streak=(0.05, 0.35))
    column = vessel.angle / 360 * width
    counted, columns = eye.frame.around(column, int(np.ceil(1.5 * vessel.diameter / lateral)) + 1)
    across = (counted - column) * lateral / (vessel.diameter / 2)
    upper, lower = eye.boundaries[ILM, columns], eye.boundaries[RNFL_GCIPL, columns]
    tall = np.maximum(np.minimum(0.9 * vessel.diameter / axial, 0.85 * (lower - upper)), 0.1)
    centre = upper + drawn.centre * (lower - upper)
    down = (centres(0, height) - centre) / (tall / 2)
    radius = np.hypot(across, down)
    wall = bell(radius - 1, 0.25) * np.abs(down) / (radius + 1e-3)
    streak = bell(across, 0.3) * expit(4 * (1.6 - np.abs(down)))
    shadow = (0.1 + 0.48 * min(vessel.diameter / 115, 1)) * drawn.dark
    shadow = shadow * np.exp(-np.abs(across / drawn.shadow_width) ** 3) * expit(2.5 * (down - 1.2))
    lumen = drawn.lumen * expit(10 * (0.85 - radius))
    image[:, columns] *= (1 + drawn.wall * wall + drawn.streak * streak) * (1 - lumen) * (1 - shadow)


def _light(look: Generator, noise: Generator, angle: np.ndarray) -> np.ndarray:
    """The share of the light that each A-scan gets, (W,)."""
    uneven = look.uniform(0, 0.12)
    light = (1 + uneven * course(look, angle, (1, 0.6, 0.3))) * (1 + 0.02 * noise.standard_normal(len(angle)))
    if look.random() < 0.4:  # the shadow of a floater or of the lens
        shadow = uniform(look, lost=(0.1, 0.35), centre=(0, 360), degrees=(4, 20))
        light *= 1 - shadow.lost * near(angle, shadow.centre, shadow.degrees)
    return light


def _camera(look: Generator, noise: Generator, image: np.ndarray, vitreous: float, rows: np.ndarray,
            edges: tuple[str, str]) -> np.ndarray:
    """Blur, shot and readout noise (added to the intensity, the fourth power of the grey), exposure and gamma."""
    drawn = uniform(look, blur_px=(0.2, 0.75), readout=(0.6, 0.95), exposure=(0.85, 1.2), gamma=(0.75, 1.2))
    image = gaussian_filter(image, drawn.blur_px, mode=edges, truncate=3)
    readout = (drawn.readout * vitreous * (1 - 0.5 * rows)) ** 4
    intensity = image**4
    intensity += noise.standard_normal(image.shape, dtype=np.float32) * (readout + 0.1 * intensity)
    exposed = np.sqrt(np.sqrt(np.maximum(intensity, 0))) * drawn.exposure / 255
    return np.rint(255 * np.clip(exposed, 0, 1) ** drawn.gamma).astype(np.uint8)
