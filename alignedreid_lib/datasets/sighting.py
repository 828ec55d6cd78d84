"""The person and camera of a user's own image, as text in one normal form. Derived in notebooks/01_datasets."""

import re
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from alignedreid_lib.errors import InputError

_BLANK = (
    "\u200b\u200e\u200f\u2060\ufeff"  # characters without width that spreadsheets and copied text leave around words
)
_NOT_TEXT = ("Cc", "Cs", "Zl", "Zp")  # control characters, lone surrogates, line and paragraph separators


class Sighting(NamedTuple):
    """An image, and who was seen where."""

    path: Path
    name: str  # its path from the folder or from the table
    person: str
    camera: str | None


def tidy(text: str) -> str:
    """Text without white space and zero-width characters around it, its accents composed (NFC; macOS writes NFD)."""
    while text != (text := text.strip().strip(_BLANK)):
        pass
    return unicodedata.normalize("NFC", text)


def is_plain(text: str) -> bool:
    """True if a name is text on one line: letters, marks, any kind of space, joiners; no control characters."""
    return not any(unicodedata.category(char) in _NOT_TEXT for char in text)


def refuse_odd_names(source: Path, names: Iterable[str]) -> None:
    """Raise InputError if a name is not plain text; the message counts them all."""
    odd = [name for name in names if not is_plain(name)]
    if odd:
        raise InputError(
            f"{source} has {count(len(odd), 'name')} that {'is' if len(odd) == 1 else 'are'} not plain text (first: "
            f"{min(odd)!a}); rename {'it' if len(odd) == 1 else 'them'} without control characters and broken bytes"
        )


def count(number: int, what: str) -> str:
    """`1 file`, `2 files`; for messages."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def unify(sightings: Sequence[Sighting]) -> list[Sighting]:
    """The same sightings, sorted by name, with one spelling for each person and camera.

    Two spellings are the same name if they differ in the spaces around or between words (a no-break space, two spaces
    for one) or in how accents are composed. The first spelling in the order of the images' names is kept.
    """
    spellings: dict[str, str] = {}

    def one(text: str) -> str:
        return spellings.setdefault(re.sub(r"\s+", " ", tidy(text)), tidy(text))

    ordered = sorted(sightings, key=lambda sighting: sighting.name)
    unified = [s._replace(person=one(s.person), camera=s.camera and one(s.camera)) for s in ordered]
    _warn_of_twins("people", {s.person for s in unified})
    _warn_of_twins("cameras", {s.camera or "" for s in unified})
    return unified


def _warn_of_twins(what: str, names: Iterable[str]) -> None:
    """Warn of names that may be meant as one: Ann and ann, 7 and 007, 7 and 7.0 (as spreadsheets write numbers)."""
    first: dict[str, str] = {}
    for name in sorted(names):
        key = re.sub(r"(?<![\d.])0+(?=\d)", "", re.sub(r"(?<=\d)\.0+$", "", name)).casefold()
        if first.setdefault(key, name) != name:
            warnings.warn(
                f"{first[key]!r} and {name!r} are taken for two {what}; write them alike if they are one", stacklevel=6
            )
