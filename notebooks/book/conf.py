"""Settings of the site (`make site`): the committed notebooks as pages, nothing executed, all of it local."""

import importlib.util
import sys
from pathlib import Path

import nbformat
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.fileutil import copy_asset

sys.path.append(str(Path(__file__).parent))
import drawings
import links
import pairs

project = "AlignedReID, explained and reproduced"
author = "the AlignedReID book authors"
copyright = author
language = "en"

extensions = ["myst_nb", "sphinx_design", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
nb_execution_mode = "off"
nb_render_markdown_format = "myst"  # what a cell shows as Markdown may be a table
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath", "deflist", "html_image"]
myst_heading_anchors = 3
numfig = True  # figures and equations have numbers, per chapter: drawings.number
numfig_format = {"figure": "Figure %s"}
suppress_warnings = ["mystnb.unknown_mime_type"]  # a page cannot show a widget

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_use_rtype = False
add_module_names = False

html_theme = "sphinx_book_theme"
html_title = "AlignedReID"
html_static_path = ["book.css"]
html_css_files = ["book.css"]
html_favicon = "favicon.svg"
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_show_sphinx = False
html_context = {"default_mode": "auto"}  # the system's; figures drawn on white keep their white ground in the dark
exclude_patterns = ["downloads"]  # copies of the chapters' files, which pages link to
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_toc_level": 2,
    "navbar_persistent": [],  # one search field is enough
    "pygments_light_style": "default",
}

# MathJax comes from a package of the environment: one file with its letters inside; the site needs no other
# address.
mathjax_path = "tex-svg.js"
# A displayed equation that is wider than its column continues in the next line.
mathjax4_config = {"output": {"displayOverflow": "linebreak", "linebreaks": {"lineleading": 0.5}}}


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Puts MathJax next to the site's own scripts once the pages are written."""
    spec = importlib.util.find_spec("sphinx-mathjax-offline")
    if spec is None or spec.origin is None:
        raise RuntimeError("the package sphinx-mathjax-offline is not installed: make env")
    if error is None:
        copy_asset(Path(spec.origin).parent / "static/mathjax/tex-svg.js", Path(app.outdir) / "_static")


def skip_field(app: Sphinx, what: str, name: str, item: object, skip: bool, options: object) -> bool | None:
    """Leaves out the fields of named tuples: Python's own words for them say nothing."""
    return True if (item.__doc__ or "").startswith("Alias for field number") else None


NOTEBOOKS = Path(__file__).resolve().parents[1]
REFERENCES = links.read_references(NOTEBOOKS / "book" / "references.bib")
USED_IN = links.chapters_of(
    {name: nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4) for name in pairs.chapters(NOTEBOOKS)}
)


def link_docstring(app: Sphinx, what: str, name: str, item: object, options: object, lines: list[str]) -> None:
    """Makes a docstring's papers and chapters links, and adds the chapters that use it."""
    lines[:] = links.docstring(lines, REFERENCES, USED_IN.get(name, []))


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-skip-member", skip_field)
    app.connect("autodoc-process-docstring", link_docstring, priority=400)  # before napoleon
    app.connect("build-finished", copy_mathjax)
    app.connect("env-get-updated", drawings.number, priority=900)  # after Sphinx's own numbers
    app.add_node(nodes.image, override=True, html=(drawings.visit_image, drawings.depart_image))
