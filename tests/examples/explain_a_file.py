"""Add a saliency map to an `.onnx` classifier of any framework, without its source code and without torch.

Needs `theirs.onnx`, an image classifier that takes float32 `[N, 3, H, W]`.
"""

import kdedge_export

pixels = kdedge_export.PixelInput(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
done = kdedge_export.add_saliency("theirs.onnx", "ours.onnx", pixels=pixels, labels=("circle", "square", "star"))

print(f"{done.path}: {done.outputs.method} at {done.outputs.target_layer}, relative error {done.map_error:.1e}")
print(f"own outputs changed by {done.output_error:.1e} of their range")
