"""Tables from strangers: of a workbook, cells alone are read."""

import zipfile

import pytest
from openpyxl import Workbook

from octkit.common.errors import OctkitError
from octkit.data.tables import MAX_UNPACKED, read_rows


def workbook(path, part, change):
    """A workbook of two rows in which the bytes of one part are others."""
    book = Workbook()
    for row in (("ImgName", "GC_Label"), (1, 0)):
        book.active.append(row)
    book.save(path.with_name("whole.xlsx"))
    with zipfile.ZipFile(path.with_name("whole.xlsx")) as whole, zipfile.ZipFile(path, "w", 8) as made:
        for name in whole.namelist():
            made.writestr(name, change(whole.read(name)) if name == part else whole.read(name))
    return path


@pytest.mark.parametrize("part", ["xl/styles.xml", "xl/theme/theme1.xml", "docProps/core.xml"])
def test_what_says_nothing_of_the_values_is_not_read(tmp_path, part):
    """A styles part of 0.2 MB, packed, took more than a minute."""
    path = workbook(tmp_path / "a.xlsx", part, lambda _: b"<no XML" + bytes(MAX_UNPACKED))
    assert read_rows(path) == [(1, ("ImgName", "GC_Label", *[None] * 62)), (2, (1, 0, *[None] * 62))]


@pytest.mark.parametrize("part", ["xl/worksheets/sheet1.xml", "xl/workbook.xml", "[Content_Types].xml"])
def test_what_is_read_has_a_limit(tmp_path, part):
    path = workbook(tmp_path / "a.xlsx", part, lambda data: data + b" " * MAX_UNPACKED)
    with pytest.raises(OctkitError, match=f"bytes, more than the limit of .* {MAX_UNPACKED} bytes") as refused:
        read_rows(path)
    assert refused.value.file == path and path.stat().st_size < MAX_UNPACKED / 100
