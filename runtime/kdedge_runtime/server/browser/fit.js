// Resizing of images to the model input, bit-exact with the Python runtime (modalities/image.py).
//
// Canvas scaling differs and changes logits by up to 0.8. This is Pillow's resampling instead: separable, antialiased,
// weights in 22-bit fixed point, 8 bits between the passes.

const PRECISION_BITS = 22;
const scratch = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
const FILTERS = {
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { support: 2, weight: (x) => cubic(Math.abs(x)) },
};

function cubic(x) {
  const a = -0.5;
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

/** Draw a frame with transparency blended onto white, as in images.py. */
export function drawOnWhite(context, frame) {
  context.fillStyle = "#fff";
  context.fillRect(0, 0, frame.width, frame.height);
  context.drawImage(frame, 0, 0);
}

/** Return the visible part of an image, [left, top, right, bottom] in pixels. A letterbox extends beyond the image. */
export function visibleBox(height, width, spec) {
  if (spec.resize === "squash") return [0, 0, width, height];
  if (spec.resize === "letterbox") {
    const inner = innerSize(height, width, spec);
    const across = width / inner.width, down = height / inner.height;
    const left = -inner.left * across, top = -inner.top * down;
    return [left, top, left + spec.width * across, top + spec.height * down];
  }
  const scale = Math.min(height / spec.height, width / spec.width) * spec.crop_fraction;
  const seenHeight = Math.min(spec.height * scale, height), seenWidth = Math.min(spec.width * scale, width);
  const left = (width - seenWidth) / 2, top = (height - seenHeight) / 2;
  return [left, top, left + seenWidth, top + seenHeight];
}

/** Return the size and position of an image inside its letterbox, in pixels. */
function innerSize(height, width, spec) {
  const scale = Math.min(spec.height / height, spec.width / width);
  const innerHeight = Math.max(1, Math.floor(height * scale + 0.5));
  const innerWidth = Math.max(1, Math.floor(width * scale + 0.5));
  const left = Math.floor((spec.width - innerWidth) / 2), top = Math.floor((spec.height - innerHeight) / 2);
  return { width: innerWidth, height: innerHeight, left, top };
}

/** Resize a frame to the model input; see `fit`. */
export function fitFrame(frame, spec) {
  const { width, height } = frame;
  Object.assign(scratch.canvas, { width, height });
  drawOnWhite(scratch, frame);
  return fit(scratch.getImageData(0, 0, width, height).data, width, height, spec);
}

/** Resize RGBA pixels to the model input: Uint8Array of RGB [spec.height, spec.width, 3]. */
export function fit(rgba, width, height, spec) {
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < rgb.length; from += 4) {
    rgb[to++] = rgba[from];
    rgb[to++] = rgba[from + 1];
    rgb[to++] = rgba[from + 2];
  }
  if (spec.resize === "letterbox") {
    const inner = innerSize(height, width, spec);
    const whole = [0, 0, width, height];
    const scaled = resample(rgb, { width, height, channels: 3 }, whole, inner.width, inner.height, spec.interpolation);
    const boxed = new Uint8Array(spec.height * spec.width * 3);
    for (let y = 0; y < inner.height; y++) {
      const row = scaled.subarray(y * inner.width * 3, (y + 1) * inner.width * 3);
      boxed.set(row, ((inner.top + y) * spec.width + inner.left) * 3);
    }
    return boxed;
  }
  const box = visibleBox(height, width, spec);
  return resample(rgb, { width, height, channels: 3 }, box, spec.width, spec.height, spec.interpolation);
}

/** Crop a box from an image and resize it in one step. */
export function resample(pixels, { width, height, channels }, box, toWidth, toHeight, filter) {
  const [left, top, right, bottom] = box.map(Math.fround);
  let size = { width, height, channels };
  if (toWidth !== width || left !== 0 || right !== width) {
    pixels = pass(pixels, size, weights(width, left, right, toWidth, FILTERS[filter]), "across");
    size = { ...size, width: toWidth };
  }
  if (toHeight !== height || top !== 0 || bottom !== height) {
    pixels = pass(pixels, size, weights(height, top, bottom, toHeight, FILTERS[filter]), "down");
  }
  return pixels;
}

/** Return the first input pixel and the filter weights of every output pixel. */
function weights(size, from, to, toSize, filter) {
  const scale = Math.fround(to - from) / toSize;
  const widened = Math.max(scale, 1);
  const support = filter.support * widened;
  return Array.from({ length: toSize }, (_, place) => {
    const center = from + (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const end = Math.min(size, Math.trunc(center + support + 0.5));
    const raw = Array.from({ length: end - first }, (_, i) => filter.weight((i + first - center + 0.5) * (1 / widened)));
    const sum = raw.reduce((a, b) => a + b, 0);
    const fixed = raw.map((weight) => {
      const share = sum === 0 ? weight : weight / sum;
      return Math.trunc(share * (1 << PRECISION_BITS) + (share < 0 ? -0.5 : 0.5));
    });
    return { first, fixed: Int32Array.from(fixed) };
  });
}

function pass(pixels, { width, height, channels }, taps, direction) {
  const across = direction === "across";
  const toWidth = across ? taps.length : width, toHeight = across ? height : taps.length;
  const step = across ? channels : width * channels;
  const out = new Uint8Array(toWidth * toHeight * channels);
  let to = 0;
  for (let y = 0; y < toHeight; y++) {
    for (let x = 0; x < toWidth; x++) {
      const { first, fixed } = taps[across ? x : y];
      const start = across ? (y * width + first) * channels : (first * width + x) * channels;
      for (let channel = 0; channel < channels; channel++) {
        let sum = 1 << (PRECISION_BITS - 1);
        let at = start + channel;
        for (let i = 0; i < fixed.length; i++, at += step) sum += pixels[at] * fixed[i];
        const value = sum >> PRECISION_BITS;
        out[to++] = value < 0 ? 0 : value > 255 ? 255 : value;
      }
    }
  }
  return out;
}
