const { edges, accepted: [different, same], rates, chosen, queries } = data, last = edges.length - 1;
const all = { same: same[last], different: different[last] };
let now = { t: edges[0], same: same[0], different: different[0] };
const grouped = (count) => `${count}`.replace(/\B(?=(\d{3})+$)/g, "\u202f");
const percent = (share) => `${+(100 * share).toPrecision(3)} %`;
// The histograms, each scaled to its own number of pairs; what the threshold accepts is filled.
const X = (t) => 12 + (316 * t) / edges[last], base = 170;
const shares = (counts) => counts.map((count, k) => (count - (k > 1 ? counts[k - 1] : 0)) / counts[last]).slice(1);
const bars = { same: shares(same), different: shares(different) }, most = Math.max(...bars.same, ...bars.different);
const outline = (name) => `M${X(0)} ${base}${bars[name].map((v, k) => `V${base - (140 * v) / most}H${X(edges[k + 1])}`).join("")}V${base}`;
const looks = { same: { stroke: "var(--same)", "stroke-width": 2 }, different: { stroke: "var(--other)", "stroke-width": 2, "stroke-dasharray": "4 2" } };
const left = s("svg", { x: 0, y: 0, height: base, style: "overflow:hidden" }, ...Object.keys(looks).map((name) => s("path", { d: outline(name), fill: looks[name].stroke, "fill-opacity": .45 })));
const grip = s("g", { tabindex: 0, class: "grip", role: "slider", "aria-label": "threshold on the distance", "aria-orientation": "horizontal", "aria-valuemin": edges[0], "aria-valuemax": edges[last] },
  s("rect", { x: -22, y: 0, width: 44, height: base + 6, fill: "#0000" }), s("line", { y1: 12, y2: base, stroke: "currentColor", "stroke-width": 2 }),
  s("path", { class: "ring", d: "M-9 0h18v9l-9 9l-9 -9z", fill: "var(--faint)", stroke: "currentColor" }));
const axis = (x, y, text, anchor = "middle") => s("text", { x, y, text, "text-anchor": anchor });
const round = 10 ** Math.floor(Math.log10(edges[last])), ticks = range(Math.floor(edges[last] / round) + 1).map((k) => k * round);
const peak = (name) => bars[name].indexOf(Math.max(...bars[name])), name = (which, text) => axis(X(edges[peak(which)]), base - 146 * Math.max(...bars[which]) / most, text);
const pairs = s("svg", { viewBox: "0 0 340 204" }, left, ...Object.entries(looks).map(([which, look]) => s("path", { d: outline(which), fill: "none", ...look })),
  s("path", { d: `M${X(0)} ${base}H328`, stroke: "#888" }), ...ticks.map((t) => axis(X(t), base + 14, t)), axis(170, 200, "distance of a pair"), name("same", "one person"), name("different", "two people"), grip);
// The ROC, over a logarithmic axis; a rate of 0 is put at its left end.
const low = Math.floor(-Math.log10(all.different)), F = (rate) => 328 - 288 * (rate ? Math.log10(rate) / low : 1), T = (rate) => base - 150 * rate;
const corner = (a, b) => `${F(a / all.different)} ${T(b / all.same)}`;
const point = s("g", { class: "point" }, s("path", { stroke: "currentColor", fill: "none", "stroke-dasharray": "2 3" }), s("circle", { r: 6, fill: "currentColor" }));
const roc = s("svg", { viewBox: "0 0 340 204", role: "img", "aria-label": "ROC: true-accept rate over false-accept rate" }, s("path", { d: `M40 20V${base}H328`, fill: "none", stroke: "#888" }),
  ...[0, .5, 1].map((v) => axis(36, T(v) + 4, percent(v), "end")), ...range(-low + 1).map((k) => axis(F(10 ** -k), base + 14, k === -low ? "0" : +(100 / 10 ** k).toPrecision(1))),
  axis(184, 200, "false-accept rate in %"), axis(36, 10, "true-accept rate", "start"),
  s("polyline", { points: edges.map((_, k) => corner(different[k], same[k])).join(" "), fill: "none", stroke: "var(--same)", "stroke-width": 2 }), point);
const set = (k) => { now = { t: edges[k], same: same[k], different: different[k] }; draw(); };
const nearest = (t) => edges.reduce((best, edge, k) => (Math.abs(edge - t) < Math.abs(edges[best] - t) ? k : best), 0);
drag(pairs, grip, (from) => {
  const before = X(now.t) - from.x;
  return (to) => set(nearest(((before + to.x - 12) / 316) * edges[last]));
});
keys(grip, { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10, Home: -last, End: last }, (by) => {
  const below = edges.filter((edge) => edge < now.t).length, on = edges[below] === now.t; // the threshold of a rate is between two edges
  set(within(below + by - (by > 0 && !on), 0, last));
});
const rate = (which, kind) => {
  const text = h("output", { class: which }), bar = h("i"), node = h("div", {}, text, h("div", { class: "bar" }, bar));
  if (which === "different") bar.style.background = "repeating-linear-gradient(-45deg, var(--other) 0 6px, transparent 6px 8px)";
  return { which, kind, text, bar, node };
};
const two = [rate("same", "one person: true"), rate("different", "two people: false")], told = h("output", { class: "told" }), at = h("output", { class: "at" });
const buttons = h("div", { class: "controls" }, "False-accept rate at most", ...rates.map((value, k) =>
  h("button", { type: "button", text: percent(value), onclick: () => { now = { t: chosen[0][k], different: chosen[1][k], same: chosen[2][k] }; draw(); } })));
const draw = () => {
  const { t } = now, wrong = now.different, right = now.same;
  put(grip, { transform: `translate(${X(t)} 0)`, "aria-valuenow": +fixed(t), "aria-valuetext": fixed(t) });
  put(left, { width: X(t) });
  const [x, y] = corner(wrong, right).split(" ");
  put(point.firstChild, { d: `M${x} ${base}V${y}H40` });
  put(point.lastChild, { cx: x, cy: y });
  at.textContent = `Threshold ${fixed(t)}: accept every pair up to this distance.`;
  two.forEach(({ which, kind, text, bar }) => {
    text.textContent = `${grouped(now[which])} of ${grouped(all[which])} pairs of ${kind}-accept rate ${percent(now[which] / all[which])}`;
    bar.style.width = `${(100 * now[which]) / all[which]}%`;
  });
  told.textContent = `False alarms per query: ${fixed(wrong / queries)}. ${right + wrong ? `Of the accepted pairs, ${percent(wrong / (right + wrong))} are wrong.` : "No pair is accepted."}`;
};
set(nearest(edges[last] / 3));
show("Choose the threshold", h("div", {}, pairs, at), h("div", {}, roc), h("div", { class: "wide" }, ...two.map(({ node }) => node), told, buttons));
