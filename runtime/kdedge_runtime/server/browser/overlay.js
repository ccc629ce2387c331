// Frames of a camera and images with their heat map, equivalent to the Python runtime (overlay.py).

import { drawOnWhite, visibleBox } from "/fit.js";
import { pasteHeat } from "/heat.js";

/** Draw a frame with its heat map and an outline of the visible part. */
export function drawOverlay(canvas, frame, map, scale, about, opacity) {
  const { width, height } = frame;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  drawOnWhite(context, frame);
  const [left, top, right, bottom] = visibleBox(height, width, about.input).map(Math.round);
  if (map && scale > 0) pasteHeat(context, map, scale, [left, top, right, bottom], about, opacity);
  if (left > 0 || top > 0 || right < width || bottom < height) {
    context.lineWidth = 1;
    context.strokeStyle = "rgb(255 255 255 / .6)";
    context.strokeRect(left + 0.5, top + 0.5, right - left - 1, bottom - top - 1);
    context.strokeStyle = "rgb(0 0 0 / .45)";
    context.strokeRect(left + 1.5, top + 1.5, right - left - 3, bottom - top - 3);
  }
}
