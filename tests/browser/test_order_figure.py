"""Chapter 08's figures that a reader moves, in a real browser: what they show is compared with the library."""

import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from browsing import FIGURES, PHONE, SITE, WIDE, Open, serve
from playwright.sync_api import Browser, Locator, Page
from test_moving_figures import CONTRAST, THOUSANDTH, data_of, middle, numbers, touch

from alignedreid_lib import figures
from alignedreid_lib.evaluation import ranking, verification

NAMES = ["order_the_list", "choose_the_threshold"]
PROTOCOLS = ("market1501", "allshots", "cuhk03")


# The list.

# All that the figure shows, read at once.
READ = """figure => {
  const texts = selector => [...figure.querySelectorAll(selector)].map(node => node.textContent);
  const paths = name => [...figure.querySelectorAll(`path.${name}`)].map(node => node.getAttribute('d'));
  return {
    cards: [...figure.querySelectorAll('.cards button')].map(card => ({
      lines: [...card.children].slice(1).flatMap(node => node.textContent.split('\\n')),
      label: card.getAttribute('aria-label'), kind: card.className.replace('grip ', ''),
      view: card.querySelector('svg').getAttribute('viewBox').split(' ').map(Number) })),
    step: texts('output.step')[0], trapezoid: texts('output.trapezoid')[0],
    reason: texts('.reason')[0], told: texts('.told')[0], head: texts('thead th'),
    rows: [...figure.querySelectorAll('tbody tr')].map(row => [...row.children].map(cell => cell.textContent)),
    bars: [...figure.querySelectorAll('td')].map(cell => parseFloat(cell.style.getPropertyValue('--high'))),
    area: paths('area'), line: paths('line'), gap: paths('gap'),
    marks: [...figure.querySelectorAll('svg g')].map(g => [
      g.querySelectorAll('circle').length, g.querySelectorAll('path').length,
      [...g.querySelectorAll('text')].map(text => text.textContent)]),
    focus: [...figure.querySelectorAll('.cards button')].indexOf(document.activeElement),
  };
}"""


class Deck:
    """The list that a reader has made, and what the library computes from it."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.query: tuple[int, int] = tuple(data["query"])
        self.list = list(enumerate(data["start"]))  # card and which of its images, nearest first

    @property
    def labels(self) -> list[tuple[int, int]]:
        return [tuple(self.data["cards"][card][kind]) for card, kind in self.list]

    def shift(self, here: int, there: int) -> None:
        self.list.insert(there, self.list.pop(here))

    def turn(self, k: int) -> None:
        card, kind = self.list[k]
        self.list[k] = card, (kind + 1) % len(self.data["cards"][card])

    def kinds(self) -> list[str]:
        own = [identity == self.query[0] for identity, _ in self.labels]
        near = [camera == self.query[1] for _, camera in self.labels]
        return ["ignored" if o and c else "match" if o else "wrong" for o, c in zip(own, near, strict=True)]

    def problem(self) -> tuple:
        ids, cameras = zip(*self.labels, strict=True)
        return [range(len(ids))], [self.query[0]], list(ids), [self.query[1]], list(cameras)

    def scores(self, protocol: str = "market1501", definition: str = "step") -> ranking.RankingScores:
        return ranking.score_ranking(*self.problem(), protocol=protocol, average_precision=definition, top=8)

    def drawn(self) -> dict[int, int]:
        """How many images of each identity may be drawn."""
        there = [identity for identity, camera in self.labels if camera != self.query[1]]
        return {identity: there.count(identity) for identity in sorted(set(there))}

    def ranks_by_draws(self) -> list[dict[int, Fraction]]:
        """For each match, the probability of each rank if it is drawn: every draw is looked at."""
        there = [k for k, (_, camera) in enumerate(self.labels) if camera != self.query[1]]
        of = [[k for k in there if self.labels[k][0] == other] for other in self.drawn() if other != self.query[0]]
        found = []
        for match in (k for k in there if self.labels[k][0] == self.query[0]):
            ranks = [1 + sum(k < match for k in draw) for draw in product(*of)]
            found.append({rank: Fraction(ranks.count(rank), len(ranks)) for rank in sorted(set(ranks))})
        return found


def points(path: str) -> list[np.ndarray]:
    """The corners of a path's pieces as recalls and precisions."""
    pieces = [re.findall(r"[\d.]+(?:e-\d+)?", piece) for piece in path.split("M")[1:]]
    return [(np.array(piece, float).reshape(-1, 2) - [30, 164]) / [250, -150] for piece in pieces]


def surface(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2


def check_the_list(figure: Locator, deck: Deck) -> dict[str, Any]:
    """Compares all that is shown with the library, which is given the identities and cameras in this order."""
    shown = figure.evaluate(READ)
    kinds, drawn, labels = deck.kinds(), deck.drawn(), deck.labels
    found = ranking.RankingProblem(*deck.problem()[1:]).find_matches(np.array(deck.problem()[0]))
    wide, tall = deck.data["size"]
    rank, ranks_of_matches = 0, []
    for k, (card, kind, (identity, camera)) in enumerate(zip(shown["cards"], kinds, labels, strict=True)):
        rank += kind != "ignored"
        facts = [
            f"id {identity}",
            f"camera {camera}",
            "no rank" if kind == "ignored" else f"rank {rank}",
            "not drawn" if camera == deck.query[1] else f"drawn 1/{drawn[identity]}",
        ]
        sign = {"match": "✓ match", "wrong": "✗ wrong", "ignored": "ignored"}[kind]
        assert card["lines"] == [sign, *facts] and card["kind"] == kind
        assert card["label"] == f"Position {k + 1}: {kind}, {', '.join(facts)}"
        assert card["view"] == [(deck.list[k][0] + 1) * wide, deck.list[k][1] * tall, wide, tall], "its own image"
        ranks_of_matches += [rank] if kind == "match" else []
    assert ranks_of_matches == (found.rank + 1).tolist()

    m = len(ranks_of_matches)
    steps = [(j, r) for j, r in enumerate(ranks_of_matches, 1)]
    walk = [(0, 1)] + [
        (sum(r <= here for _, r in steps) / max(m, 1), sum(r <= here for _, r in steps) / here)
        for here in range(1, rank + 1)
    ]
    aps = {}
    for panel, name in enumerate(("step", "trapezoid")):
        scores = deck.scores(definition=name)
        text = shown[name].replace("−", "-")
        assert text.startswith(f"{name} AP = ")
        (line,) = points(shown["line"][panel])
        assert line == pytest.approx(np.array(walk), abs=1e-6)
        assert shown["marks"][panel] == [m, rank - m, [f"{j}/{r}" for j, r in steps]]
        areas = points(shown["area"][panel])
        assert len(areas) == m
        if not m:
            assert not scores.valid[0] and "0/0: there is no match" in text
            continue
        ap = float(scores.ap_per_query[0])
        by_hand, fraction, sign, decimal = re.search(r"= (.*)\n= (\S+) ([=≈]) (\S+)", text).groups()
        assert eval(by_hand) == pytest.approx(ap), "the sum by hand"
        aps[name] = Fraction(fraction)
        assert (float(aps[name]), float(decimal)) == (pytest.approx(ap, abs=1e-12), pytest.approx(ap, abs=THOUSANDTH))
        assert (sign == "=") == (aps[name] == Fraction(decimal))
        assert sum(map(surface, areas)) == pytest.approx(ap), "the coloured area is the AP"
    if m:
        gap = aps["step"] - aps["trapezoid"]
        fraction, decimal = re.search(r"gap to step \(dashed\): (\S+) [=≈] (\S+)$", shown["trapezoid"]).groups()
        assert Fraction(fraction) == gap and float(decimal) == pytest.approx(float(gap), abs=THOUSANDTH)
        assert sum(map(surface, points(shown["gap"][1]))) == pytest.approx(float(gap), abs=1e-9)
    assert shown["gap"][0] == ""

    assert shown["head"] == ["CMC(k), k =", *"12345678"] and [row[0] for row in shown["rows"]] == [*PROTOCOLS]
    for protocol, (_, *cells), bars in zip(PROTOCOLS, shown["rows"], np.reshape(shown["bars"], (3, 8)), strict=True):
        if not m:
            assert cells == ["–"] * 8 and not bars.any()
            continue
        cmc = deck.scores(protocol).cmc
        assert [float(Fraction(cell)) for cell in cells] == pytest.approx(cmc.tolist(), abs=1e-12), protocol
        assert bars.tolist() == pytest.approx((100 * cmc).tolist(), abs=1e-4)
    if not m:
        assert "not valid" in shown["reason"]
        return shown
    first, wrong, pool, *matches = shown["reason"].split("\n")
    assert numbers(first.partition(":")[2]) == [ranks_of_matches[0]]
    assert numbers(wrong.partition(":")[2]) == (found.rank - found.order).tolist()
    assert numbers(pool.partition(":")[2]) == [n for i, count in drawn.items() for n in (1, count, i)]
    in_pool = [k for k, (_, camera) in enumerate(labels) if camera != deck.query[1]]
    own = [k for k in in_pool if labels[k][0] == deck.query[0]]
    for i, (text, k, ranks) in enumerate(zip(matches, own, deck.ranks_by_draws(), strict=True)):
        assert text.startswith(f"Match {i + 1}: ")
        before = re.findall(r"P\(id (\d+) before it\) = (\d+/\d+)", text)
        nearer = {other: sum(labels[g][0] == other for g in in_pool if g < k) for other in drawn}
        assert before == [(str(o), f"{nearer[o]}/{drawn[o]}") for o in drawn if o != deck.query[0]]
        chances = {int(rank): Fraction(p) for rank, p in re.findall(r"P\(rank (\d+)\) = ([\d/]+)", text)}
        assert chances == ranks
    return shown


MOVES = {"ArrowLeft": -1, "ArrowUp": -1, "ArrowRight": 1, "ArrowDown": 1, "Home": -8, "End": 8}


def press(order: Locator, deck: Deck, k: int, key: str) -> None:
    """A key on card k; the focus follows the card."""
    order.locator(".cards button").nth(k).focus()
    order.page.keyboard.press(key)
    if key in MOVES:
        there = min(max(k + MOVES[key], 0), 7)
        deck.shift(k, there)
    else:
        deck.turn(there := k)
    shown = check_the_list(order, deck)
    assert shown["focus"] == there and shown["told"] == shown["cards"][there]["label"]


def test_the_list_starts_with_the_numbers_of_the_chapter(figure: Open) -> None:
    order = figure("order_the_list")
    deck = Deck(data_of(order))
    shown = check_the_list(order, deck)
    assert deck.labels[:5] == [(9, 1), (10, 1), (9, 2), (0, 3), (9, 4)], "the chapter's five images in their order"
    assert "= 1/2 = 0.500" in shown["step"] and "= 1/3 ≈ 0.333" in shown["trapezoid"]
    assert [row[1] for row in shown["rows"]] == ["0", "0", "3/4"], "as the text after the figure states"
    for k in range(5, 8):
        deck.list[k] = deck.list[k][0], 4  # an ignored image: as if it were not there
    assert deck.scores("cuhk03").cmc[0] == 0.5, "without the three new images"


def test_the_moves_that_the_chapter_asks_to_predict(figure: Open) -> None:
    for k, step, trapezoid, first in ((2, "1/4", "3/8", "1"), (4, "1/12", "1/12", "0")):
        order = figure("order_the_list")
        deck = Deck(data_of(order))
        before = check_the_list(order, deck)
        press(order, deck, k, "ArrowLeft")
        after = check_the_list(order, deck)
        for name, more in (("step", step), ("trapezoid", trapezoid)):
            now, then = (Fraction(re.search(r"\n= (\S+)", s[name])[1]) for s in (after, before))
            assert now - then == Fraction(more)
        assert after["rows"][0][1] == first
    scores = (("step", "trapezoid"), ("rows", "reason"))
    for there in ("End", "Home", "ArrowRight"):
        order = figure("order_the_list")
        deck = Deck(data_of(order))
        before = check_the_list(order, deck)
        press(order, deck, 0, there)
        after = check_the_list(order, deck)
        assert all(before[name] == after[name] for pair in scores for name in pair), "an ignored image changes nothing"


def test_the_list_by_keyboard(figure: Open) -> None:
    """Forty keys at random; after each, every number is the library's."""
    order = figure("order_the_list")
    deck, rng = Deck(data_of(order)), np.random.default_rng(0)
    for _ in range(40):
        press(order, deck, int(rng.integers(8)), str(rng.choice([*MOVES, "Enter", "Enter", "Space", "Enter"])))


def test_without_a_match_and_with_matches_only(figure: Open) -> None:
    order = figure("order_the_list")
    deck = Deck(data_of(order))
    press(order, deck, 2, "Enter")
    press(order, deck, 4, "Enter")
    assert "match" not in deck.kinds()
    for k in range(8):
        while deck.kinds()[k] != "match":
            press(order, deck, k, "Enter")
    assert set(deck.kinds()) == {"match"}


def test_buttons_of_the_list(figure: Open) -> None:
    order = figure("order_the_list")
    deck = Deck(data_of(order))
    start = list(deck.list)
    for name, made in (
        ("Reverse", lambda: deck.list[::-1]),
        ("Matches first", lambda: sorted(deck.list, key=lambda one: list(one)[1] != 0)),
        ("Reverse", lambda: deck.list[::-1]),
        ("Start", lambda: start),
    ):
        order.get_by_role("button", name=name, exact=True).click()
        deck.list = list(made())
        check_the_list(order, deck)
        press(order, deck, 1, "ArrowLeft")


def test_a_card_by_mouse(figure: Open) -> None:
    order = figure("order_the_list", viewport={"width": 1280, "height": 1000})
    deck = Deck(data_of(order))
    cards, mouse = order.locator(".cards button"), order.page.mouse
    cards.first.scroll_into_view_if_needed()
    cards.nth(6).click()
    deck.turn(6)
    check_the_list(order, deck)
    here, there, back = (middle(cards.nth(k)) for k in (1, 5, 3))
    mouse.move(*here)
    mouse.down()
    mouse.move(here[0] + 3, here[1] + 3)
    mouse.move(there[0] + 9, there[1] - 20)
    deck.shift(1, 5)
    check_the_list(order, deck)
    assert middle(cards.nth(5)) == pytest.approx((there[0] + 9, there[1] - 20), abs=1), "the card follows the pointer"
    mouse.move(back[0] - 9, back[1] + 20)
    mouse.up()
    deck.shift(5, 3)
    shown = check_the_list(order, deck)
    assert shown["focus"] == 3 and middle(cards.nth(3)) == pytest.approx(back, abs=1)
    mouse.move(*here)
    check_the_list(order, deck)
    assert "Position 4" in order.locator(".told").inner_text()


def on_a_phone(figure: Open, name: str) -> Locator:
    return figure(name, viewport=PHONE, has_touch=True, is_mobile=True)


def test_a_card_by_touch_on_a_phone(figure: Open) -> None:
    order = on_a_phone(figure, "order_the_list")
    deck = Deck(data_of(order))
    cards = order.locator(".cards button")
    cards.nth(7).scroll_into_view_if_needed()
    before = order.page.evaluate("scrollY")
    here, there = middle(cards.nth(6)), middle(cards.nth(1))
    touch(order.page, here, (here[0], here[1] - 30), there)
    deck.shift(6, 1)
    check_the_list(order, deck)
    touch(order.page, middle(cards.nth(4)))
    deck.turn(4)
    check_the_list(order, deck)
    assert order.page.evaluate("scrollY") == before, "the page stays where it is"


# The threshold.

READ_THRESHOLD = """figure => {
  const text = name => figure.querySelector(`output.${name}`).textContent;
  const number = (node, name) => parseFloat(node.getAttribute(name));
  const grip = figure.querySelector('[role=slider]'), [pairs, roc] = figure.querySelectorAll('.live > div > svg');
  const bars = [...figure.querySelectorAll('.bar i')].map(bar => parseFloat(bar.style.width));
  return {
    t: number(grip, 'aria-valuenow'), words: grip.getAttribute('aria-valuetext'), at: text('at'), same: text('same'),
    different: text('different'), told: text('told'), bars, x: parseFloat(grip.getAttribute('transform').slice(10)),
    filled: number(pairs.querySelector('svg'), 'width'),
    outlines: [...pairs.children].filter(node => node.matches('path')).map(node => node.getAttribute('d')),
    point: ['cx', 'cy'].map(name => number(roc.querySelector('circle'), name)),
    curve: roc.querySelector('polyline').getAttribute('points'),
  };
}"""


class Pairs:
    """Distances, and what the library computes from them."""

    def __init__(self, same: np.ndarray, different: np.ndarray, queries: int) -> None:
        self.same, self.different, self.queries = same, different, queries
        self.curve = verification.roc(same, different)

    def rates(self, t: float) -> tuple[float, float]:
        """False and true accept rate up to a threshold, from the library's curve."""
        at = int(np.searchsorted(self.curve.thresholds, t, "right")) - 1
        return tuple(float(rate[at]) if at >= 0 else 0.0 for rate in self.curve[1:])


def check_the_threshold(figure: Locator, pairs: Pairs, t: float) -> None:
    shown = figure.evaluate(READ_THRESHOLD)
    edges = data_of(figure)["edges"]
    for text in (shown["words"], shown["at"].partition(":")[0]):
        assert numbers(text) == pytest.approx([t], abs=0.0051)
    assert shown["t"] == pytest.approx(t, abs=0.0051)
    false, true = pairs.rates(t)
    for name, rate, values, bar in (
        ("same", true, pairs.same, shown["bars"][0]),
        ("different", false, pairs.different, shown["bars"][1]),
    ):
        count, total, percent = numbers(shown[name].replace("\u202f", ""))
        assert (count, total) == (round(rate * len(values)), len(values))
        assert percent == pytest.approx(100 * rate, rel=0.006)
        assert bar == pytest.approx(100 * rate, abs=0.01)
    right, wrong = true * len(pairs.same), false * len(pairs.different)
    alarms, *share = numbers(shown["told"])
    assert alarms == pytest.approx(wrong / pairs.queries, abs=0.0051)
    assert share == ([pytest.approx(100 * wrong / (right + wrong), rel=0.006)] if right + wrong else [])
    # The drawing.
    x = 12 + 316 * t / edges[-1]
    assert (shown["x"], shown["filled"]) == (pytest.approx(x, abs=1e-3), pytest.approx(x, abs=1e-3))
    assert shown["point"] == pytest.approx(spot(pairs, false, true), abs=0.01)
    curve = [float(v) for v in re.split("[ ,]", shown["curve"])]
    expected = [v for edge in edges for v in spot(pairs, *pairs.rates(edge))]
    assert curve == pytest.approx(expected, abs=0.01)


def spot(pairs: Pairs, false: float, true: float) -> tuple[float, float]:
    """Where a point of the ROC is drawn."""
    decades = np.ceil(np.log10(len(pairs.different)))
    return 328 - 288 * (-np.log10(false) / decades if false else 1), 170 - 150 * true


def of_data(figure: Locator) -> Pairs:
    """Pairs with as many distances in each bin as the page's figure, at the bin's end."""
    data = data_of(figure)
    different, same = (np.repeat(data["edges"], np.diff([0, *counts])) for counts in data["accepted"])
    return Pairs(same, different, data["queries"])


def test_the_threshold_by_keyboard(figure: Open) -> None:
    choose = figure("choose_the_threshold")
    pairs, edges = of_data(choose), data_of(choose)["edges"]
    grip = choose.get_by_role("slider")
    grip.focus()
    k = int(np.argmin(np.abs(np.array(edges) - edges[-1] / 3)))
    check_the_threshold(choose, pairs, edges[k])
    moves = {"ArrowRight": 1, "ArrowUp": 1, "ArrowLeft": -1, "ArrowDown": -1, "PageUp": 10, "PageDown": -10}
    keys = [*moves, "ArrowLeft", "End", "ArrowRight", "PageDown", "Home", "ArrowLeft", *["ArrowRight"] * 25, "PageUp"]
    for key in keys:
        choose.page.keyboard.press(key)
        k = {"Home": 0, "End": len(edges) - 1}.get(key, min(max(k + moves.get(key, 0), 0), len(edges) - 1))
        check_the_threshold(choose, pairs, edges[k])


def test_the_histograms_are_the_counts_of_the_bins(figure: Open) -> None:
    choose = figure("choose_the_threshold")
    shown, data, pairs = choose.evaluate(READ_THRESHOLD), data_of(choose), of_data(choose)
    edges = np.array(data["edges"])
    heights = []
    for outline, values in zip(shown["outlines"], (pairs.same, pairs.different), strict=False):
        drawn = 170 - np.array([float(v) for v in re.findall(r"V([\d.e-]+)", outline)][:-1])
        counts = np.histogram(values, np.append(edges[0] - 1e-9, edges[1:] + 1e-9))[0]
        heights.append((drawn, counts / len(values)))
    most = max(shares.max() for _, shares in heights)
    for drawn, shares in heights:
        assert drawn == pytest.approx(140 * shares / most, abs=1e-6)


def test_the_thresholds_of_rates_are_the_library_s(browser: Browser, tmp_path: Path) -> None:
    """Distances of our own: their thresholds lie between two edges of the bins."""
    rng = np.random.default_rng(1)
    pairs = Pairs(rng.gamma(6, 0.8, 300).astype(np.float32), rng.gamma(12, 1.1, 9000).astype(np.float32), 30)
    static = figures.Figure(figsize=(1, 1))
    rates = (0.1, 0.01, 0.001)
    made = figures.choose_the_threshold(pairs.same, pairs.different, 30, rates, static=static, words="pairs")
    (tmp_path / "page.html").write_text(f"<!doctype html><meta charset=utf-8>{made._repr_html_()}")
    for address in serve(tmp_path):
        page = browser.new_page()
        page.goto(f"{address}/page.html")
        choose = page.locator(".touch")
        edges = data_of(choose)["edges"]
        for rate, name, key in zip(rates, ("10 %", "1 %", "0.1 %"), ("ArrowRight", "ArrowLeft", "PageUp"), strict=True):
            choose.get_by_role("button", name=name, exact=True).click()
            t = verification.choose_threshold(pairs.curve, rate)
            check_the_threshold(choose, pairs, t)
            assert pairs.rates(t)[0] <= rate
            choose.get_by_role("slider").focus()
            page.keyboard.press(key)
            below = int(np.searchsorted(edges, t)) - 1
            assert edges[below] < t < edges[below + 1], "the threshold is between two edges"
            check_the_threshold(choose, pairs, edges[below + {"ArrowRight": 1, "ArrowLeft": 0, "PageUp": 10}[key]])
        page.close()


def test_the_threshold_has_the_number_of_the_chapter(figure: Open) -> None:
    """The cell after the chapter's own figure prints how many pairs of one person are accepted at 0.1 %."""
    choose = figure("choose_the_threshold")
    choose.get_by_role("button", name="0.1 %", exact=True).click()
    notebook = nbformat.read(SITE.parent / "notebooks" / "08_evaluation.ipynb", as_version=4)
    texts = [o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", [])]
    (printed,) = [text for text in texts if "of the pairs of one person are accepted" in text]
    shown = choose.evaluate(READ_THRESHOLD)
    assert round(numbers(shown["same"])[-1]) == numbers(printed)[0]
    assert numbers(shown["different"])[-1] <= 0.1


def test_the_threshold_by_mouse_and_by_touch(figure: Open) -> None:
    for choose in (figure("choose_the_threshold"), on_a_phone(figure, "choose_the_threshold")):
        pairs, edges = of_data(choose), data_of(choose)["edges"]
        grip = choose.get_by_role("slider")
        grip.scroll_into_view_if_needed()
        x, y = middle(grip.locator(".ring"))
        scale = choose.evaluate("figure => figure.querySelector('svg').getScreenCTM().a") * 316 / edges[-1]
        before = choose.evaluate(READ_THRESHOLD)["t"]
        if choose.page.viewport_size == PHONE:
            scrolled = choose.page.evaluate("scrollY")
            touch(choose.page, (x, y), (x - 10, y + 9), (x - 40, y + 60))
            assert choose.page.evaluate("scrollY") == scrolled, "the page stays where it is"
        else:
            mouse = choose.page.mouse
            mouse.move(x, y)
            mouse.down()
            mouse.move(x - 10, y + 9)
            mouse.move(x - 40, y + 60)
            mouse.up()
        t = min(edges, key=lambda edge: abs(edge - (before - 40 / scale)))
        check_the_threshold(choose, pairs, t)


# Both.


def both(figure: Open, **options: Any) -> Iterator[tuple[str, Locator]]:
    for name in NAMES:
        yield name, figure(name, **options)


def test_without_scripts_and_in_print_the_static_figure_is_shown(figure: Open) -> None:
    for name, touched in both(figure, java_script_enabled=False):
        assert touched.locator("> img").is_visible() and touched.locator("> img").get_attribute("alt"), name
        assert touched.locator(".live").count() == 0
    for name, touched in both(figure):
        for media, expected in (("screen", [False, True]), ("print", [True, False])):
            touched.page.emulate_media(media=media)
            shown = [touched.locator("> img").is_visible(), touched.locator(".live").is_visible()]
            assert shown == expected, f"{name}, {media}"


# Tables may scroll in their box; nothing else reaches beyond the edge of a phone.
BEYOND = """figure => [...figure.querySelectorAll('.live, .live > *, .cards > *, .scroll, .controls > *, svg, output')]
  .filter(node => node.getBoundingClientRect().right > innerWidth ||
    node.matches('.cards > *') && node.scrollWidth > node.clientWidth + 1)
  .map(node => node.outerHTML.slice(0, 80))"""


def test_nothing_is_wider_than_a_phone(figure: Open) -> None:
    for name in NAMES:
        touched = on_a_phone(figure, name)
        assert touched.page.evaluate(WIDE) == []
        assert touched.evaluate(BEYOND) == [], name


# The contrast of a bar's text with the bar, whose colour is a gradient's.
BARS = """figure => {
  const context = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const paint = (...colours) => {
    for (const colour of colours) { context.fillStyle = colour; context.fillRect(0, 0, 1, 1); }
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3).map(v => v / 255)
      .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
      .reduce((sum, v, k) => sum + v * [.2126, .7152, .0722][k], 0);
  };
  const page = getComputedStyle(document.body).backgroundColor, style = getComputedStyle(figure.querySelector('td'));
  const colours = style.backgroundImage.match(/(?:color|rgba?|oklab|srgb)\\((?:[^()]|\\([^()]*\\))*\\)/g);
  return colours.map(colour => {
    const [x, y] = [paint(page, colour), paint(style.color)].sort((a, b) => a - b);
    return [colour, (y + .05) / (x + .05)];
  });
}"""


def test_light_and_dark(figure: Open) -> None:
    for name, touched in both(figure):
        touched.page.add_style_tag(content="* { transition: none !important }")
        pages = []
        for mode in ("light", "dark"):
            touched.page.evaluate("mode => { document.documentElement.dataset.theme = mode; }", mode)
            page, found = touched.evaluate(CONTRAST)
            assert found == [], f"{name}, {mode}"
            pages.append(page)
            if name == "order_the_list":
                bars = touched.evaluate(BARS)
                assert len(bars) >= 2 and all(ratio >= 4.5 for _, ratio in bars), f"{mode}: {bars}"
        assert pages[0] != pages[1], "the page itself changed"


def test_focus_is_seen_and_everything_is_named(figure: Open) -> None:
    for name, touched in both(figure):
        touched.locator("[tabindex='0'], button").first.focus()
        seen = 0
        while touched.evaluate("figure => figure.contains(document.activeElement)"):
            ring, words = touched.page.evaluate("""() => {
                const node = document.activeElement, mark = node.querySelector('.ring');
                const style = getComputedStyle(mark || node);
                return [mark ? style.stroke !== 'none' && parseFloat(style.strokeWidth) >= 2 :
                  style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
                  node.getAttribute('aria-label') || node.textContent];
            }""")
            assert ring and words.strip(), f"{name}: {words}"
            seen += 1
            touched.page.keyboard.press("Tab")
        assert seen == {"order_the_list": 8 + 3, "choose_the_threshold": 1 + 4}[name]


def test_two_on_a_page_do_not_disturb_each_other(browser: Browser, site: str, tmp_path: Path) -> None:
    source = (SITE / FIGURES["order_the_list"]).read_text()
    for name in NAMES:
        start = source.index(f'<div class="touch {name}"')
        piece = source[start : source.index("</div>", source.index("})();</script>", start)) + 6]
        (tmp_path / f"{name}.html").write_text(f"<!doctype html><meta charset=utf-8>{piece}{piece}")
    for address in serve(tmp_path):
        page: Page = browser.new_page()
        page.goto(f"{address}/order_the_list.html")
        one, two = (page.locator(".touch").nth(k) for k in range(2))
        here, there = Deck(data_of(one)), Deck(data_of(two))
        press(two, there, 4, "Home")
        check_the_list(one, here)
        page.goto(f"{address}/choose_the_threshold.html")
        two.get_by_role("slider").press("End")
        data = data_of(one)
        check_the_threshold(two, of_data(two), data["edges"][-1])
        assert one.evaluate(READ_THRESHOLD)["t"] < data["edges"][-1]
        page.close()
