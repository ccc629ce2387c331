"""Modalities at training: how a dataset is read and augmented, and which network fits it.

`TRAINING_MODALITIES` maps the kind of an input to its `TrainingModality`; other packages add modalities with an entry
point of the group `kdedge.modalities`.
"""

from kdedge.modalities.training_modality import Augmenter, TrainingModality
from kdedge_runtime.util.plugin_registry import Registry

__all__ = ["TRAINING_MODALITIES", "Augmenter", "TrainingModality", "modality_of_dataset"]

TRAINING_MODALITIES: Registry[TrainingModality] = Registry(
    "kdedge.modalities", {"image": "kdedge.modalities.image:IMAGE"}
)
"""Modalities by kind."""


def modality_of_dataset(data: str) -> TrainingModality:
    """Return the modality that reads a dataset; images if no other does."""
    others = (TRAINING_MODALITIES[kind] for kind in TRAINING_MODALITIES if kind != "image")
    return next((modality for modality in others if modality.reads(data)), TRAINING_MODALITIES["image"])
