"""The interactive figure of re-ranking, in a real browser: each number that it shows is the library's."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from browsing import PATIENCE, PHONE
from playwright.sync_api import Browser, Locator
from test_moving_figures import HUNDREDTH, THOUSANDTH, data_of, middle, numbers, touch

from alignedreid_lib.evaluation import ranking, reranking

STAGES = ["nearest", "reciprocal", "expanded", "averaged", "re-ranked"]
SCALE = 33.6  # of the plane, in units of the drawing
EQUAL = 1e-5  # distances this close may be ordered either way: the library computes in float32

# All that is shown, read at once.
READ = """figure => {
  const all = (choice, of) => [...figure.querySelectorAll(choice)].map(of);
  const text = choice => figure.querySelector(choice).textContent;
  const [plane, weights, strip] = figure.querySelectorAll('svg');
  const place = node => node.getAttribute('transform').match(/-?[\\d.]+(?:e-?\\d+)?/g).map(Number);
  const at = (node, ...names) => names.map(name => parseFloat(node.getAttribute(name)));
  const spots = [...plane.querySelectorAll('[role=button]')];
  return {
    query: spots.at(-1).getAttribute('aria-label'),
    pressed: spots.filter(node => node.matches('[aria-pressed=true]')).map(node => node.getAttribute('aria-label')),
    spots: [...spots.slice(-1), ...spots.slice(0, -1)].map(place),
    stages: all('button', node => node.getAttribute('aria-pressed')),
    stage: text('output.stage'), jaccard: text('output.jaccard'), lists: [text('.before'), text('.after')],
    k: text('label:has([aria-label^=k]) span'), share: text('label:has([aria-label^=lambda]) span'),
    weights: weights.getAttribute('aria-label'),
    legend: [...weights.querySelectorAll(':scope > text')].at(-1).textContent,
    bars: [...weights.querySelectorAll(':scope > g:first-of-type > rect')].map(node => at(node, 'y', 'height')),
    strip: strip.getAttribute('aria-label'),
    glyphs: [...strip.querySelectorAll('g')].map(node => [...place(node), Number(node.textContent)]),
    reach: [...plane.querySelectorAll(':scope > circle')].map(node => at(node, 'cx', 'cy', 'r')),
    arrows: [...plane.querySelectorAll(':scope > g[fill=none] > path:nth-child(odd)')].map(node => [
      node.getAttribute('d'), node.getAttribute('stroke-dasharray'), parseFloat(node.getAttribute('stroke-width'))]),
  };
}"""


class State:
    """What a reader has set, and what the library computes from it."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.points = np.array(data["points"])
        self.people = np.array(data["people"])
        self.k, self.k2, self.share = data["k"], data["k2"], data["lambda"]
        self.stage, self.other = 0, 7

    def compute(self) -> None:
        """Neighbours, sets, rows of weights and distances of the stage."""
        features = torch.tensor(self.points, dtype=torch.float32)
        distances = reranking.FeatureDistances(features, 1)
        near, largest, original = reranking.nearest(distances, len(features))
        self.near, self.squared = near.indices.numpy(), near.squared.numpy()
        self.half = int(np.around(self.k / 2))
        if self.stage == 0:
            found = reranking.sparse_rows(self.near[:, : self.k + 1], np.int32(1))
        else:
            found = (reranking.reciprocal if self.stage == 1 else reranking.expanded)(self.near, self.k)
        self.sets = [set(np.flatnonzero(row)) for row in found.toarray()]
        rows = reranking.gaussian_weights(found.astype(bool), distances, near, largest)
        if self.stage > 2:
            rows = reranking.average_weights(rows, self.near[:, : self.k2])
        self.rows = rows.toarray()
        self.jaccard = np.zeros((1, len(features) - 1), np.float32)
        reranking.add_jaccard(self.jaccard, rows, 1.0)
        self.scaled = (original / largest[0]).numpy()[0]
        if self.stage < 2:
            self.final = self.share * self.scaled + (1 - self.share) * self.jaccard[0]
        else:
            k2 = 1 if self.stage == 2 else self.k2
            (self.final,) = reranking.rerank(features[:1], features[1:], self.k, k2, self.share)
            between = [torch.cdist(a, b) for a, b in ((features[:1], features[1:]), (features[:1],) * 2)]
            between.append(torch.cdist(features[1:], features[1:]))
            if not self.tied():
                again = reranking.rerank_distances(*between, self.k, k2, self.share)[0]
                assert np.allclose(self.final, again, atol=1e-4)

    def tied(self) -> bool:
        """Whether rounding decides which images are neighbours."""
        gaps = np.diff(self.squared[:, [*range(len(self.near))]])
        return bool((gaps[:, [self.k, self.half, self.k2 - 1]] < EQUAL).any())

    def reciprocal(self, i: int, k: int) -> set[int]:
        return set(np.flatnonzero(reranking.reciprocal(self.near, k).toarray()[i]))


def images(text: str) -> list[int]:
    return [int(found) for found in re.findall(r"\d+", text)]


def check(figure: Locator, state: State) -> bool:
    """Compares all that is shown with the library; returns False where rounding decides, and little is compared."""
    shown = figure.evaluate(READ)
    state.compute()
    k, other, count = state.k, state.other, len(state.points)
    assert numbers(shown["query"])[:2] == pytest.approx(state.points[0].tolist(), abs=HUNDREDTH)
    assert shown["pressed"] == [f"image {other}"]
    assert shown["stages"] == [str(i == state.stage).lower() for i in range(5)]
    assert (numbers(shown["k"]), numbers(shown["share"])) == ([k], [pytest.approx(state.share)])
    where = np.array([[SCALE * (a + 3.1), SCALE * (3.7 - b)] for a, b in state.points])
    assert np.allclose(shown["spots"], where, atol=1e-6)
    assert "NaN" not in str(shown) and "undefined" not in str(shown)
    if state.tied():
        return False

    check_the_rows(shown, state)
    orders = check_the_lists(shown, state)
    ends = check_the_words(shown, state, orders[1])
    if state.stage < 2:
        for (cx, cy, r), i in zip(shown["reach"], (0, other), strict=True):
            assert (cx, cy) == pytest.approx(tuple(where[i]))
            assert r / SCALE == pytest.approx(float(np.sqrt(state.squared[i, k])), abs=1e-3)
    else:
        assert [r for _, _, r in shown["reach"]] == [0, 0]

    # Each arrow ends 9 units from the image that it points to, and is solid where the two are mutual neighbours.
    mutual = state.reciprocal(0, k)
    assert len(shown["arrows"]) == len(ends)
    for (path, dash, width), (i, j) in zip(shown["arrows"], ends, strict=True):
        corners = re.findall(r"-?[\d.]+(?:e-?\d+)?", path)
        for corner, image in ((corners[:2], i), (corners[-2:], j)):
            assert np.hypot(*(np.array(corner, float) - where[image])) == pytest.approx(9, abs=1e-6)
        if state.stage == 3:
            assert width == pytest.approx(12 * state.rows[0, j], abs=1e-4)
        else:
            assert (dash == "none") == (i == 0 and j in mutual)
    assert 0 <= other < count
    return True


def check_the_rows(shown: dict[str, Any], state: State) -> None:
    """Two rows of weights, as bars and in words, and the distance of them."""
    other = state.other
    one, two = state.rows[0], state.rows[other]
    of, to = shown["weights"].split(f"; of image {other}: ")
    assert numbers(of) == pytest.approx(one.tolist(), abs=THOUSANDTH)
    assert numbers(to) == pytest.approx(two.tolist(), abs=THOUSANDTH)
    assert shown["legend"] == f"image {other} only"
    low, high = np.minimum(one, two), np.maximum(one, two)
    bars = np.array(shown["bars"]).reshape(-1, 2, 2) / 76 * high.max()  # [images, (excess, shared), (y, height)]
    assert np.allclose(bars[:, 0, 1], high - low, atol=1e-5) and np.allclose(bars[:, 1, 1], low, atol=1e-5)
    assert np.allclose(94 / 76 * high.max() - bars[:, 0, 0], high, atol=1e-5), "the shared part is at the bottom"
    jaccard, scaled, final = (values[other - 1] for values in (state.jaccard[0], state.scaled, state.final))
    shown_sums = [other, 1, low.sum(), high.sum(), jaccard, 1 - state.share, jaccard, state.share, scaled, final]
    assert numbers(shown["jaccard"]) == pytest.approx([float(value) for value in shown_sums], abs=THOUSANDTH)


def check_the_lists(shown: dict[str, Any], state: State) -> list[list[int]]:
    """Both lists: sorted by the library's distances, drawn in this order, with its average precision."""
    orders = [images(part.partition(":")[2]) for part in shown["strip"].split("; ")]
    for side, (order, values) in enumerate(zip(orders, (state.scaled, state.final), strict=True)):
        assert sorted(order) == list(range(1, len(state.points)))
        assert (np.diff(values[np.array(order) - 1]) > -EQUAL).all(), "sorted"
        drawn = sorted((x, image) for x, y, image in shown["glyphs"] if (y > 50) == bool(side))
        assert [image for _, image in drawn] == order
        ranks = np.argsort(order)[None]  # as distances, so that ties cannot change the score
        cameras = np.ones(len(order), int)
        scores = ranking.score_ranking(
            ranks, [0], state.people[1:], [0], cameras, average_precision="step", top=len(order)
        )
        assert numbers(shown["lists"][side]) == pytest.approx([scores.mean_ap], abs=THOUSANDTH)
    names = ["by distance", "re-ranked" + (f" with {STAGES[state.stage]} sets" if state.stage < 3 else "")]
    assert [text.partition(":")[0] for text in shown["lists"]] == names
    return orders


def check_the_words(shown: dict[str, Any], state: State, order: list[int]) -> list[tuple[int, int]]:
    """What is written of the stage; returns from which image to which there are arrows."""
    text, k, other = shown["stage"], state.k, state.other
    near, mutual = state.near, state.reciprocal(0, k)
    if state.stage < 2:
        at = [list(near[i]).index(j) for i, j in ((0, other), (other, 0))]
        said = re.search(
            r"Image (\d+) is neighbour (\d+) of .* neighbour (\d+) of image (\d+): (not )?reciprocal\.$", text
        )
        assert said and [int(said[i]) for i in (1, 4)] == [other, other]
        for i, rank, expected in ((0, int(said[2]), at[0]), (other, int(said[3]), at[1])):
            assert state.squared[i, rank] == pytest.approx(state.squared[i, expected], abs=EQUAL), "up to ties"
        assert (said[5] is None) == (other in mutual)
    if state.stage == 0:
        first, _, second = text.partition(". Image")[0].partition(". Reciprocal (solid): ")
        assert set(images(first)) == state.sets[0] - {0} and len(images(first)) == k
        assert images(second) == sorted(mutual - {0})
        return [(0, j) for j in images(first)]
    if state.stage == 1:
        assert images(text.partition("}")[0]) == [0, k, *sorted(mutual)]
        assert mutual == state.sets[0]
        drawn = [j for j in near[0] if j in mutual and j]
    if state.stage == 2:
        assert images(text.partition("}")[0]) == [0, k, *sorted(state.sets[0])]
        adds = re.findall(
            r"Image (\d+) adds ([\d, ]+): R\(0, (\d+)\) has (\d+) of the (\d+) .*?R\((\d+), (\d+)\)", text
        )
        by: dict[int, list[int]] = {}
        for j, added, *rest in adds:
            theirs = state.reciprocal(int(j), state.half)
            assert [int(value) for value in rest] == [k, len(theirs & mutual), len(theirs), int(j), state.half]
            by[int(j)] = images(added)
            assert by[int(j)] == sorted(theirs - mutual) and 3 * len(theirs & mutual) > 2 * len(theirs)
        assert mutual.union(*by.values()) == state.sets[0]
        assert adds or "No image is added" in text
        # The arrows of an image that adds come in the order of its neighbours.
        return [(0, j) for j in near[0] if j in mutual and j] + [
            (j, added) for j in near[0] if j in by for added in near[j] if added in by[j]
        ]
    if state.stage == 3:
        assert images(text) == [*near[0, : state.k2], *near[other, : state.k2], other]
        drawn = [j for j in range(1, len(near)) if state.rows[0, j] > 0]
    if state.stage == 4:
        assert images(text) == order[:6]
        drawn = order[:6]
    return [(0, j) for j in drawn]


@pytest.fixture
def open_figure(browser: Browser, site: str) -> Iterator[Any]:
    contexts = []

    def visit(**options: Any) -> tuple[Locator, State]:
        contexts.append(browser.new_context(**options))
        contexts[-1].set_default_timeout(PATIENCE)
        page = contexts[-1].new_page()
        page.goto(f"{site}/09_reranking.html", wait_until="load")
        figure = page.locator(".touch.who_knows_whom")
        return figure, State(data_of(figure))

    yield visit
    for context in contexts:
        context.close()


def slider(figure: Locator, name: str) -> Locator:
    return figure.locator(f"input[aria-label^={name}]")


def choose_stage(figure: Locator, state: State, stage: int) -> None:
    state.stage = stage
    figure.get_by_role("button", name=f"{stage + 1} {STAGES[stage]}").press("Enter")


def press(figure: Locator, state: State, key: str, times: int = 1, shift: bool = False) -> None:
    """Moves the query with an arrow key."""
    for _ in range(times):
        figure.locator(".grip").press(f"Shift+{key}" if shift else key)
    step = {"ArrowUp": (0, 1), "ArrowDown": (0, -1), "ArrowRight": (1, 0), "ArrowLeft": (-1, 0)}[key]
    state.points[0] = np.round(state.points[0] + np.array(step) * 0.1 * times * (5 if shift else 1), 2)


def test_every_stage_for_every_k_by_keyboard(open_figure: Any) -> None:
    """From k = 1 to 12 at each stage, with the query where the chapter has it."""
    figure, state = open_figure()
    assert check(figure, state)
    for stage in range(5):
        choose_stage(figure, state, stage)
        slider(figure, "k").press("Home")
        for state.k in range(1, 13):
            assert check(figure, state), "the chapter's points have no ties"
            slider(figure, "k").press("ArrowRight")
        spot = figure.get_by_role("button", name=f"image {state.other}", exact=True)
        spot.press("ArrowDown" if stage % 2 else "ArrowRight")
        state.other += 1
    spot = figure.get_by_role("button", name=f"image {state.other}", exact=True)
    spot.focus()
    for _ in range(8):
        figure.page.keyboard.press("ArrowRight")
    state.other = 19
    assert check(figure, state)
    for _ in range(19):
        figure.page.keyboard.press("ArrowLeft")
    state.other = 1
    assert check(figure, state)


def test_the_query_and_lambda_by_keyboard(open_figure: Any) -> None:
    figure, state = open_figure()
    compared = 0
    for stage, key, times in ((1, "ArrowDown", 9), (2, "ArrowRight", 3), (3, "ArrowUp", 17), (0, "ArrowLeft", 7)):
        choose_stage(figure, state, stage)
        press(figure, state, key, times)
        compared += check(figure, state)
    press(figure, state, "ArrowRight", 4, shift=True)
    choose_stage(figure, state, 4)
    slider(figure, "lambda").press("Home")
    for k in range(21):
        state.share = round(0.05 * k, 2)
        compared += check(figure, state)
        slider(figure, "lambda").press("ArrowRight")
    assert compared >= 20
    before, after = figure.evaluate(READ)["strip"].split("; ")
    assert images(before) == images(after), "lambda = 1 is the order by distance"


def test_forty_states(open_figure: Any) -> None:
    """The query is dragged anywhere, and all else is set as it comes."""
    figure, state = open_figure(viewport={"width": 1280, "height": 1000})
    rng = np.random.default_rng(4)
    plane = figure.locator("svg").first
    plane.scroll_into_view_if_needed()
    box, mouse = plane.bounding_box(), figure.page.mouse
    assert box is not None
    unit = (box["width"] - 2) / 340
    mouse.move(*middle(figure.locator(".grip .ring")))
    mouse.down()
    compared = 0
    for _ in range(40):
        place = rng.uniform([20, 25], [320, 200])
        mouse.move(box["x"] + 1 + unit * place[0], box["y"] + 1 + unit * place[1])
        state.points[0] = numbers(figure.locator(".grip").get_attribute("aria-label") or "")[:2]
        assert state.points[0] == pytest.approx([place[0] / SCALE - 3.1, 3.7 - place[1] / SCALE], abs=0.03)
        state.stage, state.other, state.k = (int(rng.integers(*ends)) for ends in ((0, 5), (1, 20), (1, 13)))
        state.share = round(0.05 * int(rng.integers(0, 21)), 2)
        figure.evaluate(
            """(figure, [stage, other, k, share]) => {
              for (const [name, value] of [['k', k], ['lambda', share]]) {
                const input = figure.querySelector(`input[aria-label^=${name}]`);
                input.value = value;
                input.dispatchEvent(new Event('input'));
              }
              figure.querySelectorAll('button')[stage].click();
              const number = [...figure.querySelectorAll('svg')[2].querySelectorAll('g')]
                .find(node => Number(node.textContent) === other);
              number.dispatchEvent(new Event('click'));
            }""",
            [state.stage, state.other, state.k, state.share],
        )
        compared += check(figure, state)
    mouse.up()
    assert compared >= 36, "ties are rare"
    mouse.move(box["x"] + 5, box["y"] + 5)
    check(figure, state)


def test_ends_and_ties(open_figure: Any) -> None:
    """The query stays in the plane, may be dropped on another image, and images at equal distance come by number."""
    figure, state = open_figure()
    for key, axis, end in (("ArrowLeft", 0, -2.8), ("ArrowUp", 1, 3.3), ("ArrowRight", 0, 6.6), ("ArrowDown", 1, -2.6)):
        press(figure, state, key, 20, shift=True)
        state.points[0, axis] = end
        check(figure, state)
    figure, state = open_figure()
    press(figure, state, "ArrowRight", 6)
    press(figure, state, "ArrowUp", 3)
    assert state.points[0].tolist() == state.points[1].tolist()
    for stage in range(5):
        choose_stage(figure, state, stage)
        check(figure, state)
    figure, state = open_figure()
    choose_stage(figure, state, 1)
    slider(figure, "lambda").press("Home")
    state.share = 0
    assert check(figure, state)
    order = images(figure.evaluate(READ)["strip"].partition("; ")[2])
    assert order[6:] == list(range(7, 20)), "all of B and the strangers have the Jaccard distance 1"


def test_what_the_chapter_tells_of_the_figure(open_figure: Any) -> None:
    """The answers to the questions before the figure, and what it says to try."""
    figure, state = open_figure()

    def score(stage: int, k: int = 6, share: float = 0.3) -> float:
        choose_stage(figure, state, stage)
        state.k, state.share = k, share
        slider(figure, "k").fill(str(k))
        slider(figure, "lambda").fill(str(share))
        check(figure, state)
        return numbers(figure.locator(".after").inner_text())[0]

    def by_distance() -> float:
        return numbers(figure.locator(".before").inner_text())[0]

    assert (score(1), score(1, k=7)) == (0.809, 0.349)
    assert score(3, k=7) > 0.9 > 2 * score(3, k=10), "averaging repairs k = 7, but not a k that is far too large"
    press(figure, state, "ArrowDown", 10)
    assert score(4) < by_distance() < 0.3, "in the middle of B"
    press(figure, state, "ArrowUp", 24)
    press(figure, state, "ArrowRight", 21)
    assert by_distance() == 1 and score(2) == 1 > score(3), "in the middle of the chain, averaging spoils the list"
    assert score(0) < 1


def test_by_touch_on_a_phone(open_figure: Any) -> None:
    figure, state = open_figure(viewport=PHONE, has_touch=True, is_mobile=True)
    figure.locator("svg").first.scroll_into_view_if_needed()
    x, y = middle(figure.locator(".grip .ring"))
    before = figure.page.evaluate("scrollY")
    touch(figure.page, (x, y), (x + 10, y - 8), (x + 20, y - 40))
    assert figure.page.evaluate("scrollY") == before, "the page stays where it is"
    unit = figure.locator("svg").first.evaluate("svg => svg.getScreenCTM().a") * SCALE
    state.points[0] = numbers(figure.locator(".grip").get_attribute("aria-label") or "")[:2]
    assert state.points[0] == pytest.approx([20 / unit, 40 / unit], abs=0.05)
    check(figure, state)
    figure.get_by_role("button", name="image 18", exact=True).tap()
    figure.get_by_role("button", name="5 re-ranked").tap()
    state.other, state.stage = 18, 4
    check(figure, state)
    figure.locator("svg").nth(2).locator("g", has_text=re.compile("^5$")).first.tap()
    state.other = 5
    check(figure, state)
