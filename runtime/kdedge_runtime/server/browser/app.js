// Page logic: classifies and explains camera frames or an image. Images never leave the browser.

import { at, become, make, showAnswer, showMessage, UNKNOWN, write } from "/answer.js";
import { choose } from "/chooser.js";
import { draw, peak, SmoothedScale } from "/heat.js";

const BEST = "top-1 class";
const RANKED = 3;
const RECENT = 30;

const scoreText = (score) => about.score_name === "similarity" ? score.toFixed(2)
  : (score * 100).toFixed(score < 0.0995 ? 1 : 0) + " %";

const video = make("video", { muted: true, playsInline: true });
const worker = new Worker("/worker.js", { type: "module" });
let about = null;
let classIndex = null;
let opacity = 0.6;
let source = 0;         // incremented per camera or image, to discard results of earlier ones
let facing = "environment";
let steady = new SmoothedScale();
let endedAt = [];

/** Latest prediction: input `pixels`, `logits`, `map`, `explained` and the `frame`. */
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
function answerTo(frame) {
  queue = queue.catch(() => {}).then(() => request({ frame, classIndex }, [frame]));
  return queue;
}

// ---- display

function show(answer, scale) {
  latest?.frame.close();
  latest = answer;
  draw(at("image"), answer.frame, answer.map, scale, about, opacity);
  at("figure").style.setProperty("--aspect", answer.frame.width / answer.frame.height);
  at("image").hidden = false;
  at("empty").hidden = true;
  const ranking = answer.scores.map((score, index) => ({ label: about.labels[index], score }))
    .sort((a, b) => b.score - a.score).slice(0, RANKED)
    .map(({ label, score }) => ({ label, text: scoreText(score), share: Math.min(1, Math.max(0, score)) }));
  const speaks = answer.map !== null && peak(answer.map) > 0;
  showAnswer({ ranking, explained: about.labels[answer.explained], hasMap: about.has_map, speaks,
               unknown: answer.unknown });
  for (const [name, ms] of Object.entries(answer.ms)) write(name, ms.toFixed(ms < 10 ? 1 : 0), "ms");
  document.title = `${answer.unknown ? UNKNOWN : ranking[0].label} · kdedge`;
}

function showRates(capturedAt) {
  const now = performance.now();
  endedAt = [...endedAt, now].slice(-RECENT - 1);
  write("age", (now - capturedAt).toFixed(0), "ms");
  if (endedAt.length > 1) write("fps", ((endedAt.length - 1) * 1000 / (now - endedAt[0])).toFixed(1));
}

// ---- sources

async function startCamera() {
  if (!navigator.mediaDevices) {
    throw new Error("This browser allows camera access only on localhost or encrypted pages: open the https address.");
  }
  stopCamera();
  const mine = source;
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: false, video: { facingMode: facing, width: { ideal: 640 }, height: { ideal: 480 } },
  });
  if (mine !== source) {  // clicked again in the meantime
    stop(stream);
    return;
  }
  video.srcObject = stream;
  try {
    await video.play();
  } catch (error) {
    if (mine === source) throw error;
  }
  if (mine !== source) return;
  steady = new SmoothedScale();
  endedAt = [];
  become("live", "live");
  at("camera").textContent = "Stop";
  at("turn").hidden = false;
  for (let before = performance.now(), capturedAt = before; mine === source; before = capturedAt) {
    capturedAt = performance.now();
    const answer = await answerTo(await createImageBitmap(video));
    if (mine !== source) break;
    show(answer, answer.map ? steady.update(peak(answer.map), (capturedAt - before) / 1000) : 0);
    showRates(capturedAt);
    await nextFrame();
  }
}

/** Wait for the next camera frame. Hidden pages get none. */
const nextFrame = () => new Promise((resolve) => {
  if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(resolve);
  else requestAnimationFrame(resolve);
});

function stop(stream) {
  for (const track of stream?.getTracks() ?? []) track.stop();
}

function stopCamera() {
  source++;
  stop(video.srcObject);
  video.srcObject = null;
  at("camera").textContent = "Start the camera";
  at("turn").hidden = true;
  become("", "ready");
}

async function openPicture(file) {
  stopCamera();
  // Without color conversion, as in the Python runtime.
  const answer = await answerTo(await createImageBitmap(file, { colorSpaceConversion: "none" }));
  show(answer, answer.map ? peak(answer.map) : 0);
  write("age", "–");
  write("fps", "–");
}

/** Explain the frame on the screen again, if it is a still image. */
async function again() {
  if (!latest || video.srcObject) return;
  const answer = await answerTo(await createImageBitmap(latest.frame));
  show(answer, answer.map ? peak(answer.map) : 0);
}

async function attempt(deed) {
  try {
    await deed();
  } catch (error) {
    stopCamera();
    showMessage(error.name === "NotAllowedError" ? "Camera access was denied. Allow it in the browser's address bar." : error.message, "bad");
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
  become("", "loading the model");
  about = await (await fetch("/model.json")).json();
  at("about").textContent = about.name;
  at("quantized").hidden = !about.is_quantized;
  at("controls").hidden = !about.has_map;
  const { threads } = await request({ about });
  write("threads", threads);
  for (const id of ["camera", "file"]) at(id).disabled = false;
  become("", "ready");
}

at("camera").onclick = () => attempt(async () => { if (video.srcObject) stopCamera(); else await startCamera(); });
at("turn").onclick = () => attempt(() => { facing = facing === "user" ? "environment" : "user"; return startCamera(); });
at("file").onclick = () => at("picker").click();
at("picker").onchange = () => attempt(() => openPicture(at("picker").files[0]));
at("explain").onclick = () => attempt(chooseClass);
at("opacity").oninput = () => {
  opacity = Number(at("opacity").value);
  at("opacity-value").textContent = `${Math.round(opacity * 100)} %`;
  if (!video.srcObject) attempt(again);
};
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  const file = event.dataTransfer.files[0];
  if (file) attempt(() => openPicture(file));
});
attempt(start);
