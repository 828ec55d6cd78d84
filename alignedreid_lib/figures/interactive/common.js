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
// `begin(place)` is called where a pointer takes hold of a node; what it returns is called with each place after that.
const drag = (svg, node, begin) => {
  let move = null;
  put(node, {
    onpointerdown: (event) => {
      move = begin(spot(svg, event));
      node.setPointerCapture(event.pointerId);
      node.focus({ preventScroll: true });
      event.preventDefault();
    },
    onpointermove: (event) => move && move(spot(svg, event)),
    onlostpointercapture: () => { move = null; },
  });
  node.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false }); // else the page scrolls
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
