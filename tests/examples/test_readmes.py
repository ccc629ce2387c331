"""The Python code of the READMEs, and of two pages, runs as it stands.

Trainings are short.
"""

import ast
import functools
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
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


def test_corrected_rows_are_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas", reason="the page appends rows with pandas")
    monkeypatch.chdir(tmp_path)
    Path("credit.csv").write_text("job,age,answer\nclerk,031,yes\n")
    Path("more.csv").write_text("age,job,answer,town\n40.50,NA,no,Ulm\n")
    (block,) = code(".github/docs/how-to/feedback.md")
    exec(block, {})
    assert Path("credit-2.csv").read_text() == "job,age,answer,town\nclerk,031,yes,\nNA,40.50,no,Ulm\n"


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


def last_code(page: str) -> str:
    """Return the last Python code of a page, which predicts one sample on a device."""
    return code(page)[-1]


def test_one_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    times = np.arange(8_000) / 8_000
    for label, hertz in {"no": 400, "yes": 2_000}.items():
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(12):
            sound = 0.5 * np.sin(2 * np.pi * (hertz + 10 * number) * times)
            soundfile.write(tmp_path / "data" / label / f"{number}.wav", sound, 8_000)
    monkeypatch.chdir(tmp_path)
    run = kdedge.train("data", "small:resnet8", epochs=4, device="cpu")
    shutil.copy(kdedge.export(run).fp32, "model.onnx")
    shutil.copy("data/yes/0.wav", "yes.wav")
    exec(last_code(".github/docs/how-to/audio.md"), {})
    answer, shape = capsys.readouterr().out.splitlines()[-2:]
    assert answer.startswith(("yes ", "no ")) and 0.5 <= float(answer.split()[1]) <= 1
    outputs = Model.load("model.onnx").metadata.outputs
    assert shape == str((outputs.map_height, outputs.map_width))


def test_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"{number},{'abc'[number % 3]},{'yes' if number % 3 else 'no'}" for number in range(90)]
    for name in ("data.csv", "applications.csv"):
        (tmp_path / name).write_text("\n".join(["age [years],job,answer", *lines]) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    run = kdedge.train("data.csv", "mlp:8", target="answer", epochs=20, device="cpu")
    shutil.copy(kdedge.export(run).fp32, "model.onnx")
    exec(last_code(".github/docs/how-to/tabular.md"), {})
    answer, first, second = capsys.readouterr().out.splitlines()[-3:]
    assert answer.startswith("no ")
    assert {ast.literal_eval(line)["column"] for line in (first, second)} == {"age", "job"}
    assert ast.literal_eval(first)["column"] == "job"
