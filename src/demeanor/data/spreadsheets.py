"""Tables as spreadsheets save them: rows of CSV text whose encoding and separator are found.

Read are UTF-8 with or without a byte order mark, UTF-16, and Windows-1252 where the bytes are no UTF-8; comma, semicolon, tab or bar
between the cells. Rows are numbered as the spreadsheet numbers them: the header is row 1, and a cell with line breaks is still one row.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from demeanor.data.csv_rows import CountedLines, csv_rows
from demeanor.data.files import open_bytes, reading
from demeanor.data.rows import Row
from demeanor.errors import InputFileError
from demeanor.keys import folded

SEPARATORS = ",;\t|"
TABLES = (".csv", ".tsv", ".tab")
WORKBOOKS = (".xlsx", ".xlsm", ".xls", ".ods", ".numbers")
_MARKED = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_MISREAD = "ï»¿"  # a UTF-8 mark that some program took for Windows-1252 and saved as text
_JSON = ("{", "[")
_SAID = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)  # what Excel takes the separator from
_PACKED = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # how a workbook begins: a zip file, or Excel's older form


@dataclass(frozen=True, slots=True)
class SheetRow(Row):
    """A row of a table; `at` is its number in the spreadsheet, `number` the line of the file where it begins."""

    at: int = 0

    @property
    def where(self) -> str:
        """Where it stands, in the words of whoever has the file open."""
        return f"row {self.at}"


def is_table(path: Path) -> bool:
    """Whether a file is to be read as a table: by its name; a .txt, by whether it begins like JSON."""
    name = path.name.lower().removesuffix(".gz")
    if not name.endswith(".txt"):
        return name.endswith((*TABLES, *WORKBOOKS))
    return not table_text(path).lstrip().startswith(_JSON)


def table_rows(path: Path, known: Collection[str]) -> Iterator[SheetRow]:
    """The rows of a table, empty ones left out, each with its cells as text by column or with what is wrong with it.

    `known` are names of columns by which the separator is told. Raises InputFileError for a file that is no such text.
    """
    text = table_text(path)
    if text.lstrip().startswith(_JSON):
        raise InputFileError(f"{path} looks like JSON; name it .jsonl")
    lines, at = CountedLines(io.BytesIO(text.encode())), 1
    said = _SAID.match(text)
    if said is not None:
        next(lines)
        at = 2
    separator = separator_of(text, known) if said is None else said[1]
    header = _header(path, lines, separator)
    end = lines.number
    for row in csv_rows(lines, header, separator):
        at, end = at + row.number - end, lines.number
        cells = {name: value for name, value in row.record.items() if isinstance(name, str) and name}
        error = row.error if row.error is None or at == row.number else f"row {at}: {row.error}"
        if error is not None or any(value.strip() for value in cells.values()):
            yield SheetRow(row.number, cells, error, at=at)


def table_text(path: Path) -> str:
    """The text of a file, decoded. Raises InputFileError, for a workbook with how to save it as CSV."""
    with reading(path):
        if path.is_dir():
            raise InputFileError(f"{path} is a folder and cannot be read as a sheet; name a .csv file")
        with open_bytes(path) as file:
            content = file.read()
    if content.startswith(_PACKED):
        raise InputFileError(
            f"{path} is a workbook, and sheets are read as CSV; in Excel save it as 'CSV UTF-8 (Comma delimited)', "
            "in LibreOffice as 'Text CSV', in Numbers export it to CSV"
        )
    encoding = next((name for mark, name in _MARKED if content.startswith(mark)), None) or _unmarked(content)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputFileError(f"{path} cannot be read as {encoding} text ({error.reason}); save it as 'CSV UTF-8'") from error
    return text if "\n" in text else text.replace("\r", "\n")  # of an old Macintosh


def _unmarked(content: bytes) -> str:
    """The encoding of text without a byte order mark."""
    if b"\0" in content:
        return "utf-16-le" if content[1::2].count(0) >= content[::2].count(0) else "utf-16-be"
    try:
        content.decode()
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def separator_of(text: str, known: Collection[str]) -> str:
    """What stands between the cells of a header: what gives most of the `known` names, and then most cells."""

    def found(separator: str) -> tuple[int, int]:
        try:
            names = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
        except csv.Error:
            return 0, 0
        return sum(folded(name) in known for name in names), len(names)

    return max(SEPARATORS, key=found)


def _header(path: Path, lines: CountedLines, separator: str) -> list[str]:
    """The names of the columns; "" for one of cells that somebody left without a name. Raises InputFileError."""
    try:
        header = next(csv.reader(lines, strict=True, delimiter=separator), [])
    except csv.Error as error:
        raise InputFileError(f"{path}: its header cannot be read: {error}") from error
    header = [name.removeprefix(_MISREAD) for name in header]
    names = [name for name in header if name.strip()]
    if len(set(names)) != len(names):
        raise InputFileError(f"{path}: two columns have the same name; rename one of them")
    return [name if name.strip() else "" for name in header]
