"""Maps of token-based networks, compared with PyTorch's autograd."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torchvision
from exported_nets import TOLERANCE, run, to_onnx
from small_nets import CLASSES, SIDE, hires_cam, inputs, relative_error
from token_nets import (
    EXPORTERS,
    NETS,
    PATCH,
    POSITIONS,
    WIDTH,
    MergesPatches,
    Planes,
    Transformer,
    WithoutPositions,
    planes,
    random,
    rows_first,
    torchvision_vit,
)
from torch import Tensor, nn

from kdedge_export.errors import HeadNotSupported
from kdedge_export.onnx_graph.graph_index import shapes_of
from kdedge_export.onnx_import import ExplainedFile, PixelInput, add_saliency
from kdedge_runtime import Model

WITH_BOTH = {"class token", "attention mask", "mean of the image tokens", "torchvision's"}
"""Networks tested with both exporters in every run; `make test-models` covers the others."""


def assert_explains(
    done: ExplainedFile, model: nn.Module, layer: str, how: Planes, count: int = 3, side: int = SIDE
) -> None:
    """Check logits, classes and maps of two batches, for the top-1 class and for a given one."""
    for seed in (1, 2):
        x = inputs(count, seed, side)
        logits = model(x).detach()
        for requested in (logits.argmax(1), torch.full((count,), 3)):
            feed = {} if requested[0] == logits[0].argmax() else {"class_index": np.array([3])}
            found = run(done.path, x, **feed)
            assert (found["output"] - logits).abs().max() <= 1e-5 * logits.abs().max().clamp_min(1)
            assert torch.equal(found["explained_class"], logits.argmax(1) if not feed else requested)
            expected = hires_cam(model, model.get_submodule(layer), x, found["explained_class"], planes=how)
            assert relative_error(found["saliency_map"], expected) <= TOLERANCE


class TestHiResCam:
    @pytest.mark.parametrize(
        ("net", "dynamo"),
        [
            pytest.param(net, dynamo, marks=[pytest.mark.models] if dynamo and net not in WITH_BOTH else [])
            for net in NETS
            for dynamo in (False, True)
        ],
    )
    def test_map_equals_autograd(self, tmp_path: Path, net: str, dynamo: bool) -> None:
        make, layer, how = NETS[net]
        model = random(make)
        done = add_saliency(to_onnx(model, tmp_path / "theirs.onnx", dynamo=dynamo), tmp_path / "ours.onnx")
        assert done.outputs.method == "hirescam"
        assert_explains(done, model, layer, how)
        assert done.outputs.map_height == run(done.path, inputs(1, 1))["saliency_map"].shape[1]

    @EXPORTERS
    def test_only_the_class_token_row_is_differentiated_after_the_last_attention(
        self, tmp_path: Path, dynamo: bool
    ) -> None:
        make, _, _ = NETS["class token"]
        path = to_onnx(random(make), tmp_path / "theirs.onnx", dynamo=dynamo)
        graph = onnx.load(add_saliency(path, tmp_path / "ours.onnx").path)
        added = [item for item in graph.graph.node if item.name.startswith("kdedge/") and item.op_type == "MatMul"]
        shapes = shapes_of(graph, [item.output[0] for item in added], {"input": inputs(3, 1).numpy()}, "ours")
        dense = {shape for shape in shapes.values() if len(shape) == 3}
        assert dense == {(3, 1, 32), (3, 1, WIDTH), (3, 1 + POSITIONS**2, WIDTH)}  # the last: queries, keys and values

    @EXPORTERS
    def test_map_equals_that_of_the_source_model(self, tmp_path: Path, dynamo: bool) -> None:
        from kdedge_export.saliency import make_explained

        model = random(torchvision_vit)
        done = add_saliency(to_onnx(model, tmp_path / "theirs.onnx", dynamo=dynamo), tmp_path / "ours.onnx")
        explained = make_explained(model, inputs(1, 0), "hirescam")
        found = run(done.path, x := inputs(3, 1))
        expected = explained.class_maps(explained(x), found["explained_class"][:, None])[:, 0].detach()
        assert relative_error(found["saliency_map"], expected) <= TOLERANCE

    @pytest.mark.parametrize("net", ["class token", "torchvision's", "mean of the image tokens"])
    def test_fixed_batch_is_supported(self, tmp_path: Path, net: str) -> None:
        make, layer, how = NETS[net]
        model = random(make)
        done = add_saliency(to_onnx(model, tmp_path / "theirs.onnx", batch=1), tmp_path / "ours.onnx")
        assert_explains(done, model, layer, how, count=1)

    @pytest.mark.parametrize("opset", [11, 14])
    @pytest.mark.parametrize("net", ["class token", "mean of the image tokens"])
    def test_decomposed_norms_and_activations_are_supported(self, tmp_path: Path, net: str, opset: int) -> None:
        """Opsets before 17 decompose them, as does Hugging Face's exporter for vision transformers."""
        make, layer, how = NETS[net]
        model = random(make)
        path = to_onnx(model, tmp_path / "theirs.onnx", opset_version=opset)
        assert not {"LayerNormalization", "Gelu"} & {node.op_type for node in onnx.load(path).graph.node}
        assert_explains(add_saliency(path, tmp_path / "ours.onnx"), model, layer, how)

    def test_attention_operator_is_supported(self, tmp_path: Path) -> None:
        """The default exporter uses the operator in opset 23; the file keeps it."""
        make, layer, how = NETS["attention mask"]
        model = random(make)
        path = to_onnx(model, tmp_path / "theirs.onnx", dynamo=True, opset_version=23)
        done = add_saliency(path, tmp_path / "ours.onnx")
        for file in (path, done.path):
            assert sum(node.op_type == "Attention" for node in onnx.load(file).graph.node) == 2
        assert_explains(done, model, layer, how)

    @pytest.mark.parametrize("net", ["class token", "mean of the image tokens"])
    def test_dynamic_axes_are_supported(self, tmp_path: Path, net: str) -> None:
        """Hugging Face's exporter declares dynamic axes although position embeddings fix the size."""
        make, layer, how = NETS[net]
        model = random(make)
        axes = {
            "input": dict(enumerate(("batch_size", "num_channels", "height", "width"))),
            "output": {0: "batch_size"},
        }
        path = to_onnx(model, tmp_path / "theirs.onnx", opset_version=14, dynamic_axes=axes)
        done = add_saliency(path, tmp_path / "ours.onnx", side_px=SIDE)
        assert_explains(done, model, layer, how)
        half = PixelInput((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        runnable = Model.load(add_saliency(path, tmp_path / "runs.onnx", side_px=SIDE, pixels=half).path)
        images = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
        found = run(done.path, torch.from_numpy(images / 127.5 - 1).permute(0, 3, 1, 2).float())
        assert relative_error(torch.from_numpy(runnable.predict(images).saliency_map), found["saliency_map"]) <= 1e-3

    def test_dynamic_size_is_supported_for_averaged_tokens(self, tmp_path: Path) -> None:
        """Without position embeddings the number of tokens is dynamic, which a class token does not support."""
        axes = {"input": {0: "batch", 2: "height", 3: "width"}, "output": {0: "batch"}}
        for prefix, head, layer in ((0, "mean", "norm"), (1, "first", "blocks.1.norm1")):
            model = random(lambda prefix=prefix, head=head: WithoutPositions(prefix, head))
            path = to_onnx(model, tmp_path / "theirs.onnx", dynamic_axes=axes)
            if head == "first":
                with pytest.raises(HeadNotSupported, match="its map works only at 32 px"):
                    add_saliency(path, tmp_path / "ours.onnx", side_px=SIDE)
                continue
            done = add_saliency(path, tmp_path / "ours.onnx", side_px=SIDE)
            assert done.outputs.map_height is None
            for side in (SIDE, SIDE + PATCH):
                assert_explains(done, model, layer, planes(prefix, side // PATCH), side=side)

    def test_dynamic_size_is_supported_for_channels_last_positions(self, tmp_path: Path) -> None:
        axes = {"input": {0: "batch", 2: "height", 3: "width"}, "output": {0: "batch"}}
        model = random(MergesPatches)
        path = to_onnx(model, tmp_path / "theirs.onnx", dynamic_axes=axes)
        done = add_saliency(path, tmp_path / "ours.onnx", side_px=SIDE)
        wide = inputs(2, 3, SIDE + 2 * PATCH)[:, :, : SIDE + PATCH]
        found = run(done.path, wide)
        expected = hires_cam(model, model.norm, wide, found["explained_class"], planes=planes(0, POSITIONS + 1))
        assert found["saliency_map"].shape[1:] == (POSITIONS + 1, POSITIONS + 2)
        assert relative_error(found["saliency_map"], expected) <= TOLERANCE

    def test_dynamic_size_fixed_by_weights_is_supported(self, tmp_path: Path) -> None:
        """Only the example distinguishes height from width, and no other size is possible."""
        make, layer, how = NETS["patches by reshaping"]
        model = random(make)
        axes = {"input": {0: "batch", 2: "height", 3: "width"}, "output": {0: "batch"}}
        path = to_onnx(model, tmp_path / "theirs.onnx", dynamic_axes=axes)
        assert_explains(add_saliency(path, tmp_path / "ours.onnx", side_px=SIDE), model, layer, how)

    def test_inputs_and_outputs_are_kept_and_importing_again_is_idempotent(self, tmp_path: Path) -> None:
        model = random(NETS["class token"][0])
        path = to_onnx(model, tmp_path / "theirs.onnx")
        done = add_saliency(path, tmp_path / "ours.onnx")
        session = ort.InferenceSession(done.path)
        assert [item.name for item in session.get_inputs()] == ["input"]
        assert [item.name for item in session.get_outputs()] == ["output", "saliency_map", "explained_class"]
        assert session.get_outputs()[1].shape == ["batch", POSITIONS, POSITIONS]
        again = add_saliency(done.path, tmp_path / "again.onnx")
        assert again.was_explained and again.path.read_bytes() == done.path.read_bytes()

    def test_half_precision_is_supported(self, tmp_path: Path) -> None:
        model, (make, layer, how) = random(NETS["class token"][0]), NETS["class token"]
        path = to_onnx(random(make).half(), tmp_path / "theirs.onnx", opset_version=17)
        done, x = add_saliency(path, tmp_path / "ours.onnx"), inputs(3, 1)
        found = run(done.path, x.half())
        assert found["saliency_map"].dtype == torch.float32
        expected = hires_cam(model, model.get_submodule(layer), x, found["explained_class"], planes=how)
        assert relative_error(found["saliency_map"], expected) <= 2e-2

    @pytest.mark.parametrize("net", ["class token", "torchvision's"])
    def test_quantized_file_keeps_its_predictions(self, tmp_path: Path, net: str) -> None:
        """The derivative reads dequantized tensors, since another reader of a result disables the integer kernel."""
        from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

        class Images(CalibrationDataReader):
            def __init__(self) -> None:
                self.rest = iter([{"input": inputs(4, seed).numpy()} for seed in range(4)])

            def get_next(self) -> dict[str, np.ndarray] | None:
                return next(self.rest, None)

        path = to_onnx(random(NETS[net][0]), tmp_path / "theirs.onnx", opset_version=17)
        kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        quantize_static(path, tmp_path / "int8.onnx", Images(), per_channel=True, **kinds)
        done = add_saliency(tmp_path / "int8.onnx", tmp_path / "ours.onnx")
        whole = add_saliency(path, tmp_path / "float.onnx")
        x, requested = inputs(3, 9), np.array([2])
        assert done.outputs.method == "hirescam" and done.output_error == 0
        assert torch.equal(run(done.path, x)["output"], run(tmp_path / "int8.onnx", x)["output"])
        maps = (
            run(item.path, x, exact_sums=True, class_index=requested)["saliency_map"].flatten(1)
            for item in (done, whole)
        )
        for ours, expected in zip(*maps, strict=True):
            assert torch.corrcoef(torch.stack([ours, expected]))[0, 1] >= 0.9

    def test_target_tokens_can_be_named(self, tmp_path: Path) -> None:
        model = random(NETS["class token"][0])
        path = to_onnx(model, tmp_path / "theirs.onnx")
        first = "/blocks/blocks.0/norm1/LayerNormalization_output_0"
        done = add_saliency(path, tmp_path / "ours.onnx", target=first)
        assert done.outputs.target_layer == first
        assert_explains(done, model, "blocks.0.norm1", planes(1))


REAL: dict[str, tuple[int, str, Planes]] = {
    "vit_tiny_patch16_224": (224, "blocks.11.norm1", planes(1, 14)),
    "vit_wee_patch16_reg1_gap_256": (256, "norm", planes(1, 16)),
    "vit_base_patch16_siglip_224": (224, "norm", planes(0, 14)),
    "deit_tiny_distilled_patch16_224": (224, "blocks.11.norm1", planes(2, 14)),
    "deit3_small_patch16_224": (224, "blocks.11.norm1", planes(1, 14)),
    "cait_xxs24_224": (224, "blocks_token_only.1.norm1", planes(1, 14)),
    "swin_tiny_patch4_window7_224": (224, "norm", rows_first),
    "mixer_s32_224": (224, "norm", planes(0, 7)),
    "levit_128s": (224, "stages", planes(0, 4)),
    "efficientformer_l1": (224, "norm", planes(0, 7)),
    "mobilevit_xxs": (256, "final_conv", lambda maps: maps),
    "fastvit_t8": (256, "final_conv", lambda maps: maps),
    "torchvision:vit_b_32": (224, "encoder.layers.encoder_layer_11.ln_1", planes(1, 7)),
    "torchvision:swin_t": (224, "permute", lambda maps: maps),
}


class TestRealNetworks:
    @pytest.mark.models
    @pytest.mark.timeout(1200)
    @EXPORTERS
    @pytest.mark.parametrize("name", REAL)
    def test_maps_of_real_networks_equal_autograd(self, tmp_path: Path, name: str, dynamo: bool) -> None:
        side, layer, how = REAL[name]
        timm = pytest.importorskip("timm")
        source, _, plain = name.rpartition(":")
        make = torchvision.models.get_model if source else timm.create_model
        model = random(lambda: make(plain, num_classes=CLASSES), std=None)
        path = to_onnx(model, tmp_path / "theirs.onnx", side, dynamo=dynamo)
        done = add_saliency(path, tmp_path / "ours.onnx")
        assert done.outputs.method == "hirescam"
        assert_explains(done, model, layer, how, count=2, side=side)


class TestErrors:
    def test_tokens_without_a_grid_are_rejected(self, tmp_path: Path) -> None:
        class Drops(Transformer):
            def tokens(self, x: Tensor) -> Tensor:
                return self.patches(x).flatten(2).transpose(1, 2)[:, 1:] + self.position[:, 2:]

        path = to_onnx(random(lambda: Drops(1)), tmp_path / "theirs.onnx")
        with pytest.raises(
            HeadNotSupported,
            match=r"or tokens \[N, T, C\] in row-major order \(found .*\[N, 15, 24\].* "
            r"The last spatial features are \S+, 4 × 4 positions, and 2 attentions after them",
        ):
            add_saliency(path, tmp_path / "ours.onnx")

    def test_named_tokens_without_positions_are_rejected(self, tmp_path: Path) -> None:
        path = to_onnx(random(NETS["class token"][0]), tmp_path / "theirs.onnx")
        flat = next(node for node in onnx.load(path).graph.node if node.op_type == "Reshape").output[0]
        with pytest.raises(HeadNotSupported, match=r"spatial positions of .* \[2, 24, 16\] cannot be followed"):
            add_saliency(path, tmp_path / "ours.onnx", target=flat)
