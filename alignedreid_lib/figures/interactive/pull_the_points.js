const { people, rate } = data, n = people.length, names = people.map((who, i) => "AB"[who] + (people.slice(0, i).filter((w) => w === who).length + 1));
const copy = (points) => points.map((point) => [...point]), tiny = 1e-12;
let points = copy(data.points), margin = data.margin, soft = false, unit = false, anchor = 0, timer = 0;
const add = (a, b, k = 1) => [a[0] + k * b[0], a[1] + k * b[1]], long = ([x, y]) => Math.hypot(x, y);
// The loss of all points and its gradient: distances, batch-hard mining, the triplet loss, and back.
const compute = (x) => {
  const lengths = x.map((p) => long(p) + tiny), u = unit ? x.map((p, i) => [p[0] / lengths[i], p[1] / lengths[i]]) : x;
  const squares = u.map((p) => u.map((q) => long(add(p, q, -1)) ** 2)), d = squares.map((row) => row.map((v) => Math.sqrt(Math.max(v, tiny))));
  const gradient = u.map(() => [0, 0]);
  const pull = (a, b, weight) => {
    if (squares[a][b] < tiny) return;
    const way = add(u[a], u[b], -1).map((v) => (weight * v) / (n * d[a][b]));
    gradient[a] = add(gradient[a], way);
    gradient[b] = add(gradient[b], way, -1);
  };
  const anchors = range(n).map((a) => {
    const others = range(n).filter((i) => i !== a);
    const positive = others.filter((i) => people[i] === people[a]).reduce((best, i) => (d[a][i] > d[a][best] ? i : best));
    const negative = others.filter((i) => people[i] !== people[a]).reduce((best, i) => (d[a][i] < d[a][best] ? i : best));
    const gap = d[a][positive] - d[a][negative];
    const term = soft ? Math.max(gap, 0) + Math.log1p(Math.exp(-Math.abs(gap))) : Math.max(0, gap + margin);
    const slope = soft ? 1 / (1 + Math.exp(-gap)) : +(gap + margin > 0);
    pull(a, positive, slope);
    pull(a, negative, -slope);
    return { positive, negative, near: d[a][positive], far: d[a][negative], gap, term };
  });
  if (unit) gradient.forEach((g, i) => {
    const along = g[0] * u[i][0] + g[1] * u[i][1];
    gradient[i] = add(g, u[i], -along).map((v) => v / lengths[i]);
  });
  return { u, anchors, gradient, loss: anchors.reduce((sum, one) => sum + one.term, 0) / n };
};
// The plane.
const low = [-1.6, -1.6], high = [4.8, 3.2], scale = 340 / (high[0] - low[0]), size = [340, (high[1] - low[1]) * scale];
const there = (p) => [(p[0] - low[0]) * scale, size[1] - (p[1] - low[1]) * scale];
const mark = (who, r, more) => who ? s("rect", { x: -r, y: -r, width: 2 * r, height: 2 * r, ...more }) : s("circle", { r, ...more });
const looks = [{ fill: "#009E73" }, { fill: "#CC79A7" }];
const band = s("circle", { class: "band", fill: "none", stroke: "var(--other)", "stroke-opacity": .25 });
const near = s("circle", { class: "positive", fill: "none", stroke: "var(--same)", "stroke-width": 2.5 });
const far = s("circle", { class: "negative", fill: "none", stroke: "var(--other)", "stroke-width": 2.5, "stroke-dasharray": "6 4" });
const ring = s("circle", { cx: there([0, 0])[0], cy: there([0, 0])[1], r: scale, fill: "none", stroke: "#888" });
const shadows = people.map((who) => s("g", {}, s("line", { stroke: "#888", "stroke-dasharray": "2 3" }), mark(who, 4, { ...looks[who], stroke: "currentColor" })));
const arrows = people.map(() => s("path", { fill: "none", stroke: "currentColor", "stroke-width": 2.5 }));
const grips = people.map((who, i) => s("g", { class: "grip", tabindex: 0, role: "button", onfocus: () => { anchor = i; draw(); } },
  s("circle", { r: 17, fill: "#0000" }), mark(who, 11, { class: "ring", fill: "none" }), mark(who, 7, { ...looks[who], stroke: "currentColor", class: "dot" }),
  s("text", { y: -14, "text-anchor": "middle", text: names[i] })));
const plane = s("svg", { viewBox: `0 0 ${size.join(" ")}`, style: "overflow:hidden", role: "group", "aria-label": "six features in the plane" },
  s("rect", { x: .5, y: .5, width: size[0] - 1, height: size[1] - 1, fill: "none", stroke: "#888" }), band, near, far, ring, ...shadows, ...arrows, ...grips);
const move = (i, to) => {
  stop();
  const p = to.map((v, k) => Math.round(100 * within(v, low[k] + .1, high[k] - .1)) / 100);
  points[i] = long(p) < .1 ? [.1, 0] : p; // at the origin a direction does not exist
  draw();
};
grips.forEach((grip, i) => {
  drag(plane, grip, (from) => {
    const before = points[i];
    return (now) => move(i, add(before, [now.x - from.x, from.y - now.y], 1 / scale));
  });
  keys(grip, { ArrowUp: [0, .1], ArrowDown: [0, -.1], ArrowRight: [.1, 0], ArrowLeft: [-.1, 0] }, (by, event) => move(i, add(points[i], by, event.shiftKey ? 5 : 1)));
});
// The numbers.
const cell = (name) => h(name === "anchor" ? "th" : "td", { class: name });
const columns = { anchor: "", positive: "positive", negative: "negative", gap: "gap", line: "−2 … 2", term: "loss", push: "−gradient" };
const rows = people.map(() => Object.fromEntries(Object.keys(columns).map((name) => [name, cell(name)])));
const gaps = rows.map((row) => {
  const bar = s("rect", { y: 3, height: 10 }), edge = s("line", { y1: 0, y2: 16, stroke: "currentColor", "stroke-dasharray": "3 2" });
  row.line.append(s("svg", { viewBox: "0 0 80 16", style: "width:clamp(4em, 40vw - 12em, 16em)", "aria-hidden": true }, bar, s("line", { x1: 40, x2: 40, y1: 0, y2: 16, stroke: "currentColor" }), edge));
  return { bar, edge };
});
const table = h("table", { "aria-label": "gaps and losses of the six anchors" }, h("thead", {}, h("tr", {}, ...Object.entries(columns).map(([name, text]) => put(cell(name), { text })))),
  h("tbody", {}, ...rows.map((row) => h("tr", {}, ...Object.values(row)))));
const loss = h("output", { class: "loss" }), chosen = h("output", { class: "chosen" });
const check = (text, set) => h("label", {}, h("input", { type: "checkbox", onchange: (event) => { stop(); set(event.target.checked); draw(); } }), text);
const value = h("span"), slider = h("input", { type: "range", min: 0, max: 2, step: .1, value: margin, "aria-label": "margin", oninput: () => { stop(); margin = +slider.value; draw(); } });
const stop = () => { clearTimeout(timer); timer = 0; };
const step = (left) => {
  const { gradient } = compute(points);
  points = points.map((p, i) => add(p, gradient[i], -rate));
  if (left > 1 && matchMedia("(prefers-reduced-motion: reduce)").matches) return step(left - 1);
  draw();
  timer = left > 1 ? setTimeout(() => step(left - 1), 60) : 0;
  put(root, { "data-steps": left - 1 });
};
const reset = (start) => () => { stop(); points = start(); draw(); };
const middle = data.points.reduce((sum, p) => add(sum, p, 1 / n), [0, 0]).map((v) => Math.round(10 * v) / 10);
const button = (text, act) => h("button", { type: "button", text, onclick: act });
const controls = h("div", { class: "controls" }, h("label", {}, slider, value), check("soft margin", (on) => { soft = on; slider.disabled = on; }), check("unit length", (on) => { unit = on; }),
  button("20 steps", () => { stop(); step(20); }), button("Start", reset(() => copy(data.points))), button("Collapsed", reset(() => points.map(() => [...middle]))));
const draw = () => {
  const { u, anchors, gradient, loss: sum } = compute(points), one = anchors[anchor], centre = there(u[anchor]), m = soft ? 0 : margin;
  const circle = (node, r, more) => put(node, { cx: centre[0], cy: centre[1], r: r * scale, ...more });
  circle(near, one.near);
  circle(far, one.far);
  circle(band, one.near + m / 2, { "stroke-width": m * scale });
  ring.style.display = unit ? "" : "none";
  points.forEach((p, i) => {
    const [x, y] = there(p), at = there(u[i]), push = gradient[i].map((v) => -v || 0), shown = Math.min(1.9, 3 / (long(push) || 1)), tip = there(add(p, push, shown));
    put(grips[i], { transform: `translate(${x} ${y})`, "aria-pressed": i === anchor, "aria-label": `${names[i]} at ${p.map((v) => fixed(v)).join(", ")}; arrow keys move it` });
    grips[i].querySelector(".ring").classList.toggle("on", i === anchor);
    shadows[i].style.display = unit ? "" : "none";
    put(shadows[i].firstChild, { x1: x, y1: y, x2: at[0], y2: at[1] });
    put(shadows[i].lastChild, { transform: `translate(${at})` });
    const turn = (angle) => { const way = Math.atan2(tip[1] - y, tip[0] - x) + angle; return `L${tip[0] - 7 * Math.cos(way)} ${tip[1] - 7 * Math.sin(way)}`; };
    put(arrows[i], { d: long(push) * 1.9 > .02 ? `M${x} ${y}L${tip}${turn(.5)}M${tip}${turn(-.5)}` : "" });
    const { near: ap, far: an, gap, term, positive, negative } = anchors[i], wrong = soft ? gap > 0 : gap + margin > 0, end = 40 + 20 * within(gap, -2, 2);
    const texts = { anchor: names[i], positive: `${names[positive]} ${fixed(ap)}`, negative: `${names[negative]} ${fixed(an)}`, gap: fixed(gap), term: fixed(term, 3), push: push.map((v) => fixed(v)).join(", ") };
    for (const [name, text] of Object.entries(texts)) rows[i][name].textContent = text;
    rows[i].anchor.parentNode.style.fontWeight = i === anchor ? 700 : 400;
    put(gaps[i].bar, { x: Math.min(40, end), width: Math.abs(end - 40), fill: wrong ? "var(--other)" : "var(--same)" });
    put(gaps[i].edge, { x1: 40 - 20 * m, x2: 40 - 20 * m });
  });
  value.textContent = ` margin m = ${fixed(margin, 1)}`;
  chosen.textContent = `Anchor ${names[anchor]}: the full circle passes through its hardest positive ${names[one.positive]}, the dashed one through its hardest negative ${names[one.negative]}.`;
  loss.textContent = `loss = (${anchors.map((a) => fixed(a.term, 3)).join(" + ")}) / ${n} = ${fixed(sum, 3)}`;
};
draw();
show("Pull the points", h("div", {}, plane), h("div", {}, chosen, controls), h("div", { class: "wide" }, h("div", { class: "scroll" }, table), loss));
