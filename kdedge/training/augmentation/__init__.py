"""Batched augmentation on the device that holds the images.

Drawing and doing are apart. What is random is drawn from a generator as tensors with one row an image; `transform` and
`blend` are pure functions of images and rows, which can be compiled (a compiled function takes no generator).
Nothing waits for the device or has a shape that depends on data, so all of it can be captured in a CUDA graph.
"""

from kdedge.config.augmentation_settings import Augmentation
from kdedge.training.augmentation.mixing import Mixing, blend, draw_mixing
from kdedge.training.augmentation.transforms import View, draw_view, transform

__all__ = ["Augmentation", "Mixing", "View", "blend", "draw_mixing", "draw_view", "transform"]
