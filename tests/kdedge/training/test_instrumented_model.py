"""Maps in training equal the exported ones, also for differentiated heads."""

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from training_toys import CLASSES, SIDE, Listener, write_flattening

from kdedge.config.train_config import TrainConfig
from kdedge.models.code_trust import allow_typed
from kdedge.models.model_registry import build_model
from kdedge.models.model_spec import ModelSpec
from kdedge.training.compute_device import choose_device
from kdedge.training.instrumented_model import InstrumentedModel
from kdedge.training.teachers.teacher import NetworkTeacher
from kdedge.training.training_run import start_run
from kdedge_export.torch_export import wrap_for_export
from kdedge_runtime.modalities.image import ImageInput

SPEC = ImageInput(SIDE, SIDE, (0.5, 0.4, 0.3), (0.25, 0.2, 0.3))
CPU = choose_device("cpu")


@pytest.fixture
def network(tmp_path: Path) -> torch.nn.Module:
    torch.manual_seed(0)
    name = write_flattening(tmp_path / "nets.py")
    allow_typed(name)
    return build_model(ModelSpec(name, len(CLASSES)), SIDE)


@pytest.fixture
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (4, SIDE, SIDE, 3), dtype=torch.uint8, generator=generator)


def test_maps_in_training_equal_the_exported_ones(network: torch.nn.Module, images: torch.Tensor) -> None:
    watched = InstrumentedModel(network, SPEC, CPU)
    classes = torch.tensor([[0], [1], [2], [0]])
    watched.eval()
    with_gradients = watched(images, classes)
    with torch.no_grad():
        without = watched(images, classes)
    logits, maps, _ = wrap_for_export(network, SPEC)(images, classes[:, 0])
    for prediction in (with_gradients, without):
        torch.testing.assert_close(prediction.logits, logits, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(prediction.maps[:, 0], maps, rtol=1e-4, atol=1e-7)
    assert with_gradients.maps.requires_grad and not without.maps.requires_grad
    assert watched.map_size == (SIDE // 4, SIDE // 4)


def test_frozen_teacher_explains_all_top_classes(network: torch.nn.Module, images: torch.Tensor) -> None:
    teacher = NetworkTeacher(InstrumentedModel(network, SPEC, CPU), CPU)
    prediction = teacher(images, 3)
    assert prediction.maps.shape == (4, 3, SIDE // 4, SIDE // 4) and not prediction.maps.requires_grad
    alone = teacher(images, prediction.classes[:, 1:2])
    torch.testing.assert_close(alone.maps[:, 0], prediction.maps[:, 1])


def test_no_differentiation_without_maps(network: torch.nn.Module, images: torch.Tensor) -> None:
    watched = InstrumentedModel(network.eval(), SPEC, CPU)
    with torch.no_grad():
        prediction = watched(images)
    assert prediction.maps is None and not prediction.logits.requires_grad


def test_half_precision_keeps_maps(network: torch.nn.Module, images: torch.Tensor) -> None:
    half = replace(CPU, bf16=True)
    watched = InstrumentedModel(network.eval(), SPEC, half)
    classes = torch.tensor([[0], [1], [2], [0]])
    exact = watched(images, classes).maps
    with half.autocast():
        prediction = watched(images, classes)
    assert prediction.maps.dtype == prediction.logits.dtype == torch.float32
    correlation = torch.corrcoef(torch.stack([prediction.maps.flatten(), exact.flatten()]))[0, 1]
    assert float(correlation.detach()) > 0.99
    prediction.maps.square().sum().backward()
    assert network.features[0].weight.grad.any()


def test_compiled_steps_reject_differentiated_heads(network: torch.nn.Module) -> None:
    watched = InstrumentedModel(network, SPEC, replace(CPU, compiled=True))
    assert watched.explained is None
    assert watched.unexplained is not None and "Remove --compile" in watched.unexplained


def test_student_with_differentiated_head_learns_the_teachers_maps(
    scenes: Path, teacher_run: Path, tmp_path: Path
) -> None:
    student = write_flattening(tmp_path / "nets.py")
    request = TrainConfig(str(scenes), student, teacher=(str(teacher_run),), loss="ce,map:20", epochs=3, batch_size=8)
    record = start_run(request, tmp_path / "run", Listener(), "cpu")
    assert record.result is not None
    assert 0 < record.result["last"]["val_map_pearson"] <= 1


def test_class_token_models_use_attention_for_few_classes(images: torch.Tensor) -> None:
    """Each class needs a backward pass through all blocks, in training and in the exported file."""
    torch.manual_seed(0)
    options = {"img_size": SIDE, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 7}
    network = timm.models.VisionTransformer(**options)
    torch.nn.init.normal_(network.head.weight)
    prediction = InstrumentedModel(network.eval(), SPEC, CPU)(images, 32)
    assert prediction.maps.shape == (4, 4, SIDE // 8, SIDE // 8)
    deployed = wrap_for_export(network, SPEC)
    assert deployed.outputs.method == "gradient-attention"
    for column in range(4):
        _, maps, _ = deployed(images, prediction.classes[:, column])
        torch.testing.assert_close(prediction.maps[:, column], maps, rtol=1e-4, atol=1e-7)
