"""Batched augmentation on the device that holds the images.

Drawing and doing are apart. What is random is drawn from a generator as tensors with one row an image; `transform` and
`mixing.blend` are pure functions of images and rows, which can be compiled (a compiled function takes no generator).
Nothing waits for the device or has a shape that depends on data, so all of it can be captured in a CUDA graph.
"""

from kdedge.distill.augment.mixing import mix
from kdedge.distill.augment.settings import Augmentation
from kdedge.distill.augment.view import View, draw_view, transform

__all__ = ["Augmentation", "View", "draw_view", "mix", "transform"]
