"""Tables from anybody, Excel workbooks and CSV: read without what a workbook could do beyond holding a table.

A workbook is a zip of XML files. What would grow when it is unpacked (a zip bomb) is refused before it is read. What
says nothing of the cells' values (styles above all, on which openpyxl spends seconds a megabyte) is left out. What XML
can pull in or blow up (entities) is refused by defusedxml, with which openpyxl parses.
"""

import csv
import io
import re
import zipfile
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

from octkit.common.errors import OctkitError, bad_file, no_file

MAX_UNPACKED = 10_000_000  # bytes; a table of 1000 scans takes 50,000
MAX_PARTS = 1000
READ, NOT_READ = (".xml", ".rels"), ("docProps/", "xl/theme/", "xl/styles.xml")  # how names of parts end, and begin
MAX_ROWS, MAX_COLUMNS = 100_000, 64
PLAIN = "expected a plain workbook: save the table anew from Excel"
# Excel's "Strict Open XML Spreadsheet" is the same table in namespaces of its own, which openpyxl does not know.
STRICT, USUAL = re.compile(rb"http://purl\.oclc\.org/ooxml/(\w+)/"), rb"http://schemas.openxmlformats.org/\1/2006/"


def read_rows(path: Path) -> list[tuple[int, tuple]]:
    """The rows of a CSV file or a workbook's first sheet that are not blank: (row number as Excel shows it, values).

    None stands for an empty cell; a CSV file's other cells are text. Raises OctkitError for a file that is missing, no
    table, or too large.
    """
    path = Path(path)
    if not path.is_file():
        raise no_file(path, "a table")
    rows = list(islice(_csv_rows(path) if path.suffix.lower() == ".csv" else _workbook_rows(path), MAX_ROWS + 1))
    if len(rows) > MAX_ROWS:
        raise bad_file(path, f"has more than {MAX_ROWS} rows", "expected one an image")
    return [(number, row) for number, row in enumerate(rows, start=1) if any(value is not None for value in row)]


def _csv_rows(path: Path) -> Iterator[tuple[str | None, ...]]:
    """A CSV file's rows, separated as their first line is: by commas, semicolons (Excel in much of Europe) or tabs."""
    if path.stat().st_size > MAX_UNPACKED:
        raise bad_file(path, f"is of {path.stat().st_size} bytes", f"expected a table of at most {MAX_UNPACKED}")
    # Text in another encoding is legible where it matters: names of columns and numbers are ASCII in all of them.
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    separator = max(",;\t", key=text.partition("\n")[0].count)
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True):
            yield tuple(value.strip() or None for value in row)
    except csv.Error as error:
        raise bad_file(path, f"cannot be read as CSV ({error})", "expected a table: save it anew") from None


def _workbook_rows(path: Path) -> Iterator[tuple]:
    """The rows of a workbook's first sheet; raises OctkitError as `read_rows`, and for XML entities."""
    from defusedxml import DefusedXmlException
    from openpyxl import DEFUSEDXML, load_workbook

    if not DEFUSEDXML:
        raise OctkitError("openpyxl does not find defusedxml, expected the packages of requirements.txt: install them")

    try:
        with closing(load_workbook(_usual(path), read_only=True, data_only=True, keep_links=False)) as book:
            # Within limits: a lone cell in the last corner of a sheet would stand for 17 thousand million.
            yield from book.worksheets[0].iter_rows(max_row=MAX_ROWS + 1, max_col=MAX_COLUMNS, values_only=True)
    except OctkitError:
        raise
    except Exception as error:  # openpyxl and zipfile raise a dozen kinds for a damaged workbook
        if isinstance(error.__cause__ or error, DefusedXmlException):
            raise bad_file(path, "holds XML that declares entities", PLAIN) from None
        raise bad_file(path, f"cannot be read as an Excel workbook ({error})",
                       "expected an .xlsx file: save the table as one") from None


def _usual(path: Path) -> io.BytesIO:
    """What is read of a workbook, in the usual namespaces; raises OctkitError where it is too large."""
    usual = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(usual, "w") as copy:
        parts = [part for name, part in archive.NameToInfo.items()
                 if name.endswith(READ) and not name.startswith(NOT_READ)]
        unpacked = sum(part.file_size for part in parts)
        if unpacked > MAX_UNPACKED or len(parts) > MAX_PARTS:
            raise bad_file(path, f"would unpack to {len(parts)} parts of {unpacked} bytes, more than the limit of "
                           f"{MAX_PARTS} parts and {MAX_UNPACKED} bytes", PLAIN)
        for part in parts:
            copy.writestr(part.filename, STRICT.sub(USUAL, archive.read(part)))
    return usual
