// Prediction display shared by all pages. Labels are inserted as text, never as markup.

export const at = (id) => document.getElementById(id);
export const percent = (p) => (p * 100).toFixed(p < 0.0995 ? 1 : 0) + " %";
export const count = (n) => n.toLocaleString("en");

export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

export function write(id, value, unit) {
  at(id).replaceChildren(value, ...(unit ? [make("small", { textContent: " " + unit })] : []));
}

export function bar(p) {
  const fill = make("i");
  fill.style.width = p * 100 + "%";
  return make("div", { className: "bar" }, fill);
}

export const UNKNOWN = "unknown";

/**
 * Fill the prediction card. `ranking` is [{label, p}], best first; `speaks` is true if the map has positive values. An
 * `unknown` sample belongs to no class, so the whole ranking is listed below.
 */
export function showAnswer({ ranking, explained, hasMap, speaks, unknown = false }) {
  const [best, ...others] = unknown ? [{ label: UNKNOWN, p: 0 }, ...ranking] : ranking;
  write("label", best.label);
  write("p", unknown ? "" : percent(best.p));
  at("best-bar").firstElementChild.style.width = best.p * 100 + "%";
  at("others").replaceChildren(...others.flatMap(({ label, p }) => [
    make("span", { className: "name", textContent: label, title: label }),
    bar(p),
    make("span", { className: "number", textContent: percent(p) }),
  ]));
  at("heat").hidden = !hasMap;
  at("why").textContent = speaks
    ? `The heat map shows the evidence for ${explained}.`
    : `No evidence for ${explained} in this frame.`;
}

export function become(state, text) {
  at("state").textContent = text;
  at("state").className = state;
}

let shownAt = 0;

/** Show a message, for a time proportional to its length. */
export function showMessage(text, kind = "") {
  at("message").textContent = text;
  at("message").className = kind;
  const time = shownAt = performance.now();
  setTimeout(() => { if (shownAt === time) at("message").textContent = ""; }, 3000 + 60 * text.length);
}
