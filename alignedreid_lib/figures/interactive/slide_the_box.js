const { shifts, costs, sums, paths, stripes } = data, count = stripes[0].length, zero = shifts.indexOf(0);
let at = zero, filled = -1, focus = [1, 1];
// The pictures: the person in the perfect box, and the street with the box that slides.
const unit = 22, wide = data.size[0] * unit * count * (shifts.at(-1) - shifts[0] + count) / count / data.size[1];
const tall = (shifts.at(-1) - shifts[0] + count) * unit, right = 336 - wide, top = (k) => (shifts[k] - shifts[0]) * unit;
const colour = (stripe) => `rgb(${stripe.map((v) => Math.round((255 * v) / data.full))})`;
const dark = (stripe) => stripe.reduce((sum, v, k) => sum + [.2126, .7152, .0722][k] * (v / data.full) ** 2.2, 0) < .179;
const street = (x, y, crop, more) => s("svg", { x, y, width: wide, height: crop ? count * unit : tall, style: "overflow:hidden", ...more },
  s("image", { href: data.street, y: crop ? -crop[0] : 0, width: wide, height: tall, preserveAspectRatio: "none" }));
const cut = (x, y) => range(count - 1).map((i) => s("line", { x1: x, x2: x + wide, y1: y + (i + 1) * unit, y2: y + (i + 1) * unit, stroke: "#fff", "stroke-opacity": .6 }));
const swatches = (x) => range(count).map((i) => s("g", { class: "swatch" }, s("rect", { x, y: i * unit, width: 20, height: unit }),
  s("text", { x: x + 10, y: i * unit + 15, "text-anchor": "middle", text: i + 1 })));
const paint = (nodes, k) => nodes.forEach((node, i) => {
  put(node.firstChild, { fill: colour(stripes[k][i]) });
  node.lastChild.style.fill = dark(stripes[k][i]) ? "#fff" : "#000";
});
const ours = swatches(wide + 3), theirs = swatches(-23), lines = s("g", { fill: "none" });
const inside = street(0, 0, [0]);
const box = s("g", { tabindex: 0, class: "grip", role: "slider", "aria-label": "box, in eighths of its height too low", "aria-orientation": "vertical",
  "aria-valuemin": shifts[0], "aria-valuemax": shifts.at(-1) },
  inside, ...cut(0, 0), ...theirs,
  s("rect", { width: wide, height: count * unit, fill: "none", stroke: "#fff", "stroke-width": 5 }),
  s("rect", { width: wide, height: count * unit, fill: "none", stroke: "#000", "stroke-width": 2 }),
  s("rect", { class: "ring", x: -26, y: -4, width: wide + 30, height: count * unit + 8, fill: "#0000", rx: 3 }),
  s("path", { d: `M${wide / 2} 5l9 10h-18zM${wide / 2} ${count * unit - 5}l9 -10h-18z`, fill: "#fff", stroke: "#000" }));
const pictures = s("svg", { viewBox: `-2 -20 344 ${tall + 24}` },
  s("text", { x: 0, y: top(zero) - 7, text: "perfect box" }), s("text", { x: 336, y: -7, "text-anchor": "end", text: "drag the box" }),
  street(0, top(zero), [top(zero)]), ...cut(0, top(zero)), s("g", { transform: `translate(0 ${top(zero)})` }, ...ours),
  street(right, 0, null, { opacity: .4 }), lines, box);
paint(ours, zero);
const place = (k) => { at = within(k, 0, shifts.length - 1); draw(); };
const step = shifts[1] - shifts[0];
drag(pictures, box, (from) => {
  const before = top(at) - from.y;
  return (now) => place(Math.round((before + now.y) / unit / step));
});
keys(box, { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, PageDown: 1 / step, PageUp: -1 / step, Home: -99, End: 99 }, (by) => place(at + by));
// The table of costs, or of sums as far as they are filled.
const side = 39, field = (i, j, edge = .5) => ({ x: 18 + j * side + edge, y: 18 + i * side + edge, width: side - 2 * edge, height: side - 2 * edge });
const middle = ([i, j]) => `${18 + (j + .5) * side},${18 + (i + .5) * side}`;
const fields = range(count).map((i) => range(count).map((j) => s("rect")));
const way = s("polyline", { class: "way", fill: "none", stroke: "#D55E00", "stroke-width": side, "stroke-linecap": "square" });
const look = (i, j) => () => { focus = [i, j]; tell(); };
const cells = range(count).map((i) => range(count).map((j) => s("g", { role: "gridcell", tabindex: -1, onfocus: look(i, j), onpointerenter: look(i, j) },
  s("rect", { ...field(i, j), class: "ring", fill: "#0000" }),
  s("text", { x: 18 + (j + .5) * side, y: 22 + (i + .5) * side, "text-anchor": "middle" }))));
const grid = s("svg", { viewBox: "-2 -18 344 352", role: "grid", "aria-label": "costs of each pair of stripes: rows are the perfect box, columns the box that slides" },
  s("g", { "aria-hidden": true }, s("text", { x: 18, y: -4, text: "rows: perfect box, columns: the box that slides" }), way, ...fields.flat(), ...range(count).flatMap((i) => [
    s("text", { x: 8, y: 22 + (i + .5) * side, "text-anchor": "middle", text: i + 1 }),
    s("text", { x: 18 + (i + .5) * side, y: 12, "text-anchor": "middle", text: i + 1 })])),
  ...cells.map((row) => s("g", { role: "row" }, ...row)));
keys(grid, { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1], Home: [0, -99], End: [0, 99] }, ([i, j]) =>
  cells[within(focus[0] + i, 0, count - 1)][within(focus[1] + j, 0, count - 1)].focus());
const shift = h("output", { class: "shift" }), formula = h("output", { class: "formula" }), progress = h("output", { class: "filled" });
const fill = (to) => { filled = to; draw(); };
const buttons = h("div", { class: "controls" },
  h("button", { type: "button", text: "Step", onclick: () => fill(filled < 2 * count - 2 ? filled + 1 : 0) }),
  h("button", { type: "button", text: "All sums", onclick: () => fill(2 * count - 2) }),
  h("button", { type: "button", text: "Costs", onclick: () => fill(-1) }));
const tell = () => {
  const [i, j] = focus, S = sums[at], before = [i && fixed(S[i - 1][j], 3), j && fixed(S[i][j - 1], 3)].filter(Boolean);
  cells.flat().forEach((cell) => put(cell, { tabindex: cell === cells[i][j] ? 0 : -1 }));
  const best = before.length === 2 ? ` + min(${before.join(", ")})` : before.length ? ` + ${before[0]}` : "";
  formula.textContent = `Row ${i + 1}, column ${j + 1}: the least sum is\n${fixed(costs[at][i][j], 3)}${best}${best ? ` ≈ ${fixed(S[i][j], 3)}` : ""}`;
};
// Two bars, each against the distance of strangers.
const most = 1.05 * Math.max(...data.rigid, ...data.aligned, ...data.strangers);
const bars = ["rigid", "aligned"].map((name, k) => {
  const text = h("output", { class: name }), bar = h("i"), track = h("div", { class: "bar" }, bar, h("b", { style: `left:${(100 * data.strangers[k]) / most}%` }));
  const set = () => {
    const value = data[name][at], far = value >= data.strangers[k];
    text.textContent = `${name} distance ${fixed(value)}: ${far ? "as far as" : "nearer than"} a stranger (dashed, ${fixed(data.strangers[k])})`;
    bar.style.width = `${(100 * value) / most}%`;
    track.classList.toggle("wrong", far);
  };
  return { set, node: h("div", {}, text, track) };
});
const draw = () => {
  const k = shifts[at], words = k ? `${Math.abs(k)}/8 too ${k > 0 ? "low" : "high"}` : "a perfect box";
  put(box, { transform: `translate(${right} ${top(at)})`, "aria-valuenow": k, "aria-valuetext": words });
  put(inside.firstChild, { y: -top(at) });
  paint(theirs, at);
  lines.replaceChildren(...paths[at].map(([i, j]) => s("line", { x1: wide + 23, y1: top(zero) + (i + .5) * unit, x2: right - 23, y2: top(at) + (j + .5) * unit,
    ...(costs[at][i][j] < .3 ? { stroke: "var(--same)", "stroke-width": 3 } : { stroke: "#888", "stroke-dasharray": "1 3" }) })));
  way.setAttribute("points", paths[at].map(middle).join(" "));
  const whole = filled < 0 || filled === 2 * count - 2, visited = new Set(paths[at].map(([i, j]) => count * i + j));
  way.style.display = whole ? "" : "none";
  cells.forEach((row, i) => row.forEach((cell, j) => {
    const summed = i + j <= filled, cost = costs[at][i][j], value = summed ? sums[at][i][j] : cost;
    const plain = filled >= 0 && !summed, colour = Math.round(16 * cost), on = whole && visited.has(count * i + j);
    put(fields[i][j], { ...field(i, j, on ? 4 : .5), fill: plain ? "var(--faint)" : data.scale[colour] });
    put(cell, { "aria-label": `row ${i + 1}, column ${j + 1}: ${summed ? "sum" : "cost"} ${fixed(value)}${on ? ", on the path" : ""}` });
    put(cell.lastChild, { text: fixed(value), "font-weight": summed ? 700 : 400 });
    cell.lastChild.style.fill = plain ? "" : colour > 7 ? "#000" : "#fff";
  }));
  shift.textContent = `The box is ${k ? words : "perfect"}.`;
  progress.textContent = filled < 0 ? "The cells show costs." : `Sums: step ${filled + 1} of ${2 * count - 1}.`;
  bars.forEach((bar) => bar.set());
  tell();
};
draw();
show("Slide the box", h("div", {}, pictures, shift), h("div", {}, grid, formula, buttons, progress), h("div", { class: "wide" }, ...bars.map((bar) => bar.node)));
