"""How an eye looks in a scan: the painter of phantoms, for circle scans and for the B-scans of volumes.

Two looks. "spectralis" keeps to one device: grey levels and noise were held against real Spectralis scans, whose
display is the fourth root of the intensity, and vary around them. "varied" draws a machine for each scan
(`machines`) and paints the eye as that machine would show it (`tissue`): for models that must hold up on
scans of devices they never saw.
"""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from scipy.special import expit

from octkit.common.errors import OctkitError
from octkit.phantoms import varied_device, varied_tissue
from octkit.phantoms.circle_eye import Vessel, course, near
from octkit.phantoms.painting import around, below, degrees, edges, field, line

LOOKS = ("spectralis", "varied")


def paint(look_rng: np.random.Generator, noise_rng: np.random.Generator, boundaries: np.ndarray,
          vessels: Sequence[Vessel], um_per_px: tuple[float, float], size: tuple[int, int],
          looks: str = "spectralis", periodic: bool = True) -> np.ndarray:
    """The image (H, W) uint8 of an eye with the layers' `boundaries` (10, W), in rows, named in `anatomy.BOUNDARIES`.

    `look_rng` draws the look, the same at any size; `noise_rng` the grain. Two generators with one seed give B-scans
    of a volume one machine. A vessel's angle places it: 360 degrees are the image's width, of a B-scan too.
    `periodic` is for circle scans; where it is False nothing wraps. Layers may have thickness 0. Raises
    OctkitError for looks that do not exist.
    """
    if looks == "varied":
        machine = varied_device.draw_machine(look_rng)
        grey = varied_tissue.paint(look_rng, noise_rng, machine, boundaries, vessels, um_per_px, size, periodic)
        return varied_device.expose(noise_rng, machine, grey, boundaries, um_per_px, periodic)
    if looks == "spectralis":
        return _spectralis(look_rng, noise_rng, boundaries, vessels, um_per_px, size, periodic)
    raise OctkitError(f"phantom looks: found {looks!r}, expected one of {', '.join(LOOKS)}")


def _spectralis(rng, noise, b: np.ndarray, vessels, um_per_px, size, periodic: bool) -> np.ndarray:
    """The look from `rng`, the pixels' noise from `noise`. Grey levels until _camera."""
    height, width = size
    angle = degrees(width, um_per_px[1], periodic)
    rnfl, vitreous = rng.uniform(145, 190), rng.uniform(10, 48)
    image = _vitreous(rng, noise, b[0], vitreous, size, um_per_px, periodic)
    soft = max(1.0, 5 / um_per_px[0])
    # From the RNFL to the RPE, as shares of the RNFL's level.
    shares = np.array((1, 0.67, 0.48, 0.61, 0.37, 1.08, 0.72, 1.15)) * rng.normal(1, 0.03, 8)
    bundles = 1 + 0.06 * course(rng, angle, 1 / np.arange(1, 21))
    for layer, share in enumerate(shares):
        below(image, b[layer], rnfl * share * (bundles if layer == 0 else 1), soft)
    # Where the ILM lies square to the beam it mirrors it.
    mirror = np.clip(course(rng, angle, np.ones(25)) - 0.8, 0, 1.5) * rng.uniform(0, 0.5)
    line(image, b[0] + 5 / um_per_px[0], rnfl * mirror, 5 / um_per_px[0])
    line(image, b[5] - 15 / um_per_px[0], 0.1 * rnfl, 4 / um_per_px[0])  # the external limiting membrane
    _choroid(rng, noise, image, b, 0.58 * rnfl, vitreous, um_per_px, periodic)
    for vessel in vessels:
        _vessel(rng, image, vessel, b, um_per_px, periodic)
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    light = (1 + rng.uniform(0, 0.12) * course(rng, angle, (1, 0.6, 0.3))) * (1 + 0.02 * noise.standard_normal(width))
    if rng.random() < 0.4:  # a floater's or the lens's shadow over everything
        light *= 1 - rng.uniform(0.1, 0.35) * near(angle, rng.uniform(0, 360), rng.uniform(4, 20))
    image *= light * (1 - rng.uniform(0, 0.35) * rows**2)
    image *= np.exp(rng.uniform(0.07, 0.17) * field(noise, size, um_per_px, (3.5, 9), periodic))  # speckle
    return _camera(rng, noise, image, vitreous, rows, periodic)


def _vitreous(rng, noise, ilm, level, size, um_per_px, periodic) -> np.ndarray:
    """The ground to paint on, (H, W) float32: near-dark, with haze in some scans and a detached hyaloid in others."""
    height, width = size
    angle = degrees(width, um_per_px[1], periodic)
    image = np.full(size, level, np.float32)
    above = ((ilm - np.arange(height)[:, None] - 0.5) * um_per_px[0]).astype(np.float32)
    if rng.random() < 0.5:  # the vitreous cortex, dense near the retina
        image += rng.uniform(4, 22) * np.exp(-np.maximum(above, 0) / rng.uniform(30, 90))
    if rng.random() < 0.3:
        image += rng.uniform(3, 14) * np.maximum(field(noise, size, um_per_px, (60, 400), periodic), 0)
    if rng.random() < 0.5:
        gap = rng.uniform(15, 130) + rng.uniform(10, 60) * course(rng, angle, (1, 0.7, 0.4))
        # The membrane spans the retina's bumps and touches it here and there.
        gap = np.maximum(gap, 4) + (ilm - gaussian_filter1d(ilm, width / 40, mode=edges(periodic)[1])) * um_per_px[0]
        brightness = rng.uniform(8, 60) * np.maximum(1 + 0.4 * course(rng, angle, 1 / np.arange(1, 13)), 0)
        image *= 1 - rng.uniform(0, 0.35) * ((above < gap) & (above > 0))
        line(image, ilm - gap / um_per_px[0], brightness, rng.uniform(4, 8) / um_per_px[0])
    return image


def _choroid(rng, noise, image, b, level, vitreous, um_per_px, periodic) -> None:
    """Stroma with dark vessel lumens that grow with depth, and the sclera's fading light below, in place."""
    height, width = image.shape
    low, bottom = max(int(b[8].min()) - 2, 0), min(int(b[9].max()) + 6, height)
    depth = ((np.arange(low, height)[:, None] + 0.5 - b[8]) * um_per_px[0]).astype(np.float32)
    thickness = ((b[9] - b[8]) * um_per_px[0]).astype(np.float32)
    inside = np.maximum(depth[:bottom - low], 0)
    relative = np.minimum(inside / np.maximum(thickness, 1), 1)
    grain = rng.uniform(0.8, 1.3)
    fine = field(noise, inside.shape, um_per_px, (7 * grain, 20 * grain), periodic)
    coarse = field(noise, inside.shape, um_per_px, (16 * grain, 45 * grain), periodic)
    deep = np.clip(1.6 * relative - 0.25, 0, 1)
    mixed = ((1 - deep) * fine + deep * coarse) / np.hypot(1 - deep, deep)
    lumen = rng.uniform(0.3, 0.55) * expit(2.5 * (mixed - rng.uniform(-0.3, 0.3))) * np.minimum(inside / 25, 1)
    choroid = level * (0.92 + 0.7 * np.exp(-inside / 20)) * (1 - 0.15 * relative) * (1 - lumen)
    streaks = 1 + 0.06 * course(rng, degrees(width, um_per_px[1], periodic), np.ones(40))
    floor, under = 0.45 * vitreous, np.maximum(depth - thickness, 0)
    fading = (1 + rng.uniform(0, 0.25) * np.exp(-under / 25)) * np.exp(-under / rng.uniform(180, 420))
    whole = floor + np.maximum(rng.uniform(0.36, 0.53) * level * streaks - floor, 0) * fading
    edge = np.clip((depth[:bottom - low] - thickness) / (8 + um_per_px[0]) + 0.5, 0, 1)
    whole[:bottom - low] = choroid + edge * (whole[:bottom - low] - choroid)
    image[low:] += np.clip(depth / max(um_per_px[0], 6) + 0.5, 0, 1) * (whole - image[low:])


def _vessel(rng, image, vessel: Vessel, b, um_per_px, periodic) -> None:
    """Lumen, bright walls and shadow of a retinal vessel, in place."""
    height, width = image.shape
    axial, lateral = um_per_px
    column = vessel.angle / 360 * width
    reach = int(np.ceil(1.5 * vessel.diameter / lateral)) + 1
    counted, columns = around(column, reach, width, periodic)
    across = (counted - column) * lateral / (vessel.diameter / 2)
    upper, lower = b[0, columns], b[1, columns]
    tall = np.maximum(np.minimum(0.9 * vessel.diameter / axial, 0.85 * (lower - upper)), 0.1)
    centre = upper + rng.uniform(0.42, 0.58) * (lower - upper)
    down = (np.arange(height)[:, None] + 0.5 - centre) / (tall / 2)
    radius = np.hypot(across, down)
    wall = np.exp(-0.5 * ((radius - 1) / 0.25) ** 2) * np.abs(down) / (radius + 1e-3)
    streak = np.exp(-0.5 * (across / 0.3) ** 2) * expit(4 * (1.6 - np.abs(down)))
    shadow = (0.1 + 0.48 * min(vessel.diameter / 115, 1)) * rng.uniform(0.75, 1.1)
    shadow = shadow * np.exp(-np.abs(across / rng.uniform(0.8, 1.15)) ** 3) * expit(2.5 * (down - 1.2))
    lumen = rng.uniform(0.05, 0.3) * expit(10 * (0.85 - radius))
    image[:, columns] *= ((1 + rng.uniform(0.1, 0.4) * wall + rng.uniform(0.05, 0.35) * streak)
                          * (1 - lumen) * (1 - shadow))


def _camera(rng, noise, image, vitreous, rows, periodic) -> np.ndarray:
    """Blur, shot and readout noise (added to the intensity, the fourth power of the grey), exposure and gamma."""
    image = gaussian_filter(image, rng.uniform(0.2, 0.75), mode=edges(periodic), truncate=3)
    readout = (rng.uniform(0.6, 0.95) * vitreous * (1 - 0.5 * rows)) ** 4
    intensity = image**4
    intensity += noise.standard_normal(image.shape, dtype=np.float32) * (readout + 0.1 * intensity)
    exposed = np.sqrt(np.sqrt(np.maximum(intensity, 0))) * rng.uniform(0.85, 1.2) / 255
    return np.rint(255 * np.clip(exposed, 0, 1) ** rng.uniform(0.75, 1.2)).astype(np.uint8)
