const { cards, start, size: [wide, tall] } = data, [person, camera] = data.query, n = cards.length;
let list = [], chosen = -1, moved = false;
// Fractions.
const gcd = (a, b) => (b ? gcd(b, a % b) : a), over = (a, b) => [a / gcd(a, b), b / gcd(a, b)];
const plus = (x, y) => over(x[0] * y[1] + y[0] * x[1], x[1] * y[1]), times = (x, y) => over(x[0] * y[0], x[1] * y[1]);
const sum = (all) => all.reduce(plus, [0, 1]), share = ([a, b]) => a / b, said = ([a, b]) => (b > 1 ? `${a}/${b}` : a);
const decimal = (x) => `${said(x)} ${(1000 * x[0]) % x[1] ? "≈" : "="} ${fixed(share(x), 3)}`;
// The scores.
const label = ({ card, kind }) => cards[card][kind], isOf = (id) => (one) => label(one)[0] === id, elsewhere = (one) => label(one)[1] !== camera;
const role = (one) => (!isOf(person)(one) ? "wrong" : elsewhere(one) ? "match" : "ignored");
const compute = () => {
  let j = 0;
  const walk = list.filter((one) => role(one) !== "ignored").map((one, k) => {
    const before = k ? over(j, k) : [1, 1], hit = role(one) === "match";
    j += hit;
    return { one, hit, rank: k + 1, j, before, precision: over(j, k + 1) };
  });
  const matches = walk.filter((x) => x.hit), mean = (all) => times(sum(all), [1, j || 1]);
  // One image per identity is drawn, from other cameras.
  const pool = list.filter(elsewhere), ids = [...new Set(pool.map((one) => label(one)[0]))].sort((a, b) => a - b);
  const count = (id, some = pool) => some.filter(isOf(id)).length;
  const draws = matches.map(({ one }) => {
    const coins = ids.filter((id) => id !== person).map((id) => [count(id, pool.slice(0, pool.indexOf(one))), count(id), id]);
    const add = (p, [a, b]) => [...p, [0, 1]].map((now, k) => plus(times(now, over(b - a, b)), k ? times(p[k - 1], over(a, b)) : [0, 1]));
    return { coins, ranks: coins.reduce(add, [[1, 1]]) };
  });
  return { walk, matches, m: j, ids, count, draws,
    step: mean(matches.map((x) => x.precision)), trapezoid: mean(matches.map((x) => times(plus(x.precision, x.before), [1, 2]))),
    cmc: {
      market1501: (k) => [+(matches[0].rank <= k), 1],
      allshots: (k) => over(matches.filter((x) => x.rank - x.j < k).length, j),
      cuhk03: (k) => mean(draws.map((x) => sum(x.ranks.slice(0, k)))),
    } };
};
// The cards.
const view = (card, kind) => `${card * wide} ${kind * tall} ${wide} ${tall}`;
const image = () => s("svg", { viewBox: view(0, 0) }, s("image", { href: data.sheet, width: wide * (n + 1), height: tall * cards[0].length }));
const slots = range(n).map((k) => h("button", { type: "button", onfocus: () => { chosen = k; draw(); }, onclick: (event) => event.detail || turn(k) }, image(), h("b"), h("span")));
const shift = (to) => {
  list.splice(to, 0, ...list.splice(chosen, 1));
  chosen = to;
};
const turn = (k) => {
  list[k] = { ...list[k], kind: (list[k].kind + 1) % cards[0].length };
  chosen = k;
  draw();
};
slots.forEach((slot, k) => {
  drag({ getScreenCTM: () => new DOMMatrix() }, slot, (from) => {
    const middles = slots.map((one) => one.getBoundingClientRect()).map((b) => [b.x + b.width / 2, b.y + b.height / 2]);
    [chosen, moved] = [k, false];
    return (to) => {
      if (!(moved ||= Math.hypot(to.x - from.x, to.y - from.y) > 6)) return;
      const far = middles.map(([x, y]) => Math.hypot(to.x - x, to.y - y));
      shift(far.indexOf(Math.min(...far)));
      draw();
      put(slots[chosen], { style: `z-index:2;translate:${to.x - middles[chosen][0]}px ${to.y - middles[chosen][1]}px` });
    };
  });
  put(slot, { onpointerup: () => (moved ? slots[chosen].focus({ preventScroll: true }) : turn(k)), onlostpointercapture: () => draw() });
  keys(slot, { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, Home: -n, End: n }, (by) => {
    chosen = k;
    shift(within(k + by, 0, n - 1));
    slots[chosen].focus();
  });
});
const told = h("output", { class: "told" });
// Precision over recall.
const X = (x) => 30 + 250 * x, Y = (y) => 14 + 150 * (1 - y), P = (...points) => `M${points.map(([x, y]) => `${X(x)} ${Y(y)}`).join("L")}`;
const write = (x, y, text) => s("text", { x, y, text, "text-anchor": "middle" });
const plots = ["step", "trapezoid"].map((name) => {
  const [axes, area, gap, line] = ["axes", "area", "gap", "line"].map((part) => s("path", { class: part })), marks = s("g"), text = h("output", { class: name });
  put(axes, { d: P([0, 1], [0, 0], [1, 0]) });
  return { name, area, gap, line, marks, text, node: h("div", {}, s("svg", { viewBox: "0 0 300 194", role: "img", "aria-label": `precision over recall, ${name}` }, axes,
    ...[0, .5, 1].flatMap((v) => [write(X(v), 178, v), write(17, Y(v) + 4, v)]), write(155, 192, "recall"), write(25, 6, "precision"), area, gap, line, marks), text) };
});
const plot = ({ name, area, gap, line, marks, text }, { walk, matches, m, step, trapezoid }) => {
  const is = name === "step", value = is ? step : trapezoid;
  const slices = matches.map((x) => [(x.j - 1) / m, x.j / m, share(x.before), share(x.precision)]);
  put(area, { d: slices.map(([left, right, low, high]) => P([left, 0], [left, is ? high : low], [right, high], [right, 0])).join("") });
  put(gap, { d: is ? "" : slices.map(([left, right, low, high]) => P([left, low], [left, high], [right, high])).join("") });
  put(line, { d: P([0, 1], ...walk.map((x) => [x.j / (m || 1), share(x.precision)])) });
  marks.replaceChildren(...walk.flatMap(({ one, hit, rank, j, precision }) => {
    const x = X(j / (m || 1)), y = Y(share(precision)), r = one === list[chosen] ? 6 : 4;
    return hit ? [s("circle", { cx: x, cy: y, r, fill: "var(--same)" }), write(x, y - 9, `${j}/${rank}`)]
      : s("path", { d: `M${x - r} ${y - r}l${2 * r} ${2 * r}m0-${2 * r}l-${2 * r} ${2 * r}`, style: "stroke:var(--other)" });
  }));
  const terms = matches.map(({ j, rank }) => (is ? `${j}/${rank}` : `(${j}/${rank} + ${rank > 1 ? `${j - 1}/${rank - 1}` : 1})/2`));
  text.textContent = `${name} AP = ` + (m ? `(${terms.join(" + ")}) / ${m}\n= ${decimal(value)}` + (is ? "" : `\ngap to step (dashed): ${decimal(plus(step, [-value[0], value[1]]))}`) : "0/0: there is no match");
};
// The CMC.
const why = {
  market1501: ({ matches }) => `the first match has rank ${matches[0].rank}.`,
  allshots: ({ matches }) => `wrong images before the matches: ${matches.map((x) => x.rank - x.j).join(", ")}.`,
  cuhk03: ({ ids, count, draws }) => `drawn from other cameras: ${ids.map((id) => `1 of ${count(id)} of id ${id}`).join(", ")}.\n`
    + draws.map(({ coins, ranks }, i) => `Match ${i + 1}: ${coins.map(([a, b, id]) => `P(id ${id} before it) = ${a}/${b}, `).join("")}`
      + ranks.flatMap((p, k) => (p[0] ? `P(rank ${k + 1}) = ${said(p)}` : [])).join(", ")).join("\n"),
};
const rows = Object.entries(why).map((row) => [...row, range(n).map(() => h("td"))]);
const table = h("table", {}, h("thead", {}, h("tr", {}, h("th", { text: "CMC(k), k =" }), ...range(n).map((k) => h("th", { text: k + 1 })))),
  h("tbody", {}, ...rows.map(([name, , cells]) => h("tr", {}, h("th", { text: name }), ...cells))));
const reason = h("output", { class: "reason" });
const draw = () => {
  const found = compute(), { m, walk, count } = found;
  told.textContent = "Drag a card or use arrow keys; click it to change its image.";
  slots.forEach((slot, k) => {
    const one = list[k], what = role(one), [id, by] = label(one), { rank } = walk.find((x) => x.one === one) || {};
    const [picture, sign, text] = slot.children, facts = [`id ${id}`, `camera ${by}`, rank ? `rank ${rank}` : "no rank", by === camera ? "not drawn" : `drawn 1/${count(id)}`];
    put(picture, { viewBox: view(one.card + 1, one.kind) });
    sign.textContent = ({ match: "✓ ", wrong: "✗ " }[what] || "") + what;
    text.textContent = facts.join("\n");
    const words = `Position ${k + 1}: ${what}, ${facts.join(", ")}`;
    put(slot, { class: `grip ${what}`, style: "", "aria-label": words });
    if (k === chosen) told.textContent = words;
  });
  plots.forEach((one) => plot(one, found));
  rows.forEach(([name, , cells]) => cells.forEach((cell, k) => {
    const value = m ? found.cmc[name](k + 1) : [0, 1];
    put(cell, { text: m ? said(value) : "–", style: `--high:${100 * share(value)}%` });
  }));
  reason.textContent = m ? rows.map(([name, tell]) => `${name}: ${tell(found)}`).join("\n") : "A query without a match is not valid: all means leave it out.";
};
const preset = (text, sorted) => h("button", { type: "button", text, onclick: () => { [list, chosen] = [sorted(), -1]; draw(); } });
const begin = () => start.map((kind, card) => ({ card, kind }));
list = begin();
draw();
show("Order the list", h("style", { text: `.order_the_list {
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(4rem, 1fr)); gap: .3rem; }
.cards > * { padding: .1rem; border: 3px double; font-size: .7rem; line-height: 1.3; text-align: center; }
.cards svg { overflow: hidden; }
path { fill: none; stroke: #888; stroke-width: 2; }
.area { fill: var(--same); fill-opacity: .3; stroke: none; }
.line { stroke: var(--same); }
.gap { stroke: var(--other); stroke-dasharray: 4 3; }
.cards > * > * { display: block; white-space: pre; }
.match { border: 3px solid var(--same); }
.wrong { border: 3px dashed var(--other); }
.ignored { border: 3px dotted #888; svg { opacity: .35; } }
tbody td { min-width: 1.8rem; height: 2.2rem; padding: 0 1px; text-align: center; background: linear-gradient(to top, color-mix(in srgb, var(--same) 35%, transparent) var(--high, 0), var(--faint) 0) content-box; }
thead th { text-align: center; } }` }),
  h("div", { class: "wide" }, h("div", { class: "cards" }, h("div", {}, image(), h("b", { text: "query" }), h("span", { text: `id ${person}\ncamera ${camera}` })), ...slots), told,
    h("div", { class: "controls" }, preset("Start", begin), preset("Reverse", () => [...list].reverse()), preset("Matches first", () => [...list].sort((a, b) => (role(b) === "match") - (role(a) === "match"))))),
  ...plots.map(({ node }) => node), h("div", { class: "wide" }, h("div", { class: "scroll" }, table), reason));
