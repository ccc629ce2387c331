"""Classification at training: targets of labeled and unlabeled images, confidence and the best epoch."""

import torch

from kdedge.data import UNLABELED
from kdedge.tasks.classification import CLASSIFICATION


def test_unlabeled_images_have_targets_of_zeros() -> None:
    targets = CLASSIFICATION.targets(torch.tensor([2, UNLABELED, 0]), 3)
    assert targets.dtype == torch.float32
    assert targets.tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]


def test_confidence_is_the_probability_of_the_top_class() -> None:
    logits = torch.log(torch.tensor([[0.2, 0.7, 0.1], [0.5, 0.25, 0.25]]))
    confidence = CLASSIFICATION.confidence(logits)
    assert confidence is not None and torch.allclose(confidence, torch.tensor([0.7, 0.5]))


def test_best_epoch_without_labels_has_the_highest_agreement() -> None:
    epochs = [{"val_agreement": 0.5, "val_map_pearson": 0.9}, {"val_agreement": 0.7, "val_map_pearson": 0.1}]
    assert max(epochs, key=CLASSIFICATION.merit) == epochs[1]
