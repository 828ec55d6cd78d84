const { people, k2 } = data, all = range(people.length), gallery = all.slice(1), x = data.points.map((p) => [...p]), ink = "currentColor";
const stages = ["nearest", "reciprocal", "expanded", "averaged", "re-ranked"];
let stage = 0, other = people.indexOf(1);
const total = (values) => values.reduce((sum, v) => sum + v, 0);
// Equal distances: the lower number first.
const even = (v) => Math.round(v * 1e9), sorted = (of, images) => [...images].sort((a, b) => even(of(a)) - even(of(b)) || a - b), list = (images) => sorted(() => 0, images).join(", ");
// Same person, other, stranger.
const colour = (i) => ["var(--same)", "var(--other)", "#888"][people[i]], shapes = ["M-1 0a1 1 0 1 0 2 0a1 1 0 1 0-2 0", "M-1-1h2v2h-2z", "M0-1.4L1.4 1H-1.4z"];
const mark = (i, r, look) => s("path", { d: shapes[people[i]], transform: `scale(${r})`, fill: colour(i), ...look });
const label = (y, text, look) => s("text", { y, text, "text-anchor": "middle", ...look }), box = (x, y, width, height, look) => s("rect", { x, y, width, height, ...look });
const pen = (width, dash = "none", stroke = ink) => ({ stroke, "stroke-width": width, "stroke-dasharray": dash });
const choose = (j) => { other = j; draw(); };
const scale = 33.6, there = ([a, b]) => [scale * (a + 3.1), scale * (3.7 - b)];
const circles = ["none", "2 4"].map((dash) => s("circle", { fill: "none", ...pen(1, dash) })), lines = s("g", { stroke: ink, fill: "none" });
const spots = all.map((i) => s("g", { class: i ? "" : "grip", role: "button", onclick: () => i && choose(i) }, s("circle", { r: i ? 10 : 16, class: "ring", fill: "#0000" }),
  ...(i ? [mark(i, 7, { "fill-opacity": .2, stroke: colour(i), "stroke-width": .15 }), label(3, i, { style: "font-size:8.5px" })] : [s("path", { d: "M0-11 3-3 11-3 4 2 7 10 0 5-7 10-4 2-11-3-3-3z", fill: colour(0) }), label(4, "query 0", { x: -33 })])));
const plane = s("svg", { viewBox: "0 0 340 222", style: "overflow:hidden;border:1px solid #888", role: "group", "aria-label": "images in the plane" }, ...circles, lines, ...gallery.map((i) => spots[i]), spots[0]);
const move = (a, b) => { x[0] = [within(a, -2.8, 6.6), within(b, -2.6, 3.3)].map((v) => Math.round(100 * v) / 100); draw(); };
drag(plane, spots[0], () => (now) => move(now.x / scale - 3.1, 3.7 - now.y / scale));
keys(spots[0], { ArrowUp: [0, .1], ArrowDown: [0, -.1], ArrowRight: [.1, 0], ArrowLeft: [-.1, 0] }, (by, { shiftKey }) => move(...x[0].map((v, axis) => v + by[axis] * (shiftKey ? 5 : 1))));
gallery.forEach((i) => keys(spots[i], { ArrowUp: -1, ArrowDown: 1, ArrowRight: 1, ArrowLeft: -1 }, (by) => {
  choose(within(i + by, 1, gallery.length));
  spots[other].focus();
}));
const arrow = (i, j, back, look) => {
  const [a, b] = there(x[i]), [e, f] = there(x[j]), c = [(a + e) / 2 + .15 * (f - b), (b + f) / 2 - .15 * (e - a)];
  const ends = [[a, b], [e, f]].map(([p, q]) => { const u = c[0] - p, v = c[1] - q, l = Math.hypot(u, v) || 1; return [p + 9 * u / l, q + 9 * v / l, 5 * u / l, 5 * v / l]; });
  const head = ([p, q, u, v]) => [.6, -.6].map((w) => `M${p} ${q}l${u + w * v} ${v - w * u}`).join("");
  return [s("path", { d: `M${ends[0].slice(0, 2)}Q${c} ${ends[1].slice(0, 2)}`, ...look }), s("path", { d: head(ends[1]) + (back ? head(ends[0]) : "") })];
};
const looks = [{ fill: ink }, { fill: "none", ...pen(1) }, { fill: "var(--faint)", ...pen(1, "2 2") }];
const bars = s("g"), legend = ["shared weight", "query only", ""].map((text, i) => s("text", { x: 14 + 100 * i, y: 9, text }));
const weights = s("svg", { viewBox: "0 0 342 118", role: "img" }, ...looks.map((look, i) => box(1 + 100 * i, 1, 9, 9, look)), ...legend, bars,
  ...all.map((i) => s("g", { transform: `translate(${10 + 17 * i} 112)` }, label(-6, i, { style: "font-size:9px" }), mark(i, 3))));
const strip = s("svg", { viewBox: "0 0 342 98", role: "img" }), [told, sums, ...titles] = ["stage", "jaccard", "before", "after"].map((name) => h("output", { class: name }));
const slider = (words, value, min, max, step) => h("label", {}, h("input", { type: "range", min, max, step, value, "aria-label": words, oninput: () => draw() }), h("span"));
const number = slider("k, neighbours", data.k, 1, data.most, 1), share = slider("lambda, share of distance", data.lambda, 0, 1, .05);
const buttons = stages.map((name, i) => h("button", { type: "button", text: `${i + 1} ${name}`, onclick: () => { stage = i; draw(); } }));
const draw = () => {
  const [k, lambda] = [number, share].map((label) => +label.firstChild.value);
  const squared = x.map((p) => x.map((q) => (p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2)), d = squared.map((row) => row.map((v) => v / Math.max(...row)));
  const near = all.map((i) => sorted((j) => (j === i ? -1 : squared[i][j]), all));
  const first = (i, k) => near[i].slice(0, k + 1), mutual = (i, k) => first(i, k).filter((j) => first(j, k).includes(i));
  const half = k % 4 === 1 ? (k - 1) / 2 : Math.round(k / 2); // numpy rounds 2.5 to 2
  const adds = all.map((i) => mutual(i, k).flatMap((j) => {
    const set = mutual(j, half), more = set.filter((l) => !mutual(i, k).includes(l)), size = set.length, known = size - more.length;
    return more.length && 3 * known > 2 * size ? { j, size, known, more } : [];
  }));
  const sets = all.map((i) => (stage ? [...new Set([...mutual(i, k), ...(stage > 1 ? adds[i] : []).flatMap((one) => one.more)])] : first(i, k)));
  let rows = sets.map((set, i) => {
    const e = all.map((j) => set.includes(j) * Math.exp(-d[i][j]));
    return e.map((v) => v / total(e));
  });
  if (stage > 2) rows = near.map((order) => all.map((l) => total(order.slice(0, k2).map((j) => rows[j][l])) / k2));
  const pairs = all.map((j) => {
    const [low, high] = ["min", "max"].map((m) => total(all.map((l) => Math[m](rows[0][l], rows[j][l])))), jaccard = 1 - low / high;
    return [low, high, jaccard, d[0][j], (1 - lambda) * jaccard + lambda * d[0][j]];
  });
  const lists = [3, 4].map((v) => sorted((j) => pairs[j][v], gallery)), own = mutual(0, k), one = `image ${other}`, text = (node, words) => put(node, { text: words });
  spots.forEach((node, i) => {
    put(node, { transform: `translate(${there(x[i])})`, tabindex: !i || i === other ? 0 : -1, "aria-pressed": i === other, "aria-label": i ? `image ${i}` : `query at ${x[0].map((v) => fixed(v)).join(", ")}; arrow keys move it` });
    node.firstChild.classList.toggle("on", i === other);
  });
  [0, other].forEach((i, side) => {
    const [cx, cy] = there(x[i]);
    put(circles[side], { cx, cy, r: stage < 2 ? scale * Math.sqrt(squared[i][near[i][k]]) : 0 });
  });
  const ends = [sets[0], own, own, all.filter((j) => rows[0][j]), lists[1].slice(0, 6)][stage], look = (j) => (stage === 3 ? pen(12 * rows[0][j]) : own.includes(j) ? pen(2) : pen(1, "4 4"));
  lines.replaceChildren(...ends.flatMap((j) => (j ? arrow(0, j, stage < 3 && own.includes(j), look(j)) : [])),
    ...(stage === 2 ? adds[0] : []).flatMap(({ j, more }) => more.flatMap((l) => arrow(j, l, false, pen(1, "1 3")))));
  const at = [near[0].indexOf(other), near[other].indexOf(0)], ranks = `Image ${other} is neighbour ${at[0]} of the query, the query is neighbour ${at[1]} of ${one}: ${Math.max(...at) > k ? "not " : ""}reciprocal.`;
  text(told, [
    `Nearest: ${near[0].slice(1, k + 1).join(", ")}. Reciprocal (solid): ${list(own.slice(1)) || "none"}. ${ranks}`,
    `R(0, ${k}) = {${list(own)}}. ${ranks}`,
    `R*(0, ${k}) = {${list(sets[0])}}. ${adds[0].map(({ j, size, known, more }) => `Image ${j} adds ${list(more)}: R(0, ${k}) has ${known} of the ${size} images of R(${j}, ${half}).`).join(" ") || "No image is added."}`,
    `Averaged: rows ${near[0].slice(0, k2).join(", ")} for the query; rows ${near[other].slice(0, k2).join(", ")} for ${one}.`,
    `First six: ${lists[1].slice(0, 6).join(", ")}.`,
  ][stage]);
  const most = Math.max(...rows[0], ...rows[other]) / 76, bar = (l, from, to, look) => box(3 + 17 * l, 94 - to / most, 14, (to - from) / most, look);
  bars.replaceChildren(...all.flatMap((l) => {
    const [a, b] = [rows[0][l], rows[other][l]], low = Math.min(a, b);
    return [bar(l, low, Math.max(a, b), looks[a > b ? 1 : 2]), bar(l, 0, low, looks[0])];
  }), s("path", { d: "M0 94H342", stroke: ink }));
  text(legend[2], `${one} only`);
  const spoken = (i) => rows[i].map((v) => fixed(v, 3)).join(" ");
  put(weights, { "aria-label": `weights of the query: ${spoken(0)}; of ${one}: ${spoken(other)}` });
  const [low, high, jaccard, d0, final] = pairs[other].map((v) => fixed(v, 3));
  text(sums, `Jaccard distance to ${one}:\n1 − ${low} / ${high} = ${jaccard}\nFinal distance: ${fixed(1 - lambda)} · ${jaccard} + ${fixed(lambda)} · ${d0} = ${final}`);
  const column = (side, j) => 9 + 18 * lists[side].indexOf(j);
  strip.replaceChildren(...gallery.flatMap((j) => [
    s("path", { d: `M${column(0, j)} 27L${column(1, j)} 71`, ...pen(people[j] && j !== other ? 1 : 2.5, people[j] ? "4 3" : "none", j === other ? ink : colour(j)) }),
    ...[0, 1].map((side) => s("g", { transform: `translate(${column(side, j)} ${side ? 77 : 21})`, onclick: () => choose(j) }, mark(j, 4.5), label(side ? 18 : -9, j, { "font-weight": j === other ? 700 : 400 })))]));
  put(strip, { "aria-label": `by distance: ${lists[0].join(" ")}; re-ranked: ${lists[1].join(" ")}` });
  titles.forEach((title, side) => {
    const found = lists[side].flatMap((j, r) => (people[j] ? [] : r + 1));
    text(title, `${side ? "re-ranked" + (stage < 3 ? ` with ${stages[stage]} sets` : "") : "by distance"}: AP ${fixed(total(found.map((r, i) => (i + 1) / r)) / found.length, 3)}`);
  });
  text(number.lastChild, ` k = ${k}`);
  text(share.lastChild, ` λ = ${fixed(lambda)}`);
  buttons.forEach((button, i) => put(button, { "aria-pressed": i === stage, style: i === stage ? "box-shadow:inset 0 0 0 2px" : "" }));
};
draw();
const row = (...parts) => h("div", { class: "controls", style: "margin:.4rem 0" }, ...parts);
show("Who knows whom", h("div", {}, plane, row(...buttons), row(number), told), h("div", {}, weights, sums, row(share), titles[0], strip, titles[1]));
