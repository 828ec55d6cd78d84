"""The front page's figure: chapter 04's box slides by itself, with the chapter's numbers, and without a script.

Each position is drawn once; the style shows one after another. For a reader who prefers no motion, and in print, one
position is shown.
"""

import html
import json
import re
from typing import Any

UNIT = 18  # units per stripe
MATCH = 0.3  # below this cost a stripe matches, as in chapter 04
SECONDS = 0.4  # per position
HOLD = 4  # positions' time at each end and at the perfect box
DATA = re.compile(r'<div class="touch slide_the_box".*?<script type="application/json">(.*?)</script>', re.DOTALL)
BAR = 250  # the length of the longest bar


def data_of(notebook: Any) -> dict[str, Any]:
    """The data of the interactive figure in the executed chapter 04.

    Raises:
        ValueError: it is not there.
    """
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if found := DATA.search(output.get("data", {}).get("text/html", "")):
                data: dict[str, Any] = json.loads(found[1])
                return data
    raise ValueError(
        "04_alignment.ipynb shows no slide_the_box, which the front page shows: make pairs ONLY=04 FORCE=1"
    )


def where(shift: float) -> str:
    """A position in words."""
    return f"{abs(shift):g}/8 too {'low' if shift > 0 else 'high'}" if shift else "perfect"


def order(shifts: list[float]) -> list[int]:
    """The positions in the order in which they are shown: perfect, down, up, and back to perfect."""
    zero, last = shifts.index(0), len(shifts) - 1
    down, up = [*range(zero + 1, last)], [*range(last - 1, zero, -1)]
    high = [*range(zero - 1, 0, -1)]
    return [*[zero] * HOLD, *down, *[last] * HOLD, *up, *[zero] * HOLD, *high, *[0] * HOLD, *reversed(high)]


def claim(data: dict[str, Any]) -> float:
    """From which position on the rigid distance is a stranger's, in eighths; the aligned one is nearer everywhere.

    Raises:
        ValueError: the data show something else, and the caption would be wrong.
    """
    rigid, aligned = data["strangers"]
    far = {abs(shift) for shift, value in zip(data["shifts"], data["rigid"], strict=True) if value >= rigid}
    if not far or max(data["aligned"]) >= aligned:
        raise ValueError("chapter 04's box no longer shows what the front page claims: change sliding.py's caption")
    return min(far)


def picture(data: dict[str, Any], x: float, top: float, more: str = "") -> str:
    """The street, clipped to a box of eight stripes whose upper edge is `top` stripes below the street's."""
    width = data["size"][0] * UNIT * 15 / data["size"][1]
    return (
        f'<svg x="{x:g}" y="{UNIT * top:g}" width="{width:g}" height="{UNIT * 8}" {more}>'
        f'<use href="#street" y="{-UNIT * top:g}"/></svg>'
        f'<rect x="{x:g}" y="{UNIT * top:g}" width="{width:g}" height="{UNIT * 8}" class="slide-box"/>'
    )


def swatches(colours: list[list[float]], full: float, x: float, top: float) -> str:
    """The mean colour of each stripe."""
    fills = [",".join(f"{255 * value / full:.0f}" for value in colour) for colour in colours]
    return "".join(
        f'<rect x="{x:g}" y="{UNIT * (top + i):g}" width="12" height="{UNIT}" fill="rgb({fill})"/>'
        for i, fill in enumerate(fills)
    )


def drawing(data: dict[str, Any]) -> tuple[str, str, list[str]]:
    """What stays, the definitions of all positions, and the names of those for the boxes and for the bars."""
    shifts, costs = data["shifts"], data["costs"]
    width, height = (value * UNIT * 15 / data["size"][1] for value in data["size"])
    zero, right = -shifts[0], 340 - width
    image = f'<image id="street" href="{data["street"]}" width="{width:g}" height="{height:g}"/>'
    stays = picture(data, 0, zero) + swatches(data["stripes"][shifts.index(0)], data["full"], width + 3, zero)
    stays += f'<use href="#street" x="{right:g}" opacity=".35"/>'
    stays += f'<text x="0" y="{UNIT * zero - 7:g}">perfect box</text>'
    frames = []
    for k, shift in enumerate(shifts):
        top = shift - shifts[0]
        paths = {"slide-match": "", "slide-rest": ""}
        for i, j in data["paths"][k]:
            ends = UNIT * (zero + i + 0.5), UNIT * (top + j + 0.5)
            kind = "slide-match" if costs[k][i][j] < MATCH else "slide-rest"
            paths[kind] += f"M{width + 17:g} {ends[0]:g}L{right - 17:g} {ends[1]:g}"
        lines = "".join(f'<path class="{kind}" d="{path}"/>' for kind, path in paths.items() if path)
        words = f'<text x="340" y="{UNIT * top - 7:g}" text-anchor="end">box {where(shift)}</text>'
        box = picture(data, right, top) + swatches(data["stripes"][k], data["full"], right - 15, top)
        frames.append(f'<g id="box-{k}">{box}{lines}{words}</g><g id="bars-{k}">{bars(data, k)}</g>')
    return stays, image + "".join(frames), [where(shift) for shift in shifts]


def bars(data: dict[str, Any], k: int) -> str:
    """Both distances of a position as bars; the dashed line is the distance of a stranger."""
    parts = []
    for row, (name, stranger) in enumerate(zip(("rigid", "aligned"), data["strangers"], strict=True)):
        value, y = data[name][k], 62 * row + 26
        share = value / stranger
        kind = "slide-far" if share >= 1 else "slide-near"
        parts.append(
            f'<rect class="{kind}" x="0" y="{y}" width="{BAR / 1.25 * share:.1f}" height="20"/>'
            f'<text class="{name}" x="290" y="{y - 6}" text-anchor="end">{value:.2f}</text>'
        )
    return "".join(parts)


def figure(data: dict[str, Any]) -> str:
    """The figure in HTML."""
    stays, defined, words = drawing(data)
    from_where = claim(data)
    shown = order(data["shifts"])
    seconds = SECONDS * len(shown)
    still = next(t for t, k in enumerate(shown) if data["shifts"][k] == from_where + 0.5)

    def frames(kind: str) -> str:
        parts = []
        for t, k in enumerate(shown):
            names = "frame still" if t == still else "frame"
            parts.append(f'<use href="#{kind}-{k}" class="{names}" style="animation-delay:{t * SECONDS:.1f}s"/>')
        return "".join(parts)

    low, high = words[-1].removesuffix(" too low"), words[0].removesuffix(" too high")
    seen = (
        f"A box slides over a street from {high} of its height too high to {low} too low. Lines join its stripes with "
        "those of a perfect box around the same person, as the shortest path matches them. Two bars show the rigid and "
        "the aligned distance between the boxes: the rigid one grows past the distance of a stranger, the aligned one "
        "does not."
    )
    edge = BAR / 1.25
    fixed = (
        '<text x="0" y="20">rigid: stripe 1 with stripe 1</text>'
        '<text x="0" y="82">aligned: along the shortest path</text>'
        f'<path class="stranger" d="M{edge:g} 20V50M{edge:g} 82V112"/>'
        f'<text x="{edge:g}" y="128" text-anchor="middle">a stranger</text>'
    )
    one = 100 / len(shown)
    return f"""<figure class="sliding align-default">
<style>@keyframes sliding {{ 0% {{ visibility: visible }} {one:.3f}% {{ visibility: hidden }} }}
.sliding .frame {{ animation: sliding {seconds:.1f}s step-end infinite }}</style>
<div role="img" aria-label="{html.escape(seen)}">
<svg viewBox="-2 -20 344 {15 * UNIT + 24}" aria-hidden="true">
<defs>{defined}</defs>{stays}{frames("box")}</svg>
<svg viewBox="-2 0 294 134" aria-hidden="true">{fixed}{frames("bars")}</svg>
</div>
<label><input type="checkbox"> pause</label>
<figcaption><p>One person in two boxes. Compared stripe by stripe, she is as far from herself as a stranger once the box
is off by {from_where:g}/8 of its height. Aligned by the shortest path, she stays nearer than a stranger at every
position. <a class="reference internal" href="04_alignment.html#slide-the-box">Slide the box yourself</a> in chapter 4.
</p></figcaption>
</figure>"""
