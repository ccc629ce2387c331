// Dialogs to select one of many classes, with search, and to type a number.

import { make } from "/answer.js";

const MAX_SHOWN = 60;

/**
 * Open a dialog. Resolves to the value that it was closed with, or undefined if it was canceled.
 *
 * @param {string} title dialog title.
 * @param {function} build function of `take`, which closes the dialog with a value, and of the button to cancel; returns
 *   the content, with the button.
 * @param {function} onShown called with the button when the dialog is on the screen.
 */
function open(title, build, onShown = () => {}) {
  return new Promise((resolve) => {
    let taken;
    const dialog = make("dialog", {}, make("h2", { textContent: title }));
    const take = (value) => { taken = value; dialog.close(); };
    const cancel = make("button", { type: "button", className: "plain", textContent: "Cancel" });
    cancel.onclick = () => dialog.close();
    dialog.append(...build(take, cancel));
    dialog.setAttribute("aria-label", title);
    dialog.onclose = () => { dialog.remove(); resolve(taken); };
    document.body.append(dialog);
    dialog.showModal();
    onShown(cancel);
  });
}

/** Open a dialog for a number. Resolves to its text, or undefined if the dialog was closed. */
export function typeNumber(title) {
  return open(title, (take, cancel) => {
    const number = make("input", { type: "number", step: "any", required: true });
    number.setAttribute("aria-label", title);
    const store = make("button", { className: "strong", textContent: "Store" });
    const form = make("form", {}, number, make("div", { className: "row" }, cancel, store));
    form.onsubmit = (event) => {
      event.preventDefault();
      take(number.value);
    };
    return [form];
  });
}

/**
 * Open the dialog of classes.
 *
 * @param {string} title dialog title.
 * @param {string[]} labels all classes.
 * @param {object} options `first`: labels listed first; `current`: the label to mark;
 *   `none`: text of the option for no class; `free`: true accepts new labels.
 * @returns {Promise<string|null|undefined>} the label, null for none, undefined if the dialog was closed.
 */
export function choose(title, labels, { first = [], current, none, free = false } = {}) {
  const search = make("input", { type: "search", placeholder: free ? "Search, or type a new class" : "Search" });
  search.setAttribute("aria-label", "Search classes");
  Object.assign(search, { autocomplete: "off", autocapitalize: "off", spellcheck: false });
  const choices = make("div", { className: "choices" });
  const form = make("form", {}, search);
  const ordered = [...new Set([...first, ...labels])];

  const build = (take, cancel) => {
    const option = (text, value, isCurrent) => {
      const button = make("button", { type: "button", textContent: text, onclick: () => take(value) });
      button.setAttribute("aria-current", isCurrent);
      return button;
    };
    const list = () => {
      const typed = search.value.trim();
      const wanted = typed.toLowerCase();
      const found = ordered.filter((label) => label.toLowerCase().includes(wanted));
      const options = found.slice(0, MAX_SHOWN).map((label) => option(label, label, label === current));
      if (none && !typed) options.unshift(option(none, null, current === null));
      if (free && typed && !labels.includes(typed)) options.push(option(`“${typed}”, a new class`, typed, false));
      if (found.length > MAX_SHOWN) {
        options.push(make("p", { className: "none", textContent: `${found.length - MAX_SHOWN} more: type to search` }));
      }
      if (!options.length) options.push(make("p", { className: "none", textContent: "No matching class." }));
      choices.replaceChildren(...options);
    };
    search.oninput = list;
    form.onsubmit = (event) => {
      event.preventDefault();
      choices.querySelector("button")?.click();
    };
    list();
    return [form, choices, make("div", { className: "row" }, make("span"), cancel)];
  };
  return open(title, build, (cancel) => {
    // On a touch screen the keyboard would cover the list.
    if (matchMedia("(pointer: coarse)").matches) cancel.focus({ preventScroll: true });
    else search.focus();
  });
}
