"""Loss terms of regressions, compared with scikit-learn's coefficient of determination."""

import numpy as np
import pytest
import torch
from torch import Tensor

from kdedge.losses import LOSS_TERMS
from kdedge.losses.loss_inputs import LossInputs, ModelOutput

GENERATOR = torch.Generator().manual_seed(0)
TARGETS = 300 + 40 * torch.randn(64, 1, generator=GENERATOR)
VALUES = TARGETS + 15 * torch.randn(64, 1, generator=GENERATOR)
TAUGHT = TARGETS + 5 * torch.randn(64, 1, generator=GENERATOR)
VARIANCE = float(np.var(TARGETS.numpy()))


def term(name: str, values: Tensor, targets: Tensor = TARGETS) -> float:
    inputs = LossInputs(ModelOutput(values), ModelOutput(TAUGHT), targets, 4.0, target_variance=VARIANCE)
    return float(LOSS_TERMS[name].compute(inputs))


def test_relative_error_is_the_rest_of_r2() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="compared with scikit-learn")
    assert term("rse", VALUES) == pytest.approx(1 - metrics.r2_score(TARGETS, VALUES), rel=1e-4)
    assert term("rse", TARGETS) == 0


def test_teacher_is_compared_in_the_same_unit() -> None:
    expected = float(((VALUES - TAUGHT) ** 2).mean()) / VARIANCE
    assert term("rsekd", VALUES) == pytest.approx(expected, rel=1e-4)
    assert term("rsekd", TAUGHT) == 0 and term("rsekd", VALUES, TARGETS + 100) == pytest.approx(expected, rel=1e-4)
