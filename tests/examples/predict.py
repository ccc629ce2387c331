"""Classify and explain one image on a device: numpy, onnxruntime and Pillow are enough.

Needs `model.onnx`, written by `kdedge export`, and `photo.png`.
"""

from PIL import Image

from kdedge_runtime import Model
from kdedge_runtime.drawing.heatmap import normalize_heatmap, peak
from kdedge_runtime.drawing.overlay import draw_overlay
from kdedge_runtime.modalities.image import require_image
from kdedge_runtime.util.images import read_image

model = Model.load("model.onnx")
spec = require_image(model.metadata.input, "model.onnx")
image = read_image("photo.png")  # uint8 RGB [H, W, 3]
explanation = model.predict(spec.preprocess(image)[None])
label = model.metadata.labels[explanation.logits[0].argmax()]
assert explanation.saliency_map is not None  # None for a file exported with --method none
saliency_map = explanation.saliency_map[0]  # raw and signed: positive values support the class
print(f"{label}, {explanation.scores[0].max():.2f}, map {saliency_map.shape}")

heat = normalize_heatmap(saliency_map, peak(saliency_map))
box = spec.visible_box(image.shape[0], image.shape[1])
overlay = draw_overlay(image, heat, box, shift=explanation.display.shift)
Image.fromarray(overlay).save("overlay.png")
