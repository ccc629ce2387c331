// Page logic: predicts and explains samples of a sensor or a file. Samples never leave the browser.

import { at, setState, showAnswer, showMessage, UNKNOWN, write } from "/answer.js";
import { choose } from "/chooser.js";
import { peak, SmoothedScale } from "/heat.js";
import { showHistory } from "/history.js";
import { SENSORS } from "/sensors.js";
import { drawTimes } from "/spectrogram.js";

const BEST = "top-1 class";
const RANKED = 3;
const RECENT = 30;
const MINUTE_MS = 60_000, STEP_MS = 500;

const scoreText = (score) => about.score_name === "similarity" ? score.toFixed(2)
  : (score * 100).toFixed(score < 0.0995 ? 1 : 0) + "%";

const worker = new Worker("/worker.js", { type: "module" });
let about = null;
let sensor = null;
let classIndex = null;
let opacity = 0.6;
let source = null;      // open sensor or file; results of earlier ones are discarded
let facing = "environment";
let endedAt = [];
let past = [];          // answers of the last minute

/** Latest prediction: preprocessed `input`, `logits`, `map`, `explained` and the `sample`; null without one. */
export let latest = null;

function request(message, transfer = []) {
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => (data.kind === "failed" ? reject(new Error(data.message)) : resolve(data));
    worker.onerror = () => reject(new Error("The browser could not start the worker that runs the model."));
    worker.postMessage(message, transfer);
  });
}

// Requests are queued, because the worker handles one at a time.
let queue = Promise.resolve();
function answerTo(sample) {
  queue = queue.catch(() => {}).then(() => request({ sample, classIndex }, [sample.buffer ?? sample]));
  return queue;
}

// ---- display

function showSample(shown, scale, note = "") {
  const canvas = at("image");
  sensor.draw(canvas, shown, shown.map, scale, about, opacity);
  at("figure").style.setProperty("--aspect", canvas.width / canvas.height);
  canvas.hidden = false;
  at("times").hidden = !shown.span;
  if (shown.span) drawTimes(at("times"), ...shown.span);
  at("empty").hidden = !note;
  at("empty").textContent = note;
}

function show(answer, scale) {
  latest?.sample.close?.();
  latest = answer;
  showSample(answer, scale);
  const ranking = answer.scores.map((score, index) => ({ label: about.labels[index], score }))
    .sort((a, b) => b.score - a.score).slice(0, RANKED)
    .map(({ label, score }) => ({ label, text: scoreText(score), share: Math.min(1, Math.max(0, score)) }));
  const hasPositive = answer.map !== null && peak(answer.map) > 0;
  showAnswer({ ranking, explained: about.labels[answer.explained], hasMap: about.has_map, hasPositive, mapLegend: about.map_legend,
               unknown: answer.unknown });
  for (const [name, ms] of Object.entries(answer.ms)) write(name, ms.toFixed(ms < 10 ? 1 : 0), "ms");
  document.title = `${answer.unknown ? UNKNOWN : ranking[0].label} · kdedge`;
}

/** Show the answers of the last minute, the latest of every half second. `answer` is null for no answer. */
function showPast(answer, time) {
  past = past.filter((each) => time - each.time < MINUTE_MS);
  if (answer) {
    const share = Math.max(...answer.scores);
    const label = answer.unknown ? UNKNOWN : about.labels[answer.scores.indexOf(share)];
    const stepOf = (each) => Math.floor(each.time / STEP_MS);
    const point = { time, label, share: Math.min(1, Math.max(0, share)) };
    const isSameStep = past.length > 0 && stepOf(past.at(-1)) === stepOf(point);
    if (isSameStep) past.pop();
    past.push(point);
    if (isSameStep) return;  // drawn with the next step, or at the end
  }
  showHistory(past.map((each) => [(time - each.time) / 1000, each.label, each.share]));
  at("past").hidden = past.length === 0;
}

/** Show that nothing was measured, without an answer. */
function showUnmeasured({ sample, span }, reason) {
  latest = null;
  const silence = sample ?? new Float32Array(about.input.samples);
  showSample({ sample: silence, span, map: null }, 0, `Only zeros: ${reason}.`);
  showAnswer({ ranking: [{ label: "–", text: "", share: 0 }], hasMap: false });
  clearRates();
  document.title = "kdedge";
}

function showRates(capturedAt) {
  const now = performance.now();
  endedAt = [...endedAt, now].slice(-RECENT - 1);
  write("age", Math.max(0, Date.now() - capturedAt).toFixed(0), "ms");
  if (endedAt.length > 1) write("fps", ((endedAt.length - 1) * 1000 / (now - endedAt[0])).toFixed(1));
}

function clearRates() {
  endedAt = [];
  for (const id of ["age", "fps"]) write(id, "–");
}

// ---- sources

/** Predict the samples of a source until it ends or another one begins. */
async function play(opened) {
  stop();
  source = opened;
  setState("", "starting");
  const isCurrent = () => source === opened;
  try {
    await opened.open();
    if (!isCurrent()) return;
    const scale = new SmoothedScale();
    let previousAt = null;
    clearRates();
    if (opened.isOpen) at("live").textContent = "Stop";
    at("turn").hidden = !(opened.isLive && sensor.hasOtherSide);
    const isGoing = () => setState("live", opened.isLive ? "live" : "playing");
    for (isGoing();;) {
      const taken = await opened.next();
      if (!isCurrent() || !taken) break;
      if (!taken.isMeasured) {
        showUnmeasured(taken, opened.isLive ? "the microphone is muted or disconnected" : "nothing was measured");
        showPast(null, Date.now());
        setState("paused", "nothing measured");
        continue;
      }
      const answer = { ...await answerTo(taken.sample), span: taken.span };
      if (!isCurrent()) break;
      const elapsedS = (taken.capturedAt - (previousAt ?? taken.capturedAt)) / 1000;
      previousAt = taken.capturedAt;
      isGoing();
      show(answer, answer.map ? scale.update(peak(answer.map), elapsedS) : 0);
      if (opened.isOpen) {
        showRates(taken.capturedAt);
        showPast(answer, taken.capturedAt);
      }
    }
  } catch (error) {
    if (isCurrent()) throw error;
  }
  if (isCurrent()) stop();
}

function stop() {
  source?.close();
  source = null;
  at("live").textContent = `Start the ${sensor.name.toLowerCase()}`;
  at("turn").hidden = true;
  showPast(null, Date.now());
  setState("", "ready");
}

function startLive() {
  if (!navigator.mediaDevices) {
    throw new Error(
      `Browsers allow ${sensor.name.toLowerCase()} access only on localhost or encrypted pages: open the https address.`);
  }
  return play(new sensor.Live({ input: about.input, facing }));
}

const openFile = (file) => play(new sensor.File(file, about.input));

/** Explain the sample on the screen again, if it does not change. */
async function again() {
  const isChanging = () => source !== null && !source.isStill;
  if (!latest || isChanging()) return;
  const { span } = latest;
  const answer = { ...await answerTo(await sensor.copy(latest.sample)), span };
  if (!isChanging()) show(answer, answer.map ? peak(answer.map) : 0);
}

async function attempt(action) {
  try {
    await action();
  } catch (error) {
    if (sensor) stop();
    const messages = {
      NotAllowedError: `${sensor?.name} access was denied. Allow it in the browser's address bar.`,
      NotFoundError: `No ${sensor?.name.toLowerCase()} was found. Connect one, or open a file.`,
      NotReadableError: `${sensor?.name} access failed. Close other programs that use it, and start again.`,
    };
    showMessage(messages[error.name] ?? error.message, "bad");
  }
}

async function chooseClass() {
  const current = classIndex === null ? null : about.labels[classIndex];
  const chosen = await choose("Class to explain", about.labels, { current, none: BEST });
  if (chosen === undefined) return;
  classIndex = chosen === null ? null : about.labels.indexOf(chosen);
  at("explain").firstElementChild.textContent = chosen ?? BEST;
  await again();
}

async function start() {
  setState("", "loading the model");
  about = await (await fetch("/model.json")).json();
  sensor = SENSORS[about.sensor];
  at("about").textContent = about.name;
  at("quantized").hidden = !about.is_quantized;
  at("controls").hidden = !about.has_map;
  at("live").textContent = `Start the ${sensor.name.toLowerCase()}`;
  at("file").textContent = sensor.file;
  at("past-title").textContent =
    `${about.score_name === "probability" ? "Confidence" : "Similarity"} over the last minute`;
  at("picker").accept = sensor.accept;
  at("empty").textContent = sensor.empty;
  at("image").ariaLabel = sensor.canvas;
  for (const unit of document.querySelectorAll(".unit")) unit.textContent = sensor.unit;
  const { threads } = await request({ about });
  write("threads", threads);
  for (const id of ["live", "file"]) at(id).disabled = false;
  setState("", "ready");
}

at("live").onclick = () => attempt(async () => { if (source?.isOpen) stop(); else await startLive(); });
at("turn").onclick = () => attempt(() => { facing = facing === "user" ? "environment" : "user"; return startLive(); });
at("file").onclick = () => at("picker").click();
at("picker").onchange = () => {
  const [file] = at("picker").files;
  at("picker").value = "";  // so that the same file can be opened again
  if (file) attempt(() => openFile(file));
};
at("explain").onclick = () => attempt(chooseClass);
at("opacity").oninput = () => {
  opacity = Number(at("opacity").value);
  at("opacity-value").textContent = `${Math.round(opacity * 100)}%`;
  attempt(again);
};
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  const file = event.dataTransfer.files[0];
  if (file) attempt(() => openFile(file));
});
attempt(start);
