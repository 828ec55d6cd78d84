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
    assert "| `market1501_gl_seed2` | cuhk03/detected | cuhk03/detected | 12.3 | 4.5 | global |" in text


def rows_of(table: str) -> dict[tuple[str, str], list[str]]:
    """The rows of the table of runs by run and test set: rank-1, mAP, distance."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {(row[0].strip("`"), row[2]): row[3:] for row in rows}


def test_real_runs_are_tested_by_single_queries_on_their_own_test_sets(copy: Path) -> None:
    results = copy / "notebooks" / "results"
    shown = rows_of(front.real_runs(copy))
    run = json.loads((results / "market1501_mobilenet_local.json").read_text())
    single = [s for s in run["scores"] if not s["name"] and not s["reranked"]]
    best, pooled = (max(s["rank1"] for s in scores) for scores in (single, run["scores"]))
    assert pooled > best, "the file has better rows, with several images per query or re-ranked"
    assert shown["market1501_mobilenet_local", "market1501"][0] == f"{100 * best:.1f}"
    assert [s for name, s in shown if name == "market1501_mobilenet_short"] == ["market1501"], "not CUHK03's"
    assert not [name for name, _ in shown if name.startswith("matrix_")], "a test is not a training"
    config = run["config"] | {"dataset": "combined", "combined_of": ["market1501", "dukemtmc"]}
    for name, points in (("market1501", 0.5), ("dukemtmc", 0.4), ("market1501, multi-query", 0.9)):
        run["scores"] += [single[0] | {"name": name, "rank1": points}]
    (results / "combined_gl.json").write_text(json.dumps(run | {"config": config}))
    shown = rows_of(front.real_runs(copy))
    assert [shown["combined_gl", name][0] for name in ("market1501", "dukemtmc")] == ["50.0", "40.0"]


def test_people_are_drawn_or_real_whatever_the_folder_of_their_data(copy: Path) -> None:
    drawn, real = (front.trainings(copy, drawn) for drawn in (True, False))
    assert drawn.keys() >= {"alignment_study", "drawn_mobilenet", "embedded_validated"}
    assert real.keys() >= {"fine_tune", "fine_tune_trained", "market1501_mobilenet_short", "cuhk03_mobilenet_seed2"}
    assert not drawn.keys() & real.keys()
    longer = next(line for line in front.state(copy).splitlines() if "on drawn people" in line)
    assert re.findall("`(.+?)`", longer) == sorted(drawn)
    assert ("fine_tune", "cuhk03/detected") in rows_of(front.real_runs(copy)), "a folder is tested on a published set"
    roots = {
        front.yaml.safe_load(path.read_text())["parameters"]["data_root"]
        for path in (NOTEBOOKS / "presets").glob("*.yaml")
    }
    assert roots == {"data", "data/synthetic", "data/alignment_study"}, "are a new folder's people drawn or real?"


def test_the_machines_of_the_runs_are_those_of_their_files(copy: Path) -> None:
    assert front.machines([{"device": "x86_64 CPU, 1 thread"}]) == "one processor core"
    parts = [{"device": "arm64 CPU, 4 threads"}, {"device": "NVIDIA H100"}]
    assert front.machines([{"device": "not this", "parts": parts}]) == "4 processor cores, NVIDIA H100"
    where = front.machines(front.trainings(copy, drawn=False).values())
    assert f"so far small ones on {where}." in front.state(copy)


def test_the_chapters_that_read_results_files_are_named() -> None:
    read = [
        int(name[:2])
        for name in pairs.chapters(NOTEBOOKS)
        if "notebooks/results/" in (NOTEBOOKS / f"{name}.ipynb").read_text("utf-8").rpartition('"made_from"')[2]
    ]
    assert read == [7, 10, 11, 12, 13, 14]
    for text in (front.state(ROOT), (ROOT / "README.md").read_text("utf-8")):
        assert "chapters 7 and 10 to 14 read" in " ".join(text.split())


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
