// Samples of a microphone in blocks, posted from the audio thread with the time of their last sample.

const BLOCK = Math.round(0.05 * sampleRate);

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Float32Array(BLOCK);
    this.filled = 0;
  }

  process([[quantum]]) {
    if (!quantum) {  // the microphone is disconnected
      if (this.filled) this.port.postMessage({ block: null });
      this.filled = 0;
      return true;
    }
    for (let from = 0; from < quantum.length;) {
      const part = quantum.subarray(from, from + BLOCK - this.filled);
      this.block.set(part, this.filled);
      this.filled += part.length;
      from += part.length;
      if (this.filled === BLOCK) {
        this.port.postMessage({ block: this.block, at: Date.now() }, [this.block.buffer]);
        this.block = new Float32Array(BLOCK);
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("capture", Capture);
