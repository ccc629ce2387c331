// Windows of a sound, equivalent to the Python runtime (modalities/audio.py, sources/audio).

import { Resampler } from "/resampler.js";

const MIN_SHARE = 0.1;        // shortest sound as a share of the window
const MAX_PAUSE_MS = 100;   // browsers buffer a microphone for this time; samples beyond it are lost
const CLOCK_DRIFT = 1e-3;       // largest difference between the clocks of microphone and system

/** Interval between windows in samples. */
export const hopOf = (spec) => Math.round(spec.hop_s * spec.rate_hz);

/** Return false if a sound has only zeros: a muted or disconnected microphone measures nothing. */
export const isMeasured = (sound) => sound.some((value) => value !== 0);

/**
 * Cut or pad a sound at its center to the length of the window.
 *
 * @param {Float32Array} sound PCM at the rate of the model, mono.
 * @returns {Float32Array} PCM [spec.samples].
 */
export function fitSound(sound, spec) {
  if (!sound.every(Number.isFinite)) throw new Error("A sound has samples that are not finite (NaN or infinity).");
  const start = Math.floor(Math.max(0, sound.length - spec.samples) / 2);
  const part = sound.subarray(start, start + spec.samples);
  if (!isMeasured(part)) throw new Error("The sound has only zeros, so nothing was measured. Record it again.");
  if (part.length < MIN_SHARE * spec.samples) {
    throw new Error(`The sound has ${part.length} samples, but the window ${spec.samples}. Record a longer one.`);
  }
  const window = new Float32Array(spec.samples);
  window.set(part, Math.floor((spec.samples - part.length) / 2));
  return window;
}

/** Return the first samples of the windows of a sound; the last window ends with the sound. */
export function windowStarts(count, spec) {
  const starts = [0];
  for (const hop = hopOf(spec); starts.at(-1) + hop + spec.samples <= count;) starts.push(starts.at(-1) + hop);
  if (count > starts.at(-1) + spec.samples) starts.push(count - spec.samples);
  return starts;
}

/**
 * Windows of a microphone: the newest `samples` samples, every `hop_s` seconds.
 *
 * Windows have no gaps: after lost samples, the next one is complete again.
 */
export class LiveWindows {
  #held;
  #hop;
  #length;
  #written = 0;
  #end;          // end of the next window
  #at = null;    // time of the last sample
  #due = null;   // time of the last sample if no block since the last interrupt had been late

  /**
   * @param {object} spec input of the model.
   * @param {number} fromHz rate of the microphone.
   * @param {number} bufferMs time by which blocks can be late without a loss, in addition to the browser's buffer.
   */
  constructor(spec, fromHz, bufferMs = 0) {
    this.#length = this.#end = spec.samples;
    this.#hop = hopOf(spec);
    this.#held = new Float32Array(this.#length + this.#hop);
    Object.assign(this, { spec, resampler: new Resampler(fromHz, spec.rate_hz) });
    this.longestPauseMs = MAX_PAUSE_MS + bufferMs;
  }

  /** Append a block at the rate of the microphone. `at` is the time of its last sample in milliseconds. */
  add(block, at) {
    // Losses add up, and so does the drift of the clocks.
    const lengthMs = (1000 * block.length) / this.resampler.fromHz;
    const due = Math.min(at, (this.#due ?? at) + lengthMs * (1 + CLOCK_DRIFT));
    const isLost = at - due > this.longestPauseMs;
    if (isLost) this.interrupt();
    this.#due = isLost ? at : due;
    this.#at = at;
    for (const value of this.resampler.convert(block)) this.#held[this.#written++ % this.#held.length] = value;
  }

  /** Begin the next window behind the samples so far, because the following ones do not adjoin them. */
  interrupt() {
    this.resampler.reset();
    this.#due = null;
    this.#end = this.#written + this.#length;
  }

  /** Return the newest complete window and the time of its last sample, or null before the next one is complete. */
  take() {
    if (this.#written < this.#end) return null;
    const end = this.#end + Math.floor((this.#written - this.#end) / this.#hop) * this.#hop;
    this.#end = end + this.#hop;
    const size = this.#held.length;
    const sample = Float32Array.from({ length: this.#length }, (_, i) => this.#held[(end - this.#length + i) % size]);
    const late = (1000 * (this.#written - end)) / this.spec.rate_hz + this.resampler.delayMs;
    return { sample, capturedAt: this.#at - late };
  }
}
