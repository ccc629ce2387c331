"""A validated model is described by its size and accuracy, one of two classes also by its area under the ROC curve."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from kdedge_export.metrics.confidence import Interval
from kdedge_export.metrics.torch_predictions import Predictions
from kdedge_export.tasks import EXPORT_TASKS
from kdedge_export.validation.model_facts import Origin, model_facts


def found(logits: np.ndarray) -> Predictions:
    return Predictions(logits.astype(np.float32), None, np.zeros(len(logits), np.int64))


@pytest.mark.parametrize("seed", [0, 1])
def test_auroc_equals_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 2, 80)
    logits = (4 * (rng.normal(size=(80, 2)) + 0.8 * np.eye(2)[targets])).round() / 4  # with ties
    facts = model_facts(torch.nn.Identity(), Origin("net", bytes=1), found(logits), targets, EXPORT_TASKS["classify"])
    assert facts.auroc == pytest.approx(roc_auc_score(targets, logits[:, 1] - logits[:, 0]))
    assert facts.auroc_interval is not None
    assert 0.5 < facts.auroc_interval.low < facts.auroc < facts.auroc_interval.high < 1
    assert facts.accuracy == (logits.argmax(axis=1) == targets).mean()


def test_interval_of_auroc_is_drawn_within_the_classes() -> None:
    targets = np.arange(100) < 2
    classify, origin = EXPORT_TASKS["classify"], Origin("net", bytes=1)
    separate = found(np.stack([~targets, targets], axis=1))
    facts = model_facts(torch.nn.Identity(), origin, separate, targets.astype(np.int64), classify)
    assert facts.auroc == 1 and facts.auroc_interval == Interval(1.0, 1.0)
    alone = model_facts(torch.nn.Identity(), origin, separate, (np.arange(100) < 1).astype(np.int64), classify)
    assert alone.auroc is not None and alone.auroc_interval is None


def test_auroc_needs_two_classes_with_samples_of_both() -> None:
    logits, classify = np.eye(2)[[0, 1, 1]], EXPORT_TASKS["classify"]
    origin = Origin("net", bytes=1)
    for some, targets in ((logits, None), (logits, np.ones(3, np.int64)), (np.eye(3), np.array([0, 1, 2]))):
        facts = model_facts(torch.nn.Identity(), origin, found(some), targets, classify)
        assert (facts.auroc, facts.auroc_interval) == (None, None)
    values = model_facts(
        torch.nn.Identity(), origin, found(logits[:, :1]), np.array([0.5, 1, 1]), EXPORT_TASKS["regression"]
    )
    assert values.auroc is None and values.accuracy is not None
