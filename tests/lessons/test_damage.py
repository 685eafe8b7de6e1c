import shutil

import pytest

from octkit.common.errors import OctkitError
from octkit.evaluation.submission import check_submission, write_submission
from octkit.lessons.damage import broken_submission


def test_a_broken_submission_lacks_a_mask_and_has_an_impossible_probability(goals, tmp_path):
    images = goals / "Validation" / "Image"
    shutil.copytree(goals / "Truth" / "Layer_Masks", tmp_path / "masks")
    good = tmp_path / "submission.zip"
    write_submission(tmp_path / "masks", {path.name: 0.25 for path in images.iterdir()}, images, good)
    with broken_submission(good) as broken, pytest.raises(OctkitError, match="2 found") as raised:
        check_submission(broken, images)
    assert "0007.png" in str(raised.value) and "7.25" in str(raised.value)
    assert not broken.exists() and check_submission(good, images)
