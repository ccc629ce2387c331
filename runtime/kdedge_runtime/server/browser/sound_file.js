// Sound files, played in real time. See sensors.js for their interface.

import { resampled } from "/resampler.js";
import { fitSound, isMeasured, windowStarts } from "/sound_windows.js";

const OTHER_HZ = 48_000;  // rate for formats whose header is not read
const LATEST_END_MS = 1000;  // time after the end of a sound at which playback is given up, if it did not begin

/** Sound file: the window that was heard last. The last window ends with the sound. */
export class SoundFile {
  isLive = false;
  isOpen = false;
  #isClosed = false;
  #context = null;
  #sound = null;
  #starts = [];
  #startedAt = 0;
  #ended = null;

  constructor(file, input) {
    Object.assign(this, { file, input });
  }

  async open() {
    const decoded = await decode(await this.file.arrayBuffer());
    this.#sound = resampled(mono(decoded), decoded.sampleRate, this.input.rate_hz);
    if (!isMeasured(this.#sound)) fitSound(this.#sound, this.input);  // throws
    this.#starts = windowStarts(this.#sound.length, this.input);
    if (this.#isClosed) return;
    this.#play(decoded);
    this.#startedAt = Date.now();
    this.isOpen = true;
  }

  /** True for a sound of at most one window, which is answered at once and then played to its end. */
  get isStill() {
    return this.#sound?.length <= this.input.samples;
  }

  async next() {
    const { samples, rate_hz: rate } = this.input;
    const endOf = (start) => this.#startedAt + (1000 * Math.min(start + samples, this.#sound.length)) / rate;
    if (!this.#starts.length) {
      await Promise.race([this.#ended, until(endOf(this.#sound.length) + LATEST_END_MS)]);
      return null;
    }
    if (!this.isStill) await until(endOf(this.#starts[0]));
    if (this.#isClosed) return null;
    while (this.#starts.length > 1 && endOf(this.#starts[1]) <= Date.now()) this.#starts.shift();
    const start = this.#starts.shift();
    const sample = this.#sound.slice(start, start + samples);
    const from = (start + (sample.length - samples) / 2) / rate;  // where the sound is padded
    const capturedAt = this.isStill ? this.#startedAt : endOf(start);
    return { sample, capturedAt, span: [from, from + samples / rate], isMeasured: isMeasured(sample) };
  }

  close() {
    this.#isClosed = true;
    this.#context?.close();
  }

  #play(buffer) {
    this.#context = new AudioContext();
    const player = new AudioBufferSourceNode(this.#context, { buffer });
    player.connect(this.#context.destination);
    this.#ended = new Promise((resolve) => {
      const latency = () => 1000 * (this.#context.outputLatency || 0);  // the last samples are not heard before
      player.onended = () => setTimeout(resolve, latency());
    });
    player.start();
  }
}

const until = (time) => new Promise((resolve) => setTimeout(resolve, time - Date.now()));

async function decode(content) {
  // Decoders of browsers convert the rate badly (see resampler.js), so that the rate of the file is used.
  const context = new OfflineAudioContext(1, 1, rateOf(new DataView(content)) ?? OTHER_HZ);
  try {
    return await context.decodeAudioData(content);
  } catch {
    throw new Error("The file is not a sound that this browser can decode. Expected wav, flac, ogg, mp3 or similar.");
  }
}

/** Return the mean of the channels. */
function mono(decoded) {
  const { numberOfChannels: count, length } = decoded;
  const channels = Array.from({ length: count }, (_, channel) => decoded.getChannelData(channel));
  if (count === 1) return channels[0];
  return Float32Array.from({ length }, (_, i) => channels.reduce((sum, channel) => sum + channel[i], 0) / count);
}

/** Return the rate in the header of a wav, flac or Ogg Vorbis file, or null. */
function rateOf(view) {
  const text = (at, length) => at + length > view.byteLength ? ""
    : String.fromCharCode(...new Uint8Array(view.buffer, at, length));
  let rate = null;
  if (text(0, 4) === "RIFF" && text(8, 4) === "WAVE") {
    for (let at = 12; at + 16 <= view.byteLength; at += 8 + view.getUint32(at + 4, true)) {
      if (text(at, 4) === "fmt ") rate = view.getUint32(at + 12, true);
      if (rate !== null) break;
    }
  } else if (text(0, 4) === "fLaC" && view.byteLength >= 22) {
    rate = view.getUint32(18) >>> 12;
  } else if (text(0, 4) === "OggS" && text(29, 6) === "vorbis" && view.byteLength >= 44) {
    rate = view.getUint32(40, true);
  }
  return rate >= 8_000 && rate <= 96_000 ? rate : null;  // rates that every browser supports
}
