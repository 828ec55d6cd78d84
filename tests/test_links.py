"""The links that the site adds: papers and functions that a text names, and the way back."""

from pathlib import Path

import architecture
import links
import nbformat
import pairs
import pytest

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "notebooks" / "book"
KNOWN = links.read_references(BOOK / "references.bib")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("(Hermans et al. 2017, section 2)", "hermans2017"),
        ("Zheng et\nal., ICCV 2015, define", "zheng2015"),
        ("Zhong et al. (CVPR 2017) set", "zhong2017"),
        ("(Zhang et al., arXiv 1711.08184, 2017) reports", "zhang2017"),
        ("(Luo et al., Pattern Recognition 94, 2019)", "luo2019"),
        ("(Luo et al., CVPR-W 2019) 94.5", "luo2019strong"),
        ("Luo et al. 2019)", "luo2019"),
    ],
)
def test_a_citation_leads_to_its_paper(text, key):
    assert f"](#{key})" in links.linked(text, KNOWN)


def test_a_paper_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match=r"'Nobody et al. 2020' is not in references.bib"):
        links.linked("as Nobody et al. 2020 showed", KNOWN)


def test_functions_become_links_and_code_and_links_stay():
    assert links.linked("call `losses.triplet_loss`", KNOWN) == (
        "call {py:obj}`losses.triplet_loss <alignedreid_lib.losses.triplet_loss>`"
    )
    for text in (
        "`results.json`", "`losses.nothing`", "[Hermans et al. 2017](x.md)", "$x$ and `make run`",
        "```\nHermans et al. 2017 `losses.triplet_loss`\n```",
    ):  # fmt: skip
        assert links.linked(text, KNOWN) == text


def test_a_figure_is_named_by_its_number():
    text = links.linked("[The figure](#fig-a) and [the map](#fig-b) show it, by Hermans et al. 2017.", KNOWN)
    shown, cited = "{numref}`Figure %s <fig-a>` and {numref}`figure %s <fig-b>`", "[Hermans et al. 2017](#hermans2017)"
    assert text == f"{shown} show it, by {cited}."


def chapter(*cells):
    made = [nbformat.v4.new_markdown_cell("# 05 Losses\n\nBy Hermans et al. 2017.")]
    return nbformat.v4.new_notebook(cells=made + [nbformat.v4.new_code_cell(cell) for cell in cells])


def test_what_a_chapter_uses_and_who_uses_it():
    notebook = chapter(
        "from alignedreid_lib import losses\nfrom alignedreid_lib.model import AlignedReID",
        "losses.triplet_loss(a, b)\nnp.losses.nothing\nlosses.F",
    )
    assert links.used(notebook) == {
        "losses.triplet_loss": "alignedreid_lib.losses.triplet_loss",
        "model.AlignedReID": "alignedreid_lib.model.network.AlignedReID",
    }
    assert links.chapters_of({"05_losses": notebook})["alignedreid_lib.losses.triplet_loss"] == ["05_losses"]
    page = links.bibliography(BOOK / "references.bib", {"05_losses": notebook})
    assert "(hermans2017)=" in page and "Cited in [05 Losses](05_losses.ipynb)." in page


def test_a_docstring_leads_to_papers_and_chapters():
    lines = links.docstring(
        ["Source: Hermans et al. 2017.", "Derived in notebooks/05_losses."], KNOWN, ["05_losses", "06_training"]
    )
    text = "\n".join(lines)
    assert ":ref:`Hermans et al. 2017 <hermans2017>`" in text and ":doc:`chapter 05 </05_losses>`" in text
    assert "Used in chapters :doc:`05 </05_losses>`, :doc:`06 </06_training>`." in text


def test_a_single_author_is_a_citation_in_parentheses():
    found = [match[0] for match in links.CITATION.finditer("In 2017 (Padfield 2012) and Welch 2012")]
    assert found == ["Padfield 2012"]


def test_every_paper_of_the_bibliography_is_cited():
    folder = BOOK.parent
    chapters = {name: nbformat.read(folder / f"{name}.ipynb", as_version=4) for name in pairs.chapters(folder)}
    page = links.bibliography(BOOK / "references.bib", chapters)
    assert page.count("Cited in ") == page.count(")=\n") == len(KNOWN)


def test_the_architecture_page_is_drawn_from_contract_and_code():
    names = architecture.rooms(ROOT)
    found = architecture.imports(names)
    places = {path.stem for path in (ROOT / "alignedreid_lib").iterdir() if path.name[0] not in "_."}
    assert sorted(names) == sorted(places), "every room, and nothing else"
    assert "training" in found["evaluation"] and "evaluation" not in found["training"]
    page = architecture.page(ROOT)
    assert page.count('class="imports"') == sum(len(others - {name}) for name, others in found.items()) > 25
    assert f"The library has {len(names)} modules." in page
    for i, name in enumerate(names):
        assert f"[{name}](reference/{name}.md)" in page
        assert found[name] <= set(names[: i + 1]), f"{name} imports upwards"
    assert "[06](06_training.ipynb), [07](07_mutual_learning.ipynb)" in page
