"""Suggested student for a trained network."""

import pytest
from torch import nn

from kdedge.models.model_registry import build_model
from kdedge.models.model_spec import ModelSpec
from kdedge.models.series_network import SERIES_NETWORKS, SeriesNetwork
from kdedge.models.student_choice import smaller_student
from kdedge_runtime.modalities.image import ImageInput
from kdedge_runtime.modalities.timeseries import TimeseriesInput


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
    assert smaller_student(large.state_dict(), 10, ImageInput(32, 32, (0.5,) * 3, (0.5,) * 3)) == student
    if student is not None:
        small = build_model(ModelSpec(f"small:{student}", 10), 32)
        assert 2 * count(small) <= count(large)


@pytest.mark.parametrize(("teacher", "student"), [("wide", "series:small"), ("small", None)])
def test_student_for_time_series(teacher: str, student: str | None) -> None:
    large = SeriesNetwork(3, 4, SERIES_NETWORKS[teacher])
    spec = TimeseriesInput(("a", "b", "c"), 64, (0.0,) * 3, (1.0,) * 3)
    assert smaller_student(large.state_dict(), 4, spec) == student


def count(model: nn.Module) -> int:
    return sum(weights.numel() for weights in model.parameters())
