"""The page that shows how the library is built: its modules, and which imports from which, read from the code."""

import importlib
import re
import string
import tomllib
from pathlib import Path

import grimp

import cells

LIBRARY = "alignedreid_lib"
CELL, NAMES, HEAD = 18, 84, 78  # units of the drawing: a cell's side, the rows' names, the columns' names


def rooms(root: Path) -> list[str]:
    """The library's top modules from the lowest to the highest, as the import contract in pyproject.toml lists them."""
    contracts = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    return list(reversed(layers))


def imports(names: list[str]) -> dict[str, set[str]]:
    """For each top module, those that it and the modules inside it import from."""
    graph = grimp.build_graph(LIBRARY, cache_dir=None)
    for name in names:
        graph.squash_module(f"{LIBRARY}.{name}")
    return {
        name: {
            found.removeprefix(f"{LIBRARY}.")
            for found in graph.find_modules_directly_imported_by(f"{LIBRARY}.{name}")
            if found.startswith(f"{LIBRARY}.")
        }
        for name in names
    }


def drawing(names: list[str], found: dict[str, set[str]]) -> str:
    """An SVG: a row and a column for each module, a mark where the row's module imports from the column's."""
    side = CELL * len(names)
    lines = [
        f'<svg class="architecture" viewBox="0 0 {NAMES + side} {HEAD + side}" role="img" '
        f'aria-label="Which of the {len(names)} modules imports from which: every mark is below the diagonal">'
    ]
    for i, name in enumerate(names):
        x, y = NAMES + CELL * i, HEAD + CELL * i
        lines += [
            f'<text x="{NAMES - 6}" y="{y + 13}" text-anchor="end">{name}</text>',
            f'<text transform="translate({x + 13} {HEAD - 6}) rotate(-90)">{name}</text>',
        ]
        for j, other in enumerate(names):
            kind = "itself" if i == j else "imports" if other in found[name] else "nothing"
            title = f"<title>{name} imports from {other}</title>" if kind == "imports" else ""
            place = f'x="{NAMES + CELL * j + 1}" y="{y + 1}" width="{CELL - 2}" height="{CELL - 2}"'
            lines.append(f'<rect class="{kind}" {place}>{title}</rect>')
    return "\n".join([*lines, "</svg>"])


def page(root: Path) -> str:
    """The page in Markdown."""
    names = rooms(root)
    found = imports(names)
    chapters = {name[:2]: name for name in cells.chapters(root / "notebooks")}
    rows = []
    for name in names:
        text = importlib.import_module(f"{LIBRARY}.{name}").__doc__ or ""
        purpose = re.split(r"(?<=\.) ?(?:Explained|Derived) in |\n", text)[0]
        numbers = re.findall(r"\b(\d\d)(?=_[a-z]|\b)", text)
        where = ", ".join(f"[{number}]({chapters[number]}.ipynb)" for number in numbers)
        rows.append(f"| [{name}](reference/{name}.md) | {purpose} | {where} |")
    template = string.Template((root / "notebooks" / "book" / "architecture.md").read_text("utf-8"))
    return template.substitute(count=len(names), table="\n".join(rows), drawing=drawing(names, found))
