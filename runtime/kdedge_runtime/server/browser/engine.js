// Inference session: one forward pass returns logits and saliency map.

import * as ort from "/ort/ort.wasm.bundle.min.mjs";

const MAX_THREADS = 4;  // more only increase power use on phones

export class Engine {
  /** Load the model. Threads need a cross-origin isolated page, as served by this server. */
  static async load(about) {
    const threads = globalThis.crossOriginIsolated ? Math.min(MAX_THREADS, navigator.hardwareConcurrency || 1) : 1;
    ort.env.logLevel = "error";
    ort.env.wasm.numThreads = threads;
    ort.env.wasm.wasmPaths = { wasm: new URL("/ort/ort-wasm-simd-threaded.wasm", location).href };
    const session = await ort.InferenceSession.create("/model.onnx", {
      executionProviders: ["wasm"], logSeverityLevel: 3,
    });
    return new Engine(session, about, threads);
  }

  constructor(session, about, threads) {
    Object.assign(this, { session, about, threads });
  }

  /**
   * Classify and explain one sample.
   *
   * @param {Uint8Array|Float32Array} values preprocessed sample.
   * @param {number|null} classIndex class to explain; null for the top-1 class.
   * @returns {Promise<{logits: Float32Array, explained: number, unknown: boolean,
   *   map: {data: Float32Array, height: number, width: number}|null}>}
   */
  async run(values, classIndex = null) {
    const { input, shape, dtype, has_map: hasMap, threshold } = this.about;
    const feeds = { [input.name]: new ort.Tensor(dtype, values, [1, ...shape]) };
    if (hasMap) feeds.class_index = new ort.Tensor("int64", BigInt64Array.of(BigInt(classIndex ?? -1)), [1]);
    const outputs = await this.session.run(feeds);
    const logits = outputs.logits.data;
    // The threshold is the score of a sample in float32.
    const unknown = threshold !== null && !(outputs.familiarity.data[0] >= Math.fround(threshold));
    if (!hasMap) return { logits, explained: logits.indexOf(Math.max(...logits)), unknown, map: null };
    const [, height, width] = outputs.saliency_map.dims;
    const explained = Number(outputs.explained_class.data[0]);
    return { logits, explained, unknown, map: { data: outputs.saliency_map.data, height, width } };
  }

  /** Convert logits to scores: similarities of an embedding model, or probabilities. */
  scores(logits) {
    return this.about.score_name === "similarity" ? Array.from(logits) : softmax(logits, this.about.temperature);
  }
}

/** Convert logits to probabilities at the model's calibration temperature. */
function softmax(logits, temperature) {
  const most = Math.max(...logits);
  const shifted = Array.from(logits, (logit) => Math.exp((logit - most) / temperature));
  const sum = shifted.reduce((a, b) => a + b, 0);
  return shifted.map((value) => value / sum);
}
