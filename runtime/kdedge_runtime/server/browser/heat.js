// Heat map rendering, equivalent to the Python runtime (heatmap.py, overlay.py).

import { resample } from "/fit.js";

/** Display scale that rises immediately and decays slowly, to avoid flicker. */
export class SmoothedScale {
  constructor(halfLifeS = 1) {
    Object.assign(this, { halfLifeS, scale: 0 });
  }

  update(peak, elapsedS) {
    this.scale = Math.max(peak, this.scale * 0.5 ** (Math.max(0, elapsedS) / this.halfLifeS));
    return this.scale;
  }
}

/** Return the maximum of a map, or 0 if it has no positive value. */
export const peak = (map) => map.data.reduce((most, value) => Math.max(most, value), 0);

/** Return the difference between a map's maximum and the mean of its positive part; 0 for a constant map. */
export const contrast = (map) => peak(map) - map.data.reduce((sum, value) => sum + Math.max(0, value), 0) / map.data.length;

/** Return the display strength of a map, below 1 if it is flatter than typical. */
const strength = (map, { typical_contrast: typical }) => (typical === null ? 1 : Math.min(1, contrast(map) / typical));

/**
 * Blend a heat map over a region of a canvas.
 *
 * @param {{data: Float32Array, height: number, width: number}} map raw signed map.
 * @param {number} scale map value shown as full heat.
 * @param {number[]} region left, top, right and bottom of the map in pixels. Parts outside the canvas are not drawn.
 * @param {{ramp: number[][], display: object}} about color ramp, and position and contrast of the map.
 */
export function pasteHeat(context, map, scale, [left, top, right, bottom], { ramp, display }, opacity) {
  const { width, height } = context.canvas;
  // The letterbox of a narrow strip is far larger than the strip.
  const shown = [Math.max(left, 0), Math.max(top, 0), Math.min(right, width), Math.min(bottom, height)];
  const part = shown.map((edge, axis) =>
    axis % 2 ? ((edge - top) * map.height) / (bottom - top) : ((edge - left) * map.width) / (right - left));
  const heat = heatImage(map, scale, part, shown[2] - shown[0], shown[3] - shown[1], ramp, opacity, display);
  const layer = new OffscreenCanvas(heat.width, heat.height);
  layer.getContext("2d").putImageData(heat, 0, 0);
  context.drawImage(layer, shown[0], shown[1]);
}

function heatImage(map, scale, part, toWidth, toHeight, ramp, opacity, display) {
  const { data, width, height } = map;
  const share = strength(map, display);
  const cells = Uint8Array.from(data, (value) => Math.round(255 * share * Math.min(1, Math.max(0, value / scale))));
  const levels = enlarged(cells, width, height, display, part, toWidth, toHeight);
  const rgba = ramp.flatMap((color, level) => [...color, Math.round(level * opacity)]);
  const colors = new Uint32Array(Uint8Array.from(rgba).buffer);
  const image = new ImageData(toWidth, toHeight), pixels = new Uint32Array(image.data.buffer);
  levels.forEach((level, index) => { pixels[index] = colors[level]; });
  return image;
}

/** Resize part of a map to the displayed size, corrected for its offset. */
function enlarged(cells, width, height, { shift_x: across, shift_y: down }, part, toWidth, toHeight) {
  if (across === 0 && down === 0) {
    return resample(cells, { width, height, channels: 1 }, part, toWidth, toHeight, "bicubic");
  }
  const window = part.map((edge, axis) => edge + 1 - (axis % 2 ? down : across));
  const size = { width: width + 2, height: height + 2, channels: 1 };
  return resample(bordered(cells, width, height), size, window, toWidth, toHeight, "bicubic");
}

/** Pad a map by one pixel on every side, replicating the edges. */
function bordered(cells, width, height) {
  const inside = (at, size) => Math.min(Math.max(at - 1, 0), size - 1);
  return Uint8Array.from({ length: (width + 2) * (height + 2) }, (_, at) =>
    cells[inside(Math.floor(at / (width + 2)), height) * width + inside(at % (width + 2), width)]);
}
