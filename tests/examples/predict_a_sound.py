"""Classify and explain a recording on a device, window by window.

Needs `model.onnx`, a file for sounds written by `kdedge export`, and `yes.wav`.
"""

from kdedge_runtime import Model, predict_file

for prediction in predict_file(Model.load("model.onnx"), "yes.wav"):
    print(prediction.label, prediction.score, prediction.frame.span_s)  # start and end in seconds
    assert prediction.saliency_map is not None  # None for a file exported with --method none
    print(prediction.saliency_map.shape)  # mel bands from low to high × times
