"""Pictures to fit and measure a model's scope with: circle scans, lines through the same eyes, and no OCT at all."""

from collections.abc import Iterator

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, zoom

from octkit.phantoms.circle_eye import BRUCH
from octkit.phantoms.circle_scans import draw, scale_of
from octkit.phantoms.frame import Frame, place
from octkit.phantoms.volume_eye import VesselCourse, draw_volume_eye
from octkit.phantoms.volume_scans import MARGIN, _painted

SIZES = ((384, 512), (320, 512), (496, 512), (384, 640), (400, 600), (496, 768))
SAMPLES = 256  # places along a line at which an eye is met; the A-scans lie between them


def circle_scan(rng: Generator, size: tuple[int, int], change: str) -> np.ndarray:
    """A circle scan (H, W) uint8, with one `change` of CIRCLES."""
    person = int(rng.integers(2**31)) if rng.random() < 0.3 else None
    phantom = draw(int(rng.integers(2**62)), size, glaucoma=bool(rng.random() < 0.5), person=person,
                   looks=str(rng.choice(["spectralis", "varied", "varied"])), fellow=person is not None)
    image, (height, width) = phantom.image, size
    if change == "mirrored":
        image = image[:, ::-1]
    elif change == "turned":
        image = np.roll(image, int(width * rng.uniform(-20, 20) / 360), axis=1)
    elif change == "flat":  # as devices show it that straighten scans, and eyes that lie so
        bruch = phantom.boundaries[BRUCH]
        image = shifted(image, rng.uniform(0.6, 1) * (bruch.mean() - bruch), phantom.boundaries)
    elif change == "tilted":
        wave = np.sin(np.linspace(0, 2 * np.pi, width, endpoint=False) + rng.uniform(0, 2 * np.pi))
        up, down = phantom.boundaries[0].min(), height - phantom.boundaries[-1].max()  # rows that are free
        image = shifted(image, (down - up) / 2 + wave * rng.uniform(0.4, 0.9) * max(up + down, 0) / 2,
                        phantom.boundaries)
    elif change == "noisy":
        grain = np.exp(rng.uniform(0.1, 0.35) * rng.standard_normal(size))
        image = np.clip(image * grain + rng.uniform(3, 25) * rng.standard_normal(size), 0, 255).astype(np.uint8)
    elif change == "black":
        start, length = rng.integers(width), int(width * rng.uniform(0.02, 0.15))
        image = image.copy()
        image[:, (start + np.arange(length)) % width] = 0
    elif change == "cut":
        kept = int(width * rng.uniform(0.75, 0.97))
        start = int(rng.integers(width - kept))
        image = image[:, start:start + kept]
    return image


def shifted(image: np.ndarray, down: np.ndarray, boundaries: np.ndarray) -> np.ndarray:
    """An image whose A-scans are moved by `down` (W,) rows; what comes in is taken from above and below the eye."""
    height = len(image)
    above, below = (max(int(free), 1) for free in (boundaries[0].min(), height - 1 - boundaries[-1].max()))
    rows = np.arange(height)[:, None] - np.rint(down).astype(int)
    rows = np.where(rows < 0, -rows % above, rows)
    rows = np.where(rows >= height, height - 1 - (rows - height) % below, rows)
    return np.take_along_axis(image, rows, axis=0)


def line_scan(rng: Generator, size: tuple[int, int], window: str, beside: tuple[float, float],
              length: tuple[float, float], angle: float, wavy: bool) -> np.ndarray:
    """A line (H, W) uint8 through an eye: `beside` mm from the fovea or the disc, `length` mm, at `angle` (radians).

    `wavy`: Bruch's membrane is no bowl, as in eyes that move, or are long.
    """
    height, width = size
    distance, millimetres = rng.uniform(*beside) * rng.choice((-1, 1)), rng.uniform(*length)
    along = (np.arange(SAMPLES) - (SAMPLES - 1) / 2) * millimetres / SAMPLES + rng.normal(0, 0.1) * millimetres
    down = distance * np.cos(angle) + along * np.sin(angle)
    across = -distance * np.sin(angle) + along * np.cos(angle)
    eye = draw_volume_eye(rng, window, down, across, str(rng.choice(("R", "L"))), bool(rng.random() < 0.3))
    met, places = np.arange(SAMPLES), np.linspace(0, SAMPLES - 1, width)

    def on_line(values: np.ndarray) -> np.ndarray:
        return np.interp(places, met, values[met, met])

    looks = str(rng.choice(["spectralis", "varied", "varied"]))
    depth = scale_of(size)[0] * (1 if looks == "spectralis" else rng.uniform(0.9, 1.6))
    frame = Frame(size, (max(depth, 900.1 / height), 1000 * millimetres / width), periodic=False)
    bruch, opening = on_line(eye.bruch), on_line(eye.opening.astype(float)) > 0.5
    if wavy:
        waves = [rng.normal() / order * np.cos(order * np.pi * places / SAMPLES + rng.uniform(0, 2 * np.pi))
                 for order in (1, 2, 3, 4)]
        bruch = bruch * rng.uniform(0, 1) + rng.uniform(20, 80) * np.sum(waves, axis=0)
    rows = place(np.stack([on_line(line) for line in eye.depth]), bruch - bruch.mean(), frame, rng.beta(2, 2.6),
                 MARGIN * height * frame.um_per_px[0], opening)
    vessels = tuple(VesselCourse(on_line(vessel.distance)[None], on_line(vessel.diameter)[None])
                    for vessel in eye.vessels)
    return _painted(rng, rng, rows[:, None], vessels, frame, looks)[0]


def fundus(rng: Generator, size: tuple[int, int]) -> np.ndarray:
    """A bright field with a disc and branching vessels."""
    canvas = Image.new("L", size[::-1], int(rng.integers(0, 20)))
    draws, (height, width) = ImageDraw.Draw(canvas), size
    middle, radius = np.array([width, height]) / 2, rng.uniform(0.4, 0.7) * height
    draws.ellipse([*(middle - radius), *(middle + radius)], fill=int(rng.integers(70, 150)))
    disc = middle + rng.uniform(-0.5, 0.5, 2) * radius
    draws.ellipse([*(disc - 0.17 * radius), *(disc + 0.15 * radius)], fill=int(rng.integers(180, 255)))
    for _ in range(rng.integers(6, 16)):
        heading, place = rng.uniform(0, 2 * np.pi), disc.copy()
        for step in range(60):
            heading += rng.normal(0, 0.15)
            further = place + 0.04 * radius * np.array([np.cos(heading), np.sin(heading)])
            draws.line([*place, *further], fill=int(rng.integers(30, 60)), width=max(1, int(7 - step / 10)))
            place = further
    return gaussian_filter(np.asarray(canvas, float), 1)


def photograph(rng: Generator, size: tuple[int, int]) -> np.ndarray:
    """Shaded shapes before a cloudy ground."""
    picture = clouds(rng, size)
    for _ in range(rng.integers(3, 25)):
        canvas = Image.new("L", size[::-1])
        low = rng.uniform(-0.1, 0.9, 2) * size[::-1]
        box = [*low, *(low + rng.uniform(0.05, 0.6, 2) * size[::-1])]
        draws = ImageDraw.Draw(canvas)
        (draws.ellipse if rng.random() < 0.5 else draws.rectangle)(box, fill=255)
        picture = np.where(np.asarray(canvas) > 0, rng.uniform(0, 255) + 0.3 * clouds(rng, size), picture)
    return gaussian_filter(picture, rng.uniform(0, 2))


def clouds(rng: Generator, size: tuple[int, int]) -> np.ndarray:
    """Noise whose amplitude falls as a power of the frequency, as in pictures of nature."""
    down, across = np.meshgrid(np.fft.fftfreq(size[0]), np.fft.fftfreq(size[1]), indexing="ij")
    falls = np.maximum(np.hypot(down, across), 1 / max(size)) ** -rng.uniform(0.7, 1.8)
    values = np.fft.ifft2(np.fft.fft2(rng.standard_normal(size)) * falls).real
    return 128 + rng.uniform(20, 60) * values / values.std()


def text(rng: Generator, size: tuple[int, int]) -> np.ndarray:
    """Lines of letters on paper or on a dark screen."""
    canvas = Image.new("L", size[::-1], 255)
    letters, height = np.array(list("abcdefghilmnoprstuvw   ,.")), int(rng.integers(12, 40))
    for top in range(10, size[0] - height, int(1.5 * height)):
        ImageDraw.Draw(canvas).text((10, top), "".join(rng.choice(letters, 200)), font_size=height, fill=0)
    page = np.asarray(canvas, float)
    return page if rng.random() < 0.6 else 255 - page


def noise(rng: Generator, size: tuple[int, int]) -> np.ndarray:
    """White or grainy noise."""
    return 128 + 50 * gaussian_filter(rng.standard_normal(size), grain := rng.choice((0.0, 1.0, 4.0))) * (1 + 3 * grain)


def gradient(rng: Generator, size: tuple[int, int]) -> np.ndarray:
    """A ramp, a glow, or stripes along any direction."""
    down, across = np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij")
    angle = rng.uniform(0, 2 * np.pi)
    ramp = down * np.cos(angle) + across * np.sin(angle)
    shape = rng.choice(3)
    values = ramp if shape == 0 else np.hypot(down, across) if shape == 1 else np.sin(rng.uniform(3, 30) * ramp)
    return 128 + rng.uniform(30, 120) * values + rng.uniform(0, 10) * rng.standard_normal(size)


def other_picture(rng: Generator, size: tuple[int, int], make: str) -> np.ndarray:
    """A picture (H, W) uint8 that is no OCT, or a circle scan upside-down or on its side."""
    if make == "upside-down":
        return circle_scan(rng, size, "")[::-1]
    if make == "on its side":
        image = np.rot90(circle_scan(rng, size, ""), rng.choice((1, 3)))
        return zoom(image, np.divide(size, image.shape), order=1)
    values = {"fundus": fundus, "photograph": photograph, "clouds": clouds, "text": text, "noise": noise,
              "gradient": gradient}[make](rng, size)
    return np.clip(values, 0, 255).astype(np.uint8)


ANY, FLAT, UPRIGHT = (0, np.pi), (0, 0), (np.pi / 2, np.pi / 2)
# kind -> name -> what is drawn. `line_scan`'s window, mm beside fovea or disc, mm long, angle.
CIRCLES = ("", "mirrored", "turned", "tilted", "flat", "noisy", "black", "cut")
LINES = {
    "macula": {"through the fovea": ("macular", (0, 0.2), (5, 9), FLAT),
               "through the fovea, any angle": ("macular", (0, 0.25), (5, 9), ANY),
               "beside the fovea": ("macular", (0.4, 2.5), (5, 9), FLAT),
               "beside the fovea, wavy": ("macular", (0.3, 2.5), (5, 9), ANY),
               "beside the fovea, upright": ("macular", (0.4, 2.0), (5, 9), UPRIGHT),
               "short, macula": ("macular", (0, 1.5), (1.5, 3.5), ANY),
               "long, macula to disc": ("macular", (0, 0.8), (9, 12), FLAT)},
    "disc": {"through the disc": ("peripapillary", (0, 0.5), (4, 9), FLAT),
             "through the disc, any angle": ("peripapillary", (0, 0.5), (3, 6), ANY),
             "beside the disc": ("peripapillary", (1.1, 2.2), (4, 9), FLAT),
             "beside the disc, any angle": ("peripapillary", (1.1, 2.2), (4, 7), ANY),
             "beside the disc, wavy": ("peripapillary", (1.1, 2.2), (4, 9), ANY),
             "short, disc": ("peripapillary", (0, 1.5), (1.5, 3.5), ANY)}}
OTHERS = ("upside-down", "on its side", "fundus", "photograph", "clouds", "text", "noise", "gradient")


def examples(rounds: int) -> Iterator[tuple[str, str, int]]:
    """What to draw: kind ("circle", "macula", "disc", "other"), name, and a number, never twice."""
    for number in range(rounds):
        for change in CIRCLES:
            yield "circle", f"circle, {change}" if change else "circle", number
        for kind, lines in LINES.items():
            for name in lines:
                yield kind, name, number
        yield "other", OTHERS[number % len(OTHERS)], number
        yield "other", OTHERS[(number + 3) % len(OTHERS)], number + 10**6


def drawn(seed: int, kind: str, name: str, number: int) -> np.ndarray:
    """The image (H, W) uint8 of an example."""
    rng = np.random.default_rng([seed, number, *name.encode()])
    size = SIZES[rng.integers(len(SIZES))]
    if kind == "circle":
        return circle_scan(rng, size, name.partition(", ")[2])
    if kind == "other":
        return other_picture(rng, size, name)
    window, beside, length, angle = LINES[kind][name]
    return line_scan(rng, size, window, beside, length, rng.uniform(*angle), name.endswith("wavy"))
