"""The figures that a reader moves, in a real browser: what each shows is compared with what the library computes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browsing import FIGURES, PHONE, SITE, WIDE, Open, serve
from playwright.sync_api import Browser, Locator, Page

from alignedreid_lib import alignment, losses

PAGES = ("slide_the_box", "pull_the_points", "who_knows_whom")  # chapter 08's have tests of their own
HUNDREDTH, THOUSANDTH = 0.0051, 0.00051  # of numbers shown with two and with three digits
POINT = 0.1  # what an arrow key moves


def numbers(text: str) -> list[float]:
    """All numbers in a text, whose minus is the typographer's."""
    return [float(found.replace("−", "-")) for found in re.findall(r"−?\d+(?:\.\d+)?", text)]


def data_of(figure: Locator) -> dict[str, Any]:
    return json.loads(figure.locator("script[type='application/json']").first.text_content() or "")


def both(figure: Open, **options: Any) -> Iterator[tuple[str, Locator]]:
    for name in PAGES:
        yield name, figure(name, **options)


# The box.


def check_the_box(figure: Locator, place: int, filled: int) -> None:
    """Compares all that is shown at a position with the library, which is given the stripes that the figure shows.

    `filled` anti-diagonals show sums.
    """
    data = data_of(figure)
    stripes = torch.tensor(data["stripes"], dtype=torch.float64)
    perfect, here = stripes[data["shifts"].index(0)], stripes[place]
    costs = alignment.stripe_distances(perfect, here)
    shift = data["shifts"][place]
    words = f"{abs(shift):g}/8 too {'low' if shift > 0 else 'high'}" if shift else "perfect"
    assert words in figure.locator(".shift").inner_text()
    assert figure.get_by_role("slider").get_attribute("aria-valuenow") == f"{shift:g}"

    cells = figure.get_by_role("gridcell")
    labels, texts = cells.evaluate_all(
        "all => [all.map(c => c.getAttribute('aria-label')), all.map(c => c.textContent)]"
    )
    assert len(labels) == 64
    whole = filled in (0, 15)
    marked = [divmod(k, 8) for k, label in enumerate(labels) if label.endswith(", on the path")]
    if whole:
        steps = sorted(map(tuple, np.diff(marked, axis=0).tolist()))
        assert (marked[0], marked[-1], steps) == ((0, 0), (7, 7), [(0, 1)] * 7 + [(1, 0)] * 7)
        length = sum(float(costs[cell]) for cell in marked)
        assert length == pytest.approx(float(alignment.shortest_path(costs)), abs=1e-3)
        assert shift == 0 or marked == alignment.trace_path(costs), "to itself, two paths are equally short"
    else:
        assert marked == []
    for k, (label, text) in enumerate(zip(labels, texts, strict=True)):
        i, j = divmod(k, 8)
        summed = i + j < filled
        value = float(alignment.shortest_path(costs[: i + 1, : j + 1])) if summed else float(costs[i, j])
        assert label.startswith(f"row {i + 1}, column {j + 1}: {'sum' if summed else 'cost'}")
        assert numbers(text) == pytest.approx([value], abs=HUNDREDTH), label
    assert figure.locator("polyline.way").is_visible() == whole
    joined = figure.locator("g[fill=none] > line")
    full = joined.evaluate_all("all => all.map(line => line.getAttribute('stroke-dasharray') === null)")
    path = marked or alignment.trace_path(costs)
    assert shift == 0 or full == [bool(costs[cell] < 0.3) for cell in path], "full lines where stripes match"

    for name, aligned in (("rigid", False), ("aligned", True)):
        own = float(alignment.local_distances(perfect[None], here[None], aligned))
        stranger = data["strangers"][int(aligned)]
        text = figure.locator(f"output.{name}").inner_text()
        assert numbers(text) == pytest.approx([own, stranger], abs=HUNDREDTH)
        assert ("nearer" in text) == (own < stranger)
        bar, line = figure.locator(f"div:has(> output.{name}) .bar").evaluate(
            "bar => [bar.querySelector('i').style.width, bar.querySelector('b').style.left].map(parseFloat)"
        )
        assert bar / line == pytest.approx(own / stranger, abs=0.01), "the bar against the strangers' line"


def test_the_box_by_keyboard(figure: Open) -> None:
    """At every position, one key apart, the figure shows what the library computes."""
    slide = figure("slide_the_box")
    slide.get_by_role("slider").focus()
    keyboard = slide.page.keyboard
    check_the_box(slide, 6, 0)
    keyboard.press("Home")
    for place in range(15):
        check_the_box(slide, place, 0)
        keyboard.press("ArrowDown")
    check_the_box(slide, 14, 0)
    keyboard.press("PageUp")
    check_the_box(slide, 12, 0)
    keyboard.press("ArrowUp")
    check_the_box(slide, 11, 0)


def test_the_box_has_the_numbers_of_the_chapter(figure: Open) -> None:
    """5.71 is what the chapter's figure of the same pair has in its title."""
    slide = figure("slide_the_box")
    slide.get_by_role("slider").focus()
    for _ in range(4):
        slide.page.keyboard.press("ArrowDown")
    source = (SITE.parent / "notebooks" / "04_alignment.py").read_text()
    scope: dict[str, Any] = {}
    cells = source.split("# %%")
    kept = [cell for cell in cells if re.search(r"^(seed = |import dataclasses|cameras = |def colours)", cell, re.M)]
    for cell in kept:
        exec(cell.partition("\n")[2], scope)
    one, two = (scope["colours"](scope["picture"](1, down=down))[None] for down in (0, 2))
    for name, aligned in (("rigid", False), ("aligned", True)):
        shown = numbers(slide.locator(f"output.{name}").inner_text())[0]
        assert shown == pytest.approx(float(alignment.local_distances(one, two, aligned)), abs=2 * HUNDREDTH)


def test_sums_are_filled_step_by_step(figure: Open) -> None:
    slide = figure("slide_the_box")
    step = slide.get_by_role("button", name="Step", exact=True)
    step.focus()
    for filled in (*range(1, 16), 1):
        slide.page.keyboard.press("Enter")
        check_the_box(slide, 6, filled)
    slide.get_by_role("button", name="All sums").click()
    check_the_box(slide, 6, 15)
    slide.get_by_role("slider").press("End")
    check_the_box(slide, 14, 15)
    slide.get_by_role("button", name="Costs").click()
    check_the_box(slide, 14, 0)


def test_a_cell_shows_how_its_sum_is_made(figure: Open) -> None:
    slide = figure("slide_the_box")
    data = data_of(slide)
    stripes = torch.tensor(data["stripes"], dtype=torch.float64)
    costs = alignment.stripe_distances(stripes[6], stripes[6])

    def sums(i: int, j: int) -> float:
        return float(alignment.shortest_path(costs[: i + 1, : j + 1]))

    def check(i: int, j: int) -> None:
        before = ([sums(i - 1, j)] if i else []) + ([sums(i, j - 1)] if j else [])
        expected = [i + 1, j + 1, float(costs[i, j]), *before, *([sums(i, j)] if before else [])]
        text = slide.locator(".formula").inner_text()
        assert numbers(text) == pytest.approx(expected, abs=THOUSANDTH + 2e-4)
        assert ("min(" in text) == (len(before) == 2)

    slide.get_by_role("gridcell").nth(8 * 4 + 2).click()
    check(4, 2)
    keyboard, (i, j) = slide.page.keyboard, (4, 2)
    for key, down, right in (("ArrowUp", -1, 0), ("ArrowRight", 0, 1), ("ArrowDown", 1, 0), ("ArrowLeft", 0, -1)):
        keyboard.press(key)
        i, j = i + down, j + right
        check(i, j)
    keyboard.press("Home")
    check(4, 0)
    for _ in range(6):
        keyboard.press("ArrowUp")
    check(0, 0)
    tabbed = slide.get_by_role("gridcell").evaluate_all("all => all.filter(cell => cell.tabIndex === 0).length")
    assert tabbed == 1, "Tab passes the table in one step"
    slide.get_by_role("gridcell").nth(8 * 6 + 5).hover()
    check(6, 5)


def test_the_box_by_mouse(figure: Open) -> None:
    slide = figure("slide_the_box", viewport={"width": 1280, "height": 1000})
    box = slide.get_by_role("slider")
    box.scroll_into_view_if_needed()
    place, mouse = box.bounding_box(), slide.page.mouse
    assert place is not None
    x, y = place["x"] + 0.7 * place["width"], place["y"] + place["height"] / 2
    mouse.move(x, y)
    mouse.down()
    mouse.move(x, y + 30)
    mouse.move(x, y + 400)
    mouse.up()
    check_the_box(slide, 14, 0)
    mouse.move(x, y)
    check_the_box(slide, 14, 0)


def touch(page: Page, *places: tuple[float, float]) -> None:
    """A finger is put on the first place, drawn over the others and lifted."""
    session = page.context.new_cdp_session(page)
    for k, (x, y) in enumerate(places):
        kind = "touchMove" if k else "touchStart"
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def middle(node: Locator) -> tuple[float, float]:
    place = node.bounding_box()
    assert place is not None
    return place["x"] + place["width"] / 2, place["y"] + place["height"] / 2


def on_a_phone(figure: Open, name: str) -> Locator:
    return figure(name, viewport=PHONE, has_touch=True, is_mobile=True)


def test_the_box_by_touch_on_a_phone(figure: Open) -> None:
    slide = on_a_phone(figure, "slide_the_box")
    box = slide.get_by_role("slider")
    box.scroll_into_view_if_needed()
    x, y = middle(box)
    before = slide.page.evaluate("scrollY")
    touch(slide.page, (x, y), (x, y - 30), (x, y - 60), (x, y - 300))
    check_the_box(slide, 0, 0)
    assert slide.page.evaluate("scrollY") == before, "the page stays where it is"
    slide.get_by_role("gridcell").nth(9).tap()
    assert "Row 2, column 2" in slide.locator(".formula").inner_text()


# The points.


class State:
    """What a reader has set, and what the library says of it."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.points = torch.tensor(data["points"], dtype=torch.float64)
        self.labels = torch.tensor(data["people"])
        self.rate: float = data["rate"]
        self.margin: float | None = data["margin"]
        self.unit = False

    def compute(self) -> tuple[losses.TripletTerm, torch.Tensor]:
        """The term, and minus its gradient."""
        points = self.points.clone().requires_grad_()
        losses.global_triplet(points, self.labels, self.margin, self.unit).loss.backward()
        assert points.grad is not None
        return losses.global_triplet(self.points, self.labels, self.margin, self.unit), -points.grad

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.points = self.points + self.rate * self.compute()[1]


def check_the_points(figure: Locator, state: State, *, mined: bool = True) -> None:
    """Compares all that is shown with the library; `mined` is off where samples are equally hard."""
    term, push = state.compute()
    names = ["A1", "A2", "A3", "B1", "B2", "B3"]
    columns = {
        name: figure.locator(f"tbody .{name}").all_inner_texts()
        for name in ("positive", "negative", "gap", "term", "push")
    }
    gaps = term.mined.positive_distance - term.mined.negative_distance
    terms = [float(losses.triplet_loss(gap[None], torch.zeros(1), state.margin)) for gap in gaps]
    grips = figure.locator(".grip")
    for i in range(6):
        assert (grips.nth(i).get_attribute("aria-label") or "").startswith(names[i])
        assert numbers((grips.nth(i).get_attribute("aria-label") or "")[2:])[:2] == pytest.approx(
            state.points[i].tolist(), abs=HUNDREDTH
        )
        for column, index, distance in (
            ("positive", term.mined.positive, term.mined.positive_distance),
            ("negative", term.mined.negative, term.mined.negative_distance),
        ):
            name, value = columns[column][i].split()
            assert numbers(value) == pytest.approx([float(distance[i])], abs=HUNDREDTH)
            assert not mined or name == names[int(index[i])]
        assert numbers(columns["gap"][i]) == pytest.approx([float(gaps[i])], abs=HUNDREDTH)
        assert numbers(columns["term"][i]) == pytest.approx([terms[i]], abs=THOUSANDTH)
        assert numbers(columns["push"][i]) == pytest.approx(push[i].tolist(), abs=HUNDREDTH)
    summed = numbers(figure.locator(".loss").inner_text())
    assert summed == pytest.approx([*terms, 6, float(term.loss)], abs=THOUSANDTH), "the sum by hand"

    # The drawing: circles around the anchor, in the units of the plane; an arrow where there is a push.
    anchor = grips.evaluate_all("all => all.findIndex(grip => grip.getAttribute('aria-pressed') === 'true')")
    scale = 340 / 6.4
    radius = {
        name: float(figure.locator(f"circle.{name}").get_attribute("r") or 0) / scale
        for name in ("positive", "negative")
    }
    assert radius["positive"] == pytest.approx(float(term.mined.positive_distance[anchor]), abs=1e-4)
    assert radius["negative"] == pytest.approx(float(term.mined.negative_distance[anchor]), abs=1e-4)
    band = figure.locator("circle.band")
    assert float(band.get_attribute("stroke-width") or 0) / scale == pytest.approx(state.margin or 0)
    arrows = figure.locator("svg > path").evaluate_all("all => all.map(arrow => arrow.getAttribute('d'))")
    for i, arrow in enumerate(arrows):
        assert bool(arrow) == (1.9 * float(push[i].norm()) > 0.02)
        if arrow:
            x0, y0, x1, y1 = map(float, re.findall(r"-?[\d.]+(?:e-?\d+)?", arrow)[:4])
            drawn = np.array([x1 - x0, y0 - y1]) / scale
            length = min(1.9 * float(push[i].norm()), 3)
            assert drawn == pytest.approx((push[i] / push[i].norm() * length).numpy(), abs=1e-3)
    bars = figure.locator("tbody svg rect").evaluate_all(
        "all => all.map(bar => [bar.getAttribute('x'), bar.getAttribute('width')].map(parseFloat))"
    )
    for (left, width), gap in zip(bars, gaps.tolist(), strict=True):
        end = left if gap < 0 else left + width
        assert (end - 40) / 20 == pytest.approx(min(max(gap, -2), 2), abs=1e-4)


def press(figure: Locator, state: State, i: int, key: str, times: int = 1, shift: bool = False) -> None:
    grip = figure.locator(".grip").nth(i)
    grip.focus()
    for _ in range(times):
        grip.press(f"Shift+{key}" if shift else key)
    sign = {"ArrowUp": (0, 1), "ArrowDown": (0, -1), "ArrowRight": (1, 0), "ArrowLeft": (-1, 0)}[key]
    state.points[i] += torch.tensor(sign, dtype=torch.float64) * POINT * times * (5 if shift else 1)


def test_the_points_by_keyboard(figure: Open) -> None:
    """Points, margin, soft margin and unit length are changed with keys; every state is the library's."""
    pull = figure("pull_the_points")
    state, page = State(data_of(pull)), pull.page
    check_the_points(pull, state)
    press(pull, state, 4, "ArrowLeft", 7)
    check_the_points(pull, state)
    press(pull, state, 0, "ArrowDown", 2, shift=True)
    check_the_points(pull, state)
    pull.get_by_label("margin", exact=True).focus()
    for _ in range(9):
        page.keyboard.press("ArrowRight")
    state.margin = 1.2
    check_the_points(pull, state)
    pull.get_by_label("unit length").focus()
    page.keyboard.press("Space")
    state.unit = True
    check_the_points(pull, state)
    pull.get_by_label("soft margin").focus()
    page.keyboard.press("Space")
    state.margin = None
    check_the_points(pull, state)
    press(pull, state, 5, "ArrowUp", 4)
    check_the_points(pull, state)
    pull.get_by_label("unit length").uncheck()
    state.unit = False
    check_the_points(pull, state)


@pytest.mark.parametrize("setting", ["margin", "soft margin", "unit length"])
def test_twenty_steps(figure: Open, setting: str) -> None:
    pull = figure("pull_the_points", reduced_motion="no-preference" if setting == "margin" else "reduce")
    state = State(data_of(pull))
    if setting != "margin":
        pull.get_by_label(setting).check()
    state.unit = setting == "unit length"
    state.margin = None if setting == "soft margin" else state.margin
    before = float(state.compute()[0].loss)
    pull.get_by_role("button", name="20 steps").focus()
    left = pull.evaluate("figure => { document.activeElement.click(); return figure.dataset.steps; }")
    assert (left == "0") == (setting != "margin"), "all at once only where the reader wants no motion"
    pull.page.wait_for_function("() => document.querySelector('.pull_the_points').dataset.steps === '0'")
    state.steps(20)
    check_the_points(pull, state)
    assert float(state.compute()[0].loss) < before, "steps go down"


def test_collapsed_points_stay_where_they_are(figure: Open) -> None:
    """All distances are equal: the loss is the margin, or ln 2, and nothing moves (exercise 2 of the chapter)."""
    pull = figure("pull_the_points", reduced_motion="reduce")
    state = State(data_of(pull))
    middle = state.points.mean(0).mul(10).round() / 10
    state.points = middle.repeat(6, 1)
    pull.get_by_role("button", name="Collapsed").click()
    for margin, unit in ((0.3, False), (0.3, True), (None, False)):
        pull.get_by_label("unit length").set_checked(unit)
        pull.get_by_label("soft margin").set_checked(margin is None)
        state.margin, state.unit = margin, unit
        check_the_points(pull, state, mined=False)
        assert numbers(pull.locator(".loss").inner_text())[-1] == pytest.approx(margin or np.log(2), abs=THOUSANDTH)
        pull.get_by_role("button", name="20 steps").click()
        check_the_points(pull, state, mined=False)
    pull.get_by_label("soft margin").uncheck()
    pull.get_by_role("button", name="Start").click()
    check_the_points(pull, State(data_of(pull)))


def test_a_point_by_mouse_and_by_touch(figure: Open) -> None:
    for pull in (figure("pull_the_points"), on_a_phone(figure, "pull_the_points")):
        state = State(data_of(pull))
        grip = pull.locator(".grip").nth(3)
        grip.scroll_into_view_if_needed()
        x, y = middle(grip.locator(".dot"))
        if pull.page.viewport_size == PHONE:
            touch(pull.page, (x, y), (x + 10, y + 8), (x + 20, y + 40))
        else:
            mouse = pull.page.mouse
            mouse.move(x, y)
            mouse.down()
            mouse.move(x + 10, y + 8)
            mouse.move(x + 20, y + 40)
            mouse.up()
        label = grip.get_attribute("aria-label") or ""
        scale = pull.evaluate("figure => figure.querySelector('svg').getScreenCTM().a * 340 / 6.4")
        moved = torch.tensor(numbers(label[2:])[:2], dtype=torch.float64) - state.points[3]
        assert moved.tolist() == pytest.approx([20 / scale, -40 / scale], abs=0.03)
        state.points[3] += moved
        check_the_points(pull, state)
        assert "Anchor B1" in pull.locator(".chosen").inner_text()


def test_a_point_stays_in_the_plane_and_off_the_origin(figure: Open) -> None:
    pull = figure("pull_the_points")
    grip = pull.locator(".grip").nth(2)  # at 0, 0.9
    grip.focus()
    for _ in range(9):
        grip.press("ArrowDown")
    assert numbers((grip.get_attribute("aria-label") or "")[2:])[:2] == [0.1, 0]
    for _ in range(30):
        grip.press("Shift+ArrowLeft")
    assert numbers((grip.get_attribute("aria-label") or "")[2:])[:2] == [-1.5, 0]


# Both.


def test_without_scripts_the_static_figure_is_shown(figure: Open) -> None:
    for name, touched in both(figure, java_script_enabled=False):
        assert touched.locator("> img").is_visible(), name
        assert touched.locator("> img").get_attribute("alt")
        assert touched.locator(".live").count() == 0


def test_in_print_the_static_figure_is_shown(figure: Open) -> None:
    for name, touched in both(figure):
        shown = [touched.locator("> img").is_visible(), touched.locator(".live").is_visible()]
        assert shown == [False, True], name
        touched.page.emulate_media(media="print")
        shown = [touched.locator("> img").is_visible(), touched.locator(".live").is_visible()]
        assert shown == [True, False], name


def test_nothing_is_wider_than_a_phone(figure: Open) -> None:
    for name in PAGES:
        touched = on_a_phone(figure, name)
        assert touched.page.evaluate(WIDE) == []
        inner = touched.evaluate("""figure => [...figure.querySelectorAll('.live, .live > *, .scroll, table, svg')]
          .filter(node => node.getBoundingClientRect().right > innerWidth)
          .map(node => node.outerHTML.slice(0, 80))""")
        assert inner == [], name


# The contrast of each text with what is behind it, and of lines and focus marks with the page.
CONTRAST = """figure => {
  const rgb = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => rgb(colour).slice(0, 3).map(v => v / 255)
    .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [.2126, .7152, .0722][k], 0);
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => p - q); return (y + .05) / (x + .05); };
  const mixed = (over, under) => {
    const [r, g, b, a = 1] = rgb(over), below = rgb(under);
    return `rgb(${[r, g, b].map((v, k) => a * v + (1 - a) * below[k])})`;
  };
  const ground = (node) => {
    const colour = getComputedStyle(node).backgroundColor;
    if (!node.parentElement || !/, 0\\)|transparent/.test(colour)) return colour;
    return ground(node.parentElement);
  };
  const page = ground(figure);
  const found = [];
  for (const text of figure.querySelectorAll('svg text, output, button, label, td, th')) {
    if (!text.textContent.trim() || !text.getClientRects().length) continue;
    const style = getComputedStyle(text), own = text instanceof SVGElement ? style.fill : style.color;
    let behind = mixed(ground(text), page);
    const cell = text.closest('[role=gridcell]');
    if (cell) {
      const all = [...figure.querySelectorAll('[role=gridcell]')];
      const fields = [...figure.querySelectorAll('[role=grid] > g[aria-hidden] > rect')];
      behind = mixed(getComputedStyle(fields[all.indexOf(cell)]).fill, page);
    } else if (text.closest('.swatch'))
      behind = getComputedStyle(text.previousElementSibling).fill;
    const value = ratio(mixed(own, behind), behind);
    if (value < 4.5) found.push(`${text.textContent.slice(0, 20)}: ${value.toFixed(2)} (${own} on ${behind})`);
  }
  for (const name of ['--same', '--other']) {
    const probe = document.createElement('i');
    probe.style.color = `var(${name})`;
    figure.append(probe);
    const value = ratio(getComputedStyle(probe).color, page);
    if (value < 3) found.push(`${name}: ${value.toFixed(2)}`);
    probe.remove();
  }
  return [page, found];
}"""


def test_light_and_dark(figure: Open) -> None:
    for name, touched in both(figure):
        touched.page.add_style_tag(content="* { transition: none !important }")
        pages = []
        for mode in ("light", "dark"):
            touched.page.evaluate("mode => { document.documentElement.dataset.theme = mode; }", mode)
            for press in ("Step", None) if name == "slide_the_box" else (None,):
                if press:
                    touched.get_by_role("button", name=press, exact=True).click()
                page, found = touched.evaluate(CONTRAST)
                assert found == [], f"{name}, {mode}"
                if press:
                    touched.get_by_role("button", name="Costs").click()
            pages.append(page)
        assert pages[0] != pages[1], "the page itself changed"


def test_focus_is_seen_and_everything_is_named(figure: Open) -> None:
    for name, touched in both(figure):
        touched.page.add_style_tag(content="* { transition: none !important }")
        first = touched.locator("[tabindex='0'], button, input").first
        first.focus()
        seen = 0
        while touched.evaluate("figure => figure.contains(document.activeElement)"):
            ring, words = touched.page.evaluate(
                """() => {
                const node = document.activeElement, mark = node.querySelector('.ring');
                const style = getComputedStyle(mark || node);
                return [mark ? style.stroke !== 'none' && parseFloat(style.strokeWidth) >= 2 :
                  style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
                  node.getAttribute('aria-label') || (node.closest('label') || node).textContent];
            }"""
            )
            assert ring and words.strip(), f"{name}: {words}"
            seen += 1
            touched.page.keyboard.press("Tab")
        assert seen == {"slide_the_box": 5, "pull_the_points": 12, "who_knows_whom": 9}[name]


def test_two_on_a_page_do_not_disturb_each_other(browser: Browser, site: str, tmp_path: Path) -> None:
    for name in PAGES:
        page_name = FIGURES[name]
        source = (SITE / page_name).read_text()
        start = source.index(f'<div class="touch {name}"')
        (piece := source[start : source.index("</div>", source.index("})();</script>", start)) + 6])
        (tmp_path / f"{name}.html").write_text(f"<!doctype html><meta charset=utf-8>{piece}{piece}")
    for address in serve(tmp_path):
        page = browser.new_page()
        page.goto(f"{address}/slide_the_box.html")
        one, two = (page.locator(".touch").nth(k) for k in range(2))
        two.get_by_role("slider").press("End")
        check_the_box(one, 6, 0)
        check_the_box(two, 14, 0)
        page.goto(f"{address}/pull_the_points.html")
        state = State(data_of(one))
        two.get_by_role("button", name="Collapsed").click()
        check_the_points(one, state)
        assert numbers(two.locator(".loss").inner_text())[-1] == pytest.approx(0.3)
        page.close()
