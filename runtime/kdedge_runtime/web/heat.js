// Saliency maps as heat on a picture, as the runtime draws them (heat.py, overlay.py).

import { drawOnWhite, resample, visibleBox } from "/fit.js";

/** A display scale that rises at once and falls slowly, so that the picture does not flicker. */
export class SteadyScale {
  constructor(halfLifeS = 1) {
    Object.assign(this, { halfLifeS, scale: 0 });
  }

  update(peak, elapsedS) {
    this.scale = Math.max(peak, this.scale * 0.5 ** (elapsedS / this.halfLifeS));
    return this.scale;
  }
}

/** The strongest evidence for the class; 0 where no cell speaks for it. */
export const peak = (map) => Math.max(0, ...map.data);

/** Draw a frame, the heat over what the model saw of it, and the outline of that. */
export function draw(canvas, frame, map, scale, { input, ramp }, opacity) {
  const { width, height } = frame;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  drawOnWhite(context, frame);
  const [left, top, right, bottom] = visibleBox(height, width, input).map(Math.round);
  if (map && scale > 0) {
    // A letterbox of a strip is far larger than the strip.
    const shown = [Math.max(left, 0), Math.max(top, 0), Math.min(right, width), Math.min(bottom, height)];
    const across = map.width / (right - left), down = map.height / (bottom - top);
    const part = shown.map((edge, axis) => (axis % 2 ? (edge - top) * down : (edge - left) * across));
    const heat = heatImage(map, scale, part, shown[2] - shown[0], shown[3] - shown[1], ramp, opacity);
    const layer = new OffscreenCanvas(heat.width, heat.height);
    layer.getContext("2d").putImageData(heat, 0, 0);
    context.drawImage(layer, shown[0], shown[1]);
  }
  if (left > 0 || top > 0 || right < width || bottom < height) {
    context.lineWidth = 1;
    context.strokeStyle = "rgb(255 255 255 / .6)";
    context.strokeRect(left + 0.5, top + 0.5, right - left - 1, bottom - top - 1);
    context.strokeStyle = "rgb(0 0 0 / .45)";
    context.strokeRect(left + 1.5, top + 1.5, right - left - 3, bottom - top - 3);
  }
}

function heatImage({ data, width, height }, scale, part, toWidth, toHeight, ramp, opacity) {
  const cells = Uint8Array.from(data, (value) => Math.round(255 * Math.min(1, Math.max(0, value / scale))));
  const levels = resample(cells, { width, height, channels: 1 }, part, toWidth, toHeight, "bicubic");
  const image = new ImageData(toWidth, toHeight);
  levels.forEach((level, index) => {
    image.data.set(ramp[level], index * 4);
    image.data[index * 4 + 3] = Math.round(level * opacity);
  });
  return image;
}
