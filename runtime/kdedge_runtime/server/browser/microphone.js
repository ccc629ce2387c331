// Microphone of this device. See sensors.js for its interface.

import { isMeasured, LiveWindows } from "/sound_windows.js";

const TIMEOUT_MS = 10_000;

/** Microphone: the newest window every `hop_s` seconds. Windows with only zeros are not measured. */
export class Microphone {
  isLive = true;
  isOpen = false;
  #isClosed = false;
  #isNewlyMuted = false;
  #measuredFrom = 0;  // time in milliseconds before which the microphone was muted
  #context = null;
  #stream = null;
  #windows = null;
  #startedAt = null;
  #waiting = null;
  #failure = null;
  #timer = null;

  constructor({ input }) {
    this.input = input;
  }

  async open() {
    // The processing for calls would change the sound, and cannot be repeated in training.
    const raw = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    this.#stream = await navigator.mediaDevices.getUserMedia({ video: false, audio: raw });
    try {
      if (!this.#isClosed) await this.#record();
    } finally {
      if (!this.isOpen) this.close();  // after a failure, or closed in the meantime
    }
  }

  async #record() {
    const context = this.#context = new AudioContext();  // at the rate of the device; see resampler.js
    await context.audioWorklet.addModule("/capture.js");
    if (this.#isClosed) return;
    const bufferMs = 2000 * (context.baseLatency || 0);
    this.#windows = new LiveWindows(this.input, context.sampleRate, bufferMs);
    const options = { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" };
    const capture = new AudioWorkletNode(context, "capture", options);
    capture.port.onmessage = ({ data }) => this.#add(data);
    const [track] = this.#stream.getAudioTracks();
    track.onmute = () => this.#mute();
    track.onunmute = () => { this.#measuredFrom = Date.now(); };
    track.onended = () => this.#fail("The microphone was disconnected. Connect it and start again.");
    context.createMediaStreamSource(this.#stream).connect(capture);
    if (track.muted) this.#mute();
    this.#watch();
    context.onstatechange = () => this.#resume();
    this.#resume();
    this.isOpen = true;
  }

  /** Wait for the next window. When the microphone is muted, there is none: `sample` is null. */
  next() {
    return new Promise((resolve, reject) => {
      if (this.#isClosed) resolve(null);
      else if (this.#failure) reject(this.#failure);
      else {
        this.#waiting = { resolve, reject };
        this.#offer();
      }
    });
  }

  close() {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#context?.close();
    this.#context = null;
    this.#settle("resolve", null);
  }

  #settle(how, value) {
    this.#waiting?.[how](value);
    this.#waiting = null;
  }

  #add({ block, at }) {
    if (this.#isClosed) return;
    this.#watch();
    const startedAt = block && at - (1000 * block.length) / this.#context.sampleRate;
    this.#startedAt ??= startedAt;
    // While it is muted, the browser fills in zeros.
    if (!block || startedAt < this.#measuredFrom) this.#windows.interrupt();
    else this.#windows.add(block, at);
    this.#offer();
  }

  #offer() {
    if (!this.#waiting) return;
    if (this.#isNewlyMuted) {
      this.#isNewlyMuted = false;
      this.#settle("resolve", { sample: null, isMeasured: false });
      return;
    }
    const window = this.#windows.take();
    if (!window) return;
    const end = (window.capturedAt - this.#startedAt) / 1000;
    const start = end - this.input.samples / this.input.rate_hz;
    this.#settle("resolve", { ...window, span: [start, end], isMeasured: isMeasured(window.sample) });
  }

  #mute() {
    this.#measuredFrom = Infinity;
    this.#isNewlyMuted = true;
    this.#windows.interrupt();
    this.#offer();
  }

  /** Resume, also after an interruption by the system. The promise can stay pending: see `#watch`. */
  #resume() {
    if (!this.#isClosed && this.#context.state !== "running") this.#context.resume().catch(() => {});
  }

  /** Fail if no block follows in time. */
  #watch() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      if (this.#measuredFrom === Infinity) this.#watch();
      else if (this.#context.state === "running") {
        this.#fail("The microphone returned no samples for 10 s. Expected one that no other program uses.");
      } else {
        this.#fail("The system interrupted the recording, for example for a call or a locked screen. Start it again.");
      }
    }, TIMEOUT_MS);
  }

  #fail(message) {
    this.#failure = new Error(message);
    this.#settle("reject", this.#failure);
  }
}
