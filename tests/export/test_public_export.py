"""Public functions of the package on a module: misuse is named, and the module is unchanged."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import kdedge_export
from kdedge_export.verified_export import ExportedFile
from kdedge_runtime import ImageInput, Model
from kdedge_runtime.errors import UsageError

SPEC, LABELS = ImageInput(32, 32, (0.5,) * 3, (0.25,) * 3), ("a", "b", "c")


@pytest.fixture(scope="module")
def module() -> nn.Module:
    torch.manual_seed(0)
    body = (nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, len(LABELS)))


@pytest.fixture(scope="module")
def exported(module: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> ExportedFile:
    module.train()
    module[1].eval()  # type: ignore[index]
    module[0].requires_grad_(False)  # type: ignore[index]
    return kdedge_export.export(module, SPEC, LABELS, tmp_path_factory.mktemp("public") / "model.onnx")


def test_modes_and_gradient_flags_are_kept(module: nn.Module, exported: ExportedFile) -> None:
    assert module.training and not module[1].training  # type: ignore[index]
    assert [parameter.requires_grad for parameter in module.parameters()] == [False, False, True, True, True, True]
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in module.modules())


def test_result_is_shown_without_its_graph(exported: ExportedFile) -> None:
    assert "map_error=" in repr(exported) and len(repr(exported)) < 400


def test_number_of_labels_must_fit_the_logits(module: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has 3 logits, but there are 2 labels"):
        kdedge_export.export(module, SPEC, LABELS[:2], tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(6, 32, 32, 3), (6, 64, 64, 3), (6, 3, 32, 32)], ids=str)
def test_calibration_samples_are_those_of_the_file(exported: ExportedFile, shape: tuple[int, ...]) -> None:
    samples = np.zeros(shape, np.float32 if shape == (6, 32, 32, 3) else np.uint8)
    with pytest.raises(UsageError, match=r"Expected uint8 \[N, 32, 32, 3\]"):
        kdedge_export.quantize(exported.path, samples)


def test_report_of_a_module_is_written(module: nn.Module, exported: ExportedFile, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    models = kdedge_export.Models(kdedge_export.exportable(module, SPEC), Model.load(exported.path))
    found = kdedge_export.validate(models, kdedge_export.ValidationSet(images, LABELS, None), quick=True)
    page, document = kdedge_export.write_report(*found, tmp_path / "report")
    assert "<html" in page.read_text("utf-8") and document.suffix == ".json"
