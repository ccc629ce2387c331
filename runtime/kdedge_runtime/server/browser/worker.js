// Preprocessing and inference in a worker thread, to keep the page responsive.

import { Engine } from "/engine.js";
import { fitFrame } from "/fit.js";
import { fitSound } from "/sound_windows.js";

const PREPROCESS = { camera: fitFrame, microphone: fitSound };
let engine = null;

async function answer({ sample, classIndex }) {
  const started = performance.now();
  const input = PREPROCESS[engine.about.sensor](sample, engine.about.input);
  const fitted = performance.now();
  const outputs = await engine.run(input, classIndex);
  const ms = { preprocess: fitted - started, inference: performance.now() - fitted };
  // The sample is returned, so that its heat map is drawn on the same sample.
  const message = { kind: "answer", sample, input, ms, scores: engine.scores(outputs.logits), ...outputs };
  postMessage(message, [sample.buffer ?? sample, input.buffer]);
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
