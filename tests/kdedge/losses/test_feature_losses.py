"""Losses of features, compared with plain loops in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from loss_references import random_inputs, term
from torch import nn

from kdedge.losses.loss_inputs import ModelOutput


class TestAttentionTransfer:
    def test_equals_the_plain_sum(self) -> None:
        inputs = random_inputs()
        expected = 0.0
        for ours, theirs in zip(inputs.student.features, inputs.teacher_output.features, strict=True):
            squares = []
            for a, b in zip(ours.double().numpy(), theirs.double().numpy(), strict=True):
                qa, qb = (np.mean(x**2, axis=0).ravel() for x in (a, b))
                squares.append((qa / np.linalg.norm(qa) - qb / np.linalg.norm(qb)) ** 2)
            expected += float(np.mean(squares))
        assert term("at", inputs).item() == pytest.approx(expected, rel=1e-4)

    def test_invariant_to_number_and_scale_of_channels(self) -> None:
        features = torch.randn(2, 3, 5, 5)
        inputs = random_inputs()
        twice = replace(
            inputs,
            student=ModelOutput(inputs.student.logits, features=(features,)),
            teacher=ModelOutput(inputs.teacher_output.logits, features=(7 * features.repeat(1, 2, 1, 1),)),
        )
        assert term("at", twice).item() == pytest.approx(0, abs=1e-10)


class TestHints:
    def test_equals_the_mean_square_over_layers(self) -> None:
        inputs = random_inputs()
        expected = np.mean(
            [
                float(np.mean((ours.double().numpy() - theirs.double().numpy()) ** 2))
                for ours, theirs in zip(inputs.projected, inputs.teacher_output.features, strict=True)
            ]
        )
        assert term("hint", inputs).item() == pytest.approx(expected, rel=1e-5)

    def test_larger_features_are_average_pooled(self) -> None:
        inputs = random_inputs()
        ours, theirs = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 4, 4)
        inputs = replace(
            inputs, projected=(ours,), teacher=ModelOutput(inputs.teacher_output.logits, features=(theirs,))
        )
        pooled = ours.reshape(3, 4, 4, 2, 4, 2).mean(dim=(3, 5))
        assert term("hint", inputs).item() == pytest.approx((pooled - theirs).square().mean().item(), rel=1e-5)


@pytest.mark.parametrize("name", ["at", "hint"])
def test_unpaired_layer_is_an_error(name: str) -> None:
    inputs = random_inputs()
    fewer = replace(inputs.teacher_output, features=inputs.teacher_output.features[:1])
    with pytest.raises(ValueError, match="zip"):
        term(name, replace(inputs, teacher=fewer))


def test_projection_can_be_learned() -> None:
    """A 1×1 convolution can map the student's channels to the teacher's."""
    torch.manual_seed(0)
    features = torch.randn(4, 3, 4, 4)
    mixing = nn.Conv2d(3, 6, 1)
    inputs = random_inputs()
    taught = ModelOutput(inputs.teacher_output.logits, features=(mixing(features).detach(),))
    projection = nn.Conv2d(3, 6, 1)
    optimizer = torch.optim.Adam(projection.parameters(), 0.1)
    for _ in range(200):
        optimizer.zero_grad()
        term("hint", replace(inputs, teacher=taught, projected=(projection(features),))).backward()
        optimizer.step()
    assert torch.allclose(projection.weight, mixing.weight, atol=0.02)
