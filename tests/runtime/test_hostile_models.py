"""Malicious model files: one-line error, exit code 2 and no control characters."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from colour_model import SIDE, write_color_model
from onnx import TensorProto, helper, numpy_helper
from reference_files import with_reference_frames

from kdedge_runtime.cli.main import main
from kdedge_runtime.diagnostics.reference_frames import MAX_ROUNDING
from kdedge_runtime.errors import ModelFileError
from kdedge_runtime.metadata import Metadata, Outputs
from kdedge_runtime.modalities.image import ImageInput
from kdedge_runtime.model import Model
from kdedge_runtime.util.printable import printable, printable_json, printable_lines

SPEC = ImageInput(SIDE, SIDE, (0.0,) * 3, (1.0,) * 3)
HUGE = "1" + "0" * 400
STEERING = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
SOUND = {
    "logits": np.zeros((1, 3), np.float32),
    "saliency_map": np.zeros((1, 8, 8), np.float32),
    "explained_class": np.zeros(1, np.int64),
}


def write_graph(path: Path, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], **types: int) -> Path:
    """Write a graph whose output shapes are all symbolic."""
    of = {"logits": TensorProto.FLOAT, "saliency_map": TensorProto.FLOAT, "explained_class": TensorProto.INT64} | types
    shapes = {"logits": ["N", "K"], "saliency_map": ["N", "h", "w"], "explained_class": ["M"]}
    outputs = [helper.make_tensor_value_info(name, of[name], shape) for name, shape in shapes.items()]
    inputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", SIDE, SIDE, 3])]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "hostile", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, Metadata(("a", "b", "c"), SPEC, Outputs("cam", None, None, 8, 8)).to_props())
    onnx.save(model, path)
    return path


def write_constants(path: Path, **changes: np.ndarray) -> Path:
    """Write a graph with constant outputs."""
    values = SOUND | changes
    nodes = [helper.make_node("Identity", [f"{name}_value"], [name]) for name in values]
    kinds = {"U": TensorProto.STRING, "f": TensorProto.FLOAT, "i": TensorProto.INT64}
    return write_graph(
        path,
        nodes,
        {f"{name}_value": value.astype(object) if value.dtype.kind == "U" else value for name, value in values.items()},
        **{name: kinds[value.dtype.kind] for name, value in values.items()},
    )


def refused(path: Path, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """Run a model file and return its one-line error."""
    code = main([str(path), "--source", str(photos), "--jsonl", str(tmp_path / "lines")])
    printed = capfd.readouterr().err
    assert code == ModelFileError.exit_code, printed
    assert len(re.findall(r"^error: ", printed, re.MULTILINE)) == 1 and "Traceback" not in printed
    assert not STEERING.search(printed)
    return printed


def test_valid_graph_is_loaded(tmp_path: Path) -> None:
    Model.load(write_constants(tmp_path / "a.onnx"))


@pytest.mark.parametrize(
    ("output", "value"),
    [
        ("explained_class", np.array([99])),
        ("explained_class", np.array([-7])),
        ("explained_class", np.zeros(0, np.int64)),
        ("explained_class", np.array([0, 1])),
        ("explained_class", np.array([0.0], np.float32)),
        ("logits", np.zeros((0, 3), np.float32)),
        ("logits", np.zeros((1, 2), np.float32)),
        ("logits", np.array([["a", "b", "c"]])),
        ("saliency_map", np.zeros((1, 0, 0), np.float32)),
        ("saliency_map", np.zeros((2, 8, 8), np.float32)),
        ("saliency_map", np.array([[["x"]]])),
    ],
)
def test_invalid_outputs_are_rejected(
    output: str, value: np.ndarray, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert output in refused(write_constants(tmp_path / "a.onnx", **{output: value}), photos, tmp_path, capfd)


def test_failing_pass_is_rejected(photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    nodes = [
        helper.make_node("Reshape", ["image", "shape"], ["odd\x1b[2Jname"], name="node\x1b]0;title\x07"),
        helper.make_node("Cast", ["odd\x1b[2Jname"], ["logits"], to=TensorProto.FLOAT),
        *(helper.make_node("Identity", [f"{name}_value"], [name]) for name in ("saliency_map", "explained_class")),
    ]
    constants = {f"{name}_value": SOUND[name] for name in ("saliency_map", "explained_class")}
    path = write_graph(tmp_path / "a.onnx", nodes, constants | {"shape": np.array([7, 3])})
    assert "cannot run" in refused(path, photos, tmp_path, capfd)


def test_endless_loop_is_terminated(
    photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdedge_runtime.model._FIRST_PASS_S", 0.5)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["go_on_out"]),
            helper.make_node("Add", ["sum", "sum"], ["sum_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("count", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, [1, 3]),
        ],
        [
            helper.make_tensor_value_info("go_on_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_out", TensorProto.FLOAT, [1, 3]),
        ],
    )
    names = ("saliency_map", "explained_class")
    nodes = [
        helper.make_node("Loop", ["times", "yes", "start"], ["logits"], body=body),
        *(helper.make_node("Identity", [f"{name}_value"], [name]) for name in names),
    ]
    constants = {f"{name}_value": SOUND[name] for name in names}
    constants |= {"times": np.array(2**60), "yes": np.array(True), "start": np.zeros((1, 3), np.float32)}
    path = write_graph(tmp_path / "a.onnx", nodes, constants)
    assert "did not finish a pass" in refused(path, photos, tmp_path, capfd)


def test_oversized_map_is_rejected(photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    names = ("logits", "explained_class")
    nodes = [
        helper.make_node("Expand", ["zero", "sides"], ["saliency_map"]),
        *(helper.make_node("Identity", [f"{name}_value"], [name]) for name in names),
    ]
    constants = {f"{name}_value": SOUND[name] for name in names}
    constants |= {"zero": np.zeros((1, 1, 1), np.float32), "sides": np.array([1, 2001, 2000])}
    assert "saliency_map" in refused(write_graph(tmp_path / "a.onnx", nodes, constants), photos, tmp_path, capfd)
    props = Metadata(("a", "b", "c"), SPEC, Outputs("cam", None, None, 2001, 2000)).to_props()
    with pytest.raises(ModelFileError, match="invalid map"):
        Metadata.from_props(props)


def changed(key: str, old: str, new: str) -> dict[str, str]:
    """Return metadata of a valid file with one value replaced."""
    props = Metadata(("red", "green", "blue"), SPEC, Outputs("cam", None, "gap-linear", 8, 8), {"weights": "int8"})
    values = props.to_props()
    assert old in values[key]
    return values | {key: values[key].replace(old, new)}


@pytest.mark.parametrize(
    ("key", "old", "new"),
    [
        ("kdedge.temperature", "1.0", HUGE),
        ("kdedge.temperature", "1.0", "-Infinity"),
        ("kdedge.temperature", "1.0", "true e5"),
        ("kdedge.input", '"mean": [0.0', f'"mean": [{HUGE}'),
        ("kdedge.input", '"std": [1.0', '"std": [Infinity'),
        ("kdedge.input", '"crop_fraction": 1.0', f'"crop_fraction": {HUGE}'),
        ("kdedge.input", '"name": "image"', '"name": "im\\ud800age"'),
        ("kdedge.input", '"height": 64', f'"height": {HUGE}'),
        ("kdedge.outputs", '"cam"', '"c\\udfffam"'),
        ("kdedge.outputs", '"map_height": 8', f'"map_height": {HUGE}'),
        ("kdedge.quantization", '"int8"', '"int\\ud8008"'),
        ("kdedge.lineage", "{}", '{"a": "\\ud800"}'),
    ],
)
def test_extreme_metadata_is_rejected(
    key: str, old: str, new: str, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_color_model(tmp_path / "a.onnx", props=changed(key, old, new))
    printed = refused(path, photos, tmp_path, capfd)
    assert "damaged" in printed and len(printed) < 1000


@pytest.mark.parametrize(
    "changes",
    [
        {"frames": float("inf")},
        {"frames": int(HUGE)},
        {"explained_class": [int(HUGE)] * 4},
        {"explained_class": [float("inf")] * 4},
        {"logits_rounding": float("inf")},
        {"logits_rounding": float("nan")},
        {"logits_rounding": int(HUGE)},
        {"logits_rounding": -0.01},
        {"logits_rounding": MAX_ROUNDING * 1.01},
        {"map_rounding": MAX_ROUNDING * 1.01},
    ],
)
def test_file_cannot_disable_its_self_test(
    changes: dict[str, Any], write_model: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["self-test", str(with_reference_frames(write_model(), **changes))]) == ModelFileError.exit_code
    assert "damaged" in capfd.readouterr().err


def test_predictions_are_checked_at_maximum_tolerance(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Check that the maximum tolerance does not hide predictions off by a sixth of the range."""
    path = write_color_model(tmp_path / "a.onnx")
    model = onnx.load(path)
    sound = with_reference_frames(path)
    metadata = Model.load(sound).metadata
    assert metadata.reference_frames is not None
    reference = metadata.reference_frames | {"logits_rounding": MAX_ROUNDING}
    weights = next(item for item in model.graph.initializer if item.name == "weights")
    wrong = numpy_helper.to_array(weights)[[1, 2, 0]]
    weights.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(wrong), "weights"))
    helper.set_model_props(
        model, replace(metadata, reference_frames=reference, quantization={"weights": "int8"}).to_props()
    )
    onnx.save(model, path)
    assert main(["self-test", str(path)]) == 4
    assert "answers" in capfd.readouterr().err


@pytest.mark.parametrize(
    "changes",
    [
        {"outputs": Outputs("ca\x1b[2Jm", None, None, 8, 8)},
        {"quantization": {"weights": "in\x1b[2Jt8", "format": "q\x9b1m"}},
        {"input": replace(SPEC, name="image\x1b[2J")},
        {"labels": ("re\x1b[2Jd", "gre\nen", "bl\u202eue")},
    ],
)
def test_untrusted_text_never_contains_control_characters(
    changes: dict[str, Any], photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    metadata = Metadata(("red", "green", "blue"), SPEC, Outputs("cam", None, None, 8, 8))
    path = write_color_model(tmp_path / "a.onnx", props=replace(metadata, **changes).to_props())
    for options in ([], ["--class", "zzz"]):
        main([str(path), "--source", str(photos), "--jsonl", "-", *options])
        out, err = capfd.readouterr()
        assert not STEERING.search(out + err)
        assert "\u202e" not in out + err
        for line in out.splitlines():
            json.loads(line)


def test_file_name_cannot_forge_log_lines(
    model_path: Path, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (photos / "a\nerror: forged\x1b[2J.png").write_text("no picture")
    assert main([str(model_path), "--source", str(photos), "--jsonl", "-"]) == 0
    out, err = capfd.readouterr()
    assert not STEERING.search(out + err)
    assert not any(line.startswith("error: forged") for line in err.splitlines())
    assert r"a\nerror: forged\x1b[2J.png" in err


def test_escaping_keeps_other_characters() -> None:
    assert printable("Größe, кошка, 猫 – “ok”") == "Größe, кошка, 猫 – “ok”"
    assert printable("a\x1b\x85\n\u2028\ud800") == r"a\x1b\x85\n\u2028\ud800"
    assert printable_lines("a\x1b\nb\r") == "a\\x1b\nb\\r"
    text = "é\x85\x9b\u202e猫\n"
    assert json.loads(printable_json({"a": text})) == {"a": text}
    assert printable_json("é\x9b") == '"é\\u009b"'


def test_onnxruntime_messages_are_escaped(tmp_path: Path) -> None:
    """Check that the error quotes a node's unknown operator with control characters escaped."""
    path = write_graph(tmp_path / "model.onnx", [helper.make_node("Un\x02known", [], [*SOUND])], {})
    with pytest.raises(ModelFileError, match=r"Un\\x02known") as caught:
        Model.load(path)
    assert not STEERING.search(str(caught.value))


def test_an_error_escapes_its_message() -> None:
    assert str(ModelFileError("a\x1b[2J\r\nb")) == r"a\x1b[2J\r\nb"


@pytest.mark.parametrize(("name", "damaged"), [(b"logits", b"log\xb3ts"), (b"\x01N", b"\x01\xce")])
def test_a_name_without_utf8_is_refused(name: bytes, damaged: bytes, tmp_path: Path) -> None:
    """Refuse tensors and symbolic dimensions whose names are not UTF-8."""
    path = tmp_path / "model.onnx"
    path.write_bytes(write_constants(path).read_bytes().replace(name, damaged))
    with pytest.raises(ModelFileError):
        Model.load(path)
