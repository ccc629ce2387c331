"""The Python example in the README runs."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdedge_runtime import Prediction

README = Path(__file__).parents[2] / "runtime" / "README.md"


@pytest.mark.skipif(not README.exists(), reason="the tests are not in a checkout")
def test_python_example_runs(model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    shutil.copy(model_path, tmp_path / "model.onnx")
    Image.new("RGB", (80, 60), "red").save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    variables: dict[str, object] = {}
    exec(code, variables)
    prediction = variables["prediction"]
    assert isinstance(prediction, Prediction) and 1 / 3 <= prediction.score <= 1
    assert prediction.saliency_map is not None and np.isfinite(prediction.saliency_map).all()
    assert (tmp_path / "explained.png").is_file()
