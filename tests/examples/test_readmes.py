"""The Python code of the READMEs, and of two pages, runs as it stands.

Trainings are short.
"""

import ast
import functools
import inspect
import re
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image
from test_examples import CLASSES, SIDE, network, scenes, write_theirs

import kdedge
import kdedge_export
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
    assert names["prediction"].saliency_map.ndim == 2
    (runtime,) = code("runtime/README.md")
    exec(runtime, names)
    assert names["model"].session.get_session_options().intra_op_num_threads == 3
    assert names["prediction"].label in CLASSES and Path("explained.png").is_file()


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


@pytest.mark.parametrize("package", [kdedge, kdedge_export], ids=lambda package: package.__name__)
def test_calls_in_package_docstrings_fit_their_signatures(package: ModuleType) -> None:
    (example,) = re.findall(r"^```\n(.*?)^```", package.__doc__ or "", re.DOTALL | re.MULTILINE)
    calls = {
        ast.unparse(node.func): node
        for node in ast.walk(ast.parse(example))
        if isinstance(node, ast.Call) and ast.unparse(node.func).removeprefix(f"{package.__name__}.").isidentifier()
    }
    assert calls
    for name, call in calls.items():
        keywords = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg is not None}
        inspect.signature(getattr(package, name.removeprefix(f"{package.__name__}."))).bind(*call.args, **keywords)
