"""Files of other frameworks, with and without a saliency map; read-only."""

from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_toys import Small, exported_by_torch
from PIL import Image
from typer.testing import CliRunner

from kdedge_export.scenes import render_scene


@pytest.fixture(scope="session")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File written by PyTorch's exporter; read-only."""
    torch.manual_seed(0)
    return exported_by_torch(Small(), tmp_path_factory.mktemp("theirs") / "net.onnx")


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "scene <1>.png"
    Image.fromarray(render_scene("bottle", np.random.default_rng(0), 96).image).save(path)
    return path


@pytest.fixture(scope="session")
def runnable(theirs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with map and preprocessing, as `kdedge run` accepts it."""
    from kdedge_export.onnx_import import PixelInput, add_saliency

    path = tmp_path_factory.mktemp("runnable") / "ours.onnx"
    pixels = PixelInput((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    add_saliency(theirs, path, pixels=pixels, labels=("bottle & cap", "cup", "fork"))
    return path


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory, theirs: Path, scenes: Path) -> Path:
    """fp32 file with labels and an int8 file next to it; read-only."""
    from kdedge.cli.app import app

    folder = tmp_path_factory.mktemp("pair")
    labels = folder / "labels.txt"
    labels.write_text("\n".join(sorted(path.name for path in (scenes / "val").iterdir())))
    words = ["export", theirs, "-o", folder / "ours.onnx", "--mean", "0.5", "--std", "0.5"]
    words += ["--labels", labels, "--quantize", "--data", scenes]
    assert CliRunner().invoke(app, [str(word) for word in words]).exit_code == 0
    return folder / "ours.onnx"
