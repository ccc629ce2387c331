// Spectrograms with heat, equivalent to the Python runtime (drawing/spectrogram.py).

import { make } from "/answer.js";
import { resample } from "/fit.js";
import { pasteHeat } from "/heat.js";
import { LogMel } from "/log_mel.js";
import { isMeasured } from "/sound_windows.js";

const WIDTH = 640, HEIGHT = 320;
const DYNAMIC_RANGE = 12;  // range of log energies between black and white: 52 dB
const TIME_STEPS_S = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60];
const MAX_MARKS = 8;
let logMel = null;

/** Draw a window in gray with its heat map, time to the right and low frequencies at the bottom. */
export function drawSpectrogram(canvas, sound, map, scale, about, opacity) {
  if (canvas.width !== WIDTH || canvas.height !== HEIGHT) Object.assign(canvas, { width: WIDTH, height: HEIGHT });
  const context = canvas.getContext("2d");
  if (logMel?.spec !== about.input) logMel = new LogMel(about.input);
  context.putImageData(graySpectrogram(sound, logMel), 0, 0);
  if (map && scale > 0) {
    const { shift_x, shift_y, typical_contrast } = about.display;
    const display = { shift_x, shift_y: -shift_y, typical_contrast };
    pasteHeat(context, upsideDown(map), scale, [0, 0, WIDTH, HEIGHT], { ramp: about.ramp, display }, opacity);
  }
}

/** Convert a window to gray levels. Digital silence is black. */
function graySpectrogram(sound, features) {
  const image = new ImageData(WIDTH, HEIGHT), pixels = new Uint32Array(image.data.buffer);
  const { data, width, height } = upsideDown(features.features(sound));
  const most = data.reduce((a, b) => Math.max(a, b));
  const isSilent = !isMeasured(sound);
  const cells = Uint8Array.from(data, (value) => isSilent ? 0
    : Math.round(255 * Math.min(1, Math.max(0, (value - most + DYNAMIC_RANGE) / DYNAMIC_RANGE))));
  const levels = resample(cells, { width, height, channels: 1 }, [0, 0, width, height], WIDTH, HEIGHT, "bicubic");
  levels.forEach((level, index) => { pixels[index] = level * 0x010101 + 0xff000000; });
  return image;
}

function upsideDown({ data, width, height }) {
  const turned = new Float32Array(data.length);
  for (let y = 0; y < height; y++) turned.set(data.subarray(y * width, (y + 1) * width), (height - 1 - y) * width);
  return { data: turned, width, height };
}

/** Return round times between two times in seconds. */
export function timeMarks(start, end, most = MAX_MARKS) {
  const length = end - start;
  const step = TIME_STEPS_S.find((each) => length / each <= most) ?? length / most;
  const first = Math.ceil(start / step - 1e-6), last = Math.floor(end / step + 1e-6);
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => (first + i) * step);
}

/** Fill an element below the spectrogram with marks of time. */
export function drawTimes(axis, start, end) {
  const marks = timeMarks(start, end, Math.min(MAX_MARKS, Math.max(1, Math.floor(axis.clientWidth / 70))));
  axis.replaceChildren(...marks.map((time) => {
    const share = (time - start) / (end - start);
    const mark = make("span", { textContent: `${Number(time.toFixed(2))} s` });
    mark.className = share < 0.04 ? "first" : share > 0.96 ? "last" : "";
    mark.style.left = `${100 * share}%`;
    return mark;
  }));
}
