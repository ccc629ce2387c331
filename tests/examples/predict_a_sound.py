"""Classify and explain one sound on a device.

Needs `model.onnx`, a file for sounds written by `kdedge export`, and `yes.wav`.
"""

from kdedge_runtime import Model
from kdedge_runtime.modalities.audio import AudioInput
from kdedge_runtime.util.sounds import read_sound

model = Model.load("model.onnx")
spec = model.metadata.input
assert isinstance(spec, AudioInput)
sound = read_sound("yes.wav", spec.rate_hz)  # mono PCM, float32 [samples]
explanation = model.predict(spec.preprocess(sound)[None])  # its center, one window long
assert explanation.saliency_map is not None  # None for a file exported with --method none
print(model.metadata.labels[explanation.scores[0].argmax()], explanation.scores[0].max())
print(explanation.saliency_map[0].shape)  # mel bands from low to high × times
