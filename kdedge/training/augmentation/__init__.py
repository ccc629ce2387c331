"""Batched image augmentation on the training device.

Random numbers are drawn from a generator as tensors with one row per image. `transform` and `blend` are pure functions
of images and these rows, so they can be compiled (compiled functions take no generator). There are no device
synchronizations or data-dependent shapes, so all of it can be captured in a CUDA graph.
"""

from kdedge.config.augmentation_settings import Augmentation
from kdedge.training.augmentation.mixing import Mixing, blend, draw_mixing
from kdedge.training.augmentation.transforms import AugmentationParams, augment, draw_augmentation

__all__ = ["Augmentation", "Mixing", "AugmentationParams", "blend", "draw_mixing", "draw_augmentation", "augment"]
