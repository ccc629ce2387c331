"""The form of a file that engines without Gather and ArgMax run, checked in onnxruntime."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from engines import INPUTS, conversions_of, converted, errors, onnxruntime_engine, portable

from kdedge.pipelines.model_export import export_model
from kdedge_runtime import Model
from kdedge_runtime.devices import load_profile
from kdedge_runtime.modalities.image import require_image


def test_conversion_appears_whole_and_is_used_again(tmp_path: Path) -> None:
    file, calls = tmp_path / "m.onnx", list[Path]()
    file.write_bytes(b"one")
    folder = conversions_of(file, tmp_path / "kept") / "fp32"

    def convert(begun: Path) -> None:
        (begun / "a").write_text("half")
        calls.append(begun)
        if len(calls) == 1:
            raise KeyboardInterrupt
        (begun / "b").write_text("whole")

    with pytest.raises(KeyboardInterrupt):
        converted(folder, convert)
    assert not folder.exists() and not list(folder.parent.iterdir())
    for _ in range(2):
        assert {path.name for path in converted(folder, convert).iterdir()} == {"a", "b"}
    assert len(calls) == 2
    file.write_bytes(b"two")
    assert conversions_of(file, tmp_path / "kept") != folder.parent


def write_mobilenet(path: Path) -> str:
    """Write a factory of MobileNetV3, with its head of two dense layers but only two blocks, and return its name."""
    path.write_text(
        "from torchvision.models.mobilenetv3 import InvertedResidualConfig, MobileNetV3\n"
        "def make_model(num_classes=5):\n"
        "    blocks = [\n"
        "        InvertedResidualConfig(16, 3, 16, 16, True, 'RE', 2, 1, 1),\n"
        "        InvertedResidualConfig(16, 3, 48, 24, False, 'HS', 2, 1, 1),\n"
        "    ]\n"
        "    model = MobileNetV3(blocks, 32, num_classes=num_classes)\n"
        "    model.pretrained_cfg = {'input_size': (3, 64, 64)}\n"
        "    return model\n"
    )
    return f"{path}:make_model"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "has_product"), [("small:resnet8", True), ("mobilenet", False)])
def test_portable_form_has_the_map_as_one_product(name: str, has_product: bool, tmp_path: Path) -> None:
    if not has_product:
        name = write_mobilenet(tmp_path / "nets.py")
    file = export_model(name, pretrained=False, output=tmp_path / "m.onnx", profile=load_profile("generic")).fp32
    graph, weight = portable(file)
    assert not {"ArgMax", "Gather"} & {node.op_type for node in graph.graph.node}
    assert (weight is not None) is has_product
    spec = require_image(Model.load(file).metadata.input, name)
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    expected, actual = [], []
    for seed in range(INPUTS):
        image = spec.reference_sample(seed)[None]
        pixels = (image.astype(np.float32) / 255 - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32)
        logits, activations = session.run(None, {session.get_inputs()[0].name: pixels.transpose(0, 3, 1, 2)})
        saliency_map = None
        if weight is not None:
            cells = activations.shape[2] * activations.shape[3]
            saliency_map = np.einsum("c,nchw->nhw", weight[logits[0].argmax()] / cells, activations)
        expected.append(onnxruntime_engine(file).run(image))
        actual.append((logits, saliency_map))
    found = errors(expected, actual)
    assert found["same_class"] == INPUTS and found["logits"] < 1e-5
    assert found["map"] < 1e-5 if has_product else found["map"] is None
    assert np.abs(actual[0][0] - actual[1][0]).max() > 0
