"""Tables in Excel workbooks from anybody: read without what a workbook could do beyond holding a table.

A workbook is a zip of XML files. What would grow when it is unpacked (a zip bomb), or what XML can pull in or blow up
(entities, which need a document type), is refused before a reader of workbooks sees it.
"""

import zipfile
from pathlib import Path
from xml.parsers import expat

from octkit.common.errors import bad_file, no_file

MAX_UNPACKED = 50_000_000  # bytes; a table of 1000 scans takes 50,000
MAX_PARTS = 1000
MAX_ROWS, MAX_COLUMNS = 100_000, 64


def read_rows(path: Path) -> list[tuple[int, tuple]]:
    """The first sheet's rows that are not blank: (row number as Excel shows it, values), None for an empty cell.

    Raises OctkitError for a file that is missing, no workbook, too large unpacked, or holds a document type.
    """
    path = Path(path)
    if not path.is_file():
        raise no_file(path, "an Excel workbook")
    from openpyxl import load_workbook

    try:
        _refuse_what_grows(path)
        book = load_workbook(path, read_only=True, data_only=True, keep_links=False)
        try:
            # Within limits: a lone cell in the last corner of a sheet would stand for 17 thousand million.
            rows = list(book.worksheets[0].iter_rows(max_row=MAX_ROWS + 1, max_col=MAX_COLUMNS, values_only=True))
        finally:
            book.close()
    except _Refused as reason:
        raise bad_file(path, str(reason), "expected a plain workbook: save the table anew from Excel") from None
    except Exception as error:  # openpyxl and zipfile raise a dozen kinds for a damaged workbook
        raise bad_file(path, f"cannot be read as an Excel workbook ({error})",
                       "expected an .xlsx file: save the table as one") from None
    if len(rows) > MAX_ROWS:
        raise bad_file(path, f"has more than {MAX_ROWS} rows", "expected one an image")
    return [(number, row) for number, row in enumerate(rows, start=1) if any(value is not None for value in row)]


class _Refused(Exception):
    """What a workbook from a stranger may not have."""


def _refuse_what_grows(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        unpacked = sum(part.file_size for part in parts)
        if unpacked > MAX_UNPACKED or len(parts) > MAX_PARTS:
            raise _Refused(f"would unpack to {len(parts)} parts of {unpacked} bytes, more than the limit of "
                           f"{MAX_PARTS} parts and {MAX_UNPACKED} bytes")
        for part in parts:
            if not part.is_dir() and part.filename.lower().endswith((".xml", ".rels")):
                # expat knows every encoding in which a document type could hide from a search.
                parser = expat.ParserCreate()
                parser.StartDoctypeDeclHandler = _refuse_doctype
                parser.Parse(archive.read(part), True)


def _refuse_doctype(*_) -> None:
    raise _Refused("holds XML with a document type, which may declare entities")
