"""Trained weights that a run starts from: found for a new run, and found again for a resumed one."""

from pathlib import Path

from kdedge.config.train_config import TrainConfig
from kdedge.modalities.training_modality import TrainingModality
from kdedge.models.network_weights import NetworkWeights, find_weights, reload_weights
from kdedge.models.run_folder import RunRecord

__all__ = ["find_initial_weights", "initial_request"]


def find_initial_weights(request: TrainConfig, modality: TrainingModality) -> NetworkWeights | None:
    """Find the weights of a request; published ones are downloaded if necessary.

    Returns:
        The weights; None for random ones, and for weights selected from the teacher.

    Raises:
        UsageError: there are no such weights, or they cannot be downloaded.
    """
    if request.init is not None:
        return None
    file = None if request.weights is None else Path(request.weights)
    return find_weights(request.model, file, pretrained=request.pretrained, published=modality.find_published)


def initial_request(record: RunRecord, run: Path, modality: TrainingModality) -> TrainConfig:
    """Return the request of a run that has no checkpoint yet, with the weights file that it started from.

    Raises:
        UsageError: the weights cannot be found, or have changed.
    """
    request = TrainConfig.from_record(record.request)
    if record.start is None:
        return request
    return request.with_weights(reload_weights(record.start, str(run), modality.find_published).file)
