"""What the site adds to the notebooks' text: links to the literature and to the library, and back.

A notebook cites "Hermans et al. 2017" and calls `losses.global_triplet`, plain, as it has to be in JupyterLab. On the
site the first leads to the bibliography and the second to the reference, and both lead back to the chapters.

sphinx-codeautolink 0.20 was tried instead. It does one thing more: it makes links of the names inside code cells (57 in
chapter 04, 178 in chapter 08). We nevertheless keep these functions. It stops the build as soon as a chapter uses PIL
("module 'PIL._imaging' has no attribute '_Outline'", from an annotation that it evaluates). It links variables by the
type that it infers, so 12 of the 57 links are the word `fig`. And it leaves the rest to us: names in prose, the list at
a chapter's end, which is all that a reader of folded cells sees, and the chapters that a docstring names, since its own
back references need a directive in each.
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

# "Hermans et al. 2017", "Zhong et al. (CVPR 2017)", "Luo et al., Pattern Recognition 94, 2019", "(Padfield 2012)"
CITATION = re.compile(
    r"\b([A-Z][a-z]+)\s+(?:et\s+al\.?|and\s+[A-Z][a-z]+),?(?:\s+\(?([A-Za-z][\w .:-]*?),?)?\s+\(?(20\d\d)(?=\W)"
    r"|(?<=\()([A-Z][a-z]+)\s+(20\d\d)(?=\))"
)
# Where several papers of a name and year are, the venue decides.
VENUES = {("luo2019", "CVPR-W"): "luo2019strong"}
# Text in which nothing is replaced: code, mathematics, links.
KEPT = re.compile(r"```.*?```|\$\$.*?\$\$|\$[^$\n]+\$|!?\[[^\]]*\]\([^)]*\)|<[^>]+>", re.DOTALL)
CODE = re.compile(r"`([a-z_]+\.[A-Za-z_]+)(\(\))?`")
FIGURE = re.compile(r"\[([^\]]+)\]\(#(fig-[a-z-]+)\)")  # [the figure](#fig-pairs): the label of a cell
ORIGINAL = re.compile(r"(original reproduction)(?! say)", re.IGNORECASE)
LIBRARY = "alignedreid_lib."
MODULES = tuple(module.name for module in pkgutil.walk_packages(alignedreid_lib.__path__, LIBRARY))


def read_references(path: Path) -> Any:
    """The entries of a BibTeX file, by key."""
    return pybtex.database.parse_file(str(path)).entries


def key_of(citation: re.Match[str], known: Mapping[str, Any]) -> str:
    """The key of the paper that a text names.

    Raises:
        ValueError: it is not in the bibliography.
    """
    name, venue, year, alone, when = citation.groups()
    name, year = name or alone, year or when
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


def described(room: str, name: str) -> str | None:
    """The full name under which the reference describes `room.name`; None where it does not.

    Args:
        room: the last part of a module's or package's name. A package hands on what its modules describe.
    """
    for module in MODULES:
        if module.rpartition(".")[2] != room or name.startswith("_"):
            continue
        content = importlib.import_module(module)
        thing = getattr(content, name, None)
        home = getattr(thing, "__module__", "")
        handed_on = name in getattr(content, "__all__", ()) and home.startswith("alignedreid_lib.")
        if callable(thing) and (home == module or handed_on):
            return f"{home}.{name}"
    return None


def linked(markdown: str, known: Mapping[str, Any]) -> str:
    """A Markdown cell with its citations, and the functions it names, as links; figures get their numbers."""

    def words(text: str) -> str:
        text = cite(text, known, lambda words, key: f"[{words}](#{key})")

        def api(found: re.Match[str]) -> str:
            target = described(*found[1].split("."))
            return f"{{py:obj}}`{found[1]} <{target}>`" if target else found[0]

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
            # The site's pages are in notebooks/book/ of the repository, and next to the chapters on the site.
            cell.source = linked(cell.source, known).replace("](book/", "](")
            if not named:
                cell.source, count = ORIGINAL.subn(r"[\1](#huang2018)", cell.source, count=1)
                named = count > 0


def used(notebook: Any) -> dict[str, str]:
    """What a chapter's code takes from the library, in alphabetical order: `losses.global_triplet` to its full name."""
    found: set[tuple[str, str]] = set()
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                found.add((node.value.id, node.attr))
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("alignedreid_lib."):
                found |= {((node.module or "").rpartition(".")[2], alias.name) for alias in node.names}
    targets = {f"{room}.{name}": described(room, name) for room, name in sorted(found)}
    return {words: target for words, target in targets.items() if target}


def library_cell(notebook: Any) -> str:
    """The list that ends a chapter on the site: what it uses, each a link to its description."""
    links = [f"{{py:obj}}`{words} <{target}>`" for words, target in used(notebook).items()]
    listed = "This chapter uses, and the reference describes: " + ", ".join(links) + "."
    return f"## In the library\n\n:::{{dropdown}} {len(links)} functions and classes\n{listed}\n:::"


def chapters_of(notebooks: Notebooks) -> dict[str, list[str]]:
    """For every function of the library that chapters use, by its full name, those chapters."""
    found: dict[str, list[str]] = {}
    for name, notebook in notebooks.items():
        for target in dict.fromkeys(used(notebook).values()):
            found.setdefault(target, []).append(name)
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
