"""Displacement and typical contrast of maps, against receptive-field arithmetic."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kdedge_export.metrics.map_displacement import displacement, measure_display
from kdedge_export.modalities.image import IMAGE
from kdedge_export.torch_export import export_graph, save_model, wrap_for_export
from kdedge_runtime import Metadata, Model
from kdedge_runtime.drawing.heatmap import UNMEASURED, MapDisplay, contrast
from kdedge_runtime.metadata import Outputs
from kdedge_runtime.modalities.image import ImageInput

SPEC = ImageInput(64, 64, (0.5,) * 3, (0.25,) * 3)
LABELS = tuple("abcd")


def measured_display(model: Model) -> MapDisplay:
    return measure_display(model, IMAGE.display_samples(SPEC, 48), IMAGE.mirrored_axes)


def smooth_maps(displaced: float, axis: int, seed: int = 0) -> np.ndarray:
    """Sample bumps at random places with cells whose content is displaced, `[40, 8, 10]`."""
    rng = np.random.default_rng(seed)
    size = (8, 10)
    grids = [np.arange(side) + 0.5 + (displaced if at + 1 == axis else 0.0) for at, side in enumerate(size)]
    maps = np.zeros((40, *size))
    for saliency_map in maps:
        for _ in range(3):
            down, across = (np.exp(-((grid - rng.uniform(0, len(grid))) ** 2) / 3) for grid in grids)
            saliency_map += rng.normal() * np.outer(down, across)
    return maps.astype(np.float32)


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("displaced", [0.0, 0.3, -0.45])
def test_half_of_the_distance_to_mirrored_maps_is_the_displacement(axis: int, displaced: float) -> None:
    """Mirroring twice displaces the content to the other side."""
    maps, mirrored = smooth_maps(displaced, axis), smooth_maps(-displaced, axis)
    assert displacement(maps, mirrored, axis) == pytest.approx(displaced, abs=0.08)


def test_a_pattern_that_all_maps_share_is_no_displacement() -> None:
    maps, mirrored = smooth_maps(0.3, 2), smooth_maps(-0.3, 2)
    fixed = np.linspace(0, 40, 10, dtype=np.float32) ** 2 / 40
    assert displacement(maps + fixed, mirrored + fixed[::-1], 2) == pytest.approx(0.3, abs=0.08)


@pytest.mark.parametrize("distance", [0.0, 1.2])
def test_unrelated_and_far_displaced_maps_have_no_displacement(distance: float) -> None:
    maps = smooth_maps(distance, 2)
    mirrored = smooth_maps(-distance, 2, seed=0 if distance else 1)
    assert displacement(maps, mirrored, 2) == 0.0


def blurring_network(kernel: int, padding: int) -> nn.Module:
    """Build three strided convolutions with symmetric positive kernels: their centers are those of arithmetic."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 8), (8, 8), (8, 8)):
        layer = nn.Conv2d(inputs, outputs, kernel, 2, padding)
        bump = torch.tensor([1.0, 2.0, 1.0] if kernel == 3 else [1.0, 1.0])
        with torch.no_grad():
            mixing = torch.randn(outputs, inputs, 1, 1)
            layer.weight.copy_(mixing * torch.outer(bump, bump) / bump.sum() ** 2)
            layer.bias.zero_()
        layers += [layer, nn.ReLU()]
    return nn.Sequential(nn.Sequential(*layers), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, len(LABELS)))


def exported(network: nn.Module, path: Path, method: str = "hirescam") -> Model:
    deployed = wrap_for_export(network, SPEC, method)
    save_model(export_graph(deployed).model, Metadata(LABELS, SPEC, deployed.outputs), path)
    return Model.load(path)


@pytest.mark.parametrize(
    ("kernel", "padding", "expected"),
    [(3, 1, -0.5 + 1 / 16), (2, 0, 0.0), (3, 0, 0.0)],
    ids=["odd kernels", "even kernels", "odd kernels without padding"],
)
def test_displacement_is_that_of_receptive_field_arithmetic(
    tmp_path: Path, kernel: int, padding: int, expected: float
) -> None:
    """Araujo et al., Computing Receptive Fields of Convolutional Neural Networks, Distill, 2019."""
    if (kernel, padding) == (
        3,
        0,
    ):  # 64 px to 7 cells: cell j is centered at 8 j + 7.5 px, its middle at (j + 1/2) 64/7
        expected = float(np.mean([(8 * j + 7.5) * 7 / 64 - j - 0.5 for j in range(7)]))
    display = measured_display(exported(blurring_network(kernel, padding), tmp_path / "model.onnx"))
    assert display.shift == pytest.approx((expected, expected), abs=0.12)


def test_typical_contrast_is_that_of_maps_of_drawn_scenes(tmp_path: Path) -> None:
    network = blurring_network(2, 0)
    display = measured_display(exported(network, tmp_path / "model.onnx"))
    assert display.typical_contrast is not None
    with torch.no_grad():
        network[-1].weight *= 3
        network[-1].bias *= 3  # predictions stay
    tripled = measured_display(exported(network, tmp_path / "tripled.onnx"))
    assert tripled.typical_contrast == pytest.approx(3 * display.typical_contrast, rel=1e-3)
    wall = np.full((1, 64, 64, 3), 128, np.uint8)
    (on_a_wall,) = exported(network, tmp_path / "tripled.onnx").predict(wall).saliency_map
    assert contrast(on_a_wall) < 0.5 * tripled.typical_contrast


def test_a_file_without_a_map_has_no_display(tmp_path: Path) -> None:
    model = exported(blurring_network(2, 0), tmp_path / "model.onnx")
    bare = Metadata(LABELS, SPEC, Outputs("none"))
    assert measured_display(Model(model.path, bare, model.session)) == UNMEASURED


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("images", [1, 6])
def test_flat_maps_and_a_single_image_show_no_displacement(images: int) -> None:
    flat = np.zeros((images, 7, 7), dtype=np.float32)
    assert displacement(flat, flat, 2) == 0.0
