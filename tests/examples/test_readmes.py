"""The Python code of the READMEs, and of two pages, runs as it stands.

Trainings are short.
"""

import functools
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_examples import CLASSES, SIDE, network, scenes, write_theirs

import kdedge
from kdedge_runtime import ImageInput, Model

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def quick_exports(operators_listed_once: None) -> None:
    """Use fast exports for all networks."""


def code(page: str) -> list[str]:
    """Return the Python code of a page."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.DOTALL | re.MULTILINE)


def test_overview(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, targets = scenes(8)
    for index, (image, target) in enumerate(zip(images, targets, strict=True)):
        folder = tmp_path / "data" / ("val" if index % 4 == 3 else "train") / CLASSES[target]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index}.png")
    Image.fromarray(images[0]).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    kdedge.train("data", "small:resnet8", epochs=1)
    monkeypatch.setattr(kdedge, "distill", functools.partial(kdedge.distill, epochs=1), raising=False)
    workstation, device = code("README.md")
    names: dict[str, Any] = {}
    exec(workstation, names)
    shutil.copy(names["files"].quantized["int8"].path, "model.onnx")
    exec(device, names)
    assert names["explanation"].saliency_map.ndim == 3
    (runtime,) = code("runtime/README.md")
    exec(runtime, names)
    assert names["model"].session.get_session_options().intra_op_num_threads == 3


def test_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_theirs(tmp_path / "theirs.onnx")
    names: dict[str, Any] = {
        "module": network(),
        "input_spec": ImageInput(SIDE, SIDE, (0.5,) * 3, (0.25,) * 3),
        "labels": CLASSES,
        "calibration_samples": scenes(4)[0],
    }
    (block,) = code("export/README.md")
    exec(block, names)
    assert Model.load("model.int8.onnx").has_map
    assert names["explained"].outputs.method == "hirescam"
