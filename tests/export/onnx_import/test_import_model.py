"""Import of third-party files: what is kept and what is added."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from import_checks import HALF, assert_close, cam, pictures, predictions
from onnx import TensorProto, helper, numpy_helper
from onnx_toys import SIDE, body, head, weights, write

from kdedge_export.onnx_import import PixelInput, add_saliency
from kdedge_runtime import Model
from kdedge_runtime.diagnostics.reference_frames import ReferenceFrames
from kdedge_runtime.errors import KdedgeError, ModelFileError


class TestKeptContent:
    def test_inputs_and_outputs_are_kept_and_the_map_is_appended(self, tmp_path: Path) -> None:
        path = write(tmp_path / "theirs.onnx", body() + head())
        done = add_saliency(path, tmp_path / "ours.onnx")
        session = ort.InferenceSession(done.path)
        assert [item.name for item in session.get_inputs()] == ["x"]
        assert [item.name for item in session.get_overridable_initializers()] == ["class_index"]
        assert [item.name for item in session.get_outputs()] == ["logits", "saliency_map", "explained_class"]
        assert session.get_outputs()[1].shape == ["N", 8, 8]
        for n in (1, 4):
            feed = {"x": pictures(n, n)}
            ours = predictions(done.path, feed)
            assert np.array_equal(ours["logits"], predictions(path, feed)["logits"])
            assert_close(ours["saliency_map"], cam(done.path, feed, weights()["fc"]))

    def test_metadata_is_kept(self, tmp_path: Path) -> None:
        path = write(tmp_path / "theirs.onnx", body() + head())
        model = onnx.load(path)
        helper.set_model_props(model, {"author": "somebody"})
        onnx.save_model(model, path)
        done = add_saliency(path, tmp_path / "ours.onnx")
        props = {item.key: item.value for item in onnx.load(done.path).metadata_props}
        assert props["author"] == "somebody"
        assert json.loads(props["kdedge.outputs"]) == {
            "method": "hirescam",
            "target_layer": "features",
            "head": "GAP+Linear",
            "map_height": 8,
            "map_width": 8,
            "display": {"shift_x": 0.0, "shift_y": 0.0, "typical_contrast": None},
        }

    @pytest.mark.parametrize("pixels", [None, HALF], ids=["map only", "with preprocessing"])
    def test_importing_again_is_idempotent(self, tmp_path: Path, pixels: PixelInput | None) -> None:
        path = write(tmp_path / "theirs.onnx", body() + head())
        first = add_saliency(path, tmp_path / "first.onnx", pixels=pixels)
        second = add_saliency(first.path, tmp_path / "second.onnx")
        assert second.was_explained and not first.was_explained
        assert second.outputs == first.outputs
        assert second.path.read_bytes() == first.path.read_bytes()

    @pytest.mark.parametrize("pixels", [None, HALF], ids=["map only", "with preprocessing"])
    @pytest.mark.parametrize("stated", ["nonsense", "[]", "{}", '{"method": 1}', '{"method": "x", "target_layer": []}'])
    def test_damaged_map_metadata_is_rejected(self, tmp_path: Path, stated: str, pixels: PixelInput | None) -> None:
        done = add_saliency(write(tmp_path / "theirs.onnx", body() + head()), tmp_path / "explained.onnx")
        model = onnx.load(done.path)
        helper.set_model_props(model, {"kdedge.outputs": stated})
        onnx.save(model, done.path)
        with pytest.raises(ModelFileError, match="damaged"):
            add_saliency(done.path, tmp_path / "again.onnx", pixels=pixels)
        assert not (tmp_path / "again.onnx").exists()

    def test_preprocessing_can_be_added_later(self, tmp_path: Path) -> None:
        path = write(tmp_path / "theirs.onnx", body() + head())
        explained = add_saliency(path, tmp_path / "explained.onnx")
        later = add_saliency(explained.path, tmp_path / "later.onnx", pixels=HALF)
        at_once = add_saliency(path, tmp_path / "at once.onnx", pixels=HALF)
        images = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
        one, two = (Model.load(done.path).predict(images) for done in (later, at_once))
        assert np.array_equal(one.saliency_map, two.saliency_map)

    @pytest.mark.parametrize("later", [False, True], ids=["in one step", "in two steps"])
    @pytest.mark.parametrize("is_open", [False, True], ids=["fixed size", "dynamic size"])
    def test_imported_file_passes_its_self_test(self, tmp_path: Path, is_open: bool, later: bool) -> None:
        path = write(tmp_path / "theirs.onnx", body() + head())
        side_px = None
        if is_open:
            model, side_px = onnx.load(path), SIDE
            for axis, name in ((2, "height"), (3, "width")):
                model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
            onnx.save_model(model, path)
        if later:
            path = add_saliency(path, tmp_path / "explained.onnx", side_px=side_px).path
        done = add_saliency(path, tmp_path / "ours.onnx", pixels=HALF, side_px=side_px)
        model = Model.load(done.path)
        reference = ReferenceFrames.of(model)
        found_outputs = model.predict(reference.samples)
        assert reference.saliency_map is not None and reference.saliency_map.shape[1:] == (8, 8)
        assert_close(found_outputs.logits, reference.logits)
        assert_close(found_outputs.saliency_map, reference.saliency_map)

    def test_failed_check_writes_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from kdedge_export.onnx_graph.autodiff import reverse_mode

        monkeypatch.setitem(reverse_mode._RULES, "Gemm", lambda step: {step.node.input[0]: step.node.input[0]})
        path = write(tmp_path / "theirs.onnx", body() + head())
        with pytest.raises(KdedgeError, match="does not match the behavior of its logits"):
            add_saliency(path, tmp_path / "ours.onnx")
        assert sorted(item.name for item in tmp_path.iterdir()) == ["theirs.onnx"]


@pytest.mark.parametrize("later", [False, True], ids=["in one step", "in two steps"])
def test_display_of_the_maps_is_measured(tmp_path: Path, later: bool) -> None:
    """Three strided convolutions with odd kernels and padding displace by half a position minus a sixteenth."""
    path, rng = tmp_path / "theirs.onnx", np.random.default_rng(0)
    bump, sizes = np.outer([1, 2, 1], [1, 2, 1]) / 16, (3, 8, 8, 8)
    nodes, constants, last = [], {"fc": rng.normal(size=(8, 4))}, "x"
    for number, (inputs, outputs) in enumerate(pairwise(sizes)):
        constants[f"kernel{number}"] = rng.normal(size=(outputs, inputs, 1, 1)) * bump
        nodes.append(
            helper.make_node("Conv", [last, f"kernel{number}"], [f"conv{number}"], strides=[2, 2], pads=[1, 1, 1, 1])
        )
        nodes.append(helper.make_node("Relu", [f"conv{number}"], [f"relu{number}"]))
        last = f"relu{number}"
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "fc"], ["logits"]),
    ]
    ports = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
        for name, shape in (("x", ["N", 3, 64, 64]), ("logits", ["N", 4]))
    ]
    stored = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    opset = [helper.make_opsetid("", 17)]
    onnx.save_model(helper.make_model(helper.make_graph(nodes, "net", *ports, stored), opset_imports=opset), path)
    if later:
        path = add_saliency(path, tmp_path / "explained.onnx").path
    done = add_saliency(path, tmp_path / "ours.onnx", pixels=HALF)
    display = Model.load(done.path).metadata.outputs.display
    assert display.shift == pytest.approx((-0.5 + 1 / 16,) * 2, abs=0.12)
    assert display.typical_contrast is not None and display.typical_contrast > 0
    assert done.outputs.display == display and done.metadata is not None and done.metadata.outputs == done.outputs


def test_import_needs_no_torch(tmp_path: Path) -> None:
    path = write(tmp_path / "theirs.onnx", body() + head())
    program = (
        "import sys; sys.modules['torch'] = None\n"
        f"sys.argv = ['kdedge', 'export', {str(path)!r}, '--mean', '0.5', '--std', '1/255']\n"
        "from kdedge.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert Model.load(tmp_path / "theirs.explained.onnx").has_map
