"""Our own layout for volumes, which the phantoms of volumes have too.

    Train/Image/0001.nii.gz         one volume a case: a NIfTI file (.nii.gz, .nii), or a folder of B-scan PNGs
    Train/Mask/0001.nii.gz          likewise; label numbers, 0 for background
    Validation/Image/…              Test/Image/…     no labels
    labels.json                     optional: {"labels": ["rnfl", "gcipl", "choroid"]}, names of the labels 1, 2, …
    Truth/Mask/…                    optional: true masks of the validation and test volumes, read for scoring alone

`octkit.volumes` says what is in such files. The spacing stands in a volume's header, or in the spacing.json of a
folder of B-scans; a folder of masks needs none of its own.
"""

from pathlib import Path

from octkit.cases import LAYERS, Case, Dataset, is_volume, scan_size
from octkit.files import OctkitError, read_json
from octkit.pairs import check_pairs, refuse_doubled_names, scans_in
from octkit.volumes import volume_spacing

LABELS_FILE = "labels.json"


def open_volumes(root: Path) -> Dataset:
    """Open a data set of volumes and check that its parts fit together.

    Reads folders and headers, no voxels. Raises OctkitError that names the first file that is missing, doubled, no
    volume, without spacing, of another size than its mask, or without its counterpart.
    """
    labels = _labels(root / LABELS_FILE)
    images, masks = _volumes_in(root / "Train" / "Image"), scans_in(root / "Train" / "Mask", masks=True)
    check_pairs(images, masks, root / "Train" / "Image", root / "Train" / "Mask")
    train = tuple(Case(name, image, masks[name], spacing=volume_spacing(image)) for name, image in images.items())
    unlabelled = {split: tuple(Case(name, image, spacing=volume_spacing(image))
                               for name, image in _volumes_in(root / split / "Image").items())
                  for split in ("Validation", "Test") if (root / split).is_dir()}
    dataset = Dataset(root.name, root, "volumes", labels, ("OCT",), {n: n for n in range(len(labels) + 1)}, train,
                      unlabelled.get("Validation", ()), unlabelled.get("Test", ()))
    refuse_doubled_names(dataset)
    return dataset


def _volumes_in(folder: Path) -> dict[str, Path]:
    volumes = scans_in(folder)
    for path in volumes.values():
        if not is_volume(path):
            raise OctkitError(f"{path}: found a single image, expected volumes here: NIfTI files or folders of B-scans")
        if len(size := scan_size(path)) != 3:
            raise OctkitError(f"{path}: found a single slice of {size[0]} x {size[1]} px, expected a volume of 3 axes")
    return volumes


def _labels(path: Path) -> tuple[str, ...]:
    if not path.exists():
        return LAYERS
    content = read_json(path)
    names = content.get("labels") if isinstance(content, dict) else None
    good = isinstance(names, list) and 0 < len(names) < 255 and all(isinstance(n, str) and n for n in names)
    if not good or len(set(names)) != len(names) or "background" in names:
        raise OctkitError(f'{path}: found {str(content)[:80]}, expected {{"labels": [names of the labels 1, 2, …]}}, '
                          "each once and without background")
    return tuple(names)
