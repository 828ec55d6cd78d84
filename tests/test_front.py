"""The front page, the reference's pages and the printed book: what they are made from, and what they refuse."""

import json
import re
import shutil
from pathlib import Path

import front
import links
import nbformat
import pairs
import printing
import pytest
import sliding
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What the front page is made from, to be changed."""
    for name in ("README.md", "notebooks/book/index.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for folder in ("results", "presets"):
        shutil.copytree(NOTEBOOKS / folder, tmp_path / "notebooks" / folder)
    return tmp_path


def test_every_chapter_has_its_line() -> None:
    chapters = dict.fromkeys(pairs.chapters(NOTEBOOKS))
    table = front.chapters(ROOT, chapters)
    assert all(f"]({name}.ipynb) | " in table for name in chapters)
    with pytest.raises(ValueError, match="no line for 99_new: add one"):
        front.chapters(ROOT, chapters | {"99_new": None})


def test_what_has_been_reproduced_is_read_from_the_finished_runs(copy: Path) -> None:
    results = copy / "notebooks" / "results"
    for path in results.glob("gpu_check_*.json"):
        path.unlink()
    rows, published = front.answered(copy)
    assert published == 64
    if not rows:
        assert "published, none have been run here" in front.state(copy)
    run = json.loads((results / "cuhk03_mobilenet.json").read_text())
    run["scores"][0] |= {"rank1": 0.123, "mean_ap_step": 0.045}
    (results / "market1501_gl_seed2.json").write_text(json.dumps(run))
    (results / "gpu_check_h1.json").write_text("{}")
    lines = len(
        re.findall(r"\d+", front.ANSWERS.search((copy / "notebooks/presets/market1501_gl.yaml").read_text())[1])
    )
    assert front.answered(copy) == (rows + lines, 64)
    text = front.state(copy)
    assert f"published, {rows + lines} " in text and "run on: h1." in text
    assert "| `market1501_gl_seed2` | cuhk03/detected | mobilenet_v2 | 12.3 | 4.5 | global |" in text
    assert "alignment_study" not in front.real_runs(copy), "drawn people are not real"


def test_the_lists_are_the_quickstarts_own(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook()
    cell = nbformat.v4.new_code_cell("# What it shows", metadata={"label": front.LISTS})
    notebook.cells = [cell]
    with pytest.raises(ValueError, match="has no image in the cell labelled"):
        front.ranked_lists({"00_quickstart": notebook}, tmp_path)
    for kind, data, suffix, content in (
        ("image/png", "aGk=", "png", b"hi"),
        ("image/svg+xml", "<svg/>", "svg", b"<svg/>"),
    ):
        cell.outputs = [nbformat.v4.new_output("display_data", {kind: data})]
        assert front.ranked_lists({"00_quickstart": notebook}, tmp_path) == (f"ranked_lists.{suffix}", "What it shows")
        assert (tmp_path / f"ranked_lists.{suffix}").read_bytes() == content


def test_the_box_slides_through_all_positions_and_claims_what_it_shows() -> None:
    data = sliding.data_of(nbformat.read(NOTEBOOKS / "04_alignment.ipynb", as_version=4))
    shown = sliding.order(data["shifts"])
    assert set(shown) == set(range(len(data["shifts"])))
    assert max(abs(a - b) for a, b in zip(shown, [*shown[1:], shown[0]], strict=True)) == 1, "no jump"
    figure = BeautifulSoup(sliding.figure(data), "html.parser")
    assert len(figure.select(".frame")) == 2 * len(shown) and len(figure.select(".still")) == 2
    first = sliding.claim(data)
    assert f"off by {first:g}/8" in " ".join(figure.figcaption.get_text().split())
    assert first == min(abs(s) for s, v in zip(data["shifts"], data["rigid"], strict=True) if v >= data["strangers"][0])
    for change in ({"aligned": [99.0] * 15}, {"rigid": [0.0] * 15}):
        with pytest.raises(ValueError, match="no longer shows what the front page claims"):
            sliding.figure(data | change)
    with pytest.raises(ValueError, match="shows no slide_the_box"):
        sliding.data_of(nbformat.v4.new_notebook())


def test_the_reference_has_a_page_per_room() -> None:
    text = (NOTEBOOKS / "book" / "reference.md").read_text()
    pages = front.reference_pages(text)
    rooms = re.findall(r"^## (\w+)$", text, re.M)
    assert list(pages) == ["reference.md", *(f"reference/{room}.md" for room in rooms)]
    assert pages["reference.md"].count("\nreference/") == len(rooms)
    assert (
        pages["reference/training.md"].startswith("# training\n") and "\n## config\n" in pages["reference/training.md"]
    )
    named = re.findall(r"automodule:: (\S+)", text)
    assert re.findall(r"automodule:: (\S+)", "".join(pages.values())) == named


def test_every_paper_leads_to_itself() -> None:
    for key, entry in links.read_references(NOTEBOOKS / "book" / "references.bib").items():
        assert {"doi", "eprint", "url"} & set(entry.fields), f"{key} has no doi, eprint or url"
    page = links.bibliography(NOTEBOOKS / "book" / "references.bib", {})
    assert len(re.findall(r"\]\(https://(?:arxiv|doi|github)\.", page)) >= page.count(")=\n")


def test_the_printed_book_leads_to_its_own_places(tmp_path: Path) -> None:
    def write(name: str, article: str) -> None:
        menu = "".join(
            f'<a class="internal" href="{page}">x</a>'
            for page in ("#", "01_a.html", "02_b.html#part", "reference.html", "reference/losses.html")
        )
        head = '<head><link rel="stylesheet" href="s.css"><script src="tex-svg.js"></script></head>'
        text = f'{head}<nav class="bd-links">{menu}</nav>{article}'
        (tmp_path / name).write_text(text)

    write("index.html", '<article class="bd-article"><h1>Book</h1><a href="01_a.html">a</a></article>')
    write(
        "01_a.html",
        '<article class="bd-article"><h1 id="top">A</h1><a href="02_b.html#part">b</a><a href="#top">up</a>'
        '<a href="reference.html#f">f</a><a href="https://doi.org/1">1</a><script>x()</script>'
        "<details class='above-input'>code</details><details>solution</details></article>",
    )
    drawing = (
        '<svg><path id="dot"></path><clippath id="frame"></clippath>'
        '<use xlink:href="#dot"></use><use href="#dot"></use>'
        '<g clip-path="url(#frame)" style="fill: url(#dot)"></g></svg>'
    )
    write("02_b.html", f'<article class="bd-article"><h1 id="top">B</h1><p id="part">here</p>{drawing}</article>')
    book = BeautifulSoup(printing.together(tmp_path), "html.parser")
    places = {str(node["id"]) for node in book.select("[id]")}
    assert {"01_a--top", "02_b--top", "02_b--part", "index--"} <= places
    inside = [str(a["href"]) for a in book.select("a[href]")]
    assert "https://doi.org/1" in inside and "#02_b--part" in inside and "#01_a--top" in inside
    assert {link[1:] for link in inside if link.startswith("#")} <= places
    assert all(link.startswith(("#", "https:")) for link in inside), "the reference is not printed"
    parts = re.findall(r'(?:href="#|url\(#)([^")]+)', str(book.svg))
    assert parts == ["02_b--dot", "02_b--dot", "02_b--frame", "02_b--dot"], "a drawing's marks are drawn"
    assert [script["src"] for script in book.select("script")] == ["tex-svg.js"], "no script but that of the equations"
    assert [node.has_attr("open") for node in book.select("details")] == [True]
    write("02_b.html", "<p>nothing</p>")
    with pytest.raises(ValueError, match=r"site/02_b\.html has no article with a title"):
        printing.together(tmp_path)
    with pytest.raises(ValueError, match=r"no site/index\.html: make site"):
        printing.run(tmp_path / "absent")
