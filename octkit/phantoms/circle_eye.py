"""How thick the layers of a random eye are on the circle around the optic disc, and where its vessels lie.

Everything is periodic in the angle. Angle 0 is the first A-scan, temporal; the angle grows superior, nasal,
inferior (TSNIT). Devices unroll left eyes the other way round so that both eyes come in this order, and so do
these: right and left eyes share one course.

Source of the numbers: the statistical shape model of Rathke, Schmidt and Schnörr (Med. Image Anal. 18(5):781,
2014), trained on 80 labelled circle scans. It has no choroid, and its numbers are ours. Glaucoma: see `_with_loss`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.random import Generator
from scipy.interpolate import CubicSpline
from scipy.special import ndtr

from octkit.phantoms.draws import course, log_uniform, near, uniform

# Boundaries from the vitreous down, the first axis of all arrays of boundaries. Layer n lies between n and n + 1.
BOUNDARIES = ("ilm", "rnfl_gcipl", "gcipl_inl", "inl_opl", "opl_onl", "onl_is", "is_os", "os_rpe", "bruch", "sclera")
ILM, RNFL_GCIPL, GCIPL_INL, INL_OPL, OPL_ONL, ONL_IS, IS_OS, OS_RPE, BRUCH, SCLERA = range(10)
RNFL, GCIPL, INL, OPL, ONL, INNER_SEGMENTS, OUTER_SEGMENTS, RPE, CHOROID = range(9)

# Mean thickness (um) every 15 degrees from temporal, and the standard deviation between eyes.
RNFL_MEAN = (57, 71, 83, 105, 142, 141, 104, 90, 102, 107, 90, 69,
             55, 57, 67, 85, 95, 106, 134, 154, 148, 100, 70, 53)
RNFL_SD = (10, 12, 14, 23, 27, 30, 29, 21, 27, 29, 22, 15, 12, 11, 14, 22, 21, 30, 29, 26, 26, 25, 15, 8)
GCIPL_MEAN = (67, 60, 56, 52, 50, 50, 49, 48, 48, 47, 49, 50, 52, 52, 50, 48, 48, 49, 48, 48, 48, 56, 62, 68)
INL_MEAN = (24, 25, 25, 24, 21, 20, 21, 22, 19, 17, 18, 20, 20, 20, 19, 19, 19, 19, 18, 19, 20, 24, 27, 29)
OPL_MEAN = (29, 26, 24, 22, 19, 18, 20, 20, 19, 19, 20, 21, 21, 20, 19, 19, 19, 19, 20, 20, 22, 25, 26, 27)
ONL_MEAN = (69, 69, 72, 73, 66, 66, 74, 73, 67, 65, 68, 69, 70, 70, 69, 65, 64, 64, 60, 58, 58, 65, 67, 69)
# Height of the ILM below its circle mean (um).
ILM_MEAN = (140, 125, 99, 56, 1, -34, -48, -70, -105, -130, -134, -122,
            -104, -86, -65, -43, -14, 15, 30, 41, 67, 107, 132, 142)

# Per layer of the retina: mean, sd between eyes, and the share of it (of the mean) that moves the whole circle at once.
# The shares are ours: the table gives no correlations; 11 % gives a circle mean of the RNFL of 95 +- 11 um.
RETINA = ((RNFL_MEAN, RNFL_SD, 0.11), (GCIPL_MEAN, 6.5, 0.06), (INL_MEAN, 4.3, 0.10), (OPL_MEAN, 3.6, 0.09),
          (ONL_MEAN, 8.4, 0.08), (16, 1.5, 0.06), (21, 3.1, 0.10), (22, 2.7, 0.10))

# Fine unevenness (um, sd) of the edges below the RNFL, GCIPL, INL and OPL, by eye from real scans. The ILM is smooth.
ROUGHNESS = (2.5, 1.6, 1.3, 1.3)

# No layer of the retina gets thinner than this (um): even end-stage glaucoma leaves glia and vessels.
FLOORS = (24, 20, 9, 9, 28, 8, 9, 10)
GLIA = 33  # um of the RNFL that are left on average when all its fibres are lost

CIRCUMFERENCE = np.pi * 3460  # um: the usual circle of 3.46 mm diameter
UM_PER_DEGREE = CIRCUMFERENCE / 360
CIRCLE = CIRCUMFERENCE / 2000 / np.pi  # mm: its radius
HUMPS = (67, 292)  # degrees: superior-temporal and inferior-temporal nerve fibre bundles, with the large vessels
HUMP_SHIFT = 5.0  # degrees: how far the course of an eye is displaced, sd


@dataclass(frozen=True)
class Vessel:
    """A retinal vessel that crosses the circle: angle in degrees, diameter in um."""

    angle: float
    diameter: float


@dataclass(frozen=True)
class Eye:
    """One eye on the circle, in um.

    `thickness` (9, W) from the RNFL to the choroid; `bruch` (W,) the depth of Bruch's membrane below its circle mean.
    """

    thickness: np.ndarray
    bruch: np.ndarray
    vessels: tuple[Vessel, ...]

    @property
    def depth(self) -> np.ndarray:
        """The boundaries (10, W) in um below Bruch's membrane."""
        depth = np.vstack([np.zeros_like(self.bruch), np.cumsum(self.thickness, axis=0)])
        return depth - depth[BRUCH]


def draw_eye(rng: Generator, width: int, glaucoma: bool, wide: bool = False, fellow: bool = False) -> Eye:
    """A random eye sampled at `width` A-scans, or its `fellow`; `wide` goes beyond the norm, see `_widened`.

    The random numbers drawn do not depend on `width`: one seed is one eye at any resolution. Nor do they depend on
    `glaucoma`: without its loss the ill eye is the healthy one of that seed.
    """
    other_eye, disease, beyond = rng.spawn(3)
    angle = np.arange(width) * (360 / width)
    shifted = angle + HUMP_SHIFT * course(rng, angle, (1, 0.7, 0.5))
    layers = [_layer(rng, angle, shifted, *statistics) for statistics in RETINA]
    vessels = _vessels(rng)
    for above, rough in enumerate(ROUGHNESS):
        unevenness = rough * course(rng, angle, np.where(np.arange(70) < 12, 0, 1))
        layers[above] += unevenness
        layers[above + 1] -= unevenness
    retina = _at_least_floors(layers)
    _make_room(retina, angle, vessels)
    choroid = _choroid(rng, angle, wide)
    # The table gives the ILM; Bruch's membrane, which has no humps, is what is smooth in an eye.
    mean_retina = sum(_table(mean, angle) for mean, *_ in RETINA)
    bruch = _table(ILM_MEAN, angle) + mean_retina
    bruch = bruch - bruch.mean() + 76 * course(rng, angle, (1, 0.5, 0.16))
    eye = Eye(np.vstack([retina, choroid]), bruch, vessels)
    if fellow:
        eye = _fellow_eye(other_eye, angle, eye)
    if glaucoma:
        eye = _with_loss(disease, angle, eye, fellow)
    return _widened(beyond, angle, eye) if wide else eye


def _table(values: float | tuple[float, ...], angle: np.ndarray) -> np.ndarray:
    return _spline(values)(angle % 360) if isinstance(values, tuple) else np.full(len(angle), float(values))


@lru_cache  # an eye asks some fifty times for one of nine courses
def _spline(values: tuple[float, ...]) -> CubicSpline:
    return CubicSpline(np.linspace(0, 360, len(values) + 1), (*values, values[0]), bc_type="periodic")


def _layer(rng: Generator, angle: np.ndarray, shifted: np.ndarray, mean: float | tuple[float, ...],
           sd: float | tuple[float, ...], whole: float) -> np.ndarray:
    """Mean course, shifted along the circle, with a common scale and a random course that fills up the sd."""
    expected = _table(mean, angle)
    slope = (_table(mean, angle + 1) - _table(mean, angle - 1)) / 2
    left = _table(sd, angle) ** 2 - (whole * expected) ** 2 - (HUMP_SHIFT * slope) ** 2
    left = np.sqrt(np.maximum(left, (0.3 * _table(sd, angle)) ** 2))
    smooth = course(rng, angle, 1 / np.arange(1, 9))
    scale = 1 + whole * np.clip(rng.standard_normal(), -2.5, 2.5)
    return _table(mean, shifted) * scale + left * smooth


def _at_least_floors(retina: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    """No layer thinner than its floor."""
    return np.array([_at_least(floor, layer) for layer, floor in zip(retina, FLOORS, strict=True)])


def _at_least(floor: float, layer: np.ndarray) -> np.ndarray:
    """No thinner than `floor`, by a soft knee: clipping would leave ruler-straight stretches."""
    return floor + floor / 6 * np.logaddexp(0, (layer - floor) / (floor / 6))


def _with_loss(rng: Generator, angle: np.ndarray, eye: Eye, fellow: bool) -> Eye:
    """The eye after glaucoma: diffuse loss, and one or two notches, most often where the two bundles leave the disc.

    Many eyes have lost little and few nearly all; of the severities of two eyes (`person`, `own`) some 60 % is shared.
    Loss is a share of the axons: glia and vessels stay. It spares the fibres from the macula.

    Our numbers, chosen for what asalber/glaucoma-staging (GitHub) has of Spectralis circles of 3.5 mm, 1,067 exams of
    one half of its subjects: global RNFL 103 +- 11 um without glaucoma and 79 +- 20 with it, an AUC of 0.87; by sector
    71, 74, 74, 75, 78 and 89 % left in TI, TS, NI, NS, N and T, and AUCs of 0.84, 0.81, 0.81, 0.78, 0.80 and 0.70.
    """
    person, *own = rng.standard_normal(3)
    rng = rng.spawn(2)[fellow]
    severity = 0.1 + 0.75 * person + 0.61 * own[fellow] + 0.6 * course(rng, angle, (1, 1, 0.7, 0.5))
    severity -= rng.uniform(0, 1.6) * near(angle, 0, 30)
    for _ in range(rng.integers(1, 3)):
        centre = rng.choice((*HUMPS, rng.uniform(0, 360)), p=(0.3, 0.4, 0.3)) + rng.normal(0, 9)
        notch = uniform(rng, depth=(0.2, 1.2), degrees=(7, 18))
        severity += notch.depth * near(angle, centre, notch.degrees)
    lost = ndtr(severity) ** 2
    layers = eye.thickness.copy()
    layers[RNFL] -= lost * np.maximum(layers[RNFL] - GLIA, 0)
    layers[GCIPL] -= rng.uniform(0.45, 0.75) * lost * np.maximum(layers[GCIPL] - FLOORS[GCIPL], 0)
    return Eye(layers, eye.bruch, eye.vessels)


def _vessels(rng: Generator) -> tuple[Vessel, ...]:
    vessels = []
    for hump in HUMPS:  # an artery and a vein each
        centre = hump + rng.normal(0, 7)
        for side in (-1, 1):
            drawn = uniform(rng, aside=(4, 14), diameter=(85, 135))
            vessels.append(Vessel(centre + side * drawn.aside, drawn.diameter))
    for centre in (125, 240):  # the nasal arcades are thinner
        vessels += [Vessel(centre + rng.normal(0, 15), rng.uniform(50, 95)) for _ in range(rng.integers(1, 3))]
    vessels += _small_vessels(rng, (5, 13), (20, 50))
    return tuple(vessels)


def _small_vessels(rng: Generator, count: tuple[int, int], diameter: tuple[float, float]) -> list[Vessel]:
    """Vessels anywhere on the circle; their number is below the second of `count`."""
    return [Vessel(rng.uniform(0, 360), rng.uniform(*diameter)) for _ in range(rng.integers(*count))]


def _make_room(retina: np.ndarray, angle: np.ndarray, vessels: Sequence[Vessel]) -> None:
    """Vessels lie in the RNFL: they lift the ILM a little and press into the layer below. In place.

    The table's eyes had their vessels too, so the circle means stay what they were.
    """
    lifted, pressed = np.zeros((2, len(angle)))
    for vessel in vessels:
        profile = near(angle, vessel.angle, 0.4 * vessel.diameter / UM_PER_DEGREE)
        lifted += 0.08 * vessel.diameter * profile
        pressed = np.maximum(pressed, 0.16 * vessel.diameter * profile)
    pressed = np.minimum(pressed, 0.4 * (retina[GCIPL] - FLOORS[GCIPL]))
    retina[RNFL] += lifted - lifted.mean() + pressed - pressed.mean()
    retina[GCIPL] -= pressed - pressed.mean()


def _choroid(rng: Generator, angle: np.ndarray, wide: bool) -> np.ndarray:
    """Thickness (um): thinnest inferiorly and, in thick choroids, thickest temporally, towards the fovea.

    Our numbers, after Margolis and Spaide (Am. J. Ophthalmol. 147(5):811, 2009): 287 +- 76 um under the fovea and 145
    +- 57 um 3 mm nasal of it. The circle runs between. Large vessels bulge out of the lower edge by up to a tenth.
    """
    usual, any_mean = np.exp(rng.normal(np.log(148), 0.35)), log_uniform(rng, 60, 360)
    mean = any_mean if wide else np.clip(usual, 75, 325)
    smooth = course(rng, angle, (1, 0.8, 0.5, 0.4))
    bulges = abs(course(rng, angle, np.where(np.arange(70) < 12, 0, 1)))  # round below, with cusps between
    temporal = rng.uniform(0, 0.2) + 0.35 * np.clip((mean - 130) / 130, 0, 1)
    shape = 1 - 0.25 * near(angle, 275, 50) + temporal * near(angle, 5, 50)
    thickness = mean * shape / shape.mean() * (1 + (0.15 if wide else 0.09) * smooth + rng.uniform(0.02, 0.07) * bulges)
    most = 460 if wide else 410
    return _at_least(40, thickness) / (1 + (thickness / most) ** 12) ** (1 / 12)


def _widened(rng: Generator, angle: np.ndarray, eye: Eye) -> Eye:
    """The eye as a circle beside the disc's centre meets it, and as myopia, age or chance may have made it.

    Our numbers: circles are some 160 um off on average, and half of the eyes are tilted by more than 35 um (sd) beside
    what the table has.
    """
    distance, direction = min(abs(rng.normal(0, 200)), 500), rng.uniform(0, 360)
    eye = off_centre(eye, distance, direction)
    layers = eye.thickness[:CHOROID] * np.exp(rng.normal(0, 0.06))
    other_rnfl = np.clip(rng.normal(0, 0.22), -0.5, 0.45)  # in 40 % of eyes; natural logarithm
    layers[RNFL] *= np.exp(other_rnfl * (rng.random() < 0.4))
    layers[GCIPL] *= np.exp(rng.normal(0, 0.08))
    bumps_um = rng.uniform(0, 5)
    bumps = bumps_um * course(rng, angle, np.where(np.arange(60) < 15, 0, 1))
    layers[RNFL] += bumps
    layers[GCIPL] -= bumps
    layers = _at_least_floors(layers)
    tilt_um = log_uniform(rng, 8, 160)
    tilt = tilt_um * course(rng, angle, (1, 0.6, 0.12))
    # A frame that was not averaged shows the eye's and the head's motion.
    motion_um = rng.uniform(0, 3)
    motion = motion_um * course(rng, angle, np.where(np.arange(60) < 8, 0, 1)) * (rng.random() < 0.2)
    vessels = [Vessel(vessel.angle, vessel.diameter * rng.uniform(0.8, 1.25)) for vessel in eye.vessels]
    vessels += _small_vessels(rng, (0, 10), (15, 60))
    return Eye(np.vstack([layers, eye.thickness[CHOROID:]]), eye.bruch + tilt + motion, tuple(vessels))


def off_centre(eye: Eye, distance: float, direction: float) -> Eye:
    """What a circle meets whose centre lies `distance` um from the disc's, in `direction` (degrees).

    Layers and vessels are those of the angles as seen from the disc. The RNFL is the thicker the nearer the circle
    runs to the disc, about as one over the distance: the same fibres on a shorter way round.
    """
    radius = CIRCUMFERENCE / (2 * np.pi)
    met = radius * np.exp(1j * np.radians(_angles(eye))) + distance * np.exp(1j * np.radians(direction))
    moved = _seen_at(eye, np.degrees(np.angle(met)))
    moved.thickness[RNFL] *= radius / np.abs(met)
    return moved


def _angles(eye: Eye) -> np.ndarray:
    return np.arange(len(eye.bruch)) * (360 / len(eye.bruch))


def _seen_at(eye: Eye, seen: np.ndarray) -> Eye:
    """The eye with those layers and vessels at each A-scan that lay at the angle `seen` (W,); its place is the same."""
    angle = _angles(eye)
    layers = [np.interp(seen, angle, layer, period=360) for layer in eye.thickness[:CHOROID]]
    turned = (angle - seen + 180) % 360 - 180
    vessels = [Vessel(float(vessel.angle + np.interp(vessel.angle, seen, turned, period=360)), vessel.diameter)
               for vessel in eye.vessels]
    return Eye(np.vstack([layers, eye.thickness[CHOROID:]]), eye.bruch, tuple(vessels))


def seen_again(rng: Generator, eye: Eye) -> Eye:
    """The same eye in another scan: the circle lies some 80 um elsewhere, the head is turned and tilted otherwise."""
    eye = off_centre(eye, min(abs(rng.normal(0, 100)), 250), rng.uniform(0, 360))
    tilt, direction, turn = rng.normal(0, 40), rng.uniform(0, 2 * np.pi), rng.normal(0, 2)
    eye = _seen_at(eye, _angles(eye) - turn)
    return Eye(eye.thickness, eye.bruch + tilt * np.cos(np.radians(_angles(eye)) - direction), eye.vessels)


def _fellow_eye(rng: Generator, angle: np.ndarray, eye: Eye) -> Eye:
    """The same person's other eye, in TSNIT order too: layers alike within some 6 %, vessels some 6 degrees elsewhere.

    Our numbers: the circle means of the RNFL of two healthy eyes differ by 3 % (sd).
    """
    moved = _seen_at(eye, angle + 6 * course(rng, angle, (1, 1, 0.8, 0.6)))
    own = [0.03 * rng.standard_normal() + 0.05 * course(rng, angle, 1 / np.arange(1, 7)) for _ in eye.thickness]
    layers = moved.thickness * np.exp(own)
    return Eye(np.vstack([_at_least_floors(layers[:CHOROID]), layers[CHOROID:]]),
               eye.bruch + 20 * course(rng, angle, (1, 0.6, 0.3)), moved.vessels)
