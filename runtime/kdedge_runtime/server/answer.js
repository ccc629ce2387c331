// Prediction display shared by all pages. Labels are inserted as text, never as markup.

export const at = (id) => document.getElementById(id);
export const count = (n) => n.toLocaleString("en");

export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

export function write(id, value, unit) {
  at(id).replaceChildren(value, ...(unit ? [make("small", { textContent: " " + unit })] : []));
}

export function bar(share) {
  const fill = make("i");
  fill.style.width = share * 100 + "%";
  return make("div", { className: "bar" }, fill);
}

export const UNKNOWN = "unknown";

/**
 * Fill the prediction card. `ranking` is [{label, text, share}], best first, with the score as text and as a fraction
 * of its range or null; `hasPositive` is true if the map has positive values; `mapLegend` explains the map, with {} for the
 * explained label; `isChart` is true for a map without colors from weak to strong. An `unknown` sample belongs to no
 * class, so the whole ranking is listed below.
 */
export function showAnswer({ ranking, explained, hasMap, hasPositive, mapLegend = "", unknown = false,
                              isChart = false }) {
  const [best, ...others] = unknown ? [{ label: UNKNOWN, text: "", share: 0 }, ...ranking] : ranking;
  write("label", best.label);
  write("p", best.text);
  at("best-bar").hidden = best.share === null;
  at("best-bar").firstElementChild.style.width = best.share * 100 + "%";
  at("others").replaceChildren(...others.flatMap(({ label, text, share }) => [
    make("span", { className: "name", textContent: label, title: label }),
    bar(share),
    make("span", { className: "number", textContent: text }),
  ]));
  at("heat").hidden = !hasMap;
  at("heat").classList.toggle("chart", isChart);
  at("why").textContent = hasPositive || isChart ? mapLegend.replace("{}", () => explained) : `No evidence for ${explained} in this sample.`;
}

export function setState(state, text) {
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
