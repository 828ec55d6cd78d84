"""A chapter's cells: how its two files are read, what a cell holds, and what was edited in the `.ipynb` alone."""

import ast
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jupytext
import nbformat

Content = tuple[str, str, list[str], str, str]
ORDER = "order"  # in a notebook's metadata, see `arrangement`


def read(path: Path) -> Any:
    """A chapter's notebook, or its `.py` as one.

    Raises:
        ValueError: the file is absent or damaged; one line.
    """
    try:
        if path.suffix == ".py":
            return jupytext.read(path, fmt="py:percent")
        notebook = nbformat.read(path, as_version=4)
        _ = [content(cell) for cell in notebook.cells]
        return notebook
    except OSError as error:
        raise ValueError(f"{path.name}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # a damaged file can fail in any way
        reason = " ".join(str(error).split())[:200]
        advice = "mend it" if path.suffix == ".py" else "mend it, or delete it: `make pairs` makes it from the .py"
        raise ValueError(f"{path.name}: not a notebook ({reason}); {advice}") from error


def tags(cell: Any) -> list[str]:
    """The tags of a cell, none where it has none."""
    return list(cell.metadata.get("tags", []))


def alt_text(cell: Any) -> str:
    """What a picture of this cell shows, in words: the cell's `alt`, or the comment its code begins with."""
    if alt := cell.metadata.get("alt"):
        return str(alt)
    first = cell.source.lstrip().partition("\n")[0]
    return first.lstrip("#").strip() if first.startswith("#") else ""


def content(cell: Any) -> Content:
    """What has to agree between the two files: type, source, tags, and the words and label of the picture."""
    alt, label = (str(cell.metadata.get(key, "")) for key in ("alt", "label"))
    return cell.cell_type, cell.source.rstrip(), sorted(tags(cell)), alt, label


def digest(cell: Any) -> str:
    """What a cell's id begins with: an editor changes the content and leaves the id."""
    return hashlib.sha1(f"{cell.cell_type}:{cell.source}".encode()).hexdigest()[:10]


def arrangement(notebook: Any) -> str:
    """A fingerprint of which cells there are, in order, and of their tags and words."""
    rows = [(cell.get("id"), *content(cell)[2:]) for cell in notebook.cells]
    return hashlib.sha1(repr(rows).encode()).hexdigest()[:10]


def edited(notebook: Any, kept: Sequence[Content] = ()) -> str:
    """What was edited in a notebook since it was written from its `.py`, in words; "" for nothing.

    Args:
        kept: contents that are elsewhere too, so that an edit to them is not lost.
    """
    for number, cell in enumerate(notebook.cells, 1):
        if cell.get("id", "").partition("-")[0] != digest(cell) and content(cell) not in kept:
            return f"cell {number}"
    now = arrangement(notebook)
    return "" if notebook.metadata.get(ORDER, now) == now else "the cells' order, number or tags"


def check_syntax(name: str, source: Any) -> None:
    """Raises ValueError for a code cell that is not Python; those with IPython's own commands are left to it."""
    for number, cell in enumerate(source.cells, 1):
        if cell.cell_type != "code" or re.search(r"^\s*[%!?]|\?\s*$", cell.source, re.M):
            continue
        try:
            compile(cell.source, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        except (SyntaxError, ValueError) as error:
            line, words = getattr(error, "lineno", 0), getattr(error, "text", None) or ""
            raise ValueError(f"{name}.py: cell {number}, line {line}: {error.args[0]} ({words.strip()})") from error
