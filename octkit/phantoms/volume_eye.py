"""The random shape of an eye under a raster scan: a height map for each boundary, around the fovea or the optic disc.

One eye, two windows on it. On the circle around the disc it is an eye of `anatomy`, whose tables give how thick the
layers are, how eyes differ, what glaucoma takes, and where vessels lie. The nerve fibre layer is followed along its
bundles: what is met at an angle of the circle runs on, bent around the fovea, and thins as 1 / distance from 1 mm on.
Around the fovea the other layers have a course of their own, `_foveal`.

The numbers in this module are ours: rounded from what textbooks and device manuals show, not fitted to scans.
What is left out: the bundles' raphe is a ray, vessels do not branch, the disc has no tilt and no atrophy around it,
and its edge is drawn sharp.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from octkit.phantoms.circle_eye import CIRCUMFERENCE, Vessel, draw_eye

CIRCLE = CIRCUMFERENCE / 2000 / np.pi  # mm: the radius at which the tables of `anatomy` hold
FOVEA = (-4.5, -0.5)  # mm from the disc's centre: nasal, up; sd 0.15 between eyes
WINDOWS = {"macular": FOVEA, "peripapillary": (0.0, 0.0)}
SAMPLES = 720  # of a course around the circle


@dataclass(frozen=True)
class VesselCourse:
    """A retinal vessel: its `distance` (B, W) from every A-scan in um, with a sign that changes as it is crossed and
    nan where it does not run; its `diameter` (B, W) in um."""

    distance: np.ndarray
    diameter: np.ndarray


@dataclass(frozen=True)
class Raster:
    """One eye under a raster scan.

    `depth` (10, B, W) um of `anatomy.BOUNDARIES` below Bruch's membrane, never falling along the first axis; in the
    `opening` (B, W) of that membrane the lines are those of the disc: ILM, two of its tissue, and the lamina's.
    `bruch` (B, W) is the membrane's own depth: curvature and tilt, 0 on average.
    """

    depth: np.ndarray
    bruch: np.ndarray
    opening: np.ndarray
    vessels: tuple[VesselCourse, ...]


def draw_raster(rng: np.random.Generator, kind: str, down: np.ndarray, across: np.ndarray, eye: str,
                glaucoma: bool) -> Raster:
    """A random eye at A-scans `across` (W,) of B-scans `down` (B,), in mm from the window's centre.

    As in a fundus photograph the first B-scan is the highest, and the nose is on the right of a right eye ("R"), on
    the left of a left one. The random numbers drawn do not depend on the arrays: one seed is one eye.
    """
    fovea = np.add(FOVEA, rng.normal(0, 0.15, 2))
    centre = (fovea if kind == "macular" else np.zeros(2)) + rng.normal(0, 0.12, 2)
    nasal, up = np.meshgrid(centre[0] + (across if eye == "R" else -across), centre[1] - down)
    from_disc, from_fovea = np.hypot(nasal, up), np.hypot(nasal - fovea[0], up - fovea[1])
    angle = _bundles(rng, nasal, up, from_disc)
    seed = int(rng.integers(2**62))
    healthy = draw_eye(np.random.default_rng(seed), SAMPLES, False)  # the same eye before its loss
    circle = draw_eye(np.random.default_rng(seed), SAMPLES, True) if glaucoma else healthy
    layers = np.array([_on_circle(layer, angle, from_disc) for layer in circle.thickness])
    radius = _opening(rng, nasal, up)
    layers[0] *= CIRCLE / np.maximum(from_disc, 1.0) * (1 - np.exp(-((from_fovea / 0.75) ** 2)))
    foveal = _foveal(rng, from_fovea)
    foveal[0] *= _on_circle(circle.thickness[1] / healthy.thickness[1], angle, from_disc)
    layers[1:8] += (foveal - layers[1:8]) / (1 + np.exp((2.6 - from_disc) / 0.2))
    for layer in layers[:8]:
        layer *= 1 + 0.04 * relief(rng, nasal, up, 1.2)
    layers[8] = _choroid(rng, circle.thickness[8], angle, from_fovea, nasal, up)

    depth = _with_disc(rng, layers, from_disc, radius, glaucoma)
    vessels = tuple(_vessel(vessel, angle, from_disc, from_fovea) for vessel in circle.vessels)
    return Raster(depth, _bruch(rng, nasal - centre[0], up - centre[1]), from_disc < radius, vessels)


def relief(rng: np.random.Generator, nasal: np.ndarray, up: np.ndarray, length: float, waves: int = 40) -> np.ndarray:
    """A random height map with mean 0 and variance 1, smooth over `length` mm, at places in mm.

    A sum of plane waves, their wave numbers drawn from a Gaussian: its covariance falls as exp(-(r / length)^2 / 2).
    """
    along, upwards = rng.normal(0, 1 / length, (2, waves))
    phase = rng.uniform(0, 2 * np.pi, waves)
    height = sum(np.cos(a * nasal + u * up + p) for a, u, p in zip(along, upwards, phase, strict=True))
    return height * np.sqrt(2 / waves)


def _bundles(rng, nasal, up, from_disc) -> np.ndarray:
    """The angle on the circle (degrees, TSNIT) of the nerve fibre bundle at each place.

    Beyond the circle, on the temporal side, bundles bend around the fovea: by up to 25 degrees where they left the disc
    at 45. They meander by 4 degrees.
    """
    angle = np.degrees(np.arctan2(up, -nasal))  # 0 temporal, 90 superior
    beyond = 1 - np.exp(-((np.maximum(from_disc - 1.2, 0) / 2.2) ** 2))
    bent = 25 * np.sin(np.radians(np.clip(2 * angle, -180, 180)))
    return angle + beyond * (bent + 4 * relief(rng, nasal, up, 1.0))


def _on_circle(course: np.ndarray, angle: np.ndarray, from_disc: np.ndarray) -> np.ndarray:
    """A course around the circle, met at each place. What varies within 8 degrees is less inside the circle, where
    those 8 degrees lie closer together: nothing gets steeper."""
    angles = np.linspace(0, 360, SAMPLES, endpoint=False)
    broad = gaussian_filter1d(course, 8 / 360 * SAMPLES, mode="wrap")
    fine = np.minimum(from_disc / CIRCLE, 1) ** 2
    return np.interp(angle, angles, broad, period=360) + fine * np.interp(angle, angles, course - broad, period=360)


def _foveal(rng, r: np.ndarray) -> np.ndarray:
    """Thickness (um) of the layers from the GCIPL to the RPE, (7, B, W), at `r` mm from the fovea.

    The GCIPL is a ring that peaks 1 mm out at 80 to 95 um and vanishes in the pit, as the INL does; what is left there
    is the ONL with the longest photoreceptors.
    """
    def pit(width):
        return 1 - np.exp(-((r / width) ** 3))

    def bell(centre, width):
        return np.exp(-0.5 * ((r - centre) / width) ** 2)

    peak = np.clip(rng.normal(88, 5), 78, 98)
    scale = 1 + 0.06 * np.clip(rng.standard_normal(6), -2, 2)
    return np.array([pit(0.55) * (50 + (peak - 50) * bell(1.0, 0.8)),
                     scale[0] * pit(0.4) * (28 + 10 * bell(1.1, 0.8)),
                     scale[1] * (0.3 + 0.7 * pit(0.45)) * (24 + 5 * bell(0.9, 0.8)),
                     scale[2] * (62 + 20 * bell(0, 1.1) + 32 * bell(0, 0.35)),
                     scale[3] * (16 + 0 * r), scale[4] * (21 + 14 * bell(0, 0.25)), scale[5] * (22 + 0 * r)])


def _choroid(rng, course, angle, from_fovea, nasal, up) -> np.ndarray:
    """Thickness (um): about 160 to 340 under the fovea, thinner towards the disc and beyond it, with its own relief."""
    mean = np.clip(course.mean(), 110, 165)
    course = gaussian_filter1d(course, 15 / 360 * SAMPLES, mode="wrap") * mean / course.mean()
    around = np.interp(angle, np.linspace(0, 360, SAMPLES, endpoint=False), course, period=360)
    uneven = 0.07 * relief(rng, nasal, up, 1.0) + 0.03 * relief(rng, nasal, up, 0.25)
    return around * (1 + 0.75 * np.exp(-0.5 * (from_fovea / 2.6) ** 2)) * (1 + uneven)


def _opening(rng, nasal, up) -> np.ndarray:
    """The radius (mm) of the opening in Bruch's membrane in the direction of each place: 1.5 to 1.9 mm wide, a little
    higher than wide."""
    angle = np.arctan2(up, nasal)
    lobes, phase = rng.normal(0, 0.012, 3), rng.uniform(0, 2 * np.pi, 3)
    shape = 1 - 0.035 * np.cos(2 * angle) + sum(a * np.cos(n * angle + p) for n, a, p in zip((1, 3, 4), lobes, phase,
                                                                                           strict=True))
    return rng.uniform(0.78, 0.92) * shape


def _with_disc(rng, layers, from_disc, radius, glaucoma) -> np.ndarray:
    """Thickness (9, B, W) to depths (10, B, W), with the layers' ends at the opening and the cup inside it.

    The GCIPL ends before the rim, the other layers thin towards it. Inside, the ILM falls from the rim into the cup,
    whose floor lies 0.02 to 0.24 mm below Bruch's membrane; glaucoma makes the cup wide and deep.
    """
    outside = 1000 * (from_disc - radius)  # um
    for layer, (start, end, least) in {1: (40, 450, 0), 2: (0, 400, 0.3), 3: (0, 400, 0.3), 4: (0, 400, 0.5),
                                       8: (0, 500, 0.6)}.items():
        layers[layer] *= least + (1 - least) * _smooth((outside - start) / (end - start))
    depth = np.concatenate([np.zeros_like(layers[:1]), np.cumsum(layers, axis=0)])
    depth -= depth[8].copy()
    cup = rng.uniform(0.5, 0.7) if glaucoma else rng.uniform(0.15, 0.45)  # of the opening's width
    floor = rng.uniform(120, 240) if glaucoma else rng.uniform(20, 160)
    inward = 1 - from_disc / radius
    ilm = depth[0] + _smooth(inward / (1 - cup)) * (floor - depth[0])
    lamina = np.maximum(40 + _smooth(inward / 0.4) * floor, ilm) + rng.uniform(40, 90)
    inner = np.stack([ilm + share * (lamina - ilm) for share in (0, 0.4, 0.75, *(1,) * 7)])
    inner[9] += 2
    return np.where(from_disc < radius, inner, depth)


def _smooth(share) -> np.ndarray:
    share = np.clip(share, 0, 1)
    return share * share * (3 - 2 * share)


def _vessel(vessel: Vessel, angle, from_disc, from_fovea) -> VesselCourse:
    """Vessels run with the bundles, get thinner, and leave out the fovea and the middle of the disc."""
    away = (angle - vessel.angle + 180) % 360 - 180
    distance = np.where((from_fovea > 0.5) & (from_disc > 0.45), np.radians(away) * from_disc * 1000, np.nan)
    return VesselCourse(distance, vessel.diameter * np.exp(-np.maximum(from_disc - CIRCLE, 0) / 6))


def _bruch(rng, x, y) -> np.ndarray:
    """A bowl, tilted, its sides uneven."""
    bowl, tilt_x, tilt_y = rng.uniform(0, 12), *rng.normal(0, 15, 2)  # um a mm^2, um a mm
    bruch = tilt_x * x + tilt_y * y - bowl * (x**2 + y**2) + 8 * relief(rng, x, y, 1.5)
    return bruch - bruch.mean()
