"""The model that `kdedge run` uses without a model file."""

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
from PIL import Image
from training_toys import Outcome

from kdedge_runtime import Model

SHIPPED = files("kdedge.models") / "shipped"
FILE = Path(str(SHIPPED / "efficientnet_lite0.int8.onnx"))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.radial_gradient("L").convert("RGB").save(tmp_path / "image.png")
    return tmp_path / "image.png"


def test_shipped_model_is_quantized_explained_and_attributed() -> None:
    model = Model.load(FILE)
    assert model.has_map and model.metadata.quantization is not None and model.metadata.reference_frames is not None
    assert len(model.metadata.labels) == 1000
    assert "Apache License 2.0" in (SHIPPED / "README.md").read_text(encoding="utf-8")


def test_run_without_a_model_file_uses_it(command: Callable[..., Outcome], image: Path) -> None:
    done = command("run", "--source", str(image), "--jsonl", "-")
    assert done.code == 0
    frame, summary = (json.loads(line) for line in done.out.splitlines())
    assert frame["label"] in Model.load(FILE).metadata.labels and frame["heat"] is not None
    assert summary["summary"]["explained"] == 1


def test_run_with_a_model_file_uses_that(command: Callable[..., Outcome], exported_run: Path, image: Path) -> None:
    done = command("run", str(exported_run / "model.onnx"), "--source", str(image), "--jsonl", "-")
    assert done.code == 0
    assert json.loads(done.out.splitlines()[0])["label"] in Model.load(exported_run / "model.onnx").metadata.labels
