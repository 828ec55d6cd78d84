"""The English of the book and of the library: no sentence matches a pattern of `words.PATTERNS`."""

import ast
import re
from pathlib import Path

import cells
import jupytext
import pytest
import words

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = [ROOT / "notebooks" / f"{name}.py" for name in cells.chapters(ROOT / "notebooks")]
MODULES = sorted((ROOT / "alignedreid_lib").rglob("*.py"))
# The book's tools, without the module that lists the words.
TOOLS = sorted({*(ROOT / "notebooks" / "book").rglob("*.py")} - {Path(words.__file__)})
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "notebooks" / "book").glob("*.md"))]

EXAMPLES = [
    "Ties hold. Whoever compares stripes compares a shirt with trousers.",
    "Who is left without a query stays in train.",
    "It prints a line an epoch.",
    "A score that depends on ties is no score.",
    "Other images stand behind the names.",
    "The images differ. Of the gallery only the junk is gone.",
    "These two started from other random weights.",
    "It falls from epoch 151 on.",
    "The two matrices shall agree.",
    "The table says one number.",
    "Two processes do what one does, but for rounding.",
    "Cells depend on the one before only.",
    "There is a shorter way\nthrough the table.",
    "The data set has many images.",
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_habit_is_found(example):
    assert words.findings(1, example)


def test_what_is_found_names_the_line_and_what_to_write():
    text = "A first line.\n\nThe text goes\non: a row a\ncamera.\n"
    assert words.findings(7, text) == ["10: 'row a camera': write 'per'"]


def test_code_and_allowed_phrases_are_left_alone():
    text = "The paper says: `pictures` of $x$ [here](pictures.md).\n```\nalas\n```\nIt shows one after another.\n"
    assert words.findings(*words.of_markdown(text)) == []


def test_the_messages_of_asserts_are_read():
    source = 'assert "picture" in shown, "a picture got lost"\nprint("a picture")\n'
    assert list(words.of_program(source, ast.Assert)) == [(1, "a picture got lost")]
    assert list(words.of_program(source, ast.Raise)) == []


LIBRARY = '''
def show(pictures, key="pictures"):
    """Show pictures.

    Args:
        pictures: see `pictures`.
    """
    if not pictures:  # whoever asks
        raise ValueError(f"{key} holds "
                         f"{pictures!r}")
'''


def test_docstrings_comments_and_messages_of_a_module_are_read():
    found = [found.split(": ")[:2] for text in words.of_library(LIBRARY) for found in words.findings(*text)]
    assert sorted(found) == [["3", "'pictures'"], ["8", "'asks'"], ["8", "'whoever'"], ["9", "'holds'"]]


@pytest.mark.parametrize("module", [*MODULES, *TOOLS], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_plain_english(module):
    found = [found for text in words.of_library(module.read_text("utf-8")) for found in words.findings(*text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_is_plain_english(chapter):
    source = chapter.read_text("utf-8")
    found = [found for text in words.of_program(source, ast.Assert) for found in words.findings(*text)]
    for number, cell in enumerate(jupytext.reads(source, "py:percent").cells, 1):
        words_of_figure = "\n\n".join(cell.metadata.get(key, "") for key in ("alt", "caption"))
        text = cell.source if cell.cell_type == "markdown" else words_of_figure
        found += [f"cell {number}, line {line}" for line in words.findings(*words.of_markdown(text))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_a_page_is_plain_english(page):
    found = words.findings(*words.of_markdown(page.read_text("utf-8")))
    assert not found, "\n".join(found)


def test_every_exception_is_needed():
    chapters = (re.sub(r"(?m)^# ?", "", chapter.read_text("utf-8")) for chapter in CHAPTERS)
    text = "\n".join([*chapters, *(page.read_text("utf-8") for page in [*PAGES, *MODULES])])
    for reason, phrase in words.ALLOWED.items():
        assert re.search(phrase, text, re.IGNORECASE | re.MULTILINE), f"nothing needs {reason!r} any longer"
