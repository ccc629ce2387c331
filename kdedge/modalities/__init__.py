"""Modalities at training: how a dataset is read and augmented, and which network fits it.

`TRAINING_MODALITIES` maps the kind of an input to its `TrainingModality`; other packages add modalities with an entry
point of the group `kdedge.modalities`.
"""

from kdedge.modalities.training_modality import Augmenter, TrainingModality
from kdedge_runtime.errors import UsageError
from kdedge_runtime.util.plugin_registry import Registry

__all__ = ["TRAINING_MODALITIES", "Augmenter", "TrainingModality", "modality_of_dataset"]

TRAINING_MODALITIES: Registry[TrainingModality] = Registry(
    "modality at training",
    "kdedge.modalities",
    {
        "image": "kdedge.modalities.image:IMAGE",
        "timeseries": "kdedge.modalities.timeseries:TIMESERIES",
        "tabular": "kdedge.modalities.tabular:TABULAR",
    },
)
"""Modalities by kind."""


def modality_of_dataset(data: str) -> TrainingModality:
    """Return the modality that reads a dataset; images if no other does.

    Raises:
        UsageError: several modalities read it.
    """
    readers = [kind for kind in TRAINING_MODALITIES if TRAINING_MODALITIES[kind].reads(data)]
    if len(readers) > 1:
        raise UsageError(f"{data} is read as {' and as '.join(readers)}. Expected samples of one kind in a folder.")
    return TRAINING_MODALITIES[readers[0] if readers else "image"]
