"""The machine behind a varied phantom: how an OCT device turns an eye's reflectivity into a grey image.

Each scan draws its own: a spectral-domain device that averages many frames, one that shows a single frame, or a
swept-source device, with ranges that overlap on purpose. The numbers are ours, chosen to span what scans of
the common devices show; the first kind's were looked up in real Spectralis scans.

Speckle: the field that comes back from fine tissue is a sum of many waves of random phase, so its intensity is
exponential about its mean, and the mean of N independent frames follows a gamma distribution of shape N
(Goodman, Speckle Phenomena in Optics, 2007, chapters 3 and 4). The detector's noise adds a field of the same kind.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import log_ndtr

from octkit.phantoms.painting import edges, field

KINDS = ("averaged", "single", "swept")
PIXEL = 43  # um^2: a pixel of the usual device, 3.9 x 11 um


@dataclass(frozen=True)
class Machine:
    """One device on one day. Levels in dB against a healthy RNFL; lengths in um.

    `penetration` 0 loses the light in the choroid, 1 shows the sclera. `contrast` stretches the differences between
    layers. `looks` is the number of frames averaged, `pooling` how much of a large pixel's area is averaged too
    (0 picks one speckle, 1 all). `grain` is the speckle's (axial, lateral), `noise_grain` the noise's, `blur` the
    sharpness. `snr` is the RNFL over the noise; the display subtracts the share `subtracted` of the noise.
    `roll_off` is lost from the upper edge to the lower one, or the other way round where negative. `display` 0 is
    logarithmic, otherwise the root taken of the intensity; `black` the level shown as black by the logarithm,
    `white` the RNFL's grey, `gamma` and `lift` what is done to greys after that. `unevenness` is the A-scans' own, as
    a share of the grey, and five times as much of the noise's intensity. Rows and corners without signal: `bands`
    (top, bottom) as shares of the height, `corners` (4, 2) shares of height and width; `stripes` (n, 2) places and
    strengths of fixed lines.
    """

    kind: str
    penetration: float
    contrast: float
    looks: float
    pooling: float
    grain: tuple[float, float]
    noise_grain: tuple[float, float]
    blur: tuple[float, float]
    snr: float
    subtracted: float
    roll_off: float
    display: float
    black: float
    white: float
    gamma: float
    lift: float
    unevenness: float
    bands: tuple[float, float]
    corners: np.ndarray
    stripes: np.ndarray


def draw_machine(rng: np.random.Generator) -> Machine:
    """A random device; the number of random draws is the same for each."""
    kind = KINDS[rng.choice(3, p=(0.4, 0.27, 0.33))]
    averaged, single, swept = (kind == name for name in KINDS)
    looks = np.exp(rng.uniform(*np.log((5, 40) if averaged else (1, 2.5) if single else (1.5, 20))))
    snr = rng.uniform(*((22, 33) if averaged else (15, 27) if single else (17, 30)))
    snr -= rng.uniform(2, 6) * (rng.random() < 0.2)  # a cataract, a dry eye, a beam cut by the iris
    logarithmic = rng.random() < (0.25 if averaged else 0.6 if single else 0.75)
    root = rng.uniform(3.2, 4.8)
    bands = np.where(rng.random(2) < 0.12, rng.uniform(0.01, 0.2, 2), 0)
    corners = np.where(rng.random((4, 1)) < 0.05, rng.uniform(0.05, 0.35, (4, 2)), 0)
    stripes = np.column_stack([rng.random(3), np.where(rng.random(3) < 0.06, rng.uniform(0.5, 4, 3), 0)])
    return Machine(
        kind=kind,
        penetration=rng.uniform(*((0.45, 1) if swept else (0, 0.65))),
        contrast=rng.uniform(0.6, 1.15),
        looks=max(float(looks), 1) if looks > 1.3 else 1.0,
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
        bands=tuple(bands),
        corners=corners,
        stripes=stripes,
    )


def expose(noise: np.random.Generator, machine: Machine, grey: np.ndarray, boundaries: np.ndarray, um_per_px,
           periodic: bool = True) -> np.ndarray:
    """The image (H, W) uint8 that `machine` makes of an eye: `grey` (H, W) is the fourth root of its reflectivity,
    1 in a healthy RNFL. No frame, corner or band of the device covers a pixel between ILM and sclera."""
    height, width = grey.shape
    axial, lateral = um_per_px
    # What is near to any display is blurred, not the intensity: so an edge stays, to the eye, where the label has it.
    grey = gaussian_filter(grey, (machine.blur[0] / axial, machine.blur[1] / lateral), mode=edges(periodic), truncate=3)
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    grey *= 1 + machine.unevenness * noise.standard_normal(width, dtype=np.float32)
    signal = grey**4 * 10 ** (-machine.roll_off / 10 * (rows if machine.roll_off > 0 else rows - 1))
    floor = np.float32(10 ** (-machine.snr / 10))
    dark = np.full((height, 1), floor)
    for place, strength in machine.stripes:
        dark[int(place * height)] *= 1 + strength
    dark = dark * np.exp(5 * machine.unevenness * noise.standard_normal(width, dtype=np.float32))
    intensity = _speckled(noise, machine, signal, dark, um_per_px, periodic)
    intensity -= machine.subtracted * floor
    shown = machine.white * _displayed(machine, intensity) / 255
    image = 255 * np.clip(shown, 0, 1) ** machine.gamma * (1 - machine.lift / 255) + machine.lift
    return np.rint(_framed(machine, image, boundaries)).astype(np.uint8)


def _speckled(noise, machine: Machine, signal, dark, um_per_px, periodic) -> np.ndarray:
    """A random intensity (H, W) whose mean is signal and noise together, with the grain of whichever is stronger."""
    mean = signal + dark
    share = signal / mean
    grains = [field(noise, mean.shape, um_per_px, grain, periodic) for grain in (machine.grain, machine.noise_grain)]
    mixed = (share * grains[0] + (1 - share) * grains[1]) / np.hypot(share, 1 - share)
    area = max(um_per_px[0] * um_per_px[1] / PIXEL, 1)
    return mean * speckle(mixed, machine.looks * area**machine.pooling)


def speckle(gaussian: np.ndarray, looks: float) -> np.ndarray:
    """Gaussian noise of variance 1 turned into speckle of mean 1: gamma of shape `looks`, exponential for 1.

    From 2 on by the cube of Wilson and Hilferty (PNAS 17:684, 1931); between 1 and 2 a mixture of these two that has
    the right variance, 1 / looks.
    """
    shape = max(looks, 2)
    cube = np.maximum(1 - 1 / (9 * shape) + gaussian / (3 * np.sqrt(shape)), 0) ** 3
    if looks >= 2:
        return cube
    share = (1 - looks**-0.5) / (1 - 2**-0.5)
    return share * cube - (1 - share) * log_ndtr(-gaussian)


def _displayed(machine: Machine, intensity) -> np.ndarray:
    """0 for black, 1 for the level of a healthy RNFL."""
    if machine.display:
        return np.maximum(intensity, 0) ** (1 / machine.display)
    return 1 - 10 * np.log10(np.maximum(intensity, 1e-9)) / machine.black


def _framed(machine: Machine, image: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Black what the device's frame cuts off, but for two rows around the retina and choroid."""
    height, width = image.shape
    free = np.arange(height)[:, None] + 0.5
    free = (free < b[0] - 2) | (free > b[9] + 2)
    top, bottom = (int(share * height) for share in machine.bands)
    image[:min(top, max(int(b[0].min()) - 2, 0))] = 0
    image[max(height - bottom, min(int(np.ceil(b[9].max())) + 2, height)):] = 0
    for corner, (tall, wide) in enumerate(machine.corners):
        if tall:
            down, across = np.arange(height)[:, None] / (tall * height), np.arange(width) / (wide * width)
            down, across = down[::-1] if corner // 2 else down, across[::-1] if corner % 2 else across
            image[(down + across < 1) & free] = 0
    return image
