"""Inference with explanations in the browser. This machine only serves the page and the model.

```
page_server    page, model and its metadata
web_runtime    onnxruntime-web, pinned by version and hash
required_input converts the model's optional input to a required one for browsers

app.js         user interface; sensors.js has what differs between camera and microphone
engine.js      session; worker.js runs preprocessing and inference in a worker thread
heat.js        heat map on a canvas
camera.js      camera and image files; fit.js preprocessing, overlay.js drawing
microphone.js  microphone, with capture.js in the audio thread; sound_file.js sound files; sound_windows.js windows and
               preprocessing, resampler.js rates, log_mel.js and spectrogram.js drawing
```
"""
