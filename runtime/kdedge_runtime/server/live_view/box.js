// Drawing a box on the image, with mouse, pen or touch.

import { at } from "/answer.js";

const SMALLEST = 0.01;  // minimum side as a fraction of the image; smaller is a click
const clamp = (value) => Math.min(1, Math.max(0, value));

function lay() {
  // Align with the image, which may not fill its frame.
  const image = at("image");
  Object.assign(at("drawing").style, {
    left: image.offsetLeft + "px", top: image.offsetTop + "px",
    width: image.offsetWidth + "px", height: image.offsetHeight + "px",
  });
}

function place({ clientX, clientY }) {
  const area = at("drawing").getBoundingClientRect();
  return [clamp((clientX - area.left) / area.width), clamp((clientY - area.top) / area.height)];
}

/** Draw a box. Resolves to [left, top, right, bottom] as fractions of the image, or null if canceled. */
export function drawBox() {
  const drawing = at("drawing"), rect = drawing.firstElementChild;
  let start = null, box = null;

  const draw = (event) => {
    if (!start) return;
    const end = place(event);
    const [left, right] = [start[0], end[0]].sort((a, b) => a - b);
    const [top, bottom] = [start[1], end[1]].sort((a, b) => a - b);
    const isBox = right - left > SMALLEST && bottom - top > SMALLEST;
    box = isBox ? [left, top, right, bottom] : null;
    for (const [name, value] of Object.entries({ x: left, y: top, width: right - left, height: bottom - top })) {
      rect.setAttribute(name, isBox ? value : 0);
    }
    at("box-store").disabled = !box;
  };

  drawing.onpointerdown = (event) => {
    drawing.setPointerCapture(event.pointerId);
    start = place(event);
    draw(event);
  };
  drawing.onpointermove = draw;
  drawing.onpointerup = drawing.onpointercancel = (event) => { draw(event); start = null; };

  rect.setAttribute("width", 0);
  at("box-store").disabled = true;
  at("verdicts").hidden = true;
  at("box-bar").hidden = false;
  at("pause").hidden = true;
  drawing.removeAttribute("hidden");
  lay();
  const resized = new ResizeObserver(lay);
  resized.observe(at("image"));

  return new Promise((resolve) => {
    const end = (result) => {
      resized.disconnect();
      drawing.setAttribute("hidden", "");
      at("box-bar").hidden = true;
      at("verdicts").hidden = at("pause").hidden = false;
      resolve(result);
    };
    at("box-store").onclick = () => end(box);
    at("box-cancel").onclick = () => end(null);
  });
}
