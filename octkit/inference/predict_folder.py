"""Predict what a user names: an image, a volume, a device's file, or a folder of them, as far as the model knows such.

    octkit predict MODEL IMAGES -o OUT

All scans are looked at, by their headers, before the first is predicted.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import isfinite
from pathlib import Path

from octkit.common.errors import OctkitError, by
from octkit.common.files import listing
from octkit.common.messages import say
from octkit.data.dataset import is_lossy, is_volume, read_channels, scan_name, scan_size
from octkit.data.device_files import is_device_file, open_device
from octkit.data.geometry import odd_axes
from octkit.data.image_files import is_image
from octkit.data.layouts.detect import list_scans
from octkit.data.matching import KINDS, by_channel, channel_of
from octkit.data.volume_files import SPACING_FILE, is_stack, stated_scale, volume_spacing
from octkit.inference.predict import ScanToPredict, predict_scans
from octkit.inference.sliding_window import Predictor
from octkit.layers import scan_files
from octkit.layers.boundaries import known_scale
from octkit.layers.scan_files import ScanFacts
from octkit.planning.plan import Plan
from octkit.planning.preprocess import check_grid


def predict_folder(predictor: Predictor, images: str | Path, out: str | Path, probabilities: bool = False,
                   um_per_px: Sequence[float] | None = None, circle: bool | None = None,
                   progress: bool = True, way: Callable[..., list[Path]] = predict_scans) -> list[Path]:
    """Predict a scan or a folder of them (images, NIfTI and device files, folders of B-scans) as `predict_scans` does.

    Size, scale and number of axes of all scans are checked before the first is predicted. What the folder holds besides
    is named, and so are scans whose compression has changed their grey values. For a model of several channels
    CASE_0000, CASE_0001, … are the channels of one scan, named CASE, as in nnU-Net's folders.

    Args:
        um_per_px: (axial, lateral) of images where it is known; volumes say it themselves, and so does an image with
            <name>.scale.json beside it, as `octkit device` leaves it. Least thicknesses and
            smoothness of the boundaries follow it, and a model whose plan is in mm resamples to its own spacing;
            without it scans are taken at their own grid.
        circle: whether the scans are full circles; None: as a device file says, or those that the model was made from.
        way: `predict_scans`, or a partial of it.
    """
    files, out, plan = list_scans(images), Path(out), predictor.model.plan
    _check_place(out, Path(images), files)
    _say_what_is_left_out(Path(images), files)
    if um_per_px is not None and not all(isfinite(value) and value > 0 for value in um_per_px):
        raise OctkitError(f"um_per_px: found {by(um_per_px)}, expected micrometres a pixel, axial and lateral, above 0")
    given = None if um_per_px is None else tuple(value / 1000 for value in um_per_px)
    scans = [scan for channels in by_channel(files, len(plan.channels))
             for scan in _scans_in(channels, given, circle, plan)]
    files_of: dict[str, Path] = {}
    for scan in scans:
        if (other := files_of.setdefault(scan.name, scan.file)) != scan.file:  # each has a mask of its own
            raise OctkitError(f"{scan.file}: a scan is called {scan.name}, as {other}; expected other names of files")
        if given is not None and scan.spacing == given and len(scan.size) == 2 and not known_scale(scan.size, given):
            raise OctkitError(f"{scan.file}: by the scale given it is {scan.size[0] * given[0]:.4g} mm deep, expected "
                              "0.24 to 20; --um-per-px is in micrometres a pixel, depth first")
        if len(scan.size) != plan.axes:
            raise OctkitError(f"{scan.file}: found a scan of {len(scan.size)} axes, expected {plan.axes} like those of "
                              "the model")
        for config in plan.configurations:
            check_grid(scan.size, scan.spacing, plan, config, scan.file)
        stated = volume_spacing(scan.file) if is_volume(scan.file) else scan.spacing
        for found, mend in odd_axes(scan.size, stated):
            say(f"{scan.file}: {found}, {mend}")
    if plan.units == "mm" and any(scan.spacing is None for scan in scans):
        say("no scale known (of 2-D scans --um-per-px says it): taken at their own grid, not at the model's spacing")
    if plan.units != "mm" and given is not None:
        say("this model was planned in pixels: the scale given serves the boundaries alone")
    return way(predictor, scans, out, probabilities, progress)


def _check_place(out: Path, images: Path, files: Sequence[Path]) -> None:
    """Masks must not come to lie where the next prediction, or another program, would take them for scans."""
    if out.resolve() == files[0].resolve().parent:
        raise OctkitError(f"{out}: is the images' own folder, masks would overwrite them; expected another folder")
    if images.is_dir() and out.resolve().is_relative_to(images.resolve()):
        raise OctkitError(f"{out}: lies among the images, where masks would be taken for scans, expected it elsewhere")
    if out.exists() and not out.is_dir():
        raise OctkitError(f"{out}: is a file, expected a folder for the masks")


def _say_what_is_left_out(images: Path, files: Sequence[Path]) -> None:
    def some(paths: Sequence[Path]) -> str:
        return ", ".join(path.name for path in paths[:5]) + (", …" if len(paths) > 5 else "")

    if images.is_dir():
        b_scans = is_stack(images)
        others = [path for path in listing(images, KINDS) if path not in files and path.name != SPACING_FILE
                  and not (b_scans and is_image(path)) and not path.name.endswith(scan_files.FACTS)]
        if others:
            say(f"{images}: {len(others)} of {len(others) + len(files)} left out ({some(others)}), "
                f"expected device files, {KINDS}")
    if lossy := [file for file in files if is_lossy(file)]:
        say(f"{images}: {len(lossy)} of {len(files)} compressed with loss ({some(lossy)}), which has changed grey "
            "values, expected PNG or TIFF")


def _scans_in(files: Sequence[Path], given: Sequence[float] | None, circle: bool | None,
              plan: Plan) -> list[ScanToPredict]:
    """A file's scans: each with its own scale or the one `given`, a circle as the user, the file or one beside it says.

    Those of a device's file that have other axes than the model's scans are left out where there are both. Several
    files are the channels of one scan.
    """
    file, *more = files
    if is_device_file(file):  # what it says of itself stands among its pixels: it is opened twice
        found = open_device(file)
        fitting = {name: scan for name, scan in found.items() if scan.image.ndim == plan.axes + 1} or found
        for name, scan in found.items():
            if name not in fitting or scan.notes:
                say(f"{file}: {name}: {'' if name in fitting else 'left out: '}{scan}")
        return [ScanToPredict(name, file, scan.image.shape[1:],
                              scan.spacing or (given if scan.image.ndim == 3 else None),
                              scan.circle if circle is None else circle,
                              partial(lambda name: open_device(file)[name].image, name), scan.eye,
                              line=circle is None and scan.circle is False) for name, scan in fitting.items()]
    facts = scan_files.facts_beside(file) if is_image(file) else ScanFacts()
    own = given or facts.um_per_px and tuple(um / 1000 for um in facts.um_per_px)
    size = scan_size(file)
    if is_volume(file):
        own = stated_scale(file) or (given if len(size) == 2 else None)
    return [ScanToPredict(channel_of(scan_name(file))[0] if more else scan_name(file), file, size, own,
                          facts.circle if circle is None else circle,
                          partial(read_channels, files, len(plan.channels)),
                          facts.eye, line=circle is None and facts.circle is False, more_channels=tuple(more))]
