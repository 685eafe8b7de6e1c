"""The random shape of an eye under a raster scan: a height map for each boundary, around the fovea or the optic disc.

On the circle around the disc it is an eye of `circle_eye`, whose tables give how thick the layers are, how eyes differ,
what glaucoma takes, and where vessels lie. The nerve fibre layer is followed along its bundles: what is met at an angle
of the circle runs on, bent around the fovea, and thins as 1 / distance from 1 mm on. Around the fovea the other layers
have a course of their own, `_foveal`.

The numbers in this module are ours: rounded from what textbooks and device manuals show, not fitted to scans.
What is left out: the bundles' raphe is a ray, vessels do not branch, the disc has no tilt and no atrophy around it,
and its edge is drawn sharp.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy.ndimage import gaussian_filter1d

from octkit.phantoms.circle_eye import BRUCH, CHOROID, CIRCLE, GCIPL, ILM, INL, ONL, OPL, RNFL, SCLERA, Vessel, draw_eye
from octkit.phantoms.draws import bell, relief

FOVEA = (-4.5, -0.5)  # mm from the disc's centre: nasal, up; sd 0.15 between eyes
WINDOWS = ("macular", "peripapillary")
SAMPLES = 720  # of a course around the circle
# Layers that thin towards the opening in Bruch's membrane: um from it where they end, where they are whole, and the
# share that is left at their end. The GCIPL ends before the rim.
THINNING = {GCIPL: (40, 450, 0), INL: (0, 400, 0.3), OPL: (0, 400, 0.3), ONL: (0, 400, 0.5), CHOROID: (0, 500, 0.6)}


@dataclass(frozen=True)
class VesselCourse:
    """A retinal vessel: its `distance` (B, W) from every A-scan in um, with a sign that changes as it is crossed and
    nan where it does not run; its `diameter` (B, W) in um."""

    distance: np.ndarray
    diameter: np.ndarray


@dataclass(frozen=True)
class VolumeEye:
    """One eye under a raster scan.

    `depth` (10, B, W) um of `circle_eye.BOUNDARIES` below Bruch's membrane, never falling along the first axis; in the
    `opening` (B, W) of that membrane the lines are those of the disc: ILM, two of its tissue, and the lamina's.
    `bruch` (B, W) is the membrane's own depth: curvature and tilt, 0 on average.
    """

    depth: np.ndarray
    bruch: np.ndarray
    opening: np.ndarray
    vessels: tuple[VesselCourse, ...]


@dataclass(frozen=True)
class _Places:
    """Where the A-scans meet the retina, each (B, W).

    mm `nasal` of and `up` from the disc's centre, mm from it and from the fovea, and the `angle` on the circle
    (degrees, TSNIT) of the nerve fibre bundle.
    """

    nasal: np.ndarray
    up: np.ndarray
    from_disc: np.ndarray
    from_fovea: np.ndarray
    angle: np.ndarray

    def met(self, course: np.ndarray) -> np.ndarray:
        """A course (SAMPLES,) around the circle, as each place's bundle meets it."""
        return np.interp(self.angle, np.linspace(0, 360, SAMPLES, endpoint=False), course, period=360)


def draw_volume_eye(rng: Generator, kind: str, down: np.ndarray, across: np.ndarray, side: str,
                    glaucoma: bool) -> VolumeEye:
    """A random eye at A-scans `across` (W,) of B-scans `down` (B,), in mm from the window's centre.

    As in a fundus photograph the first B-scan is the highest, and the nose is on the right of a right eye (`side` "R"),
    on the left of a left one. The random numbers drawn do not depend on the arrays: one seed is one eye.
    """
    fovea = np.add(FOVEA, rng.normal(0, 0.15, 2))
    centre = (fovea if kind == "macular" else np.zeros(2)) + rng.normal(0, 0.12, 2)
    nasal, up = np.meshgrid(centre[0] + (across if side == "R" else -across), centre[1] - down)
    from_disc, from_fovea = np.hypot(nasal, up), np.hypot(nasal - fovea[0], up - fovea[1])
    places = _Places(nasal, up, from_disc, from_fovea, _bundles(rng, nasal, up, from_disc))
    seed = int(rng.integers(2**62))
    healthy = draw_eye(np.random.default_rng(seed), SAMPLES, False)  # the same eye before its loss
    circle = draw_eye(np.random.default_rng(seed), SAMPLES, True) if glaucoma else healthy
    layers = np.array([_on_circle(layer, places) for layer in circle.thickness])
    radius = _opening_radius(rng, nasal, up)
    layers[RNFL] *= CIRCLE / np.maximum(from_disc, 1.0) * (1 - np.exp(-((from_fovea / 0.75) ** 2)))
    foveal = _foveal(rng, from_fovea)
    foveal[0] *= _on_circle(circle.thickness[GCIPL] / healthy.thickness[GCIPL], places)
    layers[GCIPL:CHOROID] += (foveal - layers[GCIPL:CHOROID]) / (1 + np.exp((2.6 - from_disc) / 0.2))
    for layer in layers[:CHOROID]:
        layer *= 1 + 0.04 * relief(rng, nasal, up, 1.2)
    layers[CHOROID] = _choroid(rng, circle.thickness[CHOROID], places)
    lost = 1 - circle.thickness[RNFL].mean() / healthy.thickness[RNFL].mean()
    depth = _with_disc(rng, layers, from_disc, radius, lost)
    vessels = tuple(_vessel(vessel, places) for vessel in circle.vessels)
    return VolumeEye(depth, _bruch(rng, nasal - centre[0], up - centre[1]), from_disc < radius, vessels)


def _bundles(rng: Generator, nasal: np.ndarray, up: np.ndarray, from_disc: np.ndarray) -> np.ndarray:
    """The angle on the circle (degrees, TSNIT) of the nerve fibre bundle at each place.

    Beyond the circle, on the temporal side, bundles bend around the fovea: by up to 25 degrees where they left the disc
    at 45. They meander by 4 degrees.
    """
    angle = np.degrees(np.arctan2(up, -nasal))  # 0 temporal, 90 superior
    beyond = 1 - np.exp(-((np.maximum(from_disc - 1.2, 0) / 2.2) ** 2))
    bent = 25 * np.sin(np.radians(np.clip(2 * angle, -180, 180)))
    return angle + beyond * (bent + 4 * relief(rng, nasal, up, 1.0))


def _on_circle(course: np.ndarray, places: _Places) -> np.ndarray:
    """A course around the circle, met at each place. What varies within 8 degrees is less inside the circle, where
    those 8 degrees lie closer together: nothing gets steeper."""
    broad = gaussian_filter1d(course, 8 / 360 * SAMPLES, mode="wrap")
    fine = np.minimum(places.from_disc / CIRCLE, 1) ** 2
    return places.met(broad) + fine * places.met(course - broad)


def _foveal(rng: Generator, r: np.ndarray) -> np.ndarray:
    """Thickness (um) of the layers from the GCIPL to the RPE, (7, B, W), at `r` mm from the fovea.

    The GCIPL is a ring that peaks 1 mm out at 80 to 95 um and vanishes in the pit, as the INL does; what is left there
    is the ONL with the longest photoreceptors.
    """
    def pit(width: float) -> np.ndarray:
        return 1 - np.exp(-((r / width) ** 3))

    peak = np.clip(rng.normal(88, 5), 78, 98)
    inl, opl, onl, inner, outer, rpe = 1 + 0.06 * np.clip(rng.standard_normal(6), -2, 2)  # factors between eyes
    return np.array([pit(0.55) * (50 + (peak - 50) * bell(r - 1.0, 0.8)),
                     inl * pit(0.4) * (28 + 10 * bell(r - 1.1, 0.8)),
                     opl * (0.3 + 0.7 * pit(0.45)) * (24 + 5 * bell(r - 0.9, 0.8)),
                     onl * (62 + 20 * bell(r, 1.1) + 32 * bell(r, 0.35)),
                     inner * (16 + 0 * r), outer * (21 + 14 * bell(r, 0.25)), rpe * (22 + 0 * r)])


def _choroid(rng: Generator, course: np.ndarray, places: _Places) -> np.ndarray:
    """Thickness (um): about 160 to 400 under the fovea, thinner towards the disc and beyond it, with its own relief."""
    mean = np.clip(course.mean(), 90, 195)
    course = gaussian_filter1d(course, 15 / 360 * SAMPLES, mode="wrap") * mean / course.mean()
    uneven = 0.07 * relief(rng, places.nasal, places.up, 1.0) + 0.03 * relief(rng, places.nasal, places.up, 0.25)
    return places.met(course) * (1 + 0.65 * bell(places.from_fovea, 2.6)) * (1 + uneven)


def _opening_radius(rng: Generator, nasal: np.ndarray, up: np.ndarray) -> np.ndarray:
    """The radius (mm) of the opening in Bruch's membrane in the direction of each place: 1.5 to 1.9 mm wide, a little
    higher than wide."""
    angle = np.arctan2(up, nasal)
    lobes, phases = rng.normal(0, 0.012, 3), rng.uniform(0, 2 * np.pi, 3)
    uneven = sum(lobe * np.cos(order * angle + phase)
                 for order, lobe, phase in zip((1, 3, 4), lobes, phases, strict=True))
    mean = rng.uniform(0.78, 0.92)
    return mean * (1 - 0.035 * np.cos(2 * angle) + uneven)


def _with_disc(rng: Generator, layers: np.ndarray, from_disc: np.ndarray, radius: np.ndarray,
               lost: float) -> np.ndarray:
    """Thickness (9, B, W) to depths (10, B, W), with the layers' ends at the opening and the cup inside it.

    Inside, the ILM falls from the rim into the cup, whose floor lies 0.02 to 0.24 mm below Bruch's membrane. The share
    of the nerve fibres `lost`, at most 0.7, makes the cup wide and deep; healthy ones may be so from birth.
    """
    outside_um = 1000 * (from_disc - radius)
    for layer, (end, whole, least) in THINNING.items():
        layers[layer] *= least + (1 - least) * _smooth((outside_um - end) / (whole - end))
    depth = np.concatenate([np.zeros_like(layers[:1]), np.cumsum(layers, axis=0)])
    depth -= depth[BRUCH].copy()
    cup = min(rng.uniform(0.15, 0.55) + 0.5 * lost, 0.75)  # of the opening's width
    floor_um = rng.uniform(20, 160) + 120 * lost
    lamina_um = rng.uniform(40, 90)  # how thick the tissue above the lamina is
    inward = 1 - from_disc / radius
    ilm = depth[ILM] + _smooth(inward / (1 - cup)) * (floor_um - depth[ILM])
    lamina = np.maximum(40 + _smooth(inward / 0.4) * floor_um, ilm) + lamina_um
    inner = np.stack([ilm + share * (lamina - ilm) for share in (0, 0.4, 0.75, *(1,) * 7)])
    inner[SCLERA] += 2
    return np.where(from_disc < radius, inner, depth)


def _smooth(share: np.ndarray) -> np.ndarray:
    """From 0 to 1 without a kink."""
    share = np.clip(share, 0, 1)
    return share * share * (3 - 2 * share)


def _vessel(vessel: Vessel, places: _Places) -> VesselCourse:
    """Vessels run with the bundles, get thinner, and leave out the fovea and the middle of the disc."""
    away = (places.angle - vessel.angle + 180) % 360 - 180
    runs = (places.from_fovea > 0.5) & (places.from_disc > 0.45)
    distance = np.where(runs, np.radians(away) * places.from_disc * 1000, np.nan)
    return VesselCourse(distance, vessel.diameter * np.exp(-np.maximum(places.from_disc - CIRCLE, 0) / 6))


def _bruch(rng: Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A bowl, tilted, its sides uneven."""
    bowl = rng.uniform(0, 12)  # um a mm^2
    tilt_x, tilt_y = rng.normal(0, 15, 2)  # um a mm
    bruch = tilt_x * x + tilt_y * y - bowl * (x**2 + y**2) + 8 * relief(rng, x, y, 1.5)
    return bruch - bruch.mean()
