"""What training says of answers and maps is what the report would say of them."""

import numpy as np
import pytest
import torch

from kdedge.distill.loop.evaluate import Beliefs, agreement_metrics
from kdedge_export.validate import Predictions, compare

TARGETS = torch.arange(12) % 4


def beliefs(seed: int, side: int) -> Beliefs:
    generator = torch.Generator().manual_seed(seed)
    return Beliefs(torch.randn(12, 4, generator=generator), torch.randn(12, side, side, generator=generator))


def as_report(beliefs: Beliefs) -> Predictions:
    maps = None if beliefs.maps is None else beliefs.maps.numpy()
    return Predictions(beliefs.logits.numpy(), maps, np.zeros(12, np.int64))


@pytest.mark.parametrize("side", [7, 14, 10])
def test_figures_are_those_of_the_report(side: int) -> None:
    student, teacher = beliefs(0, 7), beliefs(1, side)
    assert student.maps is not None and teacher.maps is not None
    student.maps[:3] = teacher.maps[:3].mean(dim=(1, 2), keepdim=True)  # lost
    student.maps[3], teacher.maps[3] = 1000.1, 0.7  # nothing to lose
    found = agreement_metrics(student, TARGETS, teacher)
    expected = compare(as_report(teacher), as_report(student), TARGETS.numpy())
    assert expected.maps is not None
    assert found["map_pearson"] == pytest.approx(expected.maps.pearson_mean, abs=1e-6)
    assert found["agreement"] == pytest.approx(expected.agreement)
    assert found["top1"] == pytest.approx(expected.top1_candidate)


def test_maps_that_are_all_constant_have_no_figure() -> None:
    student, teacher = beliefs(0, 7), beliefs(1, 7)
    flat = torch.ones(12, 7, 7)
    assert "map_pearson" not in agreement_metrics(Beliefs(student.logits, flat), TARGETS, Beliefs(teacher.logits, flat))
