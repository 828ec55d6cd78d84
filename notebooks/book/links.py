"""What the site adds to the notebooks' text: links to the literature and to the library, and back.

A notebook says "Hermans et al. 2017" and calls `losses.global_triplet`, plain, as it has to be in JupyterLab. On the
site the first leads to the bibliography and the second to the reference, and both lead back to the chapters.
"""

import ast
import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pybtex.backends.markdown
import pybtex.database
import pybtex.style.formatting.plain

import alignedreid_lib

Notebooks = Mapping[str, Any]  # name of a chapter (05_losses) to its notebook

# "Hermans et al. 2017", "Zhong et al. (CVPR 2017)", "Luo et al., Pattern Recognition 94, 2019"
CITATION = re.compile(r"\b([A-Z][a-z]+)\s+et\s+al\.?,?(?:\s+\(?([A-Za-z][\w .:-]*?),?)?\s+\(?(20\d\d)(?=\W)")
# Where several papers of a name and year are, the venue decides.
VENUES = {("luo2019", "CVPR-W"): "luo2019strong"}
# Text in which nothing is replaced: code, mathematics, links.
KEPT = re.compile(r"```.*?```|\$\$.*?\$\$|\$[^$\n]+\$|!?\[[^\]]*\]\([^)]*\)|<[^>]+>", re.DOTALL)
CODE = re.compile(r"`([a-z_]+\.[A-Za-z_]+)(\(\))?`")
FIGURE = re.compile(r"\[([^\]]+)\]\(#(fig-[a-z-]+)\)")  # [the figure](#fig-pairs): the label of a cell
ORIGINAL = re.compile(r"(original reproduction)(?! says)", re.IGNORECASE)
MODULES = tuple(sorted(module.name for module in pkgutil.iter_modules(alignedreid_lib.__path__)))


def read_references(path: Path) -> Any:
    """The entries of a BibTeX file, by key."""
    return pybtex.database.parse_file(str(path)).entries


def key_of(citation: re.Match[str], known: Mapping[str, Any]) -> str:
    """The key of the paper that a text names.

    Raises:
        ValueError: it is not in the bibliography.
    """
    name, venue, year = citation.groups()
    key = VENUES.get((name.lower() + year, venue or ""), name.lower() + year)
    if key not in known:
        raise ValueError(f"{' '.join(citation[0].split())!r} is not in references.bib")
    return key


def cite(text: str, known: Mapping[str, Any], link: Callable[[str, str], str]) -> str:
    """A text whose citations are links.

    Args:
        link: makes one of (words, key).
    """
    return CITATION.sub(lambda found: link(" ".join(found[0].split()), key_of(found, known)), text)


def public(module: str, name: str) -> bool:
    """Whether the reference describes `module.name`."""
    content = importlib.import_module(f"alignedreid_lib.{module}") if module in MODULES else None
    thing = getattr(content, name, None)
    if not callable(thing) or name.startswith("_"):
        return False
    home = getattr(thing, "__module__", "")
    return home == f"alignedreid_lib.{module}" or name in getattr(content, "__all__", ())


def linked(markdown: str, known: Mapping[str, Any]) -> str:
    """A Markdown cell with its citations, and the functions it names, as links; figures get their numbers."""

    def words(text: str) -> str:
        text = cite(text, known, lambda words, key: f"[{words}](#{key})")

        def api(found: re.Match[str]) -> str:
            dotted = found[1]
            return f"{{py:obj}}`{dotted} <alignedreid_lib.{dotted}>`" if public(*dotted.split(".")) else found[0]

        return CODE.sub(api, text)

    parts, last = [], 0
    for kept in KEPT.finditer(markdown):
        parts += [words(markdown[last : kept.start()]), kept[0]]
        last = kept.end()
    return FIGURE.sub(numbered, "".join([*parts, words(markdown[last:])]))


def numbered(figure: re.Match[str]) -> str:
    """A link to a figure as its number, whatever its words: with a capital letter if they begin with one."""
    words, label = figure.groups()
    return f"{{numref}}`{'Figure' if words[0].isupper() else 'figure'} %s <{label}>`"


def link_prose(notebook: Any, known: Mapping[str, Any]) -> None:
    """Makes links of what a chapter's Markdown cells name; the original reproduction's first mention is one, too."""
    named = False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = linked(cell.source, known)
            if not named:
                cell.source, count = ORIGINAL.subn(r"[\1](#huang2018)", cell.source, count=1)
                named = count > 0


def used(notebook: Any) -> list[str]:
    """What a chapter's code takes from the library, `losses.global_triplet` and the like, in alphabetical order."""
    found: set[tuple[str, str]] = set()
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                found.add((node.value.id, node.attr))
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("alignedreid_lib."):
                found |= {((node.module or "").split(".")[1], alias.name) for alias in node.names}
    return sorted(f"{module}.{name}" for module, name in found if public(module, name))


def library_cell(notebook: Any) -> str:
    """The list that ends a chapter on the site: what it uses, each a link to its description."""
    links = [f"{{py:obj}}`{dotted} <alignedreid_lib.{dotted}>`" for dotted in used(notebook)]
    return "## In the library\n\nThis chapter uses, and the reference describes: " + ", ".join(links) + "."


def chapters_of(notebooks: Notebooks) -> dict[str, list[str]]:
    """For every function of the library that chapters use, those chapters."""
    found: dict[str, list[str]] = {}
    for name, notebook in notebooks.items():
        for dotted in used(notebook):
            found.setdefault(dotted, []).append(name)
    return found


def title(notebook: Any) -> str:
    """A chapter's heading."""
    return notebook.cells[0].source.partition("\n")[0].lstrip("# ")


def bibliography(path: Path, notebooks: Notebooks) -> str:
    """The bibliography's page: every entry of a BibTeX file, each with the chapters that cite it.

    Raises:
        ValueError: a chapter cites what is not there.
    """
    known = read_references(path)
    citing: dict[str, list[str]] = {key: [] for key in known}
    for name, notebook in notebooks.items():
        prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        for key in dict.fromkeys(key_of(found, known) for found in CITATION.finditer(prose)):
            citing[key].append(f"[{title(notebook)}]({name}.ipynb)")
        if ORIGINAL.search(prose):
            citing["huang2018"].append(f"[{title(notebook)}]({name}.ipynb)")
    lines = ["# Bibliography", "", "What this book explains and leans on, by the first author's name."]
    style, backend = pybtex.style.formatting.plain.Style(), pybtex.backends.markdown.Backend()
    for entry in style.format_entries(sorted(known.values(), key=lambda entry: entry.key)):
        where = f" Cited in {', '.join(citing[entry.key])}." if citing[entry.key] else ""
        lines += ["", f"({entry.key})=", "", entry.text.render(backend) + where]
    return "\n".join(lines) + "\n"


def docstring(lines: list[str], known: Mapping[str, Any], chapters: list[str]) -> list[str]:
    """A docstring in reStructuredText with citations, chapters' names and the chapters that use it as links."""
    text = cite("\n".join(lines), known, lambda words, key: f":ref:`{words} <{key}>`")
    text = re.sub(r"\b(?:notebooks/)?(\d\d)_([a-z_]+)\b", r":doc:`chapter \1 </\1_\2>`", text)
    if chapters:
        where = ", ".join(f":doc:`{name[:2]} </{name}>`" for name in chapters)
        text = f"{text.rstrip()}\n\nUsed in {'chapters' if len(chapters) > 1 else 'chapter'} {where}.\n"
    return text.split("\n")
