"""Suggested student for a trained network."""

import pytest
from torch import nn

from kdedge.models.model_registry import build_model
from kdedge.models.model_spec import ModelSpec
from kdedge.models.student_choice import smaller_student


@pytest.mark.parametrize(
    ("teacher", "student"),
    [
        ("torchvision:resnet18", "resnet10w16"),
        ("small:resnet44", "resnet10w16"),
        ("small:resnet32", "resnet8"),  # resnet10w16 has two thirds of its parameters
        ("small:resnet10w16", "resnet8"),
        ("small:resnet14", "resnet8"),
        ("small:resnet10w8", None),
        ("small:resnet8", None),
    ],
)
def test_largest_student_of_at_most_half_the_size(teacher: str, student: str | None) -> None:
    large = build_model(ModelSpec(teacher, 10), 32)
    assert smaller_student(large.state_dict(), 10) == student
    if student is not None:
        small = build_model(ModelSpec(f"small:{student}", 10), 32)
        assert 2 * count(small) <= count(large)


def count(model: nn.Module) -> int:
    return sum(weights.numel() for weights in model.parameters())
