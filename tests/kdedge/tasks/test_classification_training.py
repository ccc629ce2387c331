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


def test_warning_about_chance_names_a_cause_that_is_possible() -> None:
    def warning(top1: float, *, is_named: bool) -> str | None:
        return CLASSIFICATION.teacher_warning({"top1": top1}, ["a", "b", "c", "d", "e"], is_named=is_named)

    foreign, own = warning(0.21, is_named=False), warning(0.21, is_named=True)
    assert foreign is not None and "order" in foreign and "a, b, c" in foreign
    assert own is not None and "order" not in own and "longer" in own
    assert warning(0.9, is_named=True) is None
