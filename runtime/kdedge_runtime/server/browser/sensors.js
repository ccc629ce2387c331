// Sensors by the value `sensor` of model.json.
//
// A source has `open()`, `next()` and `close()`. `next` waits for a sample and its time, and returns null at the end:
// {sample, capturedAt, span, isMeasured}. `span` has the start and end of a sound in seconds. Samples that were not
// measured get no answer. `isStill` is true if the source has a single sample, which is shown until it ends.

import { Camera, ImageFile } from "/camera.js";
import { Microphone } from "/microphone.js";
import { drawOverlay } from "/overlay.js";
import { SoundFile } from "/sound_file.js";
import { drawSpectrogram } from "/spectrogram.js";

export const SENSORS = {
  camera: {
    Live: Camera, File: ImageFile,
    draw: (canvas, { sample }, ...how) => drawOverlay(canvas, sample, ...how),
    copy: (image) => createImageBitmap(image),
    hasOtherSide: true,
    name: "Camera", accept: "image/*", file: "Open an image", unit: "frame",
    empty: "Start the camera, or open an image.", canvas: "Latest frame with its heat map",
  },
  microphone: {
    Live: Microphone, File: SoundFile,
    draw: (canvas, { sample, input }, ...how) => drawSpectrogram(canvas, input ?? sample, ...how),
    copy: async (sound) => sound.slice(),
    hasOtherSide: false,
    name: "Microphone", accept: "audio/*", file: "Open a sound", unit: "window",
    empty: "Start the microphone, or open a sound.",
    canvas: "Spectrogram of the latest window with its heat map, low frequencies at the bottom",
  },
};
