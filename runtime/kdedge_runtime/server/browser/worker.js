// Preprocessing and inference in a worker thread, to keep the page responsive.

import { Engine } from "/engine.js";
import { drawOnWhite, fit } from "/fit.js";

const canvas = new OffscreenCanvas(1, 1);
const context = canvas.getContext("2d", { willReadFrequently: true });
let engine = null;

function pixelsOf(frame) {
  Object.assign(canvas, { width: frame.width, height: frame.height });
  drawOnWhite(context, frame);
  return context.getImageData(0, 0, frame.width, frame.height).data;
}

async function answer({ frame, classIndex }) {
  const started = performance.now();
  const pixels = fit(pixelsOf(frame), frame.width, frame.height, engine.about.input);
  const fitted = performance.now();
  const outputs = await engine.run(pixels, classIndex);
  const ms = { preprocess: fitted - started, inference: performance.now() - fitted };
  // The frame is returned, so that its heat map is drawn on the same frame.
  postMessage({ kind: "answer", frame, pixels, ms, scores: engine.scores(outputs.logits), ...outputs }, [frame, pixels.buffer]);
}

onmessage = async ({ data }) => {
  try {
    if (data.about) {
      engine = await Engine.load(data.about);
      postMessage({ kind: "ready", threads: engine.threads });
    } else {
      await answer(data);
    }
  } catch (error) {
    postMessage({ kind: "failed", message: String(error.message ?? error) });
  }
};
