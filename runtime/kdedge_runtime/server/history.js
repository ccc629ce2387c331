// Chart of the score of the best class over the last minute, colored by class.

import { at, make } from "/answer.js";

const SPAN_S = 60;
const GAP_S = 3;
const COLORS = ["inference", "preprocess", "output", "overlay", "sixth", "seventh", "eighth", "wait"];
const SVG = "http://www.w3.org/2000/svg";
const colors = new Map();

/** Assign colors to classes. A class keeps its color while it is visible. */
function assignColors(labels) {
  for (const label of colors.keys()) if (!labels.includes(label)) colors.delete(label);
  for (const label of labels.filter((each) => !colors.has(each))) {
    const taken = [...colors.values()];
    colors.set(label, COLORS.find((color) => !taken.includes(color)) ?? "soft");
  }
}

const round = (value) => Number(value.toPrecision(4)).toLocaleString("en");
const colorOf = (label) => `var(--${colors.get(label)})`;

function shape(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/**
 * Draw [[seconds ago, label, score], …], oldest first. Bounded scores are in [0, 1]; others span the height from the
 * smallest to the largest, which are written below the chart.
 */
export function showHistory(points, { isBounded = true } = {}) {
  const scores = isBounded ? [0, 1] : points.map(([, , score]) => score);
  const low = Math.min(...scores), reach = Math.max(...scores) - low || 1;
  const grid = [0, 0.5, 1].map((y) => shape("line", { class: "grid", x1: 0, x2: SPAN_S, y1: y, y2: y }));
  const recent = [...new Set(points.map(([, label]) => label).reverse())];
  assignColors(recent.toReversed());
  const paths = [];
  let through = "";
  points.forEach(([ago, label, p], index) => {
    const [x, y] = [SPAN_S - ago, 1 - (p - low) / reach];
    const before = points[index - 1];
    const isFirst = !before || before[0] - ago > GAP_S;
    through += `${isFirst ? "M" : "L"}${x} ${y}`;
    if (isFirst || before[1] !== label) {
      // A zero-length line with round caps makes the first point visible, a wide one a single point.
      paths.push({ label, d: `M${x} ${y}h0`, single: "single" });
    } else {
      Object.assign(paths.at(-1), { d: `${paths.at(-1).d}L${x} ${y}`, single: "" });
    }
  });
  at("history").replaceChildren(...grid, shape("path", { class: "through", d: through }), ...paths.map(({ label, d, single }) => {
    const path = shape("path", { d, class: single });
    path.style.stroke = colorOf(label);
    return path;
  }));
  at("keys").replaceChildren(...recent.slice(0, COLORS.length).map((label) => {
    const dot = shape("svg", { viewBox: "0 0 9 9" });
    dot.append(shape("circle", { cx: 4.5, cy: 4.5, r: 4.5 }));
    dot.style.fill = colorOf(label);
    return make("span", {}, dot, label);
  }));
  if (!isBounded && points.length) {
    at("keys").append(make("span", {}, `${round(low)} to ${round(Math.max(...scores))}`));
  }
}
