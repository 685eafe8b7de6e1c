"""The random OCT device behind a scan of the look "varied": how it turns an eye's reflectivity into a grey image.

Each scan draws its own: a spectral-domain device that averages many frames, one that shows a single frame, or a
swept-source device, with ranges that overlap on purpose. The numbers are ours, chosen to span what scans of
the common devices show; the first kind's were looked up in real Spectralis scans.

Speckle: the field that comes back from fine tissue is a sum of many waves of random phase, so its intensity is
exponential about its mean, and the mean of N independent frames follows a gamma distribution of shape N
(Goodman, Speckle Phenomena in Optics, 2007, chapters 3 and 4). The detector's noise adds a field of the same kind.
"""

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from scipy.ndimage import gaussian_filter
from scipy.special import log_ndtr

from octkit.phantoms.circle_eye import ILM, SCLERA
from octkit.phantoms.draws import log_uniform
from octkit.phantoms.frame import PlacedEye, centres
from octkit.phantoms.painting import texture

PIXEL = 43  # um^2: a pixel of the usual device, 3.9 x 11 um


class Kind(NamedTuple):
    """A kind of device: its share among devices, ranges of what is drawn, and how many show logarithms."""

    share: float
    frames: tuple[float, float]
    snr: tuple[float, float]
    logarithmic: float
    penetration: tuple[float, float]


KINDS = {"averaged": Kind(0.4, (5, 40), (22, 33), 0.25, (0, 0.65)),
         "single": Kind(0.27, (1, 2.5), (15, 27), 0.6, (0, 0.65)),
         "swept": Kind(0.33, (1.5, 20), (17, 30), 0.75, (0.45, 1))}


class Device(SimpleNamespace):
    """One device on one day. Levels in dB against a healthy RNFL; lengths in um.

    `penetration` 0 loses the light in the choroid, 1 shows the sclera. `contrast` stretches the differences between
    layers. `frames` is the number of frames averaged, `pooling` how much of a large pixel's area is averaged too
    (0 picks one speckle, 1 all). `grain` is the speckle's (axial, lateral), `noise_grain` the noise's, `blur` the
    sharpness. `snr` is the RNFL over the noise; the display subtracts the share `subtracted` of the noise.
    `roll_off` is lost from the upper edge to the lower one, or the other way round where negative. `display` 0 is
    logarithmic, otherwise the root taken of the intensity; `black` the level shown as black by the logarithm,
    `white` the RNFL's grey, `gamma` and `lift` what is done to greys after that. `unevenness` is the A-scans' own, as
    a share of the grey, and five times as much of the noise's intensity. Rows and corners without signal: `bands`
    (top, bottom) as shares of the height, `corners` (4, 2) shares of height and width; `stripes` (n, 2) places and
    strengths of fixed lines.
    """


def draw_device(rng: Generator) -> Device:
    """A random device; the number of random draws is the same for each."""
    name = list(KINDS)[rng.choice(len(KINDS), p=[kind.share for kind in KINDS.values()])]
    kind = KINDS[name]
    frames = log_uniform(rng, *kind.frames)
    snr = rng.uniform(*kind.snr)
    snr -= rng.uniform(2, 6) * (rng.random() < 0.2)  # a cataract, a dry eye, a beam cut by the iris
    logarithmic = rng.random() < kind.logarithmic
    root = rng.uniform(3.2, 4.8)
    top, bottom = np.where(rng.random(2) < 0.12, rng.uniform(0.01, 0.2, 2), 0)
    corners = np.where(rng.random((4, 1)) < 0.05, rng.uniform(0.05, 0.35, (4, 2)), 0)
    stripes = np.column_stack([rng.random(3), np.where(rng.random(3) < 0.06, rng.uniform(0.5, 4, 3), 0)])
    return Device(
        kind=name,
        penetration=rng.uniform(*kind.penetration),
        contrast=rng.uniform(0.6, 1.15),
        frames=max(float(frames), 1) if frames > 1.3 else 1.0,
        pooling=rng.uniform(0, 1),
        grain=(rng.uniform(2, 7), rng.uniform(7, 18)),
        noise_grain=(rng.uniform(0, 4.5), rng.uniform(0, 6)),
        blur=(rng.uniform(1, 5), rng.uniform(2, 14)),
        snr=snr,
        subtracted=rng.uniform(0, 1) * (rng.random() < 0.6),
        roll_off=rng.uniform(-4, 9),
        display=0.0 if logarithmic else root,
        black=min(-snr + rng.uniform(-4, 6), -13),
        white=rng.uniform(120, 215),
        gamma=rng.uniform(0.8, 1.25),
        lift=rng.uniform(2, 30) * (rng.random() < 0.2),
        unevenness=rng.uniform(0, 0.035),
        bands=(top, bottom),
        corners=corners,
        stripes=stripes,
    )


def expose(noise: Generator, device: Device, grey: np.ndarray, eye: PlacedEye) -> np.ndarray:
    """The image (H, W) uint8 that `device` makes of an eye: `grey` (H, W) is the fourth root of its reflectivity,
    1 in a healthy RNFL. No frame, corner or band of the device covers a pixel between ILM and sclera."""
    (height, width), (axial, lateral) = grey.shape, eye.frame.um_per_px
    # What is near to any display is blurred, not the intensity: so an edge stays, to the eye, where the label has it.
    grey = gaussian_filter(grey, (device.blur[0] / axial, device.blur[1] / lateral), mode=eye.frame.edges, truncate=3)
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    grey *= 1 + device.unevenness * noise.standard_normal(width, dtype=np.float32)
    signal = grey**4 * 10 ** (-device.roll_off / 10 * (rows if device.roll_off > 0 else rows - 1))
    floor = np.float32(10 ** (-device.snr / 10))
    dark = np.full((height, 1), floor)
    for place, strength in device.stripes:
        dark[int(place * height)] *= 1 + strength
    dark = dark * np.exp(5 * device.unevenness * noise.standard_normal(width, dtype=np.float32))
    intensity = _speckled(noise, device, signal, dark, eye)
    intensity -= device.subtracted * floor
    if device.display:  # 0 for black, 1 for the level of a healthy RNFL
        shown = np.maximum(intensity, 0) ** (1 / device.display)
    else:
        shown = 1 - 10 * np.log10(np.maximum(intensity, 1e-9)) / device.black
    shown = device.white * shown / 255
    image = 255 * np.clip(shown, 0, 1) ** device.gamma * (1 - device.lift / 255) + device.lift
    return np.rint(_framed(device, image, eye.boundaries)).astype(np.uint8)


def _speckled(noise: Generator, device: Device, signal: np.ndarray, dark: np.ndarray, eye: PlacedEye) -> np.ndarray:
    """A random intensity (H, W) whose mean is signal and noise together, with the grain of whichever is stronger."""
    mean = signal + dark
    of_tissue, of_noise = (texture(noise, eye.frame, grain, mean.shape) for grain in (device.grain, device.noise_grain))
    share = signal / mean
    grain = ((1 - share) * of_noise + share * of_tissue) / np.hypot(1 - share, share)  # of variance 1, as both are
    area = max(eye.frame.um_per_px[0] * eye.frame.um_per_px[1] / PIXEL, 1)
    return mean * speckle(grain, device.frames * area**device.pooling)


def speckle(gaussian: np.ndarray, frames: float) -> np.ndarray:
    """Gaussian noise of variance 1 turned into speckle of mean 1: gamma of shape `frames`, exponential for 1.

    From 2 on by the cube of Wilson and Hilferty (PNAS 17:684, 1931); between 1 and 2 a mixture of these two that has
    the right variance, 1 / frames.
    """
    shape = max(frames, 2)
    cube = np.maximum(1 - 1 / (9 * shape) + gaussian / (3 * np.sqrt(shape)), 0) ** 3
    if frames >= 2:
        return cube
    share = (1 - frames**-0.5) / (1 - 2**-0.5)
    return share * cube - (1 - share) * log_ndtr(-gaussian)


def _framed(device: Device, image: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Black what the device's frame cuts off, but for two rows around the retina and choroid."""
    height, width = image.shape
    free = (centres(0, height) < b[ILM] - 2) | (centres(0, height) > b[SCLERA] + 2)
    top, bottom = (int(share * height) for share in device.bands)
    image[:min(top, max(int(b[ILM].min()) - 2, 0))] = 0
    image[max(height - bottom, min(int(np.ceil(b[SCLERA].max())) + 2, height)):] = 0
    for corner, (tall, wide) in enumerate(device.corners):
        if tall:
            down, across = np.arange(height)[:, None] / (tall * height), np.arange(width) / (wide * width)
            down, across = down[::-1] if corner // 2 else down, across[::-1] if corner % 2 else across
            image[(down + across < 1) & free] = 0
    return image
