"""Classify and explain one image on a device: numpy, onnxruntime and Pillow are enough.

Needs `model.onnx`, written by `kdedge export`, and `photo.png`.
"""

from PIL import Image

from kdedge_runtime import Model, predict_file

(prediction,) = predict_file(Model.load("model.onnx"), "photo.png")
assert prediction.saliency_map is not None  # None for a file exported with --method none
print(f"{prediction.label}, {prediction.score:.2f}, unknown: {prediction.unknown}")
print(prediction.saliency_map.shape)  # raw and signed: positive values support the class
Image.fromarray(prediction.draw()).save("explained.png")
