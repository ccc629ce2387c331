// Conversion of sound to the rate of the model.
//
// Browsers convert, too, but with a short filter: Chromium 156 attenuates 3 kHz by 3 dB on the way from 44.1 to 8 kHz,
// and folds 5 kHz back with 17 dB of attenuation. This is a windowed sinc (Kaiser) with 90 dB.

const ATTENUATION_DB = 90;
const KAISER_BETA = 0.1102 * (ATTENUATION_DB - 8.7);
const TRANSITION = 0.1;  // width of the transition up to the lower Nyquist frequency, as a share of it

/** Conversion in blocks of any size, equivalent to the filter over the whole sound. Equal rates change nothing. */
export class Resampler {
  constructor(fromHz, toHz) {
    const divisor = gcd(fromHz, toHz);
    const narrow = Math.min(1, toHz / fromHz);
    const half = Math.ceil((ATTENUATION_DB - 8) / (2.285 * Math.PI * TRANSITION * narrow) / 2);
    Object.assign(this, { fromHz, toHz, up: toHz / divisor, down: fromHz / divisor });
    Object.assign(this, { half, cutoff: narrow * (1 - TRANSITION / 2), taps: new Map() });
    /** Time in milliseconds between the last converted sample and the last one received. */
    this.delayMs = this.isIdentity ? 0 : (1000 * half) / fromHz;
    this.reset();
  }

  get isIdentity() {
    return this.fromHz === this.toHz;
  }

  /** Start a new sound. */
  reset() {
    this.held = new Float32Array(this.half);  // zeros before the first sample
    this.place = this.half;                   // position of the next output in `held`, in whole samples ...
    this.phase = 0;                           // ... and in parts of `up`
  }

  /** Convert the next block. The filter delays samples until later blocks. */
  convert(block) {
    if (this.isIdentity) return block;
    const held = joined(this.held, block);
    const converted = [];
    while (this.place + this.half < held.length) {
      const taps = this.tapsOf(this.phase);
      const first = this.place - this.half + 1;
      let sum = 0;
      for (let i = 0; i < taps.length; i++) sum += taps[i] * held[first + i];
      converted.push(sum);
      const phase = this.phase + this.down;
      this.place += Math.floor(phase / this.up);
      this.phase = phase % this.up;
    }
    const unused = Math.min(held.length, Math.max(0, this.place - this.half + 1));
    this.held = held.slice(unused);
    this.place -= unused;
    return Float32Array.from(converted);
  }

  /** Return the filter for outputs that lie `phase / up` behind a sample. */
  tapsOf(phase) {
    if (!this.taps.has(phase)) {
      const taps = Float64Array.from({ length: 2 * this.half }, (_, i) => {
        const x = i - this.half + 1 - phase / this.up;
        return this.cutoff * sinc(this.cutoff * x) * kaiser(x / this.half);
      });
      const sum = taps.reduce((a, b) => a + b, 0);
      this.taps.set(phase, taps.map((tap) => tap / sum));
    }
    return this.taps.get(phase);
  }
}

/** Convert a whole sound. */
export function resampled(sound, fromHz, toHz) {
  const resampler = new Resampler(fromHz, toHz);
  if (resampler.isIdentity) return sound;
  const length = Math.round((sound.length * toHz) / fromHz);
  return resampler.convert(joined(sound, new Float32Array(resampler.half + 1))).slice(0, length);
}

function joined(a, b) {
  const both = new Float32Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}

const gcd = (a, b) => (b ? gcd(b, a % b) : a);
const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
const kaiser = (x) => (Math.abs(x) > 1 ? 0 : bessel(KAISER_BETA * Math.sqrt(1 - x * x)) / bessel(KAISER_BETA));

/** Modified Bessel function of order zero. */
function bessel(x) {
  let sum = 1;
  for (let term = 1, k = 1; term > 1e-12 * sum; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}
