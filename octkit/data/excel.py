"""Tables in Excel workbooks from anybody: read without what a workbook could do beyond holding a table.

A workbook is a zip of XML files. What would grow when it is unpacked (a zip bomb) is refused before it is read. What
XML can pull in or blow up (entities) is refused by defusedxml, with which openpyxl parses.
"""

import zipfile
from contextlib import closing
from pathlib import Path

from octkit.common.errors import OctkitError, bad_file, no_file

MAX_UNPACKED = 50_000_000  # bytes; a table of 1000 scans takes 50,000
MAX_PARTS = 1000
MAX_ROWS, MAX_COLUMNS = 100_000, 64
PLAIN = "expected a plain workbook: save the table anew from Excel"


def read_rows(path: Path) -> list[tuple[int, tuple]]:
    """The first sheet's rows that are not blank: (row number as Excel shows it, values), None for an empty cell.

    Raises OctkitError for a file that is missing, no workbook, too large unpacked, or holds XML entities.
    """
    path = Path(path)
    if not path.is_file():
        raise no_file(path, "an Excel workbook")
    from defusedxml import DefusedXmlException
    from openpyxl import DEFUSEDXML, load_workbook

    if not DEFUSEDXML:
        raise OctkitError("openpyxl does not find defusedxml, expected the packages of requirements.txt: install them")

    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
        unpacked = sum(part.file_size for part in parts)
        if unpacked > MAX_UNPACKED or len(parts) > MAX_PARTS:
            raise bad_file(path, f"would unpack to {len(parts)} parts of {unpacked} bytes, more than the limit of "
                           f"{MAX_PARTS} parts and {MAX_UNPACKED} bytes", PLAIN)
        with closing(load_workbook(path, read_only=True, data_only=True, keep_links=False)) as book:
            # Within limits: a lone cell in the last corner of a sheet would stand for 17 thousand million.
            rows = list(book.worksheets[0].iter_rows(max_row=MAX_ROWS + 1, max_col=MAX_COLUMNS, values_only=True))
    except OctkitError:
        raise
    except Exception as error:  # openpyxl and zipfile raise a dozen kinds for a damaged workbook
        if isinstance(error.__cause__ or error, DefusedXmlException):
            raise bad_file(path, "holds XML that declares entities", PLAIN) from None
        raise bad_file(path, f"cannot be read as an Excel workbook ({error})",
                       "expected an .xlsx file: save the table as one") from None
    if len(rows) > MAX_ROWS:
        raise bad_file(path, f"has more than {MAX_ROWS} rows", "expected one an image")
    return [(number, row) for number, row in enumerate(rows, start=1) if any(value is not None for value in row)]
