// Camera of this device, and images from files. See sensors.js for their interface.

import { make } from "/answer.js";

/** Camera: the newest frame each time. */
export class Camera {
  isLive = true;
  isOpen = false;
  #isClosed = false;
  #isFirst = true;
  #video = make("video", { muted: true, playsInline: true });

  /** `facing` is "environment" or "user". */
  constructor({ facing }) {
    this.facing = facing;
  }

  async open() {
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: false, video: { facingMode: this.facing, width: { ideal: 640 }, height: { ideal: 480 } },
    });
    this.#video.srcObject = stream;
    if (this.#isClosed) return this.close();  // in the meantime
    await this.#video.play();
    this.isOpen = true;
  }

  async next() {
    if (!this.#isFirst) await this.#nextFrame();
    this.#isFirst = false;
    if (this.#isClosed) return null;
    const capturedAt = Date.now();
    return { sample: await createImageBitmap(this.#video), capturedAt, isMeasured: true };
  }

  close() {
    this.#isClosed = true;
    for (const track of this.#video.srcObject?.getTracks() ?? []) track.stop();
    this.#video.srcObject = null;
  }

  /** Wait for the next camera frame. Hidden pages get none. */
  #nextFrame() {
    return new Promise((resolve) => {
      if (this.#video.requestVideoFrameCallback) this.#video.requestVideoFrameCallback(resolve);
      else requestAnimationFrame(resolve);
    });
  }
}

/** Image from a file. */
export class ImageFile {
  isLive = false;
  isOpen = false;
  #image = null;

  constructor(file) {
    this.file = file;
  }

  async open() {
    // Without color conversion, as in the Python runtime.
    this.#image = await createImageBitmap(this.file, { colorSpaceConversion: "none" });
  }

  async next() {
    const sample = this.#image;
    this.#image = null;
    return sample && { sample, capturedAt: Date.now(), isMeasured: true };
  }

  close() {
    this.#image?.close();
  }
}
