const root = document.currentScript.parentNode;
const data = JSON.parse(root.querySelector("script").textContent);
const put = (node, attributes) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "text") node.textContent = value;
    else node.setAttribute(name, value);
  }
  return node;
};
const make = (space) => (name, attributes = {}, ...children) => {
  const node = put(document.createElementNS(space, name), attributes);
  node.append(...children);
  return node;
};
const h = make("http://www.w3.org/1999/xhtml"), s = make("http://www.w3.org/2000/svg");
const range = (n) => [...Array(n).keys()];
const fixed = (value, digits = 2) => value.toFixed(digits).replace(/^-(0\.?0*)$/, "$1").replace("-", "−");
const within = (value, low, high) => Math.min(Math.max(value, low), high);
// Where a pointer is, in the units of a drawing.
const spot = (svg, event) => new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
// Calls `move(place, start)` while a pointer drags a node.
const drag = (svg, node, move) => {
  let start = null;
  put(node, {
    onpointerdown: (event) => {
      start = spot(svg, event);
      node.setPointerCapture(event.pointerId);
      node.focus({ preventScroll: true });
      event.preventDefault();
    },
    onpointermove: (event) => start && move(spot(svg, event), start),
    onlostpointercapture: () => { start = null; },
  });
};
// Calls `act(value)` for one of the keys that are given a value.
const keys = (node, known, act) => put(node, {
  onkeydown: (event) => {
    if (!(event.key in known) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act(known[event.key], event);
  },
});
const show = (words, ...children) => {
  root.append(h("div", { class: "live", role: "group", "aria-label": words }, ...children));
  root.classList.add("on");
};
