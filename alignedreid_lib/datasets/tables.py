"""A table of the user's own images: CSV as any spreadsheet or script writes it. Derived in notebooks/01_datasets."""

import codecs
import csv
import io
import itertools
import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from alignedreid_lib.datasets.sighting import Sighting, refuse_odd_names, tidy
from alignedreid_lib.errors import InputError

COLUMNS = ("path", "person", "camera")  # of a table; the last may be absent
_MISSING = ("#N/A", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!", "#DIV/0!", "nan", "NaN", "<NA>")  # no names
_DELIMITERS = ",;\t"  # a semicolon where the comma is the decimal sign


def read_table(table: Path) -> list[Sighting]:
    """The images that a table names.

    Args:
        table: CSV with commas, semicolons or tabs, in UTF-8 or UTF-16; the first line names the columns path, person
            and (or not) camera. White space around a cell does not count. Paths are taken from the table's folder.

    Raises:
        InputError: it is not such a table, or a line lacks an image or person, or names an image again.
    """
    found: list[Sighting] = []
    lines: dict[str, tuple[str, int]] = {}  # an image's real path, in lower case -> real path and line
    for line, (text, person, camera) in _rows(table):
        where = f"{table} line {line}"
        if not text.strip() or not person:
            raise InputError(f"{where} does not say path and person (and camera): {[text, person, camera]}")
        if missing := [cell for cell in (person, camera) if cell in _MISSING]:
            raise InputError(f"{where} has {missing[0]}, as programs write what is missing; write person and camera")
        path = _find(table.parent, text, where)
        real = os.path.realpath(path)
        before, first = lines.setdefault(real.lower(), (real, line))
        if first != line and (before == real or os.path.samefile(before, real)):
            raise InputError(f"{where}: {text.strip()!r} is named a second time (first in line {first}); name it once")
        found.append(Sighting(path, text.strip(), person, camera or None))
    refuse_odd_names(table, [part for s in found for part in (s.name, s.person, s.camera or "")])
    return found


def _text(table: Path) -> str:
    if table.is_symlink() and not table.exists():
        raise InputError(f"{table} is a link to {os.readlink(table)}, which is not there; correct the link")
    if table.exists() and not table.is_file():  # reading a pipe would wait endlessly
        raise InputError(f"{table} is not a file or folder; give a folder of images, or a CSV of path,person,camera")
    try:
        data = table.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{table} does not exist; give a folder of images, or a CSV of path,person,camera") from None
    if data.startswith(b"PK\x03\x04"):
        raise InputError(f"{table} is a zip or a spreadsheet; unpack it and give the folder, or save the table as CSV")
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{table} is not a text in UTF-8 ({error.reason}); save the table as CSV, UTF-8") from None


def _rows(table: Path) -> Iterator[tuple[int, tuple[str, str, str]]]:
    """(line, (path as written, person, camera)) of every line that is not blank."""
    text = _text(table)
    first, _, rest = text.partition("\n")
    delimiters = _DELIMITERS
    if re.fullmatch("sep=.", tidy(first).lower()):  # a line for Excel
        text, delimiters = f"\n{rest}", tidy(first)[-1]
    columns: list[str] = []
    lines: Iterator[tuple[int, list[str]]] = iter(())
    for delimiter in delimiters:
        lines = _lines(table, text, delimiter)
        with suppress(InputError):  # a different delimiter may fit
            columns = [cell.lower() for _, row in itertools.islice(lines, 1) for cell in map(tidy, row)]
            while columns and not columns[-1]:  # empty columns at the right, as spreadsheets leave them
                columns.pop()
            if len(set(columns)) == len(columns) and {"path", "person"} <= set(columns) <= set(COLUMNS):
                break
    else:
        head = "".join(text.split("\n")[:1]).strip()
        raise InputError(f"{table}: the first line is {head[:80]!r}; it has to be path,person,camera")
    for line, row in lines:
        if len(row) < 2 or any(map(tidy, row[len(columns) :])):
            raise InputError(f"{table} line {line} does not say path and person (and camera): {row}")
        cells = dict(zip(columns, row, strict=False))
        yield line, (cells.get("path", ""), tidy(cells.get("person", "")), tidy(cells.get("camera", "")))


def _lines(table: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(number, cells) of every line that is not blank."""
    line = 1
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        for row in rows:
            line = rows.line_num
            if any(map(tidy, row)):
                yield line, row
    except (csv.Error, TypeError, ValueError) as error:  # the latter two: an invalid delimiter
        raise InputError(f"{table} after line {line} is not CSV ({error}); save the table again") from error


def _find(folder: Path, text: str, where: str) -> Path:
    """The file that a cell names, whichever system wrote it."""
    spellings = [text.strip(), text, tidy(text)]
    spellings += [spelling.replace("\\", "/") for spelling in spellings]
    spellings += [unicodedata.normalize(form, spelling) for form in ("NFC", "NFD") for spelling in spellings]
    try:
        for spelling in dict.fromkeys(spellings):
            path = folder / spelling
            if "\0" not in spelling and path.is_file():
                return path
    except OSError as error:  # a name too long for a file
        raise InputError(f"{where}: {error.strerror}; correct the path") from error
    path = folder / text.strip()
    if "\0" not in text and path.is_dir():
        raise InputError(f"{where}: {text.strip()!r} is a folder; name the image")
    if "\0" not in text and path.is_symlink():
        raise InputError(
            f"{where}: {text.strip()!r} is a link to {os.readlink(path)}, which is not there; correct the link"
        )
    raise InputError(f"{where}: {text.strip()!r} is not there; paths are taken from the table's own folder")
