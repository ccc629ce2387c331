// Log-mel features for display, equivalent to the Python runtime (audio_features.py). The model computes its own.

const LINEAR_HZ = 200 / 3, BREAK_HZ = 1000, LOG_STEP = Math.log(6.4) / 27;

const melOf = (hz) => (hz < BREAK_HZ ? hz / LINEAR_HZ : BREAK_HZ / LINEAR_HZ + Math.log(hz / BREAK_HZ) / LOG_STEP);
const hzOf = (mel) => {
  const linear = mel * LINEAR_HZ;
  return linear < BREAK_HZ ? linear : BREAK_HZ * Math.exp(LOG_STEP * (mel - BREAK_HZ / LINEAR_HZ));
};

/** Return the nonzero weights of each mel filter: `first`, the first bin, and `weights`. */
function melFilters({ rate_hz: rate, n_fft: size, mel_bands: bands, fmin_hz: fmin, fmax_hz: fmax }) {
  const low = melOf(fmin), step = (melOf(fmax) - low) / (bands + 1);
  const edges = Array.from({ length: bands + 2 }, (_, i) => hzOf(low + i * step));
  return Array.from({ length: bands }, (_, band) => {
    const [left, center, right] = edges.slice(band, band + 3);
    const weights = [];
    let first = 0;
    for (let bin = 0; bin <= size / 2; bin++) {
      const hz = (bin * rate) / size;
      const share = Math.min((hz - left) / (center - left), (right - hz) / (right - center));
      if (share <= 0) continue;
      if (!weights.length) first = bin;
      weights.push((share * 2) / (right - left));
    }
    return { first, weights };
  });
}

/** Fourier transform of one size, decimated in time by two as often as possible. */
class Fourier {
  constructor(size) {
    const turn = (2 * Math.PI) / size;
    Object.assign(this, { size, real: new Float64Array(size), imaginary: new Float64Array(size) });
    this.cosines = Float64Array.from({ length: size }, (_, i) => Math.cos(turn * i));
    this.sines = Float64Array.from({ length: size }, (_, i) => Math.sin(turn * i));
  }

  /** Transform `size` values into `real` and `imaginary`, from every `stride`-th value onward from `start`. */
  transform(values, start = 0, size = this.size, stride = 1, to = 0) {
    const { real, imaginary, cosines, sines } = this;
    if (size % 2) {
      for (let k = 0; k < size; k++) {
        let a = 0, b = 0;
        for (let i = 0; i < size; i++) {
          const angle = ((i * k) % size) * stride;
          a += values[start + i * stride] * cosines[angle];
          b -= values[start + i * stride] * sines[angle];
        }
        real[to + k] = a;
        imaginary[to + k] = b;
      }
      return;
    }
    const half = size / 2;
    this.transform(values, start, half, 2 * stride, to);
    this.transform(values, start + stride, half, 2 * stride, to + half);
    for (let k = to, angle = 0; k < to + half; k++, angle += stride) {
      const a = real[k + half] * cosines[angle] + imaginary[k + half] * sines[angle];
      const b = imaginary[k + half] * cosines[angle] - real[k + half] * sines[angle];
      real[k + half] = real[k] - a;
      imaginary[k + half] = imaginary[k] - b;
      real[k] += a;
      imaginary[k] += b;
    }
  }
}

/** Computation of the features of one input. */
export class LogMel {
  constructor(spec) {
    const { n_fft: size, win_length: length } = spec, side = (size - length) / 2;
    this.spec = spec;
    this.filters = melFilters(spec);
    this.fourier = new Fourier(size);
    this.hann = Float64Array.from({ length: size }, (_, i) =>
      i < side || i >= side + length ? 0 : 0.5 - 0.5 * Math.cos((2 * Math.PI * (i - side)) / length));
  }

  /** Return log energies, lowest band first. `sound` is one window, PCM [spec.samples]. */
  features(sound) {
    const { n_fft: size, frame_hop: hop, samples, log_offset: offset, least_peak: leastPeak } = this.spec;
    const { filters, fourier, hann } = this;
    const level = sound.reduce((most, value) => Math.max(most, Math.abs(value)), leastPeak);
    const width = samples / hop, height = filters.length, padding = (size - hop) / 2;
    const data = new Float32Array(height * width), frame = new Float64Array(size);
    for (let x = 0; x < width; x++) {
      const first = x * hop - padding;
      for (let i = 0; i < size; i++) frame[i] = hann[i] && ((sound[first + i] ?? 0) / level) * hann[i];
      fourier.transform(frame);
      filters.forEach(({ first, weights }, band) => {
        let energy = offset;
        weights.forEach((weight, i) => {
          energy += weight * (fourier.real[first + i] ** 2 + fourier.imaginary[first + i] ** 2);
        });
        data[band * width + x] = Math.log(energy);
      });
    }
    return { data, width, height };
  }
}
