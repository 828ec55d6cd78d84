"""A chapter's cells: its two files, the names of their metadata, and what was edited in the `.ipynb` alone."""

import ast
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jupytext
import nbformat

Content = tuple[str, str, list[str], str, str, str]
PARTS = ("type", "source", "tags", "alt", "caption", "label")  # of a Content
KEPT = PARTS[2:]  # of a cell's metadata; pyproject.toml gives them to jupytext, too
# In a notebook's metadata: see `arrangement`, and `made_from.record`.
ORDER, MADE_FROM = "order", "made_from"
# Tags: the settings that papermill sets; a widget, which shows nothing without its kernel; what a full run leaves out;
# what `make portable` measures.
PARAMETERS, EXPLORER, DEMONSTRATION, BOUND = "parameters", "explorer", "demonstration", "bound"
HEADER = re.compile(r"# ---\n# jupyter:\n(?:#.*\n)*?# ---\n\n?")  # of a .py, where it has one


def chapters(folder: Path) -> list[str]:
    """The names of all chapters that have a `.py` or an `.ipynb`, in order."""
    return sorted({p.stem for suffix in ("py", "ipynb") for p in folder.glob(f"[0-9][0-9]_*.{suffix}")})


def runnable(folder: Path) -> list[str]:
    """The names of the chapters that `make run` runs; they begin with a cell of parameters."""
    return [name for name in chapters(folder) if name < "10"]


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
        advice = "fix it" if path.suffix == ".py" else "fix it, or delete it: `make pairs` makes it from the .py"
        raise ValueError(f"{path.name}: not a notebook ({reason}); {advice}") from error


def tags(cell: Any) -> list[str]:
    """The tags of a cell, none where it has none."""
    return list(cell.metadata.get("tags", []))


def alt_text(cell: Any) -> str:
    """What a figure of this cell shows, in words: the cell's `alt`, or the comment its code begins with."""
    if alt := cell.metadata.get("alt"):
        return str(alt)
    first = cell.source.lstrip().partition("\n")[0]
    return first.lstrip("#").strip() if first.startswith("#") else ""


def has_figure(cell: Any) -> bool:
    """True if a cell's output is a figure: a chart, a sheet of images, or a figure that its reader moves."""
    return any(kind.startswith("image/") for output in cell.get("outputs", []) for kind in output.get("data", {}))


def is_folded(cell: Any) -> bool:
    """True if the site shows a code cell only to those who open it: it computes nothing that the text explains.

    Folded are the parameters, cells of imports and settings, cells whose output is a figure, and functions that draw
    (`draw_...`). The tag `show-input` keeps a cell open, `hide-input` folds one.
    """
    if "show-input" in tags(cell) or cell.cell_type != "code":
        return False
    if {PARAMETERS, "hide-input"} & set(tags(cell)) or has_figure(cell):
        return True
    try:
        lines = ast.parse(cell.source).body
    except SyntaxError:  # with IPython's own commands
        return False
    return all(map(_is_preparation, lines)) or all(
        isinstance(line, ast.FunctionDef) and line.name.startswith("draw_") for line in lines
    )


def _is_preparation(line: ast.stmt) -> bool:
    """An import, a class of settings, or settings read from the parameters."""
    if isinstance(line, ast.Assign) and isinstance(line.value, ast.Call):
        return "read_" in ast.unparse(line.value.func)
    return isinstance(line, ast.Import | ast.ImportFrom | ast.ClassDef)


def content(cell: Any) -> Content:
    """What has to agree between the two files: type, source, tags, and the words, caption and label of the figure."""
    alt, caption, label = (str(cell.metadata.get(key, "")) for key in KEPT[1:])
    return cell.cell_type, cell.source.rstrip(), sorted(tags(cell)), alt, caption, label


def digest(cell: Any) -> str:
    """What a cell's id begins with: an editor changes the content and leaves the id."""
    return hashlib.sha1(f"{cell.cell_type}:{cell.source}".encode()).hexdigest()[:10]


def arrangement(notebook: Any) -> str:
    """A fingerprint of which cells there are, in order, and of their tags and words."""
    rows = [(cell.get("id"), *content(cell)[2:]) for cell in notebook.cells]
    return hashlib.sha1(repr(rows).encode()).hexdigest()[:10]


def identify(notebook: Any) -> None:
    """Gives each cell an id that follows its content, so that a diff shows what changed, and only the kept metadata."""
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        found = digest(cell)
        seen[found] = seen.get(found, 0) + 1
        cell.id = found if seen[found] == 1 else f"{found}-{seen[found]}"
        cell.metadata = {key: cell.metadata[key] for key in KEPT if key in cell.metadata}


def as_written(cell: Any) -> bool:
    """True if a cell's source is the one that its id was made from."""
    return cell.get("id", "").partition("-")[0] == digest(cell)


def executed(notebook: Any) -> bool:
    """True if all code was executed as it was written, from the first cell to the last."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    counts = [cell.execution_count for cell in code]
    return counts == list(range(1, len(code) + 1)) and all(map(as_written, code))


def edited(notebook: Any, kept: Sequence[Content] = ()) -> str:
    """What was edited in a notebook since it was written from its `.py`, in words; "" for nothing.

    Args:
        kept: contents that are elsewhere too, so that an edit to them is not lost.
    """
    for number, cell in enumerate(notebook.cells, 1):
        if not as_written(cell) and content(cell) not in kept:
            return f"cell {number}"
    now = arrangement(notebook)
    return "" if notebook.metadata.get(ORDER, now) == now else "the cells' order, number or tags"


def write_source(notebook: Any, path: Path) -> None:
    """Writes the `.py` from a notebook, with the header that the `.py` had.

    Raises:
        ValueError: the `.py` would not contain the same cells, or it cannot be written; the file is as it was.
    """
    header = HEADER.match(path.read_text("utf-8")) if path.exists() else None
    bare = nbformat.from_dict({**notebook, "metadata": {}})
    for cell in bare.cells:
        cell.metadata = {key: cell.metadata[key] for key in KEPT if key in cell.metadata}
    bare.metadata = {
        "jupytext": {"notebook_metadata_filter": "-all", "cell_metadata_filter": ",".join([*KEPT, "-all"])}
    }
    text = (header[0] if header else "") + jupytext.writes(bare, fmt="py:percent")
    if list(map(content, jupytext.reads(text, fmt="py:percent").cells)) != list(map(content, notebook.cells)):
        raise ValueError(f"{path.name}: a cell of the .ipynb cannot be written as percent format; write it in the .py")
    replace(path, lambda beside: beside.write_text(text, "utf-8"))


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file completely or not at all.

    Raises:
        ValueError: the disk refuses; one line.
    """
    beside = path.with_name(f"{path.name}.tmp")
    try:
        write(beside)
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ValueError(f"{path.name}: cannot be written ({error.strerror or error}); free space") from error


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
