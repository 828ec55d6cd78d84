"""Figures on the site: numbers per chapter, and charts that take the colours of the page.

A chart is an SVG file in a notebook. On the site it is part of the page, so that its text is the page's text and its
colours follow light and dark: book.css gives the variables used here their values.
"""

import html
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.writers.html5 import HTML5Translator

# The palette of `figures` and the greys of matplotlibrc, by their role on a page.
COLOURS = {
    "#000000": "ink",
    "#ffffff": "paper",
    "#666666": "axis",
    "#e5e5e5": "grid",
    "#0072b2": "blue",
    "#d55e00": "vermillion",
    "#009e73": "green",
    "#cc79a7": "purple",
    "#e69f00": "orange",
    "#56b4e9": "sky",
}
SHRUNK = 0.68  # on a phone: the smallest text of a chart is then 7 pixels high
CHAPTER = re.compile(r"(\d\d)_")


def number(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Numbers figures and equations per chapter: figure 4.2, equation 4.1.

    Sphinx counts a document's things by the number of its section, which begins at 1; the chapters begin at 0.
    """
    for document, kinds in env.toc_fignumbers.items():
        if chapter := CHAPTER.match(document):
            for numbers in kinds.values():
                for k, name in enumerate(numbers, 1):
                    numbers[name] = (int(chapter[1]), k)
    return []


def visit_image(translator: HTML5Translator, node: nodes.image) -> None:
    """Writes a chart into the page, and every other image as Sphinx does."""
    path = Path(translator.builder.srcdir) / node["uri"]
    if path.suffix != ".svg" or not path.is_file():
        path = Path(translator.builder.outdir) / node["uri"]
    if node["uri"].endswith(".svg") and path.is_file():
        translator.body.append(inlined(path.read_text("utf-8"), node.get("alt", "")))
    else:
        HTML5Translator.visit_image(translator, node)


def depart_image(translator: HTML5Translator, node: nodes.image) -> None:
    """Nothing more: an image has no content."""


def inlined(svg: str, words: str) -> str:
    """A chart as part of a page: named for those who cannot see it, in the page's colours."""
    svg = re.sub(r"<style\b.*?</style>", "", svg, flags=re.DOTALL)  # would apply to the whole page
    size: Any = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', svg)
    width = round(float(size[1]) * 4 / 3)
    style = f"width: {width}px; --least: {round(SHRUNK * width)}px"
    head = f'<svg role="img" aria-label="{html.escape(words)}" style="{style}"'
    svg = re.sub(r'<svg\b(.*?) width="[\d.]+pt" height="[\d.]+pt"', rf"{head}\1", svg, count=1)
    parts = re.split(r'(<g class="on-image".*?</g>)', svg, flags=re.DOTALL)
    parts[::2] = [_in_page_colours(part) for part in parts[::2]]
    return f'<div class="chart">{"".join(parts)}</div>'


def _in_page_colours(svg: str) -> str:
    def colour(found: re.Match[str]) -> str:
        role = COLOURS.get(found[2].lower())
        return f"{found[1]}var(--chart-{role})" if role else found[0]

    return re.sub(r"((?:fill|stroke): )(#[0-9a-fA-F]{6})\b", colour, svg)
