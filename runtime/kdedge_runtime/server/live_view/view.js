// Live view. Images have serial numbers, so that feedback refers to the frame on the screen.

import { at, setState, count, make, showAnswer, showMessage, UNKNOWN, write } from "/answer.js";
import { drawBox } from "/box.js";
import { choose, typeNumber } from "/chooser.js";
import { showHistory } from "/history.js";

const BEST = "top-1 class";
const POLL_MS = 400;
const HIDDEN_POLL_MS = 5000;
const STALLED_MS = 3000;
const SLOW_FPS = 5;
const statesOf = (noun) => ({ live: "live", waiting: `waiting for ${noun}s`, stalled: `no new ${noun}s`,
                               lost: "the run has ended", paused: "paused" });
const capitalized = (word) => word[0].toUpperCase() + word.slice(1);
const delay = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
let wake = () => {};  // ends the delay between two polls
const delayOrWake = (ms) => Promise.race([delay(ms), new Promise((resolve) => { wake = resolve; })]);

let shown = 0;        // serial number of the frame on the screen
let image = null;   // its JPEG
let isPaused = false;     // true while the image is paused
let answer = null;    // latest metrics of the frame on the screen
let region = null;    // name of the selected region; null for the first one or a run without regions
let choices = null;   // available classes and methods, and parts of the page
let states = statesOf("frame");
let revision = 0;     // revision of the classes among the choices
let lastFrames = 0, lastChange = Date.now();
let isSlow = true;    // true if the figures of every frame can be read
let settledAt = 0;    // polled settings are ignored until this time

async function request(path, body) {
  const response = await fetch(path, body && {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  if (response.status === 401) location.reload();
  const reply = await response.json();
  if (reply.error) throw new Error(reply.error);
  return reply;
}

// ---- image

/** The JPEG on the screen. */
export const newest = () => image;

async function show(blob) {
  image = blob;
  const url = URL.createObjectURL(blob);
  const before = at("image").src;
  at("image").src = url;
  await at("image").decode().catch(() => {});
  at("figure").style.setProperty("--aspect", at("image").naturalWidth / at("image").naturalHeight);
  if (before) URL.revokeObjectURL(before);
  at("empty").hidden = true;
}

async function watch() {
  for (;;) {
    if (isPaused || document.hidden) { await delay(100); continue; }
    try {
      const response = await fetch(`/snapshot.jpg?after=${shown}`, { signal: AbortSignal.timeout(15000) });
      if (response.status === 401) location.reload();
      if (!response.ok) {  // no new image; feedback on the current one is still possible
        await delay(1000);
        continue;
      }
      const serial = Number(response.headers.get("X-Serial"));
      const blob = await response.blob();
      if (isPaused) continue;
      await show(blob);
      shown = serial;
      if (isSlow) wake();
    } catch {
      shown = 0;
      await delay(1000);
    }
  }
}

// ---- pause and feedback

async function pause() {
  isPaused = true;
  mark();
  try {
    const parts = await allChoices();  // a failed poll resets the choices meanwhile
    answer = await request("/pause", { serial: shown, region });
    showFigures(answer, parts);
  } catch (error) {
    resume();
    throw error;
  }
}

function resume() {
  isPaused = false;
  mark();
}

function mark() {
  at("pause").setAttribute("aria-pressed", isPaused);
  at("pause").textContent = isPaused ? "Resume" : "Pause";
  if (isPaused) setState("paused", states.paused);
}

async function storeFeedback(judgment, more = {}) {
  const { label, kept } = await request("/feedback", { serial: shown, region, judgment, ...more });
  const words = { correct: `${label} is correct`, incorrect: `${label} is wrong`,
                  relabeled: `${label} should be ${more.label}`, wrong_region: `wrong region for ${label}` };
  showMessage(`Stored: ${words[judgment]}. ${count(kept)} ${kept === 1 ? "entry" : "entries"} in total.`, "good");
}

/** Pause the image during a dialog, and resume afterwards unless it was paused before. */
async function withPausedFrame(dialog) {
  const wasPaused = isPaused;
  if (!wasPaused) await pause();
  try {
    await dialog();
  } finally {
    if (!wasPaused) resume();
  }
}

async function enroll() {
  const { name, samples } = await request("/enroll", { serial: shown, region, name: at("enroll-name").value });
  showMessage(`Enrolled: ${name} has ${count(samples)} ${samples === 1 ? "sample" : "samples"}.`, "good");
}

const JUDGING = {
  correct: () => storeFeedback("correct"),
  incorrect: () => storeFeedback("incorrect"),
  relabeled: () => withPausedFrame(async () => {
    const first = answer.ranking.slice(1).map(({ label }) => label);
    const { labels, has_values } = await allChoices();
    const label = await (has_values ? typeNumber(`Measured ${answer.label}`)
                                    : choose("Correct class", labels, { first, free: true }));
    if (label) await storeFeedback("relabeled", { label });
  }),
  wrong_region: () => withPausedFrame(async () => {
    const overlay = image;
    await show(await (await fetch(`/frame.jpg?serial=${shown}${regionQuery()}`)).blob());
    const box = await drawBox();
    await show(overlay);
    if (box) await storeFeedback("wrong_region", { box });
  }),
};

async function attempt(action) {
  try {
    await action();
  } catch (error) {
    showMessage(error.message, "bad");
  }
}

async function allChoices() {
  if (!choices) {
    choices = await request("/choices.json");
    at("enroll-names").replaceChildren(...choices.labels.map((value) => make("option", { value })));
    at("method").replaceChildren(...choices.methods.map((name) => make("option", { value: name, textContent: name })));
    showParts(choices);
  }
  return choices;
}

/** Show the parts of the page that the samples and the task have. */
function showParts({ labels, sample_noun, has_boxes, has_overlay, has_values }) {
  states = statesOf(sample_noun);
  for (const element of document.querySelectorAll("[data-noun]")) {
    element.textContent = element.dataset.noun.replace("{}", sample_noun);
  }
  at("verdict-correct").hidden = has_values;
  at("verdict-relabeled").textContent = has_values ? "Measured value…" : "Other class…";
  at("verdict-wrong-region").hidden = !has_boxes;
  at("opacity-part").hidden = !has_overlay;
  at("explain-part").hidden = labels.length < 2;
}

// ---- settings

async function set(change) {
  settledAt = Date.now() + 1000;
  showSettings(await request("/controls", change));
}

function showSettings({ class: name, method, opacity }) {
  at("explain").firstElementChild.textContent = name ?? BEST;
  at("explain").dataset.name = name ?? "";
  at("method").value = method;
  at("explain").disabled = at("opacity").disabled = method === "none";
  at("opacity").value = opacity;
  at("opacity-value").textContent = `${Math.round(opacity * 100)}%`;
}

let wantedOpacity = null, isSending = false;
async function sendOpacity() {
  wantedOpacity = Number(at("opacity").value);
  at("opacity-value").textContent = `${Math.round(wantedOpacity * 100)}%`;
  settledAt = Date.now() + 1000;
  if (isSending) return;
  isSending = true;
  try {
    // While a change is being sent, only the latest of the following ones is kept.
    while (wantedOpacity !== null) {
      const opacity = wantedOpacity;
      wantedOpacity = null;
      await request("/controls", { opacity });
    }
  } finally {
    isSending = false;
  }
}

async function chooseClass() {
  const current = at("explain").dataset.name || null;
  const first = answer ? answer.ranking.map(({ label }) => label) : [];
  const name = await choose("Class to explain", (await allChoices()).labels, { first, current, none: BEST });
  if (name !== undefined) await set({ class: name });
}

// ---- regions

const regionQuery = () => region === null ? "" : `&region=${encodeURIComponent(region)}`;

/** Show the label of every region, as buttons that select the region of the card and of feedback. */
function showRegions(regions) {
  const list = at("regions");
  list.hidden = regions.length === 0;
  const names = [...list.children].map((button) => button.dataset.region);
  if (names.length !== regions.length || regions.some(({ name }, index) => name !== names[index])) {
    list.replaceChildren(...regions.map(({ name }) => {
      const parts = ["name", "answer", "number"].map((className) => make("span", { className }));
      parts[0].textContent = parts[0].title = name;
      const button = make("button", {}, ...parts);
      button.dataset.region = name;
      return button;
    }));
  }
  regions.forEach(({ name, label, text }, index) => {
    const button = list.children[index];
    button.setAttribute("aria-pressed", name === region);
    button.children[1].textContent = button.children[1].title = label;
    button.children[2].textContent = text;
  });
}

async function selectRegion(name) {
  region = name;
  showRegions(answer.regions);
  if (isPaused) await pause();
}

// ---- metrics

function showFigures(m, parts) {
  // Another selection may have been made since the request, or the run may have other regions than the one before.
  if (!m.regions.some(({ name }) => name === region)) region = m.region;
  showRegions(m.regions);
  showAnswer({ ranking: m.ranking, explained: m.explained, hasMap: m.heat !== null, hasPositive: m.heat?.entropy != null,
               unknown: m.unknown, mapLegend: parts.map_legend, isChart: !parts.has_overlay });
  const isProbability = m.score_name === "probability";
  at("past-title").textContent = `${isProbability ? "Confidence" : capitalized(m.score_name)} over the last minute`;
  at("history").setAttribute("aria-label", `${capitalized(m.score_name)} of the best class over the last minute`);
  write("age", m.age_ms.toFixed(m.age_ms < 10 ? 1 : 0), "ms");
}

function showRates(m) {
  isSlow = m.fps < SLOW_FPS;
  write("fps", m.fps.toFixed(1));
  write("frames", count(m.frames), m.expected ? "of " + count(m.expected) : "");
  write("dropped", count(m.dropped), m.unreadable ? `+ ${count(m.unreadable)} unreadable` : "");
}

function showStages(stages) {
  const rows = Object.entries(stages);
  at("timing").hidden = rows.length === 0;
  at("stack").replaceChildren(...rows.map(([name, { p50_ms }]) => {
    const part = make("i", { title: name });
    part.style.flex = `${p50_ms} 0 0`;
    part.style.background = `var(--${name})`;
    return part;
  }));
  at("stages").replaceChildren(...rows.map(([name, { p50_ms, p95_ms }]) => {
    const cells = [name, p50_ms.toFixed(2), p95_ms.toFixed(2)].map((text) => make("td", { textContent: text }));
    const row = make("tr", {}, ...cells);
    row.style.setProperty("--stage", `var(--${name})`);
    return row;
  }));
}

function showMachine({ temperature_c, clock_mhz, max_clock_mhz, throttled, throttled_since_boot, memory_mb }) {
  const figures = [
    ["temperature", temperature_c, "°C"],
    ["clock", clock_mhz, max_clock_mhz === null ? "MHz" : `of ${max_clock_mhz.toFixed(0)} MHz`],
    ["memory", memory_mb, "MB"],
  ].filter(([, value]) => value !== null);
  const before = throttled_since_boot.filter((reason) => !throttled.includes(reason));
  at("machine").hidden = figures.length + throttled.length + before.length === 0;
  at("machine-figures").replaceChildren(...figures.map(([name, value, unit]) =>
    make("div", {}, make("dt", { textContent: name }),
      make("dd", { className: "number" }, value.toFixed(0), make("small", { textContent: " " + unit })))));
  at("throttled").textContent = throttled.length ? `Throttled: ${throttled.join(", ")}.`
    : before.length ? `Throttled since boot: ${before.join(", ")}.` : "";
  at("throttled").className = throttled.length ? "bad" : "before";
}

async function poll() {
  for (;;) {
    try {
      const m = await request(`/metrics.json?serial=${shown}${regionQuery()}`);
      const source = m.about.source.includes("://") ? m.about.source : m.about.source.split("/").at(-1);
      at("about").textContent = `${m.about.model} on ${source}`;
      at("about").title = m.about.runtime;
      at("feedback").hidden = m.feedback === null;
      at("enroll").hidden = !m.can_enroll;
      if (m.revision !== revision) { choices = null; revision = m.revision; }
      const parts = await allChoices();
      at("controls").hidden = false;
      showMachine(m.machine);
      showHistory(m.history, { isBounded: m.ranking?.[0].share !== null });
      if (Date.now() > settledAt) showSettings(m.controls);
      if (m.frames) {
        showRates(m);
        showStages(m.stages);
        if (!isPaused) {
          answer = m;
          showFigures(m, parts);
          document.title = `${m.unknown ? UNKNOWN : m.label} · kdedge`;
        }
      }
      if (m.frames !== lastFrames) { lastFrames = m.frames; lastChange = Date.now(); }
      const state = !m.frames ? "waiting" : Date.now() - lastChange > STALLED_MS ? "stalled" : "live";
      if (!isPaused) setState(state, states[state]);
    } catch (error) {
      choices = null;  // the next run may use another model
      if (!(error instanceof TypeError)) region = null;  // or other regions; a lost connection is a TypeError
      setState("lost", states.lost);
    }
    for (const button of at("verdicts").children) button.disabled = !shown;
    at("pause").disabled = at("enroll").lastElementChild.disabled = !shown;
    await delayOrWake(document.hidden ? HIDDEN_POLL_MS : POLL_MS);
  }
}

at("pause").onclick = () => attempt(async () => { if (isPaused) resume(); else await pause(); });
at("verdicts").onclick = ({ target }) => {
  const judgment = target.closest("button")?.dataset.judgment;
  if (judgment) attempt(JUDGING[judgment]);
};
at("enroll").onsubmit = (event) => {
  event.preventDefault();
  attempt(enroll);
};
at("regions").onclick = ({ target }) => {
  const name = target.closest("button")?.dataset.region;
  if (name !== undefined) attempt(() => selectRegion(name));
};
at("explain").onclick = () => attempt(chooseClass);
at("method").onchange = () => attempt(() => set({ method: at("method").value }));
at("opacity").oninput = () => attempt(sendOpacity);
watch();
poll();
