"""The MGU-Net authors' peripapillary set (Li et al., Biomed. Opt. Express 12(4):2204, 2021), as they give it.

GCL and IPL together are GCIPL; what is none of RNFL, GCIPL and choroid becomes background. The scale is not stated, and
nor is that the scans are whole circles: they are taken for plain B-scans. data/README.md shows the folders.
"""

from pathlib import Path

from octkit.common.errors import Report, refuse
from octkit.data.dataset import Case, Dataset
from octkit.data.labels import LAYERS
from octkit.data.matching import check_pairs, images_in

# RNFL 26, GCL 51, IPL 77, INL 102, OPL 128, ONL 153, IS/OS 179, RPE 204, choroid 230, optic disc 255.
MGUNET_GREYS = {0: 0, 26: 1, 51: 2, 77: 2, 102: 0, 128: 0, 153: 0, 179: 0, 204: 0, 230: 3, 255: 0}


def open_mgunet(root: Path, report: Report = refuse) -> Dataset:
    """Open the set and check that images and masks belong together; `eval` is the validation part.

    All three parts have masks. A case is named after its part and its file ("train_12" for train/img/12.png), as the
    same file name may stand in several. Reports what the GOALS layout does.
    """
    parts = {part: _cases(root, part, report) for part in ("train", "eval", "test") if (root / part).is_dir()}
    return Dataset(root.name, root, "mgunet", LAYERS, ("OCT",), dict(MGUNET_GREYS), parts["train"],
                   parts.get("eval", ()), parts.get("test", ()))


def _cases(root: Path, part: str, report: Report) -> tuple[Case, ...]:
    images, masks = (images_in(root / part / kind, report) for kind in ("img", "mask"))
    check_pairs(images, masks, report)
    return tuple(Case(f"{part}_{name}", image, masks.get(name)) for name, image in images.items())
